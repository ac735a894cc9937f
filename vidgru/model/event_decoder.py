"""From the scores of frames to events, as they come: however frames are cut up, the events are the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vidgru.types import Array, Event

_LADDER = (1.0, 0.7, 0.5, 0.35, 0.2, 0.1)  # shares of the thresholds at which weaker events are looked for
_FLOOR = 0.1  # and thresholds below this count as this
_WHOLE = 0.99  # share of a short recording that an event lasts which counts as all of it


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


class EventDecoder:
    """Scores of consecutive frames in, events out: as soon as they are certain, and when they are over.

    Scores are smoothed; a frame's is then known once a frame comes that lies `smooth_s / 2` later. Frames of a label
    that keep the lower threshold are a run; a run that reaches the upper one is an event from its beginning on, and
    joins the label's event before it where that ended at most `merge_s` earlier and, of exclusive labels, no other was
    active in between. An event is opened when it has lasted `min_s`, and closed when no frame to come can belong to it
    any more: `merge_s` after its end, or, where a run that began by then lies between the thresholds, when that run is
    decided.

    A frame stands for the time until the next one, and for `step_s` where the recording has a gap after it. What is
    kept does not grow with the length of the recording.

    Args:
        labels: C names.
        settings: thresholds, a value a label.
        video: what the events' `video` says.
        step_s: seconds between samples.
    """

    def __init__(self, labels: tuple[str, ...], settings: DecodeSettings, *, video: str, step_s: float) -> None:
        self._labels, self._settings, self._video, self._step_s = labels, settings, video, step_s
        self._high, self._low = (np.array(values, np.float32) for values in (settings.high, settings.low))
        self._time_s = np.zeros(0)  # of the frames whose smoothed scores are not known yet, and of those around them
        self._scores = np.zeros((0, len(labels)), np.float32)
        self._smoothed = 0  # how many of these have been handed on
        self._first_s: float | None = None
        self._frames = 0  # behind which the sums below stand
        self._sums = np.zeros(len(labels))
        self._runs: list[_Span | None] = [None] * len(labels)
        self._events: list[_Span | None] = [None] * len(labels)
        self._short: list[tuple[int, _Span]] = []  # too short, unless the recording is no longer
        self._opened: list[Event] = []
        self._closed: list[Event] = []

    def push(self, time_s: Array, scores: Array, next_s: float | None = None) -> tuple[list[Event], list[Event]]:
        """Take the next frames.

        Args:
            time_s: float64 [n], strictly increasing, later than all before.
            scores: float32 [n, C], 0 to 1; a column more, for "nothing", is not looked at.
            next_s: when the frame after them is, if that is known: else the last of them waits for it.

        Returns:
            Events that are certain now, with the end and the score that they have so far; and those that are over.
            Each event is opened once, and closed once: in the same call at the earliest.
        """
        self._time_s = np.concatenate([self._time_s, time_s])
        self._scores = np.concatenate([self._scores, scores[:, : len(self._labels)]])
        half = self._settings.smooth_s / 2
        known = len(self._time_s)
        if half > 0 and known:
            latest = self._time_s[-1] if next_s is None else next_s
            known = int(np.searchsorted(self._time_s, latest - half - 1e-6))
        if next_s is None:
            known = min(known, max(len(self._time_s) - 1, 0))
        if known > self._smoothed:
            self._advance(known, next_s)
        if self._smoothed < len(self._time_s):  # those before it that its mean reaches
            known = int(np.searchsorted(self._time_s, self._time_s[self._smoothed] - half - 1e-6))
        self._forget(known)
        return self._said()

    def finish(self, end_s: float) -> tuple[list[Event], list[Event]]:
        """Close what is open: nothing follows. As `push`.

        Args:
            end_s: the recording's end: events end there at the latest.
        """
        if len(self._time_s) > self._smoothed:
            last = float(self._time_s[-1])
            self._advance(len(self._time_s), min(last + self._step_s, max(end_s, last + 1e-3)))
        for label in range(len(self._labels)):
            self._close(label)
        if self._first_s is not None:
            for label, span in self._short:
                if span.stop_s - span.start_s >= _WHOLE * (self._end_s - self._first_s):
                    self._say_closed(label, span)
        self._forget(len(self._time_s))
        return self._said()

    def _forget(self, frames: int) -> None:
        self._time_s, self._scores = self._time_s[frames:], self._scores[frames:]
        self._smoothed -= frames

    def _said(self) -> tuple[list[Event], list[Event]]:
        opened, closed = self._opened, self._closed
        self._opened, self._closed = [], []
        return opened, closed

    def _advance(self, known: int, next_s: float | None) -> None:
        """Work off waiting frames up to `known`."""
        some = slice(self._smoothed, known)
        time_s = self._time_s[some]
        scores = smooth_scores(self._time_s, self._scores, self._settings.smooth_s)[some]
        after = float(self._time_s[known]) if known < len(self._time_s) else next_s
        assert after is not None  # else the last frame would have waited
        stops = np.append(time_s[1:], after)
        stops = np.where(stops - time_s > 2 * self._step_s, time_s + self._step_s, stops)
        self._smoothed = known
        self._first_s = float(time_s[0]) if self._first_s is None else self._first_s
        self._end_s = float(stops[-1])
        # One sum after another from the recording's beginning, so that it does not matter how frames were cut up.
        sums = np.cumsum(np.concatenate([self._sums[None], scores], dtype=np.float64), axis=0)
        keeps, reaches = scores >= self._low, scores >= self._high
        if self._settings.exclusive:
            keeps &= scores.argmax(axis=1)[:, None] == np.arange(len(self._labels))
        for first, stop, label in _runs(keeps):
            self._take(label, first, stop, time_s, stops, sums, bool(reaches[first:stop, label].any()))
        self._sums, self._frames = sums[-1], self._frames + len(time_s)
        for label, run in enumerate(self._runs):
            if run is not None and not keeps[-1, label]:
                self._runs[label] = None
            self._settle(label, float(time_s[-1]))
        still = []
        for label, span in self._short:
            if _WHOLE * (self._end_s - self._first_s) < self._settings.min_s:
                still.append((label, span))
        self._short = still

    def _take(self, label: int, first: int, stop: int, time_s: Array, stops: Array, sums: Array, reaches: bool) -> None:
        """Frames `first` to `stop` of this stretch keep a label's lower threshold, those around them do not."""
        run = self._runs[label]
        if run is None or first:
            run = _Span(start_s=float(time_s[first]), first=self._frames + first, before=float(sums[first, label]))
            self._runs[label] = run
        run.stop_s, run.stop, run.sum = float(stops[stop - 1]), self._frames + stop, float(sums[stop, label])
        if not (run.active or reaches):
            return
        if not run.active:
            run.active = True
            if self._settings.exclusive:
                for other in range(len(self._labels)):
                    if other != label:
                        self._close(other)
            event = self._events[label]
            if event is not None and run.start_s - event.stop_s > self._settings.merge_s:
                self._close(label)
            if self._events[label] is None:
                self._events[label] = replace(run)
        event = self._events[label]
        assert event is not None
        event.stop_s, event.stop, event.sum = run.stop_s, run.stop, run.sum
        self._open_if_certain(label, event)

    def _open_if_certain(self, label: int, event: _Span) -> None:
        if not event.opened and event.stop_s - event.start_s >= self._settings.min_s:
            event.opened = True
            self._opened.append(self._event(label, event))

    def _settle(self, label: int, now_s: float) -> None:
        """Close a label's event if nothing that comes after `now_s` can join it."""
        event, run = self._events[label], self._runs[label]
        if event is None or (run is not None and run.active):
            return
        undecided = run is not None and run.start_s - event.stop_s <= self._settings.merge_s
        if not undecided and now_s - event.stop_s >= self._settings.merge_s:
            self._close(label)

    def _close(self, label: int) -> None:
        event, self._events[label] = self._events[label], None
        if event is None:
            return
        if event.opened:
            self._say_closed(label, event)
        else:
            self._short.append((label, event))

    def _say_closed(self, label: int, span: _Span) -> None:
        event = self._event(label, span)
        if not span.opened:
            self._opened.append(event)
        self._closed.append(event)

    def _event(self, label: int, span: _Span) -> Event:
        score = (span.sum - span.before) / (span.stop - span.first)
        return Event(
            video=self._video,
            start_s=span.start_s,
            end_s=span.stop_s,
            label=self._labels[label],
            score=min(max(score, 0.0), 1.0),  # of sums that rounding took a little too far
        )


@dataclass
class _Span:
    """Frames `first` to `stop`, counted from the recording's beginning, and the sums of scores before and behind."""

    start_s: float
    first: int
    before: float
    stop_s: float = 0.0
    stop: int = 0
    sum: float = 0.0
    active: bool = False
    opened: bool = False


def smooth_scores(time_s: Array, scores: Array, smooth_s: float) -> Array:
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


def decode_events(
    time_s: Array,
    scores: Array,
    labels: tuple[str, ...],
    settings: DecodeSettings,
    *,
    video: str,
    step_s: float,
    end_s: float,
) -> list[Event]:
    """Events of a whole recording, by start, then by label: what an `EventDecoder` closes.

    Args:
        time_s: float64 [T], strictly increasing.
        scores: float32 [T, C], 0 to 1; a column more, for "nothing", is not looked at.
        labels: C names.
        settings: thresholds, a value a label.
        video: what the events' `video` says.
        step_s: seconds between samples.
        end_s: the recording's end: events end there at the latest.
    """
    decoder = EventDecoder(labels, settings, video=video, step_s=step_s)
    closed = decoder.push(time_s, scores)[1] + decoder.finish(end_s)[1]
    return sort_events(closed, labels)


def sort_events(events: list[Event], labels: tuple[str, ...]) -> list[Event]:
    """Events in the order that files give them in: by start, then by label."""
    return sorted(events, key=lambda event: (event.start_s, labels.index(event.label)))


def decode_candidates(
    time_s: Array,
    scores: Array,
    labels: tuple[str, ...],
    settings: DecodeSettings,
    *,
    video: str,
    step_s: float,
    end_s: float,
) -> list[Event]:
    """Events as `decode_events` gives them, and weaker ones beside them, for average precision, which judges a ranking.

    The thresholds are lowered step by step, for each label on its own; what a step finds clear of the events of its
    label that are there already is added.

    Args:
        time_s, scores, labels, settings, video, step_s, end_s: as for `decode_events`.
    """
    found = decode_events(time_s, scores, labels, settings, video=video, step_s=step_s, end_s=end_s)
    for share in _LADDER:
        weaker = replace(
            settings,
            high=tuple(max(high, _FLOOR) * share for high in settings.high),
            low=tuple(max(low, _FLOOR) * share for low in settings.low),
            exclusive=False,
        )
        more = decode_events(time_s, scores, labels, weaker, video=video, step_s=step_s, end_s=end_s)
        found += [event for event in more if not any(_touch(event, other) for other in found)]
    return found


def _touch(one: Event, two: Event) -> bool:
    return one.label == two.label and one.start_s < two.end_s and two.start_s < one.end_s


def _runs(keeps: Array) -> list[tuple[int, int, int]]:
    """Stretches of True in bool [n, C] as (first, stop, label), by their ends."""
    edges = np.diff(keeps.astype(np.int8), axis=0, prepend=0, append=0)
    label, first = np.nonzero(edges.T == 1)
    stop = np.nonzero(edges.T == -1)[1]
    order = np.lexsort((first, stop))
    return [(int(first[i]), int(stop[i]), int(label[i])) for i in order]


WINDOW_DELAY = (
    0.5  # lengths after its end until a stretch is told: till then it may be the last, which is not cut again
)


class FixedWindowDecoder:
    """One event after the other, each as long as a clip; takes the place of an `EventDecoder`.

    A stretch begins where the one before it ends, or, where so long a stretch would hold no frame, at the next frame.

    Args:
        label: of all of them.
        video: what events are to call the recording.
        length_s: of a stretch; the last is from half as long to one and a half times as long, if the recording is.
        step_s: time from frame to frame. The first stretch begins at 0 if the first frame comes sooner than that, and
            with the first frame else.
    """

    def __init__(self, label: str, *, video: str, length_s: float, step_s: float) -> None:
        self._label, self._video, self._length_s, self._step_s = label, video, length_s, step_s
        self._start_s: float | None = None  # None before the first frame
        self._last_s = 0.0  # time of the latest frame

    def push(self, time_s: Array, scores: Array, next_s: float | None = None) -> tuple[list[Event], list[Event]]:
        """Take the next frames, float64 [n]; their scores do not matter. Returns events that have opened and closed."""
        over = []
        for at_s in time_s.tolist():
            if self._start_s is None:
                self._start_s = 0.0 if at_s < self._step_s else at_s
            while at_s >= self._start_s + (1 + WINDOW_DELAY) * self._length_s:
                end_s = self._start_s + self._length_s
                over.append(self._event(self._start_s, end_s))
                no_frame = self._last_s < end_s and at_s >= end_s + self._length_s
                self._start_s = at_s if no_frame else end_s
            self._last_s = at_s
        return over, over

    def finish(self, end_s: float) -> tuple[list[Event], list[Event]]:
        """Nothing follows; the recording ends at this second. As `push`."""
        over = [self._event(self._start_s, end_s)] if self._start_s is not None and end_s > self._start_s else []
        return over, over

    def _event(self, start_s: float, end_s: float) -> Event:
        return Event(video=self._video, start_s=start_s, end_s=end_s, label=self._label, score=1.0)
