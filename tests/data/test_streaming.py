"""Text that is read while training goes on: each row once per epoch, on whichever reader; the same after a resume."""

import gzip
import itertools
import json
import logging
import random
import shutil
from pathlib import Path

import processes
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset

from arccse_hf.data.cleaning import CleaningCounts
from arccse_hf.data.collator import ArcCSECollator
from arccse_hf.data.streaming import TextStream
from arccse_hf.data.tokenization import tokenize_texts
from arccse_hf.data.training_texts import load_training_texts
from arccse_hf.errors import UserError
from arccse_hf.training import script
from arccse_hf.training.arguments import ArcCSETrainingArguments

ROOT = Path(__file__).parents[2]
WORKER = ROOT / "tests" / "streaming_worker.py"


def write(path: Path, content: str | bytes) -> str:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return str(path)


@pytest.fixture
def file(tmp_path, sentences) -> str:
    return write(tmp_path / "all.txt", "\n".join(sentences) + "\n")


def epoch_of(rows, number: int) -> list[tuple[int, ...]]:
    """The anchors of an epoch, in order; reads one row farther."""
    rows = itertools.takewhile(lambda row: row["epoch"] <= number, rows)
    return [tuple(row["anchor"]) for row in rows if row["epoch"] == number]


def ids_of(sentences, tokenizer) -> list[tuple[int, ...]]:
    return [tuple(row) for row in tokenizer(list(sentences), truncation=True, max_length=24)["input_ids"]]


def loader_of(stream: TextStream, tmp_path: Path, batch_size: int, workers: int):
    args = ArcCSETrainingArguments(str(tmp_path / "out"), dataloader_num_workers=workers, use_cpu=True)
    return stream.dataloader(batch_size, lambda rows: {"rows": rows}, args, torch.device("cpu"))


def test_an_epoch_is_the_cleaned_text_in_an_order_of_its_own(file, tokenizer, sentences):
    streams = [TextStream(tokenizer, 24, train_file=[file], shuffle_buffer=20, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (epoch_of(stream, 0) for stream in streams)
    second = epoch_of(streams[0], 1)
    everything = sorted(ids_of(sentences, tokenizer))
    for epoch in (first, other, second):
        assert sorted(epoch) == everything
    assert first == again
    assert len({tuple(epoch) for epoch in (first, other, second, tuple(ids_of(sentences, tokenizer)))}) == 4


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.csv", "a.tsv.gz", "a.json", "a.jsonl.gz", "a.parquet"])
def test_every_kind_of_file_gives_the_rows_that_it_gives_in_memory(name, tmp_path, tokenizer, sentences):
    path = tmp_path / name
    if name.endswith("parquet"):
        Dataset.from_dict({"sent0": sentences, "sent1": sentences[::-1], "id": range(48)}).to_parquet(path)
    elif ".json" in name:
        rows = [{"id": 1, "sent0": a, "sent1": b} for a, b in zip(sentences, sentences[::-1], strict=True)]
        lines = "\n".join(map(json.dumps, rows))
        write(path, lines if "jsonl" in name else f"[{','.join(map(json.dumps, rows))}]")
    elif ".txt" in name:
        write(path, "\n".join(["\ufeff" + sentences[0], *sentences[1:], ""]))
    else:
        comma = "," if ".csv" in name else "\t"
        rows = zip(sentences, sentences[::-1], strict=True)
        write(path, f"id{comma}sent1{comma}sent0\n" + "".join(f"1{comma}{b}{comma}{a}\n" for a, b in rows))
    dataset, counts = load_training_texts(train_file=[str(path)])
    expected = list(tokenize_texts(dataset, tokenizer, 24))
    stream = TextStream(tokenizer, 24, train_file=[str(path)])
    rows = list(itertools.islice(stream, counts.kept))
    for row in rows:
        assert row.pop("epoch") == 0
    assert set(rows[0]) == ({"anchor"} if ".txt" in name else {"anchor", "positive"})
    assert sorted(map(str, rows)) == sorted(map(str, expected))
    sample, _ = stream.head(10)
    assert list(tokenize_texts(sample, tokenizer, 24)) == rows[:10]


def test_counts_are_those_of_a_plain_loop(tmp_path, tokenizer, sentences, caplog):
    lines = []
    for number, sentence in enumerate(sentences):
        lines += [
            sentence,
            *{0: ["", "   "], 1: ["abcd", f"  {sentence} "], 2: [sentence.replace(" ", "  ")]}.get(number % 5, []),
        ]
    held_out = sentences[3:30:4]
    file = write(tmp_path / "dirty.txt", "\n".join(lines) + "\n")
    expected, kept = dict.fromkeys(("empty", "too_short", "duplicate", "held_out"), 0), []
    for line in (" ".join(line.split()) for line in lines):
        if not line:
            expected["empty"] += 1
        elif len(line) < 5:
            expected["too_short"] += 1
        elif line in held_out:
            expected["held_out"] += 1
        elif line in kept:
            expected["duplicate"] += 1
        else:
            kept.append(line)
    assert min(expected.values()) > 0
    stream = TextStream(tokenizer, 24, train_file=[file], exclude=held_out, shuffle_buffer=500)
    assert len(list(itertools.islice(stream, len(kept)))) == len(kept)
    wanted = CleaningCounts(len(lines), kept=len(kept), min_chars=5, duplicate_window=500, **expected)
    with caplog.at_level(logging.INFO, logger="arccse_hf"):
        assert stream.report_counts(Accelerator(cpu=True)) == wanted
    assert f"rows read by process 0 of 1: {wanted}" in caplog.messages
    assert f"{expected['duplicate']} duplicates within 500 rows" in str(wanted)
    assert stream.head(10_000)[1] == wanted  # which reads them again, and counts for itself
    assert len(epoch_of(stream, 1)) == len(kept)  # in the next epoch they are no duplicates


@pytest.mark.parametrize("files", [1, 3, 4])
def test_the_readers_share_each_epoch(files, tmp_path, tokenizer, sentences):
    """Row by row over 3 readers of 1 or 4 files, file by file of 3."""
    names = [write(tmp_path / f"{index}.txt", "\n".join(sentences[index::files])) for index in range(files)]
    streams = [
        TextStream(tokenizer, 24, train_file=names, shuffle_buffer=7, process_index=index, num_processes=3)
        for index in range(3)
    ]
    for epoch in (0, 1):
        shares = [epoch_of(stream, epoch) for stream in streams]
        assert sorted(itertools.chain(*shares)) == sorted(ids_of(sentences, tokenizer))
        if files != 3:
            assert {len(share) for share in shares} == {16}
    # What is looked at before training is the same on all of them.
    assert len({str(list(stream.head(20)[0])) for stream in streams}) == 1


@pytest.mark.parametrize("kind", ["txt", "txt.gz", "parquet"])
def test_two_dataloader_workers_share_what_one_process_reads(kind, tmp_path, tokenizer, sentences):
    path = tmp_path / f"all.{kind}"
    if kind == "parquet":
        Dataset.from_dict({"text": sentences}).to_parquet(path)
    else:
        write(path, "\n".join([*sentences, "abc", ""]))
    stream = TextStream(tokenizer, 24, train_file=[str(path)], shuffle_buffer=10)
    stream.head(5)  # read by this process before the workers start, as in a run
    batches = list(itertools.islice(loader_of(stream, tmp_path, 5, workers=2), 14))
    first = [tuple(row["anchor"]) for batch in batches for row in batch["rows"] if row["epoch"] == 0]
    assert sorted(first) == sorted(ids_of(sentences, tokenizer))
    assert all(len(batch["rows"]) == 5 for batch in batches)
    read = 48 if kind == "parquet" else 49
    assert stream._counts.shape[0] == 2 and stream._counts[:, 0].tolist() == pytest.approx([read, read], abs=3 * read)
    assert (stream._counts[:, 0] >= read // 2).all()


def test_spans_are_drawn_anew_each_epoch_of_a_stream(file, tokenizer):
    collator = ArcCSECollator(tokenizer, triplet_min_tokens=5)
    rows = list(itertools.islice(TextStream(tokenizer, 24, train_file=[file], shuffle_buffer=10), 96))
    rows.sort(key=lambda row: (row["epoch"], row["anchor"]))
    first, second = (collator(rows[start : start + 48])["triplet"]["input_ids"] for start in (0, 48))
    assert torch.equal(first[:, 0], second[:, 0]) and not torch.equal(first[:, 1], second[:, 1])
    collator.set_epoch(1)
    plain = [{"anchor": row["anchor"]} for row in rows[:48]]
    assert torch.equal(collator(plain)["triplet"]["input_ids"], second)


MISTAKES = {
    "late.txt": ("good text\n" * 3_000 + "caf\xe9 noir\n", "latin-1", "line 3001: not UTF-8"),
    "late.jsonl": ('{"text": "good text"}\n' * 3_000 + '{"text": "cut\n', "utf-8", "line 3001: not a JSON object"),
    "late.csv": (
        "text\n" + "good text\n" * 20_000 + "a,b,c\n",
        "utf-8",
        "line 20002: 3 cells where ",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_bad_rows_far_into_the_text_are_named(name, tmp_path, tokenizer):
    content, encoding, problem = MISTAKES[name]
    good = write(tmp_path / ("good" + Path(name).suffix), content.encode(encoding)[:60].rpartition(b"\n")[0] + b"\n")
    file = write(tmp_path / name, content.encode(encoding))
    stream = TextStream(tokenizer, 24, train_file=[good, file], shuffle_buffer=1_000)
    with pytest.raises(UserError, match=rf"--train_file .*{name}: .*{problem}"):
        list(itertools.islice(stream, 50))


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_gzip_file_is_named(damage, tmp_path, tokenizer):
    numbers = random.Random(0)
    packed = gzip.compress("".join(f"{numbers.random()}\n" for _ in range(20_000)).encode())
    middle = len(packed) // 2
    flipped = bytes(byte ^ 0x5A for byte in packed[middle : middle + 400])
    packed = packed[:middle] + (b"" if damage == "cut" else flipped + packed[middle + 400 :])
    (tmp_path / "damaged.txt.gz").write_bytes(packed)
    rows = iter(TextStream(tokenizer, 24, train_file=[str(tmp_path / "damaged.txt.gz")]))
    with pytest.raises(UserError, match="damaged.txt.gz: the gzip file is damaged"):
        next(rows)  # which fills the shuffle buffer first


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("empty.txt", b"", "is empty"),
        ("binary.txt", b"some text\n\x00\x01", "NUL"),
        ("latin.txt", "one\ntwo\ndrei Wörter\n".encode("latin1"), "line 3: not UTF-8"),
        ("plain.txt.gz", b"not packed at all", "gzip file is damaged"),
        ("numbers.jsonl", b'{"text": 1}\n{"text": 2}\n', "column text holds integers"),
        ("numbers.csv", b"text\n1\n2\n", "column text holds numbers"),
        ("magic.parquet", b"PAR1 but no more", "cannot be read as .parquet"),
        ("blank.txt", b"\n \n\n", "no row is left"),
    ],
)
def test_what_is_wrong_at_the_beginning_is_named_at_once(name, content, problem, tmp_path, tokenizer):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"--train_file .*{name}: .*{problem}"):
        TextStream(tokenizer, 24, train_file=[str(tmp_path / name)]).head(1)


def test_a_share_that_fills_no_batch_is_refused(file, tmp_path, tokenizer):
    def first_batch(**given):
        return next(iter(loader_of(TextStream(tokenizer, 24, train_file=[file], **given), tmp_path, 20, workers=0)))

    assert len(first_batch(num_processes=2)["rows"]) == 20
    with pytest.raises(UserError, match="one of 3 readers .* does not fill a batch of 20; .*16 of 16 rows kept"):
        first_batch(num_processes=3)


def test_named_datasets_can_be_streamed(tmp_path, tokenizer, sentences, monkeypatch):
    write(tmp_path / "train.csv", "id,text\n" + "".join(f"1,{sentence}\n" for sentence in sentences))
    assert len(epoch_of(TextStream(tokenizer, 24, dataset_name=str(tmp_path)), 0)) == 48
    monkeypatch.setattr(
        "arccse_hf.data.training_texts.docstring_corpus", lambda: type("Corpus", (), {"sentences": sentences})
    )
    assert len(epoch_of(TextStream(tokenizer, 24, dataset_name="installed-docs"), 0)) == 48
    with pytest.raises(UserError, match="--dataset_split nope: cannot be loaded"):
        TextStream(tokenizer, 24, dataset_name=str(tmp_path), dataset_split="nope")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What each of two processes saw, its weights, and the token ids of all rows."""
    folder = tmp_path_factory.mktemp("streaming")
    from backbones import WORDS

    rows = [f"{first} {second} house river man" for first, second in itertools.permutations(WORDS[:8], 2)]
    rows = rows[:53]  # 53 is prime: no number of readers divides it
    write(folder / "all.txt", "\n".join(rows))
    for index in range(4):
        write(folder / f"part{index}.txt", "\n".join(rows[index::4]))
    done = processes.python(WORKER, folder, processes=2)
    assert done.returncode == 0, done.stderr[-4000:]
    results = [json.loads((folder / f"result-{rank}.json").read_text()) for rank in range(2)]
    names = ("weights", "whole", "resumed")
    weights = {name: [torch.load(folder / f"{name}-{rank}.pt") for rank in range(2)] for name in names}
    return results, weights, len(rows)


@pytest.mark.parametrize("case", ["one file", "one file, two workers", "four files, two workers"])
def test_two_processes_see_every_row_once(two_processes, case):
    results, _, count = two_processes
    assert [result["world_size"] for result in results] == [2, 2]
    seen = [[row for batch in result[case]["batches"] for row in batch] for result in results]
    first = [tuple(row["anchor"]) for rows in seen for row in rows if row["epoch"] == 0]
    assert len(first) == len(set(first)) == count
    # Neither runs out: both go on into the next epochs in whole batches.
    assert all(len(batch) == 4 for result in results for batch in result[case]["batches"])
    assert all(rows[-1]["epoch"] >= 1 for rows in seen)
    assert results[0][case]["read"] == results[1][case]["read"] >= 2 * 12 * 4


def test_two_processes_train_together_beyond_the_end_of_an_uneven_text(two_processes):
    results, weights, _ = two_processes
    first, second = weights["weights"]
    assert [result["steps"] for result in results] == [12, 12]
    for name, weight in first.items():
        assert torch.equal(weight, second[name]), name


def test_two_processes_go_on_where_each_was_in_the_stream(two_processes):
    results, weights, _ = two_processes
    for result in results:
        assert (result["readers entered, whole"], result["readers entered, resumed"]) == ([], [0, 1])
    for whole, resumed in zip(weights["whole"], weights["resumed"], strict=True):
        for name, weight in whole.items():
            torch.testing.assert_close(resumed[name], weight, rtol=0, atol=1e-6)


@pytest.fixture
def command(tmp_path, file, encoder):
    """The arguments of a short streaming run on 48 rows, 6 batches an epoch."""
    return [
        "--model_name_or_path", encoder, "--train_file", file, "--streaming", "True",
        "--output_dir", str(tmp_path / "out"), "--per_device_train_batch_size", "8", "--max_steps", "10",
        "--triplet_min_tokens", "10", "--use_cpu", "True", "--logging_steps", "5", "--max_seq_length", "24",
        "--learning_rate", "1e-3", "--disable_tqdm", "True",
    ]  # fmt: skip


@pytest.mark.parametrize(("workers", "accumulated"), [("0", "1"), ("2", "1"), ("0", "3")])
def test_a_streaming_run_leaves_a_model_and_goes_on_when_interrupted(
    workers, accumulated, command, tmp_path, caplog, monkeypatch
):
    command += ["--save_steps", "8", "--dataloader_num_workers", workers, "--streaming_shuffle_buffer", "20"]
    command += ["--gradient_accumulation_steps", accumulated]
    script.main(command)
    out = tmp_path / "out"
    whole = (out / "model.safetensors").read_bytes()
    assert (out / "modules.json").exists()
    assert {"cosines_before.json", "cosines_after.json"} <= {path.name for path in (out / "training").iterdir()}
    assert "first rows of the stream: 48 of 48 rows kept" in caplog.text
    assert "rows read by process 0 of 1: " in caplog.text
    card = (out / "README.md").read_text()
    assert " rows kept, counted each time they were read: 0 empty, " in card and "0 duplicates within 20" in card
    # Step 8 is in the second epoch: what came before it must neither be trained on again nor be left out.
    epochs = json.loads((out / "training" / "checkpoint-10" / "trainer_state.json").read_text())["epoch"]
    (out / "modules.json").unlink()
    shutil.rmtree(out / "training" / "checkpoint-10")
    skipped = []
    monkeypatch.setattr("transformers.trainer.skip_first_batches", lambda *given: skipped.append(given))
    script.main([*command, "--resume_from_checkpoint", "True"])
    assert (out / "model.safetensors").read_bytes() == whole
    assert not skipped and "is read again" not in caplog.text
    assert json.loads((out / "training" / "checkpoint-10" / "trainer_state.json").read_text())["epoch"] == epochs


def test_a_checkpoint_that_does_not_know_its_stream_goes_on_by_reading_it_again(command, tmp_path, caplog):
    """One of an earlier version, without a manifest; and one of those that follow it."""
    out = tmp_path / "out"
    command += ["--save_steps", "3", "--save_total_limit", "5", "--dataloader_num_workers", "2"]
    script.main(command)
    whole = (out / "model.safetensors").read_bytes()
    for kept in ("checkpoint-3", "checkpoint-6"):
        (out / "modules.json").unlink()
        for checkpoint in (out / "training").glob("checkpoint-*"):
            if int(checkpoint.name.partition("-")[2]) > int(kept.partition("-")[2]):
                shutil.rmtree(checkpoint)
        if kept == "checkpoint-3":
            (out / "training" / kept / "manifest.json").unlink()
            (out / "training" / kept / "stream_state_0.json").unlink()
        caplog.clear()
        script.main([*command, "--resume_from_checkpoint", "True"])
        line = f"{kept}: it does not say where the stream was (and before version 0.2.0 the rows had another order); "
        line += "what was trained on is read again, which takes time"
        assert (line in caplog.text) == (kept == "checkpoint-3")
        assert (out / "model.safetensors").read_bytes() == whole


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--max_steps", "-1"], "--streaming True: .*--max_steps N"),
        (["--max_train_samples", "20"], "--max_train_samples 20: a stream cannot be sampled"),
        (["--streaming_shuffle_buffer", "0"], "--streaming_shuffle_buffer 0: must be a whole number from 1"),
        (["--per_device_train_batch_size", "1"], "--per_device_train_batch_size 1: the negatives"),
        (["--per_device_train_batch_size", "64"], "does not fill a batch of 64"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(given, message, command):
    with pytest.raises(UserError, match=message) as error:
        script.main([*command, *given])
    assert "\n" not in str(error.value)


def test_a_workers_error_is_one_line(command, tmp_path):
    # A first piece of 1 MiB, which is looked at before training; the bad line comes after it.
    content = "".join(f"line {number} {'of the house ' * 70}\n" for number in range(1_300)) + "caf\xe9 noir\n"
    file = write(tmp_path / "late.txt", content.encode("latin-1"))
    given = ["--train_file", file, "--streaming_shuffle_buffer", "10", "--dataloader_num_workers", "1"]
    given += ["--per_device_train_batch_size", "64", "--max_steps", "30"]
    done = processes.python(ROOT / "run_arccse.py", *command, *given)
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(f"arccse train: error: --train_file {file}: line 1301: not UTF-8 text")
    assert "Traceback" not in done.stderr
