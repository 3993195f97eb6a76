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
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

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


_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n(?:---|\.\.\.)\n", re.DOTALL)
_FRONT_MATTER_TITLE = re.compile(r"^title:\s*(.+?)\s*$", re.MULTILINE)


def parse_markdown(text: str) -> Page:
    """CommonMark; YAML front matter gives the title."""
    from markdown_it import MarkdownIt

    title = None
    if front_matter := _FRONT_MATTER.match(text):
        found = _FRONT_MATTER_TITLE.search(front_matter[1])
        title = found[1].strip("\"'") if found else None
        text = text[front_matter.end() :]
    blocks: list[Block] = []
    level = in_table = 0
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "heading_open":
            level = int(token.tag[1])
        elif token.type in ("table_open", "table_close"):
            in_table = token.type == "table_open"
        elif token.type == "inline" and not in_table:
            blocks.append(Block(level, one_line("".join(_inline_text(token)))))
            level = 0
        elif token.type == "html_block":
            blocks += parse_html(token.content).blocks
    return Page([block for block in blocks if block.text], title)


def _inline_text(token: Token) -> Iterator[str]:
    for child in token.children or ():
        if child.type in ("text", "code_inline"):
            yield child.content
        elif child.type in ("softbreak", "hardbreak"):
            yield " "


_HTML_SKIPPED = frozenset(
    "script style noscript template nav footer aside form button select textarea svg math pre table iframe object "
    "audio video canvas -comment".split()
)
_HTML_INLINE = frozenset(
    "a abbr b bdi bdo cite code data del dfn em font i ins kbd mark q s samp small span strike strong sub sup time tt "
    "u var wbr".split()
)
_HTML_MAIN = "main, [role=main], article"
_SECTION_SIGNS = " ¶§#🔗\uf0c1"  # links to the heading itself, inside of headings


def parse_html(text: str) -> Page:
    """The text of a web page: what is in its main part, without scripts, navigation, code and tables."""
    parser = _require("selectolax.lexbor", "HTML").LexborHTMLParser(text)
    if parser.body is None:
        return Page([])
    mains = parser.body.css(_HTML_MAIN)
    # Several articles are a list of them; the page's own text lies around them.
    root = mains[0] if mains and (len(mains) == 1 or mains[0].tag == "main") else parser.body
    skipped = _HTML_SKIPPED | ({"header"} if root is parser.body else set())
    blocks: list[Block] = []
    pieces: list[str] = []

    def flush(level: int = 0) -> None:
        line = one_line("".join(pieces))
        line = line.strip(_SECTION_SIGNS) if level else line.rstrip("¶§")
        if line:
            blocks.append(Block(level, line))
        pieces.clear()

    # A stack of what is still to do, because pages nest deeper than Python recurses.
    todo: list[Node | Callable[[], None]] = [root]
    while todo:
        node = todo.pop()
        if callable(node):
            node()
        elif node.tag == "-text":
            pieces.append(node.text_content or "")
        elif node.tag == "br":
            pieces.append(" ")
        elif node.tag not in skipped and not _is_signature(node):
            children = list(node.iter(include_text=True))[::-1]
            if node.tag in _HTML_INLINE:
                todo += children
            else:
                flush()
                level = int(node.tag[1]) if re.fullmatch(r"h[1-6]", node.tag) else 0
                todo += [partial(flush, level), *children]
    flush()
    title = parser.css_first("head > title")
    return Page(blocks, one_line(title.text()) or None if title is not None else None)


def _is_signature(node: Node) -> bool:
    """Whether this is the line that declares a function in generated documentation."""
    return node.tag == "dt" and "sig" in (node.attributes.get("class") or "").split()


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
    blocks: list[Block] = []

    def visit(node: Node, level: int) -> None:
        is_contents = isinstance(node, nodes.topic) and "contents" in node["classes"]
        if isinstance(node, skipped) or is_contents:
            return
        if isinstance(node, (nodes.title, nodes.paragraph, nodes.term, nodes.line, nodes.caption)):
            is_heading = isinstance(node, nodes.title) and isinstance(node.parent, nodes.section)
            blocks.append(Block(level if is_heading else 0, one_line(node.astext())))
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
    text = text.replace("\r\n", "\n").strip()
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
