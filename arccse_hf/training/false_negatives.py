"""Negatives that are none: what a row of given pairs must not be pushed away from."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_FACTOR = 6364136223846793005
"""Odd, so that all 64 bits of a product count: the multiplier of Knuth's generator MMIX."""
_PIECES = (0, 16, 32, 48)
_NOBODY = 0


def same_texts(pair: Mapping[str, Tensor], gather_keys: Callable[[Tensor], Tensor] | None) -> Tensor | None:
    """Returns booleans `[batch, keys]`: the keys of other rows that are no negatives of a row; None if there are none.

    They are the texts that equal, token by token, the row's anchor, its positive, or a positive of the same anchor.
    Rows share texts where a question has several answers, an answer several questions, or a pair several mined
    negatives. The row's own positive is marked too; no loss leaves it out.

    Args:
        pair: `input_ids` and `attention_mask` `[batch, views, length]`: anchor, positive and hard negatives.
        gather_keys: Adds the keys of other processes behind the `[keys, numbers]` of this one.

    Example:
        >>> ids = torch.tensor([[[1], [7]], [[2], [7]], [[1], [9]], [[3], [4]]])
        >>> same_texts({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, None).int()
        tensor([[1, 1, 1, 0],
                [1, 1, 0, 0],
                [1, 0, 1, 0],
                [0, 0, 0, 1]], dtype=torch.int32)
    """
    anchors, positives, *negatives = _hashes(pair["input_ids"], pair["attention_mask"]).unbind(1)
    keys = torch.cat([positives, *negatives])
    asked_by = torch.cat([anchors, *(torch.full_like(anchors, _NOBODY) for _ in negatives)])
    if gather_keys is not None:
        # In pieces of 16 bits, which float32 holds exactly.
        pieces = torch.stack([values >> bits & 0xFFFF for values in (keys, asked_by) for bits in _PIECES], dim=1)
        bits = torch.tensor(_PIECES, device=pieces.device)
        keys, asked_by = (gather_keys(pieces.float()).to(pieces.dtype).unflatten(1, (2, -1)) << bits).sum(-1).unbind(1)
    same = anchors[:, None] == asked_by
    # An answer of the row's own question may stand beside another question too, or be a hard negative of one.
    texts, text_of = keys.unique(return_inverse=True)
    rows, places = same.nonzero(as_tuple=True)
    answers = torch.zeros(len(anchors), len(texts), dtype=torch.bool, device=keys.device)
    answers[rows, text_of[places]] = True
    same |= answers[:, text_of]
    same |= anchors[:, None] == keys
    same |= positives[:, None] == keys
    return same if int(same.sum()) > len(anchors) else None


def _hashes(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Returns a number of 64 bits for each text, `[batch, views]`, whatever its padding."""
    weights = torch.full((input_ids.shape[-1],), _FACTOR).cumprod(0)  # modulo 2^64
    return ((input_ids + 1) * attention_mask * weights.to(input_ids.device)).sum(-1)
