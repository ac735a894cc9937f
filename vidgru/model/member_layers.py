"""Layers of the members of an ensemble: the layers of PyTorch with one more dimension, computed together."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MemberLinear(nn.Module):
    """A linear layer per member, initialised as `nn.Linear`.

    Args:
        members: Number of members.
        inputs, outputs: Width of the inputs and outputs.
        bias: Whether to add a bias.

    Attributes:
        weight: float32 [members,outputs,inputs].
        bias: float32 [members,outputs]; None without a bias.
    """

    def __init__(self, members: int, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(members, outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, outputs).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map each member's inputs, [members,...,inputs], to [members,...,outputs]."""
        rows, weight = x.flatten(1, -2), self.weight.transpose(1, 2)
        out = rows.bmm(weight) if self.bias is None else torch.baddbmm(self.bias[:, None], rows, weight)
        return out.view(*x.shape[:-1], weight.shape[2])


class SharedInputLinear(MemberLinear):
    """A `MemberLinear` whose members share their inputs, so that one matrix product computes all."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [n,inputs] to [members,n,outputs]."""
        members, outputs, inputs = self.weight.shape
        bias = None if self.bias is None else self.bias.view(-1)
        return F.linear(x, self.weight.view(-1, inputs), bias).view(len(x), members, outputs).transpose(0, 1)


class MemberLayerNorm(nn.Module):
    """Layer normalization with a scale and a bias per member, initialised as `nn.LayerNorm`.

    Args:
        members: Number of members.
        width: Width of the inputs.

    Attributes:
        weight, bias: float32 [members,width].
        eps: Added to the variance.
    """

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, width))
        self.bias = nn.Parameter(torch.zeros(members, width))
        self.eps = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last axis of [members,...,width]."""
        shape = len(self.weight), *(1,) * (x.ndim - 2), x.shape[-1]
        normal = F.layer_norm(x, x.shape[-1:], eps=self.eps)
        return torch.addcmul(self.bias.view(shape), normal, self.weight.view(shape))
