"""What is made up at random, and what is done with it, for test_fuzzing.py; `make soak` has many more cases.

Each function of `TARGETS` takes one made-up input and must return, or raise a `UserError` of one line.
"""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from arccse_hf.data.cleaning import RowCleaner
from arccse_hf.data.columns import choose_columns
from arccse_hf.data.files import KINDS, expand_files, open_file
from arccse_hf.errors import UserError
from arccse_hf.evaluation.suite import TaskSuite
from arccse_hf.evaluation.tasks import load_tasks
from arccse_hf.training.config import read_values
from arccse_hf.training.fields import load_fields

# What has a meaning to some reader, beside text that has none.
_TOKENS = st.sampled_from(
    ["", "a", "a b c", "0", "-1", "1e400", "9" * 400, "nan", "null", "true", ",", ";", "\t", '"', "'", "\\", "{", "}",
     "[", "]", ":", "\n", "\r\n", "\r", "\0", "\ufeff", "\ud800", "é", "text", "anchor", "positive", "sentence1",
     "sentence2", "score", "query", "document", "&a", "*a", "<<:", "!!float", "!!python/name:os", "- ", "? ", "---",
     "--seed", "--train_file", "--no_bf16", "-h0", "=", "#"]
)  # fmt: skip
_TEXTS = st.lists(_TOKENS | st.text(max_size=6), max_size=12).map("".join)
_CELLS = _TEXTS | st.none() | st.integers() | st.floats()
_NESTED = st.recursive(
    _CELLS | st.booleans(), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4)
)
_COLUMNS = st.sampled_from(
    [("text",), ("anchor", "positive"), ("sentence1", "sentence2", "score"), ("query", "document"), ("b", "b"), ()]
)
_CONTENT = st.sampled_from(
    ["a red dog", "the blue house", "two cats near the river", "many old roads", "a woman hears"]
)
_SCORES = st.sampled_from(["0", "1", "2.5", "3", "4", "5e0"])
_ODD = st.sampled_from(["", "3", "a, b", 'says "no"', "a\nb"]) | _TEXTS


@st.composite
def _tables(draw: st.DrawFn) -> tuple[str, bytes]:
    """Rows that look right, or have odd cells, in one of the formats; with its suffix."""
    names = draw(_COLUMNS)
    odd = draw(st.booleans())
    cells = [(_SCORES if name == "score" else _CONTENT) | (_ODD if odd else st.nothing()) for name in names]
    rows = draw(st.lists(st.tuples(*cells), max_size=6))
    kind = draw(st.sampled_from(["delimited", "json", "jsonl", "parquet"]))
    if kind == "delimited":
        separator = draw(st.sampled_from([",", ";", "\t"]))
        content = "\n".join(separator.join(row) for row in [names, *rows]).encode(errors="surrogatepass")
        return ".tsv" if separator == "\t" else ".csv", content
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    if kind == "parquet":
        clean = [{name: value.encode(errors="replace").decode() for name, value in row.items()} for row in objects]
        file = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(clean), file)
        return ".parquet", file.getvalue()
    text = json.dumps(objects) if kind == "json" else "\n".join(map(json.dumps, objects))
    return f".{kind}", text.encode()


@st.composite
def _damaged(draw: st.DrawFn, contents: st.SearchStrategy[bytes]) -> bytes:
    """Contents with a piece cut out, bytes put in, or packed by gzip."""
    content = draw(contents)
    for how in draw(st.just([]) | st.lists(st.sampled_from(["cut", "insert", "flip", "gzip"]), max_size=2)):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        if how == "gzip":
            content = gzip.compress(content, mtime=0)
        elif how == "insert":
            content = content[:place] + draw(st.binary(max_size=4)) + content[place:]
        elif how == "flip" and content:
            content = content[:place] + bytes([content[place] ^ 1 << draw(st.integers(0, 7))]) + content[place + 1 :]
        else:
            content = content[:place] + content[place + draw(st.integers(0, 20)) :]
    return content


_JSON = _NESTED.map(lambda value: json.dumps(value).encode())
_CONTENTS = _TEXTS.map(lambda text: text.encode(errors="surrogatepass")) | _JSON | st.binary(max_size=40)
_SUFFIXES = st.sampled_from([*KINDS, *(f"{kind}.gz" for kind in KINDS)])
FILES = (
    _tables()
    | _tables().flatmap(lambda made: st.tuples(st.just(made[0]), _damaged(st.just(made[1]))))
    | st.tuples(_SUFFIXES, _damaged(_CONTENTS))
)
_NAMES = st.sampled_from([field.name for field in load_fields()]) | _TEXTS
_YAML_LINES = st.lists(st.tuples(_NAMES, _TEXTS | _JSON.map(bytes.decode)).map(": ".join), max_size=5).map("\n".join)
RECIPES = _damaged((_YAML_LINES | _TEXTS).map(lambda text: text.encode(errors="surrogatepass")))
SETTINGS = st.dictionaries(_NAMES, _NESTED, max_size=4)
COMMAND_LINES = st.lists(_NAMES.map("--{}".format) | _TOKENS | _TEXTS, max_size=6)


def read_text_file(given: tuple[str, bytes]) -> None:
    """Opens, reads and cleans a file as training does."""
    with tempfile.TemporaryDirectory() as folder:
        path = _written(folder, *given)
        file = open_file(expand_files([path])[0], "--train_file")
        file.require_rows()
        columns = choose_columns(file.columns, (), file.source.where())
        cleaner = RowCleaner(5, set())
        for number, values in file.rows(columns):
            row = tuple(file.text(value, number, name) or "" for value, name in zip(values, columns, strict=True))
            cleaner.keep([row])


def read_evaluation_file(given: tuple[str, bytes]) -> None:
    """Reads a file as an evaluation does, and scores embeddings on it."""
    with tempfile.TemporaryDirectory() as folder:
        suite = TaskSuite(load_tasks([_written(folder, *given)], None))
        suite.score(np.random.default_rng(0).normal(size=(len(suite.sentences), 4)).astype(np.float32))


def read_recipe(content: bytes) -> None:
    """Reads a recipe, with what a run needs on the command line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "recipe.yaml")
        path.write_bytes(content)
        read_values([str(path), "--model=x", "--train_file", "y"])


def read_settings(given: dict) -> None:
    """Reads settings as Python gives them."""
    read_values({"model_name_or_path": "x", "train_file": "y"} | given)


def read_command_line(argv: list[str]) -> None:
    """Reads a command line."""
    read_values(["--model=x", *argv])


TARGETS: dict[str, tuple[st.SearchStrategy, Callable, int]] = {
    "text files": (FILES, read_text_file, 120),
    "evaluation files": (FILES, read_evaluation_file, 100),
    "recipes": (RECIPES, read_recipe, 120),
    "settings": (SETTINGS, read_settings, 80),
    "command lines": (COMMAND_LINES, read_command_line, 80),
}
"""By name: what is made up, what is done with it, and how often in the suite: 500 in all."""


def end_well(act: Callable, given: object) -> str:
    """Returns "accepted" or "refused"; any other end is an error."""
    try:
        act(given)
    except UserError as error:
        assert "\n" not in str(error) and 0 < len(str(error)) < 2000, str(error)
        return "refused"
    except SystemExit as end:  # --help
        assert end.code == 0, end
    return "accepted"


def _written(folder: str, suffix: str, content: bytes) -> str:
    path = Path(folder, f"made{suffix}")
    path.write_bytes(content)
    return str(path)
