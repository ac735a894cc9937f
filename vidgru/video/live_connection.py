"""One connection to a live source: opened, its frames decoded with the source's own stamps, until it ends or is lost.

Streams are read by PyAV (FFmpeg), cameras of this machine by OpenCV. What ended a connection is told without the
address, which may hold a password.

FFmpeg is not asked for less delay. `nobuffer` throws away what was read to find out what the stream is, and with it
everything up to the next key frame; `low_delay` gives frames that refer to later ones out of order. Without them a
frame comes as soon as it can be decoded, since decoding is done by one thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

import av
import cv2

from vidgru.errors import RecordingError
from vidgru.video.container import container_start, find_video_stream, frame_rate, probe_stream
from vidgru.video.integrity import Damage
from vidgru.video.timestamps import TimestampSelector

_HARMLESS = 2  # characters of a query's value that cannot be a secret: a channel's number
_HIDDEN = "***"


@dataclass(frozen=True)
class LiveAddress:
    """Where a live source is.

    Attributes:
        source: as the user gave it. It may hold a password, so it is never to be printed or stored.
    """

    source: str = field(repr=False)

    @property
    def scheme(self) -> str:
        """Of the URL, in lower case; empty for a camera."""
        scheme, separator, _ = self.source.partition("://")
        return scheme.lower() if separator else ""

    @property
    def device(self) -> int | None:
        """The camera's number; None for a URL."""
        return None if self.scheme else int(self.source)

    @property
    def name(self) -> str:
        """What the source is called: without user and password, and without values of its query that might be one.

        Rather too little is told than too much: everything up to the last `@` is left out, for a password may hold
        any character, unescaped too.
        """
        if not self.scheme:
            return f"camera {self.source}"
        rest = self.source.partition("://")[2].rpartition("@")[2].partition("#")[0]
        place, question, query = rest.partition("?")
        return f"{self.scheme}://{place}{question}{'&'.join(map(_shown, query.split('&')))}"


def _shown(parameter: str) -> str:
    """A parameter of a query as it may be shown: `channel=1`, `token=***`."""
    name, equals, value = parameter.partition("=") if "=" in parameter else ("", "", parameter)
    return f"{name}{equals}{value if len(value) <= _HARMLESS else _HIDDEN}"


OPEN_S = 10.0  # for a stream to say what it is
SILENCE_S = 10.0  # without a packet, after which a stream counts as lost
_BLIND_S = 30.0  # without a frame, though packets come
_OPTIONS = {"rtsp": {"rtsp_transport": "tcp"}, "rtsps": {"rtsp_transport": "tcp"}}  # UDP loses packets
_UNSTAMPED = frozenset({"mpjpeg", "mjpeg", "h264", "hevc", "m4v", "mpegvideo"})  # FFmpeg makes their stamps up
_HOPELESS = (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError, av.error.ProtocolNotFoundError)


class SourceLostError(Exception):
    """A source that cannot be opened, or gives no more frames; the message says why.

    Attributes:
        hopeless: trying again is of no use, or could have the user locked out.
    """

    def __init__(self, message: str, *, hopeless: bool = False) -> None:
        super().__init__(message)
        self.hopeless = hopeless


class Decoded(NamedTuple):
    """A decoded frame.

    Attributes:
        stamp: seconds by the source's clock, from where its container starts; None where it has no stamp.
        duration: seconds that it stands for; 0 if unknown.
        frame: PyAV's.
    """

    stamp: Fraction | None
    duration: Fraction
    frame: Any


class Connection(Protocol):
    """An open source. All but `duration_s` and `finite` are known when the first frame has been decoded.

    Attributes:
        tick: seconds, the grain of its stamps.
        rotation: degrees the stored frame is turned clockwise to stand upright.
        duration_s: of what comes, as its container says; None if it does not.
        finite: it is a recording that is served as it is, and not a live stream: it has an end, and waits to be read.
        recorded_at: ISO 8601 time at which it was made, as its container says; None if it does not.
        damage: counted as it is read.
    """

    tick: Fraction
    rotation: int
    duration_s: float | None
    finite: bool
    recorded_at: str | None
    damage: Damage

    def frames(self) -> Iterator[Decoded]:
        """All frames, to the end of the source. Raises SourceLostError."""

    def close(self) -> None:
        """End it; not while another thread reads from it."""


def connect(address: LiveAddress) -> Connection:
    """Open a source.

    Raises:
        SourceLostError: that cannot be done.
    """
    if address.device is not None:
        return _CameraConnection(address.device)
    return _StreamConnection(address)


class _StreamConnection:
    """A stream; see `Connection`."""

    def __init__(self, address: LiveAddress) -> None:
        self.damage = Damage()
        self.rotation = 0
        self.recorded_at: str | None = None
        options = _OPTIONS.get(address.scheme, {})
        try:
            self._container: Any = av.open(
                address.source, options=options, timeout=(OPEN_S, SILENCE_S), metadata_errors="replace"
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise SourceLostError(_why(error, OPEN_S), hopeless=isinstance(error, _HOPELESS)) from None
        try:
            self._stream = find_video_stream(self._container)
        except RecordingError as error:
            self._container.close()
            raise SourceLostError(error.message) from None
        duration = self._container.duration
        self.duration_s: float | None = duration / av.time_base if duration and duration > 0 else None
        sized = address.scheme in ("http", "https") and self._container.size > 0
        self.finite = self.duration_s is not None or sized
        self.tick = Fraction(self._stream.time_base.numerator, self._stream.time_base.denominator)
        self._start = container_start(self._container)

    def frames(self) -> Iterator[Decoded]:
        """See `Connection`. What comes damaged before the first sound frame is passed over."""
        clock, begun, untimed = TimestampSelector(), False, 0
        stamped = self._container.format.name not in _UNSTAMPED
        step = 1 / (frame_rate(self._stream) or Fraction(25))
        seen = time.monotonic()
        for frames in self._decode():
            for frame in frames:
                seen = time.monotonic()
                if frame.is_corrupt:
                    if not begun:
                        continue
                    self.damage.corrupt_frames += 1
                if not begun:
                    begun = True
                    info = probe_stream(self._container, self._stream, frame)
                    self.rotation, self.recorded_at = info.rotation, info.recorded_at
                ticks = clock.stamp(frame.pts, frame.dts) if stamped else None
                stamp = None if ticks is None else ticks * self.tick - self._start
                if stamp is None and self.finite:
                    stamp, untimed = untimed * step, untimed + 1
                yield Decoded(stamp, frame.duration * self.tick if frame.duration else step, frame)
            if time.monotonic() - seen > _BLIND_S:
                raise SourceLostError(f"none of its frames could be decoded for {_BLIND_S:.0f} s")

    def close(self) -> None:
        """See `Connection`."""
        self._container.close()

    def _decode(self) -> Iterator[list[Any]]:
        """The frames of each packet. Also where the source is lost, those that the decoder still holds come first."""
        lost = None
        try:
            for packet in self._container.demux(self._stream):
                self.damage.decode_errors += bool(packet.is_corrupt)
                try:
                    yield packet.decode()
                except (av.error.FFmpegError, ValueError):
                    self.damage.decode_errors += 1
                    yield []
        except (av.error.FFmpegError, OSError, ValueError) as error:
            lost = SourceLostError(_why(error, SILENCE_S))
        except IndexError:  # PyAV's, when at the end it flushes a stream that has turned up since the opening
            pass
        with suppress(av.error.FFmpegError, ValueError):  # flushed already
            yield self._stream.codec_context.decode(None)
        if lost is not None:
            raise lost


class _CameraConnection:
    """A camera of this machine; see `Connection`."""

    def __init__(self, device: int) -> None:
        self.damage = Damage()
        self.tick, self.rotation, self.finite = Fraction(0), 0, False
        self.duration_s: float | None = None
        self.recorded_at: str | None = None
        cv2.utils.logging.setLogLevel(
            cv2.utils.logging.LOG_LEVEL_SILENT
        )  # what it has to say of cameras that are not there is not for users
        self._capture = cv2.VideoCapture(device)
        if not self._capture.isOpened():
            self.close()
            raise SourceLostError("there is no such camera, or it is in use", hopeless=True)

    def frames(self) -> Iterator[Decoded]:
        """See `Connection`. OpenCV gives no stamps that can be relied on."""
        while True:
            there, image = self._capture.read()
            if not there:
                raise SourceLostError("the camera gives no more frames")
            yield Decoded(None, Fraction(0), av.VideoFrame.from_ndarray(image, format="bgr24"))

    def close(self) -> None:
        """See `Connection`."""
        self._capture.release()


def _why(error: Exception, patience_s: float) -> str:
    """What FFmpeg says, without the address."""
    if isinstance(error, av.error.ExitError):  # PyAV's time-out
        return f"nothing came for {patience_s:.0f} s"
    return str(getattr(error, "strerror", None) or "FFmpeg cannot make out the address")
