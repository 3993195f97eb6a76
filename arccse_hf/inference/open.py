"""Open any encoder as a SentenceTransformer, and embed sentences with it over all processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env
from tqdm.auto import tqdm

from ..errors import UserError
from ..model.pooling import POOLING_FUNCTIONS

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DTYPES = ("float32", "bfloat16", "float16")


@dataclass
class Encoder:
    """A model under evaluation.

    Args:
        name: As the user wrote it.
        model: Embeds the sentences.
        pooling: How token states become one vector, and who decided so: "mean (its own)", "cls (asked for)", ...
    """

    name: str
    model: SentenceTransformer
    pooling: str


def process_state(timeout: timedelta | None = None) -> PartialState:
    """The processes of an `accelerate launch`, or this one alone.

    Left to itself PartialState takes several processes on a machine without an accelerator for as many single ones.

    Args:
        timeout: How long a process waits for the others where they meet; the first call settles it. None: minutes.
    """
    use_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=use_cpu, **({} if timeout is None else {"timeout": timeout}))


def load_encoder(
    name: str, *, pooling: str | None = None, dtype: str = "float32", max_seq_length: int | None = None
) -> Encoder:
    """Open a sentence-transformers folder, a checkpoint of `ArcCSEModel`, or any plain encoder, from disk or the hub.

    Args:
        name: A folder, a hub id, or `package:NAME/PATH` for a folder inside an installed Python package.
        pooling: Overrides the model's own pooling; plain encoders, which have none, use "mean" by default.
        dtype: Of the weights and the computation: one of `DTYPES`.
        max_seq_length: Tokens that a sentence is cut to; the model's own limit by default.

    Raises:
        UserError: There is no such model, it has no tokenizer, or can't be used with these options.
    """
    from .loading import resolve_model_path

    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: choose from {', '.join(DTYPES)}")
    path = resolve_model_path(name)
    model, how = _open(name, path, pooling)
    if len(model.tokenizer.get_vocab()) <= len(model.tokenizer.all_special_tokens):
        # transformers makes up a tokenizer without words where it finds none, and everything becomes [UNK].
        raise UserError(
            f"MODEL {name}: there is no tokenizer beside the weights: copy the encoder's tokenizer files there"
        )
    if max_seq_length is not None:
        positions = _positions(model)
        if not 3 <= max_seq_length <= positions:
            raise UserError(f"--max-seq-length {max_seq_length}: {name} reads from 3 to {positions} tokens")
        model.max_seq_length = max_seq_length
    model.to(device=process_state().device, dtype=getattr(torch, dtype)).eval()
    return Encoder(name, model, how)


def _open(name: str, path: str, pooling: str | None) -> tuple[SentenceTransformer, str]:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from sentence_transformers.util import is_sentence_transformer_model

    try:
        if _model_type(path) == "arccse":
            return _open_arccse(path, pooling)
        own = is_sentence_transformer_model(path)
        if not own and pooling in POOLING_FUNCTIONS and pooling not in Pooling.POOLING_MODES:
            return _open_arccse(path, pooling, plain=True)
        # Of a plain encoder, which has no modules.json, sentence-transformers takes the mean.
        model = SentenceTransformer(path, device="cpu")
    except UserError:
        raise
    except (OSError, ValueError, ImportError, AttributeError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"MODEL {name}: neither a folder nor a hub id that can be opened here ({reason})") from error
    if pooling is not None:
        return _pooled(name, model, pooling)
    return model, f"{_own_pooling(model)} (its own)" if own else "mean (default)"


def _model_type(path: str) -> str | None:
    config = Path(path, "config.json")
    return json.loads(config.read_text(encoding="utf-8")).get("model_type") if config.is_file() else None


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
    from sentence_transformers.sentence_transformer.modules import Pooling

    if pooling not in Pooling.POOLING_MODES:
        raise UserError(f"--pooling {pooling}: for {name} choose from {', '.join(Pooling.POOLING_MODES)}")
    places = [index for index, module in enumerate(model) if isinstance(module, Pooling)]
    if not places:
        raise UserError(
            f"--pooling {pooling}: {name} has no pooling module that could be replaced; leave the option out"
        )
    model[places[0]] = Pooling(model[places[0]].embedding_dimension, pooling)
    return model, f"{pooling} (asked for)"


def _positions(model: SentenceTransformer) -> int:
    limits = [model.max_seq_length] if model.max_seq_length else []
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # RoBERTa and its kin count positions from the one behind the padding index.
            offset = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - offset)
    return max(limits, default=2**31)


def embed(
    model: SentenceTransformer, sentences: Sequence[str], *, batch_size: int = 64, show_progress: bool = True
) -> np.ndarray:
    """Embed `sentences`, divided over all processes of an `accelerate launch`; every process gets all embeddings.

    Returns:
        float32 `[len(sentences), dim]`, in the order of `sentences`.
    """
    state = process_state()
    mine = list(sentences[state.process_index :: state.num_processes])
    part = np.empty((0, 0), dtype=np.float32)
    if mine:
        with tqdm(total=len(mine), unit="sentence", disable=not (show_progress and state.is_main_process)) as bar:
            part = embed_here(model, mine, batch_size=batch_size, bar=bar)
    if state.num_processes == 1:
        return part
    parts = gather_object([part])
    embeddings = np.empty((len(sentences), max(p.shape[1] for p in parts)), dtype=np.float32)
    for rank, rows in enumerate(parts):
        if len(rows):
            embeddings[rank :: state.num_processes] = rows
    return embeddings


def embed_here(model: SentenceTransformer, sentences: Sequence[str], *, batch_size: int, bar: tqdm) -> np.ndarray:
    """Embed `sentences`, at least one, on this process, and move `bar` on.

    They are sorted by number of tokens, so that a batch holds next to no padding (by characters, which
    sentence-transformers sorts by, batches of 64 hold a third more).

    Returns:
        float32 `[len(sentences), dim]`, in the order of `sentences`.
    """
    order = np.argsort([-count for count in token_counts(model, sentences)], kind="stable")
    encoded = []
    for start in range(0, len(sentences), batch_size):
        batch = [sentences[i] for i in order[start : start + batch_size]]
        encoded.append(model.encode(batch, batch_size=batch_size, show_progress_bar=False, convert_to_tensor=True))
        bar.update(len(batch))
    return torch.cat(encoded).float().cpu().numpy()[np.argsort(order)]


def token_counts(model: SentenceTransformer, sentences: Sequence[str]) -> list[int]:
    """How many tokens each of `sentences` has, special tokens included, before any is cut off."""
    ids = model.tokenizer(
        list(sentences),
        truncation=False,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    return [len(tokens) for tokens in ids]


def count_truncated(model: SentenceTransformer, sentences: Sequence[str]) -> int:
    """How many of `sentences` have more tokens than the model reads, special tokens included."""
    limit = model.max_seq_length
    if not limit:
        return 0
    # A token stands for at least one byte, so short sentences need no look.
    long = [s for s in sentences if len(s.encode()) > limit - 10]
    return sum(count > limit for count in token_counts(model, long)) if long else 0
