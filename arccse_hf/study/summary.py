"""What a study found: each variant's mean and spread over its seeds, and how sure its difference to the baseline is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..command_line import Fields
from ..evaluation import TaskSuite
from ..evaluation.bootstrap import RESAMPLES, bootstrap_differences, interval
from .execute import Outcome, chosen_fields, read_outcome
from .plan import UNTRAINED, Plan

AVERAGE = "average"


@dataclass
class Statistic:
    """A score over seeds: its mean, and its standard deviation (n - 1 below the line; NaN for one seed)."""

    mean: float
    deviation: float
    values: dict[int, float]


@dataclass
class Row:
    """One variant.

    Args:
        variant: its name.
        seeds: those that are done.
        scores: by test task, and their average, the headline metric.
        chosen: the values that its trials chose.
        difference: mean average minus the baseline's over the seeds that both have; None for the baseline itself.
        interval: 95 % interval of that difference, from a bootstrap over seeds and sentence pairs.
    """

    variant: str
    seeds: list[int]
    scores: dict[str, Statistic]
    chosen: Fields = field(default_factory=dict)
    difference: float | None = None
    interval: tuple[float, float] | None = None


def headline_metrics(suite: TaskSuite) -> dict[str, str]:
    """By test task, the metric that goes into the table and the average."""
    return {task.name: task.headlines[0] for task in suite.tasks}


def summarise(plan: Plan, suite: TaskSuite) -> list[Row]:
    """A row for the untrained encoder and each variant, of which at least one run is done."""
    metrics = headline_metrics(suite)
    outcomes: dict[str, dict[int, Outcome]] = {}
    for run in plan.runs():
        if run.kind != "trial" and _ready(plan, run.variant, run.kind):
            outcome = read_outcome(plan, run)
            if outcome is not None:
                outcomes.setdefault(run.variant, {})[run.seed] = outcome
    rows = {name: Row(name, sorted(by_seed), _statistics(by_seed, metrics)) for name, by_seed in outcomes.items()}
    for variant, row in rows.items():
        if variant == UNTRAINED:
            continue
        row.chosen = chosen_fields(plan, variant)
        common = sorted(outcomes[variant].keys() & outcomes.get(plan.baseline, {}).keys())
        if variant != plan.baseline and common:
            own, base = row.scores[AVERAGE].values, rows[plan.baseline].scores[AVERAGE].values
            row.difference = float(np.mean([own[seed] - base[seed] for seed in common]))
            pairs = [(outcomes[variant][seed], outcomes[plan.baseline][seed]) for seed in common]
            row.interval = seed_and_pair_interval(*zip(*pairs, strict=True))
    return list(rows.values())


def seed_and_pair_interval(
    ours: Sequence[Outcome], theirs: Sequence[Outcome], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """95 % interval of the mean difference in the average score, both over the seeds and over the test tasks' units.

    Every resample draws seeds, and sentence pairs of each task, with replacement: the same seeds and pairs on both
    sides, and the same pairs for all seeds, so that what is hard for both cancels.

    Args:
        ours: outcomes of a variant, one a seed.
        theirs: outcomes of the baseline for the same seeds.
        resamples: how many are drawn.
        seed: of the drawing.

    Returns:
        None where a task can't be resampled.
    """
    tasks = list(ours[0].scores)
    if any(task not in outcome.samples for outcome in (*ours, *theirs) for task in tasks):
        return None
    by_seed = np.empty((len(ours), resamples))
    for index, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        drawn = [
            bootstrap_differences(our.samples[task], their.samples[task], resamples=resamples, seed=(seed, number))
            for number, task in enumerate(tasks)
        ]
        by_seed[index] = np.mean(drawn, axis=0)
    seeds = np.random.default_rng((seed, len(tasks))).integers(0, len(ours), size=(len(ours), resamples))
    return interval(np.take_along_axis(by_seed, seeds, axis=0).mean(axis=0))


def _ready(plan: Plan, variant: str, kind: str) -> bool:
    """Whether the trials that a run depends on are all there."""
    if kind == "untrained":
        return True
    trials = [run for run in plan.runs() if run.kind == "trial" and run.variant == variant]
    return all(read_outcome(plan, trial) is not None for trial in trials)


def _statistics(by_seed: Mapping[int, Outcome], metrics: Mapping[str, str]) -> dict[str, Statistic]:
    columns = {
        task: {seed: outcome.scores[task][metric] for seed, outcome in by_seed.items()}
        for task, metric in metrics.items()
    }
    columns[AVERAGE] = {seed: float(np.mean([columns[task][seed] for task in metrics])) for seed in by_seed}
    return {
        name: Statistic(
            float(np.mean(list(values.values()))),
            float(np.std(list(values.values()), ddof=1)) if len(values) > 1 else math.nan,
            values,
        )
        for name, values in columns.items()
    }
