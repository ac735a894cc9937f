"""Format detection, names of recordings, and caches as source."""

from pathlib import Path

import pytest

from tests.extraction.import_detections.detection_files import (
    SOURCE_FLAGS,
    extract,
    open_source,
    walk_rows,
    write_coco,
    write_mot,
    write_save_txt,
)
from vidgru.cache import SequenceCache
from vidgru.errors import SettingsError, SourceError


def test_find_with_several_label_folders(tmp_path: Path) -> None:
    write_save_txt(tmp_path / "cam1" / "labels", "a", walk_rows(3))
    write_save_txt(tmp_path / "cam2" / "labels", "a", walk_rows(3))
    write_save_txt(tmp_path / "cam2" / "labels", "b_7", walk_rows(3))
    detection_source = open_source(tmp_path)
    assert detection_source.recording_names == ["cam1/a", "cam2/a", "cam2/b_7"]
    assert detection_source.find("cam1/a.mp4") == detection_source.find("x/cam1/a.avi") == "cam1/a"
    assert detection_source.find("b_7.mp4") == "cam2/b_7"
    assert detection_source.find("a.mp4") is None  # ambiguous


def test_cache_source_uses_the_latest_sequence(tmp_path: Path, cache: SequenceCache) -> None:
    write_mot(tmp_path / "mot" / "a.txt", walk_rows())
    keys = [
        extract(tmp_path / "mot", cache, **{**SOURCE_FLAGS, "source_fps": fps})[0].key for fps in (10.0, 20.0, 10.0)
    ]
    assert keys[0] == keys[2] != keys[1]
    assert open_source(cache.root).keys == {"a": keys[2]}
    again = extract(tmp_path / "mot", cache, **{**SOURCE_FLAGS, "source_fps": 20.0})[0].key
    assert open_source(cache.root).keys == {"a": again}


def test_cache_source_with_conflicting_sequences(tmp_path: Path, cache: SequenceCache) -> None:
    for folder, start in (("first", 10.0), ("moved", 10.0), ("second", 20.0)):
        write_mot(tmp_path / folder / "a.txt", walk_rows(start=start))
        extract(tmp_path / folder, cache, **SOURCE_FLAGS)
        if folder == "moved":
            assert list(open_source(cache.root).keys) == ["a"], "equal sequences do not conflict"
    with pytest.raises(
        SourceError, match=r"contains different sequences of a, made from .*first and from .*second\n  pass the"
    ):
        open_source(cache.root)


def test_open_detections_rejects_other_files(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no such file or folder: .*nowhere"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"contains no detections\n.*save_txt labels"):
        open_source(tmp_path)
    (tmp_path / "notes.txt").write_text("hello\n")
    with pytest.raises(SourceError, match=r"notes.txt is not a file of detections"):
        open_source(tmp_path / "notes.txt")
    (tmp_path / "x.json").write_text('{"images": []}')
    with pytest.raises(SourceError, match=r"x.json is not a COCO JSON of videos: no 'categories'"):
        open_source(tmp_path / "x.json")
    (tmp_path / "a.csv").write_text("1,1,0,0,9,9,0.5,1,1\n")
    with pytest.raises(SettingsError, match=r"cannot read class names from .*none.txt"):
        open_source(tmp_path / "a.csv", classes=str(tmp_path / "none.txt"))


def test_format_detection_ignores_other_files(tmp_path: Path) -> None:
    for name in ("mot", "txt", "none"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.txt").write_text("what these are\n")
    write_mot(tmp_path / "mot" / "a.csv", walk_rows(3))
    write_save_txt(tmp_path / "txt", "a", walk_rows(3))
    assert (open_source(tmp_path / "mot").format, open_source(tmp_path / "mot").recording_names) == ("mot", ["a"])
    assert (open_source(tmp_path / "txt").format, open_source(tmp_path / "txt").recording_names) == ("save_txt", ["a"])
    for separator in (" ", ";"):
        (tmp_path / "none" / "cam_1.txt").write_text("1,1,10,10,20,20,0.5,1,1\n".replace(",", separator))
        with pytest.raises(SourceError, match=r"none contains no detections.*\n.*separated by commas"):
            open_source(tmp_path / "none")
    (tmp_path / "a.json").write_text('{"videos": [], "annotations": [], "categories": []}')
    with pytest.raises(SourceError, match=r"a.json contains no detections"):
        open_source(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "frame,x1,y1,x2,y2,conf\n1,10,20,30,40,0.5\n",
            "a.csv has the columns frame,x1,y1,x2,y2,conf, not MOT's",
        ),
        (
            "a.csv",
            "scorer,Nose_1_x,Nose_1_y,Nose_1_p,Tail_1_x,Tail_1_y,Tail_1_p\n0,1,2,0.9,3,4,0.9\n",
            "a.csv has the columns scorer,.*; poses are read from the CSV of DeepLabCut or SLEAP",
        ),
        ("cam_1.txt", "0 481 634 690 713\n", "cam_1.txt looks like save_txt, but its coordinates are not from 0 to 1"),
        ("a.h5", "", "a.h5 is not read; export it as CSV: save_as_csv=True in DeepLabCut"),
    ],
)
def test_other_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=f"contains no detections: {message}"):
        open_source(tmp_path)
    write_mot(tmp_path / "b.csv", walk_rows(3))
    assert open_source(tmp_path).recording_names == ["b"]


def test_mot_with_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Frame,Track_ID,bb_left,bb_top,bb_width,bb_height,conf\n1,1,10,20,30,40,0.5\n")
    assert len(open_source(tmp_path / "a.csv").read("a")) == 1


def test_duplicate_recording_names(tmp_path: Path) -> None:
    write_mot(tmp_path / "mot" / "a.txt", walk_rows(3))
    write_mot(tmp_path / "mot" / "a.csv", walk_rows(3))
    with pytest.raises(SourceError, match=r"a.csv and .*a.txt both belong to recording 'a'"):
        open_source(tmp_path / "mot")
    folder = tmp_path / "coco"
    folder.mkdir()
    write_coco(folder / "a.json", {"x": walk_rows(3)})
    write_coco(folder / "b.json", {"y": walk_rows(3), "x": walk_rows(3)})
    with pytest.raises(SourceError, match=r"video 1 of .*a.json and video 2 of .*b.json are both named 'x'"):
        open_source(folder)
    write_coco(folder / "b.json", {"y": walk_rows(3), "./y": walk_rows(3)})
    with pytest.raises(SourceError, match=r"video 1 of .*b.json and video 2 of .*b.json are both named 'y'"):
        open_source(folder / "b.json")
