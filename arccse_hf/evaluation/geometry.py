"""Alignment and uniformity of embeddings on the unit sphere (Wang & Isola, 2020); lower is better for both."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from ..errors import UserError

EXACT_UP_TO = 10_000
POSITIVE_SHARE = 0.8


def alignment(first: np.ndarray | torch.Tensor, second: np.ndarray | torch.Tensor) -> float:
    """Mean squared distance of positive pairs: `mean ||f(x) - f(x+)||^2`, in [0, 4].

    Args:
        first: Embeddings `[num_pairs, dim]`, normalised here.
        second: Embeddings of their positives, the same shape.

    Source: Wang & Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", ICML 2020, with their default alpha = 2.
    """
    return (_unit(first) - _unit(second)).square().sum(dim=1).double().mean().item()


def uniformity(
    embeddings: np.ndarray | torch.Tensor, *, t: float = 2.0, max_sentences: int | None = EXACT_UP_TO, seed: int = 0
) -> float:
    """`log mean exp(-t ||f(x) - f(y)||^2)` over all pairs of different rows, at most 0.

    All pairs count, in blocks of bounded memory, up to `max_sentences` rows; of more rows a random subset of that size
    is taken (all of them with None), the same for the same seed. NaN for fewer than two rows.

    Args:
        embeddings: Embeddings of distinct sentences `[n, dim]`, normalised here.
        t: Sharpness of the Gaussian potential.

    Source: as for `alignment`, with their default t = 2.
    """
    units = _unit(embeddings)
    if max_sentences is not None and len(units) > max_sentences:
        chosen = np.random.default_rng(seed).choice(len(units), size=max_sentences, replace=False)
        units = units[torch.from_numpy(chosen).to(units.device)]
    count = len(units)
    if count < 2:
        return math.nan
    total, block = 0.0, 1024
    for start in range(0, count, block):
        # The columns begin at the block's own first row: what lies above the diagonal is every pair once.
        cosines = units[start : start + block] @ units[start:].T
        potential = (t * (2 * cosines - 2).clamp(max=0)).exp_()
        total += potential.triu_(diagonal=1).sum(dtype=torch.float64).item()
    return math.log(total / (count * (count - 1) / 2)) if total == total else math.nan


def mean_cosine(embeddings: np.ndarray | torch.Tensor) -> float:
    """Mean cosine over all pairs of different rows of `[n, dim]`: near 1 where embeddings fill a narrow cone only."""
    units = _unit(embeddings).double()
    count = len(units)
    if count < 2:
        return math.nan
    # || sum of units ||^2 holds every ordered pair, and each row with itself.
    return ((units.sum(dim=0).square().sum() - units.square().sum()) / (count * (count - 1))).item()


class GeometryTask:
    """Alignment over the positive pairs of scored pairs, uniformity and mean cosine over their distinct sentences.

    A pair is positive from 80 % of the highest score on: 4 of STS's 0 to 5, 0.8 of a scale that ends at 1.

    Args:
        first: The pairs' first sentences.
        second: Their second sentences.
        scores: Gold similarities `[num_pairs]`, higher meaning closer.

    Raises:
        UserError: No pair counts as positive.
    """

    group = "geometry"
    main_metrics = ("alignment", "uniformity", "mean_cosine")

    def __init__(self, first: Sequence[str], second: Sequence[str], scores: Sequence[float], name: str = "geometry"):
        self.name = name
        values = np.asarray(scores, dtype=np.float64)
        if len(values) == 0 or values.max() <= 0:
            raise UserError(f"{name}: no pair has a score above 0, so there is no positive pair to align")
        position: dict[str, int] = {}
        pairs = [
            (position.setdefault(a, len(position)), position.setdefault(b, len(position)))
            for a, b in zip(first, second, strict=True)
        ]
        self.sentences = list(position)
        self.positives = np.array(pairs, dtype=np.int64)[values >= POSITIVE_SHARE * values.max() - 1e-9]

    def score(self, embeddings: np.ndarray) -> dict[str, float]:
        """`alignment`, `uniformity` and `mean_cosine` of embeddings `[len(self.sentences), dim]`."""
        return {
            "alignment": alignment(embeddings[self.positives[:, 0]], embeddings[self.positives[:, 1]]),
            "uniformity": uniformity(embeddings),
            "mean_cosine": mean_cosine(embeddings),
        }

    def score_with_samples(self, embeddings: np.ndarray) -> tuple[dict[str, float], None]:
        """`score`; these are properties of all embeddings at once, which have no value per item."""
        return self.score(embeddings), None


def _unit(embeddings: np.ndarray | torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.as_tensor(embeddings).detach().float(), dim=1)
