"""The verbs of `arccse`: the options of each, and the function that does it.

What does the work is imported once the command line is known to be right: help and errors come without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .command_line import Command
from .encoder_commands import ENCODER_VERBS
from .options import Option, Settings
from .recipes import find_recipe
from .shared_options import (
    BATCH_SIZE,
    DTYPE,
    ID_COLUMN,
    INPUT,
    MAX_SEQ_LENGTH,
    MODEL,
    POOLING,
    TEXT_COLUMN,
    output_dir_option,
)
from .training.config import merge_settings, read_values, train_command
from .training.config_file import read_config
from .training.field_rules import SUGGESTIONS
from .training.fields import load_fields

_SET_BY_STUDY = ("output_dir", "overwrite_output_dir", "resume_from_checkpoint")
_RESUME = Option("resume", "switch", help="Go on: do what is not done yet.")


EVALUATE = Command(
    name="evaluate",
    help="Score encoders with the protocols of the papers; several models are compared with the first.",
    example="arccse evaluate out sentence-transformers/all-MiniLM-L6-v2 --eval_tasks sts geometry --eval_data hub",
    positional=Option(
        "model", metavar="MODEL ...", many=True, help="Folders, hub ids, checkpoints or package:NAME/PATH."
    ),
    options=(
        Option("model", metavar="MODEL", many=True, required=True, help="Folders, hub ids, ...: the same as MODEL ..."),
        Option(
            "eval_tasks",
            many=True,
            commas=True,
            default=["sts"],
            metavar="TASK",
            old_names=("tasks",),
            help="sts (the seven test sets), transfer (seven), geometry, retrieval, single sets like stsb_dev or mr, "
            "your own .csv/.tsv/.jsonl, mteb:TASK.",
        ),
        Option(
            "eval_data",
            metavar="SOURCE",
            old_names=("data",),
            help="A SentEval folder, the word hub, or your own file of scored pairs.",
        ),
        POOLING,
        output_dir_option("Folder for evaluation.json, .md and .csv."),
        BATCH_SIZE,
        DTYPE,
        MAX_SEQ_LENGTH,
        Option("seed", "int", interval="[0, 4294967295]", help="Draws folds, docstring pairs and bootstrap samples."),
    ),
)

ENCODE = Command(
    name="encode",
    help="Embed files of text, on all processes of `accelerate launch`; what is done already is not done again.",
    example="arccse encode --model out --input 'corpus/*.parquet' --text_column text --output_dir embeddings",
    options=(
        MODEL,
        INPUT,
        output_dir_option("Folder for the Parquet files of id and embedding.", required=True),
        TEXT_COLUMN,
        ID_COLUMN,
        POOLING,
        Option("normalize", "switch", help="Scale embeddings to length 1."),
        MAX_SEQ_LENGTH,
        BATCH_SIZE,
        DTYPE,
        Option("output_dtype", choices=("float32", "float16"), default="float32", help="Of what is written."),
        Option(
            "shard_rows",
            "int",
            default=20_000,
            interval="[1, 1000000000]",
            help="Rows of one Parquet file: what a killed run does again.",
        ),
    ),
)

EXPORT = Command(
    name="export",
    help="Write an encoder, or the checkpoint of a run that was stopped, as a finished folder or as an ONNX graph.",
    example="arccse export out/checkpoint-125 --output_dir finished",
    positional=Option("model", metavar="MODEL", required=True, help="Folder, hub id, checkpoint or package:NAME/PATH."),
    options=(
        output_dir_option("A folder that does not exist or is empty.", required=True),
        Option(
            "to",
            choices=("sentence-transformers", "onnx"),
            default="sentence-transformers",
            help="onnx: one graph with pooling and normalisation inside, compared with PyTorch before it is written.",
        ),
        Option("quantize", choices=("int8",), help="With --to onnx: a second graph with int8 weights."),
        POOLING,
        Option(
            "eval_tasks", many=True, commas=True, metavar="TASK", help="With --to onnx: what each graph is scored on."
        ),
        Option(
            "eval_data", metavar="SOURCE", help="A SentEval folder, the word hub, or your own file of scored pairs."
        ),
    ),
)

REPORT = Command(
    name="report",
    help="Draw what happened in runs: one page with curves, geometry, cosines and scores, and its pictures.",
    example="arccse report runs/simcse runs/arccse --output_dir report",
    positional=Option("runs", metavar="RUN ...", many=True, required=True, help="Output folders of `arccse train`."),
    options=(output_dir_option("Folder for report.html and its pictures.", default="report"),),
)


def _fields(*excluded: str) -> tuple[Option, ...]:
    """Returns the fields of a run that a study takes too; help does not list them."""
    return tuple(replace(field, group=None, required=False) for field in load_fields() if field.name not in excluded)


def study_command() -> Command:
    """Returns the command line of `arccse study`."""
    return Command(
        name="study",
        help="Train variants of a recipe over several seeds, and compare them: table, intervals, pictures.",
        example="arccse study objectives --train_file sentences.txt --eval_data hub --seeds 1 2 3",
        positional=Option(
            "config", metavar="STUDY", required=True, help="Name of a study that ships with the package, or its path."
        ),
        options=(
            output_dir_option("Folder of the runs and results, instead of the file's."),
            _RESUME,
            Option(
                "seeds",
                "int",
                many=True,
                commas=True,
                metavar="SEED",
                interval="[0, 4294967295]",
                help="Instead of the file's.",
            ),
            Option("run", "int", interval="[0, 1000000]", help="Do this one run alone, for array jobs."),
            Option("list", "switch", help="List the runs and which are done."),
            *_fields(*_SET_BY_STUDY, "seed"),
        ),
        notes="Every field of `arccse train` can be given too; it goes over the study's settings, and under what its "
        "variants set.",
        noun="field",
        suggestions=SUGGESTIONS | {"seed": "seeds"},
    )


def reproduce_command() -> Command:
    """Returns the command line of `arccse reproduce`."""
    return Command(
        name="reproduce",
        help="Train a recipe, score it on the seven STS sets, and print the published row above ours.",
        example="arccse reproduce simcse-bert-base --train_file sentences.txt --eval_data hub",
        positional=Option(
            "config", metavar="RECIPE", required=True, help="Name of a recipe that ships with the package, or its path."
        ),
        options=(
            output_dir_option("Folder, instead of runs/reproduce/RECIPE."),
            _RESUME,
            *_fields(*_SET_BY_STUDY),
        ),
        notes="Every field of `arccse train` can be given too; it goes over the recipe.",
        noun="field",
        suggestions=SUGGESTIONS,
    )


def train(argv: Sequence[str]) -> int:
    """Trains as `argv` says."""
    read_values(argv)  # before anything is imported
    from .training.script import main

    return main(argv)


def evaluate(argv: Sequence[str]) -> int:
    """Scores encoders."""
    values = EVALUATE.read(EVALUATE.parse(argv))
    from .inference.evaluate import evaluate_and_print

    return evaluate_and_print(
        values["model"],
        values["eval_tasks"],
        data=values["eval_data"],
        output=_path(values["output_dir"]),
        **{name: values[name] for name in ("pooling", "batch_size", "dtype", "max_seq_length", "seed")},
    )


def encode(argv: Sequence[str]) -> int:
    """Embeds files of text."""
    values = ENCODE.read(ENCODE.parse(argv))
    from .inference.encode_files.command import open_and_encode
    from .inference.encode_files.reading import Columns
    from .inference.encode_files.windows import EncodeOptions

    options = EncodeOptions(
        Columns(values["text_column"], values["id_column"]),
        bool(values["normalize"]),
        values["batch_size"],
        values["output_dtype"],
        values["shard_rows"],
    )
    return open_and_encode(
        values["model"],
        values["input"],
        Path(values["output_dir"]),
        options,
        **{name: values[name] for name in ("pooling", "dtype", "max_seq_length")},
    )


def export(argv: Sequence[str]) -> int:
    """Writes a finished folder or a graph."""
    values = EXPORT.read(EXPORT.parse(argv))
    from .inference.export_command import export_and_print

    return export_and_print(
        values["model"],
        Path(values["output_dir"]),
        to=values["to"],
        quantize=values["quantize"] is not None,
        pooling=values["pooling"],
        eval_tasks=values["eval_tasks"] or (),
        eval_data=values["eval_data"],
    )


def report(argv: Sequence[str]) -> int:
    """Draws the report of runs."""
    values = REPORT.read(REPORT.parse(argv))
    from .report import write_report

    print(write_report([Path(run) for run in values["runs"]], Path(values["output_dir"])))
    return 0


def study(argv: Sequence[str]) -> int:
    """Trains variants of a recipe over seeds."""
    from .study.plan import read_study

    values, overrides = _own_and_fields(study_command(), argv)
    path, output = find_recipe(values["config"], "studies"), _path(values["output_dir"])
    read_study(path, output, overrides, values["seeds"]).check_fields()  # before anything is imported
    from .study.command import run_study

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
    from .study.command import reproduce as run

    return run(path, overrides=overrides, output=_path(values["output_dir"]), resume=bool(values["resume"]))


def _own_and_fields(command: Command, argv: Sequence[str]) -> tuple[dict[str, Any], Settings]:
    """Returns the values of a command's own options, and the fields of a run among what was given, as text."""
    given = command.parse(argv)
    values = command.read(given)
    fields = {option.name for option in command.options if option.group is None}
    return values, {name: value for name, value in given.items() if name in fields}


def _path(folder: str | None) -> Path | None:
    return None if folder is None else Path(folder)


VERBS: dict[str, tuple[Callable[[], Command], Callable[[Sequence[str]], int]]] = {
    "train": (lambda: train_command(load_fields()), train),
    "evaluate": (lambda: EVALUATE, evaluate),
    "encode": (lambda: ENCODE, encode),
    "export": (lambda: EXPORT, export),
    **ENCODER_VERBS,
    "report": (lambda: REPORT, report),
    "study": (study_command, study),
    "reproduce": (reproduce_command, reproduce),
}
"""The command line of each verb, and what does it; both take shape when they are asked for."""
