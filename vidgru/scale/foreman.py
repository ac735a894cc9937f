"""Shares recordings out among Ray workers, and sees to it that each is worked on until it ends, whoever dies.

The driver does the retrying, not Ray: it knows which recordings a worker had, so that one over which workers die again
and again costs itself alone. What a dead worker had done of a recording lies in the cache, and the next goes on there.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from vidgru.errors import SettingsError, VidgruError
from vidgru.scale.cluster import Crew
from vidgru.scale.worker import News, Task, Worker
from vidgru.types import Recording

DEATHS = 3  # of workers that had a recording, before it counts as failed
_STILLBORN = 3  # workers in a row that die before they are ready
_NEWS_S = 0.5
_POLL_S = 0.5
_ROOM_S = 60.0  # without a worker, before the user is told what is waited for
_FAREWELL_S = 10.0
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PASSED_ON = ("YOLO_", "VIDGRU_")


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A recording that workers died over, too often to try again."""

    reason: str


@dataclass(kw_only=True, eq=False)
class _Member:
    """A worker: its actor, the machine it is on once it is ready, and the recordings it has."""

    actor: Any
    where: str = ""
    tasks: set[int] = field(default_factory=set)
    asked: float = 0.0  # when news were last asked for (monotonic clock)


class Foreman:
    """Has recordings worked on by a crew.

    Each worker has several at a time, so that batches fill and decoding overlaps detection; the largest are begun
    first, each by the worker that has the least to do.

    Args:
        ray: the package, connected to a cluster.
        crew: how many workers, and how large.
        task: what they do.
        on_news: takes the news of recordings that are under way.
        say: tells the user something.
    """

    def __init__(
        self, ray: Any, crew: Crew, task: Task, on_news: Callable[[News], None], say: Callable[[str], None]
    ) -> None:
        self._ray, self._crew, self._task, self._on_news, self._say = ray, crew, task, on_news, say
        self._slots = 3 * crew.threads + 2  # being decoded, on the way through the detector, and next
        environment = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
        environment |= {} if crew.gpus else {"CUDA_VISIBLE_DEVICES": ""}  # which not every release of Ray sees to
        environment |= dict.fromkeys(_THREADS, str(crew.threads))  # a number of Ray's own choice otherwise
        self._actor = ray.remote(
            num_cpus=crew.threads,
            num_gpus=crew.gpus,
            max_restarts=0,
            max_concurrency=self._slots,
            concurrency_groups={"control": 2},
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": environment},
        )(Worker)
        self._members: list[_Member] = []
        self._refs: dict[Any, tuple[_Member, str, int]] = {}  # what is waited for: of whom, which call, which recording
        self._recordings: Mapping[int, Recording] = {}
        self._sizes: dict[int, int] = {}
        self._todo: deque[int] = deque()
        self._deaths: Counter[int] = Counter()
        self._stillborn = 0
        self._said: set[str] = set()
        self._patient_until = time.monotonic() + _ROOM_S

    def work(self, recordings: Mapping[int, Recording]) -> Generator[tuple[int, Any], None, None]:
        """The number of each recording and what `Worker.work` returns of it, or `Lost`, as each ends.

        Workers are there for as long as this is iterated over.

        Raises:
            VidgruError: a worker met an error that is no fault of a recording's; the others are stopped.
            SettingsError: workers die before they are ready.
        """
        self._recordings = recordings
        self._sizes = {number: _size(recording) for number, recording in recordings.items()}
        self._todo = deque(sorted(recordings, key=lambda number: -self._sizes[number]))
        try:
            while self._unfinished():
                self._hire()
                self._assign()
                self._ask_for_news()
                for ref in self._wait():
                    yield from self._settle(ref)
        finally:
            self._dismiss()

    # --- sharing out ------------------------------------------------------------------------------------------------

    def _hire(self) -> None:
        while len(self._members) < min(self._crew.workers, self._unfinished()):
            member = _Member(actor=self._actor.remote(self._task))
            self._members.append(member)
            self._call(member, "open")
        if any(member.where for member in self._members):
            self._patient_until = time.monotonic() + _ROOM_S
        elif time.monotonic() > self._patient_until:
            self._patient_until = float("inf")
            self._say(f"no worker is ready yet; waiting for room on the Ray cluster for {self._crew}")

    def _assign(self) -> None:
        while self._todo:
            number = self._todo[0]
            able = [one for one in self._members if one.where and self._has_room(one, number)]
            if not able:
                return
            member = min(able, key=lambda one: sum(self._sizes[task] for task in one.tasks))
            member.tasks.add(self._todo.popleft())
            self._call(member, "work", number)

    def _has_room(self, member: _Member, number: int) -> bool:
        """Whether a worker can take a recording. One that two workers died with is tried alone, not to harm others."""
        if any(map(self._suspect, (number, *member.tasks))):
            return not member.tasks
        share = math.ceil(self._unfinished() / len(self._members))  # the first that is ready leaves some for others
        return len(member.tasks) < min(self._slots, share)

    def _unfinished(self) -> int:
        return len(self._todo) + sum(len(member.tasks) for member in self._members)

    def _suspect(self, number: int) -> bool:
        return self._deaths[number] >= DEATHS - 1

    def _ask_for_news(self) -> None:
        now = time.monotonic()
        for member in self._members:
            if member.tasks and now - member.asked > _NEWS_S:
                member.asked = float("inf")  # until it has answered
                self._call(member, "news")

    def _call(self, member: _Member, name: str, number: int = -1) -> Any:
        method = getattr(member.actor, name)
        if name == "work":
            ref = method.remote(number, self._recordings[number])
        else:
            ref = method.options(concurrency_group="control").remote()
        self._refs[ref] = member, name, number
        return ref

    # --- what comes back --------------------------------------------------------------------------------------------

    def _wait(self) -> list[Any]:
        """What has come back, waited for a little."""
        refs = list(self._refs)
        if self._ray.wait(refs, timeout=_POLL_S)[0]:
            return list(self._ray.wait(refs, num_returns=len(refs), timeout=0)[0])
        return []

    def _settle(self, ref: Any) -> Iterator[tuple[int, Any]]:
        if ref not in self._refs:  # of a worker that is lost by now
            return
        member, name, number = self._refs.pop(ref)
        try:
            value = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, VidgruError):
                raise error.cause from None
            raise
        except self._ray.exceptions.RayError as error:
            yield from self._lose(member, error)
            return
        if name == "open":
            member.where = value
            self._stillborn = 0
        elif name == "work":
            member.tasks.discard(number)
            yield number, value
        else:
            member.asked = time.monotonic()
            self._tell(value)

    def _tell(self, news: News) -> None:
        for line in news.said:
            if line not in self._said:  # each worker says the same
                self._said.add(line)
                self._say(line)
        under_way = {number for member in self._members for number in member.tasks}
        self._on_news(News(steps={number: step for number, step in news.steps.items() if number in under_way}))

    def _lose(self, member: _Member, error: Exception) -> Iterator[tuple[int, Any]]:
        """A worker is dead, or cannot be reached: others take what it had."""
        self._members.remove(member)
        self._refs = {ref: call for ref, call in self._refs.items() if call[0] is not member}
        self._kill(member)
        if not member.where:
            self._stillborn += 1
            # a machine that goes away may take many at once, but not more than there are
            if self._stillborn == max(_STILLBORN, self._crew.workers + 1):
                reason = " ".join(str(error).split())
                raise SettingsError(
                    f"Ray workers die before they are ready: {reason}",
                    "every machine of the cluster needs the same versions of Python, Ray and vidgru",
                )
        elif member.tasks:
            count = len(member.tasks)
            what = "a recording" if count == 1 else f"{count} recordings"
            self._say(f"a Ray worker on {member.where} died with {what} under way, which go to others")
        for number in sorted(member.tasks, key=lambda one: self._sizes[one]):
            self._deaths[number] += 1
            if self._deaths[number] == DEATHS:
                last = member.where
                yield number, Lost(reason=f"{DEATHS} Ray workers died with it, the last on {last}: no memory left?")
            elif self._suspect(number):
                self._todo.append(number)
            else:
                self._todo.appendleft(number)

    # --- the end ----------------------------------------------------------------------------------------------------

    def _dismiss(self) -> None:
        """End all workers. They are told first, so that leases are given up and none has to expire."""
        try:
            closing = [self._call(member, "close") for member in self._members if member.where]
            if closing:
                self._ray.wait(closing, num_returns=len(closing), timeout=_FAREWELL_S)
        finally:
            for member in self._members:
                self._kill(member)
            self._members, self._refs = [], {}

    def _kill(self, member: _Member) -> None:
        with suppress(self._ray.exceptions.RayError, ValueError):  # it is dead already
            self._ray.kill(member.actor)


def _size(recording: Recording) -> int:
    try:
        return recording.path.stat().st_size
    except OSError:
        return 0
