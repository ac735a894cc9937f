"""Subtitles as annotations, WebVTT and SubRip: one file per recording, one cue per event.

    WEBVTT                                        1
                                                  00:00:01,000 --> 00:00:02,500
    NOTE video: cam1/a.mp4                        fall 87%
                                                  A man falls.
    00:00:01.000 --> 00:00:02.500
    fall
    A man falls.

The first line of a cue is the label, further lines are the description. The recording is named by the note, which
`vidgru convert` writes, else by the file: `a.mp4.vtt`, `a.vtt`, or the folder of the `events.vtt` of `vidgru predict`.

Sources: www.w3.org/TR/webvtt1, section 4; en.wikipedia.org/wiki/SubRip, "Format".
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from vidgru.datasets.formats.parsing import read_text, seconds
from vidgru.datasets.rows import InvalidEntryError, ParseResult, home_of, plural
from vidgru.errors import AnnotationError

_TIMING = re.compile(r"\s*(\d[\d:.,]*)\s*-->\s*(\d[\d:.,]*)(?:\s.*)?")
_SRT_START = re.compile(r"\s*\d+\s*\n\s*\d[\d:.,]*\s*-->")
_MARKUP = re.compile(r"</?[A-Za-z0-9][^<>\n]*>|\{\\[^{}\n]*\}")  # <i>, <v Ann>, <00:01.000>, {\an8}
_NOTE = re.compile(r"NOTE video: (.+)")
_SCORE = re.compile(r"(.+) (\d{1,3})%")
_EVENT_FILES = "events"  # stem of the subtitles of `vidgru predict`, which are in a folder named for the recording


def is_subtitles(text: str) -> bool:
    """Whether a text is WebVTT or SubRip."""
    return text.startswith("WEBVTT") or _SRT_START.match(text.replace("\r\n", "\n")) is not None


def read_subtitles(path: Path) -> ParseResult:
    """Parse the cues of one recording; without cues it is event-free.

    In files of `vidgru predict`, whose labels all end in a score, the score becomes a column; descriptions in square
    brackets are templates and are not read.

    Raises:
        AnnotationError: Not UTF-8, or the file has text but no cue.
    """
    result = ParseResult(home=home_of(path))
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    is_vtt = text.lstrip().startswith("WEBVTT")
    video = path.parent.name if path.stem == _EVENT_FILES and path.parent.name else path.stem
    cues: list[tuple[str, str, str, list[str]]] = []  # place, start, end, lines
    line = 1
    has_text = False
    for block in re.split(r"(\n[ \t]*(?=\n))", text):
        lines = block.split("\n")
        timing = next((index for index, content in enumerate(lines[:3]) if "-->" in content), None)
        note = _NOTE.fullmatch(block.strip())
        if note:
            video = note[1]
        elif timing is not None:
            match = _TIMING.fullmatch(lines[timing])
            where = f"line {line + timing}"
            if match is None:
                message = f"{lines[timing].strip()[:60]!r} are not two times"
                result.problems.append((where, message, "a cue begins like 00:00:01.000 --> 00:00:02.500"))
            else:
                body = (_plain(content, is_vtt) for content in lines[timing + 1 :])
                cues.append((where, match[1], match[2], [content for content in body if content]))
        else:
            has_text |= bool(block.strip()) and not block.strip().startswith(("WEBVTT", "NOTE", "STYLE", "REGION"))
        line += block.count("\n")
    if not cues and has_text and not result.problems:
        raise AnnotationError(f"{path}: no cue", "a cue begins like 00:00:01.000 --> 00:00:02.500")
    _add(result, video, cues)
    return result


def _plain(line: str, is_vtt: bool) -> str:
    text = _MARKUP.sub("", line)
    return (html.unescape(text) if is_vtt else text).strip()


def _add(result: ParseResult, video: str, cues: list[tuple[str, str, str, list[str]]]) -> None:
    scores = [_SCORE.fullmatch(lines[0]) for _, _, _, lines in cues if lines]
    is_predicted = bool(scores) and all(scores)
    templates = 0
    for where, start, end, lines in cues:
        with result.entry():
            if not lines:
                raise InvalidEntryError(where, "a cue without text", "its first line is the label")
            label, description, extra = lines[0], " ".join(lines[1:]), {}
            score = _SCORE.fullmatch(label) if is_predicted else None
            if score:
                label, extra = score[1], {"score": str(int(score[2]) / 100)}
                if description.startswith("[") and description.endswith("]"):
                    description, templates = "", templates + 1
            times = (seconds(where, name, text) for name, text in (("start", start), ("end", end)))
            start_s, end_s = times
            result.add(where, video, start_s=start_s, end_s=end_s, label=label, description=description, extra=extra)
    if not cues and not result.problems:
        with result.entry():
            result.add("the file", video)
    if templates:
        result.notes.append(f"{plural(templates, 'template description')} of vidgru predict skipped")
