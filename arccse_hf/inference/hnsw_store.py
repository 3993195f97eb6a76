"""An index on disk: HNSW graphs by usearch, memory-mapped, so that a corpus may be larger than memory.

The folder stands alone: it holds the texts, the embeddings, and graphs of so many documents each that building one
takes a bounded amount of memory.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from ..errors import UserError, one_line
from ..paths import read_json, write_json
from .corpus import Documents, EmbeddedCorpus
from .new_folder import is_unused, new_folder

SETTINGS = "index.json"
DOCUMENTS = "documents.arrow"
EMBEDDINGS = "embeddings.npy"
COPIES = "next_copy.npy"
"""For each document the number of the next one with the same text in the same graph, or -1."""

_OPTION = "--index"
_GRAPH_BYTES = 2**28
_BYTES_PER_NODE = 768  # of a graph with 16 links per node, besides the vector
_FOUND_AT_LEAST = 64
_EXPANSION_SEARCH = 256
_FIRST_NODES = 2_000


class HnswStore:
    """The documents of an index, found through its graphs.

    Args:
        folder: Where `build_index` has put it.

    Raises:
        UserError: It is no index, or cannot be read; or usearch is not installed.
    """

    def __init__(self, folder: Path):
        usearch = require_usearch()
        self.settings = read_settings(folder)
        try:
            self.table = pa.ipc.open_file(pa.memory_map(str(folder / DOCUMENTS))).read_all()
            self.embeddings = np.load(folder / EMBEDDINGS, mmap_mode="r")[: len(self.table)]
            self.next_copy = np.load(folder / COPIES, mmap_mode="r")
            self.graphs = [
                usearch.Index.restore(str(folder / name), view=True, enable_key_lookups=False)
                for name in self.settings["graphs"]
            ]
            if None in self.graphs:
                raise ValueError("a graph is damaged")
        except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
            raise UserError(
                f"{_OPTION} {folder}: cannot be read ({one_line(error)}); delete the folder and build it anew"
            ) from error
        for graph in self.graphs:
            graph.expansion_search = _EXPANSION_SEARCH

    def candidates(self, query: np.ndarray, count: int) -> np.ndarray:
        """As `DocumentStore.candidates`, for nearly all of the nearest."""
        numbers: list[int] = []
        for graph in self.graphs:
            for number in graph.search(query, max(2 * count, _FOUND_AT_LEAST)).keys.tolist():
                copies = 0
                while number >= 0 and copies < count:
                    numbers.append(number)
                    number = int(self.next_copy[number])
                    copies += 1
        return np.array(numbers, dtype=np.int64)


def build_index(corpus: EmbeddedCorpus, folder: Path, documents_per_graph: int | None = None) -> None:
    """Writes an index of a corpus; the folder is there whole or not at all.

    A graph holds each text once: many copies of one vector are tied to each other only, and lead nowhere else.

    Args:
        corpus: The embedded texts.
        folder: A folder that does not exist or is empty.
        documents_per_graph: None: as many as a graph of 256 MiB has room for.

    Raises:
        UserError: The folder is in use or cannot be written; or usearch is not installed.
    """
    usearch = require_usearch()
    if not is_unused(folder):
        raise UserError(f"{_OPTION} {folder}: is no index, and not empty; choose another folder")
    limit = documents_per_graph or max(1_000, _GRAPH_BYTES // (2 * corpus.dimension + _BYTES_PER_NODE))
    with new_folder(folder, _OPTION) as staging:
        graphs, documents = _write_parts(corpus, staging, limit, usearch.Index)
        write_json(
            staging / SETTINGS,
            {
                "format": 1,
                "documents": documents,
                "dimension": corpus.dimension,
                "graphs": graphs,
                "files": file_hashes(corpus),
                "embedding": dict(corpus.settings),
            },
        )


def file_hashes(corpus: EmbeddedCorpus) -> dict[str, str]:
    """Returns the hash of each file of a corpus by its name."""
    return {shard.file.name: shard.file.sha256 for shard in corpus.shards}


def read_settings(folder: Path) -> dict[str, Any]:
    """Returns what an index was made from; empty where there is none.

    Raises:
        UserError: It is a file, or was made by another version.
    """
    if folder.is_file():
        raise UserError(f"{_OPTION} {folder}: is a file; name a folder")
    settings = read_json(folder / SETTINGS)
    if settings and settings.get("format") != 1:
        raise UserError(f"{_OPTION} {folder}: was built by another version; delete the folder and build it anew")
    return settings


def require_usearch() -> Any:
    """Returns the module `usearch.index`; raises UserError where it is not installed."""
    try:
        import usearch.index
    except ImportError as error:
        raise UserError(f"{_OPTION}: the package usearch is not installed: pip install 'arccse-hf[search]'") from error
    return usearch.index


def _write_parts(corpus: EmbeddedCorpus, folder: Path, limit: int, make_index: Any) -> tuple[list[str], int]:
    """Writes all but the settings; returns the names of the graphs, and the number of documents."""
    dtype = np.dtype(str(corpus.settings["output_dtype"]))
    # With room for rows without text, which are no documents.
    shape = (corpus.rows, corpus.dimension)
    embeddings = _new_array(folder / EMBEDDINGS, dtype, shape)
    next_copy = _new_array(folder / COPIES, np.dtype(np.int64), shape[:1])
    names: list[str] = []
    start = 0
    with (
        pa.OSFile(str(folder / DOCUMENTS), "wb") as sink,
        pa.ipc.new_file(sink, corpus.schema) as writer,
        tqdm(total=corpus.rows, desc="indexing", unit=" texts", unit_scale=True, delay=2) as bar,
    ):
        for _, pieces in itertools.groupby(_cut(corpus.parts(), limit), key=itemgetter(0)):
            graph = make_index(ndim=corpus.dimension, metric="cos", dtype="f16", enable_key_lookups=False)
            last: dict[str, int] = {}
            for _, piece in pieces:
                stop = start + len(piece.table)
                embeddings[start:stop], next_copy[start:stop] = piece.embeddings, -1
                new = np.ones(stop - start, dtype=bool)
                for number, text in enumerate(piece.table["text"].to_pylist(), start=start):
                    if (before := last.get(text)) is not None:
                        next_copy[before], embeddings[number] = number, embeddings[before]
                        new[number - start] = False
                    last[text] = number
                _add(graph, np.arange(start, stop)[new], piece.embeddings[new])
                writer.write_table(piece.table)
                bar.update(stop - start)
                start = stop
            names.append(f"graph-{len(names):05d}.usearch")
            try:
                graph.save(str(folder / names[-1]))
            except RuntimeError as error:  # usearch's word for a full disk
                raise OSError(f"{names[-1]}: {one_line(error)}") from error
        embeddings.flush()
        next_copy.flush()
    return names, start


def _new_array(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.memmap:
    """Returns an array on disk, whose space is there: on a full disk, a write to it would kill the process."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _add(graph: Any, numbers: np.ndarray, vectors: np.ndarray) -> None:
    # Threads that insert at the same time do not see each other's nodes: while there are few others, some nodes would
    # be linked by none.
    alone = max(0, _FIRST_NODES - len(graph))
    graph.add(numbers[:alone], vectors[:alone], threads=1)
    graph.add(numbers[alone:], vectors[alone:])


def _cut(parts: Iterable[Documents], limit: int) -> Iterator[tuple[int, Documents]]:
    """Yields the parts, cut where a graph ends, with the number of their graph."""
    count = 0
    for part in parts:
        start = 0
        while start < len(part.table):
            stop = min(len(part.table), start + limit - count % limit)
            yield count // limit, Documents(part.table.slice(start, stop - start), part.embeddings[start:stop])
            count += stop - start
            start = stop
