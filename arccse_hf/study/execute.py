"""One run of a study: train, score on the test tasks, and leave a mark that it is done."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import yaml

from ..errors import UserError
from ..evaluation import TaskSuite, greater_is_better
from ..evaluation.bootstrap import PerItemScores
from ..evaluation.compare import score_suite
from ..inference.evaluate import embed_suite
from ..inference.open import Encoder, load_encoder
from ..options import Settings
from ..run_folder import RECORDS, RESULTS, SETTINGS, is_done, read_json, write_json
from ..training.config import parse_arguments
from .plan import PlannedRun, StudyConfig, format_choice

CONFIG = "config.yaml"
SCORES = "study_scores.json"
SAMPLES = "study_samples.npz"
_KEPT = {CONFIG, SCORES, SAMPLES, *RECORDS}


@dataclass
class Outcome:
    """What a finished run left.

    Args:
        fields: every field that it was run with.
        metric: what chose its checkpoint, and what trials are compared by; None for the untrained encoder.
        value: that metric's, of the kept weights, on data that is no test data.
        scores: `{test task: {metric: value}}`; empty for trials.
        seconds: of training, evaluation in between included.
    """

    fields: Settings
    metric: str | None = None
    value: float | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0


def read_outcome(plan: StudyConfig, run: PlannedRun) -> Outcome | None:
    """What `run` left; None if it is not done.

    Raises:
        UserError: it was done with other fields than the plan has now.
    """
    folder = plan.output_dir / run.name
    if not (folder / SCORES).is_file():
        return None
    outcome = Outcome(**read_json(folder / SCORES))
    chosen = chosen_fields(plan, run.variant) if run.kind == "run" else {}
    wanted = plan.config(run, chosen)
    # What trials will choose that are not there (any more) can't be compared yet.
    compared = {*outcome.fields, *wanted} - {"output_dir", *(plan.trials[0] if chosen is None else ())}
    names = sorted(name for name in compared if outcome.fields.get(name) != wanted.get(name))
    if names:
        changes = ", ".join(f"{name} {outcome.fields.get(name)} -> {wanted.get(name)}" for name in names)
        raise UserError(
            f"{folder}: was done with other fields than the study has now ({changes}); choose another output, or "
            "delete that folder to have it done again"
        )
    return outcome


def read_samples(plan: StudyConfig, run: PlannedRun) -> dict[str, PerItemScores]:
    """By test task, what the headline of `run`, which is done, is computed from; some tasks have none."""
    path = plan.output_dir / run.name / SAMPLES
    if not path.is_file():
        return {}
    with np.load(path) as arrays:
        tasks = dict.fromkeys(name.rsplit("/", 1)[0] for name in arrays)
        return {
            task: PerItemScores(
                str(arrays[f"{task}/metric"]), arrays[f"{task}/values"], arrays.get(f"{task}/references")
            )
            for task in tasks
        }


def chosen_fields(plan: StudyConfig, variant: str) -> Settings | None:
    """The values of the variant's best trial: empty where the study does not tune, None while trials are missing."""
    if not plan.trials:
        return {}
    trials = [run for run in plan.runs() if run.kind == "trial" and run.variant == variant]
    outcomes = [read_outcome(plan, trial) for trial in trials]
    if None in outcomes:
        return None
    sign = 1 if greater_is_better(outcomes[0].metric) else -1
    # A trial whose embeddings all fell together has no correlation.
    values = [-math.inf if math.isnan(outcome.value) else sign * outcome.value for outcome in outcomes]
    return trials[values.index(max(values))].choice


def execute(plan: StudyConfig, run: PlannedRun, suite: TaskSuite) -> Outcome:
    """Trains and scores `run`, taking up its last checkpoint if it was stopped halfway.

    Args:
        plan: the study.
        run: one of `plan.runs()`.
        suite: the test tasks.

    Raises:
        UserError: the script refused its input, its launcher failed, or the trials that choose its values are missing.
    """
    folder = plan.output_dir / run.name
    chosen = chosen_fields(plan, run.variant) if run.kind == "run" else {}
    if chosen is None:
        trials = [other for other in plan.runs() if other.kind == "trial" and other.variant == run.variant]
        missing = sum(read_outcome(plan, trial) is None for trial in trials)
        raise UserError(
            f"{run.variant}: {missing} of its {len(trials)} trials are not done, which choose "
            f"{', '.join(plan.trials[0])}; do them first"
        )
    fields = plan.config(run, chosen)
    outcome = Outcome(fields)
    samples: dict[str, PerItemScores] = {}
    config = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    if (folder / CONFIG).is_file() and (folder / CONFIG).read_text(encoding="utf-8") != config:
        print(f"{folder}: was stopped halfway with other fields; it starts anew", flush=True)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if run.kind != "untrained":
        (folder / CONFIG).write_text(config, encoding="utf-8")
        start = time.perf_counter()
        if not is_done(folder):
            _train(plan, folder)
        outcome.seconds = time.perf_counter() - start
        settings = read_json(folder / SETTINGS)
        outcome.metric = settings["training"]["metric_for_best_model"]
        if outcome.metric is None:
            raise UserError(f"{run.name}: nothing is measured while it trains; give eval_tasks and eval_data")
        results = read_json(folder / RESULTS)
        outcome.value = results[f"eval_{outcome.metric.removeprefix('eval_')}"]
    if run.kind == "untrained":
        model = parse_arguments(fields)[0]
        outcome.scores, samples = _score(load_encoder(model.model_name_or_path, pooling=model.pooling), suite)
    elif run.kind == "run":
        outcome.scores, samples = _score(load_encoder(str(folder)), suite)
    _write(folder, outcome, samples)
    if run.kind != "untrained" and not plan.keep_models:
        for path in folder.iterdir():
            if path.name not in _KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        print("scored; its weights are not kept (keep_models: true keeps them)", flush=True)
    return outcome


def _train(plan: StudyConfig, folder: Path) -> None:
    arguments = [str(folder / CONFIG)]
    if any(folder.glob("checkpoint-*")):
        arguments += ["--resume_from_checkpoint", "True"]
    if not plan.launcher:
        from ..training.script import main

        main(arguments)
        return
    command = [*plan.launcher, "-m", "arccse_hf", "train", *arguments]
    # The launcher may be `accelerate` of the environment that this Python belongs to.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    status = subprocess.run(command, env=os.environ | {"PATH": path}).returncode
    if status:
        raise UserError(f"{' '.join(command)}: ended with status {status}; its messages are above")


def _score(encoder: Encoder, suite: TaskSuite) -> tuple[dict[str, dict[str, float]], dict[str, PerItemScores]]:
    result = score_suite(*embed_suite(encoder, suite), suite)
    if result.errors:
        raise UserError("; ".join(f"{task}: {message}" for task, message in result.errors.items()))
    return result.scores, result.samples


def _write(folder: Path, outcome: Outcome, samples: Mapping[str, PerItemScores]) -> None:
    """The scores last, and in one move: they are the mark that the run is done."""
    arrays: dict[str, np.ndarray] = {}
    for task, sample in samples.items():
        arrays |= {f"{task}/metric": np.array(sample.metric), f"{task}/values": sample.values}
        if sample.references is not None:
            arrays[f"{task}/references"] = sample.references
    if arrays:
        np.savez_compressed(folder / SAMPLES, **arrays)
    write_json(folder / SCORES, asdict(outcome))


def describe(run: PlannedRun) -> str:
    """`ArcCSE, seed 2`, `trial of ArcCSE: temperature=0.1`"""
    if run.kind == "trial":
        return f"trial of {run.variant}: {format_choice(run.choice)}"
    return f"{run.variant}, seed {run.seed}" if run.kind == "run" else "the untrained encoder"
