"""Match predicted to true events and segments, within a recording and a label, one to one.

Overlaps and distances are rounded to 1e-9 before they are compared, so that 0.6 of an interval is at least 0.6
wherever in the recording it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vidgru.types import Annotation, Array, Event

BACKGROUND = -1  # label of frames without an event
_DIGITS = 9


@dataclass(frozen=True, kw_only=True, eq=False)
class EventTable:
    """Events as columns, sorted by recording, label, falling score, start, end, whatever order they were given in.

    Attributes:
        videos, labels: int64 [n], indices.
        spans_s: float64 [n, 2], start and end.
        scores: float64 [n]; 0 for true events.
        key: int64 [n], equal for events of the same recording and label, rising.
    """

    videos: Array
    labels: Array
    spans_s: Array
    scores: Array
    key: Array


def event_table(events: Iterable[Annotation | Event], videos: Sequence[str], labels: Sequence[str]) -> EventTable:
    """Events as columns. Annotations without a label are left out: they mark event-free recordings.

    Raises:
        ValueError: An event has no times, belongs to a recording not in `videos`, or has a label not in `labels`.
    """
    video_index = {name: i for i, name in enumerate(videos)}
    label_index = {name: i for i, name in enumerate(labels)}
    rows = []
    for event in events:
        if event.label is None:
            continue
        if event.video not in video_index:
            raise ValueError(f"an event belongs to {event.video!r}, which is not one of the {len(videos)} recordings")
        if event.label not in label_index:
            raise ValueError(f"{event.video}: label {event.label!r} is not one of {list(labels)}")
        if event.start_s is None or event.end_s is None:
            raise ValueError(f"{event.video}: {event.label!r} has no times; whole clips have metrics of their own")
        score = event.score if isinstance(event, Event) else 0.0
        rows.append((video_index[event.video], label_index[event.label], -score, event.start_s, event.end_s))
    columns = np.array(sorted(rows), dtype=np.float64).reshape(-1, 5)
    video, label = columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64)
    return EventTable(
        videos=video, labels=label, spans_s=columns[:, 3:], scores=-columns[:, 2], key=video * len(labels) + label
    )


# --- events -----------------------------------------------------------------------------------------------------------


def overlap(truth: Array, predicted: Array) -> Array:
    """Temporal intersection over union of intervals [n, 2] and [m, 2]: float64 [n, m]."""
    start = np.maximum(truth[:, None, 0], predicted[None, :, 0])
    end = np.minimum(truth[:, None, 1], predicted[None, :, 1])
    both = (end - start).clip(0)
    length = (truth[:, 1] - truth[:, 0])[:, None] + (predicted[:, 1] - predicted[:, 0])
    result: Array = np.round(both / (length - both), _DIGITS)
    return result


def negative_distance(truth: Array, predicted: Array) -> Array:
    """Minus the distance in seconds between the centres of intervals [n, 2] and [m, 2]: float64 [n, m]."""
    result: Array = -np.round(np.abs(truth.mean(axis=1)[:, None] - predicted.mean(axis=1)), _DIGITS)
    return result


def match_by_overlap(truth: EventTable, predicted: EventTable) -> tuple[Array, Array]:
    """Pair true and predicted events greedily by overlap, the largest first; scores play no part.

    The pairs at a threshold are the pairs of any lower one whose overlap reaches it, so one pass serves all thresholds.

    Returns:
        Overlap of each predicted event with the true event it is paired with, 0 if none; and with the true event that
        it overlaps most, paired or not. Both float64 [n].
    """
    paired, highest = np.zeros(len(predicted.key)), np.zeros(len(predicted.key))
    for true_rows, predicted_rows in _common_rows(truth, predicted):
        tiou = overlap(truth.spans_s[true_rows], predicted.spans_s[predicted_rows])
        highest[predicted_rows] = tiou.max(axis=0)
        rows, columns = np.nonzero(tiou)
        free_row, free_column = np.ones(tiou.shape[0], dtype=bool), np.ones(tiou.shape[1], dtype=bool)
        for pair in np.argsort(-tiou[rows, columns], kind="stable"):
            row, column = rows[pair], columns[pair]
            if free_row[row] and free_column[column]:
                free_row[row] = free_column[column] = False
                paired[predicted_rows.start + column] = tiou[row, column]
    return paired, highest


def match_by_score(truth: EventTable, predicted: EventTable, thresholds: Array, *, points: bool = False) -> Array:
    """Mark the correct predicted events: by falling score, each takes the best true event that is still free.

    With overlap this is the protocol of ActivityNet (`Evaluation/eval_detection.py`), with distance that of E2E-Spot
    (Hong et al., "Spotting Temporally Precise, Fine-Grained Events in Video", ECCV 2022; `util/score.py`).

    Args:
        truth: True events.
        predicted: Predicted events.
        thresholds: [K]; the smallest overlap, or with `points` the largest distance in seconds between centres.
        points: Whether events are points, the centres of their intervals.

    Returns:
        bool [K, n].
    """
    measure, smallest = (negative_distance, -thresholds) if points else (overlap, thresholds)
    correct = np.zeros((len(thresholds), len(predicted.key)), dtype=bool)
    for true_rows, predicted_rows in _common_rows(truth, predicted):
        similarity = measure(truth.spans_s[true_rows], predicted.spans_s[predicted_rows])
        free = np.ones((len(thresholds), len(similarity)), dtype=bool)
        for column in np.flatnonzero((similarity >= smallest.min()).any(axis=0)):
            candidates = np.where(free, similarity[:, column], -np.inf)
            best = candidates.argmax(axis=1)
            taken = np.flatnonzero(candidates.max(axis=1) >= smallest)
            free[taken, best[taken]] = False
            correct[taken, predicted_rows.start + column] = True
    return correct


def _common_rows(truth: EventTable, predicted: EventTable) -> Iterator[tuple[slice, slice]]:
    """Rows of both tables per recording and label that both have."""
    for key in np.intersect1d(truth.key, predicted.key):
        rows = [np.searchsorted(table.key, (key, key + 1)) for table in (truth, predicted)]
        yield slice(*map(int, rows[0])), slice(*map(int, rows[1]))


# --- segments ---------------------------------------------------------------------------------------------------------
# The measures of temporal action segmentation: Lea et al., "Temporal Convolutional Networks for Action Segmentation and
# Detection", CVPR 2017, as computed by MS-TCN (Abu Farha and Gall, CVPR 2019; `eval.py`). Background is no segment.


def frame_labels(spans_s: Array, labels: Array, time_s: Array) -> Array:
    """One label per frame: of the event that its time is in, the later started of two; BACKGROUND elsewhere.

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


def frame_segments(frames: Array) -> Array:
    """Runs of equal labels other than BACKGROUND: int64 [n, 3], label, first frame, frame after the last."""
    edges = np.flatnonzero(np.diff(frames, prepend=frames[:1] - 1, append=frames[-1:] - 1))
    runs = np.column_stack((frames[edges[:-1]], edges[:-1], edges[1:]))
    result: Array = runs[runs[:, 0] != BACKGROUND]
    return result


def segment_hits(truth: Array, predicted: Array, overlaps: Array) -> Array:
    """Number of correct predicted segments at each overlap: int64 [len(overlaps)].

    In order of time, each is correct if it overlaps the best true segment of its label by at least `overlaps` and no
    earlier one has taken that.

    Args:
        truth: int64 [n, 3], as returned by `frame_segments`.
        predicted: int64 [m, 3], likewise.
        overlaps: [K], intersection over union.
    """
    hits = np.zeros(len(overlaps), dtype=np.int64)
    if not len(truth):
        return hits
    taken = np.zeros((len(overlaps), len(truth)), dtype=bool)
    for label, first, stop in predicted:
        both = np.minimum(stop, truth[:, 2]) - np.maximum(first, truth[:, 1])
        whole = np.maximum(stop, truth[:, 2]) - np.minimum(first, truth[:, 1])
        iou = both / whole * (truth[:, 0] == label)
        best = iou.argmax()
        correct = (iou[best] >= overlaps) & ~taken[:, best]
        taken[correct, best] = True
        hits += correct
    return hits


def edit_score(truth: Array, predicted: Array) -> float:
    """1 minus the Levenshtein distance of two label strings, [n] and [m], over the longer one's length.

    Two empty strings are equal: 1.
    """
    if not len(truth) and not len(predicted):
        return 1.0
    columns = np.arange(len(truth) + 1)
    row = columns
    for number, label in enumerate(predicted, 1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (truth != label))
        row = np.append(number, changed)
        # runs of insertions: the minimum over everything to the left, plus the distance from there
        row = np.minimum.accumulate(row - columns) + columns
    return 1.0 - float(row[-1]) / max(len(truth), len(predicted))
