"""Events as files: JSON lines, CSV in the annotation schema, WebVTT and SubRip subtitles, ActivityNet results.

Each function takes events and returns the file's text; `read_jsonl` reads events back. Every format cuts times down to
milliseconds, the resolution of subtitles, so that the files of a recording agree; intervals last at least one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidgru.datasets.formats.csv_reader import format_csv
from vidgru.storage import parse_json
from vidgru.types import Event

CSV_COLUMNS = (
    "video", "start", "end", "label", "description", "description_score", "description_source", "score", "start_time",
)  # fmt: skip

_LINE_BREAK = re.compile(r"\s*[\r\n]\s*")
_BRACKETS_NOTE = (
    "NOTE\nText in square brackets comes from a template of label, objects and time,\n"
    "because the score of the model's own caption was too low.\n"
)
_SRT_MARKUP = str.maketrans("<>{}", "\u2039\u203a()")


def interval_ms(event: Event) -> tuple[int, int]:
    """Start and end of an event in whole milliseconds, start before end."""
    # Rounded down, so that an event at the end of its recording does not exceed it. The small term makes up for
    # floating-point error: 1.2 * 1000 may be 1199.9999999999998.
    start, end = (math.floor(seconds * 1000 + 1e-6) for seconds in (event.start_s, event.end_s))
    return start, max(end, start + 1)


def rounded(event: Event) -> Event:
    """Round an event as all files do: times down to milliseconds, scores to six decimals."""
    start, end = interval_ms(event)
    caption_score = event.description_score
    return replace(
        event,
        start_s=start / 1000,
        end_s=end / 1000,
        score=round(event.score, 6),
        description_score=None if caption_score is None else round(caption_score, 6),
    )


def one_line(event: Event) -> str:
    """An event's caption on one line; a caption from the template in square brackets."""
    text = _LINE_BREAK.sub(" ", event.description or "").strip()
    return f"[{text}]" if text and event.description_source == "template" else text


def as_record(event: Event) -> dict[str, Any]:
    """Convert an event to a JSON record: those of `CSV_COLUMNS` that have a value."""
    values = {name.removesuffix("_s"): value for name, value in vars(rounded(event)).items()}
    return {name: value for name, value in values.items() if value is not None}


def from_record(record: Mapping[str, Any]) -> Event:
    """Convert a record that `as_record` made back to an event.

    Raises:
        ValueError: It is not an event.
    """
    try:
        return Event(**{f"{name}_s" if name in ("start", "end") else name: value for name, value in record.items()})
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not an event: {record!r:.80}") from error


def to_jsonl(events: Iterable[Event]) -> str:
    """Format events as JSON lines, keys sorted, no more escapes than JSON needs."""
    return "".join(json.dumps(as_record(event), sort_keys=True, ensure_ascii=False) + "\n" for event in events)


def read_jsonl(path: Path) -> list[Event]:
    """Read events from a file that `to_jsonl` made.

    Raises:
        ValueError: A line is not an event.
    """
    events = []
    # Not splitlines, which also splits at U+2028 and the like, and JSON does not escape these.
    for line in path.read_text(encoding="utf-8").split("\n"):
        if not line:
            continue
        try:
            events.append(from_record(parse_json(line)))
        except ValueError as error:
            raise ValueError(f"{path}: not an event: {line[:80]}") from error
    return events


def to_csv(recordings: Iterable[tuple[str, Iterable[Event]]]) -> str:
    """Format recordings (name, events) as CSV in the annotation schema, so that the file can be edited and trained on.

    A recording without events has one row with only its name, which marks it as event-free in annotations too. Captions
    from the template are not read back as annotations (`vidgru.datasets.formats.native`).
    """
    rows: list[dict[str, Any]] = []
    for name, events in recordings:
        for row in [as_record(event) for event in events] or [{"video": name}]:
            rows.append(row | {column: f"{row[column]:.3f}" for column in ("start", "end") if column in row})
    return format_csv(CSV_COLUMNS, rows)


def to_vtt(events: Iterable[Event]) -> str:
    """Format events as WebVTT subtitles (W3C Candidate Recommendation, https://www.w3.org/TR/webvtt1/, section 4.1).

    Cues are sorted by start. Without events the file is only its header.
    """
    cues = []
    ordered = _by_start(events)
    if any(event.description_source == "template" for event in ordered):
        cues.append(_BRACKETS_NOTE)
    for event in ordered:
        text = "\n".join(_lines(event)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        cues.append(f"{_timing(event, '.')}\n{text}\n")
    return "\n".join(["WEBVTT\n", *cues])


def to_srt(events: Iterable[Event]) -> str:
    """Format events as SubRip subtitles, numbered from 1. Without events the file is empty.

    SubRip has no escapes, and players take `<…>` and `{…}` for markup, so these brackets become single angle quotation
    marks and `(…)`.
    """
    cues = []
    for number, event in enumerate(_by_start(events), start=1):
        text = "\n".join(_lines(event)).translate(_SRT_MARKUP)
        cues.append(f"{number}\n{_timing(event, ',')}\n{text}\n")
    return "\n".join(cues)


def to_activitynet(recordings: Mapping[str, Iterable[Event]], details: str) -> str:
    """Format events as ActivityNet detection results, version 1.3 (activitynet.org, "Evaluation").

    Captioned events also have the fields of ActivityNet Captions. Both formats share the outer object, and the
    evaluators of both (github.com/activitynet/ActivityNet at 2795199, Evaluation/eval_detection.py; github.com/
    ranjaykrishna/densevid_eval at 1f0951c, evaluate.py) ignore unknown keys, so one file serves both.

    Args:
        recordings: Events by recording; a video's id is its name with extension, as in the other files.
        details: What made the events.
    """
    results = {name: [_result(as_record(event)) for event in events] for name, events in recordings.items()}
    whole = {"version": "VERSION 1.3", "results": results, "external_data": {"used": True, "details": details}}
    return json.dumps(whole, sort_keys=True, ensure_ascii=False) + "\n"


def _result(record: Mapping[str, Any]) -> dict[str, Any]:
    segment = [record["start"], record["end"]]
    result = {"label": record["label"], "score": record["score"], "segment": segment}
    if "description" in record:
        result |= {"sentence": record["description"], "timestamp": segment}
    return result


def _by_start(events: Iterable[Event]) -> list[Event]:
    return sorted(events, key=interval_ms)


def _lines(event: Event) -> list[str]:
    """Lines of a subtitle: label and score, then the caption. None is blank, because that would end the cue."""
    texts = [f"{event.label} {event.score:.0%}", one_line(event)]
    lines = [_LINE_BREAK.sub(" ", text).replace("\0", "\N{REPLACEMENT CHARACTER}").strip() for text in texts]
    return [line for line in lines if line]


def _timing(event: Event, point: str) -> str:
    return " --> ".join(_timestamp(ms, point) for ms in interval_ms(event))


def _timestamp(ms: int, point: str) -> str:
    seconds, ms = divmod(ms, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{ms:03d}"
