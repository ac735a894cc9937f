"""Decode events from the scores of frames, as they arrive: how frames are split into chunks does not matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vidgru.types import Array, Event

_CANDIDATE_FACTORS = (1.0, 0.7, 0.5, 0.35, 0.2, 0.1)  # of the thresholds at which weaker candidates are searched
_MIN_CANDIDATE_THRESHOLD = 0.1  # thresholds below are raised to this before scaling
_WHOLE_RECORDING = 0.99  # fraction of a short recording that an event must cover to be exempt from `min_s`
MIN_SCORE = 1e-6  # lowest score that is calibrated, and 1 minus the highest: 0 and 1 have no logits
_MAX_S = 86400.0
_LOW_RATIO = 0.8  # of the lower to the upper threshold, if the model's upper threshold is 0 and gives none
WINDOW_DELAY = 0.5  # windows after its end at which a fixed window is closed: until then it may be the last one


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """How scores become events. Stored in the model.

    Attributes:
        high: Score per label that an event must reach at least once.
        low: Score per label that an event must keep; lower than `high`, so that short dips do not split events.
        min_s: Minimum length of an event, except where it covers the whole recording.
        merge_s: Maximum gap between events of one label that are merged.
        exclusive: Whether only the label with the highest score is active in each frame.
        smooth_s: Length of the centred moving average over the scores.
        event_scale, event_bias: Calibration of the scores of events: the mean over their frames is scaled and shifted
            as a logit, as by `platt`.
        start_trim_s, end_trim_s: Seconds per label that events are shortened by at the start and at the end, where
            annotators count less as part of the event than the scores do; empty for none. `min_s`, `merge_s` and the
            score of an event refer to its full length.
    """

    high: tuple[float, ...]
    low: tuple[float, ...]
    min_s: float
    merge_s: float
    exclusive: bool
    smooth_s: float = 0.0
    event_scale: float = 1.0
    event_bias: float = 0.0
    start_trim_s: tuple[float, ...] = ()
    end_trim_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not all(0 <= score <= 1 for score in (*self.high, *self.low)):
            raise ValueError(f"DecodeSettings needs thresholds from 0 to 1, got {self.high} and {self.low}")
        lengths_s = (self.min_s, self.merge_s, self.smooth_s, *self.start_trim_s, *self.end_trim_s)
        if not all(0 <= seconds <= _MAX_S for seconds in lengths_s):
            raise ValueError(f"DecodeSettings needs lengths from 0 to {_MAX_S} s, got {self}")
        if not (math.isfinite(self.event_scale) and math.isfinite(self.event_bias)):
            raise ValueError(f"DecodeSettings needs a finite calibration, got {self}")
        if len(self.start_trim_s) != len(self.end_trim_s) or len(self.start_trim_s) not in (0, len(self.high)):
            raise ValueError(f"DecodeSettings needs a trim per label or none, got {self}")

    def with_high(self, high: Sequence[float]) -> DecodeSettings:
        """Replace the upper thresholds; each lower one keeps its ratio to the upper one."""
        low = tuple(
            low if value == upper else round(value * (low / upper if upper else _LOW_RATIO), 4)
            for value, upper, low in zip(high, self.high, self.low, strict=True)
        )
        return replace(self, high=tuple(high), low=low)

    def untrimmed(self) -> DecodeSettings:
        """Return these settings without trims."""
        return replace(self, start_trim_s=(), end_trim_s=())

    def trim(self, label: int, start_s: float, end_s: float, step_s: float) -> tuple[float, float]:
        """Return start and end of an event after trimming; at least `step_s` of it stays.

        An event starts no later than `min_s` after its first frame, so that its start is known when it opens.
        """
        if not self.start_trim_s:
            return start_s, end_s
        spare_s = max(min(self.min_s, end_s - start_s) - step_s, 0.0)
        start_s += min(self.start_trim_s[label], spare_s)
        return start_s, max(end_s - self.end_trim_s[label], min(start_s + step_s, end_s))

    def untrim(self, label: int, start_s: float, end_s: float) -> tuple[float, float]:
        """Return start and end of an event before trimming; more at the end if only a step of it was left."""
        if not self.start_trim_s:
            return start_s, end_s
        return start_s - self.start_trim_s[label], end_s + self.end_trim_s[label]

    def event_score(self, mean: float) -> float:
        """Return the score of an event whose frames have this mean score; a higher mean has a higher score."""
        if (self.event_scale, self.event_bias) == (1.0, 0.0):
            return min(max(mean, 0.0), 1.0)  # rounding of sums may exceed the limits
        return platt(mean, self.event_scale, self.event_bias)


def platt(score: float, scale: float, bias: float) -> float:
    """Scale and shift the logit of a score (Platt 1999, "Probabilistic Outputs for Support Vector Machines").

    Args:
        score: 0 to 1.
        scale, bias: As `fit_platt` fits them; 1 and 0 change nothing.
    """
    score = min(max(score, MIN_SCORE), 1 - MIN_SCORE)
    return 0.5 + 0.5 * math.tanh((scale * math.log(score / (1 - score)) + bias) / 2)  # the sigmoid, without overflow


class EventDecoder:
    """Turns the scores of consecutive frames into events, which it opens once certain and closes once over.

    Scores are smoothed, so a frame's score is known when a frame `smooth_s / 2` later arrives. Consecutive frames in
    which a label keeps its lower threshold are a run. A run that reaches the upper threshold is an event from its
    beginning on. It joins the label's previous event if that ended at most `merge_s` earlier and, for exclusive labels,
    no other label was active in between. An event opens when it has lasted `min_s`. It closes when no later frame can
    belong to it: `merge_s` after its end, or, if a run that began by then is still between the thresholds, when that
    run is decided.

    A frame covers the time until the next frame, or `step_s` if a gap follows. Memory does not grow with the length of
    the recording.

    Args:
        labels: C names.
        settings: Thresholds, one value per label.
        video: Name of the recording in the events.
        step_s: Seconds between samples.
    """

    def __init__(self, labels: tuple[str, ...], settings: DecodeSettings, *, video: str, step_s: float) -> None:
        self._labels, self._settings, self._video, self._step_s = labels, settings, video, step_s
        self._high, self._low = (np.array(values, np.float32) for values in (settings.high, settings.low))
        # Frames whose smoothed score is unknown still, preceded by those that smoothing needs.
        self._time_s = np.zeros(0)
        self._scores = np.zeros((0, len(labels)), np.float32)
        self._smoothed = 0  # how many of these are decoded
        self._first_s: float | None = None  # time of the first frame
        self._end_s = 0.0  # end of the last decoded frame
        self._frames = 0  # decoded since the beginning
        self._sums = np.zeros(len(labels))  # of the scores of all decoded frames
        self._runs: list[_Span | None] = [None] * len(labels)
        self._events: list[_Span | None] = [None] * len(labels)
        self._short: list[tuple[int, _Span]] = []  # too short, unless they cover the whole recording
        self._opened: list[Event] = []
        self._closed: list[Event] = []

    def push(self, time_s: Array, scores: Array, next_s: float | None = None) -> tuple[list[Event], list[Event]]:
        """Add the next frames.

        Args:
            time_s: float64 [n], strictly increasing and later than all frames before.
            scores: float32 [n,C], 0 to 1; a further column for the background is ignored.
            next_s: Time of the frame after these, if known; otherwise the last of them waits for it.

        Returns:
            Events opened now, with the end and the score they have so far, and events closed now. Each event is opened
            once and closed once, possibly in the same call.
        """
        self._time_s = np.concatenate([self._time_s, time_s])
        self._scores = np.concatenate([self._scores, scores[:, : len(self._labels)]])
        half = self._settings.smooth_s / 2
        stop = len(self._time_s)  # frames before it have a known smoothed score
        if half > 0 and stop:
            latest = self._time_s[-1] if next_s is None else next_s
            stop = int(np.searchsorted(self._time_s, latest - half - 1e-6))
        if next_s is None:
            stop = min(stop, max(len(self._time_s) - 1, 0))
        if stop > self._smoothed:
            self._advance(stop, next_s)
        if self._smoothed < len(self._time_s):  # keep the earlier frames that the next smoothed score needs
            stop = int(np.searchsorted(self._time_s, self._time_s[self._smoothed] - half - 1e-6))
        self._drop_frames(stop)
        return self._take_events()

    def finish(self, end_s: float) -> tuple[list[Event], list[Event]]:
        """Close all open events at the end of the recording. Returns as `push`.

        Args:
            end_s: End of the recording, at which events end at the latest.
        """
        if len(self._time_s) > self._smoothed:
            last = float(self._time_s[-1])
            self._advance(len(self._time_s), min(last + self._step_s, max(end_s, last + 1e-3)))
        for label in range(len(self._labels)):
            self._close(label)
        if self._first_s is not None:
            for label, span in self._short:
                if span.stop_s - span.start_s >= _WHOLE_RECORDING * (self._end_s - self._first_s):
                    self._emit_closed(label, span)
        self._drop_frames(len(self._time_s))
        return self._take_events()

    def _drop_frames(self, frames: int) -> None:
        self._time_s, self._scores = self._time_s[frames:], self._scores[frames:]
        self._smoothed -= frames

    def _take_events(self) -> tuple[list[Event], list[Event]]:
        opened, closed = self._opened, self._closed
        self._opened, self._closed = [], []
        return opened, closed

    def _advance(self, stop: int, next_s: float | None) -> None:
        """Decode waiting frames up to `stop`."""
        frames = slice(self._smoothed, stop)
        time_s = self._time_s[frames]
        scores = smooth_scores(self._time_s, self._scores, self._settings.smooth_s)[frames]
        after = float(self._time_s[stop]) if stop < len(self._time_s) else next_s
        assert after is not None  # otherwise the last frame would have waited
        stops = np.append(time_s[1:], after)
        stops = np.where(stops - time_s > 2 * self._step_s, time_s + self._step_s, stops)
        self._smoothed = stop
        self._first_s = float(time_s[0]) if self._first_s is None else self._first_s
        self._end_s = float(stops[-1])
        # One running sum from the beginning of the recording, so that rounding does not depend on the chunks.
        sums = np.cumsum(np.concatenate([self._sums[None], scores], dtype=np.float64), axis=0)
        keeps, reaches = scores >= self._low, scores >= self._high
        if self._settings.exclusive:
            keeps &= scores.argmax(axis=1)[:, None] == np.arange(len(self._labels))
        for first, stop, label in _runs(keeps):
            self._add_run(label, first, stop, time_s, stops, sums, bool(reaches[first:stop, label].any()))
        self._sums, self._frames = sums[-1], self._frames + len(time_s)
        for label, run in enumerate(self._runs):
            if run is not None and not keeps[-1, label]:
                self._runs[label] = None
            self._settle(label, float(time_s[-1]))
        if _WHOLE_RECORDING * (self._end_s - self._first_s) >= self._settings.min_s:
            self._short = []

    def _add_run(
        self, label: int, first: int, stop: int, time_s: Array, stops: Array, sums: Array, reaches_high: bool
    ) -> None:
        """Add frames [first,stop) of this chunk, in which a label keeps its lower threshold, to a run."""
        run = self._runs[label]
        if run is None or first:  # a run that starts later than the chunk cannot continue the previous one
            run = _Span(start_s=float(time_s[first]), first=self._frames + first, before=float(sums[first, label]))
            self._runs[label] = run
        run.stop_s, run.stop, run.sum = float(stops[stop - 1]), self._frames + stop, float(sums[stop, label])
        if not (run.is_active or reaches_high):
            return
        if not run.is_active:
            run.is_active = True
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
        if not event.is_open and event.stop_s - event.start_s >= self._settings.min_s:
            event.is_open = True
            self._opened.append(self._event(label, event))

    def _settle(self, label: int, now_s: float) -> None:
        """Close a label's event if no frame after `now_s` can join it."""
        event, run = self._events[label], self._runs[label]
        if event is None or (run is not None and run.is_active):
            return
        is_undecided = run is not None and run.start_s - event.stop_s <= self._settings.merge_s
        if not is_undecided and now_s - event.stop_s >= self._settings.merge_s:
            self._close(label)

    def _close(self, label: int) -> None:
        event, self._events[label] = self._events[label], None
        if event is None:
            return
        if event.is_open:
            self._emit_closed(label, event)
        else:
            self._short.append((label, event))

    def _emit_closed(self, label: int, span: _Span) -> None:
        event = self._event(label, span)
        if not span.is_open:
            self._opened.append(event)
        self._closed.append(event)

    def _event(self, label: int, span: _Span) -> Event:
        mean = (span.sum - span.before) / (span.stop - span.first)
        start_s, end_s = self._settings.trim(label, span.start_s, span.stop_s, self._step_s)
        return Event(
            video=self._video,
            start_s=start_s,
            end_s=end_s,
            label=self._labels[label],
            score=self._settings.event_score(mean),
        )


@dataclass
class _Span:
    """Frames [first,stop) of a recording, and the sums of scores before the first and after the last of them."""

    start_s: float
    first: int
    before: float
    stop_s: float = 0.0
    stop: int = 0
    sum: float = 0.0
    is_active: bool = False  # has reached the upper threshold
    is_open: bool = False


def smooth_scores(time_s: Array, scores: Array, smooth_s: float) -> Array:
    """Average scores over the frames within `smooth_s / 2` of each frame.

    Args:
        time_s: float64 [T].
        scores: float32 [T,C].
        smooth_s: Length of the moving average in seconds, 0 for none.
    """
    if smooth_s <= 0 or not len(time_s):
        return scores
    first = np.searchsorted(time_s, time_s - smooth_s / 2 - 1e-6, side="left")
    stop = np.searchsorted(time_s, time_s + smooth_s / 2 + 1e-6, side="right")
    total = np.zeros(scores.shape)
    for offset in range(int((stop - first).max())):  # rounding of a running sum would depend on where a stream began
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
    """Decode the events of a whole recording, sorted by start, then by label.

    Args:
        time_s: float64 [T], strictly increasing.
        scores: float32 [T,C], 0 to 1; a further column for the background is ignored.
        labels: C names.
        settings: Thresholds, one value per label.
        video: Name of the recording in the events.
        step_s: Seconds between samples.
        end_s: End of the recording, at which events end at the latest.
    """
    decoder = EventDecoder(labels, settings, video=video, step_s=step_s)
    closed = decoder.push(time_s, scores)[1] + decoder.finish(end_s)[1]
    return sort_events(closed, labels)


def sort_events(events: list[Event], labels: tuple[str, ...]) -> list[Event]:
    """Sort events as files do: by start, then by label."""
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
    """Decode events and weaker candidates below the thresholds, for metrics of a ranking such as average precision.

    Thresholds are lowered in steps, for each label independently. Each step adds events that do not overlap an event of
    their label from an earlier step.

    Args:
        time_s, scores, labels, settings, video, step_s, end_s: As for `decode_events`.
    """
    candidates = decode_events(time_s, scores, labels, settings, video=video, step_s=step_s, end_s=end_s)
    for factor in _CANDIDATE_FACTORS:
        weaker = replace(
            settings,
            high=tuple(max(high, _MIN_CANDIDATE_THRESHOLD) * factor for high in settings.high),
            low=tuple(max(low, _MIN_CANDIDATE_THRESHOLD) * factor for low in settings.low),
            exclusive=False,
        )
        more = decode_events(time_s, scores, labels, weaker, video=video, step_s=step_s, end_s=end_s)
        candidates += [event for event in more if not any(_overlap(event, other) for other in candidates)]
    return candidates


def _overlap(a: Event, b: Event) -> bool:
    return a.label == b.label and a.start_s < b.end_s and b.start_s < a.end_s


def _runs(keeps: Array) -> list[tuple[int, int, int]]:
    """Return the runs of True in each column of bool [n,C] as (first, stop, label), sorted by stop."""
    edges = np.diff(keeps.astype(np.int8), axis=0, prepend=0, append=0)
    label, first = np.nonzero(edges.T == 1)
    stop = np.nonzero(edges.T == -1)[1]
    order = np.lexsort((first, stop))
    return [(int(first[i]), int(stop[i]), int(label[i])) for i in order]


class FixedWindowDecoder:
    """Cuts a recording into consecutive events of fixed length, for models that only write captions.

    Takes the place of an `EventDecoder`. An event starts where the previous one ends, or, if a window from there would
    contain no frame, at the next frame.

    Args:
        label: Label of all events.
        video: Name of the recording in the events.
        length_s: Length of an event; the last one lasts 0.5 to 1.5 times as long if the recording is long enough.
        step_s: Seconds between samples. The first event starts at 0 if the first frame is earlier than this, else with
            the first frame.
    """

    def __init__(self, label: str, *, video: str, length_s: float, step_s: float) -> None:
        self._label, self._video, self._length_s, self._step_s = label, video, length_s, step_s
        self._start_s: float | None = None  # None before the first frame
        self._last_s = 0.0  # time of the latest frame

    def push(self, time_s: Array, scores: Array, next_s: float | None = None) -> tuple[list[Event], list[Event]]:
        """Add the next frames, float64 [n]; scores are ignored. Returns the events opened and closed by them."""
        closed = []
        for frame_s in time_s.tolist():
            if self._start_s is None:
                self._start_s = 0.0 if frame_s < self._step_s else frame_s
            while frame_s >= self._start_s + (1 + WINDOW_DELAY) * self._length_s:
                end_s = self._start_s + self._length_s
                closed.append(self._event(self._start_s, end_s))
                next_is_empty = self._last_s < end_s and frame_s >= end_s + self._length_s
                self._start_s = frame_s if next_is_empty else end_s
            self._last_s = frame_s
        return closed, closed

    def finish(self, end_s: float) -> tuple[list[Event], list[Event]]:
        """Close the last event at the end of the recording. Returns as `push`."""
        closed = [self._event(self._start_s, end_s)] if self._start_s is not None and end_s > self._start_s else []
        return closed, closed

    def _event(self, start_s: float, end_s: float) -> Event:
        return Event(video=self._video, start_s=start_s, end_s=end_s, label=self._label, score=1.0)
