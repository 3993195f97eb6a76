"""`arccse similarity`: the cosines of a few texts with each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import printable
from ..evaluation.retrieval import normalize
from .embed import embed, require_finite
from .open import Encoder, load_encoder


def similarities(encoder: Encoder, texts: Sequence[str]) -> np.ndarray:
    """Returns the cosine of each text with every other, float64 `[texts, texts]`.

    Args:
        encoder: Embeds the texts.
        texts: One or more.

    Raises:
        UserError: An embedding is not finite.

    Example:
        >>> similarities(load_encoder("out"), ["paper jam", "the printer is stuck"]).round(2)
        array([[1.  , 0.43],
               [0.43, 1.  ]])
    """
    embeddings = embed(encoder, texts).astype(np.float64)
    require_finite(embeddings, texts, f"MODEL {encoder.name}")
    embeddings = normalize(embeddings)
    return np.clip(embeddings @ embeddings.T, -1, 1)


def run(
    model: str,
    texts: Sequence[str],
    *,
    as_json: bool = False,
    **opening: Any,
) -> int:
    """Prints the matrix, and returns the exit status 0.

    Args:
        model: See `load_encoder`.
        texts: What is compared.
        as_json: Whether to print a JSON object.
        opening: Arguments of `load_encoder`: `pooling`, `dtype`, `max_seq_length`.

    Raises:
        UserError: There is no such model, it cannot be used with these options, or an embedding is not finite.
    """
    cosines = similarities(load_encoder(model, **opening), texts)
    if as_json:
        print(json.dumps({"texts": list(texts), "cosines": cosines.tolist()}, ensure_ascii=False))
        return 0
    print("   " + "".join(f"{number:>9}" for number in range(1, len(texts) + 1)))
    for number, (row, text) in enumerate(zip(cosines, texts, strict=True), start=1):
        print(f"{number:>3}" + "".join(f"{cosine:9.4f}" for cosine in row) + f"  {printable(text)[:60]}")
    return 0
