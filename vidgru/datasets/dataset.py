"""A data set as it was read: rows, recordings, and what the rows say of them as labelled clips and timed events."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vidgru.datasets.rows import AnnotationRow
from vidgru.datasets.spec import SplitSettings
from vidgru.types import Annotation, Recording

_SLIP = 0.1  # share of the shorter event by which events may overlap and still be one after the other


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Annotations that were read and checked, and where their recordings are.

    Attributes:
        root: folder in which videos are looked for first.
        source: the annotation file.
        rows: in the order of the file, without those whose video is missing; every one has a split.
        recordings: of each video named by a row.
        labels: what can happen, sorted, or in the order of `names`; the background is not among them. Empty where the
            file holds descriptions or eventless recordings only.
        background: label that is treated as no event; None if there is none.
        split: how to set clips aside.
        half_width_s: where the file marks moments: how far before and after one its event reaches; None where it has
            intervals.
        durations: seconds, of the recordings whose annotation file tells them, or that `clip_to_durations` was told of.
        warnings: what a person should look at, in sentences.
        notes: what was done that the file did not say, in sentences.
    """

    root: Path
    source: Path
    rows: tuple[AnnotationRow, ...]
    recordings: Mapping[str, Recording]
    labels: tuple[str, ...]
    background: str | None = None
    split: SplitSettings = field(default_factory=SplitSettings)
    half_width_s: float | None = None
    durations: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Dataset({self.source}, {len(self.rows)} rows, {len(self.recordings)} recordings, {list(self.labels)})"

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """The rows without their lines."""
        return tuple(row.annotation for row in self.rows)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that hold rows: train, val and test first, others sorted."""
        used = {row.annotation.split or "train" for row in self.rows}
        usual = [name for name in ("train", "val", "test") if name in used]
        return (*usual, *sorted(used.difference(usual)))


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A stretch of a recording and the labels it has.

    Attributes:
        video: key into `Dataset.recordings`.
        start_s, end_s: half-open interval in seconds; both None for the whole recording.
        labels: indices into `Dataset.labels`; empty where nothing happens.
        split: "train", "val", "test" or another name from the file.
    """

    video: str
    start_s: float | None
    end_s: float | None
    labels: frozenset[int]
    split: str


def clips(dataset: Dataset, split: str | None = None) -> list[Clip]:
    """The labelled and the eventless clips of a split (None: of all), in the order of the file.

    Rows on the same interval of the same video make one clip with several labels. Text-only rows make none. A row that
    says "nothing happens" of a whole recording is left out where other rows say that something does.
    """
    number = {label: index for index, label in enumerate(dataset.labels)}
    busy = videos_with_events(dataset)
    found: dict[tuple[str, float | None, float | None, str], set[int]] = {}
    for row in dataset.rows:
        note = row.annotation
        own_split = note.split or "train"
        if (split is not None and own_split != split) or (note.label is None and note.description is not None):
            continue
        if contradicts_events(note, busy, dataset.background):
            continue
        labels = found.setdefault((note.video, note.start_s, note.end_s, own_split), set())
        if note.label is not None and note.label != dataset.background:
            labels.add(number[note.label])
    return [
        Clip(video=video, start_s=start_s, end_s=end_s, labels=frozenset(labels), split=own_split)
        for (video, start_s, end_s, own_split), labels in found.items()
    ]


@dataclass(frozen=True, kw_only=True)
class DescribedSegment:
    """A stretch of a recording and what was written on it.

    Attributes:
        video: key into `Dataset.recordings`.
        start_s, end_s: half-open interval in seconds; both None for the whole recording.
        label: index into `Dataset.labels`; None where the rows give none.
        sentences: at least one; several are several ways to say it.
        split: "train", "val", "test" or another name from the file.
    """

    video: str
    start_s: float | None
    end_s: float | None
    label: int | None
    sentences: tuple[str, ...]
    split: str


def described_segments(dataset: Dataset, split: str | None = None) -> list[DescribedSegment]:
    """The described stretches of a split (None: of all), in the order of the file.

    Rows of one label on the same interval of the same video make one stretch with several sentences.
    """
    number = {label: index for index, label in enumerate(dataset.labels)}
    found: dict[tuple[str, float | None, float | None, int | None, str], list[str]] = {}
    for row in dataset.rows:
        note = row.annotation
        own_split = note.split or "train"
        if note.description is None or split not in (None, own_split):
            continue
        label = None if note.label is None else number.get(note.label)  # the background has none
        found.setdefault((note.video, note.start_s, note.end_s, label, own_split), []).append(note.description)
    return [
        DescribedSegment(
            video=video,
            start_s=start_s,
            end_s=end_s,
            label=label,
            sentences=tuple(dict.fromkeys(sentences)),
            split=own_split,
        )
        for (video, start_s, end_s, label, own_split), sentences in found.items()
    ]


def without_placeholder_labels(dataset: Dataset) -> Dataset:
    """The data set as it is written where it has descriptions alone, which are labelled `DESCRIBED` when it is read."""
    rows = tuple(replace(row, annotation=replace(row.annotation, label=None)) for row in dataset.rows)
    return replace(dataset, rows=rows, labels=())


def select_splits(dataset: Dataset, splits: Collection[str]) -> Dataset:
    """The data set without the rows of other splits; its labels are those of all."""
    return replace(dataset, rows=tuple(row for row in dataset.rows if (row.annotation.split or "train") in splits))


@dataclass(frozen=True, kw_only=True)
class EventTimeline:
    """What happens when in a recording whose events have times.

    Attributes:
        video: key into `Dataset.recordings`.
        split: "train", "val", "test" or another name from the file.
        events: start and end in seconds, half-open, and index into `Dataset.labels`; sorted. Empty where nothing
            happens.
        ignored: start and end of what other splits say of the same recording; sorted.
    """

    video: str
    split: str
    events: tuple[tuple[float, float, int], ...]
    ignored: tuple[tuple[float, float], ...] = ()

    @property
    def overlaps(self) -> bool:
        """Whether events of different labels happen at once, by more than a person's hand may slip at their edges."""
        for index, (start_s, end_s, label) in enumerate(self.events):
            for other_start_s, other_end_s, other in self.events[index + 1 :]:
                if other_start_s >= end_s:
                    break
                common = min(end_s, other_end_s) - other_start_s
                if other != label and common > _SLIP * min(end_s - start_s, other_end_s - other_start_s):
                    return True
        return False


def event_timelines(dataset: Dataset, split: str | None = None) -> list[EventTimeline]:
    """Recordings with timed events, and those in which nothing happens, of a split (None: of all).

    Outside its events nothing happens in such a recording: what is annotated is annotated whole. Recordings of which
    rows without times give a label, and no others, are not among them. Without a single timed event there are none.
    """
    found: dict[tuple[str, str], list[tuple[float, float, int]]] = {}
    every = clips(dataset)
    for clip in every:
        if clip.start_s is not None and clip.end_s is not None:
            events = found.setdefault((clip.video, clip.split), [])
            events += [(clip.start_s, clip.end_s, label) for label in clip.labels]
        elif not clip.labels:
            found.setdefault((clip.video, clip.split), [])
    if not any(found.values()):
        return []
    of_video: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for (video, own_split), events in found.items():
        of_video.setdefault(video, {})[own_split] = [(start_s, end_s) for start_s, end_s, _ in events]
    return [
        EventTimeline(
            video=video,
            split=own_split,
            events=tuple(sorted(events)),
            ignored=tuple(sorted(s for other, spans in of_video[video].items() if other != own_split for s in spans)),
        )
        for (video, own_split), events in found.items()
        if split in (None, own_split)
    ]


def videos_with_events(dataset: Dataset) -> set[str]:
    """Videos in which something happens."""
    quiet = (None, dataset.background)
    return {row.annotation.video for row in dataset.rows if row.annotation.label not in quiet}


def contradicts_events(note: Annotation, busy: set[str], background: str | None) -> bool:
    """Whether a row says "nothing happens" of a whole recording in which something does."""
    if note.video not in busy or note.start_s is not None:
        return False
    return note.description is None if note.label is None else note.label == background
