"""What a detector saw in one recording, as it was read, whatever the format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vidgru.errors import RecordingError
from vidgru.types import Array

_MOST_FRAMES = 20_000_000  # a week at 30 a second: beyond it a number is no frame, and memory for all of them is gone
_EXACT = 2**53  # whole numbers beyond it are not told apart as float64
_FAR = 1.0  # widths of the picture that a normalised box may be outside it


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """M objects of one recording, and what the format tells of it; what it does not is None.

    Attributes:
        frame: int64 [M], the frame of each, counted from 0.
        boxes: float64 [M, 4], xyxy; 0 to 1 where `normalised`, else in pixels.
        scores: float64 [M], 0 to 1.
        classes: int64 [M].
        tracks: int64 [M], -1 where not tracked.
        keypoints: float64 [M, K, 3], x and y like boxes, and confidence.
        normalised: whether boxes and keypoints are.
        frames: how many the recording has.
        looked_at: int64 [S], the frames that the detector looked at, rising; all of them where None.
        fps: frames a second of the recording.
        size_px: width and height of the upright frame.
    """

    frame: Array
    boxes: Array
    scores: Array
    classes: Array
    tracks: Array | None = None
    keypoints: Array | None = None
    normalised: bool = False
    frames: int | None = None
    looked_at: Array | None = None
    fps: float | None = None
    size_px: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Number of objects, M."""
        return len(self.frame)

    def checked(self, classes: int) -> Seen:
        """Itself, if all of it can be.

        Raises:
            RecordingError: numbers that are none, or out of their range; a class beyond `classes`.
        """
        looked_at = np.zeros(0, np.int64) if self.looked_at is None else self.looked_at
        last = max(int(self.frame.max(initial=0)), int(looked_at.max(initial=0)), (self.frames or 1) - 1)
        if last >= _MOST_FRAMES:
            raise RecordingError(f"speaks of frame {last + 1}; there may be up to {_MOST_FRAMES}")
        if looked_at.min(initial=0) < 0:
            raise RecordingError("holds a frame before the first; check what its frames are counted from")
        numbers = [self.boxes, self.scores, *([] if self.keypoints is None else [self.keypoints])]
        if not all(np.isfinite(each).all() for each in numbers):
            raise RecordingError("holds a box, score or keypoint that is not a number")
        if len(self) and not 0 <= self.scores.min() <= self.scores.max() <= 1:
            raise RecordingError(
                f"holds scores from {self.scores.min():g} to {self.scores.max():g}; they must be from 0 to 1"
            )
        if len(self) and not self.frame.min() >= 0:
            raise RecordingError("holds an object before the first frame; check what its frames are counted from")
        if self.looked_at is not None and len(wrong := np.setdiff1d(self.frame, self.looked_at)):
            raise RecordingError(f"holds an object in frame {wrong[0] + 1}, which is not among those looked at")
        if self.normalised and len(self) and not -_FAR <= self.boxes.min() <= self.boxes.max() <= 1 + _FAR:
            raise RecordingError("holds boxes far outside the picture; their coordinates must be from 0 to 1")
        if self.frames is not None and len(self) and self.frame.max() >= self.frames:
            raise RecordingError(
                f"holds an object in frame {self.frame.max() + 1} of {self.frames}; it is of another recording"
            )
        if len(self) and not 0 <= self.classes.min() <= self.classes.max() < classes:
            wrong = self.classes.max() if self.classes.max() >= classes else self.classes.min()
            raise RecordingError(
                f"holds an object of class {wrong}, and there are names for {classes}; give all of them with --classes"
            )
        return self


@dataclass(frozen=True, kw_only=True)
class Source:
    """One recording among detections.

    Attributes:
        name: its path under what was given, with the suffix of the video where the detections tell it.
        stamp: changes when the files do in which its detections are.
        changed_ns: when the last of those files was changed.
        read: reads them. Raises RecordingError.
    """

    name: str
    stamp: str
    changed_ns: int
    read: Callable[[], Seen]


def whole(values: Array) -> Array:
    """Numbers of a text as int64.

    Raises:
        RecordingError: one is not whole, or beyond what float64 holds exactly.
    """
    if not ((values == np.round(values)) & (np.abs(values) < _EXACT)).all():
        raise RecordingError("holds a frame, class or id that is not a whole number, or one of more than 15 digits")
    return values.astype(np.int64)


def enclosing(points: Array) -> Array:
    """The boxes around points: [M, P, 2] to xyxy, [M, 4]."""
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


def from_corner(boxes: Array) -> Array:
    """Boxes given as left, top, width, height as xyxy, [M, 4]."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def nothing(keypoints: int) -> Seen:
    """What is seen where nothing is."""
    none = np.zeros(0, np.int64)
    points = np.zeros((0, keypoints, 3)) if keypoints else None
    return Seen(frame=none, boxes=np.zeros((0, 4)), scores=np.zeros(0), classes=none, keypoints=points, normalised=True)
