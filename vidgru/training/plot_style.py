"""What all pictures share: fonts for any language, names that fit, PNGs written whole.

Drawn with matplotlib's objects, not with pyplot: no global figures, no window, safe in any thread.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure

from vidgru.storage import write_atomic

_DPI = 100
_LONGEST_NAME = 28  # characters
# labels may be in any language; matplotlib's own font has no CJK, and takes the next of a list for what it lacks
_FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "PingFang SC", "Hiragino Sans",
    "Microsoft YaHei", "Malgun Gothic", "Noto Sans Devanagari", "Nirmala UI", "Noto Sans Thai", "Arial Unicode MS",
)  # fmt: skip


def short(name: str) -> str:
    """A name on one line, cut where it is too long."""
    name = " ".join(name.split())
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def fonts() -> list[str]:
    """Families to draw labels with; draw them with `parse_math=False`, for a label may hold a dollar sign."""
    installed = set(font_manager.get_font_names())
    return [name for name in _FONTS if name in installed]


def save(figure: Figure, out: Path) -> None:
    """Write a figure as a PNG; the same figure gives the same bytes.

    Raises:
        OutputError: the file cannot be written.
    """
    data = io.BytesIO()
    with warnings.catch_warnings():
        # a letter that no installed font has is drawn as a box; a training must not fail for it
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure.savefig(data, format="png", dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
    write_atomic(out, data.getvalue())
