"""What belongs together, and parts of it that every label is shared out to."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np

from vidgru.datasets.dataset import Dataset
from vidgru.datasets.rows import AnnotationRow, did_you_mean
from vidgru.errors import AnnotationError
from vidgru.types import Array

GROUP = "group"  # the column that is taken where no other is asked for
_FEWEST_FOLDERS = 5  # with fewer, folders are too coarse to set a fifth aside


def groups(dataset: Dataset, by: str | None = None) -> tuple[dict[str, str], str]:
    """What must not be in two splits.

    Args:
        dataset: as loaded.
        by: "folder", "video" or a column of the annotation file. None takes the data set's own setting; without one,
            the column "group" if the file has it, else folders if there are at least five and they are not named for
            labels, else videos. So does "group" where there is no such column.

    Returns:
        The group of each video, and what the groups are ("folder", "video" or the column).

    Raises:
        AnnotationError: the file has no such column, or it says two things of one video.
    """
    by = by or dataset.split.by or GROUP
    if by == GROUP and not any(_column(row, GROUP) for row in dataset.rows):
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
                f"{dataset.source}, {row.where}: {by} of {video} is {value!r} here and {found[video]!r} above",
                "a recording belongs to one group",
            )
    if not found:
        columns = sorted({name for row in dataset.rows for name, value in row.extra.items() if value})
        hint = did_you_mean(by, ("folder", "video", *columns))
        raise AnnotationError(
            f"{dataset.source}: no column {by!r} to split by{hint}",
            f"use folder, video, or a column that the file has: {', '.join(columns) or 'there is none'}",
        )
    return {video: found.get(video, video) for video in dataset.recordings}, by


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
    # a folder for each class (walk/a.mp4, train/fall/b.mp4) says what happens, not who or where
    single = all(len(labels) == 1 for labels in labels_in.values())
    named = all(labels <= set(PurePosixPath(folder).parts) for folder, labels in labels_in.items())
    per_class = single and (named or len(labels_in) <= len(dataset.labels))
    return len(labels_in) >= _FEWEST_FOLDERS and not per_class


def _column(row: AnnotationRow, name: str) -> str:
    return row.extra.get(name) or row.extra.get(name.lower(), "")  # a CSV header is read in lower case
