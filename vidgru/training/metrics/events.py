"""What a model of timed events is judged by. Plain values out: every result can be written as JSON.

Figures are sums over recordings (or ratios of such sums), so each is written over weighted recordings and the
bootstrap gets all resamples at once. Matching never crosses recordings: it is done once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidgru.training.metrics.bootstrap import draws, interval
from vidgru.training.metrics.matching import EventTable, event_table, match_by_overlap, match_by_score
from vidgru.training.metrics.ranking import RankedEvents, RankedFrames, ratio, share
from vidgru.training.metrics.segments import BACKGROUND, edit_score, frame_labels, segment_hits, segments
from vidgru.types import Annotation, Array, Event

_TIOU = np.array([30, 40, *range(50, 100, 5)]) / 100
_ACTIVITYNET = _TIOU >= 0.5
_THUMOS = np.isin(_TIOU, (0.3, 0.4, 0.5, 0.6, 0.7))
_HALF = int(np.flatnonzero(_TIOU == 0.5)[0])
_F1_TIOU = np.array([0.5, 0.3, 0.7])  # the first is the headline
_SEGMENT_IOU = np.array([0.10, 0.25, 0.50])
# SoccerNet's tolerances are widths of a window around the truth (5 to 60 s, 1 to 5 s); ours are distances
_LOOSE_S, _TIGHT_S = np.arange(5, 61, 5) / 2, np.arange(1, 6) / 2
_AT_ONCE = 2_000_000  # weights of a chunk of resamples: 16 MB an array

_Statistics = Callable[[Array], dict[str, Array]]  # weights float64 [R, V] -> figures [R] by name, NaN if not defined


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameScores:
    """What a model said of each frame of a recording.

    Attributes:
        time_s: float64 [T], strictly increasing.
        scores: float32 [T, C], or [T, C + 1] with a last column for "nothing", which is not judged.
        duration_s: of the recording.
    """

    time_s: Array
    scores: Array
    duration_s: float


def event_metrics(
    truth: Sequence[Annotation],
    found: Sequence[Event],
    ranked: Sequence[Event],
    frames: Mapping[str, FrameScores],
    labels: Sequence[str],
    *,
    exclusive: bool,
    half_width_s: float | None = None,
    intervals: bool = True,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """How well the events of recordings were told.

    Args:
        truth: true events. Rows without a label are left out: they say that nothing happens.
        found: events as a model emits them.
        ranked: candidates for average precision: `found`, and weaker ones below the thresholds.
        frames: for each recording that is judged, those in which nothing happens too.
        labels: C names.
        exclusive: whether there is one label at a time: gives the figures of segmentation.
        half_width_s: if true events are points, half the interval each was made into: gives the figures of spotting.
        intervals: whether to compute bootstrap intervals, over recordings.
        resamples, seed: of the bootstrap.

    Returns:
        - videos, hours (judged), events (true), found;
        - map: mean over tIoU 0.5:0.05:0.95 of the mean over labels of average precision (ActivityNet's protocol);
          map_thumos: the same over 0.3:0.1:0.7; map_30, map_40, map_50, map_55 ... map_95: at each;
        - frame_map: mean over labels of the average precision of frame scores, over all frames of all recordings;
        - event_f1, event_precision, event_recall: over all labels, at tIoU 0.5, one to one; event_f1_30, event_f1_70;
          event_macro_f1: the mean over labels at 0.5;
        - false_alarms_per_hour: found events that overlap no true event of their label;
        - if exclusive, segment_f1_10, segment_f1_25, segment_f1_50, edit, frame_accuracy: of found events, put on the
          frames; as MS-TCN has it, but 0 to 1;
        - if points, spotting_map: centres no further apart than `half_width_s`, as E2E-Spot has it; spotting_map_tight
          and spotting_map_loose: means over SoccerNet's tolerances of 1 to 5 s and 5 to 60 s, which allow half as much
          to either side;
        - per_class {label: {ap_50, ap, precision, recall, f1 (at 0.5), support, frame_ap}}, and spotting_ap if points;
        - absent: labels without a true event, left out of means over labels;
        - intervals {figure: [low, high]}: 95 % percentile bootstrap over recordings; None with fewer than two. What is
          drawn twice raises interpolated precision by chance: with few recordings, intervals of map lean upwards.
          That of frame_map takes frames in 200 steps of recall.

        None stands for what is not defined; as for clips, precision and f1 of a label are then 0.

    Raises:
        ValueError: events without times, of other recordings or labels; shapes that do not fit; scores that are not
            finite; two labels of one name.
    """
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"labels must be at least one, and differ, got {list(labels)}")
    videos = sorted(frames)
    for video in videos:
        _check(video, frames[video], len(labels))
    true, said, candidates = (event_table(events, videos, labels) for events in (truth, found, ranked))
    hours = np.array([frames[video].duration_s for video in videos]) / 3600
    once = np.ones((1, len(videos)))
    support = _count(true, videos, labels)

    detections = _rank(candidates, match_by_score(true, candidates, _TIOU), support)
    pairs = _Pairs(true, said, support, _count(said, videos, labels))
    by_frame = _rank_frames(true, frames, videos, labels)
    parts: list[_Statistics] = [
        lambda weights: _detection_figures(detections, weights),
        lambda weights: {"frame_map": _macro(np.stack([f.average_precision(weights) for f in by_frame], axis=1))},
        lambda weights: pairs.figures(weights, hours),
    ]
    if exclusive:
        parts.append(_segmentation(true, said, [frames[video].time_s for video in videos]))
    spots: list[RankedEvents] = []
    if half_width_s is not None:
        tolerances = np.concatenate(([half_width_s], _TIGHT_S, _LOOSE_S))
        spots = _rank(candidates, match_by_score(true, candidates, tolerances, points=True), support)
        parts.append(lambda weights: _spotting_figures(spots, weights))

    def figures(weights: Array) -> dict[str, Array]:
        return {name: values for part in parts for name, values in part(weights).items()}

    whole = {name: _plain(values[0]) for name, values in figures(once).items()}
    whole["frame_map"] = _plain(_macro(np.array([[ranking.exact for ranking in by_frame]]))[0])
    result: dict[str, Any] = {
        "videos": len(videos),
        "hours": float(hours.sum()),
        "events": len(true.key),
        "found": len(said.key),
        **whole,
        "per_class": pairs.per_class(labels),
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
            weights = draws(len(videos), resamples=resamples, seed=seed)
            chunks = np.array_split(weights, math.ceil(resamples * max(1, len(candidates.key)) / _AT_ONCE))
            drawn = [figures(chunk) for chunk in chunks]
            result["intervals"] = {name: interval(np.concatenate([part[name] for part in drawn])) for name in whole}
    return result


def event_curves(
    truth: Sequence[Annotation], ranked: Sequence[Event], videos: Sequence[str], labels: Sequence[str]
) -> dict[str, tuple[Array, Array]]:
    """Recall and interpolated precision at tIoU 0.5, of each label that has true events: float64 [points] each.

    They begin at recall 0.

    Args:
        truth, ranked, labels: as for `event_metrics`.
        videos: the recordings that are judged.
    """
    true, candidates = event_table(truth, videos, labels), event_table(ranked, videos, labels)
    support = _count(true, videos, labels)
    rankings = _rank(candidates, match_by_score(true, candidates, _TIOU[[_HALF]]), support)
    curves = {label: ranking.curve(0) for label, ranking in zip(labels, rankings, strict=True)}
    return {label: curve for label, curve in curves.items() if len(curve[0])}


def worst_first(
    truth: Sequence[Annotation], found: Sequence[Event], videos: Sequence[str], labels: Sequence[str]
) -> list[tuple[str, float | None, int]]:
    """Recordings from the worst told: lowest event F1 at tIoU 0.5, then most false alarms, then by name.

    Returns:
        (recording, F1, false alarms); F1 is None where nothing happens and nothing was found, which is as it should be.
    """
    true, said = event_table(truth, videos, labels), event_table(found, videos, labels)
    pairs = _Pairs(true, said, _count(true, videos, labels), _count(said, videos, labels))
    f1, false = pairs.by_video()
    rows = [(video, _plain(value), int(number)) for video, value, number in zip(videos, f1, false, strict=True)]
    return sorted(rows, key=lambda row: (1.0 if row[1] is None else row[1], -row[2], row[0]))


class _Pairs:
    """Numbers of events by recording and label: true, found, and right at each overlap of `_F1_TIOU`."""

    def __init__(self, true: EventTable, said: EventTable, support: Array, found: Array) -> None:
        paired, most = match_by_overlap(true, said)
        self._support, self._said = support, found
        hits = [np.bincount(said.key[paired >= tiou], minlength=support.size) for tiou in _F1_TIOU]
        self._hits = np.stack(hits).reshape(len(hits), *support.shape).astype(np.float64)
        self._false = np.bincount(said.videos[most == 0], minlength=len(support))

    def figures(self, weights: Array, hours: Array) -> dict[str, Array]:
        hits, support, said = weights @ self._hits, weights @ self._support, weights @ self._said  # [.., R, C]
        total, all_true, all_said = hits.sum(axis=-1), support.sum(axis=-1), said.sum(axis=-1)
        f1 = share(2 * total, all_true + all_said)
        per_label = np.where(support > 0, ratio(2 * hits[0], support + said), np.nan)
        return {
            "event_f1": f1[0],
            "event_precision": share(total[0], all_said),
            "event_recall": share(total[0], all_true),
            "event_f1_30": f1[1],
            "event_f1_70": f1[2],
            "event_macro_f1": _macro(per_label),
            "false_alarms_per_hour": share(weights @ self._false, weights @ hours),
        }

    def per_class(self, labels: Sequence[str]) -> dict[str, dict[str, Any]]:
        hits, support, said = self._hits[0].sum(axis=0), self._support.sum(axis=0), self._said.sum(axis=0)
        precision, recall, f1 = ratio(hits, said), share(hits, support), ratio(2 * hits, support + said)
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
        """F1 [V], NaN where there is neither a true nor a found event; and false alarms [V]."""
        return share(2 * self._hits[0].sum(axis=1), (self._support + self._said).sum(axis=1)), self._false


def _detection_figures(rankings: Sequence[RankedEvents], weights: Array) -> dict[str, Array]:
    ap = np.stack([ranking.average_precision(weights) for ranking in rankings], axis=1)  # [R, C, K]
    at = _macro(ap)
    each = {f"map_{round(100 * tiou)}": at[:, k] for k, tiou in enumerate(_TIOU)}
    return {"map": at[:, _ACTIVITYNET].mean(axis=1), "map_thumos": at[:, _THUMOS].mean(axis=1), **each}


def _spotting_figures(rankings: Sequence[RankedEvents], weights: Array) -> dict[str, Array]:
    at = _macro(np.stack([ranking.average_precision(weights) for ranking in rankings], axis=1))
    tight, loose = at[:, 1 : 1 + len(_TIGHT_S)], at[:, 1 + len(_TIGHT_S) :]
    return {
        "spotting_map": at[:, 0],
        "spotting_map_tight": tight.mean(axis=1),
        "spotting_map_loose": loose.mean(axis=1),
    }


def _segmentation(true: EventTable, said: EventTable, times: Sequence[Array]) -> _Statistics:
    """Figures of one label a frame, from counts by recording [V, ...]."""
    hits = np.zeros((len(times), len(_SEGMENT_IOU)))
    numbers, edit, right = np.zeros(len(times)), np.zeros(len(times)), np.zeros(len(times))
    for v, time_s in enumerate(times):
        was, told = (
            frame_labels(table.spans_s[table.videos == v], table.labels[table.videos == v], time_s)
            for table in (true, said)
        )
        true_runs, told_runs = segments(was), segments(told)
        hits[v] = segment_hits(true_runs, told_runs, _SEGMENT_IOU)
        numbers[v] = len(true_runs) + len(told_runs)
        edit[v] = edit_score(true_runs[:, 0], told_runs[:, 0])
        right[v] = (was == told).sum()
    lengths = np.array([len(time_s) for time_s in times])

    def figures(weights: Array) -> dict[str, Array]:
        f1 = share(2 * (weights @ hits).T, weights @ numbers)
        names = [f"segment_f1_{round(100 * iou)}" for iou in _SEGMENT_IOU]
        return {
            **dict(zip(names, f1, strict=True)),
            "edit": share(weights @ edit, weights.sum(axis=1)),
            "frame_accuracy": share(weights @ right, weights @ lengths),
        }

    return figures


def _rank(candidates: EventTable, right: Array, support: Array) -> list[RankedEvents]:
    """A ranking a label; right is bool [K, n], support [V, C]."""
    rankings = []
    for c in range(support.shape[1]):
        mine = candidates.labels == c
        rankings.append(RankedEvents(candidates.scores[mine], candidates.videos[mine], right[:, mine], support[:, c]))
    return rankings


def _rank_frames(
    true: EventTable, frames: Mapping[str, FrameScores], videos: Sequence[str], labels: Sequence[str]
) -> list[RankedFrames]:
    """A ranking a label, of all frames of all recordings."""
    member = np.repeat(np.arange(len(videos)), [len(frames[video].time_s) for video in videos])
    edges = np.searchsorted(true.key, np.arange(len(videos) * len(labels) + 1))
    rankings = []
    for c in range(len(labels)):
        inside = []
        for v, video in enumerate(videos):
            mine = true.spans_s[edges[v * len(labels) + c] : edges[v * len(labels) + c + 1]]
            inside.append(frame_labels(mine, np.zeros(len(mine), np.int64), frames[video].time_s) != BACKGROUND)
        scores = [frames[video].scores[:, c] for video in videos]
        rankings.append(RankedFrames(_joined(scores), _joined(inside).astype(bool), member, len(videos)))
    return rankings


def _joined(parts: Sequence[Array]) -> Array:
    return np.concatenate(parts) if parts else np.zeros(0)


def _count(table: EventTable, videos: Sequence[str], labels: Sequence[str]) -> Array:
    """Number of events by recording and label, float64 [V, C]."""
    counts = np.bincount(table.key, minlength=len(videos) * len(labels)).astype(np.float64)
    return counts.reshape(len(videos), len(labels))


def _check(video: str, given: FrameScores, labels: int) -> None:
    frames = len(given.time_s)
    if given.scores.shape not in ((frames, labels), (frames, labels + 1)):
        raise ValueError(f"{video}: scores must be [{frames}, {labels} or one more], got {list(given.scores.shape)}")
    if not np.isfinite(given.scores).all():
        raise ValueError(f"{video}: scores hold values that are not finite")
    if not (math.isfinite(given.duration_s) and given.duration_s >= 0):
        raise ValueError(f"{video}: duration_s must be 0 or more, got {given.duration_s}")


def _plain(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)


def _macro(values: Array) -> Array:
    """Mean over labels, the second axis, of those that are defined: NaN if none is."""
    known = ~np.isnan(values)
    return share(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1))
