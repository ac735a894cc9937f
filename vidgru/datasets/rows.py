"""Rows of annotation files: one annotation each, with its place in the file, and the errors found while parsing.

Every format is parsed into a `ParseResult`, which checks all rows by the same rules.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from sys import intern
from unicodedata import normalize

from vidgru.errors import AnnotationError
from vidgru.types import Annotation

SPLIT_NAMES = {
    "training": "train", "valid": "val", "validation": "val", "validate": "val", "dev": "val", "testing": "test",
}  # fmt: skip
BACKGROUND = "background"  # in the native format, the label of what was watched and is without events
HALF_WIDTH_S = 0.5  # default, for events marked as moments
_MAX_TIME_S = 1e9  # thirty years
_MAX_SHOWN = 10  # bad entries listed in one error
_SURROGATE = re.compile("[\ud800-\udfff]")
_NO_EXTRA: Mapping[str, str] = {}  # shared: files have hundreds of thousands of rows

Problem = tuple[str, str, str]  # place, description, remedy


@dataclass(frozen=True, kw_only=True)
class FrameSpan:
    """The frames of an annotation that counts frames, so that the frame times of its video can give its interval.

    Attributes:
        first: First frame, counted from 0.
        stop: Frame after the last; `first` itself for a moment.
        fps: Frames per second to assume where the video is not there; 0 if unknown, until `use_video_rates` has set it.
        half_width_s: Seconds before and after a moment that its event covers.
    """

    first: float
    stop: float
    fps: float
    half_width_s: float = 0.0

    def interval(self, time_of: Callable[[float], float]) -> tuple[float, float]:
        """Return start and end in seconds, given the time of each frame."""
        return max(0.0, time_of(self.first) - self.half_width_s), time_of(self.stop) + self.half_width_s


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotationRow:
    """One annotation of a file.

    Attributes:
        annotation: The annotation.
        where: Its place in the file: "line 3", "database.v_abc.annotations[2]".
        extra: Values of other columns, by name.
        home: Folder of the annotation file; its videos may lie below it.
        frames: The frames that its interval was computed from; None if the file gives times.
        ignored: Whatever happens in its interval is neither learnt nor evaluated; it has no label.
        watched: A person watched its interval, or the whole recording, and nothing happens; it has no label.
    """

    annotation: Annotation
    where: str
    extra: Mapping[str, str] = field(default_factory=dict)
    home: Path | None = None
    frames: FrameSpan | None = None
    ignored: bool = False
    watched: bool = False

    @property
    def split(self) -> str:
        """Split of its annotation; train if it has none."""
        return self.annotation.split or "train"

    @property
    def is_description_only(self) -> bool:
        """Whether it describes something without a label: what happens there is unknown to training on labels."""
        return self.annotation.label is None and self.annotation.description is not None and not self.watched


def videos_watched_in_part(rows: Iterable[AnnotationRow]) -> set[str]:
    """Return the videos whose rows mark what was watched: of these, time that no row covers is unknown."""
    return {row.annotation.video for row in rows if row.watched and row.annotation.start_s is not None}


def with_split(row: AnnotationRow, split: str) -> AnnotationRow:
    """Return the row in another split."""
    return row if row.split == split else replace(row, annotation=replace(row.annotation, split=split))


@dataclass(frozen=True, kw_only=True)
class Options:
    """Facts that some formats do not contain.

    Attributes:
        fps: Frames per second of the annotation; 0 if the file gives it or its tool has a default.
        half_width_s: Seconds before and after a moment that its event covers.
        tiers: ELAN tiers or CVAT attributes that hold the labels; empty for all.
        names: Labels by index, for lists with class numbers.
        has_watched: Whether the label BACKGROUND of the native format marks what was watched, and is no label.
    """

    fps: float = 0.0
    half_width_s: float = HALF_WIDTH_S
    tiers: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    has_watched: bool = True


class InvalidEntryError(Exception):
    """An entry of an annotation file that cannot be parsed; parsing continues with the next entry."""

    def __init__(self, where: str, message: str, remedy: str) -> None:
        super().__init__(where, message, remedy)
        self.problem: Problem = (where, message, remedy)


def home_of(path: Path) -> Path:
    """Return the folder of an annotation file, or the folder itself."""
    return path if path.is_dir() else path.parent


@dataclass(kw_only=True)
class ParseResult:
    """Content of annotation files.

    Attributes:
        home: Folder of the annotation file, or the folder that is read; its videos are looked up there too. None in a
            result merged from several files.
        rows: In file order; the split is None if the file gives none.
        problems: Entries that could not be parsed.
        notes: Assumptions made and entries skipped, in sentences.
        warnings: What the user should check, in sentences.
        names: Labels in the order of the file's own list; empty if it has none.
        half_width_s: For files that mark moments: seconds before and after a moment that its event covers.
        durations: Durations in seconds that the file states, by video name as written.
        frame_counts: Numbers of frames that the file states, by video name as written.
        spellings: Alternative names of a video; a name without suffix matches any video of that name.
        exact: Videos are paths, not names to look up, and intervals of zero length are errors.
        recomposed: Labels that were written in decomposed Unicode (letters and accents apart), as read.
        empty: Places of intervals of zero length, which exports of other tools contain; they are skipped.
    """

    home: Path | None = None
    rows: list[AnnotationRow] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    names: tuple[str, ...] = ()
    half_width_s: float | None = None
    durations: dict[str, float] = field(default_factory=dict)
    frame_counts: dict[str, int] = field(default_factory=dict)
    spellings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    exact: bool = False
    recomposed: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    @contextmanager
    def entry(self) -> Iterator[None]:
        """Collect the error of one entry, so that the next one can be parsed."""
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
        frames: FrameSpan | None = None,
        watched: bool = False,
    ) -> None:
        """Add one row, with whitespace trimmed and split names normalised. `frames` takes the place of start and end.

        Raises:
            InvalidEntryError: The video is missing or the interval is invalid.
        """
        video, description, split = video.strip(), description.strip(), split.strip().lower()
        raw_label = " ".join(label.split())  # a line break in a label would break tables and subtitles
        # One label in two Unicode forms, which look the same, would be two classes.
        label, split = normalize("NFC", raw_label), normalize("NFC", split)
        if label != raw_label and label not in self.recomposed:
            self.recomposed.append(label)
        if not video or "\0" in video:
            raise InvalidEntryError(
                where, "no video" if not video else "a zero byte in the video's name", "name its file"
            )
        texts = f"{video}{label}{description}{split}"
        if not texts.isascii() and _SURROGATE.search(texts):
            message = "half a character (a lone surrogate)"
            raise InvalidEntryError(where, message, "write the character as itself, in UTF-8")
        if frames is not None:
            start_s, end_s = frames.interval(lambda frame: frame / (frames.fps or 1))
        if start_s is not None and end_s is not None:
            if start_s == end_s and not self.exact:
                self.empty.append(where)
                return
            check_interval(where, start_s, end_s)
        annotation = Annotation(
            video=intern(video),  # many rows have the same video, label and split
            start_s=start_s,
            end_s=end_s,
            label=intern(label) if label else None,
            description=description or None,
            split=intern(SPLIT_NAMES.get(split, split)) if split else None,
        )
        self.rows.append(
            AnnotationRow(
                annotation=annotation,
                where=where,
                extra=extra or _NO_EXTRA,
                home=self.home,
                frames=frames,
                watched=watched,
            )
        )

    def add_moment(
        self, where: str, video: str, time_s: float, half_width_s: float, label: str, *, frames: FrameSpan | None = None
    ) -> None:
        """Add an event marked as a moment: an interval around it, clipped at the start of the recording.

        Raises:
            InvalidEntryError: The video is missing or the time is invalid.
        """
        if not (math.isfinite(time_s) and time_s >= 0):
            raise InvalidEntryError(where, f"time {time_s:g} s is before the recording starts", "times count from 0")
        self.half_width_s = half_width_s
        start_s, end_s = max(0.0, time_s - half_width_s), time_s + half_width_s
        self.add(where, video, start_s=start_s, end_s=end_s, label=label, frames=frames)


def check_interval(where: str, start_s: float, end_s: float) -> None:
    """Check an interval.

    Raises:
        InvalidEntryError: It is not finite, starts before 0, does not end after its start, or is absurdly long.
    """
    if not (abs(start_s) < _MAX_TIME_S and abs(end_s) < _MAX_TIME_S):  # NaN fails too
        raise InvalidEntryError(where, f"start {start_s:g} or end {end_s:g} is not a time", "write seconds")
    if start_s < 0:
        raise InvalidEntryError(where, f"start {start_s:g} is before the recording starts", "times count from 0")
    if end_s <= start_s:
        message = f"end {end_s:g} is not after start {start_s:g}"
        raise InvalidEntryError(where, message, "an interval is [start, end) in seconds")


def raise_problems(source: Path, problems: list[Problem]) -> None:
    """Raise one AnnotationError for all bad entries, listing the first ten; do nothing if there are none."""
    if not problems:
        return
    remedies = list(dict.fromkeys(remedy for _, _, remedy in problems[:_MAX_SHOWN]))
    if len(problems) == 1:
        raise AnnotationError(f"{source}, {problems[0][0]}: {problems[0][1]}", remedies[0])
    shown = [f"  {where}: {message}" for where, message, _ in problems[:_MAX_SHOWN]]
    if len(problems) > _MAX_SHOWN:
        shown.append(f"  and {len(problems) - _MAX_SHOWN} more")
    raise AnnotationError("\n".join([f"{source}: {len(problems)} bad entries", *shown]), "\n  ".join(remedies))


def did_you_mean(text: object, known: Iterable[object]) -> str:
    """Return a hint in brackets at the known name closest to `text`; empty if none is close."""
    close = difflib.get_close_matches(str(text), [str(name) for name in known if name is not None], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def plural(number: int, noun: str) -> str:
    """Return the number with its noun: "1 clip", "3 clips"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
