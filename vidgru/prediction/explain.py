"""`vidgru explain`: why a model finds the events of a recording, as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vidgru.cache import SequenceCache
from vidgru.config import ExplainConfig
from vidgru.errors import RecordingError, SettingsError, SourceError, WeightsError
from vidgru.extraction.pipeline import extract_recordings
from vidgru.model.attribution import (
    CONTEXT_S,
    LONGEST_S,
    AttendedObject,
    Explanation,
    GatePeak,
    event_frames,
    explain_events,
)
from vidgru.model.captioner import caption_events
from vidgru.model.checkpoint import EventModel, check_feature_settings, load_model
from vidgru.model.event_decoder import smooth_scores
from vidgru.model.stream import ScoredRecording, rank_events, score_recording
from vidgru.prediction.event_files import one_line
from vidgru.prediction.inputs import CachedRecording, cached_entry, model_detector
from vidgru.sources import find_recordings
from vidgru.types import Event

_BAR_CHARACTERS = 20
_MAX_OBJECTS = 8
_MAX_LISTED_EVENTS = 10  # in an error message


def explain_recording(model_path: str | Path, recording: str | Path, config: ExplainConfig) -> str:
    """Explain the events of a recording, or those selected by `config`.

    Features are taken from the cache, or extracted with the detector that the model was trained on.

    Args:
        model_path: A model file, or the folder of a training run.
        recording: A video file, or the folder of a cache entry.
        config: Settings.

    Returns:
        Text of several lines.

    Raises:
        ModelError: The model cannot be loaded.
        SourceError: The recording does not exist, or has no event, or none at the selected time.
        SettingsError: The recording has fewer events than the selected number, or the model lacks a label.
        WeightsError: Features are missing, and the detector to extract them does not exist.
        SettingsMismatchError: The features, or the detector, do not match the model's.
        RecordingError: The recording cannot be read.
    """
    model = load_model(model_path).with_thresholds(config.threshold)
    item = _find_features(model, Path(recording).expanduser(), config)
    name, duration_s, parts = item.recording.name, item.entry.duration_s, list(item.cache.parts(item.entry.key))
    scored = score_recording(model, parts, video=name, duration_s=duration_s, gates=True)
    if not scored.events:
        raise SourceError(
            f"the model finds no event in {name}: {_nearest_miss(model, scored, name, duration_s)}",
            "there is nothing to explain; give a recording in which vidgru predict finds an event",
        )
    selected = _select_events(scored.events, name, config)
    events = caption_events(model, parts, [event for _, event in selected])
    texts = [
        _format(explanation, f"event {number} of {len(scored.events)} in {name}")
        for (number, _), explanation in zip(selected, explain_events(model, parts, scored, events), strict=True)
    ]
    return "\n\n".join(texts)


# --- what to explain ------------------------------------------------------------------------------------------------


def _find_features(model: EventModel, path: Path, config: ExplainConfig) -> CachedRecording:
    """Look up the recording's features, or extract them."""
    if path.is_dir():
        return cached_entry(path, model)
    if not path.is_file():
        raise SourceError(f"no such file or folder: {path}", "give a video, or the folder of a cache entry")
    recording = find_recordings([path])[0]
    cache = SequenceCache(Path(config.features).expanduser())
    # Weights that were given are checked even if the features are cached.
    detector = model_detector(model, cache, config.weights) if config.weights else None
    entry = cache.lookup(recording.path, model.feature_settings)
    if entry is None:
        try:
            detector = detector or model_detector(model, cache)
        except WeightsError:
            # Features with other settings are the likelier cause, so name what differs.
            if other := cache.last_entry(recording.path):
                where = f"the features of {recording.name} in {cache.root}"
                check_feature_settings(model, other.feature_settings, where)
            raise
        (outcome,) = extract_recordings([recording], cache, detector, config.runtime)
        entry = cache.entry(outcome.key) if outcome.key else None
        if entry is None:
            raise RecordingError(
                f"{recording.name}: {outcome.reason}", f"vidgru info {recording.path} inspects the file"
            )
    return CachedRecording(recording=recording, cache=cache, entry=entry, sha256=cache.sha256(recording.path))


def _select_events(events: list[Event], name: str, config: ExplainConfig) -> list[tuple[int, Event]]:
    """The selected events with their numbers, from 1 by start."""
    numbered = list(enumerate(events, start=1))
    if config.event is not None:
        if config.event > len(events):
            raise SettingsError(f"event is {config.event}, but {name} has {len(events)}", _list_events(numbered))
        return [numbered[config.event - 1]]
    if config.at is None:
        return numbered
    at_s = config.at
    selected = [(number, event) for number, event in numbered if event.start_s <= at_s < event.end_s]
    if not selected:
        nearest = sorted(numbered, key=lambda item: max(item[1].start_s - at_s, at_s - item[1].end_s))
        raise SourceError(
            f"there is no event at {at_s:g} s in {name}", _list_events(sorted(nearest[:_MAX_LISTED_EVENTS]))
        )
    return selected


def _list_events(numbered: list[tuple[int, Event]]) -> str:
    texts = [f"{number}: {event.label} at {_interval(event)}" for number, event in numbered[:_MAX_LISTED_EVENTS]]
    return f"its events are {', '.join(texts)}{', ...' if len(numbered) > _MAX_LISTED_EVENTS else ''}"


def _nearest_miss(model: EventModel, scored: ScoredRecording, name: str, duration_s: float) -> str:
    """Describe the best candidate for an event, and what it lacks."""
    smoothed = smooth_scores(scored.time_s, scored.scores, model.decode.smooth_s)
    thresholds = dict(zip(model.labels, model.decode.high, strict=True))
    candidates = rank_events(model, scored, video=name, duration_s=duration_s)
    if candidates:
        best = max(candidates, key=lambda event: event.score / max(thresholds[event.label], 1e-6))
        column = model.labels.index(best.label)
        peak = smoothed[event_frames(scored.time_s, best), column].max()
        text = f"its best candidate is {best.label} at {_interval(best)} with a peak score of {peak:.2f}"
    else:
        frame, column = divmod(int(smoothed.argmax()), len(model.labels))
        peak = smoothed[frame, column]
        text = f"its highest score is {peak:.2f} for {model.labels[column]} at {scored.time_s[frame]:.1f} s"
    threshold = thresholds[model.labels[column]]
    if peak < threshold:
        return f"{text}, below the threshold of {threshold:.2f}"
    return f"{text}, but it is too short, or another label scores higher there"


# --- text -----------------------------------------------------------------------------------------------------------


def _format(explanation: Explanation, title: str) -> str:
    event = explanation.event
    objects = [(_object_name(item), item.share) for item in explanation.objects[:_MAX_OBJECTS]]
    if rest := explanation.objects[_MAX_OBJECTS:]:
        objects.append((f"{len(rest)} more", sum(item.share for item in rest)))
    width = max(map(len, ("looked at", *(name for name, _ in objects), *explanation.score_without)))
    rows = [_row(name, share, width, "", share) for name, share in objects]
    head = [f"{event.label}  {_interval(event)}  score {explanation.score:.2f}  ({title})"]
    blocks = [
        head + _caption_line(event),
        [f"  {'looked at':{width}}  share", *rows] if rows else ["  looked at no object: none was detected"],
        _feature_groups(explanation, width),
        _gates(explanation.keep_peaks, explanation.forget_peaks),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _caption_line(event: Event) -> list[str]:
    """The event's caption and its score; nothing if the model writes none."""
    if event.description is None or event.description_score is None:
        return []
    score = f"{event.description_score:.2f}"
    if event.description_source == "template":
        return [f"  {one_line(event)}  (template: the model's own caption scored only {score})"]
    return [f"  {one_line(event)}  (caption score {score})"]


def _object_name(item: AttendedObject) -> str:
    return f"{item.label} {item.track}" if item.track >= 0 else f"{item.label}, no track"


def _feature_groups(explanation: Explanation, width: int) -> list[str]:
    """The event's score without each feature group, the greatest loss first; nothing for a model without scores."""
    if not explanation.score_without:
        return []
    baseline = explanation.baseline
    lines = [f"  {'without':{width}}  score  change"]
    for name, score in sorted(explanation.score_without.items(), key=lambda row: row[1]):
        change = round(score - baseline, 2) + 0.0  # turns -0.0 into 0.0
        lines.append(_row(name, score, width, f"{change:+.2f}", change / max(baseline, 0.01)))
    lines.append(_row("(nothing)", baseline, width, "", 0.0))
    if abs(baseline - explanation.score) >= 0.005:
        lines.append(
            f"  (computed from {CONTEXT_S:g} s before the event, and at most {LONGEST_S:g} s of it: "
            f"score {baseline:.2f} instead of {explanation.score:.2f})"
        )
    return lines


def _row(name: str, value: float, width: int, change: str, bar: float) -> str:
    """A row of a table; `bar` is a share of the longest bar, drawn with minus signs for a loss."""
    drawn = ("-" if bar < 0 else "+" if change else "#") * round(_BAR_CHARACTERS * min(abs(bar), 1.0))
    return f"  {name:{width}}  {value:5.2f}  {change:6}  {drawn}".rstrip()


def _gates(kept: Sequence[GatePeak], forgot: Sequence[GatePeak]) -> list[str]:
    lines = []
    for title, frames in (("kept most", kept), ("forgot most", forgot)):
        if frames:
            texts = (f"{frame.time_s:.1f} s (update {frame.update:.2f}, reset {frame.reset:.2f})" for frame in frames)
            lines.append(f"  {title:11} at {', '.join(texts)}")
    return lines


def _interval(event: Event) -> str:
    return f"{event.start_s:.1f}-{event.end_s:.1f} s"
