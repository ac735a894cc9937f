"""Detections as Ultralytics' `save_txt` writes them: a text file for each frame with objects, a line an object.

    runs/detect/predict/labels/street_1.txt     frame 1, the first unless there is a frame 0, of street.mp4

    0 0.481719 0.634028 0.690625 0.713278                 class, and the box's centre, width and height, 0 to 1
    0 0.481719 0.634028 0.690625 0.713278 0.92            with save_conf: its score
    0 0.481719 0.634028 0.690625 0.713278 0.92 7          of a tracked one: its track id
    0 0.48 0.63 0.69 0.71 0.41 0.30 0.99 ... 0.92 7       of a pose: keypoints, x, y and mostly a confidence
    0 0.41 0.30 0.52 0.31 0.55 0.48 ... 0.92 7            of a segment: its outline; of an oriented box: its corners

as `ultralytics.engine.results.Results.save_txt` has it (https://docs.ultralytics.com/reference/engine/results). Of
outlines and oriented boxes the enclosing box is taken. Where nothing was tracked in a frame, its lines end before the
id. A frame without a file is one in which nothing was there. With `vid_stride` Ultralytics counts the frames that it
reads, not those of the video: `source_fps` has to say how many a second those were.
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
from vidgru.extraction.import_detections.parsed import Seen, Source, enclosing, whole
from vidgru.types import Array

FRAME_FILE = re.compile(r"(?P<stem>.+)_(?P<frame>\d+)\.txt")
_COCO_POINTS = 17  # https://cocodataset.org/#keypoints-2020
_FEWEST_COLUMNS = 5
_LOOKED_AT = 200  # files that are opened to see what their columns are


class Columns(NamedTuple):
    """What the columns between class and score are.

    Attributes:
        outline: points around the object, in place of its box.
        points: how many; of an outline 0 is as many as each needs. Of boxes, keypoints after it.
        per_point: numbers a keypoint: x, y, and mostly a confidence.
    """

    outline: bool = False
    points: int = 0
    per_point: int = 2


class _File(NamedTuple):
    frame: int
    path: str
    size: int
    mtime_ns: int


def find_save_txt(root: Path, facts: Mapping[str, Any]) -> tuple[dict[str, Source], int]:
    """The recordings of a folder, by name, and the number of keypoints of an object.

    Args:
        root: the folder `labels`, one that holds it, or one that holds several such.
        facts: of `data.yaml`.

    Raises:
        SettingsError: what the columns are cannot be told.
    """
    videos: dict[str, list[_File]] = defaultdict(list)
    for file, stem in _walk(root, ""):
        videos[stem].append(file)
    files = [file.path for name in sorted(videos) for file in videos[name][:2]]
    columns = _columns(files, facts, root)
    found = {}
    for name in sorted(videos):
        of_video = sorted(videos[name])
        changed_ns = max(file.mtime_ns for file in of_video)
        read = partial(_read, of_video, columns)
        found[name] = Source(name=name, stamp=_stamp(of_video), changed_ns=changed_ns, read=read)
    return found, 0 if columns.outline else columns.points


def _walk(folder: Path | str, under: str) -> Iterator[tuple[_File, str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                inner = under if entry.name == "labels" else f"{under}{entry.name}/"
                yield from _walk(entry.path, inner)
            elif match := FRAME_FILE.fullmatch(entry.name):
                status = entry.stat()
                frame = int(match["frame"])
                yield _File(frame, entry.path, status.st_size, status.st_mtime_ns), under + match["stem"]


def lines_of(path: str | Path) -> list[bytes]:
    """The lines of a text file, without the mark that some editors begin it with."""
    return Path(path).read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()


def is_save_txt(path: Path) -> bool:
    """Whether a text file is called like those of save_txt and begins with a line of theirs."""
    if not FRAME_FILE.fullmatch(path.name):
        return False
    try:
        line = next((line for line in lines_of(path) if line.strip()), b"")
        values = np.array(line.split(), np.float64)
    except ValueError:
        return False
    return len(values) >= _FEWEST_COLUMNS and bool((np.abs(values[1:_FEWEST_COLUMNS]) <= 2).all())


def _stamp(files: list[_File]) -> str:
    text = "\n".join(f"{file.frame} {file.size} {file.mtime_ns}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()


def _columns(files: list[str], facts: Mapping[str, Any], root: Path) -> Columns:
    """What columns there are, by their number: outlines have as many as they need."""
    if "kpt_shape" in facts:
        points, per_point = map(int, facts["kpt_shape"])
        return Columns(points=points, per_point=per_point)
    counts: set[int] = set()
    for path in files[:_LOOKED_AT]:
        counts.update(len(line.split()) for line in lines_of(path))
    counts.discard(0)
    for per_point in (2, 3):
        if counts <= {5 + _COCO_POINTS * per_point + more for more in range(3)}:
            return Columns(points=_COCO_POINTS if counts else 0, per_point=per_point)
    if counts <= {5, 6, 7}:
        return Columns()
    if counts <= {9, 10, 11}:
        return Columns(outline=True, points=4)
    if max(counts) - min(counts) > 2:
        return Columns(outline=True)
    raise SettingsError(
        f"the lines of {root} have {min(counts)} columns, and what they are cannot be told",
        "of a pose model, put a data.yaml with `kpt_shape: [keypoints, 2 or 3]` and `names` into the folder",
    )


def _read(files: list[_File], columns: Columns) -> Seen:
    frames: list[int] = []
    rows: list[list[bytes]] = []
    first = min(1, min(file.frame for file in files))
    try:
        for file in files:
            if not file.size:
                continue
            lines = dict.fromkeys(lines_of(file.path))  # a run into the same folder writes all once more
            some = [line.split() for line in lines if line.strip()]
            rows += some
            frames += [file.frame - first] * len(some)
        return _seen(np.array(frames, np.int64), rows, columns)
    except (OSError, ValueError, OverflowError) as error:
        folder = Path(files[0].path).parent
        raise RecordingError(f"its labels in {folder} are not those of save_txt: {error}") from None


def _seen(frame: Array, rows: list[list[bytes]], columns: Columns) -> Seen:
    """Objects of rows of columns."""
    points = None
    if columns.outline:
        boxes, tail = _outlines(rows, columns.points)
    else:
        end = 5 + columns.points * columns.per_point
        table = _table(rows, end)
        tail, half = table[:, end:], table[:, 3:5] / 2
        boxes = np.concatenate([table[:, 1:3] - half, table[:, 1:3] + half], axis=1)
        if columns.points:
            points = table[:, 5:end].reshape(len(table), columns.points, columns.per_point)
            if columns.per_point == 2:  # what is not seen is written as 0, 0
                points = np.concatenate([points, (points != 0).any(axis=2, keepdims=True)], axis=2)
    scores, tracks = _score_and_track(tail)
    return Seen(
        frame=frame,
        boxes=boxes,
        scores=scores,
        classes=whole(np.array([row[0] for row in rows], np.float64)),
        tracks=tracks,
        keypoints=points,
        normalised=True,
    )


def _table(rows: list[list[bytes]], end: int) -> Array:
    """Rows as numbers, of equal length: `end` of them, and up to two more."""
    lengths = {len(row) for row in rows}
    widest = max(lengths, default=0)
    if len(lengths) > 1:
        known = _end_in_ids([row for row in rows if len(row) == widest])
        if lengths != {widest - 1, widest} or widest == end or not known:
            raise ValueError("their lines have different numbers of columns")
        rows = _with_ids(rows, widest)
    table = np.array(rows, np.float64) if rows else np.zeros((0, end))
    if not end <= table.shape[1] <= end + 2:
        raise ValueError(f"their lines have {table.shape[1]} columns, those of the others {end} to {end + 2}")
    return table


def _end_in_ids(rows: list[list[bytes]]) -> bool:
    """Whether the last columns of rows, if there are any, are track ids: these are whole numbers from 1."""
    last = np.array([row[-1] for row in rows], np.float64)
    return bool(len(last) and (last == np.round(last)).all() and (last >= 1).all())


def _with_ids(rows: list[list[bytes]], columns: int) -> list[list[bytes]]:
    """With -1 for the ids that were not written: the objects of a frame have none where the tracker found no track."""
    return [row if len(row) == columns else [*row, b"-1"] for row in rows]


def _outlines(rows: list[list[bytes]], points: int) -> tuple[Array, Array]:
    """Boxes around outlines, and what columns follow those. Coordinates come in pairs and are up to 1, track ids are
    whole numbers from 1."""
    extra = 0
    if rows and points:
        table = _table(rows, 1 + 2 * points)
        extra = table.shape[1] - 1 - 2 * points
        rows = _with_ids(rows, table.shape[1])
    elif rows:
        rows, extra = _tails(rows)
    ends = [len(row) - extra for row in rows]
    around = [np.array(row[1:end], np.float64).reshape(1, -1, 2) for row, end in zip(rows, ends, strict=True)]
    boxes = np.concatenate([enclosing(each) for each in around]) if rows else np.zeros((0, 4))
    tail = np.array([row[end:] for row, end in zip(rows, ends, strict=True)], np.float64)
    return boxes, tail.reshape(len(rows), extra)


def _tails(rows: list[list[bytes]]) -> tuple[list[list[bytes]], int]:
    """Rows of outlines of any length, with a track id each if any has one, and how many columns follow each outline."""
    odd = [row for row in rows if len(row) % 2]  # the class and pairs, with no column after those or with two
    even = [row for row in rows if not len(row) % 2]
    both, one = _end_in_ids(odd), _end_in_ids(even)
    if not even:
        return rows, 2 * both
    if not odd:
        return rows, 1
    if both == one:
        raise ValueError("some of their lines have a score or a track id, some have none")
    return [[*row, b"-1"] if bool(len(row) % 2) != both else row for row in rows], 1 + both


def _score_and_track(tail: Array) -> tuple[Array, Array | None]:
    """What one or two last columns are: of one, track ids are whole numbers, not all of them 1."""
    ones = np.ones(len(tail))
    if tail.shape[1] == 2:
        return tail[:, 0], whole(tail[:, 1])
    if tail.shape[1] == 1:
        ids = (tail == np.round(tail)).all() and ((tail > 1) | (tail < 0)).any()  # -1 of `_with_ids`
        return (ones, whole(tail[:, 0])) if ids else (tail[:, 0], None)
    return ones, None
