"""Augmentation of windows: mirror, zoom and shift, crop, speed, dropped objects."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from vidgru.datasets.windows import Window
from vidgru.errors import SettingsError
from vidgru.model.feature_spec import GEOMETRY, FeatureSpec, mirror_columns
from vidgru.types import Array

_CROP = 0.7  # shortest share of a clip to keep
_SPEED = (0.8, 1.25)
_DROPPED = 0.1  # largest share of objects to drop
_ZOOM, _SHIFT = 0.15, 0.1  # largest change of log size, and of position in frame heights
_SCALED, _LOGS, _ACROSS, _DOWN = (
    [GEOMETRY.index(name) for name in names]
    for names in (("-x", "y", "bottom", "width", "height"), ("log_width", "log_height"), ("-x",), ("y", "bottom"))
)
_SIDE = re.compile(r"(?<![a-z])(left|right)(wards?)?(?![a-z])", re.IGNORECASE)
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")  # turnLeft is two words


class Augmenter:
    """Random augmentation of windows.

    Args:
        feature_spec: Spec of the features.
        labels: Labels of the task.
        mirror: Whether to mirror windows; None decides as `why_not_mirrored` does.

    Attributes:
        mirror: Columns to swap when mirroring, as returned by `mirror_columns`; None if windows are not mirrored.
    """

    def __init__(self, feature_spec: FeatureSpec, labels: Iterable[str], mirror: bool | None = None) -> None:
        self.mirror = None if why_not_mirrored(feature_spec, labels, mirror) else mirror_columns(feature_spec)
        self._geometry = feature_spec.object_groups()["geometry"].start

    def __call__(self, window: Window, rng: np.random.Generator) -> Window:
        """Return an augmented copy of at least one step; labels are kept, and targets stay with their steps.

        Windows with timed events or a caption change speed but are not cropped. Those with a caption are not mirrored
        either: the sentence may name a side, in any language.
        """
        keep_whole = window.targets is not None or window.words is not None
        shortest = 1.0 if keep_whole else _CROP
        window = _take(window, _steps(len(window), shortest, rng), rng.random() * _DROPPED, rng)
        if self.mirror is not None and window.words is None and rng.random() < 0.5:
            mirror(window, self.mirror)
        zoom, right, down = (2 * rng.random(3) - 1) * (_ZOOM, _SHIFT, _SHIFT)
        move(window.objects, self._geometry, zoom, right, down)
        return window


def why_not_mirrored(feature_spec: FeatureSpec, labels: Iterable[str], mirror: bool | None) -> str:
    """Return the reason why windows are not mirrored; empty if they are.

    By default they are, unless a label names a side (left, right) or the sides of the keypoints are unknown. Held-out
    recordings may decide against it later (`sides_matter` in `calibrate.py`).

    Args:
        feature_spec: Spec of the features.
        labels: Labels of the task.
        mirror: The setting: None for the default.

    Raises:
        SettingsError: `mirror` is true, but the sides are unknown.
    """
    if mirror is False:
        return "--no-mirror"
    sided = next((label for label in labels if _SIDE.search(_CAMEL_CASE.sub(" ", label))), None)
    if mirror is None and sided is not None:
        return f"the label {sided!r} names a side"
    if mirror_columns(feature_spec) is not None:
        return ""
    if len(feature_spec.flip_idx) == feature_spec.keypoints:
        what, remedy = "motion columns", "extract the recordings again"
    else:
        what, remedy = f"{feature_spec.keypoints} keypoints", "pass --flip-idx, as in the detector's data.yaml"
    if mirror:
        raise SettingsError(f"mirror is True, but left and right of the {what} are unknown", remedy)
    return f"left and right of the {what} are unknown; {remedy}"


def mirror(window: Window, columns: tuple[Array, Array, Array, Array]) -> None:
    """Swap left and right in place; doing it twice restores the window.

    Args:
        window: Window that owns its arrays.
        columns: Orders and signs as returned by `mirror_columns`.
    """
    order, sign, frame_order, frame_sign = columns
    for rows, source, signs in ((window.objects, order, sign), (window.frame, frame_order, frame_sign)):
        swapped = np.flatnonzero(source != np.arange(len(source)))
        rows[:, swapped] = rows[:, source[swapped]]
        rows *= signs


def move(objects: Array, geometry: int, zoom: float, right: float, down: float) -> None:
    """Move and scale objects in place, as if the camera stood a little elsewhere.

    All objects of the window move together. Speeds are unchanged: they are compressed and would hardly differ.

    Args:
        objects: float32 [m, F].
        geometry: First column of the group `GEOMETRY`.
        zoom: Log of the enlargement about the centre of the frame.
        right, down: Shift in frame heights.
    """
    scale = float(np.exp(zoom))
    times, plus = np.ones(len(GEOMETRY), np.float32), np.zeros(len(GEOMETRY), np.float32)
    times[_SCALED] = scale
    plus[_LOGS] = zoom
    plus[_ACROSS] = right
    plus[_DOWN] = 0.5 + down - 0.5 * scale
    columns = objects[:, geometry : geometry + len(GEOMETRY)]
    columns *= times
    columns += plus


def _steps(length: int, shortest: float, rng: np.random.Generator) -> Array:
    """Steps of the window to show: a part of it, at another speed.

    Rates are not rescaled with the speed: they are compressed and would hardly differ.
    """
    kept = max(1, round(length * rng.uniform(shortest, 1.0)))
    first = int(rng.integers(length - kept + 1))
    steps = np.arange(0.0, kept, rng.uniform(*_SPEED))
    return first + steps.astype(np.int64)


def _take(window: Window, steps: Array, dropped: float, rng: np.random.Generator) -> Window:
    """Take steps of a window, dropping each object with probability `dropped`."""
    counts = np.diff(window.offsets)[steps]
    ends = np.cumsum(counts)
    rows = np.arange(counts.sum()) + np.repeat(window.offsets[steps] - (ends - counts), counts)
    kept = rng.random(len(rows)) >= dropped
    return replace(
        window,
        objects=window.objects.take(rows[kept], axis=0),
        offsets=np.concatenate([[0], np.cumsum(kept)])[np.concatenate([[0], ends])],
        frame=window.frame.take(steps, axis=0),
        mask=window.mask[steps],
        targets=None if window.targets is None else window.targets[steps],
        weights=None if window.weights is None else window.weights[steps],
    )
