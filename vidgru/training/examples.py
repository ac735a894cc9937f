"""From annotations to the task a model is trained for, and to its training examples."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vidgru.config import TrainConfig
from vidgru.datasets.dataset import (
    Clip,
    Dataset,
    EventTimeline,
    clips,
    described_segments,
    event_timelines,
    frames_between,
)
from vidgru.datasets.splits import in_split, member_folds
from vidgru.errors import AnnotationError
from vidgru.model.captioner import caption_frames
from vidgru.model.checkpoint import EventTask, HeadSpec
from vidgru.types import DESCRIBED, Array

# --- the task ---------------------------------------------------------------------------------------------------------


def task_from_dataset(dataset: Dataset, *, captions: bool = True) -> EventTask:
    """Choose the heads that the annotations ask for: one for labels of whole clips, one for events with times.

    Args:
        dataset: Dataset as loaded.
        captions: Whether descriptions are learnt; then a dataset of descriptions alone is enough.

    Raises:
        AnnotationError: The annotations leave nothing to learn.
    """
    has_descriptions = bool(described_segments(dataset))
    if dataset.labels in ((), (DESCRIBED,)) and not (captions and has_descriptions):
        hint = ", or pass --captions to learn from the descriptions alone" if has_descriptions else ""
        raise AnnotationError(f"{dataset.source}: no row has a label", f"fill in the column label{hint}")
    whole, timed = untimed_clips(dataset), event_timelines(dataset)
    clip_head = None
    if any(clip.labels for clip in whole):
        multi_label = any(len(clip.labels) > 1 for clip in whole)
        background = not multi_label and not all(clip.labels for clip in whole)
        clip_head = HeadSpec(background=background, multi_label=multi_label)
    frame_head = None
    if timed:
        multi_label = any(timeline.overlaps for timeline in timed)
        frame_head = HeadSpec(background=not multi_label, multi_label=multi_label)
    if not (clip_head or frame_head):
        raise AnnotationError(
            f"{dataset.source}: no row of the splits train and val has a label, but the dataset has the labels "
            f"{', '.join(dataset.labels)}",
            "label rows of these splits; to learn descriptions alone, remove `names` and the labels of other splits",
        )
    same_label = len(dataset.labels) == 1 and clip_head == HeadSpec(background=False, multi_label=False)
    if captions and has_descriptions and same_label:
        clip_head = None  # a label that every clip has says nothing; the descriptions do
    task = EventTask(labels=dataset.labels, clip_head=clip_head, frame_head=frame_head)
    if clip_head is not None and not clip_head.multi_label and task.num_outputs(clip_head) == 1:
        hint = ", or remove the rows without times" if frame_head else ""
        raise AnnotationError(
            f"{dataset.source}: every clip has the label {task.labels[0]!r}: nothing to distinguish",
            f"add clips with another label, or event-free recordings (rows with only `video`){hint}",
        )
    return task


def untimed_clips(dataset: Dataset, split: str | None = None) -> list[Clip]:
    """Clips that are labelled as a whole, and event-free recordings, of a split (None: of all)."""
    return [clip for clip in clips(dataset, split) if clip.start_s is None]


def check_task_labels(task: EventTask, dataset: Dataset, clips: Iterable[Clip], timed: Iterable[EventTimeline]) -> None:
    """Refuse annotations that a model of this task cannot predict.

    Raises:
        AnnotationError: The model does not know a label, or a clip has several labels or none where the model always
            predicts exactly one.
    """
    remedy = "train a model on these annotations, or choose another split"
    of_clips = [(clip.video, {dataset.labels[index] for index in clip.labels}) for clip in clips]
    of_events = [(t.video, {dataset.labels[index] for _, _, index in t.events}) for t in timed]
    for video, names in (*of_clips, *of_events):
        if unknown := sorted(names.difference(task.labels)):
            raise AnnotationError(
                f"{dataset.source}: {video} has the label {unknown[0]!r}, which the model does not know; "
                f"it knows {', '.join(task.labels)}",
                remedy,
            )
    if task.clip_head is None or task.clip_head.multi_label:
        return
    for video, names in of_clips:
        if len(names) > 1:
            raise AnnotationError(
                f"{dataset.source}: {video} has several labels ({', '.join(sorted(names))}), the model predicts one",
                remedy,
            )
        if not names and not task.clip_head.background and not of_events:
            raise AnnotationError(
                f"{dataset.source}: {video} has no event, but the model was trained without event-free clips", remedy
            )


# --- examples ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledClip:
    """A recording that is labelled as a whole.

    Attributes:
        video: Key into `Dataset.recordings`.
        frames: Number of frames, at least one.
        labels: float32 [C], 1 for its labels; the last is the background's if the head has one.
        fold: Member that does not learn from it and scores it instead; -1 if all members learn from it.
    """

    video: str
    frames: int
    labels: Array
    fold: int = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class TimedRecording:
    """A recording with timed events, per frame.

    Attributes:
        video: Key into `Dataset.recordings`.
        targets: float32 [T, K], targets of the frame head.
        weights: float32 [T], 0 for frames whose label is unknown.
        events: int64 [E, 3], first frame, frame after the last, and label of each event.
        spans_s: float64 [E, 2], start and end of each event in seconds, as annotated.
        fold: Member that does not learn from it and scores it instead; -1 if all members learn from it.
    """

    video: str
    targets: Array
    weights: Array
    events: Array
    spans_s: Array
    fold: int = -1

    def __len__(self) -> int:
        """Number of frames, T."""
        return len(self.targets)


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionedClip:
    """A recording, or a part of one, with descriptions.

    Attributes:
        video: Key into `Dataset.recordings`.
        first, stop: Frames that the caption head reads, half-open; they begin a little before the event.
        timed: Whether the description has times; otherwise it is of the whole recording.
        label: Index into `EventTask.labels`; None if the annotations give none.
        sentences: Alternative descriptions, at least one.
        fold: Member that does not learn from it and scores it instead; -1 if all members learn from it.
    """

    video: str
    first: int
    stop: int
    timed: bool
    label: int | None
    sentences: tuple[str, ...]
    fold: int = -1

    def __len__(self) -> int:
        """Number of frames."""
        return self.stop - self.first


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """The examples of a split, one list per head.

    Attributes:
        clips: Clips labelled as a whole.
        recordings: Recordings with timed events.
        captions: Clips and events with descriptions.
    """

    clips: list[LabelledClip]
    recordings: list[TimedRecording]
    captions: list[CaptionedClip]

    @staticmethod
    def of(
        dataset: Dataset,
        split: str,
        times: Mapping[str, Array],
        task: EventTask,
        *,
        captions: bool = True,
        folds: Mapping[str, int] | None = None,
    ) -> Examples:
        """Collect the examples of a split.

        Args:
            dataset: Annotations.
            split: Name of the split.
            times: Frame times, float64 [T], of each recording.
            task: Heads and labels.
            captions: Whether to include descriptions.
            folds: Fold of each recording that a member does not learn from.

        Raises:
            AnnotationError: The split has no examples.
        """
        examples = Examples(
            clips=clip_examples(dataset, split, times, task),
            recordings=recording_examples(dataset, split, times, task),
            captions=caption_examples(dataset, split, times, task) if captions else [],
        )
        if folds:
            examples = examples.in_folds(folds)
        if not examples.videos:
            raise AnnotationError(
                f"{dataset.source}: split {split!r} has nothing to train or evaluate on",
                "add rows with that split (rows of recordings that cannot be read do not count)",
            )
        return examples

    def in_folds(self, folds: Mapping[str, int]) -> Examples:
        """Return the examples with the folds of their recordings."""
        return Examples(
            clips=[replace(clip, fold=folds.get(clip.video, -1)) for clip in self.clips],
            recordings=[replace(recording, fold=folds.get(recording.video, -1)) for recording in self.recordings],
            captions=[replace(clip, fold=folds.get(clip.video, -1)) for clip in self.captions],
        )

    def of_fold(self, fold: int) -> Examples:
        """Return the examples of a fold."""
        return Examples(
            clips=[clip for clip in self.clips if clip.fold == fold],
            recordings=[recording for recording in self.recordings if recording.fold == fold],
            captions=[clip for clip in self.captions if clip.fold == fold],
        )

    @staticmethod
    def joined(parts: Iterable[Examples]) -> Examples:
        """Return the examples of all parts, in their order."""
        parts = list(parts)
        return Examples(
            clips=[clip for part in parts for clip in part.clips],
            recordings=[recording for part in parts for recording in part.recordings],
            captions=[clip for part in parts for clip in part.captions],
        )

    @property
    def videos(self) -> list[str]:
        """Recordings, each once."""
        kinds = (self.clips, self.recordings, self.captions)
        return list(dict.fromkeys(example.video for kind in kinds for example in kind))


def clip_examples(dataset: Dataset, split: str, times: Mapping[str, Array], task: EventTask) -> list[LabelledClip]:
    """Clips of a split that are labelled as a whole; none without a clip head. Arguments as for `Examples.of`."""
    if task.clip_head is None:
        return []
    return [
        LabelledClip(
            video=clip.video,
            frames=len(times[clip.video]),
            labels=task.target_vector(task.clip_head, (dataset.labels[index] for index in clip.labels)),
        )
        for clip in untimed_clips(dataset, split)
        if len(times[clip.video])
    ]


def recording_examples(
    dataset: Dataset, split: str | None, times: Mapping[str, Array], task: EventTask
) -> list[TimedRecording]:
    """Recordings of a split with timed events, per frame; none without a frame head. Arguments as for `Examples.of`.

    Events in a part that could not be decoded (the end of a truncated file) are left out, with a notice on stderr.
    """
    head = task.frame_head
    if head is None:
        return []
    recordings = []
    for timeline in event_timelines(dataset, split):
        time_s = times[timeline.video]
        if not len(time_s):
            continue
        targets = np.tile(task.target_vector(head, ()), (len(time_s), 1))
        # Events of other splits must be neither learnt nor unlearnt ...
        weights = timeline.known_frames(time_s).astype(np.float32)
        events, spans_s = [], []
        for start_s, end_s, index in timeline.events:
            if _is_beyond(time_s, start_s, timeline.video):
                continue
            first, stop = frames_between(time_s, start_s, end_s)
            label = task.labels.index(dataset.labels[index])
            if not head.multi_label:
                targets[first:stop] = 0.0
            targets[first:stop, label] = 1.0
            weights[first:stop] = 1.0  # ... but what this split labels counts, whatever others say
            events.append((first, stop, label))
            spans_s.append((start_s, end_s))
        if not weights.any():
            continue
        recordings.append(
            TimedRecording(
                video=timeline.video,
                targets=targets,
                weights=weights,
                events=np.array(events, dtype=np.int64).reshape(-1, 3),
                spans_s=np.array(spans_s, dtype=np.float64).reshape(-1, 2),
            )
        )
    return recordings


def caption_examples(dataset: Dataset, split: str, times: Mapping[str, Array], task: EventTask) -> list[CaptionedClip]:
    """Clips and events of a split with descriptions. Arguments as for `Examples.of`.

    Parts that could not be decoded (the end of a truncated file) are left out, with a notice on stderr.
    """
    examples = []
    for segment in described_segments(dataset, split):
        time_s = times[segment.video]
        if not len(time_s):
            continue
        start_s, end_s, timed = 0.0, np.inf, False
        if segment.start_s is not None and segment.end_s is not None:
            start_s, end_s, timed = segment.start_s, segment.end_s, True
        if _is_beyond(time_s, start_s, segment.video):
            continue
        first, stop = caption_frames(time_s, start_s, end_s)
        label = None if segment.label is None else task.labels.index(dataset.labels[segment.label])
        examples.append(
            CaptionedClip(
                video=segment.video, first=first, stop=stop, timed=timed, label=label, sentences=segment.sentences
            )
        )
    return examples


def _is_beyond(time_s: Array, start_s: float, video: str) -> bool:
    """Whether a time is past the last frame by more than the longest gap; says so on stderr."""
    beyond = bool(start_s > time_s[-1] + np.diff(time_s).max(initial=1.0))
    if beyond:
        print(f"skipped: {video} has no frames from {start_s:g} s on", file=sys.stderr)
    return beyond


def short_event_frames(recordings: list[TimedRecording]) -> float:
    """Length of a short event in frames: the 10 % quantile, 0 without events."""
    lengths = [stop - first for recording in recordings for first, stop, _ in recording.events]
    return float(np.quantile(lengths, 0.1)) if lengths else 0.0


def frame_class_weights(recordings: Sequence[TimedRecording], task: EventTask) -> Array:
    """Return the weight of each class of frames by rarity: float32 [K], mean 1 over the targets.

    The square root of the inverse share: halfway between counting frames equally and counting classes equally.
    """
    if not recordings:
        return np.ones(task.num_outputs(task.frame_head), np.float32)
    counts = np.sum([r.targets[r.weights > 0].sum(axis=0) for r in recordings], axis=0)
    shares = counts / max(counts.sum(), 1)
    weights = np.sqrt(1 / np.maximum(shares, 1e-3)) * (counts > 0)
    balanced: Array = (weights / max((weights * shares).sum(), 1e-6)).astype(np.float32)
    return balanced


def split_examples(
    dataset: Dataset, members: int, times: Mapping[str, Array], task: EventTask, config: TrainConfig
) -> tuple[Examples, Examples]:
    """Return the examples to learn from, and those to measure on; the folds say which members do which.

    Raises:
        AnnotationError: A split is empty, or the training examples do not differ.
    """
    if members == 1:
        folds = dict.fromkeys(times, 0)
        train = Examples.of(dataset, "train", times, task, captions=config.captions)
        val = Examples.of(dataset, "val", times, task, captions=config.captions, folds=folds)
    else:
        folds = member_folds(dataset, members, config.seed, config.group_by or None)
        merged = in_split(dataset, dataset.recordings, "train")
        train = val = Examples.of(merged, "train", times, task, captions=config.captions, folds=folds)
    check_train(dataset, task, train)
    if not train.captions:
        val = replace(val, captions=[])
    if members == 1:
        check_val(dataset, task, val)
        warn_incomplete_val(task, val, captions=bool(train.captions))
    return train, val


# --- checks -----------------------------------------------------------------------------------------------------------


def check_train(dataset: Dataset, task: EventTask, train: Examples) -> None:
    """Refuse a train split from which nothing, or nothing for one of the heads, can be learnt.

    Raises:
        AnnotationError: Naming what is missing.
    """
    clips = train.clips
    all_equal = all(np.array_equal(clip.labels, clips[0].labels) for clip in clips)
    if all_equal and not train.captions and not any(len(recording.events) for recording in train.recordings):
        reason = (
            f"all {len(clips)} clips of split 'train' have the same labels" if clips else "no events in split 'train'"
        )
        raise AnnotationError(f"{dataset.source}: {reason}: nothing to learn", "move rows of other labels to train")
    for kind in _missing_kinds(task, train):
        raise AnnotationError(
            f"{dataset.source}: there are {kind}, but none in split 'train': nothing to learn them from",
            "move rows of that kind to train, or remove them",
        )


def check_val(dataset: Dataset, task: EventTask, val: Examples) -> None:
    """Refuse a validation split by which epochs and thresholds cannot be chosen.

    Raises:
        AnnotationError: It has descriptions only.
    """
    if task.clip_head and not task.frame_head and not val.clips:
        raise AnnotationError(
            f"{dataset.source}: no clip of split 'val' has a label: nothing to choose epochs and thresholds by",
            "give labelled rows the split val, or no row, and 20 % of train is held out",
        )


def warn_incomplete_val(task: EventTask, val: Examples, *, captions: bool) -> None:
    """Warn on stderr of the heads that validation cannot measure; `captions` says whether the model writes captions."""
    for kind in _missing_kinds(task, val, captions):
        effect = "; captions are never replaced by templates" if kind == "descriptions" else ""
        print(
            f"warning: no {kind} in split 'val': epochs and thresholds are chosen without them{effect}",
            file=sys.stderr,
        )


def _missing_kinds(task: EventTask, examples: Examples, captions: bool = False) -> Iterator[str]:
    """Kinds of examples that a head of the task needs and the split lacks."""
    labels = len(task.labels)
    if task.clip_head and not any(clip.labels[:labels].any() for clip in examples.clips):
        yield "clips labelled as a whole"
    if task.frame_head and not any(len(recording.events) for recording in examples.recordings):
        yield "timed events"
    if captions and not examples.captions:
        yield "descriptions"
