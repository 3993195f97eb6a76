"""What is prose in a docstring: its paragraphs without markup, and which of their sentences read as English."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..sentences import split_sentences

# Of sections that list entries, the descriptions are kept; names and types are not. Sections of code and citations are
# left out. Text under any other heading ("Notes") is prose.
_ENTRY_SECTION = re.compile(
    r"(?:(?:other |keyword )?(?:parameters|params|arguments|args)|kwargs|returns?|yields?|receives|raises|warns"
    r"|attributes|inputs?|outputs?|options):?$",
    re.IGNORECASE,
)
_CODE_SECTION = re.compile(
    r"(?:see also|references|bibliography|examples?|usage|methods|routines|functions|classes)$", re.IGNORECASE
)
_UNDERLINE = re.compile(r"([-=~^*#+])\1{2,}$")
_GOOGLE_HEADER = re.compile(r"[A-Z][\w/ ]{0,40}(?:\([^)]*\))?:$")
_PROSE_HEADER = re.compile(r"(?:\.\. )?(?:notes?|warnings?|tip|important|caution):{1,2}$", re.IGNORECASE)
_FIELD = re.compile(r"(?::[\w*` ,.]+:(?!`)|@\w+)\s*")
_BULLET = re.compile(r"(?:[-*+\u2022]|\(?\w{1,2}[.)]|#+)\s+")
_ENTRY = re.compile(r"[\w*`.\[\], |/-]{1,60}(?:\(.*?\))?[^:.]{0,20}:(?:\s+|$)")
_FENCE = re.compile(r"(?:```|~~~)")
_NOT_PROSE = re.compile(r"[|+<%]|\[\[|\$\$|\.\.")

_MARKUP_CHARACTER = re.compile(r"[`*_\[]|\s\s")
_INLINE_MARKUP = [
    (re.compile(r":math:`[^`]*`"), "$"),  # a mark that keeps the sentence of a formula out
    (re.compile(r"\[`?~?([^\]`]+)`?\]\([^)]*\)"), r"\1"),  # [text](address)
    (re.compile(r"\[`~?([^\]`]+)`\]"), r"\1"),  # [`Name`]
    (re.compile(r":[\w:.+-]+:`~(?:[^`<]*\.)?([^`.<]+)`"), r"\1"),  # :class:`~package.Name`
    (re.compile(r"(?::[\w:.+-]+:)?`([^`<]+?)\s*<[^`>]*>`_{0,2}"), r"\1"),  # `text <target>`_
    (re.compile(r":[\w:.+-]+:`!?([^`]+)`"), r"\1"),  # :role:`text`
    (re.compile(r"(`{1,2})([^`]+)\1_{0,2}"), r"\2"),  # `text` and ``text``
    (
        re.compile(
            r"(?<!\bin )(?<!\bto )(?<!\bby )(?<!\bof )(?<!\bsee )(?<!\bfrom )(?<!\band )\[[\w.,-]+\](?:_|(?!\w))", re.I
        ),
        "",
    ),
    (re.compile(r"(?<![\w*])(\*{1,2})(?=\S)([^*]+?)(?<=\S)\1(?![\w*])"), r"\2"),  # *text* and **text**
    (re.compile(r"(?<!\w)_(?=\w)([^_]+?)(?<=\w)_(?!\w)"), r"\1"),  # _text_
    (re.compile(r"\s+(?=[.,;:)]\s|[.]$)"), ""),
    (re.compile(r"\s+"), " "),
]

_PLAIN_WORD = re.compile(r"[(\"']*[A-Za-z]+(?:['/-][A-Za-z]+)*[.,;:!?)\"']*$")
_MARKUP_LEFT = re.compile(
    r"^\w\.\s|[{}<>\\|=~^$@#*`\[\]]|::|--|\.\.|https?:|www\.|\bTODO\b|\bFIXME\b|\b[Cc]opyright\b|(?<!\w):\w"
)


def prose_of(docstring: str) -> tuple[list[str | None], list[str]]:
    """Returns the prose in a docstring, without its markup.

    Returns:
        The paragraphs, with None where anything else was left out; and the asides, which are descriptions of parameters
        and list items.
    """
    reader = _Reader()
    for line in docstring.expandtabs().splitlines():
        reader.read(line.rstrip())
    reader.flush()
    return reader.paragraphs, reader.asides


class _Reader:
    """Reads a docstring line by line and keeps what is prose."""

    def __init__(self) -> None:
        self.paragraphs: list[str | None] = []
        self.asides: list[str] = []
        self.lines: list[str] = []
        self.indent = 0  # of the first line in `lines`
        self.drop_deeper_than: int | None = None  # within a block that is left out: the indentation of its first line
        self.note_at: int | None = None  # within a note: the indentation of its heading
        self.aside_at: int | None = None  # within a list or a section of entries: the indentation of its first line
        self.section = ""  # what the last underlined heading opened: "entries", "code", or "" for prose
        self.in_fence = False
        self.in_doctest = False
        self.previous = ""

    def flush(self) -> None:
        if self.lines:
            text = " ".join(self.lines)
            (self.paragraphs if self.aside_at is None else self.asides).append(without_markup(text))
            self.lines = []

    def drop(self, deeper_than: int | None = None) -> None:
        self.flush()
        if self.aside_at is None:
            self.paragraphs.append(None)
        self.drop_deeper_than = deeper_than

    def open_aside(self, indent: int, text: str = "") -> None:
        self.drop()
        if self.aside_at is None:
            self.aside_at = indent
        if text:
            self.lines.append(text)

    def read(self, line: str) -> None:
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        previous, self.previous = self.previous, text
        if _FENCE.match(text) or self.in_fence:
            if _FENCE.match(text):
                self.in_fence = not self.in_fence
                self.drop()
        elif _UNDERLINE.match(text):
            self._open_section(previous)
        elif not text:
            self.in_doctest = False
            self.flush()
        elif not self._in_dropped_block(indent):
            self.drop_deeper_than = None
            self._read_text(text, indent)

    def _in_dropped_block(self, indent: int) -> bool:
        deeper = self.drop_deeper_than is not None and indent > self.drop_deeper_than
        return deeper or self.in_doctest or self.section == "code"

    def _open_section(self, heading: str) -> None:
        if self.lines and self.lines[-1] == heading:
            self.lines.pop()
        self.flush()
        self.aside_at = None
        self.drop()
        self.section = "code" if _CODE_SECTION.match(heading) else "entries" if _ENTRY_SECTION.match(heading) else ""

    def _read_text(self, text: str, indent: int) -> None:
        if self.aside_at is not None and indent <= self.aside_at:
            self.flush()
            self.aside_at = None
        if self.note_at is not None and indent <= self.note_at:
            self.note_at = None
        if text.startswith(">>>"):
            self.drop()
            self.in_doctest = True
        elif _PROSE_HEADER.match(text):
            self.drop()
            self.note_at = indent
        elif (self.section == "entries" and indent == 0) or (text.endswith(":") and _ENTRY_SECTION.match(text)):
            self.open_aside(indent)  # a name, perhaps with its type, or the heading of a list of names
        elif _GOOGLE_HEADER.match(text) and not self.lines:
            self.drop(deeper_than=indent)
        elif opener := _FIELD.match(text) or _BULLET.match(text):
            self.open_aside(indent, text[opener.end() :])
        elif _NOT_PROSE.match(text):
            self.drop(deeper_than=indent)
        elif self.aside_at is not None:
            self._read_aside(text)
        elif self.lines and indent > self.indent:  # a name with its description below
            self.lines = []
            self.open_aside(self.indent, text)
        elif not self.lines and indent > 0 and self.note_at is None:  # code, a table or a figure
            self.drop(deeper_than=0)
        else:
            self.indent = min(indent, self.indent) if self.lines else indent
            self.lines.append(text.removesuffix("::"))
            if text.endswith("::"):
                self.drop(deeper_than=indent)

    def _read_aside(self, text: str) -> None:
        if entry := _ENTRY.match(text):
            self.flush()
            text = text[entry.end() :]
        if text:
            self.lines.append(text)


def without_markup(text: str) -> str:
    """Returns a paragraph without the markup of reStructuredText and Markdown."""
    if _MARKUP_CHARACTER.search(text):
        for pattern, replacement in _INLINE_MARKUP:
            text = pattern.sub(replacement, text)
    return text.strip()


def title_and_body(paragraphs: Sequence[str | None]) -> tuple[str, str] | None:
    """Returns the first sentence and the prose of the paragraph right after it; None if one of them is too short."""
    if len(paragraphs) < 2 or not paragraphs[0] or not paragraphs[1]:
        return None
    query = split_sentences(paragraphs[0])[0]
    document = " ".join(filter(is_sentence, split_sentences(paragraphs[1])))
    is_query = _is_prose(query.rstrip(".!?") + ".", min_words=4, max_words=40)
    return (query, document) if is_query and _is_prose(document, min_words=8, max_words=200) else None


def is_sentence(text: str) -> bool:
    """Returns whether a text of 5 to 60 words reads as an English sentence."""
    return _is_prose(text, min_words=5, max_words=60)


def _is_prose(text: str, min_words: int, max_words: int) -> bool:
    """Returns whether a text reads as English: a letter first, a full stop last, and plain words for the most part."""
    words = text.split()
    return (
        min_words <= len(words) <= max_words  # the first condition, because it rules out an empty text
        and text.isascii()
        and text[0].isalpha()
        and text.rstrip("\"')")[-1:] in (".", "!", "?")
        and not _MARKUP_LEFT.search(text)
        and text.count("(") == text.count(")")
        and text.count('"') % 2 == 0
        and sum(map(bool, map(_PLAIN_WORD.match, words))) >= 0.8 * len(words)
    )
