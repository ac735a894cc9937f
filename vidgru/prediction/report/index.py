"""The page over all recordings: what was found in which, sorted and filtered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vidgru.prediction.event_files import interval_ms
from vidgru.prediction.report.clock import clock
from vidgru.prediction.report.render import description_cells, link, render, text_bytes
from vidgru.storage import write_atomic
from vidgru.types import Event

MOST_EVENTS = 200_000
EVENT_BYTES = 14_000_000  # of their text
_SCRIPTS = (
    "data.js", "times.js", "colours.js", "sentence.js", "rows.js", "index_table.js", "index_recordings.js",
    "index_events.js", "index.js",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class IndexRow:
    """One recording.

    Attributes:
        name: its path under the source root.
        status: how it ended; partial where it is damaged.
        duration_s: None where it is not known.
        events: what was found, in the order in which its page was given them.
        reason: why it failed or is partial; empty otherwise.
        recorded_at: ISO 8601 time of its start; None where it is not known.
        page: its own page; None where it has none.
    """

    name: str
    status: Literal["done", "partial", "failed"]
    duration_s: float | None
    events: tuple[Event, ...] = ()
    reason: str = ""
    recorded_at: str | None = None
    page: Path | None = None


def write_index(path: Path, rows: Iterable[IndexRow], *, labels: tuple[str, ...]) -> None:
    """Write the page over all recordings.

    Args:
        path: of the page; it links to the others from there.
        rows: a row a recording.
        labels: what the model tells apart; their order decides their colours.

    Raises:
        OutputError: it cannot be written.
    """
    rows = list(rows)
    numbers = {label: number for number, label in enumerate(labels)}
    events = [
        (event.score, row, number, event) for row, found in enumerate(rows) for number, event in enumerate(found.events)
    ]
    notes = []
    by_score = sorted(events, key=lambda item: -item[0])
    sizes = np.cumsum([60 + text_bytes(event.description or "") for _, _, _, event in by_score])
    room = min(MOST_EVENTS, int(np.searchsorted(sizes, EVENT_BYTES, side="right")))
    if len(events) > room:
        notes.append(
            f"The page has room for the {room:,} best scored of {len(events):,} events; the pages of the recordings, "
            "and events.csv, hold all."
        )
        events = sorted(by_score[:room], key=lambda item: item[1:3])
    data = {
        "labels": labels,
        "recordings": [_recording(row, path) for row in rows],
        "events": [
            [row, *interval_ms(event), numbers[event.label], round(score, 4), number, *description_cells(event)]
            for score, row, number, event in events
        ],
        "notes": notes,
    }
    write_atomic(path, render("index.html", "Events", _SCRIPTS, data))


def _recording(row: IndexRow, path: Path) -> dict[str, Any]:
    return {
        "name": row.name,
        "status": row.status,
        "duration": row.duration_s,
        "reason": row.reason,
        "recorded": clock(row.recorded_at),
        "page": link(row.page, path) if row.page else None,
        "events": len(row.events),
    }
