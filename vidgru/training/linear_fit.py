"""Fit the linear path of a model, and its combination with the network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from vidgru.model.linear_path import LinearPath, LogitMix
from vidgru.training.optimizers import LBFGS

_MAX_ITERATIONS = 200
_RIDGE = 1e-9  # added to the squared length of rows, as a share: centred rows depend linearly on each other
# Weights of network and linear path that no evidence speaks against: on few examples a network is overconfident. A
# stronger penalty would keep them where only the network tells the order of things. Losses on 300 clips of two labels,
# with 5, 10 and 25 per label to learn from: 0.629, 0.574, 0.481; with 0.25 and 0.5, 0.639, 0.584, 0.486.
CLIP_MIX_PRIOR = (0.15, 0.75)
FRAME_MIX_PRIOR = (0.25, 0.5)  # less weight of the network was no better for timed events
_MIX_PENALTY = 4.0  # in nats per unit of squared deviation from the prior


def fit_linear_path(
    summaries: Tensor, targets: Tensor, weights: Tensor, class_weights: Tensor, *, multi_label: bool, strength: float
) -> LinearPath:
    """Fit a logistic regression with a squared penalty, by L-BFGS.

    Args:
        summaries: float32 [N,P].
        targets: float32 [N,C], 0 and 1.
        weights: float32 [N], weight of each row; rows of weight 0 are left out.
        class_weights: float32 [C], weight of each class.
        multi_label: Whether outputs are independent (sigmoid) rather than exclusive (softmax).
        strength: Inverse of the penalty on half the squared weights, as `C` in scikit-learn.
    """
    path = LinearPath(summaries.shape[1], targets.shape[1])
    used = weights > 0
    x, y, w = summaries[used], targets[used], weights[used]
    if not len(x):
        return path
    std, mean = torch.std_mean(x, dim=0, correction=0)
    path.mean.copy_(mean)
    path.std.copy_(torch.where(std > 1e-6, std, 1.0))
    x = path.normalize(x)
    # With fewer rows than columns the solution lies in the span of the rows: the same problem in fewer dimensions.
    rows = None
    if len(x) < x.shape[1]:
        x, y, w = x.double(), y.double(), w.double()
        rows = x
        products = x @ x.T
        products.diagonal().add_(_RIDGE * products.diagonal().mean().clamp(min=1.0))
        x = torch.linalg.cholesky(products)  # rows are x @ basis, where the rows of basis are orthonormal
    weight = torch.zeros(y.shape[1], x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(y.shape[1], dtype=x.dtype, requires_grad=True)

    def loss() -> Tensor:
        losses = log_losses(F.linear(x, weight, bias), y, class_weights, multi_label)
        return (losses * w).sum() + weight.square().sum() / (2 * strength)

    _minimize(loss, [weight, bias])
    fitted = weight.detach()
    if rows is not None:  # fitted @ basis, where basis is the inverse of x times rows
        fitted = torch.linalg.solve_triangular(x, fitted, upper=False, left=False) @ rows
    path.weight.copy_(fitted)
    path.bias.copy_(bias.detach())
    return path


def fit_mix(
    network: Tensor,
    linear: Tensor,
    targets: Tensor,
    weights: Tensor,
    class_weights: Tensor,
    *,
    multi_label: bool,
    prior: tuple[float, float],
) -> LogitMix:
    """Fit how the logits of network and linear path are combined, on examples that neither was trained on.

    The bias is fitted in units of the combined logits. Where these mislead, as on few examples of many labels, of which
    each member misses a part, their weights become small; a bias of its own would then decide alone, for the most
    frequent label.

    Args:
        network, linear: float32 [N,C], logits.
        targets: float32 [N,C], 0 and 1.
        weights: float32 [N], weight of each row; their sum is the number of independent observations.
        class_weights: float32 [C], weight of each class.
        multi_label: As for `fit_linear_path`.
        prior: Weights of network and linear path that no evidence speaks against.
    """
    start = torch.tensor(prior, dtype=torch.float64)
    scales = start.clone().requires_grad_()
    bias = torch.zeros(targets.shape[1], dtype=torch.float64, requires_grad=True)
    of_network, of_linear, y, w = network.double(), linear.double(), targets.double(), weights.double()

    def loss() -> Tensor:
        a, b = scales.abs()  # neither may vote against itself
        losses = log_losses(a * of_network + b * of_linear + (a + b) * bias, y, class_weights, multi_label)
        penalty = (scales - start).square().sum() + bias.square().sum()
        return (losses * w).sum() + _MIX_PENALTY * penalty

    _minimize(loss, [scales, bias])
    a, b = (round(float(value), 6) for value in scales.detach().abs())
    return LogitMix(network=a, linear=b, bias=tuple(round((a + b) * float(value), 6) for value in bias.detach()))


def log_losses(logits: Tensor, targets: Tensor, class_weights: Tensor, multi_label: bool) -> Tensor:
    """Return the weighted negative log likelihood of each row, [N]."""
    class_weights = class_weights.to(logits)
    if multi_label:
        losses = F.binary_cross_entropy_with_logits(logits, targets.to(logits), reduction="none")
        return (losses * torch.where(targets > 0, class_weights, 1.0)).sum(dim=1)
    return -(logits.log_softmax(dim=1) * targets * class_weights).sum(dim=1)


def _minimize(loss: Callable[[], Tensor], parameters: list[Tensor]) -> None:
    optimizer = LBFGS(
        parameters, max_iter=_MAX_ITERATIONS, tolerance_grad=1e-6, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
