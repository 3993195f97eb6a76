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
    angular_margin: float,
    temperature: float,
    reduction: Reduction = "mean",
) -> Tensor:
    """ArcCon: NT-Xent with an angular margin that is added to the angle of each positive pair.

    For anchor i, with theta_ij its angle to positive j and m the margin:

        -log( exp(cos(theta_ii + m) / t) / ( exp(cos(theta_ii + m) / t) + sum over j != i of exp(cos(theta_ij) / t) ) )

    Args:
        anchors: `[batch, dim]`.
        positives: `[batch, dim]`; row i belongs to anchor i and is a negative of every other anchor.
        negatives: `[count, dim]`, further negatives of every anchor (hard negatives), which join the denominator.
        angular_margin: The margin m in degrees, in [0, 90). 0 gives NT-Xent.
        temperature: t, above 0.
        reduction: `mean`, or `none` for one value per row.

    Returns:
        A scalar, or `[batch]` with `reduction="none"`.

    Raises:
        ValueError: Shapes do not fit, or a margin, temperature or reduction is outside what is allowed.

    Example:
        >>> anchors = torch.randn(8, 16)
        >>> positives = anchors + 0.1 * torch.randn(8, 16)
        >>> arccon_loss(anchors, positives, angular_margin=10.0, temperature=0.05).shape
        torch.Size([])
    """
    _require_same_shape(anchors=anchors, positives=positives)
    keys = positives
    if negatives is not None:
        if negatives.dim() != 2 or negatives.shape[1] != anchors.shape[1]:
            raise ValueError(f"negatives must be [count, {anchors.shape[1]}], not {list(negatives.shape)}")
        keys = torch.cat([positives, negatives.to(positives.dtype)])
    return arccon_loss_from_cosines(
        cosine_matrix(anchors, keys),
        labels=torch.arange(len(anchors), device=anchors.device),
        angular_margin=angular_margin,
        temperature=temperature,
        reduction=reduction,
    )


def arccon_loss_from_cosines(
    cosines: Tensor,
    *,
    labels: Tensor,
    angular_margin: float,
    temperature: float,
    left_out: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Returns `arccon_loss` of cosines `[batch, keys]` in float32 or float64.

    Args:
        cosines: Of each anchor with every key.
        labels: `[batch]`, the key that is the positive of each row: the target of the cross-entropy.
        angular_margin: As in `arccon_loss`; so are the others.
        temperature: t, above 0.
        left_out: Booleans `[batch, keys]`: negatives that are left out of the sum; a row's positive never is.
        reduction: `mean` or `none`.
    """
    if not 0 <= angular_margin < 90:
        raise ValueError(f"angular_margin must be in [0, 90), not {angular_margin}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    rows = torch.arange(len(labels), device=labels.device)
    positives = add_angular_margin(cosines[rows, labels], angular_margin)
    with torch.autocast(cosines.device.type, enabled=False):
        if left_out is not None:
            cosines = cosines.masked_fill(left_out, -math.inf)
        logits = cosines.index_put((rows, labels), positives) / temperature
        return F.cross_entropy(logits, labels, reduction=_checked(reduction))


def add_angular_margin(cosines: Tensor, angular_margin: float) -> Tensor:
    """Returns cos(theta + m) of cos(theta), of any shape, continued so that it falls with theta over all of [0, pi].

    Past theta = pi - m the true curve would rise again. There it goes on as cos(theta) - (1 - cos m), which meets it at
    -1 and keeps a gradient for pairs that point away from each other.
    """
    margin = math.radians(angular_margin)
    sines = (1 - cosines.square()).clamp(min=_SMALLEST_SQUARED_SINE).sqrt()
    shifted = cosines * math.cos(margin) - sines * math.sin(margin)
    return torch.where(cosines > -math.cos(margin), shifted, cosines - (1 - math.cos(margin)))


def triplet_loss(
    anchors: Tensor,
    closer: Tensor,
    farther: Tensor,
    *,
    triplet_margin: float,
    reduction: Reduction = "mean",
) -> Tensor:
    """Triplet loss on cosines, row by row: max(0, cos(anchor, farther) - cos(anchor, closer) + triplet_margin).

    Args:
        anchors: `[batch, dim]`, the sentences.
        closer: `[batch, dim]`, each sentence with its small span masked.
        farther: `[batch, dim]`, each sentence with the large span around it masked.
        triplet_margin: Cosine by which `closer` must win.
        reduction: `mean`, or `none` for one value per row.

    Returns:
        A scalar, or `[batch]` with `reduction="none"`.

    Raises:
        ValueError: Shapes differ, or the reduction is not one of the two.

    Example:
        >>> anchors = torch.randn(8, 16)
        >>> closer, farther = (anchors + noise * torch.randn(8, 16) for noise in (0.1, 0.3))
        >>> triplet_loss(anchors, closer, farther, triplet_margin=0.0).shape
        torch.Size([])
    """
    _require_same_shape(anchors=anchors, closer=closer, farther=farther)
    losses = triplet_losses_from_cosines(
        row_cosines(anchors, closer), row_cosines(anchors, farther), triplet_margin=triplet_margin
    )
    return losses.mean() if _checked(reduction) == "mean" else losses


def triplet_losses_from_cosines(closer: Tensor, farther: Tensor, *, triplet_margin: float) -> Tensor:
    """Returns the triplet losses `[batch]` of the cosines `[batch]` of each sentence with its two masked versions."""
    return F.relu(farther - closer + triplet_margin)


def cosine_matrix(rows: Tensor, keys: Tensor) -> Tensor:
    """Returns the cosine `[rows, keys]` of every row with every key, in float32 at least.

    Rounding may leave [-1, 1] by some 1e-7.
    """
    with torch.autocast(rows.device.type, enabled=False):
        return normalize(rows) @ normalize(keys).T


def sum_of_cosines(rows: Tensor, keys: Tensor) -> Tensor:
    """Returns the sum (scalar) over `cosine_matrix(rows, keys)`, in memory that is linear in their number."""
    return normalize(rows).sum(0) @ normalize(keys).sum(0)


def row_cosines(left: Tensor, right: Tensor) -> Tensor:
    """Returns the cosine `[batch]` of row i of `left` with row i of `right`, in float32 at least."""
    return (normalize(left) * normalize(right)).sum(-1)


def normalize(embeddings: Tensor) -> Tensor:
    """Returns `embeddings` `[..., dim]` at length 1, in float32 at least."""
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
