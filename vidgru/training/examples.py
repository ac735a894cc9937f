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
from vidgru.model.checkpoint import EventTask
from vidgru.model.tokenizer import Tokenizer
from vidgru.training.augment import Augmenter
from vidgru.training.batches import ClipBatches, WindowBatches
from vidgru.training.captions_data import DescribedBatches, DescribedClip, place_described
from vidgru.training.data import LabelledClip, Loaded, TimedRecording, place, place_timed


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """What a split holds: clips labelled as a whole, recordings with timed events, and described stretches."""

    clips: list[LabelledClip]
    recordings: list[TimedRecording]
    described: list[DescribedClip]

    @staticmethod
    def of(dataset: Dataset, split: str, loaded: Loaded, task: EventTask, *, captions: bool = True) -> Examples:
        """Those of a split; descriptions are left aside unless the model is to `captions`.

        Raises:
            AnnotationError: the split holds nothing.
        """
        times = {video: features.time_s for video, features in loaded.features.items()}
        found = Examples(
            clips=place(dataset, split, times, task),
            recordings=place_timed(dataset, split, times, task),
            described=place_described(dataset, split, times, task) if captions else [],
        )
        if not (found.clips or found.recordings or found.described):
            raise AnnotationError(
                f"{dataset.source}: nothing to train or judge on in split {split!r}",
                "add rows with that split (those of recordings that cannot be read do not count)",
            )
        return found

    @property
    def videos(self) -> list[str]:
        """Recordings, each once."""
        parts = (self.clips, self.recordings, self.described)
        return list(dict.fromkeys(one.video for part in parts for one in part))


def check_train(dataset: Dataset, task: EventTask, train: Examples) -> None:
    """Refuse a train split that teaches nothing, or not what one of the heads is to say.

    Raises:
        AnnotationError: what is missing, and what to do.
    """
    clips = train.clips
    alike = all(np.array_equal(clip.labels, clips[0].labels) for clip in clips)
    if alike and not train.described and not any(len(recording.events) for recording in train.recordings):
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


def check_val(dataset: Dataset, task: EventTask, val: Examples) -> None:
    """Refuse a validation split by which nothing that is learnt can be chosen.

    Raises:
        AnnotationError: it holds descriptions alone.
    """
    if task.clip_head and not task.frame_head and not val.clips:
        raise AnnotationError(
            f"{dataset.source}: no clip of split 'val' has a label: nothing to choose epochs and thresholds by",
            "give rows with a label the split val, or no row: then some of train are set aside",
        )


def warn_of_val(task: EventTask, val: Examples, *, captions: bool) -> None:
    """Say on stderr what validation cannot judge; whether the model is to `captions`."""
    for kind in _lacking(task, val, captions):
        told = "; every sentence will be told, however unsure" if kind == "descriptions" else ""
        print(
            f"warning: no {kind} in split 'val': epochs and thresholds are chosen without them{told}", file=sys.stderr
        )


def _lacking(task: EventTask, some: Examples, described: bool = False) -> Iterator[str]:
    """What a head of the task is there for, but no example shows."""
    number = len(task.labels)
    if task.clip_head and not any(clip.labels[:number].any() for clip in some.clips):
        yield "clips labelled as a whole"
    if task.frame_head and not any(len(recording.events) for recording in some.recordings):
        yield "timed events"
    if described and not some.described:
        yield "descriptions"


def batches_of(
    train: Examples,
    loaded: Loaded,
    task: EventTask,
    config: TrainConfig,
    lookahead: int,
    tokenizer: Tokenizer | None = None,
) -> tuple[ClipBatches | None, WindowBatches | None, DescribedBatches | None]:
    """Batches of clips, of windows and, with a tokenizer, of described stretches; None for what the split lacks."""
    augment = Augmenter(loaded.feature_spec, task.labels) if config.augment else None
    how: dict[str, Any] = {"size": config.batch, "seed": config.seed, "augment": augment}
    described = None
    if train.described and tokenizer:
        described = DescribedBatches(train.described, loaded, tokenizer, **how)
    how["balance"] = config.balance
    clips = ClipBatches(train.clips, loaded, len(task.labels), **how) if train.clips else None
    windows = None
    if train.recordings:
        fps = config.detector.fps
        length = round(config.window * fps)
        windows = WindowBatches(train.recordings, loaded, length=length, lookahead=lookahead, fps=fps, **how)
    return clips, windows, described


def brief(recordings: list[TimedRecording]) -> float:
    """Frames that a short event lasts: all but a tenth last longer."""
    lengths = [stop - first for recording in recordings for first, stop, _ in recording.events]
    return float(np.quantile(lengths, 0.1)) if lengths else 0.0
