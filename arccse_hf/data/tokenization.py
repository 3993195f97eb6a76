"""From texts to token ids, truncated and without padding."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from datasets import Dataset, Features, List, Value
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from ..compat import dataset_fingerprint
from ..errors import UserError
from .files.dataset import code_hash

MAX_SEQ_LENGTH = 32
"""Tokens that training cuts a text to, special ones included, where nothing else is said."""

_CHARACTERS_PER_TOKEN = 256  # Of a longer text, this much of the beginning is looked at first.
_ROWS_PER_PROCESS = 20_000  # Below this, starting another process costs more than it saves.


def tokenize_texts(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_seq_length: int, num_proc: int | None = None
) -> Dataset:
    """Token ids in place of the texts, with special tokens, truncated and not padded.

    The result is kept in the datasets cache: a second call with the same rows, tokenizer and length reads it there.

    Args:
        dataset: Columns of text.
        tokenizer: Left as it is; truncation is set on a copy.
        max_seq_length: In tokens, special tokens included.
        num_proc: How many processes at most; small datasets use fewer. None: this process, in which a fast tokenizer
            uses all cores anyway.

    Raises:
        UserError: `max_seq_length` leaves no room for a word.

    Example:
        >>> tokenize_texts(Dataset.from_dict({"anchor": ["The printer jams."]}), tokenizer, max_seq_length=32)[0]
        {'anchor': [101, 1996, 15041, 9389, 2015, 1012, 102]}
    """
    check_length(tokenizer, max_seq_length)
    tokenizer = copy.deepcopy(tokenizer)
    fingerprint = None
    if tokenizer.is_fast:
        # The hash that `map` makes would change with what was tokenized before: truncation, padding, shown warnings.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        state = tokenizer.backend_tokenizer.to_str()
        options = (tokenizer.truncation_side, max_seq_length, dataset.column_names)
        fingerprint = Hasher.hash(
            (code_hash(__file__), dataset_fingerprint(dataset), type(tokenizer).__name__, state, options)
        )
    processes = min(num_proc or 1, -(-len(dataset) // _ROWS_PER_PROCESS))
    return dataset.map(
        tokenize_batch,
        batched=True,
        fn_kwargs={"tokenizer": tokenizer, "max_seq_length": max_seq_length},
        num_proc=processes if processes > 1 else None,
        features=Features({column: List(Value("int32")) for column in dataset.column_names}),
        new_fingerprint=fingerprint,
        desc="Tokenizing",
    )


def check_length(tokenizer: PreTrainedTokenizerBase, max_seq_length: int) -> None:
    """Raises UserError if `max_seq_length` leaves no room for a word."""
    special = tokenizer.num_special_tokens_to_add()
    if max_seq_length <= special:
        raise UserError(f"--max_seq_length {max_seq_length}: the tokenizer adds {special} special tokens; give more")


def tokenize_batch(
    batch: dict[str, list[str]], tokenizer: PreTrainedTokenizerBase, max_seq_length: int
) -> dict[str, list[list[int]]]:
    """Token ids in place of each column's texts, as `tokenize_texts` makes them."""
    return {
        column: token_ids(tokenizer, [_beginning(text, tokenizer, max_seq_length) for text in texts], max_seq_length)
        for column, texts in batch.items()
    }


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_seq_length: int | None = None
) -> list[list[int]]:
    """Returns the token ids of each text, with special tokens and without padding.

    Args:
        tokenizer: Of the encoder.
        texts: Any number of them.
        max_seq_length: Tokens that a text is cut to, special tokens included; None: it stays whole.
    """
    return tokenizer(
        list(texts),
        truncation=max_seq_length is not None,
        max_length=max_seq_length,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]


def _beginning(text: str, tokenizer: PreTrainedTokenizerBase, max_seq_length: int) -> str:
    """Returns as much of a very long text as decides about its first tokens: all of it was tokenized for a few of them.

    That is so where the beginning alone has twice the tokens that are wanted, the last of them far from the cut.
    """
    if len(text) <= _CHARACTERS_PER_TOKEN * max_seq_length or tokenizer.truncation_side != "right":
        return text
    beginning = text[: _CHARACTERS_PER_TOKEN * max_seq_length]
    tokens = tokenizer(beginning, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    return beginning if len(tokens) >= 2 * max_seq_length else text
