"""What was seen at any moment: between two samples of the detector its boxes move evenly from one to the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from vidgru.types import Array, FrameSequence

_ADJACENT = 2  # samples at most so many steps of the grid apart follow on one another; beyond is a gap


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnObjects:
    """The objects of one moment, n of them.

    Attributes:
        boxes: float32 [n, 4], xyxy, normalised to the upright frame.
        scores: float16 [n].
        classes: int16 [n], index into the detector's names.
        tracks: int32 [n], -1 where not tracked.
        attention: float32 [n], share of each in what the model made of the frame.
    """

    boxes: Array
    scores: Array
    classes: Array
    tracks: Array
    attention: Array

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, kw_only=True)
class _Sample:
    time_s: float
    longest_s: float  # for which it holds, and at which the next is adjacent
    objects: DrawnObjects


class BoxInterpolator:
    """The objects of a recording at rising times.

    A track's box goes straight from where one sample has it to where the next does, if the two are adjacent; an object
    without a track, or without a next place, stays until the next sample. In a gap nothing is shown.

    Args:
        parts: the stretches of its sequence; no more than two samples are looked at, wherever they lie.
        attention: float32 [M], rows as in the sequence.

    Raises:
        ValueError: on reading on, attention has not one row an object.
    """

    def __init__(self, parts: Iterable[FrameSequence], attention: Array) -> None:
        self._samples = _samples(parts, attention)
        self._now: _Sample | None = None
        self._next = next(self._samples, None)

    def at(self, time_s: float) -> DrawnObjects:
        """The objects at this moment, in seconds; not before that of the last call."""
        while self._next is not None and self._next.time_s <= time_s:
            self._now, self._next = self._next, next(self._samples, None)
        now, after = self._now, self._next
        if now is None or time_s - now.time_s > now.longest_s:
            return _NOTHING
        if after is None or after.time_s - now.time_s > now.longest_s or time_s == now.time_s:
            return now.objects
        return _between(now.objects, after.objects, (time_s - now.time_s) / (after.time_s - now.time_s))


def _samples(parts: Iterable[FrameSequence], attention: Array) -> Iterator[_Sample]:
    done = 0
    for part in parts:
        for t in range(len(part)):
            rows = slice(int(part.offsets[t]), int(part.offsets[t + 1]))
            shares = attention[done + rows.start : done + rows.stop]
            if len(shares) != rows.stop - rows.start:
                raise ValueError(f"attention has {len(attention)} rows, the sequence has more objects")
            seen = {name: getattr(part, name)[rows] for name in ("boxes", "scores", "classes", "tracks")}
            objects = DrawnObjects(**seen, attention=shares)
            yield _Sample(time_s=float(part.time_s[t]), longest_s=_ADJACENT / part.fps, objects=objects)
        done += len(part.boxes)


def _between(now: DrawnObjects, after: DrawnObjects, share: float) -> DrawnObjects:
    """Objects of one sample, `share` of the way to the next."""
    rows = {int(track): row for row, track in enumerate(after.tracks) if track >= 0}
    pairs = [(row, rows[int(track)]) for row, track in enumerate(now.tracks) if int(track) in rows]
    if not pairs:
        return now
    here, there = (list(side) for side in zip(*pairs, strict=True))
    boxes, attention = now.boxes.copy(), now.attention.copy()
    boxes[here] += np.float32(share) * (after.boxes[there] - boxes[here])
    attention[here] += np.float32(share) * (after.attention[there] - attention[here])
    return replace(now, boxes=boxes, attention=attention)


_NOTHING = DrawnObjects(
    boxes=np.zeros((0, 4), np.float32),
    scores=np.zeros(0, np.float16),
    classes=np.zeros(0, np.int16),
    tracks=np.zeros(0, np.int32),
    attention=np.zeros(0, np.float32),
)
