"""Data that packages exchange: recordings, frame sequences, features, annotations, events.

All are frozen dataclasses that validate themselves on construction. Arrays are NumPy's, so that the cache can map them
from disk and importing this module does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidgru.keypoints import check_flip_idx

Array = NDArray[Any]
Span = tuple[int, int | None]  # part of a recording in seconds, half-open; an end of None is the recording's

DESCRIBED = "described"  # label of described events in a dataset that has no labels
TEMPLATE_FIELDS = ("label", "objects", "start", "end")  # that captions' templates may hold, in braces

_MAX_EXACT = 2**53  # float64 represents every whole number below it exactly
_MAX_OFFSET = 1.5  # picture sizes from the centre: a normalised box beyond it is in pixels or corrupt

FRAME_TENSORS = ("time_s", "frame_index", "still", "scene", "scene_motion")
OBJECT_TENSORS = ("boxes", "scores", "classes", "tracks", "motion", "appearance", "colour", "angle", "keypoints")

# Name -> dtype and trailing shape; None is a width that the settings choose.
_TENSOR_SPECS: dict[str, tuple[str, tuple[int | None, ...]]] = {
    "time_s": ("float64", ()),
    "frame_index": ("int64", ()),
    "still": ("bool", ()),
    "scene": ("float16", (None,)),
    "scene_motion": ("float16", (None,)),
    "boxes": ("float32", (4,)),
    "scores": ("float16", ()),
    "classes": ("int16", ()),
    "tracks": ("int32", ()),
    "motion": ("float16", (None,)),
    "appearance": ("float16", (None,)),
    "colour": ("float16", (None,)),
    "angle": ("float16", ()),
    "keypoints": ("float16", (None, 3)),
}


def format_span(span: Span) -> str:
    """Format a span: `0:05:00-0:12:00`."""
    start, end = (None if seconds is None else str(timedelta(seconds=seconds)) for seconds in span)
    return f"{start}-{end or 'the end'}"


def covered_seconds(span: Span | None, duration_s: float) -> float:
    """Return how many seconds of a recording of this length a span covers; None covers all of it."""
    start, end = span or (0, None)
    return max((duration_s if end is None else min(end, duration_s)) - start, 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """A video file to process.

    Attributes:
        path: Location of the file.
        name: Path under the source root, with extension and forward slashes; outputs use it.
        span: The part to read; None reads all of it.
    """

    path: Path
    name: str
    span: Span | None = None

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith("/") or ".." in Path(self.name).parts:
            raise ValueError(f"Recording.name must be a path under the source root, got {self.name!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """A person's label or description of a recording. Without times it applies to the whole clip.

    Attributes:
        video: Path under the videos folder, as written in the annotation file.
        start_s, end_s: Half-open interval in seconds; both or neither.
        label: What happens; None for a row with text only, or for an event-free recording.
        description: A sentence, or None.
        split: "train", "val", "test" or another name; None if the file does not specify one.
    """

    video: str
    start_s: float | None = None
    end_s: float | None = None
    label: str | None = None
    description: str | None = None
    split: str | None = None

    def __post_init__(self) -> None:
        if (self.start_s is None) != (self.end_s is None):
            raise ValueError(f"Annotation needs both start_s and end_s or neither, got {self.start_s}, {self.end_s}")
        if self.start_s is not None and self.end_s is not None:
            _check_interval("Annotation", self.start_s, self.end_s)


@dataclass(frozen=True, kw_only=True)
class Event:
    """A predicted event: the fields of an annotation and a score.

    Attributes:
        video: Path under the source root.
        start_s, end_s: Half-open interval in seconds.
        label: What happens.
        score: Score of the label, 0 to 1.
        description: A sentence; None if the model writes none.
        description_score: Confidence in the model's own sentence, 0 to 1; None if the model writes none.
        description_source: "model", or "template" if the confidence is too low: `description` is then composed from
            the detected objects, and the score remains that of the rejected sentence.
        start_time: ISO 8601 wall-clock time of `start_s`, if the start time of the recording is known.
    """

    video: str
    start_s: float
    end_s: float
    label: str
    score: float
    description: str | None = None
    description_score: float | None = None
    description_source: Literal["model", "template"] | None = None
    start_time: str | None = None

    def __post_init__(self) -> None:
        _check_interval("Event", self.start_s, self.end_s)
        if not 0 <= self.score <= 1:
            raise ValueError(f"Event.score must be within 0 and 1, got {self.score}")
        if self.description_score is not None and not 0 <= self.description_score <= 1:
            raise ValueError(f"Event.description_score must be within 0 and 1, got {self.description_score}")


def _check_interval(kind: str, start_s: float, end_s: float) -> None:
    if not (math.isfinite(start_s) and math.isfinite(end_s) and 0 <= start_s < end_s):
        raise ValueError(f"{kind} needs 0 <= start_s < end_s, got start_s={start_s}, end_s={end_s}")


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameSequence:
    """Detections of one recording, or of a segment of it: ragged objects per frame, and one vector per frame.

    `T` is the number of frames and `M` the number of objects in all frames; the objects of frame `t` are the rows
    `offsets[t]:offsets[t + 1]`. Tensors that are absent are None.

    Attributes:
        time_s: float64 [T], seconds from the start of the container, strictly increasing.
        frame_index: int64 [T], index of the frame in the source.
        offsets: int64 [T + 1], first object of each frame, from 0 to M.
        boxes: float32 [M, 4], xyxy, normalised to the upright frame, 0 to 1.
        scores: float16 [M].
        classes: int16 [M], index into `names`.
        tracks: int32 [M], track id, or -1 for an untracked object.
        motion: float16 [M, Q], motion inside the box per second, camera motion removed.
        appearance: float16 [M, A], pooled from the detector's feature pyramid.
        colour: float16 [M, C], CIELAB of the parts of the box, in hundredths.
        angle: float16 [M], radians, of oriented boxes; `boxes` then encloses them.
        keypoints: float16 [M, K, 3], x and y normalised like boxes, and confidence.
        scene: float16 [T, S], appearance of the whole frame.
        scene_motion: float16 [T, R], grid of motion, spread, peaks, camera motion.
        still: bool [T], frames in still stretches of the recording, which were not decoded: objects and scene repeat
            those of the frame before, and all motion is zero. Absent unless extraction was adaptive.
        fps: Requested samples per second (a gap in the source gives fewer).
        size_px: Width and height of the upright frame.
        names: Class names of the detector.
        flip_idx: Left-right partner of each keypoint, as in a `data.yaml` of Ultralytics; empty if unknown.
    """

    time_s: Array
    frame_index: Array
    offsets: Array
    boxes: Array
    scores: Array
    classes: Array
    tracks: Array
    motion: Array | None = None
    appearance: Array | None = None
    colour: Array | None = None
    angle: Array | None = None
    keypoints: Array | None = None
    scene: Array | None = None
    scene_motion: Array | None = None
    still: Array | None = None
    fps: float
    size_px: tuple[int, int]
    names: tuple[str, ...]
    flip_idx: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        frames, objects = len(self.time_s), len(self.boxes)
        for name, (dtype, tail) in _TENSOR_SPECS.items():
            value = getattr(self, name)
            if value is None:
                continue
            rows = frames if name in FRAME_TENSORS else objects
            fits = value.ndim == 1 + len(tail) and len(value) == rows
            fits = fits and all(n is None or n == size for n, size in zip(tail, value.shape[1:], strict=False))
            if value.dtype != dtype or not fits:
                shape = ", ".join(str(n) for n in (rows, *("*" if n is None else n for n in tail)))
                raise ValueError(
                    f"FrameSequence.{name} must be {dtype} [{shape}], got {value.dtype} {list(value.shape)}"
                )
        if self.offsets.dtype != np.int64 or self.offsets.shape != (frames + 1,):
            raise ValueError(
                f"FrameSequence.offsets must be int64 [{frames + 1}], "
                f"got {self.offsets.dtype} {list(self.offsets.shape)}"
            )
        if self.offsets[0] != 0 or self.offsets[-1] != objects or (np.diff(self.offsets) < 0).any():
            raise ValueError(f"FrameSequence.offsets must rise from 0 to {objects} objects")
        if (np.diff(self.time_s) <= 0).any():
            raise ValueError("FrameSequence.time_s must be strictly increasing")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"FrameSequence.fps must be above 0, got {self.fps}")
        check_flip_idx(self.flip_idx, 0 if self.keypoints is None else self.keypoints.shape[1])

    def __len__(self) -> int:
        """Number of frames, T."""
        return len(self.time_s)

    def __repr__(self) -> str:
        optional = (field.name for field in fields(self) if field.default is None)
        shapes = [f"{name}={list(v.shape)}" for name in ("boxes", *optional) if (v := getattr(self, name)) is not None]
        end = f"{self.time_s[-1]:.2f} s" if len(self) else "empty"
        return f"FrameSequence({len(self)} frames at {self.fps:g} fps, last at {end}, {', '.join(shapes)})"

    def tensors(self) -> dict[str, Array]:
        """Return the tensors that are present, by name, including `offsets`."""
        names = ("time_s", "frame_index", "still", "offsets", "scene", "scene_motion", *OBJECT_TENSORS)
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def find_fault(self) -> str | None:
        """Describe the first number that no detector gives; None if there is none. Construction checks shapes only."""
        for name, values in self.tensors().items():
            if values.dtype == np.float16:  # by its exponent bits: isfinite converts every number first, and is slow
                is_finite = not ((np.ascontiguousarray(values).view(np.uint16) & 0x7C00) == 0x7C00).any()
            else:
                is_finite = bool(np.isfinite(values).all())
            if not is_finite:
                return f"{name} holds numbers that are not finite"
        if len(self.boxes) and np.abs(self.boxes - 0.5).max() > _MAX_OFFSET:
            return "boxes are not normalised to the frame"
        if len(self.classes) and not 0 <= self.classes.min() <= self.classes.max() < len(self.names):
            return f"classes are not all of the {len(self.names)} names"
        return None

    def frames(self, start: int, stop: int) -> FrameSequence:
        """Return frames `start` to `stop` as views of the same memory; indices as in a slice, not negative."""
        start, stop = min(start, len(self)), min(max(start, stop), len(self))
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        views: dict[str, Array] = {"offsets": self.offsets[start : stop + 1] - first}
        for name, value in self.tensors().items():
            if name in FRAME_TENSORS:
                views[name] = value[start:stop]
            elif name in OBJECT_TENSORS:
                views[name] = value[first:last]
        return FrameSequence(**views, fps=self.fps, size_px=self.size_px, names=self.names, flip_idx=self.flip_idx)

    @staticmethod
    def concatenate(parts: Sequence[FrameSequence]) -> FrameSequence:
        """Join consecutive parts of one recording. A single part is returned without a copy."""
        if not parts:
            raise ValueError("FrameSequence.concatenate needs at least one part")
        if len(parts) == 1:
            return parts[0]
        joined = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in parts[0].tensors()
            if name != "offsets"
        }
        joined["offsets"] = _join_offsets([part.offsets for part in parts])
        first = parts[0]
        return FrameSequence(**joined, fps=first.fps, size_px=first.size_px, names=first.names, flip_idx=first.flip_idx)

    @staticmethod
    def from_detections(
        *,
        frame: ArrayLike,
        boxes: ArrayLike | None = None,
        size_px: tuple[int, int],
        names: Sequence[str],
        fps: float,
        source_fps: float | None = None,
        frame_times_s: ArrayLike | None = None,
        frames: int | None = None,
        scores: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        tracks: ArrayLike | None = None,
        keypoints: ArrayLike | None = None,
        flip_idx: Sequence[int] = (),
        normalised: bool = False,
        tick_s: float = 1e-3,
    ) -> FrameSequence:
        """Build a sequence from any detector's output, sampled at `fps`, without motion, appearance, colour or scene.

        >>> from vidgru.types import FrameSequence
        >>> sequence = FrameSequence.from_detections(
        ...     frame=[0, 0, 1, 3],  # two objects in the first frame, none in the third
        ...     boxes=[[10, 20, 50, 90], [60, 30, 90, 80], [12, 20, 52, 90], [16, 20, 56, 90]],
        ...     classes=[0, 1, 0, 0],
        ...     scores=[0.9, 0.6, 0.9, 0.8],
        ...     tracks=[1, 2, 1, 1],
        ...     size_px=(100, 100),
        ...     names=["person", "dog"],
        ...     source_fps=10,
        ...     frames=5,
        ...     fps=5,
        ... )
        >>> sequence.time_s.tolist(), sequence.frame_index.tolist(), sequence.offsets.tolist()
        ([0.0, 0.2, 0.4], [0, 2, 4], [0, 2, 2, 2])

        For each k the first frame at k / fps or later is sampled, each frame at most once; objects in the frames
        between are dropped. A frame without objects is an empty frame, not a missing one.

        Args:
            frame: int [M], frame of each object, counted from 0, in any order.
            boxes: [M, 4], xyxy in pixels, or 0 to 1 if `normalised`. Boxes are clipped to the picture, and dropped
                if nothing remains. None, with keypoints: the boxes around the keypoints that were seen.
            size_px: Width and height of the upright frame.
            names: Class names.
            fps: Samples per second.
            source_fps: Frames per second of the source. Give either this or `frame_times_s`.
            frame_times_s: [S], time in seconds of every frame of the source, strictly increasing.
            frames: Number of frames of the source, with `source_fps`; defaults to the last frame with an object.
            scores: [M], 0 to 1; defaults to 1.
            classes: int [M], index into `names`; defaults to 0.
            tracks: int [M], -1 for an untracked object, or strings, which are numbered; defaults to -1.
            keypoints: [M, K, 3], x and y in the unit of `boxes`, and confidence; or [M, K, 2]. NaN is a keypoint that
                was not seen, which gets confidence 0.
            flip_idx: Left-right partner of each keypoint, or itself, such as [0, 2, 1] for nose, left eye, right eye.
                Training mirrors keypoints only if it is known; 17 keypoints without it are taken for COCO's.
            normalised: Whether boxes and keypoints are.
            tick_s: Resolution of `frame_times_s` in seconds; a frame up to half a tick early is on time.

        Raises:
            ValueError: An argument does not fit; the message gives its name, row and value.
        """
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"names is {names!r}; give one string per class")
        if len(size_px) != 2 or not all(math.isfinite(side) and side >= 1 for side in size_px):
            raise ValueError(f"size_px is {size_px}; give width and height, at least 1")
        count = len(np.asarray(frame))
        frame_of = _integers("frame", frame, count)
        points = None if keypoints is None else _keypoints(keypoints, count)
        if boxes is None and points is None:
            raise ValueError("boxes and keypoints are missing; give one of them")
        given = _boxes_around(points) if boxes is None and points is not None else boxes
        xyxy = _numbers("boxes", [] if given is None else given, count, (4,))
        if not normalised:
            if count and 0 < np.abs(xyxy).max() <= 1 < min(size_px):
                raise ValueError("boxes are all within one pixel; if they are from 0 to 1, pass normalised=True")
            size = np.array(size_px, np.float64)
            xyxy = xyxy / np.tile(size, 2)
            points = None if points is None else points / np.array([*size, 1.0])
        elif len(bad := np.flatnonzero((np.abs(xyxy - 0.5) > _MAX_OFFSET).any(axis=1))):
            raise ValueError(f"boxes[{bad[0]}] is {xyxy[bad[0]].tolist()}; normalised boxes are from 0 to 1")
        if len(bad := np.flatnonzero((xyxy[:, 2:] < xyxy[:, :2]).any(axis=1))):
            raise ValueError(
                f"boxes[{bad[0]}] ends before it begins: {np.asarray(given)[bad[0]].tolist()}; give x1 y1 x2 y2"
            )
        class_ids = np.zeros(count, np.int64) if classes is None else _integers("classes", classes, count)
        if len(bad := np.flatnonzero((class_ids < 0) | (class_ids >= len(names)))):
            raise ValueError(f"classes[{bad[0]}] is {class_ids[bad[0]]}, but there are {len(names)} names")
        _check_range("classes", class_ids, np.int16)
        track_ids = np.full(count, -1) if tracks is None else _integers("tracks", _number_texts(tracks), count)
        _check_range("tracks", track_ids, np.int32)
        confidence = np.ones(count) if scores is None else _numbers("scores", scores, count, ())
        if len(bad := np.flatnonzero((confidence < 0) | (confidence > 1))):
            raise ValueError(f"scores[{bad[0]}] is {confidence[bad[0]]:g}; scores are from 0 to 1")
        time_s, tick_s = _frame_times(source_fps, frame_times_s, frames, frame_of, tick_s)
        if len(bad := np.flatnonzero((frame_of < 0) | (frame_of >= len(time_s)))):
            raise ValueError(f"frame[{bad[0]}] is {frame_of[bad[0]]}, but there are {len(time_s)}, counted from 0")

        # Grid point k / fps is reached by the frame whose floor(time * fps) rises to k. The small addend keeps a
        # time that is a whole number of ticks from falling below its grid point by rounding.
        grid = np.floor((time_s + tick_s / 2) * fps + 1e-9)
        sampled = np.flatnonzero(np.diff(grid, prepend=-1.0) > 0)
        sample_of_frame = np.full(len(time_s), -1)
        sample_of_frame[sampled] = np.arange(len(sampled))

        xyxy = np.clip(xyxy, 0, 1)
        sample_of = sample_of_frame[frame_of]
        keep = (xyxy[:, 2:] > xyxy[:, :2]).all(axis=1) & (sample_of >= 0)
        order = np.argsort(sample_of, kind="stable")
        order = order[keep[order]]
        counts = np.bincount(sample_of[order], minlength=len(sampled))
        return FrameSequence(
            time_s=time_s[sampled],
            frame_index=sampled,
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            boxes=xyxy[order].astype(np.float32),
            scores=confidence[order].astype(np.float16),
            classes=class_ids[order].astype(np.int16),
            tracks=track_ids[order].astype(np.int32),
            keypoints=None if points is None else points[order].astype(np.float16),
            fps=fps,
            size_px=(int(size_px[0]), int(size_px[1])),
            names=tuple(names),
            flip_idx=check_flip_idx(flip_idx, 0 if points is None else points.shape[1]),
        )


def _frame_times(
    source_fps: float | None, frame_times_s: ArrayLike | None, frames: int | None, frame_of: Array, tick_s: float
) -> tuple[Array, float]:
    """Return the time of each frame of a source, and the resolution of these times in seconds."""
    if (source_fps is None) == (frame_times_s is None):
        raise ValueError("give either source_fps or frame_times_s")
    if source_fps is not None:
        if not (math.isfinite(source_fps) and source_fps > 0):
            raise ValueError(f"source_fps is {source_fps}; it must be above 0")
        return np.arange(int(frame_of.max(initial=-1)) + 1 if frames is None else frames) / source_fps, 0.0
    if frames is not None:
        raise ValueError("frames is for source_fps: the length of frame_times_s is the number of frames")
    time_s = np.asarray(frame_times_s, np.float64)
    if time_s.ndim != 1 or not np.isfinite(time_s).all() or (np.diff(time_s) <= 0).any():
        raise ValueError("frame_times_s must be seconds, one per frame, strictly increasing")
    return time_s, tick_s


def _numbers(name: str, value: ArrayLike, count: int, tail: tuple[int, ...]) -> Array:
    """Return finite float64 [count, *tail], where -1 is any length."""
    array = np.asarray(value, np.float64)
    if not array.size:  # [] is an empty array of any shape
        array = array.reshape(len(array), *(n if n > 0 else (array.shape[1] if array.ndim > 1 else 0) for n in tail))
    fits = array.ndim == 1 + len(tail) and all(n in (-1, m) for n, m in zip(tail, array.shape[1:], strict=False))
    if len(array) != count or not fits:
        shape = ", ".join("*" if n == -1 else str(n) for n in (count, *tail))
        raise ValueError(f"{name} must be [{shape}], one row per entry of frame, got {list(array.shape)}")
    if len(bad := np.argwhere(~np.isfinite(array))):
        raise ValueError(f"{name}[{bad[0][0]}] is not a number")
    return array


def _keypoints(value: ArrayLike, count: int) -> Array:
    """Return float64 [count, K, 3] of keypoints with or without confidence; those with NaN become 0, 0, 0."""
    array = np.array(value, np.float64)
    if array.ndim == 3 and array.shape[2] == 2:
        array = np.concatenate([array, np.ones((*array.shape[:2], 1))], axis=2)
    array[np.isnan(array).any(axis=-1)] = 0
    return _numbers("keypoints", array, count, (-1, 3))


def _boxes_around(points: Array) -> Array:
    """Return the boxes around the keypoints with confidence above 0, float64 [M, 4]; empty boxes if there are none."""
    seen = points[:, :, 2:] > 0
    low = np.where(seen, points[:, :, :2], np.inf).min(axis=1, initial=np.inf)
    high = np.where(seen, points[:, :, :2], -np.inf).max(axis=1, initial=-np.inf)
    boxes: Array = np.where(np.isfinite(np.concatenate([low, high], axis=1)), np.concatenate([low, high], axis=1), 0.0)
    return boxes


def _number_texts(values: ArrayLike) -> ArrayLike:
    """Return numbers for texts, -1 for an empty one; anything else as it is."""
    array = np.asarray(values)
    if array.dtype.kind not in "UO" or not all(isinstance(value, str | None) for value in array.ravel().tolist()):
        return values
    texts = np.array(["" if value is None else str(value) for value in array.ravel().tolist()])
    is_tracked = texts != ""
    numbers = np.full(len(texts), -1)
    numbers[is_tracked] = np.unique(texts[is_tracked], return_inverse=True)[1]
    return numbers


def _integers(name: str, value: ArrayLike, count: int) -> Array:
    """Return int64 [count]."""
    array = np.asarray(value)
    if array.dtype.kind == "i" and array.shape == (count,):  # float64 would round large integers
        return array.astype(np.int64)
    array = _numbers(name, value, count, ())
    if len(bad := np.flatnonzero(array != np.round(array))):
        raise ValueError(f"{name}[{bad[0]}] is {array[bad[0]]:g}; it must be a whole number")
    if len(bad := np.flatnonzero(np.abs(array) >= _MAX_EXACT)):
        raise ValueError(f"{name}[{bad[0]}] is {array[bad[0]]:g}, which is out of range")
    return array.astype(np.int64)


def _check_range(name: str, values: Array, dtype: type[np.signedinteger[Any]]) -> None:
    """Raise ValueError if a value is below -1 or too large for `dtype`."""
    largest = np.iinfo(dtype).max
    if len(bad := np.flatnonzero((values < -1) | (values > largest))):
        raise ValueError(f"{name}[{bad[0]}] is {values[bad[0]]}; it must be from -1 to {largest}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Model input of one recording: one vector per object and one per frame, ready to be cut into windows.

    Attributes:
        objects: float32 [M, F], rows as in the frame sequence.
        offsets: int64 [T + 1], first object of each frame.
        frame: float32 [T, G].
        time_s: float64 [T].
        tracks: int32 [M], track of each object, -1 for untracked ones; by default all are.
    """

    objects: Array
    offsets: Array
    frame: Array
    time_s: Array
    tracks: Array = None  # type: ignore[assignment]  # set below, as its length is that of `objects`

    def __post_init__(self) -> None:
        if self.tracks is None:
            object.__setattr__(self, "tracks", np.full(len(self.objects), -1, np.int32))
        frames = len(self.time_s)
        objects = len(self.objects)
        fits = self.offsets.shape == (frames + 1,) and self.offsets[-1] == objects and len(self.frame) == frames
        if not fits or len(self.tracks) != objects:
            raise ValueError(
                f"Features do not fit: objects {list(self.objects.shape)}, offsets {list(self.offsets.shape)}, "
                f"frame {list(self.frame.shape)}, time_s {list(self.time_s.shape)}, tracks {list(self.tracks.shape)}"
            )

    def __len__(self) -> int:
        """Number of frames, T."""
        return len(self.time_s)

    def frames(self, start: int, stop: int) -> Features:
        """Return frames `start` to `stop` as views of the same memory; indices as in a slice, not negative."""
        start, stop = min(start, len(self)), min(max(start, stop), len(self))
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        return Features(
            objects=self.objects[first:last],
            offsets=self.offsets[start : stop + 1] - first,
            frame=self.frame[start:stop],
            time_s=self.time_s[start:stop],
            tracks=self.tracks[first:last],
        )

    @staticmethod
    def concatenate(parts: Sequence[Features]) -> Features:
        """Join one or more consecutive parts."""
        return Features(
            objects=np.concatenate([part.objects for part in parts]),
            offsets=_join_offsets([part.offsets for part in parts]),
            frame=np.concatenate([part.frame for part in parts]),
            time_s=np.concatenate([part.time_s for part in parts]),
            tracks=np.concatenate([part.tracks for part in parts]),
        )


def _join_offsets(parts: Sequence[Array]) -> Array:
    """Join the offsets of consecutive parts, each of which starts at 0, int64 [T + 1]."""
    counts = np.concatenate([np.diff(offsets) for offsets in parts])
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
