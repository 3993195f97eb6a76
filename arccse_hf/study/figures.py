"""A study's pictures: the selection metric over steps, the alignment-uniformity plane, the score of each variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from ..report.figures import Figure, Style, plane, render
from ..report.runs import Run, Series, evaluation_series, geometry_path, main_metric, read_runs
from .plan import UNTRAINED, StudyConfig, format_choice
from .summary import AVERAGE, Row, Statistic

Band = tuple[list[float], np.ndarray]
"""Steps, and values `[seeds, steps]`."""


def draw(study: StudyConfig, rows: Sequence[Row]) -> list[Figure]:
    """Draws every picture that the finished runs have the numbers for, one colour per variant.

    Where some variants have more seeds than others, the pictures have the seeds that all of them have, and say so: else
    means would differ by the seeds. Where no seed is common, there are no pictures.
    """
    trained = [row for row in rows if row.variant != UNTRAINED]
    seeds = sorted(set.intersection(*(set(row.seeds) for row in trained))) if trained else []
    if not seeds:
        return []
    some = any(row.seeds != seeds for row in trained)
    which = f" (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))} alone)" if some else ""
    styled = [(row.variant, Style.of(index), _runs_of(study, row, seeds)) for index, row in enumerate(trained)]
    figures = []
    metrics = dict.fromkeys(metric for _, _, runs in styled for run in runs if (metric := main_metric(run)))
    for metric in metrics:
        bands = [(name, style, _band([evaluation_series(run, metric) for run in runs])) for name, style, runs in styled]
        bands = [(name, style, band) for name, style, band in bands if len(band[0]) > 1]
        if bands:
            text = f"{metric} over the steps, mean and standard deviation over the seeds of each variant{which}"
            figures.append(render(f"steps-{metric}", text, _bands(metric + which, bands)))
    paths = [(name, style, _mean_path([geometry_path(run) for run in runs])) for name, style, runs in styled]
    paths = [(name, style, path) for name, style, path in paths if len(path[0]) > 1]
    if paths:
        text = f"Alignment against uniformity: the path of each variant, mean over its seeds{which}"
        figures.append(render("geometry", text, plane(paths, f"Alignment and uniformity{which}")))
    if len(trained) > 1:
        text = f"Average test score of each variant, every seed a point{which}"
        averages = {
            row.variant: Statistic.of({seed: row.scores[AVERAGE].values[seed] for seed in seeds}) for row in trained
        }
        figures.append(render("scores", text, _scores(study, averages, f"Average test score{which}")))
    return figures


def _runs_of(study: StudyConfig, row: Row, seeds: Sequence[int]) -> list[Run]:
    names = {run.seed: run.name for run in study.runs() if run.kind == "run" and run.variant == row.variant}
    return read_runs([study.output_dir / names[seed] for seed in seeds])


def _band(series: Sequence[Series]) -> Band:
    """The steps that all seeds have, and each seed's values there."""
    by_seed = [dict(zip(steps, values, strict=True)) for steps, values in series]
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


def _scores(study: StudyConfig, averages: Mapping[str, Statistic], title: str) -> Callable[[Axes], None]:
    """Returns what draws points over the variants; of a grid, its first field along the axis, one line per other."""
    names = [name for name in study.variants if name in averages]
    lines, ticks = _lines(study, names), _ticks(study, names)
    positions = list(dict.fromkeys(ticks.values()))

    def draw(axes: Axes) -> None:
        for index, (line, members) in enumerate(lines.items()):
            x = [positions.index(ticks[name]) for name in members]
            scores = [averages[name] for name in members]
            _score_line(axes, line, Style.of(index), x, scores, connected=bool(study.axes))
        axes.set_xticks(range(len(positions)), positions, rotation=20 if max(map(len, positions)) > 8 else 0)
        axes.set(title=title, ylabel="x 100", xlabel=next(iter(study.axes), ""))
        axes.margins(x=0.12)

    return draw


def _lines(study: StudyConfig, names: Sequence[str]) -> dict[str, list[str]]:
    """Returns the variants of each line by its label: those that differ in the grid's first field alone."""
    lines: dict[str, list[str]] = {}
    for name in names:
        rest = {field: study.variants[name][field] for field in list(study.axes)[1:]}
        lines.setdefault(format_choice(rest), []).append(name)
    return lines


def _ticks(study: StudyConfig, names: Sequence[str]) -> dict[str, str]:
    """Returns the tick of each variant: the value of the grid's first field, or else its name."""
    field = next(iter(study.axes), None)
    return {name: name if field is None else str(study.variants[name][field]) for name in names}


def _score_line(
    axes: Axes, label: str, style: Style, x: Sequence[int], scores: Sequence[Statistic], *, connected: bool
) -> None:
    """Draws means and deviations x 100, and every seed a point."""
    means = [100 * score.mean for score in scores]
    errors = [0 if np.isnan(score.deviation) else 100 * score.deviation for score in scores]
    axes.errorbar(
        x, means, errors, color=style.colour, marker=style.marker, capsize=4, label=label or None,
        linestyle=style.line if connected else "none",
    )  # fmt: skip
    for position, score in zip(x, scores, strict=True):
        values = [100 * value for value in score.values.values()]
        axes.scatter([position] * len(values), values, s=9, color=style.colour, alpha=0.5)
