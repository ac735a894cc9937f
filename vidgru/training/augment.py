"""Windows as they might have been: mirrored, seen from elsewhere, cut, faster or slower, with objects missed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from vidgru.datasets.windows import Window
from vidgru.model.feature_spec import GEOMETRY, FeatureSpec, mirror_columns
from vidgru.types import Array

_CROP = 0.7  # shortest part of a clip that is kept
_SPEED = (0.8, 1.25)
_LOST = 0.1  # most objects that are lost
_ZOOM, _SHIFT = 0.15, 0.1  # jitter of the picture: most that log size and place (in frame heights) change
_SCALED, _LOGS, _ACROSS, _DOWN = (
    [GEOMETRY.index(name) for name in names]
    for names in (("-x", "y", "bottom", "width", "height"), ("log_width", "log_height"), ("-x",), ("y", "bottom"))
)
_SIDE = re.compile(r"(?<![a-z])(left|right)(wards?)?(?![a-z])", re.IGNORECASE)
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")  # turnLeft is two words


class Augmenter:
    """Changes windows at random.

    Args:
        feature_spec: of the features.
        labels: windows are not mirrored if one of these names a side.
    """

    def __init__(self, feature_spec: FeatureSpec, labels: Iterable[str]) -> None:
        sided = any(_SIDE.search(_HUMP.sub(" ", label)) for label in labels)
        self.mirror = None if sided else mirror_columns(feature_spec)
        self._geometry = feature_spec.object_groups()["geometry"].start

    def __call__(self, window: Window, rng: np.random.Generator) -> Window:
        """A changed copy that keeps at least one step; labels stay, and targets stay with their steps.

        A window of timed events, or one with a sentence, is not cut, but played faster or slower as clips are. One with
        a sentence is not mirrored either: it may name a side, in whatever language.
        """
        whole = window.targets is not None or window.words is not None
        shortest = 1.0 if whole else _CROP
        window = _take(window, _steps(len(window), shortest, rng), rng.random() * _LOST, rng)
        if self.mirror is not None and window.words is None and rng.random() < 0.5:
            mirror(window, self.mirror)
        zoom, right, down = (2 * rng.random(3) - 1) * (_ZOOM, _SHIFT, _SHIFT)
        move(window.objects, self._geometry, zoom, right, down)
        return window


def mirror(window: Window, columns: tuple[Array, Array, Array, Array]) -> None:
    """Swap left and right, in place; twice is as it was.

    Args:
        window: with arrays of its own.
        columns: as `mirror_columns` gives them.
    """
    order, sign, frame_order, frame_sign = columns
    for rows, source, signs in ((window.objects, order, sign), (window.frame, frame_order, frame_sign)):
        swapped = np.flatnonzero(source != np.arange(len(source)))
        rows[:, swapped] = rows[:, source[swapped]]
        rows *= signs


def move(objects: Array, geometry: int, zoom: float, right: float, down: float) -> None:
    """Change objects in place to what a camera would see that stands a little elsewhere.

    All objects of the window move alike. Speeds are compressed, and stay as they are.

    Args:
        objects: float32 [m, F].
        geometry: first of the columns `GEOMETRY`.
        zoom: log of the enlargement, about the middle of the frame.
        right, down: in frame heights.
    """
    scale = float(np.exp(zoom))
    times, plus = np.ones(len(GEOMETRY), np.float32), np.zeros(len(GEOMETRY), np.float32)
    times[_SCALED] = scale
    plus[_LOGS] = zoom
    plus[_ACROSS] = right
    plus[_DOWN] = 0.5 + down - 0.5 * scale
    own = objects[:, geometry : geometry + len(GEOMETRY)]
    own *= times
    own += plus


def _steps(length: int, shortest: float, rng: np.random.Generator) -> Array:
    """Which steps of the window are shown: a part of it, at another speed.

    Rates are not changed with the speed: compressed as they are, they would hardly differ.
    """
    kept = max(1, round(length * rng.uniform(shortest, 1.0)))
    first = int(rng.integers(length - kept + 1))
    steps = np.arange(0.0, kept, rng.uniform(*_SPEED))
    return first + steps.astype(np.int64)


def _take(window: Window, steps: Array, lost: float, rng: np.random.Generator) -> Window:
    """Some steps of a window, each object missing with probability `lost`."""
    counts = np.diff(window.offsets)[steps]
    ends = np.cumsum(counts)
    rows = np.arange(counts.sum()) + np.repeat(window.offsets[steps] - (ends - counts), counts)
    kept = rng.random(len(rows)) >= lost
    return replace(
        window,
        objects=window.objects.take(rows[kept], axis=0),
        offsets=np.concatenate([[0], np.cumsum(kept)])[np.concatenate([[0], ends])],
        frame=window.frame.take(steps, axis=0),
        mask=window.mask[steps],
        targets=None if window.targets is None else window.targets[steps],
        weights=None if window.weights is None else window.weights[steps],
    )
