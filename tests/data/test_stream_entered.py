"""A stream that is entered gives what it would have given, and reads no more for it however far it is."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from readers import write_rows

from arccse_hf.data.files.source import Source
from arccse_hf.data.streaming import TextStream
from arccse_hf.errors import UserError
from arccse_hf.training.arguments import ArcCSETrainingArguments

KINDS = ["txt", "txt.gz", "csv", "jsonl", "json", "parquet"]


def texts(count: int) -> list[str]:
    """Of which some are copies, some too short and some hold a line break."""
    words = "a cat the dog sat ran on mat house red".split()
    kinds = {0: "{0} {1}", 1: "{0}", 2: "the cat sat {2}", 3: '{0}\n"{1}", {2}'}
    rows = [
        kinds[number % 4].format(words[number % 10], words[number // 10 % 10], number % 7) for number in range(count)
    ]
    return [f"{row} {number}" if number % 4 in (0, 3) else row for number, row in enumerate(rows)]


def files_of(folder: Path, kind: str, count: int, rows: int = 90) -> list[str]:
    content = [(text.replace("\n", " ") if "txt" in kind else text,) for text in texts(rows)]
    parts = [content[index::count] for index in range(count)]
    return [write_rows(folder / f"{index}.{kind}", ("text",), part) for index, part in enumerate(parts)]


def entered(make, state: dict, workers: int = 0) -> TextStream:
    """A new stream, as another process makes it, where one was whose state was written and read."""
    stream, state = make(), json.loads(json.dumps(state))
    assert stream.obstacle(state, workers) is None
    stream.enter(state)
    return stream


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("files", "reader", "readers"), [(1, 0, 1), (1, 1, 2), (3, 2, 3), (12, 1, 5)])
def test_the_rest_is_the_same_from_every_row(kind, files, reader, readers, tmp_path, tokenizer):
    paths = files_of(tmp_path, kind, files)

    def make() -> TextStream:
        given = {"process_index": reader, "num_processes": readers}
        return TextStream(tokenizer, 24, train_file=paths, shuffle_buffer=9, seed=3, **given)

    placed = list(itertools.islice(make().placed_rows(), 150))
    rows = [row for row, _ in placed]
    assert {row["epoch"] for row in rows} >= {0, 1}
    for number in (1, 9, 60, 149):
        stream = make()
        stream.trained_on(json.dumps(placed[number - 1][1]))
        rest = entered(make, stream.state())
        assert list(itertools.islice(rest, 150 - number)) == rows[number:]


@pytest.mark.parametrize("dataset", ["folder", "installed-docs"])
def test_the_rest_of_a_named_dataset_too(dataset, tmp_path, tokenizer, sentences, monkeypatch):
    Dataset.from_dict({"text": texts(40)}).to_parquet(tmp_path / "a.parquet", batch_size=7)
    Dataset.from_dict({"text": texts(90)[40:]}).to_parquet(tmp_path / "b.parquet", batch_size=7)
    corpus = type("Corpus", (), {"sentences": sentences})
    monkeypatch.setattr("arccse_hf.data.training_texts.docstring_corpus", lambda: corpus)
    name = str(tmp_path) if dataset == "folder" else dataset

    def make() -> TextStream:
        return TextStream(tokenizer, 24, dataset_name=name, shuffle_buffer=9)

    placed = list(itertools.islice(make().placed_rows(), 100))
    for number in (1, 20, 33, 80):
        stream = make()
        stream.trained_on(json.dumps(placed[number - 1][1]))
        rest = entered(make, stream.state())
        assert list(itertools.islice(rest, 100 - number)) == [row for row, _ in placed[number:]]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_that_were_only_prepared_are_given_again(workers, tmp_path, tokenizer):
    paths = files_of(tmp_path, "txt", 2)
    args = ArcCSETrainingArguments(str(tmp_path / "out"), dataloader_num_workers=workers, use_cpu=True)

    def make() -> TextStream:
        return TextStream(tokenizer, 24, train_file=paths, shuffle_buffer=9)

    def batches(stream: TextStream, count: int) -> list[dict]:
        loader = stream.dataloader(4, lambda rows: {"rows": rows}, args, torch.device("cpu"))
        return list(itertools.islice(loader, count))

    stream = make()
    whole = batches(stream, 20)
    for number in (0, 11):
        stream = make()
        for batch in batches(stream, number):
            stream.trained_on(batch["place"])
        rest = entered(make, stream.state(), workers)
        assert batches(rest, 20 - number) == whole[number:]
        # Once more, from a stream that was entered itself.
        for batch in batches(rest, 2):
            rest.trained_on(batch["place"])
        assert batches(entered(make, rest.state(), workers), 18 - number) == whole[number + 2 :]


def test_what_is_read_to_go_on_does_not_grow_with_what_was_trained_on(tmp_path, tokenizer, monkeypatch):
    lines = Source.lines
    read = 0

    def counted(*args, **kwargs):
        nonlocal read
        for line in lines(*args, **kwargs):
            read += 1
            yield line

    paths = files_of(tmp_path, "jsonl", 2, rows=4_000)

    def make() -> TextStream:
        return TextStream(tokenizer, 24, train_file=paths, shuffle_buffer=100)

    placed = list(itertools.islice(make().placed_rows(), 1_900))
    streams = []
    for number in (60, 600, 1_800):
        stream = make()
        stream.trained_on(json.dumps(placed[number - 1][1]))
        streams.append((number, entered(make, stream.state())))
    monkeypatch.setattr(Source, "lines", counted)
    for number, stream in streams:
        read = 0
        assert next(iter(stream)) == placed[number][0]
        assert 0 < read <= 200  # a block, or two where the row is the last one of a block
    read = 0
    assert next(itertools.islice(make(), 1_800, None)) == placed[1_800][0]
    assert read > 3_000


def test_counts_go_on_and_rows_count_once(tmp_path, tokenizer):
    """The counts of an epoch, whether it was read at once or in two runs."""
    paths = files_of(tmp_path, "txt", 1)
    args = ArcCSETrainingArguments(str(tmp_path / "out"), use_cpu=True)

    def make() -> TextStream:
        return TextStream(tokenizer, 24, train_file=paths, shuffle_buffer=9)

    def read(stream: TextStream, batches: int) -> list[int]:
        loader = stream.dataloader(4, lambda rows: {"rows": rows}, args, torch.device("cpu"))
        for batch in itertools.islice(loader, batches):
            stream.trained_on(batch["place"])
        return stream._counts.tolist()

    stream = make()
    read(stream, 5)
    assert read(entered(make, stream.state()), 6) == read(make(), 11)
    ((begun, *_),) = read(entered(make, stream.state()), 0)  # before a reader has counted anything itself
    assert begun == 18  # the rows before the block, which is the third of 9 rows


def test_files_are_read_in_turns(tmp_path, tokenizer):
    for name in ("cat", "dog", "house", "river"):
        write_rows(tmp_path / f"{name}.txt", ("text",), [(f"{name} {number}",) for number in range(40)])
    stream = TextStream(tokenizer, 24, train_file=[f"{tmp_path}/*.txt"], shuffle_buffer=20)
    first = [row["anchor"][1] for row in itertools.islice(stream, 20)]
    assert sorted(map(first.count, set(first))) == [5, 5, 5, 5]


def test_a_share_that_fills_no_batch_is_refused_in_a_later_epoch_too(tmp_path, tokenizer):
    for name, count in (("few", 3), ("many", 30)):
        write_rows(tmp_path / f"{name}.txt", ("text",), [(f"the cat {number}",) for number in range(count)])
    stream = TextStream(tokenizer, 24, train_file=[f"{tmp_path}/*.txt"], num_processes=2, seed=3)
    args = ArcCSETrainingArguments(str(tmp_path / "out"), use_cpu=True)
    loader = iter(stream.dataloader(10, lambda rows: {"rows": rows}, args, torch.device("cpu")))
    assert len(next(loader)["rows"]) == 10  # of the longer file
    with pytest.raises(UserError, match="does not fill a batch of 10"):
        list(itertools.islice(loader, 100))


def test_a_stream_of_something_else_is_not_entered(tmp_path, tokenizer):
    paths = files_of(tmp_path, "txt", 1)

    def obstacle(workers: int = 0, **given) -> str | None:
        return TextStream(tokenizer, 24, **({"train_file": paths} | given)).obstacle(state, workers)

    state = TextStream(tokenizer, 24, train_file=paths).state()
    assert obstacle() is None and obstacle(workers=1) is None
    other = files_of(tmp_path, "csv", 1)
    for given in ({"seed": 1}, {"shuffle_buffer": 9}, {"min_chars": 1}, {"exclude": ["a"]}, {"train_file": other}):
        assert obstacle(**given) == "the text, or what decides about its order, is another"
    moved = str(shutil.copy(paths[0], tmp_path / "renamed.txt"))
    assert obstacle(train_file=[moved]) == "the text, or what decides about its order, is another"
    del state["source"]  # as earlier versions have it
    assert obstacle(train_file=[moved]) is None
    shared = "1 x 1 readers (processes x dataloader workers) shared the stream"
    assert obstacle(num_processes=2) == obstacle(workers=2) == shared
    state = None
    assert obstacle() == "it does not say where the stream was (and before version 0.2.0 the rows had another order)"


def test_a_stream_of_another_column_or_dataset_is_not_entered_but_a_moved_one_is(tmp_path, tokenizer):
    """Although sizes and numbers are the same."""
    for name in ("here/docs", "here/mails", "there/docs"):
        (tmp_path / name).mkdir(parents=True)
        pairs = [(f"the {name[-4:]} {number}", f"a house {number}") for number in range(20)]
        write_rows(tmp_path / name / "0.csv", ("text", "other"), pairs)

    def stream(kind: str, name: str, column: str) -> TextStream:
        path = str(tmp_path / name)
        given = {"dataset_name": path} if kind == "dataset" else {"train_file": [f"{path}/0.csv"]}
        return TextStream(tokenizer, 24, text_columns=[column], **given)

    for kind in ("file", "dataset"):
        state = json.loads(json.dumps(stream(kind, "here/docs", "text").state()))
        assert stream(kind, "there/docs", "text").obstacle(state, 0) is None
        assert "is another" in stream(kind, "here/docs", "other").obstacle(state, 0)
    assert "is another" in stream("dataset", "here/mails", "text").obstacle(state, 0)


def test_a_stream_whose_batches_were_skipped_has_no_state_until_all_readers_are_known(tmp_path, tokenizer):
    args = ArcCSETrainingArguments(str(tmp_path / "out"), dataloader_num_workers=2, use_cpu=True)
    stream = TextStream(tokenizer, 24, train_file=files_of(tmp_path, "txt", 1), shuffle_buffer=9)
    stream.enter(None)
    loader = stream.dataloader(4, lambda rows: {"rows": rows}, args, torch.device("cpu"))
    states = []
    for batch in itertools.islice(loader, 5, 8):
        stream.trained_on(batch["place"])
        states.append(stream.state())
    assert states[0] is None and [place[0] for place in states[1]["places"]] == [1, 0]
