"""Colours of detector classes and of event labels.

Those of M. Okabe and K. Ito, "Color Universal Design" (https://jfly.uni-koeln.de/color/), without black: people with
any kind of colour vision can tell them apart.
"""

from __future__ import annotations

Rgb = tuple[int, int, int]

PALETTE: tuple[Rgb, ...] = (
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (0, 158, 115),  # bluish green
    (204, 121, 167),  # reddish purple
    (240, 228, 66),  # yellow
    (213, 94, 0),  # vermilion
    (0, 114, 178),  # blue
)


def colour(number: int) -> Rgb:
    """Colour of the class or label with this number: the same in every recording. They come round after seven."""
    return PALETTE[number % len(PALETTE)]


def ink(background: Rgb) -> Rgb:
    """Black or white, whichever stands out more from a background (relative luminance as in WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in background)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 0.05 * 1.05 else (255, 255, 255)
