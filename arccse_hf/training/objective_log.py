"""What a log line of training says of the two objectives, over all rows, triplets and processes.

docs/training-log.md lists the names.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..model.losses import row_cosines, sum_of_cosines
from ..model.modeling_arccse import ArcCSEOutput

ACTS = 1e-3
"""Loss of a row or a triplet above which its objective is said to act on it."""


class ObjectiveLog:
    """Collects what batches give, until a log line asks for it; nothing is copied from the device before.

    Args:
        reduce: Sums a tensor over the processes, which all have to call.
    """

    def __init__(self, reduce: Callable[[Tensor], Tensor]):
        self._reduce = reduce
        self._sums: dict[str, Tensor] = {}

    def add(self, outputs: ArcCSEOutput, losses: dict[str, Tensor], *, triplets: int) -> None:
        """Adds a batch.

        Args:
            outputs: Of this process's rows.
            losses: Each head's, such that their mean over processes is the loss of all rows or all triplets.
            triplets: How many this process has.
        """
        anchors, keys = _given(outputs.anchors).detach(), _given(outputs.key_embeddings).detach()
        rows = len(anchors)
        positive = row_cosines(anchors, keys[:rows]).sum()
        negative = sum_of_cosines(anchors, keys) - positive
        self._add("arccon_loss", losses["arccon_loss"].detach(), 1)
        self._add("positive_cosine", positive, rows)
        self._add("negative_cosine", negative, rows * (len(keys) - 1))
        if "anchor_loss" in losses:
            self._add("anchor_loss", losses["anchor_loss"].detach(), 1)
        self._add("rows_with_loss", (_given(outputs.arccon_losses) > ACTS).sum(), rows)
        loss = violated = acts = torch.zeros_like(positive)
        if "triplet_loss" in losses:
            loss = losses["triplet_loss"].detach()
        if triplets:
            violated = (_given(outputs.farther_cosine) > _given(outputs.closer_cosine)).sum()
            acts = (_given(outputs.triplet_losses) > ACTS).sum()
        self._add("triplet_loss", loss, 1)
        self._add("triplets_violated", violated, triplets)
        self._add("triplets_with_loss", acts, triplets)

    def add_gradients(self, gradients: dict[str, Tensor]) -> None:
        """Adds the gradients of one batch of the step to log.

        Args:
            gradients: Of each term of the loss at this process's embeddings, as `gradients_at_embeddings` returns
                them. The norm is that of the gradients of all batches and processes together.
        """
        for name, gradient in gradients.items():
            self._add(name.replace("_loss", "_grad_norm"), gradient.square().sum(), 0)

    def means(self) -> dict[str, float]:
        """Returns the means since the last call, and norms; a mean over nothing (no triplet at all) is left out."""
        if not self._sums:
            return {}
        names, sums = list(self._sums), torch.stack(list(self._sums.values()))
        self._sums = {}
        logged = {}
        for name, (total, count) in zip(names, self._reduce(sums).tolist(), strict=True):
            if name.endswith("_grad_norm"):
                logged[name] = total**0.5
            elif count:
                logged[name] = total / count
        if "triplets_violated" not in logged:
            logged.pop("triplet_loss", None)
            logged.pop("triplet_grad_norm", None)
        return logged

    def _add(self, name: str, total: Tensor, count: int | Tensor) -> None:
        sums = torch.stack([total.float(), torch.as_tensor(count, dtype=torch.float32, device=total.device)])
        sums = torch.where(sums.isfinite().all(), sums, torch.zeros_like(sums))  # of a batch that is left out
        self._sums[name] = self._sums[name] + sums if name in self._sums else sums


def gradients_at_embeddings(
    losses_of: Callable[..., dict[str, Tensor]], outputs: ArcCSEOutput, views: int
) -> dict[str, Tensor]:
    """Computes the gradient of each term of the loss at the embeddings: through the heads alone, not the encoder.

    Args:
        losses_of: Returns the terms by name, weighted as in the loss, of `pair` `[batch, views, dim]` and, where there
            are triplets, `triplet` `[triplets, 3, dim]`. It may gather keys: then all processes have to call.
        outputs: Of this process's batch.
        views: Of each of its rows.

    Returns:
        The gradient of `triplet_loss` at `triplet`, zeros where there is none, and of each other term at `pair`.
    """
    anchors, triplets = _given(outputs.anchors), outputs.triplet_embeddings
    keys = _given(outputs.key_embeddings)[: len(anchors) * (views - 1)].to(anchors.dtype)
    leaves = {"pair": torch.stack([anchors, *keys.split(len(anchors))], dim=1).detach().requires_grad_()}
    if triplets is not None:
        leaves["triplet"] = triplets.detach().requires_grad_()
    with torch.enable_grad():
        losses = losses_of(**leaves)
    gradients = {
        name: torch.autograd.grad(loss, leaves["triplet" if name == "triplet_loss" else "pair"], retain_graph=True)[0]
        for name, loss in losses.items()
    }
    return {"triplet_loss": anchors.new_zeros(1)} | gradients


def _given(value: Tensor | None) -> Tensor:
    """Returns a field of `ArcCSEOutput` that is there for a training batch."""
    assert value is not None
    return value
