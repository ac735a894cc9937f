"""Split a long recording at key frames, so that several decoders share it and together give the same samples."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import av

from vidgru.errors import RecordingError
from vidgru.video.container import container_start, find_video_stream, open_container, time_base
from vidgru.video.reader import ResumePoint
from vidgru.video.timestamps import SamplingGrid


def find_split_points(
    path: Path, fps: float, min_samples: int, on_progress: Callable[[], None] = lambda: None
) -> list[ResumePoint]:
    """Find samples at which a decoder can start, each at least `min_samples` after the one before.

    Reads all packets and decodes none: their PTS and key frames tell which frames there are and which of them are
    samples. Each split point is the first sample at or after a key frame, so that hardly any frame is decoded twice:
    one decoder ends with that sample, and the next starts with it only to measure motion from it.

    Args:
        path: Path of the recording.
        fps: Samples per second.
        min_samples: Minimum number of samples per segment.
        on_progress: Called per packet.

    Returns:
        Split points in order; none if the packets are ambiguous (PTS missing or repeated) or damaged.
    """
    stamps: list[int] = []
    keys: set[int] = set()
    latest_dts = -(2**63)
    try:
        with open_container(path) as container:
            stream = find_video_stream(container)
            start, tick = container_start(container), time_base(stream)
            for packet in container.demux(stream):
                on_progress()
                if not packet.size or packet.is_discard:
                    continue
                if packet.pts is None or packet.is_corrupt or (packet.dts is not None and packet.dts < latest_dts):
                    return []
                latest_dts = latest_dts if packet.dts is None else packet.dts
                stamps.append(packet.pts)
                if packet.is_keyframe:
                    keys.add(packet.pts)
    except (RecordingError, av.error.FFmpegError, OSError, ValueError, IndexError):  # for IndexError see `VideoReader`
        return []
    stamps.sort()
    if any(a == b for a, b in pairwise(stamps)):
        return []
    # The rule of `SamplingGrid`, floor((stamp * tick - start + tick / 2) * rate), in whole numbers: a recording of many
    # hours has millions of stamps, for which arithmetic with fractions is slow.
    rate = SamplingGrid(fps).rate
    half_tick, offset = tick * rate / 2, start * rate
    factor = half_tick.numerator * offset.denominator
    shift = offset.numerator * half_tick.denominator
    divisor = half_tick.denominator * offset.denominator
    split_points: list[ResumePoint] = []
    samples = next_point = segment_start = previous_sample = key_pts = key_index = 0
    for index, stamp in enumerate(stamps):
        if stamp in keys:
            key_pts, key_index = stamp, index
        point = ((2 * stamp + 1) * factor - shift) // divisor
        if point < next_point:
            continue
        samples, next_point = samples + 1, point + 1
        if samples - segment_start >= min_samples and previous_sample < key_index:
            split_points.append(
                ResumePoint(samples=samples, index=index, key_pts=key_pts, key_index=key_index, image=None)
            )
            segment_start = samples
        previous_sample = index
    return split_points
