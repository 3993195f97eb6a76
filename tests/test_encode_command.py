"""`python -m arccse_hf encode`: what is written, going on after a stop, several processes, memory, and errors."""

import errno
import gzip
import itertools
import json
import os
import random
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import WORDS
from sentence_transformers import SentenceTransformer
from tqdm.auto import tqdm
from transformers import BertConfig, BertModel

from arccse_hf.encoding import batches, reading, shards
from arccse_hf.encoding.batches import EncodeOptions, embed_rows, shard_schema
from arccse_hf.encoding.command import run
from arccse_hf.encoding.reading import Columns, InputFile, UnreadableFile, inspect_file, read_rows
from arccse_hf.errors import UserError

DIM = 16


def save_model(folder: Path, tokenizer, seed: int = 0) -> str:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=DIM, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory):
    """A tiny BERT as a plain encoder's folder."""
    return save_model(tmp_path_factory.mktemp("models") / "plain", tokenizer)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def embedded(monkeypatch):
    """Every text that is embedded, in order."""
    texts, embed_here = [], batches.embed_here
    monkeypatch.setattr(
        batches, "embed_here", lambda model, some, **options: texts.extend(some) or embed_here(model, some, **options)
    )
    return texts


def encode(model, *inputs, output="out", text="text", ids=None, pooling=None, dtype="float32", length=None, **options):
    options = EncodeOptions(Columns(text, ids), **options)
    return run(model, inputs, Path(output), options, pooling=pooling, dtype=dtype, max_seq_length=length)


def write_lines(path, texts) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(f"{text}\n" for text in texts))
    return Path(path)


def written(output="out") -> dict[str, dict]:
    """Input's name -> id -> embedding."""
    found: dict[str, dict] = {}
    for path in sorted(Path(output).rglob("*.parquet")):
        name, _, _ = path.relative_to(output).as_posix().rpartition("-")
        table = pq.read_table(path)
        assert table.column_names == ["id", "embedding"]
        rows = found.setdefault(name, {})
        for row_id, embedding in zip(*(column.to_pylist() for column in table.columns), strict=True):
            assert row_id not in rows, "written twice"
            rows[row_id] = embedding
    return found


def contents(output="out") -> dict[str, bytes]:
    return {p.relative_to(output).as_posix(): p.read_bytes() for p in Path(output).rglob("*") if p.is_file()}


def assert_embeddings(got: dict, ids, texts, model, tolerance=1e-5, **options) -> None:
    """Each text's embedding is the one that sentence-transformers gives it alone; null where there is no text."""
    assert list(got) == list(ids)
    alone = SentenceTransformer(model)
    for (row_id, embedding), text in zip(got.items(), texts, strict=True):
        if not (text and text.strip()):
            assert embedding is None, row_id
        else:
            expected = alone.encode([text], show_progress_bar=False, **options)[0]
            np.testing.assert_allclose(embedding, expected, atol=tolerance, err_msg=str(row_id))


TEXTS = ['the small cat, "quick"', "a dog", "", "red house\ton hill", "the old man sees a bird near the river", "   "]


def csv_cell(text, separator):
    return '"' + text.replace('"', '""') + '"' if {separator, '"', "\n"} & set(text) else text


def write_table(path, texts, ids=None):
    """`texts` as a file of the kind that `path` ends in, beside a column that is to be left alone."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    ids = list(range(50, 50 + len(texts))) if ids is None else ids
    if kind == "parquet":
        pq.write_table(pa.table({"n": ids, "text": texts, "other": texts}), path, row_group_size=4)
        return
    if kind == "txt":
        lines = texts
    elif kind == "jsonl":
        lines = [
            json.dumps({"other": 1.5, "text": t, "n": i}) + "\n" * (i % 2) for i, t in zip(ids, texts, strict=True)
        ]
    else:
        separator = "," if kind == "csv" else "\t"
        rows = [["n", "text"], *([str(i), csv_cell(t, separator)] for i, t in zip(ids, texts, strict=True))]
        lines = ["\ufeff" + separator.join(rows[0]), *(separator.join(row) for row in rows[1:])]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)


class TestWhatIsWritten:
    @pytest.mark.parametrize(
        "name", ["x.parquet", "x.jsonl", "x.jsonl.gz", "x.csv", "x.csv.gz", "x.tsv", "x.txt", "x.txt.gz"]
    )
    def test_every_kind_of_file_gives_each_rows_own_embedding(self, model, folder, capsys, name):
        texts = TEXTS if "txt" in name else [*TEXTS, "two\nlines with\nbreaks"]
        write_table(folder / name, texts)
        assert encode(model, name, shard_rows=4, batch_size=2) == 0
        assert_embeddings(written()[name], range(len(texts)), texts, model)
        assert sorted(contents()) == [f"{name}-00000.parquet", f"{name}-00001.parquet"]
        printed = capsys.readouterr().out
        assert printed.startswith(f"{len(texts)} rows embedded in ")
        assert "2 of them have no text: their embedding is null" in printed

    @pytest.mark.parametrize(
        ("name", "ids", "expected"),
        [
            ("x.parquet", list(range(7, 13)), pa.int64()),
            ("x.parquet", list("abcdef"), pa.string()),
            ("x.jsonl", list(range(7, 13)), pa.int64()),
            ("x.csv", list("abcdef"), pa.string()),
        ],
    )
    def test_a_column_of_ids_keeps_its_type(self, model, folder, name, ids, expected):
        if name == "x.jsonl" or name == "x.csv":
            write_table(folder / name, TEXTS, ids if expected == pa.int64() else range(6))
            ids = ids if expected == pa.int64() else [str(i) for i in range(6)]
        else:
            write_table(folder / name, TEXTS, ids)
        assert encode(model, name, ids="n") == 0
        assert_embeddings(written()[name], ids, TEXTS, model)
        assert pq.read_schema(f"out/{name}-00000.parquet").field("id").type == expected

    def test_nulls_and_missing_fields_are_kept_as_null_embeddings(self, model, folder):
        Path("x.jsonl").write_text('{"text": "a cat"}\n{"text": null}\n{"other": 1}\n{"text": "a dog"}\n')
        pq.write_table(pa.table({"text": ["a cat", None, None, "a dog"]}), "x.parquet")
        write_lines("one.csv", ["text", "a cat", "", '""', "a dog"])
        for name in ("x.jsonl", "x.parquet", "one.csv"):
            assert encode(model, name, output=f"out-{name}") == 0
            assert_embeddings(written(f"out-{name}")[name], range(4), ["a cat", None, None, "a dog"], model)

    def test_a_character_that_json_holds_by_half_does_not_stop_the_run(self, model, folder, capsys):
        write_lines("x.jsonl", ['{"text": "a cat \\ud83d dog", "n": "k"}', '{"text": "a dog", "n": "\\ud83d"}'])
        assert encode(model, "x.jsonl") == 0
        assert_embeddings(written()["x.jsonl"], range(2), ["a cat ? dog", "a dog"], model)
        assert encode(model, "x.jsonl", ids="n", output="by-id") == 1
        assert "x.jsonl: can't be read at row 1" in capsys.readouterr().err

    def test_a_shard_without_any_text_is_there_too(self, model, folder):
        write_lines("x.txt", ["", " "])
        assert encode(model, "x.txt") == 0
        assert written() == {"x.txt": {0: None, 1: None}}

    @pytest.mark.parametrize("name", ["float32", "float16"])
    def test_embeddings_are_lists_of_fixed_size_of_the_wanted_type(self, model, folder, name):
        write_lines("x.txt", TEXTS)
        assert encode(model, "x.txt", output_dtype=name) == 0
        kind = pq.read_schema("out/x.txt-00000.parquet").field("embedding").type
        assert pa.types.is_fixed_size_list(kind) and kind.list_size == DIM
        assert kind.value_type == {"float32": pa.float32(), "float16": pa.float16()}[name]
        assert_embeddings(written()["x.txt"], range(6), TEXTS, model, tolerance=1e-5 if name == "float32" else 2e-3)

    def test_options_of_the_embedding(self, model, folder):
        write_lines("x.txt", TEXTS)
        assert encode(model, "x.txt", output="normalized", normalize=True) == 0
        assert_embeddings(written("normalized")["x.txt"], range(6), TEXTS, model, normalize_embeddings=True)
        assert encode(model, "x.txt", output="short", pooling="cls", length=4, dtype="bfloat16") == 0
        from arccse_hf.evaluation.encode import embed, load_encoder

        texts = [text for text in TEXTS if text.strip()]
        expected = embed(load_encoder(model, pooling="cls", max_seq_length=4).model, texts, show_progress=False)
        got = [embedding for embedding in written("short")["x.txt"].values() if embedding]
        np.testing.assert_allclose(got, expected, atol=0.1)
        assert np.abs(np.array(got) - expected).max() > 1e-6, "bfloat16"

    def test_windows_become_row_groups_and_change_nothing(self, model, folder, sentences, monkeypatch):
        monkeypatch.setattr(batches, "WINDOW_ROWS", 7)
        write_lines("x.txt", sentences)
        assert encode(model, "x.txt", shard_rows=20) == 0
        assert_embeddings(written()["x.txt"], range(48), sentences, model)
        metadata = [pq.read_metadata(f"out/x.txt-0000{i}.parquet") for i in range(3)]
        groups = [[m.row_group(i).num_rows for i in range(m.num_row_groups)] for m in metadata]
        assert groups == [[7, 7, 6], [7, 7, 6], [7, 1]]

    def test_files_of_one_name_do_not_collide_and_names_do_not_depend_on_what_else_is_there(self, model, folder):
        write_lines("in/a/x.txt", ["a cat"])
        write_lines("in/b/x.txt", ["a dog", "a bird"])
        assert encode(model, "in/*/x.txt") == 0
        assert {name: len(rows) for name, rows in written().items()} == {"a/x.txt": 1, "b/x.txt": 2}
        assert_embeddings(written()["b/x.txt"], range(2), ["a dog", "a bird"], model)
        assert encode(model, "in/a/x.txt", "in/b/x.txt", output="listed") == 0
        assert contents("listed") == contents()
        write_lines("in/c/d/x.txt", ["a house"])
        assert encode(model, "in/**/*.txt") == 0
        assert sorted(written()) == ["a/x.txt", "b/x.txt", "c/d/x.txt"]

    def test_an_empty_file_has_no_shard(self, model, folder):
        for name in ("x.txt", "x.csv", "x.jsonl"):
            Path(name).touch()
            assert encode(model, name) == 0
        assert contents() == {}


KILLED = """
import os, signal
from arccse_hf.encoding import batches
from arccse_hf.__main__ import main

embed_here, calls = batches.embed_here, []

def embed_and_die(*arguments, **options):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return embed_here(*arguments, **options)

batches.embed_here, batches.WINDOW_ROWS = embed_and_die, 5
main()
"""


class TestGoingOn:
    def test_after_a_kill_the_rest_is_done_and_the_whole_is_as_if_nothing_had_been(
        self, model, folder, sentences, embedded, monkeypatch, capsys
    ):
        write_lines("x.txt", sentences)
        command = [sys.executable, "-c", KILLED, "encode", "--model", model, "--input", "x.txt", "--output", "out"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run([*command, "--shard_rows", "10"], env=environment, capture_output=True, timeout=240)
        assert done.returncode == -9, done.stderr
        # Two windows a shard: it died in the second half of the second one.
        names = sorted(contents())
        assert len(names) == 2 and names[1] == "x.txt-00000.parquet" and names[0].startswith(".x.txt-00001.parquet.")

        monkeypatch.setattr(batches, "WINDOW_ROWS", 5)
        first = contents()[names[1]]
        live = write_lines("out/.y.txt-00000.parquet.0123abcd.tmp", ["of a run that embeds another file just now"])
        assert encode(model, "x.txt", shard_rows=10) == 0
        live.unlink()
        assert sorted(embedded) == sorted(sentences[10:])
        assert "1 of 5 shards were done before" in capsys.readouterr().out
        assert encode(model, "x.txt", shard_rows=10, output="unbroken") == 0
        assert contents() == contents("unbroken")
        assert contents()["x.txt-00000.parquet"] == first

    def test_a_second_run_embeds_nothing_and_leaves_the_files(self, model, folder, sentences, embedded):
        write_lines("x.txt", sentences)
        assert encode(model, "x.txt", shard_rows=20) == 0
        stamps = {path: path.stat().st_mtime_ns for path in Path("out").iterdir()}
        embedded.clear()
        assert encode(model, "x.txt", shard_rows=20, batch_size=3) == 0
        assert embedded == []
        assert {path: path.stat().st_mtime_ns for path in Path("out").iterdir()} == stamps

    def test_a_missing_shard_and_a_new_file_are_done(self, model, folder, sentences, embedded):
        write_lines("in/x.txt", sentences)
        assert encode(model, "in/*.txt", shard_rows=20) == 0
        before = contents()
        Path("out/x.txt-00001.parquet").unlink()
        write_lines("in/new.txt", ["a cat"])
        embedded.clear()
        assert encode(model, "in/*.txt", shard_rows=20) == 0
        assert sorted(embedded) == sorted([*sentences[20:40], "a cat"])
        after = contents()
        assert after.pop("new.txt-00000.parquet") and after == before

    def test_inputs_moved_together_are_the_same_inputs(self, model, folder, embedded):
        write_lines("in/a/x.txt", ["a cat"])
        write_lines("in/b/x.txt", ["a dog"])
        assert encode(model, "in/*/*.txt") == 0
        Path("in").rename("elsewhere")
        embedded.clear()
        assert encode(model, "elsewhere/*/*.txt") == 0
        assert embedded == []

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"text": "other"}, "was made with text column text, not other"),
            ({"ids": "n"}, "was made with id column None, not n"),
            ({"pooling": "cls"}, "was made with pooling mean, not cls"),
            ({"length": 7}, "was made with max seq length 64, not 7"),
            ({"normalize": True}, "was made with normalize False, not True"),
            ({"dtype": "bfloat16"}, "was made with dtype float32, not bfloat16"),
            ({"output_dtype": "float16"}, "was made with output dtype float32, not float16"),
            ({"shard_rows": 2}, "was made with shard rows 20000, not 2"),
        ],
    )
    def test_other_settings_are_refused(self, model, folder, embedded, changed, message):
        write_table(folder / "x.parquet", TEXTS)
        assert encode(model, "x.parquet") == 0
        embedded.clear()
        with pytest.raises(UserError, match=f"--output out: x.parquet-00000.parquet {message}; choose another"):
            encode(model, "x.parquet", **changed)
        assert embedded == []

    def test_another_model_is_refused_by_its_weights_not_by_its_name(self, model, folder, tokenizer, embedded):
        write_lines("x.txt", TEXTS)
        own = save_model(folder / "own", tokenizer)
        assert encode(own, "x.txt") == 0
        embedded.clear()
        assert encode(model, "x.txt") == 0, "the same weights from another folder"
        assert embedded == []
        save_model(folder / "own", tokenizer, seed=1)
        with pytest.raises(UserError, match="is from other weights or another tokenizer of .*own than are there now"):
            encode(own, "x.txt")
        with pytest.raises(UserError, match="is from another model, .*own"):
            encode(save_model(folder / "third", tokenizer, seed=2), "x.txt")

    def test_a_changed_or_renamed_input_is_refused(self, model, folder):
        write_lines("in/x.txt", ["a cat", "a dog"])
        assert encode(model, "in/x.txt") == 0
        Path("in/x.txt").rename("in/y.txt")
        with pytest.raises(UserError, match="x.txt-00000.parquet holds the embeddings of y.txt under another name"):
            encode(model, "in/*.txt")
        write_lines("in/x.txt", ["a cat", "a cow"])
        Path("in/y.txt").unlink()
        with pytest.raises(UserError, match="x.txt-00000.parquet was made before x.txt changed"):
            encode(model, "in/*.txt")

    def test_a_folder_with_other_parquet_files_is_refused(self, model, folder):
        write_table(folder / "x.parquet", TEXTS)
        with pytest.raises(UserError, match="x.parquet: was not written by encode; choose another folder"):
            encode(model, "x.parquet", output=".")
        Path("x.parquet").rename("y.parquet")
        Path("out").mkdir()
        Path("out/broken.parquet").write_bytes(b"PAR1 no more")
        with pytest.raises(UserError, match="broken.parquet: can't be read .*; delete it, or choose another folder"):
            encode(model, "y.parquet")


class TestProcesses:
    def test_two_processes_give_what_one_gives(self, model, folder, sentences):
        write_lines("in/a/x.txt", sentences)
        write_lines("in/b/x.txt", TEXTS)
        assert encode(model, "in/*/*.txt", output="one", shard_rows=9) == 0
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
        launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        launcher += ["--main_process_port", "0", "-m", "arccse_hf", "encode", "--model", model]
        environment = os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        done = subprocess.run(
            [*launcher, "--input", "in/*/*.txt", "--output", "two", "--shard_rows", "9", "--text_column", "text"],
            env=environment, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        # Seven shards: 9, 9, 9, 9, 9, 3 and 6 rows, dealt out in turn.
        assert "54 rows embedded by 2 processes (21 to 33 each)" in done.stdout
        assert done.stdout.count("rows embedded") == 1 and "process 1 of 2" in done.stderr
        one, two = written("one"), written("two")
        assert sorted(contents("one")) == sorted(contents("two"))
        for name, rows in one.items():
            assert list(two[name]) == list(rows)
            for row_id, embedding in rows.items():
                if embedding is None:
                    assert two[name][row_id] is None
                else:
                    np.testing.assert_allclose(two[name][row_id], embedding, atol=1e-5)

    def test_shards_are_the_same_for_any_number_of_processes(self, model, folder, sentences, embedded, monkeypatch):
        """A run of one process goes on where one of three has stopped: it has done the shards 0, 3, 6."""
        write_lines("x.txt", sentences)

        class FirstOfThree:
            is_main_process, process_index, num_processes = True, 0, 3

        monkeypatch.setattr("arccse_hf.encoding.command.process_state", lambda **_: FirstOfThree)
        monkeypatch.setattr(
            "arccse_hf.encoding.command.find_files", lambda patterns: [(str(folder / "x.txt"), "x.txt")]
        )
        assert encode(model, "x.txt", shard_rows=5) == 0
        assert sorted(contents()) == [f"x.txt-0000{i}.parquet" for i in (0, 3, 6, 9)]
        monkeypatch.undo()
        monkeypatch.chdir(folder)
        assert encode(model, "x.txt", shard_rows=5) == 0
        assert_embeddings(written()["x.txt"], range(48), sentences, model)


class TestMemory:
    def test_no_more_than_two_windows_of_rows_are_alive(self, monkeypatch):
        class Text(str):
            pass

        alive, most = 0, 0

        def rows():
            nonlocal alive, most
            for index in range(200):
                text = Text("a cat")
                alive += 1
                most = max(most, alive)
                weakref.finalize(text, lambda: None)
                weakref.finalize(text, gone)
                yield index, text

        def gone():
            nonlocal alive
            alive -= 1

        monkeypatch.setattr(batches, "WINDOW_ROWS", 10)
        monkeypatch.setattr(batches, "embed_here", lambda model, texts, **_: np.zeros((len(texts), 2), np.float32))
        schema = shard_schema("int64", 2, "float32")
        made = embed_rows(None, rows(), schema, EncodeOptions(Columns("text")), tqdm(disable=True))
        assert sum(batch.num_rows for batch in made) == 200
        assert most <= 21

    def test_a_window_of_long_texts_is_short(self, monkeypatch):
        monkeypatch.setattr(batches, "WINDOW_CHARACTERS", 1000)
        lengths = [len(window) for window in batches._windows((i, "x" * 300) for i in range(10))]
        assert lengths == [4, 4, 2]

    @pytest.mark.parametrize("name", ["x.txt", "x.csv", "x.jsonl.gz"])
    def test_text_is_read_line_by_line(self, folder, monkeypatch, name):
        write_table(folder / name, ["a cat"] * 1000)
        file = inspect_file(name, name, Columns("text"))
        lines, taken = reading._lines, []
        monkeypatch.setattr(reading, "_lines", lambda path: (taken.append(1) or line for line in lines(path)))
        assert len(list(itertools.islice(read_rows(file, Columns("text"), [(0, 1000)]), 10))) == 10
        assert len(taken) <= 16

    def test_a_row_group_is_never_read_whole(self, folder):
        generator = random.Random(0)
        texts = [f"{generator.getrandbits(1600):0400x}" for _ in range(25_000)]
        pq.write_table(pa.table({"text": texts}), "x.parquet", row_group_size=len(texts), use_dictionary=False)
        file = inspect_file("x.parquet", "x.parquet", Columns("text"))
        before, most = pa.total_allocated_bytes(), 0
        for row, (row_id, text) in enumerate(read_rows(file, Columns("text"), [(0, 25_000)])):
            assert row_id == row and text == texts[row]
            if row % 500 == 0:
                most = max(most, pa.total_allocated_bytes() - before)
        assert 0 < most < sum(map(len, texts)) / 2


class TestRanges:
    @pytest.mark.parametrize("name", ["x.parquet", "x.jsonl", "x.csv", "x.txt.gz"])
    @pytest.mark.parametrize("ranges", [[(0, 30)], [(3, 4)], [(2, 5), (5, 9), (20, 30)], [(0, 1), (29, 30)]])
    def test_exactly_the_rows_of_the_ranges_come(self, folder, name, ranges):
        texts = [f"text {i}" for i in range(30)]
        write_table(folder / name, texts)
        file = inspect_file(name, name, Columns("text"))
        assert file.rows == 30
        expected = [(i, texts[i]) for start, stop in ranges for i in range(start, stop)]
        assert list(read_rows(file, Columns("text"), ranges)) == expected


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("bad.txt", b"a cat\n\xff\xfe\n", "at row 1, counted from 0 (.*utf-8"),
            ("bad.jsonl", b'{"text": "a"}\n{"text": "b"\n', "at row 1, counted from 0 ("),
            ("bad.jsonl", b'{"text": "a"}\n["b"]\n', "at row 1, counted from 0 (not a JSON object on one line"),
            ("bad.jsonl", b'{"text": "a"}\n{"text": 3}\n', "at row 1, counted from 0 (column text holds 3, not text"),
            ("bad.csv", b"text,n\na,1\nb\n", "at row 1, counted from 0 (1 cells, the header has 2"),
            ("bad.csv", b'text,n\n"a,1\n', "(unexpected end of data"),
            ("bad.txt", b"a\0c\0a\0t\0\n", "(NUL bytes: it is binary or UTF-16"),
            ("bad.txt.gz", gzip.compress(b"a cat\n" * 9)[:-9], "(Compressed file ended"),
            ("bad.parquet", b"PAR1 nothing", "("),
        ],
        ids=["latin", "json", "array", "number", "cells", "quote", "utf16", "gzip", "parquet"],
    )
    def test_an_unreadable_file_is_named_and_the_others_go_on(self, model, folder, capsys, name, content, reason):
        write_table(folder / f"good{name.removeprefix('bad')}", ["a cat", "a dog"])
        Path(name).write_bytes(content)
        assert encode(model, f"*{name.removeprefix('bad')}", shard_rows=1) == 1
        good = name.replace("bad", "good")
        assert_embeddings(written()[good], range(2), ["a cat", "a dog"], model)
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert f"--input {folder / name}: can't be read" in line
        for part in reason.split(".*"):
            assert part in line

    def test_a_parquet_file_with_a_damaged_page_is_named(self, model, folder, capsys):
        write_table(folder / "good.parquet", ["a cat", "a dog"])
        texts = [f"{WORDS[i % 40]} {i}" for i in range(5000)]
        pq.write_table(pa.table({"text": texts}), "bad.parquet", compression="snappy", use_dictionary=False)
        data = bytearray(Path("bad.parquet").read_bytes())
        data[40:4000] = bytes(3960)
        Path("bad.parquet").write_bytes(data)
        assert encode(model, "*.parquet") == 1
        assert list(written()) == ["good.parquet"]
        assert f"error: --input {folder / 'bad.parquet'}: can't be read" in capsys.readouterr().err

    def test_ids_that_are_missing_or_of_two_types(self, model, folder, capsys):
        write_lines("x.jsonl", ['{"text": "a", "n": 1}', '{"text": "b"}'])
        assert encode(model, "x.jsonl", ids="n") == 1
        assert (
            "at row 1, counted from 0 (column n holds None where an id of type int64 belongs)"
            in capsys.readouterr().err
        )
        write_lines("y.jsonl", ['{"text": "a", "n": "k"}'])
        with pytest.raises(UserError, match="--id-column n: is int64 in .*x.jsonl, but string in .*y.jsonl"):
            encode(model, "*.jsonl", ids="n")

    @pytest.mark.parametrize("name", ["x.parquet", "x.jsonl", "x.csv"])
    def test_a_missing_column_is_named_with_its_neighbour(self, model, folder, embedded, name):
        write_table(folder / name, TEXTS)
        with pytest.raises(
            UserError, match=r"--text-column txt: .*x\.\w+ has no such column; it has .*did you mean text"
        ):
            encode(model, name, text="txt")
        with pytest.raises(UserError, match="--id-column key: .* has no such column; it has .*; name one of these"):
            encode(model, name, ids="key")
        assert embedded == []

    def test_columns_that_hold_something_else(self, model, folder):
        pq.write_table(pa.table({"text": ["a"], "n": [1], "x": [0.5]}), "x.parquet")
        with pytest.raises(UserError, match="--text-column n: holds int64 in .*x.parquet; name a column of text"):
            encode(model, "x.parquet", text="n")
        with pytest.raises(UserError, match="--id-column x: holds double in .*; name a column of integers or text"):
            encode(model, "x.parquet", ids="x")
        write_lines("x.txt", ["a"])
        with pytest.raises(UserError, match="--id-column n: lines of .*x.txt have no columns; leave it out"):
            encode(model, "x.txt", ids="n")

    def test_arguments_that_cannot_be(self, model, folder):
        write_lines("x.txt", TEXTS)
        with pytest.raises(UserError, match=r"--input \*.parquet: matches no file; check the path"):
            encode(model, "*.parquet")
        with pytest.raises(UserError, match="nowhere: neither a folder nor a hub id"):
            encode(str(folder / "nowhere"), "x.txt")
        with pytest.raises(UserError, match="--output x.txt: can't be written"):
            encode(model, "x.txt", output="x.txt")
        with pytest.raises(UserError, match="--output-dtype int8: choose from float32, float16"):
            encode(model, "x.txt", output_dtype="int8")
        with pytest.raises(UserError, match="--batch-size 0: must be at least 1"):
            encode(model, "x.txt", batch_size=0)
        with pytest.raises(UserError, match="--shard-rows -1: must be at least 1"):
            encode(model, "x.txt", shard_rows=-1)

    def test_a_full_disk_ends_the_run_with_status_1_and_no_partial_file(self, model, folder, monkeypatch, capsys):
        write_lines("x.txt", TEXTS)
        write_lines("y.txt", TEXTS)

        def full(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(shards.os, "fsync", full)
        assert encode(model, "*.txt", shard_rows=2) == 1
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and "x.txt-00000.parquet: can't be written ([Errno 28] No space left" in errors[0]
        assert contents() == {}

    def test_what_another_run_has_written_meanwhile_is_not_overwritten(self, model, folder, monkeypatch, capsys):
        write_lines("x.txt", ["a cat"])

        def meanwhile(descriptor):
            write_lines("out/x.txt-00000.parquet", ["the other one's"])

        monkeypatch.setattr(shards.os, "fsync", meanwhile)
        assert encode(model, "x.txt") == 1
        assert "x.txt-00000.parquet: another run has written it meanwhile" in capsys.readouterr().err
        assert contents() == {"x.txt-00000.parquet": b"the other one's\n"}

    def test_an_embedding_too_large_for_float16_is_said(self, model, folder, monkeypatch, capsys):
        write_lines("x.txt", ["", "a cat"])
        embed_here = batches.embed_here
        monkeypatch.setattr(batches, "embed_here", lambda *args, **options: 1e6 * embed_here(*args, **options))
        assert encode(model, "x.txt", output="wide") == 0
        assert encode(model, "x.txt", output_dtype="float16") == 1
        assert "--output-dtype float16: the embedding of id 1 is not finite" in capsys.readouterr().err

    def test_a_file_that_shrinks_meanwhile_is_no_shard(self, model, folder, monkeypatch, capsys):
        write_lines("x.txt", ["a cat", "a dog"])

        def pending(*arguments):
            write_lines("x.txt", ["a cat"])
            return shards.pending(*arguments)

        monkeypatch.setattr("arccse_hf.encoding.command.pending", pending)
        assert encode(model, "x.txt") == 1
        assert "x.txt: has become shorter while it was read" in capsys.readouterr().err
        assert contents() == {}

    def test_an_unreadable_row_says_which(self, folder):
        file = InputFile("x.jsonl", "x.jsonl", "", 3, "int64")
        write_lines("x.jsonl", ['{"text": "a"}', '{"text": "b"}', "{"])
        with pytest.raises(UnreadableFile, match="--input x.jsonl: can't be read at row 2, counted from 0"):
            list(read_rows(file, Columns("text"), [(1, 3)]))


class TestCommandLine:
    def run(self, monkeypatch, arguments, target):
        from arccse_hf.__main__ import main

        got = []
        monkeypatch.setattr(target, lambda *args, **options: got.append((args, options)) or 3)
        monkeypatch.setattr(sys, "argv", ["arccse_hf", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 3
        return got[0]

    @pytest.mark.parametrize("spelling", ["_", "-"])
    def test_every_option_is_passed_on_in_both_spellings(self, monkeypatch, spelling):
        options = "--text_column body --id_column key --pooling cls --normalize --max_seq_length 9 --batch_size=3"
        options += " --dtype bfloat16 --output_dtype float16 --shard_rows 7"
        options = options.replace("_", spelling).split()
        arguments = ["encode", "--model", "my_model", "--input", "a_b/*.txt", "--input", "c_d.txt", "--output", "o_o"]
        args, named = self.run(monkeypatch, [*arguments, *options], "arccse_hf.encoding.command.run")
        wanted = EncodeOptions(Columns("body", "key"), True, 3, "float16", 7)
        assert args == ("my_model", ["a_b/*.txt", "c_d.txt"], Path("o_o"), wanted)
        assert named == {"pooling": "cls", "dtype": "bfloat16", "max_seq_length": 9}

    def test_the_other_commands_take_underscores_too(self, monkeypatch):
        arguments = ["evaluate", "my_model", "--batch_size", "3", "--max_seq_length", "9", "--data", "a_b"]
        args, named = self.run(monkeypatch, arguments, "arccse_hf.evaluation.command.run")
        assert args[0] == ["my_model"]
        assert (named["batch_size"], named["max_seq_length"], named["data"]) == (3, 9, "a_b")
