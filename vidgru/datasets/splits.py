"""Train, val and test: set aside by group, held apart, and reported on before training.

What belongs together (a recording, a camera's folder, a person) stays in one split, or a model is judged on what it
has all but seen.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vidgru.datasets.dataset import Clip, Dataset, EventTimeline, clips, described_segments, event_timelines
from vidgru.datasets.groups import groups, stratify
from vidgru.datasets.rows import AnnotationRow, plural
from vidgru.datasets.spec import SplitSettings
from vidgru.errors import AnnotationError, SettingsError
from vidgru.types import Array

RARE = 5  # clips or events of a label in train; with fewer it can hardly be learnt


def assign_splits(
    dataset: Dataset,
    *,
    val: float | None = None,
    test: float | None = None,
    by: str | None = None,
    seed: int | None = None,
) -> Dataset:
    """Set a validation share of train aside where the file has no val rows, and likewise a test share if one is asked.

    Whole groups move, chosen so that each label keeps its share. Splits that the file has are left as they are; the
    test split never stands in for val. What was done is a sentence in `notes`.

    Args:
        dataset: as loaded.
        val, test, by, seed: as in `SplitSettings`; None takes the data set's own. Evaluation must split as training
            did, so change them in the data set's YAML rather than here.

    Raises:
        AnnotationError: all of train is one group, so that nothing can be set aside.
        SettingsError: shares that cannot be.
    """
    own = dataset.split
    settings = SplitSettings(
        val=own.val if val is None else val,
        test=own.test if test is None else test,
        by=by or own.by,
        seed=own.seed if seed is None else seed,
    )
    left = 1.0
    for name, share in (("test", settings.test), ("val", settings.val)):
        if share and name not in dataset.splits and "train" in dataset.splits:
            dataset = _set_aside(dataset, name, share / left, settings)
            left -= share
    return dataset


def folds(dataset: Dataset, k: int, seed: int, by: str | None = None) -> list[Dataset]:
    """Cross-validation over all rows: in fold i part i is `test`, val is set aside from the others.

    Args:
        dataset: as loaded; its own splits are overwritten.
        k: parts, at least 2.
        seed: of the draw.
        by: as for `groups`.

    Raises:
        SettingsError: k below 2.
        AnnotationError: fewer groups than parts, or a fold that leaves a single group to train on.
    """
    if k < 2:
        raise SettingsError(f"folds is {k}; it must be at least 2")
    by = by or dataset.split.by
    part, what = _parts(dataset, dataset.rows, np.full(k, 1 / k), SplitSettings(by=by, seed=seed))
    made = []
    for fold in range(k):
        rows = tuple(_moved(row, "test" if part[row.annotation.video] == fold else "train") for row in dataset.rows)
        # notes on splits that no longer hold are left behind
        note = f"fold {fold + 1} of {k} by {what}, seed {seed}, is the test split"
        try:
            made.append(assign_splits(replace(dataset, rows=rows, notes=(note,)), test=0.0, by=by, seed=seed))
        except AnnotationError as error:
            left = f"{error.message}, train and val, of what fold {fold + 1} of {k} leaves"
            raise AnnotationError(left, f"make more folds, or {error.remedy}") from error
    return made


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a data set holds.

    Attributes:
        lines: a table of classes and splits, and what was done that the file did not say.
        warnings: what a person should look at.
        counts: the same figures as plain values: `recordings`, `rows`, `text_only`, `groups`, `clips` by split,
            `labels` by name with clips or events by split and `seconds` (None where a duration is not known),
            `no_event` likewise of clips in which nothing happens, and `splits` with clips, events, recordings, those
            of them without events, and seconds of each. With descriptions also `described`, clips and events by split
            that have one. With timed events also `events`, `overlap` (whether two of
            different labels do), and `busy_s` of `recorded_s`, over the recordings whose duration is known.
    """

    lines: tuple[str, ...]
    warnings: tuple[str, ...]
    counts: Mapping[str, Any]

    def __str__(self) -> str:
        return "\n".join((*self.lines, *(f"warning: {warning}" for warning in self.warnings)))


def report(dataset: Dataset) -> Report:
    """What a data set holds, and what to look at in it; of the splits as they are, so after `assign_splits`."""
    every = clips(dataset)
    events = [clip for clip in every if clip.start_s is not None and clip.labels]
    timed = event_timelines(dataset)
    noun = "event" if timed and all(clip.start_s is not None for clip in every if clip.labels) else "clip"
    group, what = groups(dataset)
    splits = dataset.splits
    table = {
        label: _tally([clip for clip in every if index in clip.labels], splits, dataset.durations)
        for index, label in enumerate(dataset.labels)
    }
    no_event = _tally([clip for clip in every if not clip.labels], splits, dataset.durations)
    text_only = sum(row.annotation.label is None and row.annotation.description is not None for row in dataset.rows)
    counts: dict[str, Any] = {
        "recordings": len(dataset.recordings),
        "rows": len(dataset.rows),
        "text_only": text_only,
        "groups": {"by": what, "number": len(set(group.values()))},
        "clips": {split: sum(clip.split == split for clip in every) for split in splits},
        "labels": table,
        "no_event": no_event,
        "splits": _sizes(dataset, splits, timed),
    }
    said = []
    if timed:
        overlap = any(line.overlaps for line in timed)
        counts |= {"events": sum(len(clip.labels) for clip in events), "overlap": overlap, **_shares(timed, dataset)}
        said.append("events of different labels overlap" if overlap else "one label at a time")
    else:
        several = any(len(clip.labels) > 1 for clip in every)
        said.append("several labels a clip" if several else "one label a clip")
    said += [f"{plural(text_only, 'row')} with text only"] if text_only else []
    whole = [clip for clip in every if clip.start_s is None and clip.labels]
    things = [plural(len(every), "clip")]
    if timed:
        things = [plural(counts["events"], "event"), *([plural(len(whole), "whole clip")] if whole else [])]
    lines = [
        f"{dataset.source}: {' and '.join(things)} of {plural(len(dataset.labels), 'label')} in "
        f"{plural(len(dataset.recordings), 'recording')} ({'; '.join(said)})"
    ]
    named = dict(table)
    if noun == "clip" and any(no_event[split] for split in splits):
        named["(no event)"] = no_event
    lines += _table(named, counts["splits"], splits, noun)
    if timed and counts["recorded_s"]:
        busy_s, recorded_s = counts["busy_s"], counts["recorded_s"]
        share = f"{busy_s / recorded_s:.1%} of the time ({busy_s:.1f} of {recorded_s:.1f} s)"
        lines.append(f"something happens in {share}")
    if told := described_segments(dataset):
        counts["described"] = {split: sum(one.split == split for one in told) for split in splits}
        shares = ", ".join(f"{number} in {split}" for split, number in counts["described"].items())
        sentences = sum(len(one.sentences) for one in told)
        lines.append(f"{plural(sentences, 'sentence')} on {len(told)} clips and events: {shares}")
    if dataset.half_width_s is not None:
        lines.append(f"the file marks moments: an event reaches {dataset.half_width_s:g} s before and after its own")
    if what != "video":
        lines.append(f"{plural(len(set(group.values())), 'group')} by {what}")
    lines += dataset.notes
    warnings = (*dataset.warnings, *_concerns(dataset, table, no_event, group, what, noun))
    return Report(lines=tuple(lines), warnings=warnings, counts=counts)


# --- draws ----------------------------------------------------------------------------------------------------------


def _set_aside(dataset: Dataset, name: str, share: float, settings: SplitSettings) -> Dataset:
    train = tuple(row for row in dataset.rows if row.annotation.split == "train")
    part, what = _parts(dataset, train, np.array([1 - share, share]), settings)
    rows = tuple(
        _moved(row, name) if row.annotation.split == "train" and part[row.annotation.video] == 1 else row
        for row in dataset.rows
    )
    changed = replace(dataset, rows=rows)
    moved, had = clips(changed, name), clips(dataset, "train")
    noun = "clips"
    if any(clip.start_s is not None and clip.labels for clip in had):  # events share recordings, which move whole
        noun, moved, had = "recordings", *([*{clip.video: clip for clip in some}.values()] for some in (moved, had))
    note = (
        f"no {name} rows: {len(moved)} of {len(had)} train {noun} set aside as {name}, by {what}, seed {settings.seed}"
    )
    return replace(changed, notes=(*dataset.notes, note))


def _moved(row: AnnotationRow, split: str) -> AnnotationRow:
    return replace(row, annotation=replace(row.annotation, split=split))


def _parts(
    dataset: Dataset, rows: tuple[AnnotationRow, ...], shares: Array, settings: SplitSettings
) -> tuple[dict[str, int], str]:
    """The part that each video of `rows` goes to, and what the groups are."""
    group, what = groups(dataset, settings.by)
    names = list(dict.fromkeys(group[row.annotation.video] for row in rows))
    if len(names) < len(shares):
        raise AnnotationError(
            f"{dataset.source}: {plural(len(names), 'group')} by {what} cannot make {len(shares)} splits",
            "add recordings, name another column with `split: {by: COLUMN}`, or fill in the column split by hand",
        )
    number = {name: index for index, name in enumerate(names)}
    # a column for each label of clips as a whole, for each label of timed events, and for what has neither
    counts = np.zeros((len(names), 2 * len(dataset.labels) + 1))
    for clip in clips(replace(dataset, rows=rows)):
        timed = clip.start_s is not None
        for column in [timed * len(dataset.labels) + label for label in clip.labels] or [-1]:
            counts[number[group[clip.video]], column] += 1
    counts[counts.sum(axis=1) == 0, -1] = 1
    part = stratify(counts, shares, np.random.default_rng(settings.seed))
    return {video: int(part[number[name]]) for video, name in group.items() if name in number}, what


# --- the report -----------------------------------------------------------------------------------------------------


def _tally(some: list[Clip], splits: tuple[str, ...], durations: Mapping[str, float]) -> dict[str, Any]:
    number = Counter(clip.split for clip in some)
    lengths = [
        clip.end_s - clip.start_s
        if clip.end_s is not None and clip.start_s is not None
        else _length(durations, clip.video)
        for clip in some
    ]
    known = [length for length in lengths if length is not None]
    seconds = round(sum(known), 3) if len(known) == len(lengths) else None
    return {**{split: number[split] for split in splits}, "seconds": seconds}


def _sizes(dataset: Dataset, splits: tuple[str, ...], timed: list[EventTimeline]) -> dict[str, dict[str, Any]]:
    """Clips, events, recordings and their seconds (None where a duration is not known) of each split."""
    every = clips(dataset)
    busy = {line.video for line in timed if line.events}
    sizes: dict[str, dict[str, Any]] = {}
    for split in splits:
        own = [clip for clip in every if clip.split == split]
        videos = {row.annotation.video for row in dataset.rows if row.annotation.split == split}
        lengths = [_length(dataset.durations, video) for video in sorted(videos)]
        known = [length for length in lengths if length is not None]
        sizes[split] = {
            "clips": len(own),
            "events": sum(len(clip.labels) for clip in own if clip.start_s is not None),
            "recordings": len(videos),
            "without events": len({line.video for line in timed if line.split == split} - busy),
            "seconds": round(sum(known), 3) if len(known) == len(lengths) else None,
        }
    return sizes


def _length(durations: Mapping[str, float], video: str) -> float | None:
    length = durations.get(video)
    return length if length is not None and math.isfinite(length) else None


def _shares(timed: list[EventTimeline], dataset: Dataset) -> dict[str, Any]:
    """How much of the recordings, as far as their length is known, has an event in it."""
    busy_s = recorded_s = 0.0
    spans: dict[str, list[tuple[float, float]]] = {}
    for line in timed:
        spans.setdefault(line.video, []).extend((start_s, end_s) for start_s, end_s, _ in line.events)
    for video, own in spans.items():
        length = _length(dataset.durations, video)
        if length is not None:
            recorded_s += length
            reached = 0.0
            for start_s, end_s in sorted(own):
                busy_s += max(0.0, min(end_s, length) - max(start_s, reached))
                reached = max(reached, end_s)
    return {"busy_s": round(busy_s, 3), "recorded_s": round(recorded_s, 3)}


def _table(
    named: dict[str, dict[str, Any]], sizes: dict[str, dict[str, Any]], splits: tuple[str, ...], noun: str
) -> list[str]:
    def seconds(value: float | None) -> str:
        return "" if value is None else f"{value:.1f}"

    rows = [("", splits, "seconds")]
    for name, tally in named.items():
        rows.append((name, tuple(str(tally[split]) for split in splits), seconds(tally["seconds"])))
    for name in (f"{noun}s", "recordings", *(["without events"] if noun == "event" else [])):
        title = name if name == "without events" else f"all {name}"
        rows.append((title, tuple(str(sizes[split][name]) for split in splits), ""))
    if all(sizes[split]["seconds"] is not None for split in splits):
        total = seconds(sum(sizes[split]["seconds"] for split in splits))
        rows.append(("their seconds", tuple(seconds(sizes[split]["seconds"]) for split in splits), total))
    wide = max(len(name) for name, _, _ in rows)
    columns = [max(6, *(len(cells[index]) for _, cells, _ in rows)) for index in range(len(splits))]
    lines = []
    for name, cells, last in rows:
        middle = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, columns, strict=True))
        lines.append(f"  {name:<{wide}}  {middle}  {last:>9}".rstrip())
    return lines


def _concerns(
    dataset: Dataset,
    table: Mapping[str, Mapping[str, Any]],
    no_event: Mapping[str, Any],
    group: Mapping[str, str],
    what: str,
    noun: str,
) -> list[str]:
    """Warnings that depend on the splits."""
    found = []
    if "train" in dataset.splits:
        # around events there is time without; clips without have to be there to be learnt
        named = {**table, "(no event)": no_event} if noun == "clip" else table
        rare = [f"{label} ({tally['train']})" for label, tally in named.items() if 0 < tally["train"] < RARE]
        if rare:
            found.append(f"fewer than {RARE} train {noun}s of {', '.join(rare)}")
    for split in dataset.splits:
        absent = [label for label, tally in table.items() if not tally[split]]
        if absent:
            effect = "; it cannot be learnt" if split == "train" else "; left out of that split's macro means"
            found.append(f"no {noun}s in {split} of {', '.join(absent)}{effect}")
    splits_of: dict[str, set[str]] = {}
    for row in dataset.rows:
        splits_of.setdefault(group[row.annotation.video], set()).add(row.annotation.split or "train")
    shared = [name for name, splits in splits_of.items() if len(splits) > 1]
    if shared:
        number, where = plural(len(shared), f"{what} group"), " and ".join(sorted(splits_of[shared[0]]))
        found.append(f"{number} in two splits (first: {shared[0]} in {where}); results will look better than they are")
    return found
