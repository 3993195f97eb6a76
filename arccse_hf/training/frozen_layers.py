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
    stacks = {
        name: module
        for name, module in encoder.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == encoder.config.num_hidden_layers
    }
    if not stacks:
        raise UserError(f"{option}: the layers of {encoder.config.model_type} share their weights; leave it out")
    layers = encoder.config.num_hidden_layers
    if not 1 <= number <= layers:
        raise UserError(f"{option}: the encoder has {layers} layers; give 1 to {layers}")
    encoder.requires_grad_(False)
    # XLM keeps the parts of its layers in several lists beside each other.
    parent = next(iter(stacks)).rpartition(".")[0]
    for stack in (stack for name, stack in stacks.items() if name.rpartition(".")[0] == parent):
        for layer in stack[-number:]:
            layer.requires_grad_(True)
