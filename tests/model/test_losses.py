"""The two losses against plain loops and other libraries, and where their numbers are hard."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from arccse_hf.model import heads
from arccse_hf.model import losses as arccse_losses
from arccse_hf.model.configuration_arccse import ArcCSEConfig
from arccse_hf.model.losses import add_angular_margin, arccon_loss_from_cosines, cosine_matrix

# The settings that a test does not give; the losses themselves have no defaults.
arccon_loss = partial(arccse_losses.arccon_loss, angular_margin=10.0, temperature=0.05)
triplet_loss = partial(arccse_losses.triplet_loss, triplet_margin=0.0)


def embeddings(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.dist(a, [0] * len(a)) / math.dist(b, [0] * len(b))


def arccon_by_loop(anchors, positives, negatives, angular_margin, temperature):
    """The formula, one row and one key at a time, through the angle itself."""
    losses = []
    for i, anchor in enumerate(anchors):
        theta = math.acos(cosine(anchor, positives[i])) + math.radians(angular_margin)
        numerator = math.exp(math.cos(theta) / temperature)
        others = [row for j, row in enumerate(positives) if j != i] + list(negatives)
        denominator = numerator + sum(math.exp(cosine(anchor, other) / temperature) for other in others)
        losses.append(-math.log(numerator / denominator))
    return losses


@pytest.mark.parametrize("margin", [0, 5, 10, 20, 60])
@pytest.mark.parametrize("num_negatives", [0, 3])
def test_arccon_equals_a_plain_loop(margin, num_negatives):
    anchors, positives, negatives = embeddings(6, 8), embeddings(6, 8, seed=1), embeddings(num_negatives, 8, seed=2)
    expected = arccon_by_loop(anchors.tolist(), positives.tolist(), negatives.tolist(), margin, 0.05)
    given = negatives if num_negatives else None
    rows = arccon_loss(anchors, positives, negatives=given, angular_margin=margin, temperature=0.05, reduction="none")
    assert rows.tolist() == pytest.approx(expected, rel=1e-9)
    mean = arccon_loss(anchors, positives, negatives=given, angular_margin=margin, temperature=0.05)
    assert mean.item() == pytest.approx(sum(expected) / len(expected), rel=1e-9)


def test_margin_0_is_nt_xent():
    anchors, positives = embeddings(16, 32, dtype=torch.float32), embeddings(16, 32, seed=1, dtype=torch.float32)
    cosines = F.cosine_similarity(anchors.unsqueeze(1), positives.unsqueeze(0), dim=-1)
    expected = F.cross_entropy(cosines / 0.07, torch.arange(16))
    torch.testing.assert_close(arccon_loss(anchors, positives, angular_margin=0, temperature=0.07), expected)


def test_the_loss_rises_with_the_margin():
    anchors = embeddings(8, 16)
    positives = anchors + 0.3 * embeddings(8, 16, seed=1)
    losses = [arccon_loss(anchors, positives, angular_margin=margin).item() for margin in (0, 10, 20, 40)]
    assert losses == sorted(losses)
    assert all(b - a > 1e-3 for a, b in pairwise(losses))


def test_the_margin_is_only_on_the_positive():
    """Rotating negatives by hand must not be what the margin does: the negatives' share of the denominator stays."""
    anchors, positives = embeddings(4, 8), embeddings(4, 8, seed=1)
    with_margin = arccon_loss(anchors, positives, angular_margin=30, temperature=1, reduction="none")
    for i in range(4):
        theta = math.acos(cosine(anchors[i].tolist(), positives[i].tolist()))
        negatives = sum(math.exp(cosine(anchors[i].tolist(), positives[j].tolist())) for j in range(4) if j != i)
        # Solve the loss for the negatives' sum.
        logit = math.cos(theta + math.radians(30))
        assert math.exp(with_margin[i].item() + logit) - math.exp(logit) == pytest.approx(negatives, rel=1e-9)


def test_negatives_that_are_left_out_do_not_count(monkeypatch):
    anchors, positives = embeddings(6, 8, seed=3), embeddings(6, 8, seed=5)
    left_out = torch.rand(6, 6, generator=torch.Generator().manual_seed(4)) < 0.4
    left_out[0] = True  # also its positive, which stays
    cosines = cosine_matrix(anchors, positives)
    settings = {"angular_margin": 10.0, "temperature": 0.1, "reduction": "none"}
    losses = arccon_loss_from_cosines(cosines, labels=torch.arange(6), left_out=left_out, **settings)
    for row in range(6):
        kept = [row, *(key for key in range(6) if key != row and not left_out[row, key])]
        expected = arccon_loss_from_cosines(cosines[row : row + 1, kept], labels=torch.tensor([0]), **settings)
        assert torch.allclose(losses[row], expected[0])
    assert losses[0] == 0
    head = heads.ArcConHead(ArcCSEConfig(temperature=0.1))
    assert torch.allclose(head(anchors, positives, left_out), losses)
    monkeypatch.setattr(heads, "_COSINES_AT_ONCE", 12)  # two rows at a time
    assert torch.allclose(head(anchors, positives, left_out), losses)


@pytest.mark.parametrize("margin", [0.0, 10.0, 30.0, 80.0])
def test_gradcheck(margin):
    anchors, positives = embeddings(4, 6).requires_grad_(), embeddings(4, 6, seed=1).requires_grad_()
    negatives = embeddings(2, 6, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, p, n: arccon_loss(a, p, negatives=n, angular_margin=margin, temperature=0.5),
        (anchors, positives, negatives),
    )
    assert torch.autograd.gradcheck(
        lambda a, p, n: triplet_loss(a, p, n, triplet_margin=0.1),
        (anchors, positives, embeddings(4, 6, seed=3).requires_grad_()),
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("relation", ["identical", "opposite", "zero-noise copy", "all one"])
def test_value_and_gradient_stay_finite_where_cosines_reach_1(dtype, relation):
    anchors = embeddings(256, 768, dtype=torch.float32)
    positives = {
        "identical": anchors.clone(),
        "opposite": -anchors,
        "zero-noise copy": anchors * 3.0,  # the same direction, reached by other roundings
        "all one": anchors[:1].repeat(256, 1),
    }[relation]
    anchors = (positives if relation == "all one" else anchors).to(dtype).requires_grad_()
    positives = positives.to(dtype).detach().requires_grad_()
    loss = arccon_loss(anchors, positives, angular_margin=10) + triplet_loss(anchors, positives, positives.flip(0))
    loss.backward()
    assert loss.isfinite() and anchors.grad.isfinite().all() and positives.grad.isfinite().all()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("cosine", [1.0, 1 + 4e-7, -1.0, -1 - 4e-7])
@pytest.mark.parametrize("margin", [0.0, 10.0])
def test_the_margin_is_finite_at_the_ends(cosine, margin):
    cosines = torch.tensor([cosine], dtype=torch.float32, requires_grad=True)
    shifted = add_angular_margin(cosines, margin)
    shifted.backward()
    assert shifted.isfinite() and cosines.grad.isfinite() and cosines.grad > 0
    assert shifted.item() <= cosine + 1e-6


@pytest.mark.parametrize("margin", [0.0, 1.0, 10.0, 45.0, 89.0])
def test_the_shifted_cosine_falls_over_the_whole_range_of_angles(margin):
    angles = torch.linspace(0, math.pi, 20001, dtype=torch.float64)
    shifted = add_angular_margin(angles.cos(), margin)
    assert (shifted.diff() < 0).all()
    inside = (angles > 1e-3) & (angles < math.pi - math.radians(margin))
    torch.testing.assert_close(shifted[inside], (angles[inside] + math.radians(margin)).cos(), atol=1e-6, rtol=0)


def test_bfloat16_autocast_does_not_touch_the_loss():
    anchors = embeddings(32, 64, dtype=torch.float32)
    positives = anchors + 0.02 * embeddings(32, 64, seed=1, dtype=torch.float32)
    outside = arccon_loss(anchors, positives), triplet_loss(anchors, positives, -positives, triplet_margin=1.9995)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = arccon_loss(anchors, positives), triplet_loss(anchors, positives, -positives, triplet_margin=1.9995)
    assert inside == outside


def test_triplets_are_compared_row_by_row():
    """A batch is its rows one at a time: nothing is compared across sentences."""
    anchors, closer, farther = embeddings(5, 7), embeddings(5, 7, seed=1), embeddings(5, 7, seed=2)
    together = triplet_loss(anchors, closer, farther, triplet_margin=0.2, reduction="none").tolist()
    for i in range(5):
        a, c, f = anchors[i].tolist(), closer[i].tolist(), farther[i].tolist()
        assert together[i] == pytest.approx(max(0.0, cosine(a, f) - cosine(a, c) + 0.2), abs=1e-12)
    assert triplet_loss(anchors, closer, farther, triplet_margin=0.2).item() == pytest.approx(sum(together) / 5)


def test_a_wrong_order_costs_and_a_right_one_does_not():
    anchors = embeddings(3, 8)
    near, far = anchors + 0.1 * embeddings(3, 8, seed=1), anchors + 2 * embeddings(3, 8, seed=2)
    assert triplet_loss(anchors, near, far).item() == 0
    assert triplet_loss(anchors, far, near).item() > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"angular_margin": 90}, "angular_margin"),
        ({"angular_margin": -1}, "angular_margin"),
        ({"temperature": 0}, "temperature"),
        ({"reduction": "sum"}, "reduction"),
        ({"negatives": torch.zeros(2, 3)}, "negatives"),
    ],
)
def test_arguments_outside_what_is_allowed_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        arccon_loss(embeddings(4, 8), embeddings(4, 8), **arguments)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\[batch, dim\]"):
        arccon_loss(embeddings(4, 8), embeddings(5, 8))
    with pytest.raises(ValueError, match=r"\[batch, dim\]"):
        triplet_loss(embeddings(4, 8), embeddings(4, 8), embeddings(1, 8))
