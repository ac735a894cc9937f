"""Read recordings for display: every frame, upright, with its exact time, and the audio packets beside it.

`vidgru.video.reader` gives samples for the detector; this module gives all frames, with the same times and the same
tolerance of damage.
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
from vidgru.video.container import VideoInfo, container_start, open_container, time_base
from vidgru.video.reader import ResumePointNotFoundError, VideoReader

FOREVER = Fraction(10**9)  # seconds; after the end of any recording

_MIN_SEEK_S = 8  # shorter gaps are decoded: key frames are mostly 1 or 2 s apart, and up to 10 s
_MAX_READ_FAILURES = 100  # consecutive failed reads after which the rest of the audio counts as lost
_AUDIO_MARGIN_S = 1  # a seek among the interleaved packets of two streams may be off by less
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_MAX_PIXEL_ASPECT = Fraction(4)
_MAX_SD_PX = (1279, 576)  # players show unspecified colours of larger frames as BT.709, of others as BT.601

Interval = tuple[Fraction, Fraction]  # half-open, in seconds


@dataclass(frozen=True, kw_only=True, eq=False)
class DisplayFrame:
    """A frame for display.

    Attributes:
        time: When it appears, in exact seconds from the start of the container.
        end: When the next frame appears; for the last frame, when it ends.
        image: uint8 [height, width, 3], RGB, upright, writable.
    """

    time: Fraction
    end: Fraction
    image: Array


class DisplayFrameReader:
    """Read all frames of a recording. Use it as a context manager.

    Args:
        path: Path of the recording.
        on_progress: Called at least once per packet read, also while frames are skipped. What it raises ends the
            reading.

    Attributes:
        info: Properties of the video.
        size_px: Width and height of the upright frame with square pixels, as players show it.
        pixel_format: FFmpeg's name of the pixel format; None if unknown.

    Raises:
        RecordingError: FFmpeg cannot read a video from the file; the message gives the reason.
    """

    def __init__(self, path: Path, on_progress: Callable[[], None] = lambda: None) -> None:
        self._path, self._on_progress = path, on_progress
        self._reader = VideoReader(path, on_progress)
        self._can_seek = True
        self.info: VideoInfo = self._reader.info
        self.size_px = _square_pixel_size(self.info, self._reader.pixel_aspect)
        self.pixel_format = self._reader.pixel_format

    def __enter__(self) -> DisplayFrameReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._reader.close()

    def frames(
        self, size_px: tuple[int, int], intervals: Iterable[Interval] = ((Fraction(0), FOREVER),)
    ) -> Iterator[DisplayFrame]:
        """Yield the frames that are on screen during the intervals, in order of time, each once.

        The first frame of an interval may have appeared before it. Frames whose time is not after that of the frame
        before (damaged files have them) are left out.

        Args:
            size_px: Width and height to which frames are scaled.
            intervals: Half-open intervals in seconds, sorted by start; by default the whole recording. Gaps between
                them are skipped by seeking if that is cheaper than decoding.

        Raises:
            RecordingChangedError: The file's size or modification time changed while it was read.
        """
        convert = _ImageConverter(size_px, self.info.rotation)
        latest = Fraction(-1)
        frames = self._with_end(self._reader.decoded())
        current = next(frames, None)
        for start, end in intervals:
            if self._can_seek and current is not None and start - current[0] > _MIN_SEEK_S:
                frames = self._with_end(self._seek(start))
                current = next(frames, None)
            while current is not None and current[0] < end:
                time, frame_end, frame = current
                if frame_end > start and time > latest:
                    yield DisplayFrame(time=time, end=frame_end, image=convert(frame))
                    latest = time
                current = next(frames, None)
        self._reader.check_unchanged()

    def _seek(self, time: Fraction) -> Iterator[tuple[Fraction, Any]]:
        """Return frames from a key frame at or before `time`.

        If the file does not support seeking, return them from the start, and do not try to seek again.
        """
        try:
            return self._reader.decoded_from(time)
        except ResumePointNotFoundError:
            self._can_seek = False
        self._reader.close()
        self._reader = VideoReader(self._path, self._on_progress)
        return self._reader.decoded()

    def _with_end(self, frames: Iterator[tuple[Fraction, Any]]) -> Iterator[tuple[Fraction, Fraction, Any]]:
        """Yield the time of each frame, its end and the frame."""
        previous: tuple[Fraction, Any] | None = None
        for time, frame in frames:
            if previous is not None:
                if time <= previous[0]:
                    continue
                yield previous[0], time, previous[1]
            previous = time, frame
        if previous is not None:
            yield previous[0], previous[0] + self._duration(previous[1]), previous[1]

    def _duration(self, frame: Any) -> Fraction:
        if not frame.duration:
            return 1 / Fraction(self.info.fps or 25)
        return Fraction(frame.duration) * time_base(frame)


class AudioReader:
    """Read the audio packets of a recording. Use it as a context manager.

    Args:
        path: Path of the recording.

    Attributes:
        stream: PyAV's audio stream; None if there is none with a codec that this build of FFmpeg supports.

    Raises:
        RecordingError: FFmpeg cannot read the file; the message gives the reason.
    """

    def __init__(self, path: Path) -> None:
        self._container = open_container(path)
        self._start = container_start(self._container)
        streams = [stream for stream in self._container.streams.audio if stream.codec_context is not None]
        self.stream: Any = streams[0] if streams else None

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._container.close()

    def packets(self, start: Fraction = Fraction(0)) -> Iterator[tuple[Fraction, Any]]:
        """Yield the packets from `start` on, and some before it, with their times on the same clock as frames.

        Packets that cannot be read, have no timestamp or go back in time are skipped: neither decoders nor containers
        accept them.
        """
        if self.stream is None:
            return
        if start > _AUDIO_MARGIN_S:
            self._seek(start - _AUDIO_MARGIN_S)
        tick = time_base(self.stream)
        latest: int | None = None
        for packet in self._demux():
            stamp = packet.dts if packet.pts is None else packet.pts
            if stamp is None or not packet.size or (latest is not None and stamp <= latest):
                continue
            latest, packet.pts, packet.dts = stamp, stamp, stamp  # no audio codec reorders packets
            yield stamp * tick - self._start, packet

    def _seek(self, time: Fraction) -> None:
        with contextlib.suppress(av.error.FFmpegError, OSError):  # without seeking, read from the start
            self._container.seek(int((time + self._start) * av.time_base), backward=True)

    def _demux(self) -> Iterator[Any]:
        failures = 0
        while failures < _MAX_READ_FAILURES:
            try:
                for packet in self._container.demux(self.stream):
                    failures = 0 if packet.size else failures
                    yield packet
                return
            except (av.error.FFmpegError, IndexError, ValueError):  # for IndexError see `VideoReader`
                failures += 1


class _ImageConverter:
    """Convert decoded frames to upright RGB images of one size, with the colours that players show."""

    def __init__(self, size_px: tuple[int, int], rotation: int) -> None:
        self._quarter_turns = -rotation // 90
        self._stored_size_px = size_px if self._quarter_turns % 2 == 0 else size_px[::-1]
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> Array:
        width, height = self._stored_size_px
        shrinks = width * height < frame.width * frame.height
        colorspace = None
        if frame.colorspace == _UNSPECIFIED:
            is_hd = frame.width > _MAX_SD_PX[0] or frame.height > _MAX_SD_PX[1]
            colorspace = Colorspace.ITU709 if is_hd else Colorspace.ITU601
        scaled = self._reformatter.reformat(
            frame, width, height, "rgb24", src_colorspace=colorspace, dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.AREA if shrinks else Interpolation.BICUBIC,
        )  # fmt: skip
        return np.ascontiguousarray(np.rot90(scaled.to_ndarray(), self._quarter_turns))


def _square_pixel_size(info: VideoInfo, pixel_aspect: Fraction) -> tuple[int, int]:
    """Return the size of the upright frame with one side stretched to make its pixels square."""
    width, height = info.size_px
    aspect = pixel_aspect if info.rotation in (0, 180) else 1 / pixel_aspect
    if not 1 / _MAX_PIXEL_ASPECT <= aspect <= _MAX_PIXEL_ASPECT:  # from a damaged header; no camera has it
        return info.size_px
    return (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))
