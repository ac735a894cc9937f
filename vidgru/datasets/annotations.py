"""Annotations in the native schema: read, checked, and turned into labelled clips.

    video,start,end,label,description,split
    a.mp4,3.4,6.0,fall,"A man falls from a chair",train
    b.mp4,,,walk,,val                                     no times: the whole clip
    c.mp4,,,,,test                                        annotated, and nothing happens in it
    d.mp4,,,,"Two people meet",train                      text only

CSV or JSONL, UTF-8. Columns other than these are ignored, so that an edited events file can be trained on.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from vidgru.datasets.dataset import Dataset, busy_videos, is_denied
from vidgru.datasets.native import (
    COLUMNS,
    Problem,
    Row,
    Spec,
    did_you_mean,
    find_dataset,
    plural,
    raise_problems,
    read_rows,
)
from vidgru.errors import AnnotationError
from vidgru.types import Recording

_MOST_SHOWN = 10  # missing videos named in one message


def load_dataset(path: str | Path, *, allow_missing: bool = False) -> Dataset:
    """Read a data set and check all that can be checked without opening its videos.

    Args:
        path: a YAML (`path, videos, annotations, format, names, background, split`), an annotation file (`.csv`,
            `.jsonl`), or a folder that holds `annotations.csv` or `annotations.jsonl`, and `videos/`.
        allow_missing: leave out rows whose video does not exist, with a warning, instead of failing.

    Raises:
        AnnotationError: with file, line and remedy; up to ten bad lines at once.
    """
    spec = find_dataset(Path(path).expanduser())
    rows, problems = read_rows(spec.annotations)
    if spec.names is not None:
        problems += _not_in_names(rows, spec)
    raise_problems(spec.annotations, problems)
    recordings, rows, missing = _locate(rows, spec.roots)
    warnings = [_missing(spec, missing, allow_missing)] if missing else []
    if not rows:
        raise AnnotationError(
            f"{spec.annotations}: no usable row" + (" (the videos of all rows are missing)" if missing else ""),
            f"it needs a header line ({','.join(COLUMNS)}) and a row for each clip or event",
        )
    used = {row.annotation.label for row in rows if row.annotation.label is not None}
    labels = spec.names if spec.names is not None else tuple(sorted(used))
    if spec.background is not None and spec.background not in used:
        warnings.append(f"background {spec.background!r} is not the label of any row")
    dataset = Dataset(
        root=spec.roots[0],
        source=spec.annotations,
        rows=tuple(rows),
        recordings=recordings,
        labels=tuple(label for label in labels if label != spec.background),
        background=spec.background,
        split=spec.split,
    )
    return replace(dataset, warnings=(*warnings, *_oddities(dataset)))


def _not_in_names(rows: list[Row], spec: Spec) -> list[Problem]:
    known = {*(spec.names or ()), spec.background}
    return [
        (
            row.line,
            f"label {label!r} is not in names{did_you_mean(label, known)}",
            f"correct the label, or add it to names in {spec.file}",
        )
        for row in rows
        if (label := row.annotation.label) is not None and label not in known
    ]


def check_times(dataset: Dataset, durations: Mapping[str, float]) -> Dataset:
    """Hold intervals against the length of their recordings; ends that reach too far are clipped, with a warning.

    Args:
        dataset: as loaded.
        durations: seconds by video. Rows of recordings that are not in it are left as they are.

    Raises:
        AnnotationError: an interval starts where its recording is already over.
    """
    rows: list[Row] = []
    problems: list[Problem] = []
    late: list[str] = []
    for row in dataset.rows:
        note = row.annotation
        length = durations.get(note.video, math.inf)
        if note.start_s is not None and note.start_s >= length:
            what = f"start {note.start_s:g} s is past the end of {note.video} ({length:.2f} s)"
            problems.append((row.line, what, "times are seconds from the start of the file, or HH:MM:SS"))
        elif note.end_s is not None and note.end_s > length:
            late.append(f"line {row.line}: {note.video} ends at {length:.2f} s, not {note.end_s:g}")
            row = replace(row, annotation=replace(note, end_s=length))
        rows.append(row)
    raise_problems(dataset.source, problems)
    warnings = dataset.warnings
    if late:
        warnings += (f"{plural(len(late), 'end')} past the end of the recording, clipped ({late[0]})",)
    return replace(dataset, rows=tuple(rows), durations={**dataset.durations, **durations}, warnings=warnings)


# --- videos ---------------------------------------------------------------------------------------------------------


def _locate(rows: list[Row], roots: tuple[Path, ...]) -> tuple[dict[str, Recording], list[Row], dict[str, int]]:
    """Recordings by name, rows with that name as their video, and missing videos with the first line of each."""
    by_spelling: dict[str, Recording | None] = {}
    recordings: dict[str, Recording] = {}
    present: list[Row] = []
    missing: dict[str, int] = {}
    for row in rows:
        spelling = row.annotation.video
        if spelling not in by_spelling:
            by_spelling[spelling] = _recording(spelling, roots)
        recording = by_spelling[spelling]
        if recording is None:
            missing.setdefault(spelling, row.line)
        else:
            recordings.setdefault(recording.name, recording)
            present.append(replace(row, annotation=replace(row.annotation, video=recording.name)))
    return recordings, present, missing


def _recording(spelling: str, roots: tuple[Path, ...]) -> Recording | None:
    for text in dict.fromkeys((spelling, spelling.replace("\\", "/"))):  # as written, else as Windows means it
        for root in roots:
            path = root / text
            if os.path.isfile(path):
                return Recording(path=path, name=_name(path, roots))
    return None


def _name(path: Path, roots: tuple[Path, ...]) -> str:
    """The path under the first root it is under, else the whole path, so that two spellings of a file are one name."""
    for root in roots:
        under = os.path.relpath(path, root)
        if under.split(os.sep)[0] != os.pardir:
            return Path(under).as_posix()
    whole = Path(os.path.abspath(path))
    return whole.relative_to(whole.anchor).as_posix()


def _missing(spec: Spec, missing: Mapping[str, int], allow: bool) -> str:
    some = ", ".join(f"{video} (line {line})" for video, line in list(missing.items())[:_MOST_SHOWN])
    more = f" and {len(missing) - _MOST_SHOWN} more" if len(missing) > _MOST_SHOWN else ""
    text = f"{plural(len(missing), 'video')} missing: {some}{more}"
    if allow:
        return f"{text}; left out"
    raise AnnotationError(
        f"{spec.annotations}: {text}; looked in {' and '.join(map(str, spec.roots))}",
        "correct the names (with suffix), set `videos` in a data set YAML, or leave them out with --allow-missing",
    )


# --- what a person should look at -----------------------------------------------------------------------------------


def _oddities(dataset: Dataset) -> list[str]:
    """Warnings that need nothing but the rows."""
    found = []
    alike: dict[str, list[str]] = {}
    for label in (*dataset.labels, *([dataset.background] if dataset.background else [])):
        alike.setdefault(re.sub(r"[\W_]+", "", label.casefold()) or label, []).append(label)
    found += [f"labels that differ in spelling only: {', '.join(map(repr, g))}" for g in alike.values() if len(g) > 1]
    other = [name for name in dataset.splits if name not in ("train", "val", "test")]
    if other:
        found.append(f"rows of split {', '.join(other)} are used only where that split is asked for by name")
    seen: dict[tuple[object, ...], int] = {}
    repeated = []
    for row in dataset.rows:
        note = row.annotation
        first = seen.setdefault((note.video, note.start_s, note.end_s, note.label, note.description), row.line)
        if first != row.line:
            repeated.append(f"line {row.line} says what line {first} says")
    if repeated:
        found.append(f"{plural(len(repeated), 'repeated row')} ({repeated[0]})")
    busy = busy_videos(dataset)
    denied = [row.line for row in dataset.rows if is_denied(row.annotation, busy, dataset.background)]
    if denied:
        found.append(
            f"{plural(len(denied), 'row')} (first: line {denied[0]}) say that nothing happens where others say that "
            "something does; left out"
        )
    return found + _overlaps(dataset)


def _overlaps(dataset: Dataset) -> list[str]:
    timed: dict[str, list[tuple[float, float, str, int]]] = {}
    for row in dataset.rows:
        note = row.annotation
        if note.start_s is not None and note.end_s is not None and note.label is not None:
            timed.setdefault(note.video, []).append((note.start_s, note.end_s, note.label, row.line))
    pairs = []
    for video, spans in timed.items():
        open_until: list[tuple[float, float, str, int]] = []
        for span in sorted(spans):
            open_until = [other for other in open_until if other[1] > span[0]]
            # the same interval with another label is one clip with two labels, which is no oddity
            pairs += [(video, other, span) for other in open_until if other[:2] != span[:2]]
            open_until.append(span)
    if not pairs:
        return []
    video, one, two = pairs[0]
    where = f"{video}, lines {one[3]} and {two[3]}: {one[2]} and {two[2]}"
    return [f"{plural(len(pairs), 'pair')} of overlapping intervals (first: {where})"]
