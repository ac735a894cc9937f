"""Who takes part in the demo's street scenes: people, cars and bags, each with a path through time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vidgru.demo.draw import COLOURS, SIZE_PX

_WIDTH = SIZE_PX[0]
OUT_PX = 28.0  # people start and end this far outside the picture, so that what they carry is out of sight too
_ALWAYS = (-math.inf, math.inf)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Pose:
    """An actor at one time: middle of its lower edge in pixels, crouch 0 to 1, face -1 or 1, stride as part of size."""

    x: float
    y: float
    crouch: float
    face: int
    stride: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Actor:
    """Someone or something in a scene.

    Attributes:
        what: one of `CLASSES`.
        colour: of coat, body or bag, a key of `COLOURS`.
        size_px: height when upright.
        path: float64 [K, 4], rows of time_s, x_px, y_px, crouch; straight between rows, still before and after.
        seen_s: half-open interval in which it exists.
        depth_px: where it stands on the ground; what is nearer has more, and is drawn later.
        face: -1 or 1, where it looks while it stands still.
        style: picks hair, trousers, shape and the like.
    """

    what: str
    colour: str
    size_px: float
    path: NDArray[np.float64]
    seen_s: tuple[float, float] = _ALWAYS
    depth_px: float
    face: int
    style: int

    def later(self, seconds: float) -> Actor:
        """The same actor, so many seconds later."""
        seen_s = (self.seen_s[0] + seconds, self.seen_s[1] + seconds)
        return replace(self, path=self.path + np.array([seconds, 0, 0, 0]), seen_s=seen_s)

    def backwards(self, length_s: float) -> Actor:
        """The same actor in a film of that length played backwards, except that people still walk face first."""
        seen_s = (length_s - self.seen_s[1], length_s - self.seen_s[0])
        return replace(self, path=self.path[::-1] * [-1, 1, 1, 1] + [length_s, 0, 0, 0], seen_s=seen_s)

    def pose(self, time_s: float) -> Pose:
        """Where it is at a time."""
        times = self.path[:, 0]
        x, y, crouch = (float(np.interp(time_s, times, self.path[:, k])) for k in (1, 2, 3))
        row = int(np.searchsorted(times, time_s, side="right"))
        speed = float(np.divide(*(self.path[row] - self.path[row - 1])[[1, 0]])) if 0 < row < len(times) else 0.0
        if abs(speed) < 1:
            return Pose(x, y, crouch, self.face, 0.05)
        # Legs follow the ground covered: one double step is 0.8 of the height at a walk, more at a run.
        phase = 2 * math.pi * x / (self.size_px * (0.5 + abs(speed) / 300))
        return Pose(x, y, crouch, 1 if speed > 0 else -1, min(0.12 + abs(speed) / 1600, 0.28) * math.sin(phase))

    def box(self, pose: Pose) -> tuple[float, float, float, float]:
        """Its extent in pixels, xyxy, with the parts outside the picture."""
        half = {"person": max(0.18, abs(pose.stride) + 0.07), "car": 1.29, "bag": 0.58}[self.what] * self.size_px
        return pose.x - half, pose.y - self.size_px * (1 - 0.28 * pose.crouch), pose.x + half, pose.y


def pick(rng: np.random.Generator, choices: Sequence[_T]) -> _T:
    """One of the choices, by lot."""
    return choices[int(rng.integers(len(choices)))]


def colours(rng: np.random.Generator, count: int) -> list[str]:
    """So many different names of colours."""
    return [str(name) for name in rng.permutation(list(COLOURS))[:count]]


def _actor(
    rng: np.random.Generator, what: str, colour: str, path: Sequence[Sequence[float]], depth_px: float, size_px: float
) -> Actor:
    rows = np.array(path, np.float64)
    seen_s = (float(rows[0, 0]), float(rows[-1, 0])) if len(rows) > 1 else _ALWAYS
    face, style = pick(rng, (-1, 1)), int(rng.integers(1 << 30))
    return Actor(
        what=what, colour=colour, size_px=size_px, path=rows, seen_s=seen_s, depth_px=depth_px, face=face, style=style
    )


def new_person(
    rng: np.random.Generator, colour: str, path: Sequence[tuple[float, float, float]], y: float = 0
) -> Actor:
    """Someone with rows of time_s, x_px, crouch; at `y` on the pavement, or anywhere on it."""
    y = y or rng.uniform(110, 140)
    size = (43 + 0.5 * (y - 110)) * rng.uniform(0.96, 1.1)
    return _actor(rng, "person", colour, [(time, x, y, crouch) for time, x, crouch in path], y, size)


def new_walker(rng: np.random.Generator, colour: str, way: int, speed: float = 0, y: float = 0) -> Actor:
    """Someone who crosses the picture from time 0 on."""
    length_s = (_WIDTH + 2 * OUT_PX) / (speed or rng.uniform(90, 135))
    return new_person(rng, colour, [(0, start_px(way), 0), (length_s, start_px(-way), 0)], y)


def start_px(way: int, out: float = OUT_PX) -> float:
    """Where something that is to go left (-1) or right (1) waits outside the picture."""
    return -out if way > 0 else _WIDTH + out


def new_car(rng: np.random.Generator, colour: str, path: Sequence[tuple[float, float]], y: float = 0) -> Actor:
    """A car with rows of time_s, x_px; on the road, or parked at `y`."""
    y = y or rng.uniform(166, 184)
    return _actor(rng, "car", colour, [(time, x, y, 0) for time, x in path], y, rng.uniform(33, 41))


def new_passing_car(rng: np.random.Generator, colour: str, way: int) -> Actor:
    """A car that drives through the picture from time 0 on."""
    length_s = (_WIDTH + 120) / rng.uniform(220, 330)
    return new_car(rng, colour, [(0, start_px(way, 60)), (length_s, start_px(-way, 60))])


def new_bag(rng: np.random.Generator, colour: str, path: Sequence[Sequence[float]], depth_px: float) -> Actor:
    """A bag with rows of time_s, x_px, y_px, 0."""
    return _actor(rng, "bag", colour, path, depth_px, rng.uniform(14, 19))
