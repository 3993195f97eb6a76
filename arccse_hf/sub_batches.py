"""How a set of texts is cut for the encoder: texts of like length go through it together, so that hardly any padding is
computed."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .cpu_training import pool_quickly

# The tokens of a sub-batch, padding included. On a CPU many short operations cost little, and what a small sub-batch
# works on stays in the cache. Elsewhere it has to keep the device busy for longer than starting its operations takes.
_TOKENS_ON_A_CPU = 640
_TOKENS_ON_A_GPU = 16_384


def pool_by_length(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The `pooler_output` `[texts, dim]` that `model`, an `ArcCSEModel`, has for texts `[texts, length]`, padded on the
    right. They are embedded in sub-batches of like length, which changes nothing but the order of dropout masks."""
    # Stable, so that texts which are sorted already keep their order, and with it their dropout masks.
    lengths, order = attention_mask.sum(-1).sort(stable=True)
    on_a_cpu = model.device.type == "cpu"
    counts, longest = cut_by_length(lengths.tolist(), _TOKENS_ON_A_CPU if on_a_cpu else _TOKENS_ON_A_GPU)
    parts = [
        {"input_ids": input_ids[rows, :length], "attention_mask": attention_mask[rows, :length]}
        for rows, length in zip(order.split(counts), longest, strict=True)
    ]
    # What activation checkpointing computes again in the backward pass would draw PyTorch's dropout masks, others.
    if on_a_cpu and not model.is_activation_checkpointing:
        pooled = pool_quickly(model, parts)
    else:
        pooled = [model(**part).pooler_output for part in parts]
    return torch.cat(pooled)[order.argsort()]


def cut_by_length(lengths: Sequence[int], tokens: int) -> tuple[list[int], list[int]]:
    """How many of some texts, whose `lengths` rise, go into each sub-batch, and the longest length there. A sub-batch
    has no more than so many `tokens`, padding included, unless it is a single text."""
    counts, longest = [], []
    for length in lengths:
        if counts and (counts[-1] + 1) * length <= tokens:
            counts[-1] += 1
            longest[-1] = length
        else:
            counts.append(1)
            longest.append(length)
    return counts, longest
