"""Embeds a list of texts: for training's evaluation, the command line, `encode`, cosine samples and studies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from accelerate.utils import gather
from torch import Tensor
from tqdm.auto import tqdm

from ..data.collator import pad_views, require_pad_token
from ..data.tokenization import token_ids
from ..errors import UserError
from ..model.length_batching import batch_by_length
from .process_group import process_state

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..model.modeling_arccse import ArcCSEForContrastiveLearning


class BatchEncoder(Protocol):
    """What embeds one batch of texts: an `open.Encoder`, or a `TrainingEncoder`."""

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Returns the tokens of each text: texts with like numbers make a batch."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> Tensor:
        """Returns the embeddings `[len(texts), dim]`."""
        ...


class TrainingEncoder:
    """A model in training as a `BatchEncoder`: its sentence embeddings, as inference uses them.

    Each text is tokenised once, since every evaluation embeds the same ones.

    Args:
        model: The model to embed with; its mode is the caller's to set.
        tokenizer: Its tokenizer.
        max_length: Tokens that a text is cut to, special tokens included; None: as the tokenizer does.
        sharded: Whether the weights are sharded over processes.
    """

    def __init__(
        self,
        model: ArcCSEForContrastiveLearning,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int | None = None,
        sharded: bool = False,
    ):
        self.model, self.tokenizer, self.max_length, self.sharded = model, tokenizer, max_length, sharded
        self.pad_token_id = require_pad_token(tokenizer)
        self._token_ids: dict[str, np.ndarray] = {}

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Returns the tokens of each text, special tokens included, after it was cut."""
        new_texts = [text for text in dict.fromkeys(texts) if text not in self._token_ids]
        if new_texts:
            for text, ids in zip(new_texts, token_ids(self.tokenizer, new_texts, self.max_length), strict=True):
                self._token_ids[text] = np.array(ids, dtype=np.int32)
        return [len(self._token_ids[text]) for text in texts]

    @torch.no_grad()
    def encode_batch(self, texts: Sequence[str]) -> Tensor:
        """Returns the embeddings `[len(texts), dim]` of texts whose tokens were counted before."""
        batch = pad_views([[self._token_ids[text].tolist()] for text in texts], self.pad_token_id)
        inputs = {name: values.squeeze(1).to(self.model.device) for name, values in batch.items()}
        return self.model(**inputs, sharded=self.sharded).sentence_embedding


def embed(
    encoder: BatchEncoder,
    texts: Sequence[str],
    *,
    batch_size: int = 64,
    show_progress: bool = False,
    after_batch: Callable[[int], None] | None = None,
    label: str | None = None,
) -> np.ndarray:
    """Embeds texts, divided over all processes of an `accelerate launch`. Every process must call, and gets them all.

    Args:
        encoder: Embeds a batch.
        texts: One or more.
        batch_size: Texts per batch.
        show_progress: Whether the main process shows a bar.
        after_batch: Called with the number of texts after each batch on this process.
        label: What the bar says that it is about.

    Returns:
        float32 `[len(texts), dim]`, in the order of `texts`.

    Example:
        >>> embed(load_encoder("out"), ["A cat sat.", "It rained."]).shape
        (2, 384)
    """
    state = process_state()
    # Every process embeds as many texts, in as many calls: sharded weights need that. What is missing is repeated.
    per_process = -(-len(texts) // state.num_processes)
    places = np.resize(np.arange(len(texts)), per_process * state.num_processes)[
        state.process_index :: state.num_processes
    ]
    hidden = not (show_progress and state.is_main_process)
    with tqdm(total=per_process, desc=label, unit=" texts", disable=hidden) as bar:

        def advance(count: int) -> None:
            bar.update(count)
            if after_batch is not None:
                after_batch(count)

        part = embed_here(encoder, [texts[place] for place in places], batch_size=batch_size, after_batch=advance)
    parts = gather(part.to(state.device)) if state.num_processes > 1 else part
    in_order = parts.unflatten(0, (state.num_processes, per_process)).transpose(0, 1).flatten(0, 1)
    return in_order[: len(texts)].cpu().numpy()


def embed_here(
    encoder: BatchEncoder, texts: Sequence[str], *, batch_size: int, after_batch: Callable[[int], object]
) -> Tensor:
    """Embeds texts on this process, the longest first, so that memory which does not suffice shows at once.

    A batch of texts with like numbers of tokens holds next to no padding; by characters, as sentence-transformers sorts
    them, batches of 64 hold a third more.

    Args:
        encoder: Embeds a batch.
        texts: One or more.
        batch_size: Texts per batch.
        after_batch: Called with the number of texts after each batch.

    Returns:
        float32 `[len(texts), dim]` on the encoder's device, in the order of `texts`.
    """
    batches = batch_by_length(torch.tensor(encoder.count_tokens(texts)), batch_size)
    embeddings = []
    for rows in reversed(batches.rows):
        embeddings.append(encoder.encode_batch([texts[row] for row in rows.tolist()]).float())
        after_batch(len(rows))
    return batches.restore(embeddings[::-1])


def require_finite(
    embeddings: np.ndarray,
    names: Sequence[object],
    where: str,
    *,
    kind: str = "text",
    way_out: str = "check the model, or use float32 for --dtype",
) -> None:
    """Checks that no embedding has a value that is NaN or infinite.

    Args:
        embeddings: `[len(names), dim]`.
        names: The text, or the id, that each embedding is of.
        where: The option and its value that the error begins with.
        kind: What `names` are.
        way_out: What the error ends with.

    Raises:
        UserError: One has; the message names the first.
    """
    broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(broken):
        name = names[broken[0]]
        shown = repr(name[:80] if isinstance(name, str) else name)
        raise UserError(f"{where}: the embedding of {kind} {shown} is not finite; {way_out}")
