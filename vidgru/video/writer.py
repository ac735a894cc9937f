"""Films that browsers play: H.264 with AAC, MP3, FLAC or Opus sound in MP4, its index in front.

Times are kept: a frame comes on when its source's did, also where frames are unevenly spaced, and the sound stays with
them. Films are written beside their place and renamed when they are whole.
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
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from vidgru.errors import MissingDependencyError, OutputError, RecordingError
from vidgru.storage import replace_atomic, temporary_path
from vidgru.types import Array
from vidgru.video.display_frames import FOREVER, SoundReader
from vidgru.video.sound import CopiedSound, EncodedSound

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
        sound: SoundReader | None = None,
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
                self._sound = self._sound_track(sound)
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

    def show(self, image: Array, time: Fraction, until: Fraction) -> None:
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

    def _sound_track(self, sound: SoundReader | None) -> CopiedSound | EncodedSound | None:
        if sound is None or sound.stream is None:
            return None
        kind = CopiedSound if _can_be_copied(sound.stream.codec_context) else EncodedSound
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
                "free the disk or choose another folder with --out",
            ) from error


def video_size(size_px: tuple[int, int], *, least_px: int, most_px: int) -> tuple[int, int]:
    """Size of a film's frames: that of its source, evened, H.264 in yuv420p having no odd ones.

    Args:
        size_px: width and height of the source.
        least_px: a source whose longer side is below is enlarged, by a whole factor.
        most_px: one whose longer side is above is made smaller.
    """
    longest = max(size_px)
    factor = most_px / longest if longest > most_px else -(-least_px // longest) if longest < least_px else 1
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
