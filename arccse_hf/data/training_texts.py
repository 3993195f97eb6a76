"""Training text: from files, the hub or the installed packages to clean rows, and from rows to token ids.

A dataset has the column `anchor` (unsupervised), `anchor` and `positive` (given pairs) or `anchor`, `positive` and
`negative` (pairs with a hard negative), whatever the columns were called where it came from.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, IterableDataset, load_dataset
from datasets.exceptions import DatasetsError

from ..compat import use_caches_where_hub_is_out_of_reach
from ..errors import UserError, one_line, without_surrogates
from .blocks import DatasetShard, FileShard, Shard
from .cleaning import CleaningCounts, clean
from .columns import CANONICAL_COLUMNS, choose_columns, require_text
from .files import RowFile, expand_files, open_file
from .files.dataset import load_rows
from .installed_docs import docstring_corpus
from .sentences import MIN_CHARS

logger = logging.getLogger(__name__)

INSTALLED_DOCS = "installed-docs"
_TEXT_DTYPES = ("string", "large_string")

# What libraries raise where a dataset cannot be read.
DATASET_ERRORS = (DatasetsError, ValueError, OSError, EOFError, zlib.error, pa.ArrowException)


def load_training_texts(
    *,
    train_file: Sequence[str] = (),
    dataset_name: str | None = None,
    dataset_config: str | None = None,
    dataset_split: str = "train",
    text_columns: Sequence[str] = (),
    min_chars: int = MIN_CHARS,
    max_samples: int | None = None,
    exclude: Collection[str] = (),
    seed: int = 0,
    texts: Dataset | None = None,
) -> tuple[Dataset, CleaningCounts]:
    """Rows of text, cleaned, under the columns `anchor` [, `positive` [, `negative`]].

    Args:
        train_file: Paths or globs of .txt, .csv, .tsv, .json, .jsonl (each also with .gz) or .parquet files with the
            same columns. Either this, `dataset_name` or `texts`.
        dataset_name: A dataset of the hub, a local dataset folder, or "installed-docs".
        dataset_config: The configuration of `dataset_name`.
        dataset_split: The split of `dataset_name`, slices ("train[:10%]") included.
        text_columns: One to three columns, in the order anchor, positive, negative; empty: found by name.
        min_chars: Rows with a shorter text, in characters without surrounding whitespace, are dropped.
        max_samples: At most this many rows, a random choice after cleaning; None for all.
        exclude: Texts held out for evaluation; rows that hold one are dropped. Whitespace makes no difference.
        seed: Of the random choice.
        texts: Rows of text that are in memory already.

    Returns:
        The dataset, memory-mapped from the datasets cache, and the counts of the cleaning.

    Raises:
        UserError: For every input that cannot be read as text, or of which nothing is left.

    Example:
        >>> dataset, counts = load_training_texts(train_file=["tickets.txt"], exclude=["A sentence of the test set."])
        >>> dataset[0]
        {'anchor': 'The printer jams.'}
    """
    if max_samples is not None and max_samples <= 0:
        raise UserError(f"--max_train_samples {max_samples}: give a positive number, or leave it out to use every row")
    if texts is not None:
        dataset, source = texts.select_columns(choose_columns(kinds_of(texts.features), text_columns)), "texts"
    else:
        dataset, source = open_texts(train_file, dataset_name, dataset_config, dataset_split, text_columns)
    dataset = dataset.rename_columns(
        {old: new for old, new in zip(dataset.column_names, CANONICAL_COLUMNS, strict=False) if old != new}
    )
    dataset, counts = clean(dataset, min_chars, exclude)
    logger.info("%s", counts)
    if counts.kept == 0:
        lower = " or a lower --min_chars" if min_chars > 1 else ""
        raise UserError(f"{source}: no row is left to train on ({counts}); give more text{lower}")
    if max_samples is not None and max_samples < len(dataset):
        chosen = np.random.default_rng(seed).choice(len(dataset), max_samples, replace=False)
        logger.info("%s of %s rows chosen at random with seed %d", f"{max_samples:,}", f"{len(dataset):,}", seed)
        dataset = dataset.select(np.sort(chosen))
    return dataset, counts


def texts_as_dataset(texts: Dataset | Iterable[str] | Iterable[Sequence[str]]) -> Dataset:
    """Returns rows of text in memory as a dataset; one that is a dataset already stays as it is.

    Args:
        texts: Sentences, (anchor, positive) pairs or (anchor, positive, hard negative) triples.

    Raises:
        UserError: There is no text, or a row is neither; the message has its number.

    Example:
        >>> texts_as_dataset([("a question", "its answer")])[0]
        {'anchor': 'a question', 'positive': 'its answer'}
    """
    if isinstance(texts, Dataset):
        return texts
    kinds = "sentences, (anchor, positive) pairs, (anchor, positive, negative) triples or a datasets.Dataset"
    if isinstance(texts, str | Mapping) or hasattr(texts, "columns") or not isinstance(texts, Iterable):
        frame = "; Dataset.from_pandas(frame) makes one of a DataFrame" if hasattr(texts, "columns") else ""
        raise UserError(f"texts: must be {kinds}, not one {type(texts).__name__}{frame}")
    rows = [(row,) if isinstance(row, str) else row for row in texts]
    if not rows:
        raise UserError(f"texts: is empty; give {kinds}")
    width = len(rows[0]) if isinstance(rows[0], list | tuple) else 0
    for number, row in enumerate(rows):
        is_row = isinstance(row, list | tuple) and all(isinstance(text, str) for text in row)
        if not is_row or not 1 <= len(row) <= 3 or len(row) != width:
            raise UserError(f"texts[{number}]: {str(row)[:80]} is not like the rest; give {kinds}")
    columns = [list(map(without_surrogates, column)) for column in zip(*rows, strict=True)]
    return Dataset.from_dict(dict(zip(CANONICAL_COLUMNS, columns, strict=False)))


def open_texts(
    train_file: Sequence[str] = (),
    dataset_name: str | None = None,
    dataset_config: str | None = None,
    dataset_split: str = "train",
    text_columns: Sequence[str] = (),
) -> tuple[Dataset, str]:
    """The rows as they are. The arguments are those of `load_training_texts`.

    Returns:
        A dataset of the chosen columns, as they are called where they come from, in the order anchor, positive,
        negative. The argument that named it.
    """
    if _is_named(train_file, dataset_name):
        source = f"--dataset_name {dataset_name}"
        dataset = _load_named(str(dataset_name), dataset_config, dataset_split, streaming=False)
        return dataset.select_columns(choose_columns(kinds_of(dataset.features), text_columns, source)), source
    files, columns, source = _open_files(train_file, text_columns)
    return load_rows(files, columns), source


def open_shards(
    train_file: Sequence[str] = (),
    dataset_name: str | None = None,
    dataset_config: str | None = None,
    dataset_split: str = "train",
    text_columns: Sequence[str] = (),
) -> tuple[list[Shard], int, str]:
    """The rows as they are, to be read when they are asked for. The arguments are those of `load_training_texts`.

    Returns:
        Files, or shards of a dataset, that give the chosen columns in the order anchor, positive, negative; the number
        of columns; the argument that named them.
    """
    if _is_named(train_file, dataset_name):
        source = f"--dataset_name {dataset_name}"
        dataset = _load_named(str(dataset_name), dataset_config, dataset_split, streaming=True)
        columns = choose_columns(kinds_of(dataset.features), text_columns, source)
        dataset = dataset.select_columns(columns)
        return [DatasetShard(dataset, index) for index in range(dataset.num_shards)], len(columns), source
    files, columns, source = _open_files(train_file, text_columns)
    return [FileShard(file, columns) for file in files], len(columns), source


def _is_named(train_file: Sequence[str], dataset_name: str | None) -> bool:
    if bool(train_file) == bool(dataset_name):
        raise UserError("--train_file and --dataset_name: give exactly one of the two as the source of training text")
    return bool(dataset_name)


def _open_files(train_file: Sequence[str], text_columns: Sequence[str]) -> tuple[list[RowFile], list[str], str]:
    """Returns the files, the columns to read, and the argument that named them."""
    train_file = [train_file] if isinstance(train_file, str) else list(train_file)
    files = [open_file(file, "--train_file", text_columns) for file in expand_files(train_file)]
    for file in files:
        file.require_rows()
    columns = choose_columns(files[0].columns, text_columns, files[0].source.where())
    for file in files[1:]:
        for column in columns:
            require_text(column, file.columns, file.source.where(), file.source.where())
    return files, columns, f"--train_file {' '.join(train_file)}"


def kinds_of(features: Features) -> dict[str, str]:
    """Returns what the columns of a dataset hold, as `choose_columns` wants to know it."""
    types = {name: getattr(feature, "dtype", type(feature).__name__) for name, feature in features.items()}
    return {name: "text" if kind in _TEXT_DTYPES else f"values of type {kind}" for name, kind in types.items()}


def _load_named(name: str, config: str | None, split: str, streaming: bool) -> Dataset | IterableDataset:
    if name == INSTALLED_DOCS:
        # From a generator, so that the rows lie in the datasets cache, under a hash of the sentences.
        dataset = Dataset.from_generator(_rows, gen_kwargs={"sentences": tuple(docstring_corpus().sentences)})
        return dataset.to_iterable_dataset() if streaming else dataset
    if not os.path.exists(name):
        use_caches_where_hub_is_out_of_reach()
    try:
        dataset = load_dataset(name, config, split=split, streaming=streaming)
        return _with_features(dataset) if streaming else dataset
    except DATASET_ERRORS as error:
        given = (
            f"--dataset_name {name}" + (f" --dataset_config {config}" if config else "") + f" --dataset_split {split}"
        )
        advice = "check the names and the connection, or give --train_file"
        raise UserError(f"{given}: cannot be loaded; {advice} ({innermost_reason(error)})") from error


def _rows(sentences: Sequence[str]) -> Iterator[dict[str, str]]:
    return ({"text": sentence} for sentence in sentences)


def innermost_reason(error: BaseException) -> str:
    """Returns the innermost cause, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)[:300] or type(error).__name__


def _with_features(stream: IterableDataset) -> IterableDataset:
    """Returns `stream` with its columns known, from its first row where nothing else tells them."""
    if stream.features is None:
        stream = stream.cast(Dataset.from_list(list(stream.take(1))).features)
    return stream
