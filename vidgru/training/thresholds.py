"""Thresholds at which scores become events, fitted on validation clips and recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vidgru.model.checkpoint import HeadSpec
from vidgru.model.event_decoder import DecodeSettings, decode_events, smooth_scores
from vidgru.types import Array, Event

_GRID = np.linspace(0.1, 0.9, 33)
_USUAL = 0.5
_FEWEST = 5  # clips with a label and clips without it (events of a label), for a threshold of its own
_KEEP = 0.7  # the lower threshold is this share of the upper one
_SHORTEST, _NEAR = 0.25, 0.25  # of the training clips' length: shorter events go, nearer ones merge
_BRIEF, _CLOSE = 0.5, 0.5  # of what a short training event lasts: shorter events go, nearer ones merge
_SMOOTH_S = (0.0, 0.5, 1.0)
_KEEPS = (0.8, 0.5)
_TIOU = (0.3, 0.5, 0.7)
_BLUR = np.array([1.0, 2, 3, 2, 1]) / 9  # of the curve over thresholds: a plateau is worth more than a peak
_LEAN = 0.02  # how much of F1 is given up for a threshold near the usual one


def fit_clips(scores: Array, labels: Array, head: HeadSpec, number: int, window_s: float) -> DecodeSettings:
    """Decoding settings of a model of clips, from validation clips.

    Each label's threshold is the one with the best F1, the nearest to 0.5 of equals; without enough clips to tell,
    0.5. Where exactly one label holds at a time and "nothing" is none of them, the best label is always taken, however
    unsure.

    Args:
        scores: float32 [n, C], 0 to 1.
        labels: float32 [n, C].
        head: how labels are told.
        number: of labels.
        window_s: typical length of the training clips.
    """
    high = []
    for label in range(number):
        true = labels[:, label] > 0
        if not head.multi_label and not head.background:
            high.append(0.0)
        elif min(true.sum(), (~true).sum()) < _FEWEST:
            high.append(_USUAL)
        else:
            called = scores[:, label, None] >= _GRID
            f1 = 2 * (called & true[:, None]).sum(axis=0) / (called.sum(axis=0) + true.sum())
            best = _GRID[f1 == f1.max()]
            high.append(float(best[np.abs(best - _USUAL).argmin()]))
    return DecodeSettings(
        high=tuple(round(value, 4) for value in high),
        low=tuple(round(value * _KEEP, 4) for value in high),
        min_s=round(window_s * _SHORTEST, 3),
        merge_s=round(window_s * _NEAR, 3),
        exclusive=not head.multi_label,
    )


def fit_frames(
    times: Sequence[Array],
    scores: Sequence[Array],
    events: Sequence[Array],
    labels: tuple[str, ...],
    head: HeadSpec,
    step_s: float,
    brief_s: float,
) -> DecodeSettings:
    """Decoding settings of a model of timed events, from whole validation recordings.

    Smoothing and the share of the lower threshold are those with the best mean over labels of event F1 (one to one, at
    tIoU 0.3, 0.5 and 0.7), each label at its own best threshold; labels with few events share one. Without a single
    event thresholds are 0.5.

    Args:
        times: float64 [T] of each recording.
        scores: float32 [T, K] of each.
        events: int64 [E, 3] of each: first frame, the one after the last, label.
        labels: names.
        head: how labels are told.
        step_s: seconds between samples.
        brief_s: what a short training event lasts.
    """
    base = DecodeSettings(
        high=(_USUAL,) * len(labels),
        low=(_USUAL * _KEEPS[0],) * len(labels),
        min_s=round(_BRIEF * brief_s, 3),
        merge_s=round(_CLOSE * brief_s, 3),
        exclusive=not head.multi_label,
    )
    if not any(len(some) for some in events):
        return base
    truth = [_seconds(time_s, some, step_s) for time_s, some in zip(times, events, strict=True)]
    support = np.bincount(np.concatenate([some[:, 2] for some in events]), minlength=len(labels))
    lean = _LEAN * (1 - np.abs(_GRID - _USUAL))
    best, settings = -1.0, base
    for smooth_s in _SMOOTH_S:
        smoothed = [smooth_scores(time_s, some, smooth_s) for time_s, some in zip(times, scores, strict=True)]
        for keep in _KEEPS:
            counts = np.zeros((len(_GRID), len(labels), 2))
            for row, high in enumerate(_GRID):
                tried = replace(base, high=(high,) * len(labels), low=(high * keep,) * len(labels))
                for time_s, some, true in zip(times, smoothed, truth, strict=True):
                    end_s = float(time_s[-1]) + step_s
                    found = decode_events(time_s, some, labels, tried, video="", step_s=step_s, end_s=end_s)
                    counts[row] += _count(found, true, labels)
            few = support < _FEWEST
            counts[:, few] = counts[:, few].sum(axis=1, keepdims=True)
            total = np.where(few, support[few].sum(), support)
            f1 = 2 * counts[..., 0] / np.maximum(counts[..., 1] + total, 1e-9)
            padded = np.pad(f1, ((2, 2), (0, 0)), mode="edge")
            f1 = sum(weight * padded[at : at + len(f1)] for at, weight in enumerate(_BLUR)) + lean[:, None]
            mean = float(f1.max(axis=0)[support > 0].mean()) if support.any() else 0.0
            if mean > best + 1e-9:
                best = mean
                high = [round(float(value), 4) for value in _GRID[f1.argmax(axis=0)]]
                low = tuple(round(value * keep, 4) for value in high)
                settings = replace(base, high=tuple(high), low=low, smooth_s=smooth_s)
    return settings


def _seconds(time_s: Array, events: Array, step_s: float) -> Array:
    """Start, end and label of events given by frames: float64 [E, 3]."""
    ends = np.append(time_s[1:], time_s[-1] + step_s)
    return np.column_stack([time_s[events[:, 0]], ends[events[:, 1] - 1], events[:, 2]])


def _count(found: list[Event], true: Array, labels: tuple[str, ...]) -> Array:
    """Hits, as a mean over the least overlaps, and events found, of each label: float64 [C, 2]."""
    counts = np.zeros((len(labels), 2))
    for index, label in enumerate(labels):
        spans = np.array([(event.start_s, event.end_s) for event in found if event.label == label]).reshape(-1, 2)
        counts[index, 1] = len(spans)
        some = true[true[:, 2] == index]
        common = np.minimum(spans[:, None, 1], some[:, 1]) - np.maximum(spans[:, None, 0], some[:, 0])
        joint = np.maximum(spans[:, None, 1], some[:, 1]) - np.minimum(spans[:, None, 0], some[:, 0])
        tiou = common / joint
        while tiou.size and (most := tiou.max()) >= min(_TIOU):  # one to one, the largest overlap first
            counts[index, 0] += sum(most >= least for least in _TIOU) / len(_TIOU)
            one, two = np.unravel_index(tiou.argmax(), tiou.shape)
            tiou[one], tiou[:, two] = -1, -1
    return counts
