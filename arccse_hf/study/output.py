"""A study's results as tables for the terminal and for Markdown, and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence

from ..evaluation import TaskSuite
from ..evaluation.tables import ResultTable, format_value, label, to_markdown, without_nan
from .execute import chosen_fields, read_outcome
from .plan import StudyConfig, format_choice
from .summary import AVERAGE, Row, Statistic, headline_metrics

RESULTS_JSON, RESULTS_MARKDOWN = "results.json", "results.md"


def grids(
    plan: StudyConfig, suite: TaskSuite, rows: Sequence[Row], published: Mapping[str, float] | None
) -> list[ResultTable]:
    """The scores, and with tuning what each variant's trials gave."""
    found = [_scores(plan, suite, rows, published)]
    if plan.trials:
        found.append(_trials(plan))
    return found


def _scores(
    plan: StudyConfig, suite: TaskSuite, rows: Sequence[Row], published: Mapping[str, float] | None
) -> ResultTable:
    metrics = headline_metrics(suite)
    columns = [*metrics, AVERAGE]
    compared = len(plan.variants) > 1
    header = ["variant", "seeds", *(label(task) for task in metrics), "avg"]
    grid = ResultTable(
        _title(plan, metrics), header + ([f"avg - {plan.baseline} [95 %]"] if compared else []), [], set()
    )
    if published:
        grid.rows.append(["published", "-", *(f"{published[name]:.2f}" for name in columns), *["-"] * compared])
    for row in rows:
        cells = [_spread(row.scores[name], metrics.get(name, "")) for name in columns]
        grid.rows.append([row.variant, str(len(row.seeds)), *cells, *[_difference(row)] * compared])
        if row.interval and not row.interval[0] <= 0 <= row.interval[1]:
            grid.bold.add((len(grid.rows) - 1, len(header)))
    return grid


def _title(plan: StudyConfig, metrics: Mapping[str, str]) -> str:
    spread = ", mean ± standard deviation over seeds" if len(plan.seeds) > 1 else ""
    return f"{', '.join(dict.fromkeys(metrics.values()))} x 100{spread}"


def _spread(statistic: Statistic, metric: str) -> str:
    mean = format_value(statistic.mean, metric)
    return mean if math.isnan(statistic.deviation) else f"{mean} ± {format_value(statistic.deviation, metric)}"


def _difference(row: Row) -> str:
    if row.difference is None:
        return "-"
    value = format_value(row.difference, "", signed=True)
    if row.interval is None:
        return value
    low, high = (format_value(end, "", signed=True) for end in row.interval)
    return f"{value} [{low}, {high}]"


def _trials(plan: StudyConfig) -> ResultTable:
    """One row a choice of values, one column a variant; the chosen ones bold."""
    runs = [run for run in plan.runs() if run.kind == "trial"]
    outcomes = {run.name: read_outcome(plan, run) for run in runs}
    metric = next((outcome.metric for outcome in outcomes.values() if outcome is not None), "")
    grid = ResultTable(
        f"Tuning, seed {plan.trial_seed}: {metric.removeprefix('eval_')} x 100 of each trial, the chosen one bold",
        [", ".join(plan.trials[0]), *plan.variants], [], set(),
    )  # fmt: skip
    for choice in plan.trials:
        found = [outcomes[run.name] for run in runs if run.choice == choice]
        cells = ["-" if outcome is None else format_value(outcome.value, "") for outcome in found]
        grid.rows.append([format_choice(choice), *cells])
    for column, variant in enumerate(plan.variants, start=1):
        if (chosen := chosen_fields(plan, variant)) is not None:
            grid.bold.add((plan.trials.index(chosen), column))
    return grid


def write_results(
    plan: StudyConfig, suite: TaskSuite, rows: Sequence[Row], tables: Sequence[ResultTable], failures: Mapping[str, str]
) -> None:
    """Writes `results.json` (everything, every seed's value) and `results.md` (the tables) into the study's folder."""
    content = {
        "baseline": plan.baseline,
        "seeds": plan.seeds,
        "metrics": headline_metrics(suite),
        "settings": plan.settings,
        "variants": [dataclasses.asdict(row) for row in rows],
        "trials": {
            run.name: outcome.value
            for run in plan.runs()
            if run.kind == "trial" and (outcome := read_outcome(plan, run)) is not None
        },
        "failed": dict(failures),
    }
    text = json.dumps(without_nan(content), indent=2, ensure_ascii=False, allow_nan=False)
    (plan.output_dir / RESULTS_JSON).write_text(text + "\n", encoding="utf-8")
    (plan.output_dir / RESULTS_MARKDOWN).write_text(to_markdown(tables), encoding="utf-8")
