from functools import partial

import pytest
import torch

from vidgru.training.linear_fit import CLIP_MIX_PRIOR, fit_linear_path, fit_mix, log_losses


def problem(rows: int, columns: int, outputs: int, *, multi_label: bool, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Summaries on unlike scales, noisy targets that depend on them, weights and class weights."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=rng) * torch.logspace(-2, 2, columns) + 3
    true = (x - 3) / torch.logspace(-2, 2, columns) @ torch.randn(columns, outputs, generator=rng)
    noisy = true + torch.randn(rows, outputs, generator=rng)
    targets = (noisy > 0).float() if multi_label else torch.nn.functional.one_hot(noisy.argmax(1), outputs).float()
    weights = torch.rand(rows, generator=rng) + 0.1
    return x, targets, weights, torch.rand(outputs, generator=rng) + 0.5


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(200, 5), (30, 80), (7, 40), (3, 6)])
def test_linear_path_is_optimum_of_penalised_loss(rows: int, columns: int, multi_label: bool) -> None:
    """The gradient is zero, also where the fit is made in the span of fewer rows than columns."""
    x, targets, weights, class_weights = problem(rows, columns, 3, multi_label=multi_label)
    strength = 0.05
    path = fit_linear_path(x, targets, weights, class_weights, multi_label=multi_label, strength=strength)
    normal = path.normalize(x).double()
    weight, bias = path.weight.double().requires_grad_(), path.bias.double().requires_grad_()
    losses = log_losses(normal @ weight.T + bias, targets, class_weights, multi_label)
    loss = (losses * weights).sum() + weight.square().sum() / (2 * strength)
    gradients = torch.autograd.grad(loss, [weight, bias])
    scale = float(weights.sum())
    assert max(float(gradient.abs().max()) for gradient in gradients) < 2e-4 * scale
    assert float(path.weight.abs().max()) > 1e-4


def test_linear_path_equals_gradient_descent() -> None:
    x, targets, weights, class_weights = problem(12, 20, 2, multi_label=False)
    path = fit_linear_path(x, targets, weights, class_weights, multi_label=False, strength=0.1)
    normal = path.normalize(x).double()
    weight, bias = torch.zeros(2, 20, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for _ in range(1500):
        weight.requires_grad_()
        bias.requires_grad_()
        losses = log_losses(normal @ weight.T + bias, targets, class_weights, False)
        loss = (losses * weights).sum() + weight.square().sum() / 0.2
        of_weight, of_bias = torch.autograd.grad(loss, [weight, bias])
        weight, bias = (weight - 0.04 * of_weight).detach(), (bias - 0.04 * of_bias).detach()
    torch.testing.assert_close(path.weight, weight.float(), rtol=0, atol=1e-4)
    difference = (path.bias - bias.float()).detach()
    torch.testing.assert_close(difference, difference.mean().expand(2), rtol=0, atol=1e-4)  # softmax ignores a constant


def test_linear_path_of_repeated_rows() -> None:
    x, targets, weights, class_weights = problem(8, 30, 2, multi_label=False)
    half = weights / 2
    rows = [torch.cat(pair) for pair in ((x, x), (targets, targets), (half, half))]
    once = fit_linear_path(x, targets, weights, class_weights, multi_label=False, strength=0.1)
    twice = fit_linear_path(*rows, class_weights, multi_label=False, strength=0.1)
    torch.testing.assert_close(twice.weight, once.weight, rtol=0, atol=1e-5)
    equal = fit_linear_path(x[:1].expand(4, 30), targets[:4], weights[:4], class_weights, multi_label=False, strength=1)
    assert not equal.weight.any()


def test_linear_path_leaves_out_rows_without_weight() -> None:
    x, targets, weights, class_weights = problem(40, 60, 2, multi_label=True)
    weights[::3] = 0
    used = weights > 0
    path = fit_linear_path(x, targets, weights, class_weights, multi_label=True, strength=0.1)
    without = fit_linear_path(
        x[used], targets[used], weights[used], class_weights, multi_label=True, strength=0.1
    )  # fmt: skip
    for name, tensor in path.state_dict().items():
        assert torch.equal(tensor, without.state_dict()[name]), name


def test_linear_path_without_rows_or_spread() -> None:
    empty = fit_linear_path(
        torch.zeros(0, 4), torch.zeros(0, 2), torch.zeros(0), torch.ones(2), multi_label=False, strength=1.0
    )
    assert torch.equal(empty(torch.randn(3, 4)), torch.zeros(3, 2))
    targets = torch.eye(2)[[0, 0, 1]]
    constant = fit_linear_path(
        torch.full((3, 4), 7.0), targets, torch.ones(3), torch.ones(2), multi_label=False, strength=1.0
    )  # fmt: skip
    probabilities = constant(torch.full((1, 4), 7.0)).softmax(dim=1)
    torch.testing.assert_close(probabilities, torch.tensor([[2 / 3, 1 / 3]]), rtol=0, atol=1e-3)
    assert torch.isfinite(constant(torch.randn(5, 4))).all()


def test_linear_path_is_weaker_with_stronger_penalty() -> None:
    x, targets, weights, class_weights = problem(50, 10, 2, multi_label=False)
    norms = [
        float(fit_linear_path(x, targets, weights, class_weights, multi_label=False, strength=strength).weight.norm())
        for strength in (0.001, 0.01, 0.1)
    ]
    assert norms == sorted(norms)
    assert norms[0] < 0.5 * norms[2]


# --- the combination --------------------------------------------------------------------------------------------------


fit_clip_mix = partial(fit_mix, prior=CLIP_MIX_PRIOR)


def logits_of(targets: torch.Tensor, strength: float, seed: int) -> torch.Tensor:
    """Logits that point at the targets, in noise."""
    rng = torch.Generator().manual_seed(seed)
    return strength * (2 * targets - 1) + torch.randn(targets.shape, generator=rng)


@pytest.mark.parametrize("multi_label", [False, True])
def test_mix_prefers_informative_logits(multi_label: bool) -> None:
    _, targets, _, class_weights = problem(300, 4, 3, multi_label=multi_label)
    good, noise = logits_of(targets, 1.0, 1), logits_of(targets, 0.0, 2)
    ones = torch.ones(300)
    mix = fit_clip_mix(good, noise, targets, ones, class_weights, multi_label=multi_label)
    swapped = fit_clip_mix(noise, good, targets, ones, class_weights, multi_label=multi_label)
    assert mix.network > 0.9 > 0.2 > mix.linear >= 0
    assert (swapped.network, swapped.linear) == pytest.approx((mix.linear, mix.network), abs=0.1)
    both = fit_clip_mix(good, logits_of(targets, 1.0, 3), targets, ones, class_weights, multi_label=multi_label)
    assert min(both.network, both.linear) > 0.5


def test_mix_without_evidence_is_the_prior() -> None:
    empty = torch.zeros(0, 2)
    mix = fit_clip_mix(empty, empty, empty, torch.zeros(0), torch.ones(2), multi_label=False)
    assert (mix.network, mix.linear, mix.bias) == (0.15, 0.75, (0.0, 0.0))
    targets = torch.eye(2)[[0, 1]]
    little = fit_clip_mix(logits_of(targets, 3.0, 1), logits_of(targets, 3.0, 2), targets, torch.ones(2), torch.ones(2),
                     multi_label=False)  # fmt: skip
    assert 0.15 <= little.network < 0.3
    assert 0.75 <= little.linear < 0.9


def test_mix_of_few_examples_trusts_the_linear_path() -> None:
    """Ten examples that speak for neither must not let a network decide that is only louder."""
    targets = torch.eye(2).repeat(5, 1)
    for seed in range(20):
        network, linear = 1.3 * logits_of(targets, 0.15, seed), 0.7 * logits_of(targets, 0.3, 100 + seed)
        mix = fit_clip_mix(network, linear, targets, torch.ones(10), torch.ones(2), multi_label=False)
        assert mix.linear > mix.network, seed


def test_mix_of_few_examples_trusts_a_network_that_is_right() -> None:
    targets = torch.eye(6).repeat(5, 1)
    network, linear = logits_of(targets, 2.0, 1), 0.3 * logits_of(targets, 0.5, 2)
    mix = fit_clip_mix(network, linear, targets, torch.ones(30), torch.ones(6), multi_label=False)
    assert mix.network > 0.4


@pytest.mark.parametrize("seed", range(4))
def test_mix_of_few_misleading_logits_keeps_their_order(seed: int) -> None:
    """The model learns from all examples, and is better than what is held out of few of them shows."""
    rng = torch.Generator().manual_seed(seed)
    targets = torch.eye(3)[[0] * 12 + [1] * 6 + [2] * 3]
    network, linear = torch.randn(21, 3, generator=rng), 6 * torch.randn(21, 3, generator=rng)
    mix = fit_clip_mix(network, linear, targets, torch.ones(21), torch.ones(3), multi_label=False)
    assert mix.linear < 0.1, "not trusted"
    combined = mix.network * network + mix.linear * linear
    kept = mix(network, linear).argmax(dim=1) == combined.argmax(dim=1)
    assert float(kept.float().mean()) > 0.9


def test_mix_calibrates_overconfident_logits() -> None:
    _, targets, weights, class_weights = problem(400, 4, 2, multi_label=True)
    honest = logits_of(targets, 0.7, 1)
    zeros = torch.zeros_like(honest)
    mix = fit_clip_mix(10 * honest, zeros, targets, weights, torch.ones(2), multi_label=True)
    before, after = (
        float((log_losses(logits, targets, class_weights, True) * weights).sum())
        for logits in (10 * honest, mix(10 * honest, zeros))
    )
    assert mix.network < 0.4
    assert after < 0.5 * before


def test_log_losses_weigh_classes() -> None:
    logits, targets = torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    weights = torch.tensor([3.0, 1.0])
    log2 = 0.693147
    torch.testing.assert_close(log_losses(logits, targets, weights, False), torch.tensor([3 * log2, log2]))
    torch.testing.assert_close(log_losses(logits, targets, weights, True), torch.tensor([4 * log2, 2 * log2]))
