"""Drawing of the demo's street scenes: backgrounds, people, cars, bags and sensor noise. RGB uint8, sizes in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Rgb = tuple[float, float, float]

COLOURS: dict[str, Rgb] = {
    "red": (205, 40, 40),
    "blue": (45, 80, 200),
    "green": (40, 150, 70),
    "yellow": (235, 205, 50),
    "white": (238, 238, 235),
    "black": (30, 30, 34),
}
SIZE_PX = (320, 192)
MARGIN_PX = 4  # backgrounds extend beyond the image by this on each side, for the swaying camera

_SKIN = ((240, 200, 170), (205, 150, 115), (140, 95, 65), (95, 62, 45))
_HAIR = ((45, 30, 20), (20, 18, 18), (150, 110, 60), (120, 120, 120), (95, 50, 25))
_CLOTH = ((50, 55, 80), (90, 78, 66), (44, 44, 50), (110, 110, 122))
_KERB = 142
_ROOFS = (
    ((-0.95, -0.5), (-0.7, -1.0), (0.3, -1.0), (0.72, -0.5)),  # saloon
    ((-1.2, -0.5), (-1.15, -1.0), (0.35, -1.0), (0.8, -0.5)),  # estate
    ((-1.25, -0.5), (-1.22, -1.0), (0.8, -1.0), (1.1, -0.5)),  # van
)


def shade(colour: Rgb, factor: float) -> Rgb:
    """Return a darker or lighter colour."""
    r, g, b = (float(min(255.0, max(0.0, c * factor))) for c in colour)
    return r, g, b


def _fixed(points: Any) -> Any:
    # OpenCV takes sub-pixel positions in fixed point; without them slow objects jump from pixel to pixel.
    return np.round(np.asarray(points, np.float64) * 16).astype(np.int32)


def polygon(image: Image, points: Sequence[tuple[float, float]], colour: Rgb) -> None:
    """Draw a filled polygon."""
    cv2.fillPoly(image, [_fixed(points)], colour, cv2.LINE_AA, 4)


def line(image: Image, a: tuple[float, float], b: tuple[float, float], colour: Rgb, width: float) -> None:
    """Draw a straight line with round ends."""
    cv2.line(image, _fixed(a).tolist(), _fixed(b).tolist(), colour, max(1, round(width)), cv2.LINE_AA, 4)


def disc(image: Image, x: float, y: float, radius: float, colour: Rgb) -> None:
    """Draw a filled circle."""
    cv2.circle(image, _fixed((x, y)).tolist(), round(radius * 16), colour, -1, cv2.LINE_AA, 4)


def _shadow(image: Image, x: float, y: float, half: float) -> None:
    x0, x1, y0, y1 = (max(0, round(v)) for v in (x - half, x + half, y - 2, y + 2))
    image[y0:y1, x0:x1] = image[y0:y1, x0:x1] // 4 * 3


def person(
    image: Image, x: float, y: float, size: float, colour: Rgb, face: int, stride: float, crouch: float, style: int
) -> None:
    """Draw a person of height `size` standing at (x, y), feet `stride` * `size` apart, knees bent by `crouch`."""
    rng = np.random.default_rng(style)
    skin, hair, cloth = _SKIN[rng.integers(4)], _HAIR[rng.integers(5)], _CLOTH[rng.integers(4)]
    coat = shade(colour, float(rng.uniform(0.85, 1.1)))
    long, broad, hat = float(rng.uniform(0.36, 0.5)), float(rng.uniform(0.9, 1.15)), rng.random() < 0.25
    up = size * (1 - 0.28 * crouch)
    lean = 0.06 * size * face * (crouch + 0.3 * (abs(stride) > 0.16))
    hip, shoulder = (x, y - 0.47 * up), (x + lean, y - 0.80 * up)
    _shadow(image, x, y, 0.2 * size)
    for side in (-1, 1):
        foot = (x + side * stride * size, y - 0.02 * size - (0.03 * size if side * stride * face < 0 else 0))
        line(image, hip, foot, shade(cloth, 0.8 if side < 0 else 1), 0.10 * size)
        line(image, foot, (foot[0] + 0.04 * size * face, foot[1]), (25, 22, 20), 0.05 * size)
    swing = 0.75 * stride * size
    line(image, shoulder, (shoulder[0] + swing, y - 0.46 * up), shade(coat, 0.7), 0.08 * size)
    wide, hem = 0.125 * size * broad, y - (0.84 - long) * up
    polygon(
        image,
        [
            (shoulder[0] - wide, y - 0.83 * up),
            (shoulder[0] + wide, y - 0.83 * up),
            (x + 1.1 * wide, hem),
            (x - 1.1 * wide, hem),
        ],
        coat,
    )
    line(image, shoulder, (shoulder[0] - swing, y - 0.46 * up), shade(coat, 0.82), 0.08 * size)
    head = (shoulder[0] + 0.02 * size * face, y - 0.91 * up)
    disc(image, *head, 0.085 * size, hair)
    disc(image, head[0] + 0.03 * size * face, head[1] + 0.015 * size, 0.065 * size, skin)
    if hat:
        line(
            image,
            (head[0] - 0.07 * size, head[1] - 0.05 * size),
            (head[0] + 0.07 * size, head[1] - 0.05 * size),
            coat,
            0.06 * size,
        )


def car(image: Image, x: float, y: float, size: float, colour: Rgb, face: int, style: int) -> None:
    """Draw a car of height `size` at (x, y), 2.56 times as long, facing left (-1) or right (1)."""
    rng = np.random.default_rng(style)
    body, shape = shade(colour, float(rng.uniform(0.85, 1.1))), int(rng.integers(len(_ROOFS)))
    glass = shade((70, 85, 100), float(rng.uniform(0.7, 1.4)))
    roof = _ROOFS[shape]

    def point(u: float, v: float) -> tuple[float, float]:
        return x + face * u * size, y + v * size

    _shadow(image, x, y, 1.2 * size)
    polygon(image, [point(*p) for p in roof], body)
    polygon(
        image,
        [point(-1.28, -0.2), point(-1.26, -0.52), point(0.9, -0.55), point(1.26, -0.42), point(1.28, -0.16)],
        body,
    )
    line(image, point(-1.24, -0.2), point(1.24, -0.18), shade(body, 0.55), 0.06 * size)
    (ax, _), (bx, _), (cx, _), (dx, _) = roof
    middle = (bx + cx) / 2
    for left, right, foot in ((bx + 0.06, middle - 0.05, ax + 0.2), (middle + 0.05, cx - 0.04, dx - 0.2)):
        low = (foot, right) if foot < middle else (left, foot)
        polygon(image, [point(left, -0.92), point(right, -0.92), point(low[1], -0.56), point(low[0], -0.56)], glass)
    for wheel in (-0.78, 0.78):
        disc(image, *point(wheel, -0.17), 0.19 * size, (22, 22, 24))
        disc(image, *point(wheel, -0.17), 0.09 * size, (150, 150, 155))
    disc(image, *point(1.2, -0.36), 0.06 * size, (255, 245, 190))
    disc(image, *point(-1.22, -0.4), 0.05 * size, (190, 30, 30))


def bag(image: Image, x: float, y: float, size: float, colour: Rgb, style: int) -> None:
    """Draw a bag of height `size` at (x, y), 1.16 times as wide."""
    rng = np.random.default_rng(style)
    body, shape = shade(colour, float(rng.uniform(0.85, 1.1))), int(rng.integers(3))
    half, top, slope = 0.58 * size, y - 0.68 * size, (0.0, 0.12, -0.08)[shape] * size
    edge = shade(body, 0.6) if sum(body) > 150 else (85.0, 85.0, 90.0)
    cv2.ellipse(
        image,
        _fixed((x, top)).tolist(),
        _fixed((0.32 * size, 0.3 * size)).tolist(),
        0,
        180,
        360,
        edge,
        2,
        cv2.LINE_AA,
        4,
    )
    inner = half - max(slope, 0.0)
    polygon(image, [(x - inner, top), (x + inner, top), (x + half, y), (x - half, y)], body)
    line(image, (x - inner, top + 0.12 * size), (x + inner, top + 0.12 * size), edge, 1)
    if shape == 2:
        polygon(
            image,
            [
                (x - 0.3 * size, y - 0.4 * size),
                (x + 0.3 * size, y - 0.4 * size),
                (x + 0.3 * size, y - 2),
                (x - 0.3 * size, y - 2),
            ],
            edge,
        )


@cache
def _noise() -> NDArray[np.int16]:
    width, height = SIZE_PX
    return np.round(np.random.default_rng(7).normal(0, 100, (height + 64, width + 64, 3))).astype(np.int16)


def sensor(image: Image, gain: float, noise: float, seed: int) -> Image:
    """Return the image as a sensor records it: times `gain`, with noise of this standard deviation."""
    width, height = SIZE_PX
    dx, dy = (int(v) for v in np.random.default_rng(seed).integers(0, 64, 2))
    grain = _noise()[dy : dy + height, dx : dx + width]
    return np.asarray(cv2.addWeighted(image, gain, grain, noise / 100, 0, dtype=cv2.CV_8U), np.uint8)


def background(seed: int) -> Image:
    """Return a street: a wall, houses, trees, a fence or shops behind a pavement and a road; uint8 [200, 328, 3]."""
    rng = np.random.default_rng(seed)
    width, height = (n + 2 * MARGIN_PX for n in SIZE_PX)
    image = np.empty((height, width, 3), np.uint8)
    foot = int(rng.integers(92, 104))
    wall = shade((150, 140, 128), float(rng.uniform(0.6, 1.3)))
    wall = (wall[0] * float(rng.uniform(0.85, 1.2)), wall[1], wall[2] * float(rng.uniform(0.8, 1.15)))
    paving, tar = (shade((1, 1, 0.97), float(v)) for v in (rng.uniform(115, 175), rng.uniform(60, 105)))
    image[:foot], image[foot:_KERB], image[_KERB:] = wall, shade(paving, 1), shade(tar, 1)
    kind = int(rng.integers(5))
    if kind == 0:  # bricks
        for row, y in enumerate(range(0, foot, 7)):
            line(image, (0, y), (width, y), shade(wall, 0.85), 1)
            for x in range(-8 * (row % 2), width, 16):
                line(image, (x, y), (x, y + 7), shade(wall, 0.85), 1)
    elif kind in (1, 4):  # houses with windows; shops with tall ones
        step, tall = (int(rng.integers(38, 56)), 30) if kind == 1 else (int(rng.integers(58, 84)), 58)
        for x in range(int(rng.integers(2, 20)), width, step):
            tone = shade((95, 110, 130), float(rng.uniform(0.4, 1.5)))
            y = foot - tall - (26 if kind == 1 else 8)
            polygon(image, [(x, y), (x + 0.55 * step, y), (x + 0.55 * step, y + tall), (x, y + tall)], tone)
            line(image, (x + 0.27 * step, y), (x + 0.27 * step, y + tall), shade(wall, 1.2), 2)
            line(image, (x - 2, y + tall), (x + 0.6 * step, y + tall), shade(wall, 1.25), 3)
    elif kind == 2:  # trees before the sky
        image[: foot - 22] = shade((185, 205, 225), float(rng.uniform(0.8, 1.1)))
        for _ in range(int(rng.integers(5, 10))):
            u, v, r = rng.uniform(0, width), rng.uniform(15, foot - 35), rng.uniform(16, 30)
            line(image, (u, v), (u, foot), (88, 68, 50), 6)
            for _ in range(7):
                leaf = shade((60, 105, 50), float(rng.uniform(0.6, 1.4)))
                disc(image, u + rng.uniform(-r, r) * 0.8, v + rng.uniform(-r, r) * 0.7, r * 0.55, leaf)
    else:  # a fence
        image[: foot - 52] = shade((190, 200, 215), float(rng.uniform(0.8, 1.1)))
        for x in range(0, width, 9):
            line(image, (x, foot - 52), (x, foot), shade(wall, 0.75), 2)
    for y in (foot + 10, foot + 22, foot + 35):
        line(image, (0, y), (width, y), shade(paving, 0.9), 1)
    for x in range(-200, 2 * width, int(rng.integers(26, 44))):
        line(image, (x, foot), (x + 0.35 * (x - width / 2), _KERB), shade(paving, 0.9), 1)
    line(image, (0, _KERB), (width, _KERB), shade(paving, 1.2), 4)
    for x in range(int(rng.integers(0, 40)), width, 60):
        line(image, (x, height - 12), (x + 28, height - 12), (205, 205, 195), 3)
    for x in rng.uniform(0, width, int(rng.integers(0, 3))):  # lamp posts and bins
        if rng.random() < 0.6:
            line(image, (x, foot + 3), (x, 8), (70, 72, 74), 3)
        else:
            polygon(image, [(x, foot - 14), (x + 11, foot - 14), (x + 10, foot + 4), (x + 1, foot + 4)], (75, 90, 80))
    coarse = cv2.resize(
        rng.normal(0, 9, (height // 10, width // 10, 1)).astype(np.float32),
        (width, height),
        interpolation=cv2.INTER_CUBIC,
    )
    texture = (
        coarse[..., None]
        + rng.normal(0, 5, (height, width, 1))
        + np.linspace(-10, 10, width)[None, :, None] * rng.uniform(-1, 1)
    )
    return np.clip(image + texture, 0, 255).astype(np.uint8)
