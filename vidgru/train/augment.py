"""Clips as they might have been: mirrored, cut, faster or slower, with objects the detector missed."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from vidgru.datasets.windows import Window
from vidgru.model.layout import FeatureLayout, mirror_columns
from vidgru.types import Array

_CROP = 0.7  # shortest part of a clip that is kept
_SPEED = (0.8, 1.25)
_LOST = 0.1  # most objects that are lost
_SIDE = re.compile(r"(?<![a-z])(left|right)(wards?)?(?![a-z])", re.IGNORECASE)
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")  # turnLeft is two words


class Augmenter:
    """Changes clips at random.

    Args:
        layout: of the features.
        labels: clips are not mirrored if one of these names a side.
    """

    def __init__(self, layout: FeatureLayout, labels: Iterable[str]) -> None:
        sided = any(_SIDE.search(_HUMP.sub(" ", label)) for label in labels)
        self.mirror = None if sided else mirror_columns(layout)

    def __call__(self, window: Window, rng: np.random.Generator) -> Window:
        """A changed copy; labels stay. The clip keeps at least one step."""
        window = _take(window, self._steps(len(window), rng), rng.random() * _LOST, rng)
        if self.mirror is not None and rng.random() < 0.5:
            window = mirrored(window, self.mirror)
        return window

    @staticmethod
    def _steps(length: int, rng: np.random.Generator) -> Array:
        """Which steps of the clip are shown: a part of it, at another speed.

        Rates are not changed with the speed: compressed as they are, they would hardly differ.
        """
        kept = max(1, round(length * rng.uniform(_CROP, 1.0)))
        first = int(rng.integers(length - kept + 1))
        steps = np.arange(0.0, kept, rng.uniform(*_SPEED))
        return first + steps.astype(np.int64)


def mirrored(window: Window, columns: tuple[Array, Array, Array, Array]) -> Window:
    """A clip with left and right swapped; twice is as it was.

    Args:
        window: the clip.
        columns: as `mirror_columns` gives them.
    """
    order, sign, frame_order, frame_sign = columns
    return Window(
        objects=window.objects[:, order] * sign,
        offsets=window.offsets,
        frame=window.frame[:, frame_order] * frame_sign,
        mask=window.mask,
        labels=window.labels,
    )


def _take(window: Window, steps: Array, lost: float, rng: np.random.Generator) -> Window:
    """Some steps of a clip, each object missing with probability `lost`."""
    counts = np.diff(window.offsets)[steps]
    ends = np.cumsum(counts)
    rows = np.arange(counts.sum()) + np.repeat(window.offsets[steps] - (ends - counts), counts)
    kept = rng.random(len(rows)) >= lost
    left = np.concatenate([[0], np.cumsum(kept)])[np.concatenate([[0], ends])]
    return Window(
        objects=window.objects[rows[kept]],
        offsets=left,
        frame=window.frame[steps],
        mask=window.mask[steps],
        labels=window.labels,
    )
