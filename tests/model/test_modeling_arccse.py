"""The models: every family of encoders, every pooling and projection, and what starts from pretrained weights."""

import numpy as np
import pytest
import torch
from backbones import BACKBONES, tiny_config
from safetensors.torch import load_file
from tiny import batch, trainable
from torch.utils._pytree import tree_flatten
from transformers import (
    AutoModel,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    GPT2Config,
    GPT2Model,
    RobertaForMaskedLM,
    T5Config,
    T5EncoderModel,
)

from arccse_hf import ArcCSEConfig, ArcCSEForContrastiveLearning, ArcCSEModel, arccon_loss, triplet_loss
from arccse_hf.model.configuration_arccse import POOLINGS, PROJECTIONS


@pytest.mark.parametrize("family", BACKBONES)
def test_every_backbone_trains_saves_and_reloads(family, tmp_path):
    model = trainable(family).train()
    output = model(pair=batch(), triplet=batch(rows=2, views=3))
    (output.arccon_loss + output.triplet_loss).backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []

    model.eval().save_pretrained(tmp_path)
    sentences = {name: values[:, 0] for name, values in batch().items()}
    with torch.no_grad():
        expected = model(**sentences).sentence_embedding
        # Sub-batches of one length round otherwise than a padded batch does.
        torch.testing.assert_close(AutoModel.from_pretrained(tmp_path)(**sentences).pooler_output, expected)
        again = ArcCSEForContrastiveLearning.from_pretrained(tmp_path)
        assert torch.equal(again(**sentences).sentence_embedding, expected)
    assert isinstance(AutoModel.from_pretrained(tmp_path), ArcCSEModel)
    # Trainer loads the best checkpoint, and that of a resumed run, by the names of the weights.
    assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()
    assert ArcCSEForContrastiveLearning.from_pretrained(tmp_path).projection.dense.weight.equal(
        model.projection.dense.weight
    )


@pytest.mark.parametrize("pooling", POOLINGS)
def test_poolings_against_a_loop_over_tokens(pooling):
    model = trainable(pooling=pooling).eval().arccse
    sentences = {name: values[:, 0] for name, values in batch().items()}
    with torch.no_grad():
        layers = model.encoder(**sentences, output_hidden_states=True).hidden_states
        actual = model(**sentences)
    assert len(layers) == 4  # the embeddings and three layers
    taken = {"cls": [3], "mean": [3], "mean_first_last": [1, 3], "mean_top2": [2, 3]}[pooling]
    for row in range(5):
        tokens = 1 if pooling == "cls" else int(sentences["attention_mask"][row].sum())
        states = [layers[layer][row, token].numpy() for layer in taken for token in range(tokens)]
        np.testing.assert_allclose(actual.pooler_output[row].numpy(), np.mean(states, axis=0), atol=1e-6)
    assert torch.equal(actual.last_hidden_state, layers[-1])


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_the_projection_is_where_its_name_says(projection):
    model = trainable(projection=projection, pooling="mean").eval()
    flat = {name: values[:, 0] for name, values in batch().items()}
    with torch.no_grad():
        pooled = trainable(projection="none", pooling="mean").eval()
        pooled.arccse.encoder.load_state_dict(model.arccse.encoder.state_dict())
        plain = pooled(**flat).sentence_embedding
        dense = {"none": None, "mlp": model.arccse.projection, "mlp_train_only": model.projection}[projection]
        projected = plain if dense is None else torch.tanh(plain @ dense.dense.weight.T + dense.dense.bias)
        at_inference = projected if projection == "mlp" else plain
        torch.testing.assert_close(model(**flat).sentence_embedding, at_inference)
        torch.testing.assert_close(model(**flat).training_embedding, projected)


@pytest.mark.parametrize("projection", ["mlp", "mlp_train_only"])
def test_a_new_projection_starts_as_berts_pooler_does(projection, tmp_path):
    """Like SimCSE's: normal with a deviation of 0.02, and no bias. PyTorch's own would be 0.144 here."""
    BertModel(tiny_config("bert")).save_pretrained(tmp_path)
    for model in (
        trainable(projection=projection),
        ArcCSEForContrastiveLearning.from_backbone(tmp_path, projection=projection),
    ):
        dense = (model.base_model if projection == "mlp" else model).projection.dense
        assert dense.weight.std().item() == pytest.approx(0.02, rel=0.2)
        assert not dense.bias.any()


def test_the_default_projection_follows_the_pooling():
    assert ArcCSEConfig(pooling="cls").projection == "mlp_train_only"
    assert {ArcCSEConfig(pooling=pooling).projection for pooling in POOLINGS if pooling != "cls"} == {"none"}


def test_forward_gives_each_heads_loss_and_the_cosines_behind_it():
    config = {"angular_margin": 25.0, "temperature": 0.1, "triplet_margin": 0.3, "pooling": "mean"}
    model = trainable(**config).eval()
    pair, triplet = batch(rows=4, views=3), batch(rows=3, views=3, seed=1)
    with torch.no_grad():
        output = model(pair=pair, triplet=triplet)
        anchors, positives, negatives = (
            model(**{name: values[:, view] for name, values in pair.items()}).sentence_embedding for view in range(3)
        )
        versions = [model(**{name: v[:, view] for name, v in triplet.items()}).sentence_embedding for view in range(3)]
    expected = arccon_loss(anchors, positives, negatives=negatives, angular_margin=25, temperature=0.1)
    torch.testing.assert_close(output.arccon_loss, expected)
    torch.testing.assert_close(output.triplet_loss, triplet_loss(*versions, triplet_margin=0.3))
    cosine = torch.nn.functional.cosine_similarity
    keys = torch.cat([positives, negatives])
    torch.testing.assert_close(output.cosines, cosine(anchors.unsqueeze(1), keys.unsqueeze(0), dim=-1))
    torch.testing.assert_close(output.closer_cosine, cosine(versions[0], versions[1]))
    torch.testing.assert_close(output.farther_cosine, cosine(versions[0], versions[2]))


def test_the_two_views_of_a_sentence_get_different_dropout_and_triplets_none():
    model = trainable(pooling="mean").train()
    twice = {name: values[:, :1].expand(-1, 2, -1).contiguous() for name, values in batch().items()}
    triplet = {name: values[:, :1].expand(-1, 3, -1).contiguous() for name, values in batch().items()}
    output = model(pair=twice, triplet=triplet)
    assert (output.cosines.diagonal() < 0.9999).all()
    torch.testing.assert_close(output.closer_cosine, torch.ones(5))
    assert all(module.training for module in model.modules())  # and dropout is back on
    with_dropout = model(pair=twice, triplet=triplet, triplet_dropout=True)
    assert (with_dropout.closer_cosine < 0.9999).all()


def test_a_large_cosine_matrix_is_taken_a_few_rows_at_a_time(monkeypatch):
    gradients = []
    for at_once in (10**6, 50):  # all 9 rows with 18 keys; or 2 at a time
        monkeypatch.setattr("arccse_hf.model.heads._COSINES_AT_ONCE", at_once)
        model = trainable(pooling="mean").double().eval()
        output = model(pair=batch(rows=9, views=3))
        output.arccon_loss.backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()} | {"": output.arccon_loss})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_a_batch_without_triplets_has_no_triplet_loss():
    output = trainable()(pair=batch())
    assert output.triplet_loss is None and output.closer_cosine is None


def test_outputs_are_containers_that_distributed_training_can_look_into():
    output = trainable()(pair=batch(), triplet=batch(views=3))
    assert {id(tensor) for tensor in tree_flatten(output)[0]} == {id(tensor) for tensor in output.values()}
    assert {"arccon_loss", "triplet_loss", "key_embeddings"} < set(output.keys())


@pytest.mark.parametrize("given", [{}, {"pair": batch(), "input_ids": torch.ones(1, 3, dtype=torch.long)}])
def test_forward_wants_sentences_or_pairs(given):
    with pytest.raises(ValueError, match="either input_ids"):
        trainable()(**given)


@pytest.mark.parametrize("kind", [BertModel, BertForPreTraining, BertForMaskedLM, RobertaForMaskedLM])
def test_from_backbone_really_loads_the_weights(kind, tmp_path):
    family = "roberta" if kind is RobertaForMaskedLM else "bert"
    source = kind(tiny_config(family))
    source.save_pretrained(tmp_path)
    model = ArcCSEModel.from_backbone(tmp_path, pooling="mean")
    weights = source.base_model.state_dict()
    loaded = model.encoder.state_dict()
    assert len(loaded) > 40
    assert all(torch.equal(value, weights[name]) for name, value in loaded.items())
    assert model.config.backbone_config.model_type == family and model.config.pooling == "mean"


def test_from_backbone_trains_in_float32_whatever_was_saved(tmp_path):
    BertModel(tiny_config("bert")).half().save_pretrained(tmp_path)
    assert {weight.dtype for weight in ArcCSEForContrastiveLearning.from_backbone(tmp_path).parameters()} == {
        torch.float32
    }


def test_from_backbone_refuses_a_checkpoint_that_lacks_weights(tmp_path):
    source = BertModel(tiny_config("bert"))
    state = {name: value for name, value in source.state_dict().items() if "layer.1" not in name}
    source.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match="lacks 16 weights"):
        ArcCSEModel.from_backbone(tmp_path)


def test_from_backbone_refuses_what_is_no_encoder(tmp_path):
    GPT2Model(GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ValueError, match="is a decoder"):
        ArcCSEModel.from_backbone(tmp_path / "gpt2")
    t5 = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
    T5EncoderModel(t5).save_pretrained(tmp_path / "t5")
    with pytest.raises(ValueError, match="encoder-decoder"):
        ArcCSEModel.from_backbone(tmp_path / "t5")
    trainable().save_pretrained(tmp_path / "ours")
    with pytest.raises(ValueError, match="from_pretrained"):
        ArcCSEModel.from_backbone(tmp_path / "ours")


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("pooling", "max", "cls, mean, mean_first_last, mean_top2"),
        ("pooling", 3, "cls, mean"),
        ("projection", "linear", "none, mlp, mlp_train_only"),
        ("temperature", 0, "above 0"),
        ("temperature", "0.05", "above 0"),
        ("temperature", float("nan"), "above 0"),
        ("angular_margin", 90, r"\[0, 90\)"),
        ("angular_margin", -1, r"\[0, 90\)"),
        ("triplet_margin", -0.1, r"\[0, 2\)"),
    ],
)
def test_the_configuration_names_what_is_wrong_and_what_is_allowed(field, value, allowed):
    with pytest.raises(ValueError, match=f"{field} must be .*{allowed}"):
        ArcCSEConfig(**{field: value})


def test_the_configuration_survives_a_round_trip(tmp_path):
    config = ArcCSEConfig(backbone_config=tiny_config("electra"), pooling="mean_top2", angular_margin=20.0)
    config.save_pretrained(tmp_path)
    again = ArcCSEConfig.from_pretrained(tmp_path)
    assert (again.pooling, again.angular_margin, again.projection) == ("mean_top2", 20.0, "none")
    assert again.backbone_config.embedding_size == 12 and again.hidden_size == 16


def test_models_do_not_share_a_backbone_configuration(tmp_path):
    BertModel(tiny_config("bert")).save_pretrained(tmp_path)
    first = ArcCSEModel.from_backbone(tmp_path)
    second = ArcCSEModel.from_backbone(tmp_path)
    first.config.backbone_config.architectures = ["Changed"]
    assert second.config.backbone_config.architectures != ["Changed"]
    assert second.encoder.config.architectures != ["Changed"]


def test_recomputed_activations_have_the_gradient_of_the_loss_with_the_masks_that_were_drawn():
    """By differences of the loss itself: activation checkpointing draws other dropout masks than a run without it."""
    model = trainable().double().train()
    model.activation_checkpointing_enable()
    texts = {"pair": batch(), "triplet": batch(rows=2, views=3)}

    def loss():
        torch.manual_seed(3)
        output = model(**texts, triplet_dropout=True)
        return output.arccon_loss + output.triplet_loss

    loss().backward()
    generator = torch.Generator().manual_seed(0)
    for name in ("embeddings.word_embeddings", "layer.0.attention", "layer.2.output", "projection"):
        weights = [weight for key, weight in model.named_parameters() if name in key]
        steps = [torch.randn(weight.shape, generator=generator, dtype=weight.dtype) for weight in weights]
        slope = sum((weight.grad * step).sum().item() for weight, step in zip(weights, steps, strict=True))
        values = []
        for size in (1e-5, -2e-5):
            with torch.no_grad():
                for weight, step in zip(weights, steps, strict=True):
                    weight += size * step
                values.append(loss().item())
        with torch.no_grad():
            for weight, step in zip(weights, steps, strict=True):
                weight += 1e-5 * step
        assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4), name
        assert abs(slope) > 1e-4, name
