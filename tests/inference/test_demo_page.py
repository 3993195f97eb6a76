"""The page of `arccse demo` in Chromium: type, click, read; on a desktop and on a telephone."""

import json
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import loopback_only
import numpy as np
import psutil
import pytest
from backbones import WORDS, save_encoder
from sentence_transformers import SentenceTransformer

from arccse_hf.commands.texts import DEMO, search

pytestmark = pytest.mark.extras

MARKUP = [
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 2'> a cat",
    "${window.pwned = 3} {{constructor.constructor('window.pwned = 4')()}}",
    "</div></ol><b>bold</b> &amp; **stars** [link](javascript:window.pwned=5)",
]
MODELS = {"bert-base-uncased": "base: bert-base-uncased", "out": "tuned: out"}
JSON = {"content-type": "application/json"}
SIZES = {"desktop": (1280, 900), "telephone": (390, 844)}


@pytest.fixture(scope="module")
def served(tokenizer, tmp_path_factory):
    """The page, served by the command, and what it serves."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    folder = tmp_path_factory.mktemp("demo")
    for name, scale in (("out", 0.5), ("bert-base-uncased", 0.9)):
        save_encoder(folder / name, tokenizer, initializer_range=scale)
    draw = np.random.default_rng(0)
    texts = [*MARKUP, *(" ".join(draw.choice(WORDS, size=draw.integers(3, 40))) for _ in range(150))]
    (folder / "docs.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    port = free_port()
    command = [sys.executable, "-m", "arccse_hf", *shlex.split(DEMO.example)[1:]]
    command += ["--top_k", "5", "--cache_dir", "cache", "--port", str(port)]
    environment = loopback_only.environment(folder / "offline")
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline()
            assert line == f"154 texts; the page is at http://127.0.0.1:{port}/; Ctrl+C ends\n"
            yield SimpleNamespace(folder=folder, port=port, pid=server.pid, texts=texts)
        finally:
            server.terminate()
    assert loopback_only.tried(folder / "offline") == ""


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=SIZES)
def page(request, browser, served):
    """The page in a window of that size; nothing may be asked of another machine, or fall outside of the window."""
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"http://127.0.0.1:{served.port}/")
    yield page
    assert page.screenshot(full_page=True, path=served.folder / f"{request.node.name}.png")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    elsewhere = [url for url in asked if not url.startswith((f"http://127.0.0.1:{served.port}/", "data:", "blob:"))]
    assert asked and not elsewhere and not errors
    context.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(page, query, key=None):
    page.get_by_label("Query").fill(query)
    if key:
        page.get_by_label("Query").press(key)
    else:
        page.get_by_role("button", name="Search", exact=True).click()


def test_a_query_finds_what_search_finds_by_both_encoders(page, served, capsys, monkeypatch):
    query = " ".join(WORDS[3:8])
    ask(page, query)
    page.locator(".ad-hits").nth(1).wait_for()
    monkeypatch.chdir(served.folder)
    for column, model in zip(page.locator("section").all(), MODELS, strict=True):
        assert column.locator("h3").inner_text() == MODELS[model]
        search(["--model", model, "--corpus", "docs.jsonl", "--query", query, "--top_k", "5", "--json",
                "--cache_dir", "cache"])  # fmt: skip
        hits = json.loads(capsys.readouterr().out)["hits"]
        found = column.locator("li").all()
        assert [int(row.locator(".ad-rank").inner_text()) for row in found] == [1, 2, 3, 4, 5]
        assert [row.locator(".ad-cosine").inner_text() for row in found] == [f"{hit['cosine']:.4f}" for hit in hits]
        assert [row.locator(".ad-text").text_content() for row in found] == [hit["text"] for hit in hits]
        assert all(row.locator(".ad-change").inner_text() for row in found)


def test_markup_in_the_corpus_and_in_a_query_is_seen_as_text(page, served):
    for text in MARKUP:
        ask(page, text, key="Enter")
        page.locator(".ad-text").get_by_text(text, exact=True).nth(1).wait_for()  # by both encoders
    assert page.locator(".ad-text > *").count() == 0
    assert page.evaluate("window.pwned") is None


def test_sentences_become_a_map_of_cosines(page, served):
    sentences = [served.texts[10], MARKUP[0], served.texts[11]]
    page.get_by_role("tab", name="Compare sentences").click()
    page.get_by_label("Sentences, one per line").fill("\n".join(sentences))
    page.get_by_role("button", name="Compare", exact=True).click()
    page.locator(".ad-heat").nth(1).wait_for()
    for table, model in zip(page.locator(".ad-heat").all(), MODELS, strict=True):
        embeddings = SentenceTransformer(str(served.folder / model), device="cpu").encode(sentences)
        unit = embeddings / np.linalg.norm(embeddings, axis=1)[:, None]
        cells = [float(cell.inner_text()) for cell in table.locator("td").all()]
        assert cells == pytest.approx((unit @ unit.T).ravel(), abs=0.0051)
        headings = [cell.text_content() for cell in table.locator("tbody th").all()]
        assert headings == [f"{number} {text}" for number, text in enumerate(sentences, start=1)]
    assert page.evaluate("window.pwned") is None


def test_what_is_too_much_is_told(page):
    ask(page, " ")
    page.get_by_text("Give a query of some words.").wait_for()
    ask(page, "a" * 1_100)
    assert page.get_by_label("Query").input_value() == "a" * 1_000
    page.get_by_role("tab", name="Compare sentences").click()
    page.get_by_label("Sentences, one per line").fill("a cat\n" * 31)
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("2 to 30 sentences, one per line; here are 31").wait_for()


def test_only_this_machine_is_listened_to_and_nothing_else_is_answered(served):
    import httpx

    listening = [at.laddr for at in psutil.Process(served.pid).net_connections("inet") if at.status == "LISTEN"]
    assert [(at.ip, at.port) for at in listening] == [("127.0.0.1", served.port)]
    with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", trust_env=False) as client:
        assert client.post("/gradio_api/run/search", json={"data": ["a cat"]}).status_code == 404
        assert client.post("/gradio_api/call/search", json={"data": ["a" * 300_000]}).status_code == 413
        asked = client.post("/gradio_api/call/search", json={"data": ["a" * 1_001]}).json()
        assert "1,000 are the most" in client.get(f"/gradio_api/call/search/{asked['event_id']}").text
        for given, told in (("\ud800 cat", "ad-hits"), (None, "Give a query")):
            asked = client.post("/gradio_api/call/search", content=json.dumps({"data": [given]}), headers=JSON).json()
            assert told in client.get(f"/gradio_api/call/search/{asked['event_id']}").text
        assert client.post("/gradio_api/upload", files={"files": b"a"}).status_code == 413
        paths = ["/monitoring", "/gradio_api/file=docs.jsonl", f"/gradio_api/file={Path(__file__)}"]
        assert [client.get(path).status_code for path in paths] == [403] * 3
