"""Training text: from files, the hub or the installed packages to clean rows, and from rows to token ids.

A dataset has the column `anchor` (unsupervised), `anchor` and `positive` (given pairs) or `anchor`, `positive` and
`negative` (pairs with a hard negative), whatever the columns were called where it came from.
"""

from __future__ import annotations

import copy
import difflib
import logging
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, IterableDataset, List, Value, load_dataset
from datasets.features.features import FeatureType
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from .errors import UserError, one_line
from .installed_docs import docstring_corpus
from .text_files import READ_ERRORS, expand_files, innermost_reason, load_files, text_features, with_features

logger = logging.getLogger(__name__)

INSTALLED_DOCS = "installed-docs"
CANONICAL_COLUMNS = ("anchor", "positive", "negative")

# The first of these whose names are all there is used. Pairs that come with a score must be named.
COLUMN_LAYOUTS = (
    ("anchor", "positive", "negative"),
    ("anchor", "positive"),
    ("sent0", "sent1", "hard_neg"),
    ("sent0", "sent1"),
    ("query", "positive", "negative"),
    ("query", "positive"),
    ("text",),
    ("sentence",),
)

_ROWS_PER_BATCH = 50_000
_ROWS_PER_PROCESS = 20_000  # Below this, starting another process costs more than it saves.


@dataclass(frozen=True)
class CleaningCounts:
    """How many rows were read, why some were dropped (the first reason that applies) and how many were kept.

    `duplicate_window` is set for a stream: a row was compared with that many rows before it, instead of with all, and a
    row that was read again counts again.
    """

    read: int
    empty: int
    too_short: int
    duplicate: int
    held_out: int
    kept: int
    min_chars: int
    duplicate_window: int | None = None

    def __str__(self) -> str:
        as_read, within = "", ""
        if self.duplicate_window:
            as_read, within = ", counted each time they were read", f" within {self.duplicate_window:,} rows"
        return (
            f"{self.kept:,} of {self.read:,} rows kept{as_read}: {self.empty:,} empty, {self.too_short:,} shorter than "
            f"{self.min_chars} characters, {self.duplicate:,} duplicates{within}, {self.held_out:,} held out for "
            "evaluation"
        )


class RowCleaner:
    """Says which rows of text to keep, and counts the others by the first reason that applies.

    Args:
        min_chars: rows with a shorter text are dropped.
        exclude: rows that hold one of these texts are dropped. Whitespace makes no difference.
        duplicate_window: how many of the rows kept last a row must differ from; None: from all.
    """

    def __init__(self, min_chars: int, exclude: Collection[str], duplicate_window: int | None = None):
        self.min_chars = min_chars
        self.duplicate_window = duplicate_window
        self._held_out = {one_line(text) for text in exclude}
        self._counts = dict.fromkeys(("empty", "too_short", "duplicate", "held_out", "kept"), 0)
        self._seen: set[bytes] = set()
        self._window: deque[bytes] = deque()

    @property
    def counts(self) -> CleaningCounts:
        """Of all rows so far."""
        return CleaningCounts(
            sum(self._counts.values()),
            **self._counts,
            min_chars=self.min_chars,
            duplicate_window=self.duplicate_window,
        )

    def forget(self) -> None:
        """From here on, a row that was seen before is no duplicate."""
        self._seen.clear()
        self._window.clear()

    def keep(self, rows: Iterable[Sequence[str]]) -> list[int]:
        """The positions of those `rows` (texts without surrounding whitespace) that stay."""
        kept = []
        for index, row in enumerate(rows):
            reason = self._judge(row)
            self._counts[reason] += 1
            if reason == "kept":
                kept.append(index)
        return kept

    def _judge(self, row: Sequence[str]) -> str:
        if not all(row):
            return "empty"
        if min(map(len, row)) < self.min_chars:
            return "too_short"
        texts = [one_line(text) for text in row]
        if not self._held_out.isdisjoint(texts):
            return "held_out"
        # 16 bytes for a row of any length keep millions of rows in memory.
        key = blake2b("\n".join(texts).encode(), digest_size=16).digest()
        if key in self._seen:
            return "duplicate"
        self._seen.add(key)
        if self.duplicate_window:
            self._window.append(key)
            if len(self._window) > self.duplicate_window:
                self._seen.remove(self._window.popleft())
        return "kept"


def load_training_texts(
    *,
    train_file: Sequence[str] = (),
    dataset_name: str | None = None,
    dataset_config: str | None = None,
    dataset_split: str = "train",
    text_columns: Sequence[str] = (),
    min_chars: int = 5,
    max_samples: int | None = None,
    exclude: Collection[str] = (),
    seed: int = 0,
) -> tuple[Dataset, CleaningCounts]:
    """Rows of text, cleaned, under the columns `anchor` [, `positive` [, `negative`]].

    Args:
        train_file: paths or globs of .txt, .csv, .tsv, .json, .jsonl (each also with .gz) or .parquet files with the
            same columns. Either this or `dataset_name`.
        dataset_name: a dataset of the hub, a local dataset folder, or "installed-docs".
        dataset_config: the configuration of `dataset_name`.
        dataset_split: the split of `dataset_name`, slices ("train[:10%]") included.
        text_columns: one to three columns, in the order anchor, positive, negative; empty: found by name.
        min_chars: rows with a shorter text, in characters without surrounding whitespace, are dropped.
        max_samples: at most this many rows, a random choice after cleaning; None for all.
        exclude: texts held out for evaluation; rows that hold one are dropped. Whitespace makes no difference.
        seed: of the random choice.

    Returns:
        The dataset, memory-mapped from the datasets cache, and the counts of the cleaning.

    Raises:
        UserError: for every input that can't be read as text, or of which nothing is left.
    """
    if max_samples is not None and max_samples <= 0:
        raise UserError(f"--max_train_samples {max_samples}: give a positive number, or leave it out to use every row")
    dataset, source, _ = open_texts(train_file, dataset_name, dataset_config, dataset_split, text_columns)
    dataset = dataset.rename_columns(
        {old: new for old, new in zip(dataset.column_names, CANONICAL_COLUMNS, strict=False) if old != new}
    )
    dataset, counts = _clean(dataset, min_chars, exclude)
    logger.info("%s", counts)
    if counts.kept == 0:
        raise UserError(f"{source}: no row is left to train on ({counts}); give more text or a lower --min_chars")
    if max_samples is not None and max_samples < len(dataset):
        chosen = np.random.default_rng(seed).choice(len(dataset), max_samples, replace=False)
        logger.info("%s of %s rows chosen at random with seed %d", f"{max_samples:,}", f"{len(dataset):,}", seed)
        dataset = dataset.select(np.sort(chosen))
    return dataset, counts


def open_texts(
    train_file: Sequence[str] = (),
    dataset_name: str | None = None,
    dataset_config: str | None = None,
    dataset_split: str = "train",
    text_columns: Sequence[str] = (),
    streaming: bool = False,
) -> tuple[Dataset | IterableDataset, str, list[str]]:
    """The rows as they are. The arguments are those of `load_training_texts`.

    Returns:
        A dataset of the chosen columns, as they are called where they come from, in the order anchor, positive,
        negative; with `streaming` one that reads its rows when they are asked for. The argument that named it. The
        files, if it comes from files.
    """
    train_file = [train_file] if isinstance(train_file, str) else list(train_file)
    if bool(train_file) == bool(dataset_name):
        raise UserError("--train_file and --dataset_name: give exactly one of the two as the source of training text")
    files = expand_files(train_file)
    if files:
        source = f"--train_file {' '.join(train_file)}"
        dataset, numeric = load_files(files, streaming)
    else:
        source = f"--dataset_name {dataset_name}"
        dataset, numeric = _load_named(dataset_name, dataset_config, dataset_split, streaming), set()
    return dataset.select_columns(_choose_columns(dataset.features, text_columns, numeric, source)), source, files


def tokenize_texts(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_seq_length: int, num_proc: int | None = None
) -> Dataset:
    """Token ids in place of the texts, with special tokens, truncated and not padded.

    The result is kept in the datasets cache: a second call with the same rows, tokenizer and length reads it there.

    Args:
        dataset: columns of text.
        tokenizer: left as it is; truncation is set on a copy.
        max_seq_length: in tokens, special tokens included.
        num_proc: how many processes at most; small datasets use fewer. None: this process, in which a fast tokenizer
            uses all cores anyway.

    Raises:
        UserError: if `max_seq_length` leaves no room for a word.
    """
    check_length(tokenizer, max_seq_length)
    tokenizer = copy.deepcopy(tokenizer)
    fingerprint = None
    if tokenizer.is_fast:
        # The hash that `map` makes would change with what was tokenized before: truncation, padding, shown warnings.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        state = tokenizer.backend_tokenizer.to_str()
        options = (tokenizer.truncation_side, max_seq_length, dataset.column_names)
        fingerprint = Hasher.hash(("tokenize_texts", dataset._fingerprint, type(tokenizer).__name__, state, options))
    processes = min(num_proc or 1, -(-len(dataset) // _ROWS_PER_PROCESS))
    return dataset.map(
        tokenize_batch,
        batched=True,
        fn_kwargs={"tokenizer": tokenizer, "max_seq_length": max_seq_length},
        num_proc=processes if processes > 1 else None,
        features=Features({column: List(Value("int32")) for column in dataset.column_names}),
        new_fingerprint=fingerprint,
        desc="Tokenizing",
    )


def check_length(tokenizer: PreTrainedTokenizerBase, max_seq_length: int) -> None:
    """Raises UserError if `max_seq_length` leaves no room for a word."""
    special = tokenizer.num_special_tokens_to_add()
    if max_seq_length <= special:
        raise UserError(f"--max_seq_length {max_seq_length}: the tokenizer adds {special} special tokens; give more")


def tokenize_batch(
    batch: dict[str, list[str]], tokenizer: PreTrainedTokenizerBase, max_seq_length: int
) -> dict[str, list[list[int]]]:
    """Token ids in place of each column's texts, as `tokenize_texts` makes them."""
    return {
        column: tokenizer(
            texts,
            truncation=True,
            max_length=max_seq_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        for column, texts in batch.items()
    }


def _load_named(name: str, config: str | None, split: str, streaming: bool) -> Dataset | IterableDataset:
    if name == INSTALLED_DOCS:
        # From a generator, so that the rows lie in the datasets cache, under a hash of the sentences.
        dataset = Dataset.from_generator(_rows, gen_kwargs={"sentences": tuple(docstring_corpus().sentences)})
        return dataset.to_iterable_dataset() if streaming else dataset
    try:
        dataset = load_dataset(name, config, split=split, streaming=streaming)
        return with_features(dataset) if streaming else dataset
    except READ_ERRORS as error:
        given = (
            f"--dataset_name {name}" + (f" --dataset_config {config}" if config else "") + f" --dataset_split {split}"
        )
        advice = "check the names and the connection, or give --train_file"
        raise UserError(f"{given}: cannot be loaded; {advice} ({innermost_reason(error)})") from error


def _rows(sentences: Sequence[str]) -> Iterator[dict[str, str]]:
    return ({"text": sentence} for sentence in sentences)


def _choose_columns(features: Features, named: Sequence[str], numeric: Collection[str], source: str) -> list[str]:
    there = list(features)
    listed = ", ".join(there)
    kinds = {name: "numbers" if name in numeric else _kind_of_values(features[name]) for name in there}
    texts = [name for name in there if kinds[name] == "text"]
    named = [named] if isinstance(named, str) else list(named)
    if named:
        given = f"--text_columns {' '.join(named)}"
        if len(named) > 3 or len(set(named)) < len(named):
            raise UserError(f"{given}: name one to three different columns: anchor, positive, negative")
        for name in named:
            if name not in there:
                close = difflib.get_close_matches(name, there, n=1)
                hint = f"; did you mean {close[0]}?" if close else "; name one of these"
                raise UserError(f"{given}: there is no column {name} among {listed}{hint}")
        columns = named
    else:
        given = source
        layout = next((names for names in COLUMN_LAYOUTS if set(names) <= set(there)), None)
        if layout is None and len(texts) != 1:
            raise UserError(
                f"{source}: cannot tell which of the columns {listed} to use; name them with --text_columns"
            )
        columns = list(layout) if layout else texts
    for name in columns:
        if kinds[name] != "text":
            raise UserError(f"{given}: column {name} holds {kinds[name]}, not text; name others with --text_columns")
    dropped = [name for name in there if name not in columns]
    logger.info("text columns: %s%s", ", ".join(columns), f"; not used: {', '.join(dropped)}" if dropped else "")
    return columns


def _kind_of_values(feature: FeatureType) -> str:
    if isinstance(feature, Value):
        return "text" if feature.dtype in ("string", "large_string") else f"values of type {feature.dtype}"
    return f"values of type {type(feature).__name__}"


def _clean(dataset: Dataset, min_chars: int, exclude: Collection[str]) -> tuple[Dataset, CleaningCounts]:
    dataset = dataset.with_format("arrow").map(
        strip_texts,
        batched=True,
        batch_size=_ROWS_PER_BATCH,
        features=text_features(dataset.column_names),
        desc="Cleaning",
    )
    cleaner = RowCleaner(min_chars, exclude)
    rows = (row for batch in dataset.iter(_ROWS_PER_BATCH) for row in rows_of(batch))
    kept = cleaner.keep(rows)
    dataset = dataset.with_format(None)
    return (dataset if len(kept) == len(dataset) else dataset.select(np.array(kept, dtype=np.int64))), cleaner.counts


def rows_of(table: pa.Table) -> Iterator[tuple[str, ...]]:
    """The rows of a table as tuples."""
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def strip_texts(table: pa.Table) -> pa.Table:
    """The table as text without surrounding whitespace."""
    columns = [pc.cast(column, pa.string()) for column in table.columns]
    # Some editors put a byte order mark first; it would make an otherwise equal line another one.
    columns = [pc.utf8_trim_whitespace(pc.utf8_ltrim(column, "\ufeff")) for column in columns]
    return pa.table(columns, names=table.column_names)
