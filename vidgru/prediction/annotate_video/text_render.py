"""Text on pictures, in any language: a label is rendered once and then copied.

OpenCV's fonts have ASCII only. Letters are Pillow's, of matplotlib's DejaVu Sans; where that lacks one, of the first
font on the machine that has all.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import lru_cache

import numpy as np
from matplotlib import font_manager, get_data_path
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from vidgru.prediction.annotate_video.palette import Rgb, ink
from vidgru.types import Array

_LONGEST = 48  # characters
_MOST_LABELS = 512  # rendered ones that are kept
_MOST_SENTENCES = 16
_OTHERS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "PingFang SC", "Hiragino Sans", "Microsoft YaHei",
    "WenQuanYi Zen Hei", "Malgun Gothic", "Noto Sans Devanagari", "Nirmala UI", "Noto Sans Thai", "Arial Unicode MS",
)  # fmt: skip


@lru_cache(_MOST_LABELS)
def label(text: str, height_px: int, background: Rgb) -> Array:
    """`render`, kept for the next time: not for what changes from frame to frame.

    Small things that stay, made between large ones that go, leave holes in memory that no picture fits into.
    """
    return render(text, height_px, background)


@lru_cache(_MOST_SENTENCES)
def sentence(text: str, height_px: int, background: Rgb, width_px: int) -> Array:
    """As `label`, for longer texts: at most `width_px` wide."""
    text = _tidy(text)
    font, pad = _letters(text, height_px)
    room = width_px - 2 * pad
    if font.getlength(text) > room:
        fits = bisect_right(range(1, len(text)), room, key=lambda n: math.ceil(font.getlength(text[:n] + "…")))
        text = text[:fits].rstrip() + "…"
    return _draw(text, height_px, background)


def render(text: str, height_px: int, background: Rgb) -> Array:
    """A text on one line on a background, read-only uint8 [height_px, width, 3] RGB; cut where it is too long."""
    text = _tidy(text)
    return _draw(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…", height_px, background)


def _tidy(text: str) -> str:
    return " ".join(text.encode(errors="replace").decode().split())


def _letters(text: str, height_px: int) -> tuple[ImageFont.FreeTypeFont, int]:
    """The font of a text, and the pixels before and after it."""
    return _font(_family(text), max(round(height_px * 0.7), 6)), max(height_px // 4, 2)


def _draw(text: str, height_px: int, background: Rgb) -> Array:
    font, pad = _letters(text, height_px)
    image = Image.new("RGB", (round(font.getlength(text)) + 2 * pad, height_px), background)
    # All on one line of writing, whatever their letters are: capitals are in the middle.
    drawing = ImageDraw.Draw(image)
    drawing.text((pad, height_px * 0.76), text, fill=ink(background), font=font, anchor="ls")
    made = np.asarray(image)
    made.flags.writeable = False
    return made


def paste(image: Array, piece: Array, x: int, y: int) -> None:
    """Copy a piece into an image with its upper left corner at (x, y); what is outside is cut off."""
    height, width = image.shape[:2]
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + piece.shape[1], width), min(y + piece.shape[0], height)
    if left < right and top < bottom:
        image[top:bottom, left:right] = piece[top - y : bottom - y, left - x : right - x]


@lru_cache
def _font(path: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size_px)


@lru_cache(_MOST_LABELS)
def _family(text: str) -> str:
    """File of the font to write a text with."""
    letters = {ord(letter) for letter in text}
    return next((path for path in _fonts() if letters <= _has(path)), _fonts()[0])


@lru_cache
def _fonts() -> list[str]:
    installed = set(font_manager.get_font_names())
    others = [font_manager.findfont(name) for name in _OTHERS if name in installed]
    return [f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", *others]


@lru_cache
def _has(path: str) -> frozenset[int]:
    return frozenset(FT2Font(path).get_charmap())
