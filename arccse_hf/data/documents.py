"""Documents: a page's file, or a row with a text, as title, sections, paragraphs and sentences.

Sentences are cut by `split_sentences`: pysbd knows more abbreviations, but is a hundred times slower, and blingfire is
a compiled library without releases since 2021.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from ..paths import short_names
from .columns import find_column, require_column, require_text
from .files import KINDS, expand_files, file_kind, open_file
from .files.find import nothing_found
from .markup import PARSERS, Block, Page, parse_text
from .sentences import join_sentences, split_sentences

_TAKES_TEXTS = ("--train_file", "FILE")  # beside --one_document_per_file
PAGE_SUFFIXES = frozenset(PARSERS) - {".txt"}
"""Endings of files that are one document each."""

Paragraph = tuple[str, ...]
"""Its sentences."""


class Section(NamedTuple):
    """A heading, None where a document begins without one, and the paragraphs up to the next heading."""

    heading: str | None
    paragraphs: tuple[Paragraph, ...]

    @property
    def sentences(self) -> list[str]:
        """All of its sentences, in their order."""
        return [sentence for paragraph in self.paragraphs for sentence in paragraph]

    @property
    def text(self) -> str:
        """Its paragraphs, a line each."""
        return "\n".join(map(join_sentences, self.paragraphs))


class Document(NamedTuple):
    """A text with the structure that it has.

    Attributes:
        title: None where it has none.
        sections: Only those with text; the text right below the title comes first.
        source: The file, or the file and the number of the row.
    """

    title: str | None
    sections: tuple[Section, ...]
    source: str

    @property
    def sentences(self) -> list[str]:
        """All of its sentences, in their order."""
        return [sentence for section in self.sections for sentence in section.sentences]


@dataclass
class DocumentCounts:
    """What became of the files or rows that were read.

    Attributes:
        read: Files, or rows.
        documents: Those that became documents.
        empty: Sources without any text.
        not_text: Binary files, and files that are not UTF-8.
        other_kind: Files of a folder or glob whose ending is not known.
        duplicates: Sources with the same text as an earlier one.
        boilerplate: Paragraphs left out because many documents have them.
    """

    read: int = 0
    documents: int = 0
    empty: list[str] = field(default_factory=list)
    not_text: list[str] = field(default_factory=list)
    other_kind: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    boilerplate: int = 0

    def __str__(self) -> str:
        reasons = {
            "empty": self.empty,
            "binary or not UTF-8": self.not_text,
            "of another kind": self.other_kind,
            "duplicates": self.duplicates,
        }
        parts = [f"{len(names):,} {reason} ({_few(names)})" for reason, names in reasons.items() if names]
        if self.boilerplate:
            parts.append(f"{self.boilerplate:,} paragraphs left out that many documents have")
        return f"{self.documents:,} documents of {self.read:,}" + (f": {', '.join(parts)}" if parts else "")


def read_documents(
    patterns: Sequence[str],
    *,
    title_column: str | None = None,
    text_column: str | None = None,
    one_document_per_file: bool = False,
    option: str = "--train_file",
    text_option: str = "--text_columns",
    elsewhere: Collection[str] = (),
) -> tuple[list[Document], DocumentCounts]:
    """Returns the documents that files, folders and globs hold, and what became of what was read.

    Args:
        patterns: Files, folders (with all that lies below them) and globs; `**` is any number of folders. Either pages
            (.md, .rst, .html), or files of rows (.jsonl, .csv, .parquet ...), of which each row is a document.
        title_column: The column of rows that holds the title; None: `title`, in any case, where there is one.
        text_column: The column that holds the text; None: `text`, in any case, or the only other one.
        one_document_per_file: Whether a .txt file is a document; otherwise each of its lines is one.
        option: Where the user wrote `patterns`, for the errors.
        text_option: Where they would name `text_column`.
        elsewhere: Columns that other files have, so that it is no mistake to name them beside pages.

    Raises:
        UserError: A file or column is missing, files of both sorts are mixed, or there is no document at all.

    Example:
        >>> documents, counts = read_documents(["docs/**/*.md", "pages"])  # doctest: +SKIP
        >>> print(counts)  # doctest: +SKIP
        208 documents of 211: 2 empty (a.md, b.md), 1 binary or not UTF-8 (logo.html)
    """
    pages, row_files, others = find_documents(patterns, _page_suffixes(one_document_per_file), option)
    if pages and row_files:
        is_text = option in _TAKES_TEXTS and row_files[0].endswith(".txt")
        raise UserError(
            f"{option} {row_files[0]}: holds rows, but {pages[0]} is a document; give files of one sort"
            + (" (or --one_document_per_file)" if is_text else "")
        )
    counts = DocumentCounts(read=len(others), other_kind=others)
    for given, column in (("--title_column", title_column), (text_option, text_column)):
        if pages and column is not None and column not in elsewhere:
            raise UserError(f"{given} {column}: is a column of rows, and {pages[0]} is a document; leave it out")
    if row_files:
        files = expand_files(row_files, option)
        documents = _rows_as_documents(files, (title_column, text_column), counts, option, text_option)
    else:
        documents = _pages_as_documents(pages, counts, option)
    distinct = _without_boilerplate(list(_without_duplicates(documents, counts)), counts)
    counts.documents = len(distinct)
    if not distinct:
        raise UserError(f"{option} {' '.join(patterns)}: holds no document with text ({counts}); give other files")
    return distinct, counts


def are_documents(patterns: Sequence[str], one_document_per_file: bool = False) -> bool:
    """Returns whether files are documents by themselves: pages, folders, and rows with a `title` and a `text`.

    Args:
        patterns: As for `read_documents`.
        one_document_per_file: As there.
    """
    pages, row_files, _ = find_documents(patterns, _page_suffixes(one_document_per_file), "--train_file")
    if pages or not row_files or file_kind(row_files[0]) == ".txt":
        return bool(pages)
    columns = columns_of(row_files, "--train_file")
    return all(find_column(columns, [name]) for name in ("title", "text"))


def columns_of(patterns: Sequence[str], option: str) -> Collection[str]:
    """Returns the columns of the first file of rows that patterns stand for; none where they stand for pages."""
    row_files = find_documents(patterns, _page_suffixes(True), option)[1]
    return open_file(expand_files(row_files, option)[0], option).columns if row_files else ()


def list_files(patterns: Sequence[str], one_document_per_file: bool = False) -> list[str]:
    """Returns the files that `--train_file` stands for, pages or rows.

    Raises:
        UserError: A pattern stands for nothing.
    """
    pages, row_files, _ = find_documents(patterns, _page_suffixes(one_document_per_file), "--train_file")
    return pages + row_files


def find_documents(
    patterns: Sequence[str], page_suffixes: frozenset[str], option: str
) -> tuple[list[str], list[str], list[str]]:
    """What patterns stand for, each pattern's files sorted: pages, files of rows, and what a glob finds beside them.

    Of a folder only the pages count; text of another kind in it is named. Hidden files and folders are left out.

    Args:
        patterns: As for `read_documents`.
        page_suffixes: Endings of pages.
        option: Where the user wrote `patterns`.

    Raises:
        UserError: A pattern stands for nothing.
    """
    pages: dict[str, None] = {}
    row_files: dict[str, None] = {}
    others: dict[str, None] = {}
    for pattern in patterns:
        path = os.path.expanduser(pattern)
        if os.path.isdir(path):
            files = _glob(os.path.join(glob.escape(path), "**"))
            found = [file for file in files if _suffix(file) in page_suffixes]
            others |= dict.fromkeys(file for file in files if _is_text(file) and _suffix(file) not in page_suffixes)
        else:
            found = [path] if os.path.exists(path) else _glob(path)
        if not found:
            what = (
                f"has no file that is a document ({', '.join(sorted(page_suffixes))})"
                if os.path.isdir(path)
                else "matches no file"
                if glob.has_magic(path)
                else "does not exist"
            )
            raise nothing_found(option, pattern, what)
        for file in found:
            if _suffix(file) in page_suffixes:
                pages[file] = None
            elif file_kind(file) in KINDS:
                row_files[file] = None
            elif file == path:
                raise UserError(_unknown_kind(file, page_suffixes, option))
            else:
                others[file] = None
    return list(pages), list(row_files), list(others)


def _is_text(file: str) -> bool:
    return _suffix(file) == ".pdf" or file_kind(file) in KINDS


def _unknown_kind(file: str, page_suffixes: frozenset[str], option: str) -> str:
    reads = ", which --one_document_per_file reads" if option in _TAKES_TEXTS else ""
    advice = f"; pdftotext makes text of it{reads}" if _suffix(file) == ".pdf" else ""
    known = ", ".join([*sorted(page_suffixes), *KINDS])
    return f"{option} {file}: unknown kind of document; known are {known}{advice}"


def _page_suffixes(one_document_per_file: bool) -> frozenset[str]:
    return PAGE_SUFFIXES | ({".txt"} if one_document_per_file else set())


def make_document(page: Page, source: str) -> Document | None:
    """The document of a page; None where the page has no text.

    A heading above all others is the title. Without one, the title that stands outside of the text is, and where there
    is that, a single heading of a lower level is a section like others.
    """
    levels = [block.level for block in page.blocks if block.level]
    top = min(levels, default=0)
    is_titled = levels.count(top) == 1 and levels[0] == top and (top == 1 or not page.title)
    preamble: list[Section] = []
    sections: list[Section] = []
    heading, title = None, None
    paragraphs: list[Paragraph] = []
    for block in [*page.blocks, Block(7, "")]:
        if block.level == 0:
            paragraphs.append(tuple(split_sentences(block.text)))
            continue
        if paragraphs:
            sections.append(Section(heading, tuple(paragraphs)))
            paragraphs = []
        if is_titled and block.level == top and title is None:
            # What stands above the title (badges, the way to the page) is not what the title is about.
            title, heading = block.text, None
            preamble, sections = sections, []
        else:
            heading = block.text
    sections += preamble
    return Document(page.title if title is None else title, tuple(sections), source) if sections else None


def _pages_as_documents(files: Sequence[str], counts: DocumentCounts, option: str) -> Iterator[Document]:
    counts.read += len(files)
    for file in files:
        try:
            text = _decode(Path(file).read_bytes())
        except OSError as error:
            raise UserError(f"{option} {file}: cannot be read ({error.strerror}); check its permissions") from error
        if text is None:
            counts.not_text.append(file)
            continue
        document = make_document(PARSERS[_suffix(file)](text), file)
        if document is None:
            counts.empty.append(file)
        else:
            yield document


def _rows_as_documents(
    files: list[str], named: tuple[str | None, str | None], counts: DocumentCounts, option: str, text_option: str
) -> Iterator[Document]:
    row_files = [open_file(file, option, list(filter(None, named))) for file in files]
    for file in row_files:
        file.require_rows()
    where = row_files[0].source.where()
    title_column, text_column = _choose_columns(list(row_files[0].columns), named, where, text_option)
    columns = [text_column, title_column] if title_column else [text_column]
    for file in row_files:
        for column in columns:
            require_text(column, file.columns, file.source.where(), file.source.where())
        for row, (line, values) in enumerate(file.rows(columns), start=1):
            text, *titles = (file.text(value, line, name) for value, name in zip(values, columns, strict=True))
            title = " ".join((titles[0] or "").split()) if titles else ""
            source = f"{file.path}:{row}"
            counts.read += 1
            document = make_document(parse_text(text or "")._replace(title=title or None), source)
            if document is None:
                counts.empty.append(source)
            else:
                yield document


def _choose_columns(
    names: Sequence[str], named: tuple[str | None, str | None], source: str, text_option: str
) -> tuple[str | None, str]:
    title_column, text_column = named
    for option, name in (("--title_column", title_column), (text_option, text_column)):
        if name is not None:
            require_column(name, names, f"{option} {name}", source)
    title = title_column or find_column(names, ["title"])
    others = [name for name in names if name != title]
    text = text_column or find_column(others, ["text"]) or (others[0] if len(others) == 1 else None)
    if text is None:
        raise UserError(f"{source}: which of the columns {', '.join(names)} is the text? name it with {text_option}")
    return title, text


def _without_duplicates(documents: Iterable[Document], counts: DocumentCounts) -> Iterator[Document]:
    seen: set[bytes] = set()
    for document in documents:
        key = blake2b("\n".join(document.sentences).encode(), digest_size=16).digest()
        if key in seen:
            counts.duplicates.append(document.source)
        else:
            seen.add(key)
            yield document


def _without_boilerplate(documents: list[Document], counts: DocumentCounts) -> list[Document]:
    """The documents without the paragraphs that a hundredth of them have, and five at least: menus, licences, "Source".

    A document that holds nothing else keeps them.
    """
    having = Counter(
        paragraph
        for document in documents
        for paragraph in {paragraph for section in document.sections for paragraph in section.paragraphs}
    )
    most = max(4, len(documents) // 100)
    cleaned = []
    for document in documents:
        sections = []
        for heading, paragraphs in document.sections:
            kept = tuple(paragraph for paragraph in paragraphs if having[paragraph] <= most)
            if kept:
                sections.append(Section(heading, kept))
        if sections:
            counts.boilerplate += sum(len(section.paragraphs) for section in document.sections)
            counts.boilerplate -= sum(len(section.paragraphs) for section in sections)
            document = document._replace(sections=tuple(sections))
        cleaned.append(document)
    return cleaned


def _decode(content: bytes) -> str | None:
    """The text of UTF-8; None of anything else."""
    if b"\0" in content:
        return None
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        return None


def _glob(pattern: str) -> list[str]:
    return sorted(file for file in glob.glob(pattern, recursive=True) if os.path.isfile(file))


def _suffix(file: str) -> str:
    return Path(file).suffix.lower()


def _few(names: Sequence[str]) -> str:
    return ", ".join(short_names(names[:3], parts=1)) + (", ..." if len(names) > 3 else "")
