"""Read single frames of a recording at given times as small upright images, without decoding what is between them."""

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
from vidgru.video.container import (
    container_start,
    find_video_stream,
    frame_rate,
    open_container,
    probe_stream,
    time_base,
)
from vidgru.video.timestamps import TimestampSelector

_SEEK_MARGINS_S = (0, 1, 2, 3, 5, 8, 15, 60)  # in containers without an index, a seek may land after its target
_PACKETS_PER_FRAME = 60  # packets that may be read per frame that may be decoded: at most as much work
_PACKETS_PER_SEEK = 30  # packets that a seek counts as
_MAX_HELD_BACK = 32  # upper bound of the packets that a decoder takes before it gives a frame
_MAX_FAILURES = 100  # consecutive packets that cannot be read or decoded, after which there are no more thumbnails


@dataclass(frozen=True, kw_only=True, eq=False)
class Thumbnail:
    """A small image of one frame.

    Attributes:
        time_s: Time of the frame in seconds from the start of the container.
        image: uint8 [height, width, 3], RGB, upright.
    """

    time_s: float
    image: Array


def read_thumbnails(
    path: Path, times_s: Iterable[float], *, longer_side_px: int, max_frames: int
) -> Iterator[Thumbnail]:
    """Yield thumbnails of a recording near the given times, in order of time.

    A thumbnail shows the first frame at or after its time. If the recording has too many frames to decode them all,
    the reader seeks to a key frame before each time and decodes that thumbnail's share of `max_frames` from there. If
    key frames are rarer than that, the thumbnail shows an earlier frame, and its `time_s` says so. Each frame is given
    once. Damaged packets are skipped, and frames marked as corrupt are not used. There is no thumbnail if no key frame
    is found within its share of the packets that may be read, and none after a seek that the container does not
    support.

    Args:
        path: Path of the recording.
        times_s: Seconds from the start of the container, as in `FrameSequence.time_s`. Times after the end give the
            last frame.
        longer_side_px: Length of a thumbnail's longer side; smaller frames are not enlarged.
        max_frames: Approximate number of frames to decode in all.

    Raises:
        RecordingError: FFmpeg cannot read a video from the file; the message gives the reason.
    """
    with open_container(path) as container:
        stream = find_video_stream(container)
        source = _SeekableFrames(container, stream)
        rate = frame_rate(stream) or Fraction(25)
        reformatter = VideoReformatter()
        decoded_to, yielded_to = Fraction(0), Fraction(-1)
        times = sorted(map(Fraction, times_s))
        decodes_all = bool(times) and times[-1] * rate <= max_frames
        share = max_frames if decodes_all else max(1, max_frames // max(len(times), 1))
        for time in times:
            if yielded_to + source.tick / 2 >= time:
                continue
            if (time - decoded_to) * rate > share:
                try:
                    if not source.seek(time, share * _PACKETS_PER_FRAME):
                        continue
                except (av.error.FFmpegError, OSError):
                    return
            last, count = None, 0
            for item in islice(source.frames, share + _MAX_HELD_BACK):
                if item is None:
                    continue
                last, count = item, count + 1
                decoded_to = item[0]
                if decoded_to + source.tick / 2 >= time or count >= share:
                    break
            if last is not None and last[0] > yielded_to:
                yielded_to, frame = last
                rotation = probe_stream(container, stream, frame).rotation
                yield Thumbnail(time_s=float(yielded_to), image=_shrink(reformatter, frame, rotation, longer_side_px))


class _SeekableFrames:
    """The frames of a container from its start, or from the key frame of the latest `seek`.

    Attributes:
        tick: Seconds per tick of the stream's timestamps.
        frames: Per packet, the decoded frames with their times, or None if it gave no intact frame. Streams without
            timestamps give no frames.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        self._start = container_start(container)
        self._margin = 0  # index into _SEEK_MARGINS_S to try first: the one that was enough the last time
        self.tick = time_base(stream)
        self.frames = self._decode(self._packets())

    def seek(self, time: Fraction, max_packets: int) -> bool:
        """Go to a key frame before a time.

        Args:
            time: Seconds from the start of the container.
            max_packets: Maximum number of packets to read for it; each seek counts as some.

        Returns:
            False if no key frame was found.

        Raises:
            av.error.FFmpegError, OSError: The container does not support seeking.
        """
        packets_left = max_packets
        while True:
            margin_s = _SEEK_MARGINS_S[self._margin]
            self._seek_container(time - margin_s)
            packets = self._packets()
            group, read = self._last_group(islice(packets, packets_left), time, from_start=time < margin_s)
            packets_left -= read + _PACKETS_PER_SEEK
            if group:
                self.frames = self._decode(chain(group, packets), has_key_frame=False)
                # Try a smaller margin next time if it would have been enough, or if this one did not reach `time`.
                smaller_s = _SEEK_MARGINS_S[max(self._margin - 1, 0)]
                key_time = self._packet_time(group[0])
                if packets_left + _PACKETS_PER_SEEK <= 0 or (key_time is not None and time - key_time <= smaller_s):
                    self._margin = max(self._margin - 1, 0)
                return True
            if packets_left <= 0 or time < margin_s or margin_s == _SEEK_MARGINS_S[-1]:
                return False
            self._margin += 1

    def _seek_container(self, time: Fraction) -> None:
        try:
            self._container.seek(int((time + self._start) / self.tick), stream=self._stream, backward=True)
        except (av.error.FFmpegError, OSError):
            if time >= 0:
                raise
            self._seek_container(Fraction(0))  # some containers reject times before their start

    def _last_group(self, packets: Iterable[Any], time: Fraction, *, from_start: bool) -> tuple[list[Any], int]:
        """Read up to `time` and return the packets from the last key frame on, and the number of packets read.

        The list is empty if there is no key frame. From the start of the container, a later key frame will do.
        """
        group: list[Any] = []
        read = 0
        for packet in packets:
            read += 1
            packet_time = self._packet_time(packet)
            is_late = packet_time is not None and packet_time > time + self.tick / 2
            if is_late and not group and not from_start:
                break
            if packet.is_keyframe and not (is_late and group):
                group = []
            if group or packet.is_keyframe:
                group.append(packet)
            if group and (is_late or read == 1):  # with an index, the seek lands on the last key frame itself
                break
        return group, read

    def _packet_time(self, packet: Any) -> Fraction | None:
        stamp = packet.dts if packet.pts is None else packet.pts
        return None if stamp is None else stamp * self.tick - self._start

    def _packets(self) -> Iterator[Any]:
        """Yield packets of the video from the container's present position."""
        failures = 0
        while failures < _MAX_FAILURES:
            try:
                for packet in self._container.demux(self._stream):
                    failures = 0
                    yield packet
                return
            except IndexError:  # PyAV raises it at the end when it flushes a stream that appeared after opening
                return
            except (av.error.FFmpegError, ValueError):
                failures += 1

    def _decode(self, packets: Iterable[Any], *, has_key_frame: bool = True) -> Iterator[tuple[Fraction, Any] | None]:
        """Yield frames with their times, None for those that are not intact.

        Args:
            packets: Packets to decode.
            has_key_frame: Whether the first frame is intact. Otherwise frames before the first key frame are not,
                because they lack the frames they refer to.
        """
        timestamps, failures = TimestampSelector(), 0
        for packet in packets:
            try:
                frames = packet.decode()
                failures = 0
            except (av.error.FFmpegError, ValueError):
                frames, failures = [], failures + 1
                if failures == _MAX_FAILURES:
                    return
            if not frames:
                yield None
            for frame in frames:
                stamp = timestamps.select(frame.pts, frame.dts)
                has_key_frame = has_key_frame or bool(frame.key_frame)
                if has_key_frame and stamp is not None and not frame.is_corrupt:
                    yield stamp * self.tick - self._start, frame
                else:
                    yield None


def _shrink(reformatter: VideoReformatter, frame: Any, rotation: int, longer_side_px: int) -> Array:
    """Return a frame as an upright RGB image with its longer side at most `longer_side_px`."""
    scale = min(1.0, longer_side_px / max(frame.width, frame.height))
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    scaled = reformatter.reformat(
        frame, width, height, "rgb24", interpolation=Interpolation.AREA, dst_color_range=ColorRange.JPEG, threads=1
    )
    return np.ascontiguousarray(np.rot90(scaled.to_ndarray(), -rotation // 90))
