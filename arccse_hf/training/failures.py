"""Errors of training whose cause is known: too little memory, and processes that have ended."""

import torch
from transformers import Trainer

from ..errors import one_line


def explain(error: BaseException, trainer: Trainer) -> str | None:
    """Returns what to do about an error of training, or None where it is not known.

    Args:
        error: What was raised.
        trainer: Whose step it was; with a `grad_cache_chunk_size` among its arguments.
    """
    args = trainer.args
    text = str(error).lower()
    if any(part in text for part in ("timed out", "closed by peer", "reset by peer", "connection refused")):
        return (
            f"another process has ended, or has not answered for {args.ddp_timeout} s (--ddp_timeout): "
            f"{one_line(error)[:200]}"
        )
    # oneDNN says no more than that it could not make what it needed the memory for.
    no_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        part in text for part in ("allocate memory", "bad_alloc", "could not create a primitive")
    )
    if not no_memory:
        return None
    if not trainer.model.training:
        size = args.per_device_eval_batch_size
        return f"--per_device_eval_batch_size {size}: out of memory while measuring; try {max(1, size // 2)}"
    size, chunk = args.per_device_train_batch_size, args.grad_cache_chunk_size
    what = f"--per_device_train_batch_size {size}: out of memory at step {trainer.state.global_step + 1}"
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return f"{what}; try {max(2, size // 2)}, or --gradient_checkpointing True"
    if chunk == 1:
        return f"{what} with one text at a time; try a lower --max_seq_length, or a smaller encoder"
    return (
        f"{what}; --grad_cache_chunk_size {max(1, (chunk or size) // 2)} trains on the same batch in less memory, "
        "with the same gradient"
    )
