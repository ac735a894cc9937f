"""Which decoder does what next: whole recordings first, then stretches of the last ones, so that no decoder is idle.

Recordings may come while others are worked on. A segment that no earlier one is ahead of then goes before them: its
recording was begun first.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from vidgru.extraction.results import ExtractionStoppedError
from vidgru.video.reader import ResumePoint

Job = TypeVar("Job")

_POLL_S = 0.1
_RETRY_S = 0.5  # how often a recording that another process works on is looked at


@dataclass(kw_only=True, eq=False)
class Segment(Generic[Job]):
    """A recording, or a part of one, for one decoder.

    Attributes:
        job: the recording.
        order: place among the stretches of the recording.
        after: the sample after which it begins; None is the start.
        last: the sample it ends with, as far as can be told beforehand; None is the end of the recording.
        superseded: its samples do not count any more: an earlier segment takes over.
        passed: samples of the recording up to the last one that was handed to the detector.
    """

    job: Job
    order: int = 0
    after: ResumePoint | None = None
    last: ResumePoint | None = None
    superseded: bool = False
    passed: int = 0


@dataclass(kw_only=True, eq=False)
class _Cut(Generic[Job]):
    """Stretches of a recording that is shared."""

    waiting: list[Segment[Job]]
    running: list[Segment[Job]] = field(default_factory=list)


class Schedule(Generic[Job]):
    """Hands out recordings and stretches. All methods may be called from any thread.

    Args:
        decoders: threads that draw from it.
        starving: whether the detectors have nothing to do; only then a recording is shared.
        idle: called when no decoder is at work, before waiting; again and again, by any of the threads.
        stop: set when the run is over.
    """

    def __init__(
        self,
        decoders: int,
        starving: Callable[[], bool],
        idle: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        self._fresh: deque[Job] = deque()
        self._last = False  # no more are added
        self._decoders = decoders
        self._starving, self._idle, self._stop = starving, idle, stop
        self._put_off: list[tuple[float, Job]] = []
        self._cuts: dict[int, _Cut[Job]] = {}
        self._active = 0
        self._lock = threading.Lock()

    def add(self, job: Job) -> None:
        """Have a recording begun after those that were added before it."""
        with self._lock:
            self._fresh.append(job)

    def finish(self) -> None:
        """No more are added: `draw` gives None when all is handed out for good."""
        with self._lock:
            self._last = True

    @property
    def may_cut(self) -> bool:
        """Whether decoders are going to be idle, so that a recording is worth being shared."""
        with self._lock:
            return not self._fresh and self._decoders > 1

    @contextmanager
    def draw(self) -> Iterator[Segment[Job] | None]:
        """What to decode next, waited for if need be; None when everything is handed out for good.

        Raises:
            ExtractionStoppedError: the run is over.
        """
        segment = self._next()
        try:
            yield segment
        finally:
            if segment is not None:
                with self._lock:
                    self._active -= 1
                    if (cut := self._cuts.get(id(segment.job))) and segment in cut.running:
                        cut.running.remove(segment)
                        if not (cut.running or cut.waiting):
                            del self._cuts[id(segment.job)]

    def requeue(self, job: Job) -> None:
        """Come back to a recording later: another process works on it."""
        with self._lock:
            self._put_off.append((time.monotonic() + _RETRY_S, job))

    def cut(self, segment: Segment[Job], places: list[ResumePoint]) -> None:
        """Cut what is left of a running segment at these places, for others to share."""
        ends = [*places[1:], segment.last]
        others = [
            Segment(job=segment.job, order=order, after=after, last=last)
            for order, (after, last) in enumerate(zip(places, ends, strict=True), start=1)
        ]
        segment.last = places[0]
        with self._lock:
            self._cuts[id(segment.job)] = _Cut(waiting=others, running=[segment])

    def is_first(self, segment: Segment[Job]) -> bool:
        """Whether no earlier segment of its recording is still to be decoded."""
        with self._lock:
            cut = self._cuts.get(id(segment.job))
            others = [] if cut is None else [*cut.running, *cut.waiting]
            return all(other.order >= segment.order for other in others)

    def reclaim(self, segment: Segment[Job]) -> None:
        """A running segment goes on to the end of the recording: what others did of the rest does not count."""
        with self._lock:
            segment.last = None
            if cut := self._cuts.get(id(segment.job)):
                for other in (*cut.running, *cut.waiting):
                    other.superseded = other.superseded or other.order > segment.order
                cut.waiting.clear()

    def _next(self) -> Segment[Job] | None:
        while not self._stop.is_set():
            with self._lock:
                segment, over = self._choose()
                self._active += segment is not None
                quiet = not self._active
            if quiet:
                self._idle()  # no other samples come that theirs could wait for
            if segment is not None or over:
                return segment
            self._stop.wait(_POLL_S)
        raise ExtractionStoppedError

    def _choose(self) -> tuple[Segment[Job] | None, bool]:
        """The next segment, if there is one now; and whether there will be none any more."""
        cuts = [cut for cut in self._cuts.values() if cut.waiting]
        if head := next((cut for cut in cuts if not cut.running), None):
            return self._share(head), False
        if self._fresh:
            return Segment(job=self._fresh.popleft()), False
        for cut in cuts:
            first = min(one.order for one in cut.running)
            near = cut.waiting[0].order - first < 2 * self._decoders  # what is done ahead of its turn waits in memory
            if near and self._starving():
                return self._share(cut), False
        if self._put_off and self._put_off[0][0] < time.monotonic():
            return Segment(job=self._put_off.pop(0)[1]), False
        return None, self._last and not (self._put_off or cuts or self._active)

    def _share(self, cut: _Cut[Job]) -> Segment[Job]:
        """The next segment of a recording that is shared."""
        segment = cut.waiting.pop(0)
        cut.running.append(segment)
        return segment
