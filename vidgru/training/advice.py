"""Advice after `info`, `train` and `eval`: what holds a model back, as measured, and what to do next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vidgru.datasets.dataset import Dataset, event_timelines, frames_between
from vidgru.model.feature_spec import FeatureSpec
from vidgru.types import Array, Features

_MAX_LINES = 5
_MAX_LABELS = 10  # in one line
_FEW_EVENTS = 10  # of a label, with which a threshold is a guess
_FEW_SAMPLES = 5  # of an event; its start, course and end should be seen
_MAX_FPS = 30
_SHORT_SHARE = 0.25  # of the events of a label
_WIDE = 0.3  # 95 % interval, in which most differences between settings disappear
_CONFUSED = 0.2  # share of the clips of a label that are taken for one other label
_BEFORE_S = 2.0
_SEEN = 0.25  # score from which an object counts as detected, as in Ultralytics' predict
_LOST = 0.15  # share of the frames in which an object would be expected
_SEEN_BEFORE = 0.5  # share of the frames before an event that make a class one of its actors


def print_advice(items: Iterable[str]) -> None:
    """Print the first five items, below a title; nothing without items."""
    for line in format_advice(items):
        print(line)


def format_advice(items: Iterable[str]) -> list[str]:
    """Return the first five items as lines, below a title; nothing without items."""
    lines = [f"  - {item}" for item in items][:_MAX_LINES]
    return ["what to do next:", *lines] if lines else []


def _first(labels: list[str]) -> str:
    """Name the first of many labels in one line."""
    more = f" and {len(labels) - _MAX_LABELS} more" if len(labels) > _MAX_LABELS else ""
    return ", ".join(labels[:_MAX_LABELS]) + more


def dataset_advice(dataset: Dataset, fps: float) -> list[str]:
    """Return what the annotations lack, the most important first.

    Args:
        dataset: With splits assigned.
        fps: Samples per second.
    """
    timelines = event_timelines(dataset)
    learnt: dict[str, int] = {}
    for timeline in timelines:
        for _, _, index in timeline.events:
            is_learnt = timeline.split in ("train", "val")
            learnt[dataset.labels[index]] = learnt.get(dataset.labels[index], 0) + is_learnt
    items = short_events(dataset, fps)
    if timelines and all(timeline.events for timeline in timelines):
        items.append(
            "no recording is free of events, so false alarms are hardly measured: add recordings in which nothing "
            "happens (rows with only `video`)"
        )
    few = [f"{label} ({number})" for label, number in sorted(learnt.items()) if number < _FEW_EVENTS]
    if few and "train" in dataset.splits:
        items.append(f"few events to learn from: annotate more of {_first(few)}")
    if "test" not in dataset.splits:
        items.append("no test split: vidgru train DATASET --folds 5 measures on all recordings")
    return items


def short_events(dataset: Dataset, fps: float) -> list[str]:
    """Return the labels with many events of few samples. Arguments as for `dataset_advice`."""
    lengths: dict[str, list[float]] = defaultdict(list)
    for timeline in event_timelines(dataset):
        for start_s, end_s, index in timeline.events:
            lengths[dataset.labels[index]].append(end_s - start_s)
    items = []
    for label, seconds in lengths.items():
        short = [length for length in seconds if length * fps < _FEW_SAMPLES]
        if len(short) >= max(1, _SHORT_SHARE * len(seconds)):
            better = min(_MAX_FPS, int(np.ceil(_FEW_SAMPLES / np.quantile(seconds, _SHORT_SHARE))))
            remedy = f"raise --fps to {better}" if better > fps else "they may be too short to be found"
            items.append(
                f"{len(short)} of {len(seconds)} events of {label} have fewer than {_FEW_SAMPLES} samples at "
                f"--fps {fps:g}: {remedy}"
            )
    return items


def inexact_events(metrics: Mapping[str, Any]) -> list[str]:
    """Return whether most missed events are missed by their start or end only. As `metrics_advice`."""
    inexact = metrics.get("events", {}).get("inexact")
    if not inexact or inexact["events"] < inexact["missed"] / 2:
        return []
    start, end = (
        f"{abs(later_s):.1f} s {'late' if later_s > 0 else 'early'}" if abs(later_s) >= 0.05 else "on time"
        for later_s in (inexact["start_later_s"], inexact["end_later_s"])
    )
    return [
        f"{inexact['events']} of {inexact['missed']} missed events overlap a prediction, but at a tIoU below 0.5: "
        f"these predictions start {start} and end {end} (medians). Correct a few recordings and train with --init, "
        "or run vidgru tune"
    ]


def metrics_advice(metrics: Mapping[str, Any]) -> list[str]:
    """Return what metrics say about a model and about themselves, the most important first.

    Args:
        metrics: As returned by `evaluate`.
    """
    items = []
    if "confusion" in metrics:
        items += _confused_clips(np.array(metrics["confusion"]), metrics["names"])
    events = metrics.get("events", {})
    if confused := events.get("confused"):
        items.append(
            f"{confused['true']} is taken for {confused['predicted']} in {confused['events']} of {confused['of']} "
            "events: compare their annotations, or merge them with `labels` in a dataset YAML"
        )
    pairs = (("accuracy", metrics, "recordings"), ("event_f1", events, "recordings with events"))
    for name, of, more in pairs:
        low, high = (of.get("intervals") or {}).get(name) or (0.0, 0.0)
        if high - low > _WIDE:
            items.append(
                f"{name} may be anything from {low:.2f} to {high:.2f}: do not compare settings by it before there are "
                f"more {more} to measure on"
            )
    support = {label: values["support"] for label, values in events.get("per_class", {}).items()}
    if few := [f"{label} ({number})" for label, number in support.items() if 0 < number < _FEW_EVENTS]:
        items.append(f"few events to measure on, so thresholds and figures are a guess: {_first(few)}")
    return items


def _confused_clips(confusion: Array, names: Sequence[str]) -> list[str]:
    """Return the two labels that are confused most often, if they are often enough."""
    clips = confusion.sum(axis=1, keepdims=True)
    shares = confusion * ~np.eye(len(confusion), dtype=bool) / np.maximum(clips, 1)
    true, taken = np.unravel_index(shares.argmax(), shares.shape)
    if shares[true, taken] < _CONFUSED or confusion[true, taken] < 2:
        return []
    return [
        f"{names[true]} is taken for {names[taken]} in {confusion[true, taken]} of {clips[true, 0]} clips: compare "
        "their annotations, add clips of both, or merge them with `labels` in a dataset YAML"
    ]


def lost_objects(
    dataset: Dataset, read: Callable[[str], Features | None], feature_spec: FeatureSpec, names: Sequence[str]
) -> list[str]:
    """Return the labels during whose events the detector loses the objects, with how often.

    Args:
        dataset: Annotations whose timed events are looked at.
        read: Returns the features of a recording; None leaves it out.
        feature_spec: Their spec.
        names: Class names of the detector.
    """
    before = np.zeros((len(dataset.labels), len(names)))
    during = before.copy()
    frames_before, frames, empty = (np.zeros(len(dataset.labels)) for _ in range(3))
    for timeline in event_timelines(dataset):
        features = read(timeline.video) if timeline.events else None
        if features is None:
            continue
        is_seen = _classes_seen(features, feature_spec, len(names))
        for start_s, end_s, index in timeline.events:
            first, stop = frames_between(features.time_s, start_s, end_s)
            earlier = slice(*frames_between(features.time_s, start_s - _BEFORE_S, start_s))
            before[index] += is_seen[earlier].sum(axis=0)
            during[index] += is_seen[first:stop].sum(axis=0)
            frames_before[index] += len(is_seen[earlier])
            frames[index] += stop - first
            empty[index] += (~is_seen[first:stop].any(axis=1)).sum()
    before /= np.maximum(frames_before, 1)[:, None]
    during /= np.maximum(frames, 1)[:, None]
    kind = "a detector of boxes (yolo26n.pt), " if feature_spec.keypoints else ""
    remedy = f"try {kind}larger weights (yolo26s.pt) or a larger --imgsz"
    items = []
    for index, label in enumerate(dataset.labels):
        lost = np.where(before[index] >= _SEEN_BEFORE, 1 - during[index] / np.maximum(before[index], 0.01), 0.0)
        actor = int(lost.argmax())
        if frames[index] and empty[index] / frames[index] >= _LOST:
            share = empty[index] / frames[index]
            items.append(f"nothing is detected in {share:.0%} of the frames of {label}: {remedy}")
        elif lost[actor] >= _LOST:
            items.append(
                f"{names[actor]} is detected in {during[index, actor]:.0%} of the frames of {label}, but in "
                f"{before[index, actor]:.0%} of the {_BEFORE_S:g} s before: {remedy}"
            )
    return items


def _classes_seen(features: Features, feature_spec: FeatureSpec, classes: int) -> Array:
    """Return which classes are detected in each frame: bool [T, classes]."""
    is_seen = np.zeros((len(features), classes), bool)
    frame = np.repeat(np.arange(len(features)), np.diff(features.offsets))
    columns = feature_spec.object_groups()
    index = features.objects[:, columns["class"].start].astype(int)
    is_sure = features.objects[:, columns["score"].start] >= _SEEN
    is_seen[frame[is_sure], np.clip(index[is_sure], 0, classes - 1)] = True
    return is_seen
