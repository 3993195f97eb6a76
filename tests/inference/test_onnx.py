"""An exported graph embeds as PyTorch does, at any batch size and length; nothing half-made is left."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from backbones import BACKBONES, tiny_config
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Router, Transformer
from transformers import AutoModel

from arccse_hf.errors import UserError
from arccse_hf.inference import onnx as onnx_module
from arccse_hf.inference.encode_files.command import open_and_encode
from arccse_hf.inference.encode_files.reading import Columns
from arccse_hf.inference.encode_files.windows import EncodeOptions
from arccse_hf.inference.onnx import GRAPH, QUANTIZED_GRAPH, OnnxEncoder, export_onnx
from arccse_hf.inference.open import load_encoder

onnxruntime = pytest.importorskip("onnxruntime")


def encoder(folder, tokenizer, family="bert", seed=0):
    torch.manual_seed(seed)
    config = tiny_config(family)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    modules = [Transformer(str(folder), max_seq_length=20), Pooling(16, "mean"), Normalize()]
    return SentenceTransformer(modules=modules, device="cpu").eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tokenizer, sentences):
    """An encoder, the folder of its graphs, and how these were found to embed; tests read it alone."""
    folder = tmp_path_factory.mktemp("exported")
    model = encoder(folder / "encoder", tokenizer)
    checks = export_onnx(model, folder / "out", sentences, quantize=True)
    assert sorted(path.name for path in folder.iterdir()) == ["encoder", "out"]
    return model, folder / "out", checks


def test_the_graph_embeds_as_pytorch_does_and_an_int8_one_lies_beside_it(exported, sentences):
    model, folder, checks = exported
    assert [check.name for check in checks] == ["torch float32", "onnx float32", "onnx int8"]
    assert checks[1].min_cosine > 0.999999 and checks[2].mean_cosine > 0.95
    opened = OnnxEncoder(folder)
    for size in (1, 5, 48):
        np.testing.assert_allclose(opened.encode(sentences, batch_size=size), model.encode(sentences), atol=1e-5)
    assert opened.encode([]).shape == (0, 16) and opened.get_embedding_dimension() == 16
    assert isinstance(opened.encode(sentences[:2], convert_to_tensor=True), torch.Tensor)
    quantized = OnnxEncoder(folder / QUANTIZED_GRAPH).encode(sentences)
    assert not np.allclose(quantized, model.encode(sentences), atol=1e-5)  # it is the other graph
    with pytest.raises(UserError, match="is in use"):
        export_onnx(model, folder, sentences)


@pytest.fixture
def written_before(exported, monkeypatch):
    """No graph is made: the one of the exported encoder is taken."""
    monkeypatch.setattr(onnx_module, "_write_graph", lambda _, path: shutil.copy(exported[1] / GRAPH, path))


@pytest.mark.parametrize("factor", [1, np.nan])
def test_a_graph_that_differs_is_not_written(factor, written_before, tmp_path, tokenizer, sentences, monkeypatch):
    """Here it is the one of another model, or gives NaN."""
    other = encoder(tmp_path / "other", tokenizer, seed=1)
    encode = OnnxEncoder.encode
    monkeypatch.setattr(OnnxEncoder, "encode", lambda *args, **options: factor * encode(*args, **options))
    with pytest.raises(UserError, match="embeddings differ from PyTorch's"):
        export_onnx(other, tmp_path / "broken", sentences)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_model_that_gives_nan_is_not_blamed_on_its_graph(written_before, tmp_path, tokenizer, sentences):
    model = encoder(tmp_path / "other", tokenizer)
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(UserError, match="MODEL: the embedding of text .* is not finite"):
        export_onnx(model, tmp_path / "broken", sentences)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_files_are_encoded_with_a_graph(exported, tmp_path, sentences):
    model = exported[0]
    shutil.copytree(exported[1], tmp_path / "graphs")
    (tmp_path / "text.txt").write_text("\n".join(sentences) + "\n")
    options = EncodeOptions(Columns("text"), batch_size=5)
    inputs, output = [str(tmp_path / "text.txt")], tmp_path / "embeddings"
    assert open_and_encode(str(tmp_path / "graphs"), inputs, output, options) == 0
    table = pq.read_table(output / "text.txt-00000.parquet")
    np.testing.assert_allclose(np.array(table["embedding"].to_pylist()), model.encode(sentences), atol=1e-5)
    with pytest.raises(UserError, match=f"is from another model, {tmp_path / 'graphs'}; choose another folder"):
        open_and_encode(str(tmp_path / "graphs" / QUANTIZED_GRAPH), inputs, output, options)


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="holds no model.onnx"):
        OnnxEncoder(tmp_path)
    (tmp_path / GRAPH).write_bytes(b"no graph")
    (tmp_path / "onnx_encoder.json").write_text('{"max_seq_length": 8, "dimension": 4}')
    monkeypatch.setattr(onnx_module.AutoTokenizer, "from_pretrained", lambda path: None)
    with pytest.raises(UserError, match="onnxruntime cannot open it"):
        OnnxEncoder(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime is not installed: pip install 'arccse-hf\[onnx\]'"):
        OnnxEncoder(tmp_path)


@pytest.mark.extras
@pytest.mark.parametrize("family", [family for family in BACKBONES if family != "bert"])
def test_every_backbone_that_the_exporter_takes(family, tmp_path, tokenizer, sentences):
    model = encoder(tmp_path / "encoder", tokenizer, family)
    assert export_onnx(model, tmp_path / "out", sentences)[1].min_cosine > 0.9999


def test_queries_and_documents_get_the_prompts_of_the_model(written_before, tmp_path, tokenizer, sentences):
    model = encoder(tmp_path / "encoder", tokenizer)
    plain = model.encode(sentences[:5])
    model.prompts |= {"query": "the cat: ", "document": "a dog. ", "own": "the house "}
    model.default_prompt_name = "own"
    export_onnx(model, tmp_path / "out", sentences)
    graph = OnnxEncoder(tmp_path / "out")
    for name in ("encode", "encode_query", "encode_document"):
        expected = getattr(model, name)(sentences[:5])
        np.testing.assert_allclose(getattr(graph, name)(sentences[:5]), expected, atol=1e-5)
        assert not np.allclose(expected, plain, atol=1e-3)
    opened = load_encoder(str(tmp_path / "out"))
    query = opened.for_task("query")
    np.testing.assert_allclose(query.encode_batch(sentences[:5]), model.encode_query(sentences[:5]), atol=1e-5)
    before = opened.fingerprint()
    graph.prompts["query"] = "another: "
    assert replace(opened, model=graph).fingerprint() != before


def test_a_pooling_that_leaves_prompts_out_is_refused(tmp_path, tokenizer, sentences):
    model = encoder(tmp_path / "encoder", tokenizer)
    model[1].include_prompt = False
    with pytest.raises(UserError, match="its pooling leaves the prompt's tokens out"):
        export_onnx(model, tmp_path / "out", sentences)
    assert not (tmp_path / "out").exists()


def test_different_encoders_of_queries_and_documents_are_refused(tmp_path, tokenizer, sentences):
    routes = [list(encoder(tmp_path / name, tokenizer, seed=seed)) for seed, name in enumerate(("query", "document"))]
    model = SentenceTransformer(modules=[Router.for_query_document(*routes)], device="cpu")
    with pytest.raises(UserError, match="embeds queries and documents by different modules"):
        export_onnx(model, tmp_path / "out", sentences)
    assert not (tmp_path / "out").exists()


def test_an_onnxscript_that_does_not_fit_is_not_blamed_on_the_encoder(tmp_path, tokenizer, sentences, monkeypatch):
    def export(*_, **__):
        raise ModuleNotFoundError("No module named 'onnxscript._framework_apis.torch_9_9'")

    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.raises(UserError, match="--to onnx: onnxscript does not fit PyTorch .*torch_9_9.*: pip install"):
        export_onnx(encoder(tmp_path / "encoder", tokenizer), tmp_path / "out", sentences)


def test_why_the_exporter_does_not_take_an_encoder_is_told(tmp_path, tokenizer, sentences, monkeypatch):
    def export(*_, **__):
        try:
            raise ValueError("T5 has no such mask\nTrace: ...")
        except ValueError as error:
            raise RuntimeError("Failed to export the model. Please report it.") from error

    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.raises(UserError, match=r"not take this encoder \(ValueError: T5 has no such mask\)$"):
        export_onnx(encoder(tmp_path / "encoder", tokenizer), tmp_path / "out", sentences)


def test_a_full_disk_is_not_blamed_on_the_encoder(tmp_path, tokenizer, sentences, monkeypatch):
    def save(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: SimpleNamespace(save=save))
    with pytest.raises(UserError, match="--output_dir .*out: cannot be written .*No space left on device"):
        export_onnx(encoder(tmp_path / "encoder", tokenizer), tmp_path / "out", sentences)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]
