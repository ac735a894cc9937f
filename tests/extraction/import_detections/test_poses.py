"""Poses of DeepLabCut and SLEAP; the shapes are those of their documentation, see poses.py."""

from pathlib import Path

import numpy as np
import pytest

from tests.extraction.import_detections.detection_files import open_source
from vidgru.errors import RecordingError, SourceError

DLC = """scorer,DLC_resnet50,DLC_resnet50,DLC_resnet50,DLC_resnet50,DLC_resnet50,DLC_resnet50
bodyparts,left_ear,left_ear,left_ear,right_ear,right_ear,right_ear
coords,x,y,likelihood,x,y,likelihood
0,10.0,20.0,0.9,30.0,40.0,0.7
1,,,,35.0,45.0,0.6
2,,,,,,
3,11.0,21.0,0.9,500.0,600.0,0.01
"""
SLEAP = """track,frame_idx,instance.score,nose.x,nose.y,nose.score,tail.x,tail.y,tail.score
track_1,4,0.9,1.0,2.0,0.9,11.0,12.0,0.5
track_0,4,0.9,50.0,60.0,0.8,70.0,90.0,0.8
track_1,6,0.9,2.0,3.0,0.9,,,
"""


def test_deeplabcut(tmp_path: Path) -> None:
    (tmp_path / "yardDLC_resnet50_yardMay6shuffle1_100000_filtered.csv").write_text(DLC)
    source = open_source(tmp_path)
    assert (source.recording_names, source.class_names) == (["yard"], ("animal",))
    assert source.feature_settings["flip_idx"] == [1, 0]
    poses = source.read("yard")
    assert poses.frame.tolist() == [0, 1, 3]
    assert np.allclose(poses.boxes, [[10, 20, 30, 40], [35, 45, 35, 45], [11, 21, 11, 21]])
    assert np.allclose(poses.scores, [0.8, 0.6, 0.455])
    assert poses.keypoints is not None
    assert np.allclose(poses.keypoints[1], [[0, 0, 0], [35, 45, 0.6]])
    assert poses.tracks is not None
    assert set(poses.tracks.tolist()) == {0}
    assert poses.processed_frames is not None
    assert poses.processed_frames.tolist() == [0, 1, 2, 3]


def test_deeplabcut_of_several_animals(tmp_path: Path) -> None:
    lines = [
        "scorer,D,D,D,D,D,D",
        "individuals,m1,m1,m1,m2,m2,m2",
        "bodyparts,nose,nose,nose,nose,nose,nose",
        "coords,x,y,likelihood,x,y,likelihood",
        "0,1,2,0.9,5,6,0.8",
        "1,,,,7,8,0.8",
    ]
    (tmp_path / "cageDLC_dlcrnetms5.csv").write_text("\n".join(lines))
    poses = open_source(tmp_path).read("cage")
    assert poses.tracks is not None
    assert list(zip(poses.frame.tolist(), poses.tracks.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 1)]


def test_sleap(tmp_path: Path) -> None:
    (tmp_path / "labels.v001.000_yard.analysis.csv").write_text(SLEAP)
    source = open_source(tmp_path / "labels.v001.000_yard.analysis.csv")
    assert source.recording_names == ["yard"]
    poses = source.read("yard")
    assert poses.frame.tolist() == [4, 4, 6]
    assert poses.tracks is not None
    assert poses.tracks.tolist() == [0, 1, 0]
    assert np.allclose(poses.boxes[:2], [[1, 2, 11, 12], [50, 60, 70, 90]])
    assert poses.processed_frames is None


def test_pose_files_that_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"\x89HDF")
    with pytest.raises(
        SourceError, match=r"a.h5 is not read: poses .* are, as CSV\n  export it as CSV: save_as_csv=True"
    ):
        open_source(tmp_path / "a.h5")
    (tmp_path / "aDLC_x.csv").write_text(DLC.replace("35.0,45.0", "here,45.0"))
    with pytest.raises(RecordingError, match=r"its poses cannot be read from .*aDLC_x.csv: could not convert"):
        open_source(tmp_path).read("a")
    (tmp_path / "bDLC_x.csv").write_text(DLC.replace("left_ear", "nose"))
    with pytest.raises(SourceError, match=r"bDLC_x.csv has other keypoints than .*aDLC_x.csv\n  pass the tables"):
        open_source(tmp_path)
    (tmp_path / "bDLC_x.csv").rename(tmp_path / "aDLC_x_filtered.csv")
    (tmp_path / "aDLC_x_filtered.csv").write_text(DLC)
    with pytest.raises(SourceError, match=r"aDLC_x_filtered.csv is a second table of a\n  remove one"):
        open_source(tmp_path)
