"""Training text: from files, the hub or the installed packages to clean rows, and from rows to token ids.

A dataset has the column `anchor` (unsupervised), `anchor` and `positive` (given pairs) or `anchor`, `positive` and
`negative` (pairs with a hard negative), whatever the columns were called where it came from.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
from datasets import Dataset, Features, IterableDataset, Value, load_dataset
from datasets.features.features import FeatureType

from ..errors import UserError
from .cleaning import CleaningCounts, clean
from .files import READ_ERRORS, expand_files, innermost_reason, load_files, with_features
from .installed_docs import docstring_corpus

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
    texts: Dataset | None = None,
) -> tuple[Dataset, CleaningCounts]:
    """Rows of text, cleaned, under the columns `anchor` [, `positive` [, `negative`]].

    Args:
        train_file: paths or globs of .txt, .csv, .tsv, .json, .jsonl (each also with .gz) or .parquet files with the
            same columns. Either this, `dataset_name` or `texts`.
        dataset_name: a dataset of the hub, a local dataset folder, or "installed-docs".
        dataset_config: the configuration of `dataset_name`.
        dataset_split: the split of `dataset_name`, slices ("train[:10%]") included.
        text_columns: one to three columns, in the order anchor, positive, negative; empty: found by name.
        min_chars: rows with a shorter text, in characters without surrounding whitespace, are dropped.
        max_samples: at most this many rows, a random choice after cleaning; None for all.
        exclude: texts held out for evaluation; rows that hold one are dropped. Whitespace makes no difference.
        seed: of the random choice.
        texts: rows of text that are in memory already.

    Returns:
        The dataset, memory-mapped from the datasets cache, and the counts of the cleaning.

    Raises:
        UserError: for every input that can't be read as text, or of which nothing is left.
    """
    if max_samples is not None and max_samples <= 0:
        raise UserError(f"--max_train_samples {max_samples}: give a positive number, or leave it out to use every row")
    if texts is not None:
        dataset, source = texts.select_columns(choose_columns(texts.features, text_columns, source="texts")), "texts"
    else:
        dataset, source, _ = open_texts(train_file, dataset_name, dataset_config, dataset_split, text_columns)
    dataset = dataset.rename_columns(
        {old: new for old, new in zip(dataset.column_names, CANONICAL_COLUMNS, strict=False) if old != new}
    )
    dataset, counts = clean(dataset, min_chars, exclude)
    logger.info("%s", counts)
    if counts.kept == 0:
        raise UserError(f"{source}: no row is left to train on ({counts}); give more text or a lower --min_chars")
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
    if isinstance(texts, str | Mapping) or not isinstance(texts, Iterable):
        raise UserError(f"texts: must be {kinds}, not one {type(texts).__name__}")
    rows = [(row,) if isinstance(row, str) else row for row in texts]
    if not rows:
        raise UserError(f"texts: is empty; give {kinds}")
    width = len(rows[0]) if isinstance(rows[0], list | tuple) else 0
    for number, row in enumerate(rows):
        is_row = isinstance(row, list | tuple) and all(isinstance(text, str) for text in row)
        if not is_row or not 1 <= len(row) <= 3 or len(row) != width:
            raise UserError(f"texts[{number}]: {str(row)[:80]} is not like the rest; give {kinds}")
    columns = zip(*rows, strict=True)
    return Dataset.from_dict({name: list(column) for name, column in zip(CANONICAL_COLUMNS, columns, strict=False)})


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
    return dataset.select_columns(choose_columns(dataset.features, text_columns, numeric, source)), source, files


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


def choose_columns(
    features: Features, named: Sequence[str] = (), numeric: Collection[str] = (), source: str = "texts"
) -> list[str]:
    """The columns to train on, in the order anchor, positive, negative: the `named` ones, or else found by name.

    Args:
        features: Of the rows.
        named: One to three columns.
        numeric: Columns that come as text but hold numbers.
        source: What the rows come from, for the errors.

    Raises:
        UserError: There is no such column, it holds no text, or none can be found by name.
    """
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
