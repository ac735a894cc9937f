"""The native format: CSV, JSONL or a JSON array with the columns video, start, end, label, description, split.

Event files of `vidgru predict` have these columns and more. Templates (`description_source` is `template`) are not read
back, so that a model never learns to write them; captions written by a model are, like its labels.

Time columns under other names (`start_time,end_time`, `Start (s),Stop (s)`, `start_frame,end_frame`) are read with a
notice if they can only mean start and end. Anything else that would turn events into labels of whole clips is an error.

Kinetics' CSV files are tables too and are parsed here.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from vidgru.datasets.formats.csv_reader import delimiter_of, unescape_cell
from vidgru.datasets.formats.json_reader import read_json
from vidgru.datasets.formats.parsing import read_text, seconds
from vidgru.datasets.rows import BACKGROUND, FrameSpan, InvalidEntryError, Options, ParseResult, home_of, plural
from vidgru.errors import AnnotationError
from vidgru.numbers import clock, number
from vidgru.storage import parse_json

COLUMNS = ("video", "start", "end", "label", "description", "split")
_KINETICS = ("label", "youtube_id", "time_start", "time_end")
_CAPTION_COLUMNS = ("description_score", "description_source")  # of event files
_COMMA = re.compile(r"\s*(\d+),(\d+)\s*", re.ASCII)
_TIME_COLUMN = re.compile(  # names without spaces and underscores
    r"(?:(?P<frame>frame|fr)|time(?:stamp)?|temporal|t|sec|event|action|activity|behaviou?r|segment|seg|clip|interval"
    r"|annotation)*"
    r"(?:(?P<start>start|begin(?:ning)?|onset|st|from|tmin|mint|t0|in|first)"
    r"|(?P<end>end|ed|stop|offset|finish|to|until|tmax|maxt|t1|out|last))(?:s|ing|ed)?"
    r"(?:time(?:stamp)?|t|event|action|segment|clip|in|at|point)*"
    r"(?P<unit>(?:frame|frm|fr|f)(?:s|no|num|number|idx|index|id)?|(?:hh?)?(?:mm?)?ss(?:ms|m?sec|fff)?|hms"
    r"|(?:m(?:illi)?|mic(?:ro)?|n(?:ano)?|u)s(?:ec(?:ond)?s?)?|min(?:ute)?s?|s|secs?|seconds?)?"
)
_VIDEO_DURATION = re.compile(r"(?:video|file)(?:duration|length)(?:s|sec|seconds)?")
_DURATION = re.compile(r"(?:event|segment)?dur(?:ation)?(?:s|sec|secs|seconds?)?")
_PAIRS = ("segment", "timestamp", "timestamps", "interval", "span", "window", "time", "times", "range")
_MOMENT = re.compile(
    r"(?:event)?(?:time(?:stamp)?s?|t|frame|sec(?:ond)?s?|minutes?)(?:in)?(?:m?s|m?sec|[mun]s|seconds?)?"
)
_CLOCK = r"\d+(?::\d+)*(?:\.\d+)?"
_INTERVAL = re.compile(rf"[\[(]?\s*({_CLOCK})\s?s?\s*(?:[-\u2013~,;|]|to|until)+\s*({_CLOCK})\s?s?\s*[\])]?", re.ASCII)
_NO_TIMES = re.compile(  # in the names of columns whose numbers are something else
    r"(?<![a-z])(?:age|cam|camera|count|fold|fps|frames|height|id|index|number|person|score|session|size|subject|trial"
    r"|weight|width|year)(?![a-z])"
)
_MOST = 0.5  # of the cells of a column say what it holds; others are N/A and the like
_FRAMES = ("start in frames", "end in frames")  # names of frame columns after parsing
_READ = frozenset((*COLUMNS, *_FRAMES, ""))
_HEADER_REMEDY = f"the columns are {','.join(COLUMNS)}"


def read_native(path: Path, options: Options) -> ParseResult:
    """Parse the native format: JSONL or a JSON array by suffix or first character, else CSV.

    Raises:
        AnnotationError: Not UTF-8, a column is missing or repeated, times are in columns that cannot be read, or no row
            has a label or description.
    """
    result = ParseResult(home=home_of(path), exact=True)
    text = read_text(path)
    is_json = path.suffix.lower() == ".jsonl" or (path.suffix.lower() != ".csv" and text.lstrip()[:1] in ("{", "["))
    templates: list[str] = []
    for where, values in _json_lines(path, text, result) if is_json else _csv_lines(path, text, result):
        if values.get("description_source", "").strip().lower() == "template":
            templates.append(where)
            values = {name: value for name, value in values.items() if name not in ("description", *_CAPTION_COLUMNS)}
        try:
            _add(result, where, values, options)
        except InvalidEntryError as error:  # not `result.entry()`: files have hundreds of thousands of rows
            result.problems.append(error.problem)
    if templates:
        result.notes.append(
            f"{plural(len(templates), 'template description')} of vidgru predict skipped (first: "
            f"{templates[0]}); if you wrote your own, delete the word template"
        )
    if not any(row.annotation.start_s is not None for row in result.rows):
        _check_other_columns(path, result)
    return result


def _check_other_columns(path: Path, result: ParseResult) -> None:
    """Look for times in the columns that are not read, in a table without times.

    Raises:
        AnnotationError: A column of numbers has the name of a time.
    """
    columns: dict[str, dict[int, str]] = {}  # text by row
    for index, row in enumerate(result.rows):
        for name, text in row.extra.items():
            if text:
                columns.setdefault(name, {})[index] = text
    numeric: dict[str, dict[int, float]] = {}
    times: list[str] = []
    for name, texts in columns.items():
        numbers = {index: value for index, text in texts.items() if not math.isnan(value := clock(text))}
        if _NO_TIMES.search(name):
            continue
        if len(numbers) >= _MOST * len(texts):
            numeric[name] = numbers
        elif sum(map(_is_interval, texts.values())) >= _MOST * len(texts):
            times.append(name)
    for name in numeric:
        if _TIME_COLUMN.fullmatch(_squeeze(name)):
            message = f"column {name!r} looks like a time, but is no pair of start and end with another column"
            raise AnnotationError(f"{path}: {message}", "give both as seconds, in columns called start,end")
    for (first, starts), (second, ends) in itertools.pairwise(numeric.items()):
        common = starts.keys() & ends.keys()
        if len(common) > 1 and len(common) >= _MOST * len(starts) and all(starts[row] < ends[row] for row in common):
            times.append(f"{first},{second}")
    times += [name for name in numeric if _MOMENT.fullmatch(_squeeze(name))]
    if times:
        result.warnings.append(
            f"no times are read, so every row is about a whole clip; if {times[0]} gives times, write them as start,end"
        )


def _is_interval(text: str) -> bool:
    """Whether a text is two ascending times, such as 0:05-0:10 or [5, 10]."""
    match = _INTERVAL.fullmatch(text)
    return match is not None and clock(match[1]) < clock(match[2])


@lru_cache
def _squeeze(name: str) -> str:
    """Return the name of a column without anything but its letters and digits, in lower case."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


@lru_cache
def _time_columns(names: tuple[str, ...]) -> tuple[dict[str, str], str]:
    """Find time columns under other names than start and end.

    Args:
        names: The columns of a table, or the keys of an object.

    Returns:
        `start` and `end`, `start` and `duration`, or the two of `_FRAMES`, by the name of their column; empty if there
        are none. And what prevents reading the columns there are; empty if nothing does.
    """
    lower = [name.lower() for name in names]
    if "start" in lower and "end" in lower:
        return {}, ""
    by_unit: dict[str, tuple[list[str], list[str]]] = {}  # starts and ends
    for name in names:
        match = _TIME_COLUMN.fullmatch(_squeeze(name))
        if match and (_is_frames(match) or (match["start"] != "first" and match["end"] != "last")):
            is_other = (match["unit"] or "").startswith(("m", "n", "u")) and "ss" not in match["unit"]
            unit = "frames" if _is_frames(match) else "other units" if is_other else "seconds"
            by_unit.setdefault(unit, ([], []))[match["start"] is None].append(name)
    if "seconds" in by_unit and not by_unit["seconds"][1]:
        by_unit["seconds"][1].extend(name for name in names if _DURATION.fullmatch(_squeeze(name)))
    unit = next((unit for unit in ("seconds", "frames", "other units") if all(by_unit.get(unit, ([],)))), "")
    starts, ends = by_unit.get(unit, ([], []))
    if not (starts and ends):
        return {}, ""
    if unit == "other units":
        return {}, f"times in the columns {','.join((*starts, *ends))} are not in seconds"
    if len({_without_unit(name) for name in starts}) > 1 or len({_without_unit(name) for name in ends}) > 1:
        return {}, f"it is not clear which of the columns {','.join((*starts, *ends))} are start and end"
    end = "duration" if _DURATION.fullmatch(_squeeze(ends[0])) else "end"
    return dict(zip((starts[0], ends[0]), _FRAMES if unit == "frames" else ("start", end), strict=True)), ""


@lru_cache
def _video_durations(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns of a table that give the duration of the video."""
    return tuple(
        name
        for name in names
        if _VIDEO_DURATION.fullmatch(_squeeze(name)) or (name == "duration" and "start" not in names)
    )


def _is_frames(match: re.Match[str]) -> bool:
    """Whether the name of a time column says that it counts frames."""
    return bool(match["frame"]) or (match["unit"] or "").startswith("f")


def _without_unit(name: str) -> str:
    """Return the squeezed name of a time column without its unit: one time may be given in several."""
    match = _TIME_COLUMN.fullmatch(_squeeze(name))
    return _squeeze(name) if match is None or match["unit"] is None else _squeeze(name)[: match.start("unit")]


def _rename_times(where: str, names: tuple[str, ...], result: ParseResult) -> dict[str, str]:
    """Return new names of time columns, with a notice.

    Raises:
        InvalidEntryError: There are time columns that cannot be read.
    """
    renamed, problem = _time_columns(names)
    if problem:
        raise InvalidEntryError(where, problem, "write seconds in columns called start,end")
    kind = "frames; the end is not included" if set(renamed.values()) == set(_FRAMES) else "seconds"
    note = f"times are read from the columns {','.join(renamed)} ({kind})"
    if renamed and note not in result.notes:
        result.notes.append(note)
    return renamed


def read_kinetics(path: Path) -> ParseResult:
    """Parse Kinetics' CSV (`label,youtube_id,time_start,time_end,split`) for clips that are already cut.

    Clips are named `ID_000010_000020.mp4` by the usual downloaders, or by the id alone.

    Raises:
        AnnotationError: Not UTF-8, or a column is missing or repeated.
    """
    result = ParseResult(home=home_of(path))
    for where, values in _csv_lines(path, read_text(path), result, _KINETICS):
        with result.entry():
            name = values.get("youtube_id", "").strip()
            bounds = [number(values.get(column, "").strip()) for column in ("time_start", "time_end")]
            if not all(0 <= bound < 10**6 for bound in bounds):  # NaN fails too
                raise InvalidEntryError(
                    where, "time_start and time_end are not times", "they are seconds and part of the file name"
                )
            if not values["label"].strip():
                raise InvalidEntryError(where, "no label", "each row needs one")
            video = f"{name}_{int(bounds[0]):06d}_{int(bounds[1]):06d}" if name else ""
            result.spellings[video] = (name,)
            if bounds[1] > bounds[0]:
                result.durations[video] = bounds[1] - bounds[0]  # ID.mp4 may be the whole film
            extra = {"group": name}  # clips of one source video
            result.add(where, video, label=values["label"], split=values.get("split", ""), extra=extra)
    return result


def header_of(text: str) -> list[str]:
    """Return the cells of the first line of a table, in lower case."""
    first = text.lstrip().partition("\n")[0]
    return [cell.strip().strip('"').lower() for cell in first.split(delimiter_of(first))]


def _csv_lines(
    path: Path, text: str, result: ParseResult, columns: tuple[str, ...] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of a table with their places; the header must hold `columns`, or those of the native format."""
    delimiter = delimiter_of(text.lstrip().partition("\n")[0])
    # strict: an unclosed quote must not swallow the rest of the file. A quote may follow a space.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            blank = not "".join(cells).strip()
            if not (blank or header):
                header = [unescape_cell(cell).strip() for cell in cells]
                renamed = {} if columns else _header_times(f"{path}, line {line}", header, result)
                header = [renamed.get(name, name.lower()) for name in header]
                _check_header(f"{path}, line {line}", header, columns)
            elif len(cells) > len(header) > 0:
                message = f"{len(cells)} cells, but the header has {len(header)}"
                result.problems.append(
                    (f"line {line}", message, f'put text that holds a "{delimiter}" in double quotes')
                )
            elif not blank:
                # spreadsheets drop empty cells at the end
                values = dict(zip(header, map(unescape_cell, cells), strict=False))
                yield f"line {line}", _with_decimal_points(values) if delimiter == ";" else values
            line = reader.line_num + 1
    except csv.Error as error:
        message = f"not readable as CSV: {error}"
        result.problems.append((f"line {line}", message, "check for a double quote that is not closed or not doubled"))


def _header_times(where: str, header: list[str], result: ParseResult) -> dict[str, str]:
    try:
        return _rename_times(where, tuple(header), result)
    except InvalidEntryError as error:
        raise AnnotationError(
            f"{where}: {error.problem[1]}; the header is {','.join(header)}", error.problem[2]
        ) from None


def _with_decimal_points(values: dict[str, str]) -> dict[str, str]:
    """Replace decimal commas in times, as tables with semicolons have them."""
    matches = {name: _COMMA.fullmatch(values.get(name, "")) for name in ("start", "end", "duration")}
    times = {name: match.expand(r"\1.\2") for name, match in matches.items() if match}
    return values | times


def _check_header(where: str, header: list[str], columns: tuple[str, ...]) -> None:
    repeated = [name for name, count in Counter(header).items() if name and count > 1]
    if repeated:
        raise AnnotationError(f"{where}: column {repeated[0]!r} occurs twice", "rename or delete one of them")
    missing = [name for name in columns or ("video",) if name not in header]
    if not columns:
        if "label" not in header and "description" not in header:
            missing.append("label")
        if "duration" not in header:
            missing += [a for a, b in (("start", "end"), ("end", "start")) if b in header and a not in header]
    if missing:
        raise AnnotationError(
            f"{where}: missing column {', '.join(missing)}; the header is {','.join(header)}",
            f"the columns are {','.join(columns)}" if columns else _HEADER_REMEDY,
        )


def _json_lines(path: Path, text: str, result: ParseResult) -> Iterator[tuple[str, dict[str, str]]]:
    keys: set[str] = set()
    for where, values in _json_values(path, text, result):
        if not isinstance(values, dict):
            remedy = 'a row looks like {"video": "a.mp4", "label": "walk"}'
            result.problems.append((where, "not a JSON object", remedy))
            continue
        keys.update(values)
        with result.entry():
            renamed = _rename_times(where, tuple(values), result)
            for name in values if "start" not in (*values, *renamed.values()) else ():
                if _holds_times(name, values[name]):
                    message = f"{name} {json.dumps(values[name])} is not read"
                    raise InvalidEntryError(where, message, 'write times as {"start": 1.5, "end": 3}')
            yield where, {renamed.get(str(key), str(key)): _cell(value) for key, value in values.items()}
    if keys and not keys & {"label", "description"}:  # a misspelt key would make every row event-free
        raise AnnotationError(
            f"{path}: no row has a label or a description; the keys are {', '.join(sorted(keys))}", _HEADER_REMEDY
        )


def _json_values(path: Path, text: str, result: ParseResult) -> Iterator[tuple[str, object]]:
    """Yield the values of a JSON array, or of JSON lines, with their places."""
    if path.suffix.lower() != ".jsonl" and text.lstrip()[:1] == "[":
        yield from ((entry.path, entry.value) for entry in read_json(path).each())
        return
    # not splitlines(), which also splits at separators that may occur inside a JSON string
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            try:
                yield f"line {line}", parse_json(content)
            except ValueError as error:
                result.problems.append((f"line {line}", f"not JSON: {error}", "each line must be one JSON object"))


def is_native_array(root: object) -> bool:
    """Whether a JSON value is a list of rows, objects that name a video."""
    return isinstance(root, list) and bool(root) and isinstance(root[0], dict) and isinstance(root[0].get("video"), str)


def _holds_times(name: str, value: object) -> bool:
    """Whether a JSON value is an object with start and end, or a list of two numbers under the name of an interval."""
    if isinstance(value, list) and value and not all(isinstance(number, int | float) for number in value):
        return all(_holds_times(name, entry) for entry in value)
    if isinstance(value, dict):
        return {"start", "end"} <= value.keys() or bool(_time_columns(tuple(value))[0])
    return name in _PAIRS and isinstance(value, list) and len(value) == 2


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _add(result: ParseResult, where: str, values: Mapping[str, str], options: Options) -> None:
    video, start, end, label, description, split = (values.get(name, "").strip() for name in COLUMNS)
    if not video:
        raise InvalidEntryError(where, "no video", "name a file in the column video")
    if label[:1] in ("[", "{") and _is_json(label):
        raise InvalidEntryError(where, f"label is {label}", "write one row per label")
    first, stop = (values.get(name, "").strip() for name in _FRAMES)
    duration = values.get("duration", "").strip() if "end" not in values and "start" in values else ""
    if bool(start or first) != bool(end or stop or duration):
        given, missing = ("start", "end") if start or first else ("end", "start")
        raise InvalidEntryError(where, f"{given} without {missing}", "give both, or neither for the whole clip")
    start_s = seconds(where, "start", start) if start else None
    end_s = seconds(where, "end", end) if end else None
    if start_s is not None and duration:
        end_s = start_s + seconds(where, "duration", duration)
    for name in _video_durations(tuple(values)):
        if not first and 0 < clock(values[name].strip()) < math.inf:
            result.durations[video] = clock(values[name].strip())
    watched = label == BACKGROUND and options.has_watched
    result.add(
        where,
        video,
        start_s=start_s,
        end_s=end_s,
        label="" if watched else label,
        description=description,
        split=split,
        extra={name: value.strip() for name, value in values.items() if name not in _READ},
        frames=_frames(where, first, stop, options.fps) if first else None,
        watched=watched,
    )


def _frames(where: str, first: str, stop: str, fps: float) -> FrameSpan:
    """Parse frame numbers. Raises InvalidEntryError if they are none."""
    numbers = number(first), number(stop)
    if not all(0 <= value < 1e12 and value == round(value) for value in numbers):  # NaN fails too
        remedy = "frames are whole numbers from 0; write seconds in columns start,end"
        raise InvalidEntryError(where, f"{first!r} and {stop!r} are not frame numbers", remedy)
    return FrameSpan(first=numbers[0], stop=numbers[1], fps=fps)


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except ValueError:
        return False
    return True
