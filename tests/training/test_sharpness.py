"""The step of sharpness-aware minimisation, by its formula."""

import torch
from torch import nn

from arccse_hf.training.sharpness import ascended


def test_weights_go_up_the_gradient_by_rho_and_back():
    model = nn.Linear(3, 2)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    model(torch.ones(4, 3)).square().sum().backward()
    gradient = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    norm = torch.cat([values.flatten() for values in gradient.values()]).norm()
    with ascended(model, 0.05):
        for name, weight in model.named_parameters():
            assert weight.grad is None
            torch.testing.assert_close(weight, before[name] + 0.05 * gradient[name] / norm)
        model(torch.ones(4, 3)).square().sum().backward()
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]) and not torch.equal(weight.grad, gradient[name])
