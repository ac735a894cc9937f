"""`vidgru explain`: why a model finds an event in a recording, or none, as text."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

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
    moment_range,
)
from vidgru.model.captioner import caption_events
from vidgru.model.checkpoint import EventModel, check_feature_settings
from vidgru.model.event_decoder import decode_events, smooth_scores
from vidgru.model.stream import ScoredRecording, load_predictor, rank_events, score_recording
from vidgru.prediction.event_files import one_line
from vidgru.prediction.inputs import CachedRecording, cached_entry, model_detector
from vidgru.sources import find_recordings
from vidgru.storage import user_path
from vidgru.types import Array, Event, FrameSequence

_BAR_CHARACTERS = 20
_MAX_OBJECTS = 8
_MAX_LISTED_EVENTS = 10  # in an error message
_SHOWN_S, _SHOWN_STEP_S = 3.0, 0.5  # scores shown before and after a time, and their distance
_MAX_OTHERS = 3  # labels whose scores are named besides


def explain_recording(model_path: str | Path, recording: str | Path, config: ExplainConfig) -> str:
    """Explain the events of a recording, or those or the moment selected by `config`.

    Features are taken from the cache, or extracted with the detector that the model was trained on.

    Args:
        model_path: A model file, or the folder of a training run.
        recording: A video file, or the folder of a cache entry.
        config: Settings.

    Returns:
        Text of several lines.

    Raises:
        ModelError: The model cannot be loaded.
        SourceError: The recording does not exist, has no event, or ends before the selected time.
        SettingsError: The recording has fewer events than the selected number, or the model lacks a label.
        WeightsError: Features are missing, and the detector to extract them does not exist.
        SettingsMismatchError: The features, or the detector, do not match the model's.
        RecordingError: The recording cannot be read.
    """
    model = load_predictor(model_path).with_thresholds(config.threshold)
    item = _find_features(model, user_path(recording), config)
    name, duration_s, parts = item.recording.name, item.entry.duration_s, item.parts()
    scored = score_recording(model, parts, video=name, duration_s=duration_s, gates=True)
    if not len(scored.time_s):
        raise SourceError(f"{name} has no frames", f"vidgru info {item.recording.path} inspects the file")
    if config.label:
        model.check_labels("label", [config.label])
    numbered = [(n, e) for n, e in enumerate(scored.events, start=1) if config.label in ("", e.label)]
    if config.at is None:
        if not numbered:
            label = f" {config.label}" if config.label else ""
            reason, at_s = _nearest_miss(model, scored, name, duration_s, config.label)
            raise SourceError(
                f"the model finds no{label} event in {name}: {reason}", f"--at {at_s:.1f} explains that moment"
            )
        texts, selected = [], _select_events(numbered, name, config)
    else:
        if config.at >= max(duration_s, float(scored.time_s[-1]) + 1 / model.fps):
            raise SourceError(f"{config.at:g} s is after the end of {name} ({duration_s:g} s)", "give an earlier time")
        selected = [(n, e) for n, e in numbered if e.start_s <= config.at < e.end_s]
        texts = _explain_moment(model, parts, scored, name, duration_s, config, [e for _, e in selected])
    events = caption_events(model, parts, [event for _, event in selected])
    texts += [
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
    cache = SequenceCache(user_path(config.features))
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


def _select_events(numbered: list[tuple[int, Event]], name: str, config: ExplainConfig) -> list[tuple[int, Event]]:
    """The selected events with their numbers."""
    if config.event is None:
        return numbered
    selected = [item for item in numbered if item[0] == config.event]
    if not selected:
        raise SettingsError(f"event is {config.event}, but {name} has {len(numbered)}", _list_events(numbered))
    return selected


def _list_events(numbered: list[tuple[int, Event]]) -> str:
    texts = [f"{number}: {event.label} at {_interval(event)}" for number, event in numbered[:_MAX_LISTED_EVENTS]]
    return f"its events are {', '.join(texts)}{', ...' if len(numbered) > _MAX_LISTED_EVENTS else ''}"


def _nearest_miss(
    model: EventModel, scored: ScoredRecording, name: str, duration_s: float, label: str
) -> tuple[str, float]:
    """Describe the best candidate for an event, of a label or of any, and what it lacks; and say when it is."""
    smoothed = smooth_scores(scored.time_s, scored.scores, model.decode.smooth_s)
    thresholds = dict(zip(model.labels, model.decode.high, strict=True))
    untrimmed = replace(model, decode=model.decode.untrimmed())  # the peak may be in what is cut off
    candidates = rank_events(untrimmed, scored, video=name, duration_s=duration_s)
    candidates = [event for event in candidates if label in ("", event.label)]
    if candidates:
        best = max(candidates, key=lambda event: event.score / max(thresholds[event.label], 1e-6))
        column = model.labels.index(best.label)
        frames = event_frames(scored.time_s, best.start_s, best.end_s)
        frame = frames.start + int(smoothed[frames, column].argmax())
        text = f"its best candidate is {best.label} at {_interval(best)} with a peak score of"
        text += f" {smoothed[frame, column]:.2f}"
    else:
        columns = [model.labels.index(label)] if label else list(range(len(model.labels)))
        frame, column = divmod(int(smoothed[:, columns].argmax()), len(columns))
        column = columns[column]
        text = f"its highest score is {smoothed[frame, column]:.2f} for {model.labels[column]}"
        text += f" at {scored.time_s[frame]:.1f} s"
    threshold, at_s = thresholds[model.labels[column]], float(scored.time_s[frame])
    if smoothed[frame, column] < threshold:
        return f"{text}, below the threshold of {threshold:.2f}", at_s
    return f"{text}, but it is too short, or another label scores higher there", at_s


# --- a moment -------------------------------------------------------------------------------------------------------


def _explain_moment(
    model: EventModel,
    parts: Iterable[FrameSequence],
    scored: ScoredRecording,
    name: str,
    duration_s: float,
    config: ExplainConfig,
    events: list[Event],
) -> list[str]:
    """Explain the scores at a time, as text; if no `events` are there, also what raises and lowers the score."""
    at_s = config.at
    assert at_s is not None
    if model.task.clip_head is None and model.task.frame_head is None:
        return []  # it has no scores, and an event at any time
    smoothed = smooth_scores(scored.time_s, scored.scores, model.decode.smooth_s)
    frame = max(int(np.searchsorted(scored.time_s, at_s, side="right")) - 1, 0)
    high = np.maximum(model.decode.high, 1e-6)
    shown = {model.labels.index(event.label) for event in events} or {int((smoothed[frame] / high).argmax())}
    shown = {model.labels.index(config.label)} if config.label else shown
    texts = []
    for column in sorted(shown):
        lines = _score_lines(model, scored.time_s, smoothed, frame, column)
        if not events:
            lines.append(_candidate_line(model, scored, smoothed, name, duration_s, at_s, column))
        texts.append("\n".join(lines))
    if events:
        return texts
    (column,) = shown
    # A second around the moment, with its mean score as it is: it is no event, whose score would be calibrated.
    plain = replace(model, decode=replace(model.decode.untrimmed(), event_scale=1.0, event_bias=0.0))
    start_s, end_s = moment_range(at_s)
    moment = Event(video=name, start_s=start_s, end_s=end_s, label=model.labels[column], score=0.0)
    mean = float(smoothed[event_frames(scored.time_s, start_s, end_s), column].mean())
    (explanation,) = explain_events(plain, parts, scored, [replace(moment, score=mean)])
    return [*texts, _format(explanation, f"mean around {at_s:g} s, no event")]


def _score_lines(model: EventModel, time_s: Array, smoothed: Array, frame: int, column: int) -> list[str]:
    """The score of a label around a frame, against its thresholds."""
    high, low = model.decode.high[column], model.decode.low[column]
    others = [f"{label} {smoothed[frame, c]:.2f}" for c, label in enumerate(model.labels) if c != column]
    lines = [
        f"{model.labels[column]} at {time_s[frame]:.1f} s: score {smoothed[frame, column]:.2f}; an event starts at "
        f"{high:.2f} and ends below {low:.2f}",
        *([f"  other labels: {', '.join(others[:_MAX_OTHERS])}"] if others else []),
        "",
        f"  {'time':>8}  score",
    ]
    times = time_s[frame] + np.arange(-_SHOWN_S, _SHOWN_S + _SHOWN_STEP_S / 2, _SHOWN_STEP_S)
    rows = np.unique(np.clip(np.searchsorted(time_s, times - 1e-6), 0, len(time_s) - 1))
    for row in rows.tolist():
        score = float(smoothed[row, column])
        bar = "#" * round(score * _BAR_CHARACTERS)
        mark = round(high * _BAR_CHARACTERS)  # where the threshold is
        bar = f"{bar[:mark]:{mark}}|{bar[mark:]}"
        lines.append(f"  {time_s[row]:6.1f} s  {score:5.2f}  {bar}{'  <' if row == frame else ''}")
    return lines


def _candidate_line(
    model: EventModel,
    scored: ScoredRecording,
    smoothed: Array,
    name: str,
    duration_s: float,
    at_s: float,
    column: int,
) -> str:
    """The event, or candidate for one, that is nearest to a time, and the threshold from which it would be found."""
    label = model.labels[column]
    untrimmed = replace(model, decode=model.decode.untrimmed())  # the peak may be in what is cut off
    found = rank_events(untrimmed, scored, video=name, duration_s=duration_s)
    found = [event for event in found if event.label == label]
    if not found:
        return "\n  no candidate: the score stays low throughout"
    nearest = min(found, key=lambda event: (max(event.start_s - at_s, at_s - event.end_s, 0.0), -event.score))
    peak = float(smoothed[event_frames(scored.time_s, nearest.start_s, nearest.end_s), column].max())
    text = f"\n  nearest candidate: {label} at {_interval(nearest)}, peak {peak:.2f}"
    if any(nearest.start_s <= event.start_s < nearest.end_s for event in scored.events if event.label == label):
        return f"{text}, which is an event"
    for share in np.arange(1.0, 0.1, -0.05):
        threshold = math.floor(peak * share * 100) / 100
        decode = model.with_thresholds({label: threshold}).decode
        events = decode_events(
            scored.time_s, scored.scores, model.labels, decode, video=name, step_s=1 / model.fps, end_s=duration_s
        )
        events = [event for event in events if event.label == label]
        if any(event.start_s < nearest.end_s and nearest.start_s < event.end_s for event in events):
            before = sum(event.label == label for event in scored.events)
            change = f"{label} events in this recording: {before} -> {len(events)}"
            return f"{text}; --threshold {shlex.quote(f'{label}={threshold:g}')} would find it ({change})"
    return f"{text}; no event at any threshold: too short, or another label scores higher there"


# --- text -----------------------------------------------------------------------------------------------------------


def _format(explanation: Explanation, title: str) -> str:
    event = explanation.event
    objects = [(_object_name(item), item.share) for item in explanation.objects[:_MAX_OBJECTS]]
    if rest := explanation.objects[_MAX_OBJECTS:]:
        objects.append((f"{len(rest)} more", sum(item.share for item in rest)))
    width = max(map(len, ("object", *(name for name, _ in objects), *explanation.score_without)))
    rows = [_row(name, share, width, "", share) for name, share in objects]
    head = [f"{event.label}  {_interval(event)}  score {explanation.score:.2f}  ({title})"]
    blocks = [
        head + _caption_line(event),
        [f"  {'object':{width}}  attention", *rows] if rows else ["  no object was detected"],
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
        lines.append(_row(name, score, width, f"{change:+.2f}", change / max(baseline, 0.1)))
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
