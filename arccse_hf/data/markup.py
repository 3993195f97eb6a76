"""Markdown, HTML, reStructuredText and plain text as blocks: headings and paragraphs, in the order of the page.

Why these libraries:

- Markdown: markdown-it-py reads CommonMark to the letter, and rich brings it along already.
- HTML: selectolax (an extra) is a C parser of less than 3 MB that repairs broken pages as browsers do. trafilatura
  guesses better where a page's text ends and its menus begin, but it brings a dozen packages, and guesses: what lies
  outside of `<main>` or `<article>`, and navigation, is left out here.
- reStructuredText: docutils (an extra) is its definition.

Code, tables, formulas, images, comments and scripts are no prose, and are left out.
"""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from ..errors import UserError, one_line

if TYPE_CHECKING:
    from markdown_it.token import Token

Node = Any  # of selectolax or docutils, which ship no types


class Block(NamedTuple):
    """A piece of a page.

    Attributes:
        level: 0 for a paragraph, 1 for the highest heading, 2 for the next.
        text: On one line.
    """

    level: int
    text: str


class Page(NamedTuple):
    """What a parser makes of a file.

    Attributes:
        blocks: Its headings and paragraphs.
        title: A title that stands outside of the text (front matter, `<title>`).
    """

    blocks: list[Block]
    title: str | None = None


_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)[ \t]*\n(.*?)^(?:\1|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
# Between two rules stands text, unless there is nothing, or a key before the first blank line.
_KEYS = re.compile(
    r"\s*\Z|(?:[ \t]*(?:#.*)?\n)*[\w\"'.-]+[ \t]*:|(?:.+\n)*?[\w\"'$/.%!{-][^\n:]{0,40}:(?:[ \t]|$)", re.MULTILINE
)
# With the indented lines below it, where YAML lets a title go on.
_FRONT_MATTER_TITLE = re.compile(r"^title:((?:[ \t].*)?(?:\n(?:[ \t].*)?)*)", re.MULTILINE)
_HEADING_ATTRIBUTES = re.compile(r"(?<=\S)\s*\{:?\s*[#.][^{}]*\}$")
_MOST_NESTED = 100
"""Lists within lists; what is nested more deeply would be lost."""
_PARAGRAPH_MARK = re.compile(r"^\[(?:!\w+|[ xX])\]\s*")  # [!NOTE] and the box of a task
_FOOTNOTE = re.compile(r"\[\^[^\]\s]+\]")
_FOOTNOTE_TEXT = re.compile(r"^( {0,3})(?=\[\^[^\]\s]+\]:)", re.MULTILINE)
# The text of a footnote, and a formula.
_NO_PROSE = re.compile(r"\\?\[\^[^\]\s]+\]:|\$\$\n.*\n\$\$\s*\Z|\$\$(?:(?!\$\$).)*\$\$\s*\Z", re.DOTALL)
_BR = re.compile(r"<br\b", re.IGNORECASE)


def parse_markdown(text: str) -> Page:
    """CommonMark, GitHub's marks, and those of MkDocs and Docusaurus around text; front matter gives the title."""
    from markdown_it import MarkdownIt

    title = None
    front_matter = _FRONT_MATTER.match(text)
    if front_matter and (front_matter[1] == "+++" or _KEYS.match(front_matter[2])):
        title = _yaml_title(front_matter[2]) if front_matter[1] == "---" else _toml_title(front_matter[2])
        text = text[front_matter.end() :]
    blocks: list[Block] = []
    level = in_table = 0
    parser = MarkdownIt("commonmark", {"maxNesting": _MOST_NESTED}).enable(["table", "strikethrough"])
    text = _FOOTNOTE_TEXT.sub(r"\1\\", text)  # or CommonMark would take an address there for that of a link
    tokens = parser.parse(_without_markers(text))
    hidden = _hidden_behind_blank_lines(tokens)
    for number, token in enumerate(tokens):
        if number in hidden:
            blocks += parse_html(hidden[number]).blocks if hidden[number] else []
            continue
        if token.type == "heading_open":
            level = int(token.tag[1])
        elif token.type in ("table_open", "table_close"):
            in_table = token.type == "table_open"
        elif token.type == "inline" and not in_table and not _NO_PROSE.match(token.content):
            line = one_line("".join(map(_inline_text, token.children or ())))
            line = _PARAGRAPH_MARK.sub("", line)
            has_attributes = level and token.content.endswith("}")  # and not with the quote of `{#code}`
            blocks.append(Block(level, _HEADING_ATTRIBUTES.sub("", line) if has_attributes else line))
            level = 0
        elif token.type == "html_block" and _without_comments(token.content).strip():
            blocks += parse_html(token.content).blocks
    return Page([block for block in blocks if block.text], title)


def _hidden_behind_blank_lines(tokens: Sequence[Token]) -> dict[int, str]:
    """Returns the tokens within HTML elements without text, of which CommonMark ends the HTML at a blank line.

    By number, each with the HTML in it that stands behind the element's end. What nothing closes hides no text.
    """
    hidden: dict[int, str] = {}
    begun: list[tuple[str, int]] = []  # the name of an element, and the number of the token with its beginning
    for number, token in enumerate(tokens):
        if token.type != "html_block" and not (begun and token.type == "inline"):
            continue
        html = _without_comments(token.content)
        for tag in _SKIPPED_TAG.finditer(html):
            name = tag[2].lower()
            if not tag[1]:
                begun.append((name, number))
                continue
            place = max((place for place, (other, _) in enumerate(begun) if other == name), default=None)
            if place is None:
                continue
            start = begun[place][1]
            del begun[place:]
            if start < number and tokens[start].type == "html_block":
                hidden |= dict.fromkeys(range(start + 1, number), "")
                hidden[number] = html[tag.end() :]
    return hidden


def _without_comments(html: str) -> str:
    end = html.rfind("-->") + 3  # or one that nothing ends would be looked for again from each beginning
    return _HTML_COMMENT.sub("", html[:end]) + html[end:] if end > 2 else html


def _toml_title(front_matter: str) -> str | None:
    try:
        title = tomllib.loads(front_matter).get("title")
    except tomllib.TOMLDecodeError:
        return None
    return one_line(title) or None if isinstance(title, str) else None


def _yaml_title(front_matter: str) -> str | None:
    entry = _FRONT_MATTER_TITLE.search(front_matter)
    if entry is None:
        return None
    try:
        title = yaml.load(entry[0], Loader=yaml.BaseLoader)["title"]
    except yaml.YAMLError:  # "title: Part 1: the start" is none, and common
        title = entry[1]
    return one_line(title) or None if isinstance(title, str) else None


def _inline_text(token: Token) -> str:
    if token.type == "text":
        return _FOOTNOTE.sub("", token.content)
    if token.type == "code_inline":
        return token.content
    is_space = token.type in ("softbreak", "hardbreak") or (token.type == "html_inline" and _BR.match(token.content))
    return " " if is_space else ""


_FENCE = re.compile(r"\s*(?:(?:[-*+]|\d+[.)])\s+)*(`{3,}(?!.*`)|~{3,})")
# !!! note "Title", ??? note and === "Tab" stand above indented text; :::note and ::: stand around text.
_MARKER = re.compile(r'(?:!!!|\?\?\?\+?) ?[\w -]*(?:"[^"]*")?|===[!+]? *"[^"]*"|:::.*')


def _without_markers(text: str) -> str:
    """Blanks the lines that mark admonitions and tabs, and dedents the text below them: to CommonMark it is code."""
    lines: list[str] = []
    columns: list[int] = []  # where the text of the open admonitions and tabs begins
    fence_end: re.Pattern[str] | None = None
    for line in text.expandtabs(4).split("\n"):
        content, column = line.strip(), len(line) - len(line.lstrip())
        while content and columns and column < columns[-1]:
            columns.pop()
        if fence_end is not None:
            fence_end = None if fence_end.fullmatch(line) else fence_end
        elif fence := _FENCE.match(line):
            fence_end = re.compile(rf" {{0,{fence.start(1) + 3}}}{fence[1]}+\s*")
        elif _MARKER.fullmatch(content):
            if content[0] != ":":
                columns.append(column + 4)
            line = ""
        lines.append(line[4 * len(columns) :])
    return "\n".join(lines)


_HTML_SKIPPED = frozenset(
    "script style noscript template nav footer aside form button select textarea svg math pre table iframe object "
    "audio video canvas -comment".split()
)
_HTML_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_SKIPPED_TAG = re.compile(r"<(/?)(table|nav|svg|math)\b[^<>]*(?<!/)>", re.IGNORECASE)
_HTML_BLOCK = frozenset(
    "address article aside blockquote center dd details dialog dir div dl dt fieldset figcaption figure footer form h1 "
    "h2 h3 h4 h5 h6 header hgroup hr legend li listing main menu nav ol p pre search section summary table ul "
    "xmp".split()
)
"""All others, custom ones too, are inline by HTML's rules."""
_HTML_SPACE = frozenset({"br", "img", "input"})
_SECTION_LINK = re.compile(r"\s*[¶§#🔗\u200b\ue000-\uf8ff]+\s*")  # the last range is that of icon fonts


def parse_html(text: str) -> Page:
    """The text of a web page: what is in its main part, without scripts, navigation, code and tables."""
    parser = _require("selectolax.lexbor", "HTML").LexborHTMLParser(text)
    if parser.body is None:
        return Page([])
    root = parser.body.css_first("main, [role=main]")
    if root is None:
        # Several articles are a list of them; the page's own text lies around them.
        articles = parser.body.css("article")
        root = articles[0] if len(articles) == 1 else parser.body
    blocks: list[Block] = []
    pieces: list[str] = []
    level = 0  # of the heading around the pieces

    def flush() -> None:
        nonlocal level
        if line := one_line("".join(pieces)):
            blocks.append(Block(level, line))
        pieces.clear()
        level = 0

    # A stack of what is still to do, because pages nest deeper than Python recurses.
    todo: list[Node | Callable[[], None]] = [root]
    while todo:
        node = todo.pop()
        if callable(node):
            node()
        elif node.tag == "-text":
            pieces.append(node.text_content or "")
        elif node.tag in _HTML_SPACE:
            pieces.append(" ")
        else:
            if node.tag in _HTML_BLOCK:
                end = partial(pieces.append, " ") if level else flush  # A block within a heading is a part of it.
                end()
                todo.append(end)
            if not _is_skipped(node) or (level and not "".join(pieces).strip() and _is_shown_button(node)):
                level = level or (int(node.tag[1]) if re.fullmatch(r"h[1-6]", node.tag) else 0)
                todo += list(node.iter(include_text=True))[::-1]
    flush()
    title = parser.css_first("head > title")
    return Page(blocks, one_line(title.text()) or None if title is not None else None)


def _is_skipped(node: Node) -> bool:
    if node.tag == "dt":  # the line that declares a function in generated documentation
        return "sig" in (node.attributes.get("class") or "").split()
    if node.tag == "a":  # a heading's link to itself
        return _SECTION_LINK.fullmatch(node.text()) is not None
    return node.tag in _HTML_SKIPPED


def _is_shown_button(node: Node) -> bool:
    """Returns whether a node is a button that can be seen: alone in a heading, as in an accordion, it is its text."""
    attributes = node.attributes
    return node.tag == "button" and "hidden" not in attributes and attributes.get("aria-hidden") != "true"


_ROLE = re.compile(r":([\w:.+-]+):`[~!]?([^`<]+?)(\s*<[^`>]*>)?`")
_DIRECTIVE = re.compile(r"^\s*\.\. ([\w:.+-]+)::", re.MULTILINE)
# Of Sphinx: they hold prose. docutils knows its own, and what neither knows may hold anything.
_SIGNATURE_DIRECTIVES = frozenset(
    "attribute c:function c:macro c:type class classmethod cmdoption confval data decorator describe dropdown envvar "
    "exception function method object only option property py:attribute py:class py:classmethod py:data py:exception "
    "py:function py:method py:property staticmethod tab-item".split()
)
"""Beside and right below their name stands a signature, a condition or a label."""
_TEXT_DIRECTIVES = {
    **dict.fromkeys(("glossary", "impl-detail", "seealso", "tab-set"), 0),
    **dict.fromkeys(("deprecated", "versionadded", "versionchanged", "versionremoved"), 1),
    "deprecated-removed": 2,
}
"""There stands text, behind as many versions."""


def parse_rst(text: str) -> Page:
    """reStructuredText, Sphinx's roles and its directives with prose included."""
    nodes = _require("docutils.nodes", "reStructuredText")
    core = importlib.import_module("docutils.core")
    _register_directives(set(_DIRECTIVE.findall(text)))
    settings = {
        "report_level": 5,  # What is wrong in the markup is the author's business.
        "halt_level": 5,
        "file_insertion_enabled": False,  # A document must not read other files.
        "raw_enabled": False,
        "_disable_config": True,
        "doctitle_xform": False,
        "syntax_highlight": "none",
    }
    tree = core.publish_doctree(_ROLE.sub(_role_text, text), settings_overrides=settings)
    skipped = (
        nodes.literal_block, nodes.doctest_block, nodes.table, nodes.comment, nodes.system_message, nodes.footnote,
        nodes.citation, nodes.math_block, nodes.image, nodes.field_list, nodes.option_list,
        nodes.substitution_definition, nodes.docinfo, nodes.target,
    )  # fmt: skip
    references = (nodes.footnote_reference, nodes.citation_reference)
    blocks: list[Block] = []

    def visit(node: Node, level: int) -> None:
        is_contents = isinstance(node, nodes.topic) and "contents" in node["classes"]
        if isinstance(node, skipped) or is_contents:
            return
        if isinstance(node, (nodes.title, nodes.paragraph, nodes.term, nodes.line, nodes.caption)):
            is_heading = isinstance(node, nodes.title) and isinstance(node.parent, nodes.section)
            texts = [text.astext() for text in node.findall(nodes.Text) if not isinstance(text.parent, references)]
            blocks.append(Block(level if is_heading else 0, one_line("".join(texts))))
            return
        for child in node.children:
            visit(child, level + isinstance(child, nodes.section))

    visit(tree, 0)
    return Page([block for block in blocks if block.text])


def _role_text(role: re.Match[str]) -> str:
    is_number = role[1] in ("pep", "rfc") and not role[3]
    return f"{role[1].upper()} {role[2]}" if is_number else role[2]


def _register_directives(names: set[str]) -> None:
    """Has docutils read what lies in directives that Sphinx would know."""
    from docutils import nodes
    from docutils.parsers.rst import Directive, directives

    class Signature(Directive):
        has_content = True
        optional_arguments = 1
        final_argument_whitespace = True

        def run(self) -> list[Node]:
            container = nodes.container()
            self.state.nested_parse(self.content, self.content_offset, container)
            return container.children

    class Text(Signature):
        optional_arguments = 0

        def run(self) -> list[Node]:
            if self.content:
                versions = rf"^(?:\S+\s*){{0,{_TEXT_DIRECTIVES[self.name.lower()]}}}"
                self.content.data[0] = re.sub(versions, "", self.content[0])
            return super().run()

    for known, directive in ((_SIGNATURE_DIRECTIVES, Signature), (_TEXT_DIRECTIVES.keys(), Text)):
        for name in names & known:
            directives.register_directive(name, directive)


_PARAGRAPH_END = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE_AT_LINE_END = re.compile(r"(?<=[.!?:。！？])[ \t]*\n")  # noqa: RUF001


def parse_text(text: str) -> Page:
    """Plain text: paragraphs end at blank lines, or, where there is none, at lines that end with a sentence."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    end = _PARAGRAPH_END if _PARAGRAPH_END.search(text) else _SENTENCE_AT_LINE_END
    paragraphs = (one_line(paragraph) for paragraph in end.split(text))
    return Page([Block(0, paragraph) for paragraph in paragraphs if paragraph])


def _require(module: str, kind: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise UserError(f"{kind} is read with {package}: pip install 'arccse-hf[documents]'") from error


PARSERS: dict[str, Callable[[str], Page]] = {
    ".md": parse_markdown,
    ".markdown": parse_markdown,
    ".html": parse_html,
    ".htm": parse_html,
    ".rst": parse_rst,
    ".txt": parse_text,
}
"""How a file is read, by its ending."""
