"""Charades: actions per clip (CSV), and the sentences of Charades-STA (text).

    id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length
    46GP8,HR43,Kitchen,6,7,Yes,A person cooks.,food,A person cooks at a stove.,c092 11.90 21.20;c147 0.00 12.60,24.83

    46GP8 24.3 30.4##a person turns a light on.

Sources: the README of Charades (Sigurdsson et al., "Hollywood in Homes", 2016) and of Charades-STA (Gao et al., "TALL:
Temporal Activity Localization via Language Query", 2017, github.com/jiyanggao/TALL).
"""

from __future__ import annotations

import re
from pathlib import Path

from vidgru.datasets.formats.csv_reader import read_cells
from vidgru.datasets.formats.parsing import read_text
from vidgru.datasets.rows import InvalidEntryError, ParseResult, home_of
from vidgru.errors import AnnotationError
from vidgru.numbers import number

COLUMNS = {"id", "actions", "length"}
_CLASSES = "Charades_v1_classes.txt"  # `c000 Holding some clothes`
_ACTION = re.compile(r"(c\d+) (\S+) (\S+)")
_SENTENCE = re.compile(r"(\S+) (\S+) (\S+)##(.*\S)\s*")


def is_sentences(text: str) -> bool:
    """Whether the first line of a text is one of Charades-STA's."""
    return _SENTENCE.fullmatch(text.partition("\n")[0].strip()) is not None


def read_charades(path: Path) -> ParseResult:
    """Parse the actions of each clip; a clip without any is event-free, and its script is the description of the clip.

    Class names come from Charades_v1_classes.txt beside the file, else the codes are the labels. Actions that end after
    the clip, as the published ones do, end with it. Clips are called `ID.mp4`.

    Raises:
        AnnotationError: Not UTF-8, or a column is missing.
    """
    result = ParseResult(home=home_of(path))
    names = _names(path.with_name(_CLASSES))
    result.names = tuple(names.values())
    header: list[str] = []
    for where, cells in read_cells(path, result):
        if not header:
            header = [cell.lower() for cell in cells]
            if missing := sorted(COLUMNS.difference(header)):
                raise AnnotationError(f"{path}: missing column {', '.join(missing)}", "see docs/annotations.md")
            continue
        record = dict(zip(header, cells, strict=False))
        with result.entry():
            video, length_s = record["id"], number(record.get("length", ""))
            if not length_s > 0:  # NaN fails too
                raise InvalidEntryError(where, "length is not a number above 0", "it is in seconds")
            result.durations[video] = length_s
            for action in filter(None, record.get("actions", "").split(";")):
                match = _ACTION.fullmatch(action.strip())
                if match is None:
                    message = f"{action.strip()[:60]!r} is not a class, start and end"
                    raise InvalidEntryError(where, message, "an action looks like: c092 11.90 21.20")
                start_s, end_s = number(match[2]), min(number(match[3]), length_s)
                if start_s < length_s:
                    label = names.get(match[1], match[1])
                    result.add(where, video, start_s=start_s, end_s=end_s, label=label)
            if not record.get("actions"):
                result.add(where, video)
            if record.get("script"):
                result.add(where, video, description=record["script"])
    return result


def read_sentences(path: Path) -> ParseResult:
    """Parse one described interval per line.

    Raises:
        AnnotationError: Not UTF-8.
    """
    result = ParseResult(home=home_of(path))
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        with result.entry():
            match = _SENTENCE.fullmatch(text)
            if match is None and text.strip():
                message = f"{text.strip()[:60]!r} is not a clip, start, end and sentence"
                raise InvalidEntryError(f"line {line}", message, "a line looks like: 46GP8 24.3 30.4##a person sits.")
            if match:
                start_s, end_s = number(match[2]), number(match[3])
                result.add(f"line {line}", match[1], start_s=start_s, end_s=end_s, description=match[4])
    return result


def _names(file: Path) -> dict[str, str]:
    lines = read_text(file).splitlines() if file.is_file() else []
    return {
        code: name.strip() for line in lines if (code := line.partition(" ")[0]) and (name := line.partition(" ")[2])
    }
