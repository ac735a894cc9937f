"""Write videos that browsers play: H.264 with AAC, MP3, FLAC or Opus audio in MP4, its index in front.

Times are kept: a frame appears when its source frame does, also at an uneven frame rate, and the audio stays in sync.
A video is written to a temporary file beside its path and renamed when it is complete.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from vidgru.errors import MissingDependencyError, OutputError, RecordingError
from vidgru.storage import replace_atomic, temporary_path
from vidgru.types import Array
from vidgru.video.container import time_base
from vidgru.video.display_frames import FOREVER, AudioReader

ENCODER = "libx264"

_TICK = Fraction(1, 90_000)  # divides the ticks of MPEG-TS and of most frame rates
# Without B-frames, each frame's decoding time is its presentation time. Otherwise the duration of an MP4 track with an
# uneven frame rate would follow from other frames than the last.
_OPTIONS = {"preset": "veryfast", "crf": "23", "bf": "0"}
_KEY_FRAME_EVERY_S = 2  # so that players seek quickly
_MAX_FPS = 240  # wrong headers declare more, which gives an H.264 level that no browser plays
_BT709 = 1  # AVCOL_PRI_BT709, AVCOL_TRC_BT709, AVCOL_SPC_BT709
# fmt: off
_STORAGE_ERRNOS = {  # errors of disks and folders; FFmpeg's others are about the frames and packets it was given
    errno.EACCES, errno.EBUSY, errno.EDQUOT, errno.EEXIST, errno.EFBIG, errno.EIO, errno.EISDIR, errno.EMFILE,
    errno.ENAMETOOLONG, errno.ENFILE, errno.ENODEV, errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.ENXIO,
    errno.EPERM, errno.EROFS, errno.ESTALE,
}
# fmt: on

_COPIED_CODECS = ("aac", "mp3", "flac", "opus")  # audio that MP4 can hold and browsers can play
_MIN_MP3_HZ = 16_000  # MP4 cannot hold the lower rates of MPEG-2.5
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_DEFAULT_RATE = 48000
_AAC_FRAME = 1024  # samples per AAC frame
_MAX_JITTER_S = Fraction(1, 25)  # audio timestamps are uneven by less; more is a gap or an overlap


class VideoWriter:
    """Write a video. Use it as a context manager; if an exception leaves the block, no file is left.

    Args:
        path: Path of the file; its folder is created.
        size_px: Width and height of the frames, both even.
        fps: Expected frames per second, None if unknown. It only sets the encoder's rate control.
        audio: Audio of the source; None for a silent video.
        start: Time of the source at which the video starts, in seconds.
        end: Time of the source at which the video ends, in seconds.

    Raises:
        MissingDependencyError: PyAV has no H.264 encoder.
        OutputError: The file cannot be written (also raised by all methods).
        RecordingError: FFmpeg cannot encode these frames or this audio (also raised by all methods).
    """

    def __init__(
        self,
        path: Path,
        *,
        size_px: tuple[int, int],
        fps: float | None = None,
        audio: AudioReader | None = None,
        start: Fraction = Fraction(0),
        end: Fraction = FOREVER,
    ) -> None:
        self.path, self.start, self.end = path, start, end
        self._temporary = temporary_path(path)
        self._reformatter = VideoReformatter()
        self._latest_pts = -1
        self._frame_end = start  # end of the latest frame
        with self._translated_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            options = {"movflags": "+faststart"}
            self._container: Any = av.open(str(self._temporary.absolute()), "w", format="mp4", options=options)
        try:
            with self._translated_errors():
                self._video = _add_video_stream(self._container, size_px, min(fps or 25.0, float(_MAX_FPS)))
                self._audio: _CopiedAudio | _EncodedAudio | None = None
                if audio is not None and audio.stream is not None:
                    track = _CopiedAudio if _can_copy(audio.stream.codec_context) else _EncodedAudio
                    self._audio = track(self._container, audio, start, end)
        except BaseException:
            self._discard()
            raise

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            with self._translated_errors():
                self._mux(self._video.encode(None))
                if self._audio is not None:
                    self._audio.write_until(self.end)
                    self._audio.finish()
                self._container.close()
                replace_atomic(self._temporary, self.path)
        except BaseException:
            self._discard()
            raise

    def write(self, image: Array, time: Fraction, end: Fraction) -> None:
        """Append a frame.

        Args:
            image: uint8 [height, width, 3], RGB.
            time: When it appears, in seconds of the source; times before `start` count as `start`.
            end: When it ends, unless another frame replaces it earlier.
        """
        self._frame_end = min(end, self.end)
        time = max(time, self.start)
        pts = max(round((time - self.start) / _TICK), self._latest_pts + 1)
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(image, format="rgb24"), format="yuv420p",
            src_color_range=ColorRange.JPEG, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG,
        )  # fmt: skip
        frame.pts, frame.time_base = pts, _TICK
        self._latest_pts = pts
        with self._translated_errors():
            self._mux(self._video.encode(frame))
            if self._audio is not None:
                self._audio.write_until(time)

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            # The container takes a frame's duration from the next frame; only the last one's own counts.
            packet.duration = max(round((self._frame_end - self.start) / _TICK) - packet.pts, 1)
            self._container.mux(packet)

    def _discard(self) -> None:
        # Delete the file first where the system allows it: closing would move the index of the whole file in front.
        if os.name == "posix":
            self._temporary.unlink(missing_ok=True)
        with suppress(av.error.FFmpegError, OSError, ValueError):
            self._container.close()
        self._temporary.unlink(missing_ok=True)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            if isinstance(error, av.error.FFmpegError) and error.errno not in _STORAGE_ERRNOS:
                raise RecordingError(
                    f"cannot be encoded as H.264 in MP4: {error.strerror or error}; repair or convert it with ffmpeg"
                ) from error
            raise OutputError(
                f"cannot write {self.path}: {error.strerror or error}",
                "free disk space or choose another folder with --out",
            ) from error


def fit_video_size(size_px: tuple[int, int], *, min_px: int, max_px: int) -> tuple[int, int]:
    """Return the frame size to write for a source; both sides are even, because H.264 in yuv420p requires it.

    Args:
        size_px: Width and height of the source.
        min_px: Minimum length of the longer side; smaller sources are enlarged by an integer factor.
        max_px: Maximum length of the longer side; larger sources are shrunk to it.
    """
    longest = max(size_px)
    factor = max_px / longest if longest > max_px else -(-min_px // longest) if longest < min_px else 1
    width, height = (max(round(side * factor / 2) * 2, 2) for side in size_px)
    return width, height


def _add_video_stream(container: Any, size_px: tuple[int, int], fps: float) -> Any:
    try:
        stream = container.add_stream(ENCODER, rate=Fraction(fps).limit_denominator(1001), options=dict(_OPTIONS))
    except (av.codec.codec.UnknownCodecError, ValueError):
        raise MissingDependencyError(
            f"this build of PyAV has no H.264 encoder ({ENCODER})",
            "pip install --force-reinstall --only-binary av av",
        ) from None
    stream.width, stream.height = size_px
    stream.pix_fmt = "yuv420p"
    stream.time_base = _TICK
    context = stream.codec_context
    context.time_base = _TICK
    context.gop_size = max(round(_KEY_FRAME_EVERY_S * fps), 1)
    context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
    context.color_primaries = context.color_trc = _BT709
    return stream


# --- audio ------------------------------------------------------------------------------------------------------------


def _can_copy(codec_context: Any) -> bool:
    """Return whether MP4 can hold the audio as it is, and browsers can play it."""
    name = codec_context.codec.canonical_name
    return name in _COPIED_CODECS and (name != "mp3" or codec_context.sample_rate >= _MIN_MP3_HZ)


class _CopiedAudio:
    """An audio track with the packets of the source. Packets that the container rejects as damaged are left out.

    Args:
        container: PyAV's output container, to which the track is added.
        source: Audio of the source, with a stream.
        start: Time of the source at which the video starts, in seconds.
        end: Time of the source at which the video ends, in seconds.
    """

    def __init__(self, container: Any, source: AudioReader, start: Fraction, end: Fraction) -> None:
        self._container = container
        self._track = container.add_stream_from_template(source.stream)
        self._start, self._end = start, end
        self._packets = source.packets(start)
        self._next = next(self._packets, None)

    def write_until(self, time: Fraction) -> None:
        """Write the packets that start before a time, in seconds of the source."""
        while self._next is not None and self._next[0] < min(time, self._end):
            packet_time, packet = self._next
            tick = time_base(packet)
            # The packet that contains the start gets a negative time, and players hide what is before 0. The packet
            # before it is needed too, because decoders make the audio of a packet from it and the previous one.
            if packet_time + 2 * (packet.duration or 0) * tick > self._start:
                packet.pts = packet.dts = round((packet_time - self._start) / tick)
                packet.stream = self._track
                with suppress(av.error.InvalidDataError, av.error.PatchWelcomeError):
                    self._container.mux(packet)
            self._next = next(self._packets, None)

    def finish(self) -> None:
        """Do nothing: no packet is held back."""


class _EncodedAudio:
    """An audio track that is decoded, cut to the sample and encoded as AAC, mono or stereo. Gaps become silence.

    Args:
        container, source, start, end: As for `_CopiedAudio`.
    """

    def __init__(self, container: Any, source: AudioReader, start: Fraction, end: Fraction) -> None:
        context = source.stream.codec_context
        self._rate = context.sample_rate if context.sample_rate in _AAC_RATES else _DEFAULT_RATE
        self._layout = "mono" if context.layout.nb_channels == 1 else "stereo"
        self._container = container
        self._track = container.add_stream("aac", rate=self._rate)
        self._track.codec_context.layout = self._layout
        self._tick = time_base(source.stream)
        self._start, self._end = start, end
        self._packets = source.packets(start)
        self._next = next(self._packets, None)
        self._source_format: tuple[str, str, int] | None = None  # format, layout and rate that the resampler takes
        self._buffer = np.zeros((1 if self._layout == "mono" else 2, 0), np.float32)
        self._encoded_samples = 0
        self._is_started = False

    def write_until(self, time: Fraction) -> None:
        """Write the packets that start before a time, in seconds of the source."""
        while self._next is not None and self._next[0] < min(time, self._end):
            packet_time, packet = self._next
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, ValueError):  # damaged: becomes silence
                frames = []
            for frame in frames:
                delay = 0 if frame.pts is None else frame.pts - packet.pts
                self._append(packet_time + delay * self._tick, self._resample(frame))
            self._next = next(self._packets, None)

    def finish(self) -> None:
        """Write the rest of the buffer and the packets that the encoder holds back."""
        if self._buffer.shape[1]:
            self._encode(self._buffer)
        for packet in self._track.encode(None):
            self._container.mux(packet)

    def _resample(self, frame: Any) -> Array:
        source_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        if source_format != self._source_format:
            self._source_format = source_format
            self._resampler = av.AudioResampler(format="fltp", layout=self._layout, rate=self._rate)
        frame.pts = None
        pieces = [piece.to_ndarray() for piece in self._resampler.resample(frame)]
        return np.concatenate([self._buffer[:, :0], *pieces], axis=1)

    def _append(self, time: Fraction, samples: Array) -> None:
        """Append samples at their time: after silence if there is a gap before them, cut if they overlap."""
        gap = round((time - self._start) * self._rate) - self._encoded_samples - self._buffer.shape[1]
        if self._is_started and abs(gap) <= _MAX_JITTER_S * self._rate:
            gap = 0
        while gap > 0:
            silence = np.zeros((len(samples), min(gap, _AAC_FRAME)), np.float32)
            gap -= silence.shape[1]
            self._push(silence)
        samples = samples[:, -gap:] if gap else samples
        if samples.shape[1]:
            self._is_started = True
            self._push(samples)

    def _push(self, samples: Array) -> None:
        """Add samples to the buffer, cut at the end of the video, and encode its whole frames."""
        self._buffer = np.concatenate([self._buffer, samples], axis=1)
        if self._end < FOREVER:
            remaining = max(int((self._end - self._start) * self._rate) - self._encoded_samples, 0)
            self._buffer = self._buffer[:, :remaining]
        while self._buffer.shape[1] >= _AAC_FRAME:
            self._encode(self._buffer[:, :_AAC_FRAME])
            self._buffer = self._buffer[:, _AAC_FRAME:]

    def _encode(self, samples: Array) -> None:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._encoded_samples, Fraction(1, self._rate)
        self._encoded_samples += samples.shape[1]
        for packet in self._track.encode(frame):
            self._container.mux(packet)
