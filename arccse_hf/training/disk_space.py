"""Full disks: how much room there is, which errors tell of one, and the line that a user gets."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError
from torch import nn

from ..errors import UserError
from ..run_folder import TRAINING
from .checkpoints import newest_complete

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_IN_WORDS = ("PytorchStreamWriter failed", "unexpected pos", "No space left", "File too large")


class NoSpace(UserError):
    """A disk is full."""


def weight_bytes(model: nn.Module) -> int:
    """Returns the bytes of a model's weights in float32."""
    return sum(4 * weight.numel() for weight in model.parameters())


def require_space(target: Path, needed: int) -> None:
    """Raises NoSpace unless the disk of `target` has `needed` bytes."""
    if _free_bytes(target) < needed:
        raise _no_space(target, needed)


@contextlib.contextmanager
def full_disk_in_words(target: Path, needed: int) -> Iterator[None]:
    """Turns the errors of a full disk into one line.

    Args:
        target: What is written.
        needed: Its bytes.

    Raises:
        NoSpace: The disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if getattr(error, "errno", None) in _FULL or any(part in str(error) for part in _FULL_IN_WORDS):
            raise _no_space(target, needed) from error
        raise


def _no_space(target: Path, needed: int) -> NoSpace:
    sizes = f"{_readable_size(needed)} needed, {_readable_size(_free_bytes(target))} free"
    folders = (target.parent, target / TRAINING, target)  # a checkpoint lies beside the others, a model above them
    checkpoint = next(filter(None, map(newest_complete, folders)), None)
    way_out = "there is no checkpoint to go on from"
    if checkpoint is not None:
        way_out = f"--resume_from_checkpoint True goes on from {checkpoint.name}"
    return NoSpace(f"{target}: no space to write it ({sizes}); make room; {way_out}")


def _free_bytes(target: Path) -> int:
    there = next(folder for folder in (target.absolute(), *target.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


def _readable_size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
