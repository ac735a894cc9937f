"""Fonts for labels in any script: the first installed font that has all letters of a text."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from matplotlib import font_manager, get_data_path
from matplotlib.ft2font import FT2Font

DEFAULT_FAMILY = "DejaVu Sans"  # of matplotlib, always there
_PREFERRED = ("notosans", "pingfang", "hiragino", "msyh", "wqy", "malgun", "nirmala", "arialuni")
_STYLES = ("bold", "italic", "oblique", "black", "light", "thin", "condensed", "narrow", "mono", "serif", "emoji")
_SHOWN = 8  # letters in a message


def font_file(text: str) -> str:
    """Return the file of the first font that has all letters of a text, else of the one that has most.

    All installed fonts are asked, usual ones for labels first. Letters that none has are named on stderr, once.
    """
    wanted = frozenset(filter(_is_drawn, text))
    files = _font_files()
    best, missing = files[0], wanted - _letters(files[0])
    for path in files[1:] if missing else ():
        rest = wanted - _letters(path)
        if len(rest) < len(missing):
            best, missing = path, rest
        if not missing:
            break
    if missing:
        _warn(missing)
    return best


def font_families(texts: Iterable[str]) -> list[str]:
    """Return font families for matplotlib, which draws a letter that the first lacks with the next."""
    families = {DEFAULT_FAMILY: None}
    for path in dict.fromkeys(map(font_file, texts)):
        if path != _font_files()[0]:
            font_manager.fontManager.addfont(path)  # matplotlib's own list may be older than the font
            families[str(font_manager.get_font(path).family_name)] = None
    return list(families)


def _is_drawn(letter: str) -> bool:
    """Whether a character needs a glyph: no space, control, combining mark or half a character."""
    return unicodedata.category(letter)[0] in "LNPS"


@lru_cache
def _font_files() -> tuple[str, ...]:
    def order(path: str) -> tuple[bool, bool, str]:
        name = Path(path).name.lower().replace("-", "").replace("_", "")
        is_plain = not any(style in name.replace("sansserif", "") for style in _STYLES)
        return not is_plain, not name.startswith(_PREFERRED), path

    default = f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    return (default, *sorted(font_manager.findSystemFonts(), key=order))


@lru_cache
def _letters(path: str) -> frozenset[str]:
    try:
        font = FT2Font(path)
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):  # not a font that can be drawn
        return frozenset()


@lru_cache
def _warn(missing: frozenset[str]) -> None:
    shown = "".join(sorted(missing)[:_SHOWN])
    scripts = {unicodedata.name(letter, "").split(" ")[0] for letter in missing}
    package = "fonts-noto-cjk" if scripts & {"CJK", "HANGUL", "HIRAGANA", "KATAKANA"} else "fonts-noto-core"
    print(
        f"warning: no installed font has {shown!r}, so labels show boxes instead; install one that has, such as the "
        f"package {package} (Debian, Ubuntu: apt-get install {package})",
        file=sys.stderr,
    )
