"""What a run prints: rows that can be read, in a terminal and in a log file."""

import io
import math
import os
import pty
import re
import time
import warnings

import pytest
from datasets import Dataset
from rich.console import Console
from tiny import make_trainer
from transformers import TrainerControl, TrainerState

from arccse_hf.evaluation.suite import TaskSuite
from arccse_hf.training import console
from arccse_hf.training.arguments import ArcCSETrainingArguments
from arccse_hf.training.console import ConsoleCallback, quiet_libraries
from arccse_hf.training.throughput import TrainingClock


class Scripted:
    """A task that scores what it is told to."""

    name = "scripted"
    main_metrics = ("mean",)

    def __init__(self, sentences, scores):
        self.sentences, self.scores = sentences, list(scores)

    def score(self, embeddings):
        return {"mean": self.scores.pop(0)}


@pytest.fixture
def trainer(tmp_path, tokenizer, sentences):
    rows = Dataset.from_dict({"anchor": tokenizer(sentences)["input_ids"]})
    suite = TaskSuite([Scripted(sentences[:4], [0.25, 0.5, 0.375, 0.5])])
    return make_trainer(
        tmp_path, rows, tokenizer, suite=suite, max_steps=6, logging_steps=2, eval_strategy="steps", eval_steps=2,
        save_strategy="steps", save_steps=2, eval_on_start=True, disable_tqdm=False,
        metric_for_best_model="scripted_mean",
    )  # fmt: skip


def test_a_log_file_gets_a_header_a_row_per_log_step_and_a_line_per_evaluation(trainer, capsys):
    trainer.train()
    printed = capsys.readouterr().out
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", printed)  # no control character but the line break
    lines = printed.splitlines()
    assert lines[0] == "bert (cls) · 48 rows · batch 8 · 6 steps · cpu, float32 · ArcCon 10 degrees + 0.1 x triplet"
    assert lines[1] == "evaluation at step 0: scripted_mean 0.2500"
    assert lines[2].split()[:4] == ["step", "loss", "arccon", "triplet"]
    history = [line for line in trainer.state.log_history if "loss" in line]
    rows = [line for line in lines if re.match(r" +\d", line)]
    assert len(rows) == len(history) == 3
    for row, logged in zip(rows, history, strict=True):
        assert row.split()[:3] == [str(logged["step"]), f"{logged['loss']:.4f}", f"{logged['arccon_loss']:.4f}"]
        assert len(row) == len(lines[2])
    assert [line for line in lines if line.startswith("evaluation")][1:] == [
        "evaluation at step 2: scripted_mean 0.5000 (+0.2500, best)",
        "evaluation at step 4: scripted_mean 0.3750 (-0.1250)",
        "evaluation at step 6: scripted_mean 0.5000 (+0.1250)",
    ]
    assert "{" not in printed


def test_a_collapse_is_said_when_it_comes_and_at_the_end(trainer, capsys):
    trainer.state.max_steps = 8
    state, args, said = trainer.state, trainer.args, []
    callback = trainer._console
    callback.on_train_begin(args, state, trainer.control, trainer.model)
    for cosine in (0.9985, 0.9992, 0.9995, 0.5, 0.9999):
        capsys.readouterr()
        callback.on_log(args, state, trainer.control, {"loss": 1.0, "negative_cosine": cosine})
        said.append("all embeddings point one way" in capsys.readouterr().out)
    assert said == [False, True, False, False, True]
    callback.on_train_end(args, state, trainer.control)
    assert "end of training: all embeddings point one way" in capsys.readouterr().out


def test_a_terminal_has_a_live_line_that_is_gone_at_the_end(trainer, monkeypatch):
    main, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as output:
        monkeypatch.setattr(console, "Console", lambda **options: Console(file=output, force_terminal=True, **options))
        trainer.train()
    shown = b""
    with io.FileIO(main) as reader:
        try:
            while part := reader.read(65536):
                shown += part
        except OSError:  # Linux answers so when the other side is closed.
            pass
    text = shown.decode()
    assert "training" in text and "6/6" in text
    assert "\x1b[?25h" in text.rpartition("6/6")[2]  # the cursor is back


def test_rows_per_second_leave_evaluation_and_saving_out(monkeypatch, capsys, tmp_path):
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    args = ArcCSETrainingArguments(str(tmp_path), per_device_train_batch_size=4, use_cpu=True, disable_tqdm=True)
    state, control = TrainerState(max_steps=3, is_world_process_zero=True), TrainerControl()
    clock = TrainingClock()
    callback = ConsoleCallback(clock, rows=10)
    callback.on_train_begin(args, state, control)
    for step, (seconds, pause) in enumerate([(1, 10), (2, 20), (3, 0)]):  # an evaluation of 10 s, a checkpoint of 20 s
        control.should_evaluate, control.should_save = step == 0, step == 1
        clock.on_step_begin(args, state, control)
        now += seconds
        clock.rows += 4
        clock.on_step_end(args, state, control)
        callback.on_log(args, state, control, logs={"loss": 1.0})
        now += pause
        clock.on_evaluate(args, state, control) if step == 0 else clock.on_save(args, state, control)
    shown = [line.split()[-1] for line in capsys.readouterr().out.splitlines()[2:]]
    assert shown == ["4", "2", "1"]  # 4 rows in 1, 2 and 3 seconds


@pytest.mark.parametrize(
    ("score", "best", "greater", "saved", "expected"),
    [
        (0.5, None, True, True, True), (math.nan, None, True, True, False), (0.5, 0.4, True, True, True),
        (0.5, 0.4, False, True, False), (0.5, 0.4, True, False, False),
    ],
)  # fmt: skip
def test_only_what_trainer_will_keep_is_called_best(score, best, greater, saved, expected, tmp_path, capsys):
    args = ArcCSETrainingArguments(str(tmp_path), metric_for_best_model="x", greater_is_better=greater, use_cpu=True)
    state = TrainerState(max_steps=3, global_step=2, best_metric=best, is_world_process_zero=True)
    callback = ConsoleCallback(TrainingClock(), rows=10)
    args.load_best_model_at_end = True
    callback.on_train_begin(args, state, TrainerControl())
    callback.on_evaluate(args, state, TrainerControl(should_save=saved), metrics={"eval_x": score})
    callback.close()
    assert ("best" in capsys.readouterr().out) == expected


def test_the_live_line_is_taken_away_where_training_fails(trainer, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("in the middle")

    closed = []
    monkeypatch.setattr(trainer, "compute_loss", fails)
    monkeypatch.setattr(trainer._console, "close", lambda: closed.append(True))
    with pytest.raises(RuntimeError, match="in the middle"):
        trainer.train()
    assert closed == [True]


@pytest.mark.parametrize(("level", "kept"), [("passive", [FutureWarning]), ("info", [FutureWarning, UserWarning])])
def test_warnings_of_libraries_are_quiet_but_deprecations_are_not(level, kept):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with quiet_libraries(level):
            for category in (FutureWarning, UserWarning):
                warnings.warn_explicit("said", category, "file.py", 1, module="torch.optim")
    assert [warning.category for warning in seen] == kept
