"""Retrieval: the rank of each query's document among all documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..errors import UserError
from .bootstrap import PerItemScores
from .suite import Role

BLOCK_CELLS = 2**24  # cosines in memory at a time: 64 MiB


def ranks_of_own(
    queries: np.ndarray, documents: np.ndarray, own: np.ndarray, right: Mapping[int, np.ndarray] | None = None
) -> np.ndarray:
    """Returns the rank by cosine, 1 being best, of each query's document among all documents: integers `[num_queries]`.

    A document that is exactly as close counts as closer, so that a collapsed encoder scores nothing.

    Args:
        queries: `[num_queries, dim]`.
        documents: `[num_documents, dim]`.
        own: `[num_queries]`, the row of each query's document.
        right: For queries that have several, by their row, the rows of all right documents; the others are passed over.
    """
    right = right or {}
    queries, documents = normalize(queries), normalize(documents)
    ranks = np.empty(len(queries), dtype=np.int64)
    block = max(1, BLOCK_CELLS // len(documents))
    for start in range(0, len(queries), block):
        cosines = queries[start : start + block] @ documents.T
        threshold = cosines[np.arange(len(cosines)), own[start : start + block], None]
        for number in right.keys() & range(start, start + len(cosines)):
            cosines[number - start, right[number]] = -np.inf
            cosines[number - start, own[number]] = threshold[number - start, 0]
        # "not below" instead of "at least", because a NaN must not look like a first place.
        ranks[start : start + block] = (~(cosines < threshold)).sum(axis=1)
    return ranks


def linked_pairs(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Returns a number per (query, document): the same for those that share a query or a document, or are linked so.

    Only pairs of different numbers are independent draws.
    """
    queries: dict[str, int] = {}
    documents: dict[str, int] = {}
    left = np.array([queries.setdefault(query, len(queries)) for query, _ in pairs], dtype=np.int64)
    right = np.array([documents.setdefault(document, len(documents)) for _, document in pairs], dtype=np.int64)
    nodes = len(queries) + len(documents)
    links = coo_array((np.ones(len(pairs)), (left, len(queries) + right)), shape=(nodes, nodes))
    return connected_components(links, directed=False)[1][left]


class RetrievalTask:
    """Retrieval over (query, document) pairs: the rank of each pair's document among all that are not right too.

    A query that is paired with several documents is asked once for each, and the others are passed over: the "filtered"
    ranks of Bordes et al., "Translating Embeddings for Modeling Multi-relational Data", NeurIPS 2013, section 4.2.

    Where each query has one document, the scores of texts that were embedded as what they are (`roles`) equal those of
    sentence-transformers' `InformationRetrievalEvaluator`, except for exact ties (see `ranks_of_own`). That evaluator
    embeds the texts itself and keeps the hits of each query in Python objects.

    Args:
        name: The beginning of the metrics' names.
        pairs: (query, document) texts. A repeated pair counts once. A text that is the document of several queries is
            one document.
        corpus: More documents to search.
        groups: A number per pair, the same for pairs that are redrawn together in a bootstrap (`PerItemScores`); None:
            those of `linked_pairs`.

    Raises:
        UserError: There are fewer than two different documents.
    """

    group = "retrieval"
    main_metrics = ("mrr_at_10", "recall_at_1", "recall_at_10", "ndcg_at_10")

    def __init__(
        self,
        name: str,
        pairs: Sequence[tuple[str, str]],
        corpus: Sequence[str] = (),
        groups: Sequence[int] | None = None,
    ):
        self.name = name
        group_of: dict[tuple[str, str], int] = {}
        for pair, group in zip(pairs, groups or linked_pairs(pairs).tolist(), strict=True):
            group_of.setdefault(pair, group)
        pairs = list(group_of)
        position: dict[str, int] = {}
        self.own = np.array([position.setdefault(document, len(position)) for _, document in pairs], dtype=np.int64)
        self.groups = np.array(list(group_of.values()))
        self.right = _right_documents(pairs, self.own)
        if len({*position, *corpus}) < 2:
            raise UserError(f"{name}: retrieval needs pairs with at least 2 different documents, got {len(position)}")
        self.num_queries = len(pairs)
        self.queries = [query for query, _ in pairs]
        self.documents = list(dict.fromkeys([*position, *corpus]))
        self.pair_texts = [*self.queries, *position]
        self.sentences = self.queries + self.documents
        self.roles: list[Role] = ["query" for _ in self.queries]
        self.roles += ["document" for _ in self.documents]

    def score_with_samples(self, embeddings: np.ndarray) -> tuple[dict[str, float], PerItemScores]:
        """Returns what `score` does, and the reciprocal rank of each query, which is 0 beyond rank 10."""
        ranks = ranks_of_own(embeddings[: self.num_queries], embeddings[self.num_queries :], self.own, self.right)
        scores, samples = score_ranks(ranks)
        return scores, replace(samples, groups=self.groups)

    def score(self, embeddings: np.ndarray) -> dict[str, float]:
        """Returns scores in [0, 1] of embeddings `[len(self.sentences), dim]`; `mrr` is not cut at rank 10."""
        return self.score_with_samples(embeddings)[0]


def _right_documents(pairs: Sequence[tuple[str, str]], own: np.ndarray) -> dict[int, np.ndarray]:
    """Returns the documents of queries that have several, as `ranks_of_own` takes them."""
    numbers: dict[str, list[int]] = {}
    for number, (query, _) in enumerate(pairs):
        numbers.setdefault(query, []).append(number)
    several = [(same, own[same]) for same in numbers.values() if len(same) > 1]
    return {number: rows for same, rows in several for number in same}


def score_ranks(ranks: np.ndarray) -> tuple[dict[str, float], PerItemScores]:
    """Returns scores in [0, 1] of the ranks `[num_queries]` of the queries' documents, and the reciprocal ranks.

    A reciprocal rank is 0 beyond rank 10.
    """
    found = ranks <= 10
    reciprocal = np.where(found, 1 / ranks, 0)
    scores = {
        "mrr_at_10": float(reciprocal.mean()),
        "recall_at_1": float((ranks == 1).mean()),
        "recall_at_10": float(found.mean()),
        # One relevant document has an ideal gain of 1, so nDCG is the discount at its rank.
        "ndcg_at_10": float(np.where(found, 1 / np.log2(ranks + 1), 0).mean()),
        "mrr": float((1 / ranks).mean()),
    }
    return scores, PerItemScores("mrr_at_10", reciprocal)


def normalize(embeddings: np.ndarray) -> np.ndarray:
    """Returns the rows `[n, dim]` scaled to length 1; a row of zeros stays as it is."""
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.where(norms == 0, 1, norms)
