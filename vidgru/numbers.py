"""Numbers and times as people write them."""

from __future__ import annotations

import math
import re

_CLOCK = re.compile(r"(?:(\d{1,6}):(?=[0-5]?\d:))?(\d{1,4}):([0-5]?\d(?:[.,]\d*)?)", re.ASCII)  # 75:30 is 4530 s
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def number(text: str) -> float:
    """Parse a plain decimal number; NaN if `text` is none or too large."""
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else math.nan


def clock(text: str) -> float:
    """Parse a time written as seconds or [HH:]MM:SS[.mmm]; NaN if `text` is neither."""
    value = number(text)
    match = _CLOCK.fullmatch(text) if math.isnan(value) else None
    if match is None:
        return value
    hours, minutes, rest = match.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))
