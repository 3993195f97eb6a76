"""The command line for what comes after training: `python -m arccse_hf COMMAND --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import UserError, exit_with

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # --text_column, as run_arccse.py and accelerate spell options, is --text-column.
    context_settings={"token_normalize_func": lambda name: name.replace("_", "-")},
)


@app.callback()
def _app() -> None:
    """Evaluate, compare and use sentence encoders."""


@app.command()
def evaluate(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Folders, hub ids, checkpoints or package:NAME/PATH.")
    ],
    tasks: Annotated[
        str,
        typer.Option(
            help="Comma-separated: sts (the seven test sets), transfer (seven), geometry, retrieval, single sets like "
            "stsb_dev or mr, your own .csv/.tsv/.jsonl, mteb:TASK."
        ),
    ] = "sts",
    data: Annotated[
        str | None, typer.Option(help="A SentEval folder, the word hub, or your own file of scored pairs.")
    ] = None,
    pooling: Annotated[
        str | None, typer.Option(help="cls, mean, ...: overrides the model's own; plain encoders use mean by default.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for evaluation.json, .md and .csv.")] = None,
    batch_size: Annotated[int, typer.Option(help="Sentences embedded at once.")] = 64,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    max_seq_length: Annotated[int | None, typer.Option(help="Tokens a sentence is cut to.")] = None,
    seed: Annotated[int | None, typer.Option(help="Draws folds, docstring pairs and bootstrap samples.")] = None,
) -> None:
    """Score encoders with the protocols of the papers; several models are compared with the first."""
    from .inference.evaluate import run

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    status = run(
        models,
        names,
        data=data,
        pooling=pooling,
        output=output,
        batch_size=batch_size,
        dtype=dtype,
        max_seq_length=max_seq_length,
        seed=seed,
    )
    raise typer.Exit(status)


@app.command()
def encode(
    model: Annotated[str, typer.Option(help="Folder, hub id, checkpoint or package:NAME/PATH.")],
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input", help="A file or a quoted glob; may be repeated. .txt .csv .tsv .jsonl [.gz], .parquet."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder for the Parquet files of id and embedding.")],
    text_column: Annotated[str, typer.Option(help="Column of the texts.")] = "text",
    id_column: Annotated[
        str | None, typer.Option(help="Column of ids; without it, the row's number in its file.")
    ] = None,
    pooling: Annotated[str | None, typer.Option(help="cls, mean, ...: overrides the model's own.")] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Scale embeddings to length 1.")] = False,
    max_seq_length: Annotated[int | None, typer.Option(help="Tokens a text is cut to.")] = None,
    batch_size: Annotated[int, typer.Option(help="Texts embedded at once.")] = 64,
    dtype: Annotated[str, typer.Option(help="Of the computation: float32, bfloat16 or float16.")] = "float32",
    output_dtype: Annotated[str, typer.Option(help="Of what is written: float32 or float16.")] = "float32",
    shard_rows: Annotated[int, typer.Option(help="Rows of one Parquet file: what a killed run does again.")] = 20_000,
) -> None:
    """Embed files of text, on all processes of `accelerate launch`; what is done already is not done again."""
    from .inference.encode_files.command import run
    from .inference.encode_files.reading import Columns
    from .inference.encode_files.windows import EncodeOptions

    options = EncodeOptions(Columns(text_column, id_column), normalize, batch_size, output_dtype, shard_rows)
    status = run(model, inputs, output, options, pooling=pooling, dtype=dtype, max_seq_length=max_seq_length)
    raise typer.Exit(status)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Output folders of run_arccse.py.")],
    output: Annotated[Path, typer.Option(help="Folder for report.html and its pictures.")] = Path("report"),
) -> None:
    """Draw what happened in runs: one page with curves, geometry, cosines and scores, and its pictures."""
    from .report import write_report

    print(write_report(runs, output))


FIELDS = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings=FIELDS, add_help_option=False)
def train(context: typer.Context) -> None:
    """Train an encoder: [RECIPE] [--field value ...], as run_arccse.py does."""
    from .training.script import cli

    cli(context.args)


@app.command(context_settings=FIELDS)
def study(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="STUDY.yaml [--field value ...]", help="See configs/studies/.")],
    output: Annotated[Path | None, typer.Option(help="Folder of the runs and results, instead of the file's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on: do the runs that are not done.")] = False,
    seeds: Annotated[str | None, typer.Option(help="Comma-separated, instead of the file's.")] = None,
    run: Annotated[int | None, typer.Option(help="Do this one run alone, for array jobs.")] = None,
    list_runs: Annotated[bool, typer.Option("--list", help="List the runs and which are done.")] = False,
) -> None:
    """Train variants of a recipe over several seeds, and compare them: table, intervals, pictures.

    Any field of run_arccse.py can be given; it goes over the study's settings, and under what its variants set.
    """
    from .study.command import run_study

    status = run_study(
        config,
        overrides=context.args,
        output=output,
        seeds=seeds.split(",") if seeds else None,
        resume=resume,
        only=run,
        list_runs=list_runs,
    )
    raise typer.Exit(status)


@app.command(context_settings=FIELDS)
def reproduce(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml [--field value ...]", help="A recipe of configs/.")],
    output: Annotated[Path | None, typer.Option(help="Folder, instead of runs/reproduce/RECIPE.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
) -> None:
    """Train a recipe, score it on the seven STS sets, and print the published row above ours."""
    from .study.command import reproduce as run

    raise typer.Exit(run(config, overrides=context.args, output=output, resume=resume))


def main() -> None:
    """Run the command line; a `UserError` becomes one line and exit status 2."""
    try:
        app()
    except UserError as error:
        exit_with(error)


if __name__ == "__main__":
    main()
