"""The anchor's loss and gradient against a plain loop, and the start encoder."""

import math

import pytest
import torch
from datasets import Dataset
from tiny import batch, make_trainer, tiny_model

from arccse_hf.training.anchor import StartEncoder, anchor_loss


def plain_loss_and_gradient(cosines, start):
    """The mean over rows of -sum_j p_j log q_j without the diagonal; its derivative is (q - p) / temperature."""
    rows, keys = len(cosines), len(cosines[0])
    total, gradient = 0.0, [[0.0] * keys for _ in range(rows)]
    for i in range(rows):
        others = [j for j in range(keys) if j != i]
        p = {j: math.exp(start[i][j] / 0.025) for j in others}
        q = {j: math.exp(cosines[i][j] / 0.05) for j in others}
        for j in others:
            p_j, q_j = p[j] / sum(p.values()), q[j] / sum(q.values())
            total -= p_j * math.log(q_j) / rows
            gradient[i][j] = (q_j - p_j) / 0.05 / rows
    return total, gradient


@pytest.mark.parametrize("keys", [4, 9])  # as many as rows, or those of other processes too
def test_loss_and_gradient_equal_a_plain_loop(keys):
    generator = torch.Generator().manual_seed(keys)
    cosines, start = (torch.rand(4, keys, generator=generator) * 2 - 1 for _ in range(2))
    cosines.requires_grad_()
    loss = anchor_loss(cosines, start)
    loss.backward()
    expected, gradient = plain_loss_and_gradient(cosines.tolist(), start.tolist())
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(cosines.grad, torch.tensor(gradient), atol=1e-6)


def test_one_text_has_nothing_to_be_ranked():
    cosines = torch.ones(1, 1, requires_grad=True)
    anchor_loss(cosines, cosines.detach()).backward()
    assert cosines.grad.item() == 0


def test_the_start_encoder_stays_as_it_was_and_embeds_each_text_once():
    model = tiny_model(dropout=0.5).train()
    start = StartEncoder(model.base_model, cached_texts=3)
    views = batch(rows=5)
    views["input_ids"][1], views["attention_mask"][1] = views["input_ids"][0], views["attention_mask"][0]
    expected = torch.stack(
        [model.base_model.eval()(ids, mask).pooler_output for ids, mask in zip(*views.values(), strict=True)]
    )
    for weight in model.parameters():
        weight.data.add_(1)
    calls = []
    start.model.register_forward_hook(lambda module, inputs, output: calls.append(len(output.pooler_output)))
    assert torch.allclose(start.embed(views), expected, atol=1e-5)
    assert sum(calls) == 8  # of ten texts, two are there twice
    calls.clear()
    assert torch.allclose(start.embed(views), expected, atol=1e-5)
    assert sum(calls) == 5  # three are kept
    assert not start.embed(views).requires_grad


def cosines(first, second):
    return torch.nn.functional.cosine_similarity(first[:, None], second[None], dim=-1)


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_the_trainer_adds_the_anchor_and_leaves_false_negatives_out(tmp_path, tokenizer, sentences, chunk_size):
    ids = tokenizer(sentences[:8])["input_ids"]
    rows = Dataset.from_dict({"anchor": ids, "positive": ids[1:] + ids[:1]})
    model = tiny_model(dropout=0.0, pooling="mean")
    settings = {"triplet_weight": 0, "anchor_weight": 0.5, "false_negative_threshold": 0.97}
    trainer = make_trainer(tmp_path, rows, tokenizer, model, grad_cache_chunk_size=chunk_size, **settings)
    for weight in model.parameters():  # what was trained since
        weight.data += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
    inputs = trainer.data_collator(list(rows))
    trainer.current_gradient_accumulation_steps = 1  # `train` would set it
    loss = trainer.training_step(model.train(), inputs)
    gradient = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}

    def embeddings(encoder):
        return [encoder(**{name: values[:, view] for name, values in inputs["pair"].items()}) for view in (0, 1)]

    start = cosines(*(output.pooler_output for output in embeddings(trainer._start.model)))
    model.zero_grad()
    now = cosines(*(output.training_embedding for output in embeddings(model)))
    left_out = (start > 0.97) & ~torch.eye(8, dtype=torch.bool)
    assert 0 < left_out.sum() < 56
    own = torch.cos(now.diagonal().clamp(max=1 - 1e-6).acos() + math.radians(10)) / 0.05
    logits = (now.masked_fill(left_out, -torch.inf) / 0.05).diagonal_scatter(own)
    arccon = (logits.logsumexp(1) - own).mean()
    total = arccon + 0.5 * plain_loss_and_gradient(now.tolist(), start.tolist())[0]
    assert loss.item() == pytest.approx(total.item(), rel=1e-4)
    (arccon + 0.5 * anchor_loss(now, start)).backward()
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            assert torch.allclose(gradient[name], weight.grad, atol=1e-4), name
