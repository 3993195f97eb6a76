"""`FaultTolerantTrainer`: what happens to long runs, and what Trainer leaves to chance.

Losses that are not finite, signals, full disks, damaged checkpoints, memory that does not suffice, processes that die.
docs/reliability.md says what is promised for each.
"""

import json
import logging
import shutil
import signal
from pathlib import Path

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import Trainer
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, SaveStrategy, TrainOutput, rotate_checkpoints

from ..errors import UserError
from ..inference.process_group import on_first_process, world_size
from ..run_folder import STATE
from .checkpoints import (
    STAGING,
    check_checkpoint,
    checkpoint_before,
    find_checkpoint,
    publish_checkpoint,
    read_manifest,
    remove_leftovers,
)
from .disk_space import NoSpace, full_disk_in_words, require_space
from .failures import explain
from .hub import open_repository, push_checkpoint
from .run_identity import differences, run_identity
from .stop_signals import StopSignals, TrainingStopped

logger = logging.getLogger(__name__)

_MOST_SKIPPED_IN_SUCCESSION = 5
_SKIPPED = "SkippedSteps"
"""The entry of a checkpoint's state that has the numbers of steps left out."""


class FaultTolerantTrainer(Trainer):
    """A `Trainer` whose checkpoints are whole, and which ends with one clear line where it cannot go on.

    Its arguments have an `on_nonfinite` of `stop` or `skip`, and a `grad_cache_chunk_size`.

    Attributes:
        last_checkpoint: The newest one, or that which training goes on from; None where there is none.
        saves_last_step: Whether `train` leaves a checkpoint of the last step with `--save_strategy no` too. What comes
            next may take long, and be stopped.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # It would replace a loss that is not finite by a good one in the log. Here such a loss is looked for instead.
        self.args.logging_nan_inf_filter = False
        if self.args.on_nonfinite == "skip" and self.is_deepspeed_enabled:
            raise UserError("--on_nonfinite skip: does not go with DeepSpeed, which updates the weights by itself")
        self.skipped_steps = 0
        self._skipped_in_succession = 0
        self._step_loss = self._last_loss = torch.zeros((), device=self.args.device)
        self._signals = StopSignals()
        self._stop_signal = 0
        self._staging: Path | None = None
        self.last_checkpoint: Path | None = None
        self.saves_last_step = False
        self._identity = run_identity(self.model, self.args, self.train_dataset)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs) -> TrainOutput:
        """Trains as `Trainer.train` does.

        Args:
            resume_from_checkpoint: A checkpoint's folder; or True: the newest complete one of `output_dir`, or the
                beginning where there is none.
            kwargs: Any other argument of `Trainer.train`.

        Raises:
            UserError: The checkpoint is damaged or belongs to another model, loss or weights are not finite, the disk
                or the memory does not suffice, or another process has died.
            TrainingStopped: SIGTERM or SIGINT came. A checkpoint is written.
        """
        self.last_checkpoint = on_first_process(lambda: self._checkpoint_to_resume(resume_from_checkpoint))
        with StopSignals() as self._signals:
            checkpoint = None if self.last_checkpoint is None else str(self.last_checkpoint)
            output = super().train(resume_from_checkpoint=checkpoint, **kwargs)
            self._require_finite_weights()
            if self._skipped_in_succession:
                raise UserError(
                    self._nonfinite_advice(f"the loss or the gradient is not finite at step {output.global_step}")
                )
            if self.saves_last_step and self.args.save_strategy == SaveStrategy.NO:
                try:
                    self._save_last_step()
                except NoSpace as error:  # for the model there may be
                    self._warn(f"a signal from here on loses the run: {error}")
            self._stop_signal = self._agree(None)[2]
            if self._stop_signal:  # it came behind the last step
                self._stop()
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is None:
            self._warn("no measurement chose a checkpoint as the best: the weights are those of the last step")
        return output

    # Checkpoints

    def _checkpoint_to_resume(self, given: str | bool | None) -> Path | None:
        folder = self.args.output_dir
        remove_leftovers(folder)
        if not given:
            return None
        checkpoint = find_checkpoint(folder) if given is True else Path(given)
        if checkpoint is None:
            self._warn(f"{folder}: holds no checkpoint yet; training starts from the beginning")
            return None
        check_checkpoint(checkpoint, checksums=True)
        manifest = read_manifest(checkpoint)
        if manifest is None:
            self._warn(f"{checkpoint}: has no manifest; whether its files are those that were written is not known")
        else:
            for line in differences(manifest["run"], self._identity):
                self._warn(f"{checkpoint}: {line}")
        best = json.loads((checkpoint / STATE).read_text(encoding="utf-8")).get("best_model_checkpoint")
        if best is not None and Path(best).is_dir():
            check_checkpoint(Path(best), checksums=True)
        return checkpoint

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        # Nothing reads it, and it has the hub's token and folders of this machine.
        Path(output_dir or self.args.output_dir, TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _get_output_dir(self, trial: object) -> str:
        return str(self._staging) if self._staging is not None else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        self._require_finite_weights()
        run_dir = Path(self._get_output_dir(trial))
        target = run_dir / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        needed = self._checkpoint_bytes()
        on_first_process(lambda: require_space(target, needed))
        with full_disk_in_words(target, needed):
            self._write_checkpoint(model, trial, target, needed)
        self.last_checkpoint = target
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(target))
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=str(run_dir),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )

    def _save_last_step(self) -> None:
        target = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if not on_first_process(target.is_dir):  # which Trainer may have removed behind training
            self._save_checkpoint(self.model_wrapped, trial=None)
        self.last_checkpoint = target

    def _write_checkpoint(self, model: nn.Module, trial: object, target: Path, needed: int) -> None:
        run_dir = target.parent
        staging = run_dir / STAGING
        if self.args.local_process_index == 0:
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()

        counts = {"skipped_steps": self.skipped_steps, "in_succession": self._skipped_in_succession}
        self.state.stateful_callbacks[_SKIPPED] = counts
        self._staging, push, self.args.push_to_hub = staging, self.args.push_to_hub, False
        full = None
        try:
            with full_disk_in_words(target, needed):
                super()._save_checkpoint(model, trial)
        except NoSpace as error:
            full = error
        except Exception:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        finally:
            self._staging, self.args.push_to_hub = None, push
        # One process writes what another does not: all of them go on, or none.
        if errors := [error for error in gather_object([full]) if error is not None]:
            shutil.rmtree(staging, ignore_errors=True)
            raise errors[0]
        # Trainer looked for the best checkpoint in the staging folder.
        self._find_best_checkpoint(run_dir, target)
        staged = staging / target.name
        if self.args.should_save:
            self.state.save_to_json(str(staged / STATE))
        self.accelerator.wait_for_everyone()
        # The first process publishes; after that those of other machines, where they have a disk of their own.
        for first in (True, False):
            if self.args.local_process_index == 0 and self.is_world_process_zero() == first and staged.is_dir():
                publish_checkpoint(staged, target, self._identity)
                remove_leftovers(run_dir)
            self.accelerator.wait_for_everyone()

    def _init_training_state(self, max_steps: int, num_update_steps_per_epoch: int, *args, **kwargs) -> tuple[int, int]:
        progress = super()._init_training_state(max_steps, num_update_steps_per_epoch, *args, **kwargs)
        # A checkpoint brings its own --eval_steps, --save_steps and --logging_steps along.
        self.state.compute_steps(self.args, max_steps)
        self.args.fit_save_steps(self.state)
        counts = self.state.stateful_callbacks.get(_SKIPPED, {"skipped_steps": 0, "in_succession": 0})
        self.skipped_steps, self._skipped_in_succession = counts["skipped_steps"], counts["in_succession"]
        # The folder of the run may have another name than when its checkpoints were written.
        self._find_best_checkpoint(Path(self.args.output_dir))
        return progress

    def _find_best_checkpoint(self, run_dir: Path, unpublished: Path | None = None) -> None:
        best = run_dir / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
        if self.state.best_global_step and (best == unpublished or best.is_dir()):
            self.state.best_model_checkpoint = str(best)

    def _evaluate(self, trial: object, ignore_keys_for_eval: list[str] | None, skip_scheduler: bool = False) -> dict:
        if skip_scheduler and self.last_checkpoint is not None:
            return {}  # `eval_on_start`: the checkpoint's log has that measurement, and it counts once
        return super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler=skip_scheduler)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Creates the repository of `--push_to_hub`; see `hub.open_repository`."""
        if self.is_world_process_zero():
            self.hub_model_id = open_repository(self.args)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self.is_world_process_zero():
            push_checkpoint(Path(checkpoint_folder), self.hub_model_id, self.args)

    def _load_best_model(self) -> None:
        best = Path(self.state.best_model_checkpoint)
        on_first_process(lambda: check_checkpoint(best, checksums=True))
        super()._load_best_model()

    def _checkpoint_bytes(self) -> int:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        if not self.args.save_only_model and self.optimizer is not None:
            tensors += [value for state in self.optimizer.state.values() for value in _tensors(state)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    # Steps

    def _run_epoch(self, *args, **kwargs) -> None:
        if self.state.global_step >= self.state.max_steps or self.control.should_training_stop:
            self.control.should_training_stop = True  # resumed where it had ended: Trainer would train one more step
            return
        try:
            super()._run_epoch(*args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            explanation = explain(error, self)
            if explanation is None:
                raise
            raise UserError(explanation) from error
        if self._stop_signal:
            self._stop()

    def training_step(self, *args, **kwargs) -> Tensor:
        """Returns the loss of a step; one that is not finite counts in the log as the step before it."""
        loss = super().training_step(*args, **kwargs)
        self._step_loss = self._step_loss + loss
        # The log's mean counts a batch that is left out with the loss of the batch before.
        self._last_loss = torch.where(loss.isfinite(), loss, self._last_loss)
        return self._last_loss.clone()

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float | None:
        # The last thing before the optimizer's step.
        grad_norm = super()._get_grad_norm(model, grad_norm)
        bad_loss, bad_gradient, self._stop_signal = self._agree(grad_norm)
        if not bad_loss and not bad_gradient:
            self._skipped_in_succession = 0
            return grad_norm
        step = self.state.global_step + 1
        self._require_finite_weights()
        what = f"the {'loss' if bad_loss else 'norm of the gradient'} is not finite at step {step}"
        if self.args.on_nonfinite == "stop":
            raise UserError(self._nonfinite_advice(what))
        if self._skipped_in_succession + 1 == _MOST_SKIPPED_IN_SUCCESSION:
            raise UserError(self._nonfinite_advice(f"{what}, nor was it in the {self._skipped_in_succession} before"))
        self.skipped_steps += 1
        self._skipped_in_succession += 1
        self._warn(f"{what}: its batch is left out")
        model.zero_grad()  # the optimizer passes over weights without a gradient
        return None

    def _agree(self, grad_norm: Tensor | float | None) -> tuple[bool, bool, int]:
        """Returns whether a loss and the gradient are not finite on any process, and a signal that one of them got.

        It takes one reduction and one wait for the device per step.
        """
        if isinstance(grad_norm, DTensor):
            grad_norm = grad_norm.full_tensor()
        # A gradient scaler looks at the gradient by itself: in float16 it overflows now and then.
        scaled = getattr(self.accelerator, "scaler", None) is not None
        norm = torch.as_tensor(0.0 if grad_norm is None or scaled else grad_norm, device=self.args.device)
        flags = ~torch.stack([self._step_loss.float(), norm.float()]).isfinite()
        self._step_loss = torch.zeros_like(self._step_loss)
        if world_size() == 1:
            return (*flags.tolist(), self._signals.received)
        signals = [self._signals.received == number for number in (signal.SIGTERM, signal.SIGINT)]
        flags = torch.cat([flags.float(), torch.tensor(signals, dtype=torch.float32, device=flags.device)])
        bad_loss, bad_gradient, terminated, interrupted = self.accelerator.reduce(flags, reduction="sum").tolist()
        return bad_loss > 0, bad_gradient > 0, signal.SIGTERM if terminated else signal.SIGINT if interrupted else 0

    def _maybe_log_save_evaluate(self, *args, **kwargs) -> None:
        super()._maybe_log_save_evaluate(*args, **kwargs)
        # At the end of an epoch there may be more to log, to measure and to save: `_run_epoch` stops after that.
        if self._stop_signal and not float(self.state.epoch).is_integer():
            self._stop()

    def _stop(self) -> None:
        self._save_last_step()
        self._warn(
            f"stopped by {signal.Signals(self._stop_signal).name} at step {self.state.global_step}; "
            f"{self.last_checkpoint} is written, --resume_from_checkpoint True goes on"
        )
        self.end()
        raise TrainingStopped(128 + self._stop_signal)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs a line, with the number of skipped steps where there are some."""
        if "loss" in logs and self.skipped_steps:
            logs["skipped_steps"] = self.skipped_steps
        if self.state.global_step == getattr(self, "_initial_global_step", -1):
            logs.pop("train_loss", None)  # no step was trained: Trainer's zero is no loss
        super().log(logs, start_time)

    def _determine_best_metric(self, metrics: dict[str, float], trial: object) -> bool:
        name = f"eval_{self.args.metric_for_best_model}"
        if name in metrics and not torch.tensor(metrics[name]).isfinite():
            self._warn(
                f"{name} is {metrics[name]} at step {self.state.global_step}: all embeddings, or all that they are "
                "compared with, are equal. It chooses no checkpoint"
            )
            return False
        # The weights of another step could not be loaded at the end, and their scores would be reported all the same.
        return self.args.chooses_by(self.control) and super()._determine_best_metric(metrics, trial)

    # What is said

    def _require_finite_weights(self) -> None:
        """Raises UserError on all processes if a weight on any of them is not finite."""
        name = _nonfinite_weight(self.model)
        count = torch.tensor(float(name is not None), device=self.args.device)
        if self.accelerator.reduce(count, reduction="sum").item():
            what = f"the weights are not finite after step {self.state.global_step}"
            raise UserError(self._nonfinite_advice(f"{what} (the first: {name})" if name else what))

    def _nonfinite_advice(self, what: str) -> str:
        advice = []  # what acts on a resumed run too, unlike a lower learning rate
        if not 0 < self.args.max_grad_norm <= 1:
            advice.append("--max_grad_norm 1")
        if self.args.fp16:
            advice.append("--bf16 True instead of --fp16 True")
        if self.args.on_nonfinite == "stop" and not self.is_deepspeed_enabled:
            advice.append("--on_nonfinite skip where single batches are to blame")
        # One that was written just before the first bad step holds the weights that may be to blame.
        kept = checkpoint_before(Path(self.args.output_dir), self.state.global_step - self._skipped_in_succession)
        rate = max(group.get("initial_lr", group["lr"]) for group in self.optimizer.param_groups)
        way_out = f"Start anew (--overwrite_output_dir) with a lower --learning_rate than {rate:g}"
        if kept and advice:
            way_out += f"; or go on from {kept}, the last checkpoint before, with {' or '.join(advice)}"
        elif advice:
            way_out = f"No checkpoint was written before. {' or '.join([way_out, *advice])}"
        return f"{what}: training cannot go on, and nothing is exported. {way_out}"

    def _warn(self, message: str) -> None:
        if self.is_world_process_zero():
            logger.warning(message)


def _nonfinite_weight(model: nn.Module) -> str | None:
    """Returns the name of a weight (of those on this process) that has a value which is not finite, or None."""
    names, weights = [], []
    for name, weight in model.named_parameters():
        local = weight.detach()
        names.append(name)
        weights.append(local.to_local() if isinstance(local, DTensor) else local)
    finite = torch.stack([weight.isfinite().all() for weight in weights]).tolist()
    return next((name for name, good in zip(names, finite, strict=True) if not good), None)


def _tensors(state: object) -> list[Tensor]:
    values = state.values() if isinstance(state, dict) else []
    return [value for value in values if isinstance(value, Tensor)]
