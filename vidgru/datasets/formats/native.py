"""The native format: CSV or JSONL with the columns video, start, end, label, description, split.

Event files of `vidgru predict` have these columns and more. Templates (`description_source` is `template`) are not read
back, so that a model never learns to write them; captions written by a model are, like its labels.

Kinetics' CSV files are tables too and are parsed here.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from vidgru.datasets.formats.parsing import number, read_text, seconds
from vidgru.datasets.rows import InvalidEntryError, ParseResult, plural
from vidgru.errors import AnnotationError

COLUMNS = ("video", "start", "end", "label", "description", "split")
_KINETICS = ("label", "youtube_id", "time_start", "time_end")
_CAPTION_COLUMNS = ("description_score", "description_source")  # of event files
_COMMA = re.compile(r"\s*(\d+),(\d+)\s*", re.ASCII)
_HEADER_REMEDY = f"the columns are {','.join(COLUMNS)}"


def read_native(path: Path) -> ParseResult:
    """Parse the native format: JSONL by suffix or first character, else CSV.

    Raises:
        AnnotationError: Not UTF-8, a column is missing or repeated, or no row has a label or description.
    """
    result = ParseResult(exact=True)
    text = read_text(path)
    is_json = path.suffix.lower() == ".jsonl" or (path.suffix.lower() != ".csv" and text.lstrip()[:1] == "{")
    templates: list[str] = []
    for where, values in _json_lines(path, text, result) if is_json else _csv_lines(path, text, result):
        with result.entry():
            if values.get("description_source", "").strip().lower() == "template":
                templates.append(where)
                values = {
                    name: value for name, value in values.items() if name not in ("description", *_CAPTION_COLUMNS)
                }
            _add(result, where, values)
    if templates:
        result.notes.append(
            f"{plural(len(templates), 'template description')} of vidgru predict skipped (first: "
            f"{templates[0]}); if you wrote your own, delete the word template"
        )
    return result


def read_kinetics(path: Path) -> ParseResult:
    """Parse Kinetics' CSV (`label,youtube_id,time_start,time_end,split`) for clips that are already cut.

    Clips are named `ID_000010_000020.mp4` by the usual downloaders, or by the id alone.

    Raises:
        AnnotationError: Not UTF-8, or a column is missing or repeated.
    """
    result = ParseResult()
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
            extra = {"group": name}  # clips of one source video
            result.add(where, video, label=values["label"], split=values.get("split", ""), extra=extra)
    return result


def header_of(text: str) -> list[str]:
    """Return the cells of the first line of a table, in lower case."""
    first = text.lstrip().partition("\n")[0]
    return [cell.strip().strip('"').lower() for cell in first.split(_delimiter(first))]


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)  # spreadsheets in many countries write semicolons


def _csv_lines(
    path: Path, text: str, result: ParseResult, columns: tuple[str, ...] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of a table with their places; the header must hold `columns`, or those of the native format."""
    delimiter = _delimiter(text.lstrip().partition("\n")[0])
    # strict: an unclosed quote must not swallow the rest of the file. A quote may follow a space.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            blank = not any(cell.strip() for cell in cells)
            if not (blank or header):
                header = [cell.strip().lower() for cell in cells]
                _check_header(f"{path}, line {line}", header, columns)
            elif len(cells) > len(header) > 0:
                message = f"{len(cells)} cells, but the header has {len(header)}"
                result.problems.append(
                    (f"line {line}", message, f'put text that holds a "{delimiter}" in double quotes')
                )
            elif not blank:
                values = dict(zip(header, cells, strict=False))  # spreadsheets drop empty cells at the end
                yield f"line {line}", _with_decimal_points(values) if delimiter == ";" else values
            line = reader.line_num + 1
    except csv.Error as error:
        message = f"not readable as CSV: {error}"
        result.problems.append((f"line {line}", message, "check for a double quote that is not closed or not doubled"))


def _with_decimal_points(values: dict[str, str]) -> dict[str, str]:
    """Replace decimal commas in times, as tables with semicolons have them."""
    matches = {name: _COMMA.fullmatch(values.get(name, "")) for name in ("start", "end")}
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
        missing += [a for a, b in (("start", "end"), ("end", "start")) if b in header and a not in header]
    if missing:
        raise AnnotationError(
            f"{where}: missing column {', '.join(missing)}; the header is {','.join(header)}",
            f"the columns are {','.join(columns)}" if columns else _HEADER_REMEDY,
        )


def _json_lines(path: Path, text: str, result: ParseResult) -> Iterator[tuple[str, dict[str, str]]]:
    keys: set[str] = set()
    # not splitlines(), which also splits at separators that may occur inside a JSON string
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        where = f"line {line}"
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            result.problems.append((where, f"not JSON: {error}", "each line must be one JSON object"))
            continue
        if not isinstance(values, dict):
            remedy = 'a line looks like {"video": "a.mp4", "label": "walk"}'
            result.problems.append((where, "not a JSON object", remedy))
            continue
        keys.update(values)
        yield where, {name: _cell(values[name]) for name in values}
    if keys and not keys & {"label", "description"}:  # a misspelt key would make every row event-free
        raise AnnotationError(
            f"{path}: no row has a label or a description; the keys are {', '.join(sorted(keys))}", _HEADER_REMEDY
        )


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _add(result: ParseResult, where: str, values: Mapping[str, str]) -> None:
    video, start, end, label, description, split = (values.get(name, "").strip() for name in COLUMNS)
    if not video:
        raise InvalidEntryError(where, "no video", "name a file in the column video")
    if label[:1] in ("[", "{") and _is_json(label):
        raise InvalidEntryError(where, f"label is {label}", "write one row per label")
    if bool(start) != bool(end):
        given, missing = ("start", "end") if start else ("end", "start")
        raise InvalidEntryError(where, f"{given} without {missing}", "give both, or neither for the whole clip")
    result.add(
        where,
        video,
        start_s=seconds(where, "start", start) if start else None,
        end_s=seconds(where, "end", end) if end else None,
        label=label,
        description=description,
        split=split,
        extra={name: value.strip() for name, value in values.items() if name not in COLUMNS and name},
    )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
