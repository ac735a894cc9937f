"""The demo's datasets are complete, readable, balanced, and independent of the number of processes."""

from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from tests.demo.synthetic import read_rows, skip_rendering
from vidgru.demo import dataset
from vidgru.demo.dataset import EVENTS_PER_RECORDING, FRAMES_PER_CLIP, write_dataset, write_frames
from vidgru.demo.scenes import CLASSES, EVENT_KINDS, ORDER_PAIRS, plan_clip

SPLITS = ("train", "val", "test")


@pytest.fixture
def no_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_rendering(monkeypatch)


@pytest.mark.usefixtures("no_rendering")
def test_write_dataset_is_complete(tmp_path: Path) -> None:
    write_dataset(tmp_path, clips_per_kind=3, eventless_clips=3, recordings=5, unseen_recordings=2, seed=2, workers=1)
    dataset_rows = read_rows(tmp_path / "dataset")
    assert set(dataset_rows[0]) == {"video", "start", "end", "label", "description", "split"}
    assert {row["video"] for row in dataset_rows} == {path.name for path in (tmp_path / "dataset" / "videos").iterdir()}
    assert all((row["label"] == "") == (row["description"] == "") for row in dataset_rows)
    clips = [row for row in dataset_rows if row["video"].startswith("clip_")]
    for split in SPLITS:
        assert {row["label"] for row in clips if row["split"] == split} == {*EVENT_KINDS, ""}
    assert not any(row["start"] or row["end"] for row in clips)
    timed = [row for row in dataset_rows if row["video"].startswith("long_")]
    assert len(clips) + len(timed) == len(dataset_rows)
    assert Counter(row["split"] for row in timed) == {
        "train": 3 * EVENTS_PER_RECORDING,
        "val": EVENTS_PER_RECORDING,
        "test": EVENTS_PER_RECORDING,
    }
    assert all(0 < float(row["start"]) < float(row["end"]) for row in timed)
    unseen = read_rows(tmp_path / "recordings")
    videos = ["recording_00.mp4"] * len(EVENT_KINDS) + ["recording_01.mp4"] * len(EVENT_KINDS)
    assert [row["video"] for row in unseen] == videos
    assert Counter(row["label"] for row in unseen) == dict.fromkeys(EVENT_KINDS, 2)
    assert {row["split"] for row in unseen} == {"test"}


@pytest.mark.usefixtures("no_rendering")
def test_write_dataset_deals_kinds_over_recordings(tmp_path: Path) -> None:
    write_dataset(tmp_path, clips_per_kind=3, recordings=20, workers=1)
    timed = [row for row in read_rows(tmp_path / "dataset") if row["start"]]
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        split_rows = [row for row in timed if row["split"] == split]
        assert len({row["video"] for row in split_rows}) == count
        assert Counter(row["label"] for row in split_rows) == dict.fromkeys(
            EVENT_KINDS, EVENTS_PER_RECORDING * count // len(EVENT_KINDS)
        )
    labels_by_video: dict[str, Counter[str]] = {}
    for row in timed:
        labels_by_video.setdefault(row["video"], Counter())[row["label"]] += 1
    # Some kind occurs twice in a recording: else earlier events would rule out later ones.
    assert max(max(labels.values()) for labels in labels_by_video.values()) > 1


@pytest.mark.usefixtures("no_rendering")
@pytest.mark.parametrize("recordings", [3, 7])
def test_write_dataset_balances_order_pairs(tmp_path: Path, recordings: int) -> None:
    write_dataset(tmp_path, clips_per_kind=3, recordings=recordings, workers=1)
    for split in SPLITS:
        labels = Counter(
            row["label"] for row in read_rows(tmp_path / "dataset") if row["split"] == split and row["start"]
        )
        assert all(labels[first] == labels[second] > 0 for first, second in ORDER_PAIRS)


@pytest.mark.usefixtures("no_rendering")
def test_write_dataset_recordings_differ(tmp_path: Path) -> None:
    write_dataset(tmp_path, clips_per_kind=3, recordings=8, unseen_recordings=2, workers=1)
    rows = read_rows(tmp_path / "dataset") + read_rows(tmp_path / "recordings")
    starts = [float(row["start"]) for row in rows if row["start"]]
    assert len(set(starts)) == len(starts)


@pytest.mark.slow
def test_write_dataset_is_independent_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "EVENT_KINDS", EVENT_KINDS[:3])  # the number of videos
    counts: dict[str, Any] = {
        "clips_per_kind": 3,
        "eventless_clips": 0,
        "recordings": 0,
        "unseen_recordings": 0,
        "seed": 5,
    }
    write_dataset(tmp_path / "one", **counts, workers=1)
    write_dataset(tmp_path / "two", **counts, workers=2)
    names = sorted(str(path.relative_to(tmp_path / "one")) for path in (tmp_path / "one").rglob("*.*"))
    assert names == sorted(str(path.relative_to(tmp_path / "two")) for path in (tmp_path / "two").rglob("*.*"))
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_write_dataset_rejects_too_few_for_splits(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="clips_per_kind must be at least 3, one for each split, got 2"):
        write_dataset(tmp_path, clips_per_kind=2)
    with pytest.raises(ValueError, match="recordings must be 0, or at least 3, one for each split, got 2"):
        write_dataset(tmp_path, recordings=2)


def test_write_frames_in_ultralytics_format(tmp_path: Path) -> None:
    data = write_frames(tmp_path, {"train": range(40, 44), "val": range(60, 61)}, ("bag", "person"))
    contents = yaml.safe_load(data.read_text())
    assert contents == {
        "path": str(tmp_path),
        "train": "images/train",
        "val": "images/val",
        "names": {0: "bag", 1: "person"},
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.yaml", "images", "labels"]
    for split, clips in (("train", 4), ("val", 1)):
        images = sorted((tmp_path / "images" / split).iterdir())
        assert len(images) == FRAMES_PER_CLIP * clips
        assert [path.stem for path in images] == sorted(p.stem for p in (tmp_path / "labels" / split).iterdir())
    num_boxes = 0
    for path in sorted((tmp_path / "images" / "train").iterdir()):
        clip, frame = (int(part) for part in path.stem.split("_"))
        scene = plan_clip(EVENT_KINDS[clip], 40 + clip)
        image = cv2.imread(str(path))
        assert image is not None
        *_, (rendered, _, _) = (item for item, _ in zip(scene.frames(), range(frame + 1), strict=False))
        assert np.abs(image[:, :, ::-1].astype(int) - rendered).mean() < 12
        boxes, kinds = scene.truth(frame)
        expected = [
            (("bag", "person").index(CLASSES[kind]), (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
            for kind, (x0, y0, x1, y1) in zip(kinds, boxes, strict=True)
            if CLASSES[kind] != "car"
        ]
        lines = (tmp_path / "labels" / "train" / f"{path.stem}.txt").read_text().splitlines()
        read = [[float(value) for value in line.split()] for line in lines]
        assert np.allclose(np.array(read).reshape(-1, 5), np.array(expected).reshape(-1, 5), atol=1e-5)
        num_boxes += len(read)
    assert num_boxes > 0
