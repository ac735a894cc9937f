"""Clips as frames of their recordings."""

from pathlib import Path

import numpy as np
import pytest

from tests.train.made import crossing
from vidgru.datasets.annotations import load_dataset
from vidgru.model.features import compute_features
from vidgru.train.data import LabelledClip, Task, place

ROWS = "a.mp4,0,1,walk,,train\na.mp4,8,9,fall,,train\n"


def test_a_clip_without_frames_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "labels.csv").write_text("video,start,end,label,description,split\n" + ROWS)
    dataset = load_dataset(tmp_path / "labels.csv")
    times = np.arange(32) / 8  # the file ends after 4 s
    placed = place(dataset, "train", {"a.mp4": times}, Task.of(dataset))
    assert [(clip.first, clip.stop) for clip in placed] == [(0, 8)]
    assert "left out: a.mp4 has no frames from 8 s on" in capsys.readouterr().err


def test_a_clip_is_cut_from_its_recordings_features() -> None:
    features = compute_features(crossing("person", "car", 0))
    cut = LabelledClip(video="a.mp4", first=3, stop=9, labels=np.zeros(1, np.float32)).cut(features)
    assert len(cut) == 6
    assert np.array_equal(cut.objects, features.objects[features.offsets[3] : features.offsets[9]])
    assert np.array_equal(cut.frame, features.frame[3:9])
