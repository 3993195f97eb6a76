"""Sharpness-aware minimisation: the gradient where the loss close by is largest."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def ascended(model: nn.Module, rho: float) -> Iterator[None]:
    """Moves the weights by `rho` up their gradient, and back at the end; the gradient inside starts at nothing.

    One step of SAM (Foret et al., ICLR 2021, equation 2): e = rho g / |g|, |g| over all weights.

    Args:
        model: Its weights have a gradient, which is used up.
        rho: The length of the step in the space of all weights.
    """
    weights = [weight for weight in model.parameters() if weight.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(weight.grad) for weight in weights]))
    scale = rho / (norm + 1e-12)
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            weight.add_(weight.grad * scale)
            weight.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)
