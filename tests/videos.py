"""Synthetic videos with known content: each frame shows its own number as bars, and a square that moves steadily."""

import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 10  # bars, one per bit of the frame number, most significant first


def draw_counter(number: int, width: int, height: int) -> np.ndarray:
    """Draw an RGB frame [height, width, 3]: bars above (white is 1), a gradient crossed by a red square below."""
    frame = np.zeros((height, width, 3), np.uint8)
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        frame[: height // 2, left:right] = 235 if number >> (BITS - 1 - bit) & 1 else 20
    frame[height // 2 :] = np.linspace(60, 180, width, dtype=np.uint8)[None, :, None]
    side = height // 4
    x = number * 2 % max(width - side, 1)
    frame[height - side :, x : x + side] = (200, 40, 40)
    return frame


def read_counter(image: np.ndarray) -> int:
    """Return the number that an upright frame of any size shows."""
    height, width = image.shape[:2]
    number = 0
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        bar = image[: height // 2][height // 8 : -(height // 8), left + 1 : right - 1]
        number = number << 1 | int(bar.mean() > 128)
    return number


def write_video(
    path: Path,
    frames: int = 30,
    *,
    fps: int = 10,
    size_px: tuple[int, int] = (160, 96),
    ticks: Iterable[int] | None = None,
    tick: Fraction = Fraction(1, 1000),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    audio_s: float = 0.0,
    metadata: dict[str, str] | None = None,
    draw: Callable[[int, int, int], np.ndarray] = draw_counter,
) -> Path:
    """Write a video whose frames show their numbers.

    Args:
        ticks: Presentation time of each frame in units of `tick`; None for evenly at `fps`.
        audio_s: Seconds of silent audio from time 0; 0 for no audio.
        metadata: Metadata of the container.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    times = [round(i / (fps * tick)) for i in range(frames)] if ticks is None else list(ticks)
    width, height = size_px
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata or {})
        stream: Any = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = tick
        stream.time_base = tick
        stream.options = {"threads": "1", **(options or {})}
        audio: Any = container.add_stream("aac", rate=8000) if audio_s else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(draw(number, width, height), format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = time, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            for start in range(0, int(audio_s * 8000), 1024):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                silence.sample_rate, silence.pts, silence.time_base = 8000, start, Fraction(1, 8000)
                container.mux(audio.encode(silence))
            container.mux(audio.encode(None))
    return path


def rotate_mp4(path: Path, clockwise: int) -> None:
    """Set the display matrix of an mp4 file's only track, as phones do (ISO 14496-12, tkhd)."""
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[clockwise]
    fixed_one = 1 << 16  # 16.16 fixed point
    matrix = struct.pack(
        ">9i", cos * fixed_one, sin * fixed_one, 0, -sin * fixed_one, cos * fixed_one, 0, 0, 0, 1 << 30
    )
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44
    data[start : start + 36] = matrix
    path.write_bytes(data)


def faststart(path: Path) -> Path:
    """Copy an mp4 with its index in front, so that it still opens when truncated."""
    out = path.with_name(f"front_{path.name}")
    with av.open(str(path)) as source, av.open(str(out), "w", options={"movflags": "faststart"}) as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    return out
