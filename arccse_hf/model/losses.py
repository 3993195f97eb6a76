"""ArcCon and the triplet loss of ArcCSE (Zhang et al., ACL 2022), as pure functions of embeddings.

Both compare directions only: embeddings are normalised here. Everything is computed in float32 (float64 stays
float64), also under autocast, because bfloat16 rounds a cosine of 0.999 to 1.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Reduction = Literal["mean", "none"]

# sin(theta) = sqrt(1 - cos(theta)^2) has an infinite derivative at theta = 0, and no value where rounding puts the
# cosine above 1 (by up to 4e-7 in float32), so the radicand is kept above 0.
_SMALLEST_SQUARED_SINE = 1e-7


def arccon_loss(
    anchors: Tensor,
    positives: Tensor,
    *,
    negatives: Tensor | None = None,
    margin_degrees: float = 10.0,
    temperature: float = 0.05,
    reduction: Reduction = "mean",
) -> Tensor:
    """ArcCon: NT-Xent with an angular margin that is added to the angle of each positive pair.

    For anchor i, with theta_ij its angle to positive j and m the margin:

        -log( exp(cos(theta_ii + m) / t) / ( exp(cos(theta_ii + m) / t) + sum over j != i of exp(cos(theta_ij) / t) ) )

    Args:
        anchors: `[batch, dim]`.
        positives: `[batch, dim]`; row i belongs to anchor i and is a negative of every other anchor.
        negatives: `[count, dim]`, further negatives of every anchor (hard negatives), which join the denominator.
        margin_degrees: the margin m in degrees, in [0, 90). 0 gives NT-Xent.
        temperature: t, above 0.
        reduction: `mean`, or `none` for one value a row.

    Returns:
        A scalar, or `[batch]` with `reduction="none"`.

    Raises:
        ValueError: shapes that do not fit, or a margin, temperature or reduction outside what is allowed.
    """
    _require_same_shape(anchors=anchors, positives=positives)
    keys = positives
    if negatives is not None:
        if negatives.dim() != 2 or negatives.shape[1] != anchors.shape[1]:
            raise ValueError(f"negatives must be [count, {anchors.shape[1]}], not {list(negatives.shape)}")
        keys = torch.cat([positives, negatives.to(positives.dtype)])
    return arccon_loss_from_cosines(
        cosine_matrix(anchors, keys), margin_degrees=margin_degrees, temperature=temperature, reduction=reduction
    )


def arccon_loss_from_cosines(
    cosines: Tensor,
    *,
    margin_degrees: float = 10.0,
    temperature: float = 0.05,
    reduction: Reduction = "mean",
    labels: int = 0,
) -> Tensor:
    """`arccon_loss` of cosines `[batch, keys]` in float32 or float64, where key `labels` + i is the positive of
    row i."""
    if not 0 <= margin_degrees < 90:
        raise ValueError(f"margin_degrees must be in [0, 90), not {margin_degrees}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    rows = torch.arange(cosines.shape[0], device=cosines.device)
    own_keys = rows + labels
    positives = add_angular_margin(cosines[rows, own_keys], margin_degrees)
    with torch.autocast(cosines.device.type, enabled=False):
        logits = cosines.index_put((rows, own_keys), positives) / temperature
        return F.cross_entropy(logits, own_keys, reduction=_checked(reduction))


def add_angular_margin(cosines: Tensor, margin_degrees: float) -> Tensor:
    """cos(theta + m) of cos(theta), continued so that it falls with theta over all of [0, pi].

    Past theta = pi - m the true curve would rise again. There it goes on as cos(theta) - (1 - cos m), which meets it at
    -1 and keeps a gradient for pairs that point away from each other.
    """
    margin = math.radians(margin_degrees)
    sines = (1 - cosines.square()).clamp(min=_SMALLEST_SQUARED_SINE).sqrt()
    shifted = cosines * math.cos(margin) - sines * math.sin(margin)
    return torch.where(cosines > -math.cos(margin), shifted, cosines - (1 - math.cos(margin)))


def triplet_loss(
    anchors: Tensor, closer: Tensor, farther: Tensor, *, margin: float = 0.0, reduction: Reduction = "mean"
) -> Tensor:
    """Triplet loss on cosines, row by row: max(0, cos(anchor, farther) - cos(anchor, closer) + margin).

    Args:
        anchors: `[batch, dim]`, the sentences.
        closer: `[batch, dim]`, each sentence with its small span masked.
        farther: `[batch, dim]`, each sentence with the large span around it masked.
        margin: cosine by which `closer` must win.
        reduction: `mean`, or `none` for one value a row.

    Returns:
        A scalar, or `[batch]` with `reduction="none"`.

    Raises:
        ValueError: shapes that differ, or a reduction that is not one of the two.
    """
    _require_same_shape(anchors=anchors, closer=closer, farther=farther)
    return triplet_loss_from_cosines(
        row_cosines(anchors, closer), row_cosines(anchors, farther), margin=margin, reduction=reduction
    )


def triplet_loss_from_cosines(
    closer: Tensor, farther: Tensor, *, margin: float = 0.0, reduction: Reduction = "mean"
) -> Tensor:
    """`triplet_loss` of the cosines `[batch]` between each sentence and its two masked versions."""
    losses = F.relu(farther - closer + margin)
    return losses.mean() if _checked(reduction) == "mean" else losses


def cosine_matrix(rows: Tensor, keys: Tensor) -> Tensor:
    """Cosine `[rows, keys]` of every row with every key, at least float32. Rounding may leave [-1, 1] by some 1e-7."""
    with torch.autocast(rows.device.type, enabled=False):
        return _unit(rows) @ _unit(keys).T


def sum_of_cosines(rows: Tensor, keys: Tensor) -> Tensor:
    """Sum (scalar) over `cosine_matrix(rows, keys)`, in memory that is linear in their number."""
    return _unit(rows).sum(0) @ _unit(keys).sum(0)


def row_cosines(left: Tensor, right: Tensor) -> Tensor:
    """Cosine `[batch]` of row i of `left` with row i of `right`, at least float32."""
    return (_unit(left) * _unit(right)).sum(-1)


def _unit(embeddings: Tensor) -> Tensor:
    return F.normalize(embeddings if embeddings.dtype == torch.float64 else embeddings.float(), dim=-1)


def _checked(reduction: str) -> str:
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction must be 'mean' or 'none', not {reduction!r}")
    return reduction


def _require_same_shape(**tensors: Tensor) -> None:
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    first = next(iter(shapes.values()))
    if len(first) != 2 or any(shape != first for shape in shapes.values()):
        raise ValueError(f"embeddings must all be [batch, dim] of one shape, not {shapes}")
