"""Scale decoded frames to the same bytes on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from vidgru.types import Array

_SCALING = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


def scaled_size(size_px: tuple[int, int], longer_side_px: int) -> tuple[int, int]:
    """Scale a size (width, height) so that its longer side is `longer_side_px`; no side falls below 1."""
    gain = longer_side_px / max(size_px)
    width, height = (max(round(side * gain), 1) for side in size_px)
    return width, height


class FrameScaler:
    """Scales decoded frames of one size, to the same bytes on every machine.

    Args:
        size_px: width and height of the upright image that is wanted.
        rotation: degrees the stored frame is turned clockwise to stand upright.
    """

    def __init__(self, size_px: tuple[int, int], rotation: int) -> None:
        self._turns = -rotation // 90
        self._size_px = size_px if self._turns % 2 == 0 else size_px[::-1]
        self._scaler = VideoReformatter()

    def scale(self, frame: Any) -> Array:
        """A decoded frame (PyAV's) as uint8 [height, width, 3] RGB, as it is stored."""
        width, height = self._size_px
        small = self._scaler.reformat(
            frame, width, height, "rgb24", interpolation=_SCALING, dst_color_range=ColorRange.JPEG, threads=1
        )
        image: Array = small.to_ndarray()
        return image

    def upright(self, image: Array) -> Array:
        """A scaled frame as it is to be looked at; a view."""
        return np.rot90(image, self._turns) if self._turns else image
