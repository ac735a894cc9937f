"""Result of each recording of a prediction, and the summary of a run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from vidgru.cache import SequenceCache
from vidgru.errors import CacheError, MissingDependencyError
from vidgru.model.checkpoint import entry_digest, load_model
from vidgru.model.event_decoder import smooth_scores
from vidgru.model.stream import score_recording
from vidgru.types import Array, Event, Recording, Span, covered_seconds

_STATUSES = ("done", "reused", "partial", "failed")
_MAX_PROBLEMS = 10  # rows of the summary; with the labels it fits on one screen
_MAX_LABELS = 10
_MAX_NAMED = 3  # recordings named per reason


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordingScores:
    """Scores of a recording over time.

    Attributes:
        labels: Label of each column.
        time_s: float64 [T], seconds.
        raw: float32 [T,C], 0 to 1.
        smoothed: float32 [T,C], averaged as for finding events.
    """

    labels: tuple[str, ...]
    time_s: Array
    raw: Array
    smoothed: Array

    def to_pandas(self) -> Any:
        """Return the smoothed scores as a DataFrame: a column per label, and `time_s` as the index.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        frame = _pandas().DataFrame(self.smoothed, columns=list(self.labels))
        frame.index = self.time_s
        frame.index.name = "time_s"
        return frame


def _pandas() -> Any:
    try:
        return import_module("pandas")
    except ImportError:
        raise MissingDependencyError("to_pandas needs pandas, which is not installed", "pip install pandas") from None


@dataclass(frozen=True, kw_only=True)
class PredictionResult:
    """Result of one recording.

    Attributes:
        recording: The recording.
        status: `done`, `reused` (its files were up to date), `partial` (it is damaged, or a report, clip or video is
            missing) or `failed`.
        events: Events written to its files, by start.
        duration_s: Length of the recording in seconds; None if unknown.
        reason: Why it is partial or failed; else empty.
        seconds: Wall time spent on it.
        span: The part of the recording that was read, in seconds; an end of None is the recording's. None: all of it.
        model: File of the model; None if it failed.
        entry: Folder of its features; None if it failed.
    """

    recording: Recording
    status: Literal["done", "reused", "partial", "failed"]
    events: tuple[Event, ...] = ()
    duration_s: float | None = None
    reason: str = ""
    seconds: float = 0.0
    span: Span | None = None
    model: Path | None = field(default=None, repr=False, compare=False)
    entry: Path | None = field(default=None, repr=False, compare=False)

    @cached_property
    def scores(self) -> RecordingScores:
        """Scores of all labels over time, computed from the cached features when they are first asked for.

        Raises:
            CacheError: The recording failed, or its features are no longer in the cache.
            ModelError: The model is no longer there.
        """
        if self.model is None or self.entry is None:
            reason = self.reason or "it was not predicted by this process"
            raise CacheError(f"{self.recording.name} has no scores: {reason}", "predict it again")
        model = load_model(self.model)
        parts = SequenceCache(self.entry.parent).parts(self.entry.name)
        name, duration_s = self.recording.name, self.duration_s or math.inf
        scored = score_recording(model, parts, video=name, duration_s=duration_s)
        smoothed = smooth_scores(scored.time_s, scored.scores, model.decode.smooth_s)
        return RecordingScores(labels=model.labels, time_s=scored.time_s, raw=scored.scores, smoothed=smoothed)

    def to_pandas(self) -> Any:
        """Return the events as a DataFrame, a row per event and a column per attribute of `Event`.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        rows = [{item.name: getattr(event, item.name) for item in fields(Event)} for event in self.events]
        return _pandas().DataFrame(rows, columns=[item.name for item in fields(Event)])


def failed(recording: Recording, reason: str, duration_s: float | None, seconds: float) -> PredictionResult:
    """Result of a recording that cannot be predicted."""
    return PredictionResult(recording=recording, status="failed", duration_s=duration_s, reason=reason, seconds=seconds)


def summary_table(results: Iterable[PredictionResult]) -> str:
    """Summarise a run on one screen: recordings with problems, events by label, totals.

    `summary.jsonl` and `events.csv` in the output folder have every recording and event.
    """
    results = list(results)
    lines = _problem_rows(results)
    events = [event for result in results for event in result.events]
    counts = Counter(event.label for event in events)
    labels = sorted(counts, key=lambda label: (-counts[label], label))
    shown = labels if len(labels) <= _MAX_LABELS + 1 else labels[:_MAX_LABELS]
    width = max(map(len, shown), default=0)
    if shown:
        lines.append(f"{'':{width}}  events  recordings      seconds")
    for label in shown:
        of_label = [event for event in events if event.label == label]
        seconds = sum(event.end_s - event.start_s for event in of_label)
        videos = len({event.video for event in of_label})
        lines.append(f"{label:{width}}  {counts[label]:6}  {videos:10}  {seconds:11.1f}")
    if len(shown) < len(labels):
        lines.append(f"... and {len(labels) - len(shown)} more labels in events.csv")
    statuses: Counter[str] = Counter(result.status for result in results)
    totals = ", ".join(f"{statuses[status]} {status}" for status in _STATUSES if statuses[status])
    hours = sum(result.duration_s or 0 for result in results) / 3600
    read = sum(covered_seconds(result.span, result.duration_s or 0) for result in results) / 3600
    share = f"{read:.2f} of " if any(result.span for result in results) else ""
    lines.append(f"{totals or 'no recordings'}: {share}{hours:.2f} hours of video, {counted(len(events), 'event')}")
    return "\n".join(lines)


def count_trained_on(results: Iterable[PredictionResult]) -> int:
    """Return how many of the recordings the model was trained on; its predictions in them say little about others."""
    known = [(result.model, result.entry) for result in results if result.model and result.entry]
    trained_on = {model: set(load_model(model).trained_on) for model in dict(known)}
    return sum(entry_digest(entry.name) in trained_on[model] for model, entry in known)


def summary_record(result: PredictionResult) -> dict[str, object]:
    """Return a result as a line of `summary.jsonl`."""
    return {
        "video": result.recording.name,
        "status": result.status,
        "reason": result.reason,
        "events": len(result.events),
        "duration_s": result.duration_s,
        "span": result.span,
        "seconds": round(result.seconds, 3),
    }


def counted(number: int, noun: str) -> str:
    """Format a count: `1 event`, `2 events`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _problem_rows(results: Sequence[PredictionResult]) -> list[str]:
    """Rows of recordings that failed or are partial; of many with one reason, the first few."""
    names: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if result.reason:
            names.setdefault((result.status, result.reason), []).append(result.recording.name)
    rows: list[str] = []
    listed = 0
    for (status, reason), recordings in names.items():
        shown = recordings if len(recordings) <= _MAX_NAMED + 1 else recordings[:_MAX_NAMED]
        more = len(recordings) - len(shown)
        group = [f"{status:8} {name}: {reason}" for name in shown]
        group += [f"{status:8} {more} more: {reason}"] if more else []
        if len(rows) + len(group) > _MAX_PROBLEMS:
            break
        rows += group
        listed += len(recordings)
    problems = sum(map(len, names.values()))
    if listed < problems:
        rows.append(f"... and {problems - listed} more in summary.jsonl")
    return rows
