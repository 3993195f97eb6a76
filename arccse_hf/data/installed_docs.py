"""English text that is already on the machine: the docstrings of installed packages.

Packages are parsed with `ast`, never imported. Two kinds of text come out: sentences to train on, and pairs of a
docstring's first line and its next paragraph, which make a small retrieval test.
"""

from __future__ import annotations

import ast
import functools
import gc
import importlib.util
import inspect
import logging
import multiprocessing
import os
import random
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from .sentences import split_sentences

logger = logging.getLogger(__name__)

STANDARD_LIBRARY = "stdlib"
DEFAULT_PACKAGES = (STANDARD_LIBRARY, "numpy", "scipy", "torch", "transformers")

# Folders without documentation for users; the standard library's folder also holds everything that pip installs.
_SKIPPED_FOLDERS = {"test", "tests", "testing", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"}
_FILES_PER_TASK = 64

# Sections made of entries: names and types go, their descriptions stay. Other named sections hold code or citations.
# The text under any other heading ("Notes") is prose.
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
    (re.compile(r":math:`[^`]*`"), "$"),  # A formula stays marked, so that its sentence is left out.
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


@dataclass(frozen=True)
class DocstringCorpus:
    """Text from docstrings, without repetitions and in the order of packages, files and lines.

    Attributes:
        sentences: English sentences.
        pairs: (first sentence of a docstring, the prose of its next paragraph).
    """

    sentences: list[str]
    pairs: list[tuple[str, str]]


def docstring_corpus(packages: Sequence[str] = DEFAULT_PACKAGES) -> DocstringCorpus:
    """Sentences and pairs from the docstrings of `packages`; parsed once per process.

    Args:
        packages: names of importable packages or modules, and "stdlib" for Python's own. A package that isn't
            installed is skipped, and the log says so.
    """
    return _docstring_corpus(tuple(packages))


@functools.cache
def _docstring_corpus(packages: tuple[str, ...]) -> DocstringCorpus:
    files = [str(path) for package in packages for path in _source_files(package)]
    tasks = [files[start : start + _FILES_PER_TASK] for start in range(0, len(files), _FILES_PER_TASK)]
    workers = min(len(tasks), os.cpu_count() or 1, 8)
    if workers > 1 and "fork" in multiprocessing.get_all_start_methods():
        # Forked, because a spawned worker would first import this package, and torch with it.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:
            results = list(pool.map(_parse_files, tasks))
    else:
        results = list(map(_parse_files, tasks))
    failures = [failure for _, _, failed in results for failure in failed]
    if failures:
        logger.warning(
            "%d of %d source files could not be parsed, the first: %s", len(failures), len(files), failures[0]
        )
    corpus = DocstringCorpus(
        sentences=list(dict.fromkeys(chain.from_iterable(sentences for sentences, _, _ in results))),
        pairs=list(dict.fromkeys(chain.from_iterable(pairs for _, pairs, _ in results))),
    )
    logger.info(
        "%s sentences and %s pairs from the docstrings of %s files (%s)",
        f"{len(corpus.sentences):,}",
        f"{len(corpus.pairs):,}",
        f"{len(files):,}",
        ", ".join(packages),
    )
    return corpus


def held_out_pairs(corpus: DocstringCorpus, num_pairs: int, seed: int = 0) -> list[tuple[str, str]]:
    """A random choice of pairs for a retrieval test, in which no query and no document occurs twice.

    Args:
        corpus: where the pairs come from.
        num_pairs: how many to choose.
        seed: the same seed chooses the same pairs.

    Raises:
        ValueError: if the corpus hasn't that many pairs with distinct queries and documents.
    """
    chosen: list[tuple[str, str]] = []
    queries: set[str] = set()
    documents: set[str] = set()
    for query, document in random.Random(seed).sample(corpus.pairs, len(corpus.pairs)):
        if len(chosen) >= num_pairs:
            break
        if query not in queries and document not in documents:
            queries.add(query)
            documents.add(document)
            chosen.append((query, document))
    if len(chosen) < num_pairs:
        raise ValueError(f"{num_pairs} pairs were asked for, but the installed docstrings have only {len(chosen)}")
    return chosen


def _source_files(package: str) -> Iterator[Path]:
    if package == STANDARD_LIBRARY:
        roots = [sysconfig.get_paths()["stdlib"]]
    else:
        spec = importlib.util.find_spec(package)
        if spec is None:
            logger.info("package %s is not installed: its docstrings are left out", package)
            return
        if spec.submodule_search_locations is None:
            yield from [Path(spec.origin)] if spec.origin and spec.origin.endswith(".py") else []
            return
        roots = list(spec.submodule_search_locations)
    for root in roots:
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = sorted(set(subfolders) - _SKIPPED_FOLDERS)
            yield from (Path(folder, name) for name in sorted(names) if name.endswith(".py"))


def _parse_files(files: Sequence[str]) -> tuple[list[str], list[tuple[str, str]], list[str]]:
    """The sentences, the pairs and what went wrong, as "file: reason"."""
    sentences: list[str] = []
    pairs: list[tuple[str, str]] = []
    failures: list[str] = []
    collecting = gc.isenabled()
    gc.disable()  # A syntax tree has no cycles, and the collector would take a quarter of the time walking it.
    try:
        for file in files:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # Invalid escapes in other people's strings.
                    tree = ast.parse(Path(file).read_bytes())
                for docstring in _docstrings(tree.body, tree):
                    paragraphs, asides = _prose(docstring)
                    for paragraph in filter(None, chain(paragraphs, asides)):
                        sentences.extend(filter(_is_sentence, split_sentences(paragraph)))
                    if pair := _pair(paragraphs):
                        pairs.append(pair)
            except (OSError, SyntaxError, ValueError, RecursionError) as error:
                failures.append(f"{file}: {error}")
    finally:
        if collecting:
            gc.enable()
    return sentences, pairs, failures


def _docstrings(statements: Sequence[ast.stmt], owner: ast.AST | None = None) -> Iterator[str]:
    """Docstrings in the order of the source. Only statements are visited: expressions are most of a tree."""
    if isinstance(owner, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and statements:
        first = statements[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            yield inspect.cleandoc(first.value.value)
    for statement in statements:
        for field in ("body", "handlers", "orelse", "finalbody"):
            inner = getattr(statement, field, None)
            if isinstance(inner, list):
                yield from _docstrings(inner, statement if field == "body" else None)


def _prose(docstring: str) -> tuple[list[str | None], list[str]]:
    """The prose in a docstring, without its markup.

    Returns:
        The paragraphs, with None where something else was dropped, and the asides: descriptions of parameters and list
        items.
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
        self.indent = 0  # of the first of `lines`
        self.drop_deeper_than: int | None = None  # in a dropped block: the indentation of what opened it
        self.note_at: int | None = None  # in a note: the indentation of its heading
        self.aside_at: int | None = None  # in a list or a section of entries: the indentation of what opened it
        self.section = ""  # under an underlined heading, until the next: "entries", "code" or "" for prose
        self.in_fence = False
        self.in_doctest = False
        self.previous = ""

    def flush(self) -> None:
        if self.lines:
            text = " ".join(self.lines)
            (self.paragraphs if self.aside_at is None else self.asides).append(_without_markup(text))
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
            self.open_aside(indent)  # The line is a name, perhaps with its type, or the heading over such lines.
        elif _GOOGLE_HEADER.match(text) and not self.lines:
            self.drop(deeper_than=indent)
        elif opener := _FIELD.match(text) or _BULLET.match(text):
            self.open_aside(indent, text[opener.end() :])
        elif _NOT_PROSE.match(text):
            self.drop(deeper_than=indent)
        elif self.aside_at is not None:
            self._read_aside(text)
        elif self.lines and indent > self.indent:  # A name with its description below.
            self.lines = []
            self.open_aside(self.indent, text)
        elif not self.lines and indent > 0 and self.note_at is None:  # Code, a table or a figure.
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


def _without_markup(text: str) -> str:
    if _MARKUP_CHARACTER.search(text):
        for pattern, replacement in _INLINE_MARKUP:
            text = pattern.sub(replacement, text)
    return text.strip()


def _pair(paragraphs: Sequence[str | None]) -> tuple[str, str] | None:
    """The first sentence and what is prose in the paragraph right after it, if both say enough."""
    if len(paragraphs) < 2 or not paragraphs[0] or not paragraphs[1]:
        return None
    query = split_sentences(paragraphs[0])[0]
    document = " ".join(filter(_is_sentence, split_sentences(paragraphs[1])))
    is_query = _is_prose(query.rstrip(".!?") + ".", min_words=4, max_words=40)
    return (query, document) if is_query and _is_prose(document, min_words=8, max_words=200) else None


def _is_sentence(text: str) -> bool:
    return _is_prose(text, min_words=5, max_words=60)


def _is_prose(text: str, min_words: int, max_words: int) -> bool:
    """Whether a text reads as English: a letter first, a full stop last, plain words for the most part."""
    words = text.split()
    return (
        min_words <= len(words) <= max_words  # First, because it rules out the empty text.
        and text.isascii()
        and text[0].isalpha()
        and text.rstrip("\"')")[-1:] in (".", "!", "?")
        and not _MARKUP_LEFT.search(text)
        and text.count("(") == text.count(")")
        and text.count('"') % 2 == 0
        and sum(map(bool, map(_PLAIN_WORD.match, words))) >= 0.8 * len(words)
    )
