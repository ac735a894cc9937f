"""Where training computes, and that it computes the same again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vidgru.errors import SettingsError


def choose_device(name: str) -> torch.device:
    """The device of that name; of "auto", a CUDA device if there is one, else the CPU.

    Raises:
        SettingsError: it cannot be used.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        problem = str(error).splitlines()[0]
        raise SettingsError(
            f"device is {name!r}, which cannot be used: {problem}", "choose auto, cpu, cuda, cuda:1 or mps"
        ) from None
    return device


@contextmanager
def reproducible(seed: int, threads: int) -> Iterator[None]:
    """Torch's random numbers from a seed, on so many CPU threads, and both as they were afterwards.

    The steps of such a network are too small to share: one thread is the fastest, far so beside other work.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)
