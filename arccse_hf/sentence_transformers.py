"""ArcCSE's two losses, the first also with a gradient cache, for sentence-transformers' own trainer.

Example:
    >>> from datasets import Dataset
    >>> from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    >>> from arccse_hf.sentence_transformers import ArcConLoss
    >>> model = SentenceTransformer("bert-base-uncased")
    >>> rows = Dataset.from_dict({"text": ["one sentence", "another sentence"]})
    >>> SentenceTransformerTrainer(model=model, train_dataset=rows, loss=ArcConLoss(model)).train()  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses import CachedLossMixin
from sentence_transformers.util import all_gather_with_grad, get_rank
from torch import Tensor, nn

from .data.collator import TRIPLET_MIN_TOKENS, pad_views, require_pad_token, special_ids
from .data.span_masking import LARGE_SPAN_RATIO, SMALL_SPAN_RATIO, check_span_ratios, corrupt, nested_spans
from .model.losses import arccon_loss_from_cosines, cosine_matrix, triplet_loss
from .model.modeling_arccse import without_dropout


class ArcConLoss(nn.Module):
    """ArcCon: contrast with the other rows of the batch, with an angular margin on the angle of each positive pair.

    Columns of the training rows: (text), which is embedded twice with other dropout; (anchor, positive); or
    (anchor, positive, negative, ...), whose negatives are negatives of every anchor.

    Args:
        model: The model in training.
        margin_degrees: In [0, 90). 0 gives NT-Xent, the loss of SimCSE.
        temperature: Above 0.
        gather_across_devices: Whether the keys of all processes count; the gradient is that of one process with the
            whole batch.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        margin_degrees: float = 10.0,
        temperature: float = 0.05,
        gather_across_devices: bool = False,
    ):
        super().__init__()
        if not 0 <= margin_degrees < 90 or not temperature > 0:
            raise ValueError(
                f"margin_degrees must be in [0, 90) and temperature above 0: {margin_degrees}, {temperature}"
            )
        self.model = model
        self.margin_degrees = margin_degrees
        self.temperature = temperature
        self.gather_across_devices = gather_across_devices

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Returns the mean loss of a batch; `labels` are not used."""
        columns = _two_or_more(sentence_features)
        return self.compute_loss_from_embeddings([self.model(column)["sentence_embedding"] for column in columns])

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Returns the mean loss of embeddings: anchors, positives and negatives, each `[batch, dim]`."""
        anchors, *keys = embeddings
        own = torch.arange(len(anchors), device=anchors.device)
        if self.gather_across_devices:
            keys = [all_gather_with_grad(column) for column in keys]
            own = own + get_rank() * len(anchors)
        return arccon_loss_from_cosines(
            cosine_matrix(anchors, torch.cat(keys)),
            labels=own,
            angular_margin=self.margin_degrees,
            temperature=self.temperature,
        )

    def get_config_dict(self) -> dict[str, Any]:
        """Returns the settings, as the model card lists them."""
        names = ("margin_degrees", "temperature", "gather_across_devices")
        return {name: getattr(self, name) for name in names}

    @property
    def citation(self) -> str:
        """The paper's BibTeX entry."""
        from .training.model_card import CITATIONS  # with the trainer behind it, which the losses do without

        return CITATIONS["ArcCSE"]


class CachedArcConLoss(CachedLossMixin, ArcConLoss):
    """`ArcConLoss` of batches of any size in the memory of a few texts, by sentence-transformers' GradCache.

    The gradient is the same, for one more forward pass.

    Args:
        model: The model in training.
        margin_degrees: As for `ArcConLoss`; so are `temperature` and `gather_across_devices`.
        temperature: Above 0.
        mini_batch_size: Texts that are embedded at once.
        gather_across_devices: Whether the keys of all processes count.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        margin_degrees: float = 10.0,
        temperature: float = 0.05,
        mini_batch_size: int = 32,
        gather_across_devices: bool = False,
    ):
        super().__init__(model, margin_degrees, temperature, gather_across_devices)
        self.mini_batch_size = mini_batch_size

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Returns the mean loss of a batch, whose backward pass goes through the texts again; `labels` are not used."""
        return self.forward_cached(_two_or_more(sentence_features), labels)

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Returns the loss of the embeddings of each column, in pieces `[texts, dim]`; see `CachedLossMixin`."""
        loss = self.compute_loss_from_embeddings([torch.cat(pieces) for pieces in reps])
        if not with_backward:
            return loss
        loss.backward()
        return loss.detach()

    def get_config_dict(self) -> dict[str, Any]:
        """Returns the settings, as the model card lists them."""
        return super().get_config_dict() | {"mini_batch_size": self.mini_batch_size}


class MaskedSpanTripletLoss(nn.Module):
    """Order of two masked versions of a text: the one with a span masked is to be closer than that with a larger one.

    Columns of the training rows: (text); further ones are not used. The three versions are embedded without dropout.
    Texts that are too short have no triplet, and a batch without any has the loss 0.

    Args:
        model: The model in training; its tokenizer must have a mask token.
        small_ratio: Share of a text's tokens in the small span.
        large_ratio: Share in the large span around it.
        margin: Cosine by which the less masked version must win.
        min_tokens: Texts with fewer tokens, special ones not counted, have no triplet.

    Raises:
        ValueError: Not 0 < `small_ratio` < `large_ratio` < 1, or the tokenizer has no padding or mask token.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        small_ratio: float = SMALL_SPAN_RATIO,
        large_ratio: float = LARGE_SPAN_RATIO,
        margin: float = 0.0,
        min_tokens: int = TRIPLET_MIN_TOKENS,
    ):
        super().__init__()
        check_span_ratios(small_ratio, large_ratio)
        tokenizer = model.tokenizer
        if tokenizer.mask_token_id is None:
            raise ValueError("the tokenizer has no mask token")
        self.model = model
        self.small_ratio, self.large_ratio = small_ratio, large_ratio
        self.margin = margin
        self.min_tokens = max(1, min_tokens)
        self._pad_id, self._mask_id = require_pad_token(tokenizer), tokenizer.mask_token_id
        self._special_ids = special_ids(tokenizer)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Returns the mean loss of a batch's triplets; `labels` are not used."""
        features = next(iter(sentence_features))
        triplets = self.triplets(features)
        with without_dropout(self.model):
            if not triplets:
                # Depends on the weights, so that the backward pass is the same on every process.
                return self.model(dict(features))["sentence_embedding"].sum() * 0
            batch = pad_views(triplets, self._pad_id)
            other = {name: value for name, value in features.items() if not isinstance(value, Tensor)}
            device = features["input_ids"].device
            tokens = {name: values.flatten(0, 1).to(device) for name, values in batch.items()}
            embeddings = self.model({**other, **tokens})["sentence_embedding"]
        return self.compute_loss_from_embeddings(embeddings.unflatten(0, (-1, 3)).unbind(1))

    def triplets(self, features: dict[str, Tensor]) -> list[list[list[int]]]:
        """Returns the token ids of each text that is long enough, and of its two masked versions."""
        triplets = []
        for row, mask in zip(features["input_ids"], features["attention_mask"].bool(), strict=True):
            token_ids = row[mask].tolist()
            content = [position for position, token in enumerate(token_ids) if token not in self._special_ids]
            if len(content) >= self.min_tokens:
                spans = nested_spans(len(content), self.small_ratio, self.large_ratio)
                versions = [corrupt(token_ids, content, span, "mask", self._mask_id) for span in spans]
                triplets.append([token_ids, *versions])
        return triplets

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Returns the mean loss of embeddings: texts, less and more masked versions, each `[triplets, dim]`."""
        anchors, closer, farther = embeddings
        return triplet_loss(anchors, closer, farther, triplet_margin=self.margin)

    def get_config_dict(self) -> dict[str, Any]:
        """Returns the settings, as the model card lists them."""
        return {name: getattr(self, name) for name in ("small_ratio", "large_ratio", "margin", "min_tokens")}

    citation = ArcConLoss.citation


def _two_or_more(sentence_features: Iterable[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Returns the columns; one alone is there twice, as a copy, since a model adds its outputs to what it is given."""
    columns = list(sentence_features)
    return columns if len(columns) > 1 else [columns[0], dict(columns[0])]
