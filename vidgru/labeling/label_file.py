"""The annotation file of a labelling project: open an existing file, and format its new content.

An event is a row with times and a label. Watched time is in the file too, so that training takes for negative only
time that a person has watched:

    a.mp4,3.4,6.0,fall            an event
    a.mp4,0.0,3.4,background      watched: nothing happens here; time of a.mp4 that no row covers is unknown
    b.mp4,1.0,2.5,sit             no background rows: all of b.mp4 was watched, and nothing else happens
    c.mp4,,,                      all of c.mp4 was watched, and nothing happens

A recording that nobody watched has no row.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vidgru.datasets.annotations import read_annotations
from vidgru.datasets.formats import recognise
from vidgru.datasets.recording_checks import use_frame_times, use_video_rates
from vidgru.datasets.rows import BACKGROUND, AnnotationRow, ParseResult, plural, videos_watched_in_part
from vidgru.datasets.spec import find_dataset
from vidgru.datasets.videos import Videos
from vidgru.datasets.writers import extra_columns, to_csv, to_jsonl
from vidgru.errors import OutputError
from vidgru.labeling.intervals import TimeRange, merge_ranges, subtract_ranges
from vidgru.types import Annotation, Recording

DEFAULT_NAME = "labels.csv"

# A person who sets the start of an event sees that it has not begun just before: time beside events counts as watched.
_EDGE_S = 0.5
_PREDICTED = ("score", "start_time", "description_score", "description_source")  # columns of predicted events
_MAX_GAP_S = 0.5  # shorter gaps in watched time come from the player, which reports it a few times per second


@dataclass(frozen=True, kw_only=True)
class LabelledEvent:
    """An event that a person marked.

    Attributes:
        start_s, end_s: Half-open interval in seconds.
        label: What happens; empty for an event that is only described.
        description: A sentence; empty if there is none.
        split: Split of its row; None if it has none.
        extra: Values of other columns of its row.
    """

    start_s: float
    end_s: float
    label: str
    description: str = ""
    split: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class RecordingLabels:
    """Annotations and watched time of a recording. Those of a `LabelFile` are replaced, never changed.

    Attributes:
        events: Events by id.
        watched: Watched time, sorted.
        rejected: Interval and label of drafts that were rejected. What of them was seen is in `watched`: a draft may be
            longer than what the person saw of it.
        pending: Time of drafts that are neither accepted nor rejected, without time watched before they came. It does
            not count as watched, even if it was played: playing past a draft does not reject it.
        is_empty: Whether the whole recording is marked as event-free.
        whole_clip: Rows that label or describe the whole recording; they are kept. One that describes it and says
            that nothing happens is `watched`, and has no label.
        split: Split of all its rows, which new ones get too; None if they have none, or several.
        extra: Values of other columns that all its rows have in common.
    """

    events: dict[str, LabelledEvent] = field(default_factory=dict)
    watched: list[TimeRange] = field(default_factory=list)
    rejected: list[tuple[float, float, str]] = field(default_factory=list)
    pending: list[TimeRange] = field(default_factory=list)
    is_empty: bool = False
    whole_clip: list[AnnotationRow] = field(default_factory=list)
    split: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    def extra_columns(self) -> list[str]:
        """Return the names of the other columns in which its rows have values."""
        extras = [self.extra, *(event.extra for event in self.events.values()), *(row.extra for row in self.whole_clip)]
        return [name for extra in extras for name, value in extra.items() if value]

    def watched_with_events(self, duration_s: float, gap_s: float = _MAX_GAP_S) -> list[TimeRange]:
        """Return watched time, with that of events.

        Args:
            duration_s: Duration of the recording.
            gap_s: Longest gap that is closed.
        """
        if self.is_empty:
            return [(0.0, duration_s)]
        events = [(event.start_s, event.end_s) for event in self.events.values() if event.label]
        edges = [(max(start_s - _EDGE_S, 0.0), min(end_s + _EDGE_S, duration_s)) for start_s, end_s in events]
        merged = [(start_s, min(end_s, duration_s)) for start_s, end_s in merge_ranges([*self.watched, *edges], gap_s)]
        if merged and merged[0][0] <= gap_s:
            merged[0] = 0.0, merged[0][1]
        if merged and merged[-1][1] >= duration_s - gap_s:
            merged[-1] = merged[-1][0], duration_s
        if not self.pending:
            return merged
        return merge_ranges([*subtract_ranges(merged, self.pending), *events])

    def is_wholly_watched(self, duration_s: float) -> bool:
        """Whether all of the recording was watched."""
        return self.watched_with_events(duration_s) == [(0.0, duration_s)]

    def rows(self, video: str, duration_s: float) -> list[AnnotationRow]:
        """Return the rows of the recording, named `video` in the file."""
        events = sorted(self.events.values(), key=lambda event: (event.start_s, event.end_s, event.label))
        labelled = [event for event in events if event.label]
        watched: list[TimeRange | None] = []
        if not self.is_wholly_watched(duration_s):
            spans = [(event.start_s, event.end_s) for event in labelled]
            watched += subtract_ranges(self.watched_with_events(duration_s), spans)
        elif not labelled and not any(row.watched or row.annotation.label for row in self.whole_clip):
            watched.append(None)
        rows: list[AnnotationRow] = []
        for row in self.whole_clip:
            # A description of a recording in which nothing happened is kept if something happens in it after all.
            is_empty = row.watched and not labelled and self.is_wholly_watched(duration_s)
            label = BACKGROUND if is_empty else row.annotation.label
            rows.append(replace(row, annotation=replace(row.annotation, video=video, label=label)))
        for event in events:
            note = Annotation(
                video=video,
                start_s=event.start_s,
                end_s=event.end_s,
                label=event.label or None,
                description=event.description or None,
                split=event.split or self.split,
            )
            rows.append(AnnotationRow(annotation=note, where="", extra={**self.extra, **event.extra}))
        for span in watched:
            start_s, end_s = span if span else (None, None)
            label = BACKGROUND if span else None
            note = Annotation(video=video, start_s=start_s, end_s=end_s, label=label, split=self.split)
            rows.append(AnnotationRow(annotation=note, where="", extra=self.extra))
        return rows


@dataclass(kw_only=True)
class LabelFile:
    """An annotation file, opened to be continued.

    Attributes:
        path: File to write.
        names: Name of each recording in the file, in their order.
        labels: Labels of each recording, in their order.
        others: Rows of other recordings, which are kept.
        notes: Messages for the user.
    """

    path: Path
    names: list[str]
    labels: list[RecordingLabels]
    others: list[AnnotationRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    # Formatting 5,000 events takes longer than a person waits, so the text of unchanged recordings is kept: with the
    # labels that it is of, and the other columns.
    _texts: dict[int, tuple[RecordingLabels, tuple[str, ...] | None, str]] = field(default_factory=dict, init=False)

    def content(self, durations: Sequence[float], numbers: Iterable[int] | None = None) -> bytes:
        """Format the rows, as JSON lines or CSV by the suffix of the path.

        Args:
            durations: Seconds of each recording.
            numbers: Recordings to write; None for all, and the rows of other recordings.
        """
        others = list(self.others) if numbers is None else []
        numbers = range(len(self.names)) if numbers is None else list(numbers)
        if self.path.suffix.lower() == ".jsonl":
            texts = [to_jsonl(others), *(self._text(number, durations[number], None) for number in numbers)]
        else:
            labels = (self.labels[number] for number in numbers)
            names = [*extra_columns(others), *(name for item in labels for name in item.extra_columns())]
            extra = tuple(dict.fromkeys(names))
            texts = [to_csv(others, extra)]
            texts += [self._text(number, durations[number], extra) for number in numbers]
        return "".join(texts).encode()

    def _text(self, number: int, duration_s: float, extra: tuple[str, ...] | None) -> str:
        """Return the rows of a recording as text: JSON lines, or CSV with these other columns."""
        labels, known_extra, text = self._texts.get(number, (None, None, ""))
        if labels is not self.labels[number] or known_extra != extra:
            rows = self.labels[number].rows(self.names[number], duration_s)
            text = to_jsonl(rows) if extra is None else to_csv(rows, extra).removeprefix(to_csv([], extra))
            self._texts[number] = self.labels[number], extra, text
        return text


def open_label_file(path: Path, recordings: Sequence[Recording], durations: Sequence[float]) -> LabelFile:
    """Open an annotation file of any readable format, or start a new one.

    A file of another tool is left as it is; `labels.csv` beside it is written instead.

    Args:
        path: The file; it need not exist.
        recordings: The recordings to annotate.
        durations: Seconds of each; 0 for those that cannot be read, whose rows are kept as they are.

    Raises:
        AnnotationError: The file cannot be read; with place and remedy.
        OutputError: The file is of another tool, and there is a `labels.csv` beside it already.
    """
    if not path.exists():
        names = [_new_name(recording.path, path.parent) for recording in recordings]
        return LabelFile(path=path, names=names, labels=[RecordingLabels() for _ in recordings])
    spec = find_dataset(path)
    result = read_annotations(spec)
    out, notes = path, []
    if path.suffix.lower() not in (".csv", ".jsonl") or recognise(path) != "native":
        out = (path if path.is_dir() else path.parent) / DEFAULT_NAME
        if out.exists():
            raise OutputError(
                f"{path} is read, but not written, and {out} exists already",
                f"pass --out {out} to continue that, or move it away",
            )
        notes.append(f"{path} is left as it is; labels are written to {out}")
    videos = Videos(spec.roots)
    number_of = {os.path.realpath(recording.path): number for number, recording in enumerate(recordings)}
    names = [_new_name(recording.path, out.parent) for recording in recordings]
    rows_of: list[list[AnnotationRow]] = [[] for _ in recordings]
    others: list[AnnotationRow] = []
    is_named: set[int] = set()
    for row in _with_times(spec.source, result, videos, notes):
        spelling = row.annotation.video
        video = videos.find(spelling, result.spellings.get(spelling, ()), exact=result.exact, home=row.home)
        number = None if video is None else number_of.get(os.path.realpath(video.path))
        if number is None or not durations[number]:
            other = spelling if video is None or out == path else _new_name(video.path, out.parent)
            label = BACKGROUND if row.watched else row.annotation.label
            others.append(replace(row, annotation=replace(row.annotation, video=other, label=label)))
            continue
        if out == path and number not in is_named:
            names[number] = spelling  # as the user wrote it
            is_named.add(number)
        rows_of[number].append(row)
    labels = [_read_labels(rows, spec.background, duration) for rows, duration in zip(rows_of, durations, strict=True)]
    if ignored := sum(row.ignored for row in result.rows):
        notes.append(f"{plural(ignored, 'ignored row')} left out")
    if whole := sum(len(item.whole_clip) for item in labels):
        notes.append(f"{plural(whole, 'row')} without times kept, but not shown: the page shows events with times")
    return LabelFile(
        path=out, names=names, labels=labels, others=others, notes=[*notes, *result.notes, *result.warnings]
    )


def _with_times(source: Path, result: ParseResult, videos: Videos, notes: list[str]) -> list[AnnotationRow]:
    """Return the rows that are not ignored, with frame numbers replaced by the times of their videos."""
    rows = [row for row in result.rows if not row.ignored]
    paths = {}
    for row in rows:
        name = row.annotation.video
        if row.frames is not None and name not in paths:
            video = videos.find(name, result.spellings.get(name, ()), exact=result.exact, home=row.home)
            if video is not None:
                paths[name] = video.path
    rows, warnings = use_frame_times(use_video_rates(source, rows, paths), paths, result.frame_counts)
    notes += warnings
    return rows


def _read_labels(rows: list[AnnotationRow], background: str | None, duration_s: float) -> RecordingLabels:
    """Turn the rows of one recording into its labels."""
    labels = RecordingLabels()
    if rows:
        first = rows[0]
        if all(row.annotation.split == first.annotation.split for row in rows):
            labels.split = first.annotation.split
        labels.extra = {
            name: value
            for name, value in first.extra.items()
            if name not in _PREDICTED and all(row.extra.get(name) == value for row in rows)
        }
    is_timed = False
    for row in rows:
        note = row.annotation
        is_background = row.watched or (note.label is not None and note.label in (BACKGROUND, background))
        label = "" if is_background else note.label or ""
        if note.start_s is None or note.end_s is None:
            labels.is_empty |= is_background or not (label or note.description)
            if label or note.description:
                note = replace(note, label=label or None)
                labels.whole_clip.append(replace(row, annotation=note, watched=is_background))
            continue
        if is_background:
            labels.watched.append((note.start_s, note.end_s))
        if label or note.description:
            labels.events[f"f-{secrets.token_hex(6)}"] = LabelledEvent(
                start_s=note.start_s,
                end_s=note.end_s,
                label=label,
                description=note.description or "",
                split=note.split,
                extra=row.extra,
            )
        is_timed |= not row.is_description_only
    labels.is_empty &= not any(event.label for event in labels.events.values())
    if is_timed and not videos_watched_in_part(rows) and not labels.is_empty:  # annotated completely
        labels.watched = [(0.0, duration_s)]
    labels.watched = merge_ranges(labels.watched)
    return labels


def _new_name(path: Path, folder: Path) -> str:
    """Return the name of a video in an annotation file: relative to the file if it is below its folder."""
    absolute = Path(os.path.abspath(path))
    below = Path(os.path.abspath(folder))
    return (absolute.relative_to(below) if absolute.is_relative_to(below) else absolute).as_posix()
