"""The correlation of similarities as a metric of the `evaluate` library, which only this file imports."""

import tempfile

import datasets
import evaluate
import numpy as np

from .metrics import correlations


class SimilarityCorrelation(evaluate.Metric):
    """`correlations` as a metric of the `evaluate` library, without a network.

    Metrics keep their batches in a cache file, or with `keep_in_memory=True` in memory. If there are several processes,
    give each its own `experiment_id`.

    Example:
        >>> metric = SimilarityCorrelation()
        >>> metric.add_batch(predictions=[0.9, 0.1, 0.5], references=[5, 1, 2])
        >>> metric.compute()["spearman"]
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Spearman's and Pearson's correlation of predicted with gold similarities.",
            citation="",
            inputs_description="predictions: floats [n], such as cosines. references: floats [n], the gold scores.",
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
            reference_urls=["https://docs.scipy.org/doc/scipy/reference/generated/scipy.stats.spearmanr.html"],
        )

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return correlations(predictions, references)


def similarity_correlation(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Returns the metric of two arrays `[n]`, and leaves nothing in a cache that may not be writable."""
    with tempfile.TemporaryDirectory() as folder:
        metric = SimilarityCorrelation(cache_dir=folder, keep_in_memory=True)
        return metric.compute(predictions=predictions, references=references)
