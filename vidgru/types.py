"""What passes between the wings: recordings, sequences, features, annotations, events.

All are frozen dataclasses that check themselves when made. Arrays are NumPy's, so that the cache can map them from
disk and nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

DESCRIBED = "described"  # the label of what is described, where no row of a data set has a label


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A video file to work on.

    Attributes:
        path: where it is.
        name: its path under the source root, with extension and forward slashes: what outputs call it.
    """

    path: Path
    name: str

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith("/") or ".." in Path(self.name).parts:
            raise ValueError(f"Recording.name must be a path under the source root, got {self.name!r}")


def _check_interval(kind: str, start_s: float, end_s: float) -> None:
    if not (math.isfinite(start_s) and math.isfinite(end_s) and 0 <= start_s < end_s):
        raise ValueError(f"{kind} needs 0 <= start_s < end_s, got start_s={start_s}, end_s={end_s}")


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """What a person said about a recording. Without times it speaks of the whole clip.

    Attributes:
        video: path under the videos folder, as the annotation file writes it.
        start_s, end_s: half-open interval in seconds, both or neither.
        label: what happened; None for a text-only row, or for a recording in which nothing happens.
        description: a sentence; None if there is none.
        split: "train", "val", "test" or another name; None if the file does not say.
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
    """What a model says about a recording: an annotation's fields and a score.

    Attributes:
        video: path under the source root.
        start_s, end_s: half-open interval in seconds.
        label: what happened.
        score: 0 to 1.
        description: a sentence; None if the model writes none.
        description_score: 0 to 1, how sure the model is of its sentence; None if it writes none.
        description_source: "model", or "template" where it is not sure enough of its own sentence: `description` is
            then put together from what was found, and the score is that of the sentence that was not told.
        start_time: ISO 8601 wall-clock time of `start_s`, where the recording's own is known.
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


_EXACT = 2**53  # whole numbers beyond it are not told apart as float64
_FAR = 1.5  # from the middle of the picture, in its widths: no normalised box is that far

FRAME_TENSORS = ("time_s", "frame_index", "scene", "scene_motion")
OBJECT_TENSORS = ("boxes", "scores", "classes", "tracks", "motion", "appearance", "colour", "angle", "keypoints")

# name -> (dtype, trailing shape; None stands for a width that the settings choose)
_LAYOUT: dict[str, tuple[str, tuple[int | None, ...]]] = {
    "time_s": ("float64", ()),
    "frame_index": ("int64", ()),
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


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameSequence:
    """Everything seen in one recording, or in a stretch of it: ragged objects per frame, a vector per frame.

    With `T` frames and `M` objects in all; the objects of frame `t` are rows `offsets[t]:offsets[t + 1]`.
    Tensors that may be absent are None.

    Attributes:
        time_s: float64 [T], seconds from the start of the container, strictly increasing.
        frame_index: int64 [T], index of the frame in the source.
        offsets: int64 [T + 1], first object of each frame, from 0 to M.
        boxes: float32 [M, 4], xyxy, normalised to the upright frame, 0 to 1.
        scores: float16 [M].
        classes: int16 [M], index into `names`.
        tracks: int32 [M], -1 where not tracked.
        motion: float16 [M, Q], what moves inside the box, camera motion taken out, per second.
        appearance: float16 [M, A], pooled from the detector's feature pyramid.
        colour: float16 [M, C], CIELAB of the parts of the box, in hundredths.
        angle: float16 [M], radians, of oriented boxes; `boxes` then encloses them.
        keypoints: float16 [M, K, 3], x and y normalised like boxes, and confidence.
        scene: float16 [T, S], what the frame as a whole looks like.
        scene_motion: float16 [T, R], grid of motion, spread, peaks, camera motion.
        fps: samples a second that were asked for (a gap in the source gives fewer).
        size_px: width and height of the upright frame.
        names: the detector's class names.
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
    fps: float
    size_px: tuple[int, int]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        frames, objects = len(self.time_s), len(self.boxes)
        for name, (dtype, tail) in _LAYOUT.items():
            value = getattr(self, name)
            if value is None:
                continue
            rows = frames if name in FRAME_TENSORS else objects
            want = f"{dtype} [{', '.join(str(n) for n in (rows, *('*' if n is None else n for n in tail)))}]"
            fits = value.ndim == 1 + len(tail) and len(value) == rows
            fits = fits and all(n is None or n == have for n, have in zip(tail, value.shape[1:], strict=False))
            if value.dtype != dtype or not fits:
                raise ValueError(f"Sequence.{name} must be {want}, got {value.dtype} {list(value.shape)}")
        if self.offsets.dtype != np.int64 or self.offsets.shape != (frames + 1,):
            raise ValueError(
                f"Sequence.offsets must be int64 [{frames + 1}], got {self.offsets.dtype} {list(self.offsets.shape)}"
            )
        if self.offsets[0] != 0 or self.offsets[-1] != objects or (np.diff(self.offsets) < 0).any():
            raise ValueError(f"Sequence.offsets must rise from 0 to {objects} objects")
        if (np.diff(self.time_s) <= 0).any():
            raise ValueError("Sequence.time_s must be strictly increasing")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"Sequence.fps must be above 0, got {self.fps}")

    def __len__(self) -> int:
        """Number of frames, T."""
        return len(self.time_s)

    def __repr__(self) -> str:
        shapes = [f"{f}={list(v.shape)}" for f in ("boxes", *_OPTIONAL) if (v := getattr(self, f)) is not None]
        end = f"{self.time_s[-1]:.2f} s" if len(self) else "empty"
        return f"Sequence({len(self)} frames at {self.fps:g} fps, last at {end}, {', '.join(shapes)})"

    def tensors(self) -> dict[str, Array]:
        """The tensors that are present, by name, `offsets` among them."""
        names = ("time_s", "frame_index", "offsets", "scene", "scene_motion", *OBJECT_TENSORS)
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def frames(self, start: int, stop: int) -> FrameSequence:
        """Frames `start` to `stop` (indices as in a Python slice, not negative), as views of the same memory."""
        start, stop = min(start, len(self)), min(max(start, stop), len(self))
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        parts: dict[str, Array] = {"offsets": self.offsets[start : stop + 1] - first}
        for name, value in self.tensors().items():
            if name in FRAME_TENSORS:
                parts[name] = value[start:stop]
            elif name in OBJECT_TENSORS:
                parts[name] = value[first:last]
        return FrameSequence(**parts, fps=self.fps, size_px=self.size_px, names=self.names)

    @staticmethod
    def from_detections(
        *,
        frame: ArrayLike,
        boxes: ArrayLike,
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
        normalised: bool = False,
        tick_s: float = 1e-3,
    ) -> FrameSequence:
        """A sequence of what any detector saw, sampled at `fps`; it has no motion, appearance, colour or scene.

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

        Sampled is, for each k, the first frame at k / fps or later; a frame is taken once, and what was seen in the
        frames between is left out. A frame without objects is one in which nothing was there.

        Args:
            frame: int [M], the frame of each object, counted from 0; in any order.
            boxes: [M, 4], xyxy; in pixels, or 0 to 1 where `normalised`. What is outside the picture is cut off, and
                boxes of which nothing is left are left out.
            size_px: width and height of the upright frame.
            names: of the classes.
            fps: samples a second.
            source_fps: frames a second of the source; this, or the next.
            frame_times_s: [S], seconds of every frame of the source, strictly increasing.
            frames: how many the source has, where `source_fps` is given; up to the last object where not told.
            scores: [M], 0 to 1; 1 where not given.
            classes: int [M], index into `names`; 0 where not given.
            tracks: int [M], -1 where not tracked; no object is where not given.
            keypoints: [M, K, 3], x and y like boxes, and confidence.
            normalised: whether boxes and keypoints are.
            tick_s: what `frame_times_s` are multiples of; a frame half a tick early is on time.

        Raises:
            ValueError: what does not fit, and where.
        """
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"names is {names!r}; give a text for each class")
        if len(size_px) != 2 or not all(math.isfinite(side) and side >= 1 for side in size_px):
            raise ValueError(f"size_px is {size_px}; give width and height, at least 1")
        count = len(np.asarray(frame))
        rows = _whole("frame", frame, count)
        corners = _numbers("boxes", boxes, count, (4,))
        points = None if keypoints is None else _numbers("keypoints", keypoints, count, (-1, 3))
        if not normalised:
            size = np.array(size_px, np.float64)
            corners = corners / np.tile(size, 2)
            points = None if points is None else points / np.array([*size, 1.0])
        elif len(wrong := np.flatnonzero((np.abs(corners - 0.5) > _FAR).any(axis=1))):
            raise ValueError(f"boxes[{wrong[0]}] is {corners[wrong[0]].tolist()}; normalised ones are from 0 to 1")
        if len(wrong := np.flatnonzero((corners[:, 2:] < corners[:, :2]).any(axis=1))):
            raise ValueError(
                f"boxes[{wrong[0]}] ends before it begins: {np.asarray(boxes)[wrong[0]].tolist()}; give x1 y1 x2 y2"
            )
        kinds = np.zeros(count, np.int64) if classes is None else _whole("classes", classes, count)
        if len(wrong := np.flatnonzero((kinds < 0) | (kinds >= len(names)))):
            raise ValueError(f"classes[{wrong[0]}] is {kinds[wrong[0]]}, and there are {len(names)} names")
        _fit("classes", kinds, np.int16)
        marks = np.full(count, -1) if tracks is None else _whole("tracks", tracks, count)
        _fit("tracks", marks, np.int32)
        sure = np.ones(count) if scores is None else _numbers("scores", scores, count, ())
        if len(wrong := np.flatnonzero((sure < 0) | (sure > 1))):
            raise ValueError(f"scores[{wrong[0]}] is {sure[wrong[0]]:g}; scores are from 0 to 1")
        time_s, tick = _frame_times(source_fps, frame_times_s, frames, rows, tick_s)
        if len(wrong := np.flatnonzero((rows < 0) | (rows >= len(time_s)))):
            raise ValueError(f"frame[{wrong[0]}] is {rows[wrong[0]]}, and there are {len(time_s)}, counted from 0")
        kept = sample(time_s, fps, tick)
        place = np.full(len(time_s), -1)
        place[kept] = np.arange(len(kept))
        order = np.argsort(place[rows], kind="stable")
        corners = np.clip(corners, 0, 1)
        seen = (corners[:, 2:] > corners[:, :2]).all(axis=1) & (place[rows] >= 0)
        order = order[seen[order]]
        counts = np.bincount(place[rows[order]], minlength=len(kept))
        return FrameSequence(
            time_s=time_s[kept],
            frame_index=kept,
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            boxes=corners[order].astype(np.float32),
            scores=sure[order].astype(np.float16),
            classes=kinds[order].astype(np.int16),
            tracks=marks[order].astype(np.int32),
            keypoints=None if points is None else points[order].astype(np.float16),
            fps=fps,
            size_px=(int(size_px[0]), int(size_px[1])),
            names=tuple(names),
        )

    @staticmethod
    def concatenate(parts: Sequence[FrameSequence]) -> FrameSequence:
        """Join consecutive stretches of one recording. One part is returned as it is, without a copy."""
        if not parts:
            raise ValueError("Sequence.concatenate needs at least one part")
        if len(parts) == 1:
            return parts[0]
        joined: dict[str, Array] = {}
        for name in parts[0].tensors():
            if name != "offsets":
                joined[name] = np.concatenate([getattr(part, name) for part in parts])
        starts = np.cumsum([0] + [len(part.boxes) for part in parts])
        pieces = [part.offsets[1:] + start for part, start in zip(parts, starts[:-1], strict=True)]
        joined["offsets"] = np.concatenate([np.zeros(1, np.int64), *pieces])
        return FrameSequence(**joined, fps=parts[0].fps, size_px=parts[0].size_px, names=parts[0].names)


_OPTIONAL = tuple(f.name for f in fields(FrameSequence) if f.default is None)


def sample(time_s: Array, fps: float, tick_s: float) -> Array:
    """The frames that are sampled: for each k the first at k / fps or later, none twice.

    Args:
        time_s: float64 [S], when each frame comes, strictly increasing.
        fps: samples a second, k / fps apart.
        tick_s: of the clock that tells these times; a frame is on time if it is early by half a tick.

    Returns:
        int64 [T], indices of frames.
    """
    # what is said of whole ticks must not hang on the last bits of their product
    point = np.floor((np.asarray(time_s, np.float64) + tick_s / 2) * fps + 1e-9)
    return np.flatnonzero(np.diff(point, prepend=-1.0) > 0)


def _frame_times(
    source_fps: float | None, frame_times_s: ArrayLike | None, frames: int | None, rows: Array, tick_s: float
) -> tuple[Array, float]:
    """When each frame of a source comes, and the tick of its clock."""
    if (source_fps is None) == (frame_times_s is None):
        raise ValueError("give source_fps, or frame_times_s: one of them")
    if source_fps is not None:
        if not (math.isfinite(source_fps) and source_fps > 0):
            raise ValueError(f"source_fps is {source_fps}; it must be above 0")
        return np.arange(int(rows.max(initial=-1)) + 1 if frames is None else frames) / source_fps, 0.0
    if frames is not None:
        raise ValueError("frames is for source_fps: frame_times_s tells how many there are")
    time_s = np.asarray(frame_times_s, np.float64)
    if time_s.ndim != 1 or not np.isfinite(time_s).all() or (np.diff(time_s) <= 0).any():
        raise ValueError("frame_times_s must be seconds, one a frame, strictly increasing")
    return time_s, tick_s


def _numbers(name: str, value: ArrayLike, count: int, tail: tuple[int, ...]) -> Array:
    """Finite numbers [count, *tail], where -1 is any length."""
    array = np.asarray(value, np.float64)
    if not array.size:  # [] stands for none of whatever shape
        array = array.reshape(len(array), *(n if n > 0 else (array.shape[1] if array.ndim > 1 else 0) for n in tail))
    fits = array.ndim == 1 + len(tail) and all(n in (-1, m) for n, m in zip(tail, array.shape[1:], strict=False))
    if len(array) != count or not fits:
        want = ", ".join("*" if n == -1 else str(n) for n in (count, *tail))
        raise ValueError(f"{name} must be [{want}], one for each of frame, got {list(array.shape)}")
    if len(wrong := np.argwhere(~np.isfinite(array))):
        raise ValueError(f"{name}[{wrong[0][0]}] is not a number")
    return array


def _whole(name: str, value: ArrayLike, count: int) -> Array:
    """Whole numbers [count]."""
    given = np.asarray(value)
    if given.dtype.kind == "i" and given.shape == (count,):  # as float64, large ones would be rounded
        return given.astype(np.int64)
    array = _numbers(name, value, count, ())
    if len(wrong := np.flatnonzero(array != np.round(array))):
        raise ValueError(f"{name}[{wrong[0]}] is {array[wrong[0]]:g}; it must be a whole number")
    if len(wrong := np.flatnonzero(np.abs(array) >= _EXACT)):
        raise ValueError(f"{name}[{wrong[0]}] is {array[wrong[0]]:g}, which is out of range")
    return array.astype(np.int64)


def _fit(name: str, values: Array, dtype: type[np.signedinteger[Any]]) -> None:
    """Raises ValueError where whole numbers are beyond a type."""
    limits = np.iinfo(dtype)
    if len(wrong := np.flatnonzero((values < -1) | (values > limits.max))):
        raise ValueError(f"{name}[{wrong[0]}] is {values[wrong[0]]}; it must be from -1 to {limits.max}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """A sequence as the model takes it: one vector an object and one a frame, ready to be cut into windows.

    Attributes:
        objects: float32 [M, F], rows as in the sequence.
        offsets: int64 [T + 1], first object of each frame.
        frame: float32 [T, G].
        time_s: float64 [T].
    """

    objects: Array
    offsets: Array
    frame: Array
    time_s: Array

    def __post_init__(self) -> None:
        frames = len(self.time_s)
        if self.offsets.shape != (frames + 1,) or self.offsets[-1] != len(self.objects) or len(self.frame) != frames:
            raise ValueError(
                f"Features do not fit: objects {list(self.objects.shape)}, offsets {list(self.offsets.shape)}, "
                f"frame {list(self.frame.shape)}, time_s {list(self.time_s.shape)}"
            )

    def __len__(self) -> int:
        """Number of frames, T."""
        return len(self.time_s)

    def frames(self, start: int, stop: int) -> Features:
        """Frames `start` to `stop` (indices as in a Python slice, not negative), as views of the same memory."""
        start, stop = min(start, len(self)), min(max(start, stop), len(self))
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        return Features(
            objects=self.objects[first:last],
            offsets=self.offsets[start : stop + 1] - first,
            frame=self.frame[start:stop],
            time_s=self.time_s[start:stop],
        )

    @staticmethod
    def concatenate(parts: Sequence[Features]) -> Features:
        """Join consecutive stretches, at least one."""
        counts = np.concatenate([np.diff(part.offsets) for part in parts])
        return Features(
            objects=np.concatenate([part.objects for part in parts]),
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
            frame=np.concatenate([part.frame for part in parts]),
            time_s=np.concatenate([part.time_s for part in parts]),
        )
