"""The gradient cache: the gradient of the whole batch, dropout included, with one chunk's activations at a time."""

import contextlib
import weakref

import pytest
import torch
from backbones import tiny_config
from datasets import Dataset
from tiny import make_trainer

from arccse_hf import ArcCSEConfig, ArcCSEForContrastiveLearning
from arccse_hf.data.collator import ArcCSECollator
from arccse_hf.errors import UserError
from arccse_hf.training.arguments import ArcCSETrainingArguments
from arccse_hf.training.grad_cache import GradCache


def spread_model(dropout):
    """A tiny model in training mode, whose embeddings differ from the start.

    Its gradients reach 20. They are compared in float64, because float32 rounds them to 1e-6.
    """
    torch.manual_seed(0)
    backbone = tiny_config("bert")
    backbone.hidden_dropout_prob = backbone.attention_probs_dropout_prob = dropout
    backbone.initializer_range = 0.5
    config = ArcCSEConfig(backbone_config=backbone, pooling="mean", projection="mlp_train_only", triplet_margin=0.3)
    return ArcCSEForContrastiveLearning(config).train()


@pytest.fixture
def rows(tokenizer, sentences):
    """48 rows of three texts that differ in length."""
    texts = {
        "anchor": sentences,
        "positive": [sentence[number % 7 :] for number, sentence in enumerate(sentences)],
        "negative": [sentence[: 20 + number] for number, sentence in enumerate(reversed(sentences))],
    }
    return Dataset.from_dict({name: tokenizer(column)["input_ids"] for name, column in texts.items()})


@pytest.fixture
def batch(tokenizer, rows):
    """48 pairs with a hard negative, and 30 triplets."""
    return ArcCSECollator(tokenizer, triplet_min_tokens=15, span_corruption="delete")(list(rows))


def gradients(model, outputs=None):
    """Those of the sum of the two losses; or what has been collected."""
    if outputs is not None:
        (outputs.arccon_loss + outputs.triplet_loss).backward()
    return {name: weight.grad for name, weight in model.named_parameters()}


def cached_gradients(model, batch, chunk_size):
    cache = GradCache(model, chunk_size, contextlib.nullcontext)
    outputs = model.losses(cache.embed(batch["pair"]), cache.embed(batch["triplet"], dropout=False))
    assert set(gradients(model, outputs).values()) == {None}
    torch.rand(1)  # somebody else may draw random numbers in between
    cache.backward()
    return gradients(model)


def assert_same(actual, expected):
    assert max(gradient.abs().max() for gradient in expected.values()) > 1
    for name, gradient in expected.items():
        torch.testing.assert_close(
            actual[name], gradient, atol=1e-9, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("chunk_size", [5, 64, 1000])
def test_the_gradient_is_that_of_the_batch_at_once_whatever_the_chunk(batch, chunk_size):
    model = spread_model(dropout=0.0).double()
    expected = gradients(model, model(**batch))
    assert_same(cached_gradients(spread_model(dropout=0.0).double(), batch, chunk_size), expected)


def test_a_chunk_has_the_dropout_masks_of_its_first_pass(batch):
    """The same chunks with all their graphs kept; and random numbers go on as if each text were embedded once."""
    model = spread_model(dropout=0.3).double()
    torch.manual_seed(1)
    embeddings = []
    for kind in ("pair", "triplet"):
        model.train(kind == "pair")
        flat = {name: values.flatten(0, 1) for name, values in batch[kind].items()}
        order = flat["attention_mask"].sum(-1).argsort(stable=True)
        parts = [
            model(**{name: values[part] for name, values in flat.items()}).training_embedding for part in order.split(7)
        ]
        embeddings.append(torch.cat(parts)[order.argsort()].unflatten(0, batch[kind]["input_ids"].shape[:2]))
    expected = gradients(model, model.losses(*embeddings))
    expected_next = torch.rand(2)[1]

    again = spread_model(dropout=0.3).double()
    torch.manual_seed(1)
    assert_same(cached_gradients(again, batch, 7), expected)
    assert torch.rand(1) == expected_next


@pytest.mark.parametrize("chunk_size", [7, 1000])
def test_texts_without_a_gradient_are_embedded_once(batch, chunk_size):
    """Those of triplets in the right order."""
    model = spread_model(dropout=0.0).double()
    model.triplet_head.triplet_margin = 0.0
    outputs = model(**batch)
    costly = int((outputs.triplet_losses > 0).sum())
    assert 0 < costly < 15
    expected = gradients(model, outputs)
    again = spread_model(dropout=0.0).double()
    again.triplet_head.triplet_margin = 0.0
    texts = []
    again.register_forward_hook(lambda module, inputs, output: texts.append(len(output.training_embedding)))
    assert_same(cached_gradients(again, batch, chunk_size), expected)
    assert sum(texts) == 2 * 48 * 3 + 30 * 3 + 3 * costly


def test_one_chunk_at_a_time_holds_activations(batch):
    model = spread_model(dropout=0.1)
    calls = []

    def watch(_, args, kwargs, output):
        embeddings = output.training_embedding
        assert len(kwargs["input_ids"]) <= 16
        assert [number for number, held in enumerate(calls) if held is not None and held() is not None] == []
        calls.append(weakref.ref(embeddings) if embeddings.requires_grad else None)

    model.register_forward_hook(watch, with_kwargs=True)
    cached_gradients(model, batch, 16)
    once = 48 * 3 // 16 + -(-30 * 3 // 16)
    assert [held is None for held in calls] == [True] * once + [False] * once


SETTINGS = {
    "accumulation and clipping": {"gradient_accumulation_steps": 3, "max_grad_norm": 0.5},
    "dropout in the triplets too": {"triplet_dropout": True},
    "activation checkpointing": {"activation_checkpointing": True},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_training_goes_as_without_it(tmp_path, rows, tokenizer, settings, monkeypatch):
    """Dropout included, where the encoder is given the same texts together: here each alone."""
    monkeypatch.setattr("arccse_hf.model.length_batching._ON_A_CPU", (1, 0))
    runs = []
    for chunk_size in (None, 8):
        trainer = make_trainer(
            tmp_path, rows, tokenizer, spread_model(dropout=0.1), grad_cache_chunk_size=chunk_size, triplet_weight=0.5,
            per_device_train_batch_size=6, max_steps=2, optim="sgd", **settings,
        )  # fmt: skip
        trainer.train()
        runs.append((trainer.model.state_dict(), [line for line in trainer.state.log_history if "loss" in line]))
    (plain, plain_log), (cached, cached_log) = runs
    for name, weight in plain.items():
        torch.testing.assert_close(
            cached[name], weight, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )
    for line, expected in zip(cached_log, plain_log, strict=True):
        assert line == pytest.approx(expected, rel=1e-4)


def test_mixed_precision(tmp_path, rows, tokenizer, monkeypatch):
    """In bfloat16 gradients agree as far as its three digits go."""
    monkeypatch.setattr("arccse_hf.model.length_batching._ON_A_CPU", (1, 0))
    moved = []
    for chunk_size in (None, 16):
        model = spread_model(dropout=0.1)
        start = {name: weight.clone() for name, weight in model.state_dict().items()}
        make_trainer(
            tmp_path, rows, tokenizer, model, grad_cache_chunk_size=chunk_size, bf16=True, max_steps=1, optim="sgd",
            per_device_train_batch_size=16, max_grad_norm=0.0,
        ).train()  # fmt: skip
        moved.append(torch.cat([(weight - start[name]).flatten() for name, weight in model.state_dict().items()]))
    assert torch.nn.functional.cosine_similarity(*moved, dim=0) > 0.999
    assert moved[1].norm() == pytest.approx(moved[0].norm().item(), rel=0.01)


@pytest.mark.parametrize("size", [0, -64])
def test_a_chunk_holds_one_text_or_more(tmp_path, size):
    with pytest.raises(UserError, match=f"--grad_cache_chunk_size {size}: must be a number from 1"):
        ArcCSETrainingArguments(output_dir=str(tmp_path), grad_cache_chunk_size=size)
