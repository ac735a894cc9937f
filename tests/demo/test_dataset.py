"""The demo's datasets: complete, readable, balanced, and the same however many processes draw them."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from vidgru.datasets.annotations import load_dataset
from vidgru.demo import dataset
from vidgru.demo.dataset import EVENTS, FRAMES, write_dataset, write_frames
from vidgru.demo.scene import CLASSES, KINDS, ORDER_PAIRS, Scene, plan_clip
from vidgru.demo.sentences import parse

SPLITS = ("train", "val", "test")


def rows(folder: Path, name: str = "annotations.csv") -> list[dict[str, str]]:
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos are planned and annotated, and left empty."""

    def touch(scene: Scene, path: Path) -> None:
        path.touch()

    monkeypatch.setattr(dataset, "write_video", touch)


@pytest.mark.usefixtures("undrawn")
def test_dataset_is_complete_and_readable(tmp_path: Path) -> None:
    write_dataset(tmp_path, clips_per_kind=3, eventless=3, recordings=5, unseen=2, seed=2, workers=1)
    known = rows(tmp_path / "dataset")
    assert set(known[0]) == {"video", "start", "end", "label", "description", "split"}
    assert {row["video"] for row in known} == {path.name for path in (tmp_path / "dataset" / "videos").iterdir()}
    assert all((row["label"] == "") == (row["description"] == "") for row in known)
    clips = [row for row in known if row["video"].startswith("clip_")]
    for split in SPLITS:
        assert {row["label"] for row in clips if row["split"] == split} == {*KINDS, ""}
    assert not any(row["start"] or row["end"] for row in clips)
    timed = [row for row in known if row["video"].startswith("long_")]
    assert len(clips) + len(timed) == len(known)
    assert Counter(row["split"] for row in timed) == {"train": 3 * EVENTS, "val": EVENTS, "test": EVENTS}
    assert all(0 < float(row["start"]) < float(row["end"]) for row in timed)
    new = rows(tmp_path / "recordings")
    assert [row["video"] for row in new] == ["recording_00.mp4"] * len(KINDS) + ["recording_01.mp4"] * len(KINDS)
    assert Counter(row["label"] for row in new) == dict.fromkeys(KINDS, 2)
    assert {row["split"] for row in new} == {"test"}


@pytest.mark.usefixtures("undrawn")
def test_korean_annotations_say_the_same(tmp_path: Path) -> None:
    write_dataset(tmp_path, clips_per_kind=3, eventless=3, recordings=3, workers=1)
    for part in ("dataset", "recordings"):
        english, korean = rows(tmp_path / part), rows(tmp_path / part, "annotations.ko.csv")
        told = [
            [parse(row["description"], language) for row in some]
            for some, language in ((english, "en"), (korean, "ko"))
        ]
        assert told[0] == told[1]
        assert all((one is None) == (row["label"] == "") for one, row in zip(told[0], english, strict=True))
        for some in (english, korean):
            for row in some:
                del row["description"]
        assert english == korean
        # A folder is read by its annotations.csv; the other file is a dataset of its own, of the same videos.
        whole = load_dataset(tmp_path / part)
        assert whole.source == tmp_path / part / "annotations.csv"
        other = load_dataset(tmp_path / part / "annotations.ko.csv")
        assert other.recordings == whole.recordings
        assert [note.label for note in other.annotations] == [note.label for note in whole.annotations]


@pytest.mark.usefixtures("undrawn")
def test_timed_events_of_a_split_are_balanced_and_not_dealt_by_recording(tmp_path: Path) -> None:
    write_dataset(tmp_path, clips_per_kind=3, recordings=20, workers=1)
    timed = [row for row in rows(tmp_path / "dataset") if row["start"]]
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        of_split = [row for row in timed if row["split"] == split]
        assert len({row["video"] for row in of_split}) == count
        assert Counter(row["label"] for row in of_split) == dict.fromkeys(KINDS, EVENTS * count // len(KINDS))
    most = [Counter(r["label"] for r in timed if r["video"] == video).most_common(1)[0][1] for video in videos(timed)]
    assert max(most) > 1  # else the events so far would tell which are still to come


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("recordings", [3, 7])
def test_order_pairs_are_balanced_in_every_split(tmp_path: Path, recordings: int) -> None:
    write_dataset(tmp_path, clips_per_kind=3, recordings=recordings, workers=1)
    for split in SPLITS:
        labels = Counter(row["label"] for row in rows(tmp_path / "dataset") if row["split"] == split and row["start"])
        assert all(labels[one] == labels[other] > 0 for one, other in ORDER_PAIRS)


def videos(annotated: list[dict[str, str]]) -> list[str]:
    return sorted({row["video"] for row in annotated})


@pytest.mark.usefixtures("undrawn")
def test_no_recording_is_like_another(tmp_path: Path) -> None:
    write_dataset(tmp_path, clips_per_kind=3, recordings=8, unseen=2, workers=1)
    known, new = rows(tmp_path / "dataset"), rows(tmp_path / "recordings")
    starts = [float(row["start"]) for row in (*known, *new) if row["start"]]
    assert len(set(starts)) == len(starts)


def test_two_workers_write_what_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "KINDS", KINDS[:3])  # the number of videos
    counts: dict[str, Any] = {"clips_per_kind": 3, "eventless": 0, "recordings": 0, "unseen": 0, "seed": 5}
    write_dataset(tmp_path / "one", **counts, workers=1)
    write_dataset(tmp_path / "two", **counts, workers=2)
    names = sorted(str(path.relative_to(tmp_path / "one")) for path in (tmp_path / "one").rglob("*.*"))
    assert names == sorted(str(path.relative_to(tmp_path / "two")) for path in (tmp_path / "two").rglob("*.*"))
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_too_few_for_three_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="clips_per_kind must be at least 3, one for each split, got 2"):
        write_dataset(tmp_path, clips_per_kind=2)
    with pytest.raises(ValueError, match="recordings must be 0, or at least 3, one for each split, got 2"):
        write_dataset(tmp_path, recordings=2)


def test_frames_are_written_as_ultralytics_reads_them(tmp_path: Path) -> None:
    data = write_frames(tmp_path, {"train": range(40, 44), "val": range(60, 61)}, ("bag", "person"))
    facts = yaml.safe_load(data.read_text())
    assert facts == {
        "path": str(tmp_path),
        "train": "images/train",
        "val": "images/val",
        "names": {0: "bag", 1: "person"},
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.yaml", "images", "labels"]
    for split, clips in (("train", 4), ("val", 1)):
        pictures = sorted((tmp_path / "images" / split).iterdir())
        assert len(pictures) == FRAMES * clips
        assert [path.stem for path in pictures] == sorted(p.stem for p in (tmp_path / "labels" / split).iterdir())
    boxes = 0
    for path in sorted((tmp_path / "images" / "train").iterdir()):
        clip, frame = (int(part) for part in path.stem.split("_"))
        scene = plan_clip(KINDS[clip], 40 + clip)
        picture = cv2.imread(str(path))
        assert picture is not None
        *_, (drawn, _, _) = (item for item, _ in zip(scene.frames(), range(frame + 1), strict=False))
        assert np.abs(picture[:, :, ::-1].astype(int) - drawn).mean() < 12
        true, kinds = scene.truth(frame)
        wanted = [
            (("bag", "person").index(CLASSES[kind]), (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
            for kind, (x0, y0, x1, y1) in zip(kinds, true, strict=True)
            if CLASSES[kind] != "car"
        ]
        lines = (tmp_path / "labels" / "train" / f"{path.stem}.txt").read_text().splitlines()
        read = [[float(value) for value in line.split()] for line in lines]
        assert np.allclose(np.array(read).reshape(-1, 5), np.array(wanted).reshape(-1, 5), atol=1e-5)
        boxes += len(read)
    assert boxes > 0
