"""One run of a study: train, score on the test tasks, and leave a mark that it is done."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from ..command_line import Fields, as_command_line, parse_arguments
from ..errors import UserError
from ..evaluation import TaskSuite, greater_is_better
from ..evaluation.bootstrap import Sample
from ..evaluation.compare import embed_suite, score_suite
from ..evaluation.encode import Encoder, load_encoder
from ..report.runs import RESULTS, SETTINGS, SNAPSHOTS, STATE
from .plan import Plan, StudyRun, spelled

SCRIPT = Path(__file__).parents[2] / "run_arccse.py"
CONFIG = "config.yaml"
SCORES = "study_scores.json"
SAMPLES = "study_samples.npz"
_RECORD = {CONFIG, SCORES, SAMPLES, STATE, RESULTS, SETTINGS, *SNAPSHOTS.values()}


@dataclass
class Outcome:
    """What a finished run left.

    Args:
        fields: every field that it was run with.
        metric: what chose its checkpoint, and what trials are compared by; None for the untrained encoder.
        value: that metric's, of the kept weights, on data that is no test data.
        scores: `{test task: {metric: value}}`; empty for trials.
        seconds: of training, evaluation in between included.
        samples: by test task, what its headline is computed from.
    """

    fields: Fields
    metric: str | None = None
    value: float | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    samples: dict[str, Sample] = field(default_factory=dict, repr=False)


def read_outcome(plan: Plan, run: StudyRun) -> Outcome | None:
    """What `run` left; None if it is not done.

    Raises:
        UserError: it was done with other fields than the plan has now.
    """
    folder = plan.output_dir / run.name
    if not (folder / SCORES).is_file():
        return None
    outcome = Outcome(**json.loads((folder / SCORES).read_text(encoding="utf-8")))
    wanted = plan.config(run, chosen_fields(plan, run.variant) if run.kind == "run" else None)
    names = sorted(
        name for name in {*outcome.fields, *wanted} - {"output_dir"} if outcome.fields.get(name) != wanted.get(name)
    )
    if names:
        changes = ", ".join(f"{name} {outcome.fields.get(name)} -> {wanted.get(name)}" for name in names)
        raise UserError(
            f"{folder}: was done with other fields than the study has now ({changes}); choose another output, or "
            "delete that folder to have it done again"
        )
    if (folder / SAMPLES).is_file():
        with np.load(folder / SAMPLES) as arrays:
            tasks = dict.fromkeys(name.rsplit("/", 1)[0] for name in arrays)
            outcome.samples = {
                task: Sample(str(arrays[f"{task}/metric"]), arrays[f"{task}/values"], arrays.get(f"{task}/references"))
                for task in tasks
            }
    return outcome


def chosen_fields(plan: Plan, variant: str) -> Fields:
    """The values of the variant's best trial; empty where the study does not tune.

    Raises:
        UserError: not all of the variant's trials are done.
    """
    if not plan.trials:
        return {}
    trials = [run for run in plan.runs() if run.kind == "trial" and run.variant == variant]
    outcomes = {run.name: outcome for run in trials if (outcome := read_outcome(plan, run)) is not None}
    if len(outcomes) < len(trials):
        raise UserError(
            f"{variant}: {len(trials) - len(outcomes)} of its {len(trials)} trials are not done, which choose "
            f"{', '.join(trials[0].choice)}; do them first"
        )
    sign = 1 if greater_is_better(outcomes[trials[0].name].metric) else -1
    best = max(trials, key=lambda run: sign * outcomes[run.name].value)
    return best.choice


def execute(plan: Plan, run: StudyRun, suite: TaskSuite) -> Outcome:
    """Trains and scores `run`, taking up its last checkpoint if it was stopped halfway.

    Args:
        plan: the study.
        run: one of `plan.runs()`.
        suite: the test tasks.

    Raises:
        UserError: the script refused its input, its launcher failed, or the trials that choose its values are missing.
    """
    folder = plan.output_dir / run.name
    fields = plan.config(run, chosen_fields(plan, run.variant) if run.kind == "run" else None)
    outcome = Outcome(fields)
    config = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    if (folder / CONFIG).is_file() and (folder / CONFIG).read_text(encoding="utf-8") != config:
        print(f"{folder}: was stopped halfway with other fields; it starts anew", flush=True)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if run.kind != "untrained":
        (folder / CONFIG).write_text(config, encoding="utf-8")
        start = time.perf_counter()
        # The script's last act is to remove final-checkpoint, once the model is exported.
        if not (folder / "modules.json").is_file() or (folder / "final-checkpoint").exists():
            _train(plan, folder)
        outcome.seconds = time.perf_counter() - start
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        outcome.metric = settings["training"]["metric_for_best_model"]
        if outcome.metric is None:
            raise UserError(f"{run.name}: nothing is measured while it trains; give eval_tasks and eval_data")
        results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        outcome.value = results[f"eval_{outcome.metric.removeprefix('eval_')}"]
    if run.kind == "untrained":
        model = parse_arguments(as_command_line(fields))[0]
        _score(outcome, load_encoder(model.model_name_or_path, pooling=model.pooling), suite)
    elif run.kind == "run":
        _score(outcome, load_encoder(str(folder)), suite)
    _write(folder, outcome)
    if not plan.keep_models:
        for path in folder.iterdir():
            if path.name not in _RECORD:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        print("scored; its weights are not kept (keep_models: true keeps them)", flush=True)
    return outcome


def _train(plan: Plan, folder: Path) -> None:
    arguments = [str(folder / CONFIG)]
    checkpoints = [path.parent for path in folder.glob(f"checkpoint-*/{STATE}")]
    if checkpoints:
        last = max(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]))
        arguments += ["--resume_from_checkpoint", str(last)]
    if not plan.launcher:
        runpy.run_path(str(SCRIPT))["main"](arguments)
        return
    command = [*plan.launcher, str(SCRIPT), *arguments]
    # The launcher may be `accelerate` of the environment that this Python belongs to.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    status = subprocess.run(command, env=os.environ | {"PATH": path}).returncode
    if status:
        raise UserError(f"{' '.join(command)}: ended with status {status}; its messages are above")


def _score(outcome: Outcome, encoder: Encoder, suite: TaskSuite) -> None:
    result = score_suite(*embed_suite(encoder, suite), suite)
    if result.errors:
        raise UserError("; ".join(f"{task}: {message}" for task, message in result.errors.items()))
    outcome.scores, outcome.samples = result.scores, result.samples


def _write(folder: Path, outcome: Outcome) -> None:
    """The scores last, and in one move: they are the mark that the run is done."""
    arrays: dict[str, np.ndarray] = {}
    for task, sample in outcome.samples.items():
        arrays |= {f"{task}/metric": np.array(sample.metric), f"{task}/values": sample.values}
        if sample.references is not None:
            arrays[f"{task}/references"] = sample.references
    if arrays:
        np.savez_compressed(folder / SAMPLES, **arrays)
    content = {name: getattr(outcome, name) for name in ("fields", "metric", "value", "scores", "seconds")}
    unfinished = folder / f"{SCORES}.unfinished"
    unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(unfinished, folder / SCORES)


def describe(run: StudyRun) -> str:
    """`ArcCSE, seed 2`, `trial of ArcCSE: temperature=0.1`"""
    if run.kind == "trial":
        return f"trial of {run.variant}: {spelled(run.choice)}"
    return f"{run.variant}, seed {run.seed}" if run.kind == "run" else "the untrained encoder"
