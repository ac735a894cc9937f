"""Detections in Ultralytics' `save_txt` format: one text file per frame with objects, one line per object.

    runs/detect/predict/labels/street_1.txt     frame 1 of street.mp4, the first one unless there is a frame 0

    0 0.481719 0.634028 0.690625 0.713278                 class, and the box's centre, width and height, 0 to 1
    0 0.481719 0.634028 0.690625 0.713278 0.92            with save_conf: its score
    0 0.481719 0.634028 0.690625 0.713278 0.92 7          tracked: its track id
    0 0.48 0.63 0.69 0.71 0.41 0.30 0.99 ... 0.92 7       pose: keypoints, x, y and usually a confidence
    0 0.41 0.30 0.52 0.31 0.55 0.48 ... 0.92 7            segment: its outline; oriented box: its corners

as written by `ultralytics.engine.results.Results.save_txt` (https://docs.ultralytics.com/reference/engine/results).
Outlines and oriented boxes are replaced by their enclosing box. If nothing was tracked in a frame, its lines have no
id. A frame without a file is an empty frame. With `vid_stride` Ultralytics counts the frames that it reads, not those
of the video: `source_fps` must then be the rate of those frames.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vidgru.errors import RecordingError, SettingsError
from vidgru.extraction.import_detections.parsed import (
    ParsedDetections,
    RecordingDetections,
    enclosing_boxes,
    to_integers,
)
from vidgru.types import Array

FRAME_FILE = re.compile(r"(?P<stem>.+)_(?P<frame>\d+)\.txt")
_COCO_KEYPOINTS = 17  # https://cocodataset.org/#keypoints-2020
_MIN_COLUMNS = 5
_INSPECTED_FILES = 200  # opened to determine what the columns are


class _Columns(NamedTuple):
    """Meaning of the columns between class and score.

    Attributes:
        is_outline: Points around the object, instead of its box.
        points: Number of points; for outlines, 0 if it varies. With boxes, the keypoints that follow.
        per_point: Numbers per keypoint: x, y and usually a confidence.
    """

    is_outline: bool = False
    points: int = 0
    per_point: int = 2


class _FrameFile(NamedTuple):
    frame: int
    path: str
    size: int
    mtime_ns: int


def open_save_txt(root: Path, class_file: Mapping[str, Any]) -> tuple[dict[str, RecordingDetections], int]:
    """Return the recordings of a folder by name, and the number of keypoints per object.

    Args:
        root: The folder `labels`, one that contains it, or one that contains several.
        class_file: Content of `data.yaml`.

    Raises:
        SettingsError: The meaning of the columns cannot be determined.
    """
    files_by_name: dict[str, list[_FrameFile]] = defaultdict(list)
    for file, name in _find_files(root, ""):
        files_by_name[name].append(file)
    columns = _detect_columns(
        [file.path for name in sorted(files_by_name) for file in files_by_name[name][:2]], class_file, root
    )
    recordings = {}
    for name in sorted(files_by_name):
        files = sorted(files_by_name[name])
        states = "\n".join(f"{file.frame} {file.size} {file.mtime_ns}" for file in files)
        recordings[name] = RecordingDetections(
            name=name,
            stamp=hashlib.sha256(states.encode()).hexdigest(),
            changed_ns=max(file.mtime_ns for file in files),
            read=partial(_read, files, columns),
        )
    return recordings, 0 if columns.is_outline else columns.points


def _find_files(folder: Path | str, prefix: str) -> Iterator[tuple[_FrameFile, str]]:
    """Yield the files below a folder, each with the name of its recording; folders `labels` are left out of names."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _find_files(entry.path, prefix if entry.name == "labels" else f"{prefix}{entry.name}/")
            elif match := FRAME_FILE.fullmatch(entry.name):
                status = entry.stat()
                file = _FrameFile(int(match["frame"]), entry.path, status.st_size, status.st_mtime_ns)
                yield file, prefix + match["stem"]


def _read_lines(path: str | Path) -> list[bytes]:
    """Read the lines of a text file, without a byte order mark."""
    return Path(path).read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()


def is_save_txt(path: Path) -> bool:
    """Whether a text file has a name as save_txt gives and begins with such a line."""
    values = _first_numbers(path)
    return len(values) >= _MIN_COLUMNS and bool((np.abs(values[1:_MIN_COLUMNS]) <= 2).all())


def pixel_coordinates(path: Path) -> str:
    """Return a message if a file would be save_txt, but for coordinates above 1; else an empty text."""
    if len(_first_numbers(path)) < _MIN_COLUMNS or is_save_txt(path):
        return ""
    return f"{path.name} looks like save_txt, but its coordinates are not from 0 to 1; divide them by width and height"


def _first_numbers(path: Path) -> Array:
    """Return the first line of a file that has a name as save_txt gives; empty if it is no line of numbers."""
    try:
        lines = _read_lines(path) if FRAME_FILE.fullmatch(path.name) else []
        return np.array(next((line for line in lines if line.strip()), b"").split(), np.float64)
    except ValueError:
        return np.zeros(0)


def _detect_columns(paths: list[str], class_file: Mapping[str, Any], root: Path) -> _Columns:
    """Determine what the columns are from their number, which varies only for outlines."""
    if "kpt_shape" in class_file:
        points, per_point = map(int, class_file["kpt_shape"])
        return _Columns(points=points, per_point=per_point)
    counts: set[int] = set()
    for path in paths[:_INSPECTED_FILES]:
        counts.update(len(line.split()) for line in _read_lines(path))
    counts.discard(0)
    for per_point in (2, 3):
        if counts <= {5 + _COCO_KEYPOINTS * per_point + extra for extra in range(3)}:
            return _Columns(points=_COCO_KEYPOINTS if counts else 0, per_point=per_point)
    if counts <= {5, 6, 7}:
        return _Columns()
    if counts <= {9, 10, 11}:
        return _Columns(is_outline=True, points=4)
    if max(counts) - min(counts) > 2:
        return _Columns(is_outline=True)
    raise SettingsError(
        f"the lines of {root} have {min(counts)} columns of unknown meaning",
        "for a pose model, add a data.yaml with `kpt_shape: [keypoints, 2 or 3]` and `names` to the folder",
    )


def _read(files: list[_FrameFile], columns: _Columns) -> ParsedDetections:
    frames: list[int] = []
    rows: list[list[bytes]] = []
    first = min(1, min(file.frame for file in files))
    try:
        for file in files:
            if not file.size:
                continue
            lines = dict.fromkeys(_read_lines(file.path))  # running twice into a folder appends all lines again
            frame_rows = [line.split() for line in lines if line.strip()]
            rows += frame_rows
            frames += [file.frame - first] * len(frame_rows)
        return _parse_rows(np.array(frames, np.int64), rows, columns)
    except (OSError, ValueError, OverflowError) as error:
        folder = Path(files[0].path).parent
        raise RecordingError(f"its labels in {folder} are not in save_txt format: {error}") from None


def _parse_rows(frame: Array, rows: list[list[bytes]], columns: _Columns) -> ParsedDetections:
    keypoints = None
    if columns.is_outline:
        boxes, tail = _parse_outlines(rows, columns.points)
    else:
        end = 5 + columns.points * columns.per_point
        table = _parse_table(rows, end)
        tail, half = table[:, end:], table[:, 3:5] / 2
        boxes = np.concatenate([table[:, 1:3] - half, table[:, 1:3] + half], axis=1)
        if columns.points:
            keypoints = table[:, 5:end].reshape(len(table), columns.points, columns.per_point)
            if columns.per_point == 2:  # invisible keypoints are written as 0, 0
                keypoints = np.concatenate([keypoints, (keypoints != 0).any(axis=2, keepdims=True)], axis=2)
    scores, tracks = _parse_tail(tail)
    return ParsedDetections(
        frame=frame,
        boxes=boxes,
        scores=scores,
        classes=to_integers(np.array([row[0] for row in rows], np.float64)),
        tracks=tracks,
        keypoints=keypoints,
        normalised=True,
    )


def _parse_table(rows: list[list[bytes]], end: int) -> Array:
    """Convert rows to numbers, [M, `end` to `end` + 2]: up to two columns, score and track id, may follow."""
    lengths = {len(row) for row in rows}
    longest = max(lengths, default=0)
    if len(lengths) > 1:
        has_ids = _end_in_ids([row for row in rows if len(row) == longest])
        if lengths != {longest - 1, longest} or longest == end or not has_ids:
            raise ValueError("their lines have different numbers of columns")
        rows = _add_missing_ids(rows, longest)
    table = np.array(rows, np.float64) if rows else np.zeros((0, end))
    if not end <= table.shape[1] <= end + 2:
        raise ValueError(f"their lines have {table.shape[1]} columns, those of other recordings {end} to {end + 2}")
    return table


def _end_in_ids(rows: list[list[bytes]]) -> bool:
    """Whether there are rows, and their last column contains track ids: whole numbers from 1."""
    last = np.array([row[-1] for row in rows], np.float64)
    return bool(len(last) and (last == np.round(last)).all() and (last >= 1).all())


def _add_missing_ids(rows: list[list[bytes]], columns: int) -> list[list[bytes]]:
    """Append an id of -1 to shorter rows: in frames in which the tracker has no track, ids are left out."""
    return [row if len(row) == columns else [*row, b"-1"] for row in rows]


def _parse_outlines(rows: list[list[bytes]], points: int) -> tuple[Array, Array]:
    """Return the boxes around outlines, and the columns after them (score and track id, both optional).

    For outlines of any length (`points` is 0), parity shows whether such columns follow, because coordinates come in
    pairs, and their values which: coordinates are up to 1, track ids whole numbers from 1.
    """
    extra = 0
    if rows and points:
        table = _parse_table(rows, 1 + 2 * points)
        extra = table.shape[1] - 1 - 2 * points
        rows = _add_missing_ids(rows, table.shape[1])
    elif rows:
        odd = [row for row in rows if len(row) % 2]  # class and pairs, followed by no column or by two
        even = [row for row in rows if not len(row) % 2]  # followed by one column
        odd_has_ids, even_has_ids = _end_in_ids(odd), _end_in_ids(even)
        if not even:
            extra = 2 if odd_has_ids else 0
        elif not odd:
            extra = 1
        elif odd_has_ids == even_has_ids:
            raise ValueError("some of their lines have a score or a track id, others have none")
        else:  # both kinds: the shorter kind lacks ids
            rows = [[*row, b"-1"] if bool(len(row) % 2) != odd_has_ids else row for row in rows]
            extra = 2 if odd_has_ids else 1
    ends = [len(row) - extra for row in rows]
    outlines = [np.array(row[1:end], np.float64).reshape(1, -1, 2) for row, end in zip(rows, ends, strict=True)]
    boxes = np.concatenate([enclosing_boxes(outline) for outline in outlines]) if rows else np.zeros((0, 4))
    tail = np.array([row[end:] for row, end in zip(rows, ends, strict=True)], np.float64)
    return boxes, tail.reshape(len(rows), extra)


def _parse_tail(tail: Array) -> tuple[Array, Array | None]:
    """Return scores and tracks from the last columns; a single column has ids if all are whole and not all are 1."""
    ones = np.ones(len(tail))
    if tail.shape[1] == 2:
        return tail[:, 0], to_integers(tail[:, 1])
    if tail.shape[1] == 1:
        is_id = (tail == np.round(tail)).all() and ((tail > 1) | (tail < 0)).any()  # -1 from `_add_missing_ids`
        return (ones, to_integers(tail[:, 0])) if is_id else (tail[:, 0], None)
    return ones, None
