"""What the readers of all formats return: detections of one recording, and names of classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import yaml

from vidgru.errors import RecordingError, SettingsError
from vidgru.keypoints import check_flip_idx, flip_idx_from_names
from vidgru.storage import user_path
from vidgru.types import Array

CLASS_FILES = ("data.yaml", "classes.txt", "labels.txt")

_MAX_FRAMES = 20_000_000  # a week at 30 per second; a larger number is no frame, and arrays of all frames would not fit
_MAX_EXACT = 2**53  # float64 represents every whole number below it exactly
_MAX_OUTSIDE = 1.0  # picture sizes that a normalised box may lie outside
_MAX_NORMALISED = 2.0  # pixels from the upper left corner; boxes that are all within are from 0 to 1
_BEYOND, _MAX_BEYOND = 0.1, 0.2  # picture sizes that a box ends outside, and the share of such boxes to accept
_MAX_DROPPED = 0.05  # share of boxes entirely outside the picture to accept: trackers predict some
_UNNAMED_CLASSES = 100  # a fixed number, so that a model also fits later detections without names


@dataclass(frozen=True, kw_only=True, eq=False)
class ParsedDetections:
    """M objects of one recording, and what its format specifies; None if it does not.

    Attributes:
        frame: int64 [M], frame of each object, counted from 0.
        boxes: float64 [M, 4], xyxy; 0 to 1 if `normalised`, else in pixels.
        scores: float64 [M], 0 to 1.
        classes: int64 [M].
        tracks: int64 [M], -1 for an untracked object.
        keypoints: float64 [M, K, 3], x and y in the unit of `boxes`, and confidence.
        normalised: Whether boxes and keypoints are.
        num_frames: Number of frames of the recording.
        processed_frames: int64 [S], increasing, frames that the detector processed; None for all of them.
        fps: Frames per second of the recording.
        size_px: Width and height of the upright frame.
    """

    frame: Array
    boxes: Array
    scores: Array
    classes: Array
    tracks: Array | None = None
    keypoints: Array | None = None
    normalised: bool = False
    num_frames: int | None = None
    processed_frames: Array | None = None
    fps: float | None = None
    size_px: tuple[int, int] | None = None

    @staticmethod
    def empty(keypoints: int) -> ParsedDetections:
        """Return the detections of a recording without objects, whose objects would have this many keypoints."""
        integers = np.zeros(0, np.int64)
        return ParsedDetections(
            frame=integers,
            boxes=np.zeros((0, 4)),
            scores=np.zeros(0),
            classes=integers,
            keypoints=np.zeros((0, keypoints, 3)) if keypoints else None,
            normalised=True,
        )

    def __len__(self) -> int:
        """Number of objects, M."""
        return len(self.frame)

    def validate(self, num_classes: int) -> None:
        """Check all values.

        Raises:
            RecordingError: A value is not a number or out of range, or a class is not below `num_classes`.
        """
        processed = np.zeros(0, np.int64) if self.processed_frames is None else self.processed_frames
        last = max(int(self.frame.max(initial=0)), int(processed.max(initial=0)), (self.num_frames or 1) - 1)
        if last >= _MAX_FRAMES:
            raise RecordingError(f"contains frame {last + 1}; at most {_MAX_FRAMES} frames are supported")
        if processed.min(initial=0) < 0:
            raise RecordingError("contains a frame before the first; check whether its frames count from 0 or 1")
        numbers = [self.boxes, self.scores, *([] if self.keypoints is None else [self.keypoints])]
        if not all(np.isfinite(array).all() for array in numbers):
            raise RecordingError("contains a box, score or keypoint that is not a number")
        if not len(self):
            return
        if not 0 <= self.scores.min() <= self.scores.max() <= 1:
            raise RecordingError(
                f"contains scores from {self.scores.min():g} to {self.scores.max():g}; they must be from 0 to 1"
            )
        if self.frame.min() < 0:
            raise RecordingError(
                "contains an object before the first frame; check whether its frames count from 0 or 1"
            )
        if self.processed_frames is not None and len(unprocessed := np.setdiff1d(self.frame, self.processed_frames)):
            raise RecordingError(
                f"contains an object in frame {unprocessed[0] + 1}, which is not among the processed frames"
            )
        if self.normalised and not -_MAX_OUTSIDE <= self.boxes.min() <= self.boxes.max() <= 1 + _MAX_OUTSIDE:
            raise RecordingError("contains boxes far outside the picture; their coordinates must be from 0 to 1")
        if self.num_frames is not None and self.frame.max() >= self.num_frames:
            raise RecordingError(
                f"contains an object in frame {self.frame.max() + 1} of {self.num_frames}; "
                "the detections belong to another recording"
            )
        if not 0 <= self.classes.min() <= self.classes.max() < num_classes:
            class_id = self.classes.max() if self.classes.max() >= num_classes else self.classes.min()
            raise RecordingError(
                f"contains an object of class {class_id}, but only {num_classes} classes have names; "
                "list all of them with --classes"
            )

    def check_units(self, size_px: tuple[int, int]) -> str:
        """Compare boxes and keypoints with the picture.

        Returns:
            A note if many boxes are outside the picture, else an empty text.

        Raises:
            RecordingError: Values in pixels look normalised, or all boxes are outside the picture.
        """
        size = np.array([1, 1] if self.normalised else size_px)
        boxes, picture = self.boxes, f"the picture of {size_px[0]}x{size_px[1]} px"
        if not len(self):
            return ""
        if not self.normalised and np.abs(boxes).max() <= _MAX_NORMALISED:
            raise RecordingError(
                f"contains no coordinate above {boxes.max():.3g}, so its boxes look normalised, and its format has "
                "pixels; multiply them by width and height"
            )
        is_thin = min((boxes[:, 2:] - boxes[:, :2]).max(axis=0)) <= 1  # as around a single keypoint
        if is_thin and not self.normalised and self.keypoints is None:
            raise RecordingError("contains only boxes below one pixel; check the order of its columns")
        if not self.normalised and self.keypoints is not None and 0 < self.keypoints[:, :, :2].max() <= _MAX_NORMALISED:
            raise RecordingError(
                "contains boxes in pixels, but its keypoints look normalised; multiply them by width and height"
            )
        low, high = boxes[:, :2], boxes[:, 2:]
        dropped = ((np.clip(high, 0, size) <= np.clip(low, 0, size)).any(axis=1)).mean()
        beyond = ((high > size * (1 + _BEYOND)) | (low < -size * _BEYOND)).any(axis=1).mean()
        remedy = "check --source-size, and whether the box columns are those of the format"
        if dropped == 1:
            raise RecordingError(f"has all its boxes outside {picture}, or without an area; {remedy}")
        if dropped > _MAX_DROPPED:
            return f"has {dropped:.0%} of its boxes outside {picture}, or without an area, and drops them; {remedy}"
        return f"has {beyond:.0%} of its boxes reaching beyond {picture}; {remedy}" if beyond > _MAX_BEYOND else ""

    def select(self, rows: Array) -> ParsedDetections:
        """Return the objects of these indices, int64 [N]."""
        names = ("frame", "boxes", "scores", "classes", "tracks", "keypoints")
        return replace(self, **{name: value[rows] for name in names if (value := getattr(self, name)) is not None})

    def normalise(self, size_px: tuple[int, int]) -> ParsedDetections:
        """Return boxes clipped to the picture and keypoints, both from 0 to 1, without objects outside the picture."""
        boxes, keypoints = self.boxes, self.keypoints
        if not self.normalised:
            size = np.array(size_px, np.float64)
            boxes = boxes / np.tile(size, 2)
            keypoints = None if keypoints is None else keypoints / np.array([*size, 1.0])
        boxes = np.clip(boxes, 0, 1)
        is_inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        normalised = replace(self, boxes=boxes, keypoints=keypoints, normalised=True)
        return normalised.select(np.flatnonzero(is_inside))


@dataclass(frozen=True, kw_only=True)
class RecordingDetections:
    """The detections of one recording on disk.

    Attributes:
        name: Path under the source, with the suffix of the video if the format has it.
        stamp: Changes when the files with the detections do.
        changed_ns: When the last of those files was modified.
        read: Reads them; raises RecordingError.
    """

    name: str
    stamp: str
    changed_ns: int
    read: Callable[[], ParsedDetections]


def to_integers(values: Array) -> Array:
    """Convert numbers read from text to int64.

    Raises:
        RecordingError: A number is not whole, or beyond what float64 represents exactly.
    """
    if not ((values == np.round(values)) & (np.abs(values) < _MAX_EXACT)).all():
        raise RecordingError("contains a frame, class or id that is not a whole number, or has more than 15 digits")
    return values.astype(np.int64)


def enclosing_boxes(points: Array) -> Array:
    """Return the boxes around points: [M, P, 2] to xyxy, [M, 4]."""
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


def ltwh_to_xyxy(boxes: Array) -> Array:
    """Convert boxes from left, top, width, height to xyxy, [M, 4]."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


# --- class names ------------------------------------------------------------------------------------------------------


def find_class_file(folder: Path) -> dict[str, Any]:
    """Read the `data.yaml`, `classes.txt` or `labels.txt` of a folder, as `read_class_file`; empty if there is none.

    Raises:
        SettingsError: It cannot be read.
    """
    path = next((path for name in CLASS_FILES if (path := folder / name).is_file()), None)
    return {} if path is None else read_class_file(path)


def read_class_file(path: Path) -> dict[str, Any]:
    """Read a dataset YAML of Ultralytics or a text of names.

    Returns:
        `names`, a tuple; of a YAML for poses also `kpt_shape`, and `flip_idx`, which is empty if the sides are unknown.

    Raises:
        SettingsError: It is neither.
    """
    remedy = "pass a YAML with `names`, such as data.yaml, or a text file with one name per line"
    try:
        text = user_path(path).read_text(encoding="utf-8-sig")
        values = yaml.safe_load(text) if path.suffix in (".yaml", ".yml") else {"names": text.split("\n")}
        if not isinstance(values, dict):
            raise ValueError("it is not a mapping")
        content = {name: values[name] for name in ("names", "kpt_shape") if name in values}
        names = content.get("names", ())
        if isinstance(names, dict):
            names = [names.get(number, f"class {number}") for number in range(max(map(int, names)) + 1)]
        content["names"] = tuple(name for name in (normalize("NFC", str(name).strip()) for name in names) if name)
        shape = content.get("kpt_shape")
        if shape is not None and (len(shape) != 2 or int(shape[0]) < 1 or int(shape[1]) not in (2, 3)):
            raise ValueError(f"kpt_shape is {shape}; it must be [keypoints, 2 or 3]")
        if shape is not None:
            keypoints, keypoint_names = int(shape[0]), dict(values.get("kpt_names") or {})
            flip_idx = values.get("flip_idx") or flip_idx_from_names(keypoint_names.values(), keypoints)
            content["flip_idx"] = check_flip_idx(flip_idx, keypoints)
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise SettingsError(f"cannot read class names from {path}: {reason}", remedy) from None
    if not content["names"]:
        raise SettingsError(f"{path} contains no class names", remedy)
    return content


def numbered_class_names(first: int) -> tuple[str, ...]:
    """Return names for classes without names, numbered from `first`."""
    return tuple(f"class {number}" for number in range(first, first + _UNNAMED_CLASSES))
