"""From the scores of frames to events."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vidgru.types import Array, Event

_LADDER = (1.0, 0.7, 0.5, 0.35, 0.2, 0.1)  # shares of the thresholds at which weaker events are looked for
_FLOOR = 0.1  # and thresholds below this count as this


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """How scores become events. Stored in the model.

    Attributes:
        high: score, for each label, that an event reaches somewhere.
        low: score, for each label, that it keeps: hysteresis, so that a short dip does not cut an event in two.
        min_s: shorter events are left out, unless their recording is no longer.
        merge_s: events of one label this near to each other are one.
        exclusive: one label at a time, the best scored.
        smooth_s: scores of frames are averaged over this long, half of it before and half after each.
    """

    high: tuple[float, ...]
    low: tuple[float, ...]
    min_s: float
    merge_s: float
    exclusive: bool
    smooth_s: float = 0.0


def spread(frames: int, windows: Array, scores: Array) -> Array:
    """Scores of frames from those of overlapping windows: a mean that trusts a window most at its middle.

    This smooths them already; a frame's score is settled when the last window that covers it has been scored,
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


def smooth(time_s: Array, scores: Array, smooth_s: float) -> Array:
    """Mean of the scores over `smooth_s` around each frame; frames count by number, gaps do not.

    Args:
        time_s: float64 [T].
        scores: float32 [T, C].
        smooth_s: seconds, 0 for none.
    """
    if smooth_s <= 0 or not len(time_s):
        return scores
    first = np.searchsorted(time_s, time_s - smooth_s / 2 - 1e-6, side="left")
    stop = np.searchsorted(time_s, time_s + smooth_s / 2 + 1e-6, side="right")
    total = np.zeros(scores.shape)
    for offset in range(int((stop - first).max())):  # not a running sum: that would depend on where a stream began
        inside = np.flatnonzero(first + offset < stop)
        total[inside] += scores[first[inside] + offset]
    result: Array = (total / (stop - first)[:, None]).astype(np.float32)
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
        scores: float32 [T, C], 0 to 1; a column more, for "nothing", is not looked at.
        labels: C names.
        settings: thresholds, a value a label.
        video: what the events' `video` says.
        step_s: seconds between samples.
        end_s: the recording's end: events end there at the latest.
    """
    if not len(time_s):
        return []
    scores = smooth(time_s, scores, settings.smooth_s)
    stops = np.append(time_s[1:], time_s[-1] + step_s)
    stops = np.minimum(np.where(stops - time_s > 2 * step_s, time_s + step_s, stops), max(end_s, time_s[-1] + 1e-3))
    active = np.zeros((len(time_s), len(labels)), dtype=bool)
    best = scores[:, : len(labels)].argmax(axis=1)
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


def candidates(
    time_s: Array,
    scores: Array,
    labels: tuple[str, ...],
    settings: DecodeSettings,
    *,
    video: str,
    step_s: float,
    end_s: float,
) -> list[Event]:
    """Events as `decode` gives them, and weaker ones beside them, for average precision, which judges a ranking.

    The thresholds are lowered step by step, for each label on its own; what a step finds clear of the events of its
    label that are there already is added.

    Args:
        time_s, scores, labels, settings, video, step_s, end_s: as for `decode`.
    """
    found = decode(time_s, scores, labels, settings, video=video, step_s=step_s, end_s=end_s)
    for share in _LADDER:
        weaker = replace(
            settings,
            high=tuple(max(high, _FLOOR) * share for high in settings.high),
            low=tuple(max(low, _FLOOR) * share for low in settings.low),
            exclusive=False,
        )
        more = decode(time_s, scores, labels, weaker, video=video, step_s=step_s, end_s=end_s)
        found += [event for event in more if not any(_touch(event, other) for other in found)]
    return found


def _touch(one: Event, two: Event) -> bool:
    return one.label == two.label and one.start_s < two.end_s and two.start_s < one.end_s


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
