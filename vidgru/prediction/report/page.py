"""The page of one recording: its video, what was found in it and why, and a way to correct it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vidgru.cache import Entry
from vidgru.model.attribution import Explanation
from vidgru.model.checkpoint import EventModel
from vidgru.model.event_decoder import smooth_scores
from vidgru.model.stream import ScoredRecording
from vidgru.prediction.event_files import interval_ms
from vidgru.prediction.report.clock import clock
from vidgru.prediction.report.curves import MOST_POINTS, Curves, stretches, thin
from vidgru.prediction.report.objects import FEW_FRAMES, MARGIN_S, QuantisedObjects, shown, turns_of
from vidgru.prediction.report.render import description_cells, link, packed, packed_bytes, render, text_bytes
from vidgru.prediction.report.thumbnails import thumbnails
from vidgru.storage import write_atomic
from vidgru.types import Array, Event, FrameSequence, Recording

# Bytes of a page's text; together, with the code, they stay under 20 MB.
EVENT_BYTES = 3_000_000
CURVE_BYTES = 3_000_000
OBJECT_BYTES = 10_000_000
PICTURE_BYTES = 3_000_000

_MOST_ATTENDED = 5  # objects told of an event
_SCRIPTS = (
    "data.js", "times.js", "colours.js", "sentence.js", "rows.js", "store.js", "player.js", "objects.js", "overlay.js",
    "view.js", "timeline.js", "curves.js", "captions.js", "event_list.js", "event_panel.js", "save.js", "keys.js",
    "page.js",
)  # fmt: skip


def write_page(
    path: Path,
    *,
    model: EventModel,
    recording: Recording,
    entry: Entry,
    parts: Iterable[FrameSequence],
    scored: ScoredRecording,
    events: list[Event],
    recorded_at: str | None,
    damage: str,
    why: Mapping[Event, Explanation] | None = None,
) -> None:
    """Write a page that shows a recording's events, under 20 MB whatever its length; it says what it leaves out.

    Args:
        path: of the page; it refers to the recording from there.
        model: that found the events.
        recording: what they were found in. The page can do without the file.
        entry: its cache entry.
        parts: its sequence in stretches, in order.
        scored: what the model said of it.
        events: those that are written to files; `#event=3` in the page's address is the fourth of them.
        recorded_at: ISO 8601 time of its start; None where it is not known.
        damage: what is wrong with it; empty where nothing is.
        why: reasons for events, as far as they are known.

    Raises:
        OutputError: it cannot be written.
    """
    kept = _affordable(events, why or {})
    told = [events[number] for number in kept]
    turns = turns_of(scored.time_s, told)
    objects = QuantisedObjects.gather(parts, scored.attention, turns, OBJECT_BYTES * 3 // 4)
    starts = stretches(len(scored.time_s), turns >= 0)
    scores = thin(scored.time_s, smooth_scores(scored.time_s, scored.scores, model.decode.smooth_s), starts)
    curves = _most_telling(scores, CURVE_BYTES)
    pictures: list[tuple[int, str]] = []
    if recording.path.is_file():
        pictures = thumbnails(recording.path, entry.duration_s, told, PICTURE_BYTES)
    folders = PurePosixPath(recording.name).parts
    above = Path(os.path.abspath(recording.path)).parents
    under_out = path.parent.parts[-len(folders) :] == folders
    data = {
        "name": recording.name,
        "root": str(above[min(len(folders), len(above)) - 1]),
        "video": link(recording.path, path) if recording.path.is_file() else None,
        "index": "../" * len(folders) + "index.html" if under_out else None,
        "duration": max(entry.duration_s, 1e-3),
        "fps": entry.fps,
        "size": entry.size_px,
        "recorded": clock(recorded_at),
        "damage": damage,
        "labels": model.labels,
        "high": model.decode.high,
        "low": model.decode.low,
        "smooth": model.decode.smooth_s,
        "names": entry.names,
        "events": [_event(event, model.labels) for event in told],
        "numbers": kept if len(kept) < len(events) else None,
        "why": {n: _why((why or {})[event]) for n, event in enumerate(told) if event in (why or {})},
        "scores": _packed_curves(scores, curves),
        "gates": _gates(scored, starts),
        "objects": {name: packed(getattr(objects, name)) for name in QuantisedObjects.__dataclass_fields__},
        "pictures": pictures,
        "lacks": _lacks(events, told, scored),
        "notes": _notes(events, told, scored, objects, scores, curves, model),
    }
    write_atomic(path, render("page.html", recording.name, _SCRIPTS, data))


def _event(event: Event, labels: tuple[str, ...]) -> list[Any]:
    return [*interval_ms(event), labels.index(event.label), round(event.score, 4), *description_cells(event)]


def _why(why: Explanation) -> dict[str, Any]:
    return {
        "baseline": round(why.baseline, 4),
        "objects": [[o.track, o.label, round(o.share, 3)] for o in why.objects[:_MOST_ATTENDED]],
        "without": {group: round(score, 4) for group, score in why.score_without.items()},
        "kept": [round(moment.time_s, 3) for moment in why.keep_peaks],
        "forgot": [round(moment.time_s, 3) for moment in why.forget_peaks],
    }


def _affordable(events: list[Event], why: Mapping[Event, Explanation]) -> list[int]:
    """Indices of the events that the page has room for, the best scored, in their order."""
    by_score = sorted(range(len(events)), key=lambda number: -events[number].score)
    cost = [60 + text_bytes(events[n].description or "") + 800 * (events[n] in why) for n in by_score]
    return sorted(by_score[: np.searchsorted(np.cumsum(cost), EVENT_BYTES, side="right")])


def _most_telling(scores: Curves, budget_bytes: int) -> list[int]:
    """Indices of the labels whose curves the page has room for, those that reach highest, in their order."""
    one = packed_bytes(scores.high[:1]) * (1 + scores.thinned)
    highest = scores.high.max(axis=1, initial=0).astype(int)
    return sorted(np.argsort(-highest, kind="stable")[: budget_bytes // max(one, 1)].tolist())


def _packed_curves(curves: Curves, rows: list[int]) -> dict[str, Any]:
    return {
        "labels": rows,
        "time": packed(curves.time_ms),
        "high": packed(curves.high[rows]),
        "low": packed(curves.low[rows]) if curves.thinned else None,
    }


def _gates(scored: ScoredRecording, starts: Array) -> dict[str, Any] | None:
    if scored.gates is None:
        return None
    curves = thin(scored.time_s, np.column_stack([scored.gates.update, scored.gates.reset]), starts)
    return _packed_curves(curves, [0, 1])


def _lacks(events: list[Event], told: list[Event], scored: ScoredRecording) -> list[str]:
    """Which findings a person cannot correct in the page, in sentences: a file that is saved there denies them."""
    sentences = []
    unasked, unfit = len(scored.events) - len(events), len(events) - len(told)
    if unasked > 0:
        were = "1 finding was" if unasked == 1 else f"{unasked:,} findings were"
        sentences.append(
            f"{were} left out of this page by --min-score, --labels or --since; in the saved file nothing happens "
            "there. Predict without them before you correct."
        )
    if unfit > 0:
        sentences.append(
            f"{unfit:,} of the {len(events):,} events, those that score least, had no room in this page; in the saved "
            "file nothing happens there."
        )
    return sentences


def _boxes_note(told: list[Event], scored: ScoredRecording, objects: QuantisedObjects) -> str:
    """Of which frames boxes are not kept; empty where all are."""
    kept, frames = len(objects.time_ms), len(scored.time_s)
    if kept == frames:
        return ""
    if frames <= FEW_FRAMES:
        return (
            f"Boxes of {kept:,} of {frames:,} frames are kept: those around the best scored events first, as far as "
            "they fit."
        )
    note = f"Boxes are kept from {MARGIN_S:g} s before to {MARGIN_S:g} s after each event."
    share = shown(told, objects, scored.time_s)
    if (share < 1).any():
        note += (
            f" They did not all fit: of {int((share == 0).sum()):,} events none are kept, of "
            f"{int(((share > 0) & (share < 1)).sum()):,} a part; the best scored came first."
        )
    return note


def _notes(
    events: list[Event],
    told: list[Event],
    scored: ScoredRecording,
    objects: QuantisedObjects,
    scores: Curves,
    curves: list[int],
    model: EventModel,
) -> list[str]:
    """What the page leaves out, in sentences."""
    notes = []
    if len(told) < len(events):
        notes.append(
            f"The page has room for the {len(told):,} best scored of {len(events):,} events; annotations saved here "
            "lack the others."
        )
    if len(events) < len(scored.events):
        notes.append(f"The run was asked for {len(events):,} of the {len(scored.events):,} events that were found.")
    if boxes := _boxes_note(told, scored, objects):
        notes.append(boxes)
    if scores.thinned:
        notes.append(
            f"Scores and gates of {len(scored.time_s):,} frames are thinned to {MOST_POINTS:,} points a curve: the "
            "least and the greatest value of each stretch. Stretches are short around events."
        )
    if len(curves) < len(model.labels):
        notes.append(f"Scores are drawn of {len(curves):,} of {len(model.labels):,} labels, those that come highest.")
    return notes
