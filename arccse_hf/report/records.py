"""The records of a run, as they must look. A damaged file is named before anything is computed from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from ..errors import UserError
from ..paths import read_json
from ..run_folder import COSINES, MEASURED_ON, RESULTS, SETTINGS, STATE, STATUS, read_cosines, record_path

_NUMBER, _TEXT, _COUNT = (int, float), (str,), (int,)
_NUMBERS = [(int, float, type(None))]
_COSINES: dict[str, Any] = {
    "positives": _NUMBERS, "negatives": _NUMBERS, "closer": _NUMBERS, "farther": _NUMBERS, "num_rows": _COUNT,
    "sts": {"task": _TEXT, "cosines": _NUMBERS, "scores": _NUMBERS, "num_pairs": _COUNT},
}  # fmt: skip
_SHAPES: dict[str, Any] = {
    STATE: {
        "log_history": [{"step": _COUNT}], "global_step": _COUNT,
        "best_model_checkpoint": (str, type(None)),
    },
    RESULTS: {
        "train_runtime": _NUMBER, MEASURED_ON: {},
        "verdict": {"difference": _NUMBER, "low": _NUMBER, "high": _NUMBER, "keeps_start": (bool,)},
    },
    SETTINGS: {"model": {"angular_margin": (int, float, type(None))}, "data": {}, "training": {}},
    STATUS: {"status": _TEXT, "started": _TEXT, "versions": {}, "hardware": _TEXT, "command": _TEXT},
    "config.json": {"angular_margin": (int, float, type(None))},
} | dict.fromkeys(COSINES.values(), _COSINES)  # fmt: skip
"""What each file may hold by key: types, a list of one shape, or an object. Other keys, and missing ones, are free."""
_REQUIRED = {"step", "task", "cosines", "scores", "num_pairs"}
_NAMES = {dict: "an object", list: "a list", str: "a text", bool: "true or false", float: "a number", int: "a number"}


def read_record(folder: Path, name: str) -> dict:
    """Returns the content of a run's file; empty where there is none.

    Args:
        folder: Of the run, or of one of its checkpoints.
        name: The file's.

    Raises:
        UserError: It is no JSON, or does not look as a run writes it; the message names the file and the place.
    """
    path = record_path(folder, name)
    content = read_json(path)
    _check(content, _SHAPES[name], path)
    return content


def read_cosine_record(folder: Path, when: str) -> dict:
    """Returns the cosines of a sample `when`, "before" or "after" training; empty where there are none.

    Raises:
        UserError: As `read_record`, or the lists of a pair's cosine and its score are not equally long.
    """
    content, path = read_cosines(folder, when), record_path(folder, COSINES[when])
    _check(content, _COSINES, path)
    sts = content.get("sts", {})
    if len(sts.get("cosines", [])) != len(sts.get("scores", [])):
        raise UserError(f"{path}: is damaged: sts has {len(sts['cosines'])} cosines and {len(sts['scores'])} scores")
    return content


def is_number(value: object) -> TypeGuard[float]:
    """Returns whether a value is a finite number that fits a float."""
    return isinstance(value, (int, float)) and -1e308 < value < 1e308


def _check(content: object, shape: Any, path: Path) -> None:
    problem = _problem(content, shape, "")
    if problem:
        raise UserError(f"{path}: is damaged: {problem}; train anew, or take the file from a copy of the run")


def _problem(value: object, shape: Any, where: str) -> str | None:
    """Returns what is wrong with a value, in words, or None."""
    if isinstance(shape, Mapping):
        if not isinstance(value, dict):
            return f"{where} is not an object"
        absent = [key for key in shape if key in _REQUIRED and key not in value]
        if absent:
            return f"{where} lacks {absent[0]}"
        problems = (_problem(value[key], inner, f"{where}.{key}".lstrip(".")) for key, inner in shape.items()
                    if key in value)  # fmt: skip
        return next(filter(None, problems), None)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where} is not a list"
        problems = (_problem(item, shape[0], f"{where}[{number}]") for number, item in enumerate(value))
        return next(filter(None, problems), None)
    fits = isinstance(value, shape) and (bool in shape or not isinstance(value, bool))
    is_huge = fits and isinstance(value, (int, float)) and math.inf > abs(value) > 1e308
    return None if fits and not is_huge else f"{where} is not {_NAMES[shape[0]]}"
