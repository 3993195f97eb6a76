"""`arccse search`: the documents of a corpus that are nearest to a query, by cosine, or by cosine and words."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.columns import QUERY_COLUMNS, find_column, require_text
from ..data.files import expand_files, open_file
from ..errors import UserError, printable
from ..evaluation.bm25 import BM25Index, require_bm25s
from .corpus import CorpusOptions, check_corpus, corpus_files, embed_corpus, rows_at
from .embed import require_finite
from .hnsw_store import HnswStore, build_index, read_settings, require_usearch
from .nearest import DocumentStore, ExactStore, cosines_of, nearest
from .open import Encoder, load_encoder

logger = logging.getLogger(__name__)

_FUSED = 100
"""Documents that each ranking gives to the fused one, at least."""
_RANK_OFFSET = 60
"""The constant k of reciprocal rank fusion, 1 / (k + rank), as its authors chose it (Cormack et al., SIGIR 2009)."""


@dataclass(frozen=True)
class Hit:
    """A document that was found.

    Args:
        rank: From 1.
        cosine: With the query, in [-1, 1].
        fused: The sum of reciprocal ranks by cosine and by BM25 that decided about the rank; None without `hybrid`.
        file: Name of its file.
        id: The row's id; without an id column its number in the file, of a page that of the paragraph, from 0.
        text: The document.
        title: Of the page, and the heading above the paragraph; None where there is neither, and for rows.
    """

    rank: int
    cosine: float
    fused: float | None
    file: str
    id: int | str
    text: str
    title: str | None = None


class Search:
    """An encoder and the documents that it searches.

    Args:
        encoder: Embeds the queries; the documents were embedded by the same.
        store: The documents.
        hybrid: Whether BM25's ranking is fused with the encoder's.

    Raises:
        UserError: `hybrid` is wanted, and bm25s is not installed.

    Example:
        >>> corpus = embed_corpus(encoder := load_encoder("out"), ["docs.jsonl"], CorpusOptions())
        >>> Search(encoder, ExactStore(corpus)).hits(["paper jam"], top_k=3)[0][0].cosine
        0.7312
    """

    def __init__(self, encoder: Encoder, store: DocumentStore, hybrid: bool = False):
        self.encoder, self.store = encoder.for_task("query"), store
        self.words = BM25Index(store.table["text"].to_pylist()) if hybrid else None

    def hits(self, queries: Sequence[str], top_k: int = 10) -> list[list[Hit]]:
        """Returns up to `top_k` documents for each query, the best first.

        Raises:
            UserError: The embedding of a query is not finite.
        """
        embeddings = torch.nn.functional.normalize(self.encoder.encode_batch(queries).double(), dim=-1).cpu().numpy()
        require_finite(embeddings, queries, f"MODEL {self.encoder.name}")
        return [self._hits(text, vector, top_k) for text, vector in zip(queries, embeddings, strict=True)]

    def _hits(self, query: str, vector: np.ndarray, top_k: int) -> list[Hit]:
        fused: list[float] | list[None]
        if self.words is None:
            numbers, cosines = nearest(self.store, vector, top_k)
            fused = [None] * len(numbers)
        else:
            depth = max(_FUSED, top_k)
            rankings = [nearest(self.store, vector, depth)[0], _best(self.words.scores(query), depth)]
            sums = reciprocal_rank_fusion(rankings)
            numbers = np.array(sorted(sums, key=lambda number: (-sums[number], number))[:top_k], dtype=np.int64)
            cosines = cosines_of(self.store, vector, numbers)
            fused = [sums[number] for number in numbers.tolist()]
        rows = rows_at(self.store.table, numbers)
        return [
            Hit(rank, float(cosine), score, **row)
            for rank, (cosine, score, row) in enumerate(zip(cosines, fused, rows, strict=True), start=1)
        ]


def reciprocal_rank_fusion(rankings: Sequence[np.ndarray]) -> dict[int, float]:
    """Returns for each number in any ranking the sum of 1 / (60 + rank) over the rankings that have it.

    Args:
        rankings: Numbers of documents, the best first.
    """
    sums: dict[int, float] = {}
    for ranking in rankings:
        for rank, number in enumerate(ranking.tolist(), start=1):
            sums[number] = sums.get(number, 0.0) + 1 / (_RANK_OFFSET + rank)
    return sums


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Returns the numbers of the best scores above 0, of equal ones the first."""
    order = np.lexsort((np.arange(len(scores)), -scores))[:count]
    return order[scores[order] > 0]


def open_index(folder: Path, encoder: Encoder, patterns: Sequence[str], options: CorpusOptions) -> HnswStore:
    """Opens an index, which is built first where there is none.

    Args:
        folder: Of the index.
        encoder: What it was, or will be, made with.
        patterns: Of the corpus, as for `corpus_files`; none: the index is taken as it is.
        options: How the corpus is read.

    Raises:
        UserError: The index was made with another model or from other files, or cannot be read or built.
    """
    settings = read_settings(folder)
    if not settings:
        if not patterns:
            raise UserError(f"--index {folder}: there is no index; --corpus names the files to build it from")
        build_index(embed_corpus(encoder.for_task("document"), patterns, options), folder)
        return HnswStore(folder)
    dimension = encoder.model.get_embedding_dimension()
    if settings["dimension"] != dimension:
        raise UserError(
            f"--index {folder}: holds embeddings of {settings['dimension']} dimensions, and --model {encoder.name} "
            f"gives {dimension}; give the model that it was built with ({settings['embedding']['model']})"
        )
    if settings["embedding"]["model_sha256"] != encoder.fingerprint():
        raise UserError(
            f"--index {folder}: was built with another model, or other weights of it ({settings['embedding']['model']}"
            "); give that one, or another --index"
        )
    length, now = settings["embedding"]["max_seq_length"], encoder.model.max_seq_length
    if length != now:
        raise UserError(
            f"--index {folder}: its texts were cut to {length} tokens, and --model {encoder.name} reads {now}; give "
            f"--max_seq_length {length}, or another --index"
        )
    if patterns:
        files = corpus_files(patterns, options)
        same_columns = all(
            settings["embedding"][name] == getattr(options, name) for name in ("text_column", "id_column")
        )
        if {file.name: file.sha256 for file in files if file.rows} != settings["files"] or not same_columns:
            raise UserError(
                f"--index {folder}: was built from other files or columns than --corpus names now; delete it to build "
                "it anew, choose another folder, or leave --corpus out"
            )
    return HnswStore(folder)


def read_queries(path: str) -> list[str]:
    """Returns the queries of a file: its lines, or the column that holds queries.

    Rows without text are left out, and counted in the log.

    Raises:
        UserError: The file cannot be read, has no column of queries, or no query.
    """
    option = "--query_file"
    files = expand_files([path], option)
    if len(files) > 1:
        raise UserError(f"{option} {path}: is {len(files)} files; give one")
    content = open_file(files[0], option)
    content.require_rows()
    texts = [name for name, kind in content.columns.items() if kind == "text"]
    column = find_column(content.columns, (*QUERY_COLUMNS, "text")) or (texts[0] if len(texts) == 1 else None)
    if column is None:
        raise UserError(f"{option} {path}: has no column query; it has {', '.join(content.columns)}")
    require_text(column, content.columns, f"{option} {path}", content.source.where())
    rows = [content.text(value, number, column) for number, (value,) in content.rows([column])]
    queries = [text for text in rows if text and text.strip()]
    if not queries:
        raise UserError(f"{option} {path}: holds no query")
    if len(queries) < len(rows):
        logger.warning("%s %s: %d of %d rows hold no query", option, path, len(rows) - len(queries), len(rows))
    return queries


def run(
    model: str,
    patterns: Sequence[str],
    queries: Sequence[str],
    options: CorpusOptions,
    *,
    query_file: str | None = None,
    index: Path | None = None,
    hybrid: bool = False,
    top_k: int = 10,
    as_json: bool = False,
    **opening: Any,
) -> int:
    """Prints what is found for each query, and returns the exit status 0.

    Args:
        model: See `load_encoder`.
        patterns: Of the corpus, as for `corpus_files`.
        queries: What is searched; none and no `query_file`: they are asked for on the terminal.
        options: How the corpus is read and embedded.
        query_file: More queries; see `read_queries`.
        index: Folder of an index on disk; None: every document is compared.
        hybrid: Whether BM25's ranking is fused with the encoder's.
        top_k: Documents per query.
        as_json: Whether to print a JSON object per query.
        opening: Arguments of `load_encoder`: `pooling`, `dtype`, `max_seq_length`.

    Raises:
        UserError: An argument is wrong, or a package is missing.
    """
    if index is not None:
        require_usearch()
    if hybrid:
        require_bm25s()
    queries = [*queries, *(read_queries(query_file) if query_file else [])]
    if patterns:
        check_corpus(patterns, options.option)  # before time is spent on the model
    encoder = load_encoder(model, **opening)
    store: DocumentStore
    if index is None:
        store = ExactStore(embed_corpus(encoder.for_task("document"), patterns, options))
    else:
        store = open_index(index, encoder, patterns, options)
    search = Search(encoder, store, hybrid)
    if queries:
        for start in range(0, len(queries), options.batch_size):
            batch = queries[start : start + options.batch_size]
            for query, hits in zip(batch, search.hits(batch, top_k), strict=True):
                _show(query, hits, as_json, heading=len(queries) > 1)
        return 0
    print(f"{len(store.table):,} documents; an empty line ends", file=sys.stderr)
    for query in _asked():
        _show(query, search.hits([query], top_k)[0], as_json, heading=False)
    return 0


def _asked() -> Iterator[str]:
    while True:
        try:
            query = input("query: ")
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)
            return
        if not query.strip():
            return
        yield query


def _show(query: str, hits: Sequence[Hit], as_json: bool, heading: bool) -> None:
    if as_json:
        found = [{name: value for name, value in asdict(hit).items() if value is not None} for hit in hits]
        print(json.dumps({"query": query, "hits": found}, ensure_ascii=False), flush=True)
        return
    if heading:
        print(f"\n{printable(query)}")
    # A terminal gets one line per hit, a file the whole text.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for hit in hits:
        line = f"{hit.rank:>3}  {hit.cosine:6.4f}  {printable(hit.text)}"
        source = f"  ({hit.file}: {hit.id})"
        room = max(40, width - len(source))
        print((line if len(line) <= room else f"{line[: room - 3]}...") + source)
