"""From the scores of windows to events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidgru.types import Array, Event


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """How scores become events. Stored in the model.

    Attributes:
        high: score, for each label, that an event reaches somewhere.
        low: score, for each label, that it keeps: hysteresis, so that a short dip does not cut an event in two.
        min_s: shorter events are left out, unless their recording is no longer.
        merge_s: events of one label this near to each other are one.
        exclusive: one label at a time, the best scored.
    """

    high: tuple[float, ...]
    low: tuple[float, ...]
    min_s: float
    merge_s: float
    exclusive: bool


def spread(frames: int, windows: Array, scores: Array) -> Array:
    """Scores of frames from those of overlapping windows: a mean that trusts a window most at its middle.

    That is all the smoothing there is; a frame's score is settled when the last window that covers it has been scored,
    a window's length later.

    Args:
        frames: T.
        windows: int64 [W, 2], first frame and the one after the last.
        scores: float32 [W, C].

    Returns:
        float32 [T, C]; 0 where no window covers a frame.
    """
    total, weight = np.zeros((frames, scores.shape[1])), np.zeros(frames)
    for (first, stop), score in zip(windows, scores, strict=True):
        length = stop - first
        trust = 1.0 - np.abs(2 * np.arange(length) + 1 - length) / (length + 1)
        total[first:stop] += trust[:, None] * score
        weight[first:stop] += trust
    result: Array = (total / np.maximum(weight, 1e-12)[:, None]).astype(np.float32)
    return result


def decode(
    time_s: Array,
    scores: Array,
    labels: tuple[str, ...],
    settings: DecodeSettings,
    *,
    video: str,
    step_s: float,
    end_s: float,
) -> list[Event]:
    """Events of a recording, by start, then by label.

    A frame stands for the time until the next one, and for `step_s` where the recording has a gap after it.

    Args:
        time_s: float64 [T], strictly increasing.
        scores: float32 [T, C], 0 to 1; under `exclusive` with a last column more for "nothing", if the model has one.
        labels: C names.
        settings: thresholds, a value a label.
        video: what the events' `video` says.
        step_s: seconds between samples.
        end_s: the recording's end: events end there at the latest.
    """
    if not len(time_s):
        return []
    stops = np.append(time_s[1:], time_s[-1] + step_s)
    stops = np.minimum(np.where(stops - time_s > 2 * step_s, time_s + step_s, stops), max(end_s, time_s[-1] + 1e-3))
    active = np.zeros((len(time_s), len(labels)), dtype=bool)
    best = scores.argmax(axis=1)
    for label in range(len(labels)):
        may = best == label if settings.exclusive else np.ones(len(time_s), dtype=bool)
        keeps = may & (scores[:, label] >= settings.low[label])
        for first, stop in _runs(keeps):
            if (scores[first:stop, label] >= settings.high[label]).any():
                active[first:stop, label] = True
    min_s = min(settings.min_s, 0.99 * (float(stops[-1]) - float(time_s[0])))
    events = []
    for label, name in enumerate(labels):
        others = active.any(axis=1) & ~active[:, label] if settings.exclusive else np.zeros(len(time_s), dtype=bool)
        for first, stop in _merged(_runs(active[:, label]), time_s, stops, others, settings.merge_s):
            start_s, stop_s = float(time_s[first]), float(stops[stop - 1])
            if stop_s - start_s >= min_s:
                score = float(scores[first:stop, label].mean(dtype=np.float64))
                events.append(Event(video=video, start_s=start_s, end_s=stop_s, label=name, score=min(score, 1.0)))
    return sorted(events, key=lambda event: (event.start_s, labels.index(event.label)))


def _runs(active: Array) -> list[tuple[int, int]]:
    """Stretches of True as [first, stop)."""
    edges = np.flatnonzero(np.diff(active.astype(np.int8), prepend=0, append=0))
    return [(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)]


def _merged(
    runs: list[tuple[int, int]], time_s: Array, stops: Array, others: Array, merge_s: float
) -> list[tuple[int, int]]:
    """Join runs across gaps of at most `merge_s` in which no other label is active."""
    joined: list[tuple[int, int]] = []
    for first, stop in runs:
        if joined:
            gap = slice(joined[-1][1], first)
            if time_s[first] - stops[gap.start - 1] <= merge_s and not others[gap].any():
                joined[-1] = (joined[-1][0], stop)
                continue
        joined.append((first, stop))
    return joined
