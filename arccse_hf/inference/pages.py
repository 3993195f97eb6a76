"""Pages (.md, .rst, .html) as a corpus: their paragraphs are what is searched."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from ..data.documents import PAGE_SUFFIXES, Document, find_documents, read_documents
from ..data.files import RowFile
from ..data.files.rows import NumberedRow, Range
from ..data.sentences import join_sentences
from ..errors import UserError
from .encode_files.reading import InputFile, common_folder

SCHEMA = pa.schema(
    {"file": pa.dictionary(pa.int32(), pa.string()), "id": pa.int64(), "text": pa.string(), "title": pa.string()}
)


class Paragraphs(RowFile):
    """The paragraphs of pages, in memory, as the rows of one file.

    Args:
        table: Columns `file` (the page), `id` (number of the paragraph in the page, from 0), `text` and `title` (of the
            page, and the heading above the paragraph; null where there is neither).
        option: Where the user named the pages, for the errors.
    """

    unit = "paragraph"

    def __init__(self, table: pa.Table, option: str):
        self.table = table
        super().__init__("pages", option)

    def _look(self, named: object) -> tuple[dict[str, str], bool]:
        return {"text": "text"}, not len(self.table)

    def count(self) -> int:
        """As `RowFile.count`."""
        return len(self.table)

    def rows(self, columns: Sequence[str], ranges: Sequence[Range] = ((0, None),)) -> Iterator[NumberedRow]:
        """As `RowFile.rows`."""
        for start, stop in ranges:
            part = self.table.select(columns).slice(start, None if stop is None else stop - start)
            yield from enumerate(zip(*(column.to_pylist() for column in part.columns), strict=True), start=start + 1)


def find_pages(patterns: Sequence[str], option: str) -> list[str]:
    """Returns the pages that files, folders and globs stand for; none where they stand for files of rows.

    Raises:
        UserError: A pattern stands for nothing, or pages and files of rows are mixed.
    """
    pages, row_files, _ = find_documents(patterns, PAGE_SUFFIXES, option)
    if pages and row_files:
        raise UserError(f"{option} {row_files[0]}: holds rows, but {pages[0]} is a document; give files of one sort")
    return pages


def read_pages(patterns: Sequence[str], option: str) -> InputFile:
    """Reads pages, tells on stderr what became of them, and returns their paragraphs as one file.

    Args:
        patterns: As for `read_documents`.
        option: Where the user wrote them, for the errors.

    Raises:
        UserError: There is no document with text.
    """
    documents, counts = read_documents(patterns, option=option)
    print(counts, file=sys.stderr)
    root = common_folder(patterns)
    rows = [row for document in documents for row in _rows(document, root)]
    columns = [list(column) for column in zip(*rows, strict=True)]
    arrays = [pa.array(columns[0]).dictionary_encode(), *columns[1:]]
    content = Paragraphs(pa.table(arrays, schema=SCHEMA), option)
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return InputFile(content.path, content.path, digest, len(rows), "int64", content)


def _rows(document: Document, root: str) -> Iterator[tuple[str, int, str, str | None]]:
    """Yields the values of `SCHEMA`."""
    name = Path(os.path.abspath(document.source)).relative_to(root).as_posix()
    number = 0
    for heading, paragraphs in document.sections:
        titles = dict.fromkeys(title for title in (document.title, heading) if title)
        for paragraph in paragraphs:
            yield name, number, join_sentences(paragraph), " > ".join(titles) or None
            number += 1
