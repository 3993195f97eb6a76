"""A sentence-transformers model as the base: training keeps what it does; checkpoints and the export do the same."""

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from backbones import save_encoder
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from torch import nn
from transformers import AutoTokenizer, BertModel, BertTokenizer

from arccse_hf.errors import UserError
from arccse_hf.inference.export import export
from arccse_hf.training.backbone import load_backbone
from arccse_hf.training.model_arguments import ModelArguments


@pytest.fixture
def base(tmp_path, tokenizer):
    """Saves a tiny model whose modules behind the encoder are those given, and returns its folder."""

    def save(*modules, **settings):
        torch.manual_seed(1)
        save_encoder(tmp_path / "encoder", tokenizer)
        transformer = Transformer(str(tmp_path / "encoder"), max_seq_length=12)
        model = SentenceTransformer(modules=[transformer, *modules], device="cpu", **settings)
        model.save(str(tmp_path / "base"), create_model_card=False)
        return str(tmp_path / "base")

    return save


MODULES = {
    "mean": [Pooling(16, "mean")],
    "cls, normalised": [Pooling(16, "cls"), Normalize()],
    "mean, a Dense, normalised": [Pooling(16, "mean"), Dense(16, 16, activation_function=nn.Tanh()), Normalize()],
}


@pytest.mark.parametrize("modules", MODULES.values(), ids=MODULES)
def test_export_and_checkpoint_embed_as_the_base_does(modules, base, tmp_path, sentences):
    folder = base(*modules, prompts={"query": "find"}, similarity_fn_name="dot")
    model, tokenizer = load_backbone(ModelArguments(folder))
    expected = SentenceTransformer(folder, device="cpu").encode(sentences)
    export(model, tokenizer, tmp_path / "out")
    model.save_pretrained(tmp_path / "checkpoint")
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    for name in ("out", "checkpoint"):
        opened = SentenceTransformer(str(tmp_path / name), device="cpu")
        np.testing.assert_allclose(opened.encode(sentences), expected, atol=1e-6, err_msg=name)
        assert (opened.max_seq_length, opened.similarity_fn_name, opened.prompts["query"]) == (12, "dot", "find")
    kinds = [entry["type"].rpartition(".")[2] for entry in json.loads((tmp_path / "out" / "modules.json").read_text())]
    assert kinds == ["Transformer", *(type(module).__name__ for module in modules)]


def test_what_the_user_sets_differently_is_obeyed_and_said(base, tmp_path, sentences, caplog):
    folder = base(Pooling(16, "mean"))
    with caplog.at_level(logging.INFO, logger="arccse_hf"):
        model, tokenizer = load_backbone(ModelArguments(folder, pooling="cls"))
    assert "--pooling cls: the encoder itself has mean" in caplog.text
    export(model, tokenizer, tmp_path / "out")
    plain = BertModel.from_pretrained(tmp_path / "encoder").eval()
    batch = AutoTokenizer.from_pretrained(folder)(
        sentences, padding=True, truncation=True, max_length=12, return_tensors="pt"
    )
    with torch.no_grad():
        expected = plain(**batch).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path / "out")).encode(sentences), expected, atol=1e-6)


def test_a_checkpoint_is_no_encoder_to_start_from(base, tmp_path):
    model, tokenizer = load_backbone(ModelArguments(base(Pooling(16, "mean"))))
    model.save_pretrained(tmp_path / "checkpoint")
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(UserError, match="holds an ArcCSE model, not a plain encoder"):
        load_backbone(ModelArguments(str(tmp_path / "checkpoint")))


@pytest.mark.parametrize("pooling", ["mean_first_last", "mean_top2"])
def test_a_folder_that_was_exported_here_can_be_trained_again(pooling, base, tmp_path):
    model, tokenizer = load_backbone(ModelArguments(base(Pooling(16, "mean")), pooling=pooling))
    export(model, tokenizer, tmp_path / "out")
    again, _ = load_backbone(ModelArguments(str(tmp_path / "out")))
    assert (again.config.pooling, again.config.projection) == (pooling, "none")


@pytest.mark.parametrize(
    ("modules", "message", "way_out"),
    [
        ([Pooling(16, "max")], r"its pooling \(max\) cannot be trained here; --pooling mean", {"pooling": "mean"}),
        (
            [Pooling(16, "mean", include_prompt=False)],
            "its modules Pooling without the prompt cannot be trained here; --projection none leaves them out",
            {"projection": "none"},
        ),
        (
            [Pooling(16, "mean"), Dense(16, 8)],
            "its modules Dense cannot be trained here; --projection none leaves them out",
            {"projection": "none"},
        ),
    ],
)
def test_what_cannot_be_kept_is_refused_with_the_way_out(modules, message, way_out, base, caplog):
    folder = base(*modules, prompts={"query": "find"})
    # A recipe's projection is no way out: it does not do what the modules did.
    for projection in (None, "mlp", "mlp_train_only") if "projection" in way_out else (None,):
        with pytest.raises(UserError, match=message):
            load_backbone(ModelArguments(folder, projection=projection))
    model, _ = load_backbone(ModelArguments(folder, **way_out))
    assert (model.config.pooling, model.config.projection) == ("mean", "none")
    left_out = re.search(r"modules (.*) cannot", message)
    assert (f"left out: {left_out[1]};" in caplog.text) if left_out else ("left out" not in caplog.text)


def test_a_tokenizer_that_only_sentence_transformers_has_lower_its_letters_is_refused(base, tokenizer):
    folder = base(Pooling(16, "mean"))
    BertTokenizer(vocab=tokenizer.get_vocab(), do_lower_case=False).save_pretrained(folder)
    settings = Path(folder, "sentence_bert_config.json")
    load_backbone(ModelArguments(folder))
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"do_lower_case": True}))
    with pytest.raises(UserError, match="its modules do_lower_case cannot be trained here"):
        load_backbone(ModelArguments(folder))
