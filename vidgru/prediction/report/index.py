"""The index: all recordings and events of an output folder in one page, to sort and filter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vidgru.prediction.event_files import interval_ms
from vidgru.prediction.report.html import caption_cells, clock, link, render_html, text_size
from vidgru.storage import write_atomic
from vidgru.types import Event

MAX_EVENTS = 200_000
EVENT_BYTES = 14_000_000  # of their text
_SCRIPTS = ("common.js", "index.js")


@dataclass(frozen=True, kw_only=True)
class IndexRow:
    """One recording.

    Attributes:
        name: Path under the source root.
        status: Result; partial if it is damaged.
        duration_s: Length in seconds; None if unknown.
        events: Its events, in the order of its report.
        reason: Why it is partial or failed; else empty.
        recorded_at: ISO 8601 time of its start; None if unknown.
        page: Its report; None if it has none.
    """

    name: str
    status: Literal["done", "partial", "failed"]
    duration_s: float | None
    events: tuple[Event, ...] = ()
    reason: str = ""
    recorded_at: str | None = None
    page: Path | None = None


def write_index(path: Path, rows: Iterable[IndexRow], *, labels: tuple[str, ...]) -> None:
    """Write the index.

    Args:
        path: File to write; its links are relative to it.
        rows: One per recording.
        labels: Labels of the model; their order decides their colours.

    Raises:
        OutputError: The file cannot be written.
    """
    rows = list(rows)
    label_numbers = {label: number for number, label in enumerate(labels)}
    events = [
        (event.score, row_number, number, event)
        for row_number, row in enumerate(rows)
        for number, event in enumerate(row.events)
    ]
    notes = []
    by_score = sorted(events, key=lambda item: -item[0])
    sizes = np.cumsum([60 + text_size(event.description or "") for _, _, _, event in by_score])
    room = min(MAX_EVENTS, int(np.searchsorted(sizes, EVENT_BYTES, side="right")))
    if len(events) > room:
        notes.append(
            f"This page shows the {room:,} best scored of {len(events):,} events; the recordings' own pages and "
            "events.csv have all."
        )
        events = sorted(by_score[:room], key=lambda item: item[1:3])
    data = {
        "labels": labels,
        "recordings": [
            {
                "name": row.name,
                "status": row.status,
                "duration": row.duration_s,
                "reason": row.reason,
                "recorded": clock(row.recorded_at),
                "page": link(row.page, path) if row.page else None,
                "events": len(row.events),
            }
            for row in rows
        ],
        "events": [
            [
                row_number,
                *interval_ms(event),
                label_numbers[event.label],
                round(score, 4),
                number,
                *caption_cells(event),
            ]
            for score, row_number, number, event in events
        ],
        "notes": notes,
    }
    write_atomic(path, render_html("index.html", "Events", _SCRIPTS, data))
