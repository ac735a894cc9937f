"""PyTorch's optimizers without its compiler.

PyTorch exempts methods of its optimizers from compilation, and imports `torch._dynamo` to do so when they are first
called. That takes as long as `import torch` (1.6 s of CPU time, measured on a 2-core machine), and vidgru compiles
nothing. These classes call the same methods without the wrappers.
"""

from __future__ import annotations

from inspect import unwrap

import torch
from torch.optim import Optimizer


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW`, without closures in `step`."""

    add_param_group = unwrap(Optimizer.add_param_group)
    zero_grad = unwrap(Optimizer.zero_grad)
    state_dict = unwrap(Optimizer.state_dict)
    load_state_dict = unwrap(Optimizer.load_state_dict)
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


class LBFGS(torch.optim.LBFGS):
    """`torch.optim.LBFGS`."""

    add_param_group = unwrap(Optimizer.add_param_group)
    zero_grad = unwrap(Optimizer.zero_grad)
