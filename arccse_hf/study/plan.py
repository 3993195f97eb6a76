"""A study as a YAML file: a base recipe, variants of it, seeds; and the runs that it stands for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..errors import UserError
from ..options import Settings
from ..training.config import merge_settings, parse_arguments, read_values
from ..training.config_file import read_config

UNTRAINED = "untrained"

_KEYS = (
    "output_dir base settings variants grid seeds baseline untrained tuning test_tasks published keep_models launcher"
).split()
_TUNING_KEYS = ("grid", "seed", "settings")


@dataclass(frozen=True)
class PlannedRun:
    """One training (or, for `untrained`, none) and the scores of what came out.

    Args:
        name: its folder within the study's: `untrained`, `trials/VARIANT/VALUES` or `runs/VARIANT/seed-N`.
        kind: a trial of the tuning is measured on the selection metric alone; the others on the test tasks.
        variant: the row of the table that it belongs to.
        fields: what is set over the base recipe, without the tuned values of a `run`.
        seed: of initialisation, dropout, order of the data and span masks.
        choice: the values that a trial tries.
    """

    name: str
    kind: Literal["untrained", "trial", "run"]
    variant: str
    fields: Settings
    seed: int
    choice: Settings = field(default_factory=dict)


@dataclass
class StudyConfig:
    """What a study file says.

    Args:
        output_dir: where everything goes.
        base: the fields of the recipe that every run starts from.
        settings: fields set over the recipe in every run.
        variants: the rows of the table, each with the fields that make it.
        axes: the grid's fields and their values, where the variants come from a grid; empty otherwise.
        seeds: each variant is trained once a seed.
        baseline: the variant that the others are compared with.
        untrained: whether the encoder is scored as it comes too.
        trials: choices of fields that each variant tries before it is trained; none without tuning.
        trial_fields: fields set in trials only.
        trial_seed: the seed of the trials.
        test_tasks: what the trained models are scored on.
        published: a row of `configs/published/spearman.yaml` that the table shows beside ours.
        keep_models: whether the weights stay once they are scored.
        launcher: the command that starts a run's script, `accelerate launch ...`; without one, runs share this process.
    """

    output_dir: Path
    base: Settings
    settings: Settings
    variants: dict[str, Settings]
    axes: dict[str, list[str]] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [42])
    baseline: str = ""
    untrained: bool = False
    trials: list[Settings] = field(default_factory=list)
    trial_fields: Settings = field(default_factory=dict)
    trial_seed: int = 0
    test_tasks: list[str] = field(default_factory=lambda: ["sts"])
    published: str | None = None
    keep_models: bool = False
    launcher: list[str] = field(default_factory=list)

    def runs(self) -> list[PlannedRun]:
        """All runs in the order in which they are done: the untrained encoder, the trials, then seed after seed."""
        runs = [PlannedRun(UNTRAINED, "untrained", UNTRAINED, {}, 0)] if self.untrained else []
        for choice in self.trials:
            for variant, fields in self.variants.items():
                name = f"trials/{folder_name(variant)}/{folder_name(format_choice(choice))}"
                tried = merge_settings(fields, self.trial_fields, choice)
                runs.append(PlannedRun(name, "trial", variant, tried, self.trial_seed, choice))
        for seed in self.seeds:
            for variant, fields in self.variants.items():
                runs.append(PlannedRun(f"runs/{folder_name(variant)}/seed-{seed}", "run", variant, fields, seed))
        return runs

    def config(self, run: PlannedRun, tuned: Settings | None = None) -> Settings:
        """Every field that `run` sets, the recipe's own included; `tuned` are the values that its trials chose."""
        own = {"seed": str(run.seed), "output_dir": str(self.output_dir / run.name), "overwrite_output_dir": "true"}
        return merge_settings(self.base, self.settings, run.fields, tuned or {}, own)

    def check_fields(self) -> None:
        """Raises UserError, with the run's name, where a run has a field or a value that `arccse train` has not."""
        self._check(read_values)

    def check(self) -> None:
        """Raises UserError where the values of a run do not fit together either; imports torch."""
        self._check(parse_arguments)

    def _check(self, parse: Callable[[Settings], object]) -> None:
        for run in self.runs():
            try:
                parse(self.config(run))
            except UserError as error:
                raise UserError(f"{run.name}: {error}") from error


def read_plan(
    path: Path,
    output_dir: Path | None = None,
    overrides: Settings | None = None,
    seeds: Sequence[str] | None = None,
) -> StudyConfig:
    """Reads a study file.

    Args:
        path: YAML; see `configs/studies/`.
        output_dir: instead of the file's.
        overrides: fields that go over the file's `settings`, and under its variants.
        seeds: instead of the file's.

    Raises:
        UserError: an unreadable file, a key that does not exist, or values that make no study.
    """
    content = read_config(path)
    _check_keys(path, content, _KEYS)
    axes = {name: as_list(value) for name, value in _mapping(path, content, "grid").items()}
    variants = {name: _fields(path, name, value) for name, value in _mapping(path, content, "variants").items()}
    if bool(axes) == bool(variants):
        raise UserError(f"{path}: give either variants (a name and its fields each) or a grid (a field and its values)")
    if axes:
        variants = {format_choice(choice): choice for choice in _products(axes)}
    folders = [folder_name(variant) for variant in variants]
    if len(set(folders)) < len(folders) or UNTRAINED in variants:
        raise UserError(f"{path}: the variants need different names, and none may be {UNTRAINED}")
    baseline = content.get("baseline", next(iter(variants)))
    if baseline not in variants:
        raise UserError(f"{path}: baseline {baseline}: is no variant; choose from {', '.join(variants)}")
    tuning = _mapping(path, content, "tuning")
    _check_keys(path, tuning, _TUNING_KEYS)
    if tuning and not tuning.get("grid"):
        raise UserError(f"{path}: tuning: needs a grid, a field and the values to try")
    tried = {name: as_list(value) for name, value in _mapping(path, tuning, "grid").items()}
    numbers = [_integer(path, "seeds", value) for value in seeds or as_list(content.get("seeds", ["42"]))]
    if not numbers or len(set(numbers)) < len(numbers):
        raise UserError(f"{path}: seeds: give one or more, each once")
    if output_dir is None and "output_dir" not in content:
        raise UserError(f"{path}: has no output_dir; give --output_dir")
    if "base" not in content:
        raise UserError(f"{path}: has no base, the recipe that every run starts from")
    return StudyConfig(
        output_dir=output_dir or Path(content["output_dir"]),
        base=read_config(path.parent / content["base"]),
        settings=merge_settings(_mapping(path, content, "settings"), overrides or {}),
        variants=variants,
        axes=axes,
        seeds=numbers,
        baseline=baseline,
        untrained=content.get("untrained", "false").lower() == "true",
        trials=_products(tried) if tried else [],
        trial_fields=_mapping(path, tuning, "settings"),
        trial_seed=_integer(path, "tuning: seed", tuning.get("seed", "0")),
        test_tasks=as_list(content.get("test_tasks", ["sts"])),
        published=content.get("published"),
        keep_models=content.get("keep_models", "false").lower() == "true",
        launcher=content.get("launcher", "").split(),
    )


def format_choice(choice: Settings) -> str:
    """`learning_rate=3e-5, temperature=0.05`"""
    return ", ".join(f"{name}={' '.join(as_list(value))}" for name, value in choice.items())


def folder_name(name: str) -> str:
    """A name as one part of a path."""
    return "".join(letter if letter.isalnum() or letter in "-_=.+" else "_" for letter in name)


def _products(axes: Mapping[str, Sequence[str]]) -> list[Settings]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def as_list(value: object) -> list[str]:
    return list(value) if isinstance(value, list) else [str(value)]


def _mapping(path: Path, content: Settings, key: str) -> dict:
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise UserError(f"{path}: {key}: must hold lines of `name: value`")
    return value


def _fields(path: Path, variant: str, value: object) -> Settings:
    if not isinstance(value, dict):
        raise UserError(f"{path}: variants: {variant}: must hold its fields as `name: value` ({{}} for none)")
    return value


def _integer(path: Path, key: str, value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise UserError(f"{path}: {key}: {value} is not a whole number") from None


def _check_keys(path: Path, content: Mapping, known: Sequence[str]) -> None:
    for key in content:
        if key not in known:
            raise UserError(f"{path}: {key}: there is no such key; choose from {', '.join(known)}")
