"""When the frames are that a detector looked at: told by the video, by its detections, or by the user."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vidgru.config import ImportedDetectionSettings
from vidgru.errors import RecordingError
from vidgru.extraction.import_detections.parsed import Seen
from vidgru.types import Array
from vidgru.video.container import container_start, find_video_stream, frame_rate, open_container
from vidgru.video.reader import probe

_SLOWEST_FPS, _FASTEST_FPS = 1e-6, 1e6
_LARGEST_PX = 99_999
_ROUNDED = 0.01  # share by which a rate may be rounded, such as 29.97 for 30
_READ_FAILURES = 100  # in a row, after which the rest of the file counts as lost


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """The frames of a recording.

    Attributes:
        time_s: float64 [S], strictly increasing.
        number: int64 [S], the frame that each is, counted from 0.
        tick_s: what times are multiples of; 0 where they are exact.
        size_px: width and height of the upright frame.
        duration_s: of the recording.
        recorded_at: ISO 8601 time of its start; None if it does not say.
    """

    time_s: Array
    number: Array
    tick_s: float
    size_px: tuple[int, int]
    duration_s: float
    recorded_at: str | None = None


def frames_of(seen: Seen, video: Path | None, settings: ImportedDetectionSettings) -> Frames:
    """The frames of a recording: what the user says comes first, then the video, then what the detections tell.

    Args:
        seen: its detections.
        video: None where it is not here.
        settings: what the user says.

    Raises:
        RecordingError: nothing sound tells how fast it runs or how large it is; or the video cannot be read, or is
            shorter.
    """
    info = None if video is None else probe(video)
    size_px = settings.size_px or (info.size_px if info else seen.size_px)
    if size_px is None:
        raise RecordingError(
            "nothing tells how large its frames are; give its video as a source, or --source-size such as 1920x1080"
        )
    if not 1 <= min(size_px) <= max(size_px) <= _LARGEST_PX:
        raise RecordingError(f"its frames are said to be {size_px[0]} x {size_px[1]} px; give --source-size")
    told = info.recorded_at if info else None
    last = int(seen.frame.max(initial=-1))
    if video is not None and not settings.source_fps:
        times, tick_s, end_s = packet_times(video)
        number = np.arange(len(times)) if seen.looked_at is None else seen.looked_at
        if max(last, int(number.max(initial=-1))) >= len(times):
            raise RecordingError(
                f"its detections speak of frame {max(last, int(number[-1])) + 1}, its video has {len(times)}: they are "
                "of another video; or not every frame was looked at, then give --source-fps"
            )
        duration_s = max((info and info.duration_s) or 0.0, end_s)
        return Frames(
            time_s=times[number], number=number, tick_s=tick_s, size_px=size_px, duration_s=duration_s, recorded_at=told
        )
    fps = settings.source_fps or seen.fps
    if not fps:
        raise RecordingError(
            "nothing tells how many frames a second it has; give its video as a source, or --source-fps"
        )
    if not _SLOWEST_FPS <= fps <= _FASTEST_FPS:
        raise RecordingError(f"it is said to have {fps:g} frames a second; give --source-fps")
    every = np.arange(last + 1 if seen.frames is None else seen.frames)
    number = every if seen.looked_at is None else seen.looked_at
    if not len(number):
        raise RecordingError("nothing was seen in it, and nothing tells how long it is; give its video as a source")
    told_s, last_s = info.duration_s if info else None, int(number[-1]) / fps
    if told_s and last_s > told_s * (1 + _ROUNDED) + 1 / fps:
        raise RecordingError(
            f"its detections go on to {last_s:.1f} s at {fps:g} frames a second, its video is {told_s:.1f} s long: "
            "they are of another video, or another rate; check --source-fps"
        )
    duration_s = max(told_s or 0.0, last_s + 1 / fps)
    return Frames(
        time_s=number / fps, number=number, tick_s=0.0, size_px=size_px, duration_s=duration_s, recorded_at=told
    )


def packet_times(path: Path) -> tuple[Array, float, float]:
    """When each frame of a video comes, by the stamps of its packets: nothing is decoded.

    Returns:
        Seconds from the start of the container, float64 [S], strictly increasing; the tick of its clock; and the end.

    Raises:
        RecordingError: it cannot be read, or its packets have no stamps.
    """
    found: list[tuple[int | None, int | None]] = []
    lasts: list[int] = []
    failures = 0
    with open_container(path) as container:
        stream = find_video_stream(container)
        start = container_start(container)
        tick = Fraction(stream.time_base.numerator, stream.time_base.denominator)
        rate = frame_rate(stream)
        packets = container.demux(stream)
        while failures < _READ_FAILURES:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError, ValueError, IndexError):  # as `VideoReader` has them
                failures += 1
                continue
            if packet is None:
                break
            if not packet.size or packet.is_discard:
                continue
            failures = 0
            found.append((packet.pts, packet.dts))
            lasts.append(packet.duration or 0)
        avi = container.format.name == "avi"
    timed = [(stamp, stamp + last) for stamp, last in zip(_stamps(found, avi), lasts, strict=True) if stamp is not None]
    if not timed:
        raise RecordingError("its video has no times; give --source-fps")
    times, end = np.unique(np.array(timed, np.int64)[:, 0]), max(end for _, end in timed)
    begin_s = float(start)
    end_s = end * float(tick) - begin_s + (0.0 if end > times[-1] or not rate else float(1 / rate))
    return times * float(tick) - begin_s, float(tick), end_s


def _stamps(found: list[tuple[int | None, int | None]], avi: bool) -> list[int | None]:
    """A stamp for each packet. Those that an AVI presents may be missing or twice: then all are those of decoding,
    since both of them together would give two frames one time."""
    shown = {pts for pts, _ in found if pts is not None}
    decoded = [dts for _, dts in found]
    if avi and len(shown) < len(found) and None not in decoded:
        return decoded
    return [dts if pts is None else pts for pts, dts in found]
