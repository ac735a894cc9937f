"""What to label next: stretches that nobody has watched, each with the reason, the most useful first.

Recordings are cut where the scores of the model change (binary segmentation; Truong, Oudre and Vayatis 2020, "Selective
review of offline change point detection methods"), so that a stretch holds one kind of thing. Several criteria take
turns in choosing among the stretches, each by its value per time that watching costs (Settles, Craven and Friedland
2008, "Active learning with real annotation costs"):

- unsure: small margin between the two highest scores (Scheffer, Decomain and Wrobel 2001, "Active hidden Markov models
  for information extraction") of all members together, so that it is small where they disagree, too. With a model that
  knows little, entropy is highest where many labels are a little likely, not where the model hesitates between two. Of
  a stretch and of its recording, only the smallest margins count: a mean would hide a short event in a quiet hour.
- unlike anything labelled: distance in the state space of the recurrent layer from all that is labelled or chosen, the
  farthest first (Gonzalez 1985, "Clustering to minimize the maximum intercluster distance"; greedy k-center as in Sener
  and Savarese 2018, "Active learning for convolutional neural networks: a core-set approach"). Before there is a model,
  in the space of pooled features, where more motion counts more.
- rare label: score of labels of which there are few.
- random: what a model suggests is not a sample of the recordings; without these, figures would be too low or too high
  (Farquhar, Gal and Rainforth 2021, "On statistical bias in active learning").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from vidgru.labeling.intervals import TimeRange, merge_ranges, subtract_ranges
from vidgru.labeling.recording_view import RecordingView, view_recording
from vidgru.model.checkpoint import EventModel
from vidgru.training.data import LoadedFeatures
from vidgru.types import Array

Reason = Literal["unsure", "unlike anything labelled", "rare label", "random"]
# how often each criterion chooses
SHARES: Mapping[Reason, float] = {
    "unlike anything labelled": 0.3,
    "unsure": 0.5,
    "rare label": 0.1,
    "random": 0.1,
}
_SHARES_WITHOUT_MODEL: Mapping[Reason, float] = {"unlike anything labelled": 0.85, "random": 0.15}

_MIN_S, _MAX_S = 3.0, 12.0  # length of a stretch; gaps between labelled times may be shorter
_LEAST_S = 1.0  # shorter gaps are not suggested
_COMPARED_S = 2.0  # before and after a change point
_CHANGE = 0.25  # distance of the mean scores there
_DECISION_S = 3.0  # cost of opening and judging a stretch of any length
_TOP = 2  # number of steps of a stretch whose highest values count
_TOP_OF_RECORDING = 6  # the same of a recording
_RARE_SHARE = 0.5  # labels with fewer than this share of the mean count are rare


@dataclass(frozen=True, kw_only=True)
class LabelledTime:
    """Labelled and watched time of a recording.

    Attributes:
        known: Intervals in seconds that were watched, events included; the last may end at infinity.
        events: Start, end and label of each event; one from 0 to infinity for the label of a whole recording.
    """

    known: tuple[TimeRange, ...] = ()
    events: tuple[tuple[float, float, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A stretch to watch and label.

    Attributes:
        video: Name of the recording.
        start_s, end_s: Half-open interval in seconds.
        reason: Why it was chosen.
        label: Label that the model finds most likely there; empty if it expects none.
    """

    video: str
    start_s: float
    end_s: float
    reason: Reason
    label: str = ""


def suggest(
    model: EventModel | None,
    recordings: LoadedFeatures,
    labelled: Mapping[str, LabelledTime],
    n: int = 20,
    seed: int = 0,
    shares: Mapping[Reason, float] | None = None,
) -> list[Suggestion]:
    """Suggest up to `n` stretches to label, the most useful first; equal arguments give equal results.

    Args:
        model: The model so far; None before there is one, or if it only writes captions.
        recordings: Features of the recordings.
        labelled: Labelled and watched time by recording; others are unlabelled.
        n: Number of suggestions.
        seed: Seed of the random ones.
        shares: How often each criterion chooses; by default `SHARES`.
    """
    if model is not None and model.task.clip_head is None and model.task.frame_head is None:
        model = None
    views = [
        view_recording(model, recordings, video, features)
        for video, features in recordings.features.items()
        if len(features)
    ]
    if not views:
        return []
    candidates = _Candidates(model, views, labelled)
    shares = shares or (SHARES if model else _SHARES_WITHOUT_MODEL)
    values = candidates.values()
    turns = {reason: share for reason, share in shares.items() if reason == "random" or values[reason].any()}
    rng = np.random.default_rng(seed)
    chosen: list[Suggestion] = []
    taken: Counter[Reason] = Counter()
    while len(chosen) < n and candidates.is_free.any() and turns:
        reason = max(turns, key=lambda name: turns[name] * (len(chosen) + 1) / sum(turns.values()) - taken[name])
        number = candidates.draw(rng) if reason == "random" else candidates.best(values[reason], reason)
        taken[reason] += 1
        chosen.append(candidates.take(number, reason))
    return chosen


# --- stretches --------------------------------------------------------------------------------------------------------


def _steps(view: RecordingView, length_s: float) -> int:
    """Return the number of steps of a length, at least one."""
    return max(round(length_s / view.step_s), 1)


def _changes(view: RecordingView) -> Array:
    """Return how much the scores change at each edge of a step, without a model the features: float64 [n+1]."""
    scores = view.mean_scores if view.scores.shape[2] else view.states
    near = _steps(view, _COMPARED_S)
    sums = np.concatenate([np.zeros((1, scores.shape[1])), scores.cumsum(axis=0, dtype=np.float64)])
    at = np.arange(len(scores) + 1)
    before, after = np.maximum(at - near, 0), np.minimum(at + near, len(scores))
    means = [(sums[b] - sums[a]) / np.maximum(b - a, 1)[:, None] for a, b in ((before, at), (at, after))]
    changes: Array = np.linalg.norm(means[1] - means[0], axis=1)
    return changes


def _cut(view: RecordingView, changes: Array, span: TimeRange) -> Iterator[tuple[float, float, int, int]]:
    """Cut an interval at change points. Yields start, end, and the steps as a slice."""
    start_s, end_s = span
    largest = _CHANGE if view.scores.shape[2] else np.inf  # features have no scale: only what is too long is cut
    least, most = _steps(view, _MIN_S), _steps(view, _MAX_S)
    pending = [view.steps(start_s, end_s)]
    while pending:
        first, stop = pending.pop()
        inside = changes[first + least : stop - least + 1]
        if len(inside) and (inside.max() >= largest or stop - first > most):
            middle = first + least + int(inside.argmax())
            pending += [(middle, stop), (first, middle)]
        else:
            piece = max(start_s, float(view.edges_s[first])), min(end_s, float(view.edges_s[stop]))
            if piece[1] > piece[0]:
                yield *piece, first, stop


@dataclass(eq=False)
class _Stretches:
    """Stretches of all recordings, in lists of equal length: view, interval, and steps as a slice."""

    views: list[int] = field(default_factory=list)
    spans_s: list[TimeRange] = field(default_factory=list)
    steps: list[slice] = field(default_factory=list)

    def add(self, view: int, start_s: float, end_s: float, first: int, stop: int) -> None:
        self.views.append(view)
        self.spans_s.append((start_s, end_s))
        self.steps.append(slice(first, stop))

    def points(self, states: list[Array]) -> Array:
        """Mean and spread of the states of each: float32 [m,2 D]."""
        rows = [states[view][steps] for view, steps in zip(self.views, self.steps, strict=True)]
        both = [np.concatenate([row.mean(axis=0), row.std(axis=0)]) for row in rows]
        return np.stack(both) if both else np.zeros((0, 2 * states[0].shape[1]), np.float32)


class _Candidates:
    """Stretches that may be suggested, and those that are labelled.

    Attributes:
        is_free: bool [m], whether a stretch is not chosen yet.
    """

    def __init__(
        self, model: EventModel | None, views: list[RecordingView], labelled: Mapping[str, LabelledTime]
    ) -> None:
        self._model, self._views = model, views
        self._free, known = _Stretches(), _Stretches()
        self._counts: Counter[str] = Counter()
        for number, view in enumerate(views):
            labels, changes = labelled.get(view.video, LabelledTime()), _changes(view)
            self._counts.update(label for _, _, label in labels.events)
            end_s = float(view.edges_s[-1])
            events = merge_ranges((start_s, min(stop_s, end_s)) for start_s, stop_s, _ in labels.events)
            watched = merge_ranges((start_s, min(stop_s, end_s)) for start_s, stop_s in (*labels.known, *events))
            for start_s, stop_s, _ in labels.events:
                known.add(number, start_s, stop_s, *view.steps(start_s, stop_s))
            for span in subtract_ranges(watched, events):
                for piece in _cut(view, changes, span):
                    known.add(number, *piece)
            for span in subtract_ranges([(0.0, end_s)], watched):
                for piece in _cut(view, changes, span):
                    if piece[1] - piece[0] >= min(_LEAST_S, end_s):
                        self._free.add(number, *piece)
        states = np.concatenate([view.states for view in views])
        mean, std = states.mean(axis=0), states.std(axis=0)
        scaled = [((view.states - mean) / np.maximum(std, 1e-6)).clip(-3, 3) for view in views]
        self._points, labelled_points = self._free.points(scaled), known.points(scaled)
        self.is_free = np.ones(len(self._points), bool)
        self._lengths = np.array([end_s - start_s for start_s, end_s in self._free.spans_s])
        self._distance = np.full(len(self._points), np.inf)  # from all that is labelled or chosen
        self._chosen_distance = np.full(len(self._points), np.inf)
        for point in labelled_points:
            self._distance = np.minimum(self._distance, self._distances(point))
        self._scale = float(np.median(self._distances(self._points.mean(axis=0)))) if len(self._points) else 1.0

    def _distances(self, point: Array) -> Array:
        distances: Array = np.linalg.norm(self._points - point, axis=1)
        return distances

    def values(self) -> dict[Reason, Array]:
        """Score every stretch by every criterion, 0 and above: float64 [m] each."""
        number = len(self._points)
        values: dict[Reason, Array] = {"unlike anything labelled": self._motion()}
        if self._model is None:
            return values
        unsure, rare = np.zeros(number), np.zeros(number)
        rarity = self._rarity()
        uncertainty = [_uncertainty(view) for view in self._views]
        tops = [_top(steps, _TOP_OF_RECORDING) for steps in uncertainty]
        for m, (view, steps) in enumerate(zip(self._free.views, self._free.steps, strict=True)):
            unsure[m] = np.sqrt(_top(uncertainty[view][steps], _TOP) * tops[view])
            scores = self._views[view].mean_scores[steps, : len(rarity)]
            rare[m] = max((_top(scores[:, c], _TOP) * rarity[c] for c in np.flatnonzero(rarity)), default=0.0)
        return {**values, "unsure": unsure, "rare label": rare}

    def _motion(self) -> Array:
        """Weights of distances: equal with a model; without, from 0.5 to 1.5 by rank of motion."""
        if self._model is not None or not len(self._points):
            return np.ones(len(self._points))
        pairs = zip(self._free.views, self._free.steps, strict=True)
        motion = np.array([_top(self._views[view].motion[steps], _TOP) for view, steps in pairs])
        return 0.5 + motion.argsort().argsort() / len(motion)

    def _rarity(self) -> Array:
        """Weights of the labels of which there are few; 0 for others."""
        assert self._model is not None
        counts = np.array([self._counts[label] for label in self._model.labels], np.float64)
        return np.where(counts < _RARE_SHARE * counts.mean(), 1 / np.sqrt(1 + counts), 0.0)

    def draw(self, rng: np.random.Generator) -> int:
        """Return a free stretch, drawn by its length."""
        weights = self._lengths * self.is_free
        return int(rng.choice(len(weights), p=weights / weights.sum()))

    def best(self, values: Array, reason: Reason) -> int:
        """Return the free stretch with the highest value per cost; stretches like chosen ones are worth less.

        What is unlike anything labelled is found fastest in many short stretches. Other criteria know what to look at:
        there the cost is the square root of the time, or they would choose the label with the shortest clips.
        """
        cost_s = self._lengths + _DECISION_S
        if reason == "unlike anything labelled":
            gain = values * np.where(np.isfinite(self._distance), self._distance, 1.0) / cost_s
        else:
            gain = values * (1 - np.exp(-self._chosen_distance / self._scale)) if self._scale else values
            gain = (gain + 1e-9) / np.sqrt(cost_s)
        return int(np.where(self.is_free, gain, -1.0).argmax())

    def take(self, number: int, reason: Reason) -> Suggestion:
        """Choose a stretch."""
        self.is_free[number] = False
        distances = self._distances(self._points[number])
        self._distance = np.minimum(self._distance, distances)
        self._chosen_distance = np.minimum(self._chosen_distance, distances)
        start_s, end_s = self._free.spans_s[number]
        view, steps = self._views[self._free.views[number]], self._free.steps[number]
        label = ""
        if self._model is not None:
            scores = view.mean_scores[steps]
            top = np.array([_top(scores[:, c], _TOP) for c in range(len(self._model.labels))])
            label = self._model.labels[int(top.argmax())] if top.max() >= 0.5 * min(self._model.decode.high) else ""
        return Suggestion(
            video=view.video, start_s=round(start_s, 3), end_s=round(end_s, 3), reason=reason, label=label
        )


def _top(values: Array, number: int) -> float:
    """Mean of the highest values."""
    return float(np.sort(values)[-number:].mean())


def _uncertainty(view: RecordingView) -> Array:
    """Return how small the margin of each step is: float32 [n], 1 if there is none.

    With exclusive labels, it is the one between the two highest scores, with independent ones between yes and no for
    the least certain label.
    """
    assert view.head is not None
    scores = view.mean_scores
    if view.head.multi_label or scores.shape[1] == 1:
        margins: Array = np.abs(2 * scores - 1).min(axis=1)
    else:
        second, first = np.sort(scores, axis=1)[:, -2:].T
        margins = first - second
    return 1 - margins
