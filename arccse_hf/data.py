"""Training text: from files, the hub or the installed packages to clean rows, and from rows to token ids.

A dataset has the column `anchor` (unsupervised), `anchor` and `positive` (given pairs) or `anchor`, `positive` and
`negative` (pairs with a hard negative), whatever the columns were called where it came from.
"""

from __future__ import annotations

import copy
import difflib
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, List, Value, load_dataset
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from .errors import UserError, one_line
from .installed_docs import docstring_corpus
from .text_files import READ_ERRORS, expand_files, innermost_reason, load_files, text_features

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
    """How many rows were read, why some were dropped (the first reason that applies) and how many were kept."""

    read: int
    empty: int
    too_short: int
    duplicate: int
    held_out: int
    kept: int
    min_chars: int

    def __str__(self) -> str:
        return (
            f"{self.kept:,} of {self.read:,} rows kept: {self.empty:,} empty, {self.too_short:,} shorter than "
            f"{self.min_chars} characters, {self.duplicate:,} duplicates, {self.held_out:,} held out for evaluation"
        )


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
    train_file = [train_file] if isinstance(train_file, str) else list(train_file)
    if bool(train_file) == bool(dataset_name):
        raise UserError("--train_file and --dataset_name: give exactly one of the two as the source of training text")
    if max_samples is not None and max_samples <= 0:
        raise UserError(f"--max_train_samples {max_samples}: give a positive number, or leave it out to use every row")
    if train_file:
        source = f"--train_file {' '.join(train_file)}"
        dataset, numeric = load_files(expand_files(train_file))
    else:
        source = f"--dataset_name {dataset_name}"
        dataset, numeric = _load_named(dataset_name, dataset_config, dataset_split), set()
    columns = _choose_columns(dataset, text_columns, numeric, source)
    dataset = dataset.select_columns(columns).rename_columns(
        {old: new for old, new in zip(columns, CANONICAL_COLUMNS, strict=False) if old != new}
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
    special = tokenizer.num_special_tokens_to_add()
    if max_seq_length <= special:
        raise UserError(f"--max_seq_length {max_seq_length}: the tokenizer adds {special} special tokens; give more")
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
        _tokenize_batch,
        batched=True,
        fn_kwargs={"tokenizer": tokenizer, "max_seq_length": max_seq_length},
        num_proc=processes if processes > 1 else None,
        features=Features({column: List(Value("int32")) for column in dataset.column_names}),
        new_fingerprint=fingerprint,
        desc="Tokenizing",
    )


def _tokenize_batch(
    batch: dict[str, list[str]], tokenizer: PreTrainedTokenizerBase, max_seq_length: int
) -> dict[str, list[list[int]]]:
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


def _load_named(name: str, config: str | None, split: str) -> Dataset:
    if name == INSTALLED_DOCS:
        # From a generator, so that the rows lie in the datasets cache, under a hash of the sentences.
        return Dataset.from_generator(_rows, gen_kwargs={"sentences": tuple(docstring_corpus().sentences)})
    try:
        return load_dataset(name, config, split=split)
    except READ_ERRORS as error:
        given = (
            f"--dataset_name {name}" + (f" --dataset_config {config}" if config else "") + f" --dataset_split {split}"
        )
        advice = "check the names and the connection, or give --train_file"
        raise UserError(f"{given}: cannot be loaded; {advice} ({innermost_reason(error)})") from error


def _rows(sentences: Sequence[str]) -> Iterator[dict[str, str]]:
    return ({"text": sentence} for sentence in sentences)


def _choose_columns(dataset: Dataset, named: Sequence[str], numeric: Collection[str], source: str) -> list[str]:
    there = dataset.column_names
    listed = ", ".join(there)
    kinds = {name: "numbers" if name in numeric else _kind_of_values(dataset, name) for name in there}
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


def _kind_of_values(dataset: Dataset, column: str) -> str:
    feature = dataset.features[column]
    if isinstance(feature, Value):
        return "text" if feature.dtype in ("string", "large_string") else f"values of type {feature.dtype}"
    return f"values of type {type(feature).__name__}"


def _clean(dataset: Dataset, min_chars: int, exclude: Collection[str]) -> tuple[Dataset, CleaningCounts]:
    dataset = dataset.with_format("arrow").map(
        _strip,
        batched=True,
        batch_size=_ROWS_PER_BATCH,
        features=text_features(dataset.column_names),
        desc="Cleaning",
    )
    held_out_texts = {one_line(text) for text in exclude}
    empty = too_short = held_out = duplicate = 0
    seen: set[bytes] = set()
    kept: list[int] = []
    index = 0
    for batch in dataset.iter(_ROWS_PER_BATCH):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if not all(row):
                empty += 1
            elif min(map(len, row)) < min_chars:
                too_short += 1
            else:
                texts = [one_line(text) for text in row]
                # 16 bytes for a row of any length keep millions of rows in memory.
                key = blake2b("\n".join(texts).encode(), digest_size=16).digest()
                if not held_out_texts.isdisjoint(texts):
                    held_out += 1
                elif key in seen:
                    duplicate += 1
                else:
                    seen.add(key)
                    kept.append(index)
            index += 1
    counts = CleaningCounts(index, empty, too_short, duplicate, held_out, len(kept), min_chars)
    dataset = dataset.with_format(None)
    return (dataset if len(kept) == index else dataset.select(np.array(kept, dtype=np.int64))), counts


def _strip(table: pa.Table) -> pa.Table:
    columns = [pc.cast(column, pa.string()) for column in table.columns]
    # Some editors put a byte order mark first; it would make an otherwise equal line another one.
    columns = [pc.utf8_trim_whitespace(pc.utf8_ltrim(column, "\ufeff")) for column in columns]
    return pa.table(columns, names=table.column_names)
