"""Files of text to embed: what they hold, and any ranges of their rows, never a whole file at once."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...data.columns import require_column, require_text
from ...data.files import RowFile, expand_files, open_file
from ...errors import UserError

Row = tuple[int | str, str | None]
"""The id of a row, and its text."""

_HALF_OF_A_PAIR = re.compile("[\ud800-\udfff]")  # which JSON can hold and Parquet cannot


@dataclass(frozen=True)
class Columns:
    """Which columns are read: `id` None numbers the rows of each file from 0. Lines of .txt files have no columns."""

    text: str
    id: str | None = None


@dataclass(frozen=True)
class InputFile:
    """A file as it was found.

    Args:
        path: Where it is.
        name: Its path below the folder that all patterns have in common.
        sha256: Of its bytes.
        rows: How many it has.
        id_type: "int64" or "string"; None in a file without rows that can tell.
        content: Gives its rows.
    """

    path: str
    name: str
    sha256: str
    rows: int
    id_type: str | None
    content: RowFile = field(compare=False, repr=False)


def find_files(patterns: Sequence[str], option: str = "--input") -> list[tuple[str, str]]:
    """Returns the (path, name) of the files that paths and globs stand for, sorted by name.

    The name is the path below the folder that all patterns have in common: a matter of the patterns alone, so that it
    stays when files are added, or when everything is moved together.

    Raises:
        UserError: As `expand_files`.
    """
    paths = expand_files(patterns, option)
    root = common_folder(patterns)
    return sorted(((path, Path(path).relative_to(root).as_posix()) for path in paths), key=lambda file: file[1])


def common_folder(patterns: Sequence[str]) -> str:
    """Returns the absolute path of the folder that all patterns have in common."""
    return os.path.commonpath([_folder_before_magic(pattern) for pattern in patterns])


def _folder_before_magic(pattern: str) -> str:
    path = os.path.abspath(os.path.expanduser(pattern))
    if os.path.lexists(path):
        return os.path.dirname(path)
    while glob.has_magic(path):
        path = os.path.dirname(path)
    return path


def inspect_file(path: str, name: str, columns: Columns, option: str = "--input") -> InputFile:
    """Counts the rows of a file, and hashes its bytes: a copy elsewhere, or later, is still the same file.

    Args:
        path: Where it is.
        name: What its shards will be called after.
        columns: What will be read.
        option: Where the user named it, for the errors.

    Raises:
        UserError: It has no such column, or the column holds something else than text or ids.
        UnreadableFile: It cannot be read.
    """
    file = open_file(path, option, [column for column in (columns.text, columns.id) if column])
    with file.source.faults(), open(path, "rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    id_type = None if file.empty else _check_columns(file, columns)
    return InputFile(path, name, sha256, file.count(), id_type, file)


def read_rows(file: InputFile, columns: Columns, ranges: Sequence[tuple[int, int]]) -> Iterator[Row]:
    """Yields the rows of the ranges `[start, stop)`, which are in order and do not overlap, in one pass over the file.

    Raises:
        UnreadableFile: At a row that is malformed, or no text.
    """
    content = file.content
    text_column = "text" if content.kind == ".txt" else columns.text
    wanted = [text_column] if columns.id is None else [text_column, columns.id]
    positions = (position for start, stop in ranges for position in range(start, stop))
    for position, (number, (text, *ids)) in zip(positions, content.rows(wanted, ranges), strict=False):
        row_id = _checked_id(content, number, ids[0], file.id_type, columns) if ids else position
        yield row_id, content.text(text, number, text_column)


def _check_columns(file: RowFile, columns: Columns) -> str:
    """Returns the type of the ids."""
    where = file.source.where()
    if file.kind == ".txt":
        if columns.id is not None:
            raise UserError(f"--id_column {columns.id}: lines of {file.path} have no columns; leave it out")
        return "int64"
    require_text(columns.text, file.columns, f"--text_column {columns.text}", where)
    if columns.id is None:
        return "int64"
    require_column(columns.id, file.columns, f"--id_column {columns.id}", where)
    kind = file.columns[columns.id]
    if kind == "text" or file.kind in (".csv", ".tsv"):
        return "string"
    if kind == "integers":
        return "int64"
    raise UserError(f"--id_column {columns.id}: holds {kind} in {file.path}; name a column of integers or text")


def _checked_id(file: RowFile, number: int, value: object, id_type: str | None, columns: Columns) -> int | str:
    if id_type == "int64" and type(value) is int and -(2**63) <= value < 2**63:
        return value
    if id_type == "string" and isinstance(value, str) and not _HALF_OF_A_PAIR.search(value):
        return value
    shown = f"{value!r}"[:80]
    raise file.source.fault(f"column {columns.id} holds {shown} where an id of type {id_type} belongs", number)
