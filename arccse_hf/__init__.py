"""Sentence embeddings from unlabelled text with ArcCSE, on Hugging Face transformers."""

from transformers import AutoConfig, AutoModel

from .model.configuration_arccse import ArcCSEConfig
from .model.losses import arccon_loss, triplet_loss
from .model.modeling_arccse import ArcCSEForContrastiveLearning, ArcCSEModel

__version__ = "0.1.0"

AutoConfig.register(ArcCSEConfig.model_type, ArcCSEConfig)
AutoModel.register(ArcCSEConfig, ArcCSEModel)
ArcCSEConfig.register_for_auto_class()
ArcCSEModel.register_for_auto_class("AutoModel")

__all__ = [
    "ArcCSEConfig",
    "ArcCSEForContrastiveLearning",
    "ArcCSEModel",
    "arccon_loss",
    "triplet_loss",
]
