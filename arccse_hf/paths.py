"""Files that are written whole or not at all, folders that can be written, and short names of paths.

Nothing here needs torch or transformers.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .errors import UserError


def check_writable(folder: Path, option: str = "--output_dir") -> None:
    """Makes a folder before the work begins, rather than lose the result at its end.

    Raises:
        UserError: It cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{option} {folder}: cannot be written ({error.strerror}); choose another folder") from error


@contextlib.contextmanager
def no_empty_folder(folder: str | os.PathLike) -> Iterator[None]:
    """Removes `folder`, and those above it that were missing before, where an error leaves them empty."""
    # os.path.exists takes a name that is too long too.
    missing = [path for path in (Path(folder), *Path(folder).parents) if not os.path.exists(path)]
    try:
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):  # not empty, or another process has removed it
                path.rmdir()
        raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path to write to; what is there becomes `path` in one step when the block ends without an error."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, object], indent: int | None = 2) -> None:
    """Writes a JSON file in one step: whoever reads it finds the old or the new content, and never half of it."""
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict:
    """Returns the object of a JSON file; empty where there is no such file.

    Raises:
        UserError: It holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no JSON object")
    return content


def without_checksum(name: str) -> str:
    """Returns the name of an encoder without what `package:NAME/PATH#sha256=HEX` has at its end."""
    return name.partition("#sha256=")[0]


def short_names(paths: Sequence[str], parts: int) -> list[str]:
    """Returns the last parts of each path, as many as it takes to tell it from the others.

    Args:
        paths: Folders, ids of a hub, or `package:NAME/PATH`, whose checksum is left out.
        parts: The fewest that a name has.

    Example:
        >>> short_names(["runs/a/out", "runs/b/out", "other"], parts=1)
        ['a/out', 'b/out', 'other']
    """
    split = [[part for part in without_checksum(path).split("/") if part] or [path] for path in paths]
    names = []
    for path in split:
        depth = parts
        while depth < len(path) and sum(other[-depth:] == path[-depth:] for other in split) > 1:
            depth += 1
        names.append("/".join(path[-depth:]))
    return names
