"""The verbs that put a finished encoder to use: search, demo, similarity, duplicates, cluster, mine, info.

What does the work is imported once the command line is known to be right.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..cli.command import Command
from ..cli.options import Option
from ..errors import UserError
from .shared_options import (
    BATCH_SIZE,
    CACHE_DIR,
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

if TYPE_CHECKING:
    from ..inference.corpus import CorpusOptions

_JSON = Option("json", "switch", help="Print JSON instead.")
_EMBEDDING = (TEXT_COLUMN, ID_COLUMN, POOLING, MAX_SEQ_LENGTH, BATCH_SIZE, DTYPE, CACHE_DIR)

SEARCH = Command(
    name="search",
    help="Find the texts of a corpus that are nearest to a query; without a query, asks for queries on the terminal.",
    example="arccse search --model out --corpus docs --query 'paper jam' --top_k 3",
    options=(
        MODEL,
        Option(
            "corpus",
            many=True,
            adds=True,
            metavar="FILE",
            help="Files of texts; or pages (.md .rst .html), folders of them and quoted globs, of which each paragraph "
            "is a text. Embedded once and kept. Not needed where --index names an index that is there.",
        ),
        Option("query", metavar="TEXT", help="What is searched."),
        Option("query_file", metavar="FILE", help="One query per line, or a file with a column query."),
        Option("top_k", "int", default=10, interval="[1, 100000]", help="Texts found per query."),
        Option("hybrid", "switch", help="Fuse the ranking with that of BM25, by reciprocal ranks (needs bm25s)."),
        Option(
            "index",
            metavar="FOLDER",
            help="An index on disk, built where there is none: quick, and larger than memory (needs usearch).",
        ),
        _JSON,
        *_EMBEDDING,
        Option(
            "output_dtype", choices=("float32", "float16"), default="float32", help="Of the embeddings that are kept."
        ),
    ),
)

DEMO = Command(
    name="demo",
    help="Show a trained encoder beside its base on a page: nearest texts, and cosines of sentences (needs gradio).",
    example="arccse demo --model out --base bert-base-uncased --corpus docs.jsonl",
    options=(
        MODEL,
        Option("base", metavar="MODEL", help="The encoder beside it, of the same kinds."),
        Option(
            "corpus",
            many=True,
            adds=True,
            required=True,
            metavar="FILE",
            help="Files, folders or quoted globs, as search.",
        ),
        Option("top_k", "int", default=10, interval="[1, 100]", help="Texts shown per encoder."),
        Option("host", default="127.0.0.1", metavar="ADDRESS", help="What to listen on; 0.0.0.0: every network."),
        Option("port", "int", default=7860, interval="[1, 65535]", help="What to listen on."),
        *_EMBEDDING,
    ),
)

SIMILARITY = Command(
    name="similarity",
    help="Compare texts with each other, by cosine.",
    example="arccse similarity 'paper jam' 'the printer is stuck' 'low toner' --model out",
    positionals=(
        Option("texts", many=True, required=True, metavar="TEXT TEXT ...", help="Two or more, each in quotes."),
    ),
    options=(MODEL, _JSON, POOLING, MAX_SEQ_LENGTH, DTYPE),
)

DUPLICATES = Command(
    name="duplicates",
    help="Find groups of texts that say the same; rows with equal texts too.",
    example="arccse duplicates --model out --input texts.txt --threshold 0.9 --output_dir groups",
    options=(
        MODEL,
        INPUT,
        Option("threshold", "float", default=0.9, interval="(0, 1]", help="Least cosine of two texts that are linked."),
        output_dir_option("Folder for duplicates.csv."),
        *_EMBEDDING,
    ),
)

CLUSTER = Command(
    name="cluster",
    help="Find clusters: texts around a central one.",
    example="arccse cluster --model out --input texts.txt --threshold 0.6 --min_community_size 5 --output_dir groups",
    options=(
        MODEL,
        INPUT,
        Option("threshold", "float", default=0.75, interval="(0, 1]", help="Least cosine with the central text."),
        Option("min_community_size", "int", default=10, interval="[2, 1000000000]", help="Least texts of a cluster."),
        output_dir_option("Folder for clusters.csv."),
        *_EMBEDDING,
    ),
)

MINE = Command(
    name="mine",
    help="Find a hard negative for each pair: a near text of another pair. Training takes the result as it is.",
    example="arccse mine --model out --train_file pairs.csv --output triples.jsonl",
    options=(
        MODEL,
        Option(
            "train_file",
            many=True,
            adds=True,
            required=True,
            metavar="FILE",
            help="Files or quoted globs with two columns of text: the pairs.",
        ),
        Option("output", required=True, metavar="FILE", help="A .jsonl file of anchor, positive and negative."),
        Option("overwrite", "switch", help="Replace the output if it is there."),
        Option(
            "text_columns", many=True, default=(), metavar="NAME", help="Anchor and positive; found by name by default."
        ),
        Option("num_negatives", "int", default=1, interval="[1, 1000]", help="Rows per pair at most."),
        Option(
            "relative_margin",
            "float",
            default=0.05,
            interval="[0, 1]",
            help="A text nearer than the positive less this share of its cosine is no negative.",
        ),
        POOLING,
        MAX_SEQ_LENGTH,
        BATCH_SIZE,
        DTYPE,
    ),
)

PAIR_KINDS = ("auto", "title", "adjacent", "crops", "dropout")

INFO = Command(
    name="info",
    help="Tell what is in a file of text, in a model's folder, or what a run was and how to go on with it.",
    example="arccse info texts.txt --model out",
    positionals=(Option("what", required=True, metavar="FILE|MODEL|RUN", help="File or quoted glob, folder, hub id."),),
    options=(
        Option("model", metavar="MODEL", help="Of a file: the encoder whose tokenizer and length are looked at."),
        Option("text_column", metavar="NAME", help="Of a file: the column of the texts; as train chooses by default."),
        Option("title_column", metavar="NAME", help="With --pairs, of rows: the column of the titles."),
        replace(MAX_SEQ_LENGTH, help="Tokens that a text is cut to; by default 32, as in training, and the limit."),
        Option("pairs", choices=PAIR_KINDS, metavar="KIND", help="Of documents: the pairs that train would make."),
        Option("one_document_per_file", "switch", help="With --pairs: a .txt file is a document, as for train."),
        Option("show", "int", interval="[0, 1000000]", help="With --pairs: how many of them to print; 3 by default."),
        _JSON,
    ),
)


def search(argv: Sequence[str]) -> int:
    """Finds the texts that are nearest to queries."""
    values = SEARCH.read(SEARCH.parse(argv))
    index = as_path(values["index"])
    if not values["corpus"] and not (index and (index / "index.json").is_file()):
        raise UserError("--corpus: is missing, and needed unless --index names an index that is there (see --help)")
    queries = [] if values["query"] is None else [values["query"]]
    if any(not query.strip() for query in queries):
        raise UserError("--query: is empty; give some words")
    _require_unicode(queries, "--query")
    if not queries and not values["query_file"] and not sys.stdin.isatty():
        raise UserError("--query: is missing, and there is no terminal to ask on; give it, or --query_file")
    from ..inference.search import run

    return run(
        values["model"],
        values["corpus"] or [],
        queries,
        _corpus_options(values, "--corpus"),
        query_file=values["query_file"],
        index=index,
        hybrid=bool(values["hybrid"]),
        top_k=values["top_k"],
        as_json=bool(values["json"]),
        **{name: values[name] for name in OPENING},
    )


def demo(argv: Sequence[str]) -> int:
    """Serves the page of an encoder and its base."""
    values = DEMO.read(DEMO.parse(argv))
    from ..inference.demo_page import run

    settings = ("base", "top_k", "host", "port", *OPENING)
    options = _corpus_options(values, "--corpus")
    return run(values["model"], values["corpus"], options, **{name: values[name] for name in settings})


def similarity(argv: Sequence[str]) -> int:
    """Compares texts with each other."""
    values = SIMILARITY.read(SIMILARITY.parse(argv))
    if len(values["texts"]) < 2:
        raise UserError("TEXT TEXT ...: give two texts or more, each in quotes")
    _require_unicode(values["texts"], "TEXT")
    from ..inference.similarity import run

    return run(
        values["model"], values["texts"], as_json=bool(values["json"]), **{name: values[name] for name in OPENING}
    )


def duplicates(argv: Sequence[str]) -> int:
    """Finds groups of texts that say the same."""
    return _mine(DUPLICATES, argv)


def cluster(argv: Sequence[str]) -> int:
    """Finds clusters of texts."""
    return _mine(CLUSTER, argv, "min_community_size")


def mine(argv: Sequence[str]) -> int:
    """Finds hard negatives of pairs."""
    values = MINE.read(MINE.parse(argv))
    if not values["output"].endswith(".jsonl"):
        raise UserError(f"--output {values['output']}: must end in .jsonl")
    from ..inference.hard_negatives import run

    settings = ("text_columns", "num_negatives", "relative_margin", "batch_size", *OPENING)
    return run(
        values["model"],
        values["train_file"],
        as_path(values["output"]),
        overwrite=bool(values["overwrite"]),
        **{name: values[name] for name in settings},
    )


def info(argv: Sequence[str]) -> int:
    """Tells what is in a file, a model or a run."""
    values = INFO.read(INFO.parse(argv))
    from ..inference.info import run

    names = ("model", "text_column", "title_column", "max_seq_length", "pairs", "show")
    given = {name: values[name] for name in names}
    per_file = bool(values["one_document_per_file"])
    return run(values["what"], as_json=bool(values["json"]), one_document_per_file=per_file, **given)


def _require_unicode(texts: Sequence[str], option: str) -> None:
    for text in texts:
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise UserError(f"{option} {text!a}: is not text in the terminal's encoding; type it anew, or give a file")


def _mine(command: Command, argv: Sequence[str], *more: str) -> int:
    values = command.read(command.parse(argv))
    from ..inference.mining import run

    return run(
        command.name,
        values["model"],
        values["input"],
        _corpus_options(values, "--input"),
        threshold=values["threshold"],
        output_dir=as_path(values["output_dir"]),
        **{name: values[name] for name in (*more, *OPENING)},
    )


def _corpus_options(values: dict[str, Any], option: str) -> CorpusOptions:
    from ..inference.corpus import CorpusOptions

    return CorpusOptions(
        option,
        values["text_column"],
        values["id_column"],
        values["batch_size"],
        values.get("output_dtype", "float32"),
        as_path(values["cache_dir"]),
    )
