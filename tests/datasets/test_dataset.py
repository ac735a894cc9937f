"""What rows say of described segments."""

from pathlib import Path

import numpy as np
import pytest

from tests.datasets.annotation_files import csv_set, write_set
from vidgru.datasets import dataset as dataset_module
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import (
    Dataset,
    DescribedSegment,
    clips,
    described_segments,
    event_timelines,
    frames_between,
    without_placeholder_labels,
)
from vidgru.datasets.report import report
from vidgru.datasets.rows import with_split
from vidgru.training.advice import dataset_advice
from vidgru.types import DESCRIBED


def described(
    video: str, start_s: float | None, end_s: float | None, label: int | None, *sentences: str, split: str = "train"
) -> DescribedSegment:
    return DescribedSegment(video=video, start_s=start_s, end_s=end_s, label=label, sentences=sentences, split=split)


def test_described_segments_collect_sentences(tmp_path: Path) -> None:
    dataset = csv_set(
        tmp_path,
        "a.mp4,1,2,fall,He falls.,train",
        "a.mp4,1,2,walk,그가 걷는다.,train",
        "a.mp4,1,2,fall,넘어진다.,train",
        "a.mp4,1,2,fall,He falls.,train",  # the same again is no other way
        "a.mp4,1,2.5,fall,He falls and stays.,train",
        "a.mp4,1,2,fall,,train",
        "b.mp4,1,2,fall,She falls.,train",
    )
    assert dataset.labels == ("fall", "walk")
    assert described_segments(dataset) == [
        described("a.mp4", 1.0, 2.0, 0, "He falls.", "넘어진다."),
        described("a.mp4", 1.0, 2.0, 1, "그가 걷는다."),
        described("a.mp4", 1.0, 2.5, 0, "He falls and stays."),
        described("b.mp4", 1.0, 2.0, 0, "She falls."),
    ]


def test_described_segments_of_clips_and_splits(tmp_path: Path) -> None:
    dataset = csv_set(
        tmp_path,
        "a.mp4,,,fall,He falls.,train",
        "a.mp4,,,fall,He stumbles.,",
        "b.mp4,,,fall,She falls.,val",
        "c.mp4,,,walk,,val",
        "d.mp4,,,,,val",
        "e.mp4,,,,Two people meet.,val",
        "e.mp4,0,2,walk,They walk.,test",
    )
    train = [described("a.mp4", None, None, 0, "He falls.", "He stumbles.")]
    val = [
        described("b.mp4", None, None, 0, "She falls.", split="val"),
        described("e.mp4", None, None, None, "Two people meet.", split="val"),
    ]
    test = [described("e.mp4", 0.0, 2.0, 1, "They walk.", split="test")]
    assert described_segments(dataset, "train") == train
    assert described_segments(dataset, "val") == val
    assert described_segments(dataset, "test") == test
    assert described_segments(dataset) == train + val + test
    assert described_segments(dataset, "other") == []


def test_described_segments_differ_by_split(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,1,2,fall,He falls.,train", "a.mp4,1,2,fall,She falls.,val")
    assert [one.sentences for one in described_segments(dataset)] == [("He falls.",), ("She falls.",)]


def with_background(folder: Path, *rows: str) -> Path:
    write_set(folder, "\n".join(("video,start,end,label,description,split", *rows)))
    (folder / "set.yaml").write_text("background: nothing\n")
    return folder / "set.yaml"


def test_described_background_has_no_label(tmp_path: Path) -> None:
    path = with_background(tmp_path, "a.mp4,1,2,fall,He falls.,train", "b.mp4,,,nothing,An empty room.,train")
    assert described_segments(load_dataset(path)) == [
        described("a.mp4", 1.0, 2.0, 0, "He falls."),
        described("b.mp4", None, None, None, "An empty room."),
    ]


@pytest.mark.parametrize("rows", [
    ("a.mp4,1,2,,He falls.,train", "a.mp4,1,2,,넘어진다.,train", "b.mp4,,,,An empty room.,val"),
    ("a.mp4,1,2,,He falls.,train", "a.mp4,1,2,,넘어진다.,train", "b.mp4,,,,An empty room.,val", "c.mp4,,,,,train"),
])  # fmt: skip
def test_placeholder_label_without_labels(tmp_path: Path, rows: tuple[str, ...]) -> None:
    dataset = csv_set(tmp_path, *rows)
    assert dataset.labels == (DESCRIBED,)
    assert "no row has a label: described segments get the label 'described'" in dataset.notes
    assert described_segments(dataset) == [
        described("a.mp4", 1.0, 2.0, 0, "He falls.", "넘어진다."),
        described("b.mp4", None, None, 0, "An empty room.", split="val"),
    ]
    found = {(clip.video, clip.labels) for clip in clips(dataset)}
    assert found == {("a.mp4", frozenset({0})), ("b.mp4", frozenset({0}))} | (
        {("c.mp4", frozenset())} if len(rows) == 4 else set()
    )
    assert [timeline.events for timeline in event_timelines(dataset, "train")][:1] == [((1.0, 2.0, 0),)]


def test_placeholder_label_with_background_only(tmp_path: Path) -> None:
    path = with_background(
        tmp_path, "a.mp4,,,,He falls.,train", "b.mp4,,,nothing,,train", "c.mp4,,,nothing,An empty room.,train"
    )
    dataset = load_dataset(path)
    assert dataset.labels == (DESCRIBED,)
    assert [note.label for note in dataset.annotations] == [DESCRIBED, "nothing", "nothing"]
    assert [clip.labels for clip in clips(dataset)] == [frozenset({0}), frozenset(), frozenset()]
    assert [one.label for one in described_segments(dataset)] == [0, None]


def test_no_placeholder_label_beside_labels(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,,,fall,He falls.,train", "b.mp4,,,,Two people meet.,train")
    assert dataset.labels == ("fall",)
    assert dataset.notes == ()
    assert [note.label for note in dataset.annotations] == ["fall", None]


def test_no_placeholder_label_without_descriptions(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,,,,,train", "b.mp4,,,,,val")
    assert dataset.labels == ()
    assert described_segments(dataset) == []


def test_without_placeholder_labels(tmp_path: Path) -> None:
    dataset = without_placeholder_labels(
        csv_set(tmp_path, "a.mp4,2,4,,He falls.,test", "b.mp4,,,,Two people meet.,test")
    )
    assert dataset.labels == ()
    assert [note.label for note in dataset.annotations] == [None, None]
    assert [(one.label, one.sentences) for one in described_segments(dataset)] == [
        (None, ("He falls.",)),
        (None, ("Two people meet.",)),
    ]
    assert event_timelines(dataset) == []


def test_frames_between() -> None:
    time_s = np.arange(16) / 8
    assert frames_between(time_s, 0.25, 0.5) == (2, 4)  # half-open
    assert frames_between(time_s, 0.26, 0.51) == (3, 5)
    assert frames_between(time_s, 0.0, 99.0) == (0, 16)
    assert frames_between(time_s, 0.26, 0.30) == (2, 3)  # between two samples: the nearest
    assert frames_between(time_s, 50.0, 51.0) == (15, 16)
    assert frames_between(time_s[:0], 1.0, 2.0) == (0, 0)


def test_clips_and_timelines_are_made_once_per_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Report and advice use them again and again, of 200,000 rows."""
    made: list[tuple[str, Dataset]] = []
    for name in ("_clips_of", "_timelines_of"):
        make = getattr(dataset_module, name)
        monkeypatch.setattr(
            dataset_module, name, lambda data, make=make, name=name: made.append((name, data)) or make(data)
        )
    data = csv_set(tmp_path, "a.mp4,1,2,fall,,train", "a.mp4,1,2,walk,,train", "b.mp4,,,,,val")
    report(data)
    dataset_advice(data, 8.0)
    assert sorted(name for name, source in made if source is data) == ["_clips_of", "_timelines_of"]
    assert [clip.labels for clip in clips(data)] == [frozenset({0, 1}), frozenset()]
    assert clips(data, "val") == clips(data)[1:]
    assert with_split(data.rows[0], "train") is data.rows[0]
