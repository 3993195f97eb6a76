"""Sentence embeddings from unlabelled text with ArcCSE, on Hugging Face transformers.

In one call:

    from arccse_hf import train
    result = train(sentences, "bert-base-uncased", "out", num_train_epochs=1)

or part by part:

    train, evaluate, export                   from texts to a folder, from folders to scores
    load_training_texts, tokenize_texts       from files to rows of token ids
    ArcCSEForContrastiveLearning              the encoder with its two heads, for training
    ArcCSEConfig, ArcCSEModel                 what `AutoModel` opens `out/training/checkpoint-125` with
    ArcCSETrainer, ArcCSETrainingArguments    transformers' Trainer for it
    arccon_loss, triplet_loss                 the two losses, as functions of embeddings

Each name is imported when it is asked for: `import arccse_hf` itself takes no time, and registers `ArcCSEConfig` and
`ArcCSEModel` with transformers' Auto classes, whenever those are imported. On the command line all this is `arccse`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import wrapt

__version__ = "0.1.0"

_HOMES = {
    "ArcCSEConfig": "model.configuration_arccse",
    "ArcCSEForContrastiveLearning": "model.modeling_arccse",
    "ArcCSEModel": "model.modeling_arccse",
    "ArcCSETrainer": "training.trainer",
    "ArcCSETrainingArguments": "training.arguments",
    "arccon_loss": "model.losses",
    "evaluate": "inference.evaluate",
    "export": "inference.export",
    "load_training_texts": "data.training_texts",
    "tokenize_texts": "data.tokenization",
    "train": "training.api",
    "triplet_loss": "model.losses",
}
"""The module of every public name."""

if TYPE_CHECKING:  # No `__all__`: help(arccse_hf) would print every method that the classes inherit.
    from .data.tokenization import tokenize_texts as tokenize_texts
    from .data.training_texts import load_training_texts as load_training_texts
    from .inference.evaluate import evaluate as evaluate
    from .inference.export import export as export
    from .model.configuration_arccse import ArcCSEConfig as ArcCSEConfig
    from .model.losses import arccon_loss as arccon_loss
    from .model.losses import triplet_loss as triplet_loss
    from .model.modeling_arccse import (
        ArcCSEForContrastiveLearning as ArcCSEForContrastiveLearning,
    )
    from .model.modeling_arccse import (
        ArcCSEModel as ArcCSEModel,
    )
    from .training.api import train as train
    from .training.arguments import ArcCSETrainingArguments as ArcCSETrainingArguments
    from .training.trainer import ArcCSETrainer as ArcCSETrainer


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


# The Auto classes know our classes as soon as there are Auto classes. Either module may be the first to be imported,
# and while one of ours is being imported it imports theirs: so registering waits until ours is complete.


@wrapt.when_imported("transformers.models.auto.configuration_auto")
def _import_configuration(module: object) -> None:
    importlib.import_module(f"{__name__}.model.configuration_arccse")


@wrapt.when_imported("transformers.models.auto.modeling_auto")
def _import_model(module: object) -> None:
    importlib.import_module(f"{__name__}.model.modeling_arccse")


@wrapt.when_imported(f"{__name__}.model.configuration_arccse")
def _register_configuration(module: Any) -> None:
    from transformers import AutoConfig

    AutoConfig.register(module.ArcCSEConfig.model_type, module.ArcCSEConfig)
    module.ArcCSEConfig.register_for_auto_class()


@wrapt.when_imported(f"{__name__}.model.modeling_arccse")
def _register_model(module: Any) -> None:
    from transformers import AutoModel

    AutoModel.register(module.ArcCSEModel.config_class, module.ArcCSEModel)
    module.ArcCSEModel.register_for_auto_class("AutoModel")
