"""Cosines of pairs, and the correlation of predicted with gold similarities."""

from __future__ import annotations

import warnings

import numpy as np
from scipy import stats

CONSTANT_WARNING = (
    "All predicted similarities are equal (has the encoder collapsed to one vector?): "
    "their correlation with the gold scores is undefined and reported as NaN."
)


def cosine_similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the cosines of `first[i]` and `second[i]`, float32 `[n]`, of two arrays `[n, dim]`.

    They are computed in float64 and rounded once, so that two equal vectors give exactly 1.0: pairs of identical
    sentences then share one rank, instead of being ordered by rounding errors. A vector of zeros gives 0.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    dots = np.einsum("nd,nd->n", first, second)
    return np.divide(dots, norms, out=np.zeros_like(dots), where=norms != 0).astype(np.float32)


def is_constant(values: np.ndarray) -> bool:
    """Returns whether `values` differ by no more than rounding to float32, as the cosines of a collapsed encoder."""
    values = np.asarray(values, dtype=np.float64)
    return bool(np.ptp(values) <= 1e-6 * np.abs(values).max())


def correlations(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Returns the correlations of two arrays `[n]`, `{"spearman": ..., "pearson": ...}`, each in [-1, 1].

    Both are NaN where either array is constant or holds a NaN. Constant predictions also warn (`CONSTANT_WARNING`).
    """
    predictions, references = np.asarray(predictions, dtype=np.float64), np.asarray(references, dtype=np.float64)
    undefined = {"spearman": float("nan"), "pearson": float("nan")}
    if len(predictions) < 2 or not (np.isfinite(predictions).all() and np.isfinite(references).all()):
        return undefined
    if is_constant(predictions):
        warnings.warn(CONSTANT_WARNING, stacklevel=1)  # from one line: Python shows it once, and not per set
        return undefined
    if np.ptp(references) == 0:
        return undefined
    return {
        "spearman": float(stats.spearmanr(predictions, references).statistic),
        "pearson": float(stats.pearsonr(predictions, references).statistic),
    }
