"""One run of a study: train, score on the test tasks, and leave a mark that it is done."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ..cli.options import Settings
from ..errors import UserError
from ..evaluation.bootstrap import PerItemScores
from ..evaluation.compare import score_suite
from ..evaluation.suite import TaskSuite, fingerprint, greater_is_better
from ..inference.evaluate import embed_suite
from ..inference.open import Encoder, load_encoder, move_to
from ..inference.process_group import process_state
from ..paths import read_json, write_json
from ..run_folder import RECORDS, RESULTS, SETTINGS, TRAINING, checkpoints, is_done, record_path, remove_checkpoints
from ..training.config import parse_arguments
from ..training.model_arguments import ModelArguments
from .inputs import inputs_of
from .plan import PlannedRun, StudyConfig, format_choice

CONFIG = "config.yaml"
SCORES = "study_scores.json"
SAMPLES = "study_samples.npz"
LOG = "run.log"
"""What a run of a study would have printed."""
_KEPT = {CONFIG, SCORES, SAMPLES, LOG, TRAINING, *RECORDS}


@dataclass
class RunResult:
    """What a finished run left; `study_scores.json` holds it under these names.

    Args:
        fields: Every field that it was run with.
        metric: What chose its checkpoint, and what trials are compared by; None for the untrained encoder.
        value: That metric's, of the kept weights, on data that is no test data.
        scores: `{test task: {metric: value}}`, not multiplied by 100; empty for trials.
        seconds: Of training, evaluation in between included.
        tests: `tests_of` when the scores were computed.
        inputs: `inputs_of` when it was begun; empty where an earlier version has not noted it.
        kept_start: Whether its verdict kept the start encoder: the scores are of that, then.
    """

    fields: Settings
    metric: str | None = None
    value: float | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    tests: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    kept_start: bool = False

    @property
    def rank(self) -> float:
        """What the best trial has the most of.

        It is -inf where embeddings fell together, which have no correlation, and where the start encoder was kept.
        """
        if self.metric is None or self.value is None or math.isnan(self.value) or self.kept_start:
            return -math.inf
        return self.value if greater_is_better(self.metric) else -self.value


def read_result(study: StudyConfig, run: PlannedRun) -> RunResult | None:
    """Reads what `run` left; None if it is not done.

    Raises:
        UserError: It was done with other fields than the study has now, or from other files of the same names.
    """
    folder = study.output_dir / run.name
    if not (folder / SCORES).is_file():
        return None
    result = RunResult(**read_json(folder / SCORES))
    chosen = chosen_fields(study, run.variant) if run.kind == "run" else {}
    wanted = study.run_settings(run, chosen)
    # Tuned fields are skipped until all trials have finished.
    not_compared = {"output_dir", *(study.trials[0] if chosen is None else ())}
    names = sorted({*result.fields, *wanted} - not_compared)
    if names := [name for name in names if result.fields.get(name) != wanted.get(name)]:
        changes = ", ".join(f"{name} {result.fields.get(name)} -> {wanted.get(name)}" for name in names)
        raise UserError(
            f"{folder}: was done with other fields than the study has now ({changes}); choose another output, or "
            "delete that folder to have it done again"
        )
    now = _inputs(study, run, wanted)
    if names := [name for name, then in result.inputs.items() if name in now and now[name] != then]:
        changes = ", ".join(f"{name} {wanted[name]}" for name in names)
        raise UserError(
            f"{folder}: was done from other files of the same name than there are now ({changes}); choose another "
            "output, or delete that folder to have it done again"
        )
    return result


def _inputs(study: StudyConfig, run: PlannedRun, fields: Settings) -> dict[str, str]:
    names = ("model_name_or_path",) if run.kind == "untrained" else ("model_name_or_path", "train_file")
    key = (*names, *(str(fields.get(name)) for name in (*names, "one_document_per_file")))
    if key not in study.inputs:
        model, data, _ = parse_arguments(fields)
        study.inputs[key] = {name: value for name, value in inputs_of(model, data).items() if name in names}
    return study.inputs[key]


def tests_of(study: StudyConfig, suite: TaskSuite) -> dict[str, str]:
    """Returns what scores depend on besides the encoder: the type of the computation, a hash of each task's data."""
    return {"test_dtype": study.test_dtype, **{task.name: fingerprint(task) for task in suite.tasks}}


def check_tests(study: StudyConfig, suite: TaskSuite) -> None:
    """Makes sure that what was scored before can stand beside what is scored now.

    Raises:
        UserError: A run that is done was scored on other tests than the study has now.
    """
    wanted = tests_of(study, suite)
    for run in study.runs():
        result = read_result(study, run) if run.kind != "trial" else None
        if result is None:
            continue
        # Versions before 0.2 have not noted more than the tasks' names.
        then = result.tests or {name: wanted.get(name, "") for name in ("test_dtype", *result.scores)}
        if names := sorted(name for name in {*then, *wanted} if then.get(name) != wanted.get(name)):
            raise UserError(
                f"{study.output_dir / run.name}: was scored on other tests than the study has ({', '.join(names)}); "
                "choose another output, or delete that folder to have it done again"
            )


def read_samples(study: StudyConfig, run: PlannedRun) -> dict[str, PerItemScores]:
    """Reads, by test task, what the main metric of `run`, which is done, is computed from; some tasks have none."""
    path = study.output_dir / run.name / SAMPLES
    if not path.is_file():
        return {}
    with np.load(path) as arrays:
        tasks = dict.fromkeys(name.rsplit("/", 1)[0] for name in arrays)
        return {
            task: PerItemScores(
                str(arrays[f"{task}/metric"]),
                arrays[f"{task}/values"],
                arrays.get(f"{task}/references"),
                arrays.get(f"{task}/groups"),
            )
            for task in tasks
        }


def chosen_fields(study: StudyConfig, variant: str) -> Settings | None:
    """Returns the values of the variant's best trial: empty without tuning, None if one is missing or none will do."""
    if not study.trials:
        return {}
    trials = [run for run in study.runs() if run.kind == "trial" and run.variant == variant]
    results = [result for trial in trials if (result := read_result(study, trial)) is not None]
    if len(results) < len(trials):
        return None
    ranks = [result.rank for result in results]
    return None if max(ranks) == -math.inf else trials[ranks.index(max(ranks))].choice


def execute(study: StudyConfig, run: PlannedRun, suite: TaskSuite, *, log: bool = True) -> RunResult:
    """Trains and scores `run`, taking up its last checkpoint if it was stopped halfway.

    Args:
        study: The study.
        run: One of `study.runs()`.
        suite: The test tasks.
        log: Whether what it prints goes into the file `LOG` of its folder.

    Raises:
        UserError: The script refused its input, its launcher failed, or there are no trials to choose its values by.
    """
    folder = study.output_dir / run.name
    chosen = chosen_fields(study, run.variant) if run.kind == "run" else {}
    if chosen is None:
        trials = [other for other in study.runs() if other.kind == "trial" and other.variant == run.variant]
        missing = sum(read_result(study, trial) is None for trial in trials)
        tuned = ", ".join(study.trials[0])
        raise UserError(
            f"{run.variant}: {missing} of its {len(trials)} trials are not done, which choose {tuned}; do them first"
            if missing
            else f"{run.variant}: each of its {len(trials)} trials kept the start encoder, or has a score that is not "
            f"finite; try other values of {tuned}"
        )
    fields = study.run_settings(run, chosen)
    config = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    if (folder / CONFIG).is_file() and (folder / CONFIG).read_text(encoding="utf-8") != config:
        print(f"\n{folder}: was stopped halfway with other fields; it starts anew", flush=True)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with printed_into(folder / LOG) if log else contextlib.nullcontext():
        try:
            return _train_and_score(study, run, suite, folder, fields, config)
        except UserError:
            raise
        except Exception:
            traceback.print_exc()  # into the log; the caller has one line for it
            raise


def _train_and_score(
    study: StudyConfig, run: PlannedRun, suite: TaskSuite, folder: Path, fields: Settings, config: str
) -> RunResult:
    tests = {} if run.kind == "trial" else tests_of(study, suite)
    result = RunResult(fields, tests=tests, inputs=_inputs(study, run, fields))
    samples: dict[str, PerItemScores] = {}
    if run.kind != "untrained":
        (folder / CONFIG).write_text(config, encoding="utf-8")
        start = time.perf_counter()
        if not is_done(folder):
            _train(study, folder)
        result.seconds = time.perf_counter() - start
        settings = read_json(record_path(folder, SETTINGS))
        result.metric = settings["training"]["metric_for_best_model"]
        if result.metric is None:
            raise UserError(f"{run.name}: nothing is measured while it trains; give eval_tasks and eval_data")
        recorded = read_json(record_path(folder, RESULTS))
        result.value = recorded[f"eval_{result.metric}"]
        result.seconds = recorded.get("train_runtime", result.seconds)  # also where it was trained before
        result.kept_start = recorded.get("verdict", {}).get("keeps_start", False)
    if run.kind == "untrained":
        result.scores, samples = _score(_start_encoder(parse_arguments(fields)[0], study.test_dtype), suite)
    elif run.kind == "run":
        result.scores, samples = _score(load_encoder(str(folder), dtype=study.test_dtype), suite)
    _write(folder, result, samples)
    if run.kind != "untrained" and not study.keep_models:
        remove_checkpoints(folder)
        for path in folder.iterdir():
            if path.name not in _KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        print("scored; its weights are not kept (keep_models: true keeps them)", flush=True)
    return result


@contextlib.contextmanager
def printed_into(path: Path) -> Iterator[None]:
    """Has all that this process and those it starts print added to a file."""
    _flush()
    terminal = [os.dup(number) for number in (1, 2)]
    with path.open("ab") as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)
    try:
        yield
    finally:
        _flush()
        for number, kept in zip((1, 2), terminal, strict=True):
            os.dup2(kept, number)
            os.close(kept)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _train(study: StudyConfig, folder: Path) -> None:
    arguments = [str(folder / CONFIG)]
    if checkpoints(folder):
        arguments += ["--resume_from_checkpoint", "True"]
    if not study.launcher:
        from ..training.script import main

        main(arguments)
        return
    command = [*study.launcher, "-m", "arccse_hf", "train", *arguments]
    status = subprocess.run(command, env=os.environ | {"PATH": _search_path()}).returncode
    if status:
        raise UserError(f"{' '.join(command)}: ended with status {status}; its messages are in {folder / LOG}")


def check_launcher(study: StudyConfig) -> None:
    """Raises UserError where the study names a launcher that is not there, before run after run fails by it."""
    if study.launcher and shutil.which(study.launcher[0], path=_search_path()) is None:
        raise UserError(f"{study.source}: launcher: {study.launcher[0]}: there is no such program")


def _search_path() -> str:
    """The launcher may be `accelerate` of the environment that this Python belongs to."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _start_encoder(arguments: ModelArguments, dtype: str) -> Encoder:
    """Opens the encoder as training does: with the same pooling, modules and revision."""
    from ..inference.export import to_sentence_transformer
    from ..training.backbone import load_backbone

    model, tokenizer = load_backbone(arguments)
    start = to_sentence_transformer(model, tokenizer).eval()
    move_to(start, process_state().device, getattr(torch, dtype))
    return Encoder(arguments.model_name_or_path, start, model.config.pooling)


def _score(encoder: Encoder, suite: TaskSuite) -> tuple[dict[str, dict[str, float]], dict[str, PerItemScores]]:
    result = score_suite(*embed_suite(encoder, suite), suite)
    if result.errors:
        raise UserError("; ".join(f"{task}: {message}" for task, message in result.errors.items()))
    return result.scores, result.samples


def _write(folder: Path, result: RunResult, samples: Mapping[str, PerItemScores]) -> None:
    """Writes the scores last, and in one move: they are the mark that the run is done."""
    arrays: dict[str, Any] = {}  # arrays; numpy's types take every name for an option of savez too
    for task, sample in samples.items():
        arrays |= {f"{task}/metric": np.array(sample.metric), f"{task}/values": sample.values}
        for name in ("references", "groups"):
            if (numbers := getattr(sample, name)) is not None:
                arrays[f"{task}/{name}"] = numbers
    if arrays:
        np.savez_compressed(folder / SAMPLES, **arrays)
    write_json(folder / SCORES, asdict(result))


def outcome(result: RunResult) -> str:
    """Returns what became of a run in words: `stsb_dev_spearman 0.8449, trained for 383 s`, `scored`."""
    if result.metric is None or result.value is None:
        return "scored"
    return f"{result.metric} {result.value:.4f}, trained for {result.seconds:,.0f} s"


def describe(run: PlannedRun) -> str:
    """Returns a run in words: `ArcCSE, seed 2`, `trial of ArcCSE: temperature=0.1`."""
    if run.kind == "trial":
        return f"trial of {run.variant}: {format_choice(run.choice)}"
    return f"{run.variant}, seed {run.seed}" if run.kind == "run" else "the untrained encoder"
