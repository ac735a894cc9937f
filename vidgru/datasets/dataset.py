"""Datasets as loaded: rows and recordings, viewed as labelled clips, described segments or event timelines."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from vidgru.datasets.rows import AnnotationRow, videos_watched_in_part
from vidgru.datasets.spec import SplitSettings
from vidgru.types import Annotation, Array, Recording

_OVERLAP_TOLERANCE = 0.1  # fraction of the shorter event; annotated edges of consecutive events may overlap a little


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Checked annotations and the recordings they belong to.

    Attributes:
        root: Folder in which videos are looked up first.
        source: The annotation file.
        rows: In file order, without those whose video is missing.
        recordings: Recording of each annotated video.
        labels: Event labels, sorted or in the order of `names`, without the background. Empty if the file holds only
            descriptions or event-free recordings.
        background: Label that counts as "no event"; None if there is none.
        split: How to make missing splits.
        templates: By label, what a caption of low confidence says instead.
        half_width_s: For annotations that mark moments: seconds before and after a moment that its event covers; None
            for intervals.
        durations: Durations in seconds, where the annotation file states them or `check_recordings` was given them.
        frame_counts: Numbers of frames, where the annotation file states them.
        warnings: What the user should check, in sentences.
        notes: Assumptions and automatic choices, in sentences.
    """

    root: Path
    source: Path
    rows: tuple[AnnotationRow, ...]
    recordings: Mapping[str, Recording]
    labels: tuple[str, ...]
    background: str | None = None
    split: SplitSettings = field(default_factory=SplitSettings)
    templates: Mapping[str, str] = field(default_factory=dict)
    half_width_s: float | None = None
    durations: Mapping[str, float] = field(default_factory=dict)
    frame_counts: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Dataset({self.source}, {len(self.rows)} rows, {len(self.recordings)} recordings, {list(self.labels)})"

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """Annotations of all rows."""
        return tuple(row.annotation for row in self.rows)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have rows: train, val and test first, others sorted."""
        used = {row.split for row in self.rows}
        usual = [name for name in ("train", "val", "test") if name in used]
        return (*usual, *sorted(used.difference(usual)))

    # Reports, splits and advice ask for these again and again, and a data set may have 200,000 rows.
    @cached_property
    def _clips(self) -> tuple[Clip, ...]:
        return tuple(_clips_of(self))

    @cached_property
    def _timelines(self) -> tuple[EventTimeline, ...]:
        return tuple(_timelines_of(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """An annotated interval of a recording and its labels.

    Attributes:
        video: Key into `Dataset.recordings`.
        start_s, end_s: Half-open interval in seconds; both None for the whole recording.
        labels: Indices into `Dataset.labels`; empty if nothing happens.
        split: "train", "val", "test" or another name from the file.
    """

    video: str
    start_s: float | None
    end_s: float | None
    labels: frozenset[int]
    split: str


def clips(dataset: Dataset, split: str | None = None) -> list[Clip]:
    """Return the labelled and event-free clips of a split (None for all), in file order.

    Rows with the same interval of the same video make one clip with several labels. Rows with only a description make
    none. A row that marks a whole recording as event-free is dropped if other rows of it have events.
    """
    return [clip for clip in dataset._clips if split in (None, clip.split)]


def _clips_of(dataset: Dataset) -> Iterator[Clip]:
    sets: dict[str | None, frozenset[int]] = {label: frozenset([index]) for index, label in enumerate(dataset.labels)}
    sets |= {None: frozenset(), dataset.background: frozenset()}
    with_events = videos_with_events(dataset)
    labels_of: dict[tuple[str, float | None, float | None, str], frozenset[int]] = {}
    for row in dataset.rows:
        note = row.annotation
        if row.ignored or row.is_description_only or contradicts_events(row, with_events, dataset.background):
            continue
        interval, labels = (note.video, note.start_s, note.end_s, row.split), sets[note.label]
        others = labels_of.setdefault(interval, labels)
        if others is not labels:
            labels_of[interval] = others | labels
    for (video, start_s, end_s, split), labels in labels_of.items():
        yield Clip(video=video, start_s=start_s, end_s=end_s, labels=labels, split=split)


@dataclass(frozen=True, kw_only=True, slots=True)
class DescribedSegment:
    """An interval of a recording with its descriptions.

    Attributes:
        video: Key into `Dataset.recordings`.
        start_s, end_s: Half-open interval in seconds; both None for the whole recording.
        label: Index into `Dataset.labels`; None if the rows have none.
        sentences: At least one; several are alternative descriptions.
        split: "train", "val", "test" or another name from the file.
    """

    video: str
    start_s: float | None
    end_s: float | None
    label: int | None
    sentences: tuple[str, ...]
    split: str


def described_segments(dataset: Dataset, split: str | None = None) -> list[DescribedSegment]:
    """Return the described segments of a split (None for all), in file order.

    Rows with the same label and interval of the same video make one segment with several sentences.
    """
    number = {label: index for index, label in enumerate(dataset.labels)}
    sentences_of: dict[tuple[str, float | None, float | None, int | None, str], list[str]] = {}
    for row in dataset.rows:
        note = row.annotation
        row_split = row.split
        if note.description is None or split not in (None, row_split):
            continue
        label = None if note.label is None else number.get(note.label)  # the background has none
        sentences_of.setdefault((note.video, note.start_s, note.end_s, label, row_split), []).append(note.description)
    return [
        DescribedSegment(
            video=video,
            start_s=start_s,
            end_s=end_s,
            label=label,
            sentences=tuple(dict.fromkeys(sentences)),
            split=row_split,
        )
        for (video, start_s, end_s, label, row_split), sentences in sentences_of.items()
    ]


def without_placeholder_labels(dataset: Dataset) -> Dataset:
    """Return the dataset with the label `DESCRIBED`, added on loading to datasets without labels, removed again."""
    rows = tuple(replace(row, annotation=replace(row.annotation, label=None)) for row in dataset.rows)
    return replace(dataset, rows=rows, labels=())


def select_splits(dataset: Dataset, splits: Collection[str]) -> Dataset:
    """Return the dataset with only the rows of some splits; its labels are unchanged."""
    return replace(dataset, rows=tuple(row for row in dataset.rows if row.split in splits))


@dataclass(frozen=True, kw_only=True)
class EventTimeline:
    """The timed events of a recording.

    Attributes:
        video: Key into `Dataset.recordings`.
        split: "train", "val", "test" or another name from the file.
        events: Half-open interval in seconds and index into `Dataset.labels` of each event, sorted.
        ignored: Intervals of the same recording that are to be ignored, or events of other splits, sorted.
        unwatched: Intervals that no row of the split covers, in a recording of which only parts were watched, sorted
            and apart from each other; the last ends at infinity.
    """

    video: str
    split: str
    events: tuple[tuple[float, float, int], ...]
    ignored: tuple[tuple[float, float], ...] = ()
    unwatched: tuple[tuple[float, float], ...] = ()

    @property
    def overlaps(self) -> bool:
        """Whether events of different labels overlap by more than annotation tolerance at their edges."""
        for index, (start_s, end_s, label) in enumerate(self.events):
            for other_start_s, other_end_s, other in self.events[index + 1 :]:
                if other_start_s >= end_s:
                    break
                common = min(end_s, other_end_s) - other_start_s
                if other != label and common > _OVERLAP_TOLERANCE * min(end_s - start_s, other_end_s - other_start_s):
                    return True
        return False

    def known_frames(self, time_s: Array) -> Array:
        """Return the frames that are neither in an ignored interval nor in an unwatched one: bool [T].

        Args:
            time_s: float64 [T], strictly increasing.
        """
        known = np.ones(len(time_s), bool)
        for start_s, end_s in self.ignored:
            known[slice(*frames_between(time_s, start_s, end_s))] = False
        for start_s, end_s in self.unwatched:  # what was watched up to here keeps its last frame
            known[slice(*np.searchsorted(time_s, (start_s, end_s)))] = False
        return known

    def unwatched_s(self, duration_s: float) -> float:
        """Return how much of the recording was not watched."""
        return sum(max(0.0, min(end_s, duration_s) - start_s) for start_s, end_s in self.unwatched)


def event_timelines(dataset: Dataset, split: str | None = None) -> list[EventTimeline]:
    """Return the timelines of recordings with timed events, and of event-free ones, of a split (None for all).

    Such recordings are annotated completely: outside their events nothing happens. Only where rows mark watched
    intervals of a recording, the time that no row covers is unknown. Recordings that are only labelled as a whole have
    no timeline. Without a single timed event the list is empty.
    """
    return [timeline for timeline in dataset._timelines if split in (None, timeline.split)]


def _timelines_of(dataset: Dataset) -> Iterator[EventTimeline]:
    events_of: dict[tuple[str, str], list[tuple[float, float, int]]] = {}
    for clip in dataset._clips:
        if clip.start_s is not None and clip.end_s is not None:
            events = events_of.setdefault((clip.video, clip.split), [])
            events += [(clip.start_s, clip.end_s, label) for label in clip.labels]
        elif not clip.labels:
            events_of.setdefault((clip.video, clip.split), [])
    intervals: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in dataset.rows:
        note = row.annotation
        if row.ignored and note.start_s is not None and note.end_s is not None:
            events_of.setdefault((note.video, row.split), [])
            intervals.setdefault(note.video, {}).setdefault("", []).append((note.start_s, note.end_s))
    if not any(events_of.values()):
        return
    for (video, split), events in events_of.items():
        intervals.setdefault(video, {})[split] = [(start_s, end_s) for start_s, end_s, _ in events]
    unwatched = _unwatched(dataset)
    for (video, split), events in events_of.items():
        ignored = [span for other, spans in intervals[video].items() if other != split for span in spans]
        yield EventTimeline(
            video=video,
            split=split,
            events=tuple(sorted(events)),
            ignored=tuple(sorted(ignored)),
            unwatched=unwatched.get((video, split), ()),
        )


def _unwatched(dataset: Dataset) -> dict[tuple[str, str], tuple[tuple[float, float], ...]]:
    """Return what the rows of each split leave out of recordings of which only parts were watched."""
    in_part = videos_watched_in_part(dataset.rows)
    with_events = videos_with_events(dataset)
    covered: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in dataset.rows:
        note = row.annotation
        if note.video not in in_part or row.is_description_only:
            continue
        spans = covered.setdefault((note.video, row.split), [])
        if note.start_s is not None and note.end_s is not None:
            spans.append((note.start_s, note.end_s))
        elif _is_event_free(row, dataset.background) and note.video not in with_events:
            spans.append((0.0, np.inf))
    unwatched = {}
    for key, spans in covered.items():
        gaps, reached_s = [], 0.0
        for start_s, end_s in [*sorted(spans), (np.inf, np.inf)]:
            if start_s > reached_s:
                gaps.append((reached_s, start_s))
            reached_s = max(reached_s, end_s)
        unwatched[key] = tuple(gaps)
    return unwatched


def videos_with_events(dataset: Dataset) -> set[str]:
    """Return the videos that have at least one event."""
    no_event = (None, dataset.background)
    return {row.annotation.video for row in dataset.rows if row.annotation.label not in no_event}


def contradicts_events(row: AnnotationRow, with_events: set[str], background: str | None) -> bool:
    """Whether a row marks a recording as event-free although other rows have events in it."""
    return row.annotation.video in with_events and _is_event_free(row, background)


def _is_event_free(row: AnnotationRow, background: str | None) -> bool:
    """Whether a row is about a whole recording and says that nothing happens in it."""
    note = row.annotation
    if note.start_s is not None:
        return False
    return row.watched or note.description is None if note.label is None else note.label == background


def frames_between(time_s: Array, start_s: float, end_s: float) -> tuple[int, int]:
    """Return the frames of the interval [start_s, end_s) as a slice [first, stop).

    An interval between two samples gets the sample nearest to its middle, so that a short clip is never empty.

    Args:
        time_s: float64 [T], strictly increasing.
        start_s, end_s: Seconds.
    """
    first, stop = (int(n) for n in np.searchsorted(time_s, (start_s, end_s), side="left"))
    if first == stop and len(time_s):
        first = int(np.abs(time_s - (start_s + end_s) / 2).argmin())
        stop = first + 1
    return first, stop
