"""Recordings to be looked at: every frame, upright, with its exact time, and the packets of the sound beside it.

What `vidgru.video.reader` does for samples, this does for all there is: the same times, the same patience with
damage.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from vidgru.types import Array
from vidgru.video.container import VideoInfo, container_start, open_container
from vidgru.video.reader import ResumePointNotFoundError, VideoReader

FOREVER = Fraction(10**9)  # seconds, past the end of anything

_LEAP_S = 8  # a gap that is worth seeking over: key frames are up to 10 s apart, mostly 1 or 2
_READ_FAILURES = 100  # reads that fail in a row, after which the rest of the sound counts as lost
_SOUND_BEFORE_S = 1  # for what a seek among the packets of two streams may be off
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_MOST_ASPECT = Fraction(4)  # of a pixel
_SD_PX = (1279, 576)  # of colours of which nothing is said, players take those of larger pictures for BT.709

Interval = tuple[Fraction, Fraction]


@dataclass(frozen=True, kw_only=True, eq=False)
class DisplayFrame:
    """One frame to be looked at.

    Attributes:
        time: when it comes on, in seconds from the start of the container, exact.
        until: when the next one does; of the last, when it ends.
        image: uint8 [height, width, 3] RGB, upright. It may be drawn on.
    """

    time: Fraction
    end: Fraction
    image: Array


class DisplayFrameReader:
    """The frames of a recording. Use it in a `with` block.

    Args:
        path: the file.
        on_progress: called as it is read, at least once a packet, also where no frame is asked for. It may raise.

    Attributes:
        info: what the container says.
        size_px: width and height of the upright picture in square pixels, as players show it.

    Raises:
        RecordingError: it is not a file with a video that FFmpeg can read; the message says what it is.
    """

    def __init__(self, path: Path, on_progress: Callable[[], None] = lambda: None) -> None:
        self._path, self._on_progress = path, on_progress
        self._reader = VideoReader(path, on_progress)
        self._can_leap = True
        self.info: VideoInfo = self._reader.info
        self.size_px = _square(self.info, self._reader.pixel_aspect)

    def __enter__(self) -> DisplayFrameReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._reader.__exit__(*exception)

    def frames(
        self, size_px: tuple[int, int], stretches: Iterable[Interval] = ((Fraction(0), FOREVER),)
    ) -> Iterator[DisplayFrame]:
        """The frames that are on screen in some stretches of the recording, in order of time, none twice.

        The first of a stretch may so have come on before it. A frame whose time is not after that of the one before
        it (damaged files have such) is left out.

        Args:
            size_px: width and height they are scaled to.
            stretches: half-open, in seconds, by start; the whole recording where not given. What lies between two is
                not decoded where it is cheaper to seek over it.

        Raises:
            RecordingChangedError: the file's size or modification time changed while it was read.
        """
        upright = _Upright(size_px, -self.info.rotation // 90)
        shown = Fraction(-1)
        frames = self._held(self._reader.decoded())
        current = next(frames, None)
        for start, end in stretches:
            if self._can_leap and current is not None and start - current[0] > _LEAP_S:
                frames = self._held(self._leap(start))
                current = next(frames, None)
            while current is not None and current[0] < end:
                time, until, frame = current
                if until > start and time > shown:
                    yield DisplayFrame(time=time, end=until, image=upright(frame))
                    shown = time
                current = next(frames, None)
        self._reader.check_unchanged()

    def _leap(self, time: Fraction) -> Iterator[tuple[Fraction, Any]]:
        """Frames from one before this time on: from the start, and never again, where the file cannot be sought in."""
        try:
            return self._reader.decoded_from(time)
        except ResumePointNotFoundError:
            self._can_leap = False
        self._reader.__exit__()
        self._reader = VideoReader(self._path, self._on_progress)
        return self._reader.decoded()

    def _held(self, frames: Iterator[tuple[Fraction, Any]]) -> Iterator[tuple[Fraction, Fraction, Any]]:
        """Frames with the time at which they come on, and that at which the next one does."""
        before: tuple[Fraction, Any] | None = None
        for time, frame in frames:
            if before is not None:
                if time <= before[0]:
                    continue
                yield before[0], time, before[1]
            before = time, frame
        if before is not None:
            yield before[0], before[0] + self._length(before[1]), before[1]

    def _length(self, frame: Any) -> Fraction:
        if not frame.duration:
            return 1 / Fraction(self.info.fps or 25)
        return Fraction(frame.duration) * Fraction(frame.time_base.numerator, frame.time_base.denominator)


class AudioReader:
    """The packets of a recording's sound. Use it in a `with` block.

    Attributes:
        stream: PyAV's, of the sound; None where the recording has none that this build of FFmpeg knows.

    Raises:
        RecordingError: it is not a file that FFmpeg can read; the message says what it is.
    """

    def __init__(self, path: Path) -> None:
        self._container = open_container(path)
        self._start = container_start(self._container)
        heard = [stream for stream in self._container.streams.audio if stream.codec_context is not None]
        self.stream: Any = heard[0] if heard else None

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._container.close()

    def packets(self, start: Fraction = Fraction(0)) -> Iterator[tuple[Fraction, Any]]:
        """The packets that begin at this time or later, and some before it; each with its time, as the frames have it.

        Packets that cannot be read or have no time are passed over. Those of time that goes back too: neither a
        decoder nor a container takes them.
        """
        if self.stream is None:
            return
        if start > _SOUND_BEFORE_S:
            self._seek(start - _SOUND_BEFORE_S)
        tick = Fraction(self.stream.time_base.numerator, self.stream.time_base.denominator)
        latest: int | None = None
        for packet in self._demux():
            stamp = packet.dts if packet.pts is None else packet.pts
            if stamp is None or not packet.size or (latest is not None and stamp <= latest):
                continue
            latest, packet.pts, packet.dts = stamp, stamp, stamp  # no codec of sound reorders
            yield stamp * tick - self._start, packet

    def _seek(self, time: Fraction) -> None:
        # What cannot be sought in is read on from where it is: its beginning.
        with contextlib.suppress(av.error.FFmpegError, OSError):
            self._container.seek(int((time + self._start) * av.time_base), backward=True)

    def _demux(self) -> Iterator[Any]:
        failures = 0
        while failures < _READ_FAILURES:
            try:
                for packet in self._container.demux(self.stream):
                    failures = 0 if packet.size else failures
                    yield packet
                return
            except (av.error.FFmpegError, IndexError, ValueError):  # as `VideoReader` has them
                failures += 1


class _Upright:
    """Makes pictures of decoded frames: scaled, in RGB, turned."""

    def __init__(self, size_px: tuple[int, int], turns: int) -> None:
        self._turns = turns
        self._size_px = size_px if turns % 2 == 0 else size_px[::-1]
        self._scaler = VideoReformatter()

    def __call__(self, frame: Any) -> Array:
        width, height = self._size_px
        smaller = width * height < frame.width * frame.height
        colours = None
        if frame.colorspace == _UNSPECIFIED:
            hd = frame.width > _SD_PX[0] or frame.height > _SD_PX[1]
            colours = Colorspace.ITU709 if hd else Colorspace.ITU601
        scaled = self._scaler.reformat(
            frame, width, height, "rgb24", src_colorspace=colours, dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.AREA if smaller else Interpolation.BICUBIC,
        )  # fmt: skip
        return np.ascontiguousarray(np.rot90(scaled.to_ndarray(), self._turns))


def _square(info: VideoInfo, pixel_aspect: Fraction) -> tuple[int, int]:
    """Size of the upright picture once its pixels are made square, by making one side longer."""
    width, height = info.size_px
    aspect = pixel_aspect if info.rotation in (0, 180) else 1 / pixel_aspect
    if not 1 / _MOST_ASPECT <= aspect <= _MOST_ASPECT:  # no camera's, but what damage has made of one
        return info.size_px
    return (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))
