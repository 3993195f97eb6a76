#!/usr/bin/env python
"""The index of `search` beside an exact search over the same sentences: what it finds, how long it takes, its memory.

    python benchmarks/search_index.py --text sentences.txt.gz --output search_index.json

The first sentences are the queries, those behind them the corpus; both ways search the same kept embeddings. Recall is
the share of the exact ten nearest that the index finds. The index is built as one graph, and as ten.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from measuring import write_report
from trainers import MINILM, open_model, read_sentences

from arccse_hf.inference.corpus import CorpusOptions, EmbeddedCorpus, embed_corpus
from arccse_hf.inference.embed import embed
from arccse_hf.inference.hnsw_store import HnswStore, build_index
from arccse_hf.inference.nearest import DocumentStore, ExactStore, nearest
from arccse_hf.inference.open import load_encoder


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", required=True, help="a file of sentences, one per line, may end in .gz")
    parser.add_argument("--model", default=MINILM, help="any encoder, or tiny")
    parser.add_argument("--sentences", type=int, default=100_000, help="how many are searched")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--dtype", default="float32", help="of the encoder")
    parser.add_argument("--cache", help="folder where the embeddings are kept for another run")
    parser.add_argument("--output", help="where the JSON goes")
    options = parser.parse_args(argv)
    sentences = read_sentences(options.text, options.sentences + options.queries)
    queries, corpus = sentences[: options.queries], sentences[options.queries :]
    with TemporaryDirectory() as folder:
        file = Path(folder, "corpus.txt")
        file.write_text("".join(f"{sentence}\n" for sentence in corpus), encoding="utf-8")
        encoder = load_encoder(open_model(options.model, sentences, Path(folder, "model")), dtype=options.dtype)
        cache = Path(options.cache or Path(folder, "cache"))
        embedded = embed_corpus(encoder, [str(file)], CorpusOptions(cache_dir=cache))
        vectors = embed(encoder, queries).astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        exact, exact_ms = search(ExactStore(embedded), vectors)
        indexes = [
            measure(embedded, Path(folder, str(limit)), limit, vectors, exact)
            for limit in (len(corpus), -(-len(corpus) // 10))
        ]
    for index in indexes:
        print(
            f"{index['graphs']} graphs: recall {index['recall_at_10']:.4f}, largest difference of a cosine "
            f"{index['largest_difference']:.1e}, built in {index['build_seconds']:.0f} s, "
            f"{index['ms_per_query']:.2f} ms per query (exact {exact_ms:.2f})"
        )
    write_report(options, documents=len(corpus), exact_ms_per_query=exact_ms, indexes=indexes)


def search(store: DocumentStore, vectors: np.ndarray) -> tuple[list[dict[int, float]], float]:
    """Returns the ten nearest of each query with their cosines, and the milliseconds per query."""
    start = time.perf_counter()
    results = [nearest(store, vector, 10) for vector in vectors]
    milliseconds = (time.perf_counter() - start) / len(vectors) * 1e3
    return [dict(zip(*map(np.ndarray.tolist, result), strict=True)) for result in results], milliseconds


def measure(
    corpus: EmbeddedCorpus, folder: Path, limit: int, vectors: np.ndarray, exact: Sequence[dict[int, float]]
) -> dict:
    """Returns how one index compares with the exact search."""
    start = time.perf_counter()
    build_index(corpus, folder, limit)
    seconds = time.perf_counter() - start
    store = HnswStore(folder)
    results, milliseconds = search(store, vectors)
    shared = [
        (true[number], found[number])
        for true, found in zip(exact, results, strict=True)
        for number in true.keys() & found.keys()
    ]
    return {
        "graphs": len(store.graphs),
        "recall_at_10": len(shared) / sum(map(len, exact)),
        "largest_difference": max(abs(one - other) for one, other in shared),
        "build_seconds": seconds,
        "ms_per_query": milliseconds,
        "mib_on_disk": sum(path.stat().st_size for path in folder.iterdir()) / 2**20,
    }


if __name__ == "__main__":
    main()
