"""The characters of a file, with limits, and errors that say where."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from ...errors import UserError, one_line
from .find import is_gzip

MAX_TEXT_CHARACTERS = 1 << 24
MAX_GZIP_RATIO = 200
GZIP_FREE_BYTES = 1 << 26


class Cursor:
    """Where `Source.lines` is in a file, between two lines.

    Args:
        lines: How many lines stand before it.
        offset: What `TextIOBase.tell` said there.

    Attributes:
        lines: As above; it moves on.
    """

    def __init__(self, lines: int = 0, offset: int = 0):
        self.lines = lines
        self._offset: int | None = offset
        self._stream: io.TextIOWrapper | None = None

    @contextmanager
    def moved_by(self, stream: io.TextIOWrapper) -> Iterator[None]:
        """Moves an open file to this place, and follows it until it ends."""
        if self._offset:
            stream.seek(self._offset)
        self._stream = stream
        end: int | None = None
        try:
            yield
            end = self.offset()
        finally:  # who stops reading half-way may have closed the file
            self._offset, self._stream = end, None

    def offset(self) -> int | None:
        """Returns where the next line begins, for a cursor to start there; None where the file cannot be entered."""
        if self._stream is None:
            return self._offset
        return self._stream.tell() if self._stream.seekable() else None


class UnreadableFile(UserError):
    """A file, or a row in it, that cannot be read. Others can."""


class _UnpacksTooFar(Exception):
    """A .gz file is larger unpacked than any text would be."""


@dataclass(frozen=True)
class Source:
    """A file and the option that named it."""

    path: str
    option: str
    unit: str = "line"

    def where(self, line: int | None = None) -> str:
        """Returns how errors name the file, or a line of it."""
        return f"{self.option} {self.path}" + (f": {self.unit} {line}" if line else "")

    def fault(self, problem: str, line: int | None = None) -> UnreadableFile:
        """Returns the error that says what is wrong with the file or a line of it."""
        return UnreadableFile(f"{self.where(line)}: {problem}")

    def too_long(self, line: int, what: str = "line") -> UnreadableFile:
        """Returns the error for a line or a text that is too long."""
        return self.fault(f"more than {MAX_TEXT_CHARACTERS:,} characters in one {what}; cut it into shorter ones", line)

    def binary(self, line: int) -> UnreadableFile:
        """Returns the error for a line that holds NUL characters."""
        return self.fault("NUL characters, so it is binary or UTF-16; save it as UTF-8 text", line)

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turns what goes wrong while bytes are read into `UnreadableFile`."""
        try:
            yield
        except UnicodeDecodeError as error:
            raise self._undecodable() from error
        except _UnpacksTooFar as error:
            problem = f"unpacks to more than {MAX_GZIP_RATIO} times its size; if that is right, unpack it with gunzip"
            raise self.fault(problem) from error
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise self.fault(f"the gzip file is damaged ({one_line(error)}); compress or copy it again") from error
        except OSError as error:
            raise self.fault(f"cannot be read ({error.strerror or one_line(error)}); check its permissions") from error

    @contextmanager
    def open(self, newline: str | None = None, encoding: str = "utf-8") -> Iterator[io.TextIOWrapper]:
        """Opens the file, unpacked, as text.

        Args:
            newline: None for line ends that are all LF, "" for those that are in the file.
            encoding: Of the file.
        """
        with open(self.path, "rb") as packed:
            raw: IO[bytes] = io.BufferedReader(_Unpacked(packed), 1 << 17) if is_gzip(self.path) else packed
            with io.TextIOWrapper(raw, encoding=encoding, newline=newline) as stream:
                yield stream

    def lines(self, newline: str | None = None, cursor: Cursor | None = None) -> Generator[str, None, None]:
        """Yields the lines of the file, with their ends, without a byte order mark.

        Args:
            newline: As for `open`.
            cursor: Where the first of them is; it moves along.
        """
        cursor = Cursor() if cursor is None else cursor
        with self.open(newline) as stream, cursor.moved_by(stream):
            line = stream.readline(MAX_TEXT_CHARACTERS + 1)
            if cursor.lines == 0:
                line = line.removeprefix("\ufeff")
            while line:
                cursor.lines += 1
                if "\0" in line:
                    raise self.binary(cursor.lines)
                if len(line) > MAX_TEXT_CHARACTERS:
                    raise self.too_long(cursor.lines)
                yield line
                line = stream.readline(MAX_TEXT_CHARACTERS + 1)

    def _undecodable(self) -> UnreadableFile:
        """Reads the file again to find the first line that is not UTF-8. latin-1 has a character for every byte."""
        with self.faults(), self.open("", "latin-1") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(MAX_TEXT_CHARACTERS + 1), ""), start=1):
                if "\0" in line:
                    return self.binary(number)
                try:
                    line.encode("latin-1").decode()
                except UnicodeDecodeError:
                    return self.fault("not UTF-8 text; convert the file (iconv -f latin1 -t utf-8)", number)
        return self.fault("changed while it was read; run again")


class _Unpacked(io.RawIOBase):
    """The bytes of a .gz file, as long as they are not too many for the packed ones that they came from."""

    def __init__(self, packed: IO[bytes]):
        self._packed = packed
        self._gzip = gzip.GzipFile(fileobj=packed)
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._gzip.readinto(buffer)
        self._size += count
        if self._size > max(GZIP_FREE_BYTES, MAX_GZIP_RATIO * self._packed.tell()):
            raise _UnpacksTooFar
        return count
