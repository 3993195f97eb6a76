"""What an option of any command, or a setting of a recipe, is called, and how its text becomes a checked value."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ..errors import UserError

Settings = dict[str, "str | list[str] | Settings"]
"""Settings by name, their values as text: what a recipe or a command line gives."""

DTYPES = ("float32", "bfloat16", "float16")
"""What an encoder may be opened in."""

_BOOLS = {text: True for text in ("true", "yes", "on", "t", "y", "1")}
_BOOLS |= {text: False for text in ("false", "no", "off", "f", "n", "0")}
_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "json": '{"name": value, ...}'}
_INTERVAL = re.compile(r"(?:(?P<extra>-?\d+) or )?(?P<left>[\[(])(?P<low>\S+), (?P<high>\S+)(?P<right>[\])])")


@dataclass(frozen=True)
class Interval:
    """The values that a number may have.

    Args:
        text: As in mathematics: `(0, 1]` excludes 0 and includes 1; `-1 or [1, 100]` allows -1 too.

    Example:
        >>> 0.5 in Interval("(0, 1]"), 0 in Interval("(0, 1]"), float("nan") in Interval("(0, 1]")
        (True, False, False)
    """

    text: str

    @cached_property
    def _parts(self) -> dict[str, Any]:
        match = _INTERVAL.fullmatch(self.text)
        assert match is not None, self.text
        return match.groupdict()

    def __contains__(self, number: float) -> bool:
        parts = self._parts
        low, high = float(parts["low"]), float(parts["high"])
        above = number >= low if parts["left"] == "[" else number > low
        below = number <= high if parts["right"] == "]" else number < high
        return (above and below) or (parts["extra"] is not None and number == float(parts["extra"]))

    def __str__(self) -> str:
        """Returns the interval in words: "above 0 and at most 1"."""
        parts = self._parts
        if parts["low"] == parts["high"]:
            return parts["low"]
        if self.text[-1] == "]" and parts["left"] == "[":
            words = f"from {parts['low']} to {parts['high']}"
        else:
            low = f"{parts['low']} or more" if parts["left"] == "[" else f"above {parts['low']}"
            words = f"{low} and {'at most' if parts['right'] == ']' else 'below'} {parts['high']}"
        return f"{words}, or {parts['extra']}" if parts["extra"] else words


@dataclass(frozen=True)
class Option:
    """One option of a command, which for `train` is one setting of a recipe.

    Args:
        name: As it is spelled in help, errors and recipes, without the dashes.
        type: Of each value. "json" is a mapping; "json file" is a mapping or a file that holds one; a "switch" has no
            value.
        help: One or two sentences.
        many: Whether it takes several values, separated by spaces; numbers and choices by commas too.
        or_text: Of a `many`: whether a single value stays text, instead of becoming a list of one.
        flag: Whether the name alone means "true".
        adds: Of a `many`: whether the option, given again, adds values; otherwise the last one holds.
        commas: Of a `many` of text: whether commas separate values too.
        choices: The values there are; empty where any value of the type will do.
        interval: The numbers there are, for `Interval`.
        reason: Why `choices` or `interval` leaves values out; told when one of them is given.
        default: What holds where nothing is given.
        required: Whether something must be given.
        group: The heading that help lists it under; None leaves it out of the list.
        aliases: Other names, as good as the first.
        old_names: Names that an earlier version had. They work, and a line tells the new one.
        metavar: What help calls the value, instead of the type.
    """

    name: str
    type: Literal["int", "float", "bool", "switch", "text", "json", "json file"] = "text"
    help: str = ""
    many: bool = False
    or_text: bool = False
    flag: bool = False
    adds: bool = False
    commas: bool = False
    choices: Sequence[str] = ()
    interval: str | None = None
    reason: str = ""
    default: object = None
    required: bool = False
    group: str | None = "options"
    aliases: Sequence[str] = ()
    old_names: Sequence[str] = ()
    metavar: str = ""

    @property
    def value_name(self) -> str:
        """The name of the value in help."""
        if self.many and self.choices:
            return self.metavar or "name"
        return self.metavar or ("{" + ",".join(self.choices) + "}" if self.choices else self.type.split()[0])

    def read(self, given: object) -> object:
        """Returns the value that `given` stands for.

        Args:
            given: Text, a list of texts or a mapping: see `Settings`.

        Raises:
            UserError: It is of another type, is none of the choices, or lies outside the interval.
        """
        if not self.many:
            if isinstance(given, list):
                raise self._refuse(given, "takes one value, not several")
            return self._read_one(given)
        texts = given if isinstance(given, list) else [given]
        if self.commas or self.choices or self.type in ("int", "float"):
            texts = [part for text in texts for part in self._split(text)]
        values = [self._read_one(text) for text in texts]
        return values[0] if self.or_text and len(values) == 1 else values

    def _split(self, text: object) -> list[object]:
        if not isinstance(text, str) or os.path.exists(text):  # a file of this name may have commas in it
            return [text]
        return [part.strip() for part in text.split(",") if part.strip()] or ([] if self.commas else [text])

    def _read_one(self, given: object) -> object:
        if self.type.startswith("json"):
            return _typed(given) if isinstance(given, Mapping) else self._read_json(given)
        if not isinstance(given, str):
            raise self._refuse(str(given), f"must be {_TYPES.get(self.type, 'text')}")
        if self.type in ("int", "float"):
            return self._read_number(given)
        flag = _BOOLS.get(given.lower())
        spelled = str(flag).lower() if self.type == "bool" and flag is not None else given
        if self.choices and spelled not in self.choices:
            raise self._refuse(given, f"must be {'one of ' if len(self.choices) > 1 else ''}{', '.join(self.choices)}")
        if self.type in ("bool", "switch") and flag is None:
            raise self._refuse(given, f"must be {_TYPES['bool']}")
        return flag if self.type in ("bool", "switch") or (self.flag and flag is not None) else given

    def _read_number(self, text: str) -> float:
        allowed = Interval(self.interval) if self.interval else None
        wanted = f"must be {_TYPES[self.type]}{f' {allowed}' if allowed else ''}"
        try:
            number = int(text) if self.type == "int" else float(text)
        except ValueError:
            raise self._refuse(text, wanted) from None
        if not (number in allowed if allowed else math.isfinite(number)):
            raise self._refuse(text, wanted)
        return number

    def _read_json(self, text: object) -> object:
        if not isinstance(text, str) or not text.lstrip().startswith("{"):
            if self.type == "json file" and isinstance(text, str) and os.path.isfile(text):
                return text
            wanted = f"must be {_TYPES['json']}"
            raise self._refuse(text, f"{wanted} or a file that holds it" if self.type == "json file" else wanted)
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._refuse(text, f"is not valid JSON ({error})") from None

    def _refuse(self, given: object, why: str) -> UserError:
        shown = " ".join(map(str, given)) if isinstance(given, list) else str(given)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        return UserError(f"--{self.name} {shown}: {why}{f'; {self.reason}' if self.reason else ''}")


def _typed(value: Any) -> object:
    """Returns a mapping of texts with the values that they spell: 1e-6 as a number, true as a bool."""
    if isinstance(value, Mapping):
        return {name: _typed(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_typed(item) for item in value]
    if not isinstance(value, str):
        return value
    for convert in (int, float):
        try:
            return convert(value)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(value.lower(), value)
