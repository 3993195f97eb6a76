"""Ways to make one vector of a sentence's token states, as pure functions in one table."""

from collections.abc import Callable, Sequence

from torch import Tensor


def cls(layers: Sequence[Tensor], attention_mask: Tensor) -> Tensor:
    """Returns the state of the first token in the last layer."""
    return layers[-1][:, 0]


def mean(layers: Sequence[Tensor], attention_mask: Tensor) -> Tensor:
    """Returns the mean of the last layer over the tokens that are not padding."""
    return _masked_mean(layers[-1], attention_mask)


def mean_first_last(layers: Sequence[Tensor], attention_mask: Tensor) -> Tensor:
    """Returns the mean over tokens of the average of the first layer's and the last layer's output."""
    return _masked_mean((layers[1] + layers[-1]) / 2, attention_mask)


def mean_top2(layers: Sequence[Tensor], attention_mask: Tensor) -> Tensor:
    """Returns the mean over tokens of the average of the last two layers' outputs."""
    return _masked_mean((layers[-2] + layers[-1]) / 2, attention_mask)


def _masked_mean(states: Tensor, attention_mask: Tensor) -> Tensor:
    mask = attention_mask.unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)


POOLING_FUNCTIONS: dict[str, Callable[[Sequence[Tensor], Tensor], Tensor]] = {
    "cls": cls,
    "mean": mean,
    "mean_first_last": mean_first_last,
    "mean_top2": mean_top2,
}
"""Functions by name, each of which returns embeddings `[batch, dim]`.

They take `layers`, the hidden states `[batch, length, dim]` from the embeddings to the last layer, and `attention_mask`
`[batch, length]`. The last layer alone is enough for `cls` and `mean`.
"""

LAYER_WEIGHTS = {"mean_first_last": (0, -1), "mean_top2": (-2, -1)}
"""Layers, counted behind the embeddings, whose mean these poolings take; the others read the last one."""
