"""What makes training fast on a CPU: words looked up once for all sub-batches, and dropout and attention quicker than
PyTorch's own. Of those the one takes some 7 ns for each element of a mask, and the other has a slow backward pass in
bfloat16."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel


def embed_parts(model: PreTrainedModel, parts: Sequence[Mapping[str, Tensor]]) -> list[Tensor]:
    """The `pooler_output` `[texts, dim]` that `model`, an `ArcCSEModel`, has for each of some sub-batches, which are
    `input_ids` and `attention_mask` `[texts, length]`."""
    pooled = []
    for part, words in zip(parts, embed_tokens_once(model, [part["input_ids"] for part in parts]), strict=True):
        with FastCpuOps(model.get_input_embeddings().weight, part["input_ids"], words):
            pooled.append(model(**part).pooler_output)
    return pooled


def embed_tokens_once(model: PreTrainedModel, parts: Sequence[Tensor]) -> list[Tensor]:
    """The word vectors `[..., dim]` of each part, looked up all at once: the gradient of each lookup is as large as the
    vocabulary."""
    table = model.get_input_embeddings()
    words = F.embedding(torch.cat([ids.flatten() for ids in parts]), table.weight, table.padding_idx)
    each = words.split([ids.numel() for ids in parts])
    return [some.unflatten(0, ids.shape) for some, ids in zip(each, parts, strict=True)]


class FastCpuOps(TorchFunctionMode):
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
