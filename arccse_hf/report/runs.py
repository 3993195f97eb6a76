"""A run's folder, read into the series that the report draws. Every number comes from a file of the run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..paths import short_names
from ..run_folder import (
    COSINES,
    RESULTS,
    SETTINGS,
    STATE,
    STATUS,
    checkpoints,
    exported_in_words,
    is_done,
    kept_step,
    metrics_of,
    record_path,
)
from .records import is_number, read_cosine_record, read_record

Series = tuple[list[float], list[float]]
"""The x and the y of the points of a curve."""


@dataclass
class Run:
    """What a run left behind; a file that is not there leaves its field empty and a line in `missing`.

    Args:
        name: The last parts of the folder's path, as many as tell it from the other runs.
        state: `trainer_state.json`: the log and where the run stands.
        results: `all_results.json`: the scores before and after.
        settings: `run_settings.json`: the arguments in groups, `model`, `data` and `training`.
        margin: ArcCon's margin in degrees.
        mark: `run_status.json`: versions, hardware, dates and command.
        cosine_samples: Cosines of a sample, `before` and `after` training; see `arccse_hf.training.cosine_samples`.
        has_ended: Whether the run has come to its end.
        missing: What was not found, in words.
    """

    name: str
    state: Mapping
    results: Mapping = field(default_factory=dict)
    settings: Mapping[str, Mapping] = field(default_factory=dict)
    margin: float | None = None
    mark: Mapping = field(default_factory=dict)
    cosine_samples: Mapping[str, Mapping] = field(default_factory=dict)
    has_ended: bool = True
    missing: list[str] = field(default_factory=list)

    @property
    def history(self) -> list[dict]:
        """The lines of the log, in order."""
        return self.state.get("log_history", [])

    @property
    def exported(self) -> str | None:
        """What a verdict had exported in place of the trained weights, in words."""
        return exported_in_words(self.results)

    @property
    def kept_step(self) -> int:
        """The step whose weights the finished run kept: the best one's where it was asked for, else the last."""
        by_default = self.state.get("best_model_checkpoint") is not None
        loads_best = self.settings.get("training", {}).get("load_best_model_at_end", by_default)
        return kept_step(self.state, loads_best)


def read_runs(folders: Sequence[str | os.PathLike]) -> list[Run]:
    """Reads each folder once, in order.

    Raises:
        UserError: A folder that is no run, or a file of it that is damaged.
    """
    paths = list(dict.fromkeys(Path(folder).resolve() for folder in folders))
    if not paths:
        raise UserError("report: no run was given; name the output folder of one")
    names = short_names([str(path) for path in paths], parts=1)
    return [_read_run(path, name) for path, name in zip(paths, names, strict=True)]


def _read_run(folder: Path, name: str) -> Run:
    places = [folder, *checkpoints(folder)]
    home = next((place for place in places if record_path(place, STATE).is_file()), None)
    if home is None:
        raise UserError(f"report {folder}: is no run: neither it nor a checkpoint-* in it holds a {STATE}")
    results, groups = read_record(folder, RESULTS), read_record(folder, SETTINGS)
    settings = {name: group for name, group in groups.items() if isinstance(group, dict)}
    configs = (read_record(place, "config.json") for place in places)
    config = next((config for config in configs if "angular_margin" in config), {})
    margin = settings.get("model", {}).get("angular_margin", config.get("angular_margin"))
    cosine_samples = {when: read_cosine_record(folder, when) for when in COSINES}

    missing = []
    has_ended = is_done(folder)
    if not has_ended:
        how_far = f"; {home.name} shows how far it came" if home != folder else ""
        missing.append(f"The run has not ended{how_far}")
    if not results:
        missing.append(f"{RESULTS}: no scores before and after")
    if not settings:
        missing.append(f"{SETTINGS}: no settings to show")
    missing += [f"{COSINES[when]}: no cosines {when} training" for when, sample in cosine_samples.items() if not sample]
    return Run(
        name=name,
        state=read_record(home, STATE),
        results=results,
        settings=settings,
        margin=margin,
        mark=read_record(folder, STATUS),
        cosine_samples=cosine_samples,
        has_ended=has_ended,
        missing=missing,
    )


def training_series(run: Run, key: str) -> Series:
    """Step and value of every finite `key` in the log."""
    lines = [line for line in run.history if is_number(line.get(key))]
    return [line["step"] for line in lines], [line[key] for line in lines]


def evaluations(run: Run) -> list[tuple[int, dict[str, float]]]:
    """Each step's first evaluation as `(step, {metric: value})`, metrics without `eval_`, in the order of steps.

    The evaluation behind the end of training is that of the weights that were kept, and counts for their step.
    """
    end = max((index for index, line in enumerate(run.history) if "train_runtime" in line), default=len(run.history))
    by_step: dict[int, dict[str, float]] = {}
    for index, line in enumerate(run.history):
        if metrics := metrics_of(line):
            by_step.setdefault(run.kept_step if index > end else line["step"], metrics)
    return sorted(by_step.items())


def evaluation_series(run: Run, metric: str) -> Series:
    """Step and value of every finite evaluation of `metric`."""
    points = [(step, values[metric]) for step, values in evaluations(run) if is_number(values.get(metric))]
    return [step for step, _ in points], [value for _, value in points]


def main_metric(run: Run) -> str | None:
    """What the run is judged by: the metric that chooses its checkpoint, else the first Spearman, else the first."""
    measured = list(dict.fromkeys(name for _, metrics in evaluations(run) for name in metrics))
    chosen = str(run.settings.get("training", {}).get("metric_for_best_model")).removeprefix("eval_")
    spearman = [name for name in measured if name.endswith("spearman")]
    return chosen if chosen in measured else next(iter(spearman + measured), None)


def geometry_path(run: Run) -> Series:
    """Uniformity (x) and alignment (y) of every evaluation that measured both, in the order of steps."""
    points = []
    for _, metrics in evaluations(run):
        tasks = [name.removesuffix("alignment") for name in metrics if name.endswith("alignment")]
        pairs = [(metrics.get(f"{task}uniformity"), metrics[f"{task}alignment"]) for task in tasks]
        points += [(x, y) for x, y in pairs if is_number(x) and is_number(y)][:1]
    return [uniformity for uniformity, _ in points], [alignment for _, alignment in points]


def sts_points(run: Run, when: str) -> Series:
    """Gold score (x) and predicted cosine (y) of the sampled pairs, where both are finite."""
    sts = run.cosine_samples.get(when, {}).get("sts", {})
    pairs = zip(sts.get("scores", []), sts.get("cosines", []), strict=True)
    points = [pair for pair in pairs if all(is_number(value) for value in pair)]
    return [score for score, _ in points], [cosine for _, cosine in points]


def cosines(run: Run, when: str, kind: str) -> list[float]:
    """The finite sampled cosines of a kind: `positives`, `negatives`, `closer` or `farther`."""
    return [value for value in run.cosine_samples.get(when, {}).get(kind, []) if is_number(value)]
