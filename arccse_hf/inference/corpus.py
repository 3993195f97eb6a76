"""A corpus, embedded once: the embeddings are kept as `encode` writes them, found again by model and files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from ..data.files import expand_files
from ..errors import UserError, without_surrogates
from ..paths import check_writable
from .encode_files.command import embedding_settings, inspect_files, write_missing
from .encode_files.reading import Columns, InputFile, Row, read_rows
from .encode_files.shards import Settings, Shard, list_shards
from .encode_files.windows import EncodeOptions
from .open import Encoder
from .pages import Paragraphs, find_pages, read_pages

logger = logging.getLogger(__name__)

CACHE_OPTION = "--cache_dir"


@dataclass(frozen=True)
class CorpusOptions:
    """How the texts of a corpus are read and embedded.

    Args:
        option: Where the user named the files, for the errors.
        text_column: Column of the texts.
        id_column: Column of ids; None: the row's number in its file.
        batch_size: Texts that the model takes at once.
        output_dtype: Of the embeddings that are kept: "float32" or "float16".
        cache_dir: Where they are kept; None: `default_cache_dir()`.
    """

    option: str = "--corpus"
    text_column: str = "text"
    id_column: str | None = None
    batch_size: int = 64
    output_dtype: str = "float32"
    cache_dir: Path | None = None


@dataclass(frozen=True)
class Documents:
    """Texts of a corpus and their embeddings, all or a part of them.

    Args:
        table: Columns `file` (dictionary of names), `id` (int64 or string) and `text`, one row per text; of pages also
            `title`, as `Paragraphs` has it.
        embeddings: float32 `[len(table), dim]`, of length 1.
    """

    table: pa.Table
    embeddings: np.ndarray


@dataclass(frozen=True)
class EmbeddedCorpus:
    """The texts of some files, and the folder that holds their embeddings.

    Args:
        shards: Of all files, in order.
        folder: Where they are.
        columns: What was read.
        settings: What decided about the embeddings.
        dimension: Width of the embeddings.
    """

    shards: Sequence[Shard]
    folder: Path
    columns: Columns
    settings: Settings
    dimension: int

    @property
    def rows(self) -> int:
        """Number of rows, those without text included."""
        return sum(shard.rows for shard in self.shards)

    @property
    def schema(self) -> pa.Schema:
        """The columns of `Documents.table`."""
        content = self.shards[0].file.content
        if isinstance(content, Paragraphs):
            return content.table.schema
        ids = {"int64": pa.int64(), "string": pa.string()}[str(self.settings["id_type"])]
        files = pa.dictionary(pa.int32(), pa.string())
        return pa.schema({"file": files, "id": ids, "text": pa.string()})

    def parts(self) -> Iterator[Documents]:
        """Yields the texts in order with their embeddings, some thousand at a time.

        Rows without text are left out, and counted in the log at the end.

        Raises:
            UserError: A file or its embeddings cannot be read.
        """
        names = pa.array(list(dict.fromkeys(shard.file.name for shard in self.shards)))
        without_text = 0
        for shard in self.shards:
            content, start = shard.file.content, shard.start
            rows = read_rows(shard.file, self.columns, [(shard.start, shard.stop)])
            with _blamed_on_cache(), pq.ParquetFile(self.folder / shard.name) as parquet:
                for batch in parquet.iter_batches(columns=["embedding"], batch_size=10_000):
                    column = batch.column("embedding")
                    if isinstance(content, Paragraphs):
                        table = content.table.slice(start, len(column))
                    else:
                        table = self._table(names, shard.file.name, [next(rows) for _ in range(len(column))])
                    start += len(column)
                    without_text += column.null_count
                    present = column.is_valid()
                    flat = column.filter(present).flatten().to_numpy(zero_copy_only=False).astype(np.float32)
                    yield Documents(table.filter(present), flat.reshape(-1, self.dimension))
        if without_text:
            logger.warning("%s of %s rows have no text and are left out", f"{without_text:,}", f"{self.rows:,}")

    def _table(self, names: pa.Array, name: str, rows: Sequence[Row]) -> pa.Table:
        ids, texts = zip(*rows, strict=True)
        file = pa.scalar(names.index(name).as_py(), pa.int32())
        files = pa.DictionaryArray.from_arrays(pa.repeat(file, len(rows)), names)
        valid = pa.array([text if text is None else without_surrogates(text) for text in texts], pa.string())
        return pa.table([files, pa.array(ids, self.schema.field("id").type), valid], schema=self.schema)

    def read(self) -> Documents:
        """Returns all texts and embeddings, in memory.

        Rows with the same text get the embedding of the first of them: batches differ, and with them the last digits.
        """
        parts = list(self.parts())
        table = pa.concat_tables([part.table for part in parts])
        embeddings = np.concatenate([part.embeddings for part in parts])
        first: dict[str, int] = {}
        sources = [first.setdefault(text, number) for number, text in enumerate(table["text"].to_pylist())]
        return Documents(table.combine_chunks(), embeddings[sources] if len(first) < len(table) else embeddings)


def rows_at(table: pa.Table, numbers: np.ndarray) -> list[dict[str, Any]]:
    """Returns the rows of these numbers. No other row is read: `Table.take` would copy each column whole."""
    return [table.slice(number, 1).to_pylist()[0] for number in numbers.tolist()]


def default_cache_dir() -> Path:
    """Returns the folder for embeddings under Hugging Face's own (`HF_HOME`)."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "arccse_hf" / "embeddings"


def check_corpus(patterns: Sequence[str], option: str) -> None:
    """Raises UserError unless patterns stand for pages, or for files of rows, that are there; reads none of them."""
    if not find_pages(patterns, option):
        expand_files(patterns, option)


def corpus_files(patterns: Sequence[str], options: CorpusOptions) -> list[InputFile]:
    """Returns the files of a corpus, each inspected; the paragraphs of pages are one file.

    Args:
        patterns: Paths and globs of files of rows; or of pages, and folders of them.
        options: How they are read.

    Raises:
        UserError: A file cannot be read, or has no such column; or there are both pages and files of rows.
    """
    if find_pages(patterns, options.option):
        for option, name in (("--id_column", options.id_column), ("--text_column", options.text_column)):
            if name not in (None, "text"):
                raise UserError(f"{option} {name}: paragraphs of pages have no columns; leave it out")
        return [read_pages(patterns, options.option)]
    files, unreadable = inspect_files(patterns, Columns(options.text_column, options.id_column), options.option)
    if unreadable:
        raise UserError(unreadable[0])
    return files


def embed_corpus(encoder: Encoder, patterns: Sequence[str], options: CorpusOptions) -> EmbeddedCorpus:
    """Embeds the texts of files, or the paragraphs of pages, unless their embeddings are there already.

    Args:
        encoder: Embeds the texts; embeddings are scaled to length 1.
        patterns: As for `corpus_files`.
        options: How the files are read.

    Raises:
        UserError: A file cannot be read, has no such column or no text, or the embeddings cannot be kept.

    Example:
        >>> corpus = embed_corpus(load_encoder("out"), ["docs.jsonl"], CorpusOptions())
        >>> corpus.read().embeddings.shape
        (12000, 384)
    """
    files = corpus_files(patterns, options)
    if not sum(file.rows for file in files):
        raise UserError(f"{options.option} {' '.join(patterns)}: holds no row; give a file with text")
    columns = Columns(options.text_column, options.id_column)
    encode = EncodeOptions(columns, True, options.batch_size, options.output_dtype)
    settings = embedding_settings(encoder, files, encode)
    folder = (options.cache_dir or default_cache_dir()) / _key(settings, [(file.name, file.sha256) for file in files])
    shards = list_shards(files, encode.shard_rows)
    check_writable(folder, CACHE_OPTION)
    with _alone_in(folder), _blamed_on_cache():
        counts, _ = write_missing(encoder, shards, folder, settings, encode)
    for failure in (failure for count in counts for failure in count.failures):
        raise UserError(_blame_cache(failure))
    corpus = EmbeddedCorpus(shards, folder, columns, settings, encoder.model.get_embedding_dimension())
    if not any(len(part.table) for part in corpus.parts()):
        raise UserError(f"{options.option} {' '.join(patterns)}: no row has text; --text_column names the column")
    return corpus


def _key(settings: Settings, files: Sequence[tuple[str, str]]) -> str:
    """Returns the folder's name; the model's name and the batch size do not matter, its weights do."""
    deciding = {name: value for name, value in settings.items() if name != "model"}
    digest = hashlib.sha256(json.dumps([deciding, sorted(files)], sort_keys=True).encode()).hexdigest()
    return f"{os.path.basename(str(settings['model']).rstrip('/'))[:40]}-{digest[:16]}"


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Waits until no other command embeds the same corpus; what that one has written is not computed again."""
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("another command is embedding this corpus; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _blamed_on_cache() -> Iterator[None]:
    """Has errors of the shards' folder name the option that it comes from here."""
    try:
        yield
    except UserError as error:
        raise UserError(_blame_cache(str(error))) from error
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{CACHE_OPTION}: embeddings cannot be read ({error}); delete them there") from error


def _blame_cache(message: str) -> str:
    return message.replace("--output_dir", CACHE_OPTION)
