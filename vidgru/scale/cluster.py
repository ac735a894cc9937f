"""Connect to a Ray cluster, existing or started for one run, and plan how many workers it runs."""

from __future__ import annotations

import logging
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidgru.config import ScaleSettings
from vidgru.errors import MissingDependencyError, SettingsError

LOCAL = "local"  # Ray's word for a cluster that this process starts
_CONNECT_TIMEOUT_S = 10.0
_STORE_BYTES = 100 << 20  # object store of a cluster started here; only small objects pass through it
_REMEDY = "pass the address that `ray start --head` printed, such as 10.0.0.1:6379, or auto"
_ENVIRONMENT = {
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # keep Ray's notices off stdout, which is for results
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray would run workers below every other process of the machine
}


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """Number of workers, and CPU cores (threads) and GPUs of each."""

    workers: int
    threads: int
    gpus: float

    def __str__(self) -> str:
        text = f"{self.workers} worker{'s' * (self.workers > 1)} with {_resources(self.threads, self.gpus)}"
        return text + " each" * (self.workers > 1)


@contextmanager
def connect(address: str) -> Iterator[Any]:
    """Yield the `ray` package, connected to a cluster. Only a cluster that was started here is stopped at the end.

    Args:
        address: Of a cluster; "auto" for the one that RAY_ADDRESS names or `ray start` started on this machine, or as
            "local" if there is none; "local" to start one on this machine.

    Raises:
        MissingDependencyError: Ray is not installed.
        SettingsError: There is no cluster at this address, or it refuses the connection.
    """
    target = _find_cluster() if address == "auto" else address
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # As Ray itself does when it finds the address.
    if address == "auto" and target != LOCAL and _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("--ray needs Ray, which is not installed", "pip install 'vidgru[ray]'") from None
    if ray.is_initialized():  # by the program that calls vidgru
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if target == LOCAL:
            ray.init(address=LOCAL, include_dashboard=False, object_store_memory=_STORE_BYTES, **quiet)
        else:
            _check_reachable(target)
            ray.init(address=target, **quiet)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:  # RayError: a wrong token
        reason = str(error).partition("\n")[0]
        raise SettingsError(f"ray is {address!r}, but no cluster can be reached there: {reason}", _REMEDY) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _find_cluster() -> str:
    """Return the address of the cluster that RAY_ADDRESS names or `ray start` started here, or `LOCAL`.

    Ray's own `auto` would also find a cluster that another program started for itself, and may stop at any time.
    """
    if (address := os.environ.get("RAY_ADDRESS", "")) not in ("", "auto"):
        return address
    address_file = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    try:
        address = address_file.read_text().strip()
        _check_reachable(address)
    except (OSError, ValueError):  # there is none, or it has been stopped
        return LOCAL
    return address


def _has_token() -> bool:
    """Return whether the user has a token for clusters with authentication (docs.ray.io, "Token authentication")."""
    token = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(token) or (Path.home() / ".ray" / "auth_token").is_file()


def _check_reachable(address: str) -> None:
    """Raise OSError or ValueError if nothing listens at an address, for which Ray would wait for minutes."""
    match = re.fullmatch(r"(?:\w+://)?\[?([^\[\]/]+)\]?:(\d+)", address)
    if match is None:
        raise ValueError("it is not HOST:PORT")
    socket.create_connection((match[1], int(match[2])), _CONNECT_TIMEOUT_S).close()


def node_resources(ray: Any) -> list[Mapping[str, float]]:
    """Return the resources of each node of the cluster."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def plan_workers(settings: ScaleSettings, nodes: Sequence[Mapping[str, float]]) -> WorkerPlan:
    """Choose the number of workers and their size.

    What the settings leave open follows from what they give: as many workers as fit, with as many threads as divide all
    cores evenly among them. If both are open, there is a worker per node, as large as the smallest; or, with GPUs, as
    many workers as there are GPUs for.

    Args:
        settings: Settings of the user.
        nodes: Resources of each node, as Ray names them: "CPU", "GPU".

    Raises:
        SettingsError: No node has room for a worker.
    """
    gpus = settings.gpus_per_worker
    usable = [node for node in nodes if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus]
    max_cores = int(max((node["CPU"] for node in usable), default=0))

    def capacity(threads: int) -> int:
        """Return how many workers of this many threads fit the cluster."""
        by_cpu = ((int(node["CPU"] // threads), node) for node in usable)
        return sum(min(count, int(node["GPU"] / gpus + 1e-6)) if gpus else count for count, node in by_cpu)

    threads = settings.threads_per_worker
    if not threads and usable:
        wanted = settings.workers or (capacity(1) if gpus else len(usable))
        threads = next((cores for cores in range(max_cores, 1, -1) if capacity(cores) >= wanted), 1)
    workers = settings.workers or (capacity(threads) if threads else 0)
    if not usable or threads > max_cores or not workers:
        resources = ", ".join(f"{node.get('CPU', 0):g} and {node.get('GPU', 0):g}" for node in nodes)
        raise SettingsError(
            f"no node of the Ray cluster has room for a worker with {_resources(threads or 1, gpus)}; "
            f"cores and GPUs of the nodes: {resources or 'none'}",
            "lower --threads-per-worker and --gpus-per-worker, or leave them out",
        )
    return WorkerPlan(workers=workers, threads=threads, gpus=gpus)


def _resources(threads: int, gpus: float) -> str:
    cores = f"{threads} core{'s' * (threads > 1)}"
    return f"{cores} and {gpus:g} GPU{'s' * (gpus > 1)}" if gpus else cores
