"""Times of all frames of a video, without decoding it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vidgru.errors import RecordingError
from vidgru.types import Array
from vidgru.video.container import container_start, find_video_stream, frame_rate, open_container

_MAX_READ_FAILURES = 100  # in a row, after which the rest of the file counts as lost


def packet_times(path: Path) -> tuple[Array, float, float]:
    """Read the time of each frame of a video from the timestamps of its packets, without decoding.

    Returns:
        Seconds from the start of the container, float64 [S], strictly increasing; the resolution of these times in
        seconds; and the end of the last frame.

    Raises:
        RecordingError: The video cannot be read, or its packets have no timestamps.
    """
    stamps: list[tuple[int | None, int | None]] = []
    durations: list[int] = []
    failures = 0
    with open_container(path) as container:
        stream = find_video_stream(container)
        start = container_start(container)
        tick = Fraction(stream.time_base.numerator, stream.time_base.denominator)
        rate = frame_rate(stream)
        packets = container.demux(stream)
        while failures < _MAX_READ_FAILURES:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError, ValueError, IndexError):  # as in `VideoReader`
                failures += 1
                continue
            if packet is None:
                break
            if not packet.size or packet.is_discard:
                continue
            failures = 0
            stamps.append((packet.pts, packet.dts))
            durations.append(packet.duration or 0)
        is_avi = container.format.name == "avi"
    # Presentation times of an AVI may be missing or duplicated. Then all decoding times are used instead, because a
    # mixture of both would give two frames the same time.
    presented = {pts for pts, _ in stamps if pts is not None}
    if is_avi and len(presented) < len(stamps) and all(dts is not None for _, dts in stamps):
        ticks = [dts for _, dts in stamps]
    else:
        ticks = [dts if pts is None else pts for pts, dts in stamps]
    spans = [(first, first + length) for first, length in zip(ticks, durations, strict=True) if first is not None]
    if not spans:
        raise RecordingError("its video has no timestamps; pass --source-fps")
    times, end = np.unique(np.array(spans, np.int64)[:, 0]), max(end for _, end in spans)
    start_s = float(start)
    end_s = end * float(tick) - start_s + (0.0 if end > times[-1] or not rate else float(1 / rate))
    return times * float(tick) - start_s, float(tick), end_s
