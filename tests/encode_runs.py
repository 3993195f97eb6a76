"""Runs of `encode` on tiny models and files, and what they must give: for test_encode_*.py."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backbones import save_encoder
from sentence_transformers import SentenceTransformer

from arccse_hf.inference.encode_files import windows as batches
from arccse_hf.inference.encode_files.command import open_and_encode
from arccse_hf.inference.encode_files.reading import Columns
from arccse_hf.inference.encode_files.windows import EncodeOptions

DIM = 16


def save_model(folder: Path, tokenizer, seed: int = 0) -> str:
    return save_encoder(folder, tokenizer, seed=seed, max_position_embeddings=64, initializer_range=0.5)


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory):
    """A tiny BERT as a plain encoder's folder."""
    return save_model(tmp_path_factory.mktemp("models") / "plain", tokenizer)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def embedded(monkeypatch):
    """Every text that is embedded, in order."""
    texts, embed_here = [], batches.embed_here
    monkeypatch.setattr(
        batches, "embed_here", lambda model, some, **options: texts.extend(some) or embed_here(model, some, **options)
    )
    return texts


def encode(model, *inputs, output="out", text="text", ids=None, pooling=None, dtype="float32", length=None, **options):
    options = EncodeOptions(Columns(text, ids), **options)
    return open_and_encode(model, inputs, Path(output), options, pooling=pooling, dtype=dtype, max_seq_length=length)


def write_lines(path, texts) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(f"{text}\n" for text in texts))
    return Path(path)


def written(output="out") -> dict[str, dict]:
    """Input's name -> id -> embedding."""
    found: dict[str, dict] = {}
    for path in sorted(Path(output).rglob("*.parquet")):
        name, _, _ = path.relative_to(output).as_posix().rpartition("-")
        table = pq.read_table(path)
        assert table.column_names == ["id", "embedding"]
        rows = found.setdefault(name, {})
        for row_id, embedding in zip(*(column.to_pylist() for column in table.columns), strict=True):
            assert row_id not in rows, "written twice"
            rows[row_id] = embedding
    return found


def contents(output="out") -> dict[str, bytes]:
    return {p.relative_to(output).as_posix(): p.read_bytes() for p in Path(output).rglob("*") if p.is_file()}


def assert_embeddings(got: dict, ids, texts, model, tolerance=1e-5, **options) -> None:
    """Each text's embedding is the one that sentence-transformers gives it alone; null where there is no text."""
    assert list(got) == list(ids)
    alone = SentenceTransformer(model)
    for (row_id, embedding), text in zip(got.items(), texts, strict=True):
        if not (text and text.strip()):
            assert embedding is None, row_id
        else:
            expected = alone.encode([text], show_progress_bar=False, **options)[0]
            np.testing.assert_allclose(embedding, expected, atol=tolerance, err_msg=str(row_id))


TEXTS = ['the small cat, "quick"', "a dog", "", "red house\ton hill", "the old man sees a bird near the river", "   "]


def csv_cell(text, separator):
    quoted = separator == "," and {separator, '"', "\n"} & set(text)
    return '"' + text.replace('"', '""') + '"' if quoted else text


def write_table(path, texts, ids=None):
    """`texts` as a file of the kind that `path` ends in, beside a column that is to be left alone."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    ids = list(range(50, 50 + len(texts))) if ids is None else ids
    if kind == "parquet":
        pq.write_table(pa.table({"n": ids, "text": texts, "other": texts}), path, row_group_size=4)
        return
    if kind == "txt":
        lines = texts
    elif kind == "jsonl":
        lines = [
            json.dumps({"other": 1.5, "text": t, "n": i}) + "\n" * (i % 2) for i, t in zip(ids, texts, strict=True)
        ]
    else:
        separator = "," if kind == "csv" else "\t"
        rows = [["n", "text"], *([str(i), csv_cell(t, separator)] for i, t in zip(ids, texts, strict=True))]
        lines = ["\ufeff" + separator.join(rows[0]), *(separator.join(row) for row in rows[1:])]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
