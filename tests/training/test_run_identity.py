"""What is different between a run and the one of its checkpoint."""

import json

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
