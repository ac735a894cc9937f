"""Judging a model on annotated recordings, through the code that predicts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vidgru.cache import SequenceCache
from vidgru.config import EvalConfig, uses_imported_detections
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import (
    Dataset,
    EventTimeline,
    described_segments,
    event_timelines,
    without_placeholder_labels,
)
from vidgru.datasets.splits import assign_splits
from vidgru.errors import AnnotationError, SettingsMismatchError, WeightsError
from vidgru.extraction.import_detections import DetectionSource, open_detections
from vidgru.extraction.pipeline import feature_settings_for
from vidgru.model.captioner import BEAM
from vidgru.model.checkpoint import (
    EventModel,
    HeadSpec,
    check_detection_source,
    check_feature_settings,
    detector_settings,
    entry_digest,
    load_model,
)
from vidgru.model.features import stream_features
from vidgru.model.scoring import EncodedRecording, encode_recording, score_clips
from vidgru.model.stream import rank_events, score_encoded
from vidgru.storage import write_json
from vidgru.training.data import FeatureLocations, check_labels, extract_missing, place, whole_clips
from vidgru.training.evaluate_captions import description_table, evaluate_captions
from vidgru.training.evaluation_plots import plot_average_precision, plot_precision_recall, plot_timelines
from vidgru.training.metrics.clips import clip_curves
from vidgru.training.metrics.events import FrameScores, event_curves, event_metrics
from vidgru.training.plots import plot_confusion
from vidgru.training.validation import evaluate_clips
from vidgru.types import DESCRIBED, Annotation, Array, Event, Features

_CLIP_HEADLINES = ("accuracy", "balanced_accuracy", "map", "macro_f1", "micro_f1")
_EVENT_HEADLINES = (
    "event_f1", "event_precision", "event_recall", "event_f1_30", "map", "map_50", "map_thumos", "frame_map",
    "false_alarms_per_hour", "segment_f1_50", "edit", "spotting_map",
)  # fmt: skip


def evaluate(model_path: str | Path, dataset_path: str | Path, config: EvalConfig) -> dict[str, Any]:
    """Judge a model on a split of a data set: prints tables, writes `metrics.json` and plots.

    Clips labelled as a whole are judged by the head for clips. Recordings with timed events are scored whole, as
    prediction does it, and their events judged, whichever heads the model has. Missing features are made with the
    model's settings. Recordings that cannot be read are left out and named.

    Args:
        model_path: a model file, or a training run's folder.
        dataset_path: as for `load_dataset`.
        config: the split, and where things are.

    Returns:
        What `metrics.json` holds: `split`, `dataset`, `failed` {video: why}, `seen_in_training` (recordings the model
        was trained on); of clips, as `classification_metrics` (or `multilabel_metrics`) gives it; `events`, as
        `event_metrics` gives it, with its `event_f1`, `map_50` and `frame_map` repeated at the top; `descriptions`, as
        `evaluate_captions` gives it, with its `cider_d` repeated at the top.

    Raises:
        ModelError, AnnotationError, WeightsError, SettingsMismatchError, OutputError: each with its remedy.
    """
    model = load_model(model_path)
    detection_source = _detection_source(model, config)
    seen = detection_source.find if detection_source else None
    dataset = assign_splits(load_dataset(dataset_path, allow_missing=config.allow_missing, seen=seen))
    if dataset.labels == (DESCRIBED,) and model.labels != (DESCRIBED,):
        dataset = without_placeholder_labels(dataset)
    whole = whole_clips(dataset, config.split) if model.task.clip_head else []
    timed = event_timelines(dataset, config.split) if model.task.frame_head or model.task.clip_head else []
    told = described_segments(dataset, config.split) if model.caption else []
    if not (whole or timed or told):
        wanted = "clips" if model.task.clip_head else "timed events" if model.task.frame_head else "descriptions"
        raise AnnotationError(
            f"{dataset.source}: no {wanted} in split {config.split!r}",
            f"it has {', '.join(dataset.splits)}; choose one with --split",
        )
    check_labels(model.task, dataset, whole, timed)
    cache = detection_source.cache(config.features) if detection_source else SequenceCache(config.features)
    videos = [one.video for kind in (whole, timed, told) for one in kind]
    extracted = _features(model, dataset, videos, cache, config, detection_source)
    encoded = {video: encode_recording(model, cache.parts(key)) for video, key in extracted.keys.items()}
    known = sum(entry_digest(key) in model.trained_on for key in extracted.keys.values())
    if known and config.split not in ("train", "val"):
        # Splits that are made anew for other rows move recordings.
        print(
            f"warning: the model was trained on {known} of these {len(encoded)} recordings; figures flatter it",
            file=sys.stderr,
        )
    out = Path(config.out).expanduser()
    metrics: dict[str, Any] = {
        "split": config.split,
        "dataset": str(dataset.source),
        "failed": extracted.failed,
        "seen_in_training": known,
    }

    def read(video: str) -> Features:
        return Features.concatenate(list(stream_features(cache.parts(extracted.keys[video]), model.feature_spec)))

    metrics |= evaluate_model(
        model, extracted.dataset, config.split, encoded, read, intervals=True, out=out, beam=config.beam
    )
    write_json(out / "metrics.json", metrics)
    print(table(metrics))
    return metrics


def _detection_source(model: EventModel, config: EvalConfig) -> DetectionSource | None:
    """What a detector saw that was run elsewhere, if the model reads such.

    Raises:
        SettingsMismatchError: it does and there is none, or the other way round.
    """
    if not config.imported.detections:
        if uses_imported_detections(model.feature_settings):
            raise SettingsMismatchError(
                "the model reads what a detector saw that was run elsewhere", "pass it with --detections"
            )
        return None
    check_detection_source(model, {"detections": True}, f"the sequences of {config.imported.detections}")
    return open_detections(config.imported, detector_settings(model), model.feature_settings)


def _features(
    model: EventModel,
    dataset: Dataset,
    videos: list[str],
    cache: SequenceCache,
    config: EvalConfig,
    detection_source: DetectionSource | None,
) -> FeatureLocations:
    """Features of recordings as the model reads them."""
    detect = detector_settings(model, config.weights)
    if detection_source:
        return extract_missing(dataset, videos, cache, model.feature_settings, detect, config.runtime, detection_source)
    paths = {video: dataset.recordings[video].path for video in videos}
    if missing := [video for video, path in paths.items() if cache.lookup(path, model.feature_settings) is None]:
        try:
            here = feature_settings_for(detect)
        except WeightsError:
            for video in missing:
                if other := cache.last_entry(paths[video]):
                    check_feature_settings(model, other.feature_settings, f"the features of {video} in {cache.root}")
            raise
        check_feature_settings(model, here, f"the features that {detect.weights} makes")
    return extract_missing(dataset, videos, cache, model.feature_settings, detect, config.runtime)


def evaluate_model(
    model: EventModel,
    dataset: Dataset,
    split: str,
    encoded: Mapping[str, EncodedRecording],
    read: Callable[[str], Features],
    *,
    intervals: bool,
    out: Path | None = None,
    beam: int = BEAM,
) -> dict[str, Any]:
    """Metrics of a split: of clips labelled as a whole, if the model has a head for them, of timed events, and of
    descriptions, if it writes any.

    Args:
        model: that is judged.
        dataset: its times held against the recordings' lengths.
        split: its name.
        encoded: every recording of the split.
        read: gives the features of one of them, whole.
        intervals: whether to compute bootstrap intervals, over recordings.
        out: folder of the plots; None draws none.
        beam: sentences that are followed at once in writing a description.

    Returns:
        As `evaluate`, without what that says of the run.
    """
    metrics: dict[str, Any] = {}
    if placed := place(dataset, split, {video: some.time_s for video, some in encoded.items()}, model.task):
        scores = score_clips(model, [encoded[clip.video].vectors for clip in placed])
        metrics |= evaluate_clips(model, scores, placed, intervals=intervals)
        if out and model.task.clip_head:
            _draw_clips(metrics, scores, np.stack([clip.labels for clip in placed]), model.task.clip_head, split, out)
    found: list[Event] = []
    if (timed := event_timelines(dataset, split)) and (model.task.frame_head or model.task.clip_head):
        events, found = _judge_events(model, dataset, timed, encoded, intervals=intervals, out=out)
        metrics |= {name: events[name] for name in ("event_f1", "map_50", "frame_map")} | {"events": events}
    searched = {timeline.video for timeline in timed}
    if model.caption and (told := evaluate_captions(model, dataset, split, read, found, searched, beam=beam)):
        metrics |= {"cider_d": told["cider_d"], "descriptions": told}
    return metrics


def _draw_clips(
    metrics: Mapping[str, Any], scores: Array, labels: Array, head: HeadSpec, title: str, out: Path
) -> None:
    if not head.multi_label:
        plot_confusion(metrics["confusion"], metrics["names"], out / "confusion.png", title=title)
        return
    plot_precision_recall(clip_curves(scores, labels > 0, metrics["names"]), out / "clip_curves.png", title=title)
    ap = {name: values["ap"] for name, values in metrics["per_class"].items()}
    plot_average_precision(ap, out / "clip_ap.png", title=title)


def _judge_events(
    model: EventModel,
    dataset: Dataset,
    timed: list[EventTimeline],
    encoded: Mapping[str, EncodedRecording],
    *,
    intervals: bool,
    out: Path | None,
) -> tuple[dict[str, Any], list[Event]]:
    """Metrics of timed events, and those that were found."""
    truth: list[Annotation] = []
    found: list[Event] = []
    ranked: list[Event] = []
    frames: dict[str, FrameScores] = {}
    recordings = []
    for timeline in timed:
        some = encoded[timeline.video]
        seen_s = float(some.time_s[-1]) + 1 / model.fps if len(some) else 0.0
        duration_s = min(dataset.durations.get(timeline.video, seen_s), max(seen_s, 1 / model.fps))
        recordings.append((some, timeline.video, duration_s))
    for timeline, (_, video, duration_s), scored in zip(
        timed, recordings, score_encoded(model, recordings), strict=True
    ):
        truth += [
            Annotation(video=video, start_s=start_s, end_s=end_s, label=dataset.labels[label])
            for start_s, end_s, label in timeline.events
        ]
        # what other splits say of the same recording is neither right nor wrong here
        found += [event for event in scored.events if not _inside(event, timeline.ignored)]
        weaker = rank_events(model, scored, video=video, duration_s=duration_s)
        ranked += [event for event in weaker if not _inside(event, timeline.ignored)]
        frames[video] = FrameScores(time_s=scored.time_s, scores=scored.scores, duration_s=duration_s)
    metrics = event_metrics(
        truth,
        found,
        ranked,
        frames,
        model.labels,
        exclusive=model.decode.exclusive,
        half_width_s=dataset.half_width_s,
        intervals=intervals,
    )
    if out:
        title = timed[0].split
        plot_precision_recall(
            event_curves(truth, ranked, list(frames), model.labels), out / "event_curves.png", title=title
        )
        ap = {name: values["ap_50"] for name, values in metrics["per_class"].items()}
        plot_average_precision(ap, out / "event_ap.png", title=f"{title}, tIoU 0.5")
        plot_timelines(truth, found, frames, model.labels, out / "timelines.png")
    return metrics, found


def _inside(event: Event, spans: tuple[tuple[float, float], ...]) -> bool:
    """Whether an event lies in one of the spans by more than half."""
    most = max((min(event.end_s, end_s) - max(event.start_s, start_s) for start_s, end_s in spans), default=0.0)
    return most > (event.end_s - event.start_s) / 2


def table(metrics: Mapping[str, Any]) -> str:
    """Metrics as text: a line a class, then the headlines with their intervals; of clips, then of events."""
    lines = []
    if "per_class" in metrics:
        lines += _classes(metrics["per_class"], "clips")
        lines += [f"{metrics['clips']} clips", *_headlines(metrics, _CLIP_HEADLINES)]
    if "events" in metrics:
        events = metrics["events"]
        lines += _classes(events["per_class"], "events")
        lines.append(f"{events['events']} events in {events['videos']} recordings, {events['found']} found")
        lines += _headlines(events, _EVENT_HEADLINES)
    if "descriptions" in metrics:
        lines += description_table(metrics["descriptions"])
    if metrics.get("failed"):
        lines.append(f"left out, cannot be read: {', '.join(metrics['failed'])}")
    return "\n".join(lines)


def _classes(per_class: Mapping[str, Mapping[str, Any]], feature_settings: str) -> list[str]:
    wide = max(len(name) for name in per_class)
    lines = [f"{'':{wide}}  {feature_settings:>6}  precision  recall      f1"]
    for name, values in per_class.items():
        recall = "     -" if values["recall"] is None else f"{values['recall']:6.3f}"
        precision = "        -" if values["precision"] is None else f"{values['precision']:9.3f}"
        f1 = "     -" if values["f1"] is None else f"{values['f1']:6.3f}"
        lines.append(f"{name:{wide}}  {values['support']:6}  {precision}  {recall}  {f1}")
    return lines


def _headlines(metrics: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    lines = []
    for name in names:
        if metrics.get(name) is not None:
            interval = metrics.get("intervals", {}).get(name)
            spread = f"  (95 %: {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
            lines.append(f"{name} {metrics[name]:.3f}{spread}")
    return lines
