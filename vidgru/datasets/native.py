"""The native schema on disk: which files a data set is made of, and the rows of its annotation file.

`annotations.py` says what the rows mean. Here they are only found, decoded and parsed, and every line that cannot be
read is reported with its number.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vidgru.errors import AnnotationError, SettingsError
from vidgru.types import Annotation

COLUMNS = ("video", "start", "end", "label", "description", "split")
_KEYS = ("path", "videos", "annotations", "format", "names", "background", "split")
_SPLIT_NAMES = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
_MOST_SHOWN = 10  # bad lines in one error
_CLOCK = re.compile(r"(?:(\d{1,6}):)?([0-5]?\d):([0-5]?\d(?:[.,]\d*)?)", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)

Problem = tuple[int, str, str]  # line, what is wrong, remedy


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How clips are set aside where the annotation file does not say.

    Attributes:
        val, test: shares of the clips, 0 to 1.
        by: what must not be in two splits: "folder" (of the video), "video", or a column of the annotation file;
            None chooses between the first two.
        seed: of the draw.
    """

    val: float = 0.2
    test: float = 0.0
    by: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("val", "test"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise SettingsError(f"split: {name} is {value!r}; it must be a share from 0 to below 1")
        if self.val + self.test >= 1:
            raise SettingsError(f"split: val {self.val} and test {self.test} leave nothing to train on")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise SettingsError(f"split: seed is {self.seed!r}; it must be a whole number, 0 or more")
        if self.by is not None and not isinstance(self.by, str):
            raise SettingsError(f"split: by is {self.by!r}; it must be folder, video, or a column's name")


@dataclass(frozen=True, kw_only=True)
class Row:
    """An annotation, the line it stands on (from 1, the header counts) and what the other columns hold."""

    annotation: Annotation
    line: int
    extra: Mapping[str, str] = field(default_factory=dict)


# --- which files ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What a data set is made of.

    Attributes:
        file: what a person would edit: the YAML, or the annotation file.
        annotations: the annotation file.
        roots: folders in which videos are looked for, in order.
        names: labels in the order that was asked for; None if the rows decide.
        background: label that is treated as no event.
        split: how to set clips aside.
    """

    file: Path
    annotations: Path
    roots: tuple[Path, ...]
    names: tuple[str, ...] | None = None
    background: str | None = None
    split: SplitSettings = field(default_factory=SplitSettings)


def find_dataset(path: Path) -> Spec:
    """What the data set at `path` (a YAML, an annotation file, a folder) is made of.

    Raises:
        AnnotationError: there is none, or its YAML does not hold.
    """
    if path.is_dir():
        annotations = _annotations_in(path)
        return Spec(file=annotations, annotations=annotations, roots=_roots(path))
    if not path.is_file():
        raise AnnotationError(
            f"no such data set: {path}", "give a data set's YAML, its annotation file (.csv, .jsonl) or its folder"
        )
    if path.suffix.lower() in (".yaml", ".yml"):
        return _read_yaml(path)
    return Spec(file=path, annotations=path, roots=_roots(path.parent))


def _roots(folder: Path) -> tuple[Path, ...]:
    videos = folder / "videos"
    return (videos, folder) if videos.is_dir() else (folder,)


def _annotations_in(folder: Path) -> Path:
    found = [file for file in (folder / "annotations.csv", folder / "annotations.jsonl") if file.is_file()]
    if not found:
        raise AnnotationError(
            f"no annotations.csv or annotations.jsonl in {folder}",
            "name the annotation file itself, or write a data set YAML with `annotations: FILE`",
        )
    if len(found) > 1:
        raise AnnotationError(
            f"both annotations.csv and annotations.jsonl in {folder}",
            "name the file that is meant, not the folder",
        )
    return found[0]


def _read_yaml(path: Path) -> Spec:
    try:
        values = yaml.safe_load(_text(path))
    except (yaml.YAMLError, ValueError) as error:  # a date that does not exist is a bare ValueError
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise AnnotationError(
            f"{path}{where}: not a YAML file: {getattr(error, 'problem', error)}", "quote text that holds : or #"
        ) from error
    if not isinstance(values, dict):
        raise AnnotationError(f"{path}: a data set YAML holds keys and values", f"its keys are {', '.join(_KEYS)}")
    _known_keys(path, values, _KEYS, "")
    for key in ("path", "videos", "annotations", "background", "format"):
        if values.get(key) is not None and not isinstance(values[key], str):
            raise AnnotationError(f"{path}: {key} is {values[key]!r}; it must be text", "put it in quotes")
    if values.get("format", "native") != "native":
        raise AnnotationError(f"{path}: format is {values['format']!r}; it must be native", "leave the key out")
    folder = path.parent / Path(values.get("path") or ".").expanduser()
    if values.get("annotations"):
        annotations = folder / Path(values["annotations"]).expanduser()
        if not annotations.is_file():
            raise AnnotationError(f"{path}: no such annotation file: {annotations}", "`annotations` is under `path`")
    else:
        annotations = _annotations_in(folder)
    roots = _roots(folder)
    if values.get("videos"):
        roots = (folder / Path(values["videos"]).expanduser(),)
        if not roots[0].is_dir():
            raise AnnotationError(f"{path}: no such folder of videos: {roots[0]}", "`videos` is under `path`")
    return Spec(
        file=path,
        annotations=annotations,
        roots=tuple(dict.fromkeys((*roots, annotations.parent))),
        names=_names(path, values.get("names")),
        background=values.get("background"),
        split=_split_settings(path, values.get("split")),
    )


def _known_keys(path: Path, values: Mapping[Any, Any], known: Iterable[str], under: str) -> None:
    known = tuple(known)
    for key in values:
        if key not in known:
            raise AnnotationError(
                f"{path}: unknown key {under}{key}{did_you_mean(key, known)}", f"keys are {', '.join(known)}"
            )


def _names(path: Path, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = list(value.values()) if isinstance(value, dict) else value  # a mapping of index to name, as detectors have
    if not isinstance(names, list) or any(isinstance(n, bool) or not isinstance(n, str | int) for n in names):
        raise AnnotationError(f"{path}: names is {value!r}; it must be a list of labels", "quote words like yes and no")
    texts = tuple(str(name).strip() for name in names)
    twice = [name for name, count in Counter(texts).items() if count > 1]
    if twice or not all(texts):
        raise AnnotationError(
            f"{path}: names holds {twice[0] if twice else ''!r} twice or empty", "list each label once"
        )
    return texts


def _split_settings(path: Path, value: object) -> SplitSettings:
    if value is None:
        return SplitSettings()
    fields = tuple(SplitSettings.__dataclass_fields__)
    if not isinstance(value, dict):
        raise AnnotationError(f"{path}: split is {value!r}; it must hold keys", f"keys are {', '.join(fields)}")
    _known_keys(path, value, fields, "split.")
    try:
        return SplitSettings(**value)
    except SettingsError as error:
        raise AnnotationError(f"{path}: {error.message}") from error


# --- lines ----------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AnnotationError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x})",
            'save it as UTF-8 (in Excel: "CSV UTF-8")',
        ) from error


def read_rows(path: Path) -> tuple[list[Row], list[Problem]]:
    """Rows that can be read, and what is wrong with the others."""
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".jsonl"):
        raise AnnotationError(f"{path}: annotation files end in .csv or .jsonl", "rename it, or convert it")
    problems: list[Problem] = []
    lines = _csv_lines(path, problems) if suffix == ".csv" else _json_lines(path, problems)
    rows = []
    for line, values in lines:
        try:
            rows.append(Row(annotation=_annotation(values), line=line, extra=_extra(values)))
        except AnnotationError as error:
            problems.append((line, error.message, error.remedy))
    return rows, problems


def _csv_lines(path: Path, problems: list[Problem]) -> Iterator[tuple[int, dict[str, str]]]:
    text = _text(path)
    first = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=first.count)  # spreadsheets of many countries write semicolons
    # strict: an unclosed quote must not swallow the rest of the file
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            blank = not any(cell.strip() for cell in cells)
            if not (blank or header):
                header = [cell.strip().lower() for cell in cells]
                _check_header(path, line, header)
            elif len(cells) > len(header) > 0:
                what = f"{len(cells)} cells where the header has {len(header)}"
                problems.append((line, what, f'put text that holds a "{delimiter}" in double quotes'))
            elif not blank:
                yield line, dict(zip(header, cells, strict=False))  # spreadsheets cut empty cells at the end
            line = reader.line_num + 1
    except csv.Error as error:
        problems.append((line, f"not readable as CSV: {error}", "is a double quote not closed, or not doubled?"))


def _check_header(path: Path, line: int, header: list[str]) -> None:
    where = f"{path}, line {line}"
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise AnnotationError(f"{where}: column {twice[0]!r} is there twice", "rename or delete one of them")
    lacks = [name for name in ("video",) if name not in header]
    if "label" not in header and "description" not in header:
        lacks.append("label")
    lacks += [a for a, b in (("start", "end"), ("end", "start")) if b in header and a not in header]
    if lacks:
        raise AnnotationError(
            f"{where}: missing column {', '.join(lacks)}; the header is {','.join(header)}",
            f"the columns are {','.join(COLUMNS)}",
        )


def _json_lines(path: Path, problems: list[Problem]) -> Iterator[tuple[int, dict[str, str]]]:
    seen: set[str] = set()
    # not splitlines(), which also cuts at separators that may stand inside a JSON text
    for line, text in enumerate(_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            values = json.loads(text)
        except ValueError as error:
            problems.append((line, f"not JSON: {error}", "each line is one JSON object"))
            continue
        if not isinstance(values, dict):
            problems.append((line, "not a JSON object", 'a line looks like {"video": "a.mp4", "label": "walk"}'))
            continue
        seen.update(values)
        yield line, {name: _cell(values[name]) for name in values}
    if seen and not seen & {"label", "description"}:  # else a misspelt key would make every row eventless
        raise AnnotationError(
            f"{path}: no row has a label or a description; the keys are {', '.join(sorted(seen))}",
            f"the columns are {','.join(COLUMNS)}",
        )


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _extra(values: Mapping[str, str]) -> dict[str, str]:
    return {name: value.strip() for name, value in values.items() if name not in COLUMNS and name}


def _annotation(values: Mapping[str, str]) -> Annotation:
    video, start, end, label, description, split = (values.get(name, "").strip() for name in COLUMNS)
    label = " ".join(label.split())  # a line break in a label would break tables and subtitles
    if not video:
        raise AnnotationError("no video", "each row names a file in the column video")
    if any("\ud800" <= letter <= "\udfff" for letter in f"{video}{label}{description}{split}"):
        raise AnnotationError("half a character (a lone surrogate)", "write the character as itself, in UTF-8")
    if label[:1] in ("[", "{") and _is_json(label):
        raise AnnotationError(f"label is {label}", "write one row for each label")
    if bool(start) != bool(end):
        has, lacks = ("start", "end") if start else ("end", "start")
        raise AnnotationError(f"{has} without {lacks}", "give both, or neither for the whole clip")
    start_s, end_s = (_seconds(name, value) if value else None for name, value in (("start", start), ("end", end)))
    if start_s is not None and end_s is not None and end_s <= start_s:
        raise AnnotationError(f"end {end} is not after start {start}", "an interval is [start, end) in seconds")
    split = split.lower()
    return Annotation(
        video=video,
        start_s=start_s,
        end_s=end_s,
        label=label or None,
        description=description or None,
        split=_SPLIT_NAMES.get(split, split) or "train",
    )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _seconds(name: str, text: str) -> float:
    clock = _CLOCK.fullmatch(text)
    if clock:
        hours, minutes, seconds = clock.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise AnnotationError(f"{name} {text!r} is not a time", "write seconds (83.5) or HH:MM:SS (00:01:23.5)")
    if value < 0:
        raise AnnotationError(f"{name} {text} is before the recording starts", "times count from 0")
    return value + 0.0  # -0 becomes 0


def raise_problems(path: Path, problems: list[Problem]) -> None:
    """Raise one AnnotationError for all bad lines of a file (the first ten are shown); nothing if there are none."""
    if not problems:
        return
    problems = sorted(problems, key=lambda problem: problem[0])
    remedies = list(dict.fromkeys(remedy for _, _, remedy in problems[:_MOST_SHOWN]))
    if len(problems) == 1:
        raise AnnotationError(f"{path}, line {problems[0][0]}: {problems[0][1]}", remedies[0])
    shown = [f"  line {line}: {message}" for line, message, _ in problems[:_MOST_SHOWN]]
    if len(problems) > _MOST_SHOWN:
        shown.append(f"  and {len(problems) - _MOST_SHOWN} more")
    raise AnnotationError("\n".join([f"{path}: {len(problems)} bad lines", *shown]), "\n  ".join(remedies))


def did_you_mean(text: object, known: Iterable[object]) -> str:
    """A hint in brackets at what `text` may be a misspelling of; empty if nothing is close."""
    close = difflib.get_close_matches(str(text), [str(name) for name in known if name is not None], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def plural(number: int, noun: str) -> str:
    """The number and its noun: "1 clip", "3 clips"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
