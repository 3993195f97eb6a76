"""How many tokens an encoder has position embeddings for."""

from torch import nn


def position_limits(model: nn.Module) -> list[int]:
    """Returns how many tokens each table of position embeddings in a model is enough for."""
    limits = []
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa and its kin count positions from the one behind the padding index.
            limits.append(module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    return limits
