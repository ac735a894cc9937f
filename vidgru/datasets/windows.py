"""Windows: slices of recordings for training, padded and collated into batches.

One function slices features, targets and mask, so that they cannot drift apart: step `t` of a window is always frame
`start + t` of the recording, and the mask is False where the recording has no such frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidgru.types import Array, Features

_POOL = 16  # batches whose clips are sorted by length together: less padding, still random enough


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """A slice of a recording of `L` steps, whatever the length of the recording.

    Attributes:
        objects: float32 [m, F], features of the objects of all steps.
        offsets: int64 [L + 1], first object of each step.
        frame: float32 [L, G], frame features, zero where padded.
        mask: bool [L], False where padded.
        targets: float32 [L, K], targets per step, zero where padded; None if there are none.
        weights: float32 [L], loss weight per step, 0 where padded; None without targets.
        labels: float32 [C], labels of the whole clip; None if there are none.
        words: int64 [W], token ids of a caption; None if there is none.
        fold: The member that does not learn from it; -1 if all do.
        source: Where it was cut from, for messages.
    """

    objects: Array
    offsets: Array
    frame: Array
    mask: Array
    targets: Array | None = None
    weights: Array | None = None
    labels: Array | None = None
    words: Array | None = None
    fold: int = -1
    source: str = ""

    def __len__(self) -> int:
        """Number of steps, L, padding included."""
        return len(self.mask)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """`B` windows, padded to the longest (`T`). Objects are not padded.

    Attributes:
        objects: float32 [M, F], features of the objects of all frames, window after window.
        counts: int64 [B, T], objects per frame, 0 where padded.
        frame: float32 [B, T, G], zero where padded.
        mask: bool [B, T], True where there is a frame.
        targets: float32 [B, T, K], targets per step; None if the windows have none.
        weights: float32 [B, T], loss weight per step; None if the windows have none.
        labels: float32 [B, C], labels per clip; None if the windows have none.
        words: int64 [B, W], token ids of a caption each, padded with -1; None if the windows have none.
        folds: int64 [B], the member that does not learn from each window, or -1.
        sources: Where each window was cut from, for messages.
    """

    objects: Tensor
    counts: Tensor
    frame: Tensor
    mask: Tensor
    targets: Tensor | None = None
    weights: Tensor | None = None
    labels: Tensor | None = None
    words: Tensor | None = None
    folds: Tensor | None = None
    sources: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of windows, B."""
        return len(self.mask)

    def __repr__(self) -> str:
        shapes = [f"{f.name}={list(v.shape)}" for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)]
        return f"Batch({', '.join(shapes)}, {self.mask.device})"

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device."""
        tensors: dict[str, Any] = {
            f.name: v.to(device) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)
        }
        return replace(self, **tensors)


def slice_window(
    features: Features,
    start: int,
    length: int,
    targets: Array | None = None,
    weights: Array | None = None,
    *,
    labels: Array | None = None,
    words: Array | None = None,
    fold: int = -1,
    source: str = "",
) -> Window:
    """Cut a window: step t is frame `start + t` of the recording, or padding.

    Args:
        features: Features of the recording, T frames.
        start: First frame; negative for padding in front.
        length: Steps of the window, at least 1.
        targets: [T, K], targets per frame of the recording.
        weights: [T], loss weight per frame.
        labels: [C], labels of the whole clip, passed through.
        words: [W], token ids of a caption, passed through.
        fold: The member that does not learn from it, passed through.
        source: Where it is cut from, for messages.

    Returns:
        A window of exactly `length` steps. Without padding its arrays are views of the recording's.

    Raises:
        ValueError: `length` is below 1, or targets or weights do not have T rows.
    """
    frames = len(features)
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    for name, rows in (("targets", targets), ("weights", weights)):
        if rows is not None and len(rows) != frames:
            raise ValueError(f"{name} must have a row for each of the {frames} frames, got {list(rows.shape)}")
    first = min(max(start, 0), frames)
    stop = max(min(start + length, frames), first)
    # `before` is at most `length`: a window entirely outside the recording is all padding.
    before = min(max(-start, 0), length)
    after = length - before - (stop - first)
    low, high = int(features.offsets[first]), int(features.offsets[stop])
    offsets = features.offsets[first : stop + 1] - low
    return Window(
        objects=features.objects[low:high],
        offsets=np.pad(offsets, (before, after), mode="edge") if before or after else offsets,
        frame=_pad_rows(features.frame[first:stop], before, after),
        mask=_pad_rows(np.ones(stop - first, dtype=bool), before, after),
        targets=None if targets is None else _pad_rows(targets[first:stop], before, after),
        weights=None if weights is None else _pad_rows(weights[first:stop], before, after),
        labels=labels,
        words=words,
        fold=fold,
        source=source,
    )


def collate(windows: Sequence[Window]) -> Batch:
    """Collate windows of any lengths into one batch, padded at the end so that no step moves.

    Args:
        windows: At least one; all with the same F, G and C.

    Raises:
        ValueError: There are no windows, or only some have targets, weights, labels or words.
    """
    if not windows:
        raise ValueError("collate needs at least one window")
    for name in ("targets", "weights", "labels", "words"):
        if len({getattr(window, name) is None for window in windows}) > 1:
            raise ValueError(f"either all windows of a batch have {name} or none")
    size = len(windows)
    steps = max(1, *(len(window) for window in windows))
    counts = torch.zeros(size, steps, dtype=torch.int64)
    frame = torch.zeros(size, steps, windows[0].frame.shape[1])
    mask = torch.zeros(size, steps, dtype=torch.bool)
    for row, window in enumerate(windows):
        counts.numpy()[row, : len(window)] = np.diff(window.offsets)
        frame.numpy()[row, : len(window)] = window.frame
        mask.numpy()[row, : len(window)] = window.mask
    return Batch(
        objects=torch.from_numpy(np.concatenate([window.objects for window in windows])),
        counts=counts,
        frame=frame,
        mask=mask,
        targets=_stack_steps([w.targets for w in windows if w.targets is not None], steps),
        weights=_stack_steps([w.weights for w in windows if w.weights is not None], steps),
        folds=torch.tensor([window.fold for window in windows]),
        sources=tuple(window.source for window in windows),
        labels=_stack_labels([w.labels for w in windows if w.labels is not None]),
        words=_stack_words([w.words for w in windows if w.words is not None]),
    )


def balanced_weights(labels: Array) -> Array:
    """Return sampling weights by which every class, and "no event", is drawn equally often.

    A clip with several labels is weighted by its rarest.

    Args:
        labels: [n, C], above 0 where clip i has label c.

    Returns:
        float64 [n], with mean 1.
    """
    hot = np.asarray(labels) > 0
    hot = np.column_stack([hot, ~hot.any(axis=1)])
    per_class = 1.0 / np.maximum(hot.sum(axis=0), 1)
    weights = np.where(hot, per_class, 0.0).max(axis=1)
    balanced: Array = weights * (len(weights) / weights.sum())
    return balanced


def epoch_batches(
    lengths: Sequence[int] | Array,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    weights: Array | None = None,
    most_steps: int = 2**62,
) -> list[Array]:
    """Assign clips to the batches of an epoch; a pure function of its arguments, so that a resumed run agrees.

    Clips are shuffled, grouped with others of similar length, and the batches are shuffled. Every clip occurs once;
    with `weights`, clip i occurs `weights[i]` times, rounded up or down at random (systematic resampling, which keeps
    the proportions in every epoch, not only on average).

    Args:
        lengths: [n], steps per clip.
        batch_size: Clips per batch, at least 1; the last batch may be smaller.
        seed, epoch: Not negative.
        weights: [n], with mean 1, from `balanced_weights`.
        most_steps: Maximum steps per batch with padding; longer clips make smaller batches, of at least one clip.

    Returns:
        Batches of indices, int64.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    rng = np.random.default_rng((seed, epoch))
    steps = np.asarray(lengths)
    order = rng.permutation(len(steps))
    if weights is not None and len(order):
        edges = np.cumsum(np.asarray(weights, dtype=np.float64)[order])
        marks = (np.arange(len(order)) + rng.random()) * (edges[-1] / len(order))
        order = rng.permutation(order[np.searchsorted(edges, marks, side="right").clip(max=len(order) - 1)])
    batches: list[Array] = []
    pool = batch_size * _POOL
    for first in range(0, len(order), pool):
        chosen = order[first : first + pool]
        chosen = chosen[np.argsort(steps[chosen], kind="stable")]
        for i in range(0, len(chosen), batch_size):
            batch = chosen[i : i + batch_size]
            parts = -(-len(batch) // max(most_steps // max(int(steps[batch[-1]]), 1), 1))
            batches += np.array_split(batch, parts)
    return [batches[i] for i in rng.permutation(len(batches))]


def _pad_rows(rows: Array, before: int, after: int) -> Array:
    if not (before or after):
        return rows
    return np.pad(rows, ((before, after), *((0, 0) for _ in rows.shape[1:])))


def _stack_steps(targets: list[Array], steps: int) -> Tensor | None:
    if not targets:
        return None
    stacked = torch.zeros(len(targets), steps, *targets[0].shape[1:])
    for row, value in enumerate(targets):
        stacked.numpy()[row, : len(value)] = value
    return stacked


def _stack_labels(labels: list[Array]) -> Tensor | None:
    return torch.from_numpy(np.stack(labels).astype(np.float32)) if labels else None


def _stack_words(sentences: list[Array]) -> Tensor | None:
    if not sentences:
        return None
    tensors = [torch.from_numpy(sentence) for sentence in sentences]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=-1)
