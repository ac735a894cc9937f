"""Data-parallel training under `torchrun`: each process computes its share of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn

from vidgru.errors import SettingsError

_TIMEOUT = timedelta(hours=24)  # one process may extract features for long while the others wait


@dataclass(frozen=True, kw_only=True)
class ProcessGroup:
    """The processes that train one model together.

    Attributes:
        rank: Number of this process, from 0; only the first writes and prints.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    def sum_gradients(self, network: nn.Module) -> None:
        """Sum gradients over processes, each of which has divided its loss by the batch size over all."""
        if self.size == 1:
            return
        parameters = list(network.parameters())
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        has_gradient = torch.tensor([float(p.grad is not None) for p in parameters], device=gradients[0].device)
        flat = torch.cat([has_gradient, *(gradient.flatten() for gradient in gradients)])
        distributed.all_reduce(flat)
        has_gradient, *parts = torch.split(flat, [len(parameters), *(gradient.numel() for gradient in gradients)])
        for parameter, part, used in zip(parameters, parts, has_gradient.tolist(), strict=True):
            # a head that the batch does not train keeps no gradient, as in one process: its weights must not move
            parameter.grad = part.view_as(parameter) if used else None

    def sum(self, values: Tensor) -> Tensor:
        """Sum values over processes, in place."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def broadcast(self, values: list[float], device: torch.device) -> list[float]:
        """Return the values of the first process, so that all take the same decisions."""
        if self.size == 1:
            return values
        sent = torch.tensor(values, dtype=torch.float64, device=device)
        distributed.broadcast(sent, src=0)
        return list(sent.tolist())

    def is_equal(self, value: str) -> bool:
        """Return whether all processes have the same value."""
        values = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(values, value)
        return len(set(values)) == 1


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """Join the process group described by the environment that `torchrun` sets; a group of one without it.

    Output of all processes but the first is discarded.
    """
    if _size() == 1:
        yield ProcessGroup()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_TIMEOUT)
    try:
        group = ProcessGroup(rank=distributed.get_rank(), size=distributed.get_world_size())
        if group.rank == 0:
            yield group
        else:
            with open(os.devnull, "w") as devnull, redirect_stdout(devnull), redirect_stderr(devnull):
                yield group
    finally:
        distributed.destroy_process_group()


def refuse_distributed(task: str) -> None:
    """Refuse a task that does not run distributed.

    Raises:
        SettingsError: This process is one of several.
    """
    if _size() > 1:
        raise SettingsError(f"{task} runs in a single process", "start it without torchrun")


def _size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
