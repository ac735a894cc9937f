"""Why an event: what the model attended to, when its state was kept and when it was replaced, and what its score owes
to each group of features.

Attention and gates are those of the pass that found the event. For the rest the model reads the stretch around the
event again, once as it is and once without each group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidgru.model.checkpoint import EventModel
from vidgru.model.encoder import Encoder
from vidgru.model.event_decoder import smooth_scores
from vidgru.model.features import stream_features
from vidgru.model.scoring import FRAMES_PER_PASS, SlidingWindowScorer, score_frames
from vidgru.model.stream import ScoredRecording
from vidgru.types import Array, Event, Features, FrameSequence

CONTEXT_S = 30.0  # what is read before an event
LONGEST_S = 120.0  # of a longer event, its beginning alone is read again
_AROUND_S = 2.0  # before and after an event, in which its gates are looked at
_MOMENTS = 2
_APART_S = 1.0


@dataclass(frozen=True, kw_only=True)
class AttendedObject:
    """What the model looked at.

    Attributes:
        track: -1 for objects of a class that have no track.
        label: class name.
        share: 0 to 1, mean attention over the event's frames. Frames without an object add to no share.
    """

    track: int
    label: str
    share: float


@dataclass(frozen=True, kw_only=True)
class GatePeak:
    """A frame at which the gates stand out.

    Attributes:
        time_s: of the frame.
        update: 0 to 1, the share of the state that was kept.
        reset: 0 to 1, how much the state counted in what replaced the rest of it.
    """

    time_s: float
    update: float
    reset: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why an event was found.

    Attributes:
        event: which.
        score: its mean score, as it was found.
        baseline: that score where the model reads only the stretch around the event: from `CONTEXT_S` before it, and
            of an event longer than `LONGEST_S` no more than that. What `score_without` is to be held against.
        score_without: the same, by the group of features that is removed; empty where the model has no scores.
        objects: what was looked at, by share.
        keep_peaks: moments at which the state was kept most; none where the cell has no gates.
        forget_peaks: moments at which most of the state was replaced by something that does not depend on it.
    """

    event: Event
    score: float
    baseline: float
    score_without: dict[str, float]
    objects: tuple[AttendedObject, ...]
    keep_peaks: tuple[GatePeak, ...]
    forget_peaks: tuple[GatePeak, ...]


def explain_events(
    model: EventModel, parts: Sequence[FrameSequence], scored: ScoredRecording, events: Sequence[Event]
) -> list[Explanation]:
    """Why these events.

    Args:
        model: that found them, in eval mode.
        parts: the recording's stretches in order, as `SequenceCache.parts` gives them.
        scored: the recording, scored by the model.
        events: to explain, of this recording; their times may be rounded to milliseconds.

    Returns:
        One for each event.
    """
    return [_why(model, parts, scored, event) for event in events]


def event_frames(time_s: Array, event: Event) -> slice:
    """The frames of a recording that make up an event: one at least."""
    # an event's times may be cut to milliseconds, and its frames' times are not
    first, stop = (int(np.searchsorted(time_s, at - 1e-3)) for at in (event.start_s, event.end_s))
    first = min(first, len(time_s) - 1)
    return slice(first, max(stop, first + 1))


def _why(model: EventModel, parts: Sequence[FrameSequence], scored: ScoredRecording, event: Event) -> Explanation:
    own = event_frames(scored.time_s, event)
    network, scoring = model.network, model.task.frame_head or model.task.clip_head
    baseline, score_without = event.score, dict[str, float]()
    if scoring:
        baseline, score_without = _without(model, network.encoder, parts, scored.time_s, event, own)
    keep_peaks, forget_peaks = _moments(scored, event)
    return Explanation(
        event=event,
        score=event.score,
        baseline=baseline,
        score_without=score_without,
        objects=_attended(parts, scored.attention, own),
        keep_peaks=keep_peaks,
        forget_peaks=forget_peaks,
    )


def _attended(parts: Sequence[FrameSequence], attention: Array, own: slice) -> tuple[AttendedObject, ...]:
    """Mean attention over these frames by track and class, the highest first."""
    total: dict[tuple[int, int], float] = defaultdict(float)
    for piece, row in _pieces(parts, own):
        pairs, index = np.unique(np.column_stack([piece.tracks, piece.classes]), axis=0, return_inverse=True)
        sums = np.bincount(index.ravel(), weights=attention[row : row + len(piece.boxes)], minlength=len(pairs))
        for (track, kind), share in zip(pairs.tolist(), sums.tolist(), strict=True):
            total[max(track, -1), kind] += share
    names, frames = parts[0].names, own.stop - own.start
    found = [
        AttendedObject(track=track, label=names[kind] if kind < len(names) else f"class {kind}", share=share / frames)
        for (track, kind), share in total.items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.share, one.label, one.track)))


def _moments(scored: ScoredRecording, event: Event) -> tuple[tuple[GatePeak, ...], tuple[GatePeak, ...]]:
    """When the state was kept most around an event, and when it was forgotten most."""
    if scored.gates is None:
        return (), ()
    first, stop = np.searchsorted(scored.time_s, [event.start_s - _AROUND_S, event.end_s + _AROUND_S])
    time_s, update, reset = (x[first:stop] for x in (scored.time_s, scored.gates.update, scored.gates.reset))

    def highest(values: Array) -> tuple[GatePeak, ...]:
        chosen: list[int] = []
        for at in np.argsort(-values, kind="stable").tolist():
            if all(abs(time_s[at] - time_s[other]) >= _APART_S for other in chosen):
                chosen.append(at)
            if len(chosen) == _MOMENTS:
                break
        return tuple(GatePeak(time_s=float(time_s[i]), update=float(update[i]), reset=float(reset[i])) for i in chosen)

    return highest(update), highest((1 - update) * (1 - reset))


def _without(
    model: EventModel, encoder: Encoder, parts: Sequence[FrameSequence], time_s: Array, event: Event, own: slice
) -> tuple[float, dict[str, float]]:
    """Mean score of an event from the stretch around it: with all groups of features, and without each."""
    end_s = min(event.end_s, event.start_s + LONGEST_S)
    own = slice(own.start, max(own.start + 1, min(own.stop, int(np.searchsorted(time_s, end_s - 1e-3)))))
    stretch = _stretch(model, time_s, own)
    features = list(stream_features((piece for piece, _ in _pieces(parts, stretch)), model.feature_spec))
    groups = encoder.groups
    variants = [_encode(encoder, features, removed) for removed in (None, *groups)]
    scores = score_frames(model, variants) if model.task.frame_head else [_slide(model, some) for some in variants]
    column, inside = model.labels.index(event.label), slice(own.start - stretch.start, own.stop - stretch.start)
    means = [
        float(smooth_scores(time_s[stretch], some, model.decode.smooth_s)[inside, column].mean(dtype=np.float64))
        for some in scores
    ]
    return means[0], dict(zip(groups, means[1:], strict=True))


def _stretch(model: EventModel, time_s: Array, own: slice) -> slice:
    """What the model has to read for the scores of these frames."""
    half_s = model.decode.smooth_s / 2
    first_s, last_s = time_s[own.start] - half_s, time_s[own.stop - 1] + half_s
    if model.task.frame_head:
        ahead_s = CONTEXT_S if model.network.architecture.bidirectional else 0.0
        first, stop = np.searchsorted(time_s, (first_s - CONTEXT_S - 1e-6, last_s + ahead_s + 1e-6))
        return slice(
            int(first), min(len(time_s), int(stop) + model.lookahead)
        )  # the lag counts frames, however far apart
    # All windows that cover them, and none that would not be there in the whole recording but behind them.
    first, stop = np.searchsorted(time_s, (first_s - 1e-6, last_s + 1e-6))
    scorer = SlidingWindowScorer(model)
    first = max(0, int(first) - 2 * scorer.window)
    return slice(first - first % scorer.stride, min(len(time_s), int(stop) + scorer.window))


def _slide(model: EventModel, vectors: Tensor) -> Array:
    """Scores of frames, float32 [T, C], by the windows of a model of clips."""
    scorer = SlidingWindowScorer(model)
    return np.concatenate([scorer.push(vectors)[0], scorer.finish()[0]])


@torch.inference_mode()
def _encode(encoder: Encoder, features: Sequence[Features], masked_group: str | None) -> Tensor:
    """Frames as vectors, float32 [T, width], without a group of features."""
    device = encoder.object_mean.device
    vectors = []
    for part in features:
        inputs = part.objects, np.diff(part.offsets)[None], part.frame[None]
        vectors.append(encoder(*(torch.from_numpy(array).to(device) for array in inputs), masked_group).vectors[0])
    return torch.cat(vectors)


def _pieces(parts: Sequence[FrameSequence], frames: slice) -> Iterator[tuple[FrameSequence, int]]:
    """The stretches of a recording that hold these frames, cut to them, each with the row of its first object."""
    at = row = 0
    for part in parts:
        low, high = max(frames.start - at, 0), min(frames.stop - at, len(part))
        for first in range(low, high, FRAMES_PER_PASS):
            yield part.frames(first, min(first + FRAMES_PER_PASS, high)), row + int(part.offsets[first])
        at, row = at + len(part), row + len(part.boxes)
