"""Training batches of each epoch: a pure function of the examples, the seed and the epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from vidgru.config import TrainConfig
from vidgru.datasets.windows import Batch, Window, balanced_weights, collate, epoch_batches, slice_window
from vidgru.model.checkpoint import EventModel, EventTask
from vidgru.model.tokenizer import Tokenizer
from vidgru.training.augment import Augmenter
from vidgru.training.data import LoadedFeatures
from vidgru.training.examples import CaptionedClip, Examples, LabelledClip, TimedRecording
from vidgru.types import Array

_MAX_CLIP_STEPS = 40_000  # per batch, padding included: clips of an hour come one at a time
_IMBALANCE = 1.5  # classes are balanced if the largest exceeds the smallest by this factor
_MIN_CLIP_BATCHES = _MIN_WINDOW_BATCHES = 16  # per epoch: a small dataset is passed over several times ...
# ... until an epoch has so many steps, or so few batches, if clips or windows are long. Measured on 97 clips of 10 s:
# 0.990 correct after 90 batches as after 600; on 16 recordings of falls, windows of 8 s: frame mAP 0.958 after 96
# batches, 0.964 after 640.
_REPEATED_STEPS, _REPEATED_BATCHES = 8_000, 4
_ON_EVENTS = 0.5  # share of windows placed over an event, each label equally often
_EVENT_FREE = 0.2  # share of windows from event-free recordings, if there are any
_WARM_UP = 0.25  # share of a window's steps without loss, unless the recording starts with the window
_MIN_WINDOW_S, _MAX_WINDOW_S, _EVENTS_PER_WINDOW = 8.0, 60.0, 3.0  # a window holds this many long events

_MAX_CAPTION_STEPS = 20_000  # per batch, padding included
_MIN_CAPTION_BATCHES, _MAX_PASSES = 48, 4  # per epoch: a small dataset is passed over up to this many times
_SHIFT = 0.15  # share of an event's length by which its edges move, because predicted edges are not exact either
_LABEL_DROP = 0.1  # probability of learning a caption without the event's label


class ClipBatches:
    """Batches of clips that are labelled as a whole.

    Event-free clips are often long recordings: a part as long as the other clips is shown, another one in each epoch.

    Args:
        clips: Clips, at least one.
        loaded: Features of their recordings.
        labels: Number of labels; a further output is the background's.
        size: Clips per batch.
        seed: Seed of order and augmentation.
        balance: Draw clips of rare labels more often.
        augment: Augmentation; None leaves clips unchanged.
    """

    def __init__(
        self,
        clips: Sequence[LabelledClip],
        loaded: LoadedFeatures,
        labels: int,
        *,
        size: int,
        seed: int,
        balance: bool,
        augment: Augmenter | None,
    ) -> None:
        self._clips, self._loaded, self._size, self._seed, self._augment = clips, loaded, size, seed, augment
        targets = np.stack([clip.labels for clip in clips])
        has_event = targets[:, :labels].any(axis=1)
        lengths = np.array([clip.frames for clip in clips])
        self._lengths = np.where(has_event, lengths, np.minimum(lengths, typical_clip_steps(clips, labels)))
        counts = targets.sum(axis=0)
        imbalanced = counts.max() > _IMBALANCE * counts[counts > 0].min()
        self._weights = balanced_weights(targets) if balance and imbalanced else None

    def plan(self, epoch: int) -> list[Array]:
        """Return the clips of each batch as indices."""
        batches = _least_batches(self._size, self._lengths.mean(), _MIN_CLIP_BATCHES)
        passes = _passes(len(self._clips), self._size, batches)
        return [
            batch
            for number in range(passes * epoch, passes * (epoch + 1))
            for batch in epoch_batches(
                self._lengths,
                self._size,
                seed=self._seed,
                epoch=number,
                weights=self._weights,
                most_steps=_MAX_CLIP_STEPS,
            )
        ]

    def window(self, index: int, rng: np.random.Generator) -> Window:
        """Cut and augment the window of a clip."""
        clip, length = self._clips[index], int(self._lengths[index])
        first = int(rng.integers(clip.frames - length + 1))
        features = self._loaded.features[clip.video]
        window = slice_window(
            features, first, length, labels=clip.labels, fold=clip.fold, source=_source(clip.video, first, length)
        )
        return self._augment(window, rng) if self._augment else window


class WindowBatches:
    """Batches of windows of recordings with timed events.

    Some windows are placed over events, each label equally often; some come from event-free recordings, because false
    alarms there are what a model has to unlearn; the others from anywhere whose label is known. The first steps of a
    window carry no loss: the recurrent state is not yet what the whole recording would have produced.

    Args:
        recordings: Recordings, at least one.
        loaded: Features of the recordings.
        size: Windows per batch.
        seed: Seed of positions and augmentation.
        balance: Place windows over events, and in event-free recordings, more often than at random.
        augment: Augmentation; None leaves windows unchanged.
        length: Steps per window, warm-up included.
        lookahead: Steps by which scores lag behind; windows are longer by as many.
    """

    def __init__(
        self,
        recordings: Sequence[TimedRecording],
        loaded: LoadedFeatures,
        *,
        size: int,
        seed: int,
        balance: bool,
        augment: Augmenter | None,
        length: int,
        lookahead: int,
    ) -> None:
        self._recordings, self._loaded, self._size, self._seed = recordings, loaded, size, seed
        self._balance, self._augment, self._lookahead, self._length = balance, augment, lookahead, length
        rows = [(index, *event) for index, recording in enumerate(recordings) for event in recording.events]
        self._events = np.array(rows, dtype=np.int64).reshape(-1, 4)  # recording, first, stop, label
        self._by_label = [self._events[self._events[:, 3] == label] for label in np.unique(self._events[:, 3])]
        self._warm_up = int(_WARM_UP * length)
        self._known = [np.flatnonzero(recording.weights) for recording in recordings]  # frames
        lengths = np.array([len(known) for known in self._known], dtype=np.float64)
        self._anywhere = lengths / lengths.sum()
        event_free = lengths * np.array([not len(recording.events) for recording in recordings])
        self._event_free = event_free / event_free.sum() if event_free.any() else None
        windows = max(lengths.sum() / (length - self._warm_up), len(self._events))
        self._count = max(int(np.ceil(windows / size)), _least_batches(size, length, _MIN_WINDOW_BATCHES))

    def plan(self, epoch: int) -> list[Array]:
        """Return the windows of each batch: recording and first step, int64 [size, 2]."""
        rng = np.random.default_rng((self._seed, epoch, 2))
        return [np.array([self._draw(rng) for _ in range(self._size)]) for _ in range(self._count)]

    def _draw(self, rng: np.random.Generator) -> tuple[int, int]:
        kind = rng.random()
        if self._balance and kind < _ON_EVENTS and len(self._events):
            events = self._by_label[rng.integers(len(self._by_label))]
            index, first, stop, _ = events[rng.integers(len(events))]
            # from "the last step is its first frame" to "the first step with a loss is its last frame"
            start = rng.integers(first - self._length + 1, stop - self._warm_up)
        else:
            event_free = self._balance and self._event_free is not None and kind < _ON_EVENTS + _EVENT_FREE
            index = rng.choice(len(self._recordings), p=self._event_free if event_free else self._anywhere)
            known = self._known[index]
            start = known[rng.integers(len(known))] - self._warm_up
            if len(known) < len(self._recordings[index]):  # a short known part may be anywhere in the window
                start -= rng.integers(self._length - self._warm_up)
        # a window that would start before its recording starts with it
        return int(index), max(int(start), 0)

    def window(self, position: Array, rng: np.random.Generator) -> Window:
        """Cut and augment the window at a position from `plan`."""
        index, start = (int(n) for n in position)
        recording = self._recordings[index]
        weights = recording.weights
        if start > 0:
            weights = weights.copy()
            weights[start : start + self._warm_up] = 0.0
        window = slice_window(
            self._loaded.features[recording.video],
            start,
            self._length + self._lookahead,
            recording.targets,
            weights,
            fold=recording.fold,
            source=_source(recording.video, start, self._length),
        )
        window = self._augment(window, rng) if self._augment else window
        assert window.weights is not None
        # The last steps would be scored after the window's end, which is not the recording's. Weights are shares of
        # the nominal length, so that the loss of a window does not depend on the padding of its batch.
        scored = np.arange(len(window)) < len(window) - self._lookahead
        return replace(window, weights=window.weights * scored / np.float32(self._length))


class CaptionBatches:
    """Batches of clips and events with descriptions, each with one of its sentences.

    Args:
        clips: Captioned clips, at least one.
        loaded: Features of their recordings.
        tokenizer: Tokenizer of the sentences.
        size: Clips per batch.
        seed: Seed of order and augmentation.
        augment: Augmentation; None leaves clips unchanged.
    """

    def __init__(
        self,
        clips: Sequence[CaptionedClip],
        loaded: LoadedFeatures,
        tokenizer: Tokenizer,
        *,
        size: int,
        seed: int,
        augment: Augmenter | None,
    ) -> None:
        self._clips, self._loaded, self._tokenizer = clips, loaded, tokenizer
        self._size, self._seed, self._augment = size, seed, augment

    def plan(self, epoch: int) -> list[Array]:
        """Return the clips of each batch as indices."""
        lengths = [len(clip) for clip in self._clips]
        passes = min(_passes(len(lengths), self._size, _MIN_CAPTION_BATCHES), _MAX_PASSES)
        batches: list[Array] = []
        for number in range(passes * epoch, passes * (epoch + 1)):
            batches += epoch_batches(lengths, self._size, seed=self._seed, epoch=number, most_steps=_MAX_CAPTION_STEPS)
        return batches

    def window(self, index: int, rng: np.random.Generator) -> Window:
        """Cut and augment the window of a clip, with one of its sentences."""
        clip = self._clips[index]
        features = self._loaded.features[clip.video]
        first, stop = clip.first, clip.stop
        if clip.timed and self._augment:
            low, high = (int(n) for n in np.rint((2 * rng.random(2) - 1) * _SHIFT * len(clip)))
            first = min(max(first + low, 0), len(features) - 1)
            stop = min(max(stop + high, first + 1), len(features))
        sentence = clip.sentences[int(rng.integers(len(clip.sentences)))]
        label = None if rng.random() < _LABEL_DROP else clip.label
        window = slice_window(
            features,
            first,
            stop - first,
            words=sentence_words(self._tokenizer, sentence, label),
            fold=clip.fold,
            source=_source(clip.video, first, stop - first),
        )
        return self._augment(window, rng) if self._augment else window


class EpochBatches:
    """All batches of an epoch: clips, windows and captions in one random order.

    Args:
        clips, windows, captions: Batches of each kind; None for a kind without examples.
        seed: Seed of order and augmentation.
        rank, size: Number of this process and of all: they make each batch together.

    Attributes:
        windows: As given.
    """

    def __init__(
        self,
        *,
        clips: ClipBatches | None = None,
        windows: WindowBatches | None = None,
        captions: CaptionBatches | None = None,
        seed: int,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        self.windows = windows
        self._sources = [source for source in (clips, windows, captions) if source]
        self._seed, self._rank, self._size = seed, rank, size

    def __call__(self, epoch: int) -> Iterator[tuple[Batch | None, int]]:
        """Yield this process's share of each batch, None if it has none, and the batch's size over all processes."""
        planned = [(source, batch) for source in self._sources for batch in source.plan(epoch)]
        rng = np.random.default_rng((self._seed, epoch, 3))  # the last number keeps streams of random numbers apart
        for number in rng.permutation(len(planned)).tolist():
            source, batch = planned[number]
            # a generator per window: it looks the same whichever process makes it
            windows = [
                source.window(batch[i], np.random.default_rng((self._seed, epoch, 1, number, i)))
                for i in range(self._rank, len(batch), self._size)
            ]
            yield (collate(windows) if windows else None), len(batch)


def make_batches(
    train: Examples,
    loaded: LoadedFeatures,
    model: EventModel,
    config: TrainConfig,
    *,
    rank: int = 0,
    size: int = 1,
) -> EpochBatches:
    """Return the batches of a train split.

    Args:
        train: Training examples.
        loaded: Features of their recordings.
        model: The model to train. Captions are left out if it writes none.
        config: Training settings.
        rank, size: Number of this process and of all.
    """
    # each member learns from all windows of a batch but those of its own fold
    members = model.network.members
    per_batch = math.ceil(config.batch * members / (members - 1)) if members > 1 else config.batch
    captioned = [clip for clip in train.captions if members == 1 or clip.fold != 0]  # the first member writes captions
    augment = Augmenter(loaded.feature_spec, model.labels, config.mirror) if config.augment else None
    clips = windows = captions = None
    if train.clips:
        clips = ClipBatches(
            train.clips,
            loaded,
            len(model.labels),
            size=per_batch,
            seed=config.seed,
            balance=config.balance,
            augment=augment,
        )
    if train.recordings:
        windows = WindowBatches(
            train.recordings,
            loaded,
            size=per_batch,
            seed=config.seed,
            balance=config.balance,
            augment=augment,
            length=window_steps(train.recordings, config.window, config.detector.fps),
            lookahead=model.lookahead,
        )
    if captioned and model.caption:
        captions = CaptionBatches(
            captioned, loaded, model.caption.tokenizer, size=config.batch, seed=config.seed, augment=augment
        )
    return EpochBatches(clips=clips, windows=windows, captions=captions, seed=config.seed, rank=rank, size=size)


def typical_steps(train: Examples, task: EventTask, config: TrainConfig) -> int:
    """Typical length in frames of what the model is trained on: of clips, else of windows, else of captioned clips."""
    if train.clips:
        return typical_clip_steps(train.clips, len(task.labels))
    if train.recordings:
        return window_steps(train.recordings, config.window, config.detector.fps)
    return max(int(np.median([len(clip) for clip in train.captions])), 2)


def typical_clip_steps(clips: Sequence[LabelledClip], labels: int) -> int:
    """Median length in frames of clips with an event (of all, if none has one), at least 2."""
    lengths = [clip.frames for clip in clips if clip.labels[:labels].any()] or [clip.frames for clip in clips]
    return max(int(np.median(lengths)), 2)


def window_steps(recordings: Sequence[TimedRecording], seconds: float, fps: float) -> int:
    """Steps of a window: of so many seconds, or for 0 as many as hold three long events."""
    if steps := round(seconds * fps):
        return steps
    lengths = np.concatenate([recording.events[:, 1] - recording.events[:, 0] for recording in recordings])
    long_event = float(np.quantile(lengths, 0.9)) if len(lengths) else 0.0
    return round(float(np.clip(_EVENTS_PER_WINDOW * long_event, _MIN_WINDOW_S * fps, _MAX_WINDOW_S * fps)))


def sentence_words(tokenizer: Tokenizer, sentence: str, label: int | None) -> Array:
    """A sentence as the caption head reads and writes it: its label or START, its words, END: int64 [W]."""
    first = Tokenizer.START if label is None else len(tokenizer) + label
    return np.array([first, *tokenizer.encode(sentence), Tokenizer.END], np.int64)


def _least_batches(size: int, length: float, most: int) -> int:
    """Return how many batches of `size` examples an epoch has at least, the fewer the longer the examples are."""
    return min(max(int(_REPEATED_STEPS / (size * length)), _REPEATED_BATCHES), most)


def _passes(examples: int, size: int, batches: int) -> int:
    """Return how often an epoch passes over the examples to have about this many batches, at least once."""
    return max(round(batches * size / examples), 1)


def _source(video: str, first: int, length: int) -> str:
    return f"{video}, samples {first} to {first + length}"
