"""Fonts for labels in any script."""

from pathlib import Path

import pytest
from matplotlib import get_data_path

from vidgru import fonts


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Fake fonts by file name and their letters; the one of matplotlib is real."""
    letters = {"CJK-Bold.ttf": "\u884c\u8d70", "NotoSansCJK.ttc": "\u884c\u8d70ab", "half.ttf": "\u884c"}
    real = fonts._letters
    monkeypatch.setattr(fonts.font_manager, "findSystemFonts", lambda: [f"/f/{name}" for name in letters])
    monkeypatch.setattr(
        fonts, "_letters", lambda path: frozenset(letters[path[3:]]) if path.startswith("/f/") else real(path)
    )
    fonts._font_files.cache_clear()
    fonts._warn.cache_clear()
    yield letters
    fonts._font_files.cache_clear()


def test_font_file_asks_every_installed_font(installed: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert fonts.font_file("Sturz 3") == f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    assert fonts.font_file("\u884c \u8d70") == "/f/NotoSansCJK.ttc"
    del installed["NotoSansCJK.ttc"]
    fonts._font_files.cache_clear()
    assert fonts.font_file("\u884c\u8d70") == "/f/CJK-Bold.ttf"
    assert capsys.readouterr().err == ""


def test_missing_letters_name_a_package(installed: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    installed.clear()
    fonts._font_files.cache_clear()
    for _ in range(2):
        fonts.font_file("\u884c\u8d70")
    fonts.font_file("\U00012000")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("apt-get install ")[1] for line in lines] == ["fonts-noto-cjk)", "fonts-noto-core)"]
    assert lines[0].startswith("warning: no installed font has '\u884c\u8d70', so labels show boxes instead")


def test_unreadable_font_has_no_letters(tmp_path: Path) -> None:
    (tmp_path / "x.ttf").write_bytes(b"no font")
    assert fonts._letters(str(tmp_path / "x.ttf")) == frozenset()
    assert fonts.font_families(["fall", "\u03c0"]) == [fonts.DEFAULT_FAMILY]
