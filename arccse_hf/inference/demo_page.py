"""The page of `arccse demo`: what it shows as HTML, with every text escaped, and Gradio around it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from html import escape
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError, without_surrogates
from .corpus import CorpusOptions, check_corpus, embed_corpus
from .demo import DEPTH, MAX_QUERY_CHARS, MAX_SENTENCES, MAX_SENTENCES_CHARS, Demo, Found
from .nearest import ExactStore
from .open import load_encoder
from .search import Search

if TYPE_CHECKING:
    from gradio import Blocks

SHOWN_CHARS = 600
"""Of a text that was found."""
BESIDE = 8
"""Sentences whose two tables fit beside each other."""
MAX_BODY_BYTES = 200_000
"""Of a request; a character takes up to 12 bytes in JSON."""
QUEUE_SIZE = 100
"""Requests that wait; those that come on top are told so."""

CSS = """
.gradio-container { margin: 0 auto; max-width: 1100px !important; width: 100%; }
.ad-columns { display: grid; gap: 24px; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); }
.ad-below { grid-template-columns: minmax(0, 1fr); }
.ad-columns > section { min-width: 0; }
.ad-columns h3 { margin: 8px 0; font-size: 1em; overflow-wrap: anywhere; }
.ad-hits { list-style: none; margin: 0; padding: 0; }
.ad-hits li { border-top: 1px solid var(--border-color-primary); margin: 0; padding: 8px 0; }
.ad-line { display: flex; gap: 10px; align-items: baseline; }
.ad-rank { font-weight: 600; min-width: 1.6em; }
.ad-cosine { font-family: var(--font-mono); }
.ad-change, .ad-source { font-size: 0.9em; opacity: 0.75; overflow-wrap: anywhere; }
.ad-up, .ad-down { border-radius: 3px; opacity: 1; padding: 0 6px; }
.ad-hits .ad-up { background: #dcfce7; color: #14532d; }
.ad-hits .ad-down { background: #fee2e2; color: #7f1d1d; }
.ad-text { margin: 2px 0; overflow-wrap: anywhere; white-space: pre-line;
  display: -webkit-box; -webkit-line-clamp: 5; -webkit-box-orient: vertical; overflow: hidden; }
.ad-scroll { overflow-x: auto; }
.ad-heat, .ad-heat th, .ad-heat td { border: 0 !important; }
.ad-heat { border-collapse: separate; border-spacing: 2px; width: auto; }
.ad-heat th { font-weight: 400; padding: 2px 6px; text-align: center; white-space: nowrap; }
.ad-heat tbody th { max-width: 14em; overflow: hidden; text-align: left; text-overflow: ellipsis; }
.ad-heat td { border-radius: 3px; font-family: var(--font-mono); font-size: 0.85em; min-width: 3.4em; padding: 4px 0;
  text-align: center; }
@media (max-width: 600px) { .ad-heat tbody th { max-width: 6em; padding-left: 0; } }
"""


def require_gradio() -> ModuleType:
    """Returns the module gradio, which then sends nothing anywhere; raises UserError where it is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise UserError("arccse demo needs gradio: pip install 'arccse-hf[demo]'") from error
    return gradio


def rankings_as_html(names: Sequence[str], rankings: Sequence[Sequence[Found]]) -> str:
    """Returns the rankings beside each other, the base's first.

    Args:
        names: Of the encoders: the trained one, and its base where there is one.
        rankings: Of each.
    """
    sections = []
    for number, ranking in enumerate(rankings):
        change = (lambda found: "") if len(names) == 1 else _now if number else _was
        rows = "".join(_found_as_html(found, change(found)) for found in ranking)
        sections.append(f'<section>{_heading(names, number)}<ol class="ad-hits">{rows}</ol></section>')
    return _columns(sections)


def heat_maps_as_html(names: Sequence[str], sentences: Sequence[str], cosines: Sequence[np.ndarray]) -> str:
    """Returns a table of coloured cosines per encoder, the base's first.

    Args:
        names: Of the encoders: the trained one, and its base where there is one.
        sentences: That were compared.
        cosines: `[sentences, sentences]` of each encoder.
    """
    numbers = "".join(f'<th scope="col">{number}</th>' for number in range(1, len(sentences) + 1))
    sections = []
    for place, matrix in enumerate(cosines):
        rows = "".join(
            f'<tr><th scope="row" title="{escape(sentence)}">{number} {escape(sentence)}</th>'
            + "".join(f'<td style="{_colours(cosine)}">{cosine:.2f}</td>' for cosine in row)
            + "</tr>"
            for number, (sentence, row) in enumerate(zip(sentences, matrix.tolist(), strict=True), start=1)
        )
        table = f'<table class="ad-heat"><thead><tr><th></th>{numbers}</tr></thead><tbody>{rows}</tbody></table>'
        sections.append(f'<section>{_heading(names, place)}<div class="ad-scroll">{table}</div></section>')
    return _columns(sections, below_each_other=len(sentences) > BESIDE)


def _columns(sections: Sequence[str], below_each_other: bool = False) -> str:
    kind = " ad-below" if below_each_other else ""
    return f'<div class="ad-columns{kind}">{"".join(reversed(sections))}</div>'


def _heading(names: Sequence[str], number: int) -> str:
    role = "" if len(names) == 1 else "base: " if number else "tuned: "
    return f"<h3>{role}{escape(names[number])}</h3>"


def _found_as_html(found: Found, change: str) -> str:
    hit = found.hit
    text = hit.text if len(hit.text) <= SHOWN_CHARS else f"{hit.text[: SHOWN_CHARS - 3]}..."
    source = f"{hit.file}: {hit.id}" + (f" · {hit.title}" if hit.title else "")
    return (
        f'<li><div class="ad-line"><span class="ad-rank">{hit.rank}</span>'
        f'<span class="ad-cosine">{hit.cosine:.4f}</span>{change}</div>'
        f'<div class="ad-text">{escape(text)}</div><div class="ad-source">{escape(source)}</div></li>'
    )


def _was(found: Found) -> str:
    """Returns how a text of the trained encoder's ranking has moved."""
    if found.other_rank is None:
        return f'<span class="ad-change ad-up">▲ was below {DEPTH}</span>'
    steps = found.other_rank - found.hit.rank
    if not steps:
        return '<span class="ad-change">=</span>'
    kind, sign = ("ad-up", "▲") if steps > 0 else ("ad-down", "▼")
    return f'<span class="ad-change {kind}">{sign} {abs(steps)}, was {found.other_rank}</span>'


def _now(found: Found) -> str:
    """Returns where a text of the base's ranking is in the other one."""
    rank = f"below {DEPTH}" if found.other_rank is None else found.other_rank
    return f'<span class="ad-change">now {rank}</span>'


def _colours(cosine: float) -> str:
    """Returns the style of a cell: blue for 1, white for 0, red for -1, and letters that can be read on it."""
    full = (29, 78, 216) if cosine > 0 else (185, 28, 28)
    red, green, blue = (round(255 + (end - 255) * abs(cosine)) for end in full)
    return f"background: rgb({red}, {green}, {blue}); color: {'white' if abs(cosine) > 0.55 else 'black'}"


def _told(error: UserError) -> str:
    return f'<p class="ad-told">{escape(str(error))}</p>'


def _text(given: str | None) -> str:
    """Returns what was typed, or what a request made by hand holds."""
    return without_surrogates(given or "")


class LimitBody:
    """Refuses requests that are larger than any that the page makes, before they are read.

    Args:
        app: What answers the others.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]):
        self.app = app

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Answers a request, as ASGI has it."""
        headers = dict(scope.get("headers", ()))
        # Browsers give the length; a body in pieces has none.
        if b"transfer-encoding" in headers or int(headers.get(b"content-length", 0)) > MAX_BODY_BYTES:
            await send({"type": "http.response.start", "status": 413, "headers": []})
            await send({"type": "http.response.body", "body": b"The request is too large."})
            return
        await self.app(scope, receive, send)


def build_page(demo: Demo, documents: int) -> Blocks:
    """Returns the page, which `launch` serves.

    Args:
        demo: What it shows.
        documents: Texts in the corpus.
    """
    gr = require_gradio()

    def search(query: str | None) -> str:
        """Finds the texts that are nearest to a query, as HTML."""
        try:
            return rankings_as_html(demo.names, demo.nearest(_text(query)))
        except UserError as error:
            return _told(error)

    def compare(sentences: str | None) -> str:
        """Compares sentences, one per line, with each other, as HTML."""
        try:
            return heat_maps_as_html(demo.names, *demo.cosines(_text(sentences)))
        except UserError as error:
            return _told(error)

    # One request at a time: the encoder takes all processors. A reader who asks again meanwhile gets the last answer.
    once = {"concurrency_id": "encoder", "trigger_mode": "always_last"}
    with gr.Blocks(title="arccse demo", analytics_enabled=False) as page:
        gr.HTML(f"<h1>arccse demo</h1><p>{documents:,} texts · every score is a cosine</p>")
        with gr.Tab("Search"):
            query = gr.Textbox(label="Query", placeholder="paper jam", max_length=MAX_QUERY_CHARS)
            button = gr.Button("Search", variant="primary")
            found = gr.HTML(elem_id="found")
            gr.on([query.submit, button.click], search, query, found, api_name="search", **once)
        with gr.Tab("Compare sentences"):
            lines = gr.Textbox(
                label=f"Sentences, one per line, {MAX_SENTENCES} at most",
                lines=6,
                max_lines=12,
                max_length=MAX_SENTENCES_CHARS,
            )
            button = gr.Button("Compare", variant="primary")
            maps = gr.HTML(elem_id="maps")
            button.click(compare, lines, maps, api_name="compare", **once)
    return page.queue(max_size=QUEUE_SIZE, default_concurrency_limit=1, api_open=False)


def check_address(host: str, port: int) -> None:
    """Raises UserError unless `host` is an address of this machine whose port is free."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: cannot be listened on ({error.strerror}); choose another"
        ) from error


def launch(page: Blocks, host: str, port: int) -> str:
    """Serves the page in a thread of its own, and returns its address."""
    gr = require_gradio()
    from starlette.middleware import Middleware

    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        max_file_size=0,
        app_kwargs={"middleware": [Middleware(LimitBody)]},
        quiet=True,
        prevent_thread_lock=True,
        css=CSS,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
    )
    return address


def run(
    model: str,
    patterns: Sequence[str],
    options: CorpusOptions,
    *,
    base: str | None = None,
    top_k: int = 10,
    host: str = "127.0.0.1",
    port: int = 7860,
    **opening: Any,
) -> int:
    """Serves the page until Ctrl+C, and returns the exit status 0.

    Args:
        model: The trained encoder; see `load_encoder`.
        patterns: Of the corpus, as for `corpus_files`.
        options: How the corpus is read and embedded.
        base: The encoder beside it.
        top_k: Texts that are shown per encoder.
        host: Address of this machine that is listened on.
        port: Of it.
        opening: Arguments of `load_encoder`: `pooling`, `dtype`, `max_seq_length`.

    Raises:
        UserError: An argument is wrong, Gradio is not installed, or the address cannot be listened on.
    """
    require_gradio()
    check_address(host, port)
    check_corpus(patterns, options.option)
    searches = []
    for name in [model] if base is None else [model, base]:
        encoder = load_encoder(name, **opening)
        searches.append(Search(encoder, ExactStore(embed_corpus(encoder.for_task("document"), patterns, options))))
    documents = len(searches[0].store.table)
    page = build_page(Demo(searches, top_k), documents)
    address = launch(page, host, port)
    print(f"{documents:,} texts; the page is at {address}; Ctrl+C ends", flush=True)
    if host not in ("127.0.0.1", "localhost"):
        print(f"--host {host}: whoever reaches this machine can read the corpus on this page", file=sys.stderr)
    page.block_thread()
    return 0
