"""Poses of animals as DeepLabCut and SLEAP export them to CSV: one table per recording, one or several animals.

    scorer,DLC_resnet50_yardMay6shuffle1_100000,...        DeepLabCut, called <video>DLC_resnet50_yardMay6...csv
    individuals,mouse1,mouse1,mouse1,...                   only of projects with several animals
    bodyparts,nose,nose,nose,...
    coords,x,y,likelihood,...
    0,12.5,40.25,0.98,...

    track,frame_idx,instance.score,nose.x,nose.y,...       SLEAP, called <project>.<number>_<video>.analysis.csv
    track_0,0,0.95,12.5,40.25,...

(https://deeplabcut.github.io/DeepLabCut, "Analyze novel videos"; https://docs.sleap.ai, "Export analysis CSV".) Frames
count from 0. Boxes are those around the keypoints of some likelihood; an empty cell is a keypoint that was not seen, an
animal without any is not there.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vidgru.errors import RecordingError, SourceError
from vidgru.extraction.import_detections.parsed import ParsedDetections, RecordingDetections, to_integers
from vidgru.keypoints import flip_idx_from_names
from vidgru.types import Array

POSE_CLASS = "animal"
_DLC_NAME = re.compile(r"DLC_.*$|DLC(?=_?[a-z]*$)")
_SLEAP_NAME = re.compile(r"^.*\.\d{3}_|\.analysis$")
_MIN_LIKELIHOOD = 0.5  # of keypoints that make the box, if any has it: others lie anywhere
_HEAD = 1 << 16


@dataclass(frozen=True, kw_only=True)
class _PoseColumns:
    """Columns of a table: of the frame and the animal, and of x, y and likelihood of each animal's keypoints.

    Attributes:
        header: Number of lines before the data.
        names: Names of the keypoints.
        animals: Names of the animals that have columns of their own; empty if each row is one animal.
        points: int64 [animals or 1, K, 3], columns; -1 for a likelihood that is not given.
    """

    header: int
    names: tuple[str, ...]
    animals: tuple[str, ...]
    points: Array


def is_poses(path: Path) -> bool:
    """Whether a file is a table of poses."""
    return _read_columns(path) is not None


def open_poses(root: Path) -> tuple[dict[str, RecordingDetections], int, tuple[int, ...]]:
    """Return the recordings of a file or folder by name, and the number and `flip_idx` of keypoints per animal.

    Raises:
        SourceError: Two files belong to one recording, or have other keypoints.
    """
    recordings: dict[str, RecordingDetections] = {}
    first: tuple[Path, tuple[str, ...]] | None = None
    for path in [root] if root.is_file() else sorted(root.rglob("*.csv")):
        columns = _read_columns(path)
        if columns is None:
            continue
        first = first or (path, columns.names)
        if columns.names != first[1]:
            raise SourceError(f"{path} has other keypoints than {first[0]}", "pass the tables of one project")
        folder = "" if root.is_file() else path.parent.relative_to(root).as_posix()
        name = _SLEAP_NAME.sub("", _DLC_NAME.sub("", path.stem))
        name = name if folder in ("", ".") else f"{folder}/{name}"
        if name in recordings:
            raise SourceError(f"{path} is a second table of {name}", "remove one, such as that without _filtered")
        state = path.stat()
        recordings[name] = RecordingDetections(
            name=name,
            stamp=f"{state.st_size} {state.st_mtime_ns}",
            changed_ns=state.st_mtime_ns,
            read=partial(_read, path, columns),
        )
    names = first[1] if first else ()
    return recordings, len(names), flip_idx_from_names([names], len(names))


def _read_columns(path: Path) -> _PoseColumns | None:
    """Return the columns of a table of poses; None if it is none."""
    if path.suffix.lower() != ".csv":
        return None
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        rows = list(csv.reader(file.read(_HEAD).splitlines()[:4]))
    if not rows or not rows[0]:
        return None
    if rows[0][0] == "scorer" and len(rows) > 3:
        return _dlc_columns({row[0]: row for row in rows if row})
    return _sleap_columns(rows[0]) if rows[0][:2] == ["track", "frame_idx"] else None


def _dlc_columns(rows: dict[str, list[str]]) -> _PoseColumns | None:
    parts, coords = rows.get("bodyparts", []), rows.get("coords", [])
    individuals = rows.get("individuals", ["individuals", *([""] * (len(parts) - 1))])
    if not len(parts) == len(coords) == len(individuals) or len(parts) < 4:
        return None
    column = {key: index for index, key in enumerate(zip(individuals, parts, coords, strict=True)) if index}
    names = tuple(dict.fromkeys(parts[1:]))
    animals = tuple(dict.fromkeys(individuals[1:]))
    points = [
        [[column.get((animal, part, axis), -1) for axis in ("x", "y", "likelihood")] for part in names]
        for animal in animals
    ]
    header = sum(name in rows for name in ("scorer", "individuals", "bodyparts", "coords"))
    return _PoseColumns(header=header, names=names, animals=animals, points=np.array(points))


def _sleap_columns(header: list[str]) -> _PoseColumns | None:
    column = {name: index for index, name in enumerate(header)}
    names = tuple(name.removesuffix(".x") for name in header if name.endswith(".x"))
    points = [[[column.get(f"{name}.{axis}", -1) for axis in ("x", "y", "score")] for name in names]]
    return _PoseColumns(header=1, names=names, animals=(), points=np.array(points)) if names else None


def _read(path: Path, columns: _PoseColumns) -> ParsedDetections:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row][columns.header :]
        frames = to_integers(np.array([row[0 if columns.animals else 1] for row in rows], np.float64))
        parsed = [
            (number, animal, points) for number, row in enumerate(rows) for animal, points in _animals(row, columns)
        ]
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise RecordingError(f"its poses cannot be read from {path}: {error}") from None
    keypoints = np.array([points for _, _, points in parsed]).reshape(len(parsed), len(columns.names), 3)
    unseen = np.isnan(keypoints[:, :, :2]).any(axis=2)
    keypoints[:, :, 2] = np.clip(np.nan_to_num(np.where(unseen, 0.0, keypoints[:, :, 2])), 0, 1)
    keypoints[unseen] = 0
    there = np.flatnonzero((~unseen).any(axis=1))
    is_likely = (keypoints[:, :, 2] >= _MIN_LIKELIHOOD) & ~unseen
    used = np.where(is_likely.any(axis=1, keepdims=True), is_likely, ~unseen)[there, :, None]
    low = np.where(used, keypoints[there, :, :2], np.inf).min(axis=1)
    high = np.where(used, keypoints[there, :, :2], -np.inf).max(axis=1)
    tracks = {name: number for number, name in enumerate(dict.fromkeys(animal for _, animal, _ in parsed if animal))}
    seen = np.maximum((~unseen[there]).sum(axis=1), 1)
    return ParsedDetections(
        frame=frames[[parsed[index][0] for index in there]].reshape(len(there)),
        boxes=np.concatenate([low, high], axis=1).reshape(len(there), 4),
        scores=keypoints[there, :, 2].sum(axis=1) / seen,
        classes=np.zeros(len(there), np.int64),
        tracks=np.array([tracks.get(parsed[index][1], -1) for index in there], np.int64),
        keypoints=keypoints[there],
        processed_frames=np.unique(frames) if columns.animals else None,
    )


def _animals(row: list[str], columns: _PoseColumns) -> Iterator[tuple[str, Array]]:
    """Yield the animals of a row: the name of each, and its keypoints, float64 [K, 3], NaN for an empty cell."""
    offset = 1 if columns.animals else 2
    values = np.array([float(cell) if cell.strip() else np.nan for cell in row[offset:]])
    names = columns.animals or (row[0],)
    for name, points in zip(names, columns.points, strict=True):
        keypoints = np.where(points < 0, 1.0, values[np.maximum(points - offset, 0)])
        yield name or "animal", keypoints
