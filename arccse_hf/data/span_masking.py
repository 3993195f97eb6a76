"""Nested spans: the tokens of a sentence that its two masked versions lose."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

from ..errors import UserError

SpanCorruption = Literal["mask", "delete"]

SMALL_SPAN_RATIO = 0.2
LARGE_SPAN_RATIO = 0.4
"""Shares of a sentence's tokens, from the paper (Zhang et al., ACL 2022)."""


class NestedSpans(NamedTuple):
    """Two ranges of token positions, the small one inside the large one."""

    small: range
    large: range


def nested_spans(
    num_tokens: int,
    small_span_ratio: float = SMALL_SPAN_RATIO,
    large_span_ratio: float = LARGE_SPAN_RATIO,
    generator: torch.Generator | None = None,
) -> NestedSpans:
    """Draws one span and the larger span around it, each uniformly over its possible positions.

    A span covers its share of the tokens, rounded, and at least one token. The large span is longer than the small one
    wherever there are two tokens.

    Args:
        num_tokens: The number of tokens of the sentence without special tokens, at least 1.
        small_span_ratio: The share of the tokens in the small span.
        large_span_ratio: The share of the tokens in the large span, above `small_span_ratio`.
        generator: The source of randomness; torch's default generator if None.

    Raises:
        ValueError: There is no token, or the ratios are outside 0 < small < large < 1.

    Example:
        >>> nested_spans(10)  # draws, for example
        NestedSpans(small=range(4, 6), large=range(3, 7))
    """
    if num_tokens < 1:
        raise ValueError(f"num_tokens must be at least 1, not {num_tokens}")
    check_span_ratios(small_span_ratio, large_span_ratio)
    small_length = min(max(round(small_span_ratio * num_tokens), 1), max(num_tokens - 1, 1))
    large_length = min(max(round(large_span_ratio * num_tokens), small_length + 1), num_tokens)
    large_start = _draw(num_tokens - large_length, generator)
    small_start = large_start + _draw(large_length - small_length, generator)
    return NestedSpans(
        small=range(small_start, small_start + small_length), large=range(large_start, large_start + large_length)
    )


def check_span_ratios(small_span_ratio: float, large_span_ratio: float) -> None:
    """Raises UserError unless 0 < small < large < 1."""
    if not 0 < small_span_ratio < large_span_ratio < 1:
        raise UserError(
            f"--small_span_ratio {small_span_ratio} --large_span_ratio {large_span_ratio}: must satisfy "
            "0 < small < large < 1"
        )


def corrupt(
    token_ids: Sequence[int], content: Sequence[int], span: range, how: SpanCorruption, mask_token_id: int | None = None
) -> list[int]:
    """Masks or deletes a span of a sentence's tokens.

    Args:
        token_ids: The whole sentence, with special tokens.
        content: The positions in `token_ids` of the tokens that are not special, in order.
        span: The indices in `content` of the tokens to corrupt.
        how: "mask" replaces them by `mask_token_id`, "delete" removes them.
        mask_token_id: Needed for "mask".

    Raises:
        ValueError: It is missing there.

    Example:
        >>> corrupt([101, 7, 8, 9, 102], content=[1, 2, 3], span=range(1, 2), how="mask", mask_token_id=103)
        [101, 7, 103, 9, 102]
    """
    lost = {content[index] for index in span}
    if how == "delete":
        return [token for position, token in enumerate(token_ids) if position not in lost]
    if mask_token_id is None:
        raise ValueError("masking needs a mask_token_id; without one, delete")
    return [mask_token_id if position in lost else token for position, token in enumerate(token_ids)]


def _draw(highest: int, generator: torch.Generator | None) -> int:
    return int(torch.randint(highest + 1, (), generator=generator))
