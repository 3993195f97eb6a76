"""Weights between the start encoder's and the trained one's: less forgetting, for the price of a few evaluations.

Linear interpolation of weights (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the trained weights in the mixtures that are tried."""


def mix_weights(start: Mapping[str, Tensor], trained: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Returns `share * trained + (1 - share) * start`, weight by weight; what is no floating-point number stays.

    Args:
        start: A state dict.
        trained: Another of the same model.
        share: In [0, 1].

    Raises:
        ValueError: The two are not of one model.
    """
    if start.keys() != trained.keys():
        raise ValueError(f"other weights: {sorted(start.keys() ^ trained.keys())}")
    if share in (0, 1):
        return dict(trained if share else start)  # also where training ended in NaN, which times 0 is NaN
    return {
        name: (share * weight.double() + (1 - share) * start[name].to(weight.device).double()).to(weight.dtype)
        if weight.is_floating_point()
        else weight
        for name, weight in trained.items()
    }


def choose_mixture(
    model: nn.Module, start: Mapping[str, Tensor], score: Callable[[], float]
) -> tuple[float, dict[float, float]]:
    """Leaves the mixture in `model` that scores best; of equal ones, that which is nearest to the start.

    Args:
        model: The trained model.
        start: The weights that training started from.
        score: Measures the model as it is.

    Returns:
        The share of the trained weights in it, and the score of each share.
    """
    trained = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    scores: dict[float, float] = {}
    for share in SHARES:
        model.load_state_dict(mix_weights(start, trained, share))
        scores[share] = score()
    best = max(SHARES, key=lambda share: (scores[share], -share))
    model.load_state_dict(mix_weights(start, trained, best))
    return best, scores
