"""A stream as blocks of shuffled rows, which can be entered again at the beginning of any block.

A shuffle buffer cannot: its rows come from anywhere before, so they would have to be kept, or all be read again. Here a
block is read whole, shuffled and given out, and what comes next does not depend on it. To go on within a block, that
block alone is read again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import datasets
import numpy as np
import pyarrow as pa

from .cleaning import rows_of, strip_texts
from .files import RowFile
from .files.rows import ROWS_PER_TABLE, Mark

SHARDS_IN_TURNS = 10
"""How many files are read in turns, a table of each, so that their rows come into one block."""


class Shard(Protocol):
    """A part of a text that is read by itself: a file.

    Attributes:
        size: In bytes; 0 where it is not known.
        name: Of the file, without its folder; empty where it is not known.
        columns: What is read of it.
    """

    size: int
    name: str
    columns: list[str]

    def tables(self, most_rows: int, place: Any = None) -> Iterator[tuple[pa.Table, Any]]:
        """Yields tables of at most `most_rows` rows, from a place on, and the place behind each, as JSON holds it."""
        ...


class FileShard:
    """A file of the one reader.

    Args:
        file: The file.
        columns: What is read of it.
    """

    def __init__(self, file: RowFile, columns: Sequence[str]):
        self.file = file
        self.columns = list(columns)
        self.size = os.path.getsize(file.path)
        self.name = os.path.basename(file.path)

    def tables(self, most_rows: int, place: Sequence | None = None) -> Iterator[tuple[pa.Table, Sequence]]:
        """As `Shard.tables`."""
        return self.file.tables(self.columns, most_rows, None if place is None else Mark(*place))


class DatasetShard:
    """A shard of a dataset that is streamed by `datasets`.

    Args:
        dataset: All shards.
        index: Of this one.
    """

    def __init__(self, dataset: datasets.IterableDataset, index: int):
        self.dataset = dataset
        self.index = index
        self.columns = list(dataset.column_names)
        self.size = 0
        self.name = ""

    def tables(self, most_rows: int, place: dict | None = None) -> Iterator[tuple[pa.Table, dict]]:
        """As `Shard.tables`. What is before the place in the shard is read again, and thrown away by `datasets`."""
        shard = self.dataset.shard(self.dataset.num_shards, self.index).with_format("arrow")
        if place is not None:
            shard.load_state_dict(place)
        for table in shard.iter(most_rows):
            yield table, shard.state_dict()


class BlockStart(NamedTuple):
    """The place before a block, as JSON holds it.

    Attributes:
        epoch: How often the text had been read before.
        number: Of the block in the epoch.
        opened: How many shards of the epoch's order were opened before.
        turns: Those that are being read, in the order of their turns: number of the shard, and the place in it.
        rows: How many rows of the epoch were dealt out before, to all readers.
    """

    epoch: int = 0
    number: int = 0
    opened: int = 0
    turns: Sequence[tuple[int, Any]] = ()
    rows: int = 0


class ShuffledBlocks:
    """One reader's share of a text, in blocks.

    The shards have an order of their own each epoch. They are dealt out whole where their number is a multiple of the
    readers', else row by row.

    Args:
        shards: The text.
        block_rows: Rows of a block, or a few more.
        seed: Of the orders.
        reader: Which of the readers this is.
        readers: How many share the text.
    """

    def __init__(self, shards: Sequence[Shard], block_rows: int, seed: int, reader: int = 0, readers: int = 1):
        self.shards = shards
        self.block_rows = block_rows
        self.seed = seed
        self.reader = reader
        self.readers = readers
        self.in_turns = min(SHARDS_IN_TURNS, len(shards))
        self.table_rows = max(1, min(ROWS_PER_TABLE, block_rows // self.in_turns))

    def epoch(self, start: BlockStart) -> Iterator[tuple[BlockStart, list[tuple[str, ...]]]]:
        """Yields the blocks of an epoch from `start` on, each with the place before it: rows of stripped text."""
        order = np.random.default_rng((self.seed, start.epoch)).permutation(len(self.shards)).tolist()
        step, offset = self.readers, self.reader
        if len(order) % self.readers == 0:
            order, step, offset = order[self.reader :: self.readers], 1, 0
        turns = [(index, place, self._tables(index, place)) for index, place in start.turns]
        opened, dealt = start.opened, start.rows
        block: list[tuple[str, ...]] = []
        while True:
            while len(turns) < self.in_turns and opened < len(order):
                turns.append((order[opened], None, self._tables(order[opened], None)))
                opened += 1
            if not turns:
                break
            index, _, tables = turns.pop(0)
            table, place = next(tables, (None, None))
            if table is None:
                continue
            turns.append((index, place, tables))
            chosen = np.arange((offset - dealt) % step, len(table), step)
            block += rows_of(strip_texts(table.take(chosen) if step > 1 else table))
            dealt += len(table)
            if len(block) >= self.block_rows:
                yield start, self._shuffled(start, block)
                places = [(index, place) for index, place, _ in turns]
                start, block = BlockStart(start.epoch, start.number + 1, opened, places, dealt), []
        if block:
            yield start, self._shuffled(start, block)

    def _tables(self, index: int, place: Any) -> Iterator[tuple[pa.Table, Any]]:
        return self.shards[index].tables(self.table_rows, place)

    def _shuffled(self, start: BlockStart, rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
        order = np.random.default_rng((self.seed, start.epoch, self.reader, start.number)).permutation(len(rows))
        return [rows[index] for index in order.tolist()]
