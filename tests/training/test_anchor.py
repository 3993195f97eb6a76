"""The anchor's loss and gradient against a plain loop, and the start encoder."""

import math

import pytest
import torch
from tiny import batch, tiny_model

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
