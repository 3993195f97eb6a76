"""`arccse encode`: going on after a stop, several processes, and ranges of rows in bounded memory."""

import itertools
import json
import random
import weakref
from pathlib import Path

import numpy as np
import processes
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from encode_runs import TEXTS, assert_embeddings, contents, encode, save_model, write_lines, write_table, written
from tqdm.auto import tqdm

from arccse_hf.data.files.source import Source
from arccse_hf.errors import UserError
from arccse_hf.inference.encode_files import windows as batches
from arccse_hf.inference.encode_files.reading import Columns, inspect_file, read_rows
from arccse_hf.inference.encode_files.shards import METADATA_KEY
from arccse_hf.inference.encode_files.windows import EncodeOptions, embed_rows, shard_schema

pytest_plugins = ["encode_runs"]  # the fixtures


KILLED = """
import os, signal
from arccse_hf.inference.encode_files import windows as batches
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
        command = ["encode", "--model", model, "--input", "x.txt", "--output_dir", "out", "--shard_rows", "10"]
        done = processes.python("-c", KILLED, *command)
        assert done.returncode == -9, done.stderr
        # Two windows per shard: it died in the second half of the second one.
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
        with pytest.raises(UserError, match=f"--output_dir out: x.parquet-00000.parquet {message}; choose another"):
            encode(model, "x.parquet", **changed)
        assert embedded == []

    def test_shards_of_an_earlier_version_are_refused_as_their_type_is_another(self, model, folder, embedded):
        write_lines("x.txt", TEXTS)
        assert encode(model, "x.txt") == 0
        path = Path("out/x.txt-00000.parquet")
        table = pq.read_table(path)
        metadata = json.loads(table.schema.metadata[METADATA_KEY])
        del metadata["layout"]
        pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata)}), path)
        embedded.clear()
        with pytest.raises(UserError, match="x.txt-00000.parquet was written by an earlier version, .*another folder"):
            encode(model, "x.txt")
        assert embedded == []

    def test_another_model_is_refused_by_its_weights_not_by_its_name(self, model, folder, tokenizer, embedded):
        write_lines("x.txt", TEXTS)
        own = save_model(folder / "own", tokenizer)
        assert encode(own, "x.txt") == 0
        embedded.clear()
        assert encode(model, "x.txt") == 0, "the same weights from another folder"
        assert embedded == []
        save_model(folder / "own", tokenizer, seed=1)
        with pytest.raises(UserError, match="is from other weights or another tokenizer than .*own has now"):
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
        with pytest.raises(UserError, match="broken.parquet: cannot be read .*; delete it, or choose another folder"):
            encode(model, "y.parquet")


class TestProcesses:
    def test_two_processes_give_what_one_gives(self, model, folder, sentences):
        write_lines("in/a/x.txt", sentences)
        write_lines("in/b/x.txt", TEXTS)
        assert encode(model, "in/*/*.txt", output="one", shard_rows=9) == 0
        launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
        launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        launcher += ["--main_process_port", "0", "-m", "arccse_hf", "encode", "--model", model]
        launcher += ["--input", "in/*/*.txt", "--output_dir", "two", "--shard_rows", "9", "--text_column", "text"]
        done = processes.python(*launcher, ACCELERATE_USE_CPU="1", OMP_NUM_THREADS="1")
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

        monkeypatch.setattr("arccse_hf.inference.encode_files.command.process_state", lambda **_: FirstOfThree)
        monkeypatch.setattr(
            "arccse_hf.inference.encode_files.command.find_files", lambda *_: [(str(folder / "x.txt"), "x.txt")]
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
        monkeypatch.setattr(batches, "embed_here", lambda encoder, texts, **_: torch.zeros(len(texts), 2))
        schema = shard_schema("int64", "float32")
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
        lines, taken = Source.lines, []
        monkeypatch.setattr(
            Source, "lines", lambda *given, **options: (taken.append(1) or line for line in lines(*given, **options))
        )
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
