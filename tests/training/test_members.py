"""How many members a dataset gets, and what is said about what they learn from."""

from pathlib import Path

import pytest

from tests.datasets.annotation_files import csv_set, folder_set
from vidgru.config import TrainConfig
from vidgru.datasets.splits import assign_splits
from vidgru.training import members
from vidgru.training.members import member_count, split_notes


def test_member_count_by_size_and_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = folder_set(tmp_path / "7", 7)
    durations = dict.fromkeys(dataset.recordings, 10.0)
    assert [member_count(dataset, TrainConfig(members=n), durations) for n in (0, 1, 2, 3, 20)] == [5, 1, 2, 3, 7]
    assert member_count(folder_set(tmp_path / "v", 7, val=3), TrainConfig(), durations) == 5
    few = csv_set(tmp_path / "few", *(f"{n}.mp4,,,x,,{'val' if n else ''}" for n in range(2)), "2.mp4,,,,,")
    assert member_count(few, TrainConfig(), {}) == 2
    assert member_count(dataset, TrainConfig(), dict.fromkeys(durations, 7200.0)) == 1, "56 hours"
    monkeypatch.setattr(members, "_MANY_CLIPS", 27)
    assert member_count(dataset, TrainConfig(), durations) == 1
    assert member_count(dataset, TrainConfig(members=3), durations) == 3


def test_recordings_that_are_not_measured_are_named(tmp_path: Path) -> None:
    rows = [f"{number}.mp4,1,2,fall,," for number in range(4)]
    dataset = assign_splits(csv_set(tmp_path / "one", *rows, "quiet.mp4,,,,,"))
    notes = [note for note in split_notes(dataset, TrainConfig(), {}) if "not in the metrics" in note]
    assert notes == [
        "not in the metrics: 1 recording (first: quiet.mp4), because every member learns from a video that is the only "
        "one with some label, or without events"
    ]
    dataset = assign_splits(csv_set(tmp_path / "two", *rows, "quiet.mp4,,,,,", "still.mp4,,,,,"))
    assert not any("not in the metrics" in note for note in split_notes(dataset, TrainConfig(), {}))


def test_notes_say_what_members_learn_from(tmp_path: Path) -> None:
    """In place of the validation split that a single model would be measured on."""
    dataset = folder_set(tmp_path / "7", 7)
    assert any("held out as val" in note for note in dataset.notes)
    notes = split_notes(dataset, TrainConfig(), {})
    assert "5 members: each learns from all recordings but a part of its own, by folder, seed 0" in notes
    assert not any("held out as val" in note for note in notes)
    assert dataset.notes[0] in split_notes(dataset, TrainConfig(members=1), {})


def test_notes_of_one_camera_name_recordings(tmp_path: Path) -> None:
    """The recordings of a single camera are divided, because the camera cannot be."""
    rows = [f"{name}.mp4,1,2,fall,yard,train" for name in "abcdef"]
    rows += ["g.mp4,1,2,sit,yard,train", "h.mp4,1,2,sit,gate,test"]
    dataset = csv_set(tmp_path / "yard", *rows, header="video,start,end,label,group,split")
    notes = "\n".join(split_notes(dataset, TrainConfig(), {}))
    assert "5 members: each learns from all recordings but a part of its own, by video, seed 0" in notes
    assert "learns from a video that is the only one" in notes
    assert "by group" not in notes
    assert "no column" not in notes, "the column group is there"


def test_notes_say_if_nothing_can_be_held_out(tmp_path: Path) -> None:
    dataset = assign_splits(csv_set(tmp_path / "three", *(f"{label}.mp4,,,{label},," for label in "abc")))
    too_few = "5 members: each learns from all recordings, because there are too few groups by video to hold any out"
    assert split_notes(dataset, TrainConfig(), {})[0] == too_few
    dataset = assign_splits(csv_set(tmp_path / "single", "a.mp4,,,fall,,"))
    assert split_notes(dataset, TrainConfig(), {}) == (*dataset.notes, too_few)
