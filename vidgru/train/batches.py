"""The batches of each epoch, a pure function of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Many

import numpy as np

from vidgru.datasets.windows import Batch, Window, balanced_weights, collate, epoch_batches, slice_window
from vidgru.train.augment import Augmenter
from vidgru.train.data import LabelledClip, Loaded, Task

_UNEVEN = 1.5  # classes this much larger than others are drawn less often


class ClipBatches:
    """Training clips in batches.

    A clip in which nothing happens is often a long recording: of it, a stretch as long as other clips are is shown,
    another one in each epoch.

    Args:
        clips: at least one.
        loaded: their features.
        task: decides the labels.
        size: clips a batch.
        seed: of the order and of the changes.
        balance: draw clips of rare labels more often.
        augment: change clips.

    Attributes:
        steps: typical length of a clip in which something happens, in frames.
    """

    def __init__(
        self,
        clips: Many[LabelledClip],
        loaded: Loaded,
        task: Task,
        *,
        size: int,
        seed: int,
        balance: bool,
        augment: bool,
    ) -> None:
        self._clips, self._loaded, self._size, self._seed = clips, loaded, size, seed
        labels = np.stack([clip.labels for clip in clips])
        happens = labels[:, : len(task.labels)].any(axis=1)
        lengths = np.array([len(clip) for clip in clips])
        self.steps = int(np.median(lengths[happens] if happens.any() else lengths))
        self._lengths = np.where(happens, lengths, np.minimum(lengths, max(self.steps, 2)))
        self._augment = Augmenter(loaded.layout, task.labels) if augment else None
        counts = labels.sum(axis=0)
        uneven = counts.max() > _UNEVEN * counts[counts > 0].min()
        self._weights = balanced_weights(labels) if balance and uneven else None
        self.count = len(epoch_batches(self._lengths, size, seed=seed, epoch=0, weights=self._weights))

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch."""
        rng = np.random.default_rng((self._seed, epoch, 1))  # the last number keeps it apart from the order's
        for chosen in epoch_batches(self._lengths, self._size, seed=self._seed, epoch=epoch, weights=self._weights):
            yield collate([self._window(index, rng) for index in chosen])

    def _window(self, index: int, rng: np.random.Generator) -> Window:
        clip, length = self._clips[index], int(self._lengths[index])
        first = clip.first + int(rng.integers(len(clip) - length + 1))
        window = slice_window(self._loaded.features[clip.video], first, length, labels=clip.labels)
        return self._augment(window, rng) if self._augment else window
