"""Recordings as one label a frame, and how well their segments were told.

The measures of temporal action segmentation: Lea et al., "Temporal Convolutional Networks for Action Segmentation and
Detection", CVPR 2017, as computed by MS-TCN (Abu Farha and Gall, CVPR 2019; `eval.py`). Background is no segment.
"""

from __future__ import annotations

import numpy as np

from vidgru.types import Array

BACKGROUND = -1


def frame_labels(spans_s: Array, labels: Array, time_s: Array) -> Array:
    """One label for each frame whose time is within an event, the later started of two, and BACKGROUND elsewhere.

    Args:
        spans_s: float64 [n, 2], start and end of events.
        labels: int64 [n], from 0.
        time_s: float64 [T], rising.

    Returns:
        int64 [T].
    """
    frames = np.full(len(time_s), BACKGROUND)
    first, stop = np.searchsorted(time_s, spans_s.T)
    for event in np.lexsort((labels, spans_s[:, 1], spans_s[:, 0])):
        frames[first[event] : stop[event]] = labels[event]
    return frames


def segments(frames: Array) -> Array:
    """Stretches of equal labels other than BACKGROUND: int64 [n, 3], label, first frame, frame after the last."""
    edges = np.flatnonzero(np.diff(frames, prepend=frames[:1] - 1, append=frames[-1:] - 1))
    runs = np.column_stack((frames[edges[:-1]], edges[:-1], edges[1:]))
    result: Array = runs[runs[:, 0] != BACKGROUND]
    return result


def segment_hits(truth: Array, found: Array, overlaps: Array) -> Array:
    """How many found segments are right at each overlap: int64 [len(overlaps)].

    In order of time, each is right if the true segment of its label that it overlaps most is so by at least `overlaps`
    and not yet told.

    Args:
        truth, found: int64 [n, 3] and [m, 3], as `segments` gives them.
        overlaps: [K], intersection over union.
    """
    hits = np.zeros(len(overlaps), dtype=np.int64)
    if not len(truth):
        return hits
    told = np.zeros((len(overlaps), len(truth)), dtype=bool)
    for label, first, stop in found:
        both = np.minimum(stop, truth[:, 2]) - np.maximum(first, truth[:, 1])
        whole = np.maximum(stop, truth[:, 2]) - np.minimum(first, truth[:, 1])
        iou = both / whole * (truth[:, 0] == label)
        best = iou.argmax()
        right = (iou[best] >= overlaps) & ~told[:, best]
        told[right, best] = True
        hits += right
    return hits


def edit_score(truth: Array, found: Array) -> float:
    """1 less the Levenshtein distance of two strings of labels, [n] and [m], over the longer one's length.

    Two empty strings are equal: 1.
    """
    if not len(truth) and not len(found):
        return 1.0
    columns = np.arange(len(truth) + 1)
    row = columns
    for number, label in enumerate(found, 1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (truth != label))
        row = np.append(number, changed)
        # a run of insertions: the least of what is to the left, plus the way from there
        row = np.minimum.accumulate(row - columns) + columns
    return 1.0 - float(row[-1]) / max(len(truth), len(found))
