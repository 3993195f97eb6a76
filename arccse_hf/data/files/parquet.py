"""Rows of .parquet files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...errors import one_line
from .rows import ROWS_PER_TABLE, Mark, NumberedRow, Range, RowFile
from .source import MAX_TEXT_CHARACTERS

_ROWS_AT_ONCE = 1_000
_BUFFER_BYTES = 1 << 20


class ParquetFile(RowFile):
    """A .parquet file."""

    unit = "row"

    def _look(self, named: Collection[str]) -> tuple[dict[str, str], bool]:
        with self._open() as file:
            fields = list(file.schema_arrow)
            columns = {field.name: _kind(field.type) for field in fields}
            if len(columns) < len(fields):
                raise self.source.fault("two columns have one name; give each a name of its own")
            return columns, file.metadata.num_rows == 0

    def count(self) -> int:
        """Returns the number of rows."""
        with self._open() as file:
            return file.metadata.num_rows

    def rows(self, columns: Sequence[str], ranges: Sequence[Range] = ((0, None),)) -> Iterator[NumberedRow]:
        """As `RowFile.rows`. What is no text comes as it is."""
        for start, table in self._parts(columns, ranges):
            values = [table.column(name).to_pylist() for name in columns]
            yield from enumerate(zip(*values, strict=True), start=start + 1)

    def tables(
        self, columns: Sequence[str], most_rows: int = ROWS_PER_TABLE, mark: Mark | None = None
    ) -> Iterator[tuple[pa.Table, Mark]]:
        """As `RowFile.tables`. Of the row group that a mark is in, what is before it is read again."""
        for start, part in self._parts(columns, ((mark.rows if mark else 0, None),)):
            table = part.select(list(columns))
            for offset in range(0, len(table), most_rows):
                piece = table.slice(offset, most_rows)
                yield piece, Mark(start + offset + len(piece))

    def _parts(self, columns: Sequence[str], ranges: Sequence[Range]) -> Iterator[tuple[int, pa.Table]]:
        """Yields some rows at once, and the position of the first."""
        names = list(dict.fromkeys(columns))
        with self._open() as file:
            bounded = [(start, file.metadata.num_rows if stop is None else stop) for start, stop in ranges]
            position = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if not _common(position, position + rows, bounded):
                    position += rows
                    continue
                # By default a whole column of a row group is read at once, and that can be the file.
                for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=names):
                    for start, stop in _common(position, position + batch.num_rows, bounded):
                        part = batch.slice(start - position, stop - start)
                        yield start, pa.table([self._valid(part.column(name), start) for name in names], names=names)
                    position += batch.num_rows

    def _valid(self, array: pa.Array, start: int) -> pa.Array:
        """Returns text as strings, other values as they are."""
        if _kind(array.type) not in ("text", "nothing"):
            return array
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        try:
            array.validate(full=True)
        except pa.ArrowInvalid:
            for number, value in enumerate(array, start=start + 1):
                try:
                    value.as_py()
                except UnicodeDecodeError as error:
                    raise self.source.fault("not UTF-8 text; write the file again", number) from error
            raise
        array = pc.cast(array, pa.string())
        too_long = pc.index(pc.greater(pc.utf8_length(array), MAX_TEXT_CHARACTERS), True).as_py()
        if too_long >= 0:
            raise self.source.too_long(start + 1 + too_long, "text")
        return array

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        with self.source.faults():
            try:
                with pq.ParquetFile(self.path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
                    yield file
            except (pa.ArrowException, OSError) as error:
                raise self.source.fault(
                    f"cannot be read as .parquet; write it again ({one_line(error)[:300]})"
                ) from error


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    if pa.types.is_null(kind):
        return "nothing"
    if pa.types.is_integer(kind):
        return "integers"
    return "numbers" if pa.types.is_floating(kind) or pa.types.is_decimal(kind) else f"values of type {kind}"


def _common(start: int, stop: int, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(max(start, first), min(stop, last)) for first, last in ranges if first < stop and start < last]
