"""An ablation as a YAML file: a base recipe, variants of it, seeds; and the runs that it stands for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from ..cli.options import DTYPES, Option, Settings
from ..cli.recipes import find_recipe
from ..errors import UserError
from ..training.config import merge_settings, parse_arguments, read_values
from ..training.config_file import read_config

if TYPE_CHECKING:
    from ..training.arguments import ArcCSETrainingArguments, DataArguments
    from ..training.model_arguments import ModelArguments

Parsed = TypeVar("Parsed")

UNTRAINED = "untrained"

_KEYS = (
    "output_dir base settings variants grid seeds baseline untrained tuning test_tasks test_dtype published "
    "keep_models launcher"
).split()
_TUNING_KEYS = ("grid", "seed", "settings")


@dataclass(frozen=True)
class PlannedRun:
    """One training (or, for `untrained`, none) and the scores of what came out.

    Args:
        name: Its folder within the study's: `untrained`, `trials/VARIANT/VALUES` or `runs/VARIANT/seed-N`.
        kind: A trial of the tuning is measured on the selection metric alone; the others on the test tasks.
        variant: The row of the table that it belongs to.
        fields: What is set over the base recipe, without the tuned values of a `run`.
        seed: Of initialisation, dropout, order of the data and span masks.
        choice: The values that a trial tries.
    """

    name: str
    kind: Literal["untrained", "trial", "run"]
    variant: str
    fields: Settings
    seed: int
    choice: Settings = field(default_factory=dict)


@dataclass
class StudyConfig:
    """An ablation: variants x seeds, as a study file or `reproduce` states it.

    Args:
        output_dir: The folder of all runs and of the results.
        base: The fields of the recipe that every run starts from.
        variants: The rows of the table, each with the fields that make it.
        settings: Fields set over the recipe in every run.
        axes: The grid's fields and their values, where the variants come from a grid; empty otherwise.
        seeds: Each variant is trained once per seed.
        baseline: The variant that the others are compared with; the first by default.
        untrained: Whether the encoder is scored as it comes too.
        trials: Choices of fields that each variant tries before it is trained; none without tuning.
        trial_fields: Fields set in trials only.
        trial_seed: The seed of the trials.
        test_tasks: What the trained models are scored on.
        test_dtype: Of the weights and the computation there, one of `DTYPES`.
        published: A row of `configs/published/spearman.yaml` that the table shows beside ours.
        keep_models: Whether the weights stay once they are scored.
        launcher: The command that starts a run's script, `accelerate launch ...`; without one, runs share this process.
        source: What errors begin with: the path of the file.

    Raises:
        UserError: Variants of one name, a baseline that is none of them, or no seed or one that repeats.
    """

    output_dir: Path
    base: Settings
    variants: Mapping[str, Settings]
    settings: Settings = field(default_factory=dict)
    axes: Mapping[str, list[str]] = field(default_factory=dict)
    seeds: Sequence[int] = (42,)
    baseline: str = ""
    untrained: bool = False
    trials: Sequence[Settings] = ()
    trial_fields: Settings = field(default_factory=dict)
    trial_seed: int = 0
    test_tasks: Sequence[str] = ("sts",)
    test_dtype: str = "float32"
    published: str | None = None
    keep_models: bool = False
    launcher: Sequence[str] = ()
    source: str = "study"
    inputs: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict, init=False, repr=False)
    """What `inputs_of` found while this study is at work."""

    def __post_init__(self):
        folders = {folder_name(variant) for variant in self.variants}
        if len(folders) < len(self.variants) or UNTRAINED in self.variants:
            raise UserError(f"{self.source}: the variants need different names, and none may be {UNTRAINED}")
        self.baseline = self.baseline or next(iter(self.variants))
        if self.baseline not in self.variants:
            names = ", ".join(self.variants)
            raise UserError(f"{self.source}: baseline {self.baseline}: is no variant; choose from {names}")
        if self.test_dtype not in DTYPES:
            raise UserError(f"{self.source}: test_dtype: {self.test_dtype}: choose from {', '.join(DTYPES)}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"{self.source}: seeds: give one or more, each once")

    def runs(self) -> list[PlannedRun]:
        """Returns all runs in the order in which they are done: the untrained encoder, the trials, seed after seed."""
        runs = [PlannedRun(UNTRAINED, "untrained", UNTRAINED, {}, 0)] if self.untrained else []
        for choice in self.trials:
            for variant, fields in self.variants.items():
                name = f"trials/{folder_name(variant)}/{folder_name(format_choice(choice))}"
                trial_fields = merge_settings(fields, self.trial_fields, choice)
                runs.append(PlannedRun(name, "trial", variant, trial_fields, self.trial_seed, choice))
        for seed in self.seeds:
            for variant, fields in self.variants.items():
                runs.append(PlannedRun(f"runs/{folder_name(variant)}/seed-{seed}", "run", variant, fields, seed))
        return runs

    def run_settings(self, run: PlannedRun, tuned: Settings | None = None) -> Settings:
        """Returns every field that `run` sets, the recipe's own included; `tuned` are the values its trials chose."""
        identity: Settings = {
            "seed": str(run.seed),
            "output_dir": str(self.output_dir / run.name),
            "overwrite_output_dir": "true",
        }
        return merge_settings(self.base, self.settings, run.fields, tuned or {}, identity)

    def check_fields(self) -> None:
        """Raises UserError, with the run's name, where a run has a field or a value that `arccse train` has not."""
        self._check(read_values)

    def check(self) -> list[tuple[ModelArguments, DataArguments, ArcCSETrainingArguments]]:
        """Returns the arguments of each run; imports torch.

        Raises:
            UserError: The values of a run do not fit together, or `check_fields` would raise.
        """
        return self._check(parse_arguments)

    def _check(self, parse: Callable[[Settings], Parsed]) -> list[Parsed]:
        parsed = []
        for run in self.runs():
            try:
                parsed.append(parse(self.run_settings(run)))
            except UserError as error:
                raise UserError(f"{run.name}: {error}") from error
        return parsed


def read_study(
    path: Path,
    output_dir: Path | None = None,
    overrides: Settings | None = None,
    seeds: Sequence[int] | None = None,
) -> StudyConfig:
    """Reads a study file.

    Args:
        path: YAML; see `configs/studies/`.
        output_dir: Instead of the file's.
        overrides: Fields that go over the file's `settings`, and under its variants.
        seeds: Instead of the file's.

    Raises:
        UserError: An unreadable file, a key that does not exist, or values that make no study.
    """
    file = _Section(str(path), read_config(path), _KEYS)
    axes, variants = file.choices("grid"), file.groups("variants")
    if bool(axes) == bool(variants):
        raise UserError(f"{path}: give either variants (a name and its fields each) or a grid (a field and its values)")
    tuning = _Section(f"{path}: tuning", file.settings("tuning"), _TUNING_KEYS)
    trials = all_choices(tuning.choices("grid"))
    if tuning.content and not trials:
        raise UserError(f"{path}: tuning: needs a grid, a field and the values to try")
    if output_dir is None and "output_dir" not in file.content:
        raise UserError(f"{path}: has no output_dir; give --output_dir")
    if "base" not in file.content:
        raise UserError(f"{path}: has no base, the recipe that every run starts from")
    base = file.text("base")  # a path, or the name of a recipe that ships with the package
    return StudyConfig(
        source=str(path),
        output_dir=output_dir or Path(file.text("output_dir")),
        base=read_config(path.parent / base if Path(base).suffix else find_recipe(base)),
        settings=merge_settings(file.settings("settings"), overrides or {}),
        variants={format_choice(choice): choice for choice in all_choices(axes)} if axes else variants,
        axes=axes,
        seeds=seeds or [file.integer("seeds", text) for text in file.texts("seeds", "42")],
        baseline=file.text("baseline"),
        untrained=file.flag("untrained"),
        trials=trials,
        trial_fields=tuning.settings("settings"),
        trial_seed=tuning.integer("seed", tuning.text("seed", "0")),
        test_tasks=file.texts("test_tasks", "sts"),
        test_dtype=file.text("test_dtype", "float32"),
        published=file.text("published") or None,
        keep_models=file.flag("keep_models"),
        launcher=file.text("launcher").split(),
    )


def format_choice(choice: Settings) -> str:
    """Returns a choice of values as a name: `learning_rate=3e-5, temperature=0.05`."""
    return ", ".join(f"{name}={' '.join(as_list(value))}" for name, value in choice.items())


def folder_name(name: str) -> str:
    """Returns a name as one part of a path."""
    return "".join(letter if letter.isalnum() or letter in "-_=.+" else "_" for letter in name)


def all_choices(axes: Mapping[str, Sequence[str]]) -> list[Settings]:
    """Returns every combination of one value per field; none where there are no fields.

    Example:
        >>> all_choices({"seed": ["1", "2"], "temperature": ["0.1"]})
        [{'seed': '1', 'temperature': '0.1'}, {'seed': '2', 'temperature': '0.1'}]
    """
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())] if axes else []


def as_list(value: object) -> list[str]:
    """Returns a value of a recipe as a list: of several texts, or of one."""
    return list(value) if isinstance(value, list) else [str(value)]


class _Section:
    """A study file or a part of it, of which every key is read as one type; errors begin with `where`."""

    def __init__(self, where: str, content: Settings, known: Sequence[str]):
        self.where, self.content = where, content
        for key in content:
            if key not in known:
                raise UserError(f"{where}: {key}: there is no such key; choose from {', '.join(known)}")

    def text(self, key: str, default: str = "") -> str:
        value = self.content.get(key, default)
        if not isinstance(value, str):
            raise UserError(f"{self.where}: {key}: takes one value")
        return value

    def texts(self, key: str, default: str) -> list[str]:
        return as_list(self.content.get(key, default))

    def flag(self, key: str) -> bool:
        text = self.text(key, "false")
        try:
            return bool(Option(key, "bool").read(text))
        except UserError:
            raise UserError(f"{self.where}: {key}: {text} is neither true nor false") from None

    def integer(self, key: str, text: str) -> int:
        try:
            return int(text)
        except ValueError:
            raise UserError(f"{self.where}: {key}: {text} is not a whole number") from None

    def settings(self, key: str) -> Settings:
        value = self.content.get(key, {})
        if not isinstance(value, dict):
            raise UserError(f"{self.where}: {key}: must hold lines of `name: value`")
        return value

    def choices(self, key: str) -> dict[str, list[str]]:
        return {name: as_list(value) for name, value in self.settings(key).items()}

    def groups(self, key: str) -> dict[str, Settings]:
        groups: dict[str, Settings] = {}
        for name, value in self.settings(key).items():
            if not isinstance(value, dict):
                raise UserError(f"{self.where}: {key}: {name}: must hold its fields as `name: value` ({{}} for none)")
            groups[name] = value
        return groups
