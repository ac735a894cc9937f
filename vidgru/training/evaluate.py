"""Evaluate a model on annotated recordings, through the code that predicts."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidgru.cache import SequenceCache
from vidgru.config import EvalConfig, TuneConfig, uses_imported_detections
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import (
    Dataset,
    EventTimeline,
    described_segments,
    event_timelines,
    select_splits,
    without_placeholder_labels,
)
from vidgru.datasets.splits import assign_splits, groups, in_split
from vidgru.errors import AnnotationError, SettingsMismatchError, WeightsError
from vidgru.extraction.import_detections import DetectionSource, open_detections
from vidgru.extraction.pipeline import feature_settings_for
from vidgru.model.captioner import BEAM
from vidgru.model.checkpoint import (
    EventModel,
    check_detection_source,
    check_feature_settings,
    detector_settings,
    entry_digest,
)
from vidgru.model.features import stream_features
from vidgru.model.scoring import EncodedRecording, encode_recording, score_clips
from vidgru.model.stream import load_predictor, rank_events, score_encoded
from vidgru.storage import user_path, write_json
from vidgru.training.advice import inexact_events, lost_objects, metrics_advice, print_advice, short_events
from vidgru.training.data import ExtractedDataset, extract_missing
from vidgru.training.evaluate_captions import captions_table, evaluate_captions
from vidgru.training.examples import LabelledClip, check_task_labels, clip_examples, untimed_clips
from vidgru.training.metrics.clips import clip_curves
from vidgru.training.metrics.events import FrameScores, event_curves, event_metrics
from vidgru.training.metrics.matching import event_table, match_by_overlap, match_by_score, overlap
from vidgru.training.metrics.ranking import calibration
from vidgru.training.validation import clip_calibration, clip_metrics
from vidgru.types import DESCRIBED, Annotation, Array, Event, Features

_CLIP_HEADLINES = ("accuracy", "balanced_accuracy", "map", "macro_f1", "micro_f1")
_EVENT_HEADLINES = (
    "event_f1", "event_precision", "event_recall", "map", "map_50", "frame_map", "false_alarms_per_hour",
    "segment_f1_50", "edit", "spotting_map",
)  # fmt: skip
_MAX_ROWS = 20  # of all tables together, so that what a command prints fits a screen
_MAX_MISSED = 5  # missed events named
_MAX_GROUPS = 4  # groups named in the table
_MAX_SUMMARY_ROWS = 10  # likewise; training prints a report of the dataset before it


def evaluate(model_path: str | Path, dataset_path: str | Path, config: EvalConfig) -> dict[str, Any]:
    """Evaluate a model on a split of a dataset: print tables, write `metrics.json` and plots.

    The clip head is evaluated on clips that are labelled as a whole. Recordings with timed events are scored whole, as
    in prediction, and their events evaluated, whichever heads the model has. Missing features are extracted with the
    model's settings. Recordings that cannot be read are left out and listed.

    Args:
        model_path: Model file, or a training run's folder.
        dataset_path: As for `load_dataset`.
        config: Split and paths.

    Returns:
        The content of `metrics.json`: `split`, `dataset`, `failed` {video: reason}, `seen_in_training` (number of
        recordings the model was trained on); the metrics of clips, as returned by `classification_metrics` or
        `multilabel_metrics`; `events`, as returned by `event_metrics`, with its `event_f1`, `map_50` and `frame_map`
        repeated at the top; `descriptions`, as returned by `evaluate_captions`, with its `cider_d` repeated at the
        top.

    Raises:
        ModelError, AnnotationError, WeightsError, SettingsMismatchError, OutputError: Each with its remedy.
    """
    model = load_predictor(model_path).with_thresholds(config.threshold)
    detection_source = open_model_detections(model, config)
    find_imported = detection_source.find if detection_source else None
    dataset = assign_splits(
        load_dataset(
            dataset_path, allow_missing=config.allow_missing, find_imported=find_imported, videos=config.videos
        )
    )
    if dataset.labels == (DESCRIBED,) and model.labels != (DESCRIBED,):
        dataset = without_placeholder_labels(dataset)
    whole = untimed_clips(dataset, config.split) if model.task.clip_head else []
    timed = event_timelines(dataset, config.split) if model.task.frame_head or model.task.clip_head else []
    captioned = described_segments(dataset, config.split) if model.caption else []
    if not (whole or timed or captioned):
        kind = "clips" if model.task.clip_head else "timed events" if model.task.frame_head else "descriptions"
        raise AnnotationError(
            f"{dataset.source}: no {kind} in split {config.split!r}",
            f"it has {', '.join(dataset.splits)}; choose one with --split, or measure on all recordings: vidgru train "
            "DATASET --folds 5",
        )
    check_task_labels(model.task, dataset, whole, timed)
    cache = detection_source.cache(config.features) if detection_source else SequenceCache(config.features)
    videos = [annotated.video for kind in (whole, timed, captioned) for annotated in kind]
    extracted = extract_annotated(model, dataset, videos, cache, config, detection_source)
    encoded = {video: encode_recording(model, cache.parts(key)) for video, key in extracted.keys.items()}
    trained_on = sum(entry_digest(key) in model.trained_on for key in extracted.keys.values())
    if trained_on and config.split not in ("train", "val"):
        # Splits that are assigned anew, because rows were added, move recordings.
        print(
            f"warning: the model was trained on {trained_on} of these {len(encoded)} recordings; metrics are too good",
            file=sys.stderr,
        )
    out = user_path(config.out)
    metrics: dict[str, Any] = {
        "split": config.split,
        "dataset": str(dataset.source),
        "failed": extracted.failed,
        "seen_in_training": trained_on,
    }

    def read(video: str) -> Features:
        return Features.concatenate(list(stream_features(cache.parts(extracted.keys[video]), model.feature_spec)))

    metrics |= evaluate_model(
        model, extracted.dataset, config.split, encoded, read, intervals=True, out=out, beam=config.beam
    )
    write_json(out / "metrics.json", metrics)
    print(metrics_table(metrics))
    print(f"metrics: {out / 'metrics.json'}")
    evaluated = select_splits(extracted.dataset, [config.split])
    items = [*short_events(evaluated, model.fps), *metrics_advice(metrics)]
    if detection_source is None:
        items = [*lost_objects(evaluated, read, model.feature_spec, model.names), *items]
    print_advice([*inexact_events(metrics), *items])
    return metrics


def open_model_detections(model: EventModel, config: EvalConfig | TuneConfig) -> DetectionSource | None:
    """Open the imported detections, if the model reads those.

    Raises:
        SettingsMismatchError: The model reads imported detections and none are given, or the other way round.
    """
    if not config.imported.detections:
        if uses_imported_detections(model.feature_settings):
            raise SettingsMismatchError("the model expects imported detections", "pass them with --detections")
        return None
    check_detection_source(model, {"detections": True}, f"the sequences of {config.imported.detections}")
    return open_detections(config.imported, detector_settings(model), model.feature_settings)


def extract_annotated(
    model: EventModel,
    dataset: Dataset,
    videos: list[str],
    cache: SequenceCache,
    config: EvalConfig | TuneConfig,
    detection_source: DetectionSource | None,
) -> ExtractedDataset:
    """Extract missing recordings with the model's settings, after checking that its detector is at hand."""
    detector = detector_settings(model, config.weights)
    paths = {video: dataset.recordings[video].path for video in videos}
    missing = [video for video, path in paths.items() if cache.lookup(path, model.feature_settings) is None]
    if missing and not detection_source:
        try:
            if not config.weights:
                cache.check_detector(detector.weights, model.feature_settings["weights_sha256"])
            feature_settings = feature_settings_for(detector)
        except WeightsError:
            # The weights are gone; features of another detector are the more helpful thing to name, if there are any.
            for video in missing:
                if other := cache.last_entry(paths[video]):
                    check_feature_settings(model, other.feature_settings, f"the features of {video} in {cache.root}")
            raise
        check_feature_settings(model, feature_settings, f"the features of {detector.weights}")
    return extract_missing(dataset, videos, cache, model.feature_settings, detector, config.runtime, detection_source)


def evaluate_model(
    model: EventModel,
    dataset: Dataset,
    split: str,
    encoded: Mapping[str, EncodedRecording],
    read: Callable[[str], Features],
    models: Mapping[str, EventModel] | None = None,
    *,
    intervals: bool,
    out: Path | None = None,
    beam: int = BEAM,
) -> dict[str, Any]:
    """Compute the metrics of a split: of clips labelled as a whole, of timed events, and of captions.

    Args:
        model: The model.
        dataset: Dataset whose times are checked against the recordings' durations.
        split: Name of the split.
        encoded: Every recording of the split.
        read: Returns the features of a whole recording.
        models: Models that score some recordings instead of `model`, with the same labels; `encoded` is by them. Of
            these recordings, only those whose model writes captions are captioned.
        intervals: Whether to compute bootstrap intervals, over recordings.
        out: Folder of the plots; None draws none.
        beam: Beam width for writing captions.

    Returns:
        As `evaluate`, without what that says of the run.
    """
    models = models or {}
    metrics: dict[str, Any] = {}
    scores = np.zeros((0, 0), np.float32)
    times = {video: recording.time_s for video, recording in encoded.items()}
    if clips := clip_examples(dataset, split, times, model.task):
        if models:
            scores = np.stack([score_clips(models.get(c.video, model), [encoded[c.video]])[0] for c in clips])
        else:
            scores = score_clips(model, [encoded[clip.video] for clip in clips])
        metrics |= clip_metrics(model, scores, clips, intervals=intervals)
        metrics["calibration"] = clip_calibration(model, scores, clips)
        if out:
            _plot_clips(model, scores, clips, metrics, split, out)
    predicted: list[Event] = []
    if (timed := event_timelines(dataset, split)) and (model.task.frame_head or model.task.clip_head):
        events, predicted = _evaluate_events(model, dataset, timed, encoded, models, intervals=intervals, out=out)
        metrics |= {name: events[name] for name in ("event_f1", "map_50", "frame_map")} | {"events": events}
    group_of, kind = groups(dataset)
    if kind != "video":
        metrics["groups"] = {
            "by": kind,
            "metrics": _group_metrics(model, group_of, clips, scores, timed, dataset, predicted),
        }
    if model.caption:
        captioner, captioned = model, dataset
        if models:  # captions by a member that has not learnt from the recording
            captioner = next((member for member in models.values() if member.caption), model)
            captioned = in_split(dataset, [v for v, member in models.items() if member is not captioner], "", split)
        searched = {timeline.video for timeline in timed if models.get(timeline.video, captioner) is captioner}
        if captions := evaluate_captions(captioner, captioned, split, read, predicted, searched, beam=beam):
            metrics |= {"cider_d": captions["cider_d"], "descriptions": captions}
            if out:
                from vidgru.training.plots import plot_coverage

                plot_coverage(captions["coverage"], out / "caption_coverage.png", title=split)
    return metrics


def _evaluate_events(
    model: EventModel,
    dataset: Dataset,
    timed: list[EventTimeline],
    encoded: Mapping[str, EncodedRecording],
    models: Mapping[str, EventModel],
    *,
    intervals: bool,
    out: Path | None,
) -> tuple[dict[str, Any], list[Event]]:
    """Metrics of timed events, and the predicted events."""
    truth: list[Annotation] = []
    predicted: list[Event] = []
    candidates: list[Event] = []
    frames: dict[str, FrameScores] = {}
    recordings = []
    for timeline in timed:
        recording = encoded[timeline.video]
        decoded_s = float(recording.time_s[-1]) + 1 / model.fps if len(recording) else 0.0
        duration_s = min(dataset.durations.get(timeline.video, decoded_s), max(decoded_s, 1 / model.fps))
        recordings.append((recording, timeline.video, duration_s))
    if models:
        outputs = [score_encoded(models.get(video, model), [(r, video, s)])[0] for r, video, s in recordings]
    else:
        outputs = score_encoded(model, recordings)
    for timeline, (_, video, duration_s), scored in zip(timed, recordings, outputs, strict=True):
        truth += [
            Annotation(video=video, start_s=start_s, end_s=end_s, label=dataset.labels[label])
            for start_s, end_s, label in timeline.events
        ]
        # predictions where the truth is unknown are neither right nor wrong
        predicted += [event for event in scored.events if not _is_unknown(event, timeline)]
        weaker = rank_events(model, scored, video=video, duration_s=duration_s)
        candidates += [event for event in weaker if not _is_unknown(event, timeline)]
        known = timeline.known_frames(scored.time_s)
        frames[video] = FrameScores(
            time_s=scored.time_s[known],
            scores=scored.scores[known],
            duration_s=duration_s - timeline.unwatched_s(duration_s),
        )
    metrics = event_metrics(
        truth,
        predicted,
        candidates,
        frames,
        model.labels,
        exclusive=model.decode.exclusive,
        half_width_s=dataset.half_width_s,
        intervals=intervals,
    )
    videos = list(frames)
    metrics["confused"] = _confused_events(truth, predicted)
    missed = _missed_events(truth, predicted)
    metrics["inexact"] = _inexact_events(missed)
    metrics["missed"] = [
        {"video": true.video, "start": true.start_s, "end": true.end_s, "label": true.label} for true, _ in missed
    ]
    tables = event_table(truth, videos, model.labels), event_table(candidates, videos, model.labels)
    correct = match_by_score(*tables, np.array([0.5]))[0]
    metrics["calibration"] = calibration(tables[1].scores, correct)
    if out:
        _plot_events(truth, predicted, candidates, frames, metrics, model.labels, timed[0].split, out)
    return metrics, predicted


def _plot_clips(
    model: EventModel,
    scores: Array,
    clips: Sequence[LabelledClip],
    metrics: Mapping[str, Any],
    split: str,
    out: Path,
) -> None:
    """Plot metrics of clips."""
    from vidgru.training import plots  # here, because matplotlib takes 0.5 s of CPU time to import

    plots.plot_calibration(metrics["calibration"], out / "clip_calibration.png", title=split)
    if model.task.clip_head is None:
        return
    if not model.task.clip_head.multi_label:
        plots.plot_confusion(metrics["confusion"], metrics["names"], out / "confusion.png", title=split)
        return
    curves = clip_curves(scores, np.stack([clip.labels for clip in clips]) > 0, metrics["names"])
    plots.plot_precision_recall(curves, out / "clip_curves.png", title=split)
    ap = {name: values["ap"] for name, values in metrics["per_class"].items()}
    plots.plot_average_precision(ap, out / "clip_ap.png", title=split)


def _plot_events(
    truth: Sequence[Annotation],
    predicted: Sequence[Event],
    candidates: Sequence[Event],
    frames: Mapping[str, FrameScores],
    metrics: Mapping[str, Any],
    labels: Sequence[str],
    split: str,
    out: Path,
) -> None:
    """Plot metrics of events, and the events of each recording."""
    from vidgru.training import plots

    plots.plot_calibration(metrics["calibration"], out / "event_calibration.png", title=f"{split}, tIoU 0.5")
    plots.plot_precision_recall(
        event_curves(truth, candidates, list(frames), labels), out / "event_curves.png", title=split
    )
    ap = {name: values["ap_50"] for name, values in metrics["per_class"].items()}
    plots.plot_average_precision(ap, out / "event_ap.png", title=f"{split}, tIoU 0.5")
    plots.plot_timelines(truth, predicted, frames, labels, out / "timelines.png")


def _confused_events(truth: Sequence[Annotation], predicted: Sequence[Event]) -> dict[str, Any] | None:
    """Return the pair of labels that is confused most often, and how often; None if none is in two events.

    A true event is taken for another label if predictions overlap it (tIoU 0.5), but none of its own label.
    """
    predicted_of: dict[str, list[Event]] = defaultdict(list)
    for event in predicted:
        predicted_of[event.video].append(event)
    true_of: dict[str, list[Annotation]] = defaultdict(list)
    for true in truth:
        true_of[true.video].append(true)
    pairs: Counter[tuple[str, str]] = Counter()
    for video, marked in true_of.items():
        events = predicted_of[video]
        spans = (
            np.array([(event.start_s, event.end_s) for event in of], np.float64).reshape(-1, 2)
            for of in (marked, events)
        )
        for true, is_near in zip(marked, overlap(*spans) >= 0.5, strict=True):
            found = [events[column].label for column in np.flatnonzero(is_near)]
            if found and true.label and true.label not in found:
                pairs[true.label, found[0]] += 1
    if not pairs or max(pairs.values()) < 2:
        return None
    (label, taken), number = pairs.most_common(1)[0]
    of_label = sum(true.label == label for true in truth)
    return {"true": label, "predicted": taken, "events": number, "of": of_label}


def _missed_events(truth: Sequence[Annotation], predicted: Sequence[Event]) -> list[tuple[Annotation, Array | None]]:
    """Return the true events that no prediction of their label overlaps by tIoU 0.5.

    With how many seconds later the prediction that overlaps most starts and ends; None if none overlaps.
    """
    spans_of: dict[tuple[str, str | None], list[tuple[float, float]]] = defaultdict(list)
    for event in predicted:
        spans_of[event.video, event.label].append((event.start_s, event.end_s))
    missed: list[tuple[Annotation, Array | None]] = []
    for true in truth:
        span, spans = np.array([(true.start_s, true.end_s)]), np.array(spans_of[true.video, true.label]).reshape(-1, 2)
        tiou = overlap(span, spans)[0]
        if tiou.max(initial=0.0) < 0.5:
            missed.append((true, spans[tiou.argmax()] - span[0] if tiou.any() else None))
    return missed


def _inexact_events(missed: Sequence[tuple[Annotation, Array | None]]) -> dict[str, Any] | None:
    """Return how many of the missed events overlap a prediction of their label, though less than tIoU 0.5.

    With the medians in seconds of how much later these predictions start and end; None if there are fewer than two.
    """
    later = [seconds for _, seconds in missed if seconds is not None]
    if len(later) < 2:
        return None
    start_s, end_s = np.median(later, axis=0).tolist()
    return {"events": len(later), "missed": len(missed), "start_later_s": start_s, "end_later_s": end_s}


def _group_metrics(
    model: EventModel,
    group_of: Mapping[str, str],
    clips: Sequence[LabelledClip],
    scores: Array,
    timed: Sequence[EventTimeline],
    dataset: Dataset,
    predicted: Sequence[Event],
) -> dict[str, dict[str, float]]:
    """Accuracy of the clips and event F1 (tIoU 0.5) of the recordings of each group, with their numbers."""
    metrics: dict[str, dict[str, float]] = {}
    if clips and model.task.clip_head and not model.task.clip_head.multi_label:
        correct = scores.argmax(axis=1) == np.stack([clip.labels for clip in clips]).argmax(axis=1)
        for name in sorted({group_of[clip.video] for clip in clips}):
            inside = np.array([group_of[clip.video] == name for clip in clips])
            metrics[name] = {"clips": int(inside.sum()), "accuracy": float(correct[inside].mean())}
    videos = [timeline.video for timeline in timed]
    truth = [
        Annotation(video=timeline.video, start_s=start_s, end_s=end_s, label=dataset.labels[label])
        for timeline in timed
        for start_s, end_s, label in timeline.events
    ]
    true_table, predicted_table = (event_table(events, videos, model.labels) for events in (truth, predicted))
    hits = match_by_overlap(true_table, predicted_table)[0] >= 0.5
    for name in sorted({group_of[video] for video in videos}):
        of_true, of_predicted = (
            [group_of[videos[v]] == name for v in table.videos] for table in (true_table, predicted_table)
        )
        number = sum(of_true) + sum(of_predicted)
        if number:
            f1 = 2 * float(hits[of_predicted].sum()) / number
            metrics.setdefault(name, {}).update({"events": sum(of_true), "event_f1": f1})
    return metrics


def _is_unknown(event: Event, timeline: EventTimeline) -> bool:
    """Whether more than half of an event is in an ignored interval, or was not watched."""
    ignored, unwatched = (
        [max(0.0, min(event.end_s, end_s) - max(event.start_s, start_s)) for start_s, end_s in spans]
        for spans in (timeline.ignored, timeline.unwatched)
    )
    return max(*ignored, sum(unwatched), 0.0) > (event.end_s - event.start_s) / 2


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """Metrics as text of about a screen: per class, the most frequent first, then the headlines with their intervals.

    Args:
        metrics: Metrics as returned by `evaluate`.
    """
    lines = []
    max_rows = _MAX_ROWS // 2 if "per_class" in metrics and "events" in metrics else _MAX_ROWS
    if "per_class" in metrics:
        lines += _class_rows(metrics["per_class"], "clips", max_rows)
        lines += [f"{metrics['clips']} clips", *_headlines(metrics, _CLIP_HEADLINES)]
    if "events" in metrics:
        events = metrics["events"]
        lines += _class_rows(events["per_class"], "events", max_rows)
        lines.append(f"{events['events']} events in {events['videos']} recordings, {events['found']} predicted")
        lines += _headlines(events, _EVENT_HEADLINES)
    if "descriptions" in metrics:
        lines += captions_table(metrics["descriptions"])
    return "\n".join([*lines, *_missed_row(metrics), *_group_rows(metrics), *_skipped(metrics)])


def _missed_row(metrics: Mapping[str, Any]) -> list[str]:
    """A line that names missed events, so that they can be looked at or explained."""
    missed = metrics.get("events", {}).get("missed", [])
    texts = [f"{event['label']} at {event['start']:.1f} s of {event['video']}" for event in missed[:_MAX_MISSED]]
    rest = f", and {len(missed) - _MAX_MISSED} more" if len(missed) > _MAX_MISSED else ""
    return [f"missed: {', '.join(texts)}{rest}"] if missed else []


def _group_rows(metrics: Mapping[str, Any]) -> list[str]:
    """Lines for the groups with the lowest figures, which a mean over all would hide."""
    rows = []
    for name, values in metrics.get("groups", {}).get("metrics", {}).items():
        for unit, metric in (("clips", "accuracy"), ("events", "event_f1")):
            if metric in values:
                rows.append((values[metric], f"{name}: {metric} {values[metric]:.3f} ({values[unit]} {unit})"))
    if len(rows) < 2:
        return []
    shown = [text for _, text in sorted(rows)[:_MAX_GROUPS]]
    by = metrics["groups"]["by"]
    return [f"lowest of {len(rows)} by {by}: {'; '.join(shown)}"]


def metrics_summary(metrics: Mapping[str, Any]) -> str:
    """Main metrics as text: at most 10 classes, then one line per head. `metrics_table` has more.

    Args:
        metrics: Metrics as returned by `evaluate`.
    """
    events = metrics.get("events", {})
    tables = [(unit, of["per_class"]) for unit, of in (("clips", metrics), ("events", events)) if "per_class" in of]
    lines = []
    for unit, per_class in tables:
        lines += _class_rows(per_class, unit, _MAX_SUMMARY_ROWS // len(tables))
    if "per_class" in metrics:
        headlines = _headlines(metrics, ("map", "accuracy", "macro_f1"))[:2]
        lines.append(f"{metrics['clips']} clips: {', '.join(headlines)}")
    if events:
        headlines = _headlines(events, ("event_f1", "map_50"))
        lines.append(f"{events['events']} events in {events['videos']} recordings: {', '.join(headlines)}")
    if captions := metrics.get("descriptions"):
        rejected = f"{captions['templates']:.0%} below the confidence threshold"
        lines.append(f"{captions['segments']} captions: cider_d {captions['cider_d']:.3f}, {rejected}")
    return "\n".join([*lines, *_missed_row(metrics), *_group_rows(metrics), *_skipped(metrics)])


def _class_rows(per_class: Mapping[str, Mapping[str, Any]], unit: str, max_rows: int) -> list[str]:
    """A row per class, in the order of the classes; of too many only the most frequent."""
    names = list(per_class)
    if len(names) > max_rows:
        names = sorted(names, key=lambda name: -per_class[name]["support"])[:max_rows]
    width = max(len(name) for name in names)
    lines = [f"{'':{width}}  {unit:>6}  precision  recall      f1"]
    for name in names:
        values = per_class[name]
        recall = "     -" if values["recall"] is None else f"{values['recall']:6.3f}"
        lines.append(
            f"{name:{width}}  {values['support']:6}  {values['precision']:9.3f}  {recall}  {values['f1']:6.3f}"
        )
    if len(names) < len(per_class):
        lines.append(f"... and {len(per_class) - len(names)} more labels in metrics.json")
    return lines


def _skipped(metrics: Mapping[str, Any]) -> list[str]:
    failed = list(metrics.get("failed", {}))
    rest = f" and {len(failed) - _MAX_ROWS} more" if len(failed) > _MAX_ROWS else ""
    return [f"skipped, cannot be read: {', '.join(failed[:_MAX_ROWS])}{rest}"] if failed else []


def _headlines(metrics: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    lines = []
    for name in names:
        if metrics.get(name) is not None:
            interval = metrics.get("intervals", {}).get(name)
            spread = f" (95 %: {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
            lines.append(f"{name} {metrics[name]:.3f}{spread}")
    return lines
