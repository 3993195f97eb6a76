"""From rows of token ids to padded batches: the views of each sentence, and its masked versions."""

import logging
from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .span_masking import (
    LARGE_SPAN_RATIO,
    SMALL_SPAN_RATIO,
    SpanCorruption,
    check_span_ratios,
    corrupt,
    nested_spans,
)

logger = logging.getLogger(__name__)

TRIPLET_MIN_TOKENS = 25
"""Sentences with fewer tokens get no triplet. Recalled (about 25 words), not confirmed by a text."""


class TrainingRow(TypedDict):
    """Token ids of a sentence, of its positive and of its hard negative, with special tokens; a stream adds `epoch`."""

    anchor: list[int]
    positive: NotRequired[list[int]]
    negative: NotRequired[list[int]]
    epoch: NotRequired[int]


class ArcCSECollator:
    """Makes one training batch of rows with token ids in `anchor` [, `positive` [, `negative`]].

    The batch holds `pair` and, where a row is long enough for one, `triplet`; each is `input_ids` and `attention_mask`
    `[batch, views, length]`. A pair's views are the anchor, its positive (the anchor again where rows have no
    `positive`) and the hard negative, if rows have one. A triplet's are the anchor and its versions with the small and
    the large span corrupted.

    A row's spans follow from the seed, the epoch (the row's own `epoch` if it has one, as in a stream, or else that of
    `set_epoch`) and its tokens alone: they are drawn anew each epoch, and are the same for any number of processes and
    workers, and after a resume.

    Args:
        tokenizer: Gives the padding, mask and special tokens.
        triplets: Whether to make triplets at all.
        small_span_ratio: The share of a sentence's tokens in the small span.
        large_span_ratio: The same for the large span around it.
        triplet_min_tokens: Anchors with fewer tokens (special tokens not counted) get no triplet.
        span_corruption: `mask` or `delete`; a tokenizer without a mask token deletes, and says so.
        seed: Of the spans.
        pad_to_multiple_of: What the length of a batch is a multiple of.

    Raises:
        ValueError: The tokenizer has no padding token, or the ratios are outside 0 < small < large < 1.

    Example:
        >>> batch = ArcCSECollator(tokenizer, triplet_min_tokens=3)([{"anchor": [101, 7, 8, 9, 102]}])
        >>> {name: tuple(part["input_ids"].shape) for name, part in batch.items()}
        {'pair': (1, 2, 5), 'triplet': (1, 3, 5)}
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        triplets: bool = True,
        small_span_ratio: float = SMALL_SPAN_RATIO,
        large_span_ratio: float = LARGE_SPAN_RATIO,
        triplet_min_tokens: int = TRIPLET_MIN_TOKENS,
        span_corruption: SpanCorruption = "mask",
        seed: int = 42,
        pad_to_multiple_of: int = 1,
    ):
        check_span_ratios(small_span_ratio, large_span_ratio)
        self.pad_token_id = require_pad_token(tokenizer)
        self.mask_token_id = tokenizer.mask_token_id
        if triplets and span_corruption == "mask" and self.mask_token_id is None:
            logger.warning("The tokenizer has no mask token: spans are deleted instead of masked.")
            span_corruption = "delete"
        self.special_ids = special_ids(tokenizer)
        self.triplets = triplets
        self.ratios = (small_span_ratio, large_span_ratio)
        self.triplet_min_tokens = max(triplet_min_tokens, 1)
        self.span_corruption = span_corruption
        self.seed = seed
        self.pad_to_multiple_of = pad_to_multiple_of
        # Shared memory: worker processes hold copies of the collator and must see the epoch change too.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Starts an epoch: the same rows get new spans."""
        self._epoch.fill_(epoch)

    def __call__(self, rows: Sequence[TrainingRow]) -> dict[str, dict[str, Tensor]]:
        """Returns `pair` of all rows and `triplet` of those that have one; all rows have the same columns."""
        batch = {"pair": self._pad([_pair_views(row) for row in rows])}
        if self.triplets:
            triplets = [views for row in rows if (views := self._triplet(row["anchor"], row.get("epoch"))) is not None]
            if triplets:
                batch["triplet"] = self._pad(triplets)
        return batch

    def _triplet(self, token_ids: list[int], epoch: int | None = None) -> list[list[int]] | None:
        content = [position for position, token in enumerate(token_ids) if token not in self.special_ids]
        if len(content) < self.triplet_min_tokens:
            return None
        epoch = int(self._epoch) if epoch is None else epoch
        # The hash of a tuple of integers is the same in every process. No generator is kept: it cannot go to a worker
        # that is spawned.
        generator = torch.Generator().manual_seed(hash((self.seed, epoch, *token_ids)) & (2**63 - 1))
        spans = nested_spans(len(content), *self.ratios, generator=generator)
        versions = [corrupt(token_ids, content, span, self.span_corruption, self.mask_token_id) for span in spans]
        return [token_ids, *versions]

    def _pad(self, rows: list[list[list[int]]]) -> dict[str, Tensor]:
        return pad_views(rows, self.pad_token_id, self.pad_to_multiple_of)


def _pair_views(row: TrainingRow) -> list[list[int]]:
    views = [row["anchor"], row.get("positive", row["anchor"])]
    return [*views, row["negative"]] if "negative" in row else views


def require_pad_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Returns the id of the tokenizer's padding token; raises ValueError if it has none."""
    if tokenizer.pad_token_id is None:
        raise ValueError("the tokenizer has no padding token: set tokenizer.pad_token and save it with the model")
    return tokenizer.pad_token_id


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Returns the ids that are no part of a sentence; an unknown or a masked word is."""
    return set(tokenizer.all_special_ids) - {tokenizer.unk_token_id, tokenizer.mask_token_id}


def pad_views(rows: Sequence[Sequence[Sequence[int]]], pad_token_id: int, multiple_of: int = 1) -> dict[str, Tensor]:
    """Pads rows of views on the right, to the longest view of all.

    Args:
        rows: Token ids `[rows, views, tokens]`; all rows have the same number of views.
        pad_token_id: What fills the rest.
        multiple_of: What the length is rounded up to a multiple of.

    Returns:
        `input_ids` and `attention_mask` `[rows, views, length]`.
    """
    longest = -(-max(len(view) for row in rows for view in row) // multiple_of) * multiple_of
    input_ids = np.full((len(rows), len(rows[0]), longest), pad_token_id, dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    for index, row in enumerate(rows):
        for view, token_ids in enumerate(row):
            input_ids[index, view, : len(token_ids)] = token_ids
            attention_mask[index, view, : len(token_ids)] = 1
    return {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(attention_mask)}
