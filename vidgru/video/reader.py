"""Decode recordings: sampled frames with exact time, upright, and a count of what was damaged.

Decoding is PyAV's (FFmpeg): it gives exact presentation times, rotation and damage flags, where OpenCV's reader gives
none of them. Each recording is decoded by one thread. With FFmpeg's frame threads a damaged file decodes to other
pixels on each run, and they are not cheaper: on 1080p H.264 two of them raise the CPU time of a frame by 15 %.
Parallelism comes from decoding several recordings at once.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vidgru.errors import RecordingChangedError, RecordingError
from vidgru.types import Array
from vidgru.video.container import (
    VideoInfo,
    container_start,
    file_identity,
    find_video_stream,
    frame_rate,
    open_container,
    probe_stream,
)
from vidgru.video.integrity import Damage, broken_packets, missing_bytes
from vidgru.video.scaling import FrameScaler
from vidgru.video.timestamps import TimestampSelector


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """The last sample of a stretch that is done: where decoding can go on.

    Attributes:
        samples: how many there are up to it, itself included.
        index: of its frame among the decoded frames of the source.
        key_pts, key_index: stamp and index of a key frame at or before it, from which decoding gives the same frames
            again. None where that is not sure (damaged so far, times out of order): then it goes from the start.
        image: hash of its image, which has to come out the same; None where none is known.
    """

    samples: int
    index: int
    key_pts: int | None
    key_index: int
    image: str | None


class ResumePointNotFoundError(Exception):
    """Decoding does not come by the place at which it was to go on."""


_READ_FAILURES = 100  # reads that fail in a row, after which the rest of the file counts as lost
_SEEKS_BACK_S = (0, 2, 10, 60)  # containers without an index may land behind what was sought
_TAIL_TOLERANCE_S = 0.25
_MOST_REORDERED = 32  # frames that a decoder holds back, and more
_EMPTY_BYTES = 16  # packets up to it may say no more than that nothing has changed
_ANNOUNCING = ("mov", "matroska", "avi", "flv", "asf")  # containers whose header tells the duration; others estimate it


@dataclass(frozen=True, kw_only=True, eq=False)
class SampledFrame:
    """One sampled frame.

    Attributes:
        time_s: seconds from the start of the container.
        index: number of the frame among the decoded frames of the source.
        number: place among the samples, from 0.
        image: uint8 [height, width, 3] RGB, upright, scaled to the size asked for.
        place: where to go on after it; only for the samples that were asked to be marked.
    """

    time_s: float
    index: int
    number: int
    image: Array
    resume_point: ResumePoint | None


def probe(path: Path) -> VideoInfo:
    """Read what the container of `path` says of its video.

    Raises:
        RecordingError: it is not a file with a video that FFmpeg can read; the message says what it is.
    """
    with VideoReader(path) as reader:
        return reader.info


class VideoReader:
    """An open recording, its first frame decoded. Use it in a `with` block; call `sample` or `decoded`, and that once.

    Args:
        path: the file.
        on_progress: called as it is read, at least once a packet.

    Attributes:
        info: what the container says.
        identity: the file's size and modification time when it was opened.
        damage: filled while `sample` runs.
        end_s: end of the last decoded frame in seconds, filled while `sample` runs.

    Raises:
        RecordingError: it is not a file with a video that FFmpeg can read; the message says what it is.
    """

    def __init__(self, path: Path, on_progress: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self.damage = Damage()
        self.end_s = 0.0
        self._passed_over = False  # a packet gave no frame between the last two
        self._errors_before = self._errors()
        self._on_progress = on_progress
        self.identity = file_identity(path)
        self._container = open_container(path)
        try:
            self._stream = find_video_stream(self._container)
            self._start = container_start(self._container)
            self._tick = Fraction(self._stream.time_base.numerator, self._stream.time_base.denominator)
            self._read_end = Fraction(0)  # end of the last packet of any stream
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None:
                errors = self.damage.decode_errors
                raise RecordingError(f"no frame of it can be decoded ({errors} packets failed); copy it again")
            self._first = first
            self.info = probe_stream(self._container, self._stream, first[1])
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._container.close()

    def sample(
        self,
        fps: float,
        size_px: tuple[int, int],
        *,
        resume_from: ResumePoint | None = None,
        stop_after: int | None = None,
        resume_point_every: int = 0,
    ) -> Iterator[SampledFrame]:
        """Decode the recording and yield its samples in order.

        The sample of grid point `k / fps` is the first frame with `time_s >= k / fps`, within half a tick of the
        stream's time base. A frame is taken once, so a gap or a slow source gives fewer samples.

        Args:
            fps: samples a second.
            size_px: width and height the upright frames are scaled to.
            after: begin with this sample, given once more because motion is measured from it.
            until: end after so many samples, counted from the start of the recording, and tell the place.
            resume_point_every: every so many samples, tell the place.

        Raises:
            RecordingChangedError: the file's size or modification time changed while it was read.
            ResumePointNotFoundError: the sample `after` does not come out as it was, or what follows is damaged: how a
                decoder
                fills in what is missing depends on all it has seen, so that it has to begin at the start.
        """
        rate = Fraction(repr(float(fps)))
        scaler = FrameScaler(size_px, self.info.rotation)
        number, next_point = 0, 0
        key: tuple[int | None, int] = (None, 0)
        latest: Fraction | None = None
        errors, erring = self._errors(), 0
        index, frames = -1, self._with_first()
        if resume_from is not None and resume_from.key_pts is not None:
            index, frames = resume_from.key_index - 1, self._from_key(resume_from.key_pts)
        for time, frame in frames:
            index += 1
            erring = _MOST_REORDERED if self._errors() > errors else erring - 1
            self._note_damage(time, frame, latest, erring > 0, index == 0)
            wrong = latest is not None and (self._errors() > errors or self.damage.facts())
            if wrong and resume_from is not None and resume_from.key_pts is not None:
                raise ResumePointNotFoundError
            latest, errors = time if latest is None else max(time, latest), self._errors()
            if frame.key_frame:
                key = (frame.pts, index)
            point = (time + self._tick / 2) * rate
            if resume_from is not None and index <= resume_from.index:
                if index < resume_from.index:
                    continue
                number = resume_from.samples - 1
            elif point < next_point:
                continue
            next_point = int(point) + 1
            image = scaler.scale(frame)
            place = None
            if number + 1 == stop_after or (resume_point_every and (number + 1) % resume_point_every == 0):
                place = self._place(number + 1, index, key, image)
            if (
                resume_from is not None
                and index == resume_from.index
                and resume_from.image not in (None, _digest(image))
            ):
                raise ResumePointNotFoundError
            yield SampledFrame(
                time_s=float(time), index=index, number=number, image=scaler.upright(image), resume_point=place
            )
            number += 1
            if number == stop_after:
                return
        if resume_from is not None and index < resume_from.index:
            raise ResumePointNotFoundError
        self.check_unchanged()
        self._note_missing_tail()

    def check_unchanged(self) -> None:
        """Raises RecordingChangedError where the file's size or modification time is not what it was at the opening."""
        if file_identity(self.path) != self.identity:
            raise RecordingChangedError("changed while it was read; run again when it is complete")

    def decoded(self) -> Iterator[tuple[Fraction, Any]]:
        """Every frame as the decoder gives it (PyAV's), and its time in seconds from the start of the container."""
        return self._with_first()

    def decoded_from(self, time: Fraction) -> Iterator[tuple[Fraction, Any]]:
        """As `decoded`, from a key frame on that is not after this time; it may be called after either.

        Raises:
            ResumePointNotFoundError: the container cannot be sought in, or its times are not to be relied on.
        """
        if self.info.container == "avi" or self._stream.start_time is None or not self._clock.steady:
            raise ResumePointNotFoundError
        for back_s in _SEEKS_BACK_S:
            pts = int((time + self._start - back_s) / self._tick)
            try:
                self._container.seek(pts, stream=self._stream, backward=True)
            except (av.error.FFmpegError, OSError):
                raise ResumePointNotFoundError from None
            frames = self._decode()
            for first in frames:
                if first[0] > time:
                    break
                if first[1].key_frame:
                    return itertools.chain([first], frames)
        raise ResumePointNotFoundError

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a stored pixel by its height; 1 where the container and the stream do not say."""
        aspect = self._stream.sample_aspect_ratio
        return Fraction(aspect.numerator, aspect.denominator) if aspect else Fraction(1)

    # --- decoding ---------------------------------------------------------------------------------------------------

    def _with_first(self) -> Iterator[tuple[Fraction, Any]]:
        yield self._first
        del self._first
        yield from self._frames

    def _from_key(self, pts: int) -> Iterator[tuple[Fraction, Any]]:
        """The frames from the key frame with this stamp on. Raises PlaceNotFound."""
        del self._first
        for back_s in _SEEKS_BACK_S:
            try:
                self._container.seek(pts - int(back_s / self._tick), stream=self._stream, backward=True)
            except (av.error.FFmpegError, OSError):
                raise ResumePointNotFoundError from None
            self._frames = self._decode()
            for time, frame in self._frames:
                if frame.pts is None or frame.pts > pts:
                    break
                if frame.pts == pts:
                    self.damage = Damage()  # what a seek lands amidst of is no damage
                    yield time, frame
                    yield from self._frames
                    return
        raise ResumePointNotFoundError

    def _place(self, samples: int, index: int, key: tuple[int | None, int], image: Array) -> ResumePoint:
        sure = not self.damage.facts() and self._clock.steady
        return ResumePoint(
            samples=samples, index=index, key_pts=key[0] if sure else None, key_index=key[1], image=_digest(image)
        )

    def _decode(self) -> Iterator[tuple[Fraction, Any]]:
        """All frames with their times. Packets that cannot be read or decoded are counted and passed over."""
        untimed, self._clock, begun = 0, TimestampSelector(), False
        waiting: list[int] = []  # stamps of packets whose frame has not come
        stamped = self._container.format.name != "avi"  # there FFmpeg makes the stamps up, those of B-frames wrongly
        fallback = frame_rate(self._stream) or Fraction(25)
        for packet in self._demux():
            self._on_progress()
            if packet.stream_index != self._stream.index:
                continue
            if packet.pts is not None and packet.size > _EMPTY_BYTES and not packet.is_discard:
                waiting.append(packet.pts)
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, ValueError):
                self.damage.decode_errors += 1
                continue
            for frame in frames:
                if not begun:
                    self._note_missing_head(waiting, frame.pts)
                elif frame.pts is not None and stamped:
                    self._passed_over = any(stamp < frame.pts for stamp in waiting)
                begun = True
                waiting = [stamp for stamp in waiting if frame.pts is not None and stamp > frame.pts][-_MOST_REORDERED:]
                stamp = self._clock.stamp(frame.pts, frame.dts)
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
        failures, flushed = 0, False
        while failures < _READ_FAILURES:
            try:
                for packet in self._container.demux(streams):
                    ours = packet.stream_index == self._stream.index
                    if packet.size:
                        failures = 0
                    elif ours:
                        if flushed:
                            continue
                        flushed = True
                    if packet.is_corrupt and ours:
                        self.damage.decode_errors += 1
                    if packet.pts is not None:
                        tick = Fraction(packet.time_base.numerator, packet.time_base.denominator)
                        end = (packet.pts + (packet.duration or 0)) * tick - self._start
                        self._read_end = max(self._read_end, end)
                    yield packet
                return
            except IndexError:  # PyAV's, when at the end it flushes a stream that has turned up since the opening
                failures += 1
            except (av.error.FFmpegError, ValueError):
                self.damage.decode_errors += 1
                failures += 1

    # --- facts and damage -------------------------------------------------------------------------------------------

    def _errors(self) -> int:
        """What went wrong so far, in numbers that mean something only by rising."""
        return self.damage.decode_errors + int(av.logging.get_last_error()[0])

    def _note_damage(self, time: Fraction, frame: Any, latest: Fraction | None, erring: bool, first: bool) -> None:
        """Count what is wrong with a frame, and a stretch without frames before it if there is a sign of a loss.

        Signs are an error, also one a while before, since frames come after later packets were read; and a packet that
        gave no frame. Without any such a stretch is a pause, and no damage.
        """
        corrupt = bool(frame.is_corrupt)
        self.damage.corrupt_frames += corrupt
        if latest is None:
            if not first or time <= 0 or not self.info.container.startswith("matroska"):
                return
            latest, erring = Fraction(0), self._errors() > self._errors_before  # a lost block is told in the log alone
        if time < latest:
            self.damage.backward_frames += 1
        elif self.info.fps and (corrupt or erring or self._passed_over):
            seconds = float(time - latest)
            if seconds > 1.5 / self.info.fps:
                self.damage.gaps += 1
                self.damage.gap_s += seconds - 1 / self.info.fps

    def _note_missing_head(self, stamps: list[int], first: Any) -> None:
        """Count what lay before the first frame: decoders pass over all up to a key frame, and not all say so."""
        lost = stamps[: stamps.index(first)] if first in stamps else []
        if lost:
            self.damage.gaps += 1
            self.damage.gap_s += max(float((first - min(lost)) * self._tick), 0.0)

    def _note_missing_tail(self) -> None:
        """Compare how far the file and its frames go with what is announced.

        Where only the container has a length, packets of any stream count as frames.
        """
        self.damage.missing_bytes = missing_bytes(self.path, self.info.container)
        self.damage.broken_packets = broken_packets(self.path, self.info.container, self._on_progress)
        if not self.info.container.startswith(_ANNOUNCING):
            return
        stream, reached = self._stream, self.end_s
        guessed = self.info.container.startswith("matroska")  # of a stream FFmpeg can only make up a length there
        if stream.duration and stream.start_time is not None and not guessed:
            announced = float((stream.start_time + stream.duration) * self._tick - self._start)
        else:
            announced, reached = self.info.duration_s or 0.0, max(reached, float(self._read_end))
        if announced - reached > max(_TAIL_TOLERANCE_S, 2 / (self.info.fps or 25)):
            self.damage.missing_tail_s = announced - reached


def _digest(image: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()
