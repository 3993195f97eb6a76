"""Training the last layers only: less is forgotten, and the others cost no backward pass."""

from __future__ import annotations

from torch import nn

from ..errors import UserError
from ..model.modeling_arccse import ArcCSEForContrastiveLearning


def train_last_layers(model: ArcCSEForContrastiveLearning, number: int) -> None:
    """Freezes all of the encoder but its last layers; a projection on top is trained too.

    What all layers share (embeddings, relative positions) is frozen. So nothing before the first trained layer needs a
    gradient: autograd keeps nothing of it, and the backward pass ends there.

    Args:
        model: Changed in place.
        number: Of layers that are trained, counted from the last.

    Raises:
        UserError: The encoder has fewer layers, or all of them share their weights.
    """
    encoder = model.base_model.encoder
    option = f"--train_last_layers {number}"
    stacks = [
        module
        for module in encoder.modules()
        if isinstance(module, nn.ModuleList) and len(module) == encoder.config.num_hidden_layers
    ]
    if not stacks:
        raise UserError(f"{option}: the layers of {encoder.config.model_type} share their weights; leave it out")
    layers = list(stacks[0])
    if not 1 <= number <= len(layers):
        raise UserError(f"{option}: the encoder has {len(layers)} layers; give 1 to {len(layers)}")
    encoder.requires_grad_(False)
    for layer in layers[-number:]:
        layer.requires_grad_(True)
