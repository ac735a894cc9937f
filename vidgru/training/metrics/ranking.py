"""Average precision of things sorted by score: clips, events and frames.

Each ranking is sorted once and then judged under any weights, because the bootstrap draws recordings: a resample is a
weight for each. A threshold lies between two scores, never inside a run of equal ones, so that the order in which
equal scores come does not matter.
"""

from __future__ import annotations

import numpy as np

from vidgru.types import Array

_STEPS = 200  # of recall, that frames are counted in


def ratio(part: Array, whole: Array) -> Array:
    """part / whole, 0 where there is nothing to divide by."""
    result: Array = np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) > 0)
    return result


def share(part: Array, whole: Array) -> Array:
    """part / whole, NaN (not defined) where there is nothing to divide by."""
    result: Array = np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)
    return result


class RankedClips:
    """Clips by falling score, for each class; average precision without interpolation, as scikit-learn defines it.

    Args:
        scores: [n, C].
        truth: bool [n, C].
    """

    def __init__(self, scores: Array, truth: Array) -> None:
        self._order = np.argsort(-scores, axis=0, kind="stable")
        ranked = np.take_along_axis(scores, self._order, axis=0)
        self._truth = np.take_along_axis(truth, self._order, axis=0)
        self._last = np.ones(scores.shape, dtype=bool)  # of a run of equal scores
        self._last[:-1] = ranked[:-1] != ranked[1:]

    def average_precision(self, weights: Array) -> Array:
        """float64 [C] for weights [n]; 0 for classes without a true clip."""
        weight = weights[self._order]
        hits = np.cumsum(weight * self._truth, axis=0)
        precision = ratio(hits, np.cumsum(weight, axis=0))
        # recall gained since the last threshold
        reached = np.maximum.accumulate(np.where(self._last, hits, 0.0), axis=0)
        gained = np.diff(reached, axis=0, prepend=0.0)
        return ratio((gained * precision).sum(axis=0), hits[-1] if len(hits) else np.zeros(hits.shape[1]))

    def curve(self, column: int) -> tuple[Array, Array]:
        """Recall and precision of a class, both [points], from recall 0; empty without a true clip."""
        hits = np.cumsum(self._truth[:, column])
        if not len(hits) or not hits[-1]:
            return np.zeros(0), np.zeros(0)
        last = self._last[:, column]
        recall, precision = hits[last] / hits[-1], hits[last] / (np.flatnonzero(last) + 1)
        return np.append(0.0, recall), np.append(precision[:1], precision)


class RankedEvents:
    """Found events of one label by falling score, and which of them are right under each of K ways to judge.

    Average precision is interpolated (the best precision at this recall or more), as Pascal VOC 2010 to 2012,
    ActivityNet and E2E-Spot have it.

    Args:
        scores: float64 [n].
        videos: int64 [n], index of the recording each is in.
        right: bool [K, n].
        support: [V], number of true events in each recording.
    """

    def __init__(self, scores: Array, videos: Array, right: Array, support: Array) -> None:
        order = np.argsort(-scores, kind="stable")
        falling = -scores[order]
        self._videos, self._right, self._support = videos[order], right[:, order], support
        self._last = np.searchsorted(falling, falling, side="right") - 1  # of the run of equal scores

    def average_precision(self, weights: Array) -> Array:
        """float64 [R, K] for weights [R, V]; NaN without a true event."""
        support = weights @ self._support
        drawn = weights[:, self._videos]
        called = np.cumsum(drawn, axis=1)
        area = np.zeros((len(weights), len(self._right)))
        for k, right in enumerate(self._right):
            gained, precision = self._steps(np.flatnonzero(right), drawn, called)
            area[:, k] = (gained * precision).sum(axis=1)
        return share(area, support[:, None])

    def curve(self, k: int) -> tuple[Array, Array]:
        """Recall and interpolated precision, both [points], from recall 0; empty without a true event."""
        support = self._support.sum()
        if not support:
            return np.zeros(0), np.zeros(0)
        drawn = np.ones((1, len(self._videos)))
        gained, precision = self._steps(np.flatnonzero(self._right[k]), drawn, np.cumsum(drawn, axis=1))
        return np.append(0.0, np.cumsum(gained) / support), np.append(precision.max(initial=0.0), precision[0])

    def _steps(self, at: Array, drawn: Array, called: Array) -> tuple[Array, Array]:
        """Weight and interpolated precision where recall moves, at the events that are right: both [R, len(at)]."""
        gained = drawn[:, at]
        # of equal scores only the last has all their hits: it has the highest precision, which all of them take
        precision = ratio(np.cumsum(gained, axis=1), called[:, self._last[at]])
        return gained, np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]


class RankedFrames:
    """Frames by falling score for one label; average precision as scikit-learn defines it.

    Resamples count frames by recording in at most 200 steps of recall: those of a step are taken as one, which moves
    the figure by about 1 / 200 at most, and not at all while there are no more true frames than steps.

    Args:
        scores: [n].
        truth: bool [n].
        videos: int64 [n], index of the recording each is from.
        recordings: V.

    Attributes:
        exact: average precision of all frames; NaN without a true one.
    """

    def __init__(self, scores: Array, truth: Array, videos: Array, recordings: int) -> None:
        order = np.argsort(-scores, kind="stable")
        falling, truth, videos = -scores[order], truth[order], videos[order]
        true = int(truth.sum())
        last = np.flatnonzero(np.diff(falling, append=np.inf))  # of each run of equal scores
        hits = np.cumsum(truth)
        gained = np.diff(hits[last], prepend=0)
        self.exact = float((gained * hits[last] / (last + 1)).sum() / true) if true else float("nan")
        # a step ends with true frames of one score; false ones above them are in it, those below are in the next
        step = (hits - truth)[np.searchsorted(falling, falling, side="left")]
        if true > _STEPS:
            step = step * _STEPS // true
        size = min(true, _STEPS) + 1
        cell = videos * size + step
        self._frames = np.bincount(cell, minlength=recordings * size).reshape(recordings, size).astype(np.float64)
        self._true = np.bincount(cell, truth, minlength=recordings * size).reshape(recordings, size)

    def average_precision(self, weights: Array) -> Array:
        """float64 [R] for weights [R, V]; NaN without a true frame."""
        gained = weights @ self._true
        hits = np.cumsum(gained, axis=1)
        area = (gained * ratio(hits, np.cumsum(weights @ self._frames, axis=1))).sum(axis=1)
        return share(area, hits[:, -1])
