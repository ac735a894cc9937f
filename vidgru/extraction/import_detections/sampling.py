"""From parsed detections to a frame sequence: frame times, sampling and tracks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vidgru.cache.entry import canonical_json
from vidgru.config import ImportedDetectionSettings
from vidgru.detector.tracker import Tracker
from vidgru.errors import RecordingError
from vidgru.extraction.import_detections.parsed import ParsedDetections
from vidgru.types import Array, FrameSequence
from vidgru.video.frame_times import packet_times
from vidgru.video.reader import probe

_MIN_FPS, _MAX_FPS = 1e-6, 1e6
_MAX_SIDE_PX = 99_999
_FPS_TOLERANCE = 0.01  # relative error of a rounded rate, such as 29.97 given as 30
_MAX_TRACK_ID = np.iinfo(np.int32).max


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameTimes:
    """Times of the frames that a detector processed.

    Attributes:
        time_s: float64 [S], strictly increasing.
        frame_index: int64 [S], index of each frame in the recording, counted from 0.
        tick_s: Resolution of the times in seconds; 0 if they are exact.
        size_px: Width and height of the upright frame.
        duration_s: Duration of the recording.
        recorded_at: ISO 8601 time of its start; None if unknown.
    """

    time_s: Array
    frame_index: Array
    tick_s: float
    size_px: tuple[int, int]
    duration_s: float
    recorded_at: str | None = None


def find_frame_times(
    detections: ParsedDetections, video: Path | None, settings: ImportedDetectionSettings
) -> FrameTimes:
    """Find out when the frames of a recording are: from the settings, else from the video, else from the detections.

    Args:
        detections: Detections of the recording.
        video: Its video; None if it is not available.
        settings: Frame rate and size that the user specifies.

    Raises:
        RecordingError: Frame rate or size is unknown or invalid, the video cannot be read, or it is shorter than the
            detections.
    """
    info = None if video is None else probe(video)
    size_px = settings.size_px or (info.size_px if info else detections.size_px)
    if size_px is None:
        raise RecordingError(
            "its frame size is unknown; pass its video as a source, or --source-size such as 1920x1080"
        )
    if not 1 <= min(size_px) <= max(size_px) <= _MAX_SIDE_PX:
        raise RecordingError(f"has an invalid frame size of {size_px[0]} x {size_px[1]} px; pass --source-size")
    recorded_at = info.recorded_at if info else None
    last = int(detections.frame.max(initial=-1))

    if video is not None and not settings.source_fps:
        times, tick_s, end_s = packet_times(video)
        index = np.arange(len(times)) if detections.processed_frames is None else detections.processed_frames
        if max(last, int(index.max(initial=-1))) >= len(times):
            raise RecordingError(
                f"its detections contain frame {max(last, int(index[-1])) + 1}, but its video has {len(times)} frames: "
                "they belong to another video, or the detector skipped frames; in that case pass --source-fps"
            )
        return FrameTimes(
            time_s=times[index],
            frame_index=index,
            tick_s=tick_s,
            size_px=size_px,
            duration_s=max((info and info.duration_s) or 0.0, end_s),
            recorded_at=recorded_at,
        )

    fps = settings.source_fps or detections.fps
    if not fps:
        raise RecordingError("its frame rate is unknown; pass its video as a source, or --source-fps")
    if not _MIN_FPS <= fps <= _MAX_FPS:
        raise RecordingError(f"has an invalid rate of {fps:g} frames per second; pass --source-fps")
    if detections.processed_frames is not None:
        index = detections.processed_frames
    else:
        index = np.arange(last + 1 if detections.num_frames is None else detections.num_frames)
    if not len(index):
        raise RecordingError("contains no objects, and its length is unknown; pass its video as a source")
    video_s, last_s = info.duration_s if info else None, int(index[-1]) / fps
    if video_s and last_s > video_s * (1 + _FPS_TOLERANCE) + 1 / fps:
        raise RecordingError(
            f"its detections end at {last_s:.1f} s at {fps:g} frames per second, but its video is {video_s:.1f} s "
            "long: they belong to another video, or have another frame rate; check --source-fps"
        )
    return FrameTimes(
        time_s=index / fps,
        frame_index=index,
        tick_s=0.0,
        size_px=size_px,
        duration_s=max(video_s or 0.0, last_s + 1 / fps),
        recorded_at=recorded_at,
    )


def to_sequence(
    detections: ParsedDetections, frames: FrameTimes, feature_settings: dict[str, Any], names: tuple[str, ...]
) -> FrameSequence:
    """Sample detections, drop weak and surplus objects as a detector of vidgru does, and track them if needed.

    Args:
        detections: Normalised detections of a recording.
        frames: Times of its frames.
        feature_settings: fps, conf, max_objects and tracker, as in `DetectorSettings`.
        names: Class names.
    """
    detections = detections.select(np.flatnonzero(detections.scores >= feature_settings["conf"]))
    order = np.lexsort((-detections.scores, detections.frame))  # by frame, best score first
    frame = detections.frame[order]
    rank = np.arange(len(order)) - np.searchsorted(frame, frame)
    detections = detections.select(order[rank < feature_settings["max_objects"]])
    tracks = detections.tracks
    if tracks is not None:
        tracks = np.maximum(tracks, -1)
        if tracks.max(initial=0) > _MAX_TRACK_ID:  # ids do not fit int32: number them
            is_tracked = tracks >= 0
            tracks[is_tracked] = np.unique(tracks[is_tracked], return_inverse=True)[1]
    sequence = FrameSequence.from_detections(
        frame=np.searchsorted(frames.frame_index, detections.frame),
        frame_times_s=frames.time_s,
        boxes=detections.boxes,
        scores=detections.scores,
        classes=detections.classes,
        tracks=tracks,
        keypoints=detections.keypoints,
        flip_idx=() if detections.keypoints is None else feature_settings.get("flip_idx", ()),
        normalised=True,
        size_px=frames.size_px,
        names=names,
        fps=feature_settings["fps"],
        tick_s=frames.tick_s,
    )
    sequence = replace(sequence, frame_index=frames.frame_index[sequence.frame_index])
    if tracks is not None:
        return sequence
    tracker = Tracker(feature_settings["tracker"], sequence.size_px)
    ids = [np.zeros(0, np.int32)]
    for first, stop in zip(sequence.offsets[:-1], sequence.offsets[1:], strict=True):
        rows = slice(first, stop)
        ids.append(tracker.update(sequence.boxes[rows], sequence.scores[rows], sequence.classes[rows]))
    return replace(sequence, tracks=np.concatenate(ids))


def hash_detections(detections: ParsedDetections, frames: FrameTimes) -> str:
    """Return the SHA-256 of the detections of a recording and the times of its frames."""
    facts = {"size_px": frames.size_px, "tick_s": frames.tick_s, "duration_s": frames.duration_s}
    digest = hashlib.sha256(canonical_json({**facts, "recorded_at": frames.recorded_at}))
    for values in (
        frames.time_s,
        frames.frame_index,
        detections.frame,
        detections.boxes,
        detections.scores,
        detections.classes,
        detections.tracks,
        detections.keypoints,
    ):
        header = "none" if values is None else f"{values.dtype} {values.shape}"
        digest.update(header.encode() + (b"" if values is None else np.ascontiguousarray(values).tobytes()))
    return digest.hexdigest()
