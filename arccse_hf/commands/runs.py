"""The verbs of training runs: train, report, study, reproduce, tune."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..cli.command import Command
from ..cli.options import Option, Settings
from ..cli.recipes import find_recipe
from ..training.config import canonical_names, merge_settings, read_values
from ..training.config_file import read_config
from ..training.field_rules import SUGGESTIONS
from ..training.fields import load_fields
from .shared_options import as_path, output_dir_option

_SET_BY_STUDY = ("output_dir", "overwrite_output_dir", "resume_from_checkpoint")
_RECIPE = Option(
    "config", metavar="RECIPE", required=True, help="Name of a recipe that ships with the package, or its path."
)
_RESUME = Option("resume", "switch", help="Go on: do what is not done yet.")

REPORT = Command(
    name="report",
    help="Draw what happened in runs: one page with curves, geometry, cosines and scores, and its pictures.",
    example="arccse report runs/simcse runs/arccse --output_dir report",
    positionals=(
        Option("runs", metavar="RUN ...", many=True, required=True, help="Output folders of `arccse train`."),
    ),
    options=(output_dir_option("Folder for report.html and its pictures.", default="report"),),
)


_PICTURES = "The pictures need matplotlib: pip install 'arccse-hf[report]'."
_SPACE_LINE = "learning_rate: {low: 1e-5, high: 1e-4, log: true}"


def _fields(*excluded: str) -> tuple[Option, ...]:
    """Returns the fields of a run that a study takes too; help does not list them."""
    return tuple(replace(field, group=None, required=False) for field in load_fields() if field.name not in excluded)


def study_command() -> Command:
    """Returns the command line of `arccse study`."""
    return Command(
        name="study",
        help="Train variants of a recipe over several seeds, and compare them: table, intervals, pictures.",
        example="arccse study objectives --train_file sentences.txt --eval_data hub --seeds 1 2 3",
        positionals=(
            Option(
                "config",
                metavar="STUDY",
                required=True,
                help="Name of a study that ships with the package, or its path.",
            ),
        ),
        options=(
            output_dir_option("Folder of the runs and results, instead of the file's."),
            _RESUME,
            Option(
                "seeds",
                "int",
                many=True,
                metavar="SEED",
                interval="[0, 4294967295]",
                help="Instead of the file's.",
            ),
            Option("run", "int", interval="[0, 1000000]", help="Do this one run alone, for array jobs."),
            Option("list", "switch", help="List the runs and which are done."),
            *_fields(*_SET_BY_STUDY, "seed"),
        ),
        notes="Every field of `arccse train` can be given too; it goes over the study's settings, and under what its "
        f"variants set. {_PICTURES}",
        noun="field",
        suggestions=SUGGESTIONS | {"seed": "seeds"},
    )


def reproduce_command() -> Command:
    """Returns the command line of `arccse reproduce`."""
    return Command(
        name="reproduce",
        help="Train a recipe, score it on the seven STS sets, and print the published row above ours.",
        example="arccse reproduce simcse-bert-base --train_file sentences.txt --eval_data SENTEVAL",
        positionals=(_RECIPE,),
        options=(
            output_dir_option("Folder, instead of runs/reproduce/RECIPE."),
            _RESUME,
            *_fields(*_SET_BY_STUDY),
        ),
        notes=f"Every field of `arccse train` can be given too; it goes over the recipe. {_PICTURES}",
        noun="field",
        suggestions=SUGGESTIONS,
    )


def tune_command() -> Command:
    """Returns the command line of `arccse tune`."""
    return Command(
        name="tune",
        help="Look for the best settings of a recipe with Optuna; each trial is a whole run.",
        example="arccse tune minilm-cls --space space.yaml --n_trials 20 --train_file sentences.txt --eval_data hub",
        positionals=(_RECIPE,),
        options=(
            Option(
                "space",
                metavar="FILE",
                required=True,
                help=f"YAML: a line per field, such as {_SPACE_LINE}, or a list of values.",
            ),
            Option("n_trials", "int", default=20, interval="[1, 1000000]", help="Trials, earlier ones included."),
            Option("storage", metavar="URL", help="Optuna's, for several machines; by default a file in the folder."),
            Option("sampler_seed", "int", interval="[0, 4294967295]", help="Of the search; the runs have --seed."),
            output_dir_option("Folder of the trials and the result, instead of runs/tune/RECIPE."),
            _RESUME,
            *_fields(*_SET_BY_STUDY),
        ),
        notes="Every field of `arccse train` can be given too; it goes over the recipe, and under the space.",
        noun="field",
        suggestions=SUGGESTIONS,
    )


def train(argv: Sequence[str]) -> int:
    """Trains as `argv` says."""
    read_values(argv)  # before anything is imported
    from ..training.script import main

    return main(argv)


def report(argv: Sequence[str]) -> int:
    """Draws the report of runs."""
    values = REPORT.read(REPORT.parse(argv))
    from ..report import write_report

    print(write_report([as_path(run) for run in values["runs"]], as_path(values["output_dir"])))
    return 0


def study(argv: Sequence[str]) -> int:
    """Trains variants of a recipe over seeds."""
    from ..study.plan import read_study

    values, overrides = _own_and_fields(study_command(), argv)
    path, output = find_recipe(values["config"], "studies"), as_path(values["output_dir"])
    read_study(path, output, overrides, values["seeds"]).check_fields()  # before anything is imported
    from ..study.command import run_study

    return run_study(
        path,
        overrides=overrides,
        output=output,
        seeds=values["seeds"],
        resume=bool(values["resume"]),
        only=values["run"],
        list_runs=bool(values["list"]),
    )


def reproduce(argv: Sequence[str]) -> int:
    """Trains a recipe and shows the published row above ours."""
    values, overrides = _own_and_fields(reproduce_command(), argv)
    path = find_recipe(values["config"])
    read_values(merge_settings(read_config(path), overrides))  # before anything is imported
    from ..study.command import reproduce as run

    return run(path, overrides=overrides, output=as_path(values["output_dir"]), resume=bool(values["resume"]))


def tune(argv: Sequence[str]) -> int:
    """Looks for the best fields of a recipe."""
    from ..study.search_space import read_space

    values, overrides = _own_and_fields(tune_command(), argv)
    path = find_recipe(values["config"])
    settings = merge_settings(canonical_names(read_config(path)), overrides)
    settings.pop("output_dir", None)
    read_values(settings)  # before anything is imported
    space = read_space(as_path(values["space"]))
    from ..study.tune import Search
    from ..study.tune import tune as run

    output = as_path(values["output_dir"]) or Path("runs", "tune", path.stem)
    search = Search(
        path.stem,
        settings,
        space,
        output,
        **{name: values[name] for name in ("n_trials", "storage")},
        seed=values["sampler_seed"],
    )
    return run(search, resume=bool(values["resume"]))


def _own_and_fields(command: Command, argv: Sequence[str]) -> tuple[dict[str, Any], Settings]:
    """Returns the values of a command's own options, and the fields of a run among what was given, as text."""
    given = command.parse(argv)
    values = command.read(given)
    fields = {option.name for option in command.options if option.group is None}
    return values, {name: value for name, value in given.items() if name in fields}
