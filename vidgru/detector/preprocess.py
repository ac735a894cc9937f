"""Prepare sampled frames for the detector: mask regions and measure motion; and the letterbox.

Recordings and live sources share this step, so that they give the same features.
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
MAX_UNCHANGED_S = 2.0
_CELL_PX, _UNCHANGED = 8, 2  # cells of a picture, and levels of their mean that noise and key frames change
Polygon = Sequence[Sequence[float]]  # corners (x, y), normalised to the upright frame


@dataclass(frozen=True, kw_only=True)
class Letterbox:
    """Placement of an upright frame in the network's input: scaled to the longer side, centred, padded to the stride.

    Attributes:
        input_hw: Height and width of the network's input.
        content_wh: Width and height of the scaled frame in it.
        left, top: Position of the frame's upper left corner.
    """

    input_hw: tuple[int, int]
    content_wh: tuple[int, int]
    left: int
    top: int

    @staticmethod
    def fit(size_px: tuple[int, int], imgsz: int, stride: int) -> Letterbox:
        """Return the letterbox that Ultralytics uses for single images of `size_px` (width, height)."""
        width, height = scaled_size(size_px, imgsz)
        pad_x, pad_y = -width % stride, -height % stride
        return Letterbox(
            input_hw=(height + pad_y, width + pad_x),
            content_wh=(width, height),
            left=round(pad_x / 2 - 0.1),
            top=round(pad_y / 2 - 0.1),
        )

    def place(self, image: Array, canvas: Array) -> None:
        """Copy an image of size `content_wh` into uint8 `canvas` [height, width, 3], with grey around it."""
        canvas[:] = PAD_VALUE
        self.content(canvas)[:] = image

    def content(self, canvas: Array) -> Array:
        """Return the frame in a canvas without its padding, as a view."""
        width, height = self.content_wh
        return canvas[self.top : self.top + height, self.left : self.left + width]


class FramePreprocessor:
    """Prepares the samples of one recording or live source for the detector.

    Args:
        size_px: Width and height of the upright frame.
        imgsz: Longer side of the network's input.
        mask: Polygons to hide.

    Attributes:
        scaled_wh: Width and height of the scaled frame, without padding.
    """

    def __init__(self, size_px: tuple[int, int], imgsz: int, mask: Sequence[Polygon]) -> None:
        self.scaled_wh = scaled_size(size_px, imgsz)
        self._hidden = rasterize_polygons(mask, self.scaled_wh)
        self._meter = FlowMeter()

    def __call__(self, image: Array, time_s: float) -> tuple[Array, Flow | None]:
        """Prepare the next sample.

        Args:
            image: uint8 [height, width, 3], RGB, upright, of size `scaled_wh`.
            time_s: Time of the sample.

        Returns:
            The image with masked regions grey, and the motion since the last sample.
        """
        if self._hidden is not None:
            image = np.where(self._hidden[..., None], np.uint8(PAD_VALUE), image)
        return image, self._meter.step(image, time_s)


class PictureComparer:
    """Finds samples that look like the last one that went to the detector, whose objects they then share."""

    def __init__(self) -> None:
        self._reference: tuple[float, Array] | None = None

    def is_unchanged(self, image: Array, time_s: float) -> bool:
        """Return whether a sample looks like the last one for which this was false, MAX_UNCHANGED_S ago at most.

        Args:
            image: uint8 [height, width, 3], RGB, of the same size in all calls.
            time_s: Time of the sample.
        """
        height, width = image.shape[:2]
        size = max(width // _CELL_PX, 1), max(height // _CELL_PX, 1)
        cells = cv2.resize(
            image, size, interpolation=cv2.INTER_AREA
        )  # colours, too: clothes may be as bright as a wall
        if self._reference is not None:
            reference_s, reference = self._reference
            if time_s - reference_s < MAX_UNCHANGED_S and cv2.absdiff(cells, reference).max() <= _UNCHANGED:
                return True
        self._reference = time_s, cells
        return False


def rasterize_polygons(polygons: Sequence[Polygon], size_px: tuple[int, int]) -> Array | None:
    """Return the pixels inside any of the polygons as bool [height, width]; None without polygons."""
    if not polygons:
        return None
    width, height = size_px
    mask = np.zeros((height, width), np.uint8)
    for polygon in polygons:  # one call per polygon: a single call would leave out what two of them cover
        cv2.fillPoly(mask, [np.round(np.array(polygon) * [width, height]).astype(np.int32)], 1)
    return mask.astype(bool)
