"""Explanations of events and moments: attention to objects, gates, and the score without each feature group.

Attention and gates are those of the pass that detected the event. For the feature groups, the model scores the frames
around the event or the moment again: once as they are, and once with each group masked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vidgru.model.checkpoint import EventModel
from vidgru.model.event_decoder import smooth_scores
from vidgru.model.features import cut_parts, stream_features
from vidgru.model.scoring import EncodedRecording, SlidingWindowScorer, encode_features, score_frames
from vidgru.model.stream import ScoredRecording
from vidgru.types import Array, Event, FrameSequence

CONTEXT_S = 30.0  # read before an event when it is scored again
LONGEST_S = 120.0  # of a longer event, only the beginning is scored again
MOMENT_S = 1.0  # frames around a moment, over which its scores are averaged
_GATE_MARGIN_S = 2.0  # before and after an event, in which gate peaks are searched
_MAX_PEAKS = 2
_PEAK_DISTANCE_S = 1.0
_ROUNDING_S = 1e-3  # times of events may be rounded to milliseconds, times of frames are not


@dataclass(frozen=True, kw_only=True)
class AttendedObject:
    """An object the model attended to during an event.

    Attributes:
        track: Track id; -1 stands for all untracked objects of the class.
        label: Class name.
        share: 0 to 1, attention averaged over the event's frames; frames without objects count as 0.
    """

    track: int
    label: str
    share: float


@dataclass(frozen=True, kw_only=True)
class GatePeak:
    """A frame in which the GRU kept or replaced most of its state.

    Attributes:
        time_s: Time of the frame.
        update: 0 to 1, the fraction of the state that was kept.
        reset: 0 to 1, the weight of the old state in what replaced the rest.
    """

    time_s: float
    update: float
    reset: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why an event was detected.

    Attributes:
        event: The event.
        score: Score of the event when it was detected.
        baseline: Score when the model reads only the frames from `CONTEXT_S` before the event to its end, at most
            `LONGEST_S` of it. Reference for `score_without`.
        score_without: The same with one feature group masked, by group; empty if the model has no scores.
        objects: Objects attended to, by decreasing share.
        keep_peaks: Frames in which most of the state was kept; empty for networks without gates.
        forget_peaks: Frames in which most of the state was replaced by something independent of it.
    """

    event: Event
    score: float
    baseline: float
    score_without: dict[str, float]
    objects: tuple[AttendedObject, ...]
    keep_peaks: tuple[GatePeak, ...]
    forget_peaks: tuple[GatePeak, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class MomentScores:
    """Scores of moments, with or without an event, and what raises and lowers them: N moments, C labels, G groups.

    Attributes:
        time_s: float64 [N].
        scores: float64 [N,1+G,C], 0 to 1, mean scores of the frames in `moment_range`: with all feature groups, then
            without each of `groups`. Unlike scores of events, they are not calibrated.
        groups: Names of the feature groups.
    """

    time_s: Array
    scores: Array
    groups: tuple[str, ...]


def explain_events(
    model: EventModel, parts: Iterable[FrameSequence], scored: ScoredRecording, events: Sequence[Event]
) -> list[Explanation]:
    """Explain events of a recording.

    Args:
        model: Model that detected them, in eval mode.
        parts: Consecutive chunks of the recording, iterated over twice.
        scored: The recording, scored by the model.
        events: Events of this recording; their times may be rounded to milliseconds.

    Returns:
        One explanation per event.
    """
    untrimmed = [  # scores of events are of their full length
        model.decode.untrim(model.labels.index(event.label), event.start_s, event.end_s) for event in events
    ]
    ranges = [event_frames(scored.time_s, start_s, end_s) for start_s, end_s in untrimmed]
    attended = _attended_objects(parts, scored.attention, ranges)
    scores = [(event.score, dict[str, float]()) for event in events]
    if _has_scores(model):
        means = _ablate_groups(model, parts, scored.time_s, _scored_ranges(scored.time_s, events, ranges))
        scores = []
        for event, rows in zip(events, means.tolist(), strict=True):
            column = model.labels.index(event.label)
            baseline, *without = (model.decode.event_score(row[column]) for row in rows)
            scores.append((baseline, dict(zip(model.network.encoder.groups, without, strict=True))))
    explanations = []
    for event, objects, (baseline, score_without) in zip(events, attended, scores, strict=True):
        keep_peaks, forget_peaks = _gate_peaks(scored, event)
        explanations.append(
            Explanation(
                event=event,
                score=event.score,
                baseline=baseline,
                score_without=score_without,
                objects=objects,
                keep_peaks=keep_peaks,
                forget_peaks=forget_peaks,
            )
        )
    return explanations


def explain_moments(
    model: EventModel, parts: Iterable[FrameSequence], time_s: Array, moments_s: Sequence[float]
) -> MomentScores | None:
    """Score moments of a recording with and without each feature group.

    Args:
        model: Model in eval mode.
        parts: Consecutive chunks of the recording.
        time_s: float64 [T], times of its frames.
        moments_s: Times within the recording.

    Returns:
        The scores; None if the model has none, or the recording has no frames.
    """
    if not (_has_scores(model) and len(time_s)):
        return None
    ranges = [event_frames(time_s, *moment_range(at_s)) for at_s in moments_s]
    scores = np.clip(_ablate_groups(model, parts, time_s, ranges), 0.0, 1.0)  # rounding of sums may exceed the limits
    return MomentScores(time_s=np.array(moments_s, np.float64), scores=scores, groups=model.network.encoder.groups)


def moment_range(at_s: float) -> tuple[float, float]:
    """Return start and end of what is explained at a time, in seconds."""
    return max(at_s - MOMENT_S / 2, 0.0), at_s + MOMENT_S / 2


def event_frames(time_s: Array, start_s: float, end_s: float) -> slice:
    """Return the frames of a recording that belong to an event or a moment, at least one."""
    first, stop = (int(np.searchsorted(time_s, at_s - _ROUNDING_S)) for at_s in (start_s, end_s))
    first = min(first, len(time_s) - 1)
    return slice(first, max(stop, first + 1))


def _has_scores(model: EventModel) -> bool:
    return bool(model.task.frame_head or model.task.clip_head)


def _attended_objects(
    parts: Iterable[FrameSequence], attention: Array, ranges: Sequence[slice]
) -> list[tuple[AttendedObject, ...]]:
    """Average attention over the frames of each range by track and class, the highest first."""
    totals: list[dict[tuple[int, str], float]] = [defaultdict(float) for _ in ranges]
    for number, piece, row in cut_parts(parts, ranges):
        pairs, index = np.unique(np.column_stack([piece.tracks, piece.classes]), axis=0, return_inverse=True)
        sums = np.bincount(index.ravel(), weights=attention[row : row + len(piece.boxes)], minlength=len(pairs))
        for (track, class_index), attended in zip(pairs.tolist(), sums.tolist(), strict=True):
            name = piece.names[class_index] if class_index < len(piece.names) else f"class {class_index}"
            totals[number][max(track, -1), name] += attended
    result = []
    for total, frames in zip(totals, ranges, strict=True):
        objects = [
            AttendedObject(track=track, label=label, share=attended / (frames.stop - frames.start))
            for (track, label), attended in total.items()
        ]
        result.append(tuple(sorted(objects, key=lambda attended: (-attended.share, attended.label, attended.track))))
    return result


def _gate_peaks(scored: ScoredRecording, event: Event) -> tuple[tuple[GatePeak, ...], tuple[GatePeak, ...]]:
    """Return the frames around an event in which the GRU kept most of its state, and those in which it forgot most."""
    if scored.gates is None:
        return (), ()
    first, stop = np.searchsorted(scored.time_s, [event.start_s - _GATE_MARGIN_S, event.end_s + _GATE_MARGIN_S])
    time_s, update, reset = (x[first:stop] for x in (scored.time_s, scored.gates.update, scored.gates.reset))

    def highest(values: Array) -> tuple[GatePeak, ...]:
        peaks: list[int] = []
        for index in np.argsort(-values, kind="stable").tolist():
            if all(abs(time_s[index] - time_s[peak]) >= _PEAK_DISTANCE_S for peak in peaks):
                peaks.append(index)
            if len(peaks) == _MAX_PEAKS:
                break
        return tuple(GatePeak(time_s=float(time_s[i]), update=float(update[i]), reset=float(reset[i])) for i in peaks)

    return highest(update), highest((1 - update) * (1 - reset))


def _scored_ranges(time_s: Array, events: Sequence[Event], ranges: Sequence[slice]) -> list[slice]:
    """Return the frames of each event that are scored again: all, or its beginning."""
    result = []
    for event, frames in zip(events, ranges, strict=True):
        end_s = min(event.end_s, event.start_s + LONGEST_S)
        stop = min(frames.stop, int(np.searchsorted(time_s, end_s - _ROUNDING_S)))
        result.append(slice(frames.start, max(frames.start + 1, stop)))
    return result


def _ablate_groups(model: EventModel, parts: Iterable[FrameSequence], time_s: Array, ranges: Sequence[slice]) -> Array:
    """Return the mean scores of each range of frames, float64 [N,1+G,C]: with all feature groups, and without each."""
    contexts = _shared_contexts(time_s, [_context_frames(model, time_s, frames) for frames in ranges])
    pieces: list[list[FrameSequence]] = [[] for _ in contexts]
    for number, piece, _ in cut_parts(parts, [frames for frames, _ in contexts]):
        pieces[number].append(piece)
    variants = [model, *(_without_group(model, group) for group in model.network.encoder.groups)]
    means = np.zeros((len(ranges), len(variants), len(model.labels)))
    for (context, numbers), of_context in zip(contexts, pieces, strict=True):
        features = list(stream_features(of_context, model.feature_spec))
        encoded = [encode_features(variant, features) for variant in variants]
        if model.task.frame_head:  # which all variants share, so one pass of the recurrent layers scores all of them
            scores = score_frames(model, encoded)
        else:
            scores = [_score_windows(*pair) for pair in zip(variants, encoded, strict=True)]
        for row, values in enumerate(scores):
            smoothed = smooth_scores(time_s[context], values[:, : len(model.labels)], model.decode.smooth_s)
            for number in numbers:
                inside = slice(ranges[number].start - context.start, ranges[number].stop - context.start)
                means[number, row] = smoothed[inside].mean(axis=0, dtype=np.float64)
    return means


def _shared_contexts(time_s: Array, contexts: Sequence[slice]) -> list[tuple[slice, list[int]]]:
    """Merge contexts that overlap, as long as the result is no longer than the longest of an event.

    Returns:
        Merged contexts, each with the numbers of those that it contains.
    """
    merged: list[tuple[slice, list[int]]] = []
    for number in sorted(range(len(contexts)), key=lambda number: contexts[number].start):
        context = contexts[number]
        if merged:
            last, numbers = merged[-1]
            stop = max(last.stop, context.stop)
            if context.start < last.stop and time_s[stop - 1] - time_s[last.start] <= CONTEXT_S + LONGEST_S:
                merged[-1] = slice(last.start, stop), [*numbers, number]
                continue
        merged.append((context, [number]))
    return merged


def _context_frames(model: EventModel, time_s: Array, frames: slice) -> slice:
    """Return the frames the model has to read to score these frames."""
    half_s = model.decode.smooth_s / 2
    first_s, last_s = time_s[frames.start] - half_s, time_s[frames.stop - 1] + half_s
    if model.task.frame_head:
        ahead_s = CONTEXT_S if model.network.architecture.bidirectional else 0.0
        first, stop = np.searchsorted(time_s, (first_s - CONTEXT_S - 1e-6, last_s + ahead_s + 1e-6))
        # The lookahead counts frames, however far apart they are.
        return slice(int(first), min(len(time_s), int(stop) + model.lookahead))
    # All windows that cover the frames, at the positions they have in the whole recording (except for the last one).
    first, stop = np.searchsorted(time_s, (first_s - 1e-6, last_s + 1e-6))
    scorer = SlidingWindowScorer(model)
    first = max(0, int(first) - 2 * scorer.window)
    # A shorter context would be scored as a single window.
    return slice(first - first % scorer.stride, min(len(time_s), int(stop) + scorer.max_lookahead))


def _score_windows(model: EventModel, recording: EncodedRecording) -> Array:
    """Score frames by sliding windows, float32 [T,C]."""
    scorer = SlidingWindowScorer(model)
    return np.concatenate([scorer.push(recording)[0], scorer.finish()[0]])


def _without_group(model: EventModel, group: str) -> EventModel:
    """Return the model without the influence of a feature group on its scores."""
    linear = model.linear.without(model.feature_spec, group) if model.linear else None
    return replace(model, masked_groups=tuple({*model.masked_groups, group}), linear=linear)
