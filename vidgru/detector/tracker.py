"""Track objects with Ultralytics' ByteTrack or OC-SORT, from boxes alone.

Trackers get the values as they are cached, so that replaying the finished part of a recording restores their state.
Camera-motion compensation is off, because it needs pixels. To add a tracker: a branch in `Tracker` and its name in
`DetectorSettings.tracker` (`config.py`).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from vidgru.types import Array

TRACK_BUFFER = 30  # frames for which a track that is lost is kept
# Ultralytics' defaults, written out: features must not change when they do.
_SETTINGS = {
    "track_high_thresh": 0.25,
    "track_low_thresh": 0.1,
    "new_track_thresh": 0.25,
    "track_buffer": TRACK_BUFFER,
    "match_thresh": 0.8,
    "fuse_score": True,
    "delta_t": 3,
    "inertia": 0.2,
    "use_byte": False,
}


class Tracker:
    """Assigns track ids to the objects of one recording, frame by frame.

    Args:
        kind: bytetrack, ocsort or none.
        size_px: Width and height of the upright frame; objects are tracked in pixels.
    """

    def __init__(self, kind: str, size_px: tuple[int, int]) -> None:
        self._scale = np.array([*size_px, *size_px], np.float32)
        self._tracker: Any = None
        if kind == "bytetrack":
            from ultralytics.trackers.byte_tracker import BYTETracker

            self._tracker = BYTETracker(SimpleNamespace(**_SETTINGS))
        elif kind == "ocsort":
            from ultralytics.trackers.oc_sort import OCSORT

            self._tracker = OCSORT(SimpleNamespace(**_SETTINGS))

    def update(self, boxes: Array, scores: Array, classes: Array) -> Array:
        """Return the track ids of the next frame's objects, int32 [M], from 1 up; -1 if not tracked (yet).

        Args:
            boxes: float32 [M, 4], xyxy, normalised.
            scores: float16 [M].
            classes: int16 [M].
        """
        ids = np.full(len(boxes), -1, np.int32)
        if self._tracker is not None:
            rows = self._tracker.update(_TrackerInput(boxes * self._scale, scores.astype(np.float32), classes))
            if len(rows):
                ids[rows[:, -1].astype(np.int64)] = rows[:, -4].astype(np.int32)
        return ids


class _TrackerInput:
    """Detections with the interface that Ultralytics' trackers use."""

    def __init__(self, xyxy: Array, conf: Array, cls: Array) -> None:
        self.xyxy, self.conf, self.cls = xyxy, conf, cls

    @property
    def xywh(self) -> Array:
        low, high = self.xyxy[:, :2], self.xyxy[:, 2:]
        return np.concatenate([(low + high) / 2, high - low], 1)

    def __len__(self) -> int:
        return len(self.conf)

    def __getitem__(self, rows: Array) -> _TrackerInput:
        return _TrackerInput(self.xyxy[rows], self.conf[rows], self.cls[rows])
