"""The reader of files: every kind of file is read as it was written, by every user of the reader alike."""

import io
import json
import logging
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import disable_progress_bars
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers import evaluated, read_by_all, trained_on, write, write_rows

from arccse_hf.data.files import UnreadableFile, open_file, stem
from arccse_hf.data.files.rows import Mark
from arccse_hf.data.files.source import Cursor
from arccse_hf.data.tokenization import tokenize_batch
from arccse_hf.data.training_texts import load_training_texts

disable_progress_bars()

HARD = [
    '"Quoted" at the start', "in the \"middle\"", "semicolon; and, comma", "null", "NA", "1.5", "  blanks  ", "",
    "naïve 文字 🎉", "line\u2028separators\x85of\x0cother\x0bkinds", "it's \\n no escape", "#no comment",
]  # fmt: skip
BREAKS = ["a line\nbreak", "a carriage\r\nreturn", "tab\there"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("kind", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_every_kind_gives_every_user_the_rows_that_were_written(tmp_path, kind, packed):
    if kind + packed == ".parquet.gz":
        return
    texts = HARD if kind == ".tsv" else HARD + BREAKS
    rows = list(zip(texts, texts[::-1], strict=True))
    assert read_by_all(write_rows(tmp_path / f"x{kind}{packed}", ("text", "other"), rows), ("other", "text")) == [
        row[::-1] for row in rows
    ]
    one_column = [(text,) for text in texts]
    assert read_by_all(write_rows(tmp_path / f"y{kind}{packed}", ("text",), one_column), ("text",)) == one_column


@pytest.mark.parametrize("name", ["x.txt", "x.txt.gz", "X.TXT.GZ"])
def test_a_line_of_a_text_file_is_a_row(tmp_path, name):
    rows = [(text,) for text in HARD]
    assert read_by_all(write_rows(tmp_path / name, ("text",), rows), ("text",)) == rows


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
CELL = st.text(st.sampled_from("a\"',;\t\r\n {}[]\\é"), max_size=6) | TEXT


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(CELL, CELL), min_size=1),
    kind=st.sampled_from(["csv", "tsv", "json", "jsonl", "jsonl.gz", "parquet", "txt"]),
)
def test_what_is_written_is_read(tmp_path, rows, kind):
    names = ("text", "label")
    if kind in ("tsv", "txt"):
        breaks = {ord(character): "_" for character in "\t\r\n"}
        rows = [tuple(cell.translate(breaks) for cell in row) for row in rows]
    if kind == "txt":
        names, rows = ("text",), [(first,) for first, _ in rows]
    rows[0] = (rows[0][0].removeprefix("\ufeff"), *rows[0][1:])
    file = open_file(write_rows(tmp_path / f"x.{kind}", names, rows), "--option")
    if kind != "txt" or rows != [("",)]:
        assert not file.empty
    assert [values for _, values in file.rows(names)] == rows
    assert file.count() == len(rows)
    tables = list(file.tables(names, most_rows=3))
    assert [tuple(row.values()) for table, _ in tables for row in table.to_pylist()] == rows
    for number, (_, mark) in enumerate(tables, start=1):
        assert list(file.tables(names, 3, Mark(*json.loads(json.dumps(mark))))) == tables[number:]
    middle = len(rows) // 2
    parts = [file.rows(names, [(0, middle)]), file.rows(names, [(middle, len(rows))])]
    assert [list(part) for part in parts] == [list(file.rows(names))[:middle], list(file.rows(names))[middle:]]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("kind", ["txt", "csv", "jsonl"])
def test_a_file_is_entered_at_any_row_and_knows_the_line(tmp_path, kind, end):
    """Also where the rows lie across the pieces that Python decodes at once, with characters of several bytes."""
    texts = [f"{number} {'文字 ' * (number % 7)}" for number in range(3_000)]
    lines = {
        "txt": texts,
        "csv": ["text", *(f'"{text}"' for text in texts)],
        "jsonl": [json.dumps({"text": text}, ensure_ascii=False) for text in texts],
    }[kind]
    bad = {"txt": "\0", "csv": "a,b", "jsonl": "{"}[kind]
    file = open_file(write(tmp_path / f"x.{kind}", end.join([*lines, bad, ""])), "--option")
    marks = [None]
    with pytest.raises(UnreadableFile, match=f"line {len(lines) + 1}: "):
        marks += (mark for _, mark in file.tables(["text"], 100))
    assert len(marks) == 31
    for number in (1, 7, 29):
        table, _ = next(file.tables(["text"], 100, marks[number]))
        assert table["text"].to_pylist() == texts[100 * number : 100 * number + 100]
        with pytest.raises(UnreadableFile, match=f"line {len(lines) + 1}: "):
            list(file.tables(["text"], 100, marks[number]))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=60) | TEXT.map(str.encode),
    kind=st.sampled_from(["csv", "tsv", "json", "txt", "parquet", "txt.gz"]),
)
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path, content, kind):
    path = tmp_path / f"x.{kind}"
    path.write_bytes(content)
    try:
        file = open_file(str(path), "--option")
        rows = [values for _, values in file.rows(list(file.columns))] if file.columns else []
    except UnreadableFile as problem:
        assert str(problem).startswith(f"--option {path}: ") and "\n" not in str(problem)
    else:
        assert file.count() == len(rows) and file.empty == (not rows)


@pytest.mark.parametrize(
    ("name", "content", "columns", "rows"),
    [
        ("header.csv", "body\nthe body of it\nanother body\n", ["body"], [("the body of it",), ("another body",)]),
        ("words.csv", "Guest review\nA quiet room above the old harbour.\n", ["Guest review"],
         [("A quiet room above the old harbour.",)]),
        ("short.csv", "Hello there\nHow are you\n", ["text"], [("Hello there",), ("How are you",)]),
        ("none.csv", "A first sentence here.\nAnother one.\n",
         ["text"], [("A first sentence here.",), ("Another one.",)]),
        ("comma.csv", '"The first, a sentence."\nAnother one.\n',
         ["text"], [("The first, a sentence.",), ("Another one.",)]),
        ("two.csv", "One sentence.,Its pair.\nTwo.,Three.\n",
         ["column1", "column2"], [("One sentence.", "Its pair."), ("Two.", "Three.")]),
        ("numbers.csv", "a word,7\ntwo words,8\n", ["column1", "column2"], [("a word", "7"), ("two words", "8")]),
        ("number.csv", "note,count\nlong,7\nlonger,8\n", ["note", "count"], [("long", "7"), ("longer", "8")]),
        ("blank.csv", "\n\ntext\nthe first\n\nthe third\n", ["text"], [("the first",), ("",), ("the third",)]),
        ("gaps.csv", "id,text\n\n1,the first\n\n", ["id", "text"], [("1", "the first")]),
        ("index.csv", ",text\n0,the first\n", ["column1", "text"], [("0", "the first")]),
        ("spaces.csv", "text , label\nthe first, 7\n", ["text", "label"], [("the first", " 7")]),
        ("semicolon.csv", "text;score\nHello, you;0,5\n", ["text", "score"], [("Hello, you", "0,5")]),
        ("european.csv", "Ja, gern.;Nein.\nSo; \nGut, ja, ja.;Na\n",
         ["column1", "column2"], [("Ja, gern.", "Nein."), ("So", " "), ("Gut, ja, ja.", "Na")]),
        ("quoted.csv", '"Ja; gern.";"Nein."\n"So";"""Da"""\n',
         ["column1", "column2"], [("Ja; gern.", "Nein."), ("So", '"Da"')]),
        ("one.csv", "text\nI came; I saw.\nI came; I won.\n", ["text"], [("I came; I saw.",), ("I came; I won.",)]),
        ("sites.csv", "text\nNews | Site\nShop | Site\n", ["text"], [("News | Site",), ("Shop | Site",)]),
        ("bars.csv", "Shop | Site\nOne | of | two.\n", ["text"], [("Shop | Site",), ("One | of | two.",)]),
        ("one row.csv", "A sentence here\twith a tab.\n", ["text"], [("A sentence here\twith a tab.",)]),
        ("mac.csv", "text,n\rthe first,1\rthe second,2\r", ["text", "n"], [("the first", "1"), ("the second", "2")]),
        ("none.tsv", '"He said.\tno" quote\n" open\tagain\n',
         ["column1", "column2"], [('"He said.', 'no" quote'), ('" open', "again")]),
        ("mac.txt", "the first\rthe second\r\nthe third", ["text"], [("the first",), ("the second",), ("the third",)]),
        ("bom.txt", "\ufeffthe first\n\ufeffthe second\n", ["text"], [("the first",), ("\ufeffthe second",)]),
        ("bom.csv", '\ufeff"text"\nthe first\n', ["text"], [("the first",)]),
        ("bom.json", '\ufeff [{"text": "the first"}\n,\n{"text": "b"}]\n', ["text"], [("the first",), ("b",)]),
        ("lines.json", '\n{"text": "a"}\n \n{"text": "b"}', ["text"], [("a",), ("b",)]),
        ("array.jsonl", '[{"text": "a"},\n {"text": "b"}]', ["text"], [("a",), ("b",)]),
        ("nulls.json", '[{"text": null}, {"a": [{}]}, {"text": "b"}]',
         ["text", "a"], [(None, None), (None, [{}]), ("b", None)]),
    ],
)  # fmt: skip
def test_how_columns_and_rows_are_told(tmp_path, name, content, columns, rows):
    file = open_file(write(tmp_path / name, content), "--option")
    assert list(file.columns) == columns
    assert [values for _, values in file.rows(columns)] == rows
    assert file.count() == len(rows)


@pytest.mark.parametrize("characters", range(1, 12))
def test_an_array_is_read_in_pieces_cut_anywhere(tmp_path, monkeypatch, characters):
    monkeypatch.setattr("arccse_hf.data.files.json_rows._CHARACTERS_AT_ONCE", characters)
    rows = [{"text": 'é"\\\U0001f600', "a": True, "b": [None, -1.5e-7, {}]}, {"text": "", "a": 10**20, "b": "\n"}] * 3
    file = open_file(write(tmp_path / "x.json", json.dumps(rows, indent=characters % 3)), "--option")
    assert [dict(zip("text a b".split(), values, strict=True)) for _, values in file.rows("text a b".split())] == rows


def test_half_of_a_character_is_none(tmp_path):
    lines = ['{"text": "a \\ud83d dog"}', '{"text": "a \\ud83d\\ude00"}']
    rows = [("a ? dog",), ("a \U0001f600",)]
    assert read_by_all(write(tmp_path / "x.jsonl", "\n".join(lines)), ("text",)) == rows


def test_every_user_sees_nulls_alike(tmp_path):
    lines = ['{"text": "a cat"}', '{"text": null}', '{"other": [{"text": 1}]}', '{"text": "a dog"}']
    expected = [("a cat",), (None,), (None,), ("a dog",)]
    assert read_by_all(write(tmp_path / "x.jsonl", "\n".join(lines)), ("text",)) == expected
    assert read_by_all(write(tmp_path / "x.json", f"[{','.join(lines)}]"), ("text",)) == expected
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()):
        column = pa.array([row[0] for row in expected]).cast(kind)
        pq.write_table(pa.table({"text": column, "n": [1, 2, 3, 4]}), tmp_path / "x.parquet", row_group_size=3)
        assert read_by_all(str(tmp_path / "x.parquet"), ("text",)) == expected


def test_the_log_says_how_the_first_row_was_read(tmp_path, caplog):
    """A header that is known by its names needs no word; a guess, and what an unusual file is taken for, does."""
    files = {
        "known.csv": ("text\nthe first one\n", []),
        "named.csv": ("tweet\nthe first one\n", []),
        "guess.csv": ("tweet\nthe first one\n", ["read as the names of columns: tweet"]),
        "none.csv": ("The very first one.\nthe second\n", ["read as a row, it names no columns; it is called text"]),
        "semi.csv": ("text;n\na, b;1\n", ["';' between cells"]),
    }  # fmt: skip
    with caplog.at_level(logging.INFO, logger="arccse_hf"):
        for name, (content, parts) in files.items():
            caplog.clear()
            open_file(write(tmp_path / name, content), "--train_file", ["tweet"] if name == "named.csv" else [])
            for message, part in zip(caplog.messages, parts, strict=True):
                assert message.startswith(f"--train_file {tmp_path / name}: ") and part in message


def test_a_first_sentence_is_trained_on_and_not_a_name(tmp_path):
    sentences = ["The cat sat on the mat.", "Dogs bark at night.", "Birds, too, sing."]
    file = write_rows(tmp_path / "x.csv", tuple(sentences[:1]), [(text,) for text in sentences[1:]])
    dataset, counts = load_training_texts(train_file=[file])
    assert list(dataset["anchor"]) == sentences and counts.read == 3
    whole = write_rows(tmp_path / "part0.csv", ("text",), [(text,) for text in sentences])
    rest = write_rows(tmp_path / "part1.csv", ("And here the text goes on.",), [("Until its end comes.",)])
    assert load_training_texts(train_file=[whole, rest])[1].kept == 5


def test_a_file_that_changes_is_read_again(tmp_path):
    path = tmp_path / "x.txt"
    write(path, "the first\n")
    assert trained_on(str(path), ("text",)) == [("the first",)]
    write(path, "the third\n")
    os.utime(path, (1, 1))
    assert trained_on(str(path), ("text",)) == [("the third",)]


def test_spreadsheets_rows_of_blanks_are_no_pairs(tmp_path):
    file = write(tmp_path / "x.csv", "sentence1,sentence2,score\na,b,1\n,,\nc,d,2\n ,,\n")
    assert evaluated(file, ("sentence1",)) == [("a",), ("c",)]


def test_the_stem_of_a_name():
    names = {"a/b.csv": "b", "b.v1.2.csv.gz": "b.v1.2", "X.JSON.GZ": "X", "eval.parquet": "eval", ".csv": ".csv"}
    assert {name: stem(name) for name in names} == names


def test_a_text_of_many_characters_is_cut_before_it_is_tokenized(tokenizer):
    """The first tokens are those of the whole, and the tokenizer sees no more than it must."""
    texts = ["the small cat " * 5_000, "x" * 70_000, " " * 70_000 + "the cat", "the cat"]
    seen = []

    class Watched(type(tokenizer)):
        def __call__(self, text, **options):
            seen.extend([text] if isinstance(text, str) else text)
            return super().__call__(text, **options)

    expected = [tokenizer(text, truncation=True, max_length=16)["input_ids"] for text in texts]
    watched = Watched(tokenizer_object=tokenizer.backend_tokenizer, **tokenizer.special_tokens_map)
    assert tokenize_batch({"anchor": texts}, watched, 16)["anchor"] == expected
    assert max(map(len, seen)) == 70_007 and not any(text == texts[0] for text in seen)


def test_a_cursor_lets_go_of_a_file_that_was_closed_before_it_was_read_to_its_end():
    """As where a generator of lines is thrown away: its file may be gone before it."""
    cursor, stream = Cursor(), io.TextIOWrapper(io.BytesIO(b"a\nb\n"))
    with pytest.raises(GeneratorExit), cursor.moved_by(stream):
        stream.close()
        raise GeneratorExit
    assert cursor.offset() is None
