"""What stands on the sentence embedding while it is trained: the projection and the heads of the two losses."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .configuration_arccse import ArcCSEConfig
from .losses import arccon_loss_from_cosines, cosine_matrix, row_cosines, triplet_losses_from_cosines

_COSINES_AT_ONCE = 2**20

# By how much a cosine may differ when its texts are embedded in another sub-batch. Seen on a CPU with all-MiniLM-L6-v2:
# 2e-7 in float32 and 2e-5 in bfloat16, whose unit of rounding is 4e-3.
_FINE_ROUNDING, _COARSE_ROUNDING = 5e-6, 2e-3


class Projection(nn.Module):
    """SimCSE's MLP on the pooled vector: `[..., dim]` to `[..., dim]` through a Linear and a Tanh."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.activation = nn.Tanh()

    def forward(self, pooled: Tensor) -> Tensor:
        """Returns the projections `[..., dim]` of pooled vectors `[..., dim]`, every value within (-1, 1)."""
        return self.activation(self.dense(pooled))


class ArcConHead(nn.Module):
    """Angular-margin contrast of each anchor with its positive against every other key."""

    def __init__(self, config: ArcCSEConfig):
        super().__init__()
        self.angular_margin = config.angular_margin
        self.temperature = config.temperature
        self.prefixes = config.prefixes
        widest = max(config.matryoshka_dims or [0])
        if widest > config.hidden_size:
            raise ValueError(f"matryoshka_dims {widest}: the embeddings have {config.hidden_size} dimensions")

    def forward(self, anchors: Tensor, keys: Tensor, left_out: Tensor | None = None) -> Tensor:
        """Returns the loss `[batch]` of each of `anchors` `[batch, dim]` with `keys` `[keys, dim]`.

        Key i is the positive of anchor i. `left_out` `[batch, keys]` says which negatives do not count.
        """
        return _mean(
            (weight, self._losses_in_blocks(anchors[:, :dim], keys[:, :dim], left_out)) for dim, weight in self.prefixes
        )

    def _losses_in_blocks(self, anchors: Tensor, keys: Tensor, left_out: Tensor | None) -> Tensor:
        labels = torch.arange(len(anchors), device=anchors.device)
        block_size = max(1, _COSINES_AT_ONCE // len(keys))
        if len(anchors) <= block_size:
            return self._losses(anchors, keys, labels, left_out)
        # Of a large matrix only so many rows are held at a time: the backward pass computes them again.
        return torch.cat(
            [
                checkpoint(
                    self._losses,
                    anchors[rows],
                    keys,
                    rows,
                    None if left_out is None else left_out[rows],
                    use_reentrant=False,
                    preserve_rng_state=False,
                )
                for rows in labels.split(block_size)
            ]
        )

    def _losses(self, anchors: Tensor, keys: Tensor, labels: Tensor, left_out: Tensor | None) -> Tensor:
        return arccon_loss_from_cosines(
            cosine_matrix(anchors, keys),
            labels=labels,
            angular_margin=self.angular_margin,
            temperature=self.temperature,
            left_out=left_out,
            reduction="none",
        )


class TripletHead(nn.Module):
    """Order of two masked versions of a sentence: the less masked one is to be the closer one."""

    def __init__(self, config: ArcCSEConfig):
        super().__init__()
        self.triplet_margin = config.triplet_margin
        self.prefixes = config.prefixes

    def forward(self, triplets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the losses of `triplets` `[triplets, 3, dim]`, and each sentence's cosines with its two versions.

        All three results are `[triplets]`; the cosines are of all dimensions.
        """
        of_all = _cosines(triplets)
        at_prefixes = ((weight, _cosines(triplets[..., :dim]) if dim else of_all) for dim, weight in self.prefixes)
        return _mean((weight, self._losses(*cosines)) for weight, cosines in at_prefixes), *of_all

    @torch.no_grad()
    def may_cost(self, triplets: Tensor) -> Tensor:
        """Returns which of `triplets` `[triplets, 3, dim]` have a loss, or might have one if they were embedded again.

        In another sub-batch, an embedding differs by rounding. So a triplet is judged by the worst cosines within it.
        """
        rounding = _FINE_ROUNDING if _computed_in_full_precision(triplets) else _COARSE_ROUNDING
        costly = torch.zeros(len(triplets), dtype=torch.bool, device=triplets.device)
        for dim, _ in self.prefixes:
            closer, farther = _cosines(triplets[..., :dim])
            costly |= self._losses(closer - rounding, farther + rounding) > 0
        return costly

    def _losses(self, closer_cosine: Tensor, farther_cosine: Tensor) -> Tensor:
        return triplet_losses_from_cosines(closer_cosine, farther_cosine, triplet_margin=self.triplet_margin)


def _cosines(triplets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the cosines `[triplets]` of each sentence with its less and its more masked version."""
    sentences, closer, farther = triplets.unbind(1)
    return row_cosines(sentences, closer), row_cosines(sentences, farther)


def _mean(terms: Iterable[tuple[float, Tensor]]) -> Tensor:
    """Returns the mean of the tensors by their weights, which add up to 1."""
    return torch.stack([weight * losses for weight, losses in terms]).sum(0)


def _computed_in_full_precision(embeddings: Tensor) -> bool:
    """Returns whether `embeddings` were surely computed in float32 or float64: accelerators may take TF32 for it."""
    device_type = embeddings.device.type
    full = embeddings.dtype in (torch.float32, torch.float64)
    return full and device_type == "cpu" and not torch.is_autocast_enabled(device_type)
