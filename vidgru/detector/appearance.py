"""The colour of objects: CIELAB of the upper, middle and lower third of each box, from the pixels the detector saw.

A detector learns to find a thing whatever its colour, so its feature pyramid says little of it: of drawn people, cars
and bags in six colours, a small network told 0.48 from appearance and 0.99 from these values. Of a person the thirds
are roughly head, body and legs. Only the inner half of a box's width counts, as the background is at its sides.
"""

from __future__ import annotations

import numpy as np

from vidgru.types import Array

BANDS = ("upper", "middle", "lower")
COLOUR_COLUMNS = tuple(f"{band}_{part}" for band in BANDS for part in ("lightness", "green_red", "blue_yellow"))

_INNER = 0.5  # of a box's width
_POINTS = (8, 8)  # rows and columns of points that stand for a band: the time does not grow with the box

# From sRGB to linear light, and from that to CIE XYZ as shares of the white point D65: IEC 61966-2-1.
_CODES = np.arange(256) / 255
_LINEAR = np.where(_CODES <= 0.04045, _CODES / 12.92, ((_CODES + 0.055) / 1.055) ** 2.4)
_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_TO_XYZ /= _TO_XYZ.sum(1, keepdims=True)  # white is 1, 1, 1, so that greys have no colour


def object_colour(image: Array, boxes: Array) -> Array:
    """The mean colour of each third of each box: float16 [M, len(COLOUR_COLUMNS)], CIELAB in hundredths.

    Lightness is 0 for black and 1 for white; green to red and blue to yellow are 0 for grey and within about 1.
    Light is averaged, not its codes, as if the thirds were seen from afar.

    Args:
        image: uint8 [height, width, 3] RGB, the frame without padding.
        boxes: float32 [M, 4], xyxy, normalised to it, 0 to 1.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = boxes.astype(np.float64).T[..., None]
    rows = len(BANDS) * _POINTS[0]
    across = (1 - _INNER) / 2 + _INNER * (np.arange(_POINTS[1]) + 0.5) / _POINTS[1]
    down = (np.arange(rows) + 0.5) / rows
    x = np.minimum((left + (right - left) * across) * width, width - 1).astype(np.int64)
    y = np.minimum((top + (bottom - top) * down) * height, height - 1).astype(np.int64)
    light = _LINEAR[image[y[:, :, None], x[:, None, :]]]  # [M, rows, columns, 3]
    bands = light.reshape(len(boxes), len(BANDS), _POINTS[0] * _POINTS[1], 3).mean(2)
    return _lab(bands).reshape(len(boxes), len(COLOUR_COLUMNS)).astype(np.float16)


def _lab(light: Array) -> Array:
    """Linear RGB [..., 3] as CIELAB in hundredths (ISO/CIE 11664-4)."""
    xyz = light @ _TO_XYZ.T
    dark = xyz * (29 / 6) ** 2 / 3 + 4 / 29
    x, y, z = np.moveaxis(np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), dark), -1, 0)
    lab: Array = np.stack([1.16 * y - 0.16, 5 * (x - y), 2 * (y - z)], -1)
    return lab
