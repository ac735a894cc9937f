"""Measure motion: dense optical flow between consecutive samples, pooled inside boxes and over the frame.

A detector sees single frames, but events are changes. The flow is DIS (Kroeger et al. 2016, "Fast Optical Flow using
Dense Inverse Search", as in OpenCV) at low resolution, measured from the current sample back to the previous one, so
that it is aligned with the current boxes. The camera's motion (the median flow of the frame) is subtracted, distances
are divided by the time between the samples and by the box's size, and compressed: `sign(x) * log(1 + gain * |x|)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from vidgru.types import Array

LONGER_SIDE_PX = 192
MAX_STEP_S = 2.0  # samples farther apart are not compared
GRID = (3, 4)  # rows and columns of cells in the frame

_BANDS = ("upper", "middle", "lower")
MOTION_COLUMNS = (
    "flow_x",  # mean flow, box sizes per second, right and down positive
    "flow_y",
    "speed",  # mean length of the flow
    "spread",  # standard deviation of the flow within the box: limbs that move against the body
    "widening",  # flow_x of the right half minus that of the left half
    "heightening",  # flow_y of the lower third minus that of the upper third
    "rolling",  # flow_y of the right half minus that of the left half
    "leaning",  # flow_x of the lower third minus that of the upper third
    "sided",  # speed of the right half minus that of the left half
    *(f"{band}_{part}" for band in _BANDS for part in ("x", "y", "speed")),
    "difference",  # mean absolute change of grey as a share of white, not per second
    *(f"{band}_difference" for band in _BANDS),
)
SCENE_MOTION_COLUMNS = (
    *(f"speed_{row}_{column}" for row in range(GRID[0]) for column in range(GRID[1])),  # frame sides per second
    "speed",
    "spread",  # standard deviation of the speed over the frame
    "peak",  # its 99th percentile
    "moving",  # share of the frame that moves
    "difference",  # mean absolute change of grey as a share of white
    "difference_peak",
    "camera_x",  # the camera's apparent motion: median flow
    "camera_y",
)

# In a frame mirrored left to right, column j is MIRROR_SIGN[j] times the original column MIRROR_COLUMN[j].
MOTION_MIRROR_SIGN = tuple(
    -1.0 if name.endswith("_x") or name in ("rolling", "leaning", "sided") else 1.0 for name in MOTION_COLUMNS
)
MOTION_MIRROR_COLUMN = tuple(range(len(MOTION_COLUMNS)))
SCENE_MOTION_MIRROR_SIGN = tuple(-1.0 if name == "camera_x" else 1.0 for name in SCENE_MOTION_COLUMNS)
SCENE_MOTION_MIRROR_COLUMN = tuple(
    row * GRID[1] + GRID[1] - 1 - column for row in range(GRID[0]) for column in range(GRID[1])
) + tuple(range(GRID[0] * GRID[1], len(SCENE_MOTION_COLUMNS)))

_BOX_GAIN, _FRAME_GAIN, _GREY_GAIN = 4.0, 20.0, 20.0
_MOVING = 0.02  # frame sides per second


@dataclass(frozen=True, kw_only=True, eq=False)
class Flow:
    """Motion of a sample since the previous one.

    Attributes:
        rate: float32 [h, w, 2], x and y in pixels per second, camera motion subtracted.
        camera: x and y of the camera's apparent motion in pixels per second.
        grey_change: uint8 [h, w], absolute change of grey.
    """

    rate: Array
    camera: tuple[float, float]
    grey_change: Array

    @cached_property
    def speed(self) -> Array:
        """Length of the flow, float32 [h, w]."""
        x, y = self.rate[..., 0], self.rate[..., 1]
        speed: Array = np.sqrt(x * x + y * y)  # the last bit of cv2.magnitude depends on memory alignment
        return speed

    @cached_property
    def difference(self) -> Array:
        """Absolute change of grey as a share of white, float32 [h, w]."""
        difference: Array = self.grey_change.astype(np.float32) / 255
        return difference


class FlowMeter:
    """Measures the motion of each sample of one recording since the previous one."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        # The presets skip the finest scales, which suits large images. At this size their flow predicts the next
        # sample worse than no flow: on a street at 5 samples per second, warped images differ by 3.5 grey levels from
        # the actual ones, unwarped images by 2.8, and with these settings by 1.6 (1.4 without the stride).
        self._dis.setFinestScale(0)
        self._dis.setPatchStride(5)
        self._grey: Array | None = None
        self._time_s = 0.0

    def step(self, image: Array, time_s: float) -> Flow | None:
        """Measure the flow since the previous call.

        Args:
            image: uint8 [height, width, 3], RGB, of the same size in all calls.
            time_s: Time of the sample.

        Returns:
            None for the first sample, and after a pause of more than MAX_STEP_S.
        """
        if cv2.getNumThreads() != 1:
            cv2.setNumThreads(1)  # the flow of DIS depends on the number of threads
        gain = LONGER_SIDE_PX / max(image.shape[:2])
        height, width = (max(round(side * gain), 16) for side in image.shape[:2])
        grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (width, height), interpolation=cv2.INTER_AREA)
        previous, self._grey = self._grey, grey
        step_s, self._time_s = time_s - self._time_s, time_s
        if previous is None or step_s > MAX_STEP_S:
            return None
        flow = np.zeros((height, width, 2), np.float32)
        rate = self._dis.calc(grey, previous, flow) * np.float32(-1 / step_s)
        camera = np.median(rate[::2, ::2].reshape(-1, 2), axis=0)
        rate -= camera
        return Flow(rate=rate, camera=(float(camera[0]), float(camera[1])), grey_change=cv2.absdiff(grey, previous))


def object_motion(flow: Flow | None, boxes: Array) -> Array:
    """Return the motion inside boxes: float16 [M, len(MOTION_COLUMNS)], zeros without flow.

    Args:
        flow: Flow of the frame.
        boxes: float32 [M, 4], xyxy, normalised.
    """
    if flow is None or not len(boxes):
        return np.zeros((len(boxes), len(MOTION_COLUMNS)), np.float16)
    height, width = flow.difference.shape
    planes = np.dstack([flow.rate, flow.speed, flow.speed**2, flow.difference])
    left, top, right, bottom = (boxes.astype(np.float64) * [width, height, width, height]).T
    right, bottom = np.maximum(right, left + 1e-3), np.maximum(bottom, top + 1e-3)
    rows = top[:, None] + (bottom - top)[:, None] * np.linspace(0, 1, 4)
    columns = left[:, None] + (right - left)[:, None] * np.linspace(0, 1, 3)
    sums = _integrate(planes, rows, columns)  # [M, 3, 2, planes]
    sums /= ((bottom - top) * (right - left) / 6)[:, None, None, None]  # means over the six equal cells of a box
    size = np.sqrt((bottom - top) * (right - left))[:, None, None, None]
    sums[..., :3] /= size
    sums[..., 3:4] /= size**2
    band, side, whole = sums.mean(2), sums.mean(1), sums.mean((1, 2))
    x, y, speed, energy, difference = whole.T
    motion = np.empty((len(boxes), len(MOTION_COLUMNS)))
    motion[:, 0], motion[:, 1], motion[:, 2] = x, y, speed
    motion[:, 3] = np.sqrt(np.maximum(energy - x * x - y * y, 0))
    motion[:, 4] = side[:, 1, 0] - side[:, 0, 0]
    motion[:, 5] = band[:, 2, 1] - band[:, 0, 1]
    motion[:, 6] = side[:, 1, 1] - side[:, 0, 1]
    motion[:, 7] = band[:, 2, 0] - band[:, 0, 0]
    motion[:, 8] = side[:, 1, 2] - side[:, 0, 2]
    motion[:, 9:18] = band[:, :, :3].reshape(-1, 9)
    motion[:, 18], motion[:, 19:] = difference, band[:, :, 4]
    motion[:, :18] = _compress(motion[:, :18], _BOX_GAIN)
    motion[:, 18:] = _compress(motion[:, 18:], _GREY_GAIN)
    return motion.astype(np.float16)


def scene_motion(flow: Flow | None) -> Array:
    """Return the motion of the frame: float16 [len(SCENE_MOTION_COLUMNS)], zeros without flow."""
    if flow is None:
        return np.zeros(len(SCENE_MOTION_COLUMNS), np.float16)
    side = max(flow.difference.shape)
    speed = flow.speed / side
    cells = cv2.resize(speed, GRID[::-1], interpolation=cv2.INTER_AREA).ravel()
    rates = [*cells, speed.mean(), speed.std(), _peak(speed)]
    greys = [float(flow.difference.mean()), _peak(flow.difference)]
    camera = [part / side for part in flow.camera]
    motion = [
        *_compress(np.array(rates, np.float64), _FRAME_GAIN),
        float((speed > _MOVING).mean()),
        *_compress(np.array(greys), _GREY_GAIN),
        *_compress(np.array(camera), _FRAME_GAIN),
    ]
    return np.array(motion, np.float16)


def _integrate(planes: Array, rows: Array, columns: Array) -> Array:
    """Sum `planes` [h, w, P] over grids with fractional edges: rows [M, R + 1], columns [M, C + 1] -> [M, R, C, P].

    Interpolates the summed-area table, which is exact if each pixel is a square of constant value.
    """
    height, width = planes.shape[:2]
    table = cv2.integral(planes, sdepth=cv2.CV_64F)
    y, x = rows.clip(0, height), columns.clip(0, width)
    y0, x0 = np.minimum(y.astype(np.int64), height - 1), np.minimum(x.astype(np.int64), width - 1)
    fy, fx = (y - y0)[:, :, None, None], (x - x0)[:, None, :, None]
    y0, x0 = y0[:, :, None], x0[:, None, :]
    upper = table[y0, x0] * (1 - fx) + table[y0, x0 + 1] * fx
    lower = table[y0 + 1, x0] * (1 - fx) + table[y0 + 1, x0 + 1] * fx
    corners = upper * (1 - fy) + lower * fy
    sums: Array = np.diff(np.diff(corners, axis=1), axis=2)
    return sums


def _peak(values: Array) -> float:
    """Return the 99th percentile of every fourth value."""
    flat = values[::2, ::2].ravel()
    rank = len(flat) - 1 - len(flat) // 100
    return float(np.partition(flat, rank)[rank])


def _compress(values: Array, gain: float) -> Array:
    compressed: Array = np.sign(values) * np.log1p(gain * np.abs(values))
    return compressed
