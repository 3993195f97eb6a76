"""How sure the difference between two models is: a bootstrap over the items that both were measured on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap, rankdata

RESAMPLES = 1000
MIN_GROUPS = 20
"""Of fewer groups than these, the bootstrap's intervals are too narrow."""
_CELLS = 2**21  # values of one block of resamples, which are ranked at once


@dataclass
class PerItemScores:
    """The values that one main metric is computed from, one per unit (pair, query or sentence).

    Args:
        metric: The metric's key in the task's scores.
        values: `[n]`. With `references`, predictions, whose Spearman correlation is the metric. Without, numbers whose
            mean is the metric.
        references: Gold scores `[n]`, the same for all models.
        groups: `[n]`, the same number for units that are no independent draws, such as queries out of one document: a
            resample has all of a group or none. Without, each unit is a draw of its own. Only for means.
    """

    metric: str
    values: np.ndarray
    references: np.ndarray | None = None
    groups: np.ndarray | None = None


def bootstrap_differences(
    sample: PerItemScores, baseline: PerItemScores, *, resamples: int = RESAMPLES, seed: int | Sequence[int] = 0
) -> np.ndarray:
    """Returns the metric of `sample` minus that of `baseline` on `resamples` redrawn sets of units: `[resamples]`.

    The bootstrap is paired: both models are measured on the same redrawn units, so what makes a unit hard for both
    cancels. Units of one group are redrawn together (cluster bootstrap). Source: Efron & Tibshirani, "An Introduction
    to the Bootstrap", 1993; Davison & Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8.

    Args:
        sample: The scores of one model.
        baseline: The scores of the other model, on the same units.
        resamples: How often the units are redrawn.
        seed: The same seed redraws the same units.

    Returns:
        NaN throughout where there are fewer than `MIN_GROUPS` groups of several units, with a warning.

    Raises:
        ValueError: The two have different numbers of units.
    """
    if len(sample.values) != len(baseline.values):
        raise ValueError(
            f"a paired bootstrap needs the same units: {len(sample.values)} against {len(baseline.values)}"
        )
    statistic: Callable[..., np.ndarray]
    if sample.references is not None:
        columns, statistic = [sample.values, baseline.values, sample.references], _spearman_difference
    else:
        groups = np.arange(len(sample.values)) if sample.groups is None else sample.groups
        _, group = np.unique(groups, return_inverse=True)
        if (found := len(np.unique(group))) < min(MIN_GROUPS, len(group)):
            warnings.warn(
                f"no interval: the {len(group)} units hang together in {found} groups, and {MIN_GROUPS} are needed",
                stacklevel=1,
            )
            return np.full(resamples, np.nan)
        columns = [np.bincount(group, weights) for weights in (sample.values, baseline.values, None)]
        statistic = _mean_difference
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # an undefined metric is NaN, here as elsewhere
        return bootstrap(
            columns,
            statistic,
            n_resamples=resamples,
            batch=max(1, _CELLS // len(columns[0])),
            vectorized=True,
            paired=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution


def interval(differences: np.ndarray) -> tuple[float, float]:
    """Returns the 95 % percentile interval of bootstrapped differences `[resamples]`; NaN where one is undefined."""
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)


def _mean_difference(sums: np.ndarray, baseline_sums: np.ndarray, sizes: np.ndarray, axis: int = -1) -> np.ndarray:
    """Returns the difference of means over all units of the groups with these sums and sizes."""
    return (sums - baseline_sums).sum(axis=axis) / sizes.sum(axis=axis)


def _spearman_difference(
    values: np.ndarray, baseline: np.ndarray, references: np.ndarray, axis: int = -1
) -> np.ndarray:
    """Returns the difference of Spearman's correlations: Pearson's, of the ranks within the redrawn set."""
    gold = _centred_ranks(references, axis)
    return _pearson(_centred_ranks(values, axis), gold, axis) - _pearson(_centred_ranks(baseline, axis), gold, axis)


def _centred_ranks(values: np.ndarray, axis: int) -> np.ndarray:
    ranks = rankdata(values, axis=axis)
    return ranks - ranks.mean(axis=axis, keepdims=True)


def _pearson(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
    norms = np.sqrt((first**2).sum(axis=axis) * (second**2).sum(axis=axis))
    with np.errstate(invalid="ignore"):
        return (first * second).sum(axis=axis) / norms
