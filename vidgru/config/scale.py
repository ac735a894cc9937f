"""Settings of runs that are shared out: among shards, or over a Ray cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vidgru.config.checks import require


@dataclass(frozen=True, kw_only=True)
class ScaleSettings:
    """Who does what part of a run. What comes out does not depend on it.

    Attributes:
        shard: work on one part of the recordings, such as 2/8: the second of eight that are about equally long.
        ray: share the recordings out over a Ray cluster, whose machines share a disk: its address; auto: the one that
            runs here, else one that is started for this run; or local: one is started in any case.
        workers: of Ray; 0 is as many as the cluster has room for.
        gpus_per_worker: of Ray; less than 1 shares one, and with 0 they run on CPUs.
        threads_per_worker: CPU cores of a worker of Ray, in place of threads; 0 shares all out evenly, or, where
            workers is 0 too, is a whole machine, the smallest.
    """

    shard: str = ""
    ray: str = ""
    workers: int = 0
    gpus_per_worker: float = 0.0
    threads_per_worker: int = 0

    def __post_init__(self) -> None:
        number, count = self.part
        require(
            1 <= number <= count, "shard", self.shard, "a number and how many there are, such as 2/8, from 1/8 to 8/8"
        )
        require(not (self.shard and self.ray), "shard", self.shard, "left out with ray, which shares out by itself")
        require(self.workers >= 0, "workers", self.workers, "0 or more")
        require(self.gpus_per_worker >= 0, "gpus_per_worker", self.gpus_per_worker, "0 or more")
        whole = self.gpus_per_worker <= 1 or self.gpus_per_worker == int(self.gpus_per_worker)
        require(whole, "gpus_per_worker", self.gpus_per_worker, "a whole number, or less than 1")
        require(self.threads_per_worker >= 0, "threads_per_worker", self.threads_per_worker, "0 or more")
        for name in ("workers", "gpus_per_worker", "threads_per_worker"):
            require(bool(self.ray) or not getattr(self, name), name, getattr(self, name), "left out without ray")

    @property
    def part(self) -> tuple[int, int]:
        """Number of the shard, from 1, and how many there are; (1, 1) is everything, (0, 0) what cannot be read."""
        if not self.shard:
            return 1, 1
        match = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        return (int(match[1]), int(match[2])) if match else (0, 0)
