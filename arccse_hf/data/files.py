"""Files of training text: which ones paths and globs stand for, that they hold text, and their rows."""

from __future__ import annotations

import codecs
import glob
import gzip
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
from datasets import Dataset, Features, IterableDataset, Value, load_dataset
from datasets.exceptions import DatasetsError

from ..errors import UserError, one_line

READ_ERRORS = (DatasetsError, ValueError, OSError, EOFError, zlib.error, pa.ArrowException)

_BUILDERS = {".txt": "text", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
_CHUNK_BYTES = 1 << 20
_ROWS_AT_ONCE = 1_000
_SAMPLED_CSV_ROWS = 1_000


def expand_files(patterns: Sequence[str], option: str = "--train_file") -> list[str]:
    """The files that paths and globs stand for, without repetitions: patterns as given, each one's files sorted.

    Args:
        patterns: what the user wrote.
        option: where they wrote it, for the errors.

    Raises:
        UserError: if a file is missing, a folder or of an unknown kind, or if kinds are mixed.
    """
    files: list[str] = []
    for pattern in patterns:
        path = os.path.expanduser(pattern)
        found = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
        if not found:
            what = "matches no file" if glob.has_magic(path) else "does not exist"
            raise _file_error(pattern, f"{what}; check the path (now in {os.getcwd()})", option)
        files += [os.path.abspath(file) for file in found]
    files = list(dict.fromkeys(files))
    for file in files:
        if os.path.isdir(file):
            raise _file_error(file, f"is a folder; name its files, such as {os.path.join(file, '*.txt')}", option)
        if file_kind(file) not in _BUILDERS:
            raise _file_error(file, f"unknown kind of file; known are {', '.join(_BUILDERS)}, also with .gz", option)
        if file.endswith(".parquet.gz"):
            raise _file_error(file, "parquet is compressed by itself; unpack it with gunzip", option)
        if file_kind(file) != file_kind(files[0]):
            raise _file_error(file, f"is of another kind than {files[0]}; give files of one kind", option)
    return files


def file_kind(file: str) -> str:
    """The ending that says how a file is read, `.gz` left aside: `.txt`, `.csv` ..."""
    return Path(file.removesuffix(".gz")).suffix.lower()


def load_files(files: list[str], streaming: bool = False) -> tuple[Dataset | IterableDataset, set[str]]:
    """The rows of files as `expand_files` gives them, and the columns that hold numbers although they come as text.

    Args:
        files: of one kind.
        streaming: read the rows when they are asked for. Only the beginning of a file is then checked here;
            `reading_error` says what is wrong with the rest.

    Raises:
        UserError: if a file is empty, no UTF-8 text, malformed, or has other columns than the first.
    """
    for file in files:
        if os.path.getsize(file) == 0:
            raise _file_error(file, "is empty; give a file with text")
        if file_kind(file) != ".parquet":
            _check_is_text(file, whole=not streaming)
    options, numeric = _reader_options(files)
    try:
        return _build(files, options, streaming), numeric
    except READ_ERRORS as error:
        raise reading_error(files, error) from error


def reading_error(files: list[str], error: BaseException) -> UserError:
    """What to tell about an error of reading `files`: which of them is to blame, and where in it if that can be told.

    Reads the files again, one by one, up to the mistake.
    """
    for file in files:
        try:
            if file_kind(file) != ".parquet":
                _check_is_text(file)
            for _ in (
                _build([file], _reader_options([file])[0], streaming=True).with_format("arrow").iter(_ROWS_AT_ONCE)
            ):
                pass
        except UserError as reason:
            return reason
        except READ_ERRORS as reason:
            return _unreadable(file, reason)
    problem = f"and {len(files) - 1} more have different columns or types; give files of one layout"
    return UserError(f"--train_file {files[0]} {problem} ({innermost_reason(error)})")


def _reader_options(files: list[str]) -> tuple[dict, set[str]]:
    """What the reader of these files must be told, and the columns of csv files that hold numbers."""
    if _BUILDERS[file_kind(files[0])] != "csv":
        return {}, set()
    separator = "\t" if file_kind(files[0]) == ".tsv" else ","
    names, numeric = _csv_columns(files, separator)
    # All as text: types guessed chunk by chunk can differ within a column, and "null" or "NA" may be a sentence.
    return {"features": text_features(names), "sep": separator, "keep_default_na": False}, numeric


def _build(files: list[str], options: dict, streaming: bool) -> Dataset | IterableDataset:
    builder = _BUILDERS[file_kind(files[0])]
    if streaming and builder in ("text", "json"):
        options = options | {"chunksize": _CHUNK_BYTES}  # as many of these in memory as files are read in turns
    # Escaped, because load_dataset expands globs again and a real file's name may hold brackets.
    data_files = [glob.escape(file) for file in files]
    dataset = load_dataset(builder, data_files=data_files, split="train", streaming=streaming, **options)
    return with_features(dataset) if streaming else dataset


def with_features(stream: IterableDataset) -> IterableDataset:
    """`stream` with its columns known, from its first row where nothing else tells them."""
    if stream.features is None:
        stream = stream.cast(Dataset.from_list(list(stream.take(1))).features)
    return stream


def _file_error(file: str, problem: str, option: str = "--train_file") -> UserError:
    return UserError(f"{option} {file}: {problem}")


def _unreadable(file: str, error: BaseException) -> UserError:
    line = _broken_json_line(file) if file_kind(file) == ".jsonl" else None
    problem = f"cannot be read as {file_kind(file)}; mend or convert it ({innermost_reason(error)})"
    return _file_error(file, f"line {line} {problem}" if line else problem)


def _broken_json_line(file: str) -> int | None:
    """The number of the first line that is no JSON: the reader knows only its place in a chunk."""
    with gzip.open(file) if file.endswith(".gz") else open(file, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                json.loads(line)
            except ValueError:
                if line.strip():
                    return number
    return None


def innermost_reason(error: BaseException) -> str:
    """The innermost cause, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)[:300] or type(error).__name__


def _check_is_text(file: str, whole: bool = True) -> None:
    """Read the file once, in pieces, or else its first piece, to be sure that it is UTF-8 text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    size = 0
    try:
        for chunk in _chunks(file):
            if b"\0" in chunk:
                raise _file_error(file, "holds NUL bytes, so it is binary or UTF-16; save it as UTF-8 text")
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                line += chunk.count(b"\n", 0, max(0, error.start - pending))
                problem = f"line {line} is not UTF-8 text; convert the file (iconv -f latin1 -t utf-8)"
                raise _file_error(file, problem) from error
            line += chunk.count(b"\n")
            size += len(chunk)
            if not whole:
                break
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise _file_error(file, f"the gzip file is damaged ({error}); compress or copy it again") from error
    except OSError as error:
        raise _file_error(file, f"cannot be read ({error.strerror}); check its permissions") from error
    if size == 0:
        raise _file_error(file, "is empty; give a file with text")


def _chunks(file: str) -> Iterator[bytes]:
    """The bytes of a file, unpacked, with an empty piece at its end."""
    with gzip.open(file, "rb") if file.endswith(".gz") else open(file, "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk
    yield b""


def _csv_columns(files: list[str], separator: str) -> tuple[list[str], set[str]]:
    """The column names, equal in all files, and those whose first rows are all numbers."""
    names: list[str] = []
    numeric: set[str] = set()
    for file in files:
        try:
            sample = pd.read_csv(file, sep=separator, nrows=_SAMPLED_CSV_ROWS, keep_default_na=False)
        except ValueError as error:
            raise _unreadable(file, error) from error
        if sample.empty:
            raise _file_error(file, "has a header but no rows; give a file with text")
        if not isinstance(sample.index, pd.RangeIndex):  # pandas took the surplus cells for row labels.
            raise _file_error(file, "rows have more cells than the header; quote cells that hold the separator")
        if names and list(sample.columns) != names:
            columns = f"{', '.join(sample.columns)}, but {files[0]} has {', '.join(names)}"
            raise _file_error(file, f"has the columns {columns}; give files of one layout")
        names = list(sample.columns)
        numeric |= {name for name in names if pd.api.types.is_numeric_dtype(sample[name])}
    return names, numeric


def text_features(columns: Sequence[str]) -> Features:
    """Features of columns that all hold text."""
    return Features({column: Value("string") for column in columns})
