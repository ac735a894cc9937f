"""What fits into a page: byte budgets of its parts; curves and objects are thinned, selected and quantised to fit.

Also which moments a page explains, because explaining all of them would take too long.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vidgru.model.attribution import MOMENT_S, event_frames
from vidgru.model.checkpoint import EventModel
from vidgru.model.event_decoder import smooth_scores
from vidgru.model.stream import ScoredRecording
from vidgru.types import Array, Event, FrameSequence

# Bytes of a page's parts; with the code, the whole stays under 20 MB.
EVENT_BYTES = 3_000_000
CURVE_BYTES = 3_000_000
OBJECT_BYTES = 7_000_000
FRAME_SCORE_BYTES = 3_000_000  # of frames' scores that are not thinned, from which other thresholds find events
PICTURE_BYTES = 3_000_000
MOMENT_BYTES = 300_000

MAX_POINTS = 4000  # per curve
MAX_STILL_SPANS = 2000  # more cannot be distinguished on a screen
MARGIN_S = 1.0  # before and after an event, in which objects are kept
FEW_FRAMES = 4000  # shorter recordings keep the objects of all frames: why was an event missed?
_MAX_PEAKS = 16  # peaks of scores that are explained although they are no events
_PEAK_DISTANCE_S = 2.0
_MIN_PEAK = 0.2  # share of the threshold
_EVENLY_SPACED = 24  # further moments that are explained
_FIRST_S = 30.0  # of each event come before the rest of any, so that one of hours does not use up the budget
_FRAME_BYTES = 4 + 2 + 1
_OBJECT_BYTES = 4 * 2 + 4 + 2 + 1 + 1


# --- curves ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class ThinnedCurves:
    """C curves over n buckets of consecutive frames, with values in steps of 1/255.

    Attributes:
        time_ms: uint32 [n], middle of each bucket.
        low, high: uint8 [C, n], minimum and maximum per bucket; the same array if every bucket is one frame.
    """

    time_ms: Array
    low: Array
    high: Array

    @property
    def is_thinned(self) -> bool:
        """Whether a bucket may hold several frames."""
        return self.low is not self.high


def bucket_starts(frames: int, is_near: Array, max_points: int = MAX_POINTS) -> Array:
    """First frame of each bucket: int64 [n], increasing from 0.

    A curve has two points per bucket, its minimum and its maximum, or one if every bucket is one frame. At least three
    quarters of the buckets are near events, where people look closely, so they are short there.

    Args:
        frames: Number of frames, T.
        is_near: bool [T], frames near events.
        max_points: Points per curve.
    """
    if frames <= max_points:
        return np.arange(frames)
    buckets, near = max_points // 2, int(is_near.sum())
    near_buckets = min(near, max(buckets * 3 // 4, buckets * near // frames))
    weight = np.where(is_near, near_buckets / max(near, 1), (buckets - near_buckets) / max(frames - near, 1))
    bucket = np.floor(np.cumsum(np.minimum(weight, 1.0)) - 1e-6).astype(np.int64)
    return np.flatnonzero(np.diff(bucket, prepend=-1))


def thin(time_s: Array, values: Array, starts: Array) -> ThinnedCurves:
    """Reduce each curve to its minimum and maximum per bucket, so that no peak is lost.

    Args:
        time_s: float64 [T].
        values: float32 [T, C], 0 to 1.
        starts: int64 [n], from `bucket_starts`.
    """
    ends = np.append(starts, len(time_s))[1:] - 1
    middle_ms = np.round((time_s[starts] + time_s[ends]) * 500).astype(np.uint32)
    if len(starts) == len(time_s):
        exact = np.ascontiguousarray(_quantise(values).T)
        return ThinnedCurves(time_ms=middle_ms, low=exact, high=exact)
    low, high = (extreme.reduceat(values, starts, axis=0) for extreme in (np.minimum, np.maximum))
    return ThinnedCurves(
        time_ms=middle_ms,
        low=np.ascontiguousarray(_quantise(low).T),
        high=np.ascontiguousarray(_quantise(high).T),
    )


# --- still stretches ------------------------------------------------------------------------------------------------


def still_spans(time_s: Array, still: Array, end_s: float, max_spans: int = MAX_STILL_SPANS) -> Array:
    """Start and end of each still stretch in milliseconds: uint32 [n, 2], increasing.

    Args:
        time_s: float64 [T].
        still: bool [T].
        end_s: End of the recording.
        max_spans: Maximum of n; the shortest gaps between stretches are then left out.
    """
    if not still.any():
        return np.zeros((0, 2), np.uint32)
    edges = np.flatnonzero(np.diff(still, prepend=False, append=False))
    spans = np.append(time_s, max(end_s, time_s[-1]))[edges].reshape(-1, 2)
    is_kept = np.ones(len(spans) - 1, bool)  # the gap after each span but the last
    is_kept[np.argsort(spans[:-1, 1] - spans[1:, 0], kind="stable")[max_spans - 1 :]] = False
    starts, ends = spans[np.append(True, is_kept), 0], spans[np.append(is_kept, True), 1]
    joined: Array = np.round(np.column_stack([starts, ends]) * 1000).astype(np.uint32)
    return joined


# --- objects --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantisedObjects:
    """The M objects of the F frames that a page keeps.

    Attributes:
        time_ms: uint32 [F], increasing.
        joined: uint8 [F], 1 if the frame follows the one before it in the recording too.
        counts: uint16 [F], objects per frame.
        boxes: uint16 [M, 4], xyxy, 0 to 65535 over the upright frame.
        tracks: int32 [M], -1 if not tracked.
        classes: int16 [M].
        scores, attention: uint8 [M], 0 to 255 for 0 to 1.
    """

    time_ms: Array
    joined: Array
    counts: Array
    boxes: Array
    tracks: Array
    classes: Array
    scores: Array
    attention: Array


_PER_OBJECT = ("boxes", "tracks", "classes", "scores", "attention")
_EMPTY: dict[str, Array] = {
    "frame": np.zeros(0, np.int64),
    "time_ms": np.zeros(0, np.uint32),
    "counts": np.zeros(0, np.int64),
    "boxes": np.zeros((0, 4), np.uint16),
    "tracks": np.zeros(0, np.int32),
    "classes": np.zeros(0, np.int16),
    "scores": np.zeros(0, np.uint8),
    "attention": np.zeros(0, np.uint8),
}


def frame_ranks(time_s: Array, events: Sequence[Event]) -> Array:
    """Rank frames by how important their objects are: int64 [T], best first from 0; -1 for frames to leave out.

    The first half minute of each event and its surroundings comes first, best scored event first, then the rest of
    longer events. Frames away from events come last in a recording of up to `FEW_FRAMES`, and are left out of longer.
    """
    best = sorted(events, key=lambda event: -event.score)
    ranks = np.full(len(time_s), 2 * len(best) if len(time_s) <= FEW_FRAMES else -1, np.int64)
    whole = [(event.start_s - MARGIN_S, event.end_s + MARGIN_S) for event in best]
    beginnings = [(start, min(end, start + _FIRST_S + MARGIN_S)) for start, end in whole]
    for first_rank, spans in ((len(best), whole), (0, beginnings)):
        bounds = np.searchsorted(time_s, np.array(spans).reshape(-1, 2))
        for number in range(len(best) - 1, -1, -1):  # the best event last, because it overwrites the others
            ranks[bounds[number, 0] : bounds[number, 1]] = first_rank + number
    return ranks


def select_objects(
    parts: Iterable[FrameSequence], attention: Array, ranks: Array, budget_bytes: int
) -> QuantisedObjects:
    """Take the objects of frames in the order of their ranks, until the budget is used up.

    Args:
        parts: Consecutive parts of the frame sequence.
        attention: float32 [all objects], share of each in its frame's attention.
        ranks: int64 [all frames], from `frame_ranks`.
        budget_bytes: Size of all arrays together.
    """
    pieces: list[dict[str, Array]] = []
    first_frame, first_row = 0, 0
    for part in parts:
        is_ranked = ranks[first_frame : first_frame + len(part)] >= 0
        counts = np.diff(part.offsets)
        rows = np.flatnonzero(np.repeat(is_ranked, counts))
        pieces.append(
            {
                "frame": first_frame + np.flatnonzero(is_ranked),
                "time_ms": np.round(part.time_s[is_ranked] * 1000).astype(np.uint32),
                "counts": counts[is_ranked],
                "boxes": np.round(np.clip(part.boxes[rows], 0, 1) * 65535).astype(np.uint16),
                "tracks": part.tracks[rows],
                "classes": part.classes[rows],
                "scores": _quantise(part.scores[rows].astype(np.float32)),
                "attention": _quantise(attention[first_row + rows]),
            }
        )
        first_frame, first_row = first_frame + len(part), first_row + len(part.boxes)
    ranked = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]} if pieces else _EMPTY

    order = np.argsort(ranks[ranked["frame"]], kind="stable")  # by rank, then by time
    cost = np.cumsum(_FRAME_BYTES + ranked["counts"][order] * _OBJECT_BYTES)
    fits = np.zeros(len(order), bool)
    fits[order[: np.searchsorted(cost, budget_bytes, side="right")]] = True
    rows_fit = np.repeat(fits, ranked["counts"])
    kept = {name: values[rows_fit if name in _PER_OBJECT else fits] for name, values in ranked.items()}
    return QuantisedObjects(
        joined=(np.diff(kept["frame"], prepend=-2) == 1).astype(np.uint8),
        counts=kept["counts"].astype(np.uint16),
        **{name: kept[name] for name in ("time_ms", *_PER_OBJECT)},
    )


def kept_shares(events: Sequence[Event], objects: QuantisedObjects, time_s: Array) -> Array:
    """Share of each event's frames that were kept: float64 [E]; 1 for an event between two frames."""
    is_kept = np.isin(np.round(time_s * 1000).astype(np.uint32), objects.time_ms)
    kept_before = np.concatenate([[0], np.cumsum(is_kept)])
    spans = np.array([(event.start_s, event.end_s) for event in events]).reshape(-1, 2)
    first, stop = np.searchsorted(time_s, spans).T
    kept = kept_before[stop] - kept_before[first]
    shares: Array = np.where(stop > first, kept / np.maximum(stop - first, 1), 1.0)
    return shares


def _quantise(values: Array) -> Array:
    """Map 0 to 1 to uint8."""
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)


# --- moments --------------------------------------------------------------------------------------------------------


def choose_moments(model: EventModel, scored: ScoredRecording) -> list[float]:
    """Choose the times that a page explains besides the events: peaks of scores, and evenly spaced times.

    Peaks are those nearest to a threshold, or above it but outside the events of the label, for example because they
    are too short. There are at most 40 times, however long the recording is.

    Returns:
        Increasing times in seconds, in steps of 0.1, as the page shows them.
    """
    time_s = scored.time_s
    if not len(time_s):
        return []
    smoothed = smooth_scores(time_s, scored.scores, model.decode.smooth_s)
    high = np.array(model.decode.high)
    shares = np.where(high > 0, smoothed / np.maximum(high, 1e-6), 0.0)  # a threshold of 0 makes nothing a peak
    for event in scored.events:
        shares[event_frames(time_s, event.start_s, event.end_s), model.labels.index(event.label)] = 0.0
    highest = shares.max(axis=1)
    times: list[float] = []
    for index in np.argsort(-highest, kind="stable").tolist():
        if len(times) == _MAX_PEAKS or highest[index] < _MIN_PEAK:
            break
        if all(abs(time_s[index] - peak_s) >= _PEAK_DISTANCE_S for peak_s in times):
            times.append(float(time_s[index]))
    step_s = max(float(time_s[-1]) / _EVENLY_SPACED, MOMENT_S)
    evenly = np.arange(step_s / 2, time_s[-1], step_s).tolist()
    times += [at_s for at_s in evenly if all(abs(at_s - peak_s) >= MOMENT_S / 2 for peak_s in times)]
    return sorted({math.floor(at_s * 10) / 10 for at_s in times})
