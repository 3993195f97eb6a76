"""How sure is the difference between two models? A bootstrap over what both were measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

RESAMPLES = 1000


@dataclass
class PerItemScores:
    """What one headline metric is computed from, one value a unit (pair, query or sentence).

    Args:
        metric: The headline's key in the task's scores.
        values: `[n]`: with `references` the predictions, whose Spearman correlation is the metric; without, numbers
            whose mean is the metric.
        references: Gold scores `[n]`, the same for all models.
    """

    metric: str
    values: np.ndarray
    references: np.ndarray | None = None


def bootstrap_differences(
    sample: PerItemScores, baseline: PerItemScores, *, resamples: int = RESAMPLES, seed: int | Sequence[int] = 0
) -> np.ndarray:
    """The metric of `sample` minus that of `baseline` on `resamples` redrawn sets of units: `[resamples]`.

    Paired: both models are measured on the same redrawn units, so what makes a unit hard for both cancels.
    Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993.

    Raises:
        ValueError: The two are not about the same units.
    """
    if len(sample.values) != len(baseline.values):
        raise ValueError(
            f"a paired bootstrap needs the same units: {len(sample.values)} against {len(baseline.values)}"
        )
    rng = np.random.default_rng(seed)
    count = len(sample.values)
    differences = np.empty(resamples)
    block = max(1, 2**21 // count)
    for start in range(0, resamples, block):
        rows = rng.integers(0, count, size=(min(block, resamples - start), count))
        differences[start : start + block] = _metric(sample, rows) - _metric(baseline, rows)
    return differences


def interval(differences: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrapped differences `[resamples]`; NaN where they aren't all defined."""
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _metric(sample: PerItemScores, rows: np.ndarray) -> np.ndarray:
    if sample.references is None:
        return sample.values[rows].mean(axis=1)
    # Spearman's correlation is Pearson's of the ranks, and the ranks are those within the redrawn set.
    first = rankdata(sample.values[rows], axis=1)
    second = rankdata(sample.references[rows], axis=1)
    first -= first.mean(axis=1, keepdims=True)
    second -= second.mean(axis=1, keepdims=True)
    norms = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return (first * second).sum(axis=1) / norms
