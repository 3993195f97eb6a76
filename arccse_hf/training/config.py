"""Settings of a run from recipes and the command line: one table checks both, then the arguments are built."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..cli.command import Command, note_new_name
from ..cli.options import Option, Settings
from ..cli.recipes import find_recipe
from ..errors import UserError, one_line
from .config_file import read_config
from .field_rules import SUGGESTIONS
from .fields import fields_of_dataclasses, load_fields, made_for_installed_transformers

if TYPE_CHECKING:
    from .arguments import ArcCSETrainingArguments, DataArguments
    from .model_arguments import ModelArguments

Arguments = TypeVar("Arguments", "ModelArguments", "DataArguments", "ArcCSETrainingArguments")

TEXT_SOURCES = {"train_file", "dataset_name"}
"""They exclude each other, so one that is given later replaces either."""

RECIPE = Option(
    "recipe", metavar="[RECIPE]", help="Name of a recipe that ships with the package, or path of a YAML or JSON file."
)


def train_command(fields: Sequence[Option]) -> Command:
    """Returns the command line of `arccse train`, whose options are the fields of a run."""
    return Command(
        name="train",
        help="Train a sentence encoder with ArcCSE. A recipe holds fields as `name: value`; the command line goes over "
        "it.\n`accelerate launch run_arccse.py ...` is the same on several GPUs or machines.",
        example="arccse train arccse-bert-base --train_file 'docs/*.txt' --output_dir out",
        options=fields,
        positionals=(RECIPE,),
        noun="field",
        suggestions=SUGGESTIONS,
        notes="Every other field of transformers.TrainingArguments works too: "
        + ", ".join(sorted(field.name for field in fields if field.group is None and not field.reason)),
    )


def parse_arguments(
    given: Sequence[str] | Settings, *, texts_given: bool = False
) -> tuple[ModelArguments, DataArguments, ArcCSETrainingArguments]:
    """Returns the arguments of a run, checked; transformers and torch are imported once nothing is wrong.

    Args:
        given: `[RECIPE] [--field value ...]` as on the command line, or settings by name.
        texts_given: Whether the text to train on is in memory, so that no setting may name a source.

    Raises:
        UserError: A file cannot be read, there is no such field, or a value is of another type, none of the choices
            or out of range.
    """
    return build_arguments(read_values(given, texts_given=texts_given))


def read_values(given: Sequence[str] | Settings, *, texts_given: bool = False) -> dict[str, object]:
    """Returns the value of every field that is given, without importing torch; see `parse_arguments`."""

    def read(fields: Sequence[Option]) -> dict[str, object]:
        settings = given if isinstance(given, Mapping) else _read_command_line(given, fields)
        return _check(canonical_names(settings, fields), fields, texts_given)

    try:
        return read(load_fields())
    except UserError:
        if made_for_installed_transformers():
            raise
        return read(fields_of_dataclasses())  # which may have fields and choices that the table has not


def build_arguments(
    values: Mapping[str, Any],
) -> tuple[ModelArguments, DataArguments, ArcCSETrainingArguments]:
    """Returns the dataclasses with these values of their fields, and their defaults for the others.

    Raises:
        UserError: Values do not fit together.
    """
    from .arguments import ArcCSETrainingArguments, DataArguments
    from .model_arguments import ModelArguments

    def build(arguments: type[Arguments]) -> Arguments:
        names = {item.name for item in dataclasses.fields(arguments)}
        return arguments(**{name: value for name, value in values.items() if name in names})

    try:
        return build(ModelArguments), build(DataArguments), build(ArcCSETrainingArguments)
    except UserError:
        raise
    except (ValueError, TypeError) as error:  # from the checks of TrainingArguments itself
        raise UserError(one_line(error)) from error


def merge_settings(*layers: Settings) -> Settings:
    """Returns the layers over each other, the last on top. One source of text replaces the other."""
    result: Settings = {}
    for layer in layers:
        if TEXT_SOURCES & layer.keys():
            result = {name: value for name, value in result.items() if name not in TEXT_SOURCES}
        result |= layer
    return result


def canonical_names(settings: Settings, fields: Sequence[Option] | None = None) -> Settings:
    """Returns settings by the names that the fields have now.

    Raises:
        UserError: A field is given under two names.
    """
    names = {other: field.name for field in fields or load_fields() for other in (*field.aliases, *field.old_names)}
    result: Settings = {}
    for name, value in settings.items():
        current = names.get(name, name)
        if current in result:
            raise UserError(f"--{current}: is given twice, under two names")
        if current != name and any(name in field.old_names for field in fields or load_fields()):
            note_new_name(name, current)
        result[current] = value
    return result


def _read_command_line(argv: Sequence[str], fields: Sequence[Option]) -> Settings:
    if not argv:
        raise UserError(
            "nothing is given: name a recipe (quickstart, or the path of a YAML file), or give --model_name_or_path "
            "and --train_file; --help lists every field"
        )
    given = train_command(fields).parse(argv)
    recipe = given.pop("recipe", None)
    for name, value in given.items():
        last = value[-1] if isinstance(value, list) else value
        if isinstance(last, str) and last.endswith((".yaml", ".yml")):
            raise UserError(f"--{name} {last}: a recipe must come first: arccse train {last} --{name} ...")
    if not isinstance(recipe, str):
        given.setdefault("output_dir", f"runs/{_last_part(str(given.get('model_name_or_path', 'arccse')))}")
        return given
    try:
        path = find_recipe(recipe)
    except UserError:
        if recipe == argv[0]:
            raise
        raise UserError(f"{recipe!r}: belongs to no field, as most take one value; and it is no recipe") from None
    settings = merge_settings(canonical_names(read_config(path), fields), given)
    settings.setdefault("output_dir", f"runs/{path.stem}")
    return settings


def _last_part(model: str) -> str:
    """Returns the last part of an encoder's path or hub id, without a checksum."""
    return Path(model.split("#")[0]).name or "arccse"


def _check(settings: Settings, fields: Sequence[Option], texts_given: bool) -> dict[str, object]:
    known = {field.name: field for field in fields}
    for name in settings:
        if name not in known:
            raise train_command(fields).unknown(name)
    # A list without elements leaves the default.
    values = {name: known[name].read(value) for name, value in settings.items() if value != []}
    sources = [name for name in sorted(TEXT_SOURCES) if values.get(name)]
    if texts_given and sources:
        raise UserError(f"--{sources[0]}: the texts to train on are given already; leave it out")
    if not texts_given and len(sources) != 1:
        raise UserError("give what to train on: either --train_file FILE ... or --dataset_name NAME (and not both)")
    for field in fields:
        if field.required and field.name not in values:
            raise UserError(f"--{field.name}: is missing, and needed; {field.help}")
    return values
