"""The nearest documents of a query: what finds them, and the one way in which they are scored and ordered."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pyarrow as pa

from .corpus import EmbeddedCorpus

_TIED = 1e-6
"""Cosines nearer than this are equal: they differ by rounding, and the order of the corpus decides."""


class DocumentStore(Protocol):
    """Documents that can be searched.

    Attributes:
        table: Columns `file`, `id` and `text`; the row is the document's number.
        embeddings: `[documents, dim]` of length 1, in memory or memory-mapped.
    """

    table: pa.Table
    embeddings: np.ndarray

    def candidates(self, query: np.ndarray, count: int) -> np.ndarray:
        """Returns the numbers of documents, in any order, among which are the `count` nearest to `query` `[dim]`."""
        ...


class ExactStore:
    """All documents in memory, each compared with the query.

    Args:
        corpus: The embedded texts.
    """

    def __init__(self, corpus: EmbeddedCorpus):
        documents = corpus.read()
        self.table, self.embeddings = documents.table, documents.embeddings

    def candidates(self, query: np.ndarray, count: int) -> np.ndarray:
        """As `DocumentStore.candidates`: the nearest, and all that are tied with the last of them."""
        cosines = self.embeddings @ query.astype(np.float32)  # in float64 the whole matrix would be converted first
        if count >= len(cosines):
            return np.arange(len(cosines))
        last = np.partition(cosines, len(cosines) - count)[len(cosines) - count]
        return np.flatnonzero(cosines >= last - _TIED)


def nearest(store: DocumentStore, query: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of the nearest documents, the nearest first, and their cosines with the query.

    Of documents that are equally near, the one that stands first in the corpus comes first.

    Args:
        store: What is searched.
        query: `[dim]`, of length 1.
        count: How many; fewer where there are fewer.

    Returns:
        Integers `[count]` and float64 `[count]`.
    """
    numbers = np.unique(store.candidates(query, count))
    cosines = cosines_of(store, query, numbers)
    order = np.lexsort((numbers, -np.round(cosines / _TIED)))[:count]
    return numbers[order], cosines[order]


def cosines_of(store: DocumentStore, query: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Returns the cosines, float64 `[len(numbers)]`, of a query of length 1 with the documents of these numbers."""
    vectors = np.asarray(store.embeddings[numbers], dtype=np.float64)
    # Row by row, so that copies get the same cosine; a product of matrices rounds by position. The embeddings were
    # scaled to length 1 before they were rounded to the type that they are kept in.
    return (vectors * query).sum(axis=1) / np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
