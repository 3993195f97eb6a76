"""Fields of the arguments from YAML or JSON files and the command line, and one parser that checks both."""

import argparse
import dataclasses
import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_type_hints

import yaml
from transformers import HfArgumentParser, TrainingArguments

from ..errors import UserError, one_line
from ..recipes import find_recipe
from .arguments import ArcCSETrainingArguments, DataArguments, ModelArguments

Fields = dict[str, "str | list[str] | Fields"]
"""Fields of the arguments by name, their values as text: what a config file or a command line gives."""

TEXT_SOURCES = {"train_file", "dataset_name"}

ARGUMENT_CLASSES = (ModelArguments, DataArguments, ArcCSETrainingArguments)

COMMON_TRAINER_ARGUMENTS = (
    "output_dir learning_rate num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps "
    "warmup_steps lr_scheduler_type weight_decay max_grad_norm bf16 fp16 torch_compile seed logging_steps "
    "eval_strategy eval_steps save_strategy save_steps save_total_limit metric_for_best_model load_best_model_at_end "
    "resume_from_checkpoint report_to dataloader_num_workers use_cpu"
).split()


def parse_arguments(
    argv: Sequence[str], *, texts_given: bool = False
) -> tuple[ModelArguments, DataArguments, ArcCSETrainingArguments]:
    """Reads `[CONFIG.yaml] [--field value ...]`; the command line goes over the file.

    Args:
        argv: What the command line says.
        texts_given: Whether the text to train on is in memory, so that `argv` must not name a source.

    Raises:
        UserError: an unreadable file, an unknown name, a value of the wrong type or outside the choices.
    """
    argv = list(argv)
    if argv and not argv[0].startswith("-"):
        given = {_field_name(argument) for argument in argv[1:] if argument.startswith("--")}
        # The two sources of text exclude each other, so one on the command line replaces either one in the file.
        replaced = TEXT_SOURCES if given & TEXT_SOURCES else set()
        fields = read_fields(find_recipe(argv[0]))
        argv = as_command_line({name: fields[name] for name in fields if name not in replaced}) + argv[1:]
    try:
        model, data, training = _ArgumentParser().parse_args_into_dataclasses(argv, look_for_args_file=False)
        data.check_source(texts_given=texts_given)
        return model, data, training
    except UserError:
        raise
    except (ValueError, TypeError) as error:  # from the checks of TrainingArguments itself
        raise UserError(one_line(error)) from error


GROUPS = ("model", "data and evaluation", "triplets and run", "training (transformers.TrainingArguments)")


class _ArgumentParser(HfArgumentParser):
    """HfArgumentParser with groups that can be read, and with errors that are raised instead of printed."""

    def __init__(self):
        super().__init__(
            prog="run_arccse.py",
            usage="run_arccse.py [CONFIG.yaml] [--field value ...]",
            description="Train a sentence encoder with ArcCSE. CONFIG.yaml (or .json) holds fields as `name: value`; "
            "the command line goes over it.",
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )
        self.groups = {title: self.add_argument_group(title) for title in GROUPS}
        self.dataclass_types = list(ARGUMENT_CLASSES)
        for dtype in ARGUMENT_CLASSES:
            self._add_dataclass_arguments(dtype)
        # In force but not listed: the `--no_field` twins, and the hundred Trainer fields that few runs touch.
        listed = {action.dest for group in self.groups.values() for action in group._group_actions} | {"help"}
        others = [action for action in self._actions if action.dest not in listed]
        for action in others + [action for action in self._actions if action.option_strings[0].startswith("--no_")]:
            action.help = argparse.SUPPRESS
        names = ", ".join(sorted({action.dest for action in others}))
        self.epilog = f"Every other field of transformers.TrainingArguments works too: {names}"

    def _add_dataclass_arguments(self, dtype: type) -> None:
        hints = get_type_hints(dtype)
        inherited = {item.name for item in dataclasses.fields(TrainingArguments)}
        model, data, triplets, training = self.groups.values()
        for item in dataclasses.fields(dtype):
            if not item.init:
                continue
            if dtype is ArcCSETrainingArguments:
                parser = triplets if item.name not in inherited else training
                parser = self if parser is training and item.name not in COMMON_TRAINER_ARGUMENTS else parser
            else:
                parser = model if dtype is ModelArguments else data
            item.type = hints[item.name]
            self._parse_dataclass_field(parser, item)

    def parse_known_args(self, args=None, namespace=None):
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._fail_on(unknown[0])
        return namespace, []

    def _fail_on(self, unknown: str) -> None:
        if not unknown.startswith("--"):
            raise UserError(f"{unknown!r} does not follow a --field name; the config file must come first")
        name = _field_name(unknown)
        close = difflib.get_close_matches(name, [action.dest for action in self._actions], n=1, cutoff=0.5)
        raise UserError(
            f"--{name}: there is no such field{f'; did you mean --{close[0]}?' if close else ' (see --help)'}"
        )

    def error(self, message: str):
        raise UserError(re.sub(r"argument (--\w+)\S*:", r"\1:", message) + " (see --help)")


class _HelpFormatter(argparse.HelpFormatter):
    """One short line a field: its name, its choices or type, its help and its default."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34, width=120)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.dest == "help":
            return super()._format_action_invocation(action)
        if action.choices:
            value = "{" + ",".join(str(choice) for choice in action.choices if choice is not None) + "}"
        else:
            value = getattr(action.type, "__name__", "value").replace("string_to_bool", "bool")
        return f"--{action.dest} {value}{' ...' if action.nargs == '+' else ''}"

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default in (None, argparse.SUPPRESS, []):
            return action.help
        return f"{action.help} (default: %(default)s)"


def _field_name(argument: str) -> str:
    return argument.lstrip("-").split("=")[0].replace("-", "_")


def read_fields(path: Path) -> Fields:
    """The fields of a YAML or JSON file, every scalar as the text that stands there; one without a value is left out.

    Raises:
        UserError: an unreadable file, or one that does not hold `field: value`.
    """
    try:
        # BaseLoader leaves every scalar the text that it is: the parser knows the types, YAML would read 1e-5 as a
        # string and `no` as a boolean.
        text = path.read_text(encoding="utf-8")
        values, typed = yaml.load(text, Loader=yaml.BaseLoader), yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the config file ({error})") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML or JSON: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a config file holds lines of `field: value`")
    return _given(values, typed)


def _given(values: dict, typed: dict) -> Fields:
    fields: Fields = {}
    for (name, value), as_typed in zip(values.items(), typed.values(), strict=True):
        if as_typed is None:
            continue  # nothing given: the default stays
        if isinstance(value, dict):
            fields[name] = _given(value, as_typed)
        elif isinstance(as_typed, bool):
            fields[name] = {"on": "true", "off": "false"}.get(value.lower(), value)
        else:
            fields[name] = value
    return fields


def as_command_line(fields: Fields) -> list[str]:
    """`--name=value` for each field, so that one parser checks what comes from files and from the command line."""
    arguments: list[str] = []
    for name, value in fields.items():
        if isinstance(value, list):
            arguments += [f"--{name}", *value] if value else []
        elif isinstance(value, dict):
            arguments.append(f"--{name}={json.dumps({key: yaml.safe_load(item) for key, item in value.items()})}")
        else:
            arguments.append(f"--{name}={value}")
    return arguments


def parse_overrides(arguments: Sequence[str]) -> Fields:
    """`--name value ...` and `--name=value` as fields.

    Raises:
        UserError: a value that follows no name, or a name without a value.
    """
    fields: Fields = {}
    name = None
    for argument in arguments:
        if argument.startswith("--"):
            name, given, value = argument[2:].partition("=")
            name = name.replace("-", "_")
            fields[name] = value if given else []
        elif name is None:
            raise UserError(f"{argument!r} does not follow a --field name")
        else:
            before = fields[name]
            fields[name] = [*before, argument] if isinstance(before, list) else [before, argument]
    for name, value in fields.items():
        if value == []:
            raise UserError(f"--{name}: needs a value")
        if isinstance(value, list) and len(value) == 1:
            fields[name] = value[0]
    return fields
