"""The speed that a run reports is that of its steps: neither evaluations nor checkpoints nor start-up slow it down."""

from types import SimpleNamespace

import pytest

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


def args(**other):
    settings = {"train_batch_size": 4, "world_size": 2, "gradient_accumulation_steps": 1, "dataloader_drop_last": True}
    return SimpleNamespace(**settings | other)


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
    metrics = clock.metrics(args(), range(80))
    assert metrics["train_samples_per_second"] == pytest.approx(6 * 4 * 2 / 15, abs=1e-3)
    assert metrics["train_steps_per_second"] == pytest.approx(6 / 15, abs=1e-3)


def test_rows_of_smaller_last_batches_are_what_they_are(clock):
    event(clock, "step_begin")
    for _ in range(6):
        clock.wait(1)
        event(clock, "step_end")
    event(clock, "epoch_end")
    # Two epochs of 20 rows, in steps of 8, 8 and 4 rows.
    metrics = clock.metrics(args(dataloader_drop_last=False), range(20))
    assert metrics["train_samples_per_second"] == pytest.approx(40 / 6, abs=1e-3)
