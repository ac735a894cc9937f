"""Detections and tracks in the MOTChallenge format: one CSV per recording, one line per object.

    frame, id, left, top, width, height, conf, class, visibility        frames and classes from 1, in pixels

(Milan et al., "MOT16: A Benchmark for Multi-Object Tracking", 2016, section 4.3; https://motchallenge.net/instructions.)
Many trackers count frames or classes from 0. Their files in a folder are counted in the same way: from 0 if one of them
has a frame or class 0. An id of -1 means untracked, a conf of -1 unspecified, a class of -1 the first class. In ground
truth, conf is 1 or 0: whether the object counts; those with 0 are dropped.

A recording is a folder `<name>/det/det.txt` or, without one, `<name>/gt/gt.txt`, with frame rate, length and size in
`<name>/seqinfo.ini`; or a file `<name>.txt` or `<name>.csv`, as trackers write them.
"""

from __future__ import annotations

import codecs
import configparser
import re
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from vidgru.errors import RecordingError, SourceError
from vidgru.extraction.import_detections.parsed import (
    CLASS_FILES,
    ParsedDetections,
    RecordingDetections,
    find_class_file,
    ltwh_to_xyxy,
    to_integers,
)
from vidgru.types import Array

_UNSPECIFIED = -1
_MIN_COLUMNS = 6
_CLASS_COLUMN = 7
_COLUMN_NAMES = "frame,id,left,top,width,height,conf,class,visibility"
_SHOWN_NAMES = 9


def is_mot(path: Path) -> bool:
    """Whether a text file is empty or begins with a MOT line, or with a header of MOT's columns and such a line."""
    lines = _first_lines(path)
    return not lines or (any(len(_parse_line(line)) >= _MIN_COLUMNS for line in lines) and not other_columns(path))


def other_columns(path: Path) -> str:
    """Return a message if a table of numbers has a header that names other columns than MOT's; else an empty text."""
    lines = _first_lines(path)
    if len(lines) < 2 or _parse_line(lines[0]) or len(_parse_line(lines[1])) < _MIN_COLUMNS:
        return ""
    header = lines[0].decode(errors="replace").lower()
    names = [name.strip().strip("\"'") for name in header.split(",")]
    if len(names) >= _MIN_COLUMNS and re.search("id|track|object", names[1]) and "w" in names[4]:
        return ""
    poses = "; poses are read from the CSV of DeepLabCut or SLEAP" if names[1].endswith("_x") else ""
    return f"{path.name} has the columns {','.join(names[:_SHOWN_NAMES])}, not MOT's {_COLUMN_NAMES}{poses}"


def _first_lines(path: Path) -> list[bytes]:
    with open(path, "rb") as file:
        return [line.removeprefix(codecs.BOM_UTF8) for _, line in zip(range(2), file, strict=False)]


def _parse_line(line: bytes) -> list[float]:
    try:
        return [float(value) for value in line.split(b",") if value.strip()]
    except ValueError:
        return []


class _FirstFrame:
    """Number of the first frame in files that are counted in the same way: 0 if any has a frame 0, else 1."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    @cached_property
    def number(self) -> int:
        return 0 if _has_0(self._paths, 0) else 1


def _has_0(paths: Sequence[Path], column: int) -> bool:
    """Whether a file has a 0 in a column."""
    for path in paths:
        try:
            with open(path, "rb") as file:
                for line in file:
                    cells = line.split(b",", column + 1)
                    if len(cells) > column and _is_0(cells[column]):
                        return True
        except OSError:  # reading the recording says why
            continue
    return False


def _is_0(cell: bytes) -> bool:
    try:
        return float(cell) == 0
    except ValueError:
        return False


def open_mot(root: Path) -> tuple[dict[str, RecordingDetections], dict[str, Any], int]:
    """Return recordings by name, the content of a class file beside one, and the number of the first class.

    Raises:
        SourceError: Two recordings have the same name.
    """
    recordings: dict[str, RecordingDetections] = {}
    class_file: dict[str, Any] = {}
    paths: dict[str, Path] = {}
    files = list(_find_files(root))
    first_class = 0 if _has_0([path for path, _, _ in files], _CLASS_COLUMN) else 1
    shared = _FirstFrame([path for path, _, folder in files if folder is None])
    for path, name, folder in files:
        first_frame = shared if folder is None else _FirstFrame([path])
        info = folder / "seqinfo.ini" if folder else None
        sources = [path, *([info] if info and info.is_file() else [])]
        states = [(status.st_size, status.st_mtime_ns) for status in map(Path.stat, sources)]
        if name in paths:
            raise SourceError(f"{paths[name]} and {path} both belong to recording {name!r}", "rename or remove one")
        paths[name] = path
        recordings[name] = RecordingDetections(
            name=name,
            stamp=repr(states),
            changed_ns=max(mtime_ns for _, mtime_ns in states),
            read=partial(_read, path, info, first_frame, first_class),
        )
        class_file = class_file or find_class_file(path.parent)
    return recordings, class_file, first_class


def _find_files(root: Path) -> Iterator[tuple[Path, str, Path | None]]:
    """Yield file, name of the recording, and the folder of the recording if it has one."""
    if root.is_file():
        folder = root.parent.parent if root.parent.name in ("det", "gt") else None
        yield root, root.stem if folder is None else folder.resolve().name, folder
        return
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".txt", ".csv") and p.is_file()):
        kind = path.parent.name
        if kind in ("det", "gt") and path.stem == kind:
            folder = path.parent.parent
            if kind == "gt" and (folder / "det" / "det.txt").is_file():
                continue
            yield path, folder.relative_to(root).as_posix() if folder != root else root.resolve().name, folder
        elif kind not in ("det", "gt") and path.name not in CLASS_FILES and is_mot(path):
            yield path, path.relative_to(root).with_suffix("").as_posix(), None


def _read(path: Path, info: Path | None, first_frame: _FirstFrame, first_class: int) -> ParsedDetections:
    try:
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
        if lines and not _parse_line(lines[0]):
            lines = lines[1:]  # a header
        table = np.genfromtxt(lines, delimiter=",", dtype=np.float64, ndmin=2) if lines else np.zeros((0, 6))
    except (OSError, ValueError) as error:
        raise RecordingError(f"its tracks cannot be read from {path}: {str(error).splitlines()[0]}") from None
    if table.shape[1] < _MIN_COLUMNS or not np.isfinite(table[:, :6]).all():
        raise RecordingError(f"{path} contains lines that do not begin with frame, id, left, top, width, height")
    scores = _optional_column(table, 6)
    # In lists of detections, and in 3D tracks, this and the further columns are x, y, z, which are -1 in 2D.
    classes = _optional_column(table, _CLASS_COLUMN, missing=first_class)
    if len(classes) and (classes.min() < 0 or (classes != np.round(classes)).any()):
        raise RecordingError(f"{path} contains class {classes.min():g}; MOT classes are whole numbers, 0 or more")
    ids = to_integers(table[:, 1])
    sequence = _read_seqinfo(info) if info is not None and info.is_file() else {}
    return ParsedDetections(
        frame=to_integers(table[:, 0]) - first_frame.number,
        boxes=ltwh_to_xyxy(table[:, 2:6]),
        scores=scores,
        classes=to_integers(classes) - first_class,
        tracks=None if (ids == _UNSPECIFIED).all() else ids,
        **sequence,
    )


def _optional_column(table: Array, column: int, *, missing: float = 1.0) -> Array:
    """Return a column; values that are missing, -1, or empty in all lines, as after a trailing comma, are `missing`."""
    values = table[:, column] if table.shape[1] > column else np.full(len(table), np.nan)
    return np.where((values == _UNSPECIFIED) | np.isnan(values).all(), missing, values)


def _read_seqinfo(path: Path) -> dict[str, Any]:
    """Read the fields of `ParsedDetections` that a `seqinfo.ini` specifies."""
    try:
        parser = configparser.ConfigParser()
        parser.read(path, encoding="utf-8-sig")
        section = parser["Sequence"]
        has_size = "imWidth" in section and "imHeight" in section
        return {
            "num_frames": section.getint("seqLength"),
            "fps": section.getfloat("frameRate"),
            "size_px": (section.getint("imWidth"), section.getint("imHeight")) if has_size else None,
        }
    except (configparser.Error, KeyError, ValueError) as error:
        raise RecordingError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
