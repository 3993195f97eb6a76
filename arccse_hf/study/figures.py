"""A study's pictures: the selection metric over steps, the alignment-uniformity plane, the score of each variant."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes

from ..report.figures import Figure, Style, plane, render
from ..report.runs import Run, Series, evaluation_series, geometry_path, headline, read_runs
from .plan import UNTRAINED, StudyConfig
from .summary import AVERAGE, Row

Band = tuple[list[float], np.ndarray]
"""Steps, and values `[seeds, steps]`."""


def draw(plan: StudyConfig, rows: Sequence[Row]) -> list[Figure]:
    """Every picture that the finished runs have the numbers for, one colour a variant."""
    trained = [row for row in rows if row.variant != UNTRAINED]
    styled = [(row.variant, Style.of(index), _runs_of(plan, row)) for index, row in enumerate(trained)]
    figures = []
    metrics = dict.fromkeys(metric for _, _, runs in styled for run in runs if (metric := headline(run)))
    for metric in metrics:
        bands = [(name, style, _band([evaluation_series(run, metric) for run in runs])) for name, style, runs in styled]
        bands = [(name, style, band) for name, style, band in bands if len(band[0]) > 1]
        if bands:
            text = f"{metric} over the steps, mean and standard deviation over the seeds of each variant"
            figures.append(render(f"steps-{metric}", text, _bands(metric, bands)))
    paths = [(name, style, _mean_path([geometry_path(run) for run in runs])) for name, style, runs in styled]
    paths = [(name, style, path) for name, style, path in paths if len(path[0]) > 1]
    if paths:
        text = "Alignment against uniformity: the path of each variant, mean over its seeds"
        figures.append(render("geometry", text, plane(paths)))
    if len(trained) > 1:
        figures.append(render("scores", "Average test score of each variant, every seed a point", _scores(plan, rows)))
    return figures


def _runs_of(plan: StudyConfig, row: Row) -> list[Run]:
    names = {run.seed: run.name for run in plan.runs() if run.kind == "run" and run.variant == row.variant}
    return read_runs([plan.output_dir / names[seed] for seed in row.seeds])


def _band(series: Sequence[Series]) -> Band:
    """The steps that all seeds have, and each seed's values there."""
    by_seed = [dict(zip(*one, strict=True)) for one in series]
    steps = sorted(set.intersection(*map(set, by_seed)))
    return steps, np.array([[values[step] for step in steps] for values in by_seed])


def _mean_path(paths: Sequence[Series]) -> Series:
    """The mean over seeds, as far as the shortest path goes."""
    points = np.array([[axis[: min(len(path[0]) for path in paths)] for axis in path] for path in paths])
    return tuple(points.mean(axis=0).tolist())


def _bands(title: str, bands: Sequence[tuple[str, Style, Band]]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for name, style, (steps, values) in bands:
            mean, deviation = values.mean(axis=0), values.std(axis=0, ddof=1) if len(values) > 1 else 0
            look = {"color": style.colour, "linestyle": style.line, "marker": style.marker, "markersize": 4.5}
            axes.plot(steps, mean, linewidth=1.8, label=name, **look)
            axes.fill_between(steps, mean - deviation, mean + deviation, color=style.colour, alpha=0.15, linewidth=0)
        axes.set(title=title, xlabel="step")

    return draw


def _scores(plan: StudyConfig, rows: Sequence[Row]) -> Callable[[Axes], None]:
    """Points over the variants; over a grid of two fields, the first along the axis, a line for each second value."""
    by_name = {row.variant: row for row in rows}
    names = [name for name in plan.variants if name in by_name]
    lines = {"": names}
    if len(plan.axes) > 1:
        _, *others = plan.axes
        lines = {}
        for name in names:
            rest = ", ".join(f"{other}={plan.variants[name][other]}" for other in others)
            lines.setdefault(rest, []).append(name)
    labels = {name: plan.variants[name][next(iter(plan.axes))] if plan.axes else name for name in names}
    ticks = list(dict.fromkeys(labels.values()))

    def draw(axes: Axes) -> None:
        for index, (rest, members) in enumerate(lines.items()):
            style = Style.of(index)
            places = [ticks.index(labels[name]) for name in members]
            scores = [by_name[name].scores[AVERAGE] for name in members]
            means = [100 * score.mean for score in scores]
            errors = [0 if np.isnan(score.deviation) else 100 * score.deviation for score in scores]
            axes.errorbar(
                places, means, errors, color=style.colour, marker=style.marker, capsize=4, label=rest or None,
                linestyle=style.line if plan.axes else "none",
            )  # fmt: skip
            for place, score in zip(places, scores, strict=True):
                values = [100 * value for value in score.values.values()]
                axes.scatter([place] * len(values), values, s=9, color=style.colour, alpha=0.5)
        axes.set_xticks(range(len(ticks)), ticks, rotation=20 if max(map(len, ticks)) > 8 else 0)
        axes.set(title="Average test score", ylabel="x 100", xlabel=next(iter(plan.axes), ""))
        axes.margins(x=0.12)

    return draw
