"""A folder of results that is there whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from ..errors import UserError, one_line
from ..paths import no_empty_folder


def require_unused(folder: Path, option: str) -> None:
    """Raises UserError unless a folder does not exist, or is empty."""
    if not is_unused(folder):
        raise UserError(f"{option} {folder}: is in use; choose another folder")


def is_unused(folder: Path) -> bool:
    """Returns whether a folder does not exist, or holds at most what a killed run has left of it."""
    own = {path.name for path in _hidden(folder.absolute())}
    return not folder.exists() or (folder.is_dir() and all(path.name in own for path in folder.iterdir()))


def _hidden(target: Path) -> tuple[Path, Path]:
    """Where a folder is written, and the lock of whoever writes it."""
    # A folder that is there stays: it may be the working directory, or a disk of its own.
    parent = target if target.exists() else target.parent
    return parent / f".{target.name}.unfinished", parent / f".{target.name}.lock"


@contextlib.contextmanager
def new_folder(folder: Path, option: str) -> Iterator[Path]:
    """Yields a folder to write to, whose content is that of `folder` at the end; after an error nothing is left.

    Args:
        folder: Does not exist, or is empty.
        option: Where the user named it, for the errors.

    Raises:
        UserError: The folder is in use, another command is writing it, or it cannot be written.
    """
    require_unused(folder, option)
    target = folder.absolute()  # "." has no name
    staging, lock = _hidden(target)
    parent = staging.parent
    try:
        with no_empty_folder(target), contextlib.ExitStack() as cleanup:
            parent.mkdir(parents=True, exist_ok=True)
            cleanup.enter_context(_alone(lock, f"{option} {folder}"))
            require_unused(folder, option)  # another command may have come before
            cleanup.callback(shutil.rmtree, staging, ignore_errors=True)
            shutil.rmtree(staging, ignore_errors=True)  # what a killed run has left
            staging.mkdir()
            yield staging
            if parent == target:
                for path in staging.iterdir():
                    path.rename(target / path.name)
            else:
                staging.rename(target)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{option} {folder}: cannot be written ({one_line(error)}); free some space, or choose another folder"
        ) from error


@contextlib.contextmanager
def _alone(path: Path, what: str) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{what}: another command is writing it; wait for its end, or choose another folder") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
