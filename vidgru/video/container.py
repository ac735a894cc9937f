"""Open containers, find their video stream and read what they declare about it."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from vidgru.errors import RecordingError

MAX_SIDE_PX = 16384
MAX_PIXELS = 100_000_000

# FFmpeg reports some losses (an unreadable Matroska block, for instance) only in its log.
# `VideoReader` counts those messages; they are not shown.
av.logging.set_level(av.logging.ERROR)
logging.getLogger("libav").addHandler(logging.NullHandler())
logging.getLogger("libav").propagate = False


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """Properties of a video, from its container and first frame.

    Attributes:
        size_px: Width and height of the upright frame (rotation applied).
        rotation: Degrees to turn the stored frame clockwise to make it upright: 0, 90, 180 or 270.
        duration_s: Duration of the whole container, as players show it; None if not declared.
        fps: Average frames per second; None if unknown.
        frames: Declared number of frames; None if not declared.
        codec: FFmpeg's name of the codec.
        container: FFmpeg's name of the container format.
        recorded_at: ISO 8601 creation time, UTC; None if not declared.
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
    """Open a file with PyAV.

    Raises:
        RecordingError: The path is not a file, the file is empty, or FFmpeg cannot read it.
    """
    if not path.is_file():
        raise RecordingError("is not a file")
    if not path.stat().st_size:
        raise RecordingError("is empty (0 bytes); copy it again")
    try:
        # FFmpeg would read the relative path "12:30.mp4" as a URL with the protocol "12".
        return av.open(str(path.absolute()), metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        raise RecordingError(f"is not a readable video: {reason}; copy it again, or repair it with ffmpeg") from None


def find_video_stream(container: Any) -> Any:
    """Return the first video stream that is not a cover picture, set to decode in one thread.

    Raises:
        RecordingError: There is no video stream, its codec is unknown or its frames are too large.
    """
    still_images = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & still_images]
    if not streams:
        types = sorted({stream.type for stream in container.streams}) or ["nothing"]
        raise RecordingError(f"has no video stream, only {' and '.join(types)}")
    stream = streams[0]
    context = stream.codec_context
    if context is None:
        raise RecordingError("has a video codec that this build of FFmpeg does not support; convert it to H.264")
    width, height = context.width, context.height
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise RecordingError(
            f"has frames that are too large: {width}x{height}; the limit is {MAX_SIDE_PX} pixels per side "
            f"and {MAX_PIXELS // 1_000_000} megapixels"
        )
    context.thread_type, context.thread_count = "NONE", 1
    return stream


def probe_stream(container: Any, stream: Any, frame: Any) -> VideoInfo:
    """Collect the properties of a stream whose first decoded frame (PyAV's) is `frame`."""
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
        recorded_at=creation_time(container.metadata, stream.metadata),
    )


def frame_rate(stream: Any) -> Fraction | None:
    """Return the average frames per second; None if the container does not declare it."""
    rate = stream.average_rate
    return Fraction(rate.numerator, rate.denominator) if rate else None


def time_base(stream: Any) -> Fraction:
    """Return the duration of one tick of a stream's timestamps in seconds."""
    return Fraction(stream.time_base.numerator, stream.time_base.denominator)


def container_start(container: Any) -> Fraction:
    """Return the exact start of the earliest stream in seconds.

    The container's own start is rounded to microseconds. It is used only if no stream starts within 2 us of it.
    """
    streams = [s for s in (*container.streams.video, *container.streams.audio) if s.start_time is not None]
    starts = [stream.start_time * time_base(stream) for stream in streams]
    if container.start_time is None:
        return min(starts, default=Fraction(0))
    rounded = Fraction(container.start_time, av.time_base)
    near = [start for start in starts if abs(start - rounded) <= Fraction(2, av.time_base)]
    return min(near, default=rounded)


def creation_time(*metadata: dict[str, str]) -> str | None:
    """Return the ISO 8601 creation time, UTC; None if it is missing, malformed or from a clock that was never set."""
    for values in metadata:
        try:
            created = datetime.fromisoformat(values["creation_time"])
        except (KeyError, ValueError):
            continue
        created = created if created.tzinfo else created.replace(tzinfo=UTC)
        if created.year > 1990:  # cameras without a battery start at 1904, 1970 or 1980
            return created.astimezone(UTC).isoformat()
    return None


def file_identity(path: Path) -> tuple[int, int]:
    """Return the size and modification time (ns) of a file, to detect that it changes while it is read.

    Raises:
        RecordingError: The file cannot be opened.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise RecordingError(f"cannot be opened: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns
