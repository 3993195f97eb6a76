"""Training text that does not fit: read, cleaned, shuffled and tokenised while training goes on, in flat memory."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import PreTrainedTokenizerBase, TrainingArguments

from ..compat import reset_fsspec_lock
from ..errors import UserError
from .blocks import BlockStart, ShuffledBlocks
from .cleaning import CleaningCounts, RowCleaner
from .columns import CANONICAL_COLUMNS
from .dataloaders import loader_options, prepare_share
from .sentences import MIN_CHARS
from .tokenization import check_length, tokenize_batch
from .training_texts import DATASET_ERRORS, innermost_reason, open_shards

logger = logging.getLogger(__name__)

PLACE = "place"
"""What a batch says besides its tensors: the place behind its last row."""
_ROWS_AT_ONCE = 1_000
_COUNTED = [field.name for field in fields(CleaningCounts) if field.name not in ("min_chars", "duplicate_window")]

Row = dict[str, list[int] | int]


class Place(NamedTuple):
    """The place behind a row that a reader has given, as JSON holds it.

    Attributes:
        reader: Number of the dataloader worker.
        block: The place before the row's block.
        counts: What the reader had counted before the block.
        kept: How many rows it had kept before the epoch.
        given: Rows of the block that it has given, this one included.
    """

    reader: int
    block: BlockStart
    counts: dict[str, int]
    kept: int
    given: int


class TextStream(IterableDataset):
    """This process's share of the rows of token ids, without end: after its last row the text starts again.

    A row is `anchor` [, `positive` [, `negative`]] and `epoch`: how often the text had been read before. Each epoch has
    an order of its own. Its rows are dealt out over the readers (all processes, and their dataloader workers), whole
    files where their number is a multiple of the readers', else row by row, where each reads all and keeps its part:
    every row is seen exactly once per epoch, and no process runs out of rows before another.

    A row is a duplicate where an equal one is before it in its block. To find them all would take memory that grows
    with the text.

    Where a run goes on (`enter`), each reader reads the block again that it was in, and no more.

    Args:
        tokenizer: left as it is.
        max_seq_length: in tokens, special tokens included.
        train_file: this and the next six are those of `arccse_hf.data.training_texts.load_training_texts`.
        dataset_name: as there.
        dataset_config: as there.
        dataset_split: as there, without slices.
        text_columns: as there.
        min_chars: as there.
        exclude: as there.
        shuffle_buffer: rows of a block, which are mixed with each other; up to ten files are read in turns.
        seed: of the order.
        process_index: which of the processes this is.
        num_processes: on all machines together.

    Attributes:
        fingerprint: of where the text comes from and what is left of it, not of its order: a resumed run must have the
            same.

    Raises:
        UserError: for what is wrong at the beginning of the input; while rows are read, for what is wrong farther on.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_seq_length: int,
        *,
        train_file: Sequence[str] = (),
        dataset_name: str | None = None,
        dataset_config: str | None = None,
        dataset_split: str = "train",
        text_columns: Sequence[str] = (),
        min_chars: int = MIN_CHARS,
        exclude: Collection[str] = (),
        shuffle_buffer: int = 50_000,
        seed: int = 0,
        process_index: int = 0,
        num_processes: int = 1,
    ):
        check_length(tokenizer, max_seq_length)
        shards, columns, self._source = open_shards(
            train_file, dataset_name, dataset_config, dataset_split, text_columns
        )
        self._columns = CANONICAL_COLUMNS[:columns]
        self._blocks = functools.partial(ShuffledBlocks, shards, shuffle_buffer, seed)
        self._new_cleaner = functools.partial(RowCleaner, min_chars, exclude, duplicate_window=shuffle_buffer)
        self._tokenize = functools.partial(
            tokenize_batch, tokenizer=copy.deepcopy(tokenizer), max_seq_length=max_seq_length
        )
        sizes = [shard.size for shard in shards]
        # Without folders, which may be others where the run goes on.
        named = Path(dataset_name).resolve().name if dataset_name and Path(dataset_name).exists() else dataset_name
        names = [named, dataset_config, dataset_split, shards[0].columns, [shard.name for shard in shards]]
        self.fingerprint = _hashed(names, sizes, min_chars, sorted(exclude))
        self._order = _hashed(sizes, columns, shuffle_buffer, seed, min_chars, sorted(exclude))
        self.process_index = process_index
        self.num_processes = num_processes
        self._batch_size = 1
        self._counts = _shared_counts(1)
        self._entered: dict[int, Place] = {}
        self._places: dict[int, Place] = {}
        self._last_reader = -1
        self._skips = False

    def head(self, count: int) -> tuple[datasets.Dataset, CleaningCounts]:
        """Returns the first `count` rows of all processes together, as texts, and what became of those read for them.

        Raises:
            UserError: Nothing is left of the text.
        """
        cleaner = self._new_cleaner()
        rows: list[dict[str, str]] = []
        for _, block in self._reported(self._blocks().epoch(BlockStart())):
            cleaner.forget()
            for kept in self._kept(block, cleaner):
                rows += (dict(zip(self._columns, row, strict=True)) for row in kept)
            if len(rows) >= count:
                break
        if not rows:
            raise UserError(
                f"{self._source}: no row is left to train on ({cleaner.counts}); give more text or a lower --min_chars"
            )
        return datasets.Dataset.from_list(rows[:count]), cleaner.counts

    def __iter__(self) -> Iterator[Row]:
        return (row for row, _ in self.placed_rows())

    def placed_rows(self) -> Iterator[tuple[Row, Place]]:
        """Yields the rows of this reader, each with the place behind it."""
        worker = get_worker_info()
        workers = worker.num_workers if worker else 1
        if worker is not None:
            reset_fsspec_lock()
        # The first batch comes from the first worker: it takes the part of the reader whose turn it is.
        index = ((worker.id if worker else 0) + self._last_reader + 1) % workers
        readers = self.num_processes * workers
        blocks = self._blocks(self.process_index * workers + index, readers)
        place = self._entered.get(index) or Place(index, BlockStart(), {}, 0, 0)
        _, first, counts, kept_before, skipped = place
        cleaner = self._new_cleaner()
        cleaner.go_on_from(counts)
        while True:
            for start, block in self._reported(blocks.epoch(first)):
                cleaner.forget()
                place = Place(index, start, cleaner.state(), kept_before, skipped)
                for row in self._tokenized(block, cleaner, index, skipped):
                    place = place._replace(given=place.given + 1)
                    yield row | {"epoch": start.epoch}, place
                skipped = 0
            if cleaner.counts.kept - kept_before < self._batch_size:
                raise self._failed(
                    f"{self._source}: the share of one of {readers} readers (processes x dataloader workers) does not "
                    f"fill a batch of {self._batch_size}; bring more text, lower --per_device_train_batch_size or use "
                    f"fewer readers ({cleaner.counts})"
                )
            first, kept_before = BlockStart(first.epoch + 1), cleaner.counts.kept

    def dataloader(
        self, batch_size: int, collate: Callable, args: TrainingArguments, device: torch.device
    ) -> DataLoader:
        """What `Trainer.get_train_dataloader` returns, of this process's share.

        A batch also has `place`, which `trained_on` is to be told.
        """
        self._batch_size = batch_size
        self._places = dict(self._entered)
        self._counts = _shared_counts(args.dataloader_num_workers)
        for index, place in self._places.items():
            self._counts[index] = self._counted(place.counts)
        collate = functools.partial(_collate_placed, collate)
        loader = DataLoader(_PlacedRows(self), batch_size=batch_size, collate_fn=collate, **loader_options(args))
        return prepare_share(loader, args, device)

    def trained_on(self, place: str) -> None:
        """Notes that a batch was trained on: what was read ahead of it counts for nothing in `state`."""
        reader, block, *rest = json.loads(place)
        self._places[reader] = Place(reader, BlockStart(*block), *rest)
        self._last_reader = reader

    def state(self) -> dict[str, Any] | None:
        """Returns what `enter` needs to go on behind the batches that were trained on, as JSON holds it.

        None where batches were skipped, and not every reader has told its place since.
        """
        if self._skips and len(self._places) < len(self._counts):
            return None
        return {
            "text": self._order,
            "source": self.fingerprint,
            "readers": [self.num_processes, len(self._counts)],
            "last_reader": self._last_reader,
            "places": list(self._places.values()),
        }

    def obstacle(self, state: dict[str, Any] | None, workers: int) -> str | None:
        """Returns why `enter` could not go on from a state, or None.

        Args:
            state: What `state` has returned on this process; None where it is not known.
            workers: The dataloader workers of this run.
        """
        if state is None:
            return "it does not say where the stream was (and before version 0.2.0 the rows had another order)"
        # Checkpoints of earlier versions do not name the source.
        if state["text"] != self._order or state.get("source", self.fingerprint) != self.fingerprint:
            return "the text, or what decides about its order, is another"
        if state["readers"] != [self.num_processes, max(workers, 1)]:
            before = " x ".join(map(str, state["readers"]))
            return f"{before} readers (processes x dataloader workers) shared the stream"
        return None

    def enter(self, state: dict[str, Any] | None) -> None:
        """Has the next dataloader go on where another one was.

        Args:
            state: A state without `obstacle`; None: the dataloader begins at the beginning, and batches are skipped.
        """
        self._skips = state is None
        if state is not None:
            self._entered = {
                reader: Place(reader, BlockStart(*block), *rest) for reader, block, *rest in state["places"]
            }
            self._last_reader = state["last_reader"]

    def report_counts(self, accelerator: Accelerator) -> CleaningCounts:
        """Logs what became of the rows that each process has read so far, and returns the sum. All processes must call.

        Rows are counted each time they are read, a little ahead of training.
        """
        each = accelerator.gather(self._counts.sum(0, keepdim=True).to(accelerator.device))
        totals = [replace(self._new_cleaner().counts, **dict(zip(_COUNTED, row, strict=True))) for row in each.tolist()]
        for index, counts in enumerate(totals):
            logger.info("rows read by process %d of %d: %s", index, len(totals), counts)
        return replace(totals[0], **dict(zip(_COUNTED, each.sum(0).tolist(), strict=True)))

    def _tokenized(
        self, block: Sequence[tuple[str, ...]], cleaner: RowCleaner, index: int, skipped: int
    ) -> Iterator[Row]:
        """Yields the token ids of what cleaning leaves of a block, without its first rows, which were given before."""
        for kept in self._kept(block, cleaner):
            self._counts[index] = self._counted(cleaner.state())
            rows, skipped = kept[skipped:], max(0, skipped - len(kept))
            if rows:
                token_ids = self._tokenize(dict(zip(self._columns, map(list, zip(*rows, strict=True)), strict=True)))
                for row in zip(*token_ids.values(), strict=True):
                    yield dict(zip(self._columns, row, strict=True))

    def _kept(self, block: Sequence[tuple[str, ...]], cleaner: RowCleaner) -> Iterator[list[tuple[str, ...]]]:
        """Yields the rows that cleaning leaves, some at once."""
        for start in range(0, len(block), _ROWS_AT_ONCE):
            rows = block[start : start + _ROWS_AT_ONCE]
            yield [rows[index] for index in cleaner.keep(rows)]

    def _counted(self, counts: dict[str, int]) -> torch.Tensor:
        return torch.tensor([{"read": sum(counts.values()), **counts}[name] for name in _COUNTED])

    def _reported(self, blocks: Iterator[tuple]) -> Iterator[tuple]:
        """Yields the blocks; what cannot be read is one line."""
        try:
            yield from blocks
        except UserError as error:
            raise self._failed(str(error)) from error
        except DATASET_ERRORS as error:
            reason = f"{self._source}: cannot be read any farther ({innermost_reason(error)})"
            raise self._failed(reason) from error

    def _failed(self, reason: str) -> UserError:
        if self.process_index:  # The script's own message comes from the first process, which may know nothing of it.
            logger.error(reason)
        return UserError(reason)


class _PlacedRows(IterableDataset):
    """The rows of a stream with their places."""

    def __init__(self, stream: TextStream):
        self.stream = stream

    def __iter__(self) -> Iterator[tuple[Row, Place]]:
        return self.stream.placed_rows()


def _collate_placed(collate: Callable[[list[Row]], dict], rows: Sequence[tuple[Row, Place]]) -> dict:
    # As text, which goes through all that is done with a batch as it is.
    return collate([row for row, _ in rows]) | {PLACE: json.dumps(rows[-1][1])}


def _hashed(*values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _shared_counts(workers: int) -> torch.Tensor:
    # Shared memory: the worker processes count, and this one reports.
    return torch.zeros(max(workers, 1), len(_COUNTED), dtype=torch.int64).share_memory_()
