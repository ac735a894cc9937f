"""Single pictures of a recording at given times: upright, small, and without decoding what lies between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from vidgru.extract.container import describe, open_container, video_stream
from vidgru.extract.times import Clock, container_start, frame_rate
from vidgru.types import Array

_SEEKS_BACK_S = (0, 1, 2, 3, 5, 8, 15, 60)  # containers without an index may land behind what was sought
_UP_TO_KEY = 300  # frames after a jump among which a key frame is looked for
_FAILURES = 100  # packets in a row that cannot be read or decoded, after which there are no more pictures


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """One picture.

    Attributes:
        time_s: of its frame, seconds from the start of the container.
        image: uint8 [height, width, 3] RGB, upright.
    """

    time_s: float
    image: Array


def pictures(path: Path, times_s: Iterable[float], *, side_px: int, most_frames: int) -> Iterator[Picture]:
    """Pictures of a recording near some times, in order of time.

    A picture is the first frame at or after its time. A recording that has too many frames for all to be decoded is
    not read through: the decoder jumps to the key frame before a time and goes on from there for that picture's share
    of `most_frames`. Where key frames are rarer, the picture is of an earlier moment, and its `time_s` says so. A frame
    is given once. Damaged packets are passed over, and frames that are marked as damaged are not taken. Pictures end
    early where the container cannot jump.

    Args:
        path: the recording.
        times_s: seconds from the start of the container, as `Sequence.time_s`. The last frame stands for later ones.
        side_px: length of a picture's longer side; small frames are not made larger.
        most_frames: about how many frames are decoded in all.

    Raises:
        RecordingError: it is not a file with a video that FFmpeg can read; the message says what it is.
    """
    with open_container(path) as container:
        stream = video_stream(container)
        start = container_start(container)
        tick = Fraction(stream.time_base.numerator, stream.time_base.denominator)
        rate = frame_rate(stream) or Fraction(25)
        scaler = VideoReformatter()
        frames: Iterator[tuple[Fraction, Any]] = _frames(container, stream, start, tick)
        latest, given = Fraction(0), Fraction(-1)
        times = sorted(map(Fraction, times_s))
        through = bool(times) and times[-1] * rate <= most_frames
        share = most_frames if through else max(1, most_frames // max(len(times), 1))
        for time in times:
            if given + tick / 2 >= time:
                continue
            if (time - latest) * rate > share:
                jumped = _from_key(container, stream, start, tick, time)
                if jumped is None:
                    return
                frames = jumped
            taken = None
            for number, (latest, frame) in enumerate(frames, start=1):
                taken = (latest, frame)
                if latest + tick / 2 >= time or number >= share:
                    break
            if taken is not None and taken[0] > given:
                given = taken[0]
                yield Picture(time_s=float(given), image=_upright(scaler, container, stream, taken[1], side_px))


def _from_key(
    container: Any, stream: Any, start: Fraction, tick: Fraction, time: Fraction
) -> Iterator[tuple[Fraction, Any]] | None:
    """Frames from a key frame before a time on; None where the container cannot jump, or none is found."""
    for back_s in _SEEKS_BACK_S:
        try:
            container.seek(int((max(time - back_s, Fraction(0)) + start) / tick), stream=stream, backward=True)
        except (av.error.FFmpegError, OSError):
            return None
        frames = _frames(container, stream, start, tick)
        # where a jump ends amid a group of pictures, the first of them lack those that they refer to
        first = next((item for item in islice(frames, _UP_TO_KEY) if item[1].key_frame), None)
        if first is not None and (first[0] <= time + tick / 2 or back_s >= time):
            return chain([first], frames)
    return None


def _frames(container: Any, stream: Any, start: Fraction, tick: Fraction) -> Iterator[tuple[Fraction, Any]]:
    """Sound frames from where the container stands, with their times; streams that carry no times have none."""
    clock, failures = Clock(), 0
    packets = container.demux(stream)
    while failures < _FAILURES:
        try:
            packet = next(packets)
            frames = packet.decode()
        except StopIteration:
            return
        except (av.error.FFmpegError, ValueError):
            failures += 1
            continue
        failures = 0
        for frame in frames:
            stamp = clock.stamp(frame.pts, frame.dts)
            if stamp is not None and not frame.is_corrupt:
                yield stamp * tick - start, frame


def _upright(scaler: VideoReformatter, container: Any, stream: Any, frame: Any, side_px: int) -> Array:
    scale = min(1.0, side_px / max(frame.width, frame.height))
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    small = scaler.reformat(
        frame, width, height, "rgb24", interpolation=Interpolation.AREA, dst_color_range=ColorRange.JPEG, threads=1
    )
    turns = -describe(container, stream, frame).rotation // 90
    return np.ascontiguousarray(np.rot90(small.to_ndarray(), turns))
