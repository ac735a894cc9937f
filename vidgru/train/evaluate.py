"""Judging a model on annotated clips, through the code that predicts."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from collections.abc import Sequence as Many
from pathlib import Path
from typing import Any

import numpy as np

from vidgru.cache import SequenceCache
from vidgru.config import EvalConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import clips
from vidgru.datasets.splits import assign_splits
from vidgru.errors import AnnotationError, WeightsError
from vidgru.extract.pipeline import weights_what
from vidgru.files import write_atomic
from vidgru.model.checkpoint import EventModel, check_what, detector_settings, digest, load_model
from vidgru.model.features import stream_features
from vidgru.model.stream import encode, score_clips
from vidgru.train.data import LabelledClip, Task, extract_missing, place
from vidgru.train.metrics import classification_metrics, multilabel_metrics
from vidgru.train.plots import plot_confusion
from vidgru.types import Array

_HEADLINES = ("accuracy", "balanced_accuracy", "map", "macro_f1", "micro_f1")


def evaluate(model_path: str | Path, dataset_path: str | Path, config: EvalConfig) -> dict[str, Any]:
    """Judge a model on a split of a data set: prints a table, writes `metrics.json` and the confusion matrix.

    Missing features are made with the model's settings. Recordings that cannot be read are left out and named.

    Args:
        model_path: a model file, or a training run's folder.
        dataset_path: as for `load_dataset`.
        config: the split, and where things are.

    Returns:
        What `metrics.json` holds: as `classification_metrics` (or `multilabel_metrics`) gives it, and `split`,
        `dataset`, `failed` {video: why}, `seen_in_training` (clips of recordings the model was trained on).

    Raises:
        ModelError, AnnotationError, WeightsError, SettingsMismatch, OutputError: each with its remedy.
    """
    model = load_model(model_path)
    task = task_of(model)
    dataset = assign_splits(load_dataset(dataset_path, allow_missing=config.allow_missing))
    wanted = clips(dataset, config.split)
    if not wanted:
        raise AnnotationError(
            f"{dataset.source}: no clips in split {config.split!r}",
            f"it has {', '.join(dataset.splits)}; choose one with --split",
        )
    task.check(dataset, wanted)
    cache, detect = SequenceCache(config.features), detector_settings(model, config.weights)
    videos = [clip.video for clip in wanted]
    paths = {video: dataset.recordings[video].path for video in videos}
    if missing := [video for video, path in paths.items() if cache.lookup(path, model.what) is None]:
        try:
            here = weights_what(detect)
        except WeightsError:
            for video in missing:
                if other := cache.remembered(paths[video]):
                    check_what(model, other.what, f"the features of {video} in {cache.root}")
            raise
        check_what(model, here, f"the features that {detect.weights} makes")
    extracted = extract_missing(dataset, videos, cache, model.what, detect, config)
    encoded = {
        video: encode(model, stream_features(cache.parts(key), model.layout)) for video, key in extracted.keys.items()
    }
    placed = place(extracted.dataset, config.split, {video: e.time_s for video, e in encoded.items()}, task)
    known = sum(digest(extracted.keys[clip.video]) in model.seen for clip in placed)
    if known and config.split not in ("train", "val"):
        # Splits that are made anew for other rows move recordings; or parts of a recording lie in several splits.
        print(
            f"warning: {known} of {len(placed)} clips are of recordings the model was trained on; figures flatter it",
            file=sys.stderr,
        )
    scores = score_clips(model, [encoded[clip.video].vectors[clip.first : clip.stop] for clip in placed])
    metrics = judge(model, scores, placed, intervals=True)
    metrics = {
        "split": config.split,
        "dataset": str(dataset.source),
        "failed": extracted.failed,
        "seen_in_training": known,
        **metrics,
    }
    out = Path(config.out).expanduser()
    write_atomic(out / "metrics.json", (json.dumps(metrics, indent=1, ensure_ascii=False) + "\n").encode())
    if "confusion" in metrics:
        plot_confusion(metrics["confusion"], metrics["names"], out / "confusion.png", title=config.split)
    print(table(metrics))
    return metrics


def task_of(model: EventModel) -> Task:
    """What a model tells apart."""
    return Task(labels=model.labels, background=model.background, multi_label=model.multi_label)


def judge(model: EventModel, scores: Array, placed: Many[LabelledClip], *, intervals: bool) -> dict[str, Any]:
    """Metrics of scores against the labels of the clips.

    Args:
        model: its task and thresholds.
        scores: float32 [n, C].
        placed: n clips.
        intervals: whether to compute bootstrap intervals, over recordings.
    """
    truth = np.stack([clip.labels for clip in placed])
    videos = [clip.video for clip in placed] if intervals else None
    names = task_of(model).names
    if model.multi_label:
        return multilabel_metrics(scores, truth, names, thresholds=np.array(model.decode.high), videos=videos)
    return classification_metrics(scores, truth.argmax(axis=1), names, videos=videos)


def table(metrics: Mapping[str, Any]) -> str:
    """Metrics as text: a line a class, then the headlines with their intervals."""
    wide = max(len(name) for name in metrics["per_class"])
    lines = [f"{'':{wide}}  clips  precision  recall      f1"]
    for name, values in metrics["per_class"].items():
        recall = "     -" if values["recall"] is None else f"{values['recall']:6.3f}"
        lines.append(f"{name:{wide}}  {values['support']:5}  {values['precision']:9.3f}  {recall}  {values['f1']:6.3f}")
    lines.append(f"{metrics['clips']} clips")
    for name in _HEADLINES:
        if metrics.get(name) is not None:
            interval = metrics.get("intervals", {}).get(name)
            spread = f"  (95 %: {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
            lines.append(f"{name} {metrics[name]:.3f}{spread}")
    if metrics.get("failed"):
        lines.append(f"left out, cannot be read: {', '.join(metrics['failed'])}")
    return "\n".join(lines)
