"""The one reader of files: training, evaluation and encoding read every file here, by the same rules.

Kinds, told by the suffix: .txt, .csv, .tsv, .json, .jsonl and .parquet. All but the last may also end in .gz.

All text:
    UTF-8, with or without a byte order mark. LF, CR LF or a lone CR end a line. NUL characters are refused, because
    they mean a binary file or UTF-16. No line and no text has more than `MAX_TEXT_CHARACTERS`. A .gz file may unpack to
    `MAX_GZIP_RATIO` times its size, and to `GZIP_FREE_BYTES` in any case.
.txt:
    A line is a row. Its only column is called `text`.
.csv:
    RFC 4180: a cell that holds a quote, the separator or a line break stands in quotes, and a quote in it is doubled.
    The separator is the comma, or the semicolon where the first rows say so.
.tsv:
    A tab ends a cell, a line break ends a row, and a quote is text.
.csv and .tsv:
    All rows have as many cells as the first. Cells are text; a column that holds nothing but numbers in its first rows
    is no column of text. In a file of one column an empty line is an empty text, elsewhere it is no row. The first row
    names the columns, unless it looks like the others; then one column is called `text`, several `column1`, `column2`
    and so on, and the log says so.
.json and .jsonl:
    One object per line, or one array of objects. A field that is missing is null. A column of text holds strings and
    nulls. Half of a surrogate pair is no character and becomes `?`.
.parquet:
    Columns of strings, dictionaries of strings or nulls are text.

What cannot be read is an `UnreadableFile`: one sentence that names the option, the file and the line, in Parquet
the row, both counted from 1.

Example:
    >>> file = open_file("pairs.csv", "--train_file")  # doctest: +SKIP
    >>> file.columns  # doctest: +SKIP
    {'anchor': 'text', 'positive': 'text', 'id': 'numbers'}
    >>> next(file.rows(["positive", "anchor"]))  # doctest: +SKIP
    (2, ('A second sentence.', 'The first one.'))
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from .delimited import DelimitedFile
from .find import KINDS, check_file, expand_files, file_kind, stem
from .json_rows import JsonFile
from .parquet import ParquetFile
from .rows import LinesFile, RowFile
from .source import GZIP_FREE_BYTES, MAX_GZIP_RATIO, MAX_TEXT_CHARACTERS, UnreadableFile

__all__ = [
    "GZIP_FREE_BYTES",
    "KINDS",
    "MAX_GZIP_RATIO",
    "MAX_TEXT_CHARACTERS",
    "RowFile",
    "UnreadableFile",
    "check_file",
    "expand_files",
    "file_kind",
    "open_file",
    "stem",
]

_CLASSES: dict[str, Callable[[str, str, Collection[str]], RowFile]] = {
    ".txt": LinesFile,
    ".csv": DelimitedFile,
    ".tsv": DelimitedFile,
    ".json": JsonFile,
    ".jsonl": JsonFile,
    ".parquet": ParquetFile,
}


def open_file(path: str, option: str, named: Collection[str] = ()) -> RowFile:
    """Looks at the beginning of a file and returns it, ready to give its rows.

    Args:
        path: A file that `check_file` has passed.
        option: Where the user named it, for the errors.
        named: Columns that the user named: a first row that holds one of them is a header.

    Raises:
        UnreadableFile: Its beginning cannot be read.
    """
    return _CLASSES[file_kind(path)](path, option, named)
