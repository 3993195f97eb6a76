"""A task is sentences plus a score of their embeddings; a suite is several tasks that share their sentences."""

from __future__ import annotations

import hashlib
import itertools
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np

from .bootstrap import PerItemScores

LOWER_IS_BETTER = ("alignment", "uniformity", "mean_cosine")
"""The metrics of the geometry. Unlike correlations and shares, tables do not show them multiplied by 100."""

# What papers call "avg": Spearman over the seven test sets, and accuracy over the seven transfer tasks.
STS_AVERAGE = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb_test", "sickr")
TRANSFER_AVERAGE = ("mr", "cr", "subj", "mpqa", "sst2", "trec", "mrpc")
AVERAGES = (
    ("sts_avg_spearman", STS_AVERAGE, "spearman"),
    ("transfer_avg_accuracy", TRANSFER_AVERAGE, "accuracy"),
)


Role = Literal["query", "document"]
"""What a text is to an encoder that has prompts, or modules, for each."""


class Task(Protocol):
    """What the Trainer and the command line need to know about an evaluation."""

    group: str
    """Which table shows it: "sts", "transfer", "geometry", "retrieval" or another word."""
    name: str
    """The beginning of the metrics' names: lower-case letters, digits and underscores."""

    @property
    def main_metrics(self) -> Sequence[str]:
        """The keys of `score` that belong in a table or a training log, the most important first."""

    @property
    def sentences(self) -> Sequence[str]:
        """The sentences to embed; a sentence may repeat."""

    def score(self, embeddings: np.ndarray) -> dict[str, float]:
        """Returns the scores of `embeddings` `[len(sentences), dim]`, not multiplied by 100."""
        ...

    def score_with_samples(self, embeddings: np.ndarray) -> tuple[dict[str, float], PerItemScores | None]:
        """Returns what `score` does, and the values behind the main metric; None where it cannot be resampled."""
        ...


class TaskSuite:
    """Several tasks over one set of distinct sentences, so that each sentence is embedded once.

    Args:
        tasks: Tasks with different names.
        dims: Numbers of dimensions: the main metrics of embeddings that are cut to them are scored too, under the names
            that `at_dim` gives.

    Attributes:
        sentences: The distinct sentences of all tasks, in the order of their first appearance; one that is a query and
            a document is there twice.
        roles: What each of them is to an encoder that has prompts: "query", "document", or None.
    """

    def __init__(self, tasks: Sequence[Task], dims: Sequence[int] = ()):
        names = [task.name for task in tasks]
        if len(set(names)) != len(names):
            raise ValueError(f"the tasks of a suite need different names, got {names}")
        self.tasks = list(tasks)
        self.dims = list(dims)
        position: dict[tuple[str, Role | None], int] = {}
        self._rows = {}
        for task in self.tasks:
            texts = zip(task.sentences, getattr(task, "roles", itertools.repeat(None)), strict=False)
            rows = [position.setdefault(text, len(position)) for text in texts]
            self._rows[task.name] = np.array(rows, dtype=np.int64)
        self.sentences = [sentence for sentence, _ in position]
        self.roles = [role for _, role in position]

    def embeddings_of(self, task: Task, embeddings: np.ndarray) -> np.ndarray:
        """Returns the rows of `embeddings` `[len(self.sentences), dim]` that embed `task.sentences`, in their order."""
        return embeddings[self._rows[task.name]]

    def check(self, embeddings: np.ndarray) -> np.ndarray:
        """Returns `embeddings` as float32 `[len(self.sentences), dim]`, and warns about values that are not finite.

        Raises:
            ValueError: There is not one row per sentence.
        """
        embeddings = np.asarray(embeddings, dtype=np.float32)
        if embeddings.ndim != 2 or len(embeddings) != len(self.sentences):
            raise ValueError(f"expected embeddings of shape [{len(self.sentences)}, dim], got {embeddings.shape}")
        broken = int((~np.isfinite(embeddings).all(axis=1)).sum())
        if broken:
            warnings.warn(f"{broken} of {len(embeddings)} embeddings hold NaN or infinite values", stacklevel=3)
        return embeddings

    def score(self, embeddings: np.ndarray) -> dict[str, dict[str, float]]:
        """Returns the scores of every task: `{task name: {metric: value}}`.

        Args:
            embeddings: `[len(self.sentences), dim]`; row `i` embeds `self.sentences[i]`.

        Raises:
            ValueError: There is not one row per sentence.
        """
        embeddings = self.check(embeddings)
        return {task.name: self._score(task, self.embeddings_of(task, embeddings)) for task in self.tasks}

    def _score(self, task: Task, embeddings: np.ndarray) -> dict[str, float]:
        scores = dict(task.score(embeddings))
        for dim in self.dims:
            cut = task.score(embeddings[:, :dim])
            scores |= {at_dim(metric, dim): cut[metric] for metric in task.main_metrics}
        return scores

    def flatten(self, scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Returns the main metrics of a result of `score` as Trainer wants them: `{"stsb_dev_spearman": 0.86, ...}`.

        `sts_avg_spearman` and `transfer_avg_accuracy` are added where all of their seven tasks are present.
        """
        flat = {
            f"{task.name}_{metric}": scores[task.name][metric]
            for task in self.tasks
            if task.name in scores
            for metric in self._metrics(task)
        }
        return flat | averages(scores)

    def metric_names(self) -> list[str]:
        """Returns the keys of what `flatten` will return, before anything is embedded."""
        names = [f"{task.name}_{metric}" for task in self.tasks for metric in self._metrics(task)]
        present = {task.name for task in self.tasks}
        return names + [key for key, tasks, _ in AVERAGES if present.issuperset(tasks)]

    def _metrics(self, task: Task) -> list[str]:
        return [*task.main_metrics, *(at_dim(metric, dim) for dim in self.dims for metric in task.main_metrics)]


def fingerprint(task: Task) -> str:
    """Returns a hash of a task's sentences and of what is expected of them: only where it is equal, scores compare."""
    digest = hashlib.sha256("\0".join(task.sentences).encode("utf-8", "replace"))
    expected = [getattr(task, name, ()) for name in ("references", "positives", "own", "groups")]
    expected += [split.labels for split in getattr(task, "splits", ())]
    for numbers in expected:
        values = np.asarray(numbers, dtype=np.float64)
        digest.update(f" {values.shape} ".encode() + values.tobytes())
    return digest.hexdigest()


def at_dim(metric: str, dim: int) -> str:
    """Returns the name of a metric of embeddings that are cut to their first `dim` dimensions: "spearman_dim96"."""
    return f"{metric}_dim{dim}"


def split_dim(name: str) -> tuple[str, int | None]:
    """Returns what `at_dim` has joined; None is all dimensions."""
    match = re.fullmatch(r"(.+)_dim(\d+)", name)
    return (match[1], int(match[2])) if match else (name, None)


def averages(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Returns the averages that papers print, over a result of `score`; each only where all its tasks are present."""
    return {
        key: float(np.mean([scores[task][metric] for task in tasks]))
        for key, tasks, metric in AVERAGES
        if all(task in scores for task in tasks)
    }


def measures_test_sets(metric: str) -> bool:
    """Returns whether a metric is of a published test set, or their average, at whatever number of dimensions.

    Example:
        >>> [measures_test_sets(name) for name in ("stsb_test_spearman_dim96", "sts_avg_spearman", "stsb_dev_spearman")]
        [True, True, False]
    """
    name = split_dim(metric.removeprefix("eval_"))[0]
    task = name.rpartition("_")[0]
    return any(name == average or task in tasks for average, tasks, _ in AVERAGES)


def greater_is_better(metric: str) -> bool:
    """Returns whether a larger value of `metric` is better: not for "eval_geometry_alignment", for example."""
    return not split_dim(metric)[0].endswith(LOWER_IS_BETTER)
