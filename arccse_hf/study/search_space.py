"""The space of `arccse tune`: for each field the values that a trial may give it, read from YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cli.options import Option
from ..errors import UserError
from ..training.config import canonical_names, train_command
from ..training.config_file import read_config
from ..training.fields import load_fields

if TYPE_CHECKING:
    import optuna

_KEYS = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Dimension:
    """The values of one field: some that are named, or the numbers of an interval.

    Args:
        name: Of the field.
        is_whole: Whether the numbers are whole.
        choices: The values, as text; empty for an interval.
        low: The least number.
        high: The largest.
        log: Whether numbers are drawn by their order of magnitude.
        step: Distance of the numbers; any by default.
    """

    name: str
    is_whole: bool = False
    choices: Sequence[str] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None

    def suggest(self, trial: optuna.Trial) -> str:
        """Returns the value that a trial is to have, as text."""
        if self.choices:
            return trial.suggest_categorical(self.name, list(self.choices))
        if self.is_whole:
            step = 1 if self.step is None else int(self.step)
            return self.text(trial.suggest_int(self.name, int(self.low), int(self.high), step=step, log=self.log))
        return self.text(trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log))

    def text(self, value: object) -> str:
        """Returns a value as a recipe has it."""
        return value if isinstance(value, str) else repr(value)


def read_space(path: Path) -> dict[str, Dimension]:
    """Returns the dimensions of a space by the fields' names.

    Raises:
        UserError: The file cannot be read, there is no such field, or a value is not allowed there.
    """
    fields = {field.name: field for field in load_fields()}
    space = canonical_names(read_config(path))
    if not space:
        raise UserError(f"--space {path}: is empty; give fields with their values")
    dimensions = {}
    for name, given in space.items():
        if name not in fields:
            raise train_command(list(fields.values())).unknown(name)
        dimensions[name] = _dimension(fields[name], given)
    return dimensions


def _dimension(field: Option, given: Any) -> Dimension:
    one = replace(field, many=False)
    if isinstance(given, list) and given and all(isinstance(value, str) for value in given):
        for value in given:
            one.read(value)
        return Dimension(field.name, choices=given)
    if not isinstance(given, Mapping) or not {"low", "high"} <= given.keys() <= set(_KEYS):
        raise UserError(f"--{field.name}: a space has a list of values, or low and high (and log or step) of numbers")
    if field.type not in ("int", "float"):
        raise UserError(f"--{field.name}: is no number; list the values that it may have")
    return _interval(one, given)


def _interval(field: Option, given: Mapping[str, str]) -> Dimension:
    low, high = (field.read(given[key]) for key in ("low", "high"))
    number = replace(field, interval=None)
    step = number.read(given["step"]) if "step" in given else None
    log = bool(Option("log", "bool").read(given.get("log", "false")))
    assert isinstance(low, int | float) and isinstance(high, int | float)
    if not low < high or (log and (low <= 0 or step is not None)):
        raise UserError(
            f"--{field.name}: low must be below high, and with log above 0 and without a step; not {low:g} to {high:g}"
        )
    assert step is None or isinstance(step, int | float)
    if step is not None and step <= 0:
        raise UserError(f"--{field.name}: step must be above 0, not {step:g}")
    return Dimension(field.name, field.type == "int", (), low, high, log, step)
