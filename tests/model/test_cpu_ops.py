"""What makes a CPU fast changes nothing of the mathematics: dropout, attention."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from tiny import gradients, padded, trainable

from arccse_hf.model import cpu_ops as cpu_training


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_drops_so_many_scales_the_rest_and_keeps_the_mask_for_the_gradient(p, dtype):
    torch.manual_seed(0)
    ones = torch.ones(401, 1003, dtype=dtype, requires_grad=True)  # no multiple of 4
    dropped = cpu_training.dropout(ones, p)
    kept = dropped != 0
    assert dropped.dtype == dtype
    torch.testing.assert_close(dropped[kept], torch.full_like(dropped[kept], 1 / (1 - p)), rtol=2e-5, atol=0)
    deviation = (p * (1 - p) / ones.numel()) ** 0.5
    assert abs((~kept).float().mean() - p) < 4 * deviation + 2**-16
    dropped.sum().backward()
    assert torch.equal(ones.grad, dropped.detach())
    # Neighbours, of which four come out of one random number, know nothing of each other.
    flat = kept.flatten().float() - kept.float().mean()
    for shift in (1, 2, 3, 4):
        assert abs((flat[shift:] * flat[:-shift]).mean()) < 4 * p * (1 - p) / ones.numel() ** 0.5


def test_dropout_follows_the_seed():
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(cpu_training.dropout(torch.ones(100), 0.5))
        torch.rand(1)
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


def test_what_is_no_dropout_or_drops_everything_is_left_to_pytorch():
    ones = torch.ones(10)
    assert cpu_training.dropout(ones, 0.5, training=False) is ones
    assert torch.equal(cpu_training.dropout(ones, 0.0), ones)
    assert torch.equal(cpu_training.dropout(ones, 1.0), torch.zeros(10))
    assert cpu_training.dropout(ones, 1.0, inplace=True) is ones and ones.sum() == 0


@pytest.mark.parametrize("mask", ["none", "boolean", "additive"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 0.02)]
)
def test_attention_is_pytorchs(mask, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(cpu_training, "dropout", lambda weights, p: weights)
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 4, 2, 7, 8, dtype=torch.float64)
    allowed = torch.rand(4, 1, 7, 7) > 0.3
    allowed[..., 0] = True
    masks = {"none": None, "boolean": allowed, "additive": torch.zeros(4, 1, 7, 7, dtype=dtype)}
    masks["additive"].masked_fill_(~allowed, -1e4)
    attn_mask = None if mask == "none" else allowed
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask, scale=0.3)
    actual = cpu_training.attention(
        *(tensor.to(dtype) for tensor in (query, key, value)), masks[mask], dropout_p=0.1, scale=0.3
    )
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected, atol=tolerance, rtol=tolerance)


def test_attention_drops_weights_of_the_softmax():
    torch.manual_seed(0)
    query = key = torch.zeros(1, 1, 300, 8)  # all weights are alike
    attended = cpu_training.attention(query, key, torch.eye(300)[None, None], dropout_p=0.25)
    assert sorted(set(attended.flatten().tolist())) == pytest.approx([0, 1 / 300 / 0.75])
    assert (attended == 0).float().mean() == pytest.approx(0.25, abs=0.01)


def test_training_goes_through_them_and_evaluation_has_no_dropout(monkeypatch):
    calls = []

    def spy(input, p=0.5, training=True, inplace=False):
        calls.append(training)
        return input

    monkeypatch.setattr(cpu_training, "dropout", spy)
    model = trainable("bert", pooling="mean").train()
    model(**padded(5), project=True)
    # The embeddings, then in each of three layers the attention weights and two hidden states.
    assert calls == [True] * (1 + 3 * 3)
    calls.clear()
    model.eval()(**padded(5), project=True)
    assert not any(calls)


def test_activation_checkpointing_computes_the_same_masks_again(monkeypatch):
    """The gradient is that of a pass which keeps everything, with PyTorch's own dropout."""
    results = []
    for checkpointing in (False, True):
        model = trainable("bert", pooling="mean").double().train()
        if checkpointing:
            model.activation_checkpointing_enable()
        else:
            monkeypatch.setattr(cpu_training, "FastCpuOps", lambda *_: contextlib.nullcontext())
        torch.manual_seed(1)
        results.append(gradients(model, model(**padded(), project=True)))
        monkeypatch.undo()
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient, msg=lambda text, name=name: f"{name}: {text}")
