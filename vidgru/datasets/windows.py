"""Windows: what one training step sees of a recording, cut, padded and put into batches.

Features, targets and mask are sliced by one function, so that they cannot drift apart: step `t` of a window is always
frame `start + t` of the recording, and where the recording has no such frame the mask is False.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidgru.types import Array, Features

_POOL = 16  # batches whose clips are sorted by length together: less padding, and the order stays random enough


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """A slice of a recording, `L` steps long whatever the recording's length.

    Attributes:
        objects: float32 [m, F], the objects of all steps.
        offsets: int64 [L + 1], first object of each step.
        frame: float32 [L, G], zero where padded.
        mask: bool [L], False where padded.
        targets: float32 [L, K], per step, zero where padded; None if there are none.
        weights: float32 [L], how much the targets of each step count, 0 where padded; None if there are no targets.
        labels: float32 [C], of the clip as a whole; None if there are none.
        words: int64 [W], a sentence on it, as the decoder reads and writes it; None if there is none.
        source: where it was cut from, for messages.
    """

    objects: Array
    offsets: Array
    frame: Array
    mask: Array
    targets: Array | None = None
    weights: Array | None = None
    labels: Array | None = None
    words: Array | None = None
    source: str = ""

    def __len__(self) -> int:
        """Number of steps, L, padding included."""
        return len(self.mask)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """`B` windows side by side, padded to the longest (`T`). Objects are not padded.

    Attributes:
        objects: float32 [M, F], the objects of all frames, window after window.
        counts: int64 [B, T], objects of each frame, 0 where padded.
        frame: float32 [B, T, G], zero where padded.
        mask: bool [B, T], True where there is a frame.
        targets: float32 [B, T, K], per step; None if the windows have none.
        weights: float32 [B, T], how much each step's targets count; None if the windows have none.
        labels: float32 [B, C], per clip; None if the windows have none.
        words: int64 [B, W], a sentence on each, -1 behind its end; None if the windows have none.
        sources: where each window was cut from, for messages.
    """

    objects: Tensor
    counts: Tensor
    frame: Tensor
    mask: Tensor
    targets: Tensor | None = None
    weights: Tensor | None = None
    labels: Tensor | None = None
    words: Tensor | None = None
    sources: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of windows, B."""
        return len(self.mask)

    def __repr__(self) -> str:
        shapes = [f"{f.name}={list(v.shape)}" for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)]
        return f"Batch({', '.join(shapes)}, {self.mask.device})"

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        tensors: dict[str, Any] = {
            f.name: v.to(device) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)
        }
        return replace(self, **tensors)


def frames_between(time_s: Array, start_s: float, end_s: float) -> tuple[int, int]:
    """Frames of the interval [start_s, end_s) as a slice [first, stop).

    An interval that falls between two samples gets the one nearest to its middle, so that a short clip is never empty.

    Args:
        time_s: float64 [T], strictly increasing.
        start_s, end_s: seconds.
    """
    first, stop = (int(n) for n in np.searchsorted(time_s, (start_s, end_s), side="left"))
    if first == stop and len(time_s):
        first = int(np.abs(time_s - (start_s + end_s) / 2).argmin())
        stop = first + 1
    return first, stop


def slice_window(
    features: Features,
    start: int,
    length: int,
    targets: Array | None = None,
    weights: Array | None = None,
    *,
    labels: Array | None = None,
    words: Array | None = None,
    source: str = "",
) -> Window:
    """Steps `start` to `start + length` of a recording; step t of the result is frame `start + t`, or padding.

    Args:
        features: the recording, T frames.
        start: first frame; negative means padding in front.
        length: steps of the window, at least 1.
        targets: [T, K], one row a frame of the recording.
        weights: [T], how much each frame's targets count.
        labels: [C], of the clip as a whole, taken as they are.
        words: [W], a sentence on it, likewise.
        source: where it is cut from, for messages.

    Returns:
        A window of exactly `length` steps. Where no padding is needed its arrays are views of the recording's.

    Raises:
        ValueError: length below 1, or targets or weights that do not have T rows.
    """
    frames = len(features)
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    for name, rows in (("targets", targets), ("weights", weights)):
        if rows is not None and len(rows) != frames:
            raise ValueError(f"{name} must have a row for each of the {frames} frames, got {list(rows.shape)}")
    first = min(max(start, 0), frames)
    stop = max(min(start + length, frames), first)
    # `before` is bounded by the length: a window that lies wholly outside the recording is all padding
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
        source=source,
    )


def collate(windows: Sequence[Window]) -> Batch:
    """Windows of any lengths as one padded batch. Padding goes behind, so that no step moves.

    Args:
        windows: at least one; all with the same F, G and C.

    Raises:
        ValueError: no windows, or some with targets, weights, labels or words and some without.
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
        sources=tuple(window.source for window in windows),
        labels=_stack_labels([w.labels for w in windows if w.labels is not None]),
        words=_stack_words([w.words for w in windows if w.words is not None]),
    )


def balanced_weights(labels: Array) -> Array:
    """How often to draw each clip so that every class, and no event at all, is drawn equally often.

    A clip with several labels counts by its rarest.

    Args:
        labels: [n, C], above 0 where clip i has label c.

    Returns:
        float64 [n], mean 1.
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
    """Which clips make up each batch of an epoch: a pure function of its arguments, so that a resumed run agrees.

    Clips are shuffled, then put with others of similar length, then the batches are shuffled. Every clip comes once;
    with `weights`, clip i comes `weights[i]` times, rounded up or down at random (systematic resampling: its share
    is as asked in every epoch, not only on average).

    Args:
        lengths: [n], steps of each clip.
        batch_size: clips a batch, at least 1; the last one made may be smaller.
        seed, epoch: not negative.
        weights: [n], mean 1, as `balanced_weights` makes them.
        most_steps: of a batch, padding included; longer clips make smaller batches, of one at least.

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
