"""Train, val and test: set aside by group, held apart, and reported on before training.

What belongs together (a recording, a camera's folder, a person) stays in one split, or a model is judged on what it
has all but seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from vidgru.datasets.dataset import Clip, Dataset, clips
from vidgru.datasets.native import Row, SplitSettings, plural
from vidgru.errors import AnnotationError, SettingsError
from vidgru.types import Array

RARE = 5  # clips of a class in train; with fewer it can hardly be learnt
_FEWEST_FOLDERS = 5  # with fewer, folders are too coarse to set a fifth aside


def groups(dataset: Dataset, by: str | None = None) -> tuple[dict[str, str], str]:
    """What must not be in two splits.

    Args:
        dataset: as loaded.
        by: "folder", "video" or a column of the annotation file. None takes the data set's own setting; without one,
            folders if there are at least five and they are not named for labels, else videos.

    Returns:
        The group of each video, and what the groups are ("folder", "video" or the column).

    Raises:
        AnnotationError: the file has no such column, or it says two things of one video.
    """
    by = by or dataset.split.by
    if by is None:
        by = "folder" if _folders_are_groups(dataset) else "video"
    if by == "video":
        return {video: video for video in dataset.recordings}, by
    if by == "folder":
        return {video: _folder(video) or video for video in dataset.recordings}, by
    found: dict[str, str] = {}
    for row in dataset.rows:
        value = _column(row, by)
        video = row.annotation.video
        if value and found.setdefault(video, value) != value:
            raise AnnotationError(
                f"{dataset.source}, line {row.line}: {by} of {video} is {value!r} here and {found[video]!r} above",
                "a recording belongs to one group",
            )
    if not found:
        raise AnnotationError(
            f"{dataset.source}: no column {by!r} to split by", "use folder, video, or a column that the file has"
        )
    return {video: found.get(video, video) for video in dataset.recordings}, by


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
        AnnotationError: fewer groups than parts.
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
        made.append(assign_splits(replace(dataset, rows=rows, notes=(note,)), test=0.0, by=by, seed=seed))
    return made


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a data set holds.

    Attributes:
        lines: a table of classes and splits, and what was done that the file did not say.
        warnings: what a person should look at.
        counts: the same figures as plain values: `recordings`, `rows`, `text_only`, `groups`, `clips` by split,
            `labels` by name with clips by split and `seconds` (None where a duration is not known). Clips in which
            nothing happens stand under `no_event`.
    """

    lines: tuple[str, ...]
    warnings: tuple[str, ...]
    counts: Mapping[str, Any]

    def __str__(self) -> str:
        return "\n".join((*self.lines, *(f"warning: {warning}" for warning in self.warnings)))


def report(dataset: Dataset) -> Report:
    """What a data set holds, and what to look at in it; of the splits as they are, so after `assign_splits`."""
    every = clips(dataset)
    group, what = groups(dataset)
    splits = dataset.splits
    sizes = {split: sum(clip.split == split for clip in every) for split in splits}
    table = {
        label: _tally([clip for clip in every if index in clip.labels], splits, dataset.durations)
        for index, label in enumerate(dataset.labels)
    }
    no_event = _tally([clip for clip in every if not clip.labels], splits, dataset.durations)
    text_only = sum(row.annotation.label is None and row.annotation.description is not None for row in dataset.rows)
    counts = {
        "recordings": len(dataset.recordings),
        "rows": len(dataset.rows),
        "text_only": text_only,
        "groups": {"by": what, "number": len(set(group.values()))},
        "clips": sizes,
        "labels": table,
        "no_event": no_event,
    }
    kind = "several labels a clip" if any(len(clip.labels) > 1 for clip in every) else "one label a clip"
    lines = [
        f"{dataset.source}: {plural(len(every), 'clip')} of {plural(len(dataset.labels), 'label')} in "
        f"{plural(len(dataset.recordings), 'recording')} ({kind}"
        f"{f'; {text_only} rows with text only' if text_only else ''})"
    ]
    named = dict(table)
    if any(no_event[split] for split in splits):
        named["(no event)"] = no_event
    lines += _table(named, sizes, splits)
    if what != "video":
        lines.append(f"{len(set(group.values()))} groups by {what}")
    lines += dataset.notes
    warnings = (*dataset.warnings, *_concerns(dataset, table, no_event, group, what))
    return Report(lines=tuple(lines), warnings=warnings, counts=counts)


# --- groups and draws -----------------------------------------------------------------------------------------------


def _folder(video: str) -> str:
    parent = PurePosixPath(video).parent.as_posix()
    return "" if parent == "." else parent


def _folders_are_groups(dataset: Dataset) -> bool:
    labels_in: dict[str, set[str]] = {}
    for row in dataset.rows:
        folder = _folder(row.annotation.video)
        if not folder:
            return False
        labels_in.setdefault(folder, set()).update([row.annotation.label] if row.annotation.label else [])
    # a folder for each class (walk/a.mp4, fall/b.mp4) says what happens, not who or where
    per_class = all(len(labels) == 1 for labels in labels_in.values()) and len(labels_in) <= len(dataset.labels)
    return len(labels_in) >= _FEWEST_FOLDERS and not per_class


def _column(row: Row, name: str) -> str:
    return row.extra.get(name) or row.extra.get(name.lower(), "")  # a CSV header is read in lower case


def _set_aside(dataset: Dataset, name: str, share: float, settings: SplitSettings) -> Dataset:
    train = tuple(row for row in dataset.rows if row.annotation.split == "train")
    part, what = _parts(dataset, train, np.array([1 - share, share]), settings)
    rows = tuple(
        _moved(row, name) if row.annotation.split == "train" and part[row.annotation.video] == 1 else row
        for row in dataset.rows
    )
    changed = replace(dataset, rows=rows)
    took, had = len(clips(changed, name)), len(clips(dataset, "train"))
    note = f"no {name} rows: {took} of {had} train clips set aside as {name}, by {what}, seed {settings.seed}"
    return replace(changed, notes=(*dataset.notes, note))


def _moved(row: Row, split: str) -> Row:
    return replace(row, annotation=replace(row.annotation, split=split))


def _parts(
    dataset: Dataset, rows: tuple[Row, ...], shares: Array, settings: SplitSettings
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
    counts = np.zeros((len(names), len(dataset.labels) + 1))  # the last column: clips without event, or text only
    for clip in clips(replace(dataset, rows=rows)):
        for label in clip.labels or (-1,):
            counts[number[group[clip.video]], label] += 1
    counts[counts.sum(axis=1) == 0, -1] = 1
    part = stratify(counts, shares, np.random.default_rng(settings.seed))
    return {video: int(part[number[name]]) for video, name in group.items() if name in number}, what


def stratify(counts: Array, shares: Array, rng: np.random.Generator) -> Array:
    """Put groups into parts so that every label is shared out as asked. No part stays empty.

    Greedy, groups with the rarest labels first and of those the largest: each goes where it lowers the sum over labels
    of (clips missing / clips of the label)^2 most. With one label a group this is the iterative stratification of
    Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", 2011.

    Args:
        counts: float64 [G, C], clips of each label in each group; no row is all zero.
        shares: float64 [P], sum 1; P <= G.
        rng: decides between equals.

    Returns:
        int64 [G], the part of each group.
    """
    totals = np.maximum(counts.sum(axis=0), 1)
    wanted = shares[:, None] * counts.sum(axis=0)
    part = np.zeros(len(counts), dtype=np.int64)
    shuffled = rng.permutation(len(counts))
    rarest = np.where(counts > 0, totals, np.inf).min(axis=1)
    for group in shuffled[np.lexsort((-counts.sum(axis=1)[shuffled], rarest[shuffled]))]:
        # (w - n)^2 - w^2 is lowest where n * w is highest, up to n^2, which is the same for all parts
        gain = wanted @ (counts[group] / totals**2)
        best = np.flatnonzero(gain == gain.max())
        left = wanted[best].sum(axis=1)
        best = best[left == left.max()]
        part[group] = best[rng.integers(len(best))]
        wanted[part[group]] -= counts[group]
    for empty in np.setdiff1d(np.arange(len(shares)), part):
        sizes = np.bincount(part, minlength=len(shares))
        spare = shuffled[sizes[part[shuffled]] > 1]
        part[spare[counts[spare].sum(axis=1).argmin()]] = empty
    return part


# --- the report -----------------------------------------------------------------------------------------------------


def _tally(some: list[Clip], splits: tuple[str, ...], durations: Mapping[str, float]) -> dict[str, Any]:
    number = Counter(clip.split for clip in some)
    lengths = [
        clip.end_s - clip.start_s if clip.end_s is not None and clip.start_s is not None else durations.get(clip.video)
        for clip in some
    ]
    known = [length for length in lengths if length is not None]
    seconds = round(sum(known), 3) if len(known) == len(lengths) else None
    return {**{split: number[split] for split in splits}, "seconds": seconds}


def _table(named: dict[str, dict[str, Any]], sizes: dict[str, int], splits: tuple[str, ...]) -> list[str]:
    wide = max(map(len, (*named, "all clips")))
    columns = [max(len(split), 6) for split in splits]
    rows = [("", splits, "seconds")]
    for name, tally in named.items():
        seconds = "" if tally["seconds"] is None else f"{tally['seconds']:.1f}"
        rows.append((name, tuple(str(tally[split]) for split in splits), seconds))
    rows.append(("all clips", tuple(str(sizes[split]) for split in splits), ""))
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
) -> list[str]:
    """Warnings that depend on the splits."""
    found = []
    if "train" in dataset.splits:
        named = {**table, "(no event)": no_event}
        rare = [f"{label} ({tally['train']})" for label, tally in named.items() if 0 < tally["train"] < RARE]
        if rare:
            found.append(f"fewer than {RARE} train clips of {', '.join(rare)}")
    for split in dataset.splits:
        absent = [label for label, tally in table.items() if not tally[split]]
        if absent:
            effect = "; it cannot be learnt" if split == "train" else "; left out of that split's macro means"
            found.append(f"no clips in {split} of {', '.join(absent)}{effect}")
    splits_of: dict[str, set[str]] = {}
    for row in dataset.rows:
        splits_of.setdefault(group[row.annotation.video], set()).add(row.annotation.split or "train")
    shared = [name for name, splits in splits_of.items() if len(splits) > 1]
    if shared:
        number, where = plural(len(shared), f"{what} group"), " and ".join(sorted(splits_of[shared[0]]))
        found.append(f"{number} in two splits (first: {shared[0]} in {where}); results will look better than they are")
    return found
