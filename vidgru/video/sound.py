"""The sound of a film: copied where MP4 holds it and browsers play it, else encoded as AAC; in step with the frames."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av
import numpy as np

from vidgru.types import Array
from vidgru.video.display_frames import FOREVER, SoundReader

_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)  # that AAC has
_USUAL_RATE = 48000
_FRAME = 1024  # samples of an AAC frame
_SLACK_S = Fraction(1, 25)  # stamps of sound are uneven by less; more is a gap, or an overlap

Mux = Callable[[Any], None]


class CopiedSound:
    """A sound track whose packets are the source's own. Those that the container refuses as damaged are left out.

    Args:
        container: PyAV's, of the film; the track is added to it.
        source: the sound; it has a stream.
        start, end: seconds of the source between which the film lies.
    """

    def __init__(self, container: Any, source: SoundReader, start: Fraction, end: Fraction) -> None:
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


class EncodedSound:
    """A sound track that is decoded, cut to the sample and encoded as AAC, mono or stereo. Gaps become silence.

    Args:
        container, source, start, end: as `CopiedSound` has them.
    """

    def __init__(self, container: Any, source: SoundReader, start: Fraction, end: Fraction) -> None:
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
