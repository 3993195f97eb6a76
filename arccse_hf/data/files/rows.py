"""What every file can be asked for: its columns, how many rows it has, and any of them."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa

from .find import file_kind
from .source import Cursor, Source

logger = logging.getLogger(__name__)

SAMPLED_ROWS = 1_000
SAMPLED_CHARACTERS = 1 << 20
ROWS_PER_TABLE = 10_000
_CHARACTERS_PER_TABLE = 1 << 20

Range = tuple[int, int | None]
NumberedRow = tuple[int, tuple]
RawRow = tuple[int, Any]
"""Where a row is, and the row as it is cheapest to get."""


class Mark(NamedTuple):
    """A place between two rows of a file.

    Attributes:
        rows: How many rows stand before it.
        lines: How many lines do, in a file of lines.
        offset: What a `Cursor` starts at; None where the file must be read from its beginning to come here.
    """

    rows: int = 0
    lines: int = 0
    offset: int | None = None


class RowFile(ABC):
    """A file of rows.

    Args:
        path: Where it is.
        option: Where the user named it, for the errors.
        named: Columns that the user named.

    Attributes:
        columns: Name -> what the first rows hold there: "text", "nothing", or what errors call it ("numbers", ...).
        empty: Whether there is no row.
    """

    unit = "line"

    def __init__(self, path: str, option: str, named: Collection[str] = ()):
        self.path = path
        self.kind = file_kind(path)
        self.source = Source(path, option, self.unit)
        with self.source.faults():
            self.columns, self.empty = self._look(named)

    @abstractmethod
    def _look(self, named: Collection[str]) -> tuple[dict[str, str], bool]:
        """Reads the first rows; returns the columns, and whether there is no row."""

    @property
    def state(self) -> tuple:
        """What decides about the rows: the file as it is now, and how it is read."""
        stat = os.stat(self.path)
        return self.path, stat.st_size, stat.st_mtime_ns, tuple(self.columns)

    def require_rows(self) -> None:
        """Raises UnreadableFile if there is no row, or nothing in any."""
        if self.empty:
            raise self.source.fault("has a header but no rows" if self.columns else "is empty; give a file with text")
        if not self.columns:
            raise self.source.fault("its objects are empty; give a file with text")

    @abstractmethod
    def count(self) -> int:
        """Returns the number of rows. Only what must be parsed to count is parsed."""

    @abstractmethod
    def rows(self, columns: Sequence[str], ranges: Sequence[Range] = ((0, None),)) -> Iterator[NumberedRow]:
        """Yields where rows are (line or row, from 1) and what they hold in `columns`, in one pass over the file.

        Args:
            columns: Names. A field that a row of JSON lacks is None.
            ranges: `[start, stop)`, in order and without overlap; rows are counted from 0. By default all rows.

        Raises:
            UnreadableFile: At the first row that cannot be read.
        """

    def text(self, value: object, number: int, column: str) -> str | None:
        """Returns `value`, found in `column` of row `number`; raises UnreadableFile if it is neither text nor None."""
        if value is None or isinstance(value, str):
            return value
        shown = f"{value!r:.40}" + ("..." if len(f"{value!r}") > 40 else "")
        raise self.source.fault(f"column {column} holds {shown}, not text", number)

    def tables(
        self, columns: Sequence[str], most_rows: int = ROWS_PER_TABLE, mark: Mark | None = None
    ) -> Iterator[tuple[pa.Table, Mark]]:
        """Yields the rows as tables of text, each of bounded size, and the place behind each.

        Args:
            columns: Names.
            most_rows: Of a table.
            mark: Where to begin: a place that this method has told before. Nothing before it is read where the file is
                one of lines that is not packed; else nothing of it is parsed.

        Raises:
            UnreadableFile: At the first row that cannot be read, or is no text.
        """
        mark = mark or Mark()
        done = mark.rows
        cursor = Cursor(mark.lines, mark.offset) if mark.offset else Cursor()
        rows: list[NumberedRow] = []
        characters = 0
        for row in self._rows_from(columns, mark, cursor):
            rows.append(row)
            for value in row[1]:
                if value.__class__ is str:
                    characters += len(value)
            if characters >= _CHARACTERS_PER_TABLE or len(rows) == most_rows:
                done += len(rows)
                yield self._table(columns, rows), Mark(done, cursor.lines, cursor.offset())
                rows, characters = [], 0
        if rows:
            yield self._table(columns, rows), Mark(done + len(rows), cursor.lines, cursor.offset())

    def _rows_from(self, columns: Sequence[str], mark: Mark, cursor: Cursor) -> Iterator[NumberedRow]:
        """As `rows`, from a mark on; a cursor that starts there moves along where the file is one of lines."""
        return self.rows(columns, ((mark.rows, None),))

    def _table(self, columns: Sequence[str], rows: Sequence[NumberedRow]) -> pa.Table:
        numbers, values = zip(*rows, strict=True)
        arrays = []
        for name, column in zip(columns, zip(*values, strict=True), strict=True):
            try:
                array = pa.array(column, pa.string())
            except (pa.ArrowException, TypeError, UnicodeEncodeError):  # Some value is no text, or must be repaired.
                checked = [self.text(value, number, name) for value, number in zip(column, numbers, strict=True)]
                array = pa.array(checked, pa.string())
            arrays.append(array)
        return pa.table(arrays, names=list(columns))


class ParsedFile(RowFile):
    """A file of text, whose rows can be told apart before they are parsed."""

    @abstractmethod
    def _raw_rows(self, cursor: Cursor) -> Iterator[RawRow]:
        """Yields the rows, in a file of lines from the cursor's place on."""

    @abstractmethod
    def _parsed(self, rows: Iterable[RawRow], columns: Sequence[str]) -> Iterator[NumberedRow]:
        """Yields the values of `columns` of raw rows."""

    def count(self) -> int:
        """As `RowFile.count`."""
        with self.source.faults():
            return sum(1 for _ in self._raw_rows(Cursor()))

    def rows(self, columns: Sequence[str], ranges: Sequence[Range] = ((0, None),)) -> Iterator[NumberedRow]:
        """As `RowFile.rows`."""
        with self.source.faults():
            raw_rows = self._raw_rows(Cursor())
            position = 0
            for start, stop in ranges:
                chosen = islice(raw_rows, start - position, None if stop is None else stop - position)
                yield from self._parsed(chosen, columns)
                position = stop or 0

    def _rows_from(self, columns: Sequence[str], mark: Mark, cursor: Cursor) -> Iterator[NumberedRow]:
        with self.source.faults():
            raw_rows = self._raw_rows(cursor)
            yield from self._parsed(islice(raw_rows, 0 if mark.offset else mark.rows, None), columns)


class LinesFile(ParsedFile):
    """A .txt file: a line is a row."""

    def _look(self, named: Collection[str]) -> tuple[dict[str, str], bool]:
        first = 0
        for line in islice(self.source.lines(), SAMPLED_ROWS):
            first += len(line)
            if first > SAMPLED_CHARACTERS:
                break
        return ({"text": "text"} if first else {}), not first

    def _raw_rows(self, cursor: Cursor) -> Iterator[RawRow]:
        return ((cursor.lines, line) for line in self.source.lines(cursor=cursor))

    def _parsed(self, rows: Iterable[RawRow], columns: Sequence[str]) -> Iterator[NumberedRow]:
        for number, line in rows:
            yield number, (line.rstrip("\n"),) * len(columns)
