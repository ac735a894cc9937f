"""What a split holds to train or validate on, and whether that is enough."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidgru.config import TrainConfig
from vidgru.datasets.dataset import Dataset
from vidgru.errors import AnnotationError
from vidgru.model.task import Task
from vidgru.train.augment import Augmenter
from vidgru.train.batches import ClipBatches, WindowBatches
from vidgru.train.data import LabelledClip, Loaded, TimedRecording, place, place_timed


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """What a split holds for a task: clips labelled as a whole, and recordings with timed events."""

    clips: list[LabelledClip]
    recordings: list[TimedRecording]

    @staticmethod
    def of(dataset: Dataset, split: str, loaded: Loaded, task: Task) -> Examples:
        """Those of a split.

        Raises:
            AnnotationError: the split holds nothing.
        """
        times = {video: features.time_s for video, features in loaded.features.items()}
        found = Examples(clips=place(dataset, split, times, task), recordings=place_timed(dataset, split, times, task))
        if not (found.clips or found.recordings):
            raise AnnotationError(
                f"{dataset.source}: nothing to train or judge on in split {split!r}", "add rows with that split"
            )
        return found

    @property
    def videos(self) -> list[str]:
        """Recordings, each once."""
        return list(dict.fromkeys([*(clip.video for clip in self.clips), *(one.video for one in self.recordings)]))


def check_train(dataset: Dataset, task: Task, train: Examples) -> None:
    """Refuse a train split that teaches nothing, or not what one of the heads is to say.

    Raises:
        AnnotationError: what is missing, and what to do.
    """
    clips = train.clips
    alike = all(np.array_equal(clip.labels, clips[0].labels) for clip in clips)
    if alike and not any(len(recording.events) for recording in train.recordings):
        raise AnnotationError(
            f"{dataset.source}: all {len(clips)} clips of split 'train' are labelled alike: nothing to learn"
            if clips
            else f"{dataset.source}: nothing happens in split 'train': nothing to learn",
            "move rows of other labels to train",
        )
    for kind in _lacking(task, train):
        raise AnnotationError(
            f"{dataset.source}: there are {kind}, but none in split 'train': nothing to learn them from",
            "move rows of that kind to train, or leave them out",
        )


def warn_of_val(task: Task, val: Examples) -> None:
    """Say on stderr what validation cannot judge."""
    for kind in _lacking(task, val):
        print(f"warning: no {kind} in split 'val': epochs and thresholds are chosen without them", file=sys.stderr)


def _lacking(task: Task, some: Examples) -> Iterator[str]:
    """What a head of the task is there for, but no example shows."""
    number = len(task.labels)
    if task.clips and not any(clip.labels[:number].any() for clip in some.clips):
        yield "clips labelled as a whole"
    if task.timed and not any(len(recording.events) for recording in some.recordings):
        yield "timed events"


def batches_of(
    train: Examples, loaded: Loaded, task: Task, config: TrainConfig, lag: int
) -> tuple[ClipBatches | None, WindowBatches | None]:
    """Batches of clips and of windows; None for what a train split does not hold."""
    augment = Augmenter(loaded.layout, task.labels) if config.augment else None
    how: dict[str, Any] = {"size": config.batch, "seed": config.seed, "balance": config.balance, "augment": augment}
    clips = ClipBatches(train.clips, loaded, len(task.labels), **how) if train.clips else None
    windows = None
    if train.recordings:
        length = round(config.window * config.fps)
        windows = WindowBatches(train.recordings, loaded, length=length, lag=lag, fps=config.fps, **how)
    return clips, windows


def brief(recordings: list[TimedRecording]) -> float:
    """Frames that a short event lasts: all but a tenth last longer."""
    lengths = [stop - first for recording in recordings for first, stop, _ in recording.events]
    return float(np.quantile(lengths, 0.1)) if lengths else 0.0
