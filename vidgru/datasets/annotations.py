"""Load annotations, check them, and join them with their videos into a dataset.

    video,start,end,label,description,split
    a.mp4,3.4,6.0,fall,"A man falls from a chair",train
    b.mp4,,,walk,,val                                     no times: labels the whole clip
    c.mp4,,,,,test                                        an event-free recording
    d.mp4,,,,"Two people meet",train                      description only

This is the native format; files of other tools are parsed into the same rows (`formats`).
"""

from __future__ import annotations

import re
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from unicodedata import normalize

from vidgru.datasets import formats
from vidgru.datasets.dataset import Dataset, contradicts_events, videos_with_events
from vidgru.datasets.formats.native import COLUMNS
from vidgru.datasets.recording_checks import use_video_rates
from vidgru.datasets.rows import (
    BACKGROUND,
    SPLIT_NAMES,
    AnnotationRow,
    ParseResult,
    Problem,
    did_you_mean,
    plural,
    raise_problems,
)
from vidgru.datasets.spec import IGNORE, DatasetSpec, find_dataset
from vidgru.datasets.videos import Videos, locate
from vidgru.errors import AnnotationError
from vidgru.storage import user_path
from vidgru.types import DESCRIBED

Number = TypeVar("Number", int, float)
_MIN_LABELLED = 10  # rows, from which each having its own label is strange
_MAX_SHOWN = 10  # missing videos listed in one message
_SPLIT_IN_NAME = re.compile(
    rf"(?:^|[^a-z])(train|val|test|{'|'.join(SPLIT_NAMES)})(?:list)?(?:[^a-z]|$)", re.IGNORECASE | re.ASCII
)


def load_dataset(
    path: str | Path,
    *,
    allow_missing: bool = False,
    find_imported: Callable[[str], str | None] | None = None,
    labels: Sequence[str] = (),
    videos: str = "",
) -> Dataset:
    """Load a dataset and check everything that can be checked without opening its videos.

    Only frames that are counted at an unknown rate need it from their videos.

    Args:
        path: A YAML (`path, videos, annotations, format, fps, half_width, tiers, names, labels, background, split,
            templates`), an annotation file of any known format, or a folder with `annotations.csv` or `.jsonl` and
            `videos/`, with the export of a tool, or with one folder of clips per class.
        allow_missing: Skip rows whose video does not exist, with a warning, instead of failing.
        find_imported: Returns the name of a recording that has imported detections and so need not exist; see `Videos`.
        labels: Labels to have before those of the rows, unless `names` in a YAML lists them all or no row has a label.
        videos: Folder of the videos, as for `find_dataset`.

    Raises:
        AnnotationError: With file, place and remedy; up to ten bad entries at once.
    """
    spec = find_dataset(user_path(path), videos)
    result = read_annotations(spec)
    known_videos = Videos(spec.roots, find_imported)
    recordings, rows, missing = locate(result.rows, known_videos, result.spellings, exact=result.exact)
    if known_videos.guessed:
        pairs = [f"{spelling} is {name}" for spelling, name in known_videos.guessed.items()]
        result.warnings.append(f"{plural(len(pairs), 'video')} found by file name alone (first: {pairs[0]})")
    searched = " and ".join([*map(str, spec.roots), *(["the imported detections"] if find_imported else [])])
    paths = {name: recording.path for name, recording in recordings.items() if recording.path.is_file()}
    rows = use_video_rates(spec.source, rows, paths)
    skipped = [_missing(spec, missing, searched, allow_missing and bool(rows))] if missing else []
    warnings = [*result.warnings, *skipped]
    if not rows:
        raise AnnotationError(
            f"{spec.source}: no usable row",
            f"add one row per clip or event, below a header line in a CSV ({','.join(COLUMNS)})",
        )
    used = {row.annotation.label for row in rows if row.annotation.label is not None}
    all_labels = spec.names or tuple(dict.fromkeys((*(labels if used else ()), *result.names, *sorted(used))))
    labels = tuple(label for label in all_labels if label != spec.background)
    if spec.background is not None and spec.background not in used:
        warnings.append(f"background {spec.background!r} is not the label of any row")
    notes = [*spec.notes, *result.notes]
    if not labels and any(row.annotation.description for row in rows):
        labels = (DESCRIBED,)
        rows = [_with_placeholder_label(row) for row in rows]
        notes.append(f"no row has a label: described segments get the label {DESCRIBED!r}")
    if BACKGROUND in labels and spec.options.has_watched:
        warnings.append(
            f"label {BACKGROUND!r} is learnt like any other; if it means that nothing happens, write `background: "
            f"{BACKGROUND}` in a dataset YAML"
        )
    for label in spec.templates:
        if label not in labels:
            raise AnnotationError(
                f"{spec.file}: templates: no label {label!r}{did_you_mean(label, labels)}",
                f"labels are {', '.join(labels)}",
            )
    dataset = Dataset(
        root=spec.roots[0],
        source=spec.source,
        rows=tuple(rows),
        recordings=recordings,
        labels=labels,
        background=spec.background,
        split=spec.split,
        templates=spec.templates,
        half_width_s=result.half_width_s,
        durations=_by_recording(result.durations, result, known_videos),
        frame_counts=_by_recording(result.frame_counts, result, known_videos),
        notes=tuple(notes),
    )
    return replace(dataset, warnings=(*warnings, *_row_warnings(dataset)))


def _by_recording(values: Mapping[str, Number], result: ParseResult, videos: Videos) -> dict[str, Number]:
    """Return values that a file states about videos, by the names of their recordings."""
    return {
        recording.name: value
        for video, value in values.items()
        if (recording := videos.find(video, result.spellings.get(video, ()), exact=result.exact))
    }


def _with_placeholder_label(row: AnnotationRow) -> AnnotationRow:
    return replace(row, annotation=replace(row.annotation, label=DESCRIBED)) if row.is_description_only else row


def read_annotations(spec: DatasetSpec) -> ParseResult:
    """Parse all annotation files of a dataset, whether their videos exist or not.

    With several files, the name of each gives the split of rows that have none (train.json, val_1.json,
    testlist01.txt).

    Raises:
        AnnotationError: With file, place and remedy; up to ten bad entries at once.
    """
    whole = ParseResult(exact=True)
    for path in spec.annotations:
        result = formats.read(path, spec.format, spec.options)
        if len(spec.annotations) > 1:
            named = _SPLIT_IN_NAME.search(path.stem)
            _qualify(result, path.name, SPLIT_NAMES.get(named[1].lower(), named[1].lower()) if named else None)
        whole.rows += result.rows
        whole.problems += result.problems
        whole.notes += [note for note in result.notes if note not in whole.notes]
        whole.warnings += [warning for warning in result.warnings if warning not in whole.warnings]
        whole.names += result.names
        whole.half_width_s = result.half_width_s or whole.half_width_s
        whole.durations |= result.durations
        whole.frame_counts |= result.frame_counts
        whole.spellings |= result.spellings
        whole.exact &= result.exact
    if spec.relabel:
        _relabel(whole, spec)
    if spec.names is not None:
        whole.problems += _unknown_labels(whole.rows, spec)
    raise_problems(spec.source, whole.problems)
    return whole


def _qualify(result: ParseResult, file: str, split: str | None) -> None:
    """Prefix all places with the file name, and fill in its split where rows have none."""
    result.problems = [(f"{file}, {where}", message, remedy) for where, message, remedy in result.problems]
    result.rows = [
        replace(
            row,
            where=f"{file}, {row.where}",
            annotation=row.annotation if row.annotation.split else replace(row.annotation, split=split),
        )
        for row in result.rows
    ]


def _relabel(result: ParseResult, spec: DatasetSpec) -> None:
    """Merge, ignore and drop labels as the dataset YAML says."""
    rows = []
    for row in result.rows:
        note = row.annotation
        new = spec.relabel.get(note.label or "", note.label)
        if new != IGNORE:
            rows.append(replace(row, annotation=replace(note, label=new)))
        elif note.start_s is not None:  # a clip that is ignored as a whole needs no row
            rows.append(replace(row, annotation=replace(note, label=None, description=None), ignored=True))
    used = Counter(row.annotation.label for row in result.rows)
    for label in spec.relabel.keys() - used.keys():
        near = did_you_mean(label, used)
        result.warnings.append(f"labels: no row has the label {label!r}{near}")
    said = {spec.background: "no event", IGNORE: "ignored"}
    changes = [f"{label} is {said.get(new, new)}" for label, new in spec.relabel.items() if used[label]]
    result.notes.append(f"labels: {', '.join(changes)}")
    names = (spec.relabel.get(name, name) for name in result.names)
    result.rows, result.names = rows, tuple(dict.fromkeys(name for name in names if name != IGNORE))


def _unknown_labels(rows: list[AnnotationRow], spec: DatasetSpec) -> list[Problem]:
    known = {*(spec.names or ()), spec.background}
    return [
        (
            row.where,
            f"label {label!r} is not in names{did_you_mean(label, known)}",
            f"correct the label, or add it to names in {spec.file}",
        )
        for row in rows
        if (label := row.annotation.label) is not None and label not in known
    ]


def _missing(spec: DatasetSpec, missing: Mapping[str, AnnotationRow], searched: str, allow: bool) -> str:
    listed = ", ".join(f"{video} ({row.where})" for video, row in list(missing.items())[:_MAX_SHOWN])
    more = f" and {len(missing) - _MAX_SHOWN} more" if len(missing) > _MAX_SHOWN else ""
    text = f"{plural(len(missing), 'video')} missing: {listed}{more}"
    if allow:
        return f"{text}; skipped"
    boxes = "" if "the imported detections" in searched else "pass boxes of another program with --detections, "
    raise AnnotationError(
        f"{spec.source}: {text}; looked in {searched}",
        f"correct the names, pass --videos or set `videos` in a dataset YAML, {boxes}or skip them with --allow-missing",
    )


# --- warnings -------------------------------------------------------------------------------------------------------


def _row_warnings(dataset: Dataset) -> list[str]:
    """Return warnings about the rows themselves."""
    warnings = []
    variants: dict[str, list[str]] = {}
    for label in (*dataset.labels, *([dataset.background] if dataset.background else [])):
        plain = normalize("NFKC", label).casefold()  # full-width letters, ligatures
        variants.setdefault(re.sub(r"[\W_]+", "", plain) or label, []).append(label)
    warnings += [
        f"labels that differ in spelling only: {', '.join(map(repr, g))}" for g in variants.values() if len(g) > 1
    ]
    labelled = [row.annotation.label for row in dataset.rows if row.annotation.label is not None]
    if len(labelled) >= _MIN_LABELLED and len(set(labelled)) == len(labelled):
        warnings.append(
            f"{len(labelled)} rows have as many labels (first: {labelled[0]!r}): is another column the label? "
            "Sentences are descriptions"
        )
    if not labelled and not any(row.annotation.description for row in dataset.rows):
        warnings.append("no row has a label or a description, so all recordings are event-free: is a column empty?")
    bare = [
        row.where
        for row in dataset.rows
        if row.annotation.start_s is not None
        and row.annotation.label is None
        and row.annotation.description is None
        and not (row.ignored or row.watched)
    ]
    if bare:
        number = plural(len(bare), "row")
        warnings.append(
            f"{number} (first: {bare[0]}) with times but no label or description, taken for intervals without events"
        )
    other = [name for name in dataset.splits if name not in ("train", "val", "test")]
    if other:
        warnings.append(f"rows of split {', '.join(other)} are used only if that split is named")
    first_places: dict[tuple[object, ...], str] = {}
    repeated = []
    for row in dataset.rows:
        note = row.annotation
        first = first_places.setdefault((note.video, note.start_s, note.end_s, note.label, note.description), row.where)
        if first != row.where:
            repeated.append(f"{row.where} repeats {first}")
    if repeated:
        warnings.append(f"{plural(len(repeated), 'repeated row')} ({repeated[0]})")
    with_events = videos_with_events(dataset)
    places = [r.where for r in dataset.rows if contradicts_events(r, with_events, dataset.background)]
    if places:
        warnings.append(
            f"{plural(len(places), 'row')} (first: {places[0]}) marking recordings as event-free although other rows "
            "have events in them; skipped"
        )
    return warnings + _overlaps(dataset)


def _overlaps(dataset: Dataset) -> list[str]:
    timed: dict[str, list[tuple[float, float, str, str]]] = {}
    for row in dataset.rows:
        note = row.annotation
        if note.start_s is not None and note.end_s is not None and note.label is not None:
            timed.setdefault(note.video, []).append((note.start_s, note.end_s, note.label, row.where))
    number = 0
    first = ""
    for video, spans in timed.items():
        ends: list[float] = []  # of earlier intervals, sorted
        longest: tuple[float, float, str, str] | None = None
        for span in sorted(spans):
            number += len(ends) - bisect_right(ends, span[0])
            insort(ends, span[1])
            if not first and longest and longest[1] > span[0] and longest[:2] != span[:2]:
                first = f"{video}, {longest[3]} and {span[3]}: {longest[2]} and {span[2]}"
            longest = span if longest is None or span[1] > longest[1] else longest
        # the same interval with another label is one clip with two labels, not an overlap
        number -= sum(n * (n - 1) // 2 for n in Counter(span[:2] for span in spans).values())
    return [f"{plural(number, 'pair')} of overlapping intervals (first: {first})"] if number else []
