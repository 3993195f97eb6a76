"""Which models of transformers can be the encoder inside, and how their class is made."""

import inspect
import os

from transformers.models.auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    MODEL_MAPPING,
)


def require_encoder(config, name: str | os.PathLike) -> None:
    """Checks that `config` is that of a text encoder, which reads in both directions.

    Raises:
        ValueError: It is not; the message begins with `name`.
    """
    kind = type(config)
    if config.is_encoder_decoder or kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
        raise ValueError(f"{name} is an encoder-decoder ({config.model_type}); ArcCSE needs an encoder such as BERT")
    if getattr(config, "is_decoder", False) or (
        kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING
    ):
        raise ValueError(f"{name} is a decoder ({config.model_type}); ArcCSE needs an encoder such as BERT")
    if not hasattr(config, "vocab_size"):
        raise ValueError(f"{name} ({config.model_type}) does not read text; ArcCSE needs a text encoder such as BERT")


def without_pooler(config) -> dict[str, bool]:
    """Returns the argument that leaves out an encoder's own pooler, which nothing here uses.

    Weights that get no gradient stop distributed training.
    """
    model_class = MODEL_MAPPING.get(type(config), None)
    has_argument = model_class is not None and "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return {"add_pooling_layer": False} if has_argument else {}
