"""Readers of save_txt, MOT and COCO files."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.extraction.import_detections.detection_files import (
    DETECT,
    HEIGHT,
    SOURCE_FLAGS,
    WIDTH,
    Row,
    check_walk,
    extract,
    extract_one,
    open_source,
    walk_rows,
    write_coco,
    write_mot,
    write_save_txt,
    write_seqinfo,
)
from tests.sequences import sequences_equal
from vidgru.cache import SequenceCache
from vidgru.errors import SettingsError, SourceError


def test_all_formats_give_the_same_sequence(tmp_path: Path, cache: SequenceCache) -> None:
    write_save_txt(tmp_path / "txt" / "labels", "a", walk_rows())
    (tmp_path / "txt" / "data.yaml").write_text("names: {0: person, 1: car}\n")
    write_mot(tmp_path / "mot" / "a.txt", walk_rows())
    (tmp_path / "mot" / "labels.txt").write_text("person\ncar\n")
    write_mot(tmp_path / "challenge" / "a" / "gt" / "gt.txt", walk_rows())
    write_seqinfo(tmp_path / "challenge" / "a")
    write_coco(tmp_path / "tao.json", {"a.mp4": walk_rows()})
    write_coco(tmp_path / "vid.json", {"a": walk_rows()}, first=1, track="instance_id")
    sequences = {
        "txt": extract_one(tmp_path / "txt", cache, **SOURCE_FLAGS),
        "mot": extract_one(tmp_path / "mot" / "a.txt", cache, **SOURCE_FLAGS),
        "challenge": extract_one(tmp_path / "challenge", cache),
        "tao": extract_one(tmp_path / "tao.json", cache),
        "vid": extract_one(tmp_path / "vid.json", cache),
    }
    for name, sequence in sequences.items():
        names = ("class 1", "class 2") if name == "challenge" else ("person", "car")
        check_walk(sequence, names)
    assert sequences_equal(sequences["tao"], sequences["vid"])
    assert len(list(cache.entries())) < len(sequences)  # equal detections are one entry
    assert cache.valid_entry(
        extract(tmp_path / "vid.json", cache)[0].key
    ).feature_settings == DETECT.imported_feature_settings(("person", "car"), 0)


@pytest.mark.parametrize(("conf", "ids"), [(False, False), (True, False), (False, True), (True, True)])
def test_save_txt_optional_columns(tmp_path: Path, cache: SequenceCache, conf: bool, ids: bool) -> None:
    write_save_txt(tmp_path / "labels", "a", walk_rows(), conf=conf, ids=ids)
    sequence = extract_one(tmp_path / "labels", cache, **SOURCE_FLAGS)
    persons = sequence.classes == 0
    assert sequence.scores.tolist() == (np.where(persons, 0.75, 0.5) if conf else np.ones(len(persons))).tolist()
    if ids:
        assert sequence.tracks.tolist() == np.where(persons, 1, 2).tolist()
    else:  # from the tracker, after its first frames
        assert set(sequence.tracks[persons][1:]) == {1}
    assert len(sequence.names) == 100  # fixed, so that later detections fit


def test_save_txt_keypoints(tmp_path: Path, cache: SequenceCache) -> None:
    write_save_txt(tmp_path / "labels", "a", walk_rows(), more="0.25 0.5 0.875 0.125 0.75 0.5")
    with pytest.raises(SettingsError, match=r"have 13 columns of unknown meaning\n.*kpt_shape"):
        open_source(tmp_path)
    (tmp_path / "data.yaml").write_text("names: [person, car]\nkpt_shape: [2, 3]\n")
    sequence = extract_one(tmp_path, cache, **SOURCE_FLAGS)
    assert sequence.keypoints is not None
    assert sequence.keypoints[0].tolist() == [[0.25, 0.5, 0.875], [0.125, 0.75, 0.5]]
    assert sequence.tracks[0] == 1
    assert sequence.flip_idx == ()
    for more, flip_idx in (("flip_idx: [1, 0]", (1, 0)), ("kpt_names: {0: [left_eye, right_eye]}", (1, 0))):
        (tmp_path / "data.yaml").write_text(f"names: [person, car]\nkpt_shape: [2, 3]\n{more}\n")
        assert extract_one(tmp_path, cache, **SOURCE_FLAGS).flip_idx == flip_idx
    (tmp_path / "data.yaml").write_text("names: [person, car]\nkpt_shape: [2, 3]\nflip_idx: [1]\n")
    with pytest.raises(SettingsError, match=r"data\.yaml: flip_idx is \[1\]; it must pair the 2 keypoints"):
        open_source(tmp_path)
    other = tmp_path / "coco"
    other.mkdir()
    write_save_txt(other / "labels", "a", walk_rows(), more=" ".join(["0.5 0.25"] * 17))
    assert open_source(other).feature_settings["keypoints"] == 17


def test_save_txt_outlines(tmp_path: Path, cache: SequenceCache) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "a_1.txt").write_text(
        "0 0.1 0.2 0.3 0.1 0.4 0.5 0.9 1\n1 0.5 0.5 0.7 0.6 0.6 0.9 0.55 0.8 0.5 0.5 0.8 2\n"
    )
    sequence = extract_one(folder, cache, **SOURCE_FLAGS)
    assert np.allclose(sequence.boxes, [[0.1, 0.1, 0.4, 0.5], [0.5, 0.5, 0.7, 0.9]])
    assert np.allclose(sequence.scores, [0.9, 0.8], atol=1e-3)
    assert sequence.tracks.tolist() == [1, 2]
    (folder / "a_1.txt").write_text("0 0.1 0.2 0.3 0.1 0.4 0.5 0.2 0.6 0.9 1\n")  # an oriented box
    sequence = extract_one(folder, cache, **SOURCE_FLAGS)
    assert np.allclose(sequence.boxes, [[0.1, 0.1, 0.4, 0.6]])


def test_save_txt_duplicate_lines(tmp_path: Path, cache: SequenceCache) -> None:
    write_save_txt(tmp_path / "labels", "a", walk_rows())
    write_save_txt(tmp_path / "labels", "a", walk_rows())
    check_walk(extract_one(tmp_path, cache, **SOURCE_FLAGS), ("class 0", "class 1"))


def test_coco_youtube_vis(tmp_path: Path, cache: SequenceCache) -> None:
    boxes = [None, [20.0, 10.0, 40.0, 50.0], [30.0, 10.0, 40.0, 50.0], None]
    root = {
        "videos": [
            {"id": 5, "width": WIDTH, "height": HEIGHT, "length": 4, "file_names": [f"a/{n}.jpg" for n in range(4)]}
        ],
        "annotations": [{"id": 9, "video_id": 5, "category_id": 1, "bboxes": boxes, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "vis.json").write_text(json.dumps(root))
    sequence = extract_one(tmp_path / "vis.json", cache, source_fps=5.0)
    assert np.diff(sequence.offsets).tolist() == [0, 1, 1, 0]
    assert np.allclose(sequence.boxes[0], [0.1, 0.1, 0.3, 0.6])
    assert sequence.tracks.tolist() == [9, 9]
    assert open_source(tmp_path / "vis.json").recording_names == ["a"]


def test_coco_keypoint_names_give_sides(tmp_path: Path, cache: SequenceCache) -> None:
    write_coco(tmp_path / "a.json", {"a": walk_rows()})
    root = json.loads((tmp_path / "a.json").read_text())
    for category in root["categories"]:
        category["keypoints"] = ["nose", "left_eye", "right_eye"]
    (tmp_path / "a.json").write_text(json.dumps(root))
    assert extract_one(tmp_path / "a.json", cache).flip_idx == (0, 2, 1)
    assert open_source(tmp_path / "a.json").feature_settings["flip_idx"] == [0, 2, 1]


def test_coco_unprocessed_frames_are_skipped(tmp_path: Path, cache: SequenceCache) -> None:
    write_coco(tmp_path / "tao.json", {"a": walk_rows()})
    root = json.loads((tmp_path / "tao.json").read_text())
    root["images"] = [image for image in root["images"] if image["frame_id"] % 20 == 0]
    kept = {image["id"] for image in root["images"]}
    root["annotations"] = [row for row in root["annotations"] if row["image_id"] in kept]
    (tmp_path / "tao.json").write_text(json.dumps(root))
    sequence = extract_one(tmp_path / "tao.json", cache)
    assert sequence.frame_index.tolist() == [0, 20]
    assert sequence.time_s.tolist() == [0.0, 2.0]


def test_mot_counted_from_0(tmp_path: Path, cache: SequenceCache) -> None:
    """One file with a frame and class 0 decides for its folder; numbered classes keep their numbers."""
    (tmp_path / "mot").mkdir()
    (tmp_path / "mot" / "a.txt").write_text("0,1,10,10,20,20,0.9,0,1\n1,1,10,10,20,20,0.9,2,1\n")
    (tmp_path / "mot" / "b.txt").write_text("3,1,10,10,20,20,0.9,1,1\n")
    source = open_source(tmp_path / "mot", source_fps=8.0, source_size="100x100")
    assert source.class_names[:3] == ("class 0", "class 1", "class 2")
    first, second = (source.read(name) for name in ("a", "b"))
    assert (first.frame.tolist(), first.classes.tolist()) == ([0, 1], [0, 2])
    assert (second.frame.tolist(), second.classes.tolist()) == ([3], [1])


def test_mot_unspecified_columns(tmp_path: Path, cache: SequenceCache) -> None:
    """Empty columns after a trailing comma and scores of -1 are unspecified, next to specified ones too."""
    (tmp_path / "a.csv").write_text("1,1,0,0,9,9,\n2,1,0,0,9,9,\n")
    assert extract_one(tmp_path / "a.csv", cache, **SOURCE_FLAGS).scores.tolist() == [1.0]
    (tmp_path / "b.csv").write_text("1,1,0,0,9,9,0.5,2,\n3,1,0,0,9,9,-1,-1,\n")
    sequence = extract_one(tmp_path / "b.csv", cache, **SOURCE_FLAGS)
    assert sequence.scores.tolist() == [0.5, 1.0]
    assert sequence.classes.tolist() == [1, 0]
    (tmp_path / "c.csv").write_text("1,1,0,0,9,9,0.5\n3,1,0,0,9,9,high\n")
    (result,) = extract(tmp_path / "c.csv", cache, **SOURCE_FLAGS)
    assert "contains a box, score or keypoint that is not a number" in result.reason


def test_save_txt_missing_track_ids(tmp_path: Path, cache: SequenceCache) -> None:
    """Frames without tracks have one column less."""
    rows = walk_rows(10)
    for conf in (True, False):
        folder = tmp_path / f"conf_{conf}"
        write_save_txt(folder, "a", rows[:4], conf=conf, ids=False)
        write_save_txt(folder, "a", rows[4:], conf=conf)
        assert extract_one(folder, cache, **SOURCE_FLAGS).tracks.tolist() == [-1, -1, 1, 1, 1]
    write_save_txt(tmp_path / "other", "a", rows[:4], conf=False, ids=False)
    write_save_txt(tmp_path / "other", "a", rows[4:], ids=False)
    assert "different numbers of columns" in extract(tmp_path / "other", cache, **SOURCE_FLAGS)[0].reason


@pytest.mark.parametrize("shape", ["0.1 0.2 0.3 0.1 0.4 0.5", "0.1 0.2 0.3 0.1 0.4 0.5 0.2 0.3"])  # triangle, oriented
@pytest.mark.parametrize("conf", ["", " 0.5"])
def test_save_txt_outlines_with_missing_track_ids(tmp_path: Path, cache: SequenceCache, shape: str, conf: str) -> None:
    (tmp_path / "a_1.txt").write_text(f"0 {shape}{conf} 3\n")
    (tmp_path / "a_3.txt").write_text(f"0 {shape}{conf}\n")
    if shape.count(" ") == 5:
        (tmp_path / "b_1.txt").write_text(f"0{' 0.5 0.5' * 20}{conf} 3\n")  # identifies the format as outlines
    result = extract(tmp_path, cache, **SOURCE_FLAGS)[0]
    sequence = cache.read(result.key)
    assert sequence.tracks.tolist() == [3, -1]
    assert np.allclose(sequence.boxes, [[0.1, 0.1, 0.4, 0.5]] * 2)
    assert sequence.scores.tolist() == [0.5 if conf else 1.0] * 2


def test_save_txt_frames_from_0(tmp_path: Path, cache: SequenceCache) -> None:
    write_save_txt(tmp_path / "labels", "a", [(frame - 1, *rest) for frame, *rest in walk_rows()])
    check_walk(extract_one(tmp_path, cache, **SOURCE_FLAGS), ("class 0", "class 1"))


def test_byte_order_marks_are_ignored(tmp_path: Path, cache: SequenceCache) -> None:
    write_save_txt(tmp_path / "txt", "a", walk_rows())
    write_mot(tmp_path / "mot" / "a.txt", walk_rows())
    write_coco(tmp_path / "a.json", {"a": walk_rows()})
    for path in (tmp_path / "txt" / "a_1.txt", tmp_path / "mot" / "a.txt", tmp_path / "a.json"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    check_walk(extract_one(tmp_path / "txt", cache, **SOURCE_FLAGS), ("class 0", "class 1"))
    check_walk(extract_one(tmp_path / "mot", cache, **SOURCE_FLAGS), ("class 1", "class 2"))
    check_walk(extract_one(tmp_path / "a.json", cache), ("person", "car"))


@pytest.mark.parametrize(
    ("ids", "tracks"),
    [
        ([2**60, 2**60 + 1, None], [0, 1, -1]),
        (["b", "a", None], [1, 0, -1]),
        ([2**70, "b", -1], [0, 1, -1]),
        ([3.0, 7, -1], [3, 7, -1]),
    ],
)
def test_coco_track_ids_of_any_type(tmp_path: Path, cache: SequenceCache, ids: list[object], tracks: list[int]) -> None:
    write_coco(tmp_path / "a.json", {"a": [(0, n, 0, (10.0 * n, 10.0, 9.0, 20.0), 0.9 - n / 10) for n in range(3)]})
    root = json.loads((tmp_path / "a.json").read_text())
    for row, track in zip(root["annotations"], ids, strict=True):
        row["track_id"] = track
    (tmp_path / "a.json").write_text(json.dumps(root))
    assert extract_one(tmp_path / "a.json", cache).tracks.tolist() == tracks


@pytest.mark.parametrize(
    ("where", "changes", "reason"),
    [
        ("videos", {"fps": -5}, "has an invalid rate of -5 frames per second; pass --source-fps"),
        ("videos", {"fps": float("inf")}, "invalid rate of inf frames per second"),
        ("videos", {"width": -200}, "has an invalid frame size of -200 x 100 px; pass --source-size"),
        ("videos", {"width": float("inf")}, "cannot be read: cannot convert float infinity to integer"),
        ("images", {"frame_id": 10**12}, "contains frame 1000000000001; at most 20000000 frames"),
        ("images", {"frame_id": 10**30}, "cannot be read: "),
        ("images", {"frame_id": -4}, "before the first"),
        (
            "annotations",
            {"bboxes": [[1, 1, 5, 5]] * 99, "video_id": 2},
            "in frame 41, which is not among the",
        ),
        ("annotations", {"score": 10**400}, "cannot be read: "),
        ("annotations", {"bbox": 3}, "cannot be read: "),
    ],
)
def test_coco_invalid_numbers_fail_their_recording(
    tmp_path: Path, cache: SequenceCache, where: str, changes: dict[str, object], reason: str
) -> None:
    write_coco(tmp_path / "a.json", {"good": walk_rows(), "bad": walk_rows()})
    root = json.loads((tmp_path / "a.json").read_text())
    root[where][-1] |= changes
    (tmp_path / "a.json").write_text(json.dumps(root))
    good, bad = extract(tmp_path / "a.json", cache)
    assert (good.status, bad.status) == ("done", "failed")
    assert reason in bad.reason


def test_text_formats_with_invalid_numbers(tmp_path: Path, cache: SequenceCache) -> None:
    write_mot(tmp_path / "mot" / "a" / "gt" / "gt.txt", walk_rows())
    write_seqinfo(tmp_path / "mot" / "a", frameRate=-1)
    write_mot(tmp_path / "mot" / "b" / "gt" / "gt.txt", walk_rows())
    write_seqinfo(tmp_path / "mot" / "b", seqLength=10**12)
    for name, row in {"c": f"1,{2**60},0,0,9,9,1,1", "d": "1e300,1,0,0,9,9,1,1", "e": "1.5,1,0,0,9,9,1,1"}.items():
        (tmp_path / "mot" / f"{name}.txt").write_text(row + "\n")
    reasons = {result.recording.name: result.reason for result in extract(tmp_path / "mot", cache)}
    assert reasons["a"] == "has an invalid rate of -1 frames per second; pass --source-fps"
    assert reasons["b"].startswith("contains frame 1000000000000; ")
    assert all("not a whole number, or has more than 15 digits" in reasons[name] for name in "cde")
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "a_99999999999999999999.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (folder / "b_1.txt").write_text("0 0.5 0.5 0.1 0.1\n0 50 50 10 10\n")
    first, second = extract(folder, cache, **SOURCE_FLAGS)
    assert "are not in save_txt format" in first.reason
    assert "contains boxes far outside the picture; their coordinates must be from 0 to 1" in second.reason


def test_coco_deeply_nested_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 200_000)
    with pytest.raises(SourceError, match=r"a.json is not a COCO JSON of videos"):
        open_source(tmp_path / "a.json")


def test_mot_large_track_ids(tmp_path: Path, cache: SequenceCache) -> None:
    rows: list[Row] = [(0, track, 0, (10.0 * n, 10.0, 9.0, 20.0), 0.9 - n / 10) for n, track in enumerate((-1, 2**40))]
    write_mot(tmp_path / "a.txt", rows)
    assert extract_one(tmp_path / "a.txt", cache, **SOURCE_FLAGS).tracks.tolist() == [-1, 0]


def test_coco_video_names_are_relative_paths(tmp_path: Path) -> None:
    write_coco(tmp_path / "a.json", {"../../x/a.mp4": walk_rows(3), "/": walk_rows(3)})
    assert open_source(tmp_path / "a.json").recording_names == ["x/a.mp4", "2"]
