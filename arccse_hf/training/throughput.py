"""How fast training is, without what stands between its steps."""

import time

import torch
from transformers import TrainerCallback


class TrainingClock(TrainerCallback):
    """Measures the time that training itself takes: steps and their data, no evaluation, no checkpoint, no start-up.

    Attributes:
        seconds: Time of training so far.
        steps: Optimizer steps in it. Those before a resumed checkpoint are not among them.
        rows: Rows of all processes in them: a scalar, which whoever computes the loss adds to.
    """

    def __init__(self):
        self.seconds, self.steps = 0.0, 0
        self.rows = torch.zeros((), dtype=torch.int64)
        self._since: float | None = None

    def on_step_begin(self, args, state, control, **kwargs):
        """Starts with the first step; the data of the later ones is loaded before they begin."""
        if self._since is None:
            self._since = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        """Stops where an evaluation or a checkpoint comes next."""
        self.steps += 1
        if control.should_evaluate or control.should_save:
            self._stop()

    def on_evaluate(self, args, state, control, **kwargs):
        """Goes on behind an evaluation within training."""
        if self.steps:
            self._since = time.perf_counter()

    def on_save(self, args, state, control, **kwargs):
        """Goes on behind a checkpoint."""
        self._since = time.perf_counter()

    def on_epoch_end(self, args, state, control, **kwargs):
        """Stops, as Trainer may evaluate and save here too; the next step starts it again."""
        self._stop()

    def elapsed(self) -> float:
        """Returns the seconds of training until now."""
        return self.seconds + (0.0 if self._since is None else time.perf_counter() - self._since)

    def metrics(self) -> dict[str, float]:
        """Returns `train_steps_runtime` in seconds, and rows and steps per second of that time."""
        if not self.seconds:
            return {}
        return {
            "train_steps_runtime": round(self.seconds, 4),
            "train_samples_per_second": round(float(self.rows) / self.seconds, 3),
            "train_steps_per_second": round(self.steps / self.seconds, 3),
        }

    def _stop(self) -> None:
        if self._since is not None:
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()  # what was launched belongs to training
            self.seconds += time.perf_counter() - self._since
            self._since = None
