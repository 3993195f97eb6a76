"""Options that several verbs have, so that one name means one thing everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any, overload

from ..cli.options import DTYPES, Option

MODEL = Option("model", metavar="MODEL", help="Folder, hub id, checkpoint or package:NAME/PATH.", required=True)
POOLING = Option("pooling", help="cls, mean, ...: overrides the model's own; plain encoders use mean by default.")
BATCH_SIZE = Option("batch_size", "int", default=64, interval="[1, 1000000]", help="Texts embedded at once.")
MAX_SEQ_LENGTH = Option("max_seq_length", "int", interval="[3, 1000000]", help="Tokens that a text is cut to.")
DTYPE = Option(
    "dtype",
    choices=DTYPES,
    default="float32",
    help="Of the weights and the computation.",
)
OPENING = ("pooling", "dtype", "max_seq_length")
"""The options among these that are arguments of `load_encoder`."""
INPUT = Option(
    "input",
    many=True,
    adds=True,
    required=True,
    metavar="FILE",
    help="Files or quoted globs. .txt .csv .tsv .json .jsonl [.gz], .parquet.",
)
TEXT_COLUMN = Option("text_column", default="text", metavar="NAME", help="Column of the texts.")
ID_COLUMN = Option("id_column", metavar="NAME", help="Column of ids; without it, the row's number in its file.")
CACHE_DIR = Option(
    "cache_dir", metavar="FOLDER", help="Where embeddings are kept; a folder under Hugging Face's (HF_HOME) by default."
)


@overload
def as_path(given: str) -> Path: ...
@overload
def as_path(given: None) -> None: ...
def as_path(given: str | None) -> Path | None:
    """Returns a path that was given, with ~ for the home folder: shells leave it alone behind `--output_dir=`."""
    return None if given is None else Path(given).expanduser()


def output_dir_option(help: str, **settings: Any) -> Option:
    """Returns the option that names the folder of a result."""
    return Option("output_dir", metavar="FOLDER", help=help, old_names=("output",), **settings)
