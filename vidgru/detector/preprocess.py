"""Sampled frames made ready: scaled and upright, what is not to be looked at covered, motion measured, letterboxed.

Recordings and live sources go the same way, so that both come to the same features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vidgru.detector.motion import Flow, FlowMeter
from vidgru.types import Array
from vidgru.video.scaling import scaled_size

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
        width, height = scaled_size(size_px, imgsz)
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


def rasterize_polygons(polygons: Sequence[Polygon], size_px: tuple[int, int]) -> Array | None:
    """Pixels [height, width] that lie in any of the polygons, as bool; None where there are no polygons."""
    if not polygons:
        return None
    width, height = size_px
    mask = np.zeros((height, width), np.uint8)
    for polygon in polygons:  # one by one: together, what two of them cover would be left out
        cv2.fillPoly(mask, [np.round(np.array(polygon) * [width, height]).astype(np.int32)], 1)
    return mask.astype(bool)


class FramePreprocessor:
    """Makes the samples of one recording, or of a live source, ready for the detector.

    Args:
        size_px: width and height of the upright frame.
        imgsz: longer side of the network's input.
        stride: what the sides of that input are multiples of.
        mask: polygons that are not to be looked at.

    Attributes:
        letterbox: where a frame lies in the network's input.
    """

    def __init__(self, size_px: tuple[int, int], imgsz: int, stride: int, mask: Sequence[Polygon]) -> None:
        self.letterbox = Letterbox.fit(size_px, imgsz, stride)
        self._hidden = rasterize_polygons(mask, self.letterbox.content_wh)
        self._meter = FlowMeter()
        self._canvas = np.empty((*self.letterbox.input_hw, 3), np.uint8)

    def __call__(self, image: Array, time_s: float) -> tuple[Array, Flow | None]:
        """Make the next sample ready.

        Args:
            image: uint8 [height, width, 3] RGB, upright, of the letterbox's content size.
            time_s: its time.

        Returns:
            The network's input, uint8 [H, W, 3], overwritten by the next call; and the motion since the last one.
        """
        if self._hidden is not None:
            image = np.where(self._hidden[..., None], np.uint8(PAD_VALUE), image)
        flow = self._meter.step(image, time_s)
        self.letterbox.place(image, self._canvas)
        return self._canvas, flow
