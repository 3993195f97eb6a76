"""The table of all fields of a run, which the command line reads in place of the dataclasses that import torch.

`python -m arccse_hf.training.fields` (`make fields`) writes `fields.json` anew from those dataclasses.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import types
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..cli.options import Option
from .field_rules import ALIASES, CHOICES, COMMAS, COMMON_TRAINER_FIELDS, INTERVALS, OLD_NAMES, REASONS, REFUSED

TABLE = Path(__file__).with_name("fields.json")

GROUPS = ("model", "data and evaluation", "triplets and run", "training (transformers.TrainingArguments)")

_FILES = ("accelerator_config", "fsdp_config", "deepspeed")  # a mapping, or the path of one
_NOT_TEXT = ("parallelism_config",)  # an object that no text stands for


@functools.cache
def load_fields() -> tuple[Option, ...]:
    """Returns every field of a run, without importing transformers or torch."""
    return tuple(Option(**item) for item in _read_table()["fields"])


def made_for_installed_transformers() -> bool:
    """Returns whether the table is of the version of transformers that is installed."""
    return _read_table()["transformers"] == importlib.metadata.version("transformers")


def write_table() -> None:
    """Writes `fields.json` from the dataclasses."""
    version = importlib.metadata.version("transformers")
    empty = {item.name: item.default for item in dataclasses.fields(Option) if item.name != "name"}
    fields = [
        {name: value for name, value in dataclasses.asdict(option).items() if name == "name" or value != empty[name]}
        for option in fields_of_dataclasses()
    ]
    lines = ",\n".join(json.dumps(item, ensure_ascii=False) for item in fields)
    TABLE.write_text(f'{{"transformers": "{version}", "fields": [\n{lines}\n]}}\n', encoding="utf-8")


def fields_of_dataclasses() -> tuple[Option, ...]:
    """Returns every field of a run as the dataclasses have it. Imports transformers and torch."""
    from transformers import TrainingArguments

    from .arguments import ArcCSETrainingArguments, DataArguments
    from .model_arguments import ModelArguments

    inherited = {item.name for item in dataclasses.fields(TrainingArguments)}
    options = []
    for arguments, group in zip((ModelArguments, DataArguments, ArcCSETrainingArguments), GROUPS, strict=False):
        hints = get_type_hints(arguments)
        for item in dataclasses.fields(arguments):
            if not item.init or item.name in _NOT_TEXT:
                continue
            shown: str | None = group
            if arguments is ArcCSETrainingArguments and item.name in inherited:
                shown = GROUPS[3] if item.name in COMMON_TRAINER_FIELDS else None
            options.append(_option(item, hints[item.name], shown))
    return tuple(sorted(options, key=lambda option: [*GROUPS, None].index(option.group)))


def _option(item: dataclasses.Field, hint: object, group: str | None) -> Option:
    parts = [part for part in _parts(hint) if part is not type(None)]
    lists = [part for part in parts if get_origin(part) is list]
    kind = _kind(item.name, parts)
    return Option(
        name=item.name,
        type=kind,
        help=item.metadata.get("help", "").replace("%%", "%").strip(),
        many=bool(lists),
        or_text=bool(lists) and str in parts,
        flag=kind == "bool" or item.metadata.get("nargs") == "?",
        commas=item.name in COMMAS,
        choices=CHOICES.get(item.name) or _without_refused(item.name, _choices(item, parts)),
        interval=INTERVALS.get(item.name),
        reason=REASONS.get(item.name, ""),
        default=_default(item),
        required=item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING,
        group=group,
        aliases=ALIASES.get(item.name, ()),
        old_names=OLD_NAMES.get(item.name, ()),
    )


def _without_refused(name: str, choices: Sequence[str]) -> tuple[str, ...]:
    return tuple(choice for choice in choices if choice not in REFUSED.get(name, ()))


def _parts(hint: object) -> Sequence[object]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else [hint]


def _kind(name: str, parts: Sequence[object]) -> Any:
    if any(part is dict or get_origin(part) is dict for part in parts):
        return "json file" if name in _FILES else "json"
    parts = [inner for part in parts for inner in (get_args(part) if get_origin(part) is list else (part,))]
    for kind, found in ((str, "text"), (bool, "bool"), (float, "float"), (int, "int")):
        if kind in parts:
            return found
    return "text"


def _choices(item: dataclasses.Field, parts: Sequence[object]) -> tuple[str, ...]:
    if item.name == "report_to":
        from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

        return ("none", "all", *sorted(INTEGRATION_TO_CALLBACK))
    for part in parts:
        if isinstance(part, type) and issubclass(part, Enum):
            return tuple(member.value for member in part)
        if get_origin(part) is Literal and str in map(type, get_args(part)):
            return get_args(part)
    return tuple(item.metadata.get("choices", ()))


def _default(item: dataclasses.Field) -> object:
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory() or None
    default = None if item.default is dataclasses.MISSING else item.default
    return default.value if isinstance(default, Enum) else default


@functools.cache
def _read_table() -> dict:
    return json.loads(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    write_table()
