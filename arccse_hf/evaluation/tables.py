"""The results as tables for a terminal and for Markdown, and as JSON and CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import UserError, one_line
from ..paths import replacing, short_names
from .compare import Difference, ModelResult
from .suite import AVERAGES, LOWER_IS_BETTER, TRANSFER_AVERAGE, TaskSuite, greater_is_better, split_dim

GROUP_TITLES = {
    "sts": 'STS: Spearman x 100, "all" setting',
    "transfer": "Transfer: accuracy x 100 of a logistic regression",
    "geometry": "Geometry: lower is better",
    "retrieval": "Retrieval: x 100",
}
LABELS = {
    "stsb_dev": "STS-B dev",
    "stsb_test": "STS-B",
    "sickr": "SICK-R",
    "mrr_at_10": "MRR@10",
    "recall_at_1": "recall@1",
    "recall_at_10": "recall@10",
    "ndcg_at_10": "nDCG@10",
    "mean_cosine": "mean cosine",
    "f1": "F1",
    "sts_avg": "STS avg",
    "transfer_avg": "transfer avg",
}


@dataclass
class ResultTable:
    """A table of text: `bold` holds the (row, column) positions of the best values."""

    title: str
    header: list[str]
    rows: list[list[str]]
    bold: set[tuple[int, int]]


def label(name: str) -> str:
    """Returns what a table calls a task or a metric."""
    known_upper = name.startswith("sts1") or name in TRANSFER_AVERAGE
    return LABELS.get(name, name.upper() if known_upper else name.replace("_", " "))


def format_value(value: float | None, metric: str, signed: bool = False) -> str:
    """Returns a raw value as printed: x 100 with two decimals, the geometry's with three, a dash for a missing one."""
    if value is None:
        return "-"
    if math.isnan(value):
        return "NaN"
    sign = "+" if signed else ""
    return f"{value:{sign}.3f}" if metric in LOWER_IS_BETTER else f"{100 * value:{sign}.2f}"


def score_tables(results: Sequence[ModelResult], suite: TaskSuite) -> list[ResultTable]:
    """Returns the table of the models, then one per group of tasks: one row per model, each column's best bold."""
    names = short_names([result.name for result in results], parts=2)
    tables = [_model_table(names, results)] if suite.sentences else []
    for group, columns in _columns(results, suite).items():
        values = [[column.value(result) for column in columns] for result in results]
        texts = [[format_value(v, c.metric) for v, c in zip(row, columns, strict=True)] for row in values]
        bold = _best(values, texts, columns) if len(results) > 1 else set()
        header = ["model", *(column.title for column in columns)]
        rows = [[name, *row] for name, row in zip(names, texts, strict=True)]
        tables.append(ResultTable(GROUP_TITLES.get(group, f"{group}: x 100"), header, rows, bold))
    return tables


@dataclass
class _Column:
    title: str
    task: str
    metric: str
    average: bool = False

    def value(self, result: ModelResult) -> float | None:
        if self.average:
            return result.averages.get(self.task)
        return result.scores.get(self.task, {}).get(self.metric)


def _columns(results: Sequence[ModelResult], suite: TaskSuite) -> dict[str, list[_Column]]:
    """The columns of each group's table; the papers' average stands behind the last of its sets."""
    columns: dict[str, list[_Column]] = {}
    for task in suite.tasks:
        for metric in task.main_metrics:
            title = label(task.name) if metric == task.main_metrics[0] else f"{label(task.name)} {label(metric)}"
            if task.group in ("geometry", "retrieval"):
                title = label(metric) if task.name == task.group else f"{task.name} {label(metric)}"
            columns.setdefault(task.group, []).append(_Column(title, task.name, metric))
    for group in columns.values():
        shown = [column.task for column in group]
        for key, tasks, metric in AVERAGES:
            if set(tasks) <= set(shown):
                last = max(index for index, task in enumerate(shown) if task in tasks)
                group.insert(last + 1, _Column("avg", key, metric, average=True))
    from_mteb = dict.fromkeys(task for result in results for task in result.scores if task.startswith("mteb:"))
    if from_mteb:
        columns["mteb"] = [_Column(task.removeprefix("mteb:"), task, "main_score") for task in from_mteb]
    return columns


def _model_table(names: Sequence[str], results: Sequence[ModelResult]) -> ResultTable:
    header = ["model", "pooling", "dimension", "max. tokens", "sentences", "truncated", "embedded in"]
    table = ResultTable("Models", header, [], set())
    for name, result in zip(names, results, strict=True):
        counts = [result.dimension, result.max_seq_length or "-", result.sentences, result.truncated]
        table.rows.append([name, result.pooling, *map(str, counts), f"{result.seconds:.1f} s"])
    return table


def _best(values: list[list[float | None]], texts: list[list[str]], columns: list[_Column]) -> set[tuple[int, int]]:
    positions = set()
    for column, shown in enumerate(columns):
        defined = {
            row: value
            for row, cells in enumerate(values)
            if (value := cells[column]) is not None and not math.isnan(value)
        }
        if defined:
            best = (max if greater_is_better(shown.metric) else min)(defined, key=defined.__getitem__)
            # What prints alike is alike best.
            positions |= {(row, column + 1) for row in defined if texts[row][column] == texts[best][column]}
    return positions


def difference_table(differences: Sequence[Difference], results: Sequence[ModelResult]) -> ResultTable:
    """Returns one row per metric and one column per model after the first; bold where the interval leaves 0 out."""
    names = dict(zip([r.name for r in results], short_names([r.name for r in results], parts=2), strict=True))
    others = list(dict.fromkeys(d.model for d in differences))
    rows = list(dict.fromkeys((d.task, d.metric) for d in differences))
    cells = {(d.model, d.task, d.metric): d for d in differences}
    title = f"Difference from {names[results[0].name]}: x 100, with the 95 % interval of a paired bootstrap"
    table = ResultTable(title, ["task", "metric", *(names[other] for other in others)], [], set())
    for number, (task, metric) in enumerate(rows):
        row = [label(task), label(metric)]
        for column, other in enumerate(others, start=2):
            found = cells.get((other, task, metric))
            if found is None:
                row.append("-")
                continue
            value, low, high = (format_value(v, metric, signed=True) for v in (found.value, found.low, found.high))
            row.append(f"{value} [{low}, {high}]")
            if found.low > 0 or found.high < 0:
                table.bold.add((number, column))
        table.rows.append(row)
    return table


def table_console() -> Console:
    """Returns the console that tables are printed on: as wide as the terminal, or wide enough for a log file."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def print_table(table: ResultTable, console: Console) -> None:
    """Prints `table` as an aligned table on a rich console."""
    console.print(f"\n{escape(table.title)}", style="bold")  # a table's own title would be wrapped to its width
    rich_table = Table()
    for number, name in enumerate(table.header):
        rich_table.add_column(
            escape(name), justify="left" if number == 0 else "right", overflow="fold", no_wrap=number > 0
        )
    for i, row in enumerate(table.rows):
        rich_table.add_row(
            *(f"[bold]{escape(t)}[/bold]" if (i, j) in table.bold else escape(t) for j, t in enumerate(row))
        )
    console.print(rich_table)


def to_markdown(tables: Sequence[ResultTable]) -> str:
    """Returns the tables as GitHub's Markdown."""
    parts = []
    for table in tables:
        lines = [f"### {table.title}", "", _markdown_row(table.header)]
        lines.append("|" + "|".join([" --- ", *[" ---: "] * (len(table.header) - 1)]) + "|")
        for i, row in enumerate(table.rows):
            lines.append(_markdown_row([f"**{t}**" if (i, j) in table.bold else t for j, t in enumerate(row)]))
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def write_report(
    folder: Path,
    results: Sequence[ModelResult],
    differences: Sequence[Difference],
    tables: Sequence[ResultTable],
    settings: dict[str, object],
) -> None:
    """Writes evaluation.json (everything, subsets too), evaluation.md (tables), evaluation.csv (one score per row).

    Raises:
        UserError: They cannot be written; what was there before stays.
    """
    models = []
    for result in results:
        entry = {f.name: getattr(result, f.name) for f in dataclasses.fields(result) if f.name != "samples"}
        models.append(entry | {"averages": result.averages})
    content = {"settings": settings, "models": models, "differences": [dataclasses.asdict(d) for d in differences]}
    text = json.dumps(without_nan(content), indent=2, ensure_ascii=False, allow_nan=False)
    rows = io.StringIO(newline="")
    writer = csv.writer(rows)
    writer.writerow(["model", "pooling", "task", "metric", "value"])
    for result in results:
        for task, scores in result.scores.items():
            writer.writerows([result.name, result.pooling, task, metric, v] for metric, v in scores.items())
    files = {"json": text + "\n", "md": to_markdown(tables), "csv": rows.getvalue()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, written in files.items():
            with replacing(folder / f"evaluation.{kind}") as unfinished:
                unfinished.write_text(written, encoding="utf-8", newline="")
    except OSError as error:
        raise UserError(f"--output_dir {folder}: cannot be written ({one_line(error)})") from error


def without_nan(value):
    """Returns `value` with null for every number that is not finite, of which JSON has none."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def dims_table(metrics: Mapping[str, float]) -> list[list[str]]:
    """Returns the metrics that were measured at several numbers of dimensions, as rows of cells, the heading first.

    Empty where there are none.

    Args:
        metrics: By the names that `TaskSuite.flatten` gives.
    """
    scores: dict[str, dict[int | None, float]] = {}
    for name, value in metrics.items():
        metric, dim = split_dim(name)
        scores.setdefault(metric, {})[dim] = value
    dims = sorted({dim for by_dim in scores.values() for dim in by_dim if dim is not None}, reverse=True)
    if not dims:
        return []
    rows = [
        [metric, *(f"{by_dim[dim]:.4f}" for dim in (None, *dims))]
        for metric, by_dim in scores.items()
        if len(by_dim) > 1
    ]
    return [["metric", "all", *map(str, dims)], *rows]
