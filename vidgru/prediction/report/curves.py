"""Scores and gates over time, thinned so that a page stays small and no peak is lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidgru.types import Array

MOST_POINTS = 4000


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """Several curves over the same `n` stretches of time, in steps of 1/255.

    Attributes:
        time_ms: uint32 [n], the middle of each stretch.
        low, high: uint8 [C, n], the least and the greatest value in it; the same array where each stretch is a frame.
    """

    time_ms: Array
    low: Array
    high: Array

    @property
    def thinned(self) -> bool:
        """Whether a stretch may hold several frames."""
        return self.low is not self.high


def stretches(frames: int, near: Array, most_points: int = MOST_POINTS) -> Array:
    """First frames of the stretches that a recording is cut into: int64 [n], rising from 0.

    A curve has two points a stretch, its least and its greatest value, or one where every frame is a stretch. Three
    quarters of the stretches at least lie where people look closely, so that there they are short.

    Args:
        frames: T.
        near: bool [T], frames that people look at closely: those of events.
        most_points: of a curve.
    """
    if frames <= most_points:
        return np.arange(frames)
    total, close = most_points // 2, int(near.sum())
    share = min(close, max(total * 3 // 4, total * close // frames))
    weight = np.where(near, share / max(close, 1), (total - share) / max(frames - close, 1))
    number = np.floor(np.cumsum(np.minimum(weight, 1.0)) - 1e-6).astype(np.int64)
    return np.flatnonzero(np.diff(number, prepend=-1))


def thin(time_s: Array, values: Array, starts: Array) -> Curves:
    """The least and the greatest value of each curve in each stretch.

    Args:
        time_s: float64 [T].
        values: float32 [T, C], 0 to 1.
        starts: int64 [n], as `stretches` gives them.
    """
    ends = np.append(starts, len(time_s))[1:] - 1
    middle = np.round((time_s[starts] + time_s[ends]) * 500).astype(np.uint32)
    if len(starts) == len(time_s):
        exact = _bytes(values)
        return Curves(time_ms=middle, low=exact, high=exact)
    low, high = (reduce.reduceat(values, starts, axis=0) for reduce in (np.minimum, np.maximum))
    return Curves(time_ms=middle, low=_bytes(low), high=_bytes(high))


def _bytes(values: Array) -> Array:
    return np.ascontiguousarray(np.round(np.clip(values, 0, 1) * 255).astype(np.uint8).T)
