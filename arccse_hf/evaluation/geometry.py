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
    """Returns the mean squared distance of positive pairs: `mean ||f(x) - f(x+)||^2`, in [0, 4].

    Source: Wang & Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", ICML 2020, with their default alpha = 2.

    Args:
        first: Embeddings `[num_pairs, dim]`, which are normalised here.
        second: Embeddings of their positives, of the same shape.

    Example:
        >>> alignment(torch.eye(2), torch.eye(2))
        0.0
    """
    return (_normalize(first) - _normalize(second)).square().sum(dim=1).double().mean().item()


def uniformity(
    embeddings: np.ndarray | torch.Tensor, *, t: float = 2.0, max_sentences: int | None = EXACT_UP_TO, seed: int = 0
) -> float:
    """Returns `log mean exp(-t ||f(x) - f(y)||^2)` over all pairs of different rows, which is at most 0.

    The pairs are computed in blocks of bounded memory. Fewer than two rows give NaN. The source is that of
    `alignment`, with their default t = 2.

    Args:
        embeddings: Embeddings of distinct sentences `[n, dim]`, which are normalised here.
        t: The sharpness of the Gaussian potential, at most 20: float32 has no room for more.
        max_sentences: Of more rows than these, a random subset is taken; None takes all.
        seed: The same seed takes the same subset.
    """
    if not 0 < t <= 20:
        raise ValueError(f"t {t}: must be above 0 and at most 20")
    units = _normalize(embeddings)
    if max_sentences is not None and len(units) > max_sentences:
        chosen = np.random.default_rng(seed).choice(len(units), size=max_sentences, replace=False)
        units = units[torch.from_numpy(chosen).to(units.device)]
    count = len(units)
    if count < 2:
        return math.nan
    total, block = 0.0, 1024
    for start in range(0, count, block):
        # The columns begin at the first row of the block, so every pair lies above the diagonal exactly once.
        cosines = units[start : start + block] @ units[start:].T
        potential = (t * (2 * cosines - 2).clamp(max=0)).exp_()
        total += potential.triu_(diagonal=1).sum(dtype=torch.float64).item()
    return math.log(total / (count * (count - 1) / 2)) if total == total else math.nan


def mean_cosine(embeddings: np.ndarray | torch.Tensor) -> float:
    """Returns the mean cosine over all pairs of different rows of `[n, dim]`.

    It is near 1 where the embeddings fill only a narrow cone.
    """
    units = _normalize(embeddings).double()
    count = len(units)
    if count < 2:
        return math.nan
    # || sum of units ||^2 counts every ordered pair, and each row with itself.
    return ((units.sum(dim=0).square().sum() - units.square().sum()) / (count * (count - 1))).item()


class GeometryTask:
    """Alignment of the positive pairs among scored pairs, and uniformity and mean cosine of their distinct sentences.

    A pair is positive if its score is at least 80 % of the highest: 4 for scores from 0 to 5, as in STS.

    Args:
        first: The first sentences of the pairs.
        second: The second sentences.
        scores: Gold similarities `[num_pairs]`; a higher one means closer.

    Raises:
        UserError: No pair counts as positive.
    """

    name = group = "geometry"
    main_metrics = ("alignment", "uniformity", "mean_cosine")

    def __init__(self, first: Sequence[str], second: Sequence[str], scores: Sequence[float]):
        values = np.asarray(scores, dtype=np.float64)
        if len(values) == 0 or values.max() <= 0:
            raise UserError(f"{self.name}: no pair has a score above 0, so there is no positive pair to align")
        position: dict[str, int] = {}
        pairs = [
            (position.setdefault(a, len(position)), position.setdefault(b, len(position)))
            for a, b in zip(first, second, strict=True)
        ]
        self.sentences = list(position)
        self.positives = np.array(pairs, dtype=np.int64)[values >= POSITIVE_SHARE * values.max() - 1e-9]

    def score(self, embeddings: np.ndarray) -> dict[str, float]:
        """Returns `alignment`, `uniformity` and `mean_cosine` of embeddings `[len(self.sentences), dim]`."""
        return {
            "alignment": alignment(embeddings[self.positives[:, 0]], embeddings[self.positives[:, 1]]),
            "uniformity": uniformity(embeddings),
            "mean_cosine": mean_cosine(embeddings),
        }

    def score_with_samples(self, embeddings: np.ndarray) -> tuple[dict[str, float], None]:
        """Returns what `score` does, and None: properties of all embeddings at once have no value per item."""
        return self.score(embeddings), None


def _normalize(embeddings: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Rows of length 1; a row of zeros has no direction, and becomes NaN."""
    rows = torch.as_tensor(embeddings).detach().float()
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
