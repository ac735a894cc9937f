"""Training, validation and test splits, made by group.

Recordings that belong together (of one camera, of one person) stay in one split: otherwise a model is evaluated on what
it has practically been trained on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import PurePosixPath
from unicodedata import normalize

import numpy as np

from vidgru.datasets.dataset import Dataset, clips
from vidgru.datasets.rows import AnnotationRow, did_you_mean, plural, with_split
from vidgru.datasets.spec import SplitSettings
from vidgru.errors import AnnotationError, SettingsError
from vidgru.types import Array

GROUP = "group"  # default column to group by
_MADE_SPLIT = "no {} rows"  # beginning of a note on a split that was made
NO_VAL = _MADE_SPLIT.format("val")
_MIN_FOLDERS = 5  # fewer folders are too coarse to hold out a fifth


def assign_splits(
    dataset: Dataset,
    *,
    val: float | None = None,
    test: float | None = None,
    by: str | None = None,
    seed: int | None = None,
) -> Dataset:
    """Hold out part of train as val if the file has no val rows, and as test if a test fraction is requested.

    Whole groups are moved, chosen so that each label keeps its proportion; recordings, if all are of one group. A
    single recording is left in train. Existing splits are unchanged, and the test split never replaces val. `notes`
    says what was done.

    Args:
        dataset: As loaded.
        val, test, by, seed: As in `SplitSettings`; None for the dataset's own. Evaluation must split as training did,
            so change them in the dataset YAML rather than here.

    Raises:
        AnnotationError: All of train is one recording, so that no test split can be made.
        SettingsError: Invalid fractions.
    """
    defaults = dataset.split
    settings = SplitSettings(
        val=defaults.val if val is None else val,
        test=defaults.test if test is None else test,
        by=by or defaults.by,
        seed=defaults.seed if seed is None else seed,
    )
    remaining = 1.0
    for name, share in (("test", settings.test), ("val", settings.val)):
        if share and name not in dataset.splits and "train" in dataset.splits:
            dataset = _hold_out(dataset, name, share / remaining, settings)
            remaining -= share
    return dataset


def folds(dataset: Dataset, k: int, seed: int, by: str | None = None) -> list[Dataset]:
    """Make cross-validation folds over all rows: fold i tests on part i and holds out val from the others.

    Args:
        dataset: As loaded; its own splits are ignored.
        k: Number of folds, at least 2.
        seed: Random seed.
        by: As for `groups`.

    Raises:
        SettingsError: k is below 2.
        AnnotationError: There are fewer groups than folds.
    """
    if k < 2:
        raise SettingsError(f"folds is {k}; it must be at least 2")
    by = by or dataset.split.by
    part, group_kind = _parts(dataset, dataset.rows, np.full(k, 1 / k), SplitSettings(by=by, seed=seed))
    datasets = []
    for fold in range(k):
        rows = tuple(with_split(row, "test" if part[row.annotation.video] == fold else "train") for row in dataset.rows)
        # Notes about the original splits no longer apply.
        note = f"fold {fold + 1} of {k} by {group_kind}, seed {seed}, is the test split"
        datasets.append(assign_splits(replace(dataset, rows=rows, notes=(note,)), test=0.0, by=by, seed=seed))
    return datasets


def member_folds(dataset: Dataset, members: int, seed: int, by: str | None = None) -> dict[str, int]:
    """Divide the recordings of train and val among members of a model, each of which does without its part.

    A part holds whole groups, and labels are spread over the parts. If the file has a split val, it is the first part.
    Recordings of a group that is the only one with one of its labels are in no part: every member needs them.

    Args:
        dataset: As loaded.
        members: Number of parts, at least 2.
        seed: Random seed.
        by: As for `groups`.

    Returns:
        The part of each recording that a member does without. Fewer parts than members, or none, if there are too few
        groups; of a single group, its recordings are divided.
    """
    rows = tuple(row for row in dataset.rows if row.split in ("train", "val"))
    by = divided_by(dataset, rows, by)
    group, _ = groups(dataset, by)
    chosen = replace(dataset, rows=rows)
    groups_of: dict[int, set[str]] = {}
    for clip in clips(chosen):
        for label in clip.labels or {-1}:
            groups_of.setdefault(label, set()).add(group[clip.video])
    single = {name for names in groups_of.values() if len(names) == 1 for name in names}
    free = [row for row in rows if group[row.annotation.video] not in single]
    val = {group[row.annotation.video] for row in free if row.split == "val"}
    train = {group[row.annotation.video] for row in free} - val
    number = dict.fromkeys(val, 0)
    rest = tuple(row for row in free if group[row.annotation.video] in train)
    parts = min(members - bool(val), len(train))
    if parts and parts + bool(val) >= 2:
        part, _ = _parts(dataset, rest, np.full(parts, 1 / parts), SplitSettings(by=by, seed=seed))
        number |= {group[video]: index + bool(val) for video, index in part.items()}
    elif not val:
        return {}
    videos = {row.annotation.video for row in free}
    return {video: number[group[video]] for video in sorted(videos) if group[video] in number}


def in_split(dataset: Dataset, videos: Collection[str], split: str, *origins: str) -> Dataset:
    """Return the dataset with rows of some recordings in another split: those of `origins`, or of train and val."""
    origins = origins or ("train", "val")
    rows = tuple(
        with_split(row, split) if row.annotation.video in videos and row.split in origins else row
        for row in dataset.rows
    )
    return replace(dataset, rows=rows)


def groups(dataset: Dataset, by: str | None = None) -> tuple[dict[str, str], str]:
    """Return the group of each video; a group must not be divided between splits.

    Args:
        dataset: As loaded.
        by: "folder", "video" or a column of the annotation file. None takes the dataset's own setting; without one, the
            column "group" if the file has it, else folders if there are at least five that are not named for labels,
            else videos. "group" without such a column does the same.

    Returns:
        The group of each video, and the kind of group ("folder", "video" or the column).

    Raises:
        AnnotationError: The file has no such column, or the column has two values for one video.
    """
    by = by or dataset.split.by or GROUP
    if by == GROUP and not any(_column(row, GROUP) for row in dataset.rows):
        by = "folder" if _folders_are_groups(dataset) else "video"
    if by == "video":
        return {video: video for video in dataset.recordings}, by
    if by == "folder":
        return {video: _folder(video) or video for video in dataset.recordings}, by
    group_of: dict[str, str] = {}
    for row in dataset.rows:
        value = _column(row, by)
        video = row.annotation.video
        if value and group_of.setdefault(video, value) != value:
            raise AnnotationError(
                f"{dataset.source}, {row.where}: {by} of {video} is {value!r} here and {group_of[video]!r} above",
                "a recording belongs to one group",
            )
    if not group_of:
        columns = sorted({name for row in dataset.rows for name, value in row.extra.items() if value})
        hint = did_you_mean(by, ("folder", "video", *columns))
        raise AnnotationError(
            f"{dataset.source}: no column {by!r} to split by{hint}",
            f"use folder, video, or a column of the file: {', '.join(columns) or 'it has none'}",
        )
    return {video: group_of.get(video, video) for video in dataset.recordings}, by


def divided_by(dataset: Dataset, rows: Iterable[AnnotationRow], by: str | None = None) -> str:
    """Return the kind of group that rows are divided by: recordings if all are of one group, which cannot be divided.

    Args:
        dataset: As loaded.
        rows: Rows of the dataset.
        by: As for `groups`.
    """
    group, kind = groups(dataset, by)
    return "video" if len({group[row.annotation.video] for row in rows}) == 1 else kind


def stratify(counts: Array, shares: Array, rng: np.random.Generator) -> Array:
    """Assign groups to parts so that every label is divided in the given proportions. No part stays empty.

    Greedy: groups with the rarest labels first, the largest first among those; each goes where it reduces the sum over
    labels of (missing clips / clips of the label)^2 most. With one label per group this is iterative stratification
    (Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", 2011).

    Args:
        counts: float64 [G, C], clips of each label in each group; no row is all zero.
        shares: float64 [P], summing to 1; P <= G.
        rng: Breaks ties.

    Returns:
        int64 [G], the part of each group.
    """
    totals = np.maximum(counts.sum(axis=0), 1)
    wanted = shares[:, None] * counts.sum(axis=0)
    part = np.zeros(len(counts), dtype=np.int64)
    shuffled = rng.permutation(len(counts))
    rarest = np.where(counts > 0, totals, np.inf).min(axis=1)
    for group in shuffled[np.lexsort((-counts.sum(axis=1)[shuffled], rarest[shuffled]))]:
        # (w - n)^2 - w^2 is lowest where n * w is highest; n^2 is the same for all parts
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


def _hold_out(dataset: Dataset, name: str, share: float, settings: SplitSettings) -> Dataset:
    train = tuple(row for row in dataset.rows if row.split == "train")
    if name == "val" and len({row.annotation.video for row in train}) == 1:
        note = f"{NO_VAL}, and the only train recording cannot be divided: nothing is left to measure the model on"
        return replace(dataset, notes=(*dataset.notes, note))
    settings = replace(settings, by=divided_by(dataset, train, settings.by))
    part, group_kind = _parts(dataset, train, np.array([1 - share, share]), settings)
    rows = tuple(
        with_split(row, name) if row.split == "train" and part[row.annotation.video] == 1 else row
        for row in dataset.rows
    )
    before = clips(dataset, "train")
    moved = [clip for clip in before if part[clip.video] == 1]
    noun = "clips"
    if any(clip.start_s is not None and clip.labels for clip in before):  # events move with their recording
        noun = "recordings"
        moved, before = ([*{clip.video: clip for clip in part}.values()] for part in (moved, before))
    moved_rows = f"{len(moved)} of {len(before)} train {noun} held out as {name}"
    note = f"{_MADE_SPLIT.format(name)}: {moved_rows}, by {group_kind}, seed {settings.seed}"
    return replace(dataset, rows=rows, notes=(*dataset.notes, note))


def only_group(dataset: Dataset, by: str | None = None) -> str | None:
    """Return what train and val have in common if that is more than a recording: "camera 'yard'"; else None.

    Args:
        dataset: As loaded.
        by: As for `groups`.
    """
    group, kind = groups(dataset, by)
    names = {group[row.annotation.video] for row in dataset.rows if row.split in ("train", "val")}
    return f"{kind} {names.pop()!r}" if len(names) == 1 and kind != "video" else None


def _parts(
    dataset: Dataset, rows: tuple[AnnotationRow, ...], shares: Array, settings: SplitSettings
) -> tuple[dict[str, int], str]:
    """Return the part of each video of `rows`, and the kind of group."""
    group, group_kind = groups(dataset, settings.by)
    names = list(dict.fromkeys(group[row.annotation.video] for row in rows))
    if len(names) < len(shares):
        raise AnnotationError(
            f"{dataset.source}: {plural(len(names), 'group')} by {group_kind} cannot make {len(shares)} splits",
            "add recordings, group by another column with `split: {by: COLUMN}`, or fill in the column split",
        )
    number = {name: index for index, name in enumerate(names)}
    # One column per label of whole clips, one per label of timed events, and one for clips without labels.
    counts = np.zeros((len(names), 2 * len(dataset.labels) + 1))
    for clip in clips(dataset if len(rows) == len(dataset.rows) else replace(dataset, rows=rows)):
        timed = clip.start_s is not None
        for column in [timed * len(dataset.labels) + label for label in clip.labels] or [-1]:
            counts[number[group[clip.video]], column] += 1
    counts[counts.sum(axis=1) == 0, -1] = 1
    part = stratify(counts, shares, np.random.default_rng(settings.seed))
    return {video: int(part[number[name]]) for video, name in group.items() if name in number}, group_kind


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
    # A folder per class (walk/a.mp4, train/fall/b.mp4) says what happens, not who or where.
    single = all(len(labels) == 1 for labels in labels_in.values())
    named = all(labels <= set(PurePosixPath(folder).parts) for folder, labels in labels_in.items())
    per_class = single and (named or len(labels_in) <= len(dataset.labels))
    return len(labels_in) >= _MIN_FOLDERS and not per_class


def _column(row: AnnotationRow, name: str) -> str:
    value = row.extra.get(name) or row.extra.get(name.lower())  # CSV headers are lower-cased when read
    return normalize("NFC", value) if value else ""
