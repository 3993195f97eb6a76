"""The command line for what comes after training: `python -m arccse_hf COMMAND --help`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .errors import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _app() -> None:
    """Evaluate and use sentence encoders."""


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
    from .evaluation.command import run

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
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Output folders of run_arccse.py.")],
    output: Annotated[Path, typer.Option(help="Folder for report.html and its pictures.")] = Path("report"),
) -> None:
    """Draw what happened in runs: one page with curves, geometry, cosines and scores, and its pictures."""
    from .report import write_report

    print(write_report(runs, output))


def main() -> None:
    """Run the command line; a `UserError` becomes one line and exit status 2."""
    try:
        app()
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
