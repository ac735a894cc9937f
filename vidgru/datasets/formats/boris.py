"""BORIS's exports of events, tabular and aggregated, and its project files.

    Observation id,...,Source,...,Media duration (s),FPS,...,Subject,Behavior,...,Behavior type,Time,Media file name,...
    obs1,...,player #1:a.mp4,...,60.0,25.0,...,m1,grooming,...,START,1.000,a.mp4,...

    Observation id,...,Subject,Behavior,Behavioral category,Behavior type,Start (s),Stop (s),Duration (s),...
    obs1,...,m1,grooming,,STATE,1.000,2.500,1.500,...

    {"project_format_version": "7.0", "behaviors_conf": {"0": {"type": "State event", "code": "grooming", ...}},
     "observations": {"obs1": {"type": "MEDIA", "file": {"1": ["a.mp4"]}, "time offset": 0.0,
      "media_info": {"length": {"a.mp4": 60.0}}, "events": [[1.0, "m1", "grooming", "", ""], ...]}}}

Version 7's tabular export has a preface, one observation per file, and the columns `Time`, `Media file path` and
`Status`. Times include the observation's offset and run on through all files that one player plays in turn.

Source: github.com/olivierfriard/BORIS, boris/export_observation.py and boris/export_events.py (version 8), tests/files
(version 7); version 9 adds columns that are not read.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vidgru.datasets.formats.csv_reader import delimiter_of, read_cells
from vidgru.datasets.formats.json_reader import Node
from vidgru.datasets.formats.parsing import seconds
from vidgru.datasets.rows import InvalidEntryError, Options, ParseResult, home_of, plural
from vidgru.errors import AnnotationError
from vidgru.numbers import number

_MAX_PREFACE = 60  # lines searched for the header; a preface has 15 and one per file and variable
_PLAYER = re.compile(r"player #(\d+)", re.IGNORECASE)
_NO_MEDIA = ("", "NA", "Not found")
_NOBODY = "No focal subject"
_FIX_REMEDY = "in BORIS, Observations > Fix unpaired events, then export again"


@dataclass(frozen=True, kw_only=True)
class _Observation:
    """A coding session.

    Attributes:
        name: Its id.
        media: Files that the first player plays in turn, with their durations in seconds; None if unknown.
        offset_s: Seconds that BORIS added to all times.
    """

    name: str
    media: tuple[tuple[str, float | None], ...]
    offset_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A coded event, or the start or stop of a state; `media` is the file that was playing, empty if unknown."""

    where: str
    time_s: float
    behavior: str
    subject: str = ""
    modifiers: str = ""
    comment: str = ""
    media: str = ""


def is_boris_table(text: str) -> bool:
    """Whether a table has the columns of one of the exports, possibly below the preface of version 7."""
    return any(
        _is_header(columns) and columns & {"status", "behavior type"}
        for line in text.splitlines()[:_MAX_PREFACE]
        if (columns := {cell.strip().strip('"').lower() for cell in line.split(delimiter_of(line))})
    )


def _is_header(columns: set[str]) -> bool:
    return "behavior" in columns and ("time" in columns or {"start (s)", "stop (s)"} <= columns)


def is_boris_project(root: object) -> bool:
    """Whether a JSON value looks like a project."""
    return isinstance(root, dict) and "behaviors_conf" in root and isinstance(root.get("observations"), dict)


# --- tables ---------------------------------------------------------------------------------------------------------


def read_boris_table(path: Path, options: Options) -> ParseResult:
    """Parse a tabular or aggregated export.

    Raises:
        AnnotationError: The file has no such columns.
    """
    result = ParseResult(home=home_of(path))
    header: list[str] = []
    preface: dict[str, list[str]] = {}
    builder = _Builder(result, options)
    for where, cells in read_cells(path, result):
        columns = [cell.lower() for cell in cells]
        if not header and not _is_header(set(columns)):
            preface.setdefault(columns[0], []).append(cells[1] if len(cells) > 1 else "")
        elif not header:
            header = columns
        else:
            with result.entry():
                _add_record(builder, where, dict(zip(header, cells, strict=False)), preface)
    if not header:
        raise AnnotationError(
            f"{path}: no row with the columns Behavior and Time, or Behavior, Start (s) and Stop (s)",
            "export it from BORIS as tabular or aggregated events",
        )
    builder.finish()
    return result


def _add_record(builder: _Builder, where: str, record: Mapping[str, str], preface: Mapping[str, list[str]]) -> None:
    observation = builder.observation(record, preface)
    media = next((record[name] for name in ("media file name", "media file path", "media file") if name in record), "")
    modifiers = [value for name, value in record.items() if name.startswith("modifier") and value]
    entry = _Entry(
        where=where,
        time_s=0.0,
        behavior=record.get("behavior", ""),
        subject="" if record.get("subject") == _NOBODY else record.get("subject", ""),
        modifiers="|".join(modifiers),
        comment=record.get("comment", record.get("comment start", "")),
        media="" if media in _NO_MEDIA else media,
    )
    kind = (record.get("status") or record.get("behavior type", "")).upper()
    if "start (s)" in record:
        start_s, stop_s = (_seconds(where, name, record.get(name, "")) for name in ("start (s)", "stop (s)"))
        entry = replace(entry, time_s=start_s)
        if kind == "POINT":
            builder.add_point(observation, entry)
        else:
            builder.add_state(observation, entry, replace(entry, time_s=stop_s, media=""))
        return
    entry = replace(entry, time_s=_seconds(where, "time", record.get("time", "")))
    if kind == "POINT":
        builder.add_point(observation, entry)
    elif kind in ("START", "STOP"):
        builder.toggle(observation, entry, is_start=kind == "START")
    else:
        raise InvalidEntryError(where, f"{kind!r} is not START, STOP or POINT", "export the file from BORIS again")


def _seconds(where: str, name: str, text: str) -> float:
    if text in _NO_MEDIA:
        message = f"no {name}: an observation of pictures or without times"
        raise InvalidEntryError(where, message, "vidgru reads observations of videos: delete the row")
    return seconds(where, name, text)


# --- projects -------------------------------------------------------------------------------------------------------


def read_boris_project(path: Path, root: Node, options: Options) -> ParseResult:
    """Parse a project: each observation of a video, its states paired in order of time.

    An observation without events is an event-free recording, with a warning. Live observations and those of pictures
    have no video and are skipped with a notice.
    """
    result = ParseResult(home=home_of(path))
    builder = _Builder(result, options)
    points = set()
    empty: list[str] = []
    without_video: list[str] = []
    with result.entry():
        for _, behavior in root["behaviors_conf"].items():
            with result.entry():
                if behavior["type"].maybe_text().lower().startswith("point"):
                    points.add(behavior["code"].text())
        for name, observation in root["observations"].items():
            with result.entry():
                if observation["type"].maybe_text().upper() not in ("", "MEDIA"):
                    without_video.append(name)
                    continue
                parsed = _project_observation(name, observation)
                entries = sorted(_project_entries(result, observation), key=lambda entry: entry.time_s)
                for entry in entries:
                    with result.entry():
                        if entry.behavior in points:
                            builder.add_point(parsed, entry)
                        else:
                            builder.toggle(parsed, entry)
                builder.note_players(observation["file"].value)
                for media, duration_s in parsed.media:
                    if duration_s:
                        result.durations[media] = duration_s
                    if not entries:
                        result.add(observation.path, media)
                if not entries:
                    empty.append(name)
    builder.finish()
    if without_video:
        result.notes.append(
            f"{plural(len(without_video), 'observation')} without a video skipped, live or of pictures (first: "
            f"{without_video[0]})"
        )
    if empty:
        result.warnings.append(
            f"{plural(len(empty), 'observation')} without events, read as recordings in which nothing happens (first: "
            f"{empty[0]}); delete those that nobody coded"
        )
    return result


def _project_observation(name: str, observation: Node) -> _Observation:
    lengths = observation["media_info"]["length"] if "media_info" in observation else Node({})
    files = observation["file"]["1"] if "file" in observation else Node(None, observation.path)
    media = []
    for file in files.each():
        length = lengths[file.text()] if lengths.value is not None else Node(None)
        media.append((file.text(), None if length.value is None else length.above_0()))
    if not media:
        raise InvalidEntryError(observation.path, "no video in player 1", "add it in BORIS, or delete the observation")
    offset = observation["time offset"]
    return _Observation(name=name, media=tuple(media), offset_s=0.0 if offset.value is None else offset.number())


def _project_entries(result: ParseResult, observation: Node) -> Iterator[_Entry]:
    for event in observation["events"].each():
        with result.entry():
            values = list(event.each())
            if len(values) < 3:
                raise event.bad("a list of time, subject, behavior, modifier and comment")
            texts = [value.maybe_text() for value in values[1:5]]
            subject, behavior, modifiers, comment = (*texts, "", "")[:4]
            yield _Entry(
                where=event.path,
                time_s=values[0].number(),
                behavior=behavior,
                subject=subject,
                modifiers=modifiers,
                comment=comment,
            )


# --- rows of both ---------------------------------------------------------------------------------------------------


class _Builder:
    """Pairs starts with stops and adds rows to a result, in times of the file that was playing."""

    def __init__(self, result: ParseResult, options: Options) -> None:
        self._result, self._half_width_s = result, options.half_width_s
        self._open: dict[tuple[str, str, str, str], _Entry] = {}
        self._observations: dict[str, _Observation] = {}
        self._points = 0
        self._several_players = 0

    def observation(self, record: Mapping[str, str], preface: Mapping[str, list[str]]) -> _Observation:
        """Return the observation of a row of a table; its files are those of the first row."""
        name = record.get("observation id") or next(iter(preface.get("observation id", ())), "")
        if name not in self._observations:
            media = _table_media(record, preface)
            offset = record.get("time offset (s)") or next(iter(preface.get("time offset (s)", ())), "")
            offset_s = 0.0 if math.isnan(number(offset)) else number(offset)
            self._observations[name] = _Observation(name=name, media=media, offset_s=offset_s)
            for video, duration_s in media:
                if duration_s:
                    self._result.durations[video] = duration_s
            players = {match[1] for match in _PLAYER.finditer(" ".join((record.get("source", ""), *preface)))}
            self._several_players += len(players) > 1
        return self._observations[name]

    def note_players(self, files: object) -> None:
        """Count an observation of a project with several players."""
        self._several_players += isinstance(files, dict) and sum(bool(media) for media in files.values()) > 1

    def toggle(self, observation: _Observation, entry: _Entry, is_start: bool | None = None) -> None:
        """Add the start or the stop of a state; None for whichever is due."""
        key = (observation.name, entry.subject, entry.behavior, entry.modifiers)
        if is_start is None:
            is_start = key not in self._open
        if is_start and key in self._open:
            first, self._open[key] = self._open[key], entry
            raise InvalidEntryError(first.where, f"{entry.behavior} starts twice without a stop", _FIX_REMEDY)
        if is_start:
            self._open[key] = entry
        elif key not in self._open:
            raise InvalidEntryError(entry.where, f"{entry.behavior} stops without a start", _FIX_REMEDY)
        else:
            self.add_state(observation, self._open.pop(key), entry)

    def add_state(self, observation: _Observation, start: _Entry, stop: _Entry) -> None:
        """Add a state; one that spans several files becomes an event in each."""
        if not start.behavior:
            raise InvalidEntryError(start.where, "no behavior", "each event needs one")
        start_s, stop_s = (round(entry.time_s - observation.offset_s, 6) for entry in (start, stop))
        for video, piece_start_s, piece_stop_s in _pieces(observation, start, start_s, stop_s, stop.media):
            self._result.add(
                start.where, video, start_s=piece_start_s, end_s=piece_stop_s, label=start.behavior,
                description=start.comment or stop.comment, extra=_extra(start),
            )  # fmt: skip

    def add_point(self, observation: _Observation, entry: _Entry) -> None:
        """Add a point event as an interval around it, within its file."""
        time_s = round(entry.time_s - observation.offset_s, 6)
        if time_s < 0:
            raise InvalidEntryError(
                entry.where, f"time {time_s:g} s is before the recording starts", "times count from 0"
            )
        if not entry.behavior:
            raise InvalidEntryError(entry.where, "no behavior", "each event needs one")
        video, start_s, _ = _pieces(observation, entry, time_s, time_s, entry.media)[-1]
        self._result.add(
            entry.where, video, start_s=max(0.0, start_s - self._half_width_s), end_s=start_s + self._half_width_s,
            label=entry.behavior, description=entry.comment, extra=_extra(entry),
        )  # fmt: skip
        self._points += 1

    def finish(self) -> None:
        """Report states without a stop, and describe what was read."""
        result = self._result
        for entry in self._open.values():
            result.problems.append((entry.where, f"{entry.behavior} starts but does not stop", _FIX_REMEDY))
        if self._points == len(result.rows) > 0:
            result.half_width_s = self._half_width_s
        elif self._points:
            result.notes.append(
                f"{plural(self._points, 'point event')} cover {self._half_width_s:g} s before and after their time"
            )
        if self._several_players:
            result.notes.append(
                f"{plural(self._several_players, 'observation')} with several players: events go to player 1's video"
            )
        videos = dict.fromkeys(row.annotation.video for row in result.rows)
        names = {video: _file_name(video) for video in videos}
        counts = Counter(names.values())
        for video, name in names.items():
            if name != video and counts[name] == 1:  # the folders are those of another machine
                result.spellings[video] = (name,)


def _table_media(record: Mapping[str, str], preface: Mapping[str, list[str]]) -> tuple[tuple[str, float | None], ...]:
    """Return the files of the first player and their durations, from a row of a table and its preface."""
    if "player #1" in preface:
        media = preface["player #1"]
        lengths = [record.get("total length", "")]
    else:
        _, _, files = record.get("source", "").split("|")[0].partition("player #1:")
        media = [file.strip() for file in files.split(";") if file.strip()]
        lengths = (record.get("media duration (s)") or record.get("total length", "")).split("|")[0].split(";")
    durations = [value if (value := number(text.strip())) > 0 else None for text in lengths]
    if not media:
        names = (record.get(name, "") for name in ("media file name", "media file path", "media file", "source"))
        media = [name for name in names if name not in _NO_MEDIA][:1]
    if len(media) > len(durations) or (len(media) > 1 and len(media) != len(durations)):
        return tuple((file, None) for file in media)
    return tuple(zip(media, durations, strict=False))


def _pieces(
    observation: _Observation, entry: _Entry, start_s: float, stop_s: float, stop_media: str
) -> list[tuple[str, float, float]]:
    """Return the parts of an interval of an observation that lie in each of its files, in times of the file."""
    media = observation.media
    if not media:
        raise InvalidEntryError(
            entry.where, f"observation {observation.name} has no video", "vidgru reads observations of videos"
        )
    first = media[0][0]
    if len(media) == 1 and (not entry.media or _file_name(entry.media) == _file_name(first)):
        return [(first, start_s, stop_s)]
    if len(media) == 1 or any(duration_s is None for _, duration_s in media):
        if entry.media == first == stop_media:
            return [(first, start_s, stop_s)]
        raise InvalidEntryError(
            entry.where,
            f"observation {observation.name} plays several files in turn, and the export lacks their durations",
            "use the .boris project instead: it holds them",
        )
    pieces, begin_s = [], 0.0
    for index, (video, duration_s) in enumerate(media):
        end_s = begin_s + (duration_s or 0.0)
        is_last = index == len(media) - 1
        if start_s < end_s or is_last:
            piece_stop_s = stop_s if is_last else min(stop_s, end_s)
            piece_start_s = max(0.0, start_s - begin_s) if index else start_s
            pieces.append((video, piece_start_s, piece_stop_s - begin_s))
            if stop_s <= end_s:
                break
        begin_s = end_s
    return pieces


def _extra(entry: _Entry) -> dict[str, str]:
    values = {"subject": entry.subject, "modifiers": entry.modifiers}
    return {name: value for name, value in values.items() if value}


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]
