"""Rows: what an annotation file says, one annotation each, with the place where it stands, and what is wrong in it.

Every format is read into a `ParseResult`, which holds all rows to the same rules.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vidgru.errors import AnnotationError
from vidgru.types import Annotation

SPLIT_NAMES = {
    "training": "train", "valid": "val", "validation": "val", "validate": "val", "dev": "val", "testing": "test",
}  # fmt: skip
HALF_WIDTH_S = 0.5  # of events that a file marks as moments, where nobody says otherwise
_LONGEST_S = 1e9  # thirty years
_MOST_SHOWN = 10  # bad entries in one error

Problem = tuple[str, str, str]  # where, what is wrong, remedy


@dataclass(frozen=True, kw_only=True)
class AnnotationRow:
    """An annotation, where it stands ("line 3", "database.v_abc.annotations[2]"), and what other columns hold.

    `home` is the folder of its file, under which its video may be.
    """

    annotation: Annotation
    where: str
    extra: Mapping[str, str] = field(default_factory=dict)
    home: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a format may leave unsaid.

    Attributes:
        fps: frames a second in which the file counts; 0 where the file tells, or its tool has a default.
        half_width_s: how far before and after a moment its event reaches.
        tiers: the tiers (ELAN) or attributes (CVAT) that hold the labels; all where none is given.
        names: labels by index, for lists that write numbers.
    """

    fps: float = 0.0
    half_width_s: float = HALF_WIDTH_S
    tiers: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


class InvalidEntryError(Exception):
    """An entry of an annotation file that cannot be read; the others can."""

    def __init__(self, where: str, what: str, remedy: str) -> None:
        super().__init__(where, what, remedy)
        self.problem: Problem = (where, what, remedy)


@dataclass(kw_only=True)
class ParseResult:
    """What was read from annotation files.

    Attributes:
        rows: in the order of the file; a split that the file does not tell is None.
        problems: entries that could not be read.
        notes: what was taken for granted or left out, in sentences; `warnings` what a person should look at.
        names: labels in the order of the file's own list; empty where it has none.
        half_width_s: where the file marks moments: how far before and after one its event reaches.
        durations: seconds that the file says of its videos, by name as it writes them.
        spellings: other names under which a video may lie; without suffix: any video so called.
        exact: videos are paths as they stand, not names to be looked for; and an interval of no length is an error.
        empty: where intervals of no length stand, of which exports of other tools hold some; they are left out.
    """

    rows: list[AnnotationRow] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    names: tuple[str, ...] = ()
    half_width_s: float | None = None
    durations: dict[str, float] = field(default_factory=dict)
    spellings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    exact: bool = False
    empty: list[str] = field(default_factory=list)

    @contextmanager
    def entry(self) -> Iterator[None]:
        """What is done in it for one entry; if that is bad, it is noted and the next can be read."""
        try:
            yield
        except InvalidEntryError as error:
            self.problems.append(error.problem)

    def add(
        self,
        where: str,
        video: str,
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        label: str = "",
        description: str = "",
        split: str = "",
        extra: Mapping[str, str] | None = None,
    ) -> None:
        """Take one row in: spaces trimmed, split names of others made vidgru's.

        Raises:
            InvalidEntryError: no video, or an interval that cannot be.
        """
        video, description, split = video.strip(), description.strip(), split.strip().lower()
        label = " ".join(label.split())  # a line break in a label would break tables and subtitles
        if not video or "\0" in video:
            raise InvalidEntryError(
                where, "no video" if not video else "a zero byte in the video's name", "name its file"
            )
        if any("\ud800" <= letter <= "\udfff" for letter in f"{video}{label}{description}{split}"):
            what = "half a character (a lone surrogate)"
            raise InvalidEntryError(where, what, "write the character as itself, in UTF-8")
        if start_s is not None and end_s is not None:
            if start_s == end_s and not self.exact:
                self.empty.append(where)
                return
            check_interval(where, start_s, end_s)
        note = Annotation(
            video=video,
            start_s=start_s,
            end_s=end_s,
            label=label or None,
            description=description or None,
            split=SPLIT_NAMES.get(split, split) or None,
        )
        self.rows.append(AnnotationRow(annotation=note, where=where, extra=extra or {}))

    def add_moment(self, where: str, video: str, time_s: float, half_width_s: float, label: str) -> None:
        """Take in an event that the file marks as a moment: an interval around it, cut at the recording's start.

        Raises:
            InvalidEntryError: no video, or a time that cannot be.
        """
        if not (math.isfinite(time_s) and time_s >= 0):
            raise InvalidEntryError(where, f"time {time_s:g} s is before the recording starts", "times count from 0")
        self.half_width_s = half_width_s
        self.add(where, video, start_s=max(0.0, time_s - half_width_s), end_s=time_s + half_width_s, label=label)


def check_interval(where: str, start_s: float, end_s: float) -> None:
    """Refuse an interval that cannot be.

    Raises:
        InvalidEntryError: it is not finite or beyond all recordings, starts before 0, or does not end after its start.
    """
    if not (abs(start_s) < _LONGEST_S and abs(end_s) < _LONGEST_S):  # NaN fails too
        raise InvalidEntryError(where, f"start {start_s:g} or end {end_s:g} is not a time", "write seconds")
    if start_s < 0:
        raise InvalidEntryError(where, f"start {start_s:g} is before the recording starts", "times count from 0")
    if end_s <= start_s:
        what = f"end {end_s:g} is not after start {start_s:g}"
        raise InvalidEntryError(where, what, "an interval is [start, end) in seconds")


def raise_problems(source: Path, problems: list[Problem]) -> None:
    """Raise one AnnotationError for all bad entries (the first ten are shown); nothing if there are none."""
    if not problems:
        return
    remedies = list(dict.fromkeys(remedy for _, _, remedy in problems[:_MOST_SHOWN]))
    if len(problems) == 1:
        raise AnnotationError(f"{source}, {problems[0][0]}: {problems[0][1]}", remedies[0])
    shown = [f"  {where}: {what}" for where, what, _ in problems[:_MOST_SHOWN]]
    if len(problems) > _MOST_SHOWN:
        shown.append(f"  and {len(problems) - _MOST_SHOWN} more")
    raise AnnotationError("\n".join([f"{source}: {len(problems)} bad entries", *shown]), "\n  ".join(remedies))


def did_you_mean(text: object, known: Iterable[object]) -> str:
    """A hint in brackets at what `text` may be a misspelling of; empty if nothing is close."""
    close = difflib.get_close_matches(str(text), [str(name) for name in known if name is not None], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def plural(number: int, noun: str) -> str:
    """The number and its noun: "1 clip", "3 clips"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
