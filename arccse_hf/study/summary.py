"""What a study found: each variant's mean and spread over its seeds, and how sure its difference to the baseline is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import sem, t

from ..cli.options import Settings
from ..evaluation.bootstrap import RESAMPLES, PerItemScores, bootstrap_differences, interval
from ..evaluation.suite import TaskSuite
from .execute import RunResult, chosen_fields, read_result, read_samples
from .plan import UNTRAINED, PlannedRun, StudyConfig

AVERAGE = "average"


@dataclass
class Statistic:
    """A score over seeds: its mean, and its standard deviation (divided by n - 1; NaN for one seed)."""

    mean: float
    deviation: float
    values: dict[int, float]

    @classmethod
    def of(cls, values: dict[int, float]) -> Statistic:
        """Returns the statistic of the values by seed."""
        scores = list(values.values())
        return cls(float(np.mean(scores)), float(np.std(scores, ddof=1)) if len(scores) > 1 else math.nan, values)


@dataclass
class Row:
    """One variant.

    Args:
        variant: Its name.
        seeds: Those that are done.
        scores: The main metric of each test task, and their average; not multiplied by 100.
        validation: By seed, what the metric that chooses the checkpoint gave for the kept weights, on no test data.
        chosen: The values that its trials chose.
        difference: Mean average minus the baseline's over the seeds that both have; None for the baseline itself.
        interval: 95 % interval of that difference, over seeds and sentence pairs.
        kept_start: The seeds whose verdict kept the start encoder, which is what was scored then.
    """

    variant: str
    seeds: list[int]
    scores: dict[str, Statistic]
    validation: dict[int, float | None] = field(default_factory=dict)
    chosen: Settings = field(default_factory=dict)
    difference: float | None = None
    interval: tuple[float, float] | None = None
    kept_start: list[int] = field(default_factory=list)


def main_metrics(suite: TaskSuite) -> dict[str, str]:
    """Returns, by test task, the metric that goes into the table and the average."""
    return {task.name: task.main_metrics[0] for task in suite.tasks}


def summarise(study: StudyConfig, suite: TaskSuite) -> list[Row]:
    """Returns a row for the untrained encoder and each variant, of which at least one run is done."""
    metrics = main_metrics(suite)
    results: dict[str, dict[int, RunResult]] = {}
    runs: dict[tuple[str, int], PlannedRun] = {}
    for run in study.runs():
        if run.kind != "trial" and (result := read_result(study, run)) is not None:
            results.setdefault(run.variant, {})[run.seed] = result
            runs[run.variant, run.seed] = run
    rows = {name: Row(name, sorted(by_seed), _statistics(by_seed, metrics)) for name, by_seed in results.items()}
    for variant, row in rows.items():
        if variant == UNTRAINED:
            continue
        row.validation = {seed: results[variant][seed].value for seed in row.seeds}
        row.kept_start = [seed for seed in row.seeds if results[variant][seed].kept_start]
        row.chosen = chosen_fields(study, variant) or {}
        common = sorted(results[variant].keys() & results.get(study.baseline, {}).keys())
        if variant != study.baseline and common:
            averages, baseline = row.scores[AVERAGE].values, rows[study.baseline].scores[AVERAGE].values
            differences = [averages[seed] - baseline[seed] for seed in common]
            row.difference = float(np.mean(differences))
            ours = [read_samples(study, runs[variant, seed]) for seed in common]
            theirs = [read_samples(study, runs[study.baseline, seed]) for seed in common]
            measured = all(samples.keys() == metrics.keys() for samples in (*ours, *theirs))
            if measured and math.isfinite(row.difference):
                ends = seed_and_pair_interval(differences, ours, theirs)
                row.interval = ends if all(map(math.isfinite, ends)) else None
    return list(rows.values())


def seed_and_pair_interval(
    differences: Sequence[float],
    ours: Sequence[Mapping[str, PerItemScores]],
    theirs: Sequence[Mapping[str, PerItemScores]],
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Returns the 95 % interval of the mean difference in the average score, over seeds and the test tasks' units.

    Seeds: Student's t of the differences; a bootstrap over a few seeds would leave 0 out far too often, and cannot go
    beyond the largest difference. Sentence pairs: a paired bootstrap, with the same pairs for all seeds. The two are
    independent, so that the squares of their half-widths add up. One seed has no spread: then it is that of the pairs
    alone.

    Args:
        differences: The variant's average minus the baseline's, for each seed that both have.
        ours: For each of these seeds, what the main metrics of the test tasks are computed from.
        theirs: The same of the baseline.
        resamples: How often the pairs are drawn.
    """
    by_seed = np.empty((len(ours), resamples))
    for index, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        drawn = [
            bootstrap_differences(our[task], their[task], resamples=resamples, seed=(0, number))
            for number, task in enumerate(our)
        ]
        by_seed[index] = np.mean(drawn, axis=0)
    low, high = interval(by_seed.mean(axis=0))
    mean, spread = float(np.mean(differences)), 0.0
    if len(differences) > 1:
        spread = float(t.ppf(0.975, len(differences) - 1) * sem(differences))
    return mean - math.hypot(mean - low, spread), mean + math.hypot(high - mean, spread)


def _statistics(by_seed: Mapping[int, RunResult], metrics: Mapping[str, str]) -> dict[str, Statistic]:
    columns = {
        task: {seed: result.scores[task][metric] for seed, result in by_seed.items()}
        for task, metric in metrics.items()
    }
    columns[AVERAGE] = {seed: float(np.mean([columns[task][seed] for task in metrics])) for seed in by_seed}
    return {name: Statistic.of(values) for name, values in columns.items()}
