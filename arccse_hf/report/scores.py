"""What the runs scored: the metric that they are judged by, their values, and the result in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.bootstrap import PerItemScores, bootstrap_differences, interval
from ..evaluation.metrics import correlations
from ..evaluation.suite import LOWER_IS_BETTER, greater_is_better
from ..evaluation.tables import format_value, label
from ..run_folder import MEASURED_ON, metrics_of
from .records import is_number
from .runs import Run, evaluation_series, main_metric

VERDICT = "verdict_mrr_at_10"
_METRICS = (
    "spearman", "pearson", "accuracy", "f1", "mrr_at_10", "recall_at_1", "recall_at_10", "ndcg_at_10",
    *LOWER_IS_BETTER,
)  # fmt: skip
_NAMED = 3
_ROUNDING = 1e-3


@dataclass
class Score:
    """A run's value of a metric before and after training; None where it was not measured."""

    run: Run
    before: float | None
    after: float | None


def score_table(runs: Sequence[Run]) -> dict[str, list[Score]]:
    """Returns every run's values by metric, with the one that the runs are judged by first.

    A run that has not ended has its newest evaluation.
    """
    before = [_without_infinities(metrics_of(run.results, "before_")) or _at(run, first=True) for run in runs]
    after = [_without_infinities(metrics_of(run.results)) or _at(run, first=False) for run in runs]
    names = list(dict.fromkeys(name for metrics in (*after, *before) for name in metrics))
    first = primary_metric(runs, names)
    names.sort(key=lambda name: name != first)
    return {
        name: [Score(run, b.get(name), a.get(name)) for run, b, a in zip(runs, before, after, strict=True)]
        for name in names
    }


def primary_metric(runs: Sequence[Run], measured: Sequence[str]) -> str | None:
    """Returns what the runs are judged by: the verdict's metric where all have one, else what they chose by."""
    if VERDICT in measured and all(f"eval_{VERDICT}" in run.results for run in runs):
        return VERDICT
    chosen = (main_metric(run) for run in runs)
    return next((name for name in chosen if name in measured), next(iter(measured), None))


def metric_parts(name: str) -> tuple[str, str]:
    """Returns the task and the metric of a name.

    Example:
        >>> metric_parts("stsb_dev_spearman")
        ('stsb_dev', 'spearman')
    """
    metric = next((metric for metric in _METRICS if name.endswith(f"_{metric}")), "")
    return (name.removesuffix(f"_{metric}"), metric) if metric else (name, "")


def metric_label(name: str) -> str:
    """Returns what the page calls a metric."""
    task, metric = metric_parts(name)
    return f"{label(task)} {label(metric)}" if metric else label(name)


def in_words(value: float | None, name: str, signed: bool = False) -> str:
    """Returns a value of a metric as the page has it: x 100, but the geometry's as it is."""
    return format_value(value, metric_parts(name)[1], signed)


def printed_scale(name: str) -> int:
    """Returns what the page multiplies a metric by: 100, but 1 for the geometry's."""
    return 1 if metric_parts(name)[1] in LOWER_IS_BETTER else 100


def best_of(name: str, scores: Sequence[Score]) -> list[Score]:
    """Returns those that were measured after training, the best first."""
    measured = [score for score in scores if score.after is not None and not math.isnan(score.after)]
    return sorted(measured, key=lambda score: score.after or 0.0, reverse=greater_is_better(name))


def headline(table: dict[str, list[Score]]) -> tuple[str, str]:
    """Returns the result in one sentence, and what to know for reading it.

    Args:
        table: Of `score_table`.

    Example:
        >>> headline(score_table(read_runs(["runs/simcse", "runs/arccse"])))[0]
        'arccse 84.26, simcse 84.07 on STS-B dev: +0.19, 95 % [+0.03, +0.33]'
    """
    name, scores = next(iter(table.items()), ("", []))
    ranked = best_of(name, scores)
    if not ranked:
        return "No score was measured", "--eval_tasks, --eval_pairs or --eval_data give a run something to measure."
    task, metric = metric_parts(name)
    where = "held-out queries" if name == VERDICT else label(task)
    where += "" if metric in ("", "spearman") else f" ({label(metric)})"
    best = ranked[0]
    if len(scores) == 1:
        if best.before is None:
            return f"{best.run.name} {in_words(best.after, name)} on {where}", _scale(name)
        sentence = f"{best.run.name} {in_words(best.before, name)} → {in_words(best.after, name)} on {where}: "
        ends = _verdict_interval(best) if name == VERDICT else _interval(name, best.run, "after", best.run, "before")
        sentence += in_words(_difference(best.after, best.before), name, signed=True)
        return sentence + _in_brackets(ends, name), _scale(name) + _how(ends, name, "before and after training")
    named = ", ".join(f"{score.run.name} {in_words(score.after, name)}" for score in ranked[:_NAMED])
    more = f" and {len(ranked) - _NAMED} more" if len(ranked) > _NAMED else ""
    sentence = f"{named}{more} on {where}"
    if len(ranked) == 1:
        return sentence, _scale(name)
    if not same_test(name, scores):
        own = "; ".join(f"{s.run.name} {_path(s, name)}" for s in scores)
        what = "judged on queries" if name == VERDICT else "measured on data"
        changes = (
            ": compare the changes" if all(s.before is not None for s in scores) else ", so they cannot be compared"
        )
        return f"{own} on {where}", f"{_scale(name)} Each run was {what} of its own{changes}."
    ends = None if name == VERDICT else _interval(name, best.run, "after", ranked[1].run, "after")
    sentence += f": {in_words(_difference(best.after, ranked[1].after), name, signed=True)}{_in_brackets(ends, name)}"
    seeds = "It holds for these runs: other seeds may differ by more."
    return sentence, f"{_scale(name)}{_how(ends, name, f'{best.run.name} and {ranked[1].run.name}')} {seeds}"


def _path(score: Score, name: str) -> str:
    before = "" if score.before is None else f"{in_words(score.before, name)} → "
    return before + in_words(score.after, name)


def same_test(name: str, scores: Sequence[Score]) -> bool:
    """Returns whether all runs measured a metric on the same data, so that their levels can be compared.

    Runs of earlier versions do not say on what they measured; then the task's name decides.
    """
    results = [score.run.results for score in scores]
    if name.startswith("verdict_"):
        tests = {result.get("verdict", {}).get("test") for result in results}
        return len(scores) == 1 or (len(tests) == 1 and None not in tests)
    return len({_data_of(name, result.get(MEASURED_ON, {})) for result in results} - {None}) <= 1


def _data_of(name: str, measured_on: dict[str, str]) -> str | None:
    tasks = [task for task in measured_on if name.startswith(f"{task}_")]
    return measured_on[max(tasks, key=len)] if tasks else None


def _without_infinities(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if is_number(value) or value != value}


def _at(run: Run, first: bool) -> dict[str, float]:
    """The evaluation before training or the last one in the log, for a run that has left no results."""
    names = dict.fromkeys(name for line in run.history for name in metrics_of(line))
    series = {name: evaluation_series(run, name) for name in names}
    if first:
        return {name: values[0] for name, (steps, values) in series.items() if values and steps[0] == 0}
    return {name: values[-1] for name, (_, values) in series.items() if values}


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _scale(name: str) -> str:
    metric = metric_parts(name)[1]
    direction = "higher" if greater_is_better(name) else "lower"
    shown = {"spearman": "Spearman's correlation"}.get(metric) or label(metric) or "The score"
    return f"{shown}{' x 100' if printed_scale(name) == 100 else ''}; {direction} is better."


def _how(ends: tuple[float, float] | None, name: str, between: str) -> str:
    if ends is None:
        return f" Difference of {between}; there are no scores per item for an interval."
    over = "queries" if name == VERDICT else "sentence pairs"
    return f" Difference of {between}, with the 95 % interval of a paired bootstrap over the {over}."


def _in_brackets(ends: tuple[float, float] | None, name: str) -> str:
    return f", 95 % [{', '.join(in_words(end, name, signed=True) for end in ends)}]" if ends else ""


def _verdict_interval(score: Score) -> tuple[float, float] | None:
    verdict = score.run.results.get("verdict", {})
    ends = verdict.get("low"), verdict.get("high")
    return None if verdict.get("keeps_start", True) or not all(map(is_number, ends)) else ends


def _interval(name: str, one: Run, when: str, other: Run, other_when: str) -> tuple[float, float] | None:
    """Returns the interval of the difference of two encoders on the same scored pairs, where all pairs were kept."""
    sample, baseline = _pairs(name, one, when), _pairs(name, other, other_when)
    if sample is None or baseline is None or not np.array_equal(_gold(sample), _gold(baseline)):
        return None
    ends = interval(bootstrap_differences(sample, baseline))
    return ends if all(map(math.isfinite, ends)) else None


def _gold(sample: PerItemScores) -> np.ndarray:
    assert sample.references is not None
    return sample.references


def _pairs(name: str, run: Run, when: str) -> PerItemScores | None:
    """Returns the cosine of each pair of a task, if they are all there and give the score that the run reports."""
    sts = run.cosine_samples.get(when, {}).get("sts", {})
    task, metric = metric_parts(name)
    cosines = [value if is_number(value) else math.nan for value in sts.get("cosines", [])]
    if metric != "spearman" or sts.get("task") != task or sts.get("num_pairs") != len(cosines) or len(cosines) < 2:
        return None
    scores = [value if is_number(value) else math.nan for value in sts["scores"]]
    reported = run.results.get(f"{'before' if when == 'before' else 'eval'}_{name}")
    found = correlations(np.array(cosines), np.array(scores))["spearman"]
    # Where something else was exported, its cosines were not kept.
    if (when == "after" and run.exported) or not is_number(reported) or not abs(found - reported) < _ROUNDING:
        return None
    return PerItemScores("spearman", np.array(cosines), np.array(scores))
