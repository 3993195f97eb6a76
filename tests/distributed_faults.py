"""Faults that reach one of two processes that train, and on which both agree; distributed_worker.py runs this."""

import errno
import os
import signal
from pathlib import Path

import distributed_worker
import torch
from transformers import TrainerCallback

from arccse_hf.errors import UserError
from arccse_hf.training.stop_signals import TrainingStopped
from arccse_hf.training.trainer import ArcCSETrainer


class SignalToOne(TrainerCallback):
    """SIGTERM to the second process at the beginning of step 2."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1 and args.process_index == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def make_trainer(folder, name, **settings):
    args = distributed_worker.arguments(folder, "pairs")
    args.output_dir = str(Path(folder) / name)
    args.lr_scheduler_type, args.optim = "linear", "adamw_torch"
    for field, value in settings.items():
        setattr(args, field, value)
    trainer = ArcCSETrainer(
        distributed_worker.tiny_model(),
        args,
        train_dataset=distributed_worker.rows(hard_negatives=False),
        processing_class=distributed_worker.tiny_tokenizer(),
    )
    trainer.end = lambda: None  # the process group serves what comes after
    return trainer


def spoil_loss_of_one(trainer):
    """Makes the loss of step 2 NaN on the second process."""
    compute_loss = trainer.compute_loss

    def spoiled(*args, **kwargs):
        loss = compute_loss(*args, **kwargs)
        return loss * float("nan") if trainer.state.global_step == 1 and trainer.args.process_index == 1 else loss

    trainer.compute_loss = spoiled


def run(folder):
    """What each fault was answered with, and the weights of an undisturbed and of a resumed run."""
    results = {}
    whole = make_trainer(folder, "whole")
    whole.train()
    for on_nonfinite in ("stop", "skip"):
        trainer = make_trainer(folder, on_nonfinite, on_nonfinite=on_nonfinite)
        spoil_loss_of_one(trainer)
        try:
            trainer.train()
            results[on_nonfinite] = (trainer.skipped_steps, trainer.state.global_step)
        except UserError as error:
            results[on_nonfinite] = str(error)
        results[f"{on_nonfinite} finite"] = all(weight.isfinite().all().item() for weight in trainer.model.parameters())
    trainer = make_trainer(folder, "stopped")
    trainer.add_callback(SignalToOne())
    try:
        trainer.train()
    except TrainingStopped as stopped:
        results["status"], results["step"] = stopped.code, trainer.state.global_step
    resumed = make_trainer(folder, "stopped")
    resumed.train(resume_from_checkpoint=True)
    for name, trainer in (("whole", whole), ("resumed", resumed)):
        results[name] = {key: weight.clone() for key, weight in trainer.model.state_dict().items()}
    # Damage that the first process alone looks for is known to both.
    checkpoint = Path(folder) / "stopped" / "checkpoint-2"
    torch.distributed.barrier()
    (checkpoint / "optimizer.pt").unlink(missing_ok=True)
    torch.distributed.barrier()
    try:
        make_trainer(folder, "stopped").train(resume_from_checkpoint=str(checkpoint))
    except UserError as error:
        results["damaged"] = str(error)
    # A disk that is full for the first process: the checkpoint of the last step is left out, and both go on.
    trainer = make_trainer(folder, "full", save_strategy="no")
    trainer.saves_last_step = True
    save = torch.save

    def fill(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    torch.save = fill if trainer.args.process_index == 0 else save
    try:
        results["full"] = trainer.train().global_step
    finally:
        torch.save = save
    torch.distributed.barrier()
    results["left"] = [path.name for path in Path(folder, "full").iterdir()]
    return results
