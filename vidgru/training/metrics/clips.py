"""Metrics of clips labelled as a whole. NumPy in, plain values out: every result can be written as JSON.

A class without a true clip has no recall. It is listed under `absent` and left out of macro means, instead of
counting as 0 or as 1. Everything is computed over weighted clips, because the bootstrap resamples recordings: a
resample is a weight per clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vidgru.training.metrics.ranking import RankedClips, bootstrap, ratio
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
    """Compute metrics of clips with exactly one label.

    Args:
        scores: [n, C], any scale; the highest is the prediction, the first of equals.
        truth: int [n], index of the true class.
        names: C class names.
        videos: The recording of each clip; adds `intervals`.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        clips, accuracy, balanced_accuracy (mean recall), macro_f1 (both over classes that are present),
        top5_accuracy (with more than 5 classes), per_class {name: {precision, recall, f1, support}}, absent [names],
        names, confusion [[C] C] (rows are true, columns predicted), and intervals {metric: [low, high]}: 95 %
        percentile bootstrap over recordings, of accuracy, balanced_accuracy and macro_f1. Undefined rates are 0 for
        precision and f1, None for the recall of an absent class. Without clips all are None.

    Raises:
        ValueError: Shapes do not match, scores are not finite, or two classes have the same name.
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
    hits, support, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    result: dict[str, Any] = {"clips": len(truth), **headline(np.ones(len(truth)))}
    if size > _TOP:
        true_score = np.take_along_axis(scores, truth[:, None], axis=1)
        earlier = np.arange(size) < truth[:, None]
        rank = ((scores > true_score) | ((scores == true_score) & earlier)).sum(axis=1)
        result[f"top{_TOP}_accuracy"] = _mean((rank < _TOP).sum(), len(truth))
    result["per_class"] = _per_class(names, hits, support, predicted)
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
    """Compute metrics of clips with any number of labels.

    Args:
        scores: [n, C], 0 to 1.
        truth: bool [n, C], or 0 and 1.
        names: C class names.
        thresholds: A label is predicted where its score is at least this; one for all, or [C].
        videos: The recording of each clip; adds `intervals`.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        clips, accuracy (all labels of a clip correct and no other), map (mean average precision), macro_f1 (both over
        classes that are present), micro_f1, per_class {name: {ap, precision, recall, f1, support}}, absent [names],
        names, and intervals {metric: [low, high]}: 95 % percentile bootstrap over recordings. Average precision is
        the sum of precision over steps of recall, without interpolation, equal scores taken as one step, as in
        scikit-learn (`average_precision_score`). None stands for undefined.

    Raises:
        ValueError: Shapes do not match, scores are not finite, or two classes have the same name.
    """
    scores, truth = np.asarray(scores), np.asarray(truth).astype(bool)
    _check(scores, truth.shape == scores.shape, names)
    predicted = scores >= np.asarray(thresholds)
    all_correct = (predicted == truth).all(axis=1)
    both = predicted & truth
    ranked = RankedClips(scores, truth)

    def headline(weights: Array) -> dict[str, float | None]:
        hits, support, number = weights @ both, weights @ truth, weights @ predicted
        present = support > 0
        return {
            "accuracy": _mean(weights @ all_correct, weights.sum()),
            "map": _macro(ranked.average_precision(weights), present),
            "macro_f1": _macro(ratio(2 * hits, support + number), present),
            "micro_f1": _mean(2 * hits.sum(), support.sum() + number.sum()),
        }

    result: dict[str, Any] = {"clips": len(truth), **headline(np.ones(len(truth)))}
    support = truth.sum(axis=0)
    per_class = _per_class(names, both.sum(axis=0), support, predicted.sum(axis=0))
    for name, value, number in zip(names, ranked.average_precision(np.ones(len(truth))), support, strict=True):
        per_class[name] = {"ap": float(value) if number else None, **per_class[name]}
    result["per_class"] = per_class
    result["absent"] = [name for name, number in zip(names, support, strict=True) if not number]
    result["names"] = list(names)
    if videos is not None:
        result["intervals"] = bootstrap(headline, videos, resamples=resamples, seed=seed)
    return result


def clip_curves(scores: Array, truth: Array, names: Sequence[str]) -> dict[str, tuple[Array, Array]]:
    """Recall and precision of each class that has true clips, both float64 [points], starting at recall 0.

    Arguments are those of `multilabel_metrics`.
    """
    scores, truth = np.asarray(scores), np.asarray(truth).astype(bool)
    _check(scores, truth.shape == scores.shape, names)
    ranked = RankedClips(scores, truth)
    return {name: ranked.curve(column) for column, name in enumerate(names) if truth[:, column].any()}


def _check(scores: Array, matches_truth: bool, names: Sequence[str]) -> None:
    if scores.ndim != 2 or scores.shape[1] != len(names) or not matches_truth:
        raise ValueError(f"scores must be [clips, {len(names)} classes] and match the truth, got {list(scores.shape)}")
    if len(set(names)) < len(names):
        raise ValueError(f"class names must differ, got {list(names)}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")


def _mean(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _macro(values: Array, present: Array) -> float | None:
    return float(values[present].mean()) if present.any() else None


def _per_class(names: Sequence[str], hits: Array, support: Array, predicted: Array) -> dict[str, dict[str, Any]]:
    precision, recall, f1 = ratio(hits, predicted), ratio(hits, support), ratio(2 * hits, support + predicted)
    return {
        name: {
            "precision": float(precision[i]),
            "recall": float(recall[i]) if support[i] else None,
            "f1": float(f1[i]),
            "support": int(support[i]),
        }
        for i, name in enumerate(names)
    }
