"""`arccse export`: a checkpoint becomes the folder that its run would have left."""

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tiny import tiny_model

from arccse_hf.commands.encoders import export
from arccse_hf.errors import UserError
from arccse_hf.inference import export_command
from arccse_hf.inference.export import export as export_model
from arccse_hf.inference.onnx import GraphCheck, OnnxEncoder
from arccse_hf.inference.open import Encoder


@pytest.fixture
def checkpoint(tmp_path, tokenizer):
    model = tiny_model(pooling="cls", projection="mlp", normalize=True)
    model.save_pretrained(tmp_path / "checkpoint-2")
    tokenizer.save_pretrained(tmp_path / "checkpoint-2")
    export_model(model, tokenizer, tmp_path / "expected")
    return tmp_path / "checkpoint-2"


def test_a_checkpoint_becomes_what_its_run_would_have_left(checkpoint, tmp_path, sentences, capsys):
    assert export([str(checkpoint), "--output_dir", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert f"written: {tmp_path / 'out'}" in printed.out and printed.err == ""
    expected, found = (SentenceTransformer(str(tmp_path / name), device="cpu") for name in ("expected", "out"))
    np.testing.assert_array_equal(found.encode(sentences), expected.encode(sentences))
    assert [type(module) for module in found] == [type(module) for module in expected]
    modes = {path.stat().st_mode for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert len(modes) == 1  # who may read the folder may read the weights


def test_each_score_is_printed_whole_and_how_each_graph_is_opened(checkpoint, tmp_path, capsys, monkeypatch):
    """Eight tasks with long names, and no terminal."""
    monkeypatch.chdir(tmp_path)
    names = ["torch float32", "onnx float32", "onnx int8"]
    scores = [{f"mteb_a_long_name_{task}_spearman": 0.1001 + column + task for task in range(8)} for column in range(3)]
    checks = [GraphCheck(name, 1.0, 1.0, 9.0, 1.0) for name in names]
    monkeypatch.setattr(export_command, "export_onnx", lambda *_, **__: checks)
    monkeypatch.setattr(export_command, "load_tasks", lambda *_: [])
    monkeypatch.setattr(export_command, "_scores", lambda *_: scores)
    assert export([str(checkpoint), "out", *"--to onnx --quantize int8 --eval_tasks sts".split()]) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in [*names, *scores[0]])
    assert all(f" {value:.4f} " in out for row in scores for value in row.values())
    assert out.endswith(
        "written: out/model.onnx, which --model out opens\n"
        "written: out/model_int8.onnx, which --model out/model_int8.onnx opens\n"
    )


def test_a_graph_is_no_model_to_export(tmp_path, monkeypatch):
    monkeypatch.setattr(export_command, "load_encoder", lambda *_, **__: Encoder("g", object.__new__(OnnxEncoder), ""))
    with pytest.raises(UserError, match="MODEL graph: is an ONNX graph already"):
        export_command.export_and_print("graph", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_with_weights_that_are_not_finite_is_not_exported(tmp_path, tokenizer):
    model = tiny_model()
    model.base_model.encoder.embeddings.word_embeddings.weight.data[7, 3] = float("nan")
    model.save_pretrained(tmp_path / "checkpoint-2")
    tokenizer.save_pretrained(tmp_path / "checkpoint-2")
    with pytest.raises(UserError, match="checkpoint-2: the weight .*word_embeddings.weight has values that are not"):
        export([str(tmp_path / "checkpoint-2"), "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--output_dir", "checkpoint-2"], "--output_dir checkpoint-2: is in use"),
        (["--output_dir", "checkpoint-2/config.json/x"], "--output_dir checkpoint-2/config.json/x: cannot be written"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(more, message, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        export([str(checkpoint), *more])
