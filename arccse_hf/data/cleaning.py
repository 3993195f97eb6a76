"""Which rows of text are kept, which are dropped and why, and what evaluation keeps out of training."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from datasets.fingerprint import Hasher

from ..compat import dataset_fingerprint
from ..errors import one_line
from .files.dataset import code_hash, text_features
from .sentences import boilerplate, full_stop, is_distinctive, is_held_out, pieces

_ROWS_PER_BATCH = 50_000


@dataclass(frozen=True)
class CleaningCounts:
    """How many rows were read, why some were dropped (the first reason that applies) and how many were kept.

    `duplicate_window` is set for a stream: a row was compared with those of a block of so many rows, instead of with
    all, and a row that was read again counts again.
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
        exclude: rows that hold one of these texts, also as a sentence among others, are dropped. Whitespace makes no
            difference.
        duplicate_window: rows between two calls of `forget`, as the counts tell it; None where it is not called.
    """

    def __init__(self, min_chars: int, exclude: Collection[str], duplicate_window: int | None = None):
        self.min_chars = min_chars
        self.duplicate_window = duplicate_window
        self._held_out = {one_line(text) for text in exclude}
        self._counts = dict.fromkeys(("empty", "too_short", "duplicate", "held_out", "kept"), 0)
        self._seen: set[bytes] = set()

    @property
    def counts(self) -> CleaningCounts:
        """Of all rows so far."""
        return CleaningCounts(
            sum(self._counts.values()),
            **self._counts,
            min_chars=self.min_chars,
            duplicate_window=self.duplicate_window,
        )

    def state(self) -> dict[str, int]:
        """Returns the counts by reason, for `go_on_from`."""
        return dict(self._counts)

    def go_on_from(self, state: Mapping[str, int]) -> None:
        """Counts on from where another cleaner was."""
        self._counts.update(state)

    def forget(self) -> None:
        """From here on, a row that was seen before is no duplicate."""
        self._seen.clear()

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
        if any(is_held_out(text, self._held_out) for text in row):
            return "held_out"
        texts = [one_line(text) for text in row]
        # 16 bytes for a row of any length keep millions of rows in memory.
        key = blake2b("\n".join(texts).encode(), digest_size=16).digest()
        if key in self._seen:
            return "duplicate"
        self._seen.add(key)
        return "kept"


def clean(dataset: Dataset, min_chars: int, exclude: Collection[str]) -> tuple[Dataset, CleaningCounts]:
    """Strips the texts of a dataset and drops the rows that a `RowCleaner` drops.

    Args:
        dataset: Columns of text.
        min_chars: Rows with a text of fewer characters are dropped.
        exclude: Texts that must not be trained on.

    Returns:
        The rows kept, in their order, and how many were dropped for which reason.
    """
    dataset = dataset.with_format("arrow").map(
        strip_texts,
        batched=True,
        batch_size=_ROWS_PER_BATCH,
        features=text_features(dataset.column_names),
        new_fingerprint=Hasher.hash(("strip_texts", dataset_fingerprint(dataset), code_hash(__file__))),
        desc="Cleaning",
    )
    cleaner = RowCleaner(min_chars, exclude)
    rows = (row for batch in dataset.iter(_ROWS_PER_BATCH) for row in rows_of(batch))
    kept = cleaner.keep(rows)
    dataset = dataset.with_format(None)
    return (dataset if len(kept) == len(dataset) else dataset.select(np.array(kept, dtype=np.int64))), cleaner.counts


def rows_of(table: pa.Table) -> Iterator[tuple[str, ...]]:
    """Yields the rows of a table as tuples."""
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def strip_texts(table: pa.Table) -> pa.Table:
    """Returns the table as text without surrounding whitespace."""
    columns = [pc.cast(column, pa.string()) for column in table.columns]
    # Some editors put a byte order mark first; it would make an otherwise equal line another one.
    columns = [pc.utf8_trim_whitespace(pc.utf8_ltrim(column, "\ufeff")) for column in columns]
    return pa.table(columns, names=table.column_names)


def held_out_texts(texts: Iterable[str]) -> set[str]:
    """Returns every text that training must not see if `texts` are to measure something new.

    These are the texts on one line, and each sentence or line in them that `is_distinctive` and no `boilerplate` of the
    texts, cut as the training sentences are. A greeting would hold out every other text that has it.

    A query without a full stop is there with one too, because another docstring may have written it so.
    """
    sentences: dict[str, list[str]] = {}
    for text in texts:  # which may come with other line ends once more
        sentences.setdefault(one_line(text), []).extend(pieces(text))
    parts = set(filter(is_distinctive, chain.from_iterable(sentences.values()))) - boilerplate(sentences.values())
    held_out = sentences.keys() | parts
    return held_out | {text + full_stop(text) for text in held_out}
