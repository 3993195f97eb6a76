"""A study's results as tables for the terminal and for Markdown, and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence

from ..evaluation.suite import TaskSuite
from ..evaluation.tables import ResultTable, format_value, label, to_markdown, without_nan
from ..paths import replacing
from .execute import chosen_fields, read_result
from .plan import StudyConfig, format_choice
from .summary import AVERAGE, Row, Statistic, main_metrics

RESULTS_JSON, RESULTS_MARKDOWN = "results.json", "results.md"


def result_tables(
    study: StudyConfig, suite: TaskSuite, rows: Sequence[Row], published: Mapping[str, float] | None
) -> list[ResultTable]:
    """Returns the table of the scores, and with tuning that of each variant's trials.

    Args:
        study: The study.
        suite: Its test tasks.
        rows: `summarise`'s.
        published: Published scores x 100 by test task and their average, for a row of their own.
    """
    scores = _scores(study, suite, rows, published)
    return [scores, _trials(study)] if study.trials else [scores]


def _scores(
    study: StudyConfig, suite: TaskSuite, rows: Sequence[Row], published: Mapping[str, float] | None
) -> ResultTable:
    metrics = main_metrics(suite)
    columns = [*metrics, AVERAGE]
    compared = len(study.variants) > 1
    header = ["variant", "seeds", *(label(task) for task in metrics), "avg"]
    table = ResultTable(
        _title(study, metrics), header + ([f"avg - {study.baseline} [95 %]"] if compared else []), [], set()
    )
    if published:
        table.rows.append(["published", "-", *(f"{published[name]:.2f}" for name in columns), *["-"] * compared])
    for row in rows:
        cells = [_spread(row.scores[name], metrics.get(name, "")) for name in columns]
        kept = f" (start encoder kept: seed {', '.join(map(str, row.kept_start))})" if row.kept_start else ""
        table.rows.append([row.variant + kept, str(len(row.seeds)), *cells, *[_difference(row)] * compared])
        if row.interval and (row.interval[0] > 0 or row.interval[1] < 0):
            table.bold.add((len(table.rows) - 1, len(header)))
    return table


def _title(study: StudyConfig, metrics: Mapping[str, str]) -> str:
    spread = ", mean ± standard deviation over seeds" if len(study.seeds) > 1 else ""
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


def _trials(study: StudyConfig) -> ResultTable:
    """Returns the selection metric, one row per choice of values and one column per variant; the chosen ones bold."""
    runs = [run for run in study.runs() if run.kind == "trial"]
    results = {run.name: read_result(study, run) for run in runs}
    metric = next((result.metric for result in results.values() if result and result.metric), "")
    table = ResultTable(
        f"Tuning, seed {study.trial_seed}: {metric} x 100 of each trial, the chosen one bold",
        [", ".join(study.trials[0]), *study.variants], [], set(),
    )  # fmt: skip
    for choice in study.trials:
        by_variant = [results[run.name] for run in runs if run.choice == choice]
        cells = ["-" if result is None else format_value(result.value, "") for result in by_variant]
        table.rows.append([format_choice(choice), *cells])
    for column, variant in enumerate(study.variants, start=1):
        if (chosen := chosen_fields(study, variant)) is not None:
            table.bold.add((study.trials.index(chosen), column))
    return table


def write_results(
    study: StudyConfig,
    suite: TaskSuite,
    rows: Sequence[Row],
    tables: Sequence[ResultTable],
    failures: Mapping[str, str],
) -> None:
    """Writes `results.json` (everything, every seed's value) and `results.md` (the tables) into the study's folder."""
    content = {
        "baseline": study.baseline,
        "seeds": study.seeds,
        "metrics": main_metrics(suite),
        "settings": study.settings,
        "variants": [dataclasses.asdict(row) for row in rows],
        "trials": {
            run.name: result.value
            for run in study.runs()
            if run.kind == "trial" and (result := read_result(study, run)) is not None
        },
        "failed": dict(failures),
    }
    text = json.dumps(without_nan(content), indent=2, ensure_ascii=False, allow_nan=False)
    for name, written in ((RESULTS_JSON, text + "\n"), (RESULTS_MARKDOWN, to_markdown(tables))):
        with replacing(study.output_dir / name) as unfinished:
            unfinished.write_text(written, encoding="utf-8")
