"""What makes training fast on a CPU: texts of like length are embedded together, so that hardly any padding is
computed, and dropout and attention are quicker than PyTorch's own. Of those the one takes some 7 ns for each element of
a mask, and the other has a slow backward pass in bfloat16."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

_TOKENS_AT_ONCE = 640


def pool_by_length(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The `pooler_output` `[texts, dim]` that `model`, an `ArcCSEModel`, has for texts `[texts, length]`, padded on the
    right. They are embedded in sub-batches of like length, which changes nothing but the order of dropout masks."""
    # Stable, so that texts which are sorted already keep their order, and with it their dropout masks.
    lengths, order = attention_mask.sum(-1).sort(stable=True)
    counts, longest = cut_by_length(lengths.tolist())
    parts = [
        {"input_ids": input_ids[rows, :length], "attention_mask": attention_mask[rows, :length]}
        for rows, length in zip(order.split(counts), longest, strict=True)
    ]
    if model.is_activation_checkpointing:
        # What it computes again in the backward pass would draw PyTorch's dropout masks, and so others.
        pooled = [model(**part).pooler_output for part in parts]
    else:
        pooled = []
        for part, words in zip(parts, look_up(model, [part["input_ids"] for part in parts]), strict=True):
            with QuickOperations(model.get_input_embeddings().weight, part["input_ids"], words):
                pooled.append(model(**part).pooler_output)
    return torch.cat(pooled)[order.argsort()]


def look_up(model: PreTrainedModel, parts: Sequence[Tensor]) -> list[Tensor]:
    """The word vectors `[..., dim]` of each part, looked up all at once: the gradient of each lookup is as large as the
    vocabulary."""
    table = model.get_input_embeddings()
    words = F.embedding(torch.cat([ids.flatten() for ids in parts]), table.weight, table.padding_idx)
    each = words.split([ids.numel() for ids in parts])
    return [some.unflatten(0, ids.shape) for some, ids in zip(each, parts, strict=True)]


def cut_by_length(lengths: Sequence[int]) -> tuple[list[int], list[int]]:
    """How many of some texts, whose `lengths` rise, go into each sub-batch, and the longest length there. A sub-batch
    has no more than `_TOKENS_AT_ONCE` tokens, padding included, unless it is a single text."""
    counts, longest = [], []
    for length in lengths:
        if counts and (counts[-1] + 1) * length <= _TOKENS_AT_ONCE:
            counts[-1] += 1
            longest[-1] = length
        else:
            counts.append(1)
            longest.append(length)
    return counts, longest


class QuickOperations(TorchFunctionMode):
    """While it is entered, `F.dropout` and `F.scaled_dot_product_attention` are those of this file, and `input_ids` are
    not looked up in `table` again, but found as `words`."""

    def __init__(self, table: Tensor, input_ids: Tensor, words: Tensor):
        super().__init__()
        self.table, self.input_ids, self.words = table, input_ids, words

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.dropout:
            return dropout(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return attention(*args, **kwargs)
        if func is F.embedding and args[1] is self.table and torch.equal(args[0], self.input_ids):
            return self.words
        return func(*args, **kwargs)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`F.dropout` with 16 random bits for each element, four elements to a random number of 64 bits.

    p is taken to the nearest multiple of 1 / 65536, and what is kept is scaled by just that, so that the expectation is
    the input. What this is no gain for (no dropout, in place, not on a CPU) is left to PyTorch.
    """
    dropped = round(p * 2**16)
    if not training or inplace or input.device.type != "cpu" or not 0 < dropped < 2**16:
        return F.dropout(input, p, training, inplace)
    bits = torch.empty(math.ceil(input.numel() / 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = bits[: input.numel()].view(input.shape) >= dropped - 2**15
    return input * kept.to(input.dtype).mul_(2**16 / (2**16 - dropped))


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`F.scaled_dot_product_attention` of `[..., length, dim]`, in plain steps where they are faster: in bfloat16, and
    with dropout, which the fused kernel does not have. The softmax is in float32 at least."""
    plain = dropout_p > 0 or query.dtype == torch.bfloat16
    if not plain or is_causal or enable_gqa or query.device.type != "cpu":
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    scores = query * (query.shape[-1] ** -0.5 if scale is None else scale) @ key.transpose(-1, -2)
    if attn_mask is not None:
        lowest = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~attn_mask, lowest) if attn_mask.dtype == torch.bool else scores + attn_mask
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
    return dropout(weights, dropout_p) @ value
