"""How recordings end, and the words for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vidgru.types import Event, Recording

_MAX_LINES = 20  # recordings, and labels, of a summary, so that it fits a screen


@dataclass(frozen=True, kw_only=True)
class PredictionResult:
    """How one recording ended.

    Attributes:
        recording: which.
        status: done, reused (its files were there already), partial (damaged; what could be decoded was scored) or
            failed.
        events: what was written, by start.
        duration_s: of the recording; None if unknown.
        reason: why it failed or is partial; empty otherwise.
        seconds: wall time it took.
    """

    recording: Recording
    status: Literal["done", "reused", "partial", "failed"]
    events: tuple[Event, ...] = ()
    duration_s: float | None = None
    reason: str = ""
    seconds: float = 0.0


def failed(recording: Recording, reason: str, duration_s: float | None, seconds: float) -> PredictionResult:
    """The prediction of a recording that cannot be read."""
    return PredictionResult(recording=recording, status="failed", duration_s=duration_s, reason=reason, seconds=seconds)


def summary_table(predictions: Iterable[PredictionResult]) -> str:
    """Format results: a line per recording with a reason, events by label, and the counts; at most one screen."""
    predictions = list(predictions)
    lines = [f"{p.status:8} {p.recording.name}: {p.reason}" for p in predictions if p.reason]
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES:] = [f"... and {len(lines) - _MAX_LINES} more in summary.jsonl"]
    events = [event for p in predictions for event in p.events]
    found = Counter(event.label for event in events)
    wide = max(map(len, found), default=0)
    if found:
        lines.append(f"{'':{wide}}  events  recordings      seconds")
    for label, count in sorted(found.most_common(_MAX_LINES)):
        own = [event for event in events if event.label == label]
        seconds = sum(event.end_s - event.start_s for event in own)
        lines.append(f"{label:{wide}}  {count:6}  {len({event.video for event in own}):10}  {seconds:11.1f}")
    if len(found) > _MAX_LINES:
        lines.append(f"... and {len(found) - _MAX_LINES} more labels in events.csv")
    ended = Counter(p.status for p in predictions)
    counts = ", ".join(f"{ended[s]} {s}" for s in ("done", "reused", "partial", "failed") if ended[s])
    hours = sum(p.duration_s or 0 for p in predictions) / 3600
    lines.append(f"{counts or 'no recordings'}: {hours:.2f} hours of video, {counted(len(events), 'event')}")
    return "\n".join(lines)


def summary_record(prediction: PredictionResult) -> dict[str, object]:
    """A prediction as a line of `summary.jsonl`."""
    return {
        "video": prediction.recording.name,
        "status": prediction.status,
        "reason": prediction.reason,
        "events": len(prediction.events),
        "duration_s": prediction.duration_s,
        "seconds": round(prediction.seconds, 3),
    }


def counted(number: int, noun: str) -> str:
    """A number of things, as in 1 event, 2 events."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
