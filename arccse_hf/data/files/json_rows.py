"""Rows of .json and .jsonl files: one object per line, or one array of objects, which is never read whole."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from io import TextIOWrapper
from itertools import islice
from typing import Any

from ...errors import without_surrogates
from .rows import SAMPLED_CHARACTERS, SAMPLED_ROWS, NumberedRow, ParsedFile, RawRow
from .source import MAX_TEXT_CHARACTERS, Cursor, Source, UnreadableFile

_CHARACTERS_AT_ONCE = 1 << 18
_BLANKS = " \t\n\r"
_NOT_BLANK = re.compile(f"[^{_BLANKS}]")
_LONGEST_TOKEN = 16  # of those that are not strings, and of escapes in strings
_KINDS = {
    str: "text", bool: "true or false", int: "integers", float: "numbers", list: "lists", dict: "objects",
    type(None): "null",
}  # fmt: skip


class JsonFile(ParsedFile):
    """A .json or .jsonl file."""

    is_array: bool

    def _look(self, named: Collection[str]) -> tuple[dict[str, str], bool]:
        with self.source.open() as stream:
            self.is_array = _Window(stream, self.source).peek() == "["
        types: dict[str, set[type]] = {}
        empty = True
        characters = 0
        for number, row in islice(self._raw_rows(Cursor()), SAMPLED_ROWS):
            empty = False
            for name, value in self._fields(number, row).items():
                types.setdefault(name, set()).add(type(value))
                characters += len(value) if isinstance(value, str) else 1
            if characters > SAMPLED_CHARACTERS:
                break
        return {name: _kind(found) for name, found in types.items()}, empty

    def _raw_rows(self, cursor: Cursor) -> Iterator[RawRow]:
        if self.is_array:
            return self._elements()
        return ((cursor.lines, line) for line in self.source.lines(cursor=cursor) if not line.isspace())

    def _fields(self, number: int, row: Any) -> dict[str, object]:
        if not self.is_array:
            try:
                row = json.loads(row.rstrip("\n"))
            except (ValueError, RecursionError) as error:
                raise _fault(self.source, number, error) from error
        if not isinstance(row, dict):
            raise self.source.fault(f'{_KINDS[type(row)]} where an object belongs, such as {{"text": ...}}', number)
        return row

    def _parsed(self, rows: Iterable[RawRow], columns: Sequence[str]) -> Iterator[NumberedRow]:
        for number, row in rows:
            value_of = self._fields(number, row).get
            yield number, tuple([value_of(name) for name in columns])

    def text(self, value: object, number: int, column: str) -> str | None:
        """As `RowFile.text`, without halves of surrogate pairs, which JSON can hold."""
        text = super().text(value, number, column)
        return text and without_surrogates(text)

    def _elements(self) -> Iterator[RawRow]:
        with self.source.open() as stream:
            window = _Window(stream, self.source)
            window.take("[")
            if window.peek() != "]":
                window.peek()
                yield window.line, window.decode()
                while window.peek() == ",":
                    window.take(",")
                    window.peek()
                    yield window.line, window.decode()
            window.take("]")
            if window.peek():
                raise self.source.fault("something stands behind the array; a .json file holds one", window.line)

    @property
    def state(self) -> tuple:
        """As `RowFile.state`."""
        return *super().state, self.is_array


class _Window:
    """A part of a text, from where it is decoded to on. Of an array it holds an element at a time."""

    def __init__(self, stream: TextIOWrapper, source: Source):
        self.line = 1
        self._stream = stream
        self._source = source
        self._decoder = json.JSONDecoder()
        self._text = stream.read(1).removeprefix("\ufeff")
        self._position = 0

    def peek(self) -> str:
        """Moves on to the next character that is not blank and returns it, "" at the end of the file."""
        while not (match := _NOT_BLANK.search(self._text, self._position)):
            self._move(len(self._text))
            if not self._read():
                return ""
        self._move(match.start())
        return match[0]

    def take(self, character: str) -> None:
        """Moves on behind `character`, which must be next."""
        there = self.peek()
        if there != character:
            shown = f"{there!r}" if there else "the end of the file"
            raise self._source.fault(f"not JSON: {shown} where {character!r} belongs", self.line)
        self._move(self._position + 1)

    def decode(self) -> object:
        """Moves on behind the value that begins here, and returns it."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos + _LONGEST_TOKEN > len(self._text)
                if cut and len(self._text) - self._position > MAX_TEXT_CHARACTERS:
                    raise self._source.too_long(self.line, "object") from error
                if cut and self._read():
                    continue
                line = self.line + self._text.count("\n", self._position, error.pos)
                raise self._source.fault(f"not JSON ({error.msg})", line) from error
            except (ValueError, RecursionError) as error:
                raise _fault(self._source, self.line, error) from error
            if end - self._position > MAX_TEXT_CHARACTERS:
                raise self._source.too_long(self.line, "object")
            self._move(end)
            return value

    def _move(self, position: int) -> None:
        self.line += self._text.count("\n", self._position, position)
        self._position = position

    def _read(self) -> bool:
        rest = self._text[self._position :]
        piece = self._stream.read(max(_CHARACTERS_AT_ONCE, len(rest)))
        if "\0" in piece:
            raise self._source.binary(self.line + (rest + piece[: piece.index("\0")]).count("\n"))
        self._text, self._position = rest + piece, 0
        return bool(piece)


def _fault(source: Source, number: int, error: ValueError | RecursionError) -> UnreadableFile:
    if isinstance(error, RecursionError):
        return source.fault("nested too deep for text; flatten it", number)
    if isinstance(error, json.JSONDecodeError):
        reason = error.msg.removesuffix(" at")
        return source.fault(f"not a JSON object on one line ({reason} at character {error.pos + 1})", number)
    return source.fault(f"not readable as JSON ({error})", number)  # an integer of more digits than Python converts


def _kind(types: set[type]) -> str:
    types = types - {type(None)}
    if not types:
        return "nothing"
    if str in types:
        return "text"  # values of other types are refused where they stand
    if types == {int, float}:
        return "numbers"
    return _KINDS[types.pop()] if len(types) == 1 else "values of several types"
