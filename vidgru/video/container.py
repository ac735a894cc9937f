"""Containers: opened, their video stream found, and what they say of it."""

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


def find_video_stream(container: Any) -> Any:
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


def probe_stream(container: Any, stream: Any, frame: Any) -> VideoInfo:
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
        recorded_at=creation_time(container.metadata, stream.metadata),
    )


def frame_rate(stream: Any) -> Fraction | None:
    """Average frames a second; None if the container gives none."""
    rate = stream.average_rate
    return Fraction(rate.numerator, rate.denominator) if rate else None


def container_start(container: Any) -> Fraction:
    """Start of the earliest stream in seconds, exact; the container's own start, in microseconds, where they differ."""
    timed = [s for s in (*container.streams.video, *container.streams.audio) if s.start_time is not None]
    starts = [s.start_time * Fraction(s.time_base.numerator, s.time_base.denominator) for s in timed]
    if container.start_time is None:
        return min(starts, default=Fraction(0))
    rounded = Fraction(container.start_time, av.time_base)
    near = [start for start in starts if abs(start - rounded) <= Fraction(2, av.time_base)]
    return min(near, default=rounded)


def creation_time(*metadata: dict[str, str]) -> str | None:
    """ISO 8601 creation time, UTC; None where it is missing, unreadable or a clock that was never set."""
    for values in metadata:
        try:
            made = datetime.fromisoformat(values["creation_time"])
        except (KeyError, ValueError):
            continue
        made = made if made.tzinfo else made.replace(tzinfo=UTC)
        if made.year > 1990:
            return made.astimezone(UTC).isoformat()
    return None


def file_identity(path: Path) -> tuple[int, int]:
    """Size and modification time (ns): what changes when a file does. Raises RecordingError."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise RecordingError(f"cannot be opened: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns
