"""From what was seen in the frames of a recording to its sequence."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from vidgru.cache.entry import canonical_json
from vidgru.detector.tracker import Tracker
from vidgru.extraction.import_detections.parsed import Seen
from vidgru.extraction.import_detections.timing import Frames
from vidgru.types import Array, FrameSequence

_LARGEST_ID = np.iinfo(np.int32).max


def normalised(seen: Seen, size_px: tuple[int, int]) -> Seen:
    """With boxes and keypoints from 0 to 1; boxes that are wholly outside the picture are left out."""
    boxes, keypoints = seen.boxes, seen.keypoints
    if not seen.normalised:
        size = np.array(size_px, np.float64)
        boxes = boxes / np.tile(size, 2)
        keypoints = None if keypoints is None else keypoints / np.array([*size, 1.0])
    boxes = np.clip(boxes, 0, 1)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return _rows(replace(seen, boxes=boxes, keypoints=keypoints, normalised=True), np.flatnonzero(kept))


def sampled(seen: Seen, frames: Frames, feature_settings: dict[str, Any], names: tuple[str, ...]) -> FrameSequence:
    """The sequence of what was seen in a recording; see `DetectorSettings` for what is left out.

    Args:
        seen: normalised.
        frames: of the recording.
        feature_settings: fps, conf, max_objects, tracker, keypoints.
        names: of the classes.
    """
    seen = _rows(seen, np.flatnonzero(seen.scores >= feature_settings["conf"]))
    order = np.lexsort((-seen.scores, seen.frame))
    ordered = seen.frame[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    seen = _rows(seen, order[rank < feature_settings["max_objects"]])
    tracks = seen.tracks
    if tracks is not None:
        tracks = np.maximum(tracks, -1)
        if tracks.max(initial=0) > _LARGEST_ID:
            tracked = tracks >= 0
            tracks[tracked] = np.unique(tracks[tracked], return_inverse=True)[1]
    sequence = FrameSequence.from_detections(
        frame=np.searchsorted(frames.number, seen.frame),
        frame_times_s=frames.time_s,
        boxes=seen.boxes,
        scores=seen.scores,
        classes=seen.classes,
        tracks=tracks,
        keypoints=seen.keypoints,
        normalised=True,
        size_px=frames.size_px,
        names=names,
        fps=feature_settings["fps"],
        tick_s=frames.tick_s,
    )
    sequence = replace(sequence, frame_index=frames.number[sequence.frame_index])
    return sequence if tracks is not None else replace(sequence, tracks=_tracked(sequence, feature_settings["tracker"]))


def _tracked(sequence: FrameSequence, kind: str) -> Array:
    tracker = Tracker(kind, sequence.size_px)
    found = [np.zeros(0, np.int32)]
    for first, stop in zip(sequence.offsets[:-1], sequence.offsets[1:], strict=True):
        rows = slice(first, stop)
        found.append(tracker.update(sequence.boxes[rows], sequence.scores[rows], sequence.classes[rows]))
    return np.concatenate(found)


def _rows(seen: Seen, rows: Array) -> Seen:
    """Some of the objects, by index."""
    names = ("frame", "boxes", "scores", "classes", "tracks", "keypoints")
    return replace(seen, **{name: value[rows] for name in names if (value := getattr(seen, name)) is not None})


def digest_of(seen: Seen, frames: Frames) -> str:
    """SHA-256 of what was seen in a recording and when its frames are."""
    facts = {"size_px": frames.size_px, "tick_s": frames.tick_s, "duration_s": frames.duration_s}
    total = hashlib.sha256(canonical_json({**facts, "recorded_at": frames.recorded_at}))
    for values in (frames.time_s, frames.number, seen.frame, seen.boxes, seen.scores, seen.classes, seen.tracks,
                   seen.keypoints):  # fmt: skip
        text = "none" if values is None else f"{values.dtype} {values.shape}"
        total.update(text.encode() + (b"" if values is None else np.ascontiguousarray(values).tobytes()))
    return total.hexdigest()
