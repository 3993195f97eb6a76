"""Find each query's own document among all documents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UserError
from .bootstrap import PerItemScores

BLOCK_CELLS = 2**24  # cosines held at a time: 64 MiB


def ranks_of_own(queries: np.ndarray, documents: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The rank, 1 being best, that each query gives its own document by cosine.

    Another document that is exactly as close counts as closer, so that a collapsed encoder scores nothing.

    Args:
        queries: `[num_queries, dim]`.
        documents: `[num_documents, dim]`.
        own: `[num_queries]`, the row of each query's document.

    Returns:
        Integers `[num_queries]`.
    """
    queries, documents = normalize(queries), normalize(documents)
    ranks = np.empty(len(queries), dtype=np.int64)
    block = max(1, BLOCK_CELLS // len(documents))
    for start in range(0, len(queries), block):
        cosines = queries[start : start + block] @ documents.T
        threshold = cosines[np.arange(len(cosines)), own[start : start + block], None]
        # "not below" rather than "at least": a NaN must not look like a first place.
        ranks[start : start + block] = (~(cosines < threshold)).sum(axis=1)
    return ranks


class RetrievalTask:
    """Retrieval over (query, document) pairs: a query's own document is the only relevant one among all documents.

    The numbers equal those of sentence-transformers' `InformationRetrievalEvaluator` (but for exact ties, see
    `ranks_of_own`), which wants to embed by itself and keeps each query's hits in Python objects.

    Args:
        name: Begins the metrics' names.
        pairs: (query, document) texts. A pair that repeats counts once; a text that is the document of several
            queries is one document.
        corpus: More documents, among which each query's own one has to be found.

    Raises:
        UserError: Fewer than two different documents.
    """

    group = "retrieval"
    main_metrics = ("mrr_at_10", "recall_at_1", "recall_at_10", "ndcg_at_10")

    def __init__(self, name: str, pairs: Sequence[tuple[str, str]], corpus: Sequence[str] = ()):
        self.name = name
        pairs = list(dict.fromkeys((query, document) for query, document in pairs))
        position: dict[str, int] = {}
        self.own = np.array([position.setdefault(document, len(position)) for _, document in pairs], dtype=np.int64)
        if len({*position, *corpus}) < 2:
            raise UserError(f"{name}: retrieval needs pairs with at least 2 different documents, got {len(position)}")
        self.num_queries = len(pairs)
        self.queries = [query for query, _ in pairs]
        self.documents = list(dict.fromkeys([*position, *corpus]))
        self.sentences = self.queries + self.documents

    def score_with_samples(self, embeddings: np.ndarray) -> tuple[dict[str, float], PerItemScores]:
        """`score`, and each query's reciprocal rank, 0 beyond rank 10."""
        return score_ranks(ranks_of_own(embeddings[: self.num_queries], embeddings[self.num_queries :], self.own))

    def score(self, embeddings: np.ndarray) -> dict[str, float]:
        """Scores in [0, 1] of embeddings `[len(self.sentences), dim]`; `mrr` has no cut at rank 10."""
        return self.score_with_samples(embeddings)[0]


def score_ranks(ranks: np.ndarray) -> tuple[dict[str, float], PerItemScores]:
    """Scores in [0, 1] of the ranks `[queries]` of the queries' own documents, and the reciprocal ranks, 0 beyond
    rank 10."""
    found = ranks <= 10
    reciprocal = np.where(found, 1 / ranks, 0)
    scores = {
        "mrr_at_10": float(reciprocal.mean()),
        "recall_at_1": float((ranks == 1).mean()),
        "recall_at_10": float(found.mean()),
        # With one relevant document the ideal gain is 1, so nDCG is the discount at the rank where it is found.
        "ndcg_at_10": float(np.where(found, 1 / np.log2(ranks + 1), 0).mean()),
        "mrr": float((1 / ranks).mean()),
    }
    return scores, PerItemScores("mrr_at_10", reciprocal)


def normalize(embeddings: np.ndarray) -> np.ndarray:
    """Rows `[n, dim]` of length 1; zeros stay zeros."""
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.where(norms == 0, 1, norms)
