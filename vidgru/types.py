"""What passes between the wings: recordings, sequences, annotations, events.

All are frozen dataclasses that check themselves when made. Arrays are NumPy's, so that the cache can map them from
disk and nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Many
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

DESCRIBED = "described"  # the label of what is described, where no row of a data set has a label

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequence:
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

    def frames(self, start: int, stop: int) -> Sequence:
        """Frames `start` to `stop` (indices as in a Python slice, not negative), as views of the same memory."""
        start, stop = min(start, len(self)), min(max(start, stop), len(self))
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        parts: dict[str, Array] = {"offsets": self.offsets[start : stop + 1] - first}
        for name, value in self.tensors().items():
            if name in FRAME_TENSORS:
                parts[name] = value[start:stop]
            elif name in OBJECT_TENSORS:
                parts[name] = value[first:last]
        return Sequence(**parts, fps=self.fps, size_px=self.size_px, names=self.names)

    @staticmethod
    def concatenate(parts: Many[Sequence]) -> Sequence:
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
        return Sequence(**joined, fps=parts[0].fps, size_px=parts[0].size_px, names=parts[0].names)


_OPTIONAL = tuple(f.name for f in fields(Sequence) if f.default is None)


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
    def concatenate(parts: Many[Features]) -> Features:
        """Join consecutive stretches, at least one."""
        counts = np.concatenate([np.diff(part.offsets) for part in parts])
        return Features(
            objects=np.concatenate([part.objects for part in parts]),
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
            frame=np.concatenate([part.frame for part in parts]),
            time_s=np.concatenate([part.time_s for part in parts]),
        )
