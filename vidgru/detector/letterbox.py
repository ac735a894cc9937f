"""Where a frame lies in the network's input, and what of it is not to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vidgru.types import Array

PAD_VALUE = 114  # the grey that Ultralytics pads with
Polygon = Sequence[Sequence[float]]  # corners x, y, normalised to the upright frame


@dataclass(frozen=True, kw_only=True)
class Letterbox:
    """Where an upright frame lies in the network's input: scaled to the longer side, centred, padded to the stride.

    Attributes:
        input_hw: height and width of the network's input.
        content_wh: width and height of the scaled frame in it.
        left, top: where it begins.
    """

    input_hw: tuple[int, int]
    content_wh: tuple[int, int]
    left: int
    top: int

    @staticmethod
    def fit(size_px: tuple[int, int], imgsz: int, stride: int) -> Letterbox:
        """The letterbox that Ultralytics uses for single images of `size_px` (width, height)."""
        gain = imgsz / max(size_px)
        width, height = (max(round(side * gain), 1) for side in size_px)
        pad_x, pad_y = -width % stride, -height % stride
        return Letterbox(
            input_hw=(height + pad_y, width + pad_x),
            content_wh=(width, height),
            left=round(pad_x / 2 - 0.1),
            top=round(pad_y / 2 - 0.1),
        )

    def place(self, image: Array, canvas: Array) -> None:
        """Copy an image of the content's size into uint8 `canvas` [height, width, 3], and grey around it."""
        canvas[:] = PAD_VALUE
        self.content(canvas)[:] = image

    def content(self, canvas: Array) -> Array:
        """The frame in a canvas, without what is around it; a view."""
        width, height = self.content_wh
        return canvas[self.top : self.top + height, self.left : self.left + width]


def masked_pixels(polygons: Sequence[Polygon], size_px: tuple[int, int]) -> Array | None:
    """Pixels [height, width] that lie in any of the polygons, as bool; None where there are no polygons."""
    if not polygons:
        return None
    width, height = size_px
    mask = np.zeros((height, width), np.uint8)
    for polygon in polygons:  # one by one: together, what two of them cover would be left out
        cv2.fillPoly(mask, [np.round(np.array(polygon) * [width, height]).astype(np.int32)], 1)
    return mask.astype(bool)
