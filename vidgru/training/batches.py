"""The batches of each epoch, a pure function of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from vidgru.datasets.windows import Batch, Window, balanced_weights, collate, epoch_batches, slice_window
from vidgru.training.augment import Augmenter
from vidgru.training.data import LabelledClip, Loaded, TimedRecording
from vidgru.types import Array

_MOST_STEPS = 40_000  # of a batch of clips, padding included: clips of an hour come one by one
_UNEVEN = 1.5  # classes this much larger than others are drawn less often
_FEWEST = 16  # batches of windows an epoch at least: a small set is passed over several times
_ON_EVENTS = 0.5  # of the windows are laid over an event, of each label equally often
_EVENTLESS = 0.2  # of the windows are from recordings in which nothing happens, where there are such
_WARM = 0.25  # of a window's steps carry no loss, unless the recording begins with it
_SHORTEST_S, _LONGEST_S, _EVENTS = 8.0, 60.0, 3.0  # a window holds so many long events, within these bounds


class ClipBatches:
    """Training clips in batches.

    A clip in which nothing happens is often a long recording: of it, a stretch as long as other clips are is shown,
    another one in each epoch.

    Args:
        clips: at least one.
        loaded: their features.
        happens: number of labels; an output behind them says that nothing happens.
        size: clips a batch.
        seed: of the order and of the changes.
        balance: draw clips of rare labels more often.
        augment: changes clips; None leaves them.

    Attributes:
        steps: typical length of a clip in which something happens, in frames.
    """

    def __init__(
        self,
        clips: Sequence[LabelledClip],
        loaded: Loaded,
        happens: int,
        *,
        size: int,
        seed: int,
        balance: bool,
        augment: Augmenter | None,
    ) -> None:
        self._clips, self._loaded, self._size, self._seed, self._augment = clips, loaded, size, seed, augment
        labels = np.stack([clip.labels for clip in clips])
        happening = labels[:, :happens].any(axis=1)
        lengths = np.array([clip.frames for clip in clips])
        self.steps = int(np.median(lengths[happening] if happening.any() else lengths))
        self._lengths = np.where(happening, lengths, np.minimum(lengths, max(self.steps, 2)))
        counts = labels.sum(axis=0)
        uneven = counts.max() > _UNEVEN * counts[counts > 0].min()
        self._weights = balanced_weights(labels) if balance and uneven else None

    def plan(self, epoch: int) -> list[Array]:
        """Which clips make up each batch: indices."""
        return epoch_batches(
            self._lengths,
            self._size,
            seed=self._seed,
            epoch=epoch,
            weights=self._weights,
            most_steps=_MOST_STEPS,
        )

    def window(self, index: int, rng: np.random.Generator) -> Window:
        """What is shown of a clip."""
        clip, length = self._clips[index], int(self._lengths[index])
        first = int(rng.integers(clip.frames - length + 1))
        features = self._loaded.features[clip.video]
        window = slice_window(features, first, length, labels=clip.labels, source=_source(clip.video, first, length))
        return self._augment(window, rng) if self._augment else window


class WindowBatches:
    """Windows of recordings with timed events, in batches.

    Part of the windows are laid over events, each label equally often; part are from recordings in which nothing
    happens: what is taken for an event there is what a model has to unlearn; the others from anywhere. The first
    steps of a window carry no loss, for the state behind them is not what a whole recording would have led to.

    Args:
        recordings: at least one.
        loaded: their features.
        size: windows a batch.
        seed: of the places and of the changes.
        balance: lay windows over events, and over eventless recordings, more often than chance would.
        augment: changes windows; None leaves them.
        length: steps of a window, warm-up included; 0 chooses by the events.
        lookahead: steps by which scores lag behind: a window is longer by as many.
        fps: samples a second.
    """

    def __init__(
        self,
        recordings: Sequence[TimedRecording],
        loaded: Loaded,
        *,
        size: int,
        seed: int,
        balance: bool,
        augment: Augmenter | None,
        length: int,
        lookahead: int,
        fps: float,
    ) -> None:
        self._recordings, self._loaded, self._size, self._seed = recordings, loaded, size, seed
        self._balance, self._augment, self._lag = balance, augment, lookahead
        found = [(index, *event) for index, recording in enumerate(recordings) for event in recording.events]
        self._events = np.array(found, dtype=np.int64).reshape(-1, 4)  # recording, first, stop, label
        self._by_label = [self._events[self._events[:, 3] == label] for label in np.unique(self._events[:, 3])]
        self.length = length or _window_steps(self._events[:, 2] - self._events[:, 1], fps)
        self._warm = int(_WARM * self.length)
        lengths = np.array([len(recording) for recording in recordings], dtype=np.float64)
        self._anywhere = lengths / lengths.sum()
        quiet = lengths * np.array([not len(recording.events) for recording in recordings])
        self._quiet = quiet / quiet.sum() if quiet.any() else None
        windows = max(lengths.sum() / (self.length - self._warm), len(self._events))
        self._count = max(int(np.ceil(windows / size)), _FEWEST)

    def plan(self, epoch: int) -> list[Array]:
        """Which windows make up each batch: recording and first step, int64 [size, 2]."""
        rng = np.random.default_rng((self._seed, epoch, 2))
        return [np.array([self._place(rng) for _ in range(self._size)]) for _ in range(self._count)]

    def _place(self, rng: np.random.Generator) -> tuple[int, int]:
        kind = rng.random()
        if self._balance and kind < _ON_EVENTS and len(self._events):
            some = self._by_label[rng.integers(len(self._by_label))]
            index, first, stop, _ = some[rng.integers(len(some))]
            # anywhere from its first frame being the last step to its last one being the first step with a loss
            start = rng.integers(first - self.length + 1, stop - self._warm)
        else:
            eventless = self._balance and self._quiet is not None and kind < _ON_EVENTS + _EVENTLESS
            index = rng.choice(len(self._recordings), p=self._quiet if eventless else self._anywhere)
            start = rng.integers(-self._warm, max(len(self._recordings[index]) - self._warm, 1 - self._warm))
        # a window that would begin before the recording begins with it
        return int(index), max(int(start), 0)

    def window(self, place: Array, rng: np.random.Generator) -> Window:
        """What is shown of a recording."""
        index, start = (int(n) for n in place)
        recording = self._recordings[index]
        weights = recording.weights
        if start > 0:
            weights = weights.copy()
            weights[start : start + self._warm] = 0.0
        window = slice_window(
            self._loaded.features[recording.video],
            start,
            self.length + self._lag,
            recording.targets,
            weights,
            source=_source(recording.video, start, self.length),
        )
        window = self._augment(window, rng) if self._augment else window
        assert window.weights is not None
        # What the last steps show would be scored behind the window's end, which is not the recording's. Weights are
        # shares of the usual length: a window's loss does not depend on how its batch is padded.
        settled = np.arange(len(window)) < len(window) - self._lag
        return replace(window, weights=window.weights * settled / np.float32(self.length))

    def class_weights(self) -> Array:
        """How much each class of frames counts, by how rare it is: float32 [K], mean 1 over what targets ask for.

        The square root of the inverse share: halfway between counting frames and counting classes alike.
        """
        counts = np.sum([r.targets[r.weights > 0].sum(axis=0) for r in self._recordings], axis=0)
        shares = counts / max(counts.sum(), 1)
        weights = np.sqrt(1 / np.maximum(shares, 1e-3)) * (counts > 0)
        balanced: Array = (weights / max((weights * shares).sum(), 1e-6)).astype(np.float32)
        return balanced


class Part(Protocol):
    """Batches of one kind: `plan` tells which windows make up each of an epoch, `window` makes one."""

    def plan(self, epoch: int) -> list[Array]: ...  # noqa: D102

    def window(self, place: Any, rng: np.random.Generator, /) -> Window: ...  # noqa: D102


class Batches:
    """All batches of an epoch: those of clips, of timed events and of descriptions in one random order.

    Args:
        parts: one of each kind, or of one kind.
        seed: of the order and of the changes.
        share: which part of each batch is made, as a slice's start and step: processes that train together make one
            batch between them.
    """

    def __init__(self, parts: Sequence[Part], seed: int, share: tuple[int, int] = (0, 1)) -> None:
        self._parts, self._seed, self._share = parts, seed, share

    def __call__(self, epoch: int) -> Iterator[tuple[Batch | None, int]]:
        """The batches of an epoch, and how many windows each has in all processes; None where this one has no share."""
        planned = [(part, chosen) for part in self._parts for chosen in part.plan(epoch)]
        rng = np.random.default_rng((self._seed, epoch, 3))  # the last number keeps draws apart from one another
        order = rng.permutation(len(planned)).tolist()
        for number in order:
            part, chosen = planned[number]
            yield self._make(part, chosen, epoch, number)

    def _make(self, part: Part, chosen: Array, epoch: int, number: int) -> tuple[Batch | None, int]:
        first, step = self._share
        # a generator a window: it looks the same whichever process makes it
        windows = [
            part.window(chosen[i], np.random.default_rng((self._seed, epoch, 1, number, i)))
            for i in range(first, len(chosen), step)
        ]
        return (collate(windows) if windows else None), len(chosen)


def _window_steps(lengths: Array, fps: float) -> int:
    """Steps of a window for events of these lengths, in frames."""
    long = float(np.quantile(lengths, 0.9)) if len(lengths) else 0.0
    return round(float(np.clip(_EVENTS * long, _SHORTEST_S * fps, _LONGEST_S * fps)))


def _source(video: str, first: int, length: int) -> str:
    return f"{video}, samples {first} to {first + length}"
