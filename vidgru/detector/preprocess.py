"""Sampled frames made ready: scaled and upright, what is not to be looked at covered, motion measured, letterboxed.

Recordings and live sources go the same way, so that both come to the same features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from vidgru.detector.letterbox import PAD_VALUE, Letterbox, Polygon, masked_pixels
from vidgru.detector.motion import Flow, FlowMeter
from vidgru.types import Array

_SCALING = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class Scaler:
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


class Preparation:
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
        self._hidden = masked_pixels(mask, self.letterbox.content_wh)
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
