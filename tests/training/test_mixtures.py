"""Mixtures of weights against plain arithmetic."""

import pytest
import torch
from tiny import tiny_model

from arccse_hf.training.mixtures import SHARES, choose_mixture, mix_weights


def two_models():
    start, trained = tiny_model(), tiny_model()
    for weight in trained.parameters():
        weight.data += torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
    return start.state_dict(), trained


def test_a_mixture_is_the_weighted_mean_of_each_weight():
    start, trained = two_models()
    for share in SHARES:
        mixed = mix_weights(start, trained.state_dict(), share)
        for name, weight in trained.state_dict().items():
            expected = start[name].numpy() * (1 - share) + weight.numpy() * share
            assert torch.allclose(mixed[name], torch.from_numpy(expected), atol=1e-6), name
    assert all(torch.equal(weight, start[name]) for name, weight in mix_weights(start, mixed, 0).items())


def test_whole_numbers_stay_and_nan_does_not_reach_the_start():
    start = {"weight": torch.ones(2), "steps": torch.tensor(3)}
    trained = {"weight": torch.tensor([torch.nan, 3.0]), "steps": torch.tensor(9)}
    assert mix_weights(start, trained, 0.5)["steps"] == 9
    assert mix_weights(start, trained, 0)["weight"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="other weights: .*steps"):
        mix_weights({"weight": torch.ones(2)}, trained, 0.5)


@pytest.mark.parametrize("target", [0.1, 0.3, 0.8])
def test_the_best_mixture_stays_in_the_model(target):
    start, trained = two_models()
    weights = {name: weight.clone() for name, weight in trained.state_dict().items()}
    name = next(iter(weights))

    def score():  # highest for the share nearest to the target
        way = (trained.state_dict()[name] - start[name]) / (weights[name] - start[name])
        return -abs(float(way.mean()) - target)

    share, scores = choose_mixture(trained, start, score)
    assert share == min(SHARES, key=lambda share: abs(share - target))
    assert list(scores) == list(SHARES)
    expected = mix_weights(start, weights, share)
    assert all(torch.equal(weight, expected[key]) for key, weight in trained.state_dict().items())


def test_of_equal_mixtures_the_nearest_to_the_start_is_taken():
    start, trained = two_models()
    assert choose_mixture(trained, start, lambda: 0.5)[0] == 0
    assert all(torch.equal(weight, start[name]) for name, weight in trained.state_dict().items())
