"""What stands behind the page of `arccse demo`, against numpy; and what it does with texts that could be markup."""

import asyncio
import json
import socket
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from backbones import WORDS, save_encoder
from sentence_transformers import SentenceTransformer

from arccse_hf.__main__ import main
from arccse_hf.errors import UserError
from arccse_hf.inference import demo as demo_module
from arccse_hf.inference.corpus import CorpusOptions, embed_corpus
from arccse_hf.inference.demo import Demo, Found
from arccse_hf.inference.demo_page import (
    MAX_BODY_BYTES,
    SHOWN_CHARS,
    LimitBody,
    check_address,
    heat_maps_as_html,
    rankings_as_html,
)
from arccse_hf.inference.nearest import ExactStore
from arccse_hf.inference.open import load_encoder
from arccse_hf.inference.search import Hit, Search

MARKUP = "<script>alert(1)</script> \"a' & <b onclick='x'>b</b>"


@pytest.fixture(scope="module")
def models(tokenizer, tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    return [
        save_encoder(folder / name, tokenizer, initializer_range=scale)
        for name, scale in (("tuned", 0.5), ("base", 0.9))
    ]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(WORDS, size=draw.integers(3, 12))) for _ in range(120)]


@pytest.fixture(scope="module")
def searches(models, texts, tmp_path_factory) -> list[Search]:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "docs.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    options = CorpusOptions(cache_dir=folder / "cache")
    encoders = [load_encoder(model) for model in models]
    return [Search(one, ExactStore(embed_corpus(one, [str(folder / "docs.jsonl")], options))) for one in encoders]


def cosines(model: str, left: list[str], right: list[str]) -> np.ndarray:
    """By sentence-transformers and numpy alone."""
    encoder = SentenceTransformer(model, device="cpu")
    left, right = (encoder.encode(some).astype(np.float64) for some in (left, right))
    return (left / np.linalg.norm(left, axis=1)[:, None]) @ (right / np.linalg.norm(right, axis=1)[:, None]).T


def test_each_ranking_is_that_of_brute_force_and_knows_the_rank_in_the_other(models, texts, searches, monkeypatch):
    monkeypatch.setattr(demo_module, "DEPTH", 30)
    query = " ".join(WORDS[3:8])
    scores = [cosines(model, [query], texts)[0] for model in models]
    orders = [np.argsort(-row, kind="stable").tolist() for row in scores]
    assert orders[0] != orders[1]
    found = Demo(searches, top_k=25).nearest(f"  {query}\n")
    for number, (ranking, row, order) in enumerate(zip(found, scores, orders, strict=True)):
        assert [one.hit.id for one in ranking] == order[:25]
        assert [one.hit.rank for one in ranking] == list(range(1, 26))
        assert [one.hit.cosine for one in ranking] == pytest.approx(sorted(row, reverse=True)[:25], abs=1e-5)
        ranks = [orders[1 - number].index(one.hit.id) + 1 for one in ranking]
        assert [one.other_rank for one in ranking] == [rank if rank <= 30 else None for rank in ranks]
        assert None in [one.other_rank for one in ranking]


def test_one_encoder_has_no_other_ranks(searches):
    (ranking,) = Demo(searches[:1], top_k=3).nearest("a cat")
    assert len(ranking) == 3 and all(one.other_rank is None for one in ranking)


def test_sentences_are_compared_by_each_encoder(models, searches, texts):
    sentences, matrices = Demo(searches).cosines("\n\n".join([*texts[:4], "  ", texts[0]]))
    assert sentences == [*texts[:4], texts[0]]
    for model, matrix in zip(models, matrices, strict=True):
        assert matrix == pytest.approx(cosines(model, sentences, sentences), abs=1e-5)


def test_input_has_limits(searches):
    demo = Demo(searches[:1])
    assert demo.nearest("a" * 1_000) and len(demo.cosines("a cat\n" * 30)[0]) == 30
    for call, text, message in (
        (demo.nearest, " \n", "Give a query"),
        (demo.nearest, "a" * 1_001, "has 1,001 characters; 1,000 are the most"),
        (demo.cosines, "a cat", "2 to 30 sentences, one per line; here are 1"),
        (demo.cosines, "a cat\n" * 31, "here are 31"),
        (demo.cosines, "a" * 10_001, "has 10,001 characters; 10,000 are the most"),
    ):
        with pytest.raises(UserError, match=message):
            call(text)


class Reader(HTMLParser):
    """Reads HTML as a browser does: its elements, and the text of all of them."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: set[str] = set()
        self.titles: list[str | None] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert {name for name, _ in attrs} <= {"class", "style", "scope", "title"}
        self.titles += [value for name, value in attrs if name == "title"]

    def handle_data(self, data):
        self.text += data


def test_markup_of_users_and_corpora_is_shown_as_text():
    hit = Hit(3, 0.5, None, MARKUP, MARKUP, MARKUP, MARKUP)
    read = Reader(rankings_as_html([MARKUP, "base"], [[Found(hit, 5)], [Found(hit, None)]]))
    assert read.tags <= {"div", "section", "h3", "ol", "li", "span"}
    assert read.text.count(MARKUP) == 1 + 2 * 4
    read = Reader(heat_maps_as_html([MARKUP], [MARKUP, "b"], [np.eye(2)]))
    assert read.tags <= {"div", "section", "h3", "table", "thead", "tbody", "tr", "th", "td"}
    assert read.text.count(MARKUP) == 2 and MARKUP in read.titles


def test_the_page_tells_how_ranks_changed():
    def shown(*ranks, names=("tuned", "base")):
        rankings = [[Found(Hit(rank, 0.5, None, "f", 0, "t"), other)] for rank, other in ranks]
        return Reader(rankings_as_html(names, rankings)).text

    assert shown((1, 4), (4, 1)) == "base: base40.5000now 1tf: 0tuned: tuned10.5000▲ 3, was 4tf: 0"
    assert "▼ 2, was 1" in shown((3, 1), (1, 3)) and "0.5000=t" in shown((2, 2), (2, 2))
    text = shown((3, None), (1, None))
    assert "▲ was below 100" in text and "now below 100" in text
    assert shown((1, None), names=("out",)) == "out10.5000tf: 0"
    long = Hit(1, 0.5, None, "f", 0, "x" * 5_000)
    assert rankings_as_html(["out"], [[Found(long, None)]]).count("x") == SHOWN_CHARS - 3 + 1  # and the class ad-text


def test_a_request_that_is_too_large_is_not_read():
    async def status(*headers):
        sent = []

        async def app(scope, receive, send):
            await send({"status": 200})

        async def send(message):
            sent.append(message.get("status"))

        await LimitBody(app)({"type": "http", "headers": headers}, None, send)
        return sent[0]

    def answer(*headers):
        return asyncio.run(status(*headers))

    assert answer() == answer((b"content-length", b"%d" % MAX_BODY_BYTES)) == 200
    assert answer((b"content-length", b"%d" % (MAX_BODY_BYTES + 1))) == 413
    assert answer((b"transfer-encoding", b"chunked")) == 413


def test_without_gradio_one_line_tells_what_to_install(models, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit) as done:
        main(["demo", "--model", models[0], "--corpus", "nothing.txt"])
    assert done.value.code == 2
    assert capsys.readouterr().err == "arccse demo: error: arccse demo needs gradio: pip install 'arccse-hf[demo]'\n"


@pytest.mark.parametrize(("host", "why"), [("127.0.0.1", "already in use"), ("203.0.113.1", "assign"), ("::1", "")])
def test_an_address_that_cannot_be_listened_on_is_one_line(host, why):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"^--host {host} --port {port}: cannot be listened on .*{why}.*choose"):
            check_address(host, port)
