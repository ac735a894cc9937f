"""`vidgru explain`: why a model finds what it finds in a recording, as text."""

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
from vidgru.prediction.detector import model_detector
from vidgru.prediction.event_files import one_line
from vidgru.prediction.inputs import Cached, cached_entry
from vidgru.sources import find_recordings
from vidgru.types import Event

_BAR = 20  # characters
_SHOWN_OBJECTS = 8
_SHOWN_EVENTS = 10  # in a message


def explain_recording(model_path: str | Path, recording: str | Path, config: ExplainConfig) -> str:
    """Say why a model finds the events of a recording, or those that are asked for.

    Features are taken from the cache, or made on the way with the detector that the model was trained on.

    Args:
        model_path: a model file or a training run's folder.
        recording: a video file, or the folder of a cache entry.
        config: which events, and where the features are.

    Returns:
        Text of several lines.

    Raises:
        ModelError: there is no such model.
        SourceError: there is no such recording, or no event in it, or none at that time.
        SettingsError: it has fewer events than the number that is asked for.
        WeightsError: features are missing, and so is the detector to make them.
        SettingsMismatchError: the features, or the detector, are others than the model's.
        RecordingError: the recording cannot be read.
    """
    model = load_model(model_path)
    found = _features(model, Path(recording).expanduser(), config)
    name, duration_s, parts = found.recording.name, found.entry.duration_s, list(found.cache.parts(found.entry.key))
    scored = score_recording(model, parts, video=name, duration_s=duration_s, gates=True)
    if not scored.events:
        raise SourceError(
            f"the model finds no event in {name}: {_nearest_miss(model, scored, name, duration_s)}",
            "there is nothing to explain; give a recording in which vidgru predict finds an event",
        )
    chosen = _chosen(scored.events, name, config)
    whys = explain_events(model, parts, scored, caption_events(model, parts, [event for _, event in chosen]))
    texts = [
        _text(why, f"event {number} of {len(scored.events)} in {name}")
        for (number, _), why in zip(chosen, whys, strict=True)
    ]
    return "\n\n".join(texts)


# --- what to explain ------------------------------------------------------------------------------------------------


def _features(model: EventModel, path: Path, config: ExplainConfig) -> Cached:
    """The recording and its features."""
    if path.is_dir():
        return cached_entry(path, model)
    if not path.is_file():
        raise SourceError(f"no such file or folder: {path}", "give a video, or the folder of a cache entry")
    recording = find_recordings([path])[0]
    cache = SequenceCache(Path(config.features).expanduser())
    # a detector that is named is checked, used or not
    detect = model_detector(model, config.weights) if config.weights else None
    entry = cache.lookup(recording.path, model.feature_settings)
    if entry is None:
        try:
            detect = detect or model_detector(model)
        except WeightsError:
            if other := cache.last_entry(recording.path):
                check_feature_settings(
                    model, other.feature_settings, f"the features of {recording.name} in {cache.root}"
                )
            raise
        (outcome,) = extract_recordings([recording], cache, detect, config.runtime)
        entry = cache.entry(outcome.key) if outcome.key else None
        if entry is None:
            raise RecordingError(f"{recording.name}: {outcome.reason}", "vidgru info tells what the file is")
    return Cached(recording=recording, cache=cache, entry=entry, sha256=cache.sha256(recording.path))


def _chosen(events: list[Event], name: str, config: ExplainConfig) -> list[tuple[int, Event]]:
    """The events that are asked for, numbered by start."""
    numbered = list(enumerate(events, start=1))
    if config.event is not None:
        if config.event > len(events):
            raise SettingsError(f"event is {config.event}, and {name} has {len(events)}", _listed(numbered))
        return [numbered[config.event - 1]]
    if config.at is None:
        return numbered
    found = [(number, event) for number, event in numbered if event.start_s <= config.at < event.end_s]
    if not found:
        near = sorted(numbered, key=lambda one: _apart_s(one[1], config.at or 0.0))[:_SHOWN_EVENTS]
        raise SourceError(f"there is no event at {config.at:g} s in {name}", _listed(sorted(near)))
    return found


def _apart_s(event: Event, at_s: float) -> float:
    return max(event.start_s - at_s, at_s - event.end_s)


def _listed(numbered: list[tuple[int, Event]]) -> str:
    said = [f"{number}: {event.label} at {_interval(event)}" for number, event in numbered[:_SHOWN_EVENTS]]
    return f"its events are {', '.join(said)}{', ...' if len(numbered) > _SHOWN_EVENTS else ''}"


def _nearest_miss(model: EventModel, scored: ScoredRecording, name: str, duration_s: float) -> str:
    """What comes nearest to an event, and what it lacks."""
    smoothed = smooth_scores(scored.time_s, scored.scores, model.decode.smooth_s)
    highs = dict(zip(model.labels, model.decode.high, strict=True))
    weaker = rank_events(model, scored, video=name, duration_s=duration_s)
    if weaker:
        best = max(weaker, key=lambda event: event.score / max(highs[event.label], 1e-6))
        column = model.labels.index(best.label)
        peak = smoothed[event_frames(scored.time_s, best), column].max()
        said = f"its best candidate is {best.label} at {_interval(best)}, whose score reaches {peak:.2f}"
    else:
        frame, column = divmod(int(smoothed.argmax()), len(model.labels))
        peak = smoothed[frame, column]
        said = f"its highest score is {peak:.2f}, of {model.labels[column]} at {scored.time_s[frame]:.1f} s"
    high = highs[model.labels[column]]
    if peak < high:
        return f"{said}, and an event has to reach {high:.2f}"
    return f"{said}, but for too short a time, or where another label scores higher"


# --- text -----------------------------------------------------------------------------------------------------------


def _text(why: Explanation, where: str) -> str:
    event = why.event
    objects = [(_named(one), one.share) for one in why.objects[:_SHOWN_OBJECTS]]
    if rest := why.objects[_SHOWN_OBJECTS:]:
        objects.append((f"{len(rest)} more", sum(one.share for one in rest)))
    wide = max(map(len, ("looked at", *(name for name, _ in objects), *why.score_without)))
    rows = [_row(name, share, wide, "", share) for name, share in objects]
    blocks = [
        [f"{event.label}  {_interval(event)}  score {why.score:.2f}  ({where})", *_sentence(event)],
        [f"  {'looked at':{wide}}  share", *rows] if rows else ["  looked at no object: none was detected"],
        _groups(why, wide),
        _gates(why.keep_peaks, why.forget_peaks),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _sentence(event: Event) -> list[str]:
    """The event in words, and how sure the model is of them; nothing where it writes none."""
    if event.description is None or event.description_score is None:
        return []
    sure = f"{event.description_score:.2f}"
    if event.description_source == "template":
        return [f"  {one_line(event)}  (put together, as the model is not sure enough of its own sentence: {sure})"]
    return [f"  {one_line(event)}  (sentence score {sure})"]


def _named(one: AttendedObject) -> str:
    return f"{one.label} {one.track}" if one.track >= 0 else f"{one.label}, no track"


def _groups(why: Explanation, wide: int) -> list[str]:
    """What the event would score without each group, the greatest loss first; nothing where no score was found so."""
    if not why.score_without:
        return []
    lines = [f"  {'without':{wide}}  score  change"]
    for name, score in sorted(why.score_without.items(), key=lambda row: row[1]):
        change = round(score - why.baseline, 2) + 0.0  # which makes no zero of -0.0
        lines.append(_row(name, score, wide, f"{change:+.2f}", change / max(why.baseline, 0.01)))
    lines.append(_row("(nothing)", why.baseline, wide, "", 0.0))
    if abs(why.baseline - why.score) >= 0.005:
        lines.append(
            f"  (read again from {CONTEXT_S:g} s before the event, and at most {LONGEST_S:g} s of it, "
            f"it scores {why.baseline:.2f}, not {why.score:.2f})"
        )
    return lines


def _row(name: str, value: float, wide: int, change: str, bar: float) -> str:
    """A line of a table; `bar` is a share of the longest, of minus signs where it is a loss."""
    drawn = ("-" if bar < 0 else "+" if change else "#") * round(_BAR * min(abs(bar), 1.0))
    return f"  {name:{wide}}  {value:5.2f}  {change:6}  {drawn}".rstrip()


def _gates(kept: Sequence[GatePeak], forgot: Sequence[GatePeak]) -> list[str]:
    lines = []
    for title, moments in (("kept most", kept), ("forgot most", forgot)):
        if moments:
            said = (f"{one.time_s:.1f} s (update {one.update:.2f}, reset {one.reset:.2f})" for one in moments)
            lines.append(f"  {title:11} at {', '.join(said)}")
    return lines


def _interval(event: Event) -> str:
    return f"{event.start_s:.1f}-{event.end_s:.1f} s"
