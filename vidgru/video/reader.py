"""Decode recordings: sampled frames with exact times, upright, and a count of the damage.

Damage never ends a recording early: frames that FFmpeg marks corrupt are sampled like others and counted, packets that
cannot be decoded are counted and skipped.

PyAV (FFmpeg) decodes, because it gives exact presentation times, rotation and damage flags; OpenCV's reader gives none
of them. Each recording is decoded by one thread: with FFmpeg's frame threads a damaged file decodes to different pixels
on each run, and they are not cheaper (on 1080p H.264, two of them raise the CPU time per frame by 15 %). Parallelism
comes from decoding several recordings, or several segments of one, at the same time.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vidgru.errors import RecordingChangedError, RecordingError
from vidgru.types import Array
from vidgru.video.container import (
    JOINABLE,
    VideoInfo,
    container_start,
    file_identity,
    find_video_stream,
    frame_rate,
    open_container,
    probe_stream,
    time_base,
)
from vidgru.video.damage import Damage, count_missing_bytes, scan_packets
from vidgru.video.scaling import FrameScaler
from vidgru.video.timestamps import ClockJoin, SamplingGrid, TimestampSelector

_MAX_READ_FAILURES = 100  # consecutive failed reads after which the rest of the file counts as lost
SEEK_MARGINS_S = (0, 2, 10, 60)  # in containers without an index, a seek may land after its target
_TAIL_TOLERANCE_S = 0.25
_MAX_REORDERED = 32  # upper bound of the frames that a decoder holds back
_JOIN_PACKETS = 2
# Codecs in which packets say whether other frames refer to theirs, and have one frame each.
_SKIPPABLE = ("h264", "hevc")
_EMPTY_BYTES = 16  # packets up to this size may only say that nothing has changed, and give no frame
_DECLARE_DURATION = ("mov", "matroska", "avi", "flv", "asf")  # FFmpeg estimates the duration of other containers


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """The last sample of a finished segment, from which decoding can resume.

    Attributes:
        samples: Number of samples up to and including this one.
        index: Index of its frame among the decoded frames of the source.
        key_pts, key_index: PTS and index of a key frame at or before it, from which decoding gives the same frames
            again. `key_pts` is None if that is not certain (damage so far, or timestamps out of order); decoding then
            starts at the beginning.
        image: SHA-256 of its image, to verify that decoding gives the same one; None if unknown.
    """

    samples: int
    index: int
    key_pts: int | None
    key_index: int
    image: str | None


class ResumePointNotFoundError(Exception):
    """Decoding does not reach the resume point, or gives another image there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SampledFrame:
    """A sampled frame.

    Attributes:
        time_s: Seconds from the start of the container.
        index: Index of the frame among the decoded frames of the source.
        number: Index of the frame among the samples.
        image: uint8 [height, width, 3], RGB, upright, scaled to the requested size.
        resume_point: Where to resume after this sample; None for samples for which it was not requested.
    """

    time_s: float
    index: int
    number: int
    image: Array
    resume_point: ResumePoint | None


def probe(path: Path) -> VideoInfo:
    """Read the properties of a video.

    Raises:
        RecordingError: FFmpeg cannot read a video from the file; the message gives the reason.
    """
    with VideoReader(path) as reader:
        return reader.info


class VideoReader:
    """An open recording. Use it as a context manager, and call one of `sample` or `decoded` once.

    `sample` may be called again with a resume point that has a key frame.

    Opening it decodes the first frame, so an undecodable file fails here.

    Args:
        path: Path of the file.
        on_progress: Called at least once per packet read. What it raises ends the reading.

    Attributes:
        info: Properties of the video.
        identity: Size and modification time of the file when it was opened.
        damage: Damage found so far; complete when `sample` ends.
        end_s: End of the last decoded frame in seconds.

    Raises:
        RecordingError: FFmpeg cannot read a video from the file; the message gives the reason.
    """

    def __init__(self, path: Path, on_progress: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self.damage = Damage()
        self.end_s = 0.0
        self._joins = set[int]()  # PTS of key frames after a packet marked as corrupt, where two files may be joined
        self._needed: frozenset[int] | None = None  # PTS of the frames that have to come; None: all
        self._is_packet_lost = False  # whether a packet between the last two frames gave no frame
        self._errors_before = self._error_count()
        self._on_progress = on_progress
        self.identity = file_identity(path)
        self._container = open_container(path)
        try:
            self._stream = find_video_stream(self._container)
            self._start = container_start(self._container)
            self._tick = time_base(self._stream)
            self._read_end = Fraction(0)  # end of the last packet of any stream
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None:
                errors = self.damage.decode_errors
                raise RecordingError(f"has no frame that can be decoded ({errors} packets failed); copy it again")
            self._first: Any = first
            self._can_skip = self._stream.codec_context.name in _SKIPPABLE and not first[1].interlaced_frame
            self.info = probe_stream(self._container, self._stream, first[1])
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a stored pixel divided by its height; 1 if neither container nor stream declares it."""
        aspect = self._stream.sample_aspect_ratio
        return Fraction(aspect.numerator, aspect.denominator) if aspect else Fraction(1)

    @property
    def pixel_format(self) -> str | None:
        """FFmpeg's name of the pixel format; None if unknown."""
        name: str | None = self._stream.codec_context.pix_fmt
        return name

    def sample(
        self,
        fps: float,
        size_px: tuple[int, int],
        *,
        resume_from: ResumePoint | None = None,
        stop_after: int | None = None,
        resume_point_every: int = 0,
        needed: Iterable[int] | None = None,
    ) -> Iterator[SampledFrame]:
        """Decode the recording and yield its samples in order, by the rule of `SamplingGrid`.

        Args:
            fps: Samples per second.
            size_px: Width and height to which upright frames are scaled.
            resume_from: Start with this sample. It is yielded again, because motion is measured from it.
            stop_after: Stop after this number of samples, counted from the start of the recording; the last one has a
                resume point.
            resume_point_every: Give every n-th sample a resume point; 0 gives it to none.
            needed: PTS of all samples, and of the one to resume from. Other frames are not decoded where no frame
                refers to them, and damage in them is not seen. None decodes every frame.

        Raises:
            RecordingChangedError: The file's size or modification time changed while it was read.
            ResumePointNotFoundError: The sample at `resume_from` is not reached or differs, or damage or decreasing
                timestamps follow it. How a decoder conceals damage, and which timestamps are used, depends on all
                frames before, so decoding has to start at the beginning.
        """
        self._needed = frozenset(needed) if needed is not None and self._can_skip else None
        grid = SamplingGrid(fps)
        scaler = FrameScaler(size_px, self.info.rotation)
        has_seeked = resume_from is not None and resume_from.key_pts is not None
        if resume_from is not None and resume_from.key_pts is not None:
            index, frames = resume_from.key_index - 1, self._frames_from_key(resume_from.key_pts)
        else:
            index, frames = -1, self._all_frames()
        number = 0
        key: tuple[int | None, int] = (None, 0)  # PTS and index of the latest key frame
        latest: Fraction | None = None
        errors, error_countdown = self._error_count(), 0
        for time, frame in frames:
            index += 1
            if frame is None:
                latest = time if latest is None else max(time, latest)
                continue
            # The decoder holds frames back, so a frame next to an error may come many frames after it.
            error_countdown = _MAX_REORDERED if self._error_count() > errors else error_countdown - 1
            self._count_frame_damage(time, frame, latest, near_error=error_countdown > 0, is_first=index == 0)
            has_damage = self._error_count() > errors or bool(self.damage.facts())
            if has_seeked and latest is not None and (has_damage or not self._timestamps.is_steady):
                raise ResumePointNotFoundError
            latest, errors = time if latest is None else max(time, latest), self._error_count()
            if frame.key_frame:
                key = (frame.pts, index)
            if resume_from is not None and index <= resume_from.index:
                if index < resume_from.index:
                    continue
                number = resume_from.samples - 1
                grid.take(time, self._tick)
            elif not grid.is_sample(time, self._tick):
                continue
            image = scaler.scale(frame)
            is_resumed = resume_from is not None and index == resume_from.index
            if resume_from is not None and is_resumed and resume_from.image not in (None, _sha256(image)):
                raise ResumePointNotFoundError
            resume_point = None
            if number + 1 == stop_after or (resume_point_every and (number + 1) % resume_point_every == 0):
                can_seek = not self.damage.facts() and self._timestamps.is_steady
                resume_point = ResumePoint(
                    samples=number + 1,
                    index=index,
                    key_pts=key[0] if can_seek else None,
                    key_index=key[1],
                    image=_sha256(image),
                )
            yield SampledFrame(
                time_s=float(time), index=index, number=number, image=scaler.upright(image), resume_point=resume_point
            )
            number += 1
            if number == stop_after:
                return
        if resume_from is not None and index < resume_from.index:
            raise ResumePointNotFoundError
        self.check_unchanged()
        self._count_file_damage()

    def check_unchanged(self) -> None:
        """Check that the file is still the one that was opened.

        Raises:
            RecordingChangedError: Its size or modification time has changed.
        """
        if file_identity(self.path) != self.identity:
            raise RecordingChangedError("changed while it was read; run again when it is complete")

    def decoded(self) -> Iterator[tuple[Fraction, Any]]:
        """Yield every frame (PyAV's) with its time in seconds from the start of the container."""
        return self._all_frames()

    def decoded_from(self, time: Fraction) -> Iterator[tuple[Fraction, Any]]:
        """Yield frames like `decoded`, from a key frame at or before `time`. It may be called after `decoded`.

        Raises:
            ResumePointNotFoundError: The container does not support seeking, or its timestamps are unreliable.
        """
        if self.info.container == "avi" or self._stream.start_time is None or not self._timestamps.is_steady:
            raise ResumePointNotFoundError
        for margin_s in SEEK_MARGINS_S:
            frames = self._seek(int((time + self._start - margin_s) / self._tick))
            for first in frames:
                if first[0] > time:
                    break
                if first[1].key_frame:
                    return itertools.chain([first], frames)
        raise ResumePointNotFoundError

    # --- decoding ---------------------------------------------------------------------------------------------------

    def _all_frames(self) -> Iterator[tuple[Fraction, Any]]:
        yield self._first
        self._first = None  # frees its memory
        yield from self._frames

    def _frames_from_key(self, pts: int) -> Iterator[tuple[Fraction, Any]]:
        """Yield frames like `_decode` from the key frame with this PTS. Raises ResumePointNotFoundError."""
        self._first = None
        for margin_s in SEEK_MARGINS_S:
            self._frames = self._seek(pts - int(margin_s / self._tick))
            for time, frame in self._frames:
                if frame is None:
                    continue
                if frame.pts is None or frame.pts > pts:
                    break
                if frame.pts == pts:
                    self.damage = Damage()  # frames between the seek's landing and the key frame are not damaged
                    yield time, frame
                    yield from self._frames
                    return
        raise ResumePointNotFoundError

    def _seek(self, pts: int) -> Iterator[tuple[Fraction, Any]]:
        """Seek to a key frame at or before a PTS; return the frames from there. Raises ResumePointNotFoundError."""
        try:
            self._container.seek(pts, stream=self._stream, backward=True)
        except (av.error.FFmpegError, OSError):
            raise ResumePointNotFoundError from None
        return self._decode()

    def _decode(self) -> Iterator[tuple[Fraction, Any]]:
        """Yield frames with their times; None for one that is not needed and was not decoded.

        Packets that cannot be read or decoded are counted and skipped.
        """
        self._timestamps = TimestampSelector()
        join = ClockJoin()
        untimed, is_started = 0, False
        pending: list[int] = []  # PTS of packets whose frame has not come
        unneeded: dict[int, int] = {}  # the same of packets whose frame need not come, with their duration in ticks
        context = self._stream.codec_context
        # FFmpeg invents the timestamps of AVI packets, and those of B-frames wrongly.
        has_packet_pts = self._container.format.name != "avi"
        can_join = self._container.format.name in JOINABLE
        default_rate = frame_rate(self._stream) or Fraction(25)
        for packet in self._demux():
            self._on_progress()
            if packet.stream_index != self._stream.index:
                continue
            is_needed = self._needed is None or packet.pts is None or packet.pts in self._needed
            context.skip_frame = "DEFAULT" if is_needed else "NONREF"
            if packet.pts is not None and not packet.is_discard:
                if not is_needed:
                    unneeded[packet.pts] = packet.duration or 0
                elif packet.size > _EMPTY_BYTES:
                    pending.append(packet.pts)
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, ValueError):
                self.damage.decode_errors += 1
                continue
            for frame in frames:
                if not is_started:
                    self._count_missing_head(pending, frame.pts)
                elif frame.pts is not None and has_packet_pts:
                    self._is_packet_lost = any(pts < frame.pts for pts in pending)
                is_started = True
                pending = [pts for pts in pending if frame.pts is not None and pts > frame.pts][-_MAX_REORDERED:]
                stamp = self._timestamps.select(frame.pts, frame.dts)
                if stamp is None:  # elementary streams have no timestamps
                    time, untimed = untimed / default_rate, untimed + 1
                else:
                    time = stamp * self._tick - self._start
                if unneeded and frame.pts is not None:
                    unneeded.pop(frame.pts, None)
                    for pts in sorted(pts for pts in unneeded if pts < frame.pts):
                        del unneeded[pts]
                        yield pts * self._tick - self._start, None
                duration = frame.duration * self._tick if frame.duration else 1 / default_rate
                joined = join.push(time, duration, frame, is_key=bool(frame.key_frame)) if can_join else [(time, frame)]
                for joined_time, joined_frame in joined:
                    self.end_s = max(self.end_s, float(joined_time + duration))
                    yield joined_time, joined_frame
        yield from join.flush()
        for pts, ticks in sorted(unneeded.items()):
            time = pts * self._tick - self._start
            self.end_s = max(self.end_s, float(time + (ticks * self._tick or 1 / default_rate)))
            yield time, None

    def _demux(self) -> Iterator[Any]:
        """Yield the packets of video and audio; audio shows how far the file extends."""
        streams = [self._stream, *self._container.streams.audio]
        failures, is_flushed = 0, False
        # FFmpeg marks one of the last packets before a join as corrupt, because the count of transport packets breaks
        # off there. The next part starts with a key frame.
        may_be_joined, latest_mark = self._container.format.name == "mpegts", 0
        while failures < _MAX_READ_FAILURES:
            try:
                for packet in self._container.demux(streams):
                    is_video = packet.stream_index == self._stream.index
                    if packet.size:
                        failures = 0
                    elif is_video:  # the flush at the end, which comes again after each failed read
                        if is_flushed:
                            continue
                        is_flushed = True
                    if packet.is_corrupt and is_video:
                        self.damage.decode_errors += 1
                        latest_mark = _JOIN_PACKETS if may_be_joined else 0
                    elif is_video and latest_mark:
                        latest_mark -= 1
                        if packet.is_keyframe and packet.pts is not None:
                            self.damage.decode_errors -= 1
                            self._joins.add(packet.pts)
                            latest_mark = 0
                    if packet.pts is not None:
                        end = (packet.pts + (packet.duration or 0)) * time_base(packet) - self._start
                        self._read_end = max(self._read_end, end)
                    yield packet
                return
            except IndexError:  # PyAV raises it at the end when it flushes a stream that appeared after opening
                failures += 1
            except (av.error.FFmpegError, ValueError):
                self.damage.decode_errors += 1
                failures += 1

    # --- damage -----------------------------------------------------------------------------------------------------

    def _error_count(self) -> int:
        """Return a number that rises with each error of the decoder; its value means nothing."""
        return self.damage.decode_errors + int(av.logging.get_last_error()[0])

    def _count_frame_damage(
        self, time: Fraction, frame: Any, latest: Fraction | None, *, near_error: bool, is_first: bool
    ) -> None:
        """Count the damage of a frame, and a gap before it if there is a sign of lost frames.

        Signs are errors, also some frames back, because packets are read before frames come; and a packet that gave no
        frame. Without a sign, a long step between frames is a pause and not damage.

        Args:
            time: Time of the frame.
            frame: The frame.
            latest: Latest time before it; None for the first frame that was decoded.
            near_error: Whether there was an error at most `_MAX_REORDERED` frames ago.
            is_first: Whether the frame is the first one of the source.
        """
        is_corrupt = bool(frame.is_corrupt)
        self.damage.corrupt_frames += is_corrupt
        if latest is None:
            if not is_first or time <= 0 or not self.info.container.startswith("matroska"):
                return
            # FFmpeg reports a lost Matroska block only in its log.
            latest, near_error = Fraction(0), self._error_count() > self._errors_before
        if time < latest:
            self.damage.backward_frames += 1
        elif self.info.fps and frame.pts not in self._joins and (is_corrupt or near_error or self._is_packet_lost):
            step_s = float(time - latest)
            if step_s > 1.5 / self.info.fps:
                self.damage.gaps += 1
                self.damage.gap_s += step_s - 1 / self.info.fps

    def _count_missing_head(self, packet_pts: list[int], first_pts: int | None) -> None:
        """Count packets before the first frame as a gap: decoders skip to a key frame, and not all report it."""
        lost = packet_pts[: packet_pts.index(first_pts)] if first_pts in packet_pts else []
        if lost and first_pts is not None:
            self.damage.gaps += 1
            self.damage.gap_s += max(float((first_pts - min(lost)) * self._tick), 0.0)

    def _count_file_damage(self) -> None:
        """Compare the end of the file, and of its frames, with what the container declares."""
        self.damage.missing_bytes = count_missing_bytes(self.path, self.info.container)
        self.damage.broken_packets, joins = scan_packets(self.path, self.info.container, self._on_progress)
        self.damage.decode_errors += max(len(self._joins) - joins, 0)
        if not self.info.container.startswith(_DECLARE_DURATION):
            return
        stream, reached_s = self._stream, self.end_s
        # Matroska declares no duration per stream; FFmpeg invents it.
        has_own_duration = stream.duration and stream.start_time is not None
        if has_own_duration and not self.info.container.startswith("matroska"):
            declared_s = float((stream.start_time + stream.duration) * self._tick - self._start)
        else:
            # The container's duration covers all streams, so packets of any of them count.
            declared_s, reached_s = self.info.duration_s or 0.0, max(reached_s, float(self._read_end))
        if declared_s - reached_s > max(_TAIL_TOLERANCE_S, 2 / (self.info.fps or 25)):
            self.damage.missing_tail_s = declared_s - reached_s


def _sha256(image: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()
