"""What happens to long runs, done to short ones: values that are not finite, signals, full disks, too little memory."""

import errno
import multiprocessing
import os
import re
import resource
import signal
from collections import namedtuple

import pytest
import torch
from datasets import Dataset
from tiny import make_trainer
from transformers import TrainerCallback

from arccse_hf.errors import UserError
from arccse_hf.training import disk_space
from arccse_hf.training.checkpoints import check_checkpoint
from arccse_hf.training.stop_signals import TrainingStopped


@pytest.fixture
def rows(tokenizer, sentences):
    return Dataset.from_dict({"anchor": tokenizer(sentences)["input_ids"]})


@pytest.fixture
def trainer(tmp_path, rows, tokenizer):
    """Makes a trainer of 5 steps with a checkpoint every 2."""

    def make(name, **settings):
        defaults = {"max_steps": 5, "save_strategy": "steps", "save_steps": 2}
        return make_trainer(tmp_path / name, rows, tokenizer, **{**defaults, **settings})

    return make


class AtStep(TrainerCallback):
    """Does something at the beginning of a step."""

    def __init__(self, step, act):
        self.step, self.act = step, act

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step - 1:
            self.act()


def weights_of(trainer):
    return {name: weight.detach().clone() for name, weight in trainer.model.state_dict().items()}


def assert_equal(weights, expected):
    for name, weight in weights.items():
        assert torch.equal(weight, expected[name]), name


def checkpoints(folder):
    """The steps of the checkpoints in a folder, all of them whole and of finite weights."""
    for path in folder.glob("checkpoint-*"):
        check_checkpoint(path, checksums=True)
    return sorted(int(path.name.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*"))


def spoil_loss(trainer, steps, value=float("nan")):
    """Makes the loss of some steps (counted from 1) something else."""
    compute_loss = trainer.compute_loss
    trainer.compute_loss = lambda *args, **kwargs: (
        compute_loss(*args, **kwargs) * (value if trainer.state.global_step + 1 in steps else 1.0)
    )


def spoil_gradient(trainer, steps):
    """Makes the gradient of some steps infinite, and leaves the loss alone."""
    weight = next(trainer.model.parameters())
    weight.register_hook(
        lambda gradient: gradient + float("inf") if trainer.state.global_step + 1 in steps else gradient
    )


SPOILED = {
    "the loss is not finite at step 3": lambda trainer: spoil_loss(trainer, {3}),
    "the loss is not finite at step 3: ": lambda trainer: spoil_loss(trainer, {3}, float("inf")),
    "the norm of the gradient is not finite at step 3": lambda trainer: spoil_gradient(trainer, {3}),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_run_stops_where_a_value_is_not_finite(what, trainer, tmp_path):
    run = trainer("run", logging_nan_inf_filter=True, save_steps=1)
    SPOILED[what](run)
    with pytest.raises(
        UserError,
        match=f"{what}.*lower --learning_rate than 0.001; or go on from .*checkpoint-1, the last checkpoint before, "
        "with --on_nonfinite skip where",
    ):
        run.train()
    assert run.state.global_step == 2 and checkpoints(tmp_path / "run") == [1, 2]
    assert all(weight.isfinite().all() for weight in run.model.parameters())


@pytest.mark.parametrize("settings", [{}, {"bf16": True}, {"on_nonfinite": "skip"}])
def test_a_learning_rate_that_explodes_never_reaches_a_checkpoint(settings, trainer, tmp_path):
    settings |= {"lr_scheduler_type": "constant", "save_steps": 1, "max_grad_norm": 5.0}
    run = trainer("run", learning_rate=1e6, **settings)
    with pytest.raises(UserError, match="not finite .* with a lower --learning_rate than 1e.06.* --max_grad_norm 1"):
        run.train()
    assert all(step < run.state.global_step + 1 for step in checkpoints(tmp_path / "run"))
    resumed = trainer("run", learning_rate=1e-5, **settings)  # which has no effect
    with pytest.raises(UserError, match="Start anew .--overwrite_output_dir. with a lower --learning_rate than 1e.06"):
        resumed.train(resume_from_checkpoint=True)


def test_weights_that_are_not_finite_after_the_last_step_are_no_result(trainer, tmp_path):
    run = trainer("run", save_strategy="no")

    class Break(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                next(run.model.parameters()).data[3, 3] = float("nan")

    run.add_callback(Break())
    with pytest.raises(UserError, match="weights are not finite after step 5 .the first: .*word_embeddings.weight"):
        run.train()


@pytest.mark.parametrize("spoil", [spoil_loss, spoil_gradient])
def test_skip_leaves_the_batch_out_and_counts_it(spoil, trainer):
    run = trainer("run", on_nonfinite="skip", save_strategy="no")
    seen = {}
    run.add_callback(AtStep(3, lambda: seen.update(before=weights_of(run))))
    run.add_callback(AtStep(4, lambda: seen.update(after=weights_of(run))))
    spoil(run, {3})
    run.train()
    assert_equal(seen["after"], seen["before"])
    lines = [line for line in run.state.log_history if "loss" in line]
    assert [line.get("skipped_steps", 0) for line in lines] == [0, 0, 1, 1, 1]
    assert run.skipped_steps == 1
    assert torch.tensor([value for line in lines for value in line.values()]).isfinite().all()
    if spoil is spoil_loss:
        assert lines[2]["loss"] == lines[1]["loss"] and "grad_norm" not in lines[2]
    steps = {int(state["step"]) for state in run.optimizer.state.values()}
    assert steps == {4}


def test_a_last_step_that_is_left_out_is_no_good_end(trainer):
    run = trainer("run", on_nonfinite="skip", max_steps=2)
    spoil_loss(run, {2})
    with pytest.raises(UserError, match="the loss or the gradient is not finite at step 2"):
        run.train()


def test_steps_that_were_left_out_count_in_a_resumed_run(trainer, caplog):
    """The end is as bad as it was, five in succession are too many, and the advice names no checkpoint among them."""

    def train(resume, steps):
        run = trainer(
            "run", on_nonfinite="skip", max_steps=steps, save_steps=1, save_total_limit=None, max_grad_norm=5.0
        )
        spoil_loss(run, {3, 4, 5, 6, 7})
        run.train(resume_from_checkpoint=resume)

    for resume in (False, True):
        caplog.clear()
        with pytest.raises(UserError, match="is not finite at step 4: .*checkpoint-1,"):
            train(resume, 4)
        assert caplog.text.count("its batch is left out") == (0 if resume else 2)
    with pytest.raises(UserError, match="at step 7, nor was it in the 4 before: .*checkpoint-1,"):
        train(True, 8)


def test_skip_does_not_go_on_for_ever(trainer):
    run = trainer("run", on_nonfinite="skip", max_steps=30, save_strategy="no")
    spoil_loss(run, set(range(4, 30)))
    with pytest.raises(UserError, match="at step 8, nor was it in the 4 before"):
        run.train()


class Scripted:
    """A task with given scores."""

    name, main_metrics = "scripted", ("mean",)

    def __init__(self, sentences, scores):
        self.sentences, self.scores = sentences, iter(scores)

    def score(self, embeddings):
        return {"mean": next(self.scores)}


def test_an_evaluation_that_is_no_number_chooses_no_checkpoint(tmp_path, rows, tokenizer, sentences, caplog):
    from arccse_hf.evaluation.suite import TaskSuite

    nan = float("nan")
    for name, scores, best in (("one", [nan, 0.5], "checkpoint-4"), ("none", [nan, nan], None)):
        run = make_trainer(
            tmp_path / name, rows, tokenizer, suite=TaskSuite([Scripted(sentences[:3], scores)]), max_steps=4,
            eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2, load_best_model_at_end=True,
        )  # fmt: skip
        run.train()
        assert (run.state.best_model_checkpoint or "").rpartition("/")[2] == (best or "")
    assert "eval_scripted_mean is nan at step 2: all embeddings, or all that they are compared with" in caplog.text
    assert "no measurement chose a checkpoint as the best" in caplog.text


@pytest.mark.parametrize(
    ("number", "status", "settings"),
    [
        (signal.SIGTERM, 143, {}),
        (signal.SIGINT, 130, {"gradient_accumulation_steps": 2, "save_strategy": "no", "dataloader_num_workers": 1}),
        (
            signal.SIGTERM,
            143,
            {"save_strategy": "epoch", "logging_strategy": "epoch", "max_steps": -1, "num_train_epochs": 2},
        ),
    ],
)
def test_a_signal_writes_a_checkpoint_and_ends_the_process(number, status, settings, trainer, tmp_path, caplog):
    """Also where it comes in the last step of an epoch, and where the dataloader's workers get it too."""
    step = 6 if "max_steps" in settings else 3
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    whole = trainer("whole", **settings)
    whole.train()
    run = trainer("run", **settings)

    def send():
        for process in [multiprocessing.current_process(), *multiprocessing.active_children()] * 2:
            os.kill(process.pid, number)

    run.add_callback(AtStep(step, send))
    with pytest.raises(TrainingStopped) as stopped:
        run.train()
    assert stopped.value.code == status
    assert run.state.global_step == max(checkpoints(tmp_path / "run")) == step
    message = rf"stopped by {number.name} at step {step}; .*checkpoint-{step} is written, --resume_from_checkpoint True"
    assert re.search(message, caplog.text)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    resumed = trainer("run", **settings)
    resumed.train(resume_from_checkpoint=True)
    assert_equal(weights_of(resumed), weights_of(whole))
    logged = [[line["step"] for line in end.state.log_history if "loss" in line] for end in (resumed, whole)]
    assert logged[0] == logged[1]


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(trainer, tmp_path, monkeypatch):
    whole = trainer("whole")
    whole.train()
    kinds = {
        "by its size": lambda patch: patch.setattr(
            disk_space.shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(1000)
        ),
        "while weights are written": lambda patch: limit_file_size(20_000),
        "while states are written": lambda patch: patch.setattr(torch, "save", no_space),
    }
    for number, fill in enumerate(kinds.values()):
        folder = tmp_path / f"run-{number}"
        run = trainer(folder.name)
        with monkeypatch.context() as patch:
            run.add_callback(AtStep(4, lambda fill=fill, patch=patch: fill(patch)))
            try:
                with pytest.raises(
                    UserError,
                    match="checkpoint-4: no space to write it .*needed, .* free.*make room; .* from checkpoint-2",
                ):
                    run.train()
            finally:
                limit_file_size(resource.RLIM_INFINITY)
        assert checkpoints(folder) == [2] and not list(folder.glob(".checkpoint*"))
    run = trainer("run-2")
    run.train(resume_from_checkpoint=True)
    assert_equal(weights_of(run), weights_of(whole))


def test_a_run_ends_without_a_checkpoint_of_its_last_step_where_there_is_no_room(trainer, monkeypatch, caplog):
    run = trainer("run", save_strategy="no")
    run.saves_last_step = True
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(1000))
    assert run.train().global_step == 5
    assert "a signal from here on loses the run: " in caplog.text and "checkpoint-5: no space" in caplog.text


def limit_file_size(count):
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, resource.RLIM_INFINITY))


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("could not create a primitive"),
    MemoryError(),
]


@pytest.mark.parametrize("error", NO_MEMORY)
def test_too_little_memory_is_answered_with_a_chunk_size(error, trainer):
    def fail(*args, **kwargs):
        raise error

    for settings, message in (
        ({}, "batch_size 8: out of memory at step 1; --grad_cache_chunk_size 4 trains on the same batch"),
        ({"grad_cache_chunk_size": 4}, "--grad_cache_chunk_size 2 trains"),
        ({"grad_cache_chunk_size": 1}, "one text at a time; try a lower --max_seq_length"),
    ):
        run = trainer("run", **settings)
        run.compute_loss = fail
        with pytest.raises(UserError, match=message):
            run.train()
        run = trainer("run", per_device_eval_batch_size=64, **settings)
        run.compute_loss = lambda *args, run=run, **kwargs: (run.model.eval(), fail())
        with pytest.raises(UserError, match="--per_device_eval_batch_size 64: .* while measuring; try 32"):
            run.train()


def test_a_process_that_does_not_answer_is_one_line_and_other_errors_stay(trainer):
    def fail(error):
        raise error

    run = trainer("run", ddp_timeout=60)
    error = RuntimeError("[../gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting\n60000ms for recv operation")
    run.compute_loss = lambda *args, **kwargs: fail(error)
    with pytest.raises(UserError, match="has not answered for 60 s .--ddp_timeout.: .* waiting 60000ms for recv"):
        run.train()
    run.compute_loss = lambda *args, **kwargs: fail(RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run.train()


def test_the_script_exports_nothing_of_a_run_that_was_not_good(tmp_path, rows, tokenizer, sentences, capsys):
    from backbones import tiny_config
    from transformers import BertModel

    from arccse_hf.__main__ import main

    BertModel(tiny_config("bert")).save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    (tmp_path / "text.txt").write_text("\n".join(sentences))
    command = [
        "--model_name_or_path", str(tmp_path / "encoder"), "--train_file", str(tmp_path / "text.txt"),
        "--output_dir", str(tmp_path / "out"), "--per_device_train_batch_size", "8", "--max_steps", "6",
        "--use_cpu", "True", "--disable_tqdm", "True", "--snapshots", "False", "--save_strategy", "no",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main(["train", *command, "--learning_rate", "1e6", "--max_grad_norm", "0"])
    assert end.value.code == 2
    assert [line for line in capsys.readouterr().err.splitlines() if "not finite" in line and "error: " in line]
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert not (tmp_path / "out" / "modules.json").exists()


@pytest.mark.parametrize("save_strategy", ["steps", "no"])
def test_a_signal_behind_the_last_step_ends_the_process_too(save_strategy, trainer, tmp_path):
    """While the last measurement runs, say: nothing would have been said of it, and the model exported."""
    run = trainer("run", save_strategy=save_strategy)

    class AtEnd(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            os.kill(os.getpid(), signal.SIGTERM)

    run.add_callback(AtEnd())
    with pytest.raises(TrainingStopped) as stopped:
        run.train()
    assert stopped.value.code == 143 and run.state.global_step == run.state.max_steps
    assert max(checkpoints(tmp_path / "run")) == run.state.max_steps
