"""The reader of files: what cannot be read is refused in one line that says where, in the same words by every user."""

import gzip
import json
import os
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import disable_progress_bars
from readers import refused_by_all, trained_on, write, write_rows

from arccse_hf.data.files import MAX_TEXT_CHARACTERS, UnreadableFile, expand_files, open_file, source
from arccse_hf.errors import UserError
from arccse_hf.evaluation.files import read_table
from arccse_hf.inference.encode_files.reading import Columns, find_files, inspect_file

disable_progress_bars()

NOISE = random.Random(0).randbytes(999).hex().encode()  # the same in every process that collects the tests
GOOD = '{"text": "a"}\n'
LONG = "x" * MAX_TEXT_CHARACTERS
BRACKETS = "[" * 200_000
BREAKS = "\n" * 20


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def test_a_table_is_closed_when_a_row_is_refused(tmp_path):
    """And not when the error is forgotten."""
    path = tmp_path / "ragged.csv"
    path.write_text("text\nhello\na,b,c\n")
    table = open_file(str(path), "--train_file")
    with pytest.raises(UnreadableFile, match="3 cells") as refused:
        list(table.rows(["text"]))
    descriptors = Path("/proc/self/fd")
    opened = [os.readlink(file) for file in descriptors.iterdir() if file.is_symlink() and file.exists()]
    assert refused.value is not None and str(path) not in opened


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        # Characters
        ("nul.txt", b"some text\n\x00\x01", "line 2: NUL characters, so it is binary or UTF-16; save it as UTF-8"),
        ("utf16.csv", "text\nwörter\n".encode("utf-16"), "line 1: NUL characters"),
        ("utf16.json", '[{"text": "a"}]'.encode("utf-16-le"), "line 1: NUL characters"),
        ("latin.txt", "one\ntwo\rdrei Wörter\n".encode("latin1"), "line 3: not UTF-8 text; convert the file (iconv"),
        ("latin.tsv", "text\tn\nWörter\t1\n".encode("latin1"), "line 2: not UTF-8"),
        ("latin.csv.gz", packed("text\nWörter\n".encode("latin1")), "line 2: not UTF-8"),
        ("latin.json", '[{"text":\n"Wörter"}]'.encode("latin1"), "line 2: not UTF-8"),
        ("cut.txt", "one\nzwei Wö".encode()[:-1], "line 2: not UTF-8"),
        ("binary.txt", NOISE[:100] + b"\xff\xfe\n", "line 1: not UTF-8"),
        ("cut.txt.gz", packed(NOISE)[:-20], "the gzip file is damaged"),
        ("flipped.jsonl.gz", packed(GOOD.encode())[:12] + b"\xff\xff" + packed(GOOD.encode())[14:], "the gzip file is"),
        ("plain.txt.gz", b"not packed at all", "the gzip file is damaged"),
        # Cells
        ("more.csv", "text\nHello, you.\n", "line 2: 2 cells where the first row has 1; quote cells that hold ','"),
        ("fewer.csv", "text,n\na,1\n\nb\n", "line 4: 1 cells where the first row has 2"),
        ("tabs.tsv", "text\tn\na\t1\tb\n", "line 2: 3 cells where the first row has 2; a tab ends a cell"),
        ("open.csv", 'text,n\na,1\n"b\nc,1\n', "line 3: malformed row (unexpected end of data)"),
        ("inner.csv", 'text\n"a "b" c"\n', "line 2: malformed row (',' expected after '\"')"),
        ("tabs.csv", "text\tlabel\na cat\t1\na dog\t0\n",
         "its first rows are one cell each, with the same number of tabs; name it .tsv, or put a header above them if"),
        ("pipes.csv.gz", packed(b"text|label|n\na cat|1|2\n"),
         "its first rows are one cell each, with the same number of '|'; write commas between its cells, or put a"),
        ("long.csv", "text\tn\n" + "a cat\t1\n" * 49 + "tab\tin\ttext\n",
         "its first rows are one cell each, with the same number of tabs"),
        ("twice.csv", "text,text\na,b\n", "line 1: two columns are called text"),
        # JSON
        ("cut.jsonl", GOOD + '{"text": "b"\n{"text": "c"}\n', "line 2: not a JSON object on one line (Expecting ',' "),
        ("tall.jsonl", '{\n"text": "b"\n}\n', "line 1: not a JSON object on one line"),
        ("list.jsonl", GOOD + '["b"]\n', "line 2: lists where an object belongs"),
        ("null.json", "null", "line 1: null where an object belongs"),
        ("null.jsonl", GOOD + "null\n", "line 2: null where an object belongs"),
        ("string.json", '["{\\"text\\": 1}"]', "line 1: text where an object belongs"),
        ("numbers.json", '[{"text": "a"},\n1]', "line 2: integers where an object belongs"),
        ("cut.json", '[{"text": "a"},\n{"text": "b', "line 2: not JSON (Unterminated string starting at)"),
        ("open.json", '[{"text": "a"}\n', "line 2: not JSON: the end of the file where ']' belongs"),
        ("two.json", '[{"text": "a"}]\n[{"text": "b"}]', "line 2: something stands behind the array"),
        ("comma.json", '[{"text": "a"}\n{"text": "b"}]', "line 2: not JSON: '{' where ']' belongs"),
        ("brackets.json", BRACKETS, "line 1: nested too deep"),
        ("brackets.jsonl", GOOD + f'{{"text": {BRACKETS}\n', "line 2: nested too deep"),
        ("deep.json", f'[{{"text": {BRACKETS}{"]" * 200_000}}}]', "line 1: nested too deep"),
        ("digits.jsonl", f'{{"text": {"9" * 5_000}}}\n', "line 1: not readable as JSON (Exceeds the limit"),
        # Parquet
        ("magic.parquet", b"PAR1 but no more", "cannot be read as .parquet; write it again ("),
        ("text.parquet", b"some text, that is no Parquet file", "cannot be read as .parquet"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)  # fmt: skip
def test_every_user_refuses_it_in_the_same_words(tmp_path, name, content, problem):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert refused_by_all(str(path), ("text",)).startswith(problem)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("x.txt", f"a\n{LONG}\n", "line 2: more than 16,777,216 characters in one line; cut it into shorter ones"),
        ("x.jsonl", f'{GOOD}{{"text": "{LONG}"}}\n', "line 2: more than 16,777,216 characters in one line"),
        ("x.json", f'[{GOOD},{{"text": "{LONG}"}}]', "line 2: more than 16,777,216 characters in one object"),
        ("x.json", f'[{GOOD},{{"text": "{LONG}', "line 2: more than 16,777,216 characters in one object"),
        ("x.csv", f'text\n"{LONG}\n"\n', "line 2: more than 16,777,216 characters in one line"),
        ("x.csv", f'text\n"{LONG[9:]}{BREAKS}"\n', "line 2: malformed row (field larger than field limit (16777216))"),
    ],
    ids=["txt", "jsonl", "json", "json, cut", "csv", "csv, over lines"],
)  # fmt: skip
def test_a_text_of_unbounded_length_is_refused(tmp_path, name, content, problem):
    file = write(tmp_path / name, content)
    with pytest.raises(UnreadableFile) as caught:
        list(open_file(file, "--option").rows(["text"]))
    assert str(caught.value).startswith(f"--option {file}: {problem}")


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (["a", 2, "b"], "line 2: column text holds 2, not text"),
        (["a", {"b": ["c"]}], "line 2: column text holds {'b': ['c']}, not text"),
        (["a", ["b" * 99]], f"line 2: column text holds {str(['b' * 99])[:40]}..., not text"),
        (["a", True], "line 2: column text holds True, not text"),
        ([1, 2], "column text holds integers, not text; name a column of text"),
        ([1, 2.5], "column text holds numbers, not text"),
        ([{"a": 1}], "column text holds objects, not text"),
        ([["a"], 1], "column text holds values of several types, not text"),
    ],
)
def test_json_that_is_no_text(tmp_path, rows, problem):
    file = write(tmp_path / "x.jsonl", "\n".join(json.dumps({"text": value}) for value in rows))
    with pytest.raises(UserError) as caught:
        trained_on(file, ())
    assert str(caught.value).startswith(f"--train_file {file}: {problem}")


def test_numbers_in_the_second_of_two_files_are_no_text(tmp_path):
    """The strings of the first came out with literal quotes, and were trained on."""
    files = [write(tmp_path / "a.jsonl", GOOD * 40), write(tmp_path / "b.jsonl", '{"text": 1}\n' * 40)]
    with pytest.raises(UserError, match="--train_file .*b.jsonl: column text holds integers, not text"):
        trained_on(files[1], ())
    with pytest.raises(UserError, match="--train_file .*b.jsonl: column text holds integers, not text"):
        trained_on(str(tmp_path / "*.jsonl"), ("text",))
    late = write(tmp_path / "b.jsonl", GOOD * 2_000 + '{"text": 1}\n')
    with pytest.raises(UserError, match=f"--train_file {late}: line 2001: column text holds 1, not text"):
        trained_on(str(tmp_path / "*.jsonl"), ())


def test_parquet_that_is_no_text(tmp_path):
    path = tmp_path / "x.parquet"
    texts = pa.array([b"a", b"\xff\xfe", b"c"]).view(pa.string())
    pq.write_table(pa.table({"text": texts}), path)
    assert refused_by_all(str(path), ("text",)).startswith("row 2: not UTF-8 text; write the file again")
    pq.write_table(pa.table({"text": ["a", "b" * 99], "n": [1, 2], "b": [b"a", b"b"]}), path)
    for name, kind in (("n", "integers"), ("b", "values of type binary")):
        with pytest.raises(UserError, match=f"--text_columns {name}: column {name} of .* holds {kind}, not text"):
            trained_on(str(path), (name,))
        with pytest.raises(UserError, match=f"--text_column {name}: column {name} of .* holds {kind}, not text"):
            inspect_file(str(path), "x", Columns(name))
    pq.write_table(pa.table({"text": ["a", LONG + "x"]}), path)
    assert refused_by_all(str(path), ("text",)).startswith("row 2: more than 16,777,216 characters in one text")
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), path)
    assert refused_by_all(str(path), ("text",)).startswith("two columns have one name")


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    file = write(tmp_path / "x.txt.gz", packed(b"a line\n" * 100_000))
    assert os.path.getsize(file) * source.MAX_GZIP_RATIO < 700_000
    assert open_file(file, "--option").count() == 100_000, "small enough to be left alone"
    monkeypatch.setattr(source, "GZIP_FREE_BYTES", 1 << 17)
    assert refused_by_all(file, ("text",)).startswith("unpacks to more than 200 times its size; if that is right,")


def test_names_that_stand_for_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("gone.txt").symlink_to("nowhere.txt")
    Path("loop.txt").symlink_to("loop.txt")
    Path("folder.csv").mkdir()
    os.mkfifo("pipe.txt")
    write_rows(Path("good.txt"), ("text",), [("a",)])
    Path("link.txt").symlink_to("good.txt")
    for name, content in {"report.pdf": b"%PDF", "none": b"a", "x.parquet.gz": b"PAR1"}.items():
        Path(name).write_bytes(content)
    problems = {
        "gone.txt": "is a link to nowhere.txt, which does not exist; check the path",
        "[g]one.txt": "is a link to nowhere.txt, which does not exist",
        "loop.txt": "is a link that leads back to itself",
        "folder.csv": "is a folder; name its files, such as .*folder.csv/\\*.txt",
        "pipe.txt": "is a pipe or a device",
        "report.pdf": "unknown kind of file; known are .txt, .csv, .tsv, .json, .jsonl, .parquet, also with .gz",
        "none": "unknown kind of file",
        "x.parquet.gz": "parquet is compressed by itself; unpack it with gunzip",
        "absent.txt": r"does not exist; check the path \(now in",
        "*.jsonl": "matches no file; check the path",
        "a\0.txt": "does not exist",
        f"{'x' * 300}.txt": "does not exist",
    }
    for name, problem in problems.items():
        for find in (expand_files, find_files):
            with pytest.raises(UserError, match=problem) as caught:
                find([name])
            assert "\n" not in str(caught.value)
        if "*" not in name and "[" not in name:
            with pytest.raises(UserError):
                read_table(Path(name))
    assert trained_on("link.txt", ("text",)) == [("a",)]


@pytest.mark.parametrize("name", ["x.txt", "x.csv", "x.tsv", "x.json", "x.jsonl.gz", "x.txt.gz"])
def test_an_empty_file_is_refused_but_for_encoding(tmp_path, name):
    for content in (b"", b"\xef\xbb\xbf", b"[ ]" if name == "x.json" else b""):
        file = write(tmp_path / name, content)
        for user in (lambda file=file: trained_on(file, ()), lambda file=file: read_table(Path(file))):
            with pytest.raises(UserError, match=f"{file}: is empty; give a file with text"):
                user()
        assert inspect_file(file, "x", Columns("text")).rows == 0


def test_a_header_without_rows_is_empty_too(tmp_path):
    with pytest.raises(UserError, match="its objects are empty"):
        trained_on(write(tmp_path / "x.jsonl", "{}\n{}\n"), ())
    file = write(tmp_path / "x.csv", "text,n\n\n")
    with pytest.raises(UserError, match="has a header but no rows"):
        trained_on(file, ())
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="has a header but no rows"):
        trained_on(str(tmp_path / "x.parquet"), ())
