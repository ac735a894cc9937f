"""Metrics of timed events. Plain values out: every result can be written as JSON.

Metrics are sums over recordings, or ratios of such sums, so each is computed over weighted recordings and the
bootstrap evaluates all resamples at once. Matching never crosses recordings: it is done once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidgru.training.metrics.matching import (
    BACKGROUND,
    EventTable,
    edit_score,
    event_table,
    frame_labels,
    frame_segments,
    match_by_overlap,
    match_by_score,
    segment_hits,
)
from vidgru.training.metrics.ranking import (
    RankedEvents,
    RankedFrames,
    draw_recordings,
    interval,
    ratio,
    ratio_or_nan,
)
from vidgru.types import Annotation, Array, Event

_TIOU = np.array([30, 40, *range(50, 100, 5)]) / 100
_ACTIVITYNET = _TIOU >= 0.5
_THUMOS = np.isin(_TIOU, (0.3, 0.4, 0.5, 0.6, 0.7))
_HALF = int(np.flatnonzero(_TIOU == 0.5)[0])
_F1_TIOU = np.array([0.5, 0.3, 0.7])  # the first is the headline
_SEGMENT_IOU = np.array([0.10, 0.25, 0.50])
# SoccerNet's tolerances are widths of a window around the truth (5 to 60 s, 1 to 5 s); these are distances
_LOOSE_S, _TIGHT_S = np.arange(5, 61, 5) / 2, np.arange(1, 6) / 2
_CHUNK = 2_000_000  # weights per chunk of resamples: 16 MB per array

_Statistics = Callable[[Array], dict[str, Array]]  # weights float64 [R, V] -> metrics [R] by name, NaN if undefined


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameScores:
    """Scores of every evaluated frame of a recording.

    Attributes:
        time_s: float64 [T], strictly increasing.
        scores: float32 [T, C], or [T, C + 1] with a last column for "nothing", which is not evaluated.
        duration_s: Evaluated seconds of the recording.
    """

    time_s: Array
    scores: Array
    duration_s: float


def event_metrics(
    truth: Sequence[Annotation],
    predicted: Sequence[Event],
    candidates: Sequence[Event],
    frames: Mapping[str, FrameScores],
    labels: Sequence[str],
    *,
    exclusive: bool,
    half_width_s: float | None = None,
    intervals: bool = True,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute metrics of timed events.

    Args:
        truth: True events. Rows without a label are left out: they mark event-free recordings.
        predicted: Events at the model's thresholds.
        candidates: Events for average precision: `predicted`, and weaker ones below the thresholds.
        frames: Frame scores of every evaluated recording, event-free ones included.
        labels: C names.
        exclusive: Whether labels exclude each other; adds the metrics of segmentation.
        half_width_s: If true events are points, half the interval each was expanded to; adds the metrics of spotting.
        intervals: Whether to compute bootstrap intervals, over recordings.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        - videos, hours (evaluated), events (true), found (predicted);
        - map: mean over tIoU 0.5:0.05:0.95 of the mean over labels of average precision (ActivityNet's protocol);
          map_thumos: the same over 0.3:0.1:0.7; map_30, map_40, map_50, map_55 ... map_95: at each;
        - frame_map: mean over labels of the average precision of frame scores, over all frames of all recordings;
        - event_f1, event_precision, event_recall: over all labels, at tIoU 0.5, one to one; event_f1_30, event_f1_70;
          event_macro_f1: the mean over labels at 0.5;
        - false_alarms_per_hour: predicted events that overlap no true event of their label;
        - if exclusive, segment_f1_10, segment_f1_25, segment_f1_50, edit, frame_accuracy: of predicted events mapped
          to frames; as in MS-TCN, but 0 to 1;
        - if points, spotting_map: centres at most `half_width_s` apart, as in E2E-Spot; spotting_map_tight and
          spotting_map_loose: means over SoccerNet's tolerances of 1 to 5 s and 5 to 60 s, which allow half as much
          to either side;
        - per_class {label: {ap_50, ap, precision, recall, f1 (at 0.5), support, frame_ap}}, and spotting_ap if points;
        - absent: labels without a true event, left out of means over labels;
        - intervals {metric: [low, high]}: 95 % percentile bootstrap over recordings; None with fewer than two.
          Recordings drawn twice raise interpolated precision by chance: with few recordings, intervals of map lean
          upwards. That of frame_map counts frames in 200 steps of recall.

        None stands for undefined; as for clips, undefined precision and f1 of a label are 0.

    Raises:
        ValueError: Events without times, or of other recordings or labels; shapes that do not match; scores that are
            not finite; two labels with the same name.
    """
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"labels must be at least one, and differ, got {list(labels)}")
    videos = sorted(frames)
    for video in videos:
        _check(video, frames[video], len(labels))
    true, found, ranked = (event_table(events, videos, labels) for events in (truth, predicted, candidates))
    hours = np.array([frames[video].duration_s for video in videos]) / 3600
    once = np.ones((1, len(videos)))
    support = _count(true, videos, labels)

    detections = _rank(ranked, match_by_score(true, ranked, _TIOU), support)
    counts = _EventCounts(true, found, support, _count(found, videos, labels))
    by_frame = _rank_frames(true, frames, videos, labels)
    parts: list[_Statistics] = [
        lambda weights: _detection_metrics(detections, weights),
        lambda weights: {"frame_map": _macro(np.stack([f.average_precision(weights) for f in by_frame], axis=1))},
        lambda weights: counts.metrics(weights, hours),
    ]
    if exclusive:
        parts.append(_segmentation(true, found, [frames[video].time_s for video in videos]))
    spots: list[RankedEvents] = []
    if half_width_s is not None:
        tolerances = np.concatenate(([half_width_s], _TIGHT_S, _LOOSE_S))
        spots = _rank(ranked, match_by_score(true, ranked, tolerances, points=True), support)
        parts.append(lambda weights: _spotting_metrics(spots, weights))

    def metrics(weights: Array) -> dict[str, Array]:
        return {name: values for part in parts for name, values in part(weights).items()}

    whole = {name: _plain(values[0]) for name, values in metrics(once).items()}
    whole["frame_map"] = _plain(_macro(np.array([[ranking.exact for ranking in by_frame]]))[0])
    result: dict[str, Any] = {
        "videos": len(videos),
        "hours": float(hours.sum()),
        "events": len(true.key),
        "found": len(found.key),
        **whole,
        "per_class": counts.per_class(labels),
        "absent": [label for label, number in zip(labels, support.sum(axis=0), strict=True) if not number],
    }
    for c, row in enumerate(result["per_class"].values()):
        ap = detections[c].average_precision(once)[0]
        row["ap"], row["ap_50"] = _plain(ap[_ACTIVITYNET].mean()), _plain(ap[_HALF])
        row["frame_ap"] = _plain(by_frame[c].exact)
        if spots:
            row["spotting_ap"] = _plain(spots[c].average_precision(once)[0, 0])
    if intervals:
        result["intervals"] = dict.fromkeys(whole)
        if len(videos) > 1:
            weights = draw_recordings(len(videos), resamples=resamples, seed=seed)
            chunks = np.array_split(weights, math.ceil(resamples * max(1, len(ranked.key)) / _CHUNK))
            drawn = [metrics(chunk) for chunk in chunks]
            result["intervals"] = {name: interval(np.concatenate([part[name] for part in drawn])) for name in whole}
    return result


def event_curves(
    truth: Sequence[Annotation], candidates: Sequence[Event], videos: Sequence[str], labels: Sequence[str]
) -> dict[str, tuple[Array, Array]]:
    """Recall and interpolated precision at tIoU 0.5 of each label that has true events: float64 [points] each.

    Curves start at recall 0.

    Args:
        truth, candidates, labels: As for `event_metrics`.
        videos: The evaluated recordings.
    """
    true, ranked = event_table(truth, videos, labels), event_table(candidates, videos, labels)
    support = _count(true, videos, labels)
    rankings = _rank(ranked, match_by_score(true, ranked, _TIOU[[_HALF]]), support)
    curves = {label: ranking.curve(0) for label, ranking in zip(labels, rankings, strict=True)}
    return {label: curve for label, curve in curves.items() if len(curve[0])}


def worst_first(
    truth: Sequence[Annotation], predicted: Sequence[Event], videos: Sequence[str], labels: Sequence[str]
) -> list[tuple[str, float | None, int]]:
    """Sort recordings from the worst predicted: lowest event F1 at tIoU 0.5, then most false alarms, then by name.

    Returns:
        (recording, F1, false alarms); F1 is None where there is neither a true nor a predicted event, as it should be.
    """
    true, found = event_table(truth, videos, labels), event_table(predicted, videos, labels)
    counts = _EventCounts(true, found, _count(true, videos, labels), _count(found, videos, labels))
    f1, false = counts.by_video()
    rows = [(video, _plain(value), int(number)) for video, value, number in zip(videos, f1, false, strict=True)]
    return sorted(rows, key=lambda row: (1.0 if row[1] is None else row[1], -row[2], row[0]))


class _EventCounts:
    """Event counts by recording and label: true, predicted, and correct at each overlap of `_F1_TIOU`."""

    def __init__(self, true: EventTable, found: EventTable, support: Array, predicted: Array) -> None:
        paired, highest = match_by_overlap(true, found)
        self._support, self._predicted = support, predicted
        hits = [np.bincount(found.key[paired >= tiou], minlength=support.size) for tiou in _F1_TIOU]
        self._hits = np.stack(hits).reshape(len(hits), *support.shape).astype(np.float64)
        self._false = np.bincount(found.videos[highest == 0], minlength=len(support))

    def metrics(self, weights: Array, hours: Array) -> dict[str, Array]:
        # hits [tIoU, R, C], support and predicted [R, C]
        hits, support, predicted = weights @ self._hits, weights @ self._support, weights @ self._predicted
        all_hits, all_true, all_predicted = hits.sum(axis=-1), support.sum(axis=-1), predicted.sum(axis=-1)
        f1 = ratio_or_nan(2 * all_hits, all_true + all_predicted)
        per_label = np.where(support > 0, ratio(2 * hits[0], support + predicted), np.nan)
        return {
            "event_f1": f1[0],
            "event_precision": ratio_or_nan(all_hits[0], all_predicted),
            "event_recall": ratio_or_nan(all_hits[0], all_true),
            "event_f1_30": f1[1],
            "event_f1_70": f1[2],
            "event_macro_f1": _macro(per_label),
            "false_alarms_per_hour": ratio_or_nan(weights @ self._false, weights @ hours),
        }

    def per_class(self, labels: Sequence[str]) -> dict[str, dict[str, Any]]:
        hits, support, predicted = self._hits[0].sum(axis=0), self._support.sum(axis=0), self._predicted.sum(axis=0)
        precision, recall = ratio(hits, predicted), ratio_or_nan(hits, support)
        f1 = ratio(2 * hits, support + predicted)
        return {
            label: {
                "precision": float(precision[c]),
                "recall": _plain(recall[c]),
                "f1": float(f1[c]),
                "support": int(support[c]),
            }
            for c, label in enumerate(labels)
        }

    def by_video(self) -> tuple[Array, Array]:
        """F1 [V], NaN where there is neither a true nor a predicted event; and false alarms [V]."""
        events = (self._support + self._predicted).sum(axis=1)
        return ratio_or_nan(2 * self._hits[0].sum(axis=1), events), self._false


def _detection_metrics(rankings: Sequence[RankedEvents], weights: Array) -> dict[str, Array]:
    ap = np.stack([ranking.average_precision(weights) for ranking in rankings], axis=1)  # [R, C, K]
    at = _macro(ap)
    each = {f"map_{round(100 * tiou)}": at[:, k] for k, tiou in enumerate(_TIOU)}
    return {"map": at[:, _ACTIVITYNET].mean(axis=1), "map_thumos": at[:, _THUMOS].mean(axis=1), **each}


def _spotting_metrics(rankings: Sequence[RankedEvents], weights: Array) -> dict[str, Array]:
    at = _macro(np.stack([ranking.average_precision(weights) for ranking in rankings], axis=1))
    tight, loose = at[:, 1 : 1 + len(_TIGHT_S)], at[:, 1 + len(_TIGHT_S) :]
    return {
        "spotting_map": at[:, 0],
        "spotting_map_tight": tight.mean(axis=1),
        "spotting_map_loose": loose.mean(axis=1),
    }


def _segmentation(true: EventTable, found: EventTable, times: Sequence[Array]) -> _Statistics:
    """Metrics of one label per frame, from counts per recording [V, ...]."""
    hits = np.zeros((len(times), len(_SEGMENT_IOU)))
    segments, edit, correct = np.zeros(len(times)), np.zeros(len(times)), np.zeros(len(times))
    for v, time_s in enumerate(times):
        true_frames, found_frames = (
            frame_labels(table.spans_s[table.videos == v], table.labels[table.videos == v], time_s)
            for table in (true, found)
        )
        true_segments, found_segments = frame_segments(true_frames), frame_segments(found_frames)
        hits[v] = segment_hits(true_segments, found_segments, _SEGMENT_IOU)
        segments[v] = len(true_segments) + len(found_segments)
        edit[v] = edit_score(true_segments[:, 0], found_segments[:, 0])
        correct[v] = (true_frames == found_frames).sum()
    lengths = np.array([len(time_s) for time_s in times])

    def metrics(weights: Array) -> dict[str, Array]:
        f1 = ratio_or_nan(2 * (weights @ hits).T, weights @ segments)
        names = [f"segment_f1_{round(100 * iou)}" for iou in _SEGMENT_IOU]
        return {
            **dict(zip(names, f1, strict=True)),
            "edit": ratio_or_nan(weights @ edit, weights.sum(axis=1)),
            "frame_accuracy": ratio_or_nan(weights @ correct, weights @ lengths),
        }

    return metrics


def _rank(ranked: EventTable, correct: Array, support: Array) -> list[RankedEvents]:
    """One ranking per label; correct is bool [K, n], support [V, C]."""
    rankings = []
    for c in range(support.shape[1]):
        of_label = ranked.labels == c
        rankings.append(
            RankedEvents(ranked.scores[of_label], ranked.videos[of_label], correct[:, of_label], support[:, c])
        )
    return rankings


def _rank_frames(
    true: EventTable, frames: Mapping[str, FrameScores], videos: Sequence[str], labels: Sequence[str]
) -> list[RankedFrames]:
    """One ranking per label, over all frames of all recordings."""
    member = np.repeat(np.arange(len(videos)), [len(frames[video].time_s) for video in videos])
    edges = np.searchsorted(true.key, np.arange(len(videos) * len(labels) + 1))
    rankings = []
    for c in range(len(labels)):
        inside = []
        for v, video in enumerate(videos):
            spans_s = true.spans_s[edges[v * len(labels) + c] : edges[v * len(labels) + c + 1]]
            inside.append(frame_labels(spans_s, np.zeros(len(spans_s), np.int64), frames[video].time_s) != BACKGROUND)
        scores = [frames[video].scores[:, c] for video in videos]
        rankings.append(RankedFrames(_concatenated(scores), _concatenated(inside).astype(bool), member, len(videos)))
    return rankings


def _concatenated(parts: Sequence[Array]) -> Array:
    return np.concatenate(parts) if parts else np.zeros(0)


def _count(table: EventTable, videos: Sequence[str], labels: Sequence[str]) -> Array:
    """Number of events by recording and label, float64 [V, C]."""
    counts = np.bincount(table.key, minlength=len(videos) * len(labels)).astype(np.float64)
    return counts.reshape(len(videos), len(labels))


def _check(video: str, frame_scores: FrameScores, labels: int) -> None:
    frames, shape = len(frame_scores.time_s), frame_scores.scores.shape
    if shape not in ((frames, labels), (frames, labels + 1)):
        raise ValueError(f"{video}: scores must be [{frames}, {labels} or one more], got {list(shape)}")
    if not np.isfinite(frame_scores.scores).all():
        raise ValueError(f"{video}: scores must be finite")
    if not (math.isfinite(frame_scores.duration_s) and frame_scores.duration_s >= 0):
        raise ValueError(f"{video}: duration_s must be 0 or more, got {frame_scores.duration_s}")


def _plain(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)


def _macro(values: Array) -> Array:
    """Mean over labels, the second axis, of those that are defined: NaN if none is."""
    defined = ~np.isnan(values)
    return ratio_or_nan(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))
