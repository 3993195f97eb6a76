"""Files of text to embed: what they hold, and any ranges of their rows, never a whole file at once."""

from __future__ import annotations

import codecs
import csv
import difflib
import glob
import gzip
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ...data.files import READ_ERRORS, expand_files, file_kind, innermost_reason
from ...errors import UserError

Row = tuple[int | str, str | None]
"""The id of a row, and its text."""

_MAX_LINE_BYTES = 1 << 24
_PARQUET_ROWS_AT_ONCE = 1_000
_PARQUET_BUFFER_BYTES = 1 << 20
_READ_ERRORS = (*READ_ERRORS, csv.Error)


class UnreadableFile(UserError):
    """A file, or a row of it, that can't be read; the others can."""


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
    """

    path: str
    name: str
    sha256: str
    rows: int
    id_type: str | None


def find_files(patterns: Sequence[str]) -> list[tuple[str, str]]:
    """The (path, name) of the files that paths and globs stand for, sorted by name.

    The name is the path below the folder that all patterns have in common: a matter of the patterns alone, so that it
    stays when files are added, or when everything is moved together.

    Raises:
        UserError: As `expand_files`.
    """
    paths = expand_files(patterns, option="--input")
    root = os.path.commonpath([_folder_before_magic(pattern) for pattern in patterns])
    return sorted(((path, Path(path).relative_to(root).as_posix()) for path in paths), key=lambda file: file[1])


def _folder_before_magic(pattern: str) -> str:
    path = os.path.abspath(os.path.expanduser(pattern))
    if os.path.exists(path):
        return os.path.dirname(path)
    while glob.has_magic(path):
        path = os.path.dirname(path)
    return path


def inspect_file(path: str, name: str, columns: Columns) -> InputFile:
    """Count the rows of a file, and hash its bytes: a copy elsewhere, or later, is still the same file.

    Raises:
        UserError: It has no such column, or the column holds something else than text or ids.
        UnreadableFile: It can't be read.
    """
    rows = 0
    try:
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if file_kind(path) == ".parquet":
            with pq.ParquetFile(path) as parquet:
                rows, schema = parquet.metadata.num_rows, parquet.schema_arrow
            return InputFile(path, name, sha256, rows, _check_schema(path, schema, columns))
        header, raw_rows = _open_text(path)
        first = next(raw_rows, None)
        rows = 0 if first is None else 1
        id_type = None if first is None else _check_first_row(path, header, first, columns)
        for _ in raw_rows:
            rows += 1
        return InputFile(path, name, sha256, rows, id_type)
    except _READ_ERRORS as error:
        if isinstance(error, UserError):
            raise
        raise _unreadable(path, rows, error) from error


def read_rows(file: InputFile, columns: Columns, ranges: Sequence[tuple[int, int]]) -> Iterator[Row]:
    """The rows of the ranges `[start, stop)`, which are in order and do not overlap, in one pass over the file.

    Raises:
        UnreadableFile: At a row that is malformed, or no text.
    """
    row = ranges[0][0]
    read = _parquet_rows if file_kind(file.path) == ".parquet" else _text_rows
    try:
        for row, row_id, text in read(file.path, columns, ranges):
            if text is not None and not isinstance(text, str):
                raise ValueError(f"column {columns.text} holds {text!r}, not text")
            yield (row if columns.id is None else _checked_id(row_id, file.id_type, columns)), text
            row += 1
    except _READ_ERRORS as error:
        raise _unreadable(file.path, row, error) from error


def _unreadable(path: str, row: int, error: BaseException) -> UnreadableFile:
    where = f" at row {row}, counted from 0" if row else ""
    return UnreadableFile(f"--input {path}: can't be read{where} ({innermost_reason(error)})")


def _checked_id(value: object, id_type: str | None, columns: Columns) -> int | str:
    if id_type == "int64" and type(value) is int and -(2**63) <= value < 2**63:
        return value
    if id_type == "string" and isinstance(value, str):
        value.encode()  # an error here and not where it is written, if it holds half a surrogate pair
        return value
    raise ValueError(f"column {columns.id} holds {value!r} where an id of type {id_type} belongs")


def _require(path: str, names: Sequence[str], columns: Columns) -> None:
    for option, wanted in (("--text-column", columns.text), ("--id-column", columns.id)):
        if wanted is not None and wanted not in names:
            close = difflib.get_close_matches(wanted, names, n=1)
            hint = f"; did you mean {close[0]}?" if close else "; name one of these"
            there = ", ".join(names) if names else "none"
            raise UserError(f"{option} {wanted}: {path} has no such column; it has {there}{hint if names else ''}")


# Parquet: a schema, and batches of rows.


def _check_schema(path: str, schema: pa.Schema, columns: Columns) -> str | None:
    _require(path, schema.names, columns)
    text = schema.field(columns.text).type
    if not (_is_string(text) or pa.types.is_null(text)):
        raise UserError(f"--text-column {columns.text}: holds {text} in {path}; name a column of text")
    if columns.id is None:
        return "int64"
    ids = schema.field(columns.id).type
    if not (_is_string(ids) or pa.types.is_integer(ids)):
        raise UserError(f"--id-column {columns.id}: holds {ids} in {path}; name a column of integers or text")
    return "string" if _is_string(ids) else "int64"


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _parquet_rows(
    path: str, columns: Columns, ranges: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, object, object]]:
    names = list(dict.fromkeys([columns.text, columns.id or columns.text]))
    # By default a whole column of a row group is read at once, and that can be the file.
    with pq.ParquetFile(path, buffer_size=_PARQUET_BUFFER_BYTES, pre_buffer=False) as file:
        position = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if not _common(position, position + rows, ranges):
                position += rows
                continue
            for batch in file.iter_batches(_PARQUET_ROWS_AT_ONCE, row_groups=[group], columns=names):
                for start, stop in _common(position, position + batch.num_rows, ranges):
                    part = batch.slice(start - position, stop - start)
                    texts = part.column(columns.text).to_pylist()
                    ids = texts if columns.id is None else part.column(columns.id).to_pylist()
                    yield from zip(range(start, stop), ids, texts, strict=True)
                position += batch.num_rows


def _common(start: int, stop: int, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(max(start, first), min(stop, last)) for first, last in ranges if first < stop and start < last]


# Text: lines; of .csv and .tsv files, cells under a header.


def _open_text(path: str) -> tuple[list[str], Iterator[bytes] | Iterator[list[str]]]:
    """The header, empty where there is none, and the rows of a text file, not parsed yet where it can wait."""
    lines = _lines(path)
    if file_kind(path) == ".txt":
        return [], lines
    if file_kind(path) in (".json", ".jsonl"):
        return [], (line for line in lines if line.strip())
    csv.field_size_limit(_MAX_LINE_BYTES)
    reader = csv.reader(
        (line.decode() for line in lines), delimiter="\t" if file_kind(path) == ".tsv" else ",", strict=True
    )
    header = next(reader, [])
    return header, _cells(reader, header)


def _lines(path: str) -> Iterator[bytes]:
    with gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb") as file:
        start = codecs.BOM_UTF8
        while line := file.readline(_MAX_LINE_BYTES):
            if len(line) == _MAX_LINE_BYTES:
                raise ValueError(f"a line is longer than {_MAX_LINE_BYTES} bytes")
            if b"\0" in line:
                raise ValueError("NUL bytes: it is binary or UTF-16; save it as UTF-8 text")
            yield line.removeprefix(start)
            start = b""


def _cells(reader: Iterator[list[str]], header: list[str]) -> Iterator[list[str]]:
    for cells in reader:
        if not cells:
            # In a file of one column an empty line is an empty text, as in a .txt file; elsewhere it is no row.
            if len(header) == 1:
                yield [""]
            continue
        if len(cells) != len(header):
            raise ValueError(f"{len(cells)} cells, the header has {len(header)}")
        yield cells


def _check_first_row(path: str, header: list[str], first: bytes | list[str], columns: Columns) -> str | None:
    if file_kind(path) == ".txt":
        if columns.id is not None:
            raise UserError(f"--id-column {columns.id}: lines of {path} have no columns; leave it out")
        return "int64"
    if isinstance(first, list):
        _require(path, header, columns)
        return "int64" if columns.id is None else "string"
    fields = _fields(first)
    _require(path, list(fields), columns)
    return "int64" if columns.id is None or isinstance(fields[columns.id], int) else "string"


def _fields(line: bytes) -> dict[str, object]:
    fields = json.loads(line.decode())
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object on one line")
    return fields


def _text_rows(path: str, columns: Columns, ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, object, object]]:
    header, raw_rows = _open_text(path)
    position = 0
    for start, stop in ranges:
        for row, raw in enumerate(islice(raw_rows, start - position, stop - position), start=start):
            if isinstance(raw, list):
                cells = dict(zip(header, raw, strict=True))
                yield row, cells.get(columns.id), cells[columns.text]
            elif file_kind(path) == ".txt":
                yield row, None, raw.decode().rstrip("\r\n")
            else:
                fields = _fields(raw)
                text = fields.get(columns.text)
                if isinstance(text, str):
                    # Half a surrogate pair, which JSON can hold, is no character, and tokenizers refuse the text.
                    text = text.encode(errors="replace").decode()
                yield row, fields.get(columns.id), text
        position = stop
