"""The verbs that measure and write encoders: evaluate, encode, export."""

from __future__ import annotations

from collections.abc import Sequence

from ..cli.command import Command
from ..cli.options import Option
from ..errors import UserError
from .shared_options import (
    BATCH_SIZE,
    DTYPE,
    ID_COLUMN,
    INPUT,
    MAX_SEQ_LENGTH,
    MODEL,
    OPENING,
    POOLING,
    TEXT_COLUMN,
    as_path,
    output_dir_option,
)

EVALUATE = Command(
    name="evaluate",
    help="Score encoders with the protocols of the papers; several models are compared with the first.",
    example="arccse evaluate out sentence-transformers/all-MiniLM-L6-v2 --eval_tasks sts geometry --eval_data hub",
    positionals=(
        Option("model", metavar="MODEL ...", many=True, help="Folders, hub ids, checkpoints or package:NAME/PATH."),
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
        Option(
            "truncate_dims",
            "int",
            many=True,
            default=(),
            metavar="DIM",
            interval="[1, 1000000]",
            help="Score the first so many dimensions too, each as a model of its own.",
        ),
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
    example="arccse export out/training/checkpoint-125 finished",
    positionals=(
        Option("model", metavar="MODEL", help="Folder, hub id, checkpoint or package:NAME/PATH."),
        Option("output_dir", metavar="OUT", help="The result: a folder that does not exist or is empty."),
    ),
    options=(
        Option("model", metavar="MODEL", required=True, help="The same as MODEL."),
        output_dir_option("The same as OUT.", required=True),
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


def evaluate(argv: Sequence[str]) -> int:
    """Scores encoders."""
    values = EVALUATE.read(EVALUATE.parse(argv))
    from ..inference.evaluate import evaluate_and_print

    return evaluate_and_print(
        values["model"],
        values["eval_tasks"],
        data=values["eval_data"],
        output=as_path(values["output_dir"]),
        **{
            name: values[name] for name in ("pooling", "batch_size", "dtype", "max_seq_length", "truncate_dims", "seed")
        },
    )


def encode(argv: Sequence[str]) -> int:
    """Embeds files of text."""
    values = ENCODE.read(ENCODE.parse(argv))
    from ..inference.encode_files.command import open_and_encode
    from ..inference.encode_files.reading import Columns
    from ..inference.encode_files.windows import EncodeOptions

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
        as_path(values["output_dir"]),
        options,
        **{name: values[name] for name in OPENING},
    )


def export(argv: Sequence[str]) -> int:
    """Writes a finished folder or a graph."""
    values = EXPORT.read(EXPORT.parse(argv))
    if values["to"] != "onnx" and (values["quantize"] or values["eval_tasks"]):
        raise UserError("--quantize and --eval_tasks: go with --to onnx")
    from ..inference.export_command import export_and_print

    return export_and_print(
        values["model"],
        as_path(values["output_dir"]),
        to=values["to"],
        quantize=values["quantize"] is not None,
        pooling=values["pooling"],
        eval_tasks=values["eval_tasks"] or (),
        eval_data=values["eval_data"],
    )
