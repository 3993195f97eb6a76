"""`arccse search` against numpy: every document compared, in both ways of searching."""

import io
import json
import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from backbones import WORDS, save_encoder
from sentence_transformers import SentenceTransformer

from arccse_hf.commands import VERBS
from arccse_hf.commands.texts import SEARCH, search
from arccse_hf.errors import UserError
from arccse_hf.inference import corpus as corpus_module
from arccse_hf.inference import hnsw_store
from arccse_hf.inference.corpus import CorpusOptions, Documents, EmbeddedCorpus, embed_corpus
from arccse_hf.inference.hnsw_store import HnswStore, build_index
from arccse_hf.inference.nearest import ExactStore, nearest
from arccse_hf.inference.open import load_encoder
from arccse_hf.inference.search import Search, reciprocal_rank_fusion


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory) -> str:
    return save_encoder(tmp_path_factory.mktemp("models") / "plain", tokenizer, initializer_range=0.5)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    return tmp_path


def texts(count: int, seed: int = 0) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, size=generator.integers(3, 12))) for _ in range(count)]


def write_docs(path: str, rows: list[str | None]) -> list[str | None]:
    lines = [json.dumps({"id": f"doc{number}", "text": text}) for number, text in enumerate(rows)]
    Path(path).write_text("".join(f"{line}\n" for line in lines))
    return rows


def cosines(model: str, queries: list[str], documents: list[str]) -> np.ndarray:
    """By sentence-transformers and numpy alone, `[queries, documents]`."""
    encoder = SentenceTransformer(model, device="cpu")
    left, right = (encoder.encode(some, batch_size=7).astype(np.float64) for some in (queries, documents))
    return (left / np.linalg.norm(left, axis=1)[:, None]) @ (right / np.linalg.norm(right, axis=1)[:, None]).T


def answers(capsys, *argv: str) -> list[dict]:
    assert search([*argv, "--cache_dir", "cache", "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("index", [[], ["--index", "index"]])
def test_hits_are_those_of_brute_force(index, model, folder, capsys, caplog):
    rows = write_docs("docs.jsonl", [*texts(300), "", None])
    queries = texts(8, seed=1)
    Path("queries.csv").write_text("\n".join(["query,number", *(f"{query},0" for query in queries), ",0"]))
    argv = ["--model", model, "--corpus", "docs.jsonl", "--query_file", "queries.csv", "--id_column", "id", *index]
    found = answers(capsys, *argv, "--top_k", "5")
    assert "--query_file queries.csv: 1 of 9 rows hold no query" in caplog.text
    assert caplog.text.count("2 of 302 rows have no text and are left out") == 1
    expected = cosines(model, queries, rows[:300])
    assert [answer["query"] for answer in found] == queries
    for answer, row in zip(found, expected, strict=True):
        best = np.argsort(-row, kind="stable")[:5]
        assert [hit["id"] for hit in answer["hits"]] == [f"doc{number}" for number in best]
        np.testing.assert_allclose([hit["cosine"] for hit in answer["hits"]], row[best], atol=1e-6)
        assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4, 5]
        assert answer["hits"][0]["text"] == rows[best[0]] and answer["hits"][0]["file"] == "docs.jsonl"


@pytest.mark.parametrize("index", [[], ["--index", "index"]])
def test_copies_are_hits_of_their_own_in_the_order_of_the_corpus(index, model, folder, capsys):
    words = texts(40)
    write_docs("docs.jsonl", [*words, words[7], *texts(30, seed=2), words[7]])
    argv = ["--model", model, "--corpus", "docs.jsonl", "--query", words[7], *index]
    (answer,) = answers(capsys, *argv)
    hits = answer["hits"][:3]
    assert [hit["id"] for hit in hits] == [7, 40, 71] and len({hit["cosine"] for hit in hits}) == 1
    assert answers(capsys, *argv) == [answer]
    (few,) = answers(capsys, *argv, "--top_k", "2")
    assert [hit["id"] for hit in few["hits"]] == [7, 40]


def test_the_corpus_is_embedded_once(model, folder, capsys, monkeypatch):
    write_docs("docs.jsonl", texts(20))
    argv = ["--model", model, "--corpus", "docs.jsonl", "--query", "a cat"]
    first = answers(capsys, *argv)
    (kept,) = Path("cache").rglob("*.parquet")
    times = kept.stat().st_mtime_ns
    assert answers(capsys, *argv) == first
    assert kept.stat().st_mtime_ns == times and len(list(Path("cache").rglob("*.parquet"))) == 1
    write_docs("docs.jsonl", texts(21))
    assert len(answers(capsys, *argv, "--top_k", "30")[0]["hits"]) == 21
    assert len(list(Path("cache").rglob("*.parquet"))) == 2


def test_two_commands_embed_a_corpus_once_and_the_second_waits(model, folder, monkeypatch):
    write_docs("docs.jsonl", texts(20))
    arguments = load_encoder(model), ["docs.jsonl"], CorpusOptions(cache_dir=Path("cache"))
    second = threading.Thread(target=embed_corpus, args=arguments)
    waits, rows, write_missing = threading.Event(), [], corpus_module.write_missing

    def write_and_count(*arguments):
        if not second.ident:
            second.start()
            assert waits.wait(60)
        counts, there = write_missing(*arguments)
        rows.append(sum(count.rows for count in counts))
        return counts, there

    monkeypatch.setattr(corpus_module.logger, "warning", lambda message: waits.set())
    monkeypatch.setattr(corpus_module, "write_missing", write_and_count)
    embed_corpus(*arguments)
    second.join()
    assert rows == [20, 0]


def test_an_index_finds_nearly_all_and_needs_no_corpus(model, folder, capsys):
    """Several graphs, float16, and copies within and across them."""
    rows = texts(3_000, seed=3)
    write_docs("docs.jsonl", rows + rows[:50])
    encoder = load_encoder(model)
    corpus = embed_corpus(encoder, ["docs.jsonl"], CorpusOptions(output_dtype="float16", cache_dir=Path("cache")))
    build_index(corpus, Path("index"), documents_per_graph=1_000)
    store, exact = HnswStore(Path("index")), ExactStore(corpus)
    assert len(store.graphs) == 4 and len(store.table) == 3_050
    np.testing.assert_array_equal(store.table["text"].to_pylist(), rows + rows[:50])
    wanted = agreed = 0
    for query in exact.embeddings[:100] + np.random.default_rng(0).normal(size=(100, 16)) / 8:
        query = query / np.linalg.norm(query)
        (found, near), (true, truth) = nearest(store, query, 10), nearest(exact, query, 10)
        wanted, agreed = wanted + 10, agreed + len({*found.tolist()} & {*true.tolist()})
        by_number = dict(zip(true.tolist(), truth, strict=True))
        assert all(
            abs(by_number.get(number, cosine) - cosine) < 1e-3 for number, cosine in zip(found, near, strict=True)
        )
    assert agreed / wanted >= 0.98
    (answer,) = answers(capsys, "--model", model, "--index", "index", "--query", rows[0])
    assert [hit["id"] for hit in answer["hits"][:2]] == [0, 3_000]


def test_texts_of_more_than_two_gigabytes_are_not_copied(model):
    """They are one array again and again, which takes little memory. Arrow cannot join it into one."""
    text = pa.array([f"a cat {'x' * 2**23}"])
    table = pa.table({"file": pa.repeat("f", 300), "id": np.arange(300), "text": pa.chunked_array([text] * 300)})
    assert table.nbytes > 2**31
    store = SimpleNamespace(table=table, embeddings=np.eye(300, 16), candidates=lambda *_: np.arange(300))
    (hits,) = Search(load_encoder(model), store).hits(["a cat"], top_k=2)
    assert [hit.text for hit in hits] == 2 * text.to_pylist()


def test_hybrid_fuses_ranks(model, folder, capsys):
    rows = write_docs("docs.jsonl", [*texts(150), "the printer jams"])
    argv = ["--model", model, "--corpus", "docs.jsonl", "--query", "cat printer", "--hybrid", "--top_k", "151"]
    (answer,) = answers(capsys, *argv)
    by_cosine = np.argsort(-cosines(model, ["cat printer"], rows)[0], kind="stable")[:151].tolist()
    with_cat = [number for number, row in enumerate(rows) if "cat" in row.split()]
    for hit in answer["hits"]:
        if hit["id"] not in [*with_cat, 150]:
            assert hit["fused"] == pytest.approx(1 / (61 + by_cosine.index(hit["id"])))
    printer = next(hit for hit in answer["hits"] if hit["id"] == 150)  # the rarest word, in a short text: BM25's first
    assert printer["fused"] == pytest.approx(1 / 61 + 1 / (61 + by_cosine.index(150)))
    fused = [hit["fused"] for hit in answer["hits"]]
    assert fused == sorted(fused, reverse=True)


def test_reciprocal_ranks_add_up():
    sums = reciprocal_rank_fusion([np.array([4, 2]), np.array([2])])
    assert sums == {4: pytest.approx(1 / 61), 2: pytest.approx(1 / 62 + 1 / 61)}


def test_queries_and_documents_get_their_prompts(tokenizer, folder):
    """As sentence-transformers' `encode_query` and `encode_document` embed them."""
    plain = save_encoder(folder / "plain", tokenizer, initializer_range=0.5)
    model = SentenceTransformer(plain, device="cpu", prompts={"query": "find the", "document": "a long"})
    model.save(str(folder / "prompted"))
    rows = write_docs("docs.jsonl", texts(9))
    encoder = load_encoder("prompted")
    corpus = embed_corpus(encoder.for_task("document"), ["docs.jsonl"], CorpusOptions(cache_dir=folder / "cache"))
    (hits,) = Search(encoder, ExactStore(corpus)).hits(["a cat"], top_k=9)
    query, documents = model.encode_query("a cat"), model.encode_document(rows)
    expected = documents @ query / np.linalg.norm(documents, axis=1) / np.linalg.norm(query)
    np.testing.assert_allclose([hit.cosine for hit in hits], np.sort(expected)[::-1], atol=1e-6)


def test_text_for_people_and_a_conversation(model, folder, capsys, monkeypatch):
    write_docs("docs.jsonl", ["a cat\x1b[31m", "the dog"])
    argv = ["--model", model, "--corpus", "docs.jsonl", "--cache_dir", "cache"]
    assert search([*argv, "--query", "a cat"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and re.search(r"^  1  \d\.\d{4}  .*\(docs.jsonl: \d\)$", out, re.MULTILINE)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    lines = iter(["a cat", "the dog", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert search(argv) == 0
    assert capsys.readouterr().out.count("  1  ") == 2


def test_the_example_of_the_help_runs(model, folder, capsys):
    Path("docs").mkdir()
    Path("docs/page.md").write_text("\n\n".join(texts(4)))
    Path("out").symlink_to(model)
    argv = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", SEARCH.example)]
    assert argv[:2] == ["arccse", "search"]
    assert VERBS["search"][1]([*argv[2:], "--cache_dir", "cache"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def built(model: str, dimension: int = 16) -> None:
    write_docs("docs.jsonl", texts(5))
    corpus = embed_corpus(load_encoder(model), ["docs.jsonl"], CorpusOptions(cache_dir=Path("cache")))
    build_index(corpus, Path("index"))


def test_an_index_of_another_model_dimension_or_corpus_is_refused(model, tokenizer, folder):
    built(model)
    other = save_encoder(folder / "other", tokenizer, seed=1)
    wide = save_encoder(folder / "wide", tokenizer, hidden_size=32)
    argv = ["--index", "index", "--query", "a cat", "--cache_dir", "cache"]
    with pytest.raises(UserError, match="--index index: was built with another model, or other weights of it"):
        search([*argv, "--model", other])
    with pytest.raises(UserError, match="--index index: holds embeddings of 16 dimensions, and --model .* gives 32"):
        search([*argv, "--model", wide])
    write_docs("docs.jsonl", texts(6))
    with pytest.raises(UserError, match="cut to 64 tokens, and --model .* reads 4; give --max_seq_length 64, or"):
        search([*argv, "--model", model, "--max_seq_length", "4"])
    with pytest.raises(UserError, match="--index index: was built from other files or columns"):
        search([*argv, "--model", model, "--corpus", "docs.jsonl"])
    (folder / "index" / "graph-00000.usearch").write_bytes(b"")
    with pytest.raises(UserError, match="--index index: cannot be read .*; delete the folder and build it anew"):
        search([*argv, "--model", model])


def test_a_build_that_fails_leaves_nothing(model, folder, monkeypatch):
    monkeypatch.setattr(hnsw_store, "write_json", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(UserError, match="--index index: cannot be written"):
        built(model)
    assert sorted(path.name for path in folder.iterdir()) == ["cache", "docs.jsonl"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--query cat", "--corpus: is missing, and needed unless --index names an index"),
        ("--query cat --index new", "--corpus: is missing"),
        ("--corpus docs.jsonl", "--query: is missing, and there is no terminal to ask on"),
        ("--corpus none.txt --query cat", "--corpus none.txt: does not exist"),
        ("--corpus docs.jsonl --query cat --text_column body", "--text_column body: .*docs.jsonl has no column body"),
        ("--corpus empty.txt --query cat", "--corpus empty.txt: holds no row"),
        ("--corpus blank.jsonl --query cat", "--corpus blank.jsonl: no row has text"),
        ("--corpus docs.jsonl --query_file blank.jsonl", "--query_file blank.jsonl: holds no query"),
        ("--corpus docs.jsonl --query cat --index full", "--index full: is no index, and not empty"),
    ],
)
def test_mistakes_are_one_line(argv, message, model, folder):
    write_docs("docs.jsonl", texts(3))
    write_docs("blank.jsonl", ["", None, " "])
    Path("empty.txt").write_text("")
    Path("full").mkdir()
    Path("full/file").write_text("x")
    with pytest.raises(UserError, match=message):
        search(["--model", model, "--cache_dir", "cache", *argv.split()])


@pytest.mark.parametrize(
    ("package", "option", "message"),
    [
        (
            "usearch",
            ["--index", "i"],
            r"--index: the package usearch is not installed: pip install 'arccse-hf\[search\]'",
        ),
        ("bm25s", ["--hybrid"], r"bm25s: pip install 'arccse-hf\[documents\]'"),
    ],
)
def test_a_missing_extra_is_one_line(package, option, message, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.index", None)
    write_docs("docs.jsonl", texts(3))
    with pytest.raises(UserError, match=message):
        search(["--model", "none", "--corpus", "docs.jsonl", "--query", "cat", *option])


def test_copies_get_the_embedding_of_the_first(model, folder, monkeypatch):
    """Batches differ, and with them the last digits: here by much."""
    write_docs("docs.jsonl", ["a cat", "the dog", "a cat"])
    corpus = embed_corpus(load_encoder(model), ["docs.jsonl"], CorpusOptions(cache_dir=Path("cache")))
    (part,) = corpus.parts()
    vectors = np.eye(3, 16, dtype=np.float32)
    monkeypatch.setattr(EmbeddedCorpus, "parts", lambda _: iter([Documents(part.table, vectors.copy())]))
    np.testing.assert_array_equal(corpus.read().embeddings, vectors[[0, 1, 0]])
    build_index(corpus, Path("index"))
    np.testing.assert_array_equal(HnswStore(Path("index")).embeddings, vectors[[0, 1, 0]])


@pytest.mark.parametrize("full", ["arrays", "graph"])
def test_a_disk_that_is_full_while_an_index_is_built_is_one_line(model, folder, monkeypatch, full):
    write_docs("docs.jsonl", texts(30))
    corpus = embed_corpus(load_encoder(model), ["docs.jsonl"], CorpusOptions(cache_dir=Path("cache")))

    def no_space(*_):
        raise OSError(28, "No space left on device") if full == "arrays" else RuntimeError("Failed to serialize")

    if full == "arrays":
        monkeypatch.setattr(hnsw_store.os, "posix_fallocate", no_space)
    else:
        monkeypatch.setattr(hnsw_store.require_usearch().Index, "save", no_space)
    with pytest.raises(UserError, match="--index index: cannot be written .*; free some space"):
        build_index(corpus, Path("index"))
    assert not list(folder.glob("*index*"))
