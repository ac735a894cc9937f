"""Decode recordings: sampled frames with exact time, upright, and a count of what was damaged.

Decoding is PyAV's (FFmpeg): it gives exact presentation times, rotation and damage flags, where OpenCV's reader gives
none of them. Each recording is decoded by one thread. With FFmpeg's frame threads a damaged file decodes to other
pixels on each run, and they are not cheaper: on 1080p H.264 two of them raise the CPU time of a frame by 15 %.
Parallelism comes from decoding several recordings at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from vidgru.errors import RecordingChanged, RecordingError
from vidgru.extract.times import Clock, container_start, frame_rate, recorded_at
from vidgru.types import Array

LONGEST_SIDE_PX = 16384
MOST_PIXELS = 100_000_000
_READ_FAILURES = 100  # reads that fail in a row, after which the rest of the file counts as lost
_TAIL_TOLERANCE_S = 0.25
_ANNOUNCING = ("mov", "matroska", "avi", "flv", "asf")  # containers whose header tells the duration; others estimate it
_SCALING = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a container says of its video, without decoding it.

    Attributes:
        size_px: width and height of the upright frame (rotation applied).
        rotation: degrees the stored frame is turned clockwise to stand upright: 0, 90, 180, 270.
        duration_s: of the whole container, as players show it; None if it does not say.
        fps: average frames a second; None if unknown.
        frames: number of frames the container announces; None if it does not say.
        codec: FFmpeg's name of the codec.
        container: FFmpeg's name of the container format.
        recorded_at: ISO 8601 time at which the recording was made; None if the container does not say.
    """

    size_px: tuple[int, int]
    rotation: int
    duration_s: float | None
    fps: float | None
    frames: int | None
    codec: str
    container: str
    recorded_at: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One sampled frame.

    Attributes:
        time_s: seconds from the start of the container.
        index: number of the frame among the decoded frames of the source.
        image: uint8 [height, width, 3] RGB, upright, scaled to the size asked for.
    """

    time_s: float
    index: int
    image: Array


@dataclass(kw_only=True)
class Damage:
    """What was wrong with a recording. All zero for a good one, also where its frame rate varies or has pauses.

    Attributes:
        corrupt_frames: frames the decoder marked as damaged.
        decode_errors: packets that could not be decoded, or not be read.
        gaps, gap_s: stretches without a frame beside such errors, their number and sum in seconds.
        backward_frames: frames whose time lies before that of an earlier frame.
        missing_tail_s: seconds the container announces after its last frame.
    """

    corrupt_frames: int = 0
    decode_errors: int = 0
    gaps: int = 0
    gap_s: float = 0.0
    backward_frames: int = 0
    missing_tail_s: float = 0.0

    def facts(self) -> dict[str, int | float]:
        """The counts that are not zero, seconds rounded to milliseconds."""
        values = {name: getattr(self, name) for name in Damage.__dataclass_fields__}
        return {name: round(value, 3) for name, value in values.items() if value}

    def __str__(self) -> str:
        words = {
            "corrupt_frames": "{} corrupt frames",
            "decode_errors": "{} decode errors",
            "gaps": "{} gaps",
            "gap_s": "{} s in gaps",
            "backward_frames": "{} frames that go back in time",
            "missing_tail_s": "last {} s missing",
        }
        return ", ".join(words[name].format(value) for name, value in self.facts().items())


def probe(path: Path) -> VideoInfo:
    """Read what the container of `path` says of its video.

    Raises:
        RecordingError: it is not a file with a video that FFmpeg can read; the message says what it is.
    """
    with VideoReader(path) as reader:
        return reader.info


class VideoReader:
    """An open recording, its first frame decoded. Use it in a `with` block; `sample` can be called once.

    Args:
        path: the file.

    Attributes:
        info: what the container says.
        identity: the file's size and modification time when it was opened.
        damage: filled while `sample` runs.
        end_s: end of the last decoded frame in seconds, filled while `sample` runs.

    Raises:
        RecordingError: it is not a file with a video that FFmpeg can read; the message says what it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = Damage()
        self.end_s = 0.0
        self.identity = file_identity(path)
        if not path.is_file():
            raise RecordingError("is not a file")
        if not self.identity[0]:
            raise RecordingError("is empty (0 bytes); copy it again")
        try:
            self._container: Any = av.open(
                str(path.absolute()), metadata_errors="replace"
            )  # "12:30.mp4" would be a protocol
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise RecordingError(
                f"is not a video that can be read: {_why(error)}; copy it again, or repair it with ffmpeg"
            ) from None
        try:
            self._stream = self._video_stream()
            self._start = container_start(self._container)
            self._tick = Fraction(self._stream.time_base.numerator, self._stream.time_base.denominator)
            self._read_end = Fraction(0)  # end of the last packet of any stream
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None:
                errors = self.damage.decode_errors
                raise RecordingError(f"no frame of it can be decoded ({errors} packets failed); copy it again")
            self._first = first
            self.info = self._describe(first[1])
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._container.close()

    def sample(self, fps: float, size_px: tuple[int, int]) -> Iterator[Frame]:
        """Decode the recording and yield its samples in order.

        The sample of grid point `k / fps` is the first frame with `time_s >= k / fps`, within half a tick of the
        stream's time base. A frame is taken once, so a gap or a slow source gives fewer samples.

        Args:
            fps: samples a second.
            size_px: width and height the upright frames are scaled to.

        Raises:
            RecordingChanged: the file's size or modification time changed while it was read.
        """
        rate = Fraction(repr(float(fps)))
        turns = -self.info.rotation // 90
        width, height = size_px if turns % 2 == 0 else size_px[::-1]
        scaler = VideoReformatter()
        next_point, latest, errors = 0, Fraction(-1), 0
        for index, (time, frame) in enumerate(self._with_first()):
            corrupt = bool(frame.is_corrupt)
            self.damage.corrupt_frames += corrupt
            if time < latest:
                self.damage.backward_frames += 1
            elif index and (corrupt or self.damage.decode_errors > errors):
                self._note_gap(float(time - latest))
            errors = self.damage.decode_errors
            latest = max(time, latest)
            point = (time + self._tick / 2) * rate
            if point < next_point:
                continue
            next_point = int(point) + 1
            small = scaler.reformat(
                frame, width, height, "rgb24", interpolation=_SCALING, dst_color_range=ColorRange.JPEG, threads=1
            )
            image = small.to_ndarray()
            yield Frame(time_s=float(time), index=index, image=np.rot90(image, turns) if turns else image)
        self._note_missing_tail()
        if file_identity(self.path) != self.identity:
            raise RecordingChanged("changed while it was read; run again when it is complete")

    # --- decoding ---------------------------------------------------------------------------------------------------

    def _with_first(self) -> Iterator[tuple[Fraction, Any]]:
        yield self._first
        del self._first
        yield from self._frames

    def _decode(self) -> Iterator[tuple[Fraction, Any]]:
        """All frames with their times. Packets that cannot be read or decoded are counted and passed over."""
        untimed, clock = 0, Clock()
        fallback = frame_rate(self._stream) or Fraction(25)
        for packet in self._demux():
            if packet.stream_index != self._stream.index:
                continue
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, ValueError):
                self.damage.decode_errors += 1
                continue
            for frame in frames:
                stamp = clock.stamp(frame.pts, frame.dts)
                if stamp is None:  # elementary streams carry no times
                    time, untimed = untimed / fallback, untimed + 1
                else:
                    time = stamp * self._tick - self._start
                end = time + (frame.duration * self._tick if frame.duration else 1 / fallback)
                self.end_s = max(self.end_s, float(end))
                yield time, frame

    def _demux(self) -> Iterator[Any]:
        """All packets of the video, and of its sound, which tells how far the file goes."""
        streams = [self._stream, *self._container.streams.audio]
        failures = 0
        while failures < _READ_FAILURES:
            try:
                for packet in self._container.demux(streams):
                    if packet.size:
                        failures = 0
                    if packet.is_corrupt and packet.stream_index == self._stream.index:
                        self.damage.decode_errors += 1
                    if packet.pts is not None:
                        tick = Fraction(packet.time_base.numerator, packet.time_base.denominator)
                        end = (packet.pts + (packet.duration or 0)) * tick - self._start
                        self._read_end = max(self._read_end, end)
                    yield packet
                return
            except (av.error.FFmpegError, ValueError):
                self.damage.decode_errors += 1
                failures += 1

    # --- facts and damage -------------------------------------------------------------------------------------------

    def _video_stream(self) -> Any:
        pictures = Disposition.attached_pic | Disposition.timed_thumbnails
        streams = [s for s in self._container.streams.video if not s.disposition & pictures]
        if not streams:
            kinds = sorted({s.type for s in self._container.streams}) or ["nothing"]
            raise RecordingError(f"has no video stream, only {' and '.join(kinds)}")
        stream = streams[0]
        context = stream.codec_context
        if context is None:
            raise RecordingError("its video codec is not known to this build of FFmpeg; convert it to H.264")
        width, height = context.width, context.height
        if max(width, height) > LONGEST_SIDE_PX or width * height > MOST_PIXELS:
            raise RecordingError(f"its frames are too large: {width}x{height}, the limit is {LONGEST_SIDE_PX} a side")
        context.thread_type, context.thread_count = "NONE", 1
        return stream

    def _describe(self, frame: Any) -> VideoInfo:
        stream = self._stream
        rotation = -round(frame.rotation / 90) % 4 * 90
        rate = frame_rate(stream)
        duration = self._container.duration
        return VideoInfo(
            size_px=(frame.height, frame.width) if rotation in (90, 270) else (frame.width, frame.height),
            rotation=rotation,
            duration_s=duration / av.time_base if duration else None,
            fps=float(rate) if rate else None,
            frames=stream.frames or None,
            codec=stream.codec_context.name,
            container=self._container.format.name,
            recorded_at=recorded_at(self._container.metadata, stream.metadata),
        )

    def _note_gap(self, seconds: float) -> None:
        """Count a stretch without frames beside an error. Without an error it is a pause, and no damage."""
        if self.info.fps and seconds > 1.5 / self.info.fps:
            self.damage.gaps += 1
            self.damage.gap_s += seconds - 1 / self.info.fps

    def _note_missing_tail(self) -> None:
        """Compare how far the frames (or packets, where only the container has a length) go with what is announced."""
        if not self.info.container.startswith(_ANNOUNCING):
            return
        stream, reached = self._stream, self.end_s
        if stream.duration and stream.start_time is not None:
            announced = float((stream.start_time + stream.duration) * self._tick - self._start)
        else:
            announced, reached = self.info.duration_s or 0.0, max(reached, float(self._read_end))
        if announced - reached > max(_TAIL_TOLERANCE_S, 2 / (self.info.fps or 25)):
            self.damage.missing_tail_s = announced - reached


def file_identity(path: Path) -> tuple[int, int]:
    """Size and modification time (ns): what changes when a file does. Raises RecordingError."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise RecordingError(f"cannot be opened: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
