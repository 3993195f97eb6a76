"""The anchor: in each batch, the trained encoder ranks the texts as the start encoder does.

A tuned encoder forgets while it is trained on few texts. The anchor distils the start encoder's ranking of the batch
with ListNet's loss (Cao et al., ICML 2007), which RankCSE (Liu et al., ACL 2023) uses with two teachers; here the
teacher is the encoder that training started from.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.length_batching import embed_by_length
from ..model.losses import cosine_matrix
from ..model.modeling_arccse import ArcCSEForContrastiveLearning, ArcCSEModel
from .arguments import ArcCSETrainingArguments

TEMPERATURE = 0.05
TEACHER_TEMPERATURE = 0.025
"""Half of the student's, as in RankCSE."""


def anchor_loss(cosines: Tensor, start_cosines: Tensor) -> Tensor:
    """Returns ListNet's loss between the start encoder's cosines T and the trained one's S.

        mean over i of  -sum over j != i of  softmax_j(T_ij / 0.025) * log softmax_j(S_ij / 0.05)

    The own positive is left out because its place is what ArcCon trains.

    Args:
        cosines: `[batch, keys]`, with a graph; key i is the positive of row i.
        start_cosines: The same of the start encoder.

    Returns:
        A scalar in float32; 0 where there is no other key.

    Example:
        >>> cosines = torch.tensor([[0.9, 0.2, 0.1], [0.3, 0.8, 0.0]])
        >>> anchor_loss(cosines, cosines).item()
        0.0827...
    """
    rows, keys = cosines.shape
    if keys < 2:
        return cosines.sum() * 0
    own = torch.eye(rows, keys, dtype=torch.bool, device=cosines.device)
    with torch.autocast(cosines.device.type, enabled=False):
        student, teacher = (
            values.float()[~own].view(rows, keys - 1) / temperature
            for values, temperature in ((cosines, TEMPERATURE), (start_cosines, TEACHER_TEMPERATURE))
        )
        return F.cross_entropy(student, teacher.softmax(-1))


def start_encoder(model: ArcCSEForContrastiveLearning, args: ArcCSETrainingArguments) -> StartEncoder | None:
    """Returns a copy of the encoder in `model`, which is not trained yet; None where no setting needs one."""
    needed = args.anchor_weight > 0 or args.false_negative_threshold is not None
    return StartEncoder(model.base_model) if needed else None


class StartEncoder:
    """The encoder as it was before training, frozen and without dropout.

    Args:
        model: The encoder, copied here; training changes the original only.
        cached_texts: How many texts' embeddings are kept, so that those that come again are not embedded again.
    """

    def __init__(self, model: ArcCSEModel, cached_texts: int = 100_000):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.cached_texts = cached_texts
        self._cache: dict[bytes, Tensor] = {}

    def cosines(self, pair: Mapping[str, Tensor], gather_keys: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Returns the cosines `[batch, keys]` that ArcCon would compare if this encoder were trained.

        Args:
            pair: `input_ids` and `attention_mask` `[batch, views, length]`, as the model's `forward` takes them.
            gather_keys: Adds the keys of other processes behind the `[keys, dim]` of this one.
        """
        anchors, *others = self.embed(pair).unbind(1)
        keys = torch.cat(others)
        return cosine_matrix(anchors, keys if gather_keys is None else gather_keys(keys))

    @torch.no_grad()
    def embed(self, views: Mapping[str, Tensor]) -> Tensor:
        """Embeddings `[batch, views, dim]` in float32 of `input_ids` and `attention_mask` `[batch, views, length]`."""
        input_ids, attention_mask = (views[name].flatten(0, 1) for name in ("input_ids", "attention_mask"))
        lengths = attention_mask.sum(-1).tolist()
        keys = [ids[:length].tobytes() for ids, length in zip(input_ids.cpu().numpy(), lengths, strict=True)]
        # Each text once, also where both views of a row are the same.
        new = {key: row for row, key in reversed(list(enumerate(keys))) if key not in self._cache}
        embeddings: dict[bytes, Tensor] = {}
        if new:
            rows = torch.tensor(list(new.values()), device=input_ids.device)
            self.model.to(input_ids.device)
            embedded = embed_by_length(self.model, input_ids[rows], attention_mask[rows]).float()
            embeddings = dict(zip(new, embedded, strict=True))
            room = self.cached_texts - len(self._cache)
            self._cache |= dict(list(embeddings.items())[: max(room, 0)])
        stacked = torch.stack([embeddings[key] if key in embeddings else self._cache[key] for key in keys])
        return stacked.unflatten(0, views["input_ids"].shape[:2])
