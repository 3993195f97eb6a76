"""The one place that decides how a set of texts is cut for the encoder: texts of like length go through it together.

Hardly any padding is computed then. Training's sub-batches, the gradient cache's chunks and the batches of an
evaluation are all made by `batch_by_length`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from .cpu_ops import embed_parts

# The most tokens of a sub-batch, padding included; and the fixed cost of one sub-batch, in tokens. On a CPU many short
# operations cost little, and what a small sub-batch works on stays in the cache. Elsewhere one has to keep the device
# busy for longer than it takes to start its operations; how much longer is not measured yet.
_ON_A_CPU = (900, 100)
_ON_A_GPU = (16_384, 2_048)


@dataclass(frozen=True)
class LengthBatches:
    """Texts in batches of like length, the shortest first, and the way back to their own order.

    Args:
        rows: Positions `[batch]` of the texts in each batch.
        longest: Tokens of the longest text in each batch.
    """

    rows: Sequence[Tensor]
    longest: Sequence[int]

    def restore(self, results: Sequence[Tensor]) -> Tensor:
        """Joins one result `[batch, ...]` per batch to `[texts, ...]`, in the texts' own order."""
        return torch.cat(list(results))[torch.cat(list(self.rows)).argsort().to(results[0].device)]


def batch_by_length(lengths: Tensor, batch_size: int | None = None, device_type: str = "cpu") -> LengthBatches:
    """Sorts texts by length and cuts them into batches.

    Args:
        lengths: Tokens of each text, `[texts]`.
        batch_size: Texts per batch; by default as many as the device embeds fastest.
        device_type: `cpu`, `cuda` ...

    Example:
        >>> batches = batch_by_length(torch.tensor([5, 3, 9, 4]), batch_size=2)
        >>> [rows.tolist() for rows in batches.rows], batches.longest
        ([[1, 3], [0, 2]], [4, 9])
    """
    # Stable, so that texts which are sorted already keep their order, and with it their dropout masks.
    rising, order = lengths.sort(stable=True)
    if batch_size is not None:
        counts = [len(piece) for piece in order.split(batch_size)]
        longest = rising[[end - 1 for end in accumulate(counts)]].tolist()
    else:
        counts, longest = split_by_length(rising.tolist(), *(_ON_A_CPU if device_type == "cpu" else _ON_A_GPU))
    return LengthBatches(order.split(counts), longest)


def embed_by_length(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Embeds texts in sub-batches of like length, which changes nothing but the order of the dropout masks.

    Args:
        model: An `ArcCSEModel`.
        input_ids: `[texts, length]`, padded on the right.
        attention_mask: `[texts, length]`.

    Returns:
        `model`'s `pooler_output` `[texts, dim]`.
    """
    device_type = model.device.type
    batches = batch_by_length(attention_mask.sum(-1), device_type=device_type)
    parts = [
        {"input_ids": input_ids[rows, :length], "attention_mask": attention_mask[rows, :length]}
        for rows, length in zip(batches.rows, batches.longest, strict=True)
    ]
    # Activation checkpointing recomputes outside of the fast operations, where the dropout masks would be others.
    if device_type == "cpu" and not model.is_activation_checkpointing:
        return batches.restore(embed_parts(model, parts))
    return batches.restore([model(**part).pooler_output for part in parts])


def split_by_length(lengths: Sequence[int], limit: int, overhead: int) -> tuple[list[int], list[int]]:
    """Finds the cut of texts into sub-batches that costs least.

    A sub-batch costs its tokens, padding included, and `overhead`. Texts of one length stay in a group; a group of more
    than `limit` tokens is divided evenly.

    Args:
        lengths: Tokens of each text, in rising order.
        limit: The most tokens of a sub-batch, padding included, unless it is a single text.
        overhead: The fixed cost of one sub-batch, in tokens.

    Returns:
        How many texts each sub-batch has, and how many tokens its longest text has.
    """
    distinct, counts = np.unique(lengths, return_counts=True)
    ends = np.concatenate([[0], counts.cumsum()])
    texts_per_batch = np.maximum(limit // distinct, 1)
    # The least cost of all texts up to each length, and how many of the distinct lengths come before its last group.
    least, before = np.zeros(len(ends)), np.zeros(len(ends), dtype=int)
    for last, length in enumerate(distinct, 1):
        texts = ends[last] - ends[:last]
        costs = least[:last] + texts * length + overhead * np.ceil(texts / texts_per_batch[last - 1])
        before[last] = costs.argmin()
        least[last] = costs[before[last]]

    sizes: list[int] = []
    last = len(distinct)
    while last:
        texts = ends[last] - ends[before[last]]
        pieces = np.array_split(np.arange(texts), -(-texts // texts_per_batch[last - 1]))
        sizes = [len(piece) for piece in pieces] + sizes
        last = before[last]
    return sizes, [lengths[end - 1] for end in accumulate(sizes)]
