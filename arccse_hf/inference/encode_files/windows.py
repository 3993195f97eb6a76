"""From rows of text to record batches of embeddings, a window at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from ...errors import UserError
from ...evaluation.retrieval import normalize
from ..embed import BatchEncoder, embed_here, require_finite
from .reading import Columns, Row

OUTPUT_DTYPES = {"float32": pa.float32(), "float16": pa.float16()}

# What is in memory at once: this much text, and its embeddings. Some thousand rows are enough to find batches of one
# length among them.
WINDOW_ROWS = 10_000
WINDOW_CHARACTERS = 1 << 24


@dataclass(frozen=True)
class EncodeOptions:
    """How rows become embeddings.

    Args:
        columns: What is read.
        normalize: Whether embeddings are scaled to length 1.
        batch_size: Sentences that the model takes at once.
        output_dtype: Of the embeddings in the files: one of `OUTPUT_DTYPES`.
        shard_rows: Rows of a file that become one shard.

    Raises:
        UserError: A value is none of those.
    """

    columns: Columns
    normalize: bool = False
    batch_size: int = 64
    output_dtype: str = "float32"
    shard_rows: int = 20_000

    def __post_init__(self) -> None:
        if self.output_dtype not in OUTPUT_DTYPES:
            raise UserError(f"--output_dtype {self.output_dtype}: choose from {', '.join(OUTPUT_DTYPES)}")
        for option, number in (("--batch_size", self.batch_size), ("--shard_rows", self.shard_rows)):
            if number < 1:
                raise UserError(f"{option} {number}: must be at least 1")


def shard_schema(id_type: str, output_dtype: str) -> pa.Schema:
    """Returns the columns `id` (int64 or string) and `embedding` (numbers, null where a row has no text)."""
    ids = {"int64": pa.int64(), "string": pa.string()}[id_type]
    # Lists of fixed size that may be null can be written and read from pyarrow 26 on only.
    return pa.schema({"id": ids, "embedding": pa.list_(OUTPUT_DTYPES[output_dtype])})


def embed_rows(
    encoder: BatchEncoder, rows: Iterable[Row], schema: pa.Schema, options: EncodeOptions, bar: tqdm
) -> Iterator[pa.RecordBatch]:
    """Yields the embeddings of `rows`, in their order, one batch per window; no more than a window is in memory.

    Raises:
        UserError: An embedding cannot be stored: it is not finite, or too large for float16.
    """
    for window in _windows(rows):
        yield _embed_window(encoder, window, schema, options, bar)


def _windows(rows: Iterable[Row]) -> Iterator[list[Row]]:
    window: list[Row] = []
    characters = 0
    for row in rows:
        window.append(row)
        characters += len(row[1] or "")
        if len(window) == WINDOW_ROWS or characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


def _embed_window(
    encoder: BatchEncoder, window: list[Row], schema: pa.Schema, options: EncodeOptions, bar: tqdm
) -> pa.RecordBatch:
    ids, texts = zip(*window, strict=True)
    has_text = np.array([bool(text and text.strip()) for text in texts])
    values = np.empty((0, 0), schema.field("embedding").type.value_type.to_pandas_dtype())
    bar.update(int((~has_text).sum()))
    if has_text.any():
        sentences = [text for text, present in zip(texts, has_text, strict=True) if present]
        embeddings = embed_here(encoder, sentences, batch_size=options.batch_size, after_batch=bar.update).cpu().numpy()
        if options.normalize:
            embeddings = normalize(embeddings)
        with np.errstate(over="ignore"):  # said below
            values = embeddings.astype(values.dtype)
        where = f"--output_dtype {options.output_dtype}"
        names = [row_id for row_id, present in zip(ids, has_text, strict=True) if present]
        way_out = "check the model, or use float32 for --dtype and --output_dtype"
        require_finite(values, names, where, kind="id", way_out=way_out)
    offsets = pa.array(np.concatenate([[0], has_text.cumsum() * values.shape[1]]), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, pa.array(values.ravel()), mask=pa.array(~has_text))
    return pa.record_batch([pa.array(ids, type=schema.field("id").type), lists], schema=schema)
