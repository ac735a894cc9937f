"""Scale decoded frames for the detector, to the same bytes on every machine."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from vidgru.types import Array

# Without the last two flags swscale rounds differently with the SIMD instructions of each CPU.
_INTERPOLATION = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


def scaled_size(size_px: tuple[int, int], longer_side_px: int) -> tuple[int, int]:
    """Return the size (width, height) with the longer side scaled to `longer_side_px`; no side is below 1."""
    gain = longer_side_px / max(size_px)
    width, height = (max(round(side * gain), 1) for side in size_px)
    return width, height


class FrameScaler:
    """Scale decoded frames of one size and make them upright.

    Args:
        size_px: Width and height of the upright image.
        rotation: Degrees to turn the stored frame clockwise to make it upright.
        pixels: What `scale` returns: RGB, or luma only.
    """

    def __init__(self, size_px: tuple[int, int], rotation: int, pixels: Literal["rgb24", "gray"] = "rgb24") -> None:
        self._quarter_turns = -rotation // 90
        self._stored_size_px = size_px if self._quarter_turns % 2 == 0 else size_px[::-1]
        self._pixels = pixels
        self._reformatter = VideoReformatter()

    def scale(self, frame: Any) -> Array:
        """Return a decoded frame (PyAV's) as uint8 [height, width, 3] or [height, width], as it is stored."""
        width, height = self._stored_size_px
        scaled = self._reformatter.reformat(
            frame, width, height, self._pixels, interpolation=_INTERPOLATION, dst_color_range=ColorRange.JPEG, threads=1
        )
        image: Array = scaled.to_ndarray()
        return image

    def upright(self, image: Array) -> Array:
        """Return a scaled frame turned upright, as a view."""
        return np.rot90(image, self._quarter_turns) if self._quarter_turns else image
