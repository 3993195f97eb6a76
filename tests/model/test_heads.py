"""Triplets without a loss get no backward pass, and that changes neither the loss nor the gradient."""

import contextlib

import pytest
import torch
from backbones import tiny_config
from tiny import batch

from arccse_hf import ArcCSEConfig, ArcCSEForContrastiveLearning
from arccse_hf.model.heads import TripletHead

FEW, MOST = (3, 13), (10, 5)  # triplets with a loss, and without


def spread_model(triplet_margin=0.0):
    """A tiny model in float64 whose embeddings differ from the start, in training mode."""
    torch.manual_seed(0)
    backbone = tiny_config("bert")
    backbone.initializer_range = 0.5
    config = {"pooling": "mean", "projection": "mlp_train_only", "triplet_margin": triplet_margin}
    return ArcCSEForContrastiveLearning(ArcCSEConfig(backbone_config=backbone, **config)).double().train()


def triplets_of(costly, free, triplet_margin=0.0):
    """Triplets of which so many have a loss, as `input_ids` and `attention_mask` `[triplets, 3, length]`."""
    views = batch(rows=200, views=3, length=12, seed=3)
    with torch.no_grad():
        output = spread_model(triplet_margin).eval()(pair=batch(), triplet=views)
    losses = output.farther_cosine - output.closer_cosine + triplet_margin
    chosen = torch.cat([(losses > 1e-2).nonzero()[:costly, 0], (losses < -1e-2).nonzero()[:free, 0]])
    assert len(chosen) == costly + free
    return {name: values[chosen] for name, values in views.items()}


def step(model, triplet, **options):
    """Loss, logged values and gradient of a step, and the texts of the triplets embedded and sent back."""
    model.zero_grad()
    torch.manual_seed(1)
    counts = {"embedded": 0, "backward": 0}

    def count(module, arguments, named, output):
        if not module.training:  # the pair's pass has dropout
            counts["embedded"] += len(output.pooler_output)
            if output.pooler_output.requires_grad:
                output.pooler_output.register_hook(
                    lambda gradient: counts.update(backward=counts["backward"] + len(gradient))
                )

    with contextlib.ExitStack() as stack:
        stack.callback(model.arccse.register_forward_hook(count, with_kwargs=True).remove)
        output = model(pair=batch(rows=6), triplet=triplet, **options)
    (output.arccon_loss + 3 * output.triplet_loss).backward()
    values = {name: output[name] for name in ("arccon_loss", "triplet_loss", "closer_cosine", "farther_cosine")}
    return values, {name: weight.grad.clone() for name, weight in model.named_parameters()}, counts


@pytest.mark.parametrize("triplet_margin", [0.0, 0.1])
@pytest.mark.parametrize(("costly", "free"), [(0, 16), FEW, MOST])
def test_loss_and_gradient_are_those_of_all_triplets(costly, free, triplet_margin, monkeypatch):
    """Also in the second step, which knows of the first one whether it embeds with a graph at once."""
    model, triplet = spread_model(triplet_margin), triplets_of(costly, free, triplet_margin)
    steps = [step(model, triplet) for _ in range(2)]
    all_texts, costly_texts = 3 * (costly + free), 3 * costly
    monkeypatch.setattr(model, "_embed_costly_triplets", model._embed_views)
    plain_values, plain_gradients, plain_counts = step(model, triplet)
    assert plain_counts == {"embedded": all_texts, "backward": all_texts}
    if costly > free:
        assert steps[0][2] == {"embedded": 2 * all_texts, "backward": all_texts}
        assert steps[1][2] == plain_counts
    else:
        expected = {"embedded": all_texts + costly_texts, "backward": costly_texts}
        assert [counts for _, _, counts in steps] == [expected, expected]
    assert (plain_values["triplet_loss"] > 0.01) == (costly > 0)
    for values, gradients, _ in steps:
        for name, value in plain_values.items():
            torch.testing.assert_close(values[name], value, atol=1e-10, rtol=0)
        for name, gradient in plain_gradients.items():
            torch.testing.assert_close(gradients[name], gradient, atol=1e-10, rtol=0, msg=name)


def test_in_bfloat16_the_gradient_is_that_of_all_triplets_but_for_rounding(monkeypatch):
    """The look without a graph leaves no weights behind in autocast's cache whose gradient would be lost."""
    model, triplet = spread_model().float(), triplets_of(*FEW)
    with torch.autocast("cpu", torch.bfloat16):
        values, gradients, counts = step(model, triplet)
        monkeypatch.setattr(model, "_embed_costly_triplets", model._embed_views)
        plain_values, plain_gradients, _ = step(model, triplet)
    assert counts["backward"] == 3 * FEW[0]
    torch.testing.assert_close(values["triplet_loss"], plain_values["triplet_loss"], atol=1e-3, rtol=0)
    ours, theirs = (
        torch.cat([gradient.flatten() for gradient in each.values()]) for each in (gradients, plain_gradients)
    )
    assert (ours - theirs).norm() < 0.03 * theirs.norm()
    assert all(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("options", [{"triplet_dropout": True}, {"sharded": True}])
def test_all_triplets_get_a_backward_pass_where_masks_or_calls_must_be_the_same(options, monkeypatch):
    """With dropout a triplet would get other masks; and processes would differ in their calls."""
    model, triplet = spread_model(), triplets_of(*FEW)
    monkeypatch.setattr(model, "_embed_costly_triplets", None)
    calls = []
    model.arccse.register_forward_hook(lambda module, *_: calls.append(module.training))
    values, gradients, _ = step(model, triplet, **options)
    assert values["triplet_loss"] > 0.01 and all(gradient.any() for gradient in gradients.values())
    assert all(calls) if "triplet_dropout" in options else calls == [True, False]


def test_without_gradient_nothing_is_embedded_twice():
    model = spread_model()
    with torch.no_grad():
        calls = []
        model.arccse.register_forward_hook(lambda module, arguments, output: calls.append(len(output.pooler_output)))
        model(pair=batch(rows=6), triplet=triplets_of(*FEW))
    assert sum(calls) == 2 * 6 + 3 * 16


def test_rounding_leaves_no_triplet_out():
    """Unit vectors whose cosines differ by so much; in bfloat16 cosines have two digits."""
    head = TripletHead(ArcCSEConfig(triplet_margin=0.1))
    farther = torch.tensor([0.61, 0.6, 0.599_995, 0.599, 0.59])
    closer = torch.full((5,), 0.7)
    triplets = torch.stack(
        [torch.stack([cosine, (1 - cosine**2).sqrt()], -1) for cosine in (torch.ones(5), closer, farther)], 1
    )
    assert head.may_cost(triplets).tolist() == [True, True, True, False, False]
    with torch.autocast("cpu", torch.bfloat16):
        assert head.may_cost(triplets).tolist() == [True, True, True, True, False]
    assert head.may_cost(triplets.bfloat16()).tolist()[3:] == [True, False]
