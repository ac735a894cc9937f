"""A Ray cluster for one run: the one that is there, or one that is started here for it; and how it is shared out."""

from __future__ import annotations

import logging
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidgru.config import ScaleSettings
from vidgru.errors import MissingDependencyError, SettingsError

LOCAL = "local"  # Ray's word for a cluster of this process' own
_ANSWER_S = 10.0
_STORE_BYTES = 100 << 20  # of a cluster of our own: what passes through it is small
_REMEDY = "pass the address that `ray start --head` printed, such as 10.0.0.1:6379, or auto"
_ENVIRONMENT = {
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # else it tells of its processes on stdout, where our results go
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # in a cluster of our own; Ray would let anything else on the machine go first
}


@dataclass(frozen=True, kw_only=True)
class Crew:
    """How many workers there are to be, and the CPU cores and GPUs of each."""

    workers: int
    threads: int
    gpus: float

    def __str__(self) -> str:
        text = f"{self.workers} worker{'s' * (self.workers > 1)} of {self.threads} core{'s' * (self.threads > 1)}"
        return f"{text} and {self.gpus:g} GPU{'s' * (self.gpus > 1)}" if self.gpus else text


@contextmanager
def joined(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster meanwhile. A cluster that was there is left as it is, one started here is ended.

    Args:
        address: of a cluster; auto: the one that RAY_ADDRESS names, or that `ray start` has started on this machine,
            else as with local; local: one is started on this machine.

    Raises:
        MissingDependencyError: Ray is not installed.
        SettingsError: there is no cluster at this address, or it cannot be joined.
    """
    joining = _running() if address == "auto" else address
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address == "auto" and joining != LOCAL and _has_token():  # as Ray does where it has found the address itself
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("Ray is not installed, and --ray is given", "pip install 'vidgru[ray]'") from None
    if ray.is_initialized():  # by the program that we are part of
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    own = {**quiet, "address": LOCAL, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    try:
        if joining == LOCAL:
            ray.init(**own)
        else:
            _knock(joining)
            ray.init(address=joining, **quiet)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:  # the last of a token
        reason = str(error).partition("\n")[0]
        raise SettingsError(f"ray is {address!r}, where no cluster can be joined: {reason}", _REMEDY) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _running() -> str:
    """The address of the cluster that RAY_ADDRESS names, or that `ray start` has started here; `LOCAL` if none is.

    Ray's own `auto` would also find one that another program has started for itself, and will end when it likes.
    """
    if (address := os.environ.get("RAY_ADDRESS", "")) not in ("", "auto"):
        return address
    noted = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    try:
        address = noted.read_text().strip()
        _knock(address)
    except (OSError, ValueError):  # there is none, or it has ended
        return LOCAL
    return address


def _has_token() -> bool:
    """Whether there is a token by which a cluster knows its users (https://docs.ray.io, "Token authentication")."""
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").is_file()


def _knock(address: str) -> None:
    """Find out whether anything listens at an address: Ray itself waits for minutes. Raises OSError, ValueError."""
    match = re.fullmatch(r"(?:\w+://)?\[?([^\[\]/]+)\]?:(\d+)", address)
    if match is None:
        raise ValueError("it is not HOST:PORT")
    socket.create_connection((match[1], int(match[2])), _ANSWER_S).close()


def size_crew(settings: ScaleSettings, machines: list[Mapping[str, float]]) -> Crew:
    """How many workers a run is to have, and how large they are.

    What is not given follows from what is: as many workers as have room; and threads so that these share out all cores
    evenly. Without either a worker takes a whole machine, of the size of the smallest; or, with GPUs, as many machines'
    workers as there are GPUs for.

    Args:
        settings: as given.
        machines: what each machine of the cluster has, as Ray tells it: "CPU", "GPU".

    Raises:
        SettingsError: no machine has room for a worker.
    """
    gpus = settings.gpus_per_worker
    able = [one for one in machines if one.get("CPU", 0) >= 1 and one.get("GPU", 0) >= gpus]
    most = int(max((one["CPU"] for one in able), default=0))

    def room(threads: int) -> int:
        by_cpu = ((int(one["CPU"] // threads), one) for one in able)
        return sum(min(count, int(one["GPU"] / gpus + 1e-6)) if gpus else count for count, one in by_cpu)

    threads = settings.threads_per_worker
    if not threads and able:
        wanted = settings.workers or (room(1) if gpus else len(able))
        threads = next((cores for cores in range(most, 1, -1) if room(cores) >= wanted), 1)
    workers = settings.workers or (room(threads) if threads else 0)
    if not able or threads > most or not workers:
        asked = f"{threads or 1} core{'s' * (threads > 1)}" + (f" and {gpus:g} GPU" if gpus else "")
        cores = ", ".join(f"{one.get('CPU', 0):g} and {one.get('GPU', 0):g}" for one in machines)
        raise SettingsError(
            f"no machine of the Ray cluster has room for a worker of {asked}; their cores and GPUs: {cores or 'none'}",
            "give smaller --threads-per-worker and --gpus-per-worker, or leave them out",
        )
    return Crew(workers=workers, threads=threads, gpus=gpus)


def machines_of(ray: Any) -> list[Mapping[str, float]]:
    """What each machine of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
