"""What makes a CPU fast changes nothing of the mathematics: token embeddings, dropout, attention."""

import pytest
import torch
import torch.nn.functional as F
from backbones import tiny_config
from tiny import batch, padded, trainable

from arccse_hf import ArcCSEConfig, ArcCSEForContrastiveLearning
from arccse_hf.model import cpu_ops, length_batching

NO_DECODER = torch.nn.Module()
NO_DECODER.is_causal = False


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_drops_so_many_scales_the_rest_and_keeps_the_mask_for_the_gradient(p, dtype):
    torch.manual_seed(0)
    ones = torch.ones(401, 1003, dtype=dtype, requires_grad=True)  # no multiple of 4
    dropped = cpu_ops.fast_dropout(ones, p)
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
        masks.append(cpu_ops.fast_dropout(torch.ones(100), 0.5))
        torch.rand(1)
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


def test_what_is_no_dropout_or_drops_everything_is_left_to_pytorch():
    ones = torch.ones(10)
    assert cpu_ops.fast_dropout(ones, 0.5, training=False) is ones
    assert torch.equal(cpu_ops.fast_dropout(ones, 0.0), ones)
    assert torch.equal(cpu_ops.fast_dropout(ones, 1.0), torch.zeros(10))
    assert cpu_ops.fast_dropout(ones, 1.0, inplace=True) is ones and ones.sum() == 0


@pytest.mark.parametrize("mask", ["none", "boolean", "additive"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 0.02)]
)
def test_attention_is_pytorchs(mask, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(cpu_ops, "fast_dropout", lambda weights, p: weights)
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 4, 2, 7, 8, dtype=torch.float64)
    allowed = torch.rand(4, 1, 7, 7) > 0.3
    allowed[..., 0] = True
    masks = {"none": None, "boolean": allowed, "additive": torch.zeros(4, 1, 7, 7, dtype=dtype)}
    masks["additive"].masked_fill_(~allowed, -1e4)
    attn_mask = None if mask == "none" else allowed
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask, scale=0.3)
    inputs = [tensor.to(dtype) for tensor in (query, key, value)]
    actual, _ = cpu_ops.unfused_attention(NO_DECODER, *inputs, masks[mask], dropout=0.1, scaling=0.3)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.transpose(1, 2).double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_without_dropout_is_left_to_pytorch(is_causal):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 4, 2, 7, 8)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=is_causal)
    for dropout in (0.0, 1e-12) if is_causal else (0.0,):  # no causal attention is in plain steps
        actual, _ = cpu_ops.unfused_attention(NO_DECODER, query, key, value, None, dropout, is_causal=is_causal)
        torch.testing.assert_close(actual.transpose(1, 2), expected, rtol=1e-4, atol=1e-5)


def test_attention_drops_weights_of_the_softmax():
    torch.manual_seed(0)
    query = key = torch.zeros(1, 1, 300, 8)  # all weights are alike
    attended, _ = cpu_ops.unfused_attention(NO_DECODER, query, key, torch.eye(300)[None, None], None, dropout=0.25)
    assert sorted(set(attended.flatten().tolist())) == pytest.approx([0, 1 / 300 / 0.75])
    assert (attended == 0).float().mean() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_training_goes_through_them_and_evaluation_has_no_dropout(family, monkeypatch):
    calls = []

    def spy(input, p=0.5, training=True, inplace=False):
        calls.append((input.dim(), training and p > 0))
        return input

    monkeypatch.setattr(cpu_ops, "fast_dropout", spy)
    config = tiny_config(family)
    if family == "modernbert":
        config.attention_dropout = config.mlp_dropout = config.embedding_dropout = 0.1
    model = ArcCSEForContrastiveLearning(ArcCSEConfig(backbone_config=config, pooling="mean")).train()
    model(**padded(5))
    # The attention weights of each of three layers; hidden states at the embeddings and in the layers.
    assert calls.count((4, True)) == 3
    assert calls.count((3, True)) == 7
    calls.clear()
    model.eval()(**padded(5))
    assert (3, False) in calls and not any(dropped for _, dropped in calls)
    assert model.arccse.encoder.config._attn_implementation == "sdpa"  # as before


@pytest.mark.parametrize("kind", ["ids only", "more than ids"])
def test_an_encoder_that_reads_ids_alone_is_given_ids(kind):
    """Its code is its own, and looks up with arguments by name."""
    model = trainable("bert", pooling="mean").train()
    encoder = model.arccse.encoder
    by_ids = encoder.forward

    def forward(input_ids=None, attention_mask=None, return_dict=True):
        states = F.embedding(input=input_ids, weight=model.get_input_embeddings().weight)
        return by_ids(inputs_embeds=states, attention_mask=attention_mask)

    def shifted(input_ids=None, attention_mask=None, inputs_embeds=None, return_dict=True):
        if inputs_embeds is None:
            inputs_embeds = model.get_input_embeddings()(input_ids) * (1 + input_ids[..., None] % 3)
        return by_ids(inputs_embeds=inputs_embeds, attention_mask=attention_mask)

    encoder.forward = forward if kind == "ids only" else shifted
    embeddings = model(**padded()).sentence_embedding
    assert embeddings.requires_grad
    model.eval()
    expected = model.arccse(**padded()).pooler_output
    torch.testing.assert_close(model(**padded()).sentence_embedding, expected)


def test_the_look_at_an_encoder_leaves_autocast_no_weights_without_a_graph():
    """PyTorch 2.9, for one, trains with the casts that it keeps of a pass without a graph: no gradient gets through."""
    model, seen = trainable("bert", pooling="mean").train(), set()
    model.arccse.encoder.register_forward_pre_hook(
        lambda *_: seen.add((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
    )
    with torch.autocast("cpu", torch.bfloat16):
        output = model(pair=batch(rows=12))
    output.arccon_loss.backward()
    assert seen == {(False, False), (True, True)}
    assert all(weight.grad is not None and weight.grad.any() for weight in model.arccse.parameters())


def test_activation_checkpointing_computes_the_same_masks_again(monkeypatch):
    """The gradient is that of a pass which keeps everything, with PyTorch's own dropout.

    The masks, and so the loss, differ from those without checkpointing, which come from `fast_dropout`.
    """
    results = []
    for checkpointing in (False, True):
        model = trainable("bert", pooling="mean").double().train()
        if checkpointing:
            model.activation_checkpointing_enable()
        else:
            by_pytorch = "embed_parts", lambda model, parts: [model(**part).pooler_output for part in parts]
            monkeypatch.setattr(length_batching, *by_pytorch)
        torch.manual_seed(1)
        output = model(pair=batch(rows=12))
        output.arccon_loss.backward()
        gradients = {name: weight.grad for name, weight in model.named_parameters()}
        results.append({"loss": output.arccon_loss.detach(), **gradients})
        monkeypatch.undo()
    for name, expected in results[0].items():
        torch.testing.assert_close(results[1][name], expected, msg=lambda text, name=name: f"{name}: {text}")
