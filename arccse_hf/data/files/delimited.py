"""Rows of .csv and .tsv files: what separates their cells, and whether their first row is a header."""

from __future__ import annotations

import csv
import re
import statistics
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from operator import itemgetter

from ..columns import KNOWN_COLUMNS
from .rows import SAMPLED_CHARACTERS, SAMPLED_ROWS, NumberedRow, ParsedFile, RawRow, logger
from .source import MAX_TEXT_CHARACTERS, Cursor, UnreadableFile

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_NAME = re.compile(r"[^\W\d]([\w \-./()#%]{0,38}[\w)#%])?")
_NAME_WORDS = 3
_IDENTIFIER = re.compile(r"[A-Za-z_][\w\-]{0,39}")
_OTHER_SEPARATORS = {"\t": "tabs; name it .tsv", "|": "'|'; write commas between its cells"}
_ROWS_TO_AGREE = 50
"""The first rows of a .csv file, which must agree before it is taken for one with another separator."""


class _Tsv(csv.excel_tab):
    """Without quotes."""

    quoting = csv.QUOTE_NONE


class _MalformedRow(UnreadableFile):
    """A row that no cells can be made of."""


class DelimitedFile(ParsedFile):
    """A .csv or .tsv file."""

    separator: str
    has_header: bool

    def _look(self, named: Collection[str]) -> tuple[dict[str, str], bool]:
        self.separator, rows, problem = self._choose_separator(named)
        if self.kind == ".csv":
            self._refuse_other_separators(rows)
        if problem:
            raise problem
        if not rows:
            self.has_header = False
            return {}, True
        known = _is_known(rows[0], named)
        self.has_header = known or _looks_like_header(rows[0], rows[1:])
        names = self._names(rows[0])
        self._log(names, known)
        data = rows[1:] if self.has_header else rows
        cells = list(zip(*(row for row in data if len(row) == len(names)), strict=True))
        kinds = [_kind(column) for column in cells] or ["nothing"] * len(names)
        return dict(zip(names, kinds, strict=True)), not any(row or len(names) == 1 for row in data)

    def _choose_separator(self, named: Collection[str]) -> tuple[str, list[list[str]], _MalformedRow | None]:
        if self.kind == ".tsv":
            return "\t", *self._sample("\t")
        comma, semicolon = self._sample(","), self._sample(";")
        for_comma, for_semicolon = (
            (bool(rows) and _is_known(rows[0], named), _is_regular(rows)) for rows, _ in (comma, semicolon)
        )
        several_cells = bool(semicolon[0]) and len(semicolon[0][0]) > 1
        return (";", *semicolon) if several_cells and for_semicolon > for_comma else (",", *comma)

    def _refuse_other_separators(self, rows: Sequence[Sequence[str]]) -> None:
        """Raises UnreadableFile where each row is one cell, and all have the same number of tabs or pipes above 0."""
        first = [row for row in rows if row][:_ROWS_TO_AGREE]
        if len(first) < 2 or any(len(row) > 1 for row in first):
            return
        for separator, advice in _OTHER_SEPARATORS.items():
            numbers = {row[0].count(separator) for row in first}
            if len(numbers) == 1 and 0 not in numbers:
                raise self.source.fault(
                    f"its first rows are one cell each, with the same number of {advice}, or put a header above them "
                    "if these are text"
                )

    def _sample(self, separator: str) -> tuple[list[list[str]], _MalformedRow | None]:
        """Returns the first rows, header included, and what is wrong with the next one if it cannot be parsed."""
        rows: list[list[str]] = []
        characters = 0
        try:
            for _, row in self._read(separator, Cursor()):
                rows.append(row)
                characters += sum(map(len, row))
                if len(rows) == SAMPLED_ROWS or characters > SAMPLED_CHARACTERS:
                    break
        except _MalformedRow as problem:
            return rows, problem
        return rows, None

    def _log(self, names: Sequence[str], known: bool) -> None:
        where = self.source.where()
        if self.separator == ";":
            logger.info("%s: read with ';' between cells", where)
        if not self.has_header:
            called = f"{'they are' if len(names) > 1 else 'it is'} called {', '.join(names)}"
            logger.warning("%s: the first row is read as a row, it names no columns; %s", where, called)
        elif not known:
            logger.info("%s: the first row is read as the names of columns: %s", where, ", ".join(names))

    def _names(self, first: list[str]) -> list[str]:
        if not self.has_header:
            return ["text"] if len(first) == 1 else [f"column{index}" for index in range(1, len(first) + 1)]
        names = [name.strip() or f"column{index}" for index, name in enumerate(first, start=1)]
        for name in names:
            if names.count(name) > 1:
                raise self.source.fault(f"two columns are called {name}; give each a name of its own", 1)
        return names

    def _read(self, separator: str, cursor: Cursor) -> Generator[tuple[int, list[str]], None, None]:
        """Yields the rows, header included, each with the number of its first line; empty lines before all are none."""
        csv.field_size_limit(MAX_TEXT_CHARACTERS)
        dialect = _Tsv if self.kind == ".tsv" else csv.excel
        with closing(self.source.lines("", cursor)) as lines:  # also where a row is refused
            reader = csv.reader(lines, dialect, delimiter=separator, strict=True)
            number = cursor.lines + 1
            started = cursor.lines > 0
            while True:
                try:
                    row = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    problem = f"malformed row ({error}); a cell with a quote in it stands in quotes, the quote doubled"
                    raise _MalformedRow(f"{self.source.where(number)}: {problem}") from error
                started = started or bool(row)
                if started:
                    yield number, row
                number = cursor.lines + 1

    def _raw_rows(self, cursor: Cursor) -> Iterator[tuple[int, list[str]]]:
        is_behind_the_header = cursor.lines > 0
        width = len(self.columns)
        with closing(self._read(self.separator, cursor)) as rows:
            if self.has_header and not is_behind_the_header:
                next(rows, None)
            for number, row in rows:
                if len(row) == width:
                    yield number, row
                elif not row:
                    if width == 1:
                        yield number, [""]
                else:
                    advice = "a tab ends a cell" if self.kind == ".tsv" else f"quote cells that hold {self.separator!r}"
                    raise self.source.fault(f"{len(row)} cells where the first row has {width}; {advice}", number)

    def _parsed(self, rows: Iterable[RawRow], columns: Sequence[str]) -> Iterator[NumberedRow]:
        places = list(self.columns)
        if len(columns) == 1:
            place = places.index(columns[0])
            for number, row in rows:
                yield number, (row[place],)
        else:
            cells_of = itemgetter(*(places.index(name) for name in columns))
            for number, row in rows:
                yield number, cells_of(row)

    @property
    def state(self) -> tuple:
        """As `RowFile.state`."""
        return *super().state, self.separator, self.has_header


def _is_known(row: Sequence[str], named: Collection[str]) -> bool:
    return any(cell.strip().lower() in KNOWN_COLUMNS or cell.strip() in named for cell in row)


def _is_regular(rows: Sequence[Sequence[str]]) -> bool:
    """Returns whether all rows, at least two, have one number of cells, at least two."""
    widths = [len(row) for row in rows if row]
    return len(widths) > 1 and set(widths) == {widths[0]} and widths[0] > 1


def _looks_like_header(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Returns whether the first row holds short names that differ from each other and from what stands below them."""
    cells = [cell.strip() for cell in first]
    names = [cell for cell in cells if cell]
    if not names or len(set(names)) < len(names):
        return False
    if not all(_NAME.fullmatch(name) and len(name.split()) <= _NAME_WORDS for name in names):
        return False
    for name, *below in zip(cells, *(row for row in others if len(row) == len(cells)), strict=True):
        kind, values = _kind(below), [cell.strip() for cell in below if cell.strip()]
        if name and (kind == "numbers" or (values and 2 * len(name) <= statistics.median(map(len, values)))):
            return True
    return all(_IDENTIFIER.fullmatch(name) for name in names)


def _kind(cells: Iterable[str]) -> str:
    filled = [cell.strip() for cell in cells if cell.strip()]
    if not filled:
        return "nothing"
    return "numbers" if all(map(_NUMBER.fullmatch, filled)) else "text"
