"""`arccse mine`: a hard negative for each pair, as sentence-transformers' `mine_hard_negatives` finds it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from ..data.columns import CANONICAL_COLUMNS
from ..data.files import expand_files
from ..data.training_texts import load_training_texts
from ..errors import UserError, one_line, printable
from ..paths import check_writable, replacing
from .embed import require_finite
from .onnx import OnnxEncoder
from .open import Encoder, load_encoder

_SHOWN_PAIRS = 5
_COSINES_AT_ONCE = 2**27


def mine_triples(
    encoder: Encoder,
    pairs: Dataset,
    *,
    num_negatives: int = 1,
    relative_margin: float = 0.05,
    batch_size: int = 64,
) -> tuple[Dataset, list[tuple[str, str]]]:
    """Returns the pairs with the nearest texts that are no positives, and the pairs for which there is none.

    The negatives of an anchor are the positives of other pairs, the nearest to the anchor first. One that is nearer
    than the margin allows is likely to be a positive that nobody has marked, and is left out. Ten texts per negative
    are looked at: an anchor whose positive is farther than all of them has none.

    Args:
        encoder: Embeds the texts; models with prompts for queries and documents use them.
        pairs: Columns `anchor` and `positive`, of distinct rows.
        num_negatives: Rows per pair at most.
        relative_margin: Share of the pair's cosine by which a negative's cosine must be lower; where an anchor has
            several positives, that of the farthest.
        batch_size: Texts embedded at once.

    Returns:
        Rows of `anchor`, `positive` and `negative`, and pairs (anchor, positive).

    Raises:
        UserError: An embedding is not finite.
    """
    triples = mine_hard_negatives(
        pairs,
        cast(SentenceTransformer, _FiniteModel(encoder)),
        relative_margin=relative_margin,
        num_negatives=num_negatives,
        batch_size=batch_size,
        faiss_batch_size=max(1, _COSINES_AT_ONCE // len(pairs)),
        verbose=False,
    )
    found = set(zip(triples["anchor"], triples["positive"], strict=True))
    return triples, [pair for pair in zip(pairs["anchor"], pairs["positive"], strict=True) if pair not in found]


class _FiniteModel:
    """The model of an encoder, which raises UserError where an embedding is not finite."""

    def __init__(self, encoder: Encoder):
        self._encoder = encoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder.model, name)

    def encode_query(self, texts: list[str], **options: Any) -> np.ndarray:
        return self._checked(texts, self._encoder.model.encode_query(texts, **options))

    def encode_document(self, texts: list[str], **options: Any) -> np.ndarray:
        return self._checked(texts, self._encoder.model.encode_document(texts, **options))

    def _checked(self, texts: list[str], embeddings: np.ndarray) -> np.ndarray:
        require_finite(embeddings, texts, f"MODEL {self._encoder.name}")
        return embeddings


def run(
    model: str,
    patterns: Sequence[str],
    output: Path,
    *,
    text_columns: Sequence[str] = (),
    num_negatives: int = 1,
    relative_margin: float = 0.05,
    overwrite: bool = False,
    batch_size: int = 64,
    **opening: Any,
) -> int:
    """Writes the triples, prints how many there are and which pairs have none, and returns the exit status 0.

    Args:
        model: See `load_encoder`.
        patterns: Paths and globs of the pairs.
        output: The .jsonl file of the triples.
        text_columns: Anchor and positive; empty: found by name.
        num_negatives: See `mine_triples`; so are the next two.
        relative_margin: Share of the pair's cosine.
        batch_size: Texts embedded at once.
        overwrite: Whether `output` may be there already.
        opening: Arguments of `load_encoder`: `pooling`, `dtype`, `max_seq_length`.

    Raises:
        UserError: An argument is wrong, an embedding is not finite, no pair has a negative, or the file cannot be
            written.
    """
    _check_output(output, overwrite, patterns)
    pairs, counts = load_training_texts(train_file=patterns, text_columns=text_columns, min_chars=1)
    if pairs.column_names != list(CANONICAL_COLUMNS[:2]):
        raise UserError(
            f"--train_file {' '.join(patterns)}: has {len(pairs.column_names)} column(s) of text that are trained on; "
            "name the two of the pairs with --text_columns ANCHOR POSITIVE"
        )
    encoder = load_encoder(model, **opening)
    if isinstance(encoder.model, OnnxEncoder):
        raise UserError(f"--model {model}: is an ONNX graph; give the folder that it was made from")
    triples, without = mine_triples(
        encoder, pairs, num_negatives=num_negatives, relative_margin=relative_margin, batch_size=batch_size
    )
    print(f"pairs: {counts}")
    print(
        f"triples: {len(triples):,}, of {len(pairs) - len(without):,} pairs; pairs without a negative: {len(without):,}"
    )
    for anchor, positive in without[:_SHOWN_PAIRS]:
        print(f"    {printable(anchor)[:60]!r} with {printable(positive)[:60]!r}")
    if len(without) > _SHOWN_PAIRS:
        print(f"    and {len(without) - _SHOWN_PAIRS:,} more")
    if not len(triples):
        raise UserError(
            f"--relative_margin {relative_margin:g}: no pair has a negative; give more pairs, or a smaller margin"
        )
    try:
        with replacing(output) as unfinished:
            triples.to_json(unfinished, force_ascii=False)
    except OSError as error:
        raise UserError(
            f"--output {output}: cannot be written ({one_line(error)}); free some space, or choose another folder"
        ) from error
    print(f"written: {output}")
    return 0


def _check_output(output: Path, overwrite: bool, patterns: Sequence[str]) -> None:
    if output.is_dir() or (output.exists() and not overwrite):
        raise UserError(f"--output {output}: is there already; choose another name, or --overwrite")
    if output.exists() and any(output.samefile(file) for file in expand_files(patterns)):
        raise UserError(
            f"--output {output}: is a --train_file too, and pairs without a negative would be lost; choose another name"
        )
    check_writable(output.parent, "--output")
