"""Low-rank adapters in a model (LoRA, through peft): the weights that it has without them, once they are merged."""

from torch import Tensor, nn


def has_adapters(model: nn.Module) -> bool:
    """Returns whether peft has put adapters into `model`."""
    return any(map(_is_adapted, model.modules()))


def plain_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Returns the weights of `model` under the names that they have without adapters, each adapter added to its weight.

    `model` stays as it is. This is what peft's `merge_and_unload` leaves.
    """
    layers = [(name, module) for name, module in model.named_modules(remove_duplicate=False) if _is_adapted(module)]
    if not layers:
        return model.state_dict()
    updates = {
        f"{name}.weight": sum(module.get_delta_weight(adapter).detach() for adapter in module.active_adapters)
        for name, module in layers
    }
    plain = {
        name.replace(".base_layer.", "."): weight for name, weight in model.state_dict().items() if "lora_" not in name
    }
    return {
        name: weight + updates[name].to(weight.dtype) if name in updates else weight for name, weight in plain.items()
    }


def _is_adapted(module: nn.Module) -> bool:
    return hasattr(module, "get_delta_weight")  # as peft's layers have it; peft itself is not needed here
