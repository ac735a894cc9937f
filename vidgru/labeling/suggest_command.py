"""The `suggest` command: what to label next in recordings, for a model and what is labelled already."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vidgru.cache import SequenceCache
from vidgru.config import SuggestConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import Dataset, contradicts_events, videos_with_events
from vidgru.datasets.formats.csv_reader import format_csv
from vidgru.datasets.rows import videos_watched_in_part
from vidgru.errors import CacheError, SourceError
from vidgru.extraction.pipeline import extract_recordings
from vidgru.labeling.suggest import LabelledTime, Suggestion, suggest
from vidgru.model.checkpoint import EventModel
from vidgru.model.features import stream_features
from vidgru.model.stream import load_predictor
from vidgru.prediction.inputs import CachedRecording, find_inputs, model_detector
from vidgru.storage import user_path, write_atomic
from vidgru.training.data import LoadedFeatures
from vidgru.types import Features, Recording

# `likely_label`, not `label`: it must not be read as an annotation
_COLUMNS = ("video", "start", "end", "reason", "likely_label")


def suggest_recordings(
    model_path: str | Path, sources: Iterable[str | Path], config: SuggestConfig
) -> list[Suggestion]:
    """Suggest what to label next; with `config.out`, write it. Recordings that cannot be read are named on stderr.

    Raises:
        ModelError, SourceError, AnnotationError, SettingsMismatchError, WeightsError: Before anything is written.
        OutputError: The output cannot be written.
    """
    model = load_predictor(model_path)
    cache = SequenceCache(user_path(config.features))
    recordings, cached = find_inputs(sources, model)
    items = [*_find_features(model, recordings, cache, config), *cached]
    features: dict[str, Features] = {}
    paths: dict[str, Path] = {}
    for item in items:
        if isinstance(item, CachedRecording):
            try:
                parts = list(stream_features(item.cache.parts(item.entry.key), model.feature_spec))
            except CacheError as error:
                print(f"skipped: {item.recording.name}: {error.message}", file=sys.stderr)
                continue
            if parts:
                features[item.recording.name] = Features.concatenate(parts)
                paths[item.recording.name] = item.recording.path
        else:
            print(f"skipped: {item.recording.name}: {item.reason}", file=sys.stderr)
    if not features:
        raise SourceError("none of the recordings has features", "vidgru info RECORDING says what is wrong with it")
    labelled = _read_labelled(config.labelled, paths) if config.labelled else {}
    loaded = LoadedFeatures(features=features, feature_spec=model.feature_spec, names=model.names, keys={})
    suggestions = suggest(model, loaded, labelled, config.n, config.seed)
    if config.out:
        out = user_path(config.out)
        if out.suffix.lower() == ".jsonl":
            text = suggestions_jsonl(suggestions)
        else:
            text = format_csv(_COLUMNS, map(_record, suggestions))
        write_atomic(out, text.encode())
    return suggestions


def suggestions_jsonl(suggestions: Sequence[Suggestion]) -> str:
    """Format suggestions as JSON lines."""
    return "".join(json.dumps(_record(suggestion), ensure_ascii=False) + "\n" for suggestion in suggestions)


def suggestions_table(suggestions: Sequence[Suggestion]) -> str:
    """Format suggestions as a table with aligned columns."""
    if not suggestions:
        return "nothing is left to label"
    rows = [_COLUMNS, *(tuple(str(value) for value in _record(suggestion).values()) for suggestion in suggestions)]
    rows = [tuple(cell.replace("_", " ") for cell in rows[0]), *rows[1:]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = []
    for video, start, end, reason, label in rows:
        lines.append(
            f"{video:<{widths[0]}}  {start:>{widths[1]}}  {end:>{widths[2]}}  {reason:<{widths[3]}}  {label}".rstrip()
        )
    return "\n".join(lines)


def _record(suggestion: Suggestion) -> dict[str, object]:
    values = (suggestion.video, suggestion.start_s, suggestion.end_s, suggestion.reason, suggestion.label)
    return dict(zip(_COLUMNS, values, strict=True))


def _find_features(
    model: EventModel, recordings: list[Recording], cache: SequenceCache, config: SuggestConfig
) -> list[CachedRecording]:
    """Look up features, and extract those that are missing; name recordings that cannot be read on stderr."""
    if not recordings:
        return []
    keys = {recording.name: cache.lookup(recording.path, model.feature_settings) for recording in recordings}
    missing = [recording for recording in recordings if keys[recording.name] is None]
    if missing:
        detector = model_detector(model, cache, config.weights)
        for recording, result in zip(
            missing, extract_recordings(missing, cache, detector, config.runtime), strict=True
        ):
            keys[recording.name] = cache.entry(result.key) if result.key else None
            if result.key is None:
                print(f"skipped: {recording.name}: {result.reason}", file=sys.stderr)
    return [
        CachedRecording(recording=recording, cache=cache, entry=entry, sha256="")
        for recording in recordings
        if (entry := keys[recording.name]) is not None
    ]


def _read_labelled(path: str, paths: Mapping[str, Path]) -> dict[str, LabelledTime]:
    """Return the labelled time of recordings in an annotation file, by their names; with a note if it has none."""
    dataset = load_dataset(path, allow_missing=True)
    names = {os.path.realpath(of_recording): name for name, of_recording in paths.items()}
    by_name = {
        name: labelled
        for video, labelled in labelled_time(dataset).items()
        if (name := names.get(os.path.realpath(dataset.recordings[video].path))) is not None
    }
    if not by_name:
        print(f"{dataset.source} says nothing about these recordings", file=sys.stderr)
    return by_name


def labelled_time(dataset: Dataset) -> dict[str, LabelledTime]:
    """Return the known time of each annotated recording: all of it, unless its rows mark watched time."""
    in_part, with_events = videos_watched_in_part(dataset.rows), videos_with_events(dataset)
    known: dict[str, list[tuple[float, float]]] = {}
    events: dict[str, list[tuple[float, float, str]]] = {}
    for row in dataset.rows:
        note = row.annotation
        if row.is_description_only or contradicts_events(row, with_events, dataset.background):
            continue
        is_whole = note.start_s is None or note.end_s is None
        span = (0.0, np.inf) if is_whole else (note.start_s or 0.0, note.end_s or 0.0)
        known.setdefault(note.video, []).append(span if is_whole or note.video in in_part else (0.0, np.inf))
        if note.label not in (None, dataset.background):
            events.setdefault(note.video, []).append((*span, note.label or ""))
    return {
        video: LabelledTime(known=tuple(spans), events=tuple(events.get(video, ()))) for video, spans in known.items()
    }
