"""Contrastive batches of any size in the memory of a chunk (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch
Size under Memory Limited Setup", RepL4NLP 2021).

The texts are embedded in chunks that keep no activations. The loss of all embeddings gives the gradient of each; then
every chunk is embedded once more, with the dropout that it had, and carries its part of that gradient to the weights,
whose gradient is in the end that of the whole batch at once.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..model.modeling_arccse import without_dropout


@dataclass
class _Chunk:
    """Texts that are embedded together.

    Args:
        texts: `input_ids` and `attention_mask` `[texts, length]`.
        dropout: whether it was on.
        random_states: of the generators, when the texts were embedded.
        embeddings: `[texts, dim]`; they collect the gradient of the loss.
    """

    texts: dict[str, Tensor]
    dropout: bool
    random_states: tuple[Tensor, Tensor | None]
    embeddings: Tensor


class GradCache:
    """The chunks of one micro-batch, from their embeddings to their part of the weights' gradient.

    Args:
        model: an `ArcCSEForContrastiveLearning` as training has wrapped it (DDP, compiled), in training mode.
        chunk_size: how many texts are embedded together; each view of a row is one.
        no_sync: gives a context in which backward passes leave gradients on their process, as DDP's `no_sync` does.
    """

    def __init__(self, model: nn.Module, chunk_size: int, no_sync: Callable[[], AbstractContextManager]):
        self.model = model
        self.chunk_size = chunk_size
        self.no_sync = no_sync
        self._chunks: list[_Chunk] = []

    def embed(self, sentences: Mapping[str, Tensor], *, dropout: bool = True) -> Tensor:
        """Embeddings `[batch, views, dim]` of `input_ids` and `attention_mask` `[batch, views, length]`. Their gradient
        goes no further than the chunks, until `backward` takes it on."""
        flat = {name: values.flatten(0, 1) for name, values in sentences.items()}
        lengths = flat["attention_mask"].sum(-1).cpu()
        # Texts of like length in a chunk: less padding. The order is the model's own, and so are the dropout masks on a
        # CPU, where the model cuts a batch by length too.
        order = lengths.argsort(stable=True)
        chunks = [
            self._embed_without_graph(
                {name: values[rows, : lengths[rows[-1]]] for name, values in flat.items()}, dropout
            )
            for rows in order.split(self.chunk_size)
        ]
        self._chunks += chunks
        embeddings = torch.cat([chunk.embeddings for chunk in chunks])[order.argsort()]
        return embeddings.unflatten(0, sentences["input_ids"].shape[:2])

    def backward(self) -> None:
        """Adds to the weights' gradient what the gradient at all embeddings means for them. Only the last chunk's pass
        is left to synchronise processes: it reduces what all of them have added."""
        for chunk in self._chunks[:-1]:
            with self.no_sync():
                self._embed_with_graph(chunk).backward(chunk.embeddings.grad)
        self._embed_with_graph(self._chunks[-1]).backward(self._chunks[-1].embeddings.grad)

    def _embed_without_graph(self, texts: dict[str, Tensor], dropout: bool) -> _Chunk:
        random_states = _random_states(texts["input_ids"].device)
        with torch.no_grad():
            embeddings = self._forward(texts, dropout)
        return _Chunk(texts, dropout, random_states, embeddings.requires_grad_())

    def _embed_with_graph(self, chunk: _Chunk) -> Tensor:
        with _replay_rng(chunk.random_states, chunk.embeddings.device):
            return self._forward(chunk.texts, chunk.dropout)

    def _forward(self, texts: dict[str, Tensor], dropout: bool) -> Tensor:
        with contextlib.nullcontext() if dropout else without_dropout(self.model):
            return self.model(**texts, project=True)


def _random_states(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The state of the CPU's generator, and of the device's where that is another."""
    return torch.get_rng_state(), None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(
        device
    )


@contextlib.contextmanager
def _replay_rng(random_states: tuple[Tensor, Tensor | None], device: torch.device) -> Iterator[None]:
    """Random numbers as they came from `random_states`; afterwards they go on as if nothing had been drawn."""
    cpu, own = random_states
    with torch.random.fork_rng(devices=[] if own is None else [device], device_type=device.type):
        torch.set_rng_state(cpu)
        if own is not None:
            torch.get_device_module(device).set_rng_state(own, device)
        yield
