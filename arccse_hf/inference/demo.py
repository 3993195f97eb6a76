"""What stands behind the page of `arccse demo`, without the page: rankings of two encoders compared, and cosines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import UserError
from ..paths import short_names
from .search import Hit, Search
from .similarity import similarities

DEPTH = 100
"""Texts of each ranking in which the other's are looked for."""
MAX_QUERY_CHARS = 1_000
MAX_SENTENCES, MAX_SENTENCES_CHARS = 30, 10_000
"""Of the sentences that are compared, all of them together."""


@dataclass(frozen=True)
class Found:
    """A text that one encoder found.

    Args:
        hit: Its rank, its cosine, and the text.
        other_rank: Its rank by the other encoder; None where that is beyond `DEPTH`, or there is no other.
    """

    hit: Hit
    other_rank: int | None


class Demo:
    """A trained encoder beside the one that it started from.

    Args:
        encoders: One or two searches of the same corpus: of the trained encoder, and of its base.
        top_k: Texts that are shown per encoder.

    Example:
        >>> Demo([Search(encoder, ExactStore(corpus))]).nearest("paper jam")[0][0].hit.cosine
        0.7312
    """

    def __init__(self, encoders: Sequence[Search], top_k: int = 10):
        self.encoders, self.top_k = encoders, top_k

    @property
    def names(self) -> list[str]:
        """The encoders, with as much of their paths as tells them from each other."""
        return short_names([search.encoder.name for search in self.encoders], parts=2)

    def nearest(self, query: str) -> list[list[Found]]:
        """Returns the nearest texts by each encoder, the best first.

        Raises:
            UserError: The query is empty or too long.
        """
        query = query.strip()
        if not query:
            raise UserError("Give a query of some words.")
        if len(query) > MAX_QUERY_CHARS:
            raise UserError(f"The query has {len(query):,} characters; {MAX_QUERY_CHARS:,} are the most.")
        rankings = [search.hits([query], max(DEPTH, self.top_k))[0] for search in self.encoders]
        ranks = [{_key(hit): hit.rank for hit in hits} for hits in rankings]
        others: list[dict[tuple, int]] = ranks[::-1] if len(ranks) == 2 else [{}]
        return [
            [Found(hit, other.get(_key(hit))) for hit in hits[: self.top_k]]
            for hits, other in zip(rankings, others, strict=True)
        ]

    def cosines(self, lines: str) -> tuple[list[str], list[np.ndarray]]:
        """Returns the sentences of a text, one per line, and the cosines `[sentences, sentences]` by each encoder.

        Raises:
            UserError: There are fewer than two sentences, too many, or too long ones.
        """
        if len(lines) > MAX_SENTENCES_CHARS:
            raise UserError(f"The text has {len(lines):,} characters; {MAX_SENTENCES_CHARS:,} are the most.")
        sentences = [line.strip() for line in lines.splitlines() if line.strip()]
        if not 2 <= len(sentences) <= MAX_SENTENCES:
            raise UserError(f"Give 2 to {MAX_SENTENCES} sentences, one per line; here are {len(sentences)}.")
        return sentences, [similarities(replace(search.encoder, task=None), sentences) for search in self.encoders]


def _key(hit: Hit) -> tuple[str, int | str, str]:
    return hit.file, hit.id, hit.text
