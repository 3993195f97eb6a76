"""Which files paths and globs stand for."""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError

KINDS = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".parquet")


def expand_files(patterns: Sequence[str], option: str = "--train_file") -> list[str]:
    """Returns the absolute paths of the files that paths and globs stand for, each once.

    Args:
        patterns: What the user wrote. Their order is kept; the files of a glob are sorted.
        option: Where they wrote it, for the errors.

    Raises:
        UserError: A file is missing, not a regular file, of an unknown kind, or of another kind than the first.
    """
    files: list[str] = []
    for pattern in patterns:
        path = os.path.expanduser(pattern)
        matches = [path] if os.path.lexists(path) else sorted(glob.glob(path, recursive=True))
        if not matches:
            problem = "matches no file" if glob.has_magic(path) else "does not exist"
            raise nothing_found(option, pattern, problem)
        files += [os.path.abspath(match) for match in matches]
    files = list(dict.fromkeys(files))
    for file in files:
        check_file(file, option)
        if file_kind(file) != file_kind(files[0]):
            raise UserError(f"{option} {file}: is of another kind than {files[0]}; give files of one kind")
    return files


def nothing_found(option: str, pattern: str, problem: str) -> UserError:
    """Returns the error for a path or glob that stands for no file."""
    hint = "; several files are separated by spaces" if "," in pattern else ""
    return UserError(f"{option} {pattern}: {problem}; check the path (now in {os.getcwd()}){hint}")


def check_file(file: str, option: str) -> None:
    """Raises UserError unless `file` is a regular file of a known kind."""
    try:
        mode = os.stat(file).st_mode
    except (OSError, ValueError) as error:
        raise UserError(f"{option} {file}: {_why_absent(file, error)}; check the path (now in {os.getcwd()})") from None
    if stat.S_ISDIR(mode):
        raise UserError(f"{option} {file}: is a folder; name its files, such as {os.path.join(file, '*.txt')}")
    if not stat.S_ISREG(mode):
        raise UserError(f"{option} {file}: is a pipe or a device, and files are read more than once; save it as a file")
    if file_kind(file) not in KINDS:
        raise UserError(f"{option} {file}: unknown kind of file; known are {', '.join(KINDS)}, also with .gz")
    if file_kind(file) == ".parquet" and is_gzip(file):
        raise UserError(f"{option} {file}: parquet is compressed by itself; unpack it with gunzip")


def _why_absent(file: str, error: OSError | ValueError) -> str:
    number = getattr(error, "errno", None)
    if number == errno.ELOOP:
        return "is a link that leads back to itself"
    if number == errno.ENOENT:
        return f"is a link to {os.readlink(file)}, which does not exist" if os.path.islink(file) else "does not exist"
    return f"cannot be read ({getattr(error, 'strerror', None) or error})"


def is_gzip(file: str) -> bool:
    """Returns whether the name of a file says that it is packed."""
    return file.lower().endswith(".gz")


def file_kind(file: str) -> str:
    """Returns the suffix that says how a file is read, `.gz` left aside: `.txt`, `.csv` ..."""
    return Path(file[:-3] if is_gzip(file) else file).suffix.lower()


def stem(file: str) -> str:
    """Returns the name of a file without its folder and the suffixes that say how it is read."""
    name = Path(file).name
    name = name[:-3] if is_gzip(name) else name
    return name.removesuffix(Path(name).suffix)
