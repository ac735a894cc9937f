"""Films that browsers play: H.264 with AAC, MP3, FLAC or Opus sound in MP4, its index in front.

Times are kept: a frame comes on when its source's did, also where frames are unevenly spaced, and the sound stays with
them. Films are written beside their place and renamed when they are whole.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
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
from vidgru.video.display_frames import FOREVER, AudioReader

_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)  # that AAC has
_USUAL_RATE = 48000
_FRAME = 1024  # samples of an AAC frame
_SLACK_S = Fraction(1, 25)  # stamps of sound are uneven by less; more is a gap, or an overlap

Mux = Callable[[Any], None]


class CopiedAudio:
    """A sound track whose packets are the source's own. Those that the container refuses as damaged are left out.

    Args:
        container: PyAV's, of the film; the track is added to it.
        source: the sound; it has a stream.
        start, end: seconds of the source between which the film lies.
    """

    def __init__(self, container: Any, source: AudioReader, start: Fraction, end: Fraction) -> None:
        self._track = container.add_stream_from_template(source.stream)
        self._start, self._end = start, end
        self._packets = source.packets(start)
        self._ahead = next(self._packets, None)

    def play(self, until: Fraction, mux: Mux) -> None:
        """Write what begins before this time, in seconds of the source."""
        while self._ahead is not None and self._ahead[0] < min(until, self._end):
            time, packet = self._ahead
            tick = Fraction(packet.time_base.numerator, packet.time_base.denominator)
            # What begins before the film gets a time below 0, and players leave it out; the one before it too, for
            # decoders make the sound of a packet from it and the one before.
            if time + 2 * (packet.duration or 0) * tick > self._start:
                packet.pts = packet.dts = round((time - self._start) / tick)
                packet.stream = self._track
                with suppress(av.error.InvalidDataError, av.error.PatchWelcomeError):
                    mux(packet)
            self._ahead = next(self._packets, None)

    def finish(self, mux: Mux) -> None:
        """Nothing follows."""


class EncodedAudio:
    """A sound track that is decoded, cut to the sample and encoded as AAC, mono or stereo. Gaps become silence.

    Args:
        container, source, start, end: as `CopiedAudio` has them.
    """

    def __init__(self, container: Any, source: AudioReader, start: Fraction, end: Fraction) -> None:
        context = source.stream.codec_context
        self._rate = context.sample_rate if context.sample_rate in _RATES else _USUAL_RATE
        self._layout = "mono" if context.layout.nb_channels == 1 else "stereo"
        self._track = container.add_stream("aac", rate=self._rate)
        self._track.codec_context.layout = self._layout
        self._tick = Fraction(source.stream.time_base.numerator, source.stream.time_base.denominator)
        self._start, self._end = start, end
        self._packets = source.packets(start)
        self._ahead = next(self._packets, None)
        self._kind: tuple[str, str, int] | None = None  # of what the resampler was made for
        self._waiting = np.zeros((1 if self._layout == "mono" else 2, 0), np.float32)
        self._written = 0  # samples that went to the encoder
        self._begun = False

    def play(self, until: Fraction, mux: Mux) -> None:
        """Write what begins before this time, in seconds of the source."""
        while self._ahead is not None and self._ahead[0] < min(until, self._end):
            time, packet = self._ahead
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, ValueError):  # damaged: silence
                frames = []
            for frame in frames:
                late = 0 if frame.pts is None else frame.pts - packet.pts
                self._append(time + late * self._tick, self._resampled(frame), mux)
            self._ahead = next(self._packets, None)

    def finish(self, mux: Mux) -> None:
        """Nothing follows: write what is left, and what the encoder holds back."""
        if self._waiting.shape[1]:
            self._encode(self._waiting, mux)
        for packet in self._track.encode(None):
            mux(packet)

    def _resampled(self, frame: Any) -> Array:
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            self._kind = kind
            self._resampler = av.AudioResampler(format="fltp", layout=self._layout, rate=self._rate)
        frame.pts = None
        pieces = [piece.to_ndarray() for piece in self._resampler.resample(frame)]
        return np.concatenate([self._waiting[:, :0], *pieces], axis=1)

    def _append(self, time: Fraction, samples: Array, mux: Mux) -> None:
        """Put samples where they belong: they follow on, or there is a gap before them, or they overlap."""
        ahead = round((time - self._start) * self._rate) - self._written - self._waiting.shape[1]
        if self._begun and abs(ahead) <= _SLACK_S * self._rate:
            ahead = 0
        while ahead > 0:
            silence = np.zeros((len(samples), min(ahead, _FRAME)), np.float32)
            ahead -= silence.shape[1]
            self._push(silence, mux)
        samples = samples[:, -ahead:] if ahead else samples
        if samples.shape[1]:
            self._begun = True
            self._push(samples, mux)

    def _push(self, samples: Array, mux: Mux) -> None:
        self._waiting = np.concatenate([self._waiting, samples], axis=1)
        if self._end < FOREVER:
            room = max(int((self._end - self._start) * self._rate) - self._written, 0)
            self._waiting = self._waiting[:, :room]
        while self._waiting.shape[1] >= _FRAME:
            self._encode(self._waiting[:, :_FRAME], mux)
            self._waiting = self._waiting[:, _FRAME:]

    def _encode(self, samples: Array, mux: Mux) -> None:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._written, Fraction(1, self._rate)
        self._written += samples.shape[1]
        for packet in self._track.encode(frame):
            mux(packet)


ENCODER = "libx264"

_TICK = Fraction(1, 90_000)  # divides the ticks of MPEG-TS and of most frame rates
# Without B-frames each frame's decoding time is its presentation time: with unevenly spaced frames the end of an MP4
# track is else told by the times of others than the last.
_OPTIONS = {"preset": "veryfast", "crf": "23", "bf": "0"}
_KEY_EVERY_S = 2  # so that a player need not decode long for where it seeks to
_MOST_FPS = 240  # what is more comes from wrong headers, and gives a level of H.264 that no browser plays
_BT709 = 1  # AVCOL_PRI_BT709, AVCOL_TRC_BT709, AVCOL_SPC_BT709
_COPIED = ("aac", "mp3", "flac", "opus")  # sound that MP4 can hold and browsers can play
_LEAST_MP3_HZ = 16_000  # MPEG-2.5's rates below have no place in MP4
_OF_DISKS = {  # errors that disks and folders give; FFmpeg's others are about what it was given to write
    errno.EACCES, errno.EBUSY, errno.EDQUOT, errno.EEXIST, errno.EFBIG, errno.EIO, errno.EISDIR, errno.EMFILE,
    errno.ENAMETOOLONG, errno.ENFILE, errno.ENODEV, errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.ENXIO,
    errno.EPERM, errno.EROFS, errno.ESTALE,
}  # fmt: skip


class VideoWriter:
    """A film being written. Use it in a `with` block: left by an exception, it leaves nothing behind.

    Args:
        path: the file; its folder is made.
        size_px: width and height of its frames, even.
        fps: how many to expect in a second; None if unknown. It only steers the encoder.
        sound: of the source; None for a silent film.
        start, end: seconds of the source that its own time 0 and its end are.

    Raises:
        MissingDependencyError: this PyAV has no encoder for H.264.
        OutputError: it cannot be written; so do all methods.
        RecordingError: FFmpeg can make no film of these frames and this sound; so do all methods.
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
        self._scaler = VideoReformatter()
        self._latest = -1  # pts of the last frame
        self._until = start
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            options = {"movflags": "+faststart"}
            self._container: Any = av.open(str(self._temporary.absolute()), "w", format="mp4", options=options)
        try:
            with self._writing():
                self._video = _video_stream(self._container, size_px, min(fps or 25.0, float(_MOST_FPS)))
                self._sound = self._sound_track(audio)
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
            with self._writing():
                self._finish()
        except BaseException:
            self._discard()
            raise

    def write(self, image: Array, time: Fraction, until: Fraction) -> None:
        """Append a frame.

        Args:
            image: uint8 [height, width, 3] RGB.
            time: when it comes on, in seconds of the source; if before `start`, at `start`.
            until: when it ends, unless another comes on.
        """
        self._until = min(until, self.end)
        time = max(time, self.start)
        pts = max(round((time - self.start) / _TICK), self._latest + 1)
        frame = self._scaler.reformat(
            av.VideoFrame.from_ndarray(image, format="rgb24"), format="yuv420p",
            src_color_range=ColorRange.JPEG, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG,
        )  # fmt: skip
        frame.pts, frame.time_base = pts, _TICK
        self._latest = pts
        with self._writing():
            self._mux(self._video.encode(frame))
            if self._sound is not None:
                self._sound.play(time, self._container.mux)

    # --- writing ----------------------------------------------------------------------------------------------------

    def _sound_track(self, sound: AudioReader | None) -> CopiedAudio | EncodedAudio | None:
        if sound is None or sound.stream is None:
            return None
        kind = CopiedAudio if _can_be_copied(sound.stream.codec_context) else EncodedAudio
        return kind(self._container, sound, self.start, self.end)

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            # How long a frame lasts the container knows from the one after it; the last one has to say.
            packet.duration = max(round((self._until - self.start) / _TICK) - packet.pts, 1)
            self._container.mux(packet)

    def _finish(self) -> None:
        self._mux(self._video.encode(None))
        if self._sound is not None:
            self._sound.play(self.end, self._container.mux)
            self._sound.finish(self._container.mux)
        self._container.close()
        replace_atomic(self._temporary, self.path)

    def _discard(self) -> None:
        # The name goes first where it can: a container that is closed would write its index in front, at length.
        if os.name == "posix":
            self._temporary.unlink(missing_ok=True)
        with suppress(av.error.FFmpegError, OSError, ValueError):
            self._container.close()
        self._temporary.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            if isinstance(error, av.error.FFmpegError) and error.errno not in _OF_DISKS:
                raise RecordingError(
                    f"FFmpeg can make no film of it: {error.strerror or error}; repair or convert it with ffmpeg"
                ) from error
            raise OutputError(
                f"cannot write {self.path}: {error.strerror or error}",
                "free disk space or choose another folder with --out",
            ) from error


def fit_video_size(size_px: tuple[int, int], *, min_px: int, max_px: int) -> tuple[int, int]:
    """Size of a film's frames: that of its source, evened, H.264 in yuv420p having no odd ones.

    Args:
        size_px: width and height of the source.
        min_px: a source whose longer side is below is enlarged, by a whole factor.
        max_px: one whose longer side is above is made smaller.
    """
    longest = max(size_px)
    factor = max_px / longest if longest > max_px else -(-min_px // longest) if longest < min_px else 1
    width, height = (max(round(side * factor / 2) * 2, 2) for side in size_px)
    return width, height


def _can_be_copied(sound: Any) -> bool:
    name = sound.codec.canonical_name
    return name in _COPIED and (name != "mp3" or sound.sample_rate >= _LEAST_MP3_HZ)


def _video_stream(container: Any, size_px: tuple[int, int], fps: float) -> Any:
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
    context.gop_size = max(round(_KEY_EVERY_S * fps), 1)
    context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
    context.color_primaries = context.color_trc = _BT709
    return stream
