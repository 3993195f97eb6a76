"""The dialect that all commands share: how options are spelled, read and explained."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..errors import UserError, did_you_mean
from .options import Option, Settings


@dataclass(frozen=True)
class Command:
    """One verb of the command line.

    Args:
        name: The verb.
        help: What it does, in one line.
        example: A command that can be typed as it stands.
        options: What follows.
        positionals: What stands without a name in front, in order. Where an option has its name, both say the same.
        notes: Shown under the options in help.
        noun: What the options are called in errors.
        suggestions: Names that people try, and what they mean here: an option's name, or a sentence.
    """

    name: str
    help: str
    example: str
    options: Sequence[Option]
    positionals: Sequence[Option] = ()
    notes: str = ""
    noun: str = "option"
    suggestions: Mapping[str, str] = field(default_factory=dict)

    def parser(self, *, for_completion: bool = False) -> ArgumentParser:
        """Returns the parser of canonical spellings, which also writes the help.

        Args:
            for_completion: Whether it is to become a part of the parser that shells complete by. Such a parser knows
                the choices of values, which `Option.read` checks otherwise, in words of its own.
        """
        metavars = [option.value_name for option in self.positionals]
        parser = ArgumentParser(
            prog=f"arccse {self.name}",
            usage=" ".join(["arccse", self.name, *metavars, "[--option value ...]"]),
            description=f"{self.help}\n\nExample:\n    {self.example}",
            epilog=textwrap.fill(self.notes, 118),
            formatter_class=help_format,
            allow_abbrev=False,
            add_help=not for_completion,
            argument_default=argparse.SUPPRESS,
        )
        if self.positionals:
            explained = " ".join(option.help for option in self.positionals)
            parser.add_argument("_positional", nargs="*", metavar=" ".join(metavars), help=_escape(explained))
        groups = {}
        for option in self.options:
            if option.group not in groups:
                groups[option.group] = parser.add_argument_group(option.group) if option.group else parser
            arguments: dict[str, Any] = {"metavar": option.value_name}
            if option.type == "switch":
                arguments = {"action": "store_const", "const": "true"}
            elif option.many:
                arguments |= {"nargs": "+", "action": "extend" if option.adds else "store"}
            elif option.flag:
                arguments |= {"nargs": "?", "const": "true"}
            if for_completion and option.choices:
                arguments["choices"] = option.choices
            shown = _help(option) if option.group else argparse.SUPPRESS
            groups[option.group].add_argument(f"--{option.name}", help=shown, **arguments)
        return parser

    def parse(self, argv: Sequence[str]) -> Settings:
        """Returns what `argv` gives, as text by the options' names.

        Raises:
            UserError: There is no such option, a value is missing, or one stands where none belongs.
        """
        parser = self.parser()
        # Behind -- nothing is an option.
        end = argv.index("--") if "--" in argv else len(argv)
        namespace, extra = parser.parse_known_intermixed_args(_canonical(argv[:end], self))
        given: Settings = dict(vars(namespace))
        positional = [*given.pop("_positional", []), *extra]
        dashed = next((value for value in positional if value.startswith("-") and len(value) > 1), None)
        if dashed:
            raise UserError(f"{dashed}: there is no such {self.noun}; names begin with -- (see --help)")
        return given | self._place([*positional, *argv[end + 1 :]], given)

    def unknown(self, name: str) -> UserError:
        """Returns the error for an option that does not exist."""
        names = [option.name for option in self.options]
        meant = self.suggestions.get(name, "")
        if meant in names:
            hint = f"; did you mean --{meant}?"
        else:
            hint = f"; {meant}" if meant else did_you_mean(name, names, "--")
        return UserError(f"--{name}: there is no such {self.noun}{hint or ' (see --help)'}")

    def _place(self, values: list[str], given: Settings) -> Settings:
        """Returns what stands without a name, under the positionals' names."""
        if not values:
            return {}
        many = any(option.many for option in self.positionals)
        if len(values) > len(self.positionals) and not many:
            raise UserError(f"{values[-1]!r}: belongs to no {self.noun}; values follow their --name, and most take one")
        if many:
            (option,) = self.positionals
            return {option.name: [*values, *given.get(option.name, [])]}
        placed: Settings = {option.name: value for option, value in zip(self.positionals, values, strict=False)}
        for name, value in placed.items():
            if name in given:
                raise UserError(f"--{name}: is given twice, {value!r} is the other one")
        return placed

    def read(self, given: Settings) -> dict[str, Any]:
        """Returns the value of every option: the one that was given, or its default.

        Raises:
            UserError: A value is of another type, none of the choices or out of range; or one is missing.
        """
        options = [*self.options, *self.positionals]
        values = {}
        for option in options:
            if option.name in given:
                values[option.name] = option.read(given[option.name])
            elif option.required and option.name not in values:
                label = option.metavar if option in self.positionals else f"--{option.name}"
                raise UserError(f"{label}: is missing, and needed; {first_sentence(option.help)} (see --help)")
            else:
                values.setdefault(option.name, option.default)
        return values


help_format = functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=34, width=120)


class ArgumentParser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are raised."""

    def error(self, message: str) -> NoReturn:
        """Raises what is wrong as a `UserError`, in this package's words."""
        message = message.removeprefix("argument ")
        for wanted in ("expected one argument", "expected at least one argument"):
            message = message.replace(wanted, "needs a value")
        raise UserError(f"{message} (see --help)")


def _canonical(argv: Sequence[str], command: Command) -> list[str]:
    """Returns `argv` with every option spelled as the table spells it, and a note printed for every old name."""
    names = {option.name: option for option in command.options}
    aliases = {alias: option.name for option in command.options for alias in option.aliases}
    old_names = {old: option.name for option in command.options for old in option.old_names}
    tokens: list[str] = []
    for token in argv:
        if not token.startswith("--"):
            if tokens and tokens[-1].startswith("--") and "=" not in tokens[-1] and _is_negative(token):
                tokens[-1] += f"={token}"  # argparse takes -1e-5 and -inf for options
            else:
                tokens.append(token)
            continue
        name, equals, value = token[2:].partition("=")
        name = name.replace("-", "_")
        if name in old_names:
            note_new_name(name, old_names[name])
        name = aliases.get(name, old_names.get(name, name))
        negated = names.get(name.removeprefix("no_"))
        if name not in names and name.startswith("no_") and negated and negated.type == "bool" and not equals:
            name, equals, value = negated.name, "=", "false"
        if name not in names and name != "help":
            raise command.unknown(name)
        tokens.append(f"--{name}{equals}{value}")
    return tokens


@functools.cache  # once for each name
def note_new_name(old: str, new: str) -> None:
    """Prints that an old name still works, and which is the new one; on the first process of each machine."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"note: --{old} is called --{new} now; the old name goes with the next version", file=sys.stderr)


def _is_negative(token: str) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return token.startswith("-")


def _help(option: Option) -> str:
    shown = " ".join(map(str, option.default)) if isinstance(option.default, list | tuple) else option.default
    default = "" if shown in (None, "", False) else f" (default: {shown})"
    return _escape(option.help + default)


def _escape(text: str) -> str:
    return text.replace("%", "%%")  # argparse formats help with %


def first_sentence(text: str) -> str:
    """Returns what stands before the first full stop."""
    return text.partition(". ")[0].rstrip(".")
