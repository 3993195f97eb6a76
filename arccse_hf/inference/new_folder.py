"""A folder of results that is there whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from ..errors import UserError, one_line
from ..run_folder import no_empty_folder


def require_unused(folder: Path, option: str) -> None:
    """Raises UserError unless a folder does not exist, or is empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{option} {folder}: is in use; choose another folder")


@contextlib.contextmanager
def new_folder(folder: Path, option: str) -> Iterator[Path]:
    """Yields a folder to write to, whose content is that of `folder` at the end; after an error nothing is left.

    Args:
        folder: Does not exist, or is empty.
        option: Where the user named it, for the errors.

    Raises:
        UserError: The folder is in use, or cannot be written.
    """
    require_unused(folder, option)
    target = folder.absolute()  # "." has no name
    # A folder that is there stays: it may be the working directory, or a disk of its own.
    parent = target if target.exists() else target.parent
    staging = parent / f".{target.name}.unfinished"
    try:
        with no_empty_folder(target), contextlib.ExitStack() as cleanup:
            cleanup.callback(shutil.rmtree, staging, ignore_errors=True)
            shutil.rmtree(staging, ignore_errors=True)  # what a killed run has left
            staging.mkdir(parents=True)
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
