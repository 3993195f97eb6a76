"""Scores of several encoders on one suite, and how sure their differences are."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm.auto import tqdm

from ..errors import UserError
from ..paths import without_checksum
from .bootstrap import PerItemScores, bootstrap_differences, interval
from .suite import AVERAGES, TaskSuite, averages

logger = logging.getLogger(__name__)


@dataclass
class ModelResult:
    """The scores of one encoder.

    Args:
        name: The model as the user wrote it.
        pooling: Which pooling was used, and who chose it.
        scores: `{task: {metric: value}}`, not multiplied by 100; a task that failed is missing.
        errors: `{task: message}` of the tasks that failed.
        max_seq_length: The number of tokens that a sentence is cut to.
        dimension: The length of an embedding.
        sentences: The number of distinct sentences.
        truncated: The number of sentences that are longer than the model reads.
        seconds: The time to embed all sentences.
        samples: `{task: scores of its items}` of the tasks whose main metric can be resampled.
    """

    name: str
    pooling: str
    max_seq_length: int | None = None
    dimension: int = 0
    sentences: int = 0
    truncated: int = 0
    seconds: float = 0.0
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    samples: dict[str, PerItemScores] = field(default_factory=dict, repr=False)

    @property
    def averages(self) -> dict[str, float]:
        """The averages that papers print, each only where all of its tasks are present."""
        return averages(self.scores)


@dataclass
class Difference:
    """A metric of one model minus that of the first model, with a 95 % interval from a paired bootstrap."""

    model: str
    task: str
    metric: str
    value: float
    low: float
    high: float


def score_suite(result: ModelResult, embeddings: np.ndarray, suite: TaskSuite) -> ModelResult:
    """Writes the scores of every task into `result`, and returns it.

    A task that fails is recorded in `result.errors`, and the others go on.

    Args:
        result: A result without scores.
        embeddings: `[len(suite.sentences), dim]`; row `i` embeds `suite.sentences[i]`.
        suite: The tasks.
    """
    embeddings = suite.check(embeddings)
    # On a terminal only: most tasks are scored at once, and some train a classifier for minutes.
    bar = tqdm(suite.tasks, desc=f"{without_checksum(result.name)}: scoring", leave=False, disable=None)
    for task in bar:
        bar.set_postfix_str(task.name)
        try:
            rows = suite.embeddings_of(task, embeddings)
            result.scores[task.name], samples = task.score_with_samples(rows)
            if samples is not None:
                result.samples[task.name] = samples
        except Exception as error:  # whatever goes wrong in one task must not lose the others' results
            result.errors[task.name] = f"{type(error).__name__}: {error}"
            logger.warning(f"{result.name}: {task.name} failed", exc_info=not isinstance(error, UserError))
    return result


def compare(results: Sequence[ModelResult], *, seed: int = 0) -> list[Difference]:
    """Returns the differences of all models to the first, for each metric that can be resampled and the averages."""
    differences = []
    first = results[0]
    for other in results[1:]:
        drawn: dict[str, np.ndarray] = {}
        for number, (task, sample) in enumerate(other.samples.items()):
            if task not in first.samples:
                continue
            drawn[task] = bootstrap_differences(sample, first.samples[task], seed=(seed, number))
            value = other.scores[task][sample.metric] - first.scores[task][sample.metric]
            differences.append(Difference(other.name, task, sample.metric, value, *_ends(value, drawn[task])))
        for key, tasks, metric in AVERAGES:
            if key in other.averages and key in first.averages:
                # The sets are drawn independently of each other, so their n-th draws make one draw of the average.
                mean = np.mean([drawn[task] for task in tasks], axis=0)
                value = other.averages[key] - first.averages[key]
                differences.append(Difference(other.name, key.rsplit("_", 1)[0], metric, value, *_ends(value, mean)))
    return differences


def _ends(value: float, drawn: np.ndarray) -> tuple[float, float]:
    """Returns the ends of the interval; NaN where embeddings fell together, of which resamples rank the rounding."""
    return interval(drawn) if math.isfinite(value) else (math.nan, math.nan)
