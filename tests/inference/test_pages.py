"""`arccse search` over pages: their paragraphs, known from how they were written, against numpy."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from backbones import save_encoder
from sentence_transformers import SentenceTransformer

from arccse_hf.commands.texts import search
from arccse_hf.errors import UserError
from arccse_hf.inference.corpus import CorpusOptions, corpus_files
from arccse_hf.inference.encode_files.windows import EncodeOptions

PAGES = {
    "docs/cats.md": "# The cat\n\na cat sat. On the\nmat.\n\n## Its *dog*\n\nthe dog ran\n\n```\ncode\n```\n",
    "docs/deep/printer.html": "<title>Home</title><nav>menu</nav><h1>Printer</h1><p>the <b>red</b> mat<p>a house",
    "docs/deep/plain.rst": "the sun and\nthe sea\n",
}
# file, id, title, text
PARAGRAPHS = [
    ("docs/cats.md", 0, "The cat", "a cat sat. On the mat."),
    ("docs/cats.md", 1, "The cat > Its dog", "the dog ran"),
    ("docs/deep/plain.rst", 0, None, "the sun and the sea"),
    ("docs/deep/printer.html", 0, "Printer", "the red mat"),
    ("docs/deep/printer.html", 1, "Printer", "a house"),
]


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory) -> str:
    return save_encoder(tmp_path_factory.mktemp("models") / "plain", tokenizer, initializer_range=0.5)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in PAGES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    return tmp_path


def hits(model: str, capsys, *argv: str) -> list[dict]:
    assert search(["--model", model, "--query", "the mat", "--cache_dir", "cache", "--json", *argv]) == 0
    return json.loads(capsys.readouterr().out)["hits"]


def expected(model: str, paragraphs: list[tuple], prefix: str = "") -> list[dict]:
    encoder = SentenceTransformer(model, device="cpu")
    query, *texts = encoder.encode(["the mat", *(text for *_, text in paragraphs)]).astype(np.float64)
    cosines = [text @ query / np.linalg.norm(text) / np.linalg.norm(query) for text in texts]
    rows = []
    for rank, number in enumerate(np.argsort(cosines)[::-1], start=1):
        file, identity, title, text = paragraphs[number]
        row = {"rank": rank, "cosine": pytest.approx(cosines[number], abs=1e-6)}
        row |= {"file": file.removeprefix(prefix), "id": identity, "text": text}
        rows.append(row | ({} if title is None else {"title": title}))
    return rows


@pytest.mark.parametrize("index", [[], ["--index", "index"]])
@pytest.mark.parametrize(("corpus", "prefix"), [("docs/", ""), ("docs/**/*", "docs/")])
def test_the_hits_are_paragraphs_with_their_page_and_title(index, corpus, prefix, model, capsys, monkeypatch):
    monkeypatch.setattr("arccse_hf.inference.corpus.EncodeOptions", partial(EncodeOptions, shard_rows=2))
    found = hits(model, capsys, "--corpus", corpus, *index)
    assert found == expected(model, PARAGRAPHS, prefix)
    assert hits(model, capsys, "--corpus", corpus, *index) == found
    if index:
        assert hits(model, capsys, *index) == found


def test_people_see_the_page_and_what_was_left_out(model, capsys):
    Path("docs/empty.md").write_text("")
    Path("docs/photo.html").write_bytes(b"\x89PNG\0\1")
    Path("docs/copy.md").write_text(PAGES["docs/cats.md"])
    assert search(["--model", model, "--query", "a house", "--corpus", "docs", "--cache_dir", "cache"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].endswith("a house  (docs/deep/printer.html: 1)") and len(out.splitlines()) == 5
    counts = "3 documents of 6: 1 empty (empty.md), 1 binary or not UTF-8 (photo.html), 1 duplicates (copy.md)"
    assert counts in err.splitlines()


def test_pages_are_embedded_once_and_anew_when_a_paragraph_changes(model, capsys):
    hits(model, capsys, "--corpus", "docs")
    (kept,) = Path("cache").rglob("*.parquet")
    written = kept.stat().st_mtime_ns
    Path("docs/cats.md").write_text(PAGES["docs/cats.md"].replace("*dog*", "dog"))  # the same to a reader
    hits(model, capsys, "--corpus", "docs")
    assert [path.stat().st_mtime_ns for path in Path("cache").rglob("*.parquet")] == [written]
    Path("docs/cats.md").write_text(PAGES["docs/cats.md"].replace("dog ran", "dog sat"))
    changed = [(*row[:3], row[3].replace("dog ran", "dog sat")) for row in PARAGRAPHS]
    assert hits(model, capsys, "--corpus", "docs") == expected(model, changed)
    assert len(list(Path("cache").rglob("*.parquet"))) == 2


def test_an_index_of_other_paragraphs_is_refused(model, capsys):
    hits(model, capsys, "--corpus", "docs", "--index", "index")
    Path("docs/cats.md").write_text(PAGES["docs/cats.md"].replace("The cat", "A cat"))  # a title that hits show
    with pytest.raises(UserError, match="--index index: was built from other files"):
        hits(model, capsys, "--corpus", "docs", "--index", "index")


def test_a_row_with_a_title_stays_one_text(model, capsys):
    rows = [{"title": "The cat", "text": "a cat sat.\n\nthe dog ran"}, {"title": "Other", "text": "the sun"}]
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    texts = [("rows.jsonl", number, None, row["text"]) for number, row in enumerate(rows)]
    assert hits(model, capsys, "--corpus", "rows.jsonl") == expected(model, texts)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--corpus void", r"--corpus void: has no file that is a document \(.htm, .html, .markdown, .md, .rst\)"),
        ("--corpus void/*.md", r"--corpus void/\*.md: matches no file"),
        (
            "--corpus binary.md",
            r"--corpus binary.md: holds no document with text .*1 binary or not UTF-8",
        ),
        (
            "--corpus docs rows.txt",
            "--corpus rows.txt: holds rows, but docs/cats.md is a document; give files of one sort",
        ),
        ("--corpus docs --id_column page", "--id_column page: paragraphs of pages have no columns; leave it out"),
        ("--corpus docs --text_column body", "--text_column body: paragraphs of pages have no columns"),
        ("--corpus letter.pdf", "--corpus letter.pdf: unknown kind of document"),
    ],
)
def test_mistakes_are_one_line(argv, message, model):
    Path("void").mkdir()
    Path("binary.md").write_bytes(b"\0")
    Path("letter.pdf").write_bytes(b"%PDF")
    Path("rows.txt").write_text("a cat\n")
    with pytest.raises(UserError, match=message):
        search(["--model", model, "--query", "cat", "--cache_dir", "cache", *argv.split()])


def test_pages_are_one_file_of_rows_in_order():
    (file,) = corpus_files(["docs"], CorpusOptions())
    assert file.rows == 5 and file.content.count() == 5
    numbered = list(file.content.rows(["id", "text"], [(1, 2), (3, None)]))
    assert numbered == [(2, (1, "the dog ran")), (4, (0, "the red mat")), (5, (1, "a house"))]
