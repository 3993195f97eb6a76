"""What makes training fast on a CPU: one lookup of all token embeddings, and faster dropout and attention.

PyTorch's dropout takes about 7 ns per element. Its fused attention has no dropout, and a slow backward pass in
bfloat16.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

UNFUSED_ATTENTION = "arccse_unfused"
"""Name of `unfused_attention` in transformers' `AttentionInterface`."""


def embed_parts(model: PreTrainedModel, parts: Sequence[Mapping[str, Tensor]]) -> list[Tensor]:
    """Embeds sub-batches with fast operations.

    Args:
        model: An `ArcCSEModel` on a CPU.
        parts: `input_ids` and `attention_mask` `[texts, length]` of each sub-batch.

    Returns:
        The `pooler_output` `[texts, dim]` of each sub-batch.
    """
    if model.reads_token_embeddings(**{name: values[:2] for name, values in parts[0].items()}):
        embedded = embed_tokens_once(model.get_input_embeddings(), [part["input_ids"] for part in parts])
        parts = [
            {"inputs_embeds": embeddings, "attention_mask": part["attention_mask"]}
            for embeddings, part in zip(embedded, parts, strict=True)
        ]
    with FastCpuOps(), _attention_by(UNFUSED_ATTENTION, model.encoder):
        return [model(**part).pooler_output for part in parts]


def embed_tokens_once(table: nn.Module, parts: Sequence[Tensor]) -> list[Tensor]:
    """Looks up the token embeddings of all sub-batches at once.

    The gradient of each lookup is as large as the vocabulary.

    Args:
        table: The encoder's token embeddings.
        parts: Token ids `[texts, length]` of each sub-batch.

    Returns:
        `[texts, length, dim]` of each sub-batch.
    """
    token_embeddings = table(torch.cat([token_ids.flatten() for token_ids in parts]))
    pieces = token_embeddings.split([token_ids.numel() for token_ids in parts])
    return [piece.unflatten(0, token_ids.shape) for piece, token_ids in zip(pieces, parts, strict=True)]


class FastCpuOps(TorchFunctionMode):
    """Computes every `F.dropout` by `fast_dropout` while it is entered: no encoder has a public way to replace it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return (fast_dropout if func is F.dropout else func)(*args, **(kwargs or {}))


def fast_dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Computes `F.dropout` with 16 random bits per element, four elements per random number of 64 bits.

    p is rounded to a multiple of 1 / 65536, and what is kept is scaled by exactly that, so that the expectation is
    the input. Where this gains nothing (no dropout, in place, not on a CPU), PyTorch's own is used.
    """
    dropped = round(p * 2**16)
    if not training or inplace or input.device.type != "cpu" or not 0 < dropped < 2**16:
        return F.dropout(input, p, training, inplace)
    bits = torch.empty(math.ceil(input.numel() / 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = bits[: input.numel()].view(input.shape) >= dropped - 2**15
    return input * kept.to(input.dtype).mul_(2**16 / (2**16 - dropped))


def unfused_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """Computes attention in plain steps where they are faster than the fused kernel: with dropout, and in bfloat16.

    It is one of transformers' attention functions, whose arguments it takes. The softmax is in float32 at least.

    Args:
        module: The attention layer.
        query: `[batch, heads, length, head_dim]`; so are `key` and `value`.
        key: See `query`.
        value: See `query`.
        attention_mask: Boolean (True where attention is allowed) or additive `[batch, 1, length, length]`, or None.
        dropout: Share of the attention weights to drop.
        scaling: Factor of the scores; by default 1 / sqrt(head_dim).
        is_causal: Whether tokens see only those before them; by default as the layer says.
        kwargs: Other arguments of transformers' attention functions.

    Returns:
        `[batch, length, heads, head_dim]`, and no attention weights.
    """
    gains = query.device.type == "cpu" and (dropout > 0 or query.dtype == torch.bfloat16)
    masked = attention_mask is not None or not (getattr(module, "is_causal", True) if is_causal is None else is_causal)
    if not gains or not masked or key.shape != query.shape or kwargs.get("position_bias") is not None:
        return AttentionInterface()["sdpa"](
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **kwargs
        )
    scores = query * (query.shape[-1] ** -0.5 if scaling is None else scaling) @ key.transpose(-1, -2)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
    return (fast_dropout(weights, dropout) @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(UNFUSED_ATTENTION, unfused_attention)
AttentionMaskInterface.register(UNFUSED_ATTENTION, AttentionMaskInterface()["sdpa"])


@contextlib.contextmanager
def _attention_by(name: str, encoder: PreTrainedModel) -> Iterator[None]:
    """Has `encoder` use the attention function `name` for a while, if it looks them up and would use `sdpa`."""
    replaced = encoder._supports_attention_backend and encoder.config._attn_implementation == "sdpa"
    if replaced:
        encoder.set_attn_implementation(name)
    try:
        yield
    finally:
        if replaced:
            encoder.set_attn_implementation("sdpa")
