"""Which pictures the report holds, what stands beside each, and what is missing from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256

from . import figures
from .figures import Figure, Style
from .records import is_number
from .runs import Run, Series, cosines, evaluation_series, geometry_path, main_metric, sts_points, training_series
from .scores import metric_label, printed_scale

_LOSSES = {
    "arccon_loss": "ArcCon loss",
    "triplet_loss": "Triplet loss",
    "triplets_violated": "Share of violated triplets",
}
_POINTS = 256
_NAME = 80  # characters, which are up to 4 bytes: a file name has at most 255
_KINDS = ("positives", "negatives", "closer", "farther")


@dataclass
class Section:
    """A heading, what to know for reading it, pictures, and what is missing from it."""

    title: str
    text: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def sections_of(runs: Sequence[Run]) -> list[Section]:
    """Draws every picture that the runs have the numbers for, what matters most first."""
    styled = [(run, Style.of(index)) for index, run in enumerate(runs)]
    return [_curves(styled), _geometry(styled), _cosines(styled), _sts(styled), _boundaries(styled), _schedule(styled)]


def _curves(styled: Sequence[tuple[Run, Style]]) -> Section:
    section = Section("Over the steps", "The measured score, and what the log says of training.")
    metrics = list(dict.fromkeys(metric for run, _ in styled if (metric := main_metric(run))))
    for metric in metrics:
        _add_curve(section, styled, metric, metric_label(metric), partial(_printed_series, metric=metric))
    for key, title in _LOSSES.items():
        _add_curve(section, styled, key, title, partial(training_series, key=key))
    if not metrics:
        section.notes.append("No run measured a score while it trained.")
    return section


def _printed_series(run: Run, metric: str) -> Series:
    """A metric over the steps on the scale that the table prints."""
    steps, values = evaluation_series(run, metric)
    return steps, [printed_scale(metric) * value for value in values]


def _schedule(styled: Sequence[tuple[Run, Style]]) -> Section:
    section = Section("Learning rate", "As the schedule set it.")
    _add_curve(section, styled, "learning_rate", "Learning rate", partial(training_series, key="learning_rate"))
    return section


def _add_curve(
    section: Section, styled: Sequence[tuple[Run, Style]], key: str, title: str, series_of: Callable[[Run], Series]
) -> None:
    found = [(run.name, style, series) for run, style in styled if (series := series_of(run))[0]]
    absent = [run.name for run, _ in styled if run.name not in {name for name, _, _ in found}]
    if absent:
        section.notes.append(f"{title}: not in the log of {', '.join(absent)}.")
    if found:
        text = f"{title} over steps. " + " ".join(
            f"{name}: {values[0]:.4g} at step {steps[0]}, {values[-1]:.4g} at step {steps[-1]}."
            for name, _, (steps, values) in found
        )
        draw = figures.curves(title, found, percent=key == "triplets_violated")
        section.figures.append(figures.render(_file_name(key), text, draw))


def _geometry(styled: Sequence[tuple[Run, Style]]) -> Section:
    section = Section(
        "Alignment and uniformity",
        "One path per run, from the hollow point through every evaluation to the filled one; the arrow leads from the "
        "first to the last. Low alignment: similar sentences are close. Low uniformity: sentences fill the sphere "
        "evenly.",
    )
    paths = [(run.name, style, path) for run, style in styled if (path := geometry_path(run))[0]]
    absent = [run.name for run, _ in styled if run.name not in {name for name, _, _ in paths}]
    if absent:
        section.notes.append(f"Not measured in {', '.join(absent)}: geometry was not among the eval_tasks.")
    if paths:
        text = "Alignment against uniformity. " + " ".join(
            f"{name}: from uniformity {x[0]:.3f} and alignment {y[0]:.3f} to {x[-1]:.3f} and {y[-1]:.3f}."
            for name, _, (x, y) in paths
        )
        section.figures.append(figures.render("geometry", text, figures.plane(paths)))
    return section


def _boundaries(styled: Sequence[tuple[Run, Style]]) -> Section:
    section = Section(
        "Decision boundaries",
        "θi is the angle of a sentence to its positive, θj to a negative. NT-Xent tells them apart above the diagonal, "
        "ArcCon only above the line that its margin shifts; the margin between the two is shaded.",
    )
    margins = [(run.name, style, run.margin) for run, style in styled if run.margin is not None]
    absent = [run.name for run, _ in styled if run.margin is None]
    if absent:
        section.notes.append(f"Margin unknown of {', '.join(absent)}: neither its settings nor a checkpoint says it.")
    if margins:
        text = "NT-Xent's boundary is the diagonal; ArcCon's lies the margin above it. " + " ".join(
            f"{name}: {margin:g} degrees." for name, _, margin in margins
        )
        section.figures.append(figures.render("boundaries", text, figures.boundaries(margins)))
    return section


def _sts(styled: Sequence[tuple[Run, Style]]) -> Section:
    section = Section(
        "Predicted cosine against gold score",
        "Pairs of the first STS task before and after training; a good encoder's cosines rise with the score.",
    )
    for run, style in styled:
        points = {when: found for when in run.cosine_samples if (found := sts_points(run, when))[0]}
        if not points:
            section.notes.append(f"{run.name} has no cosines of scored pairs.")
            continue
        limits = figures.limits_of([cosine for _, values in points.values() for cosine in values])
        for when, found in points.items():
            step = -(-len(found[0]) // _POINTS)
            shown = found[0][::step], found[1][::step]
            sts = run.cosine_samples[when]["sts"]
            metric = f"{'before' if when == 'before' else 'eval'}_{sts['task']}_spearman"
            # The cosines are of the trained weights.
            value = None if when == "after" and run.exported else run.results.get(metric)
            score = f"; Spearman of all {value:.4f}" if is_number(value) else ""
            text = (
                f"{run.name} {when} training: {len(shown[0]):,} of {sts['num_pairs']:,} pairs of {sts['task']}{score}."
            )
            draw = figures.scatter(f"{run.name}, {when}", shown, style, limits)
            section.figures.append(figures.render(_file_name(f"sts-{run.name}-{when}"), text, draw))
    return section


def _cosines(styled: Sequence[tuple[Run, Style]]) -> Section:
    section = Section(
        "Cosines in training",
        "Of a sentence to itself under another dropout mask (or to its positive), to other sentences, and to its "
        "versions with the small and the large span masked.",
    )
    for run, style in styled:
        groups = {when: {kind: cosines(run, when, kind) for kind in _KINDS} for when in run.cosine_samples}
        groups = {when: found for when, found in groups.items() if any(found.values())}
        if not groups:
            section.notes.append(f"{run.name} has no cosines of training rows.")
            continue
        if not any(found["closer"] for found in groups.values()):
            section.notes.append(f"{run.name} has no masked versions: no sentence of its sample got a triplet.")
        limits = figures.limits_of(
            [value for found in groups.values() for values in found.values() for value in values]
        )
        for when, found in groups.items():
            means = ", ".join(f"{kind} {sum(v) / len(v):.3f}" for kind, v in found.items() if v)
            text = f"{run.name} {when} training, mean cosine: {means}."
            draw = figures.histograms(f"{run.name}, {when}", found, style, limits)
            section.figures.append(figures.render(_file_name(f"cosines-{run.name}-{when}"), text, draw))
    return section


def _file_name(name: str) -> str:
    """Returns a name that a file can have; where it is too long, a hash tells it from others that begin alike."""
    plain = re.sub(r"[^\w.-]+", "-", name)
    return plain if len(plain) <= _NAME else f"{plain[: _NAME - 9]}-{sha256(name.encode()).hexdigest()[:8]}"
