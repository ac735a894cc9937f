"""Thresholds at which scores become events, fitted on validation clips."""

from __future__ import annotations

import numpy as np

from vidgru.model.decode import DecodeSettings
from vidgru.train.data import Task
from vidgru.types import Array

_GRID = np.linspace(0.2, 0.8, 25)
_USUAL = 0.5
_FEWEST = 5  # clips with a label and clips without it, for a threshold of its own
_KEEP = 0.7  # the lower threshold is this share of the upper one
_SHORTEST, _NEAR = 0.25, 0.25  # of the training clips' length: shorter events go, nearer ones merge


def fit_decoding(scores: Array, labels: Array, task: Task, window_s: float) -> DecodeSettings:
    """Decoding settings from validation clips.

    Each label's threshold is the one with the best F1, the nearest to 0.5 of equals; without enough clips to tell,
    0.5. Where exactly one label holds at a time and "nothing" is none of them, the best label is always taken, however
    unsure.

    Args:
        scores: float32 [n, C], 0 to 1.
        labels: float32 [n, C].
        task: what is told apart.
        window_s: typical length of the training clips.
    """
    high = []
    for label in range(len(task.labels)):
        true = labels[:, label] > 0
        if not task.multi_label and not task.background:
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
        exclusive=not task.multi_label,
    )
