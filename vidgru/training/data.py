"""From a data set on disk to labelled clips and timed recordings with features in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.datasets.annotations import clip_to_durations
from vidgru.datasets.dataset import Clip, Dataset, EventTimeline, clips, described_segments, event_timelines
from vidgru.datasets.windows import frames_between
from vidgru.errors import AnnotationError
from vidgru.extraction.import_detections import DetectionSource, extract_detections
from vidgru.extraction.pipeline import extract_recordings, summary_table
from vidgru.model.checkpoint import EventTask, HeadSpec
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import compute_features
from vidgru.types import DESCRIBED, Array, Features


@dataclass(frozen=True, kw_only=True)
class FeatureLocations:
    """Where the features of a data set's recordings are.

    Attributes:
        dataset: its times held against the recordings' lengths; recordings that failed are left out.
        keys: cache entry of each video.
        failed: why, by video, where a recording could not be read.
    """

    dataset: Dataset
    keys: dict[str, str]
    failed: dict[str, str]


def extract_missing(
    dataset: Dataset,
    videos: Iterable[str],
    cache: SequenceCache,
    feature_settings: Mapping[str, Any],
    detect: DetectorSettings,
    run: RuntimeSettings,
    detection_source: DetectionSource | None = None,
) -> FeatureLocations:
    """Make what features are missing, and hold the annotations against the recordings.

    Where nothing is missing the detector is not needed, nor its weights. What went wrong is said on stderr.

    Args:
        dataset: as loaded.
        videos: recordings that are needed, keys into `dataset.recordings`.
        cache: where features are, and go.
        feature_settings: settings of the features, as in cache entries.
        detect: the same settings, and where the weights are.
        run: how the detector runs.
        detection_source: what a detector saw that was run elsewhere; then none runs here.

    Raises:
        AnnotationError: an interval starts past its recording's end, or no recording can be read.
        WeightsError, OutputError: as from `extract_recordings`.
    """
    names = list(dict.fromkeys(videos))
    keys: dict[str, str] = {}
    durations: dict[str, float] = {}
    failed: dict[str, str] = {}
    missing = []
    for name in names:
        entry = None if detection_source else cache.lookup(dataset.recordings[name].path, feature_settings)
        if entry is None:
            missing.append(name)
        else:
            keys[name], durations[name] = entry.key, entry.duration_s
    if missing:
        recordings = [dataset.recordings[name] for name in missing]
        if detection_source:
            outcomes = extract_detections(detection_source, recordings, cache)
        else:
            outcomes = extract_recordings(recordings, cache, detect, run)
        if any(outcome.status != "reused" for outcome in outcomes):
            print(summary_table(outcomes), file=sys.stderr)
        for name, outcome in zip(missing, outcomes, strict=True):
            if outcome.key is None:
                failed[name] = outcome.reason
            else:
                keys[name] = outcome.key
                durations[name] = outcome.duration_s or np.inf
    if not keys:
        raise AnnotationError(
            f"{dataset.source}: none of its {len(names)} recordings can be read",
            "vidgru info VIDEO tells what is wrong with one",
        )
    rows = tuple(row for row in dataset.rows if row.annotation.video not in failed)
    checked = clip_to_durations(replace(dataset, rows=rows), durations)
    return FeatureLocations(dataset=checked, keys=keys, failed=failed)


def task_of(dataset: Dataset, *, captions: bool = True) -> EventTask:
    """The task that annotations set: a head for what is said of clips as a whole, a head for what has times.

    Args:
        dataset: as loaded.
        captions: whether descriptions are something to learn; then they alone will do.

    Raises:
        AnnotationError: there is nothing to tell apart.
    """
    told = bool(described_segments(dataset))
    if dataset.labels in ((), (DESCRIBED,)) and not (captions and told):
        raise AnnotationError(
            f"{dataset.source}: no row has a label",
            "fill in the column label" + (", or pass --captions to learn the descriptions alone" if told else ""),
        )
    whole, timed = whole_clips(dataset), event_timelines(dataset)
    clip_head = None
    if any(clip.labels for clip in whole):
        several = any(len(clip.labels) > 1 for clip in whole)
        clip_head = HeadSpec(background=not several and not all(clip.labels for clip in whole), multi_label=several)
    timed_head = None
    if timed:
        several = any(timeline.overlaps for timeline in timed)
        timed_head = HeadSpec(background=not several, multi_label=several)
    if not (clip_head or timed_head):
        raise AnnotationError(
            f"{dataset.source}: no row of these splits has a label, but there are {', '.join(dataset.labels)}",
            "label rows; or leave out names, and rows with a label in other splits, to learn descriptions alone",
        )
    if captions and told and clip_head == HeadSpec(background=False, multi_label=False) and len(dataset.labels) == 1:
        clip_head = None  # the label says nothing, the sentences do
    task = EventTask(labels=dataset.labels, clip_head=clip_head, frame_head=timed_head)
    if clip_head is not None and not clip_head.multi_label and task.num_outputs(clip_head) == 1:
        raise AnnotationError(
            f"{dataset.source}: every clip has the label {task.labels[0]!r}: nothing to tell apart",
            "add clips with another label, or recordings without an event (a row with the video alone)"
            + (", or leave the rows without times out" if timed_head else ""),
        )
    return task


def whole_clips(dataset: Dataset, split: str | None = None) -> list[Clip]:
    """Clips whose labels speak of a recording as a whole, and recordings in which nothing happens."""
    return [clip for clip in clips(dataset, split) if clip.start_s is None]


def check_labels(task: EventTask, dataset: Dataset, clips: Iterable[Clip], timed: Iterable[EventTimeline]) -> None:
    """Refuse annotations that a model of this task cannot get right.

    Raises:
        AnnotationError: a label the model does not know; of clips, several labels or none where it tells exactly one.
    """
    remedy = "train a model on these annotations, or choose another split"
    said = [(clip.video, {dataset.labels[index] for index in clip.labels}) for clip in clips]
    happens = [(t.video, {dataset.labels[index] for _, _, index in t.events}) for t in timed]
    for video, names in (*said, *happens):
        if unknown := sorted(names.difference(task.labels)):
            raise AnnotationError(
                f"{dataset.source}: the model does not know the label {unknown[0]!r} of {video}; "
                f"it knows {', '.join(task.labels)}",
                remedy,
            )
    if task.clip_head is None or task.clip_head.multi_label:
        return
    for video, names in said:
        if len(names) > 1:
            raise AnnotationError(
                f"{dataset.source}: {video} has the labels {', '.join(sorted(names))} at once, the model tells one",
                remedy,
            )
        if not names and not task.clip_head.background and not happens:
            raise AnnotationError(
                f"{dataset.source}: nothing happens in {video}; the model never saw a clip without an event",
                remedy,
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledClip:
    """A recording that is labelled as a whole.

    Attributes:
        video: key into `Dataset.recordings`.
        frames: how many it has, at least one.
        labels: float32 [C], 1 where it has the label; the last is the background's where the outputs have one.
    """

    video: str
    frames: int
    labels: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class TimedRecording:
    """A recording with timed events, by its frames.

    Attributes:
        video: key into `Dataset.recordings`.
        targets: float32 [T, K], what the head for frames should say of each.
        weights: float32 [T], 0 for frames of which nothing is known.
        events: int64 [E, 3], first frame, the one after the last, and label of each event.
    """

    video: str
    targets: Array
    weights: Array
    events: Array

    def __len__(self) -> int:
        """Number of frames, T."""
        return len(self.targets)


def place(dataset: Dataset, split: str, times: Mapping[str, Array], task: EventTask) -> list[LabelledClip]:
    """The clips of a split that are labelled as a whole; none without a head for them.

    Args:
        dataset: annotations.
        split: its name.
        times: float64 [T] of each recording.
        task: decides the vector of labels.
    """
    if task.clip_head is None:
        return []
    return [
        LabelledClip(
            video=clip.video,
            frames=len(times[clip.video]),
            labels=task.target_vector(task.clip_head, (dataset.labels[index] for index in clip.labels)),
        )
        for clip in whole_clips(dataset, split)
        if len(times[clip.video])
    ]


def place_timed(dataset: Dataset, split: str, times: Mapping[str, Array], task: EventTask) -> list[TimedRecording]:
    """The recordings of a split whose events have times, by their frames; none without a head for frames.

    An event in a stretch that could not be decoded (the tail of a file cut short) is left out, and named on stderr.

    Args:
        dataset, split, times, task: as for `place`.
    """
    head = task.frame_head
    if head is None:
        return []
    placed = []
    for timeline in event_timelines(dataset, split):
        time_s = times[timeline.video]
        if not len(time_s):
            continue
        targets = np.tile(task.target_vector(head, ()), (len(time_s), 1))
        weights = np.ones(len(time_s), np.float32)
        events = []
        for start_s, end_s in timeline.ignored:
            weights[slice(*frames_between(time_s, start_s, end_s))] = 0.0
        for start_s, end_s, index in timeline.events:
            if start_s > time_s[-1] + np.diff(time_s).max(initial=1.0):
                print(f"left out: {timeline.video} has no frames from {start_s:g} s on", file=sys.stderr)
                continue
            first, stop = frames_between(time_s, start_s, end_s)
            label = task.labels.index(dataset.labels[index])
            if not head.multi_label:
                targets[first:stop] = 0.0
            targets[first:stop, label] = 1.0
            weights[first:stop] = 1.0
            events.append((first, stop, label))
        placed.append(
            TimedRecording(
                video=timeline.video,
                targets=targets,
                weights=weights,
                events=np.array(events, dtype=np.int64).reshape(-1, 3),
            )
        )
    return placed


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """Features of recordings in memory.

    Attributes:
        features: by video.
        feature_spec: of all of them.
        names: the detector's class names.
        keys: cache entry of each video.
    """

    features: dict[str, Features]
    feature_spec: FeatureSpec
    names: tuple[str, ...]
    keys: dict[str, str]


def load_features(cache: SequenceCache, keys: Mapping[str, str]) -> Loaded:
    """Read sequences and compute their features, one at a time.

    Args:
        cache: where they are.
        keys: entry of each video, at least one.

    Raises:
        CacheError: an entry is not sound.
    """
    by_key: dict[str, Features] = {}  # equal recordings share an entry
    feature_spec, names = FeatureSpec(classes=0), tuple[str, ...]()
    for key in dict.fromkeys(keys.values()):
        sequence = cache.read(key)
        feature_spec, names = FeatureSpec.from_sequence(sequence), sequence.names
        by_key[key] = compute_features(sequence)
    features = {video: by_key[key] for video, key in keys.items()}
    return Loaded(features=features, feature_spec=feature_spec, names=names, keys=dict(keys))
