"""What a sentence-transformers model that training starts from does with token states, so that training keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Normalize,
    Pooling,
    Transformer,
    WeightedLayerPooling,
)
from sentence_transformers.util import is_sentence_transformer_model
from torch import Tensor, nn
from transformers import AutoTokenizer

from ..data.tokenization import token_ids
from ..errors import UserError
from ..model.configuration_arccse import POOLINGS
from ..model.pooling import LAYER_WEIGHTS
from .loading import OPENING_ERRORS, model_type, why_not_opened


@dataclass(frozen=True)
class BaseModules:
    """The settings of a sentence-transformers model in the names of `ArcCSEConfig`.

    Args:
        pooling: One of `POOLINGS`; None where it is none that can be trained here.
        pooling_name: The pooling as sentence-transformers calls it.
        dense: Weight and bias of a Linear with a Tanh behind the pooling; None where there is none.
        unknown: Names of the modules that cannot be kept, besides the pooling.
        settings: `normalize`, `max_seq_length`, `prompts`, `default_prompt_name` and `similarity`.
    """

    pooling: str | None
    pooling_name: str
    dense: dict[str, Tensor] | None = None
    unknown: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)


def read_base_modules(path: str, *, revision: str | None = None) -> BaseModules | None:
    """Returns what the modules behind the encoder do; None where `path` is a plain encoder.

    Args:
        path: A folder or a hub id.
        revision: Of the hub id.

    Raises:
        UserError: It has modules, but cannot be opened.
    """
    # A checkpoint of ours has such files too; what it is must be told by whoever opens it as an encoder.
    if model_type(path) == "arccse" or not is_sentence_transformer_model(path, revision=revision):
        return None
    try:
        model = SentenceTransformer(path, device="cpu", revision=revision)
    except OPENING_ERRORS as error:
        why = why_not_opened(path, error)
        raise UserError(f"--model_name_or_path {path}: its modules.json cannot be opened: {why}") from error
    pooling, name, dense, normalize = None, "none", None, False
    layers: nn.Module | None = None
    unknown: list[str] = []
    for module in list(model)[1:] if isinstance(model[0], Transformer) else list(model):
        if isinstance(module, WeightedLayerPooling) and pooling is None:
            layers = module
        elif isinstance(module, Pooling) and pooling is None:
            modes = module.pooling_mode
            name = modes if isinstance(modes, str) else "+".join(modes)
            pooling = _pooling(name, layers)
            if not module.include_prompt and any(model.prompts.values()):
                unknown.append("Pooling without the prompt")
        elif isinstance(module, Dense) and dense is None and _is_projection(module):
            dense = {key: value.detach().clone() for key, value in module.linear.state_dict().items()}
        elif isinstance(module, Normalize):
            normalize = True
        else:
            unknown.append(type(module).__name__)
    if getattr(model[0], "do_lower_case", False):
        plain = AutoTokenizer.from_pretrained(path, revision=revision)
        if token_ids(plain, ["A"]) != token_ids(model.tokenizer, ["A"]):
            unknown.append("do_lower_case")
    return BaseModules(
        pooling,
        f"{name} of weighted layers" if layers is not None else name,
        dense,
        tuple(unknown),
        {
            "normalize": normalize,
            "max_seq_length": model.max_seq_length,
            "prompts": {key: text for key, text in model.prompts.items() if text} or None,
            "default_prompt_name": model.default_prompt_name,
            "similarity": model.similarity_fn_name,
        },
    )


def _pooling(name: str, layers: nn.Module | None) -> str | None:
    if layers is None:
        return name if name in ("cls", "mean") else None
    weights = layers.layer_weights.detach()
    if name != "mean" or layers.layer_start != 1:
        return None
    for pooling, places in LAYER_WEIGHTS.items():
        expected = torch.zeros_like(weights)
        for layer in places:
            expected[layer] += 1
        if pooling in POOLINGS and torch.allclose(weights / weights.sum(), expected / expected.sum()):
            return pooling
    return None


def _is_projection(module: Dense) -> bool:
    linear = module.linear
    square = linear.in_features == linear.out_features
    return square and linear.bias is not None and isinstance(module.activation_function, nn.Tanh)
