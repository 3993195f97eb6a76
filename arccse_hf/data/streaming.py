"""Training text that does not fit: read, cleaned, shuffled and tokenised while training goes on, in flat memory."""

from __future__ import annotations

import copy
import functools
import itertools
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import fields, replace

import datasets
import pyarrow as pa
import torch
from accelerate import Accelerator
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import PreTrainedTokenizerBase, TrainingArguments

from ..compat import reset_fsspec_lock
from ..errors import UserError
from .cleaning import CleaningCounts, RowCleaner, rows_of, strip_texts
from .columns import CANONICAL_COLUMNS
from .dataloaders import loader_options, prepare_share
from .tokenization import check_length, tokenize_batch
from .training_texts import DATASET_ERRORS, innermost_reason, open_texts

logger = logging.getLogger(__name__)

_ROWS_AT_ONCE = 1_000
_FILES_IN_TURNS = 10
_COUNTED = [field.name for field in fields(CleaningCounts) if field.name not in ("min_chars", "duplicate_window")]


class TextStream(IterableDataset):
    """This process's share of the rows of token ids, without end: after its last row the text starts again.

    A row is `anchor` [, `positive` [, `negative`]] and `epoch`: how often the text had been read before. Each epoch has
    an order of its own. Its rows are dealt out over the readers (all processes, and their dataloader workers), whole
    files where their number is a multiple of the readers', else row by row, where each reads all and keeps its part:
    every row is seen exactly once per epoch, and no process runs out of rows before another.

    A row is a duplicate where its reader kept an equal one among its last `shuffle_buffer` rows of this epoch. To find
    them all would take memory that grows with the text.

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
        shuffle_buffer: how many rows are mixed with each other; up to ten files are read in turns.
        seed: of the order.
        process_index: which of the processes this is.
        num_processes: on all machines together.

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
        min_chars: int = 5,
        exclude: Collection[str] = (),
        shuffle_buffer: int = 50_000,
        seed: int = 0,
        process_index: int = 0,
        num_processes: int = 1,
    ):
        check_length(tokenizer, max_seq_length)
        texts, self._source = open_texts(
            train_file, dataset_name, dataset_config, dataset_split, text_columns, streaming=True
        )
        self._columns = CANONICAL_COLUMNS[: len(texts.column_names)]
        in_turns = min(_FILES_IN_TURNS, texts.num_shards)
        texts = texts.shuffle(seed=seed, buffer_size=shuffle_buffer, max_buffer_input_shards=in_turns)
        self._texts = texts.with_format("arrow")
        self._new_cleaner = functools.partial(RowCleaner, min_chars, exclude, duplicate_window=shuffle_buffer)
        self._tokenize = functools.partial(
            tokenize_batch, tokenizer=copy.deepcopy(tokenizer), max_seq_length=max_seq_length
        )
        self.process_index = process_index
        self.num_processes = num_processes
        self._batch_size = 1
        self._counts = _shared_counts(1)

    def head(self, count: int) -> tuple[datasets.Dataset, CleaningCounts]:
        """Returns the first `count` rows of all processes together, as texts, and what became of those read for them.

        Raises:
            UserError: Nothing is left of the text.
        """
        cleaner = self._new_cleaner()
        rows: list[dict[str, str]] = []
        for kept in self._kept(self._texts, cleaner):
            rows += (dict(zip(self._columns, row, strict=True)) for row in kept)
            if len(rows) >= count:
                break
        if not rows:
            raise UserError(
                f"{self._source}: no row is left to train on ({cleaner.counts}); give more text or a lower --min_chars"
            )
        return datasets.Dataset.from_list(rows[:count]), cleaner.counts

    def __iter__(self) -> Iterator[dict[str, list[int] | int]]:
        worker = get_worker_info()
        index, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        if worker is not None:
            reset_fsspec_lock()
        # datasets deals out to dataloader workers by files only, and leaves workers idle where there are fewer.
        readers = self.num_processes * workers
        share = split_dataset_by_node(self._texts, self.process_index * workers + index, readers)
        cleaner = self._new_cleaner()
        for epoch in itertools.count():
            kept = cleaner.counts.kept
            cleaner.forget()
            share.set_epoch(epoch)
            for rows in self._tokenized(share, cleaner):
                self._counts[index] = torch.tensor([getattr(cleaner.counts, name) for name in _COUNTED])
                for row in rows:
                    yield row | {"epoch": epoch}
            if cleaner.counts.kept - kept < self._batch_size:
                raise self._failed(
                    f"{self._source}: the share of one of {readers} readers (processes x dataloader workers) does not "
                    f"fill a batch of {self._batch_size}; bring more text, lower --per_device_train_batch_size or use "
                    f"fewer readers ({cleaner.counts})"
                )

    def dataloader(
        self, batch_size: int, collate: Callable, args: TrainingArguments, device: torch.device
    ) -> DataLoader:
        """What `Trainer.get_train_dataloader` returns, of this process's share."""
        self._batch_size = batch_size
        self._counts = _shared_counts(args.dataloader_num_workers)
        loader = DataLoader(self, batch_size=batch_size, collate_fn=collate, **loader_options(args))
        return prepare_share(loader, args, device)

    def report_counts(self, accelerator: Accelerator) -> CleaningCounts:
        """Logs what became of the rows that each process has read so far, and returns the sum. All processes must call.

        Rows are counted each time they are read, a little ahead of training.
        """
        each = accelerator.gather(self._counts.sum(0, keepdim=True).to(accelerator.device))
        totals = [replace(self._new_cleaner().counts, **dict(zip(_COUNTED, row, strict=True))) for row in each.tolist()]
        for index, counts in enumerate(totals):
            logger.info("rows read by process %d of %d: %s", index, len(totals), counts)
        return replace(totals[0], **dict(zip(_COUNTED, each.sum(0).tolist(), strict=True)))

    def _tokenized(self, texts: datasets.IterableDataset, cleaner: RowCleaner) -> Iterator[list[dict[str, list[int]]]]:
        """Yields token ids, some rows at once."""
        for kept in self._kept(texts, cleaner):
            token_ids = self._tokenize(dict(zip(self._columns, map(list, zip(*kept, strict=True)), strict=False)))
            yield [dict(zip(self._columns, row, strict=True)) for row in zip(*token_ids.values(), strict=True)]

    def _kept(self, texts: datasets.IterableDataset, cleaner: RowCleaner) -> Iterator[list[tuple[str, ...]]]:
        """Yields the rows that cleaning leaves, some at once."""
        for table in self._tables(texts):
            rows = list(rows_of(table))
            yield [rows[index] for index in cleaner.keep(rows)]

    def _tables(self, texts: datasets.IterableDataset) -> Iterator[pa.Table]:
        try:
            for table in texts.iter(_ROWS_AT_ONCE):
                yield strip_texts(table)
        except UserError as error:
            raise self._failed(str(error)) from error
        except DATASET_ERRORS as error:
            reason = f"{self._source}: cannot be read any farther ({innermost_reason(error)})"
            raise self._failed(reason) from error

    def _failed(self, reason: str) -> UserError:
        if self.process_index:  # The script's own message comes from the first process, which may know nothing of it.
            logger.error(reason)
        return UserError(reason)


def _shared_counts(workers: int) -> torch.Tensor:
    # Shared memory: the worker processes count, and this one reports.
    return torch.zeros(max(workers, 1), len(_COUNTED), dtype=torch.int64).share_memory_()
