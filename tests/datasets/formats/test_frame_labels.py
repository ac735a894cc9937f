"""Label files with a line per frame, and FiftyOne's detections; the sources of the shapes are in files.py."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.formats import files
from tests.datasets.formats.files import write
from tests.datasets.formats.test_json_formats import note
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import Dataset
from vidgru.datasets.formats import recognise
from vidgru.errors import AnnotationError


def load(folder: Path, name: str, text: Any, videos: str, settings: str = "fps: 10\n") -> Dataset:
    """The dataset of a YAML that names a file and has these settings."""
    write(folder, name, text, videos)
    return load_dataset(write(folder, "set.yaml", f"annotations: {name}\n{settings}"))


def test_frame_labels(tmp_path: Path) -> None:
    dataset = load(tmp_path, "P03_cereals.txt", files.FRAME_LABELS, "P03_cereals.avi")
    assert dataset.annotations == (
        note("P03_cereals.avi", 1.0, 2.5, "take_bowl"),
        note("P03_cereals.avi", 2.5, 5.0, "pour_milk"),
    )
    assert dataset.rows[0].where == "line 11"
    assert dataset.frame_counts == {"P03_cereals.avi": 55}
    assert dataset.notes == ("frames labelled SIL are not events",)


def test_frame_labels_with_split_bundles(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "groundTruth", f"{name}.txt", files.FRAME_LABELS, f"{name}.avi")
    write(tmp_path / "splits", "train.split1.bundle", "a.txt\n")
    write(tmp_path / "splits", "test.split1.bundle", "b.txt\n")
    dataset = load_dataset(write(tmp_path, "set.yaml", "annotations: groundTruth\nvideos: groundTruth\nfps: 10\n"))
    assert {(a.video, a.split) for a in dataset.annotations} == {("a.avi", "train"), ("b.avi", "test")}
    assert dataset.notes[0] == "splits come from splits/train.split1.bundle and test.split1.bundle"


def test_frame_labels_as_segments(tmp_path: Path) -> None:
    assert load(tmp_path, "P03.txt", files.SEGMENT_LABELS, "P03.avi").annotations == (
        note("P03.avi", 1.0, 2.5, "take_bowl"),
        note("P03.avi", 2.5, 5.0, "pour_milk"),
    )
    with pytest.raises(AnnotationError, match=r"line 2: '25-11 take_bowl' is not a range of frames and a label\n"):
        load(tmp_path, "P03.txt", files.SEGMENT_LABELS.replace("11-25", "25-11"), "P03.avi")


def test_frame_labels_table(tmp_path: Path) -> None:
    dataset = load(tmp_path, "mouse1_labels.csv", files.BEHAVIOR_TABLE, "mouse1.mp4")
    assert dataset.annotations == (note("mouse1.mp4", 0.4, 1.0, "Swim"), note("mouse1.mp4", 0.8, 1.2, "Float"))
    assert dataset.rows[0].where == "line 6"


def test_frame_labels_of_simba(tmp_path: Path) -> None:
    dataset = load(tmp_path, "Together_1.csv", files.SIMBA_TABLE, "Together_1.mp4")
    assert dataset.annotations == (note("Together_1.mp4", 0.5, 0.9, "Attack"),)
    assert dataset.notes == ("labels come from the columns Attack; select others with `tiers`",)
    lines = files.SIMBA_TABLE.splitlines()
    both = "\n".join([f"{lines[0]},Probability_Rear,Rear", *(f"{line},0.75,{int(line < '2')}" for line in lines[1:])])
    assert load(tmp_path, "Together_1.csv", both, "").labels == ("Attack", "Rear")
    chosen = "fps: 10\ntiers: [Low_prob_detections_0.75]\n"
    assert load(tmp_path, "Together_1.csv", files.SIMBA_TABLE, "", chosen).annotations == (note("Together_1.mp4"),)
    with pytest.raises(AnnotationError, match=r"no column 'Atack' \(did you mean 'Attack'\?\)\n  its columns are"):
        load(tmp_path, "Together_1.csv", files.SIMBA_TABLE, "", "fps: 10\ntiers: [Atack]\n")


def test_frame_labels_not_given(tmp_path: Path) -> None:
    text = files.BEHAVIOR_TABLE.replace("\n11,0,0,1", "\n11,-1,-1,-1")
    warnings = load(tmp_path, "mouse1.csv", text, "mouse1.mp4").warnings
    assert warnings[0] == "3 values of -1 (not labelled) of 36, read as 0: nothing happens there"


def test_frame_labels_of_every_nth_frame(tmp_path: Path) -> None:
    text = "frame,sit\n" + "".join(f"{frame},{int(20 <= frame < 40)}\n" for frame in range(0, 100, 5))
    dataset = load(tmp_path, "a.csv", text, "a.mp4")
    assert (dataset.annotations[0].start_s, dataset.annotations[0].end_s) == (2.0, 4.0)
    assert dataset.frame_counts == {"a.mp4": 100}
    with pytest.raises(AnnotationError, match=r"line 6: frame 25 follows frame 15\n  each frame, or every n-th, needs"):
        load(tmp_path, "a.csv", text.replace("20,1\n", ""), "a.mp4")


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        (
            files.FRAME_LABELS,
            "",
            r"x.csv, line 11: counts frames, and their rate is unknown: x.mp4 cannot be read\n  give the rate: `fps",
        ),
        (files.BEHAVIOR_TABLE + "12,0,2,0\n", "fps: 10\ntiers: [Swim]\n", r"line 14: Swim is '2'\n  values of behav"),
        ("a,b\n1,x\n", "fps: 10\n", r"x.csv: no column of behaviors, whose values are 0, 1 or -1\n  select columns"),
    ],
)
def test_frame_labels_rejected(tmp_path: Path, text: str, settings: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        load(tmp_path, "x.csv", text, "x.mp4", f"format: frame-labels\n{settings}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "walk\nrun\njump\nsit\nstand\nfall\nlie\nwave\nclap\n"),
        ("mapping.txt", "0 SIL\n1 take_bowl\n2 pour_milk\n3 stir\n4 pour\n5 cut\n6 fry\n7 eat\n"),
        ("readme.txt", "These are labels.\n\n\nThey were made by hand.\n"),
        ("sizes.csv", "name,is_good,is_bad\na,1,0\nb,0,1\n"),
        ("matrix.csv", "0,1\n1,0\n0,0\n"),
    ],
)
def test_frame_labels_are_not_other_texts(tmp_path: Path, name: str, text: str) -> None:
    assert recognise(write(tmp_path, name, text)) != "frame-labels"


# --- FiftyOne -------------------------------------------------------------------------------------------------------


def test_fiftyone(tmp_path: Path) -> None:
    dataset = load(tmp_path, "labels.json", files.FIFTYONE, "data/cam1/yard.mp4|data/quiet.mp4")
    assert dataset.annotations == (
        note("data/cam1/yard.mp4", 1.5, 3.0, "fall", text="slowly"),
        note("data/cam1/yard.mp4", 1.0, 4.0, "walk"),
        note("data/quiet.mp4"),
    )
    assert dataset.rows[0].extra == {"score": "0.9"}
    assert dataset.labels == ("walk", "fall")
    assert dataset.notes == ("1 video without labels skipped",)


def test_fiftyone_labels_as_text(tmp_path: Path) -> None:
    text = {"labels": {"a": [{"label": "walk", "timestamps": [0, 1]}]}}
    assert load(tmp_path, "labels.json", text, "a.mp4", "").annotations == (note("a.mp4", 0, 1, "walk"),)


@pytest.mark.parametrize(
    ("detection", "settings", "message"),
    [
        ({"label": 0, "support": [1, 2]}, "", r"counts frames, and their rate is unknown: .*\n  give the rate: `fps"),
        ({"label": 2, "timestamps": [0, 1]}, "", r"label 2 is not in classes, which go from 0 to 1\n  export the data"),
        ({"label": 0, "support": [5, 2]}, "fps: 5\n", r"frames 5 to 2 are not a range\n  frames count from 1"),
    ],
)
def test_fiftyone_rejected(tmp_path: Path, detection: Any, settings: str, message: str) -> None:
    root = copy.deepcopy(files.FIFTYONE)
    root["labels"]["cam1/yard"] = [detection]
    with pytest.raises(AnnotationError, match=message):
        load(tmp_path, "labels.json", root, "data/cam1/yard.mp4|data/quiet.mp4", settings)
