"""Containers: opened, their video stream found, and what they say of it."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from vidgru.errors import RecordingError
from vidgru.video.timestamps import frame_rate, recorded_at

LONGEST_SIDE_PX = 16384
MOST_PIXELS = 100_000_000

# FFmpeg tells some losses (a Matroska block it cannot make out) in its log alone. Its errors are counted, not shown.
av.logging.set_level(av.logging.ERROR)
logging.getLogger("libav").addHandler(logging.NullHandler())
logging.getLogger("libav").propagate = False


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a container says of its video, without decoding it.

    Attributes:
        size_px: width and height of the upright frame (rotation applied).
        rotation: degrees the stored frame is turned clockwise to stand upright: 0, 90, 180, 270.
        duration_s: of the whole container, as players show it; None if it does not say.
        fps: average frames a second; None if unknown.
        frames: number of frames the container announces; None if it does not say.
        codec: FFmpeg's name of the codec.
        container: FFmpeg's name of the container format.
        recorded_at: ISO 8601 time at which the recording was made; None if the container does not say.
    """

    size_px: tuple[int, int]
    rotation: int
    duration_s: float | None
    fps: float | None
    frames: int | None
    codec: str
    container: str
    recorded_at: str | None


def open_container(path: Path) -> Any:
    """Open a file with PyAV. Raises RecordingError where FFmpeg cannot make it out."""
    if not path.is_file():
        raise RecordingError("is not a file")
    if not path.stat().st_size:
        raise RecordingError("is empty (0 bytes); copy it again")
    try:
        return av.open(str(path.absolute()), metadata_errors="replace")  # "12:30.mp4" would be a protocol
    except (av.error.FFmpegError, OSError, ValueError) as error:
        why = str(getattr(error, "strerror", None) or error)
        raise RecordingError(
            f"is not a video that can be read: {why}; copy it again, or repair it with ffmpeg"
        ) from None


def video_stream(container: Any) -> Any:
    """The stream to be decoded, set to one thread. Raises RecordingError where there is none, or it cannot be."""
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [s for s in container.streams.video if not s.disposition & pictures]
    if not streams:
        kinds = sorted({s.type for s in container.streams}) or ["nothing"]
        raise RecordingError(f"has no video stream, only {' and '.join(kinds)}")
    stream = streams[0]
    context = stream.codec_context
    if context is None:
        raise RecordingError("its video codec is not known to this build of FFmpeg; convert it to H.264")
    width, height = context.width, context.height
    if max(width, height) > LONGEST_SIDE_PX or width * height > MOST_PIXELS:
        raise RecordingError(f"its frames are too large: {width}x{height}, the limit is {LONGEST_SIDE_PX} a side")
    context.thread_type, context.thread_count = "NONE", 1
    return stream


def describe(container: Any, stream: Any, frame: Any) -> VideoInfo:
    """What a container says, and its first decoded frame."""
    rotation = -round(frame.rotation / 90) % 4 * 90
    rate = frame_rate(stream)
    duration = container.duration
    return VideoInfo(
        size_px=(frame.height, frame.width) if rotation in (90, 270) else (frame.width, frame.height),
        rotation=rotation,
        duration_s=duration / av.time_base if duration else None,
        fps=float(rate) if rate else None,
        frames=stream.frames or None,
        codec=stream.codec_context.name,
        container=container.format.name,
        recorded_at=recorded_at(container.metadata, stream.metadata),
    )


def file_identity(path: Path) -> tuple[int, int]:
    """Size and modification time (ns): what changes when a file does. Raises RecordingError."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise RecordingError(f"cannot be opened: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns
