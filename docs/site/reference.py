"""The reference pages, written from the command lines and the fields of a run whenever the site is built."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from arccse_hf.cli.command import first_sentence
from arccse_hf.cli.options import Interval, Option
from arccse_hf.commands import VERBS
from arccse_hf.training.fields import GROUPS, load_fields

ROOT = Path(__file__).parents[2]
TRAINER = "https://huggingface.co/docs/transformers/main_classes/trainer"


def command_line_page() -> str:
    """Returns every command with its example and options, in Markdown."""
    parts = [
        "# Command line",
        "`arccse COMMAND --help` prints the same; `python -m arccse_hf` is the same as `arccse`. Options may be "
        "spelled with hyphens. Several values are separated by spaces.",
    ]
    for build, _ in VERBS.values():
        command = build()
        parts += [f"## {command.name}", _prose(command.help), f"```bash\n{command.example}\n```"]
        parts += [_entry(option, f"`{option.metavar}`") for option in command.positionals]
        if command.name == "train":
            parts.append("Its options are the fields of a run: [Configuration](configuration.md).")
        else:
            parts += [_entry(option) for option in command.options if option.group]
            parts.append(_prose(command.notes))
    return _joined(parts)


def configuration_page() -> str:
    """Returns every field of a run and every recipe, in Markdown."""
    fields = load_fields()
    parts = [
        "# Configuration",
        "A recipe is a YAML or JSON file of `name: value`. The command line has the same names and goes over the file: "
        "`arccse train RECIPE --temperature 0.1`. In Python, `train(texts, model, output_dir, temperature=0.1)` takes "
        "them too.",
    ]
    for group in GROUPS:
        parts.append(f"## {group[0].upper()}{group[1:]}")
        parts += [_entry(field) for field in fields if field.group == group]
    rest = ", ".join(f"`{field.name}`" for field in fields if field.group is None)
    parts += [
        "## Other fields of transformers.TrainingArguments",
        f"They work as [transformers]({TRAINER}) explains them: {rest}.",
        "## Recipes",
        "These ship with the package and are found by name.",
        *_recipes("", "train"),
        "## Studies",
        *_recipes("studies", "study"),
    ]
    return _joined(parts)


def _recipes(folder: str, verb: str) -> Iterable[str]:
    for path in sorted((ROOT / "configs" / folder).glob("*.yaml")):
        about = []
        for line in path.read_text(encoding="utf-8").splitlines():
            text = line.removeprefix("#").strip()
            if not line.startswith("#") or not text:
                break
            about.append(text)
        yield f"`arccse {verb} {path.stem}`\n:   {_escaped(first_sentence(' '.join(about)))}."


def _entry(option: Option, name: str = "") -> str:
    """Returns an option as an item of a definition list."""
    names = name or ", ".join(f"`--{each}`" for each in (option.name, *option.aliases))
    lines = [_escaped(option.help), *_allowed(option)]
    return f"{names}\n:   {'<br>'.join(line for line in lines if line)}"


def _allowed(option: Option) -> Iterable[str]:
    """Yields what values there are and which one holds by default."""
    kind = {"int": "whole number", "float": "number", "bool": "true or false", "switch": "no value"}.get(
        option.type, ""
    )
    if option.choices:
        kind = " · ".join(f"`{choice or 'nothing'}`" for choice in option.choices)
    if option.interval:
        kind += f" {Interval(option.interval)}"
    if option.many:
        kind = f"one or more: {kind}" if kind else "one or more"
    default = option.default
    if isinstance(default, list | tuple):
        default = " ".join(map(str, default))
    facts = [kind, "required" if option.required else "", "" if default in (None, "") else f"default `{default}`"]
    if any(facts):
        yield f"<small>{', '.join(fact for fact in facts if fact)}</small>"
    if option.reason:
        yield f"<small>{_escaped(option.reason)}</small>"


def _prose(text: str) -> str:
    return _escaped(text).replace("\n", "\n\n")


def _escaped(text: str) -> str:
    """Returns `text` with what Markdown would take for HTML or emphasis shown as it is, but for code spans."""
    spans = text.split("`")
    for position in range(0, len(spans), 2):
        for sign in "<*[":
            spans[position] = spans[position].replace(sign, f"\\{sign}")
    return "`".join(spans)


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
