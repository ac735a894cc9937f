"""A model that only describes: a recording is cut into stretches as long as the clips that it learnt to describe."""

from __future__ import annotations

from vidgru.types import Array, Event

WAIT = 0.5  # lengths after its end until a stretch is told: till then it may be the last, which is not cut again


class FixedWindowDecoder:
    """One event after the other, each as long as a clip; takes the place of an `EventDecoder`.

    A stretch begins where the one before it ends, or, where so long a stretch would hold no frame, at the next frame.

    Args:
        label: of all of them.
        video: what events are to call the recording.
        length_s: of a stretch; the last is from half as long to one and a half times as long, if the recording is.
        step_s: time from frame to frame. The first stretch begins at 0 if the first frame comes sooner than that, and
            with the first frame else.
    """

    def __init__(self, label: str, *, video: str, length_s: float, step_s: float) -> None:
        self._label, self._video, self._length_s, self._step_s = label, video, length_s, step_s
        self._start_s: float | None = None  # None before the first frame
        self._last_s = 0.0  # time of the latest frame

    def push(self, time_s: Array, scores: Array, next_s: float | None = None) -> tuple[list[Event], list[Event]]:
        """Take the next frames, float64 [n]; their scores do not matter. Returns events that have opened and closed."""
        over = []
        for at_s in time_s.tolist():
            if self._start_s is None:
                self._start_s = 0.0 if at_s < self._step_s else at_s
            while at_s >= self._start_s + (1 + WAIT) * self._length_s:
                end_s = self._start_s + self._length_s
                over.append(self._event(self._start_s, end_s))
                no_frame = self._last_s < end_s and at_s >= end_s + self._length_s
                self._start_s = at_s if no_frame else end_s
            self._last_s = at_s
        return over, over

    def finish(self, end_s: float) -> tuple[list[Event], list[Event]]:
        """Nothing follows; the recording ends at this second. As `push`."""
        over = [self._event(self._start_s, end_s)] if self._start_s is not None and end_s > self._start_s else []
        return over, over

    def _event(self, start_s: float, end_s: float) -> Event:
        return Event(video=self._video, start_s=start_s, end_s=end_s, label=self._label, score=1.0)
