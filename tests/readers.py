"""Files of rows, and what every user of the reader makes of them: for test_files*.py."""

import csv
import gzip
import io
import itertools
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arccse_hf.data.training_texts import open_shards, open_texts
from arccse_hf.errors import UserError
from arccse_hf.evaluation.files import read_table
from arccse_hf.inference.encode_files.reading import Columns, inspect_file, read_rows

Rows = list[tuple[str | None, ...]]


def write(path: Path, content: str | bytes) -> str:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix.lower() == ".gz" and not raw.startswith(b"\x1f\x8b") else raw)
    return str(path)


def delimited(names: tuple[str, ...], rows: Rows, separator: str, end: str = "\n") -> str:
    if separator == "\t":
        return "".join(end.join(["\t".join(row) for row in [names, *rows]]) + end)
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator=end).writerows([names, *rows])
    return text.getvalue()


def write_rows(path: Path, names: tuple[str, ...], rows: Rows) -> str:
    """Writes rows by the standard library or pyarrow."""
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pq.write_table(pa.table({name: list(column) for name, *column in zip(names, *rows, strict=True)}), path)
        return str(path)
    contents = {
        "txt": lambda: "".join(f"{text}\n" for (text,) in rows),
        "csv": lambda: delimited(names, rows, ",", "\r\n"),  # by which the csv module knows what to quote
        "tsv": lambda: delimited(names, rows, "\t"),
        "json": lambda: json.dumps(objects, indent=1),
        "jsonl": lambda: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in objects),
    }
    return write(path, contents[kind]())


# The users of the reader: training, in memory and as a stream; encoding, in ranges of rows; evaluation.


def trained_on(path: str, names: tuple[str, ...], streaming: bool = False) -> Rows:
    if streaming:
        (shard,), *_ = open_shards([path], text_columns=names)
        rows = itertools.chain(*(table.to_pylist() for table, _ in shard.tables(3)))
    else:
        rows, _ = open_texts([path], text_columns=names)
    return [tuple(row[name] for name in names) for row in rows]


def encoded(path: str, names: tuple[str, ...]) -> Rows:
    columns = []
    for name in names:
        file = inspect_file(path, "name", Columns(name))
        cuts = [0, *range(1, file.rows, 3), file.rows]  # each range is read by itself, as after a restart
        parts = [read_rows(file, Columns(name), [some]) for some in itertools.pairwise(cuts)]
        ids, texts = zip(*itertools.chain(*parts), strict=True)
        assert list(ids) == list(range(file.rows))
        columns.append(texts)
    return list(zip(*columns, strict=True))


def evaluated(path: str, names: tuple[str, ...]) -> Rows:
    return [tuple(row[name] for name in names) for _, row in read_table(Path(path))[1]]


def read_by_all(path: str, names: tuple[str, ...]) -> Rows:
    rows = trained_on(path, names)
    assert trained_on(path, names, streaming=True) == rows
    assert encoded(path, names) == rows
    # Evaluation passes over rows of blanks.
    for_evaluation, written = (list(filter(has_text, some)) for some in (evaluated(path, names), rows))
    assert for_evaluation == written
    return rows


def has_text(row: tuple[str | None, ...]) -> bool:
    return any(text and text.strip() for text in row)


def refused_by_all(path: str, names: tuple[str, ...]) -> str:
    """The problem, which all name in the same words, after the option and the path."""
    problems = set()
    for user in (trained_on, encoded, evaluated):
        with pytest.raises(UserError) as caught:
            user(path, names)
        message = str(caught.value)
        assert "\n" not in message and message.count(path) == 1
        problems.add(message.partition(path)[2])
    assert len(problems) == 1, problems
    return problems.pop().removeprefix(": ")
