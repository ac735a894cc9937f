"""Synthetic surveillance video: still except at known times."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.videos import write_video

FPS = 10
OPTIONS = {"g": "20", "sc_threshold": "0", "preset": "ultrafast"}  # a key frame every two seconds
WALK_S = (30.0, 34.0)
SIZE_PX = (96, 64)


def draw_quiet(number: int, width: int, height: int, noise: float = 0.0) -> np.ndarray:
    """Draw an empty scene as RGB."""
    ramp = np.linspace(60, 180, width)[None, :, None].repeat(height, 0).repeat(3, 2)
    if noise:
        ramp = ramp + np.random.default_rng(number).normal(0, noise, (height, width, 1))
    return ramp.clip(0, 255).astype(np.uint8)


def draw_walk(number: int, width: int, height: int) -> np.ndarray:
    """Draw somebody who crosses the scene during WALK_S."""
    image, time_s = draw_quiet(number, width, height), number / FPS
    if WALK_S[0] <= time_s < WALK_S[1]:
        x = int((time_s - WALK_S[0]) * (width - 12) / (WALK_S[1] - WALK_S[0]))
        image[height // 4 : height // 4 + 24, x : x + 10] = (200, 40, 40)
    return image


def write_quiet(
    path: Path,
    seconds: float = 80.0,
    draw: Callable[[int, int, int], np.ndarray] = draw_walk,
    codec: str = "libx264",
    **options: str,
) -> Path:
    """Write a surveillance video, with further encoder options."""
    frames = int(seconds * FPS)
    codec_options = {**OPTIONS, **options} if codec == "libx264" else options
    return write_video(path, frames, fps=FPS, size_px=SIZE_PX, draw=draw, codec=codec, options=codec_options)
