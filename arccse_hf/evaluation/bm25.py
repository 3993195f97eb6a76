"""BM25, the search without any model, as a baseline; and its ranking added to an encoder's."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import ModuleType

import numpy as np
from scipy.stats import rankdata

from ..errors import UserError
from .retrieval import RetrievalTask, normalize


def require_bm25s() -> ModuleType:
    """Returns the module bm25s; raises UserError where it is not installed."""
    try:
        import bm25s
    except ModuleNotFoundError as error:
        raise UserError("BM25 needs bm25s: pip install 'arccse-hf[documents]'") from error
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG when it is imported
    return bm25s


class BM25Index:
    """BM25 over documents: words in lower case, no stop words, no stemming, k1 1.5 and b 0.75 (`bm25s`' defaults).

    Args:
        documents: The texts to search.

    Raises:
        UserError: `bm25s` is not installed.

    Example:
        >>> BM25Index(["a paper jam", "an empty cartridge"]).scores("paper")
        array([0.34657362, 0.        ], dtype=float32)
    """

    def __init__(self, documents: Sequence[str]):
        bm25s = require_bm25s()
        self._tokenize = bm25s.tokenize
        self._index = bm25s.BM25()
        self._num_documents = len(documents)
        tokens = self._words(documents)
        self._known = {word for words in tokens for word in words}
        if self._known:  # bm25s cannot index documents without a word
            self._index.index(tokens, show_progress=False)

    def scores(self, query: str) -> np.ndarray:
        """The score of each document `[documents]`, 0 where it has no word of the query."""
        words = [word for word in self._words([query])[0] if word in self._known]
        return self._index.get_scores(words) if words else np.zeros(self._num_documents, dtype=np.float32)

    def _words(self, texts: Sequence[str]) -> list[list[str]]:
        # bm25s' own pattern leaves out words of one character, which are what tells "plan B" from "plan C".
        return self._tokenize(
            list(texts), token_pattern=r"\b\w+\b", stopwords=[], return_ids=False, show_progress=False
        )


def baseline_ranks(task: RetrievalTask, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rank, 1 being best, of each query's own document by BM25, and by the sum of BM25's rank and an encoder's.

    Another document that is exactly as good counts as better; one that is right too is passed over.

    Args:
        task: The queries and their documents.
        embeddings: `[len(task.sentences), dim]`, the encoder's.

    Returns:
        Integers `[queries]` and `[queries]`.

    Raises:
        UserError: `bm25s` is not installed.
    """
    index = BM25Index(task.documents)
    queries, documents = np.split(normalize(embeddings), [task.num_queries])
    by_words, by_both = np.empty((2, task.num_queries), dtype=np.int64)
    for number, (query, own) in enumerate(zip(task.queries, task.own, strict=True)):
        words, cosines = index.scores(query), documents @ queries[number]
        if number in task.right:
            counted = np.ones(len(documents), dtype=bool)
            counted[task.right[number]] = False
            counted[own] = True
            words, cosines, own = words[counted], cosines[counted], counted[:own].sum()
        word_ranks = rankdata(-words, method="max")
        sums = word_ranks + rankdata(-cosines, method="max")
        by_words[number] = word_ranks[own]
        by_both[number] = (sums <= sums[own]).sum()
    return by_words, by_both
