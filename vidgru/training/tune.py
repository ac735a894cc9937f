"""Fit a trained model's thresholds and trims again, on annotated recordings that it was not trained on."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vidgru.cache import SequenceCache
from vidgru.config import TuneConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import event_timelines
from vidgru.datasets.splits import assign_splits
from vidgru.errors import AnnotationError, ModelError
from vidgru.model.checkpoint import EventModel, entry_digest, load_model, model_file
from vidgru.model.event_decoder import DecodeSettings
from vidgru.model.stream import score_recording
from vidgru.storage import user_path
from vidgru.training.evaluate import extract_annotated, open_model_detections
from vidgru.training.examples import check_task_labels, recording_examples, untimed_clips
from vidgru.training.thresholds import count_events, refit_thresholds
from vidgru.types import Array


def tune(model_path: str | Path, dataset_path: str | Path, config: TuneConfig) -> Path:
    """Fit a model's thresholds and trims to annotated recordings, print what changes, and write the model.

    A recording that is labelled as a whole counts as one event. Recordings that the model was trained on are left out,
    because it scores them better than any other.

    Args:
        model_path: Model file, or the folder of a training run.
        dataset_path: As for `load_dataset`.
        config: Aim and paths.

    Returns:
        The file written.

    Raises:
        ModelError, AnnotationError, WeightsError, SettingsMismatchError, OutputError: Each with its remedy.
    """
    file = model_file(model_path)
    model = load_model(file)
    if model.task.clip_head is None and model.task.frame_head is None:
        raise ModelError(
            f"{file} only writes captions and has no thresholds", "give a model that was trained on labels"
        )
    recordings = _score_recordings(model, dataset_path, config)
    times, scores = [recording.time_s for recording in recordings], [recording.scores for recording in recordings]
    truth = [recording.events for recording in recordings]
    step_s = 1 / model.fps
    hours = sum(of.known * float(of.time_s[-1] - of.time_s[0] + step_s) for of in recordings) / 3600
    decode = refit_thresholds(
        model.decode,
        times,
        scores,
        truth,
        model.labels,
        step_s,
        hours=hours,
        min_recall=config.min_recall,
        max_false_alarms=config.max_false_alarms,
    )
    tuned = replace(model, decode=decode)
    support = np.bincount(np.concatenate(truth)[:, 2].astype(np.int64), minlength=len(model.labels))
    aim = "best F1"
    if config.min_recall is not None:
        aim = f"recall of at least {config.min_recall:g}"
    elif config.max_false_alarms is not None:
        aim = f"at most {config.max_false_alarms:g} false alarms per hour and label"
    print(f"{len(times)} recordings, {hours:.2f} hours, {support.sum()} events; aim: {aim}")
    before, after = (count_events(of, times, scores, truth, model.labels, step_s) for of in (model.decode, decode))
    print("\n".join(_table(model.decode, decode, model.labels, (before, after), support, hours)))
    for label, start_s, end_s in zip(model.labels, decode.start_trim_s, decode.end_trim_s, strict=False):
        if start_s or end_s:
            print(f"{label}: {start_s:.2f} s cut off at the start of events and {end_s:.2f} s at the end, as annotated")
    for warning in _missed_aims(config, model.labels, after, support, hours):
        print(f"warning: {warning}", file=sys.stderr)
    out = user_path(config.out) if config.out else file
    tuned.save(out)
    print(f"model: {out}")
    return out


def _missed_aims(config: TuneConfig, labels: tuple[str, ...], counts: Array, support: Array, hours: float) -> list[str]:
    """Sentences on labels with events for which no threshold reaches the aim."""
    warnings = []
    for label, events, (_, found, false) in zip(labels, support.tolist(), counts.tolist(), strict=True):
        if config.min_recall is not None and events and found < config.min_recall * events:
            warnings.append(f"{label}: no threshold reaches this recall, {found} of {events} events are found")
        if config.max_false_alarms is not None and events and false > config.max_false_alarms * hours:
            warnings.append(f"{label}: no threshold has so few false alarms, there are {false / hours:.1f} per hour")
    return warnings


@dataclass
class _ScoredRecording:
    """An annotated recording.

    Attributes:
        time_s: float64 [T], times of its frames.
        scores: float32 [T,C]; 0 where the truth is unknown, because another split labels it.
        events: float64 [E,3], start and end in seconds, as annotated, and label of each event.
        known: Share of the frames whose truth is known.
    """

    time_s: Array
    scores: Array
    events: Array
    known: float


def _score_recordings(model: EventModel, dataset_path: str | Path, config: TuneConfig) -> list[_ScoredRecording]:
    """Score the annotated recordings that the model was not trained on."""
    detection_source = open_model_detections(model, config)
    find_imported = detection_source.find if detection_source else None
    dataset = load_dataset(
        dataset_path, allow_missing=config.allow_missing, find_imported=find_imported, videos=config.videos
    )
    split = config.split or None
    dataset = assign_splits(dataset) if split else dataset
    timed = event_timelines(dataset, split)
    whole = [] if timed else untimed_clips(dataset, split)
    if not timed and not any(clip.labels for clip in whole):
        where = f"split {config.split!r}; it has {', '.join(dataset.splits)}" if split else "it"
        raise AnnotationError(f"{dataset.source}: no events in {where}", "annotate events, or choose another split")
    check_task_labels(model.task, dataset, whole, timed)
    cache = detection_source.cache(config.features) if detection_source else SequenceCache(config.features)
    videos = [annotated.video for kind in (whole, timed) for annotated in kind]
    extracted = extract_annotated(model, dataset, videos, cache, config, detection_source)
    keys = {video: key for video, key in extracted.keys.items() if entry_digest(key) not in model.trained_on}
    if not keys:
        raise AnnotationError(
            f"{dataset.source}: the model was trained on all of these {len(extracted.keys)} recordings",
            "annotate others: it scores those it was trained on better than any new one",
        )
    if number := len(extracted.keys) - len(keys):
        print(f"left out {number} of {len(extracted.keys)} recordings: the model was trained on them", file=sys.stderr)
    rows = tuple(row for row in extracted.dataset.rows if row.annotation.video in keys)
    dataset = replace(extracted.dataset, rows=rows)
    scores = {video: _score(model, cache, key) for video, key in keys.items()}
    scored = []
    if timed:  # a model of clips scores frames too, by sliding windows
        task = replace(model.task, frame_head=model.task.frame_head or model.task.clip_head)
        for recording in recording_examples(dataset, split, {video: of[0] for video, of in scores.items()}, task):
            time_s, frame_scores = scores[recording.video]
            known = recording.weights > 0
            events = np.column_stack([recording.spans_s, recording.events[:, 2]])
            scored.append(_ScoredRecording(time_s, known[:, None] * frame_scores, events, float(known.mean())))
    else:
        for clip in untimed_clips(dataset, split):
            time_s, frame_scores = scores[clip.video]
            if len(time_s):
                labels = [model.labels.index(dataset.labels[label]) for label in sorted(clip.labels)]
                end_s = time_s[-1] + 1 / model.fps
                events = np.array([(time_s[0], end_s, label) for label in labels]).reshape(-1, 3)
                scored.append(_ScoredRecording(time_s, frame_scores, events, 1.0))
    return scored


def _score(model: EventModel, cache: SequenceCache, key: str) -> tuple[Array, Array]:
    """Return the times of a recording's frames, float64 [T], and their scores, float32 [T,C]."""
    scored = score_recording(model, cache.parts(key), video="", duration_s=np.inf)
    return scored.time_s, scored.scores


def _table(
    old: DecodeSettings,
    new: DecodeSettings,
    labels: tuple[str, ...],
    counts: tuple[Array, Array],
    support: Array,
    hours: float,
) -> list[str]:
    """Lines with the thresholds and metrics of each label before and after, and the metrics of all together."""
    width = max(len("all labels"), *map(len, labels))
    lines = [f"{'':{width}}  events        threshold       precision          recall              f1  false alarms/h"]
    whole = [of.sum(axis=0) for of in counts]
    rows = [
        (label, int(support[c]), (old.high[c], new.high[c]), (counts[0][c], counts[1][c]))
        for c, label in enumerate(labels)
    ]
    for name, events, thresholds, (before, after) in [*rows, ("all labels", int(support.sum()), None, whole)]:
        cells = [f"{thresholds[0]:.2f} -> {thresholds[1]:.2f}" if thresholds else ""]
        figures = [
            (found / max(predicted, 1), found / max(events, 1), 2 * found / max(predicted + events, 1), false / hours)
            for predicted, found, false in (before, after)
        ]
        cells += [f"{a:.2f} -> {b:.2f}" for a, b in zip(*figures, strict=True)]
        lines.append(f"{name:{width}}  {events:6}  {cells[0]:>15}" + "".join(f" {cell:>15}" for cell in cells[1:]))
    return lines
