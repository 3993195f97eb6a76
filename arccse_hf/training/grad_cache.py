"""Contrastive batches of any size in the memory of a chunk.

From Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (RepL4NLP 2021).

(1) The texts are embedded in chunks, without a graph. (2) The loss of all embeddings gives the gradient of each.
(3) Every chunk is embedded once more, with a graph and the dropout masks that it had, and takes the gradient of its
embeddings to the weights. Their sum is the gradient of the whole batch at once.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..model.length_batching import batch_by_length
from ..model.modeling_arccse import without_dropout


@dataclass
class _Chunk:
    """Texts that are embedded together.

    Args:
        texts: `input_ids` and `attention_mask` `[texts, length]`.
        dropout: Whether it is on.
        random_states: States of the random generators before the texts were embedded.
        embeddings: `[texts, dim]`; they collect the gradient of the loss.
    """

    texts: dict[str, Tensor]
    dropout: bool
    random_states: tuple[Tensor, Tensor | None]
    embeddings: Tensor


class GradCache:
    """The chunks of one micro-batch, from their embeddings to their part of the weights' gradient.

    Args:
        model: An `ArcCSEForContrastiveLearning` as training has wrapped it (DDP, compiled), in training mode.
        chunk_size: How many texts are embedded together; each view of a row is one.
        no_sync: Returns a context in which backward passes leave gradients on their process, as DDP's `no_sync` does.
    """

    def __init__(self, model: nn.Module, chunk_size: int, no_sync: Callable[[], AbstractContextManager]):
        self.model = model
        self.chunk_size = chunk_size
        self.no_sync = no_sync
        self._chunks: list[_Chunk] = []

    def embed(self, sentences: Mapping[str, Tensor], *, dropout: bool = True) -> Tensor:
        """Embeds a batch of views. The gradient of the embeddings stays with the chunks until `backward`.

        Args:
            sentences: `input_ids` and `attention_mask` `[batch, views, length]`.
            dropout: Whether it is on.

        Returns:
            `[batch, views, dim]`.
        """
        flat = {name: values.flatten(0, 1) for name, values in sentences.items()}
        batches = batch_by_length(flat["attention_mask"].sum(-1).cpu(), self.chunk_size)
        chunks = [
            self._embed_without_graph({name: values[rows, :length] for name, values in flat.items()}, dropout)
            for rows, length in zip(batches.rows, batches.longest, strict=True)
        ]
        self._chunks += chunks
        embeddings = batches.restore([chunk.embeddings for chunk in chunks])
        return embeddings.unflatten(0, sentences["input_ids"].shape[:2])

    def backward(self) -> None:
        """Backpropagates the cached gradients of the embeddings into the weights, chunk by chunk.

        Texts without a gradient are left out: those of triplets without a loss. Only the last chunk's pass synchronises
        processes: it reduces what all of them have added.
        """
        # The last chunk is taken whole: each process needs it, whatever its texts are.
        *others, last = sorted(self._chunks, key=lambda chunk: chunk.dropout)
        for chunk in filter(None, map(_with_gradient, others)):
            with self.no_sync():
                self._embed_with_graph(chunk).backward(chunk.embeddings.grad)
        self._embed_with_graph(last).backward(last.embeddings.grad)

    def _embed_without_graph(self, texts: dict[str, Tensor], dropout: bool) -> _Chunk:
        """Embeds `texts`, `input_ids` and `attention_mask` `[texts, length]`."""
        random_states = _random_states(texts["input_ids"].device)
        with torch.no_grad():
            embeddings = self._forward(texts, dropout)
        return _Chunk(texts, dropout, random_states, embeddings.requires_grad_())

    def _embed_with_graph(self, chunk: _Chunk) -> Tensor:
        """Returns the embeddings `[texts, dim]` of `chunk` once more."""
        with _replay_rng(chunk.random_states, chunk.embeddings.device):
            return self._forward(chunk.texts, chunk.dropout)

    def _forward(self, texts: dict[str, Tensor], dropout: bool) -> Tensor:
        with contextlib.nullcontext() if dropout else without_dropout(self.model):
            return self.model(**texts).training_embedding


def _with_gradient(chunk: _Chunk) -> _Chunk | None:
    """Returns the texts of `chunk` that have a gradient, or all of them where masks are replayed; None without any."""
    rows = chunk.embeddings.grad.any(1)
    if not rows.any():
        return None
    if chunk.dropout or rows.all():
        return chunk
    embeddings = chunk.embeddings.detach()[rows]
    embeddings.grad = chunk.embeddings.grad[rows]
    return _Chunk({name: values[rows] for name, values in chunk.texts.items()}, False, chunk.random_states, embeddings)


def _random_states(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Returns the state of the CPU's generator, and of the device's where that is another."""
    return torch.get_rng_state(), None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(
        device
    )


@contextlib.contextmanager
def _replay_rng(random_states: tuple[Tensor, Tensor | None], device: torch.device) -> Iterator[None]:
    """Draws random numbers from `random_states` for a while; afterwards they go on as if nothing had been drawn."""
    cpu_state, device_state = random_states
    with torch.random.fork_rng(devices=[] if device_state is None else [device], device_type=device.type):
        torch.set_rng_state(cpu_state)
        if device_state is not None:
            torch.get_device_module(device).set_rng_state(device_state, device)
        yield
