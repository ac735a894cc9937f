"""Members of a model: how many are trained on a dataset, and what each of them learns from."""

from __future__ import annotations

from collections.abc import Mapping

from vidgru.config import TrainConfig
from vidgru.datasets.dataset import Dataset, clips
from vidgru.datasets.rows import plural
from vidgru.datasets.splits import NO_VAL, divided_by, groups, member_folds

_MEMBERS = 5
_MANY_CLIPS, _MANY_HOURS = 2000, 50.0  # from which on an ensemble is not worth its time


def member_count(dataset: Dataset, config: TrainConfig, durations: Mapping[str, float]) -> int:
    """Return the number of members to train: as set, or by the size of the dataset; fewer with few groups.

    Args:
        dataset: With splits assigned.
        config: Training settings.
        durations: Seconds per recording; those that are unknown do not count.
    """
    annotated = [clip for clip in clips(dataset) if clip.split in ("train", "val")]
    videos = {clip.video for clip in annotated}
    hours = sum(durations.get(video, 0.0) for video in videos) / 3600
    is_large = len(annotated) > _MANY_CLIPS or hours > _MANY_HOURS
    members = config.members or (1 if is_large else _MEMBERS)
    folds = member_folds(dataset, members, config.seed, config.group_by or None) if members > 1 else {}
    if not folds and any(note.startswith(NO_VAL) for note in dataset.notes):
        return members  # of so few groups, all members learn from every recording
    return max(folds.values(), default=0) + 1


def split_notes(dataset: Dataset, config: TrainConfig, durations: Mapping[str, float]) -> tuple[str, ...]:
    """Return the dataset's notes, with one on members in the place of one on a validation split that they make.

    Arguments as for `member_count`.
    """
    members = member_count(dataset, config, durations)
    notes = dataset.notes
    by = config.group_by or None
    group, group_kind = groups(dataset, by)
    if members > 1:
        kind = divided_by(dataset, [row for row in dataset.rows if row.split in ("train", "val")], by)
        notes = tuple(note for note in notes if not note.startswith(f"{NO_VAL}: "))
        measured = member_folds(dataset, members, config.seed, by)
        held_out = f" but a part of its own, by {kind}, seed {config.seed}"
        if not measured:
            held_out = f", because there are too few groups by {kind} to hold any out"
        notes = (*notes, f"{members} members: each learns from all recordings{held_out}")
        learnt = dict.fromkeys(clip.video for clip in clips(dataset) if clip.split in ("train", "val"))
        if measured and (unmeasured := [video for video in learnt if video not in measured]):
            notes = (
                *notes,
                f"not in the metrics: {plural(len(unmeasured), 'recording')} (first: {unmeasured[0]}), because every "
                f"member learns from a {kind} that is the only one with some label, or without events",
            )
    if group_kind == "video" and len(group) > 1:
        notes = (*notes, "no column `group` (place, camera, person): metrics do not tell how the model does elsewhere")
    return notes
