"""Annotations from any known format to vidgru's own, to ActivityNet's and to subtitles."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidgru.config import ConvertConfig
from vidgru.datasets.annotations import read_annotations
from vidgru.datasets.formats.native import COLUMNS
from vidgru.datasets.rows import AnnotationRow, plural
from vidgru.datasets.spec import find_dataset
from vidgru.datasets.videos import Videos
from vidgru.errors import AnnotationError, SettingsError
from vidgru.storage import write_atomic
from vidgru.types import Annotation, Recording

_SUBSETS = {"train": "training", "val": "validation", "test": "testing"}
_NEW_LINE = re.compile(r"\r\n?")


def convert(source: str | Path, out: str | Path, config: ConvertConfig) -> list[str]:
    """Read annotations, and write them in the format that `out` is called for.

    Videos need not be there: one that is has its path under the data set's folder for a name, as training would call
    it, or its whole path where it lies elsewhere; any other the name that the file gives it.

    Args:
        source: a data set: a YAML, an annotation file of any known format, or a folder.
        out: a file that ends in .csv or .jsonl (native), .json (ActivityNet), .vtt (subtitles of the one video), or
            a folder, for a .vtt a video.
        config: what a command line says of the format.

    Returns:
        What was written, and what a person should know of it, in sentences.

    Raises:
        AnnotationError: the annotations cannot be read, or nothing of them can be written in that format.
        SettingsError: no such output format.
        OutputError: the output cannot be written.
    """
    out = Path(out).expanduser()
    suffix = "" if out.is_dir() else out.suffix.lower()
    if suffix not in (".csv", ".jsonl", ".json", ".vtt", ""):
        raise SettingsError(
            f"cannot write {out}: there is no format for {suffix}",
            "use .csv or .jsonl (vidgru's own), .json (ActivityNet), .vtt, or a folder (a .vtt a video)",
        )
    spec = find_dataset(Path(source).expanduser()).on_top(config)
    result = read_annotations(spec)
    videos = Videos(spec.roots)
    lengths: dict[str, float] = {}
    rows: list[AnnotationRow] = []
    for row in result.rows:
        spelling = row.annotation.video
        found = videos.find(spelling, result.spellings.get(spelling, ()), exact=result.exact, home=row.home)
        name = spelling if found is None else _name(found, spec.roots)
        rows.append(replace(row, annotation=replace(row.annotation, video=name)))
        if spelling in result.durations:
            lengths[name] = result.durations[spelling]
    if not rows:
        raise AnnotationError(f"{spec.source}: no usable row", "there is nothing to convert")
    said = [*spec.notes, *result.notes, *result.warnings]
    if suffix in ("", ".vtt"):
        written = _write_vtt(spec.source, out, rows, lengths, said, one=suffix == ".vtt")
    else:
        text = (
            _activitynet(rows, lengths, said) if suffix == ".json" else _csv(rows) if suffix == ".csv" else _jsonl(rows)
        )
        write_atomic(out, text.encode())
        written = str(out)
    number = len({row.annotation.video for row in rows})
    return [f"{written}: {plural(len(rows), 'row')} of {plural(number, 'video')} from {spec.source}", *said]


def _name(recording: Recording, roots: tuple[Path, ...]) -> str:
    """What a video is called in the output, so that it is found again from the same folders."""
    inside = any((root / recording.name).is_file() for root in roots)
    return recording.name if inside else Path(os.path.abspath(recording.path)).as_posix()


# --- native ---------------------------------------------------------------------------------------------------------


def _values(row: AnnotationRow) -> dict[str, Any]:
    """A row by column, those that hold nothing left out; times to the microsecond."""
    note = row.annotation
    values = {
        "video": note.video,
        "start": None if note.start_s is None else round(note.start_s, 6),
        "end": None if note.end_s is None else round(note.end_s, 6),
        "label": note.label,
        "description": note.description,
        "split": note.split,
    }
    return {name: value for name, value in {**values, **row.extra}.items() if value not in (None, "")}


def _csv(rows: list[AnnotationRow]) -> str:
    extra = dict.fromkeys(name for row in rows for name, value in row.extra.items() if value)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *extra], restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        # a lone carriage return is not quoted by the csv module, yet ends the row when read
        writer.writerow({name: _NEW_LINE.sub("\n", str(value)) for name, value in _values(row).items()})
    return text.getvalue()


def _jsonl(rows: list[AnnotationRow]) -> str:
    return "".join(json.dumps(_values(row), ensure_ascii=False) + "\n" for row in rows)


# --- ActivityNet ----------------------------------------------------------------------------------------------------


def _activitynet(rows: list[AnnotationRow], lengths: dict[str, float], said: list[str]) -> str:
    """Ground truth of detection; rows without times have no segment, and descriptions stand beside the labels."""
    database: dict[str, dict[str, Any]] = {}
    left_out = several = 0
    for row in rows:
        note = row.annotation
        if note.label is None and note.description is not None:
            left_out += 1
            continue
        subset = _SUBSETS.get(note.split or "train", note.split)
        entry = database.setdefault(note.video, {"subset": subset, "annotations": []})
        several += entry["subset"] != subset
        if note.video in lengths:
            entry["duration"] = lengths[note.video]
        if note.label is not None:
            entry["annotations"].append(_segment(note))
    if not database:
        what = "all rows are text only, and ActivityNet's detection has labels"
        raise AnnotationError(what, "write .csv or .jsonl")
    if left_out:
        said.append(f"{plural(left_out, 'row')} with text only left out: ActivityNet's detection has labels")
    extra = dict.fromkeys(name for row in rows for name, value in row.extra.items() if value)
    if extra:
        said.append(f"columns left out, as ActivityNet has none: {', '.join(extra)}")
    if several:
        said.append(f"{plural(several, 'row')} of another split than their video's first: a video has one subset there")
    whole = {"version": "VERSION 1.3", "database": database}
    return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"


def _segment(note: Annotation) -> dict[str, Any]:
    found: dict[str, Any] = {"label": note.label}
    if note.start_s is not None and note.end_s is not None:
        found["segment"] = [round(note.start_s, 6), round(note.end_s, 6)]
    if note.description is not None:
        found["description"] = note.description
    return found


# --- subtitles ------------------------------------------------------------------------------------------------------


def _write_vtt(
    source: Path, out: Path, rows: list[AnnotationRow], lengths: dict[str, float], said: list[str], *, one: bool
) -> str:
    """Write a WebVTT file a video into the folder `out`, or, of `one` video, the file `out`."""
    cues: dict[str, list[tuple[float, float, str]]] = {row.annotation.video: [] for row in rows}
    left_out = 0
    for row in rows:
        note = row.annotation
        text = "\n".join(part for part in (note.label, note.description) if part)
        end_s = lengths.get(note.video) if note.end_s is None else note.end_s
        if text and end_s is not None:
            cues[note.video].append((note.start_s or 0.0, end_s, text))
        left_out += bool(text) and end_s is None
    if one and len(cues) > 1:
        raise AnnotationError(f"{source} speaks of {len(cues)} videos", "a .vtt is of one: name a folder to write into")
    for video, own in cues.items():
        write_atomic(out if one else out / f"{_inside(video)}.vtt", _vtt(own).encode())
    if left_out:
        said.append(f"{plural(left_out, 'row')} without times left out: a subtitle needs them")
    return str(out)


def _inside(video: str) -> str:
    """A video's name as a path that does not leave the folder it is put into."""
    parts = video.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def _vtt(cues: Iterable[tuple[float, float, str]]) -> str:
    """WebVTT (https://www.w3.org/TR/webvtt1/, section 4.1), cues in order of start."""
    blocks = ["WEBVTT\n"]
    for start_s, end_s, text in sorted(cues):
        start = round(start_s * 1000)
        end = max(round(end_s * 1000), start + 1)
        lines = [re.sub(r"\s*[\r\n]\s*", " ", line).strip() for line in text.split("\n")]  # a blank line ends a cue
        body = "\n".join(line for line in lines if line)
        body = body.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(f"{_timestamp(start)} --> {_timestamp(end)}\n{body}\n")
    return "\n".join(blocks)


def _timestamp(ms: int) -> str:
    seconds, ms = divmod(ms, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{ms:03d}"
