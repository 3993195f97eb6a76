"""How a set of texts is cut for the encoder: texts of like length go through it together, so that hardly any padding is
computed."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from .cpu_ops import embed_parts

# The most tokens of a sub-batch, padding included; and how many tokens more would take as long as one sub-batch more.
# On a CPU many short operations cost little, and what a small sub-batch works on stays in the cache. Elsewhere one has
# to keep the device busy for longer than it takes to start its operations; how much longer is not measured yet.
_ON_A_CPU = (900, 100)
_ON_A_GPU = (16_384, 2_048)


def embed_by_length(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The `pooler_output` `[texts, dim]` that `model`, an `ArcCSEModel`, has for texts `[texts, length]`, padded on the
    right. They are embedded in sub-batches of like length, which changes nothing but the order of dropout masks."""
    # Stable, so that texts which are sorted already keep their order, and with it their dropout masks.
    lengths, order = attention_mask.sum(-1).sort(stable=True)
    on_a_cpu = model.device.type == "cpu"
    counts, longest = split_by_length(lengths.tolist(), *(_ON_A_CPU if on_a_cpu else _ON_A_GPU))
    parts = [
        {"input_ids": input_ids[rows, :length], "attention_mask": attention_mask[rows, :length]}
        for rows, length in zip(order.split(counts), longest, strict=True)
    ]
    # What activation checkpointing computes again in the backward pass would draw PyTorch's dropout masks, others.
    if on_a_cpu and not model.is_activation_checkpointing:
        pooled = embed_parts(model, parts)
    else:
        pooled = [model(**part).pooler_output for part in parts]
    return torch.cat(pooled)[order.argsort()]


def split_by_length(lengths: Sequence[int], limit: int, overhead: int) -> tuple[list[int], list[int]]:
    """How many of some texts, whose `lengths` rise, go into each sub-batch, and the longest length there.

    A sub-batch has no more than `limit` tokens, padding included, unless it is a single text. It costs its tokens and
    `overhead`, and the cut is the one that costs least, where texts of one length stay in a group, and groups above the
    limit are divided evenly.
    """
    distinct, counts = np.unique(lengths, return_counts=True)
    ends = np.concatenate([[0], counts.cumsum()])
    at_once = np.maximum(limit // distinct, 1)
    # The least cost of all texts up to each length, and how many of the distinct lengths come before its last group.
    least, before = np.zeros(len(ends)), np.zeros(len(ends), dtype=int)
    for last, length in enumerate(distinct, 1):
        texts = ends[last] - ends[:last]
        costs = least[:last] + texts * length + overhead * np.ceil(texts / at_once[last - 1])
        before[last] = costs.argmin()
        least[last] = costs[before[last]]

    sizes, last = [], len(distinct)
    while last:
        texts = ends[last] - ends[before[last]]
        sizes = [len(piece) for piece in np.array_split(np.arange(texts), -(-texts // at_once[last - 1]))] + sizes
        last = before[last]
    return sizes, [lengths[end - 1] for end in accumulate(sizes)]
