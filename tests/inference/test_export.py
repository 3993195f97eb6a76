"""A checkpoint and an exported folder, opened in a fresh process in every way that users open them."""

import json

import numpy as np
import processes
import pytest
import torch
from backbones import BACKBONES, tiny_config
from transformers import AutoModel

from arccse_hf import ArcCSEConfig, ArcCSEForContrastiveLearning
from arccse_hf.inference.export import export, to_sentence_transformer
from arccse_hf.model.configuration_arccse import POOLINGS, PROJECTIONS
from arccse_hf.run_folder import MODULES

TEXTS = ["the red cat", "a quick dog crosses the long road near a new house", "two birds"]


def trained(tokenizer, family="bert", **config):
    torch.manual_seed(0)
    model = ArcCSEForContrastiveLearning(ArcCSEConfig(backbone_config=tiny_config(family), **config)).eval()
    with torch.no_grad():
        embeddings = model.arccse(**tokenized(tokenizer)).pooler_output
    return model, embeddings.numpy()


def tokenized(tokenizer):
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


@pytest.fixture
def checkpoint(tmp_path, tokenizer):
    model, embeddings = trained(tokenizer)
    model.save_pretrained(tmp_path / "checkpoint")
    torch.save(tokenized(tokenizer), tmp_path / "batch.pt")
    return tmp_path, embeddings


WAYS = {
    "with the package": "import arccse_hf\nmodel = AutoModel.from_pretrained(folder)",
    "without the package, as remote code": "model = AutoModel.from_pretrained(folder, trust_remote_code=True)",
    "as remote code that was saved again": (
        "AutoModel.from_pretrained(folder, trust_remote_code=True).save_pretrained(folder + '-again')\n"
        "model = AutoModel.from_pretrained(folder + '-again', trust_remote_code=True)"
    ),
    "by the class itself": "import arccse_hf\nmodel = arccse_hf.ArcCSEModel.from_pretrained(folder)",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_checkpoint_gives_equal_embeddings_in_a_fresh_process(checkpoint, way):
    folder, expected = checkpoint
    block = "" if "arccse_hf" in WAYS[way] else "sys.modules['arccse_hf'] = None  # importing it would fail"
    script = f"""
import sys, torch
{block}
from transformers import AutoModel
folder = {str(folder / "checkpoint")!r}
{WAYS[way]}
assert type(model).__name__ == "ArcCSEModel"
batch = torch.load({str(folder / "batch.pt")!r})
with torch.no_grad():
    torch.save(model(**batch).pooler_output, {str(folder / "embeddings.pt")!r})
"""
    run_fresh(script, folder)
    assert torch.equal(torch.load(folder / "embeddings.pt"), torch.from_numpy(expected))


def test_an_exported_folder_opens_with_stock_tools_in_a_fresh_process(tmp_path, tokenizer):
    model, expected = trained(tokenizer)
    export(model, tokenizer, tmp_path / "out", model_card="# A model")
    script = f"""
import sys, numpy, torch
sys.modules["arccse_hf"] = None
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer
folder, texts = {str(tmp_path / "out")!r}, {TEXTS!r}
numpy.save({str(tmp_path / "st.npy")!r}, SentenceTransformer(folder, device="cpu").encode(texts))
batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
with torch.no_grad():
    states = AutoModel.from_pretrained(folder)(**batch).last_hidden_state
numpy.save({str(tmp_path / "auto.npy")!r}, states[:, 0].numpy())
"""
    run_fresh(script, tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "st.npy"), expected, atol=1e-6)
    np.testing.assert_array_equal(np.load(tmp_path / "auto.npy"), expected)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "bert"
    assert (tmp_path / "out" / "README.md").read_text() == "# A model"
    assert list((tmp_path / "out").glob("*.py")) == []
    modes = {path.name: oct(path.stat().st_mode) for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert set(modes.values()) == {modes["config.json"]}, modes


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_every_pooling_and_projection_is_exported(tmp_path, tokenizer, pooling, projection):
    from sentence_transformers import SentenceTransformer

    model, expected = trained(tokenizer, pooling=pooling, projection=projection)
    export(model, tokenizer, tmp_path)
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS), expected, atol=1e-6)


@pytest.mark.parametrize("family", BACKBONES)
def test_every_backbone_is_exported(family, tmp_path, tokenizer):
    from sentence_transformers import SentenceTransformer

    model, expected = trained(tokenizer, family, pooling="mean")
    export(model, tokenizer, tmp_path)
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS), expected, atol=1e-6)
    opened = AutoModel.from_pretrained(tmp_path)
    weights = model.arccse.encoder.state_dict()
    assert all(torch.equal(value, opened.state_dict()[name]) for name, value in weights.items())


@pytest.mark.parametrize("family", ["bert", "albert", "mpnet"])
def test_the_encoders_own_pooler_is_the_projection_or_nothing(family, tmp_path, tokenizer):
    """Stock `pooler_output` is what SimCSE's models give there, or zeros: never something random."""
    model, _ = trained(tokenizer, family, pooling="cls", projection="mlp_train_only")
    batch = tokenized(tokenizer)
    export(model, tokenizer, tmp_path / "cls")
    with torch.no_grad():
        expected = model(**batch).training_embedding
        torch.testing.assert_close(AutoModel.from_pretrained(tmp_path / "cls")(**batch).pooler_output, expected)
        export(trained(tokenizer, family, pooling="mean")[0], tokenizer, tmp_path / "mean")
        assert not AutoModel.from_pretrained(tmp_path / "mean")(**batch).pooler_output.any()


def test_the_exported_model_reads_more_than_the_training_length(tokenizer):
    model, _ = trained(tokenizer)
    assert to_sentence_transformer(model, tokenizer).max_seq_length == 64


def test_a_new_export_replaces_an_old_one_only_when_it_is_whole(tmp_path, tokenizer, monkeypatch):
    model, _ = trained(tokenizer, pooling="mean")
    export(model, tokenizer, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def no_space(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("sentence_transformers.SentenceTransformer.save", no_space)
        with pytest.raises(OSError, match="No space"):
            export(model, tokenizer, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files

    other, _ = trained(tokenizer, "electra", pooling="cls", projection="mlp")
    export(other, tokenizer, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / MODULES).exists()
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "electra"


def test_modules_of_the_old_model_go_and_the_users_folders_stay(tmp_path, tokenizer):
    (tmp_path / "2_my_notes").mkdir()
    for projection, modules in (("mlp", {"1_Pooling", "2_Dense"}), ("none", {"1_Pooling"})):
        export(trained(tokenizer, pooling="mean", projection=projection)[0], tokenizer, tmp_path)
        assert {path.name for path in tmp_path.glob("[0-9]*")} == {*modules, "2_my_notes"}


def run_fresh(script, folder):
    """Runs a script in a process that has not imported this package, with a new cache of modules for remote code."""
    start = f"""
import sys
from transformers import dynamic_module_utils
assert "arccse_hf" not in sys.modules
dynamic_module_utils.HF_MODULES_CACHE = {str(folder / "modules")!r}
"""
    done = processes.python("-c", start + script)
    assert done.returncode == 0, done.stderr
    assert (folder / "modules").exists() == ("trust_remote_code" in script)
