"""Two processes (gloo): equal parameters everywhere, and the mathematics of one process with the whole batch."""

import json
import os
from pathlib import Path
from unittest import mock

import distributed_worker
import processes
import pytest
import torch
from accelerate.commands.launch import launch_command, launch_command_parser
from backbones import save_encoder
from safetensors.torch import load_file
from transformers import AutoModel

from arccse_hf.data.collator import pad_views
from arccse_hf.inference.evaluate import evaluate
from arccse_hf.sentence_transformers import ArcConLoss, CachedArcConLoss
from arccse_hf.training import script

HERE = Path(__file__).parents[1]
CONFIGS = HERE.parent / "configs" / "accelerate"


def launch(*command, **more):
    """Runs a command that starts two processes on the CPU, in this environment and `more`."""
    environment = {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"} | more
    done = processes.python("-m", *command, **environment)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What both processes saved: `results[rank][mode]`. One launch runs all modes, because launching is slow."""
    folder = tmp_path_factory.mktemp("distributed")
    done = processes.python(HERE / "distributed_worker.py", folder, processes=2)
    assert done.returncode == 0, done.stderr[-4000:]
    results = [torch.load(folder / f"{rank}.pt") for rank in range(2)]
    assert [result["world_size"] for result in results] == [2, 2]
    return results


@pytest.mark.parametrize(
    "mode",
    "pairs triplets uneven uneven-cached uneven-order uneven-order-cached last uneven-lora uneven-lora-cached".split(),
)
def test_two_processes_train_as_one_with_the_whole_batch(results, mode, tmp_path):
    """The same weights, log and measurements, however many rows and triplets each has; with a gradient cache too."""
    first, second = (result[mode] for result in results)
    alone = distributed_worker.train(tmp_path, mode.removesuffix("-cached"))
    start = distributed_worker.tiny_model().state_dict()
    assert max((weight - start[name]).abs().max() for name, weight in alone["weights"].items()) > 1e-2
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
        torch.testing.assert_close(weight, alone["weights"][name], atol=1e-6, rtol=0, msg=name)
    assert first["metrics"] == second["metrics"] == pytest.approx(alone["metrics"], rel=1e-4)
    assert first["log"] == second["log"]
    for line, expected in zip(first["log"], alone["log"], strict=True):
        assert line == pytest.approx(expected, rel=1e-4, abs=1e-6)  # rounding depends on the number of threads
    assert ("triplet_loss" in first["log"][0]) == (mode != "pairs")
    assert first["reductions"] == second["reductions"] == distributed_worker.STEPS


def test_processes_differ_in_the_triplets_that_cost_something_and_call_the_model_once_all_the_same(results):
    """In a micro-step, one process embeds none of its triplets again, one some, one all; or it has no triplet."""
    first, second = (result["uneven-order"] for result in results)
    assert first["calls"] == second["calls"] == len(distributed_worker.UNEVEN)
    assert [len(result["costly"]) for result in (first, second)] == [5, 4]  # the second one has no triplet in the third

    def again(costly, triplets):
        return "none" if costly == 0 else "all" if 2 * costly > triplets else "some"

    pairs = {(again(*one), again(*other)) for one, other in zip(first["costly"][:2], second["costly"][:2], strict=True)}
    assert pairs == {("some", "all"), ("none", "some")}


def test_processes_agree_on_faults_that_reach_one_of_them(results):
    """A loss that is not finite and SIGTERM: all stop, or leave the step out, and go on exactly."""
    first, second = (result["faults"] for result in results)
    assert first["stop"] == second["stop"] and first["stop"].startswith("the loss is not finite at step 2: ")
    assert first["skip"] == second["skip"] == (1, distributed_worker.STEPS)
    assert first["stop finite"] and first["skip finite"] and second["skip finite"]
    assert first["status"] == second["status"] == 143 and first["step"] == second["step"] == 2
    assert first["damaged"] == second["damaged"] and "checkpoint-2: optimizer.pt is missing" in first["damaged"]
    assert first["full"] == second["full"] > 0 and first["left"] == second["left"] == []
    for name, weight in first["whole"].items():
        torch.testing.assert_close(first["resumed"][name], weight, atol=1e-7, rtol=0, msg=name)
        assert torch.equal(first["resumed"][name], second["resumed"][name])


def test_processes_draw_dropout_masks_of_their_own(results):
    first, second = (result["pairs"]["random"] for result in results)
    assert first != second


def test_processes_share_out_the_shuffled_rows_all_the_same(results):
    rows = sorted(distributed_worker.rows(hard_negatives=False)["anchor"])
    epochs = [first + second for first, second in zip(*(result["order"] for result in results), strict=True)]
    assert [sorted(epoch) for epoch in epochs] == [rows] * 4
    assert epochs[0] != epochs[1]


def test_the_batches_of_two_processes_have_uneven_rows_and_triplets():
    anchors = distributed_worker.rows(hard_negatives=False)["anchor"]
    triplets = [[sum(len(anchors[row]) >= 15 for row in part) for part in parts] for parts in distributed_worker.UNEVEN]
    assert all(len(first) != len(second) for first, second in distributed_worker.UNEVEN)
    assert all(first != second for first, second in triplets)
    assert any(0 in counts and sum(counts) > 1 for counts in triplets)


def test_without_gathering_each_process_has_only_its_own_negatives(results, tmp_path):
    """The mean is over the rows of both all the same."""
    first, second = (result["uneven-local"]["weights"] for result in results)
    model = distributed_worker.tiny_model()
    rows = distributed_worker.rows(hard_negatives=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=distributed_worker.LEARNING_RATE)
    for parts in distributed_worker.UNEVEN[: distributed_worker.STEPS]:
        for part in parts:
            texts = [[row[name] for name in ("anchor", "positive", "negative")] for row in rows.select(part)]
            loss = model(pair=pad_views(texts, 0)).arccon_loss
            (loss * len(part) / sum(map(len, parts))).backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, weight in model.state_dict().items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], weight, atol=1e-6, rtol=0, msg=name)


def test_gathered_keys_of_uneven_batches_carry_the_gradient_home(results):
    first, second = (result["gather"] for result in results)
    own = [torch.arange(6.0).reshape(3, 2), 10 + torch.arange(4.0).reshape(2, 2)]
    assert torch.equal(first["keys"], torch.cat([own[0], own[1]]))
    assert torch.equal(second["keys"], torch.cat([own[1], own[0]]))
    # Each process weighs the rows it sees by 1, 2, 3 ...; a row's gradient is the sum of its weights on both.
    assert first["gradient"][:, 0].tolist() == [1 + 3, 2 + 4, 3 + 5]
    assert second["gradient"][:, 0].tolist() == [4 + 1, 5 + 2]


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("kind", [ArcConLoss, CachedArcConLoss])
def test_the_loss_for_sentence_transformers_is_that_of_the_whole_batch(results, kind, columns):
    """Each process has half of the rows as anchors, and the keys of both; DDP averages the gradients."""
    whole = distributed_worker.arccon(kind, distributed_worker.arccon_columns()[:columns])
    halves = [result["arccon"][f"{kind.__name__}-{columns}"] for result in results]
    assert halves[0]["loss"] != halves[1]["loss"]
    torch.testing.assert_close((halves[0]["loss"] + halves[1]["loss"]) / 2, whole["loss"], atol=1e-6, rtol=1e-6)
    for half in halves:
        torch.testing.assert_close(half["gradient"], whole["gradient"], atol=1e-6, rtol=1e-5)


@pytest.fixture
def sharded_runs(tmp_path, tokenizer, sentences):
    """A function that gives the script's arguments for a run of that name: 4 steps, one checkpoint after 2."""
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    save_encoder(tmp_path / "encoder", tokenizer, initializer_range=0.5, **no_dropout)
    # Pairs that differ: without dropout, two equal views have a cosine of 1, where rounding decides about the margin.
    pairs = [f"{sentence},{sentence.partition(' ')[2]}\n" for sentence in sentences]
    (tmp_path / "pairs.csv").write_text("anchor,positive\n" + "".join(pairs))
    backwards = [" ".join(reversed(sentence.split())) for sentence in sentences]
    scored = zip(backwards[:10], backwards[5:15], range(10), strict=True)
    (tmp_path / "scored.csv").write_text(
        "sentence1,sentence2,score\n" + "".join(f"{a},{b},{c}\n" for a, b, c in scored)
    )

    def command(name, processes, *more):
        return [
            "--model_name_or_path", str(tmp_path / "encoder"), "--train_file", str(tmp_path / "pairs.csv"),
            "--eval_data", str(tmp_path / "scored.csv"), "--output_dir", str(tmp_path / name), "--use_cpu", "True",
            "--per_device_train_batch_size", str(16 // processes), "--train_sampling_strategy", "sequential",
            "--max_steps", "4", "--eval_steps", "2", "--logging_steps", "1", "--learning_rate", "0.03",
            "--adam_epsilon", "0.1",  # the usual one makes a step of gradients that differ from 0 by rounding alone
            "--triplet_min_tokens", "15", "--triplet_margin", "0.3", "--pooling", "mean", "--projection", "mlp",
            "--load_best_model_at_end", "False", "--disable_tqdm", "True", *more,
        ]  # fmt: skip

    return command


def assert_runs_agree(folder, names):
    """All have the losses and the weights of the run `alone`, which moved them."""
    alone = load_file(folder / "alone" / "model.safetensors")
    start = load_file(folder / "encoder" / "model.safetensors")
    assert max((alone[name] - weight).abs().max() for name, weight in start.items()) > 0.01
    expected = losses(folder / "alone")
    assert len(expected) == 4
    for name in names:
        assert losses(folder / name) == pytest.approx(expected, abs=1e-5)
        weights = AutoModel.from_pretrained(folder / name).state_dict()
        for weight_name, weight in alone.items():
            torch.testing.assert_close(weights[weight_name], weight, atol=1e-5, rtol=0, msg=weight_name)


def launch_fsdp(mixed_precision, runs):
    """The script with each of some (kind of checkpoint, arguments), on two processes.

    `accelerate launch` reads the configuration and calls torch's launcher; the workers are forked in its place.
    """
    done = []

    def fork(given):
        count = int(given.nproc_per_node)
        done.append(processes.python(given.training_script, *given.training_script_args, processes=count))

    command = ["--config_file", str(CONFIGS / "fsdp.yaml"), "--num_processes", "2", "--mixed_precision"]
    command += [mixed_precision, str(HERE / "fsdp_worker.py"), json.dumps(runs)]
    with mock.patch("torch.distributed.run.run", fork), mock.patch.dict(os.environ, {"ACCELERATE_USE_CPU": "1"}):
        launch_command(launch_command_parser().parse_args(command))
    assert [end.returncode for end in done] == [0], done[0].stderr[-4000:]


def test_fsdp_with_the_shipped_configuration(tmp_path, sharded_runs):
    """FSDP 2 trains as one process does, resumes from whole or sharded checkpoints, and exports a model.

    A process often has no triplet.
    """
    kinds = ("FULL_STATE_DICT", "SHARDED_STATE_DICT")
    runs = []
    for kind in kinds:
        checkpoint = str(tmp_path / kind / "training" / "checkpoint-2")
        runs.append((kind, sharded_runs(kind, 2)))
        runs.append((kind, sharded_runs(f"{kind}-resumed", 2, "--resume_from_checkpoint", checkpoint)))
    launch_fsdp("no", runs)
    script.main(sharded_runs("alone", 1))
    for kind in kinds:
        assert (tmp_path / kind / "training" / "checkpoint-4" / "pytorch_model_fsdp_0").is_dir() == (
            kind == "SHARDED_STATE_DICT"
        )
    assert_runs_agree(tmp_path, [kind + resumed for kind in kinds for resumed in ("", "-resumed")])


@pytest.mark.extras
def test_fsdp_in_bfloat16_ends_with_the_best_checkpoint(tmp_path, sharded_runs):
    kinds = ("FULL_STATE_DICT", "SHARDED_STATE_DICT")
    best = ["--load_best_model_at_end", "True", "--metric_for_best_model", "geometry_uniformity"]
    launch_fsdp("bf16", [(kind, sharded_runs(kind, 2, *best)) for kind in kinds])
    script.main(sharded_runs("alone", 1))
    expected = losses(tmp_path / "alone")
    for kind in kinds:
        assert losses(tmp_path / kind) == pytest.approx(expected, rel=0.05)
        assert losses(tmp_path / kind) != pytest.approx(expected, rel=1e-4)
        weights = load_file(tmp_path / kind / "model.safetensors")
        assert {weight.dtype for weight in weights.values()} == {torch.float32}
        history = json.loads((tmp_path / kind / "training" / "trainer_state.json").read_text())["log_history"]
        after_2_steps, after_4_steps = (
            line["eval_geometry_uniformity"] for line in history if "eval_runtime" in line and line["step"] > 0
        )
        assert after_2_steps < after_4_steps
        # What was exported is what was best, but for the rounding of the training's evaluation: the embeddings of so
        # small an encoder are much alike, and so is their uniformity near 0.
        folder = str(tmp_path / kind)
        exported = evaluate(folder, "geometry", data=str(tmp_path / "scored.csv")).scores[folder]["geometry_uniformity"]
        assert abs(exported - after_2_steps) < 0.2 * abs(exported - after_4_steps), (after_2_steps, after_4_steps)


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_with_the_shipped_configuration(tmp_path, sharded_runs, stage):
    """As with FSDP; in bfloat16, as the configuration has it, the model at the end is in float32 all the same."""
    pytest.importorskip("deepspeed", reason="deepspeed is not installed")
    start = ["accelerate.commands.launch", "--config_file", str(CONFIGS / f"deepspeed-zero{stage}.yaml")]
    start += ["--num_processes", "2"]
    script = str(HERE.parent / "run_arccse.py")
    # Told of a CPU by accelerate's variable, accelerate would train without DeepSpeed, and say nothing.
    environment = {"DS_ACCELERATOR": "cpu", "ACCELERATE_USE_CPU": "0"}
    more = ["--optim", "adamw_torch"]
    exact = [*start, "--mixed_precision", "no", script]
    launch(*exact, *sharded_runs("whole", 2, *more), **environment)
    checkpoint = tmp_path / "whole" / "training" / "checkpoint-2"
    assert list(checkpoint.glob("global_step2/*optim_states.pt"))
    resume = ["--resume_from_checkpoint", str(checkpoint)]
    launch(*exact, *sharded_runs("resumed", 2, *more, *resume), **environment)
    script.main(sharded_runs("alone", 1, *more))
    assert_runs_agree(tmp_path, ["whole", "resumed"])

    launch(*start, script, *sharded_runs("bfloat16", 2, *more), **environment)
    assert losses(tmp_path / "bfloat16") == pytest.approx(losses(tmp_path / "alone"), rel=0.05)
    weights = load_file(tmp_path / "bfloat16" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def losses(folder):
    """Of every step, as the log gives them."""
    history = json.loads((folder / "training" / "trainer_state.json").read_text())["log_history"]
    return [line["loss"] for line in history if "loss" in line]
