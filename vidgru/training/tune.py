"""Fit the thresholds of a trained model again, on annotated recordings that it was not trained on."""

from __future__ import annotations

import sys
from dataclasses import replace
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
from vidgru.training.examples import TimedRecording, check_task_labels, recording_examples, untimed_clips
from vidgru.training.thresholds import count_events, refit_thresholds
from vidgru.types import Array


def tune(model_path: str | Path, dataset_path: str | Path, config: TuneConfig) -> Path:
    """Fit a model's thresholds to annotated recordings, print what changes, and write the model.

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
    recordings, times, scores = _score_recordings(model, dataset_path, config)
    events = [recording.events for recording in recordings]
    step_s = 1 / model.fps
    known = [float((recording.weights > 0).mean()) for recording in recordings]
    lengths = [float(time_s[-1] - time_s[0]) + step_s for time_s in times]
    hours = sum(share * length_s for share, length_s in zip(known, lengths, strict=True)) / 3600
    decode = refit_thresholds(
        model.decode,
        times,
        scores,
        events,
        model.labels,
        step_s,
        hours=hours,
        min_recall=config.min_recall,
        max_false_alarms=config.max_false_alarms,
    )
    tuned = replace(model, decode=decode)
    support = np.bincount(np.concatenate(events)[:, 2], minlength=len(model.labels))
    aim = "best F1"
    if config.min_recall is not None:
        aim = f"recall of at least {config.min_recall:g}"
    elif config.max_false_alarms is not None:
        aim = f"at most {config.max_false_alarms:g} false alarms per hour and label"
    print(f"{len(times)} recordings, {hours:.2f} hours, {support.sum()} events; aim: {aim}")
    before, after = (count_events(of, times, scores, events, model.labels, step_s) for of in (model.decode, decode))
    print("\n".join(_table(model.decode, decode, model.labels, (before, after), support, hours)))
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


def _score_recordings(
    model: EventModel, dataset_path: str | Path, config: TuneConfig
) -> tuple[list[TimedRecording], list[Array], list[Array]]:
    """Return the annotated recordings that the model was not trained on, the times of their frames, and their scores.

    Where the truth is unknown, because another split labels it, scores are 0.
    """
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
    scored = {video: _score(model, cache, key) for video, key in keys.items()}
    times = {video: time_s for video, (time_s, _) in scored.items()}
    if timed:  # a model of clips scores frames too, by sliding windows
        task = replace(model.task, frame_head=model.task.frame_head or model.task.clip_head)
        recordings = recording_examples(dataset, split, times, task)
    else:
        clips = [clip for clip in untimed_clips(dataset, split) if len(times[clip.video])]
        names = {clip.video: [dataset.labels[label] for label in sorted(clip.labels)] for clip in clips}
        recordings = [_whole_recording(model, video, len(times[video]), names[video]) for video in names]
    return (
        recordings,
        [times[recording.video] for recording in recordings],
        [(recording.weights > 0)[:, None] * scored[recording.video][1] for recording in recordings],
    )


def _score(model: EventModel, cache: SequenceCache, key: str) -> tuple[Array, Array]:
    """Return the times of a recording's frames, float64 [T], and their scores, float32 [T,C]."""
    scored = score_recording(model, cache.parts(key), video="", duration_s=np.inf)
    return scored.time_s, scored.scores


def _whole_recording(model: EventModel, video: str, frames: int, labels: list[str]) -> TimedRecording:
    """Return a recording that is labelled as a whole, as one with events from its beginning to its end."""
    events = np.array([(0, frames, model.labels.index(label)) for label in labels], np.int64).reshape(-1, 3)
    weights = np.ones(frames, np.float32)
    return TimedRecording(video=video, targets=np.zeros((frames, 0), np.float32), weights=weights, events=events)


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
