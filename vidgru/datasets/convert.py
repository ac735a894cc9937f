"""Convert annotations of any known format to vidgru's own, to ActivityNet JSON, or to subtitles."""

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
    """Convert annotations to the format given by the suffix of `out`.

    Videos need not exist. An existing one is named by its path below the dataset folder, as in training, or by its
    absolute path if it lies elsewhere; others keep the name in the file.

    Args:
        source: A dataset: a YAML, an annotation file of any known format, or a folder.
        out: A file with suffix .csv or .jsonl (native), .json (ActivityNet) or .vtt (subtitles of the only video), or a
            folder for one .vtt per video.
        config: Format settings of the command line.

    Returns:
        What was written, and notes for the user, in sentences.

    Raises:
        AnnotationError: The annotations cannot be read, or contain nothing that the format can hold.
        SettingsError: The output format is unknown.
        OutputError: The output cannot be written.
    """
    out = Path(out).expanduser()
    suffix = "" if out.is_dir() else out.suffix.lower()
    if suffix not in (".csv", ".jsonl", ".json", ".vtt", ""):
        raise SettingsError(
            f"cannot write {out}: unknown format {suffix}",
            "use .csv or .jsonl (vidgru's own), .json (ActivityNet), .vtt, or a folder (one .vtt per video)",
        )
    spec = find_dataset(Path(source).expanduser()).with_overrides(config)
    result = read_annotations(spec)
    videos = Videos(spec.roots)
    lengths: dict[str, float] = {}
    rows: list[AnnotationRow] = []
    for row in result.rows:
        spelling = row.annotation.video
        recording = videos.find(spelling, result.spellings.get(spelling, ()), exact=result.exact, home=row.home)
        name = spelling if recording is None else _name(recording, spec.roots)
        rows.append(replace(row, annotation=replace(row.annotation, video=name)))
        if spelling in result.durations:
            lengths[name] = result.durations[spelling]
    if not rows:
        raise AnnotationError(f"{spec.source}: no usable row", "there is nothing to convert")
    messages = [*spec.notes, *result.notes, *result.warnings]
    if suffix in ("", ".vtt"):
        written = _write_vtt(spec.source, out, rows, lengths, messages, single_file=suffix == ".vtt")
    else:
        text = (
            _activitynet(spec.source, rows, lengths, messages)
            if suffix == ".json"
            else _csv(rows)
            if suffix == ".csv"
            else _jsonl(rows)
        )
        write_atomic(out, text.encode())
        written = str(out)
    number = len({row.annotation.video for row in rows})
    return [f"{written}: {plural(len(rows), 'row')} of {plural(number, 'video')} from {spec.source}", *messages]


def _name(recording: Recording, roots: tuple[Path, ...]) -> str:
    """Return the name of a video in the output, by which it is found again from the same folders."""
    inside = any((root / recording.name).is_file() for root in roots)
    return recording.name if inside else Path(os.path.abspath(recording.path)).as_posix()


# --- native ---------------------------------------------------------------------------------------------------------


def _values(row: AnnotationRow) -> dict[str, Any]:
    """Return the non-empty values of a row by column, times rounded to microseconds."""
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
        # The csv module does not quote a lone carriage return, which would end the row when read.
        writer.writerow({name: _NEW_LINE.sub("\n", str(value)) for name, value in _values(row).items()})
    return text.getvalue()


def _jsonl(rows: list[AnnotationRow]) -> str:
    return "".join(json.dumps(_values(row), ensure_ascii=False) + "\n" for row in rows)


# --- ActivityNet ----------------------------------------------------------------------------------------------------


def _activitynet(source: Path, rows: list[AnnotationRow], lengths: dict[str, float], messages: list[str]) -> str:
    """Write ActivityNet detection ground truth; rows without times get no segment, descriptions are kept."""
    database: dict[str, dict[str, Any]] = {}
    skipped = conflicts = 0
    for row in rows:
        note = row.annotation
        if note.label is None and note.description is not None:
            skipped += 1
            continue
        subset = _SUBSETS.get(note.split or "train", note.split)
        entry = database.setdefault(note.video, {"subset": subset, "annotations": []})
        conflicts += entry["subset"] != subset
        if note.video in lengths:
            entry["duration"] = lengths[note.video]
        if note.label is not None:
            entry["annotations"].append(_segment(note))
    if not database:
        message = f"{source}: no row has a label, which ActivityNet detection requires"
        raise AnnotationError(message, "write .csv or .jsonl")
    if skipped:
        messages.append(f"{plural(skipped, 'row')} without a label skipped: ActivityNet detection requires labels")
    extra = dict.fromkeys(name for row in rows for name, value in row.extra.items() if value)
    if extra:
        messages.append(f"columns that ActivityNet does not have, skipped: {', '.join(extra)}")
    if conflicts:
        messages.append(
            f"{plural(conflicts, 'row')} in another split than the first of their video: ActivityNet has one per video"
        )
    whole = {"version": "VERSION 1.3", "database": database}
    return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"


def _segment(note: Annotation) -> dict[str, Any]:
    segment: dict[str, Any] = {"label": note.label}
    if note.start_s is not None and note.end_s is not None:
        segment["segment"] = [round(note.start_s, 6), round(note.end_s, 6)]
    if note.description is not None:
        segment["description"] = note.description
    return segment


# --- subtitles ------------------------------------------------------------------------------------------------------


def _write_vtt(
    source: Path,
    out: Path,
    rows: list[AnnotationRow],
    lengths: dict[str, float],
    messages: list[str],
    *,
    single_file: bool,
) -> str:
    """Write one WebVTT file per video into the folder `out`, or the only video to the file `out`."""
    cues: dict[str, list[tuple[float, float, str]]] = {row.annotation.video: [] for row in rows}
    skipped = 0
    for row in rows:
        note = row.annotation
        text = "\n".join(part for part in (note.label, note.description) if part)
        end_s = lengths.get(note.video) if note.end_s is None else note.end_s
        if text and end_s is not None:
            cues[note.video].append((note.start_s or 0.0, end_s, text))
        skipped += bool(text) and end_s is None
    if single_file and len(cues) > 1:
        raise AnnotationError(f"{source} annotates {len(cues)} videos", "a .vtt holds one: give a folder as the output")
    for video, video_cues in cues.items():
        write_atomic(out if single_file else out / f"{_relative_path(video)}.vtt", _vtt(video_cues).encode())
    if skipped:
        messages.append(f"{plural(skipped, 'row')} without times skipped: subtitles need them")
    return str(out)


def _relative_path(video: str) -> str:
    """Return the name of a video as a path that cannot leave the output folder."""
    parts = video.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def _vtt(cues: Iterable[tuple[float, float, str]]) -> str:
    """Format cues as WebVTT (https://www.w3.org/TR/webvtt1/, section 4.1), in order of start."""
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
