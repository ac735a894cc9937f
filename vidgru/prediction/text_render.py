"""Text on video frames, in any script, and the colours of classes and labels.

OpenCV's fonts have ASCII only. Pillow draws with the first installed font that has all characters. Labels are
rendered once and then copied.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidgru.fonts import font_file
from vidgru.types import Array

Rgb = tuple[int, int, int]

# M. Okabe and K. Ito, "Color Universal Design" (https://jfly.uni-koeln.de/color/), without black: distinguishable with
# any kind of colour vision.
PALETTE: tuple[Rgb, ...] = (
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (0, 158, 115),  # bluish green
    (204, 121, 167),  # reddish purple
    (240, 228, 66),  # yellow
    (213, 94, 0),  # vermilion
    (0, 114, 178),  # blue
)
_MAX_LABEL_CHARACTERS = 48
_CACHED_LABELS = 512
_CACHED_SENTENCES = 16


def colour(number: int) -> Rgb:
    """Colour of the class or label with this number, the same in every recording; they repeat after seven."""
    return PALETTE[number % len(PALETTE)]


def text_colour(background: Rgb) -> Rgb:
    """Black or white, whichever has more contrast with a background (relative luminance as in WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in background)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 0.05 * 1.05 else (255, 255, 255)


def render_text(text: str, height_px: int, background: Rgb) -> Array:
    """Render one line of text, cut to 48 characters: read-only uint8 [height_px, width, 3] RGB."""
    text = _clean(text)
    if len(text) > _MAX_LABEL_CHARACTERS:
        text = text[: _MAX_LABEL_CHARACTERS - 1] + "…"
    return _draw(text, height_px, background)


@lru_cache(_CACHED_LABELS)
def render_label(text: str, height_px: int, background: Rgb) -> Array:
    """Render text as `render_text` does, and cache it. Not for text that changes from frame to frame.

    Small arrays that stay, allocated between large ones that do not, would leave holes in memory that no frame fits in.
    """
    return render_text(text, height_px, background)


@lru_cache(_CACHED_SENTENCES)
def render_sentence(text: str, height_px: int, background: Rgb, width_px: int) -> Array:
    """Render one line of text, cut to `width_px`, and cache it."""
    text = _clean(text)
    font, pad = _font_and_pad(text, height_px)
    room = width_px - 2 * pad
    if font.getlength(text) > room:
        length = bisect_right(range(1, len(text)), room, key=lambda n: math.ceil(font.getlength(text[:n] + "…")))
        text = text[:length].rstrip() + "…"
    return _draw(text, height_px, background)


def paste(image: Array, piece: Array, x: int, y: int) -> None:
    """Copy a piece into an image with its upper left corner at (x, y), clipped to the image."""
    height, width = image.shape[:2]
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + piece.shape[1], width), min(y + piece.shape[0], height)
    if left < right and top < bottom:
        image[top:bottom, left:right] = piece[top - y : bottom - y, left - x : right - x]


def _clean(text: str) -> str:
    return " ".join(text.encode(errors="replace").decode().split())


def _draw(text: str, height_px: int, background: Rgb) -> Array:
    font, pad = _font_and_pad(text, height_px)
    image = Image.new("RGB", (round(font.getlength(text)) + 2 * pad, height_px), background)
    # A fixed baseline, whatever the letters are, with capitals in the middle.
    ImageDraw.Draw(image).text((pad, height_px * 0.76), text, fill=text_colour(background), font=font, anchor="ls")
    pixels = np.asarray(image)
    pixels.flags.writeable = False
    return pixels


def _font_and_pad(text: str, height_px: int) -> tuple[ImageFont.FreeTypeFont, int]:
    """Font of a text, and the pixels before and after it."""
    return _load_font(_font_file(text), max(round(height_px * 0.7), 6)), max(height_px // 4, 2)


@lru_cache
def _load_font(path: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size_px)


@lru_cache(_CACHED_LABELS)
def _font_file(text: str) -> str:
    return font_file(text)
