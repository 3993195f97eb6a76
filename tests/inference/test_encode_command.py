"""`arccse encode`: what is written, errors, and the command line."""

import errno
import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backbones import WORDS
from encode_runs import TEXTS, assert_embeddings, contents, encode, write_lines, write_table, written

from arccse_hf.data.files import UnreadableFile
from arccse_hf.errors import UserError
from arccse_hf.inference.encode_files import shards
from arccse_hf.inference.encode_files import windows as batches
from arccse_hf.inference.encode_files.reading import Columns, inspect_file, read_rows

pytest_plugins = ["encode_runs"]  # the fixtures


class TestWhatIsWritten:
    @pytest.mark.parametrize(
        "name", ["x.parquet", "x.jsonl", "x.jsonl.gz", "x.csv", "x.csv.gz", "x.tsv", "x.txt", "x.txt.gz"]
    )
    def test_every_kind_of_file_gives_each_rows_own_embedding(self, model, folder, capsys, name):
        texts = TEXTS if "txt" in name else [*TEXTS, "two\nlines with\nbreaks"]
        texts = [text.replace("\t", " ").replace("\n", " ") for text in texts] if name == "x.tsv" else texts
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
        assert "x.jsonl: line 2: column n holds '\\ud83d' where an id of type string belongs" in capsys.readouterr().err

    def test_a_shard_without_any_text_is_there_too(self, model, folder):
        write_lines("x.txt", ["", " "])
        assert encode(model, "x.txt") == 0
        assert written() == {"x.txt": {0: None, 1: None}}

    @pytest.mark.parametrize("name", ["float32", "float16"])
    def test_embeddings_are_lists_of_the_wanted_type(self, model, folder, name):
        write_lines("x.txt", TEXTS)
        assert encode(model, "x.txt", output_dtype=name) == 0
        kind = pq.read_schema("out/x.txt-00000.parquet").field("embedding").type
        assert kind == pa.list_({"float32": pa.float32(), "float16": pa.float16()}[name])
        assert_embeddings(written()["x.txt"], range(6), TEXTS, model, tolerance=1e-5 if name == "float32" else 2e-3)

    def test_options_of_the_embedding(self, model, folder):
        write_lines("x.txt", TEXTS)
        assert encode(model, "x.txt", output="normalized", normalize=True) == 0
        assert_embeddings(written("normalized")["x.txt"], range(6), TEXTS, model, normalize_embeddings=True)
        assert encode(model, "x.txt", output="short", pooling="cls", length=4, dtype="bfloat16") == 0
        from arccse_hf.inference.embed import embed
        from arccse_hf.inference.open import load_encoder

        texts = [text for text in TEXTS if text.strip()]
        expected = embed(load_encoder(model, pooling="cls", max_seq_length=4), texts)
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

    def test_names_as_long_as_a_file_system_takes(self, model, folder, embedded):
        """Shards and their temporary files have longer names than the inputs; 251 bytes and .txt are 255."""
        names = ["n" * 200, "n" * 250 + "a", "n" * 250 + "b", "é" * 125 + "n"]
        for number, name in enumerate(names):
            write_lines(f"in/{name}.txt", [f"text {number}"])
        assert encode(model, "in/*.txt") == 0
        assert len(embedded) == len(list(Path("out").rglob("*.parquet"))) == 4
        assert encode(model, "in/*.txt") == 0
        assert len(embedded) == 4  # they are known again

    def test_an_empty_file_has_no_shard_and_is_named(self, model, folder, capsys):
        for name in ("x.txt", "x.csv", "x.jsonl"):
            Path(name).touch()
            assert encode(model, name) == 0
            assert f"1 of 1 files have no rows, the first is {folder / name}\n" in capsys.readouterr().out
        assert contents() == {}


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("bad.txt", b"a cat\n\xff\xfe\n", "line 2: not UTF-8 text"),
            ("bad.jsonl", b'{"text": "a"}\n{"text": "b"\n', "line 2: not a JSON object on one line"),
            ("bad.jsonl", b'{"text": "a"}\n["b"]\n', "line 2: lists where an object belongs"),
            ("bad.jsonl", b'{"text": "a"}\n{"text": 3}\n', "line 2: column text holds 3, not text"),
            ("bad.csv", b"text,n\na,1\nb\n", "line 3: 1 cells where the first row has 2"),
            ("bad.csv", b'text,n\n"a,1\n', "line 2: malformed row (unexpected end of data)"),
            ("bad.txt", b"a\0c\0a\0t\0\n", "line 1: NUL characters, so it is binary or UTF-16"),
            ("bad.txt.gz", gzip.compress(b"a cat\n" * 9)[:-9], "the gzip file is damaged (Compressed file ended"),
            ("bad.parquet", b"PAR1 nothing", "cannot be read as .parquet"),
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
        assert line.startswith(f"error: --input {folder / name}: {reason}")

    def test_a_parquet_file_with_a_damaged_page_is_named(self, model, folder, capsys):
        write_table(folder / "good.parquet", ["a cat", "a dog"])
        texts = [f"{WORDS[i % 40]} {i}" for i in range(5000)]
        pq.write_table(pa.table({"text": texts}), "bad.parquet", compression="snappy", use_dictionary=False)
        data = bytearray(Path("bad.parquet").read_bytes())
        data[40:4000] = bytes(3960)
        Path("bad.parquet").write_bytes(data)
        assert encode(model, "*.parquet") == 1
        assert list(written()) == ["good.parquet"]
        assert f"error: --input {folder / 'bad.parquet'}: cannot be read as .parquet" in capsys.readouterr().err

    def test_ids_that_are_missing_or_of_two_types(self, model, folder, capsys):
        write_lines("x.jsonl", ['{"text": "a", "n": 1}', '{"text": "b"}'])
        assert encode(model, "x.jsonl", ids="n") == 1
        assert "line 2: column n holds None where an id of type int64 belongs" in capsys.readouterr().err
        write_lines("y.jsonl", ['{"text": "a", "n": "k"}'])
        with pytest.raises(UserError, match="--id_column n: is int64 in .*x.jsonl, but string in .*y.jsonl"):
            encode(model, "*.jsonl", ids="n")

    @pytest.mark.parametrize("name", ["x.parquet", "x.jsonl", "x.csv"])
    def test_a_missing_column_is_named_with_its_neighbour(self, model, folder, embedded, name):
        write_table(folder / name, TEXTS)
        with pytest.raises(
            UserError, match=r"--text_column txt: --input .*x\.\w+ has no column txt; it has .*did you mean text"
        ):
            encode(model, name, text="txt")
        with pytest.raises(UserError, match="--id_column key: .* has no column key; it has .*; name one of these"):
            encode(model, name, ids="key")
        assert embedded == []

    def test_columns_that_hold_something_else(self, model, folder):
        pq.write_table(pa.table({"text": ["a"], "n": [1], "x": [0.5]}), "x.parquet")
        with pytest.raises(UserError, match="--text_column n: column n of .*x.parquet holds integers, not text"):
            encode(model, "x.parquet", text="n")
        with pytest.raises(UserError, match="--id_column x: holds numbers in .*; name a column of integers or text"):
            encode(model, "x.parquet", ids="x")
        write_lines("x.txt", ["a"])
        with pytest.raises(UserError, match="--id_column n: lines of .*x.txt have no columns; leave it out"):
            encode(model, "x.txt", ids="n")

    def test_arguments_that_cannot_be(self, model, folder):
        write_lines("x.txt", TEXTS)
        with pytest.raises(UserError, match=r"--input \*.parquet: matches no file; check the path"):
            encode(model, "*.parquet")
        with pytest.raises(UserError, match="nowhere: cannot be opened: there is no such folder"):
            encode(str(folder / "nowhere"), "x.txt")
        with pytest.raises(UserError, match="--output_dir x.txt: cannot be written"):
            encode(model, "x.txt", output="x.txt")
        with pytest.raises(UserError, match="--output_dtype int8: choose from float32, float16"):
            encode(model, "x.txt", output_dtype="int8")
        with pytest.raises(UserError, match="--batch_size 0: must be at least 1"):
            encode(model, "x.txt", batch_size=0)
        with pytest.raises(UserError, match="--shard_rows -1: must be at least 1"):
            encode(model, "x.txt", shard_rows=-1)

    def test_a_full_disk_ends_the_run_with_status_1_and_no_partial_file(self, model, folder, monkeypatch, capsys):
        write_lines("x.txt", TEXTS)
        write_lines("y.txt", TEXTS)

        def full(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(shards.os, "fsync", full)
        assert encode(model, "*.txt", shard_rows=2) == 1
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and "x.txt-00000.parquet: cannot be written ([Errno 28] No space left" in errors[0]
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
        assert "--output_dtype float16: the embedding of id 1 is not finite" in capsys.readouterr().err

    def test_a_file_that_shrinks_meanwhile_is_no_shard(self, model, folder, monkeypatch, capsys):
        write_lines("x.txt", ["a cat", "a dog"])

        def pending(*arguments):
            write_lines("x.txt", ["a cat"])
            return shards.pending(*arguments)

        monkeypatch.setattr("arccse_hf.inference.encode_files.command.pending", pending)
        assert encode(model, "x.txt") == 1
        assert "x.txt: has become shorter while it was read" in capsys.readouterr().err
        assert contents() == {}

    def test_an_unreadable_row_says_which(self, folder):
        write_lines("x.jsonl", ['{"text": "a"}'] * 1_001 + ["{"])
        file = inspect_file("x.jsonl", "x.jsonl", Columns("text"))
        assert file.rows == 1_002
        assert list(read_rows(file, Columns("text"), [(1_000, 1_001)])) == [(1_000, "a")]
        with pytest.raises(UnreadableFile, match="--input x.jsonl: line 1002: not a JSON object on one line"):
            list(read_rows(file, Columns("text"), [(1_001, 1_002)]))
