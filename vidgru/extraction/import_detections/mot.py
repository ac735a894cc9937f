"""Detections and tracks as the MOTChallenge writes them: a CSV for each recording, a line an object.

    frame, id, left, top, width, height, conf, class, visibility        frames and classes from 1, in pixels

(Milan et al., "MOT16: A Benchmark for Multi-Object Tracking", 2016, section 4.3; https://motchallenge.net/instructions.)
An id of -1 is no track, a conf of -1 is none given, a class of -1 is the first. In true tracks conf tells what is to
be counted, 1 or 0: what is not is left out.

A recording is a folder `<name>/det/det.txt` or, without one, `<name>/gt/gt.txt`, where `<name>/seqinfo.ini` tells
frames a second, length and size; or a file `<name>.txt` or `<name>.csv`, as trackers write them.
"""

from __future__ import annotations

import codecs
import configparser
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vidgru.errors import RecordingError, SourceError
from vidgru.extraction.import_detections.class_names import FACTS, find_facts
from vidgru.extraction.import_detections.parsed import Seen, Source, from_corner, whole
from vidgru.types import Array

_NOT_GIVEN = -1
_FEWEST_COLUMNS = 6


def is_mot(path: Path) -> bool:
    """Whether a text file begins with a line of MOT's, or is empty."""
    with open(path, "rb") as file:
        lines = [line.removeprefix(codecs.BOM_UTF8) for _, line in zip(range(2), file, strict=False)]
    return not lines or any(len(_numbers(line)) >= _FEWEST_COLUMNS for line in lines)  # the first may be a header


def _numbers(line: bytes) -> list[float]:
    try:
        return [float(field) for field in line.split(b",") if field.strip()]
    except ValueError:
        return []


def find_mot(root: Path) -> tuple[dict[str, Source], dict[str, Any]]:
    """The recordings of a file or folder, by name, and what a file of names beside one says.

    Raises:
        SourceError: two of them are called alike.
    """
    found: dict[str, Source] = {}
    facts: dict[str, Any] = {}
    paths: dict[str, Path] = {}
    for path, name, folder in _files(root):
        info = folder / "seqinfo.ini" if folder else None
        files = [path, *([info] if info and info.is_file() else [])]
        states = [(status.st_size, status.st_mtime_ns) for status in map(Path.stat, files)]
        changed_ns = max(mtime_ns for _, mtime_ns in states)
        if name in paths:
            raise SourceError(f"{paths[name]} and {path} are both of the recording {name!r}", "rename or remove one")
        paths[name] = path
        found[name] = Source(name=name, stamp=repr(states), changed_ns=changed_ns, read=partial(_read, path, info))
        facts = facts or find_facts(path.parent)
    return found, facts


def _files(root: Path) -> Iterator[tuple[Path, str, Path | None]]:
    """File, name of the recording, and the folder of a sequence where it is one."""
    if root.is_file():
        alone = root.parent.name not in ("det", "gt")
        folder = None if alone else root.parent.parent
        yield root, root.stem if folder is None else folder.resolve().name, folder
        return
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".txt", ".csv") and p.is_file()):
        kind = path.parent.name
        if kind in ("det", "gt") and path.stem == kind:
            folder = path.parent.parent
            if kind == "gt" and (folder / "det" / "det.txt").is_file():
                continue
            yield path, folder.relative_to(root).as_posix() if folder != root else root.resolve().name, folder
        elif kind not in ("det", "gt") and path.name not in FACTS and is_mot(path):
            yield path, path.relative_to(root).with_suffix("").as_posix(), None


def _read(path: Path, info: Path | None) -> Seen:
    try:
        text = path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
        if text and not _numbers(text[0]):
            text = text[1:]  # a header
        table = np.genfromtxt(text, delimiter=",", dtype=np.float64, ndmin=2) if text else np.zeros((0, 6))
    except (OSError, ValueError) as error:
        raise RecordingError(f"its tracks cannot be read from {path}: {str(error).splitlines()[0]}") from None
    if table.shape[1] < _FEWEST_COLUMNS or not np.isfinite(table[:, :6]).all():
        raise RecordingError(f"{path} holds lines that are not frame, id, left, top, width, height and more")
    return _seen(path, table, info)


def _seen(path: Path, table: Array, info: Path | None) -> Seen:
    conf = _optional(table, 6)
    kinds = _optional(table, 7)  # from here on x, y, z in lists of detections and of tracks in space; -1 says nothing
    if len(kinds) and (kinds.min() < 1 or (kinds != np.round(kinds)).any()):
        raise RecordingError(f"{path} holds the class {kinds.min():g}; MOT counts them from 1")
    ids = whole(table[:, 1])
    facts = _facts(info)
    return Seen(
        frame=whole(table[:, 0]) - 1,
        boxes=from_corner(table[:, 2:6]),
        scores=conf,
        classes=whole(kinds) - 1,
        tracks=None if (ids == _NOT_GIVEN).all() else ids,
        frames=facts.get("frames"),
        fps=facts.get("fps"),
        size_px=facts.get("size_px"),
    )


def _optional(table: Array, column: int) -> Array:
    """A column, with 1 where it says nothing: it is not there, -1, or empty in every line, as after a last comma."""
    values = table[:, column] if table.shape[1] > column else np.full(len(table), np.nan)
    return np.where((values == _NOT_GIVEN) | np.isnan(values).all(), 1.0, values)


def _facts(info: Path | None) -> dict[str, Any]:
    """What a `seqinfo.ini` says."""
    if info is None or not info.is_file():
        return {}
    try:
        parser = configparser.ConfigParser()
        parser.read(info, encoding="utf-8-sig")
        said = parser["Sequence"]
        return {
            "frames": said.getint("seqLength"),
            "fps": said.getfloat("frameRate"),
            "size_px": (said.getint("imWidth"), said.getint("imHeight"))
            if "imWidth" in said and "imHeight" in said
            else None,
        }
    except (configparser.Error, KeyError, ValueError) as error:
        raise RecordingError(f"{info} cannot be read: {str(error).splitlines()[0]}") from None
