"""Frozen layers get no gradient and no optimizer state, and nothing is kept of their forward pass."""

from types import SimpleNamespace

import pytest
import torch
from backbones import BACKBONES
from tiny import batch, make_trainer, tiny_model, trainable
from transformers import XLMConfig, XLMModel

from arccse_hf.errors import UserError
from arccse_hf.training.arguments import ArcCSETrainingArguments
from arccse_hf.training.frozen_layers import train_last_layers
from arccse_hf.training.trainer import ArcCSETrainer


@pytest.mark.parametrize("family", sorted(set(BACKBONES) - {"albert"}))
def test_only_the_last_layers_and_the_projection_get_a_gradient(family):
    model = trainable(family)
    train_last_layers(model, 2)
    has_graph = {0: set(), 1: set(), 2: set()}  # per layer, whether its outputs have a graph behind them
    stack = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 3)

    def note(number, output):
        if torch.is_grad_enabled():  # not where the model only looks at how the encoder reads its embeddings
            has_graph[number].add((output[0] if isinstance(output, tuple) else output).requires_grad)

    for number, layer in enumerate(stack):
        layer.register_forward_hook(lambda module, inputs, output, number=number: note(number, output))
    model(pair=batch()).arccon_loss.backward()
    names = {name for name, weight in model.named_parameters() if weight.grad is not None}
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    expected = {name for name, _ in model.named_parameters() if any(f".{n}." in name for n in (1, 2))}
    expected |= {name for name, _ in model.named_parameters() if name.startswith("projection.")}
    assert names == expected
    assert names.isdisjoint(frozen)
    assert has_graph == {0: {False}, 1: {True}, 2: {True}}


def test_what_model_init_makes_is_not_frozen_behind_its_back(tokenizer, tmp_path):
    args = ArcCSETrainingArguments(output_dir=str(tmp_path), train_last_layers=1, use_cpu=True)
    with pytest.raises(UserError, match="--train_last_layers: does not go with model_init"):
        ArcCSETrainer(args=args, model_init=tiny_model, processing_class=tokenizer, train_dataset=["a dog", "a cat"])


def test_the_optimizer_holds_no_state_of_frozen_weights(tmp_path, tokenizer, sentences):
    import datasets

    rows = datasets.Dataset.from_dict({"anchor": tokenizer(sentences)["input_ids"]})
    model = tiny_model()
    train_last_layers(model, 1)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    trainer = make_trainer(tmp_path, rows, tokenizer, model=model)
    trainer.train()
    with_state = {id(weight) for weight in trainer.optimizer.state}
    for name, weight in model.named_parameters():
        assert (id(weight) in with_state) == weight.requires_grad == (not torch.equal(weight, before[name])), name


def test_what_cannot_be_frozen_is_said():
    for number in (0, 4):
        with pytest.raises(UserError, match=f"--train_last_layers {number}: the encoder has 3 layers; give 1 to 3"):
            train_last_layers(trainable("bert"), number)
    with pytest.raises(UserError, match="--train_last_layers 1: the layers of albert share their weights"):
        train_last_layers(trainable("albert"), 1)


def test_all_parts_of_a_layer_are_trained_where_they_stand_in_several_lists():
    encoder = XLMModel(XLMConfig(vocab_size=20, emb_dim=16, n_layers=3, n_heads=2, max_position_embeddings=16))
    train_last_layers(SimpleNamespace(base_model=SimpleNamespace(encoder=encoder)), 1)
    found = {name for name, weight in encoder.named_parameters() if weight.requires_grad}
    assert found == {name for name, _ in encoder.named_parameters() if ".2." in name}
    assert {name.split(".")[0] for name in found} == {"attentions", "layer_norm1", "ffns", "layer_norm2"}
