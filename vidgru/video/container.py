"""Open containers, find their video stream and read what they declare about it."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from vidgru.errors import RecordingError

MAX_SIDE_PX = 16384
JOINABLE = ("mpegts", "mpeg")  # formats of files that can be joined byte by byte
MAX_PIXELS = 100_000_000
_PICTURE_CODECS = ("mjpeg", "png", "bmp", "gif", "webp", "tiff", "jpeg2000")
_PICTURE_S = 1.0  # a stream that ends earlier, beside another one, is a picture

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
        others: Size and codec of each further video stream, which is not read; pictures do not count.
    """

    size_px: tuple[int, int]
    rotation: int
    duration_s: float | None
    fps: float | None
    frames: int | None
    codec: str
    container: str
    recorded_at: str | None
    others: tuple[str, ...] = ()


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
    """Return the video stream that players show, set to decode in one thread: the first default one that moves.

    Raises:
        RecordingError: There is no video stream, its codec is unknown or its frames are too large.
    """
    streams = _video_streams(container)
    if not streams:
        types = sorted({stream.type for stream in container.streams}) or ["nothing"]
        raise RecordingError(f"has no video stream, only {' and '.join(types)}")
    stream = next((stream for stream in streams if stream.disposition & Disposition.default), streams[0])
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


def new_decoder(stream: Any) -> Any:
    """Return another decoder of a stream's packets, in one thread, for use beside the stream's own."""
    context = stream.codec_context
    decoder = av.CodecContext.create(context.codec, "r")
    decoder.extradata, decoder.codec_tag = context.extradata, context.codec_tag
    decoder.width, decoder.height = context.width, context.height
    decoder.thread_type, decoder.thread_count = "NONE", 1
    return decoder


def _video_streams(container: Any) -> list[Any]:
    """Return the video streams that move; all that are no cover pictures if none does."""
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & pictures]
    readable = [stream for stream in streams if stream.codec_context is not None] or streams
    if len(readable) < 2:
        return readable
    return [stream for stream in readable if not _is_still(container, stream)] or readable


def _is_still(container: Any, stream: Any) -> bool:
    """Whether one of several video streams is a single picture, such as a thumbnail without the mark of one."""
    if stream.frames:
        return bool(stream.frames == 1)
    for name, text in stream.metadata.items():
        clock = re.fullmatch(r"(\d+):(\d+):([\d.]+)", text) if name.split("-")[0] == "DURATION" else None  # Matroska's
        if clock:
            declared_s = int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3])
            return bool(declared_s < min(_PICTURE_S, (container.duration or 0) / av.time_base / 2))
    others = (other.codec_context for other in container.streams.video if other is not stream)
    is_alone = not any(other is not None and other.name not in _PICTURE_CODECS for other in others)
    return stream.codec_context.name in _PICTURE_CODECS and not is_alone


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
        others=tuple(
            f"{other.codec_context.width}x{other.codec_context.height} {other.codec_context.name}"
            for other in _video_streams(container)
            if other.index != stream.index and other.codec_context is not None
        ),
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
