"""What an encoder will see of a text: what is cut off, what its tokenizer does not know, what is long enough."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from .tokenization import token_ids

SAMPLE_ROWS = 10_000
MAX_LOST_TOKENS = 0.05
MAX_UNKNOWN_TOKENS = 0.01
"""Shares of tokens above which `TextHealth.warnings` speaks."""


@dataclass(frozen=True)
class TextHealth:
    """How a text and an encoder go together; shares are between 0 and 1.

    Args:
        rows: Number of rows of the text.
        sampled: Number of rows that were looked at.
        max_seq_length: Tokens that a text is cut to, special tokens included.
        cut: Share of the texts that are cut.
        lost: Share of the tokens that are cut off.
        unknown: Share of the tokens that the tokenizer does not know.
        median: Median length in tokens, special tokens included.
        triplets: Share of the texts that are long enough for a triplet; None where there are no triplets.
        triplet_min_tokens: Tokens that a triplet needs, special tokens not included.
        fitting_length: Tokens, special tokens included, to which at most `MAX_LOST_TOKENS` are lost.
        duplicates: Number of rows that were left out because they stood there before.
    """

    rows: int
    sampled: int
    max_seq_length: int
    cut: float
    lost: float
    unknown: float
    median: float
    triplets: float | None
    triplet_min_tokens: int
    fitting_length: int
    duplicates: int = 0

    def __str__(self) -> str:
        words = [
            f"{self.rows:,} rows" + (f" ({self.sampled:,} rows looked at)" if self.sampled < self.rows else ""),
            f"{self.cut:.1%} cut at {self.max_seq_length} tokens ({self.lost:.1%} of tokens lost)",
            f"{self.unknown:.1%} unknown tokens",
            f"median {self.median:.0f} tokens",
        ]
        if self.triplets is not None:
            words.append(f"{self.triplets:.0%} long enough for a triplet")
        words.append(f"{self.duplicates:,} duplicates")
        return " · ".join(words)

    def warnings(self, longest: int | None = None) -> list[str]:
        """Returns one line per harm that the text would come to, each with its way out.

        Args:
            longest: Tokens that the encoder reads at most.
        """
        lines = []
        if self.lost > MAX_LOST_TOKENS:
            fitting = self.fitting_length if longest is None else min(self.fitting_length, longest)
            way_out = f"--max_seq_length {fitting}, or one sentence per row"
            if fitting <= self.max_seq_length:
                way_out = "the encoder reads no more; split the texts into sentences"
            lines.append(
                f"{self.lost:.1%} of the tokens are cut off at --max_seq_length {self.max_seq_length}: {way_out}"
            )
        if self.unknown > MAX_UNKNOWN_TOKENS:
            lines.append(
                f"{self.unknown:.1%} of the tokens are unknown to this tokenizer: choose an encoder of the text's "
                "language"
            )
        if self.triplets == 0:
            lines.append(
                f"no text has the {self.triplet_min_tokens} tokens that a triplet needs: lower --triplet_min_tokens, "
                "or train without triplets (--triplet_weight 0)"
            )
        return lines


def text_health(
    texts: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int,
    *,
    rows: int | None = None,
    triplet_min_tokens: int | None = None,
    duplicates: int = 0,
    seed: int = 0,
) -> TextHealth:
    """Looks at up to `SAMPLE_ROWS` rows of `texts`, drawn at random, in whole length.

    Args:
        texts: One or more rows; all columns are text, and triplets are drawn from the first.
        tokenizer: Of the encoder.
        max_seq_length: Tokens that a text will be cut to, special tokens included.
        rows: Of the whole text, where `texts` is a sample of it already.
        triplet_min_tokens: Tokens that a triplet needs; None where there are no triplets.
        duplicates: Number of rows that were left out before.
        seed: Of the draw.

    Example:
        >>> print(text_health(Dataset.from_dict({"anchor": ["a short text"]}), tokenizer, 32))
        1 rows · 0.0% cut at 32 tokens (0.0% of tokens lost) · 0.0% unknown tokens · median 5 tokens · 0 duplicates
    """
    size = min(len(texts), SAMPLE_ROWS)
    sample = texts.select(np.sort(np.random.default_rng(seed).choice(len(texts), size, replace=False)))
    columns = [token_ids(tokenizer, sample[column]) for column in sample.column_names]
    ids = [tokens for column in columns for tokens in column]
    lengths = np.array([len(tokens) for tokens in ids])
    first = np.minimum(lengths[:size], max_seq_length)
    unknown = sum(tokens.count(tokenizer.unk_token_id) for tokens in ids) if tokenizer.unk_token_id is not None else 0
    special = tokenizer.num_special_tokens_to_add()
    kept = np.minimum(lengths, max_seq_length)
    return TextHealth(
        rows=len(texts) if rows is None else rows,
        sampled=size,
        max_seq_length=max_seq_length,
        cut=float((lengths > max_seq_length).mean()),
        lost=float(1 - kept.sum() / lengths.sum()),
        unknown=unknown / max(1, int(np.maximum(lengths - special, 0).sum())),
        median=float(np.median(kept)),
        triplets=None if triplet_min_tokens is None else float((first - special >= triplet_min_tokens).mean()),
        triplet_min_tokens=triplet_min_tokens or 0,
        fitting_length=_fitting_length(lengths),
        duplicates=duplicates,
    )


def _fitting_length(lengths: np.ndarray) -> int:
    """Returns the smallest multiple of 8 at which at most `MAX_LOST_TOKENS` of all tokens are cut off."""
    limits = range(8, int(lengths.max()) + 8, 8)
    enough = (1 - MAX_LOST_TOKENS) * lengths.sum()
    return limits[bisect_left(limits, enough, key=lambda limit: np.minimum(lengths, limit).sum())]
