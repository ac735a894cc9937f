"""Text of the native files, ActivityNet files and subtitles that `vidgru convert` writes, one function per format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidgru.datasets.formats.csv_reader import format_csv
from vidgru.datasets.formats.native import COLUMNS
from vidgru.datasets.rows import AnnotationRow, plural
from vidgru.errors import AnnotationError
from vidgru.types import Annotation

_SUBSETS = {"train": "training", "val": "validation", "test": "testing"}


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """Annotations to be written.

    Attributes:
        source: The dataset they come from, for messages.
        rows: Rows; their videos have the names that are to be written.
        durations: Seconds by video, where known.
        paths: Files of the videos that exist, by name.
        messages: Sentences for the user about what the format cannot hold; the writers add to it.
    """

    source: Path
    rows: list[AnnotationRow]
    durations: Mapping[str, float]
    paths: Mapping[str, Path] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    @property
    def videos(self) -> list[str]:
        """Names of the videos, in order of their first row."""
        return list(dict.fromkeys(row.annotation.video for row in self.rows))

    def skip(self, number: int, what: str, reason: str) -> None:
        """Add a message about rows that are not written."""
        if number:
            self.messages.append(f"{plural(number, what)} skipped: {reason}")

    def skip_columns(self, tool: str, written: tuple[str, ...] = ()) -> None:
        """Add a message about columns other than those of the native format that are not written."""
        extra = dict.fromkeys(name for row in self.rows for name, value in row.extra.items() if value)
        if names := [name for name in extra if name not in written]:
            self.messages.append(f"columns that {tool} does not have, skipped: {', '.join(names)}")


# --- native ---------------------------------------------------------------------------------------------------------


def to_csv(rows: Sequence[AnnotationRow], extra: Sequence[str] | None = None) -> str:
    """Format rows as CSV of the native format, with these other columns; None for all in which rows have values."""
    return format_csv([*COLUMNS, *(extra_columns(rows) if extra is None else extra)], map(_values, rows))


def extra_columns(rows: Iterable[AnnotationRow]) -> list[str]:
    """Return the names of the other columns in which rows have values."""
    return list(dict.fromkeys(name for row in rows for name, value in row.extra.items() if value))


def to_jsonl(rows: Iterable[AnnotationRow]) -> str:
    """Format rows as JSON lines of the native format."""
    return "".join(json.dumps(_values(row), ensure_ascii=False) + "\n" for row in rows)


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


# --- ActivityNet ----------------------------------------------------------------------------------------------------


def to_activitynet(annotations: Annotations) -> str:
    """Format rows as ActivityNet detection ground truth; rows without times get no segment, descriptions are kept.

    Raises:
        AnnotationError: No row has a label.
    """
    database: dict[str, dict[str, Any]] = {}
    skipped = conflicts = 0
    for row in annotations.rows:
        note = row.annotation
        if note.label is None and note.description is not None:
            skipped += 1
            continue
        subset = _SUBSETS.get(note.split or "train", note.split)
        entry = database.setdefault(note.video, {"subset": subset, "annotations": []})
        conflicts += entry["subset"] != subset
        if note.video in annotations.durations:
            entry["duration"] = annotations.durations[note.video]
        if note.label is not None:
            entry["annotations"].append(_segment(note))
    if not database:
        raise without_labels(annotations, "ActivityNet detection")
    annotations.skip(skipped, "row without a label", "ActivityNet detection requires labels")
    annotations.skip_columns("ActivityNet")
    if conflicts:
        annotations.messages.append(
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


def without_labels(annotations: Annotations, tool: str) -> AnnotationError:
    """Make the error for annotations without a label."""
    return AnnotationError(
        f"{annotations.source}: no row has a label, which {tool} requires", "write .csv, .jsonl or .vtt"
    )


# --- subtitles ------------------------------------------------------------------------------------------------------


def to_vtt(annotations: Annotations) -> dict[str, str]:
    """Format rows as WebVTT (https://www.w3.org/TR/webvtt1/, section 4.1), in order of start; return texts by video.

    A note names the video. A video of which no row has times has no text: a file without cues is event-free.

    Raises:
        AnnotationError: No row has times.
    """
    cues: dict[str, list[tuple[float, float, str]]] = {}
    skipped = 0
    for row in annotations.rows:
        note = row.annotation
        text = "\n".join(part for part in (note.label, note.description) if part)
        end_s = annotations.durations.get(note.video) if note.end_s is None else note.end_s
        if text and end_s is None:
            skipped += 1
            continue
        cues.setdefault(note.video, [])
        if text and end_s is not None:
            cues[note.video].append((note.start_s or 0.0, end_s, text))
    if not cues:
        raise AnnotationError(f"{annotations.source}: no row has times, which subtitles need", "write .csv or .jsonl")
    annotations.skip(skipped, "row without times", "subtitles need them")
    annotations.skip_columns("WebVTT")
    return {video: _vtt(video, video_cues) for video, video_cues in cues.items()}


def _vtt(video: str, cues: Iterable[tuple[float, float, str]]) -> str:
    blocks = ["WEBVTT\n"]
    if "-->" not in video and "\n" not in video and "\r" not in video:  # would end the note
        blocks.append(f"NOTE video: {video}\n")
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
