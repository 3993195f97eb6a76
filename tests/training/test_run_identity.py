"""What is different between a run and the one of its checkpoint."""

import json

import pyarrow as pa
import pytest
from datasets import Dataset, concatenate_datasets
from tiny import tiny_model

from arccse_hf.data.streaming import TextStream
from arccse_hf.training.arguments import ArcCSETrainingArguments
from arccse_hf.training.run_identity import differences, run_identity


def test_another_text_of_a_stream_and_another_length_are_reported(tmp_path, tokenizer):
    (tmp_path / "rows.csv").write_text("text,other\n" + "".join(f"the cat {n},a house {n}\n" for n in range(9)))

    def identity(column, length=24, **given):
        args = ArcCSETrainingArguments(str(tmp_path / "out"), max_seq_length=length, use_cpu=True)
        file = str(tmp_path / "rows.csv")
        stream = TextStream(tokenizer, length, train_file=[file], text_columns=[column], **given)
        return run_identity(tiny_model(), args, stream)

    before = json.loads(json.dumps(identity("text")))
    assert list(differences(before, identity("text", seed=1))) == []  # which is a line of its own
    text = "the text is not the one that the checkpoint was trained on"
    assert list(differences(before, identity("other"))) == [text]
    assert list(differences(before, identity("text", min_chars=1))) == [text]
    assert list(differences(before, identity("text", 16))) == ["--max_seq_length 16: was 24 until this checkpoint"]
    del before["max_seq_length"]
    earlier = before | {"text": None}  # as earlier versions have it
    assert list(differences(earlier, identity("other", 16))) == []


@pytest.fixture
def text_of(tmp_path):
    args = ArcCSETrainingArguments(str(tmp_path / "out"), use_cpu=True)
    return lambda rows: run_identity(tiny_model(), args, rows)["text"]


def test_every_row_counts_and_the_way_that_rows_are_stored_does_not(text_of):
    ids = [list(range(row % 7 + 1)) for row in range(5000)]
    rows = Dataset.from_dict({"anchor": ids})
    changed = [*ids[:1], [5, 5], *ids[2:]]
    for other in (changed, ids[:-1], [*ids[:1], ids[2], ids[1], *ids[3:]]):
        assert text_of(Dataset.from_dict({"anchor": other})) != text_of(rows)
    longer = Dataset.from_dict({"anchor": [[9, 9, 9], *ids, [8]]})
    chunks = pa.chunked_array([pa.array(ids[:7]), pa.array(ids[7:])])
    for same in (
        Dataset.from_dict({"anchor": list(ids)}),
        Dataset(pa.table({"anchor": chunks})),
        longer.select(range(1, 5001)),
        concatenate_datasets([rows.select(range(2000)), rows.select(range(2000, 5000))]),
        rows.select(range(4999, -1, -1)).select(range(4999, -1, -1)),
        rows.with_format("torch"),
    ):
        assert text_of(same) == text_of(rows)
    assert text_of(rows.rename_column("anchor", "positive")) != text_of(rows)
