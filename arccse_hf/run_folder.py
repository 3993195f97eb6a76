"""What a run leaves in its folder: the name of every file, and the mark that says whether the run is done.

Nothing here needs torch or transformers, so that a command that only looks at runs starts at once.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import UserError
from .paths import check_writable, read_json, write_json

MODULES = "modules.json"
"""Sentence-transformers' table of contents, written last: the folder holds a whole model once it is there."""
ONNX_SETTINGS = "onnx_encoder.json"
"""What an ONNX graph needs besides: length, dimension, prompts."""
CARD = "README.md"
STATUS = "run_status.json"
"""The mark: whether the run is done, when, with which versions, on what, by which command."""
STATE = "trainer_state.json"
"""Trainer's state: the log. A checkpoint has one too."""
RESULTS = "all_results.json"
"""The scores before (`before_...`) and after training (`eval_...`), and what training took (`train_...`).

It describes the model, and stands beside it.
"""
MEASURED_ON = "measured_on"
"""The entry of the results that has a fingerprint of each task's data."""
SETTINGS = "run_settings.json"
"""Every field by group: `model`, `data`, `training`."""
COSINES = {"before": "cosines_before.json", "after": "cosines_after.json"}
"""Cosines of a fixed sample."""
RECORDS = (STATUS, STATE, RESULTS, SETTINGS, *COSINES.values())
"""All that a report reads."""

TRAINING = "training"
"""The subfolder of the other records, and of the checkpoints. Earlier versions left them beside the model."""
FINAL_CHECKPOINT = "final-checkpoint"
"""The trained weights on their way into the exported folder."""
STAGING_PREFIX = ".export-"
_REPLACED = (CARD, "config.json", "*.safetensors", "tokenizer.*", "tokenizer_config.json", "vocab.*")
"""What the model's files replace where another model or a project has them."""
_OLD_COSINES = {"before": "snapshot_before.json", "after": "snapshot_after.json"}
_TIMINGS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


def check_output_dir(output_dir: str | os.PathLike, *, overwrite: bool, resume: bool) -> None:
    """Makes sure, before anything is trained, that the result can be written and that nothing of worth is replaced.

    Raises:
        UserError: `output_dir` cannot be written, or holds a model or checkpoints that the run would mix with its own.
    """
    folder = Path(output_dir)
    check_writable(folder)
    if overwrite:
        return
    if (folder / MODULES).exists() and not (resume and _status(folder).get("status") == "running"):
        raise UserError(
            f"--output_dir {output_dir}: holds a finished model; choose another folder, or --overwrite_output_dir"
        )
    if not resume and checkpoints(folder):
        raise UserError(
            f"--output_dir {output_dir}: holds checkpoints of an interrupted run; --resume_from_checkpoint True goes "
            "on with it, --overwrite_output_dir starts anew"
        )
    others = sorted(path.name for pattern in _REPLACED for path in folder.glob(pattern))
    if others and not record_path(folder, STATUS).exists():
        raise UserError(
            f"--output_dir {output_dir}: is no run's folder, and the model would replace its {', '.join(others)}; "
            "choose another folder, or --overwrite_output_dir"
        )


def exported_in_words(results: Mapping[str, Any]) -> str | None:
    """Returns what a verdict had exported in place of the trained weights, as `all_results.json` says; else None."""
    verdict = results.get("verdict") or {}
    if verdict.get("keeps_start"):
        return "the start encoder"
    share = verdict.get("share", 1)
    return f"a mixture with {share:g} of the trained weights" if share < 1 else None


def begin_run(folder: Path, *, resume: bool, overwrite: bool, facts: Mapping[str, object]) -> None:
    """Marks a run as begun, and removes what a killed run left, and what another one left unless this goes on with it.

    Args:
        folder: Of the run. A model in it stays until the new one is whole.
        resume: Whether the run goes on from a checkpoint.
        overwrite: Whether the user asked to replace what the folder holds.
        facts: What the mark says beside the time: versions, device, command.
    """
    training = folder / TRAINING
    for leftover in [*(place / FINAL_CHECKPOINT for place in (folder, training)), *folder.glob(f"{STAGING_PREFIX}*")]:
        if leftover.is_dir():
            shutil.rmtree(leftover)
    is_ours = record_path(folder, STATUS).exists()
    if not resume and (overwrite or is_ours):
        remove_checkpoints(folder)
        for place in (folder, training):
            for name in (*RECORDS, *_OLD_COSINES.values()):
                (place / name).unlink(missing_ok=True)
    training.mkdir(exist_ok=True)
    if is_ours:  # and goes on: what an earlier version left beside the model moves to the rest
        for name in {*RECORDS, *_OLD_COSINES.values()} - {RESULTS}:
            if (folder / name).exists():
                os.replace(folder / name, training / name)
    before = _status(folder) if resume else {}
    began = {"started": before["started"], "resumed": True} if "started" in before else {"started": _now()}
    write_json(training / STATUS, {"status": "running", **began, **facts})


def finish_run(folder: Path) -> None:
    """Marks a run as done; the last thing that it writes."""
    write_json(folder / TRAINING / STATUS, _status(folder) | {"status": "done", "finished": _now()})


def remove_checkpoints(folder: Path) -> None:
    """Removes all checkpoints of a run, and the optimizer's state with them."""
    for checkpoint in checkpoints(folder):
        shutil.rmtree(checkpoint)


def is_done(folder: Path) -> bool:
    """Returns whether a run has come to its end. One from before the mark has when it left its model and its scores."""
    if record_path(folder, STATUS).is_file():
        return _status(folder).get("status") == "done"
    return all((folder / name).is_file() for name in (MODULES, RESULTS)) and not (folder / FINAL_CHECKPOINT).exists()


def record_path(folder: Path, name: str) -> Path:
    """Returns where a record of a run stands: in its subfolder, or beside the model as earlier versions left it."""
    path = folder / TRAINING / name
    return path if path.exists() or not (folder / name).exists() else folder / name


def checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoints of a run, the newest first."""
    found = [path for place in (folder / TRAINING, folder) for path in place.glob("checkpoint-*")]
    steps = {path: path.name.removeprefix("checkpoint-") for path in found}
    numbered = [path for path, step in steps.items() if step.isdecimal()]
    return sorted(numbered, key=lambda path: int(steps[path]), reverse=True)


def read_cosines(folder: Path, when: str) -> dict:
    """Returns the cosines of a sample `when`, "before" or "after" training; empty where the run has left none."""
    return read_json(record_path(folder, COSINES[when])) or read_json(record_path(folder, _OLD_COSINES[when]))


def metrics_of(line: Mapping[str, object], prefix: str = "eval_") -> dict[str, float]:
    """Returns the scores in a line of the log or in the results, without their prefix, and without timings."""
    return {
        name.removeprefix(prefix): value
        for name, value in line.items()
        if name.startswith(prefix) and not name.endswith(_TIMINGS) and isinstance(value, int | float)
    }


def kept_step(state: Mapping, loads_best: bool) -> int:
    """Returns the step whose weights a run ends with: that of the best checkpoint where one is loaded, else the last.

    Args:
        state: Trainer's.
        loads_best: `load_best_model_at_end`.
    """
    best = re.search(r"-(\d+)$", state.get("best_model_checkpoint") or "") if loads_best else None
    return int(best[1]) if best else state.get("global_step", 0)


def _status(folder: Path) -> dict:
    return read_json(record_path(folder, STATUS))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
