"""Processes that train one model between them, started by `torchrun`: each makes its share of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn

from vidgru.errors import SettingsError

_PATIENCE = timedelta(hours=24)  # one process may extract features for long while the others wait


@dataclass(frozen=True, kw_only=True)
class ProcessGroup:
    """The processes of a run.

    Attributes:
        rank: which this one is, from 0; the first writes and prints.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def add_up(self, network: nn.Module) -> None:
        """Sum gradients over processes: each has divided its loss by the number of windows of all."""
        if self.size == 1:
            return
        parameters = list(network.parameters())
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        have = torch.tensor([float(p.grad is not None) for p in parameters], device=gradients[0].device)
        flat = torch.cat([have, *(gradient.flatten() for gradient in gradients)])
        distributed.all_reduce(flat)
        have, *parts = torch.split(flat, [len(parameters), *(gradient.numel() for gradient in gradients)])
        for parameter, part, some in zip(parameters, parts, have.tolist(), strict=True):
            # a head that the batch does not ask stays without a gradient, as in one process: its weights do not move
            parameter.grad = part.view_as(parameter) if some else None

    def total(self, values: Tensor) -> Tensor:
        """Sum over processes."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def agree(self, values: list[float], device: torch.device) -> list[float]:
        """The values that the first process has, so that all decide alike."""
        if self.size == 1:
            return values
        sent = torch.tensor(values, dtype=torch.float64, device=device)
        distributed.broadcast(sent, src=0)
        return list(sent.tolist())

    def alike(self, value: str) -> bool:
        """Whether all processes have the same value."""
        values = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(values, value)
        return len(set(values)) == 1


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """The team that this process is in, by the environment that `torchrun` sets; a team of one without it.

    Only the first process's prints are shown.
    """
    if _size() == 1:
        yield ProcessGroup()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    try:
        found = ProcessGroup(rank=distributed.get_rank(), size=distributed.get_world_size())
        if found.rank == 0:
            yield found
        else:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield found
    finally:
        distributed.destroy_process_group()


def refuse_distributed(what: str) -> None:
    """Refuse what one process does alone.

    Raises:
        SettingsError: this process is one of several.
    """
    if _size() > 1:
        raise SettingsError(f"{what} is not shared out between processes", "start it without torchrun")


def _size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
