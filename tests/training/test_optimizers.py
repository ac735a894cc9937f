from collections.abc import Callable

import pytest
import torch

from vidgru.training.optimizers import LBFGS, AdamW

pytestmark = pytest.mark.slow  # PyTorch's own optimizers import its compiler


def parameters() -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(4, 3, generator=rng).requires_grad_(), torch.randn(3, generator=rng).requires_grad_()]


def closure(optimizer: torch.optim.Optimizer, weight: torch.Tensor, bias: torch.Tensor) -> Callable[[], torch.Tensor]:
    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = (torch.tanh(torch.ones(4) @ weight + bias) - 0.5).square().sum()
        value.backward()
        return value

    return loss


def test_adamw_takes_the_steps_of_pytorch() -> None:
    both = []
    for kind in (AdamW, torch.optim.AdamW):
        weight, bias = parameters()
        groups = [{"params": [weight], "weight_decay": 0.05}, {"params": [bias], "weight_decay": 0.0}]
        optimizer = kind(groups, lr=0.1, fused=True)
        for step in range(5):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
            closure(optimizer, weight, bias)()
            optimizer.step()
        state = optimizer.state_dict()
        optimizer.load_state_dict(state)
        assert state["state"][1]["step"] == 5
        both.append([weight, bias, state["state"][0]["exp_avg"], state["state"][1]["exp_avg_sq"]])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*both, strict=True))


def test_lbfgs_takes_the_steps_of_pytorch() -> None:
    both = []
    for kind in (LBFGS, torch.optim.LBFGS):
        weight, bias = parameters()
        optimizer = kind([weight, bias], max_iter=7, line_search_fn="strong_wolfe")
        optimizer.step(closure(optimizer, weight, bias))
        both.append([weight, bias])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*both, strict=True))
