"""The speed that a run reports is that of its steps: neither evaluations nor checkpoints nor start-up slow it down."""

from types import SimpleNamespace

import pytest
from datasets import Dataset
from tiny import make_trainer

from arccse_hf.training import throughput
from arccse_hf.training.throughput import TrainingClock


@pytest.fixture
def clock(monkeypatch):
    """A clock whose time the test moves on: `clock.wait(seconds)`."""
    clock, now = TrainingClock(), [0.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])
    clock.wait = lambda seconds: now.__setitem__(0, now[0] + seconds)
    return clock


def event(clock, name, evaluate=False, save=False):
    getattr(clock, f"on_{name}")(None, None, SimpleNamespace(should_evaluate=evaluate, should_save=save))


def test_only_steps_and_their_data_count(clock):
    clock.wait(100)  # start-up
    event(clock, "evaluate")  # before the first step
    for _ in range(2):
        for step in range(3):
            event(clock, "step_begin")
            clock.wait(2)
            event(clock, "step_end", evaluate=step == 1, save=step == 1)
            if step == 1:
                clock.wait(50)
                event(clock, "evaluate")
                clock.wait(30)
                event(clock, "save")
            clock.wait(0.5)  # the next batch is loaded
        event(clock, "epoch_end")
        clock.wait(70)  # an evaluation at the end of the epoch
        event(clock, "evaluate")
        clock.wait(0)
    clock.wait(1000)  # the best checkpoint is loaded
    assert (clock.steps, clock.seconds) == (6, 2 * (3 * 2 + 3 * 0.5))
    clock.rows += 41
    metrics = clock.metrics()
    assert metrics["train_samples_per_second"] == pytest.approx(41 / 15, abs=1e-3)
    assert metrics["train_steps_per_second"] == pytest.approx(6 / 15, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({"num_train_epochs": 2, "dataloader_drop_last": False}, 2 * 38),
        # Of nine batches of four rows, the last step of an epoch has one.
        ({"num_train_epochs": 2, "gradient_accumulation_steps": 4}, 2 * 36),
        ({"max_steps": 2, "grad_cache_chunk_size": 3}, 2 * 4),
    ],
)
def test_rows_are_those_that_were_trained_on(settings, rows, tmp_path, tokenizer, sentences):
    data = Dataset.from_dict({"anchor": tokenizer(sentences[:38])["input_ids"]})
    trainer = make_trainer(tmp_path, data, tokenizer, per_device_train_batch_size=4, **{"max_steps": -1} | settings)
    trainer.train()
    assert trainer.clock.rows == rows
