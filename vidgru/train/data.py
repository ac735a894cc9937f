"""From a data set on disk to labelled clips with features in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, RunSettings
from vidgru.datasets.annotations import check_times
from vidgru.datasets.dataset import Clip, Dataset, clips
from vidgru.datasets.windows import frames_between
from vidgru.errors import AnnotationError
from vidgru.extract.pipeline import extract, summary_table
from vidgru.model.features import compute_features
from vidgru.model.layout import FeatureLayout
from vidgru.types import Array, Features


@dataclass(frozen=True, kw_only=True)
class Extracted:
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
    what: Mapping[str, Any],
    detect: DetectorSettings,
    run: RunSettings,
) -> Extracted:
    """Make what features are missing, and hold the annotations against the recordings.

    Where nothing is missing the detector is not needed, nor its weights. What went wrong is said on stderr.

    Args:
        dataset: as loaded.
        videos: recordings that are needed, keys into `dataset.recordings`.
        cache: where features are, and go.
        what: settings of the features, as in cache entries.
        detect: the same settings, and where the weights are.
        run: how the detector runs.

    Raises:
        AnnotationError: an interval starts past its recording's end, or no recording can be read.
        WeightsError, OutputError: as from `extract`.
    """
    names = list(dict.fromkeys(videos))
    keys: dict[str, str] = {}
    durations: dict[str, float] = {}
    failed: dict[str, str] = {}
    missing = []
    for name in names:
        entry = cache.lookup(dataset.recordings[name].path, what)
        if entry is None:
            missing.append(name)
        else:
            keys[name], durations[name] = entry.key, entry.duration_s
    if missing:
        outcomes = extract([dataset.recordings[name] for name in missing], cache, detect, run)
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
    checked = check_times(replace(dataset, rows=rows), durations)
    return Extracted(dataset=checked, keys=keys, failed=failed)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be told apart.

    Attributes:
        labels: names, the background not among them.
        background: whether "nothing happens" is one more class. Never with `multi_label`.
        multi_label: a clip may have several labels.
    """

    labels: tuple[str, ...]
    background: bool
    multi_label: bool

    @staticmethod
    def of(dataset: Dataset) -> Task:
        """The task that annotations set.

        Raises:
            AnnotationError: there is nothing to tell apart.
        """
        multi_label = dataset.multi_label
        task = Task(
            labels=dataset.labels, background=dataset.has_background and not multi_label, multi_label=multi_label
        )
        if not task.labels:
            raise AnnotationError(f"{dataset.source}: no row has a label", "fill in the column label")
        if len(task.names) == 1:
            raise AnnotationError(
                f"{dataset.source}: every clip has the label {task.labels[0]!r}: nothing to tell apart",
                "add clips with another label, or recordings without an event (a row with the video alone)",
            )
        return task

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the network's outputs, as tables and plots show them."""
        return (*self.labels, "(no event)") if self.background else self.labels

    def vector(self, labels: Iterable[str]) -> Array:
        """float32 [C], 1 where a clip has the label."""
        vector = np.zeros(len(self.names), np.float32)
        vector[[self.labels.index(label) for label in labels]] = 1.0
        if self.background and not vector.any():
            vector[-1] = 1.0
        return vector

    def check(self, dataset: Dataset, clips: Iterable[Clip]) -> None:
        """Refuse clips that a model of this task cannot get right.

        Raises:
            AnnotationError: a label the model does not know, several labels or none where it tells exactly one.
        """
        remedy = "train a model on these annotations, or choose another split"
        for clip in clips:
            names = [dataset.labels[index] for index in sorted(clip.labels)]
            unknown = [name for name in names if name not in self.labels]
            if unknown:
                raise AnnotationError(
                    f"{dataset.source}: the model does not know the label {unknown[0]!r} of {clip.video}; "
                    f"it knows {', '.join(self.labels)}",
                    remedy,
                )
            if len(names) > 1 and not self.multi_label:
                raise AnnotationError(
                    f"{dataset.source}: {clip.video} has the labels {', '.join(names)} at once, the model tells one",
                    remedy,
                )
            if not names and not self.multi_label and not self.background:
                raise AnnotationError(
                    f"{dataset.source}: nothing happens in {clip.video}; the model never saw a clip without an event",
                    remedy,
                )


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledClip:
    """A clip as frames of its recording.

    Attributes:
        video: key into `Dataset.recordings`.
        first, stop: its frames, at least one.
        labels: float32 [C], 1 where it has the label; the last is the background's where the outputs have one.
    """

    video: str
    first: int
    stop: int
    labels: Array

    def __len__(self) -> int:
        """Number of frames."""
        return self.stop - self.first

    def cut(self, features: Features) -> Features:
        """The clip's part of its recording's features."""
        rows = slice(features.offsets[self.first], features.offsets[self.stop])
        return Features(
            objects=features.objects[rows],
            offsets=features.offsets[self.first : self.stop + 1] - rows.start,
            frame=features.frame[self.first : self.stop],
            time_s=features.time_s[self.first : self.stop],
        )


def place(dataset: Dataset, split: str, times: Mapping[str, Array], task: Task) -> list[LabelledClip]:
    """The clips of a split as frames of their recordings.

    A clip in a stretch that could not be decoded (the tail of a file cut short) is left out, and named on stderr.

    Args:
        dataset: annotations.
        split: its name.
        times: float64 [T] of each recording.
        task: decides the vector of labels.
    """
    placed = []
    for clip in clips(dataset, split):
        time_s = times[clip.video]
        if clip.start_s is not None and clip.start_s > time_s[-1] + np.diff(time_s).max(initial=1.0):
            print(f"left out: {clip.video} has no frames from {clip.start_s:g} s on", file=sys.stderr)
            continue
        first, stop = frames_between(time_s, clip.start_s, clip.end_s)
        labels = task.vector(dataset.labels[index] for index in clip.labels)
        placed.append(LabelledClip(video=clip.video, first=first, stop=stop, labels=labels))
    return placed


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """Features of recordings in memory.

    Attributes:
        features: by video.
        layout: of all of them.
        names: the detector's class names.
        keys: cache entry of each video.
    """

    features: dict[str, Features]
    layout: FeatureLayout
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
    layout, names = FeatureLayout(classes=0), tuple[str, ...]()
    for key in dict.fromkeys(keys.values()):
        sequence = cache.read(key)
        layout, names = FeatureLayout.of(sequence), sequence.names
        by_key[key] = compute_features(sequence)
    features = {video: by_key[key] for video, key in keys.items()}
    return Loaded(features=features, layout=layout, names=names, keys=dict(keys))
