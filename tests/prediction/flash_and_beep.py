"""Recordings with a simultaneous flash and beep, and where a video shows and plays them."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

FLASH_S = 0.2  # how long flash and beep last


def write_flash_and_beep(
    path: Path,
    at_s: float = 2.0,
    *,
    length_s: float = 4.0,
    codec: str = "libx264",
    sound: str = "aac",
    rate: int = 48000,
    layout: str = "stereo",
    sound_from_s: float = 0.0,
    silent: Callable[[float], bool] = lambda second: False,
) -> Path:
    """Write a dark video at 25 frames per second that is white, and sounds at 1 kHz, for `FLASH_S` from `at_s`.

    Args:
        sound, rate, layout: Audio codec, samples per second, channels.
        sound_from_s: Start of the sound.
        silent: Whether there are no audio packets at a time in seconds: a gap.
    """
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        video.options = {"threads": "1", "g": "10"}
        track: Any = container.add_stream(sound, rate=rate)
        track.codec_context.layout = layout
        track.codec_context.open()
        size = track.codec_context.frame_size or 1024
        start = round(sound_from_s * rate)
        for n in range(round(length_s * 25)):
            value = 235 if at_s <= n / 25 < at_s + FLASH_S else 20
            frame = av.VideoFrame.from_ndarray(np.full((96, 160, 3), value, np.uint8), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(video.encode(frame))
            while start < (n + 1) / 25 * rate:
                seconds = (start + np.arange(size)) / rate
                wave = 0.5 * np.sin(2000 * np.pi * seconds) * ((seconds >= at_s) & (seconds < at_s + FLASH_S))
                channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
                samples = np.repeat(wave[None].astype(np.float32), channels, axis=0)
                piece = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
                piece.sample_rate, piece.pts, piece.time_base = rate, start, Fraction(1, rate)
                if not silent(start / rate):
                    target = av.AudioResampler(format=track.codec_context.format, layout=layout, rate=rate)
                    for resampled in target.resample(piece):
                        container.mux(track.encode(resampled))
                start += size
        container.mux(track.encode(None))
        container.mux(video.encode(None))
    return path


@dataclass(frozen=True)
class PlayedVideo:
    """A decoded video: frame times and brightness, when sound is heard, audio codec, duration."""

    times: list[float]
    bright: list[float]
    heard: tuple[float, float] | None
    sound: str | None
    duration_s: float

    @property
    def flash(self) -> float:
        return next(time for time, value in zip(self.times, self.bright, strict=True) if value > 128)


def watch(path: Path) -> PlayedVideo:
    """Decode a whole video."""
    times, bright, loud = [], [], []
    with av.open(str(path)) as container:
        name = container.streams.audio[0].codec_context.codec.canonical_name if container.streams.audio else None
        begin = (container.start_time or 0) / av.time_base
        for frame in container.decode(video=0):
            times.append(float(frame.pts * frame.time_base) - begin)
            bright.append(float(frame.to_ndarray(format="gray").mean()))
        assert container.duration is not None
        duration_s = container.duration / av.time_base
        if name is not None:
            container.seek(0)
            for sound in container.decode(audio=0):
                wave = np.abs(np.atleast_2d(sound.to_ndarray().astype(np.float64)))[0]
                wave = wave if sound.format.is_planar else wave[:: sound.layout.nb_channels]
                scale = {"s16": 32768, "s16p": 32768, "s32": 1 << 31}.get(sound.format.name, 1)
                start = float(sound.pts * sound.time_base) - begin
                loud += [start + place / sound.sample_rate for place in np.flatnonzero(wave / scale > 0.25)]
    return PlayedVideo(times, bright, (min(loud), max(loud)) if loud else None, name, duration_s)
