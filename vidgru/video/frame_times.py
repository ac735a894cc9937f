"""Times of all frames of a video, without decoding it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vidgru.errors import RecordingError
from vidgru.types import Array
from vidgru.video.container import JOINABLE, container_start, find_video_stream, frame_rate, open_container
from vidgru.video.timestamps import ClockJoin

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
    keys: list[bool] = []
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
            keys.append(bool(packet.is_keyframe))
        is_avi, can_join = container.format.name == "avi", container.format.name in JOINABLE
    # Presentation times of an AVI may be missing or duplicated. Then all decoding times are used instead, because a
    # mixture of both would give two frames the same time.
    presented = {pts for pts, _ in stamps if pts is not None}
    if is_avi and len(presented) < len(stamps) and all(dts is not None for _, dts in stamps):
        ticks = [dts for _, dts in stamps]
    else:
        ticks = [dts if pts is None else pts for pts, dts in stamps]
    spans = [(first, first + length) for first, length in zip(ticks, durations, strict=True) if first is not None]
    keys = [is_key for first, is_key in zip(ticks, keys, strict=True) if first is not None]
    if not spans:
        raise RecordingError("its video has no timestamps; pass --source-fps")
    if can_join:
        spans = _join_clocks(spans, keys, tick, 1 / (rate or Fraction(25)))
    times, end = np.unique(np.array(spans, np.int64)[:, 0]), max(end for _, end in spans)
    start_s = float(start)
    end_s = end * float(tick) - start_s + (0.0 if end > times[-1] or not rate else float(1 / rate))
    return times * float(tick) - start_s, float(tick), end_s


def _join_clocks(
    spans: list[tuple[int, int]], keys: list[bool], tick: Fraction, step: Fraction
) -> list[tuple[int, int]]:
    """Continue the clock where a file was joined to another one, as `VideoReader` does.

    Args:
        spans: First tick, and the tick after the last, of each packet.
        keys: Whether each holds a key frame.
        tick: Seconds per tick.
        step: Seconds per frame, of packets that do not give theirs.
    """
    join = ClockJoin()
    joined: list[tuple[Fraction, int]] = []
    for (first, end), is_key in zip(spans, keys, strict=True):
        joined += join.push(first * tick, (end - first) * tick or step, end - first, is_key=is_key)
    joined += join.flush()
    return [(round(time / tick), round(time / tick) + length) for time, length in joined]
