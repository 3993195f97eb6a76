"""Opens an encoder that is to embed, any encoder, as a SentenceTransformer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ..cli.options import DTYPES
from ..data.tokenization import token_ids
from ..errors import UserError
from ..evaluation.suite import Role
from ..model.pooling import POOLING_FUNCTIONS
from ..model.positions import position_limits
from .loading import (
    OPENING_ERRORS,
    model_type,
    require_tokenizer,
    resolve_model_path,
    why_not_opened,
    without_loading_bar,
)
from .onnx import OnnxEncoder, is_graph
from .process_group import process_state

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_PROMPTS = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""The prompts that sentence-transformers takes for each task."""


@dataclass
class Encoder:
    """A finished model, which embeds batches of texts (`embed.BatchEncoder`).

    Args:
        name: As the user wrote it.
        model: Embeds the texts.
        pooling: How token states become one vector, and who decided so: "mean (its own)", "cls (asked for)", ...
        task: What texts are embedded as, by a model that tells queries from documents; None: as neither.
    """

    name: str
    model: SentenceTransformer | OnnxEncoder
    pooling: str
    task: Role | None = None

    @property
    def dtype(self) -> str:
        """The type of the weights, one of `DTYPES`."""
        return str(self.model.dtype).removeprefix("torch.")

    def for_task(self, task: Role) -> Encoder:
        """Returns the encoder that embeds texts as queries or as documents.

        That is this one, where the model has neither prompts nor routes for them.
        """
        prompted = any(self.model.prompts.get(name) for names in _PROMPTS.values() for name in names)
        routed = False
        if not isinstance(self.model, OnnxEncoder):
            from sentence_transformers.sentence_transformer.modules import Router

            routed = any(isinstance(module, Router) for module in self.model)
        return replace(self, task=task) if prompted or routed else self

    def fingerprint(self) -> str:
        """Returns a hash of what decides about the embeddings of a text: weights, tokenizer, modules, prompts.

        The length that a text is cut to (`model.max_seq_length`) is not in it: whoever keeps embeddings keeps that too.
        """
        tokenizer = self.model.tokenizer
        if tokenizer.is_fast:
            words = json.loads(tokenizer.backend_tokenizer.to_str())
            words["truncation"] = words["padding"] = None  # as the last call has left them
        else:
            words = tokenizer.get_vocab()
        if isinstance(self.model, OnnxEncoder):
            parts = [self.model.prompts, self.model.default_prompt_name, words]
            digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
            # The weights may lie beside the graph.
            for path in sorted(self.model.graph.parent.glob(f"{self.model.graph.name}*")):
                digest.update(path.read_bytes())
            return digest.hexdigest()
        parts = [str(self.model), self.model.prompts, self.model.default_prompt_name, words]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
        for name, weight in self.model.state_dict().items():
            digest.update(name.encode())
            digest.update(weight.cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Returns the tokens of each text, special tokens and a prompt included, before any is cut off."""
        prompt = self._prompt()
        return [len(tokens) for tokens in token_ids(self.model.tokenizer, [prompt + text for text in texts])]

    def _prompt(self) -> str:
        """What the model puts before each text."""
        names = (*(_PROMPTS[self.task] if self.task else ()), self.model.default_prompt_name)
        return next((self.model.prompts[name] for name in names if name is not None and name in self.model.prompts), "")

    def encode_batch(self, texts: Sequence[str]) -> torch.Tensor:
        """Returns sentence-transformers' embeddings `[len(texts), dim]`, in the model's dtype."""
        encode = self.model.encode if self.task is None else getattr(self.model, f"encode_{self.task}")
        return encode(list(texts), batch_size=len(texts), show_progress_bar=False, convert_to_tensor=True)

    def count_truncated(self, texts: Sequence[str]) -> int:
        """Returns how many texts have more tokens than the model reads, special tokens included."""
        limit = self.model.max_seq_length
        if not limit:
            return 0
        # A token stands for at least one byte, so short texts need no look.
        shortest = limit - 10 - len(self._prompt().encode())
        long_texts = [text for text in texts if len(text.encode()) > shortest]
        return sum(count > limit for count in self.count_tokens(long_texts)) if long_texts else 0


def load_encoder(
    name: str, *, pooling: str | None = None, dtype: str = "float32", max_seq_length: int | None = None
) -> Encoder:
    """Opens a sentence-transformers folder, a checkpoint of `ArcCSEModel`, or any plain encoder, from disk or the hub.

    Args:
        name: A folder, a hub id, or `package:NAME/PATH` for a folder inside an installed Python package.
        pooling: Overrides the model's own pooling; plain encoders, which have none, use "mean" by default.
        dtype: Of the weights and the computation: one of `DTYPES`.
        max_seq_length: Tokens that a sentence is cut to; the model's own limit by default.

    Raises:
        UserError: There is no such model, it has no tokenizer that fits, or cannot be used with these options.
    """
    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: choose from {', '.join(DTYPES)}")
    path = resolve_model_path(name)
    if is_graph(path):
        return _open_graph(name, path, pooling, dtype, max_seq_length)
    with without_loading_bar():
        model, how = _open(name, path, pooling)
    require_tokenizer(model.tokenizer, f"MODEL {name}", _vocab_size(model))
    tables = position_limits(model)
    if tables and (model.max_seq_length or 2**31) > min(tables):
        model.max_seq_length = min(tables)  # RoBERTa's configuration states two more
    if max_seq_length is not None:
        positions = min(tables) if tables else model.max_seq_length or 2**31
        if not 3 <= max_seq_length <= positions:
            raise UserError(f"--max_seq_length {max_seq_length}: {name} reads from 3 to {positions} tokens")
        model.max_seq_length = max_seq_length
    move_to(model.eval(), process_state().device, getattr(torch, dtype))
    return Encoder(name, model, how)


def move_to(model: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Moves a model; what is computed when it is opened keeps its type: 16 bits are too few for rotary positions."""
    saved = model.state_dict().keys()
    computed = {name: buffer for name, buffer in model.named_buffers() if name not in saved}
    model.to(device=device, dtype=dtype)
    for name, buffer in computed.items():
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, buffer.to(device))


def _open_graph(name: str, path: str, pooling: str | None, dtype: str, max_seq_length: int | None) -> Encoder:
    if pooling is not None or dtype != "float32":
        raise UserError(
            f"MODEL {name}: an ONNX graph has its pooling and its dtype inside; leave --pooling and --dtype out"
        )
    graph = OnnxEncoder(path)
    if max_seq_length is not None:
        if not 3 <= max_seq_length <= graph.max_seq_length:
            raise UserError(f"--max_seq_length {max_seq_length}: {name} reads from 3 to {graph.max_seq_length} tokens")
        graph.max_seq_length = max_seq_length
    return Encoder(name, graph, "inside the graph")


def _open(name: str, path: str, pooling: str | None) -> tuple[SentenceTransformer, str]:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from sentence_transformers.util import is_sentence_transformer_model

    try:
        if model_type(path) == "arccse":
            return _open_arccse(path, pooling)
        own = is_sentence_transformer_model(path)
        if not own and pooling in POOLING_FUNCTIONS and pooling not in Pooling.POOLING_MODES:
            return _open_arccse(path, pooling, plain=True)
        # Of a plain encoder, which has no modules.json, sentence-transformers takes the mean.
        model = SentenceTransformer(path, device="cpu")
    except UserError:
        raise
    except OPENING_ERRORS as error:
        raise UserError(f"MODEL {name}: cannot be opened: {why_not_opened(name, error)}") from error
    if pooling is not None:
        return _pooled(name, model, pooling)
    return model, f"{_own_pooling(model)} (its own)" if own else "mean (default)"


def _open_arccse(path: str, pooling: str | None, plain: bool = False) -> tuple[SentenceTransformer, str]:
    from transformers import AutoTokenizer

    from ..model.modeling_arccse import ArcCSEModel
    from .export import to_sentence_transformer

    if plain:
        model = ArcCSEModel.from_backbone(path, pooling=pooling, projection="none")
    else:
        model = ArcCSEModel.from_pretrained(path)
        if pooling is not None and pooling not in POOLING_FUNCTIONS:
            raise UserError(f"--pooling {pooling}: for {path} choose from {', '.join(POOLING_FUNCTIONS)}")
        model.config.pooling = pooling or model.config.pooling
    how = "its own" if pooling is None else "asked for"
    return to_sentence_transformer(model, AutoTokenizer.from_pretrained(path)), f"{model.config.pooling} ({how})"


def _own_pooling(model: SentenceTransformer) -> str:
    from sentence_transformers.sentence_transformer.modules import Pooling

    modes = [module.pooling_mode for module in model if isinstance(module, Pooling)]
    return "+".join(modes[0] if isinstance(modes[0], tuple) else modes[:1]) if modes else "none"


def _pooled(name: str, model: SentenceTransformer, pooling: str) -> tuple[SentenceTransformer, str]:
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling

    if pooling not in Pooling.POOLING_MODES:
        raise UserError(f"--pooling {pooling}: for {name} choose from {', '.join(Pooling.POOLING_MODES)}")
    places = [index for index, module in enumerate(model) if isinstance(module, Pooling)]
    if not places:
        raise UserError(
            f"--pooling {pooling}: {name} has no pooling module that could be replaced; leave the option out"
        )
    own = model[places[0]]
    model[places[0]] = Pooling(own.embedding_dimension, pooling, include_prompt=own.include_prompt)
    widths = own.get_embedding_dimension(), model[places[0]].get_embedding_dimension()
    if widths[0] != widths[1] and any(isinstance(module, Dense) for module in model):
        raise UserError(
            f"--pooling {pooling}: gives {widths[1]} numbers, and {name} has a Dense module for {widths[0]}; leave the "
            "option out"
        )
    return model, f"{pooling} (asked for)"


def _vocab_size(model: SentenceTransformer) -> int | None:
    """Returns the tokens that the encoder knows; None where it is none of transformers'."""
    from sentence_transformers.sentence_transformer.modules import Transformer

    if not isinstance(model[0], Transformer):
        return None
    return getattr(model[0].model.config.get_text_config(), "vocab_size", None)
