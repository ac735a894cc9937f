"""From what stands on a command line to recordings: files, folders, globs, text lists."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from vidgru.errors import SourceError
from vidgru.types import Recording

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
    ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv",
})
# fmt: on
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_live_source(source: str) -> bool:
    """Return whether a source is a stream (URL) or a local camera (number) rather than recordings.

    An existing file or folder takes precedence over a camera of the same number.
    """
    return bool(_URL.match(source)) or (source.isascii() and source.isdecimal() and not Path(source).exists())


def find_recordings(sources: Iterable[str | Path]) -> list[Recording]:
    """Recordings named by `sources`, in the order given, folders sorted, each file once.

    A source is a video file (any suffix but `.txt`), a folder (searched recursively for video suffixes), a glob
    pattern, or a `.txt` list with a path a line (relative to the list; `#` starts a comment line).
    A recording's name is its path under its source root: the folder, the fixed part of the glob, the list's folder.

    Raises:
        SourceError: a source does not exist, or holds no recordings.
    """
    found: dict[Path, Recording] = {}
    for source in sources:
        count = 0
        for recording in _expand(str(source)):
            found.setdefault(recording.path.resolve(), recording)
            count += 1
        if not count:
            raise SourceError(
                f"no recordings in {source}", f"looked for files that end in {' '.join(sorted(VIDEO_SUFFIXES))}"
            )
    return list(found.values())


def _expand(source: str) -> Iterator[Recording]:
    path = Path(source).expanduser()
    if path.is_dir():
        for file in _walk(path):
            yield _recording(file, path)
    elif path.suffix.lower() == ".txt" and path.is_file():
        yield from _listed(path)
    elif path.is_file():
        yield _recording(path, path.parent)
    elif glob.has_magic(source):
        root = _fixed_part(path)
        for match in sorted(glob.glob(str(path), recursive=True)):
            if Path(match).is_file() and Path(match).suffix.lower() in VIDEO_SUFFIXES:
                yield _recording(Path(match), root)
    else:
        raise SourceError(f"no such file or folder: {source}", "check the path; quote a glob so that vidgru expands it")


def _walk(folder: Path) -> Iterator[Path]:
    """Video files below `folder`, sorted by path; linked folders are followed, each real folder once."""
    seen: set[str] = set()
    files: list[Path] = []
    for base, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(base)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(base, n) for n in names if not n.startswith(".") and Path(n).suffix.lower() in VIDEO_SUFFIXES]
    yield from sorted(files)


def _listed(path: Path) -> Iterator[Recording]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(f"{path} is not a list of paths in UTF-8", "save it as UTF-8, one path a line") from None
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        file = path.parent / Path(entry).expanduser()
        if not file.is_file():
            raise SourceError(f"{path}, line {number}: no such file: {entry}", "paths are relative to the list")
        yield _recording(file, path.parent)


def _fixed_part(pattern: Path) -> Path:
    """The folder in front of a glob's first wildcard."""
    fixed = list(pattern.parts)
    while fixed and glob.has_magic(str(Path(*fixed))):
        fixed.pop()
    return Path(*fixed)


def _recording(path: Path, root: Path) -> Recording:
    under = os.path.relpath(path, root)
    return Recording(path=path, name=path.name if under.startswith("..") else Path(under).as_posix())
