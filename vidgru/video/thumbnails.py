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

from vidgru.types import Array
from vidgru.video.container import container_start, find_video_stream, frame_rate, open_container, probe_stream
from vidgru.video.timestamps import TimestampSelector

_SEEKS_BACK_S = (0, 1, 2, 3, 5, 8, 15, 60)  # containers without an index may land behind what was sought
_READ = 60  # packets may be read for each frame that may be decoded: as much work, or less
_SEEK = 30  # and a seek counts as so many
_HELD_BACK = 32  # packets that a decoder takes before it gives a frame, and more
_FAILURES = 100  # packets in a row that cannot be read or decoded, after which there are no more pictures


@dataclass(frozen=True, kw_only=True, eq=False)
class Thumbnail:
    """One picture.

    Attributes:
        time_s: of its frame, seconds from the start of the container.
        image: uint8 [height, width, 3] RGB, upright.
    """

    time_s: float
    image: Array


def read_thumbnails(
    path: Path, times_s: Iterable[float], *, longer_side_px: int, max_frames: int
) -> Iterator[Thumbnail]:
    """Pictures of a recording near some times, in order of time.

    A picture is the first frame at or after its time. A recording that has too many frames for all to be decoded is
    not read through: the decoder jumps to a key frame before a time and goes on from there for that picture's share
    of `max_frames`. Where key frames are rarer, the picture is of an earlier moment, and its `time_s` says so. A frame
    is given once. Damaged packets are passed over, and frames that are marked as damaged are not taken. There is no
    picture where no key frame is found within the picture's share of what may be read, which is bounded too; and none
    from where the container cannot jump.

    Args:
        path: the recording.
        times_s: seconds from the start of the container, as `Sequence.time_s`. The last frame stands for later ones.
        longer_side_px: length of a picture's longer side; small frames are not made larger.
        max_frames: about how many frames are decoded in all.

    Raises:
        RecordingError: it is not a file with a video that FFmpeg can read; the message says what it is.
    """
    with open_container(path) as container:
        stream = find_video_stream(container)
        source = _Source(container, stream)
        rate = frame_rate(stream) or Fraction(25)
        scaler = VideoReformatter()
        latest, given = Fraction(0), Fraction(-1)
        times = sorted(map(Fraction, times_s))
        through = bool(times) and times[-1] * rate <= max_frames
        share = max_frames if through else max(1, max_frames // max(len(times), 1))
        for time in times:
            if given + source.tick / 2 >= time:
                continue
            if (time - latest) * rate > share:
                try:
                    if not source.jump(time, share * _READ):
                        continue
                except (av.error.FFmpegError, OSError):
                    return
            taken, number = None, 0
            for item in islice(source.frames, share + _HELD_BACK):
                if item is None:
                    continue
                taken, number = item, number + 1
                latest = item[0]
                if latest + source.tick / 2 >= time or number >= share:
                    break
            if taken is not None and taken[0] > given:
                given = taken[0]
                yield Thumbnail(
                    time_s=float(given),
                    image=_upright(scaler, container, stream, taken[1], longer_side_px),
                )


class _Source:
    """The frames of a container, from its start or from where it was last made to jump to.

    Attributes:
        tick: seconds.
        frames: what decoding each packet gives: sound frames with their times, and None where there is none. Streams
            that carry no times give none.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        self._start = container_start(container)
        self._step = 0  # back, the one that did the last time
        self.tick = Fraction(stream.time_base.numerator, stream.time_base.denominator)
        self.frames = self._decoded(self._packets())

    def jump(self, time: Fraction, most_packets: int) -> bool:
        """Go to a key frame before this time; False where none is found among so many packets, seeks counted.

        Raises:
            av.error.FFmpegError, OSError: the container cannot be sought in.
        """
        left = most_packets
        while True:
            back_s = _SEEKS_BACK_S[self._step]
            self._seek(time - back_s)
            packets = self._packets()
            group, read = self._last_group(islice(packets, left), time, from_start=time < back_s)
            left -= read + _SEEK
            if group:
                self.frames = self._decoded(chain(group, packets), begun=False)
                # A step that led further back than it had to, or did not lead up to the time, is not begun with again.
                less_s = _SEEKS_BACK_S[max(self._step - 1, 0)]
                key_time = self._time(group[0])
                if left + _SEEK <= 0 or (key_time is not None and time - key_time <= less_s):
                    self._step = max(self._step - 1, 0)
                return True
            if left <= 0 or time < back_s or back_s == _SEEKS_BACK_S[-1]:
                return False
            self._step += 1

    def _seek(self, time: Fraction) -> None:
        try:
            self._container.seek(int((time + self._start) / self.tick), stream=self._stream, backward=True)
        except (av.error.FFmpegError, OSError):
            if time >= 0:
                raise
            self._seek(Fraction(0))  # not all containers take a time before their start for it

    def _last_group(self, packets: Iterable[Any], time: Fraction, *, from_start: bool) -> tuple[list[Any], int]:
        """The packets from the last key frame before a time up to that time, and how many were read for it.

        From the start, the first key frame will do though it is later. There are none where there is no key frame.
        """
        group: list[Any] = []
        read = 0
        for packet in packets:
            read += 1
            stamp = self._time(packet)
            late = stamp is not None and stamp > time + self.tick / 2
            if late and not group and not from_start:
                break
            if packet.is_keyframe and not (late and group):
                group = []
            if group or packet.is_keyframe:
                group.append(packet)
            if group and (late or read == 1):  # where there is an index, a jump ends at the key frame
                break
        return group, read

    def _time(self, packet: Any) -> Fraction | None:
        stamp = packet.dts if packet.pts is None else packet.pts
        return None if stamp is None else stamp * self.tick - self._start

    def _packets(self) -> Iterator[Any]:
        """Packets of the video from where the container stands."""
        failures = 0
        while failures < _FAILURES:
            try:
                for packet in self._container.demux(self._stream):
                    failures = 0
                    yield packet
                return
            except IndexError:  # PyAV's, when at the end it flushes a stream that has turned up since the opening
                return
            except (av.error.FFmpegError, ValueError):
                failures += 1

    def _decoded(self, packets: Iterable[Any], *, begun: bool = True) -> Iterator[tuple[Fraction, Any] | None]:
        """Frames; those before the first key frame lack what they refer to, and are left out where that has to come."""
        clock, failures = TimestampSelector(), 0
        for packet in packets:
            try:
                frames = packet.decode()
                failures = 0
            except (av.error.FFmpegError, ValueError):
                frames, failures = [], failures + 1
                if failures == _FAILURES:
                    return
            if not frames:
                yield None
            for frame in frames:
                stamp = clock.stamp(frame.pts, frame.dts)
                begun = begun or bool(frame.key_frame)
                if begun and stamp is not None and not frame.is_corrupt:
                    yield stamp * self.tick - self._start, frame
                else:
                    yield None


def _upright(scaler: VideoReformatter, container: Any, stream: Any, frame: Any, longer_side_px: int) -> Array:
    scale = min(1.0, longer_side_px / max(frame.width, frame.height))
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    small = scaler.reformat(
        frame, width, height, "rgb24", interpolation=Interpolation.AREA, dst_color_range=ColorRange.JPEG, threads=1
    )
    turns = -probe_stream(container, stream, frame).rotation // 90
    return np.ascontiguousarray(np.rot90(small.to_ndarray(), turns))
