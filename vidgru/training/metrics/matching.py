"""Which found event stands for which true one: within a recording and a label, one to one.

Overlaps and distances are rounded to 1e-9 before they are compared, so that 0.6 of an interval is at least 0.6
wherever in the recording it lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vidgru.types import Annotation, Array, Event

_DIGITS = 9


@dataclass(frozen=True, kw_only=True, eq=False)
class EventTable:
    """Events as columns, by recording, label, falling score, start, end: however they were given.

    Attributes:
        videos, labels: int64 [n], indices.
        spans_s: float64 [n, 2], start and end.
        scores: float64 [n]; 0 for true events.
        key: int64 [n], the same for events of the same recording and label, rising.
    """

    videos: Array
    labels: Array
    spans_s: Array
    scores: Array
    key: Array


def event_table(events: Iterable[Annotation | Event], videos: Sequence[str], labels: Sequence[str]) -> EventTable:
    """Columns of events. Annotations without a label are left out: they say that nothing happens.

    Raises:
        ValueError: an event without times, of a recording that is not in `videos`, or with a label not in `labels`.
    """
    video_of = {name: i for i, name in enumerate(videos)}
    label_of = {name: i for i, name in enumerate(labels)}
    rows = []
    for event in events:
        if event.label is None:
            continue
        if event.video not in video_of:
            raise ValueError(f"an event is of {event.video!r}, which is not among the {len(videos)} recordings judged")
        if event.label not in label_of:
            raise ValueError(f"{event.video}: label {event.label!r} is not among {list(labels)}")
        if event.start_s is None or event.end_s is None:
            raise ValueError(f"{event.video}: {event.label!r} has no times; labels of whole clips are judged elsewhere")
        score = event.score if isinstance(event, Event) else 0.0
        rows.append((video_of[event.video], label_of[event.label], -score, event.start_s, event.end_s))
    columns = np.array(sorted(rows), dtype=np.float64).reshape(-1, 5)
    video, label = columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64)
    return EventTable(
        videos=video, labels=label, spans_s=columns[:, 3:], scores=-columns[:, 2], key=video * len(labels) + label
    )


def overlap(truth: Array, found: Array) -> Array:
    """Temporal intersection over union of intervals [n, 2] and [m, 2]: float64 [n, m]."""
    start = np.maximum(truth[:, None, 0], found[None, :, 0])
    end = np.minimum(truth[:, None, 1], found[None, :, 1])
    both = (end - start).clip(0)
    length = (truth[:, 1] - truth[:, 0])[:, None] + (found[:, 1] - found[:, 0])
    result: Array = np.round(both / (length - both), _DIGITS)
    return result


def nearness(truth: Array, found: Array) -> Array:
    """Minus the distance between the centres of intervals [n, 2] and [m, 2], in seconds: float64 [n, m]."""
    result: Array = -np.round(np.abs(truth.mean(axis=1)[:, None] - found.mean(axis=1)), _DIGITS)
    return result


def match_by_overlap(truth: EventTable, found: EventTable) -> tuple[Array, Array]:
    """Pairs of true and found events, those that overlap most first: scores play no part.

    The pairs at a threshold are those of a lower one whose overlap reaches it, so that one pass serves all.

    Returns:
        overlap of each found event with the true one it stands for, 0 if none; and with the true event that it
        overlaps most, taken or not. Both float64 [n].
    """
    paired, most = np.zeros(len(found.key)), np.zeros(len(found.key))
    for true_rows, found_rows in _shared(truth, found):
        tiou = overlap(truth.spans_s[true_rows], found.spans_s[found_rows])
        most[found_rows] = tiou.max(axis=0)
        rows, columns = np.nonzero(tiou)
        free_row, free_column = np.ones(tiou.shape[0], dtype=bool), np.ones(tiou.shape[1], dtype=bool)
        for pair in np.argsort(-tiou[rows, columns], kind="stable"):
            row, column = rows[pair], columns[pair]
            if free_row[row] and free_column[column]:
                free_row[row] = free_column[column] = False
                paired[found_rows.start + column] = tiou[row, column]
    return paired, most


def match_by_score(truth: EventTable, found: EventTable, thresholds: Array, *, points: bool = False) -> Array:
    """Which found events are right: by falling score, each takes the best true event that is still free.

    With overlap this is the protocol of ActivityNet (`Evaluation/eval_detection.py`), with distance that of E2E-Spot
    (Hong et al., "Spotting Temporally Precise, Fine-Grained Events in Video", ECCV 2022; `util/score.py`).

    Args:
        truth, found: events.
        thresholds: [K]; the least overlap, or with `points` the greatest distance in seconds between centres.
        points: whether events are points, the centres of their intervals.

    Returns:
        bool [K, n].
    """
    measure, least = (nearness, -thresholds) if points else (overlap, thresholds)
    right = np.zeros((len(thresholds), len(found.key)), dtype=bool)
    for true_rows, found_rows in _shared(truth, found):
        alike = measure(truth.spans_s[true_rows], found.spans_s[found_rows])
        free = np.ones((len(thresholds), len(alike)), dtype=bool)
        for column in np.flatnonzero((alike >= least.min()).any(axis=0)):
            open_to = np.where(free, alike[:, column], -np.inf)
            best = open_to.argmax(axis=1)
            taken = np.flatnonzero(open_to.max(axis=1) >= least)
            free[taken, best[taken]] = False
            right[taken, found_rows.start + column] = True
    return right


def _shared(truth: EventTable, found: EventTable) -> Iterator[tuple[slice, slice]]:
    """Rows of both tables that are of one recording and label."""
    for key in np.intersect1d(truth.key, found.key):
        rows = [np.searchsorted(table.key, (key, key + 1)) for table in (truth, found)]
        yield slice(*map(int, rows[0])), slice(*map(int, rows[1]))
