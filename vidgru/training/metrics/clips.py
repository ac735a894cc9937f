"""What a model is judged by. NumPy in, plain values out: every result can be written as JSON.

A class without a single true clip has no recall. It is named under `absent` and left out of macro means, instead of
counting as 0 or as 1. Everything is written over weighted clips, because the bootstrap draws recordings, not clips:
a resample is a weight for each clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vidgru.training.metrics.bootstrap import bootstrap
from vidgru.training.metrics.ranking import RankedClips, ratio
from vidgru.types import Array

_TOP = 5


def classification_metrics(
    scores: Array,
    truth: Array,
    names: Sequence[str],
    *,
    videos: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """How well one label a clip was told.

    Args:
        scores: [n, C], any scale; the highest is the prediction, the first of equals.
        truth: int [n], index of the true class.
        names: C class names.
        videos: n recordings that the clips are from; gives `intervals`.
        resamples, seed: of the bootstrap.

    Returns:
        clips, accuracy, balanced_accuracy (mean recall), macro_f1 (both over classes that are present),
        top5_accuracy (with more than 5 classes), per_class {name: {precision, recall, f1, support}}, absent [names],
        names, confusion [[C] C] (rows are true, columns predicted), and intervals {metric: [low, high]}: 95 %
        percentile bootstrap over recordings, of accuracy, balanced_accuracy and macro_f1. Rates with nothing to
        divide by are 0 for precision and f1, None for the recall of an absent class. Without clips all are None.

    Raises:
        ValueError: shapes that do not fit, scores that are not finite, two classes of one name.
    """
    scores, truth = np.asarray(scores), np.asarray(truth, dtype=np.int64)
    _check(scores, truth.shape == scores.shape[:1], names)
    size = len(names)
    if len(truth) and not (truth.min() >= 0 and truth.max() < size):
        raise ValueError(f"truth must be within 0 and {size - 1}, got {truth.min()} to {truth.max()}")
    cell = truth * size + scores.argmax(axis=1)

    def headline(weights: Array) -> dict[str, float | None]:
        confusion = np.bincount(cell, weights, minlength=size * size).reshape(size, size)
        support, hits = confusion.sum(axis=1), confusion.diagonal()
        present = support > 0
        f1 = ratio(2 * hits, support + confusion.sum(axis=0))
        return {
            "accuracy": _mean(hits.sum(), support.sum()),
            "balanced_accuracy": _macro(ratio(hits, support), present),
            "macro_f1": _macro(f1, present),
        }

    confusion = np.bincount(cell, minlength=size * size).reshape(size, size)
    hits, support, called = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    result: dict[str, Any] = {"clips": len(truth), **headline(np.ones(len(truth)))}
    if size > _TOP:
        own = np.take_along_axis(scores, truth[:, None], axis=1)
        earlier = np.arange(size) < truth[:, None]
        rank = ((scores > own) | ((scores == own) & earlier)).sum(axis=1)
        result[f"top{_TOP}_accuracy"] = _mean((rank < _TOP).sum(), len(truth))
    result["per_class"] = _per_class(names, hits, support, called)
    result["absent"] = [name for name, number in zip(names, support, strict=True) if not number]
    result["names"] = list(names)
    result["confusion"] = confusion.tolist()
    if videos is not None:
        result["intervals"] = bootstrap(headline, videos, resamples=resamples, seed=seed)
    return result


def multilabel_metrics(
    scores: Array,
    truth: Array,
    names: Sequence[str],
    *,
    thresholds: float | Array = 0.5,
    videos: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """How well the labels of clips with several, or none, were told.

    Args:
        scores: [n, C], 0 to 1.
        truth: bool [n, C], or 0 and 1.
        names: C class names.
        thresholds: a label is predicted where its score is at least this; one for all, or [C].
        videos: n recordings that the clips are from; gives `intervals`.
        resamples, seed: of the bootstrap.

    Returns:
        clips, accuracy (all labels of a clip right and no other), map (mean average precision), macro_f1 (both over
        classes that are present), micro_f1, per_class {name: {ap, precision, recall, f1, support}}, absent [names],
        names, and intervals {metric: [low, high]}: 95 % percentile bootstrap over recordings. Average precision is
        the sum of precision over steps of recall, without interpolation, equal scores taken as one step, as
        scikit-learn defines it (`average_precision_score`). None stands for what is not defined.

    Raises:
        ValueError: shapes that do not fit, scores that are not finite, two classes of one name.
    """
    scores, truth = np.asarray(scores), np.asarray(truth).astype(bool)
    _check(scores, truth.shape == scores.shape, names)
    called = scores >= np.asarray(thresholds)
    right = (called == truth).all(axis=1)
    both = called & truth
    ranked = RankedClips(scores, truth)

    def headline(weights: Array) -> dict[str, float | None]:
        hits, support, predicted = weights @ both, weights @ truth, weights @ called
        present = support > 0
        return {
            "accuracy": _mean(weights @ right, weights.sum()),
            "map": _macro(ranked.average_precision(weights), present),
            "macro_f1": _macro(ratio(2 * hits, support + predicted), present),
            "micro_f1": _mean(2 * hits.sum(), support.sum() + predicted.sum()),
        }

    result: dict[str, Any] = {"clips": len(truth), **headline(np.ones(len(truth)))}
    support = truth.sum(axis=0)
    per_class = _per_class(names, both.sum(axis=0), support, called.sum(axis=0))
    for name, value, number in zip(names, ranked.average_precision(np.ones(len(truth))), support, strict=True):
        per_class[name] = {"ap": float(value) if number else None, **per_class[name]}
    result["per_class"] = per_class
    result["absent"] = [name for name, number in zip(names, support, strict=True) if not number]
    result["names"] = list(names)
    if videos is not None:
        result["intervals"] = bootstrap(headline, videos, resamples=resamples, seed=seed)
    return result


def clip_curves(scores: Array, truth: Array, names: Sequence[str]) -> dict[str, tuple[Array, Array]]:
    """Recall and precision for each class that has true clips, both float64 [points], from recall 0.

    Args:
        scores, truth, names: as for `multilabel_metrics`.
    """
    scores, truth = np.asarray(scores), np.asarray(truth).astype(bool)
    _check(scores, truth.shape == scores.shape, names)
    ranked = RankedClips(scores, truth)
    return {name: ranked.curve(column) for column, name in enumerate(names) if truth[:, column].any()}


def _check(scores: Array, fits: bool, names: Sequence[str]) -> None:
    if scores.ndim != 2 or scores.shape[1] != len(names) or not fits:
        raise ValueError(f"scores must be [clips, {len(names)} classes] and fit the truth, got {list(scores.shape)}")
    if len(set(names)) < len(names):
        raise ValueError(f"class names must differ, got {list(names)}")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold values that are not finite")


def _mean(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _macro(values: Array, present: Array) -> float | None:
    return float(values[present].mean()) if present.any() else None


def _per_class(names: Sequence[str], hits: Array, support: Array, called: Array) -> dict[str, dict[str, Any]]:
    precision, recall, f1 = ratio(hits, called), ratio(hits, support), ratio(2 * hits, support + called)
    return {
        name: {
            "precision": float(precision[i]),
            "recall": float(recall[i]) if support[i] else None,
            "f1": float(f1[i]),
            "support": int(support[i]),
        }
        for i, name in enumerate(names)
    }
