"""Events as files: JSON lines, CSV in the annotation schema, WebVTT and SubRip subtitles, ActivityNet results.

Each function takes events and returns the file's text; `read_jsonl` is the way back. Times are cut to milliseconds,
the resolution of subtitles, in every format alike, so that the files of one recording agree; an interval keeps at least
one millisecond.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidgru.types import Event

CSV_COLUMNS = (
    "video", "start", "end", "label", "description", "description_score", "description_source", "score", "start_time",
)  # fmt: skip

_NEW_LINE = re.compile(r"\r\n?")
_LINE_BREAK = re.compile(r"\s*[\r\n]\s*")
_BRACKETS = (
    "NOTE\nText in square brackets is put together from label, objects and time:\n"
    "there the model was not sure enough of a sentence of its own.\n"
)
_SRT_MARKUP = str.maketrans("<>{}", "\u2039\u203a()")


def interval_ms(event: Event) -> tuple[int, int]:
    """Start and end in whole milliseconds, start before end."""
    # Downwards, so that an event that lasts to the end of its recording does not pass it. What floats make of a
    # millisecond is not a millisecond less: 1.2 * 1000 may be 1199.9999999999998.
    start, end = (math.floor(second * 1000 + 1e-6) for second in (event.start_s, event.end_s))
    return start, max(end, start + 1)


def rounded(event: Event) -> Event:
    """The event as every file tells it: times cut to a millisecond, scores rounded to a millionth."""
    start, end = interval_ms(event)
    sure = event.description_score
    return replace(
        event,
        start_s=start / 1000,
        end_s=end / 1000,
        score=round(event.score, 6),
        description_score=None if sure is None else round(sure, 6),
    )


def one_line(event: Event) -> str:
    """The description as people read it, line breaks taken out; one that is put together stands in square brackets."""
    text = _LINE_BREAK.sub(" ", event.description or "").strip()
    return f"[{text}]" if text and event.description_source == "template" else text


def as_record(event: Event) -> dict[str, Any]:
    """An event as it stands in a JSON line: the columns of `CSV_COLUMNS` that are known."""
    values = {name.removesuffix("_s"): value for name, value in vars(rounded(event)).items()}
    return {name: value for name, value in values.items() if value is not None}


def to_jsonl(events: Iterable[Event]) -> str:
    """One JSON object a line, keys sorted, not escaped beyond what JSON needs."""
    return "".join(json.dumps(as_record(event), sort_keys=True, ensure_ascii=False) + "\n" for event in events)


def read_jsonl(path: Path) -> list[Event]:
    """Events of a file that `to_jsonl` made.

    Raises:
        ValueError: a line is not an event.
    """
    events = []
    # Not splitlines: a description may hold U+2028 and its like, which JSON leaves as they are.
    for line in path.read_text(encoding="utf-8").split("\n"):
        if not line:
            continue
        try:
            record = json.loads(line)
            times = {"start_s": record.pop("start"), "end_s": record.pop("end")}
            events.append(Event(**times, **record))
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(f"{path}: not an event: {line[:80]}") from error
    return events


def to_csv(recordings: Iterable[tuple[str, Iterable[Event]]]) -> str:
    """Events by recording (name, events) in the annotation schema, so that the file, edited or not, can be trained on.

    A recording without an event has the row that says so in an annotation file: its name alone. Descriptions that are
    put together are not read back as annotations (`vidgru.datasets.formats.native`).
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for name, events in recordings:
        rows: list[dict[str, Any]] = [as_record(event) for event in events] or [{"video": name}]
        for row in rows:
            times: dict[str, Any] = {column: f"{row[column]:.3f}" for column in ("start", "end") if column in row}
            # A lone carriage return is not quoted by the csv module, yet ends the row when read.
            writer.writerow({column: _NEW_LINE.sub("\n", str(value)) for column, value in {**row, **times}.items()})
    return text.getvalue()


def to_vtt(events: Iterable[Event]) -> str:
    """Subtitles as WebVTT (W3C Candidate Recommendation, https://www.w3.org/TR/webvtt1/, section 4.1).

    Cues stand in order of start; a file without cues is its header.
    """
    cues = []
    ordered = _by_start(events)
    if any(event.description_source == "template" for event in ordered):
        cues.append(_BRACKETS)
    for event in ordered:
        text = "\n".join(_lines(event)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        cues.append(f"{_timing(event, '.')}\n{text}\n")
    return "\n".join(["WEBVTT\n", *cues])


def to_srt(events: Iterable[Event]) -> str:
    """Subtitles as SubRip, numbered from 1; without events the file is empty.

    SubRip cannot escape, and players take `<…>` and `{…}` for markup: such brackets become single
    angle quotation marks and `(…)`.
    """
    cues = []
    for number, event in enumerate(_by_start(events), start=1):
        text = "\n".join(_lines(event)).translate(_SRT_MARKUP)
        cues.append(f"{number}\n{_timing(event, ',')}\n{text}\n")
    return "\n".join(cues)


def to_activitynet(recordings: Mapping[str, Iterable[Event]], details: str) -> str:
    """Events by recording as ActivityNet detection results, version 1.3 (activitynet.org, "Evaluation").

    A video's id is its name with extension, as in the other files. `details` says what made them. Events that are
    described have what results of ActivityNet Captions have, too: those have the same outer object, and the evaluators
    of both (github.com/activitynet/ActivityNet at 2795199, Evaluation/eval_detection.py; github.com/ranjaykrishna/
    densevid_eval at 1f0951c, evaluate.py) pass over keys that they do not know. So one file serves both.
    """
    results = {name: [_result(as_record(event)) for event in events] for name, events in recordings.items()}
    whole = {"version": "VERSION 1.3", "results": results, "external_data": {"used": True, "details": details}}
    return json.dumps(whole, sort_keys=True, ensure_ascii=False) + "\n"


def _result(record: Mapping[str, Any]) -> dict[str, Any]:
    segment = [record["start"], record["end"]]
    found = {"label": record["label"], "score": record["score"], "segment": segment}
    if "description" in record:
        found |= {"sentence": record["description"], "timestamp": segment}
    return found


def _by_start(events: Iterable[Event]) -> list[Event]:
    return sorted(events, key=interval_ms)


def _lines(event: Event) -> list[str]:
    """What a viewer reads: the label with its score, then the description. A blank line would end the cue."""
    texts = [f"{event.label} {event.score:.0%}", one_line(event)]
    lines = [_LINE_BREAK.sub(" ", text).replace("\0", "\N{REPLACEMENT CHARACTER}").strip() for text in texts]
    return [line for line in lines if line]


def _timing(event: Event, point: str) -> str:
    return " --> ".join(_timestamp(ms, point) for ms in interval_ms(event))


def _timestamp(ms: int, point: str) -> str:
    seconds, ms = divmod(ms, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{ms:03d}"
