"""Fields of transformers' TrainingArguments that this training does not support, refused before anything is loaded."""

import torch
import torch.distributed as dist
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_available_reporting_integrations, is_deepspeed_available
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from ..errors import UserError, one_line
from ..inference.process_group import world_size
from .field_rules import REASONS, REFUSED


def require_deepspeed(args: TrainingArguments) -> None:
    """Raises UserError where DeepSpeed is asked for and not installed; transformers would end with a traceback."""
    if args.deepspeed and not is_deepspeed_available():
        raise UserError("--deepspeed: is not installed; pip install deepspeed")


def refuse_unsupported(args: TrainingArguments) -> None:
    """Makes sure that no field asks for what this training would ignore, or end at with a traceback.

    Raises:
        UserError: The message names the field, its value and why.
    """
    if args.neftune_noise_alpha is not None:
        reason = REASONS["neftune_noise_alpha"]
        raise UserError(f"--neftune_noise_alpha {args.neftune_noise_alpha}: is not supported: {reason}; leave it out")
    if args.fp16 and args.device.type == "cpu":
        raise UserError("--fp16 True: a CPU would train in float32 all the same; --bf16 True is what it can do")
    if args.activation_checkpointing and args.train_last_layers is not None:
        raise UserError(
            "--activation_checkpointing True: does not go with --train_last_layers, which keeps nothing of frozen "
            "layers anyway; leave it out"
        )
    context = args.dataloader_multiprocessing_context
    if context and not args.dataloader_num_workers:
        raise UserError(
            f"--dataloader_multiprocessing_context {context}: there are no workers; give --dataloader_num_workers too"
        )
    _check_processes(args)
    _check_trackers(args.report_to)
    _check_optimizer(args)
    _check_scheduler(args)


def _check_processes(args: TrainingArguments) -> None:
    if world_size() != args.world_size:
        raise UserError(
            f"--use_cpu True: is missing: {world_size()} processes were started, and there is no accelerator that they "
            "could train on; give it, or start one process"
        )
    if args.fsdp and not dist.is_initialized():
        raise UserError(
            f"--fsdp {args.fsdp}: there is one process, which has nothing to share; leave it out, or start several "
            "with accelerate launch"
        )
    config = args.accelerator_config
    if not config.even_batches:
        raise UserError(
            "--accelerator_config even_batches: must be true, or processes would wait for batches that others lack"
        )
    if config.split_batches:
        raise UserError(
            "--accelerator_config split_batches: must be false; give each process its part of the batch by "
            "--per_device_train_batch_size"
        )
    if "num_steps" in (config.gradient_accumulation_kwargs or {}):
        raise UserError(
            "--accelerator_config gradient_accumulation_kwargs: num_steps is --gradient_accumulation_steps; give that"
        )


def _check_trackers(names: list[str] | str | None) -> None:
    for name in [names] if isinstance(names, str) else names or []:
        if name in ("none", "all"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise UserError(f"--report_to {name}: there is no such tracker; choose from {known}, none")
        # Flyte has no check: its callback says what is missing.
        if name != "flyte" and name not in get_available_reporting_integrations():
            raise UserError(f"--report_to {name}: is not installed; pip install {name.replace('_', '-')}")


def _check_optimizer(args: TrainingArguments) -> None:
    option = f"--optim {getattr(args.optim, 'value', args.optim)}"
    if "schedule_free" in option:
        raise UserError(f"{option}: is not supported: checkpoints would hold other weights than it gives in the end")
    try:
        Trainer.get_optimizer_cls_and_kwargs(args)
    except (ImportError, ValueError, TypeError, AssertionError) as error:
        if "model" not in str(error):  # some need the model, which is not loaded yet
            arguments = f" --optim_args {args.optim_args}" if args.optim_args else ""
            raise UserError(f"{option}{arguments}: {one_line(error)}") from error


def _check_scheduler(args: TrainingArguments) -> None:
    name = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    if name in REFUSED["lr_scheduler_type"]:
        raise UserError(f"--lr_scheduler_type {name}: is not supported: it would take a better score for a worse one")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    given = args.lr_scheduler_kwargs or {}
    try:
        get_scheduler(name, optimizer, num_warmup_steps=1, num_training_steps=10, scheduler_specific_kwargs=dict(given))
    except (ValueError, TypeError) as error:
        raise UserError(f"--lr_scheduler_type {name} --lr_scheduler_kwargs {given}: {one_line(error)}") from error
