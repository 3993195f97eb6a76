"""What the log says of the two objectives: the gradient of each term, whatever the batches, and names that stay."""

import re
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from tiny import make_trainer, tiny_model
from transformers.integrations.integration_utils import rewrite_logs

from arccse_hf import arccon_loss, triplet_loss
from arccse_hf.training import trainer as trainer_module

MARGIN, WEIGHT = 0.3, 0.5


@pytest.fixture
def rows(tokenizer, sentences):
    """Pairs with a hard negative."""
    negatives = [text[4:] for text in sentences[::-1]]
    columns = {"anchor": sentences, "positive": [text[9:] for text in sentences], "negative": negatives}
    return Dataset.from_dict({name: tokenizer(texts)["input_ids"] for name, texts in columns.items()})


def train(folder, rows, tokenizer, **settings):
    """The log of a run that does not move, and its batches."""
    settings = {"learning_rate": 0.0, "triplet_weight": WEIGHT, "max_steps": 4, "triplet_min_tokens": 15} | settings
    trainer = make_trainer(folder, rows, tokenizer, model(), **settings)
    batches, compute_loss = [], trainer.compute_loss
    trainer.compute_loss = lambda wrapped, inputs, **more: (
        batches.append(inputs) or compute_loss(wrapped, inputs, **more)
    )
    trainer.train()
    return [line for line in trainer.state.log_history if "loss" in line], batches


def model():
    return tiny_model(dropout=0.0, pooling="mean", temperature=0.3, triplet_margin=MARGIN)


def norms(batches):
    """Of the gradients at the embeddings of all batches of a step: one autograd pass per term."""
    encoder, squares = model().eval(), [0.0, 0.0]
    for batch in batches:
        views = {}
        for kind, texts in batch.items():
            with torch.no_grad():
                flat = {name: values.flatten(0, 1) for name, values in texts.items()}
                embeddings = encoder(**flat).sentence_embedding.unflatten(0, texts["input_ids"].shape[:2])
            views[kind] = embeddings.requires_grad_()
        anchors, positives, negatives = views["pair"].unbind(1)
        pair = arccon_loss(anchors, positives, negatives=negatives, angular_margin=10, temperature=0.3)
        triplet = WEIGHT * triplet_loss(*views["triplet"].unbind(1), triplet_margin=MARGIN)
        for index, (loss, kind) in enumerate([(pair, "pair"), (triplet, "triplet")]):
            (loss / len(batches)).backward()
            squares[index] += sum(value.item() ** 2 for value in views[kind].grad.flatten())
    return [square**0.5 for square in squares]


@pytest.mark.parametrize("chunk_size", [None, 5])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_gradient_norms_are_those_of_the_step_of_the_line(tmp_path, rows, tokenizer, accumulation, chunk_size):
    lines, batches = train(
        tmp_path, rows, tokenizer, gradient_accumulation_steps=accumulation, grad_cache_chunk_size=chunk_size,
        logging_steps=2, per_device_train_batch_size=4,
    )  # fmt: skip
    assert len(lines) == 2 and len(batches) == 4 * accumulation
    for number, line in enumerate(lines, 1):
        step = batches[(2 * number - 1) * accumulation : 2 * number * accumulation]
        arccon, triplet = norms(step)
        assert triplet > 1e-3
        assert line["arccon_grad_norm"] == pytest.approx(arccon, rel=1e-4)
        assert line["triplet_grad_norm"] == pytest.approx(triplet, rel=1e-4)


def test_only_steps_that_are_logged_compute_them(tmp_path, rows, tokenizer, monkeypatch):
    computed, compute = [], trainer_module.gradients_at_embeddings
    monkeypatch.setattr(
        trainer_module, "gradients_at_embeddings", lambda *given: computed.append(given) or compute(*given)
    )
    lines, batches = train(tmp_path, rows, tokenizer, logging_steps=3, logging_first_step=True, max_steps=5)
    assert len(batches) == 5 and len(computed) == 2
    assert [("arccon_grad_norm" in line) for line in lines] == [True, True]
    train(tmp_path / "epochs", rows, tokenizer, logging_strategy="epoch", num_train_epochs=1, max_steps=-1)
    assert len(computed) == 2


def test_lines_without_triplets_have_no_names_of_triplets(tmp_path, rows, tokenizer):
    lines, _ = train(tmp_path, rows, tokenizer, logging_steps=1, triplet_min_tokens=1000)
    assert all("arccon_grad_norm" in line for line in lines)
    assert not [name for line in lines for name in line if "triplet" in name]


def test_every_name_is_documented_and_reaches_tensorboard_under_train(tmp_path, rows, tokenizer):
    lines, _ = train(tmp_path, rows, tokenizer, logging_steps=1, max_steps=2, anchor_weight=1.0)
    text = (Path(__file__).parents[2] / "docs" / "training-log.md").read_text(encoding="utf-8")
    text = text.partition("## The last line")[0]
    documented = {name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"\w+", row)}
    assert set(lines[0]) - {"step"} == documented - {"skipped_steps"}  # of which there are none
    assert set(rewrite_logs(lines[0])) == {f"train/{name}" for name in lines[0]}
