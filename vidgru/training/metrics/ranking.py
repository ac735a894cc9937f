"""Average precision and bootstrap intervals.

Intervals are percentile bootstraps over whole recordings: clips and events of one recording resemble each other, and
drawing them one by one would make the intervals too narrow (the cluster bootstrap: Davison and Hinkley, "Bootstrap
Methods and their Application", 1997, section 3.8). A resample is a weight per recording: how often it was drawn.

That is why every ranking here is sorted once and then scored under any weights: 1000 resamples of 400 labels would
take minutes if each were sorted again. Thresholds lie between different scores, never inside a run of equal ones, so
the order of equal scores does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vidgru.types import Array

_LEVEL = 0.95
_RECALL_STEPS = 200


def ratio(part: Array, whole: Array) -> Array:
    """part / whole; 0 where whole is 0."""
    result: Array = np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.asarray(whole) > 0)
    return result


def ratio_or_nan(part: Array, whole: Array) -> Array:
    """part / whole; NaN (undefined) where whole is 0."""
    result: Array = np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)
    return result


def draw_recordings(recordings: int, *, resamples: int, seed: int) -> Array:
    """Bootstrap weights, float64 [resamples, recordings]: how often each recording is drawn; rows sum to `recordings`.

    Raises:
        ValueError: Resamples below 1.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    rng = np.random.default_rng(seed)
    rows = (rng.integers(recordings, size=recordings) for _ in range(resamples))
    return np.stack([np.bincount(row, minlength=recordings) for row in rows]).astype(np.float64)


def interval(values: Array) -> list[float] | None:
    """[low, high] of the middle 95 % of the values that are not NaN; None if all are."""
    defined = values[~np.isnan(values)]
    tail = (1 - _LEVEL) / 2
    return [float(q) for q in np.quantile(defined, (tail, 1 - tail))] if len(defined) else None


def bootstrap(
    statistics: Callable[[Array], dict[str, float | None]],
    videos: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, list[float] | None]:
    """Compute 95 % intervals of metrics of clips.

    Args:
        statistics: Maps clip weights, float64 [n], to metrics by name.
        videos: The recording of each of the n clips.
        resamples: Number of resamples, at least 1.
        seed: Seed of the draws.

    Returns:
        [low, high] by name; None with fewer than two recordings, or where the metric is undefined.
    """
    names, member = np.unique(np.asarray(videos, dtype=np.str_), return_inverse=True)
    if len(names) < 2:
        return dict.fromkeys(statistics(np.ones(len(member))))
    results = [statistics(drawn[member]) for drawn in draw_recordings(len(names), resamples=resamples, seed=seed)]
    return {name: interval(np.array([result[name] for result in results], dtype=np.float64)) for name in results[0]}


class RankedClips:
    """Clips sorted by falling score, per class. Average precision is not interpolated, as in scikit-learn.

    Args:
        scores: [n, C].
        truth: bool [n, C].
    """

    def __init__(self, scores: Array, truth: Array) -> None:
        self._order = np.argsort(-scores, axis=0, kind="stable")
        ranked = np.take_along_axis(scores, self._order, axis=0)
        self._truth = np.take_along_axis(truth, self._order, axis=0)
        self._last = np.ones(scores.shape, dtype=bool)  # last of a run of equal scores
        self._last[:-1] = ranked[:-1] != ranked[1:]

    def average_precision(self, weights: Array) -> Array:
        """Average precision, float64 [C], under weights [n]; 0 for classes without a true clip."""
        weight = weights[self._order]
        hits = np.cumsum(weight * self._truth, axis=0)
        precision = ratio(hits, np.cumsum(weight, axis=0))
        # recall gained since the last threshold
        reached = np.maximum.accumulate(np.where(self._last, hits, 0.0), axis=0)
        gained = np.diff(reached, axis=0, prepend=0.0)
        return ratio((gained * precision).sum(axis=0), hits[-1] if len(hits) else np.zeros(hits.shape[1]))

    def curve(self, column: int) -> tuple[Array, Array]:
        """Recall and precision of a class, both [points], starting at recall 0; empty without a true clip."""
        hits = np.cumsum(self._truth[:, column])
        if not len(hits) or not hits[-1]:
            return np.zeros(0), np.zeros(0)
        last = self._last[:, column]
        recall, precision = hits[last] / hits[-1], hits[last] / (np.flatnonzero(last) + 1)
        return np.append(0.0, recall), np.append(precision[:1], precision)


class RankedEvents:
    """Predicted events of one label sorted by falling score, and whether each is correct under each of K criteria.

    Average precision is interpolated (the best precision at this recall or higher), as in Pascal VOC 2010 to 2012,
    ActivityNet and E2E-Spot.

    Args:
        scores: float64 [n].
        videos: int64 [n], recording index of each event.
        correct: bool [K, n].
        support: [V], number of true events per recording.
    """

    def __init__(self, scores: Array, videos: Array, correct: Array, support: Array) -> None:
        order = np.argsort(-scores, kind="stable")
        falling = -scores[order]
        self._videos, self._correct, self._support = videos[order], correct[:, order], support
        self._last = np.searchsorted(falling, falling, side="right") - 1  # of the run of equal scores

    def average_precision(self, weights: Array) -> Array:
        """Average precision, float64 [R, K], under weights [R, V]; NaN without a true event."""
        support = weights @ self._support
        drawn = weights[:, self._videos]
        predicted = np.cumsum(drawn, axis=1)
        area = np.zeros((len(weights), len(self._correct)))
        for k, correct in enumerate(self._correct):
            gained, precision = self._recall_steps(np.flatnonzero(correct), drawn, predicted)
            area[:, k] = (gained * precision).sum(axis=1)
        return ratio_or_nan(area, support[:, None])

    def curve(self, k: int) -> tuple[Array, Array]:
        """Recall and interpolated precision, both [points], starting at recall 0; empty without a true event."""
        support = self._support.sum()
        if not support:
            return np.zeros(0), np.zeros(0)
        drawn = np.ones((1, len(self._videos)))
        gained, precision = self._recall_steps(np.flatnonzero(self._correct[k]), drawn, np.cumsum(drawn, axis=1))
        return np.append(0.0, np.cumsum(gained) / support), np.append(precision.max(initial=0.0), precision[0])

    def _recall_steps(self, at: Array, drawn: Array, predicted: Array) -> tuple[Array, Array]:
        """Weight and interpolated precision at the correct events, where recall rises: both [R, len(at)]."""
        gained = drawn[:, at]
        # of equal scores only the last has counted all their hits; its precision, the highest, holds for all of them
        precision = ratio(np.cumsum(gained, axis=1), predicted[:, self._last[at]])
        return gained, np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]


class RankedFrames:
    """Frames sorted by falling score for one label; average precision as scikit-learn defines it.

    Recordings can have millions of frames, so resamples count frames per recording in at most 200 steps of recall.
    Frames within a step are treated as equal, which changes the result by about 1 / 200 at most, and not at all with
    no more true frames than steps.

    Args:
        scores: [n].
        truth: bool [n].
        videos: int64 [n], recording index of each frame.
        recordings: Number of recordings, V.

    Attributes:
        exact: Average precision of all frames; NaN without a true one.
    """

    def __init__(self, scores: Array, truth: Array, videos: Array, recordings: int) -> None:
        order = np.argsort(-scores, kind="stable")
        falling, truth, videos = -scores[order], truth[order], videos[order]
        true = int(truth.sum())
        last = np.flatnonzero(np.diff(falling, append=np.inf))  # of each run of equal scores
        hits = np.cumsum(truth)
        gained = np.diff(hits[last], prepend=0)
        self.exact = float((gained * hits[last] / (last + 1)).sum() / true) if true else float("nan")
        # a step ends with true frames of one score: false frames above them are in it, those below are in the next
        step = (hits - truth)[np.searchsorted(falling, falling, side="left")]
        if true > _RECALL_STEPS:
            step = step * _RECALL_STEPS // true
        size = min(true, _RECALL_STEPS) + 1
        cell = videos * size + step
        self._frames = np.bincount(cell, minlength=recordings * size).reshape(recordings, size).astype(np.float64)
        self._true = np.bincount(cell, truth, minlength=recordings * size).reshape(recordings, size)

    def average_precision(self, weights: Array) -> Array:
        """Average precision, float64 [R], under weights [R, V]; NaN without a true frame."""
        gained = weights @ self._true
        hits = np.cumsum(gained, axis=1)
        area = (gained * ratio(hits, np.cumsum(weights @ self._frames, axis=1))).sum(axis=1)
        return ratio_or_nan(area, hits[:, -1])


def calibration(scores: Array, correct: Array, *, bins: int = 10) -> dict[str, Any]:
    """Compare scores with how often predictions of that score are correct.

    Args:
        scores: [n], 0 to 1.
        correct: bool [n].
        bins: Number of bins of equal width.

    Returns:
        error, the expected calibration error: mean distance of score and share of correct predictions over bins,
        weighted by predictions (Guo et al. 2017, "On Calibration of Modern Neural Networks"), None without predictions;
        and rows of (mean score, share correct, number of predictions) per bin that has any.
    """
    scores, correct = np.asarray(scores, np.float64), np.asarray(correct, np.float64)
    index = np.minimum((scores * bins).astype(np.int64), bins - 1)
    number = np.bincount(index, minlength=bins)
    used = number > 0
    mean = np.bincount(index, scores, minlength=bins)[used] / number[used]
    share = np.bincount(index, correct, minlength=bins)[used] / number[used]
    error = float((np.abs(mean - share) * number[used]).sum() / len(scores)) if len(scores) else None
    rows = [[float(m), float(c), int(n)] for m, c, n in zip(mean, share, number[used], strict=True)]
    return {"error": error, "bins": rows}
