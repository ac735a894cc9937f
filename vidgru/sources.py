"""Recordings named on a command line: files, folders, globs and text lists."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from vidgru.errors import SourceError
from vidgru.storage import user_path
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
    """Find the recordings of `sources`, in the given order, folders sorted, each file once.

    A source is a video file (any suffix except `.txt`), a folder (searched recursively for video suffixes), a glob
    pattern, or a `.txt` list with one path per line (relative to the list; lines that start with `#` are comments).
    What has a video suffix but is no file (a pipe, a device, a folder without files, a broken or circular link) is
    listed too, so that it is reported as failed.
    The name of a recording is its path under the source root: the folder, the part of the glob before the first
    wildcard, or the list's folder, if all of its paths are below that, else the folder that they have in common.

    Raises:
        SourceError: A source does not exist, or contains no recordings.
    """
    recordings: dict[str, Recording] = {}
    for source in sources:
        count = 0
        for recording in _expand(str(source)):
            recordings.setdefault(os.path.realpath(recording.path), recording)
            count += 1
        if not count:
            raise SourceError(
                f"no recordings in {source}", f"looked for files that end in {' '.join(sorted(VIDEO_SUFFIXES))}"
            )
    return list(recordings.values())


def _expand(source: str) -> Iterator[Recording]:
    path = user_path(source)
    if path.is_dir() and not _is_empty_video(path):
        for file in _find_videos(path):
            yield _recording(file, path)
    elif path.suffix.lower() == ".txt" and path.is_file():
        yield from _read_list(path)
    elif path.is_file() or _is_listed(path):
        yield _recording(path, path.parent)
    elif glob.has_magic(source):
        root = path
        while glob.has_magic(str(root)):
            root = root.parent
        for match in sorted(glob.glob(str(path), recursive=True)):
            if _is_listed(Path(match)):
                yield _recording(Path(match), root)
    else:
        raise SourceError(f"no such file or folder: {source}", "check the path; quote a glob so that vidgru expands it")


def _is_listed(path: Path) -> bool:
    """Whether a path has the suffix of a video and is there, whatever it is; folders count if they are empty."""
    has_suffix = path.suffix.lower() in VIDEO_SUFFIXES
    return has_suffix and os.path.lexists(path) and (not path.is_dir() or _is_empty_video(path))


def _is_empty_video(folder: Path) -> bool:
    """Whether an empty folder, as failed copies leave, has the suffix of a video."""
    with suppress(OSError):
        return folder.suffix.lower() in VIDEO_SUFFIXES and not os.listdir(folder)
    return False


def _find_videos(folder: Path) -> list[Path]:
    """Return video files below `folder`, sorted by path; linked folders are followed, each real folder once."""
    visited: set[str] = set()
    files: list[Path] = []
    for base, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(base)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(base, n) for n in names if not n.startswith(".") and Path(n).suffix.lower() in VIDEO_SUFFIXES]
        files += [path for name in folders if _is_empty_video(path := Path(base, name))]
    return sorted(files)


def _read_list(path: Path) -> Iterator[Recording]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(f"{path} is not a list of paths in UTF-8", "save it as UTF-8, one path per line") from None
    files: list[Path] = []
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        file = path.parent / user_path(entry)
        if not file.is_file() and not _is_listed(file):
            raise SourceError(f"{path}, line {number}: no such file: {entry}", "paths are relative to the list")
        files.append(file)
    root = path.parent.absolute()
    folders = [os.path.abspath(file.parent) for file in files]
    if not all(Path(folder).is_relative_to(root) for folder in folders):
        root = Path(os.path.commonpath(folders))
    yield from (_recording(file, root) for file in files)


def _recording(path: Path, root: Path) -> Recording:
    name = os.path.relpath(path, root)
    return Recording(path=path, name=path.name if name.startswith("..") else Path(name).as_posix())
