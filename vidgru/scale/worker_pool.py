"""Distribute recordings among Ray workers until every one has ended, whichever worker dies.

The driver retries, not Ray (`max_restarts=0`). When a worker dies, Ray would retry everything it was processing, and
count a death for each; the driver can run a suspect recording alone, so that one which kills workers fails alone. What
a dead worker had extracted is in the cache, and the next worker resumes there.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from vidgru.errors import SettingsError, VidgruError
from vidgru.extraction.results import ProgressBar
from vidgru.scale.cluster import WorkerPlan
from vidgru.scale.worker import RayWorker, WorkerProgress, WorkerTask
from vidgru.types import Recording

MAX_DEATHS = 3  # workers that die while processing a recording, before it fails
_MAX_FAILED_STARTS = 3  # workers in a row that die before they have started
_PROGRESS_S = 0.5
_POLL_S = 0.5
_START_NOTICE_S = 60.0  # without a started worker, before the user is told why nothing happens
_CLOSE_TIMEOUT_S = 10.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_FORWARDED_PREFIXES = ("YOLO_", "VIDGRU_")


@dataclass(frozen=True, kw_only=True)
class LostRecording:
    """Result of a recording that too many workers died with."""

    reason: str


@dataclass(kw_only=True, eq=False)
class _PoolWorker:
    """A worker: its actor, its node once it has started, and the recordings it is processing."""

    actor: Any
    node: str = ""
    recordings: set[int] = field(default_factory=set)
    progress_asked_s: float = 0.0  # monotonic time of the last request; infinity until it is answered


class WorkerPool:
    """A pool of Ray workers.

    Each worker has several recordings at a time, so that batches fill and decoding overlaps detection. The largest are
    started first, each by the worker with the least to do.

    Args:
        ray: The package, connected to a cluster.
        plan: Number and size of workers.
        task: Settings of the workers.
        bar: Shows progress and messages.
    """

    def __init__(self, ray: Any, plan: WorkerPlan, task: WorkerTask, bar: ProgressBar) -> None:
        self._ray, self._plan, self._task, self._bar = ray, plan, task, bar
        self._max_recordings = 3 * plan.threads + 2  # being decoded, on the way through the detector, and next
        environment = {name: value for name, value in os.environ.items() if name.startswith(_FORWARDED_PREFIXES)}
        if not plan.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ""  # not every release of Ray hides GPUs from workers without one
        environment |= dict.fromkeys(_THREAD_VARIABLES, str(plan.threads))  # instead of Ray's choice
        self._actor_class = ray.remote(
            num_cpus=plan.threads,
            num_gpus=plan.gpus,
            max_restarts=0,
            max_concurrency=self._max_recordings,
            concurrency_groups={"control": 2},
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": environment},
        )(RayWorker)
        self._workers: list[_PoolWorker] = []
        self._calls: dict[Any, tuple[_PoolWorker, str, int]] = {}  # by Ray's reference: worker, method, recording
        self._recordings: Mapping[int, Recording] = {}
        self._sizes: dict[int, int] = {}
        self._queue: deque[int] = deque()
        self._deaths: Counter[int] = Counter()
        self._failed_starts = 0
        self._messages: set[str] = set()
        self._notice_at_s = time.monotonic() + _START_NOTICE_S

    def process(self, recordings: Mapping[int, Recording]) -> Generator[tuple[int, Any], None, None]:
        """Yield the number of each recording and what `RayWorker.process` returns, or `LostRecording`, as each ends.

        Workers exist while the generator does.

        Raises:
            VidgruError: A worker met an error that is not a recording's fault; the others are stopped.
            SettingsError: Workers die before they have started.
        """
        self._recordings = recordings
        self._sizes = {number: _file_size(recording) for number, recording in recordings.items()}
        self._queue = deque(sorted(recordings, key=lambda number: -self._sizes[number]))
        try:
            while self._num_unfinished():
                self._start_workers()
                self._assign()
                self._ask_for_progress()
                for ref in self._wait():
                    yield from self._handle(ref)
        finally:
            self._stop_workers()

    # --- assign -------------------------------------------------------------------------------------------------------

    def _start_workers(self) -> None:
        while len(self._workers) < min(self._plan.workers, self._num_unfinished()):
            worker = _PoolWorker(actor=self._actor_class.remote(self._task))
            self._workers.append(worker)
            self._call(worker, "start")
        if any(worker.node for worker in self._workers):
            self._notice_at_s = time.monotonic() + _START_NOTICE_S
        elif time.monotonic() > self._notice_at_s:
            self._notice_at_s = float("inf")
            self._bar.log(f"no worker has started yet; waiting for room on the Ray cluster for {self._plan}")

    def _assign(self) -> None:
        while self._queue:
            number = self._queue[0]
            candidates = [worker for worker in self._workers if worker.node and self._can_take(worker, number)]
            if not candidates:
                return
            worker = min(candidates, key=lambda worker: sum(self._sizes[task] for task in worker.recordings))
            worker.recordings.add(self._queue.popleft())
            self._call(worker, "process", number)

    def _can_take(self, worker: _PoolWorker, number: int) -> bool:
        """Return whether a worker has room for a recording. A suspect one is processed alone, to protect the others."""
        if any(map(self._is_suspect, (number, *worker.recordings))):
            return not worker.recordings
        share = math.ceil(self._num_unfinished() / len(self._workers))  # so that the first to start leaves some
        return len(worker.recordings) < min(self._max_recordings, share)

    def _num_unfinished(self) -> int:
        return len(self._queue) + sum(len(worker.recordings) for worker in self._workers)

    def _is_suspect(self, number: int) -> bool:
        return self._deaths[number] >= MAX_DEATHS - 1

    def _ask_for_progress(self) -> None:
        now_s = time.monotonic()
        for worker in self._workers:
            if worker.recordings and now_s - worker.progress_asked_s > _PROGRESS_S:
                worker.progress_asked_s = float("inf")
                self._call(worker, "take_progress")

    def _call(self, worker: _PoolWorker, name: str, number: int = -1) -> Any:
        method = getattr(worker.actor, name)
        if name == "process":
            ref = method.remote(number, self._recordings[number])
        else:
            ref = method.options(concurrency_group="control").remote()  # not behind recordings in progress
        self._calls[ref] = worker, name, number
        return ref

    # --- handle what returns ------------------------------------------------------------------------------------------

    def _wait(self) -> list[Any]:
        """Return the calls that have returned, after waiting briefly for the first."""
        refs = list(self._calls)
        if self._ray.wait(refs, timeout=_POLL_S)[0]:
            return list(self._ray.wait(refs, num_returns=len(refs), timeout=0)[0])
        return []

    def _handle(self, ref: Any) -> Iterator[tuple[int, Any]]:
        if ref not in self._calls:  # of a worker that has died meanwhile
            return
        worker, name, number = self._calls.pop(ref)
        try:
            value = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, VidgruError):
                raise error.cause from None
            raise
        except self._ray.exceptions.RayError as error:
            yield from self._handle_death(worker, error)
            return
        if name == "start":
            worker.node = value
            self._failed_starts = 0
        elif name == "process":
            worker.recordings.discard(number)
            yield number, value
        else:
            worker.progress_asked_s = time.monotonic()
            self._show(value)

    def _show(self, progress: WorkerProgress) -> None:
        for line in progress.messages:
            if line not in self._messages:  # every worker has the same
                self._messages.add(line)
                self._bar.log(line)
        in_progress = {number for worker in self._workers for number in worker.recordings}
        for number, recording in progress.recordings.items():
            if number in in_progress:
                self._bar.advance(number, recording.seconds, recording.share, recording.samples)

    def _handle_death(self, worker: _PoolWorker, error: Exception) -> Iterator[tuple[int, Any]]:
        """Requeue the recordings of a worker that is dead or unreachable."""
        self._workers.remove(worker)
        self._calls = {ref: call for ref, call in self._calls.items() if call[0] is not worker}
        self._kill(worker)
        if not worker.node:
            self._failed_starts += 1
            # A node that disappears may take many workers at once, but never more than there are.
            if self._failed_starts == max(_MAX_FAILED_STARTS, self._plan.workers + 1):
                reason = " ".join(str(error).split())
                raise SettingsError(
                    f"Ray workers die before they have started: {reason}",
                    "install the same versions of Python, Ray and vidgru on every node of the cluster",
                )
        elif worker.recordings:
            count = len(worker.recordings)
            recordings = "a recording" if count == 1 else f"{count} recordings"
            self._bar.log(f"a Ray worker on {worker.node} died while processing {recordings}; others will resume")
        for number in sorted(worker.recordings, key=lambda number: self._sizes[number]):
            self._deaths[number] += 1
            if self._deaths[number] == MAX_DEATHS:
                reason = f"{MAX_DEATHS} Ray workers died while processing it, the last on {worker.node}: out of memory?"
                yield number, LostRecording(reason=reason)
            elif self._is_suspect(number):
                self._queue.append(number)
            else:
                self._queue.appendleft(number)

    # --- stop ---------------------------------------------------------------------------------------------------------

    def _stop_workers(self) -> None:
        """Close all workers, then kill them, so that locks are released and need not expire."""
        try:
            refs = [self._call(worker, "close") for worker in self._workers if worker.node]
            if refs:
                self._ray.wait(refs, num_returns=len(refs), timeout=_CLOSE_TIMEOUT_S)
        finally:
            for worker in self._workers:
                self._kill(worker)
            self._workers, self._calls = [], {}

    def _kill(self, worker: _PoolWorker) -> None:
        with suppress(self._ray.exceptions.RayError, ValueError):  # it is already dead
            self._ray.kill(worker.actor)


def _file_size(recording: Recording) -> int:
    try:
        return recording.path.stat().st_size
    except OSError:
        return 0
