"""What was found, and the words for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SHOWN = 3  # of a list

EXPECTED = (
    "a video, a cache or an entry of one, a data set (YAML, annotation file, folder), a model file, "
    "or the folder of a training run"
)


@dataclass(frozen=True, kw_only=True)
class Info:
    """What was found.

    Attributes:
        lines: to be printed, one a line.
        sound: False where a cache entry is unsound.
    """

    lines: tuple[str, ...]
    sound: bool = True

    def __str__(self) -> str:
        return "\n".join(self.lines)


def settings_text(values: Mapping[str, Any]) -> str:
    """Names and values in a line; hashes cut to what tells them apart, lists to their beginning."""
    parts = []
    for name, value in sorted(values.items()):
        if name.endswith("sha256"):
            value = f"{value[:12]}…"
        if isinstance(value, list) and len(value) > _SHOWN:
            value = f"{', '.join(map(str, value[:_SHOWN]))} and {len(value) - _SHOWN} more"
        parts.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(parts)


def rate_text(value: float) -> str:
    """Two digits where it is small."""
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def duration_text(seconds: float) -> str:
    """In the unit that suits."""
    if seconds >= 3600:
        return f"{seconds / 3600:,.2f} hours"
    return f"{int(seconds // 60)} min {seconds % 60:.1f} s" if seconds >= 60 else f"{seconds:.3f} s"


def bytes_text(size: int) -> str:
    """A number of bytes, in the unit that suits."""
    power = min(len(f"{size}") - 1, 14) // 3
    return f"{size / 1000**power:.1f} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}" if power else f"{size} bytes"
