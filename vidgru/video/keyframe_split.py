"""Where a long recording can be cut, so that several decoders share it and give together what one would give."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av

from vidgru.errors import RecordingError
from vidgru.video.container import container_start, find_video_stream, open_container
from vidgru.video.reader import ResumePoint


def find_split_points(
    path: Path, fps: float, min_samples: int, on_progress: Callable[[], None] = lambda: None
) -> list[ResumePoint]:
    """Places after which a decoder can begin, at least `min_samples` samples apart, the first as far from the start.

    All packets are read, none is decoded: stamps and key frames tell which frames there are and which of them are
    samples (by the rule of `VideoReader.sample`). Each place is the first sample at or after a key frame, so that
    hardly anything is decoded twice: one decoder ends with it, the next begins with it for the motion alone.
    `on_progress` is called as each packet is read.

    Returns:
        No places where the stamps do not tell for sure: missing, repeated, or of damaged packets.
    """
    stamps: list[int] = []
    keys: set[int] = set()
    try:
        with open_container(path) as container:
            stream = find_video_stream(container)
            start = container_start(container)
            tick = Fraction(stream.time_base.numerator, stream.time_base.denominator)
            for packet in container.demux(stream):
                on_progress()
                if not packet.size or packet.is_discard:
                    continue
                if packet.pts is None or packet.is_corrupt:
                    return []
                stamps.append(packet.pts)
                if packet.is_keyframe:
                    keys.add(packet.pts)
    except (
        RecordingError,
        av.error.FFmpegError,
        OSError,
        ValueError,
        IndexError,
    ):  # the last is PyAV's, see `VideoReader`
        return []
    stamps.sort()
    if any(a == b for a, b in pairwise(stamps)):
        return []
    # point = (stamp * tick - start + tick / 2) * rate, in whole numbers: there may be millions of stamps
    rate = Fraction(repr(float(fps)))
    half, shift = tick * rate / 2, start * rate
    by, minus, over = half.numerator * shift.denominator, shift.numerator * half.denominator, half.denominator
    over *= shift.denominator
    places: list[ResumePoint] = []
    samples, next_point, begun, before, key = 0, 0, 0, 0, (0, 0)
    for index, stamp in enumerate(stamps):
        if stamp in keys:
            key = (stamp, index)
        point = ((2 * stamp + 1) * by - minus) // over
        if point < next_point:
            continue
        samples, next_point = samples + 1, point + 1
        if samples - begun >= min_samples and before < key[1]:
            places.append(ResumePoint(samples=samples, index=index, key_pts=key[0], key_index=key[1], image=None))
            begun = samples
        before = index
    return places
