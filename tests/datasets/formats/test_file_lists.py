"""Clips named by their label: folders, text lists, Kinetics' tables. Sources of the shapes: files.py."""

from collections import Counter
from pathlib import Path

import pytest

from tests.datasets.formats import files
from tests.datasets.formats.files import write
from tests.datasets.formats.test_json_formats import note
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.splits import assign_splits, groups
from vidgru.errors import AnnotationError

SOME = "some/path/000.mp4|some/path/001.mp4|some/path/002.mp4"


# --- folders --------------------------------------------------------------------------------------------------------


def test_class_folders(tmp_path: Path) -> None:
    write(tmp_path, "readme.md", "", "walk/a.mp4|walk/b.avi|fall/c.mp4|fall/indoors/d.mp4|fall/notes.pdf")
    dataset = load_dataset(tmp_path)
    assert dataset.annotations == (
        note("fall/c.mp4", label="fall"),
        note("fall/indoors/d.mp4", label="fall"),
        note("walk/a.mp4", label="walk"),
        note("walk/b.avi", label="walk"),
    )
    assert dataset.labels == ("fall", "walk")


@pytest.mark.parametrize(
    "path", ["{split}/{label}/{n}.mp4", "{label}/{split}/{n}.mp4", "videos/{split}/{label}/{n}.mp4"]
)
def test_class_folders_with_split_folders(tmp_path: Path, path: str) -> None:
    names = [
        path.format(split=split, label=label, n=n)
        for split in ("train", "Validation", "test")
        for label in ("walk", "fall")
        for n in range(3)
    ]
    dataset = load_dataset(write(tmp_path, "readme.md", "", "|".join(names)).parent)
    assert Counter((a.label, a.split) for a in dataset.annotations) == {
        (label, split): 3 for label in ("walk", "fall") for split in ("train", "val", "test")
    }
    assert groups(dataset)[1] == "video"


def test_class_folder_within_split_is_no_group(tmp_path: Path) -> None:
    names = [f"{split}/{label}/{n}.mp4" for split in ("train", "test") for label in "abc" for n in range(5)]
    dataset = assign_splits(load_dataset(write(tmp_path, "readme.md", "", "|".join(names)).parent))
    assert Counter(a.label for a in dataset.annotations if a.split == "val") == {"a": 1, "b": 1, "c": 1}


def test_class_folders_rejected(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"no annotations in .*\n  pass the annotation file itself.* per class"):
        load_dataset(write(tmp_path / "one", "readme.md", "", "videos/a.mp4|videos/b.mp4").parent)
    with pytest.raises(AnnotationError, match=r"two, top.mp4: is in no folder that could be its class\n  move it into"):
        load_dataset(write(tmp_path / "two", "readme.md", "", "top.mp4|walk/a.mp4|fall/b.mp4").parent)


def test_class_folders_by_format(tmp_path: Path) -> None:
    write(tmp_path, "notes.csv", "video,label\nx.mp4,y\n", "walk/a.mp4|fall/b.mp4")
    for text in ("format: folders\n", "format: folders\nannotations: .\n"):
        assert load_dataset(write(tmp_path, "set.yaml", text)).labels == ("fall", "walk")
    with pytest.raises(AnnotationError, match=r"notes.csv is a file\n  the format folders needs a folder"):
        load_dataset(write(tmp_path, "set.yaml", "format: folders\nannotations: notes.csv\n"))
    with pytest.raises(AnnotationError, match=r"no annotations in .*walk, and no folders that could be classes\n"):
        load_dataset(write(tmp_path, "set.yaml", "format: folders\nannotations: walk\n"))


# --- lists ----------------------------------------------------------------------------------------------------------


def test_list_of_mmaction2(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "list.txt", files.MMACTION_LIST, SOME))
    assert dataset.annotations == (
        note("some/path/000.mp4", label="1"),
        note("some/path/001.mp4", label="0"),
        note("some/path/002.mp4", label="0"),
        note("some/path/002.mp4", label="1"),
    )
    assert dataset.rows[3].where == "line 3"


def test_list_names_of_class_numbers(tmp_path: Path) -> None:
    write(tmp_path, "list.txt", files.MMACTION_LIST, SOME)
    yaml = write(tmp_path, "set.yaml", "annotations: list.txt\nnames: [walk, fall, jump]\n")
    assert [a.label for a in load_dataset(yaml).annotations] == ["fall", "walk", "walk", "fall"]
    write(tmp_path, "label_map.txt", "sit\nstand\n")
    beside = load_dataset(tmp_path / "list.txt")
    assert [a.label for a in beside.annotations] == ["stand", "sit", "sit", "stand"]
    assert beside.labels == ("sit", "stand")
    write(tmp_path, "label_map.txt", "sit\n")
    with pytest.raises(
        AnnotationError, match=r"list.txt: 2 bad entries\n  line 1: label 1 has no name; names go from 0"
    ):
        load_dataset(tmp_path / "list.txt")


@pytest.mark.parametrize("classes", ["", "sit\nstand\n"])
def test_list_with_frame_counts(tmp_path: Path, classes: str) -> None:
    if classes:
        write(tmp_path, "classes.txt", classes)
    text = "some/path/000.mp4 96 1\nsome/path/001.mp4 301 0\nsome/path/002.mp4 12 1\n"
    dataset = load_dataset(write(tmp_path, "list.txt", text, SOME))
    assert [a.label for a in dataset.annotations] == (["stand", "sit", "stand"] if classes else ["1", "0", "1"])
    assert "the first number of each line counts frames, the second is the label" in dataset.warnings


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"{n}.mp4 {20 + 3 * n} {n % 2 * 40}\n" for n in range(12)),
        "0.mp4 3 40 1\n1.mp4 10 90 0\n",
        "0.mp4 2 96\n1.mp4 0 31\n",  # label, frames
        "0.mp4 7 2\n1.mp4 5 1\n",  # segments, label
    ],
)
def test_list_with_unclear_numbers(tmp_path: Path, text: str) -> None:
    with pytest.raises(AnnotationError, match=r"do the numbers of each line \(.*\) count frames\?\n  write one"):
        load_dataset(write(tmp_path, "list.txt", text, "0.mp4|1.mp4"))


def test_list_of_counts_without_labels(tmp_path: Path) -> None:
    text = "0.mp4 96\n1.mp4 31\n2.mp4 120\n3.mp4 96\n4.mp4 45\n"
    dataset = load_dataset(write(tmp_path, "list.txt", text, "|".join(f"{n}.mp4" for n in range(5))))
    assert "5 lines have 4 numbers: do they count frames, not labels?" in dataset.warnings


def test_list_away_from_its_videos(tmp_path: Path) -> None:
    write(tmp_path, "readme.md", "", "clips/path/000.mp4|clips/path/001.mp4|clips/path/002.mp4")
    write(tmp_path / "lists", "train.txt", files.MMACTION_LIST)
    yaml = write(tmp_path, "set.yaml", "videos: clips\nannotations: lists/train.txt\n")
    assert list(load_dataset(yaml).recordings) == ["path/000.mp4", "path/001.mp4", "path/002.mp4"]


def test_several_lists_are_splits(tmp_path: Path) -> None:
    lines = files.MMACTION_LIST.splitlines(keepends=True)
    for name, line in zip(("kinetics_train_list.txt", "kinetics_val_list.txt", "test.txt"), lines, strict=True):
        write(tmp_path, name, line, SOME)
    dataset = load_dataset(tmp_path)
    assert {a.video[-7:]: a.split for a in dataset.annotations} == {
        "000.mp4": "train",
        "001.mp4": "val",
        "002.mp4": "test",
    }


def ucf(folder: Path) -> Path:
    videos = [line.split()[0] for line in (files.UCF_TRAIN + files.UCF_TEST).splitlines()]
    write(folder, "classInd.txt", files.UCF_CLASSES, "|".join(videos))
    for number in ("01", "02"):
        write(folder, f"trainlist{number}.txt", files.UCF_TRAIN)
        write(folder, f"testlist{number}.txt", files.UCF_TEST)
    return folder


def test_ucf101(tmp_path: Path) -> None:
    dataset = load_dataset(ucf(tmp_path))
    assert [(a.label, a.split) for a in dataset.annotations] == [
        ("ApplyEyeMakeup", "test"), ("ApplyLipstick", "test"), ("ApplyEyeMakeup", "train"), ("ApplyLipstick", "train"),
    ]  # fmt: skip
    assert dataset.labels == ("ApplyEyeMakeup", "ApplyLipstick")
    assert dataset.notes[0].startswith("lists 01 of 01, 02: testlist01.txt, trainlist01.txt; choose others with")
    group, what = groups(dataset)
    assert what == "group"
    assert group["ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi"] == "ApplyEyeMakeup_g08"
    lists = "annotations: [trainlist02.txt, testlist02.txt]\n"
    chosen = load_dataset(write(tmp_path, "set.yaml", f"{lists}names: [ApplyLipstick, ApplyEyeMakeup]\n"))
    assert chosen.rows[0].where == "trainlist02.txt, line 1"
    assert chosen.annotations[0].label == "ApplyEyeMakeup"  # names order labels; they do not rename UCF101's


def test_single_list_gives_no_split(tmp_path: Path) -> None:
    assert load_dataset(ucf(tmp_path) / "testlist01.txt").splits == ("train",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/x.mp4 1\na/y.mp4 one\n", r"line 2: 'a/y.mp4 one' is not a video with labels\n  a line looks like"),
        ("a/x.mp4 1\na/y 7\n", r"line 2: 'a/y 7' is not a video"),
        ("x.mp4\ny.mp4\n", r"2 bad entries\n  line 1: no label\n"),
    ],
)
def test_bad_lists(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, "list.txt", text, "a/x.mp4|a/y.mp4|x.mp4|y.mp4")
    with pytest.raises(AnnotationError, match=message):
        load_dataset(write(tmp_path, "set.yaml", "annotations: list.txt\nformat: list\n"))


def test_list_rejects_bad_class_files(tmp_path: Path) -> None:
    folder = ucf(tmp_path)
    write(folder, "testlist01.txt", "Archery/v_Archery_g01_c01.avi\n")
    with pytest.raises(AnnotationError, match=r"testlist01.txt, line 1: no label, and folder 'Archery' is not a class"):
        load_dataset(folder)
    write(folder, "classInd.txt", "ApplyEyeMakeup\n")
    with pytest.raises(AnnotationError, match=r"classInd.txt, line 1: 'ApplyEyeMakeup' is not a number and a class\n"):
        load_dataset(folder)


# --- Kinetics -------------------------------------------------------------------------------------------------------


def test_kinetics_states_durations(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path, "val.csv", files.KINETICS, "-3B32lodo2M.mp4|_dbcJuKJQNs.mp4"))
    assert dict(dataset.durations) == {"-3B32lodo2M.mp4": 10.0, "_dbcJuKJQNs.mp4": 10.0}


def test_kinetics(tmp_path: Path) -> None:
    videos = "abseiling/-3B32lodo2M_000059_000069.mp4|_dbcJuKJQNs.mkv"
    dataset = load_dataset(write(tmp_path, "val.csv", files.KINETICS, videos))
    assert dataset.annotations == (
        note("abseiling/-3B32lodo2M_000059_000069.mp4", label="abseiling", split="train"),
        note("_dbcJuKJQNs.mkv", label="air drumming", split="val"),
    )
    assert dataset.rows[0].extra == {"group": "-3B32lodo2M"}
    with pytest.raises(AnnotationError, match=r"line 2: time_start and time_end are not times\n"):
        load_dataset(write(tmp_path, "val.csv", files.KINETICS.replace("59,", "nan,")))
    with pytest.raises(AnnotationError, match=r"line 1: missing column label; the header is youtube_id,"):
        load_dataset(write(tmp_path, "test.csv", "youtube_id,time_start,time_end,split\nx,1,2,test\n"))
