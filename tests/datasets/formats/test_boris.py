"""BORIS's tables and projects; where their shapes come from stands beside them in files.py."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.annotation_files import check_rejected
from tests.datasets.formats import files
from tests.datasets.formats.files import write
from tests.datasets.formats.test_json_formats import note
from vidgru.datasets.annotations import load_dataset
from vidgru.errors import AnnotationError


def test_boris_tabular(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "cage.csv", files.BORIS_TABULAR, "day1/cage.avi"))
    assert dataset.annotations == (
        note("day1/cage.avi", 1.0, 2.5, "grooming", text="left paw"),
        note("day1/cage.avi", 2.75, 3.75, "squeak"),
        note("day1/cage.avi", 2.0, 4.0, "grooming"),
    )
    assert [dict(row.extra) for row in dataset.rows] == [{"subject": "m1", "modifiers": "hard"}, {}, {"subject": "m2"}]
    assert dataset.durations == {"day1/cage.avi": 60.0}
    assert dataset.notes == ("1 point event cover 0.5 s before and after their time",)
    assert dataset.half_width_s is None


def test_boris_tabular_with_preface(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "cage.tsv", files.BORIS_PREFACE, "videos/day1/cage.avi"))
    assert dataset.annotations == (note("day1/cage.avi", 3.3, 7.75, "grooming"),)  # without the offset of 10 s
    assert dataset.durations == {"day1/cage.avi": 59.96}


def test_boris_aggregated(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "cage.csv", files.BORIS_AGGREGATED, "cage.avi"))
    assert dataset.annotations == (
        note("cage.avi", 1.8, 8.125, "grooming", text="slow"),
        note("cage.avi", 32.825 - 0.5, 32.825 + 0.5, "squeak"),
    )
    assert [dict(row.extra) for row in dataset.rows] == [{"subject": "m1"}, {}]


def test_boris_aggregated_of_several_files(tmp_path: Path) -> None:
    text = files.BORIS_AGGREGATED + files.BORIS_AGGREGATED.splitlines()[1].replace("cage.avi", "next.avi")
    with pytest.raises(AnnotationError, match=r"line 4: observation obs1 plays several files in turn, .*\n  use the"):
        load_dataset(write(tmp_path, "cage.csv", text, "cage.avi|next.avi"))


def test_boris_points_only_are_moments(tmp_path: Path) -> None:
    text = "".join(line for line in files.BORIS_TABULAR.splitlines(keepends=True) if "grooming" not in line)
    assert load_dataset(write(tmp_path, "cage.csv", text, "day1/cage.avi")).half_width_s == 0.5


def test_boris_project(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "lab.boris", files.BORIS_PROJECT, "a.mp4|b.mp4|c.mp4"))
    assert dataset.annotations == (
        note("a.mp4", 1.5, 3.0, "grooming"),
        note("a.mp4", 9.0, 10.0, "grooming", text="slow"),  # goes on in the next file
        note("b.mp4", 0.0, 2.5, "grooming", text="slow"),
        note("b.mp4", 3.5, 4.5, "squeak"),
        note("c.mp4"),
    )
    assert dataset.durations == {"a.mp4": 10.0, "b.mp4": 20.0}
    assert dataset.notes[1:] == (
        "1 observation with several players: events go to player 1's video",
        "1 observation without a video skipped, live or of pictures (first: seen live)",
    )
    assert dataset.warnings[0] == (
        "1 observation without events, read as recordings in which nothing happens (first: quiet); delete those that "
        "nobody coded"
    )


def test_boris_same_name_in_two_folders(tmp_path: Path) -> None:
    project: Any = copy.deepcopy(files.BORIS_PROJECT)
    project["observations"] = {
        name: {"type": "MEDIA", "file": {"1": [f"C:\\lab\\{name}\\1.mp4"]}, "events": []} for name in ("day1", "day2")
    }
    assert list(load_dataset(write(tmp_path, "lab.boris", project, "day1/1.mp4|day2/1.mp4")).recordings) == [
        "day1/1.mp4",
        "day2/1.mp4",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("STOP,4.0", "START,4.0", r"grooming starts twice without a stop\n|grooming starts but does not stop"),
        ("START,1.0", "STOP,1.0", r"line 2: grooming stops without a start"),
        ("POINT,3.25", "TICK,3.25", r"line 5: 'TICK' is not START, STOP or POINT\n  export"),
        ("POINT,3.25", "POINT,NA", r"line 5: no time: an observation of pictures or without times\n  vidgru reads"),
        (",squeak,", ",,", r"line 5: no behavior\n  each event needs one"),
        ("player #1:day1/cage.avi", "player #1:x.avi;day1/cage.avi", r"plays several files in turn, and the export"),
        (",Time,", ",When,", r"no row with the columns Behavior and Time, or Behavior, Start \(s\) and Stop \(s\)\n"),
    ],
)
def test_boris_rejects_bad_tables(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = files.BORIS_TABULAR.replace(old, new)
    check_rejected(write(tmp_path, "cage.csv", text, "day1/cage.avi"), "boris", message)


def test_boris_live_observation_has_no_video(tmp_path: Path) -> None:
    text = files.BORIS_TABULAR.replace("player #1:day1/cage.avi", "NA").replace("day1/cage.avi", "NA")
    with pytest.raises(AnnotationError, match=r"observation obs1 has no video\n  vidgru reads observations of videos"):
        load_dataset(write(tmp_path, "cage.csv", text))


def test_boris_unpaired_state_of_a_project(tmp_path: Path) -> None:
    project: Any = copy.deepcopy(files.BORIS_PROJECT)
    del project["observations"]["two files"]["events"][1]
    with pytest.raises(AnnotationError, match=r"two files.events\[0\]: grooming starts but does not stop\n  in BORIS,"):
        load_dataset(write(tmp_path, "lab.boris", project, "a.mp4|b.mp4|c.mp4"))
    project["observations"]["two files"] |= {"file": {"1": []}}
    with pytest.raises(AnnotationError, match=r"two files: no video in player 1\n  add it in BORIS"):
        load_dataset(write(tmp_path, "lab.boris", project, "c.mp4"))
