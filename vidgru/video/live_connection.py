"""Connect to a live source and decode its frames with the source's own timestamps, until it ends or is lost.

PyAV (FFmpeg) reads streams, OpenCV reads local cameras. Errors never contain the address, which may hold a password.

FFmpeg's options for low delay are not used. `nobuffer` discards what was read to identify the stream, and with it
everything up to the next key frame; `low_delay` gives frames that refer to later ones out of order. Without them a
frame comes as soon as it can be decoded, because one thread decodes.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

import av
import cv2

from vidgru.errors import RecordingError
from vidgru.video.container import container_start, find_video_stream, frame_rate, probe_stream, time_base
from vidgru.video.damage import Damage
from vidgru.video.timestamps import TimestampSelector

OPEN_TIMEOUT_S = 10.0
PACKET_TIMEOUT_S = 10.0  # without a packet, after which a stream counts as lost
_FRAME_TIMEOUT_S = 30.0  # without a frame, although packets arrive
_OPTIONS = {"rtsp": {"rtsp_transport": "tcp"}, "rtsps": {"rtsp_transport": "tcp"}}  # UDP loses packets
# FFmpeg invents the timestamps of these formats.
_UNTIMED_FORMATS = frozenset({"mpjpeg", "mjpeg", "h264", "hevc", "m4v", "mpegvideo"})
_DOWNLOAD = "or download the video and give the file"
# Errors with a remedy of their own; after the final ones, retrying is useless or could lock the user's account.
_FINAL_ERRORS = (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError, av.error.ProtocolNotFoundError)
_REMEDIES = {
    av.error.HTTPUnauthorizedError: "check user and password in the address",
    av.error.HTTPForbiddenError: f"check user and password in the address, {_DOWNLOAD}",
    av.error.HTTPNotFoundError: f"check the path in the address, {_DOWNLOAD}",
    av.error.ProtocolNotFoundError: "check what comes before :// in the address, such as rtsp or https",
}
# RTSP servers have no path, and HLS and DASH servers no list of segments, until somebody publishes a stream.
_AWAITED_LISTS = (".m3u8", ".mpd")
_NO_VIDEO_REMEDY = f"give the address of the video itself, not of a page that shows it, {_DOWNLOAD}"
_INDEX_REMEDY = "download the video and give the file, or move its index with ffmpeg's -movflags +faststart"
_SMALLEST_INDEX_BYTES = 500  # the boxes that an MP4 index of one video track must have take 554 bytes
_MAX_PUBLIC_CHARACTERS = 2  # a query value this short cannot be a secret; channel numbers stay readable
_HIDDEN = "***"


@dataclass(frozen=True)
class LiveAddress:
    """Address of a live source: the URL of a stream, or the number of a local camera.

    Attributes:
        source: As the user gave it. It may hold a password, so it must not be printed or stored.
    """

    source: str = field(repr=False)

    @property
    def scheme(self) -> str:
        """Scheme of the URL in lower case; empty for a camera."""
        scheme, separator, _ = self.source.partition("://")
        return scheme.lower() if separator else ""

    @property
    def device(self) -> int | None:
        """Number of the camera; None for a URL."""
        return None if self.scheme else int(self.source)

    @property
    def name(self) -> str:
        """Name of the source without credentials: no user, password or query value that may be a secret.

        Everything up to the last `@` is dropped, because passwords may contain any character, also unescaped.
        """
        if not self.scheme:
            return f"camera {self.source}"
        rest = self.source.partition("://")[2].rpartition("@")[2].partition("#")[0]
        path, question_mark, query = rest.partition("?")
        return f"{self.scheme}://{path}{question_mark}{'&'.join(map(_mask_parameter, query.split('&')))}"


def _mask_parameter(parameter: str) -> str:
    """Hide the value of a query parameter: `channel=1` stays, `token=secret` becomes `token=***`."""
    name, equals, value = parameter.partition("=") if "=" in parameter else ("", "", parameter)
    return f"{name}{equals}{value if len(value) <= _MAX_PUBLIC_CHARACTERS else _HIDDEN}"


class SourceLostError(Exception):
    """A source cannot be opened or gives no more frames; the message says why.

    Attributes:
        remedy: What to do if the source cannot be opened; empty for general advice.
        is_final: Whether retrying is useless, or could lock the user's account.
    """

    def __init__(self, message: str, remedy: str = "", *, is_final: bool = False) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.is_final = is_final


class DecodedFrame(NamedTuple):
    """A decoded frame of a live source.

    Attributes:
        stamp: Seconds on the source's clock from the start of its container; None without a timestamp.
        duration: Seconds; 0 if unknown.
        frame: PyAV's frame.
    """

    stamp: Fraction | None
    duration: Fraction
    frame: Any


class Connection(Protocol):
    """An open source. All attributes but `duration_s` and `is_finite` are known from the first decoded frame on.

    Attributes:
        tick: Resolution of the timestamps in seconds.
        rotation: Degrees to turn the stored frame clockwise to make it upright.
        duration_s: Declared duration; None if not declared.
        is_finite: Whether the source is a served recording and not a live stream: it has an end, and can wait.
        recorded_at: ISO 8601 creation time; None if not declared.
        damage: Damage found so far.
    """

    tick: Fraction
    rotation: int
    duration_s: float | None
    is_finite: bool
    recorded_at: str | None
    damage: Damage

    def frames(self) -> Iterator[DecodedFrame]:
        """Yield all frames to the end of the source. Raises SourceLostError."""

    def close(self) -> None:
        """Close the source. No other thread may be reading it."""


def connect(address: LiveAddress) -> Connection:
    """Open a source.

    Raises:
        SourceLostError: The source cannot be opened.
    """
    if address.device is not None:
        return _CameraConnection(address.device)
    return _StreamConnection(address)


class _StreamConnection:
    """A stream read with PyAV; see `Connection`."""

    def __init__(self, address: LiveAddress) -> None:
        self.damage = Damage()
        self.rotation = 0
        self.recorded_at: str | None = None
        self._is_http = address.scheme in ("http", "https")
        options = _OPTIONS.get(address.scheme, {})
        try:
            self._container: Any = av.open(
                address.source, options=options, timeout=(OPEN_TIMEOUT_S, PACKET_TIMEOUT_S), metadata_errors="replace"
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise _open_error(error, address) from None
        try:
            self._stream = find_video_stream(self._container)
        except RecordingError as error:
            self._container.close()
            raise SourceLostError(error.message, _NO_VIDEO_REMEDY if self._is_http else "") from None
        duration = self._container.duration
        self.duration_s: float | None = duration / av.time_base if duration and duration > 0 else None
        self.is_finite = self.duration_s is not None or (self._is_http and self._container.size > 0)
        self.tick = time_base(self._stream)
        self._start = container_start(self._container)

    def frames(self) -> Iterator[DecodedFrame]:
        """See `Connection`. Corrupt frames before the first intact one are skipped."""
        timestamps, is_started, untimed = TimestampSelector(), False, 0
        has_timestamps = self._container.format.name not in _UNTIMED_FORMATS
        frame_s = 1 / (frame_rate(self._stream) or Fraction(25))
        latest_s = time.monotonic()  # when the latest frame came
        for frames in self._decode():
            for frame in frames:
                latest_s = time.monotonic()
                if frame.is_corrupt:
                    if not is_started:
                        continue
                    self.damage.corrupt_frames += 1
                if not is_started:
                    is_started = True
                    info = probe_stream(self._container, self._stream, frame)
                    self.rotation, self.recorded_at = info.rotation, info.recorded_at
                ticks = timestamps.select(frame.pts, frame.dts) if has_timestamps else None
                stamp = None if ticks is None else ticks * self.tick - self._start
                if stamp is None and self.is_finite:
                    stamp, untimed = untimed * frame_s, untimed + 1
                yield DecodedFrame(stamp, frame.duration * self.tick if frame.duration else frame_s, frame)
            if time.monotonic() - latest_s > _FRAME_TIMEOUT_S:
                raise SourceLostError(f"no frame could be decoded for {_FRAME_TIMEOUT_S:.0f} s")

    def close(self) -> None:
        """See `Connection`."""
        self._container.close()

    def _decode(self) -> Iterator[list[Any]]:
        """Yield the frames of each packet. If the source is lost, yield those that the decoder holds back first."""
        lost, has_packets = None, False
        try:
            for packet in self._container.demux(self._stream):
                has_packets = True
                self.damage.decode_errors += bool(packet.is_corrupt)
                try:
                    yield packet.decode()
                except (av.error.FFmpegError, ValueError):
                    self.damage.decode_errors += 1
                    yield []
        except (av.error.FFmpegError, OSError, ValueError) as error:
            lost = SourceLostError(_reason(error, PACKET_TIMEOUT_S))
            is_io_error = isinstance(error, OSError) and error.errno == errno.EIO
            if is_io_error and self._is_http and not has_packets:
                lost = _unread_error(self._container, str(lost))
        except IndexError:  # PyAV raises it at the end when it flushes a stream that appeared after opening
            pass
        with suppress(av.error.FFmpegError, ValueError):  # already flushed
            yield self._stream.codec_context.decode(None)
        if lost is not None:
            raise lost


class _CameraConnection:
    """A local camera read with OpenCV; see `Connection`."""

    def __init__(self, device: int) -> None:
        self.damage = Damage()
        self.tick, self.rotation, self.is_finite = Fraction(0), 0, False
        self.duration_s: float | None = None
        self.recorded_at: str | None = None
        # OpenCV's messages about missing cameras name its internal backends; SourceLostError says what users need.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = cv2.VideoCapture(device)
        if not self._capture.isOpened():
            self.close()
            raise SourceLostError(
                "there is no such camera, or it is in use",
                "check the camera's number; cameras of this machine count from 0",
                is_final=True,
            )

    def frames(self) -> Iterator[DecodedFrame]:
        """See `Connection`. Frames have no stamps: OpenCV's are unreliable."""
        while True:
            is_read, image = self._capture.read()
            if not is_read:
                raise SourceLostError("the camera gives no more frames")
            yield DecodedFrame(None, Fraction(0), av.VideoFrame.from_ndarray(image, format="bgr24"))

    def close(self) -> None:
        """See `Connection`."""
        self._capture.release()


def _reason(error: Exception, timeout_s: float) -> str:
    """Return FFmpeg's message without the address."""
    if isinstance(error, av.error.ExitError):  # PyAV's timeout
        return f"no data for {timeout_s:.0f} s"
    return str(getattr(error, "strerror", None) or "FFmpeg does not understand the address")


def _open_error(error: Exception, address: LiveAddress) -> SourceLostError:
    """Return why a stream cannot be opened, with what to do about it and whether retrying is useless."""
    remedy = next((remedy for kind, remedy in _REMEDIES.items() if isinstance(error, kind)), "")
    is_http, is_final = address.scheme in ("http", "https"), isinstance(error, _FINAL_ERRORS)
    if isinstance(error, av.error.HTTPNotFoundError):
        path = address.name.partition("?")[0].lower()
        is_final = is_http and not path.endswith(_AWAITED_LISTS)
    elif is_http and isinstance(error, av.error.InvalidDataError):
        remedy = _NO_VIDEO_REMEDY  # not final: it may be the page of a proxy whose camera is starting
    return SourceLostError(_reason(error, OPEN_TIMEOUT_S), remedy, is_final=is_final)


def _unread_error(container: Any, reason: str) -> SourceLostError:
    """Return why a download has failed before its first packet; final only if the index of the file surely comes last.

    To find it there, FFmpeg has read the file to its end, and cannot go back if the server does not serve parts of
    files. A connection that is lost before the first frame gives the same error.
    """
    is_mp4 = "mp4" in container.format.name.split(",")
    indexes = [stream.index_entries for stream in container.streams] if is_mp4 else []
    if any(index and index[0].pos < _SMALLEST_INDEX_BYTES for index in indexes):
        cause = "the index of this file comes last, and its server does not serve parts of files"
        return SourceLostError(cause, _INDEX_REMEDY, is_final=True)
    return SourceLostError(reason, f"check the connection to the server; if it is stable, {_INDEX_REMEDY}")
