"""Detections made elsewhere: the same boxes written in each format are the same sequence, known in closed form."""

import doctest
import importlib
import json
import os
import re
import shutil
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.sequences import sequences_equal
from tests.videos import write_video
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, ImportedDetectionSettings
from vidgru.errors import OutputError, SettingsError, SettingsMismatchError, SourceError
from vidgru.extraction import results as outcome_module
from vidgru.extraction.import_detections import (
    DetectionSource,
    add_sequence,
    extract_detections,
    open_detections,
    recording_of,
)
from vidgru.extraction.import_detections.timing import packet_times
from vidgru.extraction.results import ExtractionResult
from vidgru.locks import Locks
from vidgru.types import FrameSequence, Recording
from vidgru.video.reader import VideoReader

WIDTH, HEIGHT, FPS, FRAMES = 200, 100, 10.0, 40
DETECT = DetectorSettings(fps=5.0)
Row = tuple[int, int, int, tuple[float, float, float, float], float]  # frame from 0, track, class, ltwh in px, score


def walk(frames: int = FRAMES, *, start: float = 10.0) -> list[Row]:
    """A person that walks 2 px a frame, and a car that stands there from frame 11 to 20."""
    rows: list[Row] = []
    for frame in range(frames):
        rows.append((frame, 1, 0, (start + 2 * frame, 20.0, 30.0, 50.0), 0.75))
        if 11 <= frame <= 20:
            rows.append((frame, 2, 1, (120.0, 40.0, 60.0, 30.0), 0.5))
    return rows


def save_txt(folder: Path, video: str, rows: list[Row], *, conf: bool = True, ids: bool = True, more: str = "") -> None:
    """Files as Ultralytics' `save_txt` writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for frame, track, kind, (left, top, width, height), score in rows:
        values = [
            kind, (left + width / 2) / WIDTH, (top + height / 2) / HEIGHT, width / WIDTH, height / HEIGHT,
            *map(float, more.split()), *([score] if conf else []), *([track] if ids else []),
        ]  # fmt: skip
        with open(folder / f"{video}_{frame + 1}.txt", "a", encoding="utf-8") as file:
            file.write(("%g " * len(values)).rstrip() % tuple(values) + "\n")


def mot(path: Path, rows: list[Row], *, ids: bool = True, kinds: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{frame + 1},{track if ids else -1},{','.join(map(str, box))},{score},{kind + 1 if kinds else -1},-1\n"
        for frame, track, kind, box, score in rows
    ]
    path.write_text("".join(lines))


def seqinfo(folder: Path, **changes: object) -> None:
    said = {"name": "a", "frameRate": 10, "seqLength": FRAMES, "imWidth": WIDTH, "imHeight": HEIGHT, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "seqinfo.ini").write_text("[Sequence]\n" + "".join(f"{name}={value}\n" for name, value in said.items()))


def coco(path: Path, videos: dict[str, list[Row]], *, first: int = 0, track: str = "track_id") -> None:
    """A JSON as MMTracking's CocoVID, or TAO, has it."""
    root: dict[str, list[dict[str, object]]] = {"videos": [], "images": [], "annotations": [], "categories": []}
    root["categories"] = [{"id": 7, "name": "car"}, {"id": 3, "name": "person"}]
    for number, (name, rows) in enumerate(videos.items(), start=1):
        root["videos"].append({"id": number, "name": name, "fps": FPS, "width": WIDTH, "height": HEIGHT})
        for frame in range(FRAMES):
            image = {"id": number * 1000 + frame, "video_id": number, "frame_id": frame + first}
            root["images"].append(image)
        for frame, one, kind, box, score in rows:
            root["annotations"].append(
                {
                    "id": len(root["annotations"]), "image_id": number * 1000 + frame, "category_id": (3, 7)[kind],
                    "bbox": list(box), "score": score, track: one,
                }
            )  # fmt: skip
    path.write_text(json.dumps(root))


def opened(path: Path, detect: DetectorSettings = DETECT, **settings: object) -> DetectionSource:
    return open_detections(ImportedDetectionSettings(detections=str(path), **settings), detect)


TOLD = {"source_fps": FPS, "source_size": f"{WIDTH}x{HEIGHT}"}


def made(
    path: Path, cache: SequenceCache, recordings: list[Recording] | None = None, **settings: object
) -> list[ExtractionResult]:
    return extract_detections(opened(path, **settings), recordings, cache, progress=False)


def one(path: Path, cache: SequenceCache, **settings: object) -> FrameSequence:
    (outcome,) = made(path, cache, **settings)
    assert outcome.status in ("done", "reused"), outcome.reason
    return cache.read(outcome.key)


@pytest.fixture
def cache(tmp_path: Path) -> SequenceCache:
    return SequenceCache(tmp_path / "features")


def check_walk(sequence: FrameSequence, names: tuple[str, ...], tolerance: float = 1e-6) -> None:
    """Every second frame is sampled, objects are where they are, the best scored first."""
    assert sequence.names[:2] == names
    assert np.allclose(sequence.time_s, np.arange(20) / 5)
    assert sequence.frame_index.tolist() == list(range(0, 40, 2))
    assert np.diff(sequence.offsets).tolist() == [2 if 12 <= frame <= 20 else 1 for frame in range(0, 40, 2)]
    persons = sequence.classes == 0
    left = (10 + 2 * sequence.frame_index) / WIDTH
    wanted = np.column_stack([left, np.full(20, 0.2), left + 30 / WIDTH, np.full(20, 0.7)])
    assert np.allclose(sequence.boxes[persons], wanted, atol=tolerance)
    assert np.allclose(sequence.boxes[~persons], [0.6, 0.4, 0.9, 0.7], atol=tolerance)
    assert sequence.tracks.tolist() == np.where(persons, 1, 2).tolist()
    assert sequence.scores.tolist() == np.where(persons, 0.75, 0.5).tolist()
    assert sequence.size_px == (WIDTH, HEIGHT)
    assert sequence.keypoints is sequence.motion is sequence.appearance is sequence.scene is sequence.colour is None


def test_all_formats_tell_the_same(tmp_path: Path, cache: SequenceCache) -> None:
    save_txt(tmp_path / "txt" / "labels", "a", walk())
    (tmp_path / "txt" / "data.yaml").write_text("names: {0: person, 1: car}\n")
    mot(tmp_path / "mot" / "a.txt", walk())
    (tmp_path / "mot" / "labels.txt").write_text("person\ncar\n")
    mot(tmp_path / "challenge" / "a" / "gt" / "gt.txt", walk())
    seqinfo(tmp_path / "challenge" / "a")
    coco(tmp_path / "tao.json", {"a.mp4": walk()})
    coco(tmp_path / "vid.json", {"a": walk()}, first=1, track="instance_id")
    found = {
        "txt": one(tmp_path / "txt", cache, **TOLD),
        "mot": one(tmp_path / "mot" / "a.txt", cache, **TOLD),
        "challenge": one(tmp_path / "challenge", cache),
        "tao": one(tmp_path / "tao.json", cache),
        "vid": one(tmp_path / "vid.json", cache),
    }
    for name, sequence in found.items():
        names = ("class 1", "class 2") if name == "challenge" else ("person", "car")
        check_walk(sequence, names)
    assert sequences_equal(found["tao"], found["vid"])
    assert len(list(cache.entries())) < len(found)  # equal detections are one entry
    assert cache.valid_entry(
        made(tmp_path / "vid.json", cache)[0].key
    ).feature_settings == DETECT.imported_detections_settings(("person", "car"), 0)


@pytest.mark.parametrize(("conf", "ids"), [(False, False), (True, False), (False, True), (True, True)])
def test_last_columns_of_save_txt_are_told_apart(tmp_path: Path, cache: SequenceCache, conf: bool, ids: bool) -> None:
    save_txt(tmp_path / "labels", "a", walk(), conf=conf, ids=ids)
    sequence = one(tmp_path / "labels", cache, **TOLD)
    persons = sequence.classes == 0
    assert sequence.scores.tolist() == (np.where(persons, 0.75, 0.5) if conf else np.ones(len(persons))).tolist()
    if ids:
        assert sequence.tracks.tolist() == np.where(persons, 1, 2).tolist()
    else:  # the tracker's own, each object one after its first frames
        assert set(sequence.tracks[persons][1:]) == {1}
    assert len(sequence.names) == 100  # a number that later detections fit as well


def test_keypoints_of_save_txt(tmp_path: Path, cache: SequenceCache) -> None:
    save_txt(tmp_path / "labels", "a", walk(), more="0.25 0.5 0.875 0.125 0.75 0.5")
    with pytest.raises(SettingsError, match=r"have 13 columns, and what they are cannot be told\n.*kpt_shape"):
        opened(tmp_path)
    (tmp_path / "data.yaml").write_text("names: [person, car]\nkpt_shape: [2, 3]\n")
    sequence = one(tmp_path, cache, **TOLD)
    assert sequence.keypoints is not None
    assert sequence.keypoints[0].tolist() == [[0.25, 0.5, 0.875], [0.125, 0.75, 0.5]]
    assert sequence.tracks[0] == 1
    other = tmp_path / "coco"
    other.mkdir()
    save_txt(other / "labels", "a", walk(), more=" ".join(["0.5 0.25"] * 17))
    assert opened(other).feature_settings["keypoints"] == 17


def test_outlines_are_enclosed(tmp_path: Path, cache: SequenceCache) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "a_1.txt").write_text(
        "0 0.1 0.2 0.3 0.1 0.4 0.5 0.9 1\n1 0.5 0.5 0.7 0.6 0.6 0.9 0.55 0.8 0.5 0.5 0.8 2\n"
    )
    sequence = one(folder, cache, **TOLD)
    assert np.allclose(sequence.boxes, [[0.1, 0.1, 0.4, 0.5], [0.5, 0.5, 0.7, 0.9]])
    assert np.allclose(sequence.scores, [0.9, 0.8], atol=1e-3)
    assert sequence.tracks.tolist() == [1, 2]
    (folder / "a_1.txt").write_text("0 0.1 0.2 0.3 0.1 0.4 0.5 0.2 0.6 0.9 1\n")  # an oriented box
    sequence = one(folder, cache, **TOLD)
    assert np.allclose(sequence.boxes, [[0.1, 0.1, 0.4, 0.6]])


def test_the_same_run_twice_into_one_folder(tmp_path: Path, cache: SequenceCache) -> None:
    save_txt(tmp_path / "labels", "a", walk())
    save_txt(tmp_path / "labels", "a", walk())
    check_walk(one(tmp_path, cache, **TOLD), ("class 0", "class 1"))


def test_folders_of_several_runs(tmp_path: Path) -> None:
    save_txt(tmp_path / "cam1" / "labels", "a", walk(3))
    save_txt(tmp_path / "cam2" / "labels", "a", walk(3))
    save_txt(tmp_path / "cam2" / "labels", "b_7", walk(3))
    detection_source = opened(tmp_path)
    assert detection_source.recordings == ["cam1/a", "cam2/a", "cam2/b_7"]
    assert detection_source.find("cam1/a.mp4") == detection_source.find("x/cam1/a.avi") == "cam1/a"
    assert detection_source.find("b_7.mp4") == "cam2/b_7"
    assert detection_source.find("a.mp4") is None  # either could be meant


def test_youtube_vis(tmp_path: Path, cache: SequenceCache) -> None:
    boxes = [None, [20.0, 10.0, 40.0, 50.0], [30.0, 10.0, 40.0, 50.0], None]
    root = {
        "videos": [
            {"id": 5, "width": WIDTH, "height": HEIGHT, "length": 4, "file_names": [f"a/{n}.jpg" for n in range(4)]}
        ],
        "annotations": [{"id": 9, "video_id": 5, "category_id": 1, "bboxes": boxes, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "vis.json").write_text(json.dumps(root))
    sequence = one(tmp_path / "vis.json", cache, source_fps=5.0)
    assert np.diff(sequence.offsets).tolist() == [0, 1, 1, 0]
    assert np.allclose(sequence.boxes[0], [0.1, 0.1, 0.3, 0.6])
    assert sequence.tracks.tolist() == [9, 9]
    assert opened(tmp_path / "vis.json").recordings == ["a"]


def test_frames_that_were_not_looked_at_are_none(tmp_path: Path, cache: SequenceCache) -> None:
    coco(tmp_path / "tao.json", {"a": walk()})
    root = json.loads((tmp_path / "tao.json").read_text())
    root["images"] = [image for image in root["images"] if image["frame_id"] % 20 == 0]
    kept = {image["id"] for image in root["images"]}
    root["annotations"] = [note for note in root["annotations"] if note["image_id"] in kept]
    (tmp_path / "tao.json").write_text(json.dumps(root))
    sequence = one(tmp_path / "tao.json", cache)
    assert sequence.frame_index.tolist() == [0, 20]
    assert sequence.time_s.tolist() == [0.0, 2.0]


# --- what decides ---------------------------------------------------------------------------------------------------


def test_weak_and_many_objects_are_left_out(tmp_path: Path, cache: SequenceCache) -> None:
    rows: list[Row] = [(0, n, 0, (10.0 * n, 10.0, 9.0, 20.0), 0.05 + 0.1 * n) for n in range(6)]
    rows.append((0, 9, 0, (400.0, 10.0, 20.0, 20.0), 0.9))  # outside the picture
    mot(tmp_path / "a.txt", rows)
    detect = replace(DETECT, conf=0.2, max_objects=3)
    (outcome,) = extract_detections(opened(tmp_path / "a.txt", detect, **TOLD), None, cache, progress=False)
    assert cache.read(outcome.key).tracks.tolist() == [5, 4, 3]


def test_equal_work_is_reused_and_other_settings_are_not(tmp_path: Path, cache: SequenceCache) -> None:
    mot(tmp_path / "mot" / "a.txt", walk())
    first = made(tmp_path / "mot", cache, **TOLD)[0]
    assert [first.status, made(tmp_path / "mot", cache, **TOLD)[0].status] == ["done", "reused"]
    moved = tmp_path / "moved"
    (tmp_path / "mot").rename(moved)
    again = made(moved, SequenceCache(cache.root), **TOLD)[0]
    assert (again.status, again.key) == ("reused", first.key)
    for settings in ({"source_fps": 20.0}, {"source_size": "400x100"}):
        assert made(moved, cache, **{**TOLD, **settings})[0].key != first.key
    mot(moved / "a.txt", walk(start=11))
    assert made(moved, cache, **TOLD)[0].status == "done"


def test_settled_files_are_not_read_again(tmp_path: Path, cache: SequenceCache) -> None:
    path = tmp_path / "mot" / "a.txt"
    mot(path, walk())
    past = time.time_ns() - 10**10
    os.utime(path, ns=(past, past))
    key = made(tmp_path / "mot", cache, **TOLD)[0].key
    text = path.read_bytes()
    path.write_bytes(text.replace(b"0.75", b"0.55"))
    os.utime(path, ns=(past, past))  # known by size and time, like recordings
    assert made(tmp_path / "mot", SequenceCache(cache.root), **TOLD)[0].key == key


def test_names_of_other_order_are_mapped(tmp_path: Path, cache: SequenceCache) -> None:
    coco(tmp_path / "a.json", {"a": walk()})
    (tmp_path / "names.txt").write_text("bike\ncar\nperson\n")
    sequence = one(tmp_path / "a.json", cache, classes=str(tmp_path / "names.txt"))
    assert sequence.names == ("bike", "car", "person")
    assert sequence.classes[0] == 2
    (tmp_path / "names.txt").write_text("bike\ncar\n")
    (outcome,) = made(tmp_path / "a.json", cache, classes=str(tmp_path / "names.txt"))
    assert outcome.status == "failed"
    assert "holds an object of the class 'person', which is not among" in outcome.reason


# --- videos ---------------------------------------------------------------------------------------------------------


def test_the_video_tells_times_and_size(tmp_path: Path, cache: SequenceCache) -> None:
    """Samples are those that extraction takes from the same file, also where frames are not evenly apart."""
    video = tmp_path / "videos" / "a.mp4"
    video.parent.mkdir()
    write_video(video, 30, fps=25)
    mot(tmp_path / "mot" / "a.txt", walk(30))
    (outcome,) = made(tmp_path / "mot", cache, [Recording(path=video, name="a.mp4")])
    sequence = cache.read(outcome.key)
    with VideoReader(video) as reader:
        frames = [(frame.time_s, frame.index) for frame in reader.sample(DETECT.fps, (32, 32))]
        assert sequence.size_px == reader.info.size_px
        assert outcome.duration_s == pytest.approx(reader.info.duration_s)
    assert [(pytest.approx(time_s), index) for time_s, index in frames] == list(
        zip(sequence.time_s.tolist(), sequence.frame_index.tolist(), strict=True)
    )
    mot(tmp_path / "mot" / "a.txt", walk(31))
    (outcome,) = made(tmp_path / "mot", cache, [Recording(path=video, name="a.mp4")])
    assert outcome.reason.startswith("its detections speak of frame 31, its video has 30: they are of another video")


def test_a_video_without_labels_is_one_in_which_nothing_was(tmp_path: Path, cache: SequenceCache) -> None:
    video = tmp_path / "empty.mp4"
    write_video(video, 10, fps=10)
    save_txt(tmp_path / "labels", "a", walk())
    names = ("empty.mp4", "no.mp4", "a.mp4")
    empty, missing, _ = made(tmp_path / "labels", cache, [Recording(path=tmp_path / name, name=name) for name in names])
    assert (empty.status, len(cache.read(empty.key).boxes)) == ("done", 0)
    assert "nothing was seen in it" in empty.reason
    assert (missing.status, missing.reason) == ("failed", f"is not among the detections in {tmp_path / 'labels'}")


def test_a_rate_that_cannot_be_that_of_the_video(tmp_path: Path, cache: SequenceCache) -> None:
    video = tmp_path / "a.mp4"
    write_video(video, 20, fps=10)
    mot(tmp_path / "mot" / "a.txt", walk(20))
    recordings = [Recording(path=video, name="a.mp4")]
    (slow,) = made(tmp_path / "mot", cache, recordings, source_fps=2.0)
    assert slow.status == "failed"
    assert slow.reason.startswith("its detections go on to 9.5 s at 2 frames a second, its video is 2.0 s long")
    (near,) = made(tmp_path / "mot", cache, recordings, source_fps=9.97)
    assert (near.status, near.duration_s) == ("done", pytest.approx(20 / 9.97))


def test_a_video_that_may_be_several_recordings_is_none_of_them(tmp_path: Path, cache: SequenceCache) -> None:
    """Ultralytics numbers its folders: predict/labels, predict2/labels."""
    write_video(tmp_path / "a.mp4", 40, fps=10)
    for folder in ("predict", "predict2"):
        save_txt(tmp_path / "runs" / folder / "labels", "a", walk())
    (outcome,) = made(tmp_path / "runs", cache, [Recording(path=tmp_path / "a.mp4", name="a.mp4")])
    assert outcome.status == "failed"
    assert outcome.reason.startswith("may be any of predict/a, predict2/a in ")


# --- a cache as the detections ----------------------------------------------------------------------------------------


def test_of_several_sequences_of_a_recording_the_latest_counts(tmp_path: Path, cache: SequenceCache) -> None:
    mot(tmp_path / "mot" / "a.txt", walk())
    keys = [made(tmp_path / "mot", cache, **{**TOLD, "source_fps": fps})[0].key for fps in (10.0, 20.0, 10.0)]
    assert keys[0] == keys[2] != keys[1]
    assert opened(cache.root).keys == {"a": keys[2]}
    again = made(tmp_path / "mot", cache, **{**TOLD, "source_fps": 20.0})[0].key
    assert opened(cache.root).keys == {"a": again}


def test_different_sequences_of_one_name_are_refused(tmp_path: Path, cache: SequenceCache) -> None:
    for folder, start in (("one", 10.0), ("moved", 10.0), ("two", 20.0)):
        mot(tmp_path / folder / "a.txt", walk(start=start))
        made(tmp_path / folder, cache, **TOLD)
        if folder == "moved":
            assert list(opened(cache.root).keys) == ["a"], "equal ones are one"
    with pytest.raises(SourceError, match=r"holds different sequences of a, made of .*one and of .*two\n  give the"):
        opened(cache.root)


def test_a_cache_to_read_from_may_be_read_only(
    tmp_path: Path, cache: SequenceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    mot(tmp_path / "mot" / "a.txt", walk())
    made(tmp_path / "mot", cache, **TOLD)

    def refuse(*_: object) -> None:
        raise OutputError("cannot write")

    monkeypatch.setattr(outcome_module, "write_atomic", refuse)
    (tmp_path / "mot" / "b.txt").write_text("1,1,0,0,nan,9,0.5,1,1")
    assert [one.status for one in made(tmp_path / "mot", cache, **TOLD)] == ["reused", "failed"]
    mot(tmp_path / "mot" / "c.txt", walk(9))
    with pytest.raises(OutputError, match="cannot write"):
        made(tmp_path / "mot", cache, **TOLD)


def test_a_run_that_breaks_off_tells_what_it_has_done(tmp_path: Path, cache: SequenceCache) -> None:
    for name, frames in (("a", 40), ("b", 9)):
        mot(tmp_path / "mot" / f"{name}.txt", walk(frames))

    def stop(_: ExtractionResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_detections(opened(tmp_path / "mot", **TOLD), None, cache, progress=False, on_result=stop)
    (line,) = (cache.root / "summary.jsonl").read_text().splitlines()
    assert json.loads(line)["recording"] == "a"


def test_an_interrupt_does_not_wait_for_another_process(tmp_path: Path, cache: SequenceCache) -> None:
    mot(tmp_path / "mot" / "a.txt", walk())
    mot(tmp_path / "mot" / "b.txt", walk(9))
    key = made(tmp_path / "mot", cache, **TOLD)[1].key
    shutil.rmtree(cache.root / key)

    def stop(_: ExtractionResult) -> None:
        raise KeyboardInterrupt

    with Locks(cache.lock_folder) as other:
        assert other.acquire(key)
        with pytest.raises(KeyboardInterrupt):
            extract_detections(opened(tmp_path / "mot", **TOLD), None, cache, progress=False, on_result=stop)


# --- what is wrong --------------------------------------------------------------------------------------------------


def test_what_a_line_of_mot_does_not_tell(tmp_path: Path, cache: SequenceCache) -> None:
    """Columns that end in a comma say nothing, and a score of -1 is none given, also beside some that are."""
    (tmp_path / "a.csv").write_text("1,1,0,0,9,9,\n2,1,0,0,9,9,\n")
    assert one(tmp_path / "a.csv", cache, **TOLD).scores.tolist() == [1.0]
    (tmp_path / "b.csv").write_text("1,1,0,0,9,9,0.5,2,\n3,1,0,0,9,9,-1,-1,\n")
    sequence = one(tmp_path / "b.csv", cache, **TOLD)
    assert sequence.scores.tolist() == [0.5, 1.0]
    assert sequence.classes.tolist() == [1, 0]
    (tmp_path / "c.csv").write_text("1,1,0,0,9,9,0.5\n3,1,0,0,9,9,high\n")
    (outcome,) = made(tmp_path / "c.csv", cache, **TOLD)
    assert "holds a box, score or keypoint that is not a number" in outcome.reason


@pytest.mark.parametrize("name", ["/videos/a.mp4", "../a.mp4"])
def test_a_name_that_is_no_path_below_the_recordings(cache: SequenceCache, name: str) -> None:
    sequence = FrameSequence.from_detections(
        frame=[0], boxes=[[0, 0, 9, 9]], size_px=(WIDTH, HEIGHT), names=["cat"], source_fps=8, fps=8
    )
    with pytest.raises(ValueError, match=r"it must be one that annotations call the recording"):
        add_sequence(cache, name, sequence)


@pytest.mark.parametrize(
    ("line", "settings", "reason"),
    [
        ("1,1,0,0,9,9,0.5,1,1", {"source_fps": 0.0}, "nothing tells how many frames a second it has; .* --source-fps"),
        ("1,1,0,0,9,9,0.5,1,1", {"source_size": ""}, "nothing tells how large its frames are; .* --source-size"),
        ("0,1,0,0,9,9,0.5,1,1", {}, "holds an object before the first frame"),
        ("1,1,0,0,9,9,35.2,1,1", {}, "holds scores from 35.2 to 35.2; they must be from 0 to 1"),
        ("1,1,0,0,9,9,0.5,0,1", {}, "holds the class 0; MOT counts them from 1"),
        ("1,1,0,0,9,9,0.5,101,1", {}, "holds an object of class 100, and there are names for 100; .* --classes"),
        ("1,1,0,0,nan,9,0.5,1,1", {}, "holds lines that are not frame, id, left, top, width, height"),
        ("", {}, "nothing was seen in it, and nothing tells how long it is"),
    ],
)
def test_what_is_wrong_with_a_recording_costs_it_alone(
    tmp_path: Path, cache: SequenceCache, line: str, settings: dict[str, object], reason: str
) -> None:
    mot(tmp_path / "mot" / "good" / "gt" / "gt.txt", walk())
    seqinfo(tmp_path / "mot" / "good")
    (tmp_path / "mot" / "bad.txt").write_text(f"{line}\n" if line else "")
    outcomes = made(tmp_path / "mot", cache, **{**TOLD, **settings})
    assert {outcome.recording.name: outcome.status for outcome in outcomes} == {"bad": "failed", "good": "done"}
    (said,) = [outcome.reason for outcome in outcomes if outcome.reason]
    assert re.search(reason, said), said


def test_what_is_no_detections_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no such file or folder: .*nowhere"):
        opened(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"holds no detections\n.*save_txt labels"):
        opened(tmp_path)
    (tmp_path / "notes.txt").write_text("hello\n")
    with pytest.raises(SourceError, match=r"notes.txt is not a file of detections"):
        opened(tmp_path / "notes.txt")
    (tmp_path / "x.json").write_text('{"images": []}')
    with pytest.raises(SourceError, match=r"x.json is not a COCO JSON of videos: no 'categories'"):
        opened(tmp_path / "x.json")
    (tmp_path / "a.csv").write_text("1,1,0,0,9,9,0.5,1,1\n")
    with pytest.raises(SettingsError, match=r"names of classes cannot be read from .*none.txt"):
        opened(tmp_path / "a.csv", classes=str(tmp_path / "none.txt"))


# --- from Python ----------------------------------------------------------------------------------------------------


def test_sequences_are_added_to_a_cache(cache: SequenceCache) -> None:
    sequence = FrameSequence.from_detections(
        frame=[0, 1], boxes=[[10, 20, 50, 90]] * 2, size_px=(100, 100), names=["cat"], source_fps=5, fps=5
    )
    key = add_sequence(cache, "cam/a.mp4", sequence)
    assert add_sequence(cache, "b.mp4", sequence) == key
    assert sequences_equal(cache.read(key), sequence)
    detection_source = opened(cache.root)
    assert detection_source.recordings == ["cam/a.mp4", "b.mp4"]
    outcomes = extract_detections(detection_source, [recording_of(detection_source, "b.mp4")], cache, progress=False)
    assert [(outcome.status, outcome.key) for outcome in outcomes] == [("reused", key)]
    with pytest.raises(SettingsMismatchError, match="holds no sequences of these settings; there are some of fps 5"):
        opened(cache.root, DetectorSettings(fps=8.0))
    with pytest.raises(SourceError, match="is a cache of sequences already"):
        extract_detections(detection_source, None, SequenceCache(cache.root / "other"), progress=False)


def test_ids_that_save_txt_left_out(tmp_path: Path, cache: SequenceCache) -> None:
    """Frames in which nothing was tracked have a column fewer."""
    rows = walk(10)
    for conf in (True, False):
        folder = tmp_path / f"conf_{conf}"
        save_txt(folder, "a", rows[:4], conf=conf, ids=False)
        save_txt(folder, "a", rows[4:], conf=conf)
        assert one(folder, cache, **TOLD).tracks.tolist() == [-1, -1, 1, 1, 1]
    save_txt(tmp_path / "other", "a", rows[:4], conf=False, ids=False)
    save_txt(tmp_path / "other", "a", rows[4:], ids=False)
    assert "different numbers of columns" in made(tmp_path / "other", cache, **TOLD)[0].reason


@pytest.mark.parametrize("shape", ["0.1 0.2 0.3 0.1 0.4 0.5", "0.1 0.2 0.3 0.1 0.4 0.5 0.2 0.3"])  # triangle, oriented
@pytest.mark.parametrize("conf", ["", " 0.5"])
def test_ids_that_outlines_left_out(tmp_path: Path, cache: SequenceCache, shape: str, conf: str) -> None:
    (tmp_path / "a_1.txt").write_text(f"0 {shape}{conf} 3\n")
    (tmp_path / "a_3.txt").write_text(f"0 {shape}{conf}\n")
    if shape.count(" ") == 5:
        (tmp_path / "b_1.txt").write_text(f"0{' 0.5 0.5' * 20}{conf} 3\n")  # what tells that these are outlines
    outcome = made(tmp_path, cache, **TOLD)[0]
    sequence = cache.read(outcome.key)
    assert sequence.tracks.tolist() == [3, -1]
    assert np.allclose(sequence.boxes, [[0.1, 0.1, 0.4, 0.5]] * 2)
    assert sequence.scores.tolist() == [0.5 if conf else 1.0] * 2


def test_save_txt_that_counts_from_0(tmp_path: Path, cache: SequenceCache) -> None:
    save_txt(tmp_path / "labels", "a", [(frame - 1, *rest) for frame, *rest in walk()])
    check_walk(one(tmp_path, cache, **TOLD), ("class 0", "class 1"))


def test_a_byte_order_mark_is_no_text(tmp_path: Path, cache: SequenceCache) -> None:
    save_txt(tmp_path / "txt", "a", walk())
    mot(tmp_path / "mot" / "a.txt", walk())
    coco(tmp_path / "a.json", {"a": walk()})
    for path in (tmp_path / "txt" / "a_1.txt", tmp_path / "mot" / "a.txt", tmp_path / "a.json"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    check_walk(one(tmp_path / "txt", cache, **TOLD), ("class 0", "class 1"))
    check_walk(one(tmp_path / "mot", cache, **TOLD), ("class 1", "class 2"))
    check_walk(one(tmp_path / "a.json", cache), ("person", "car"))


def test_other_files_hide_no_detections(tmp_path: Path) -> None:
    for name in ("mot", "txt", "none"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.txt").write_text("what these are\n")
    mot(tmp_path / "mot" / "a.csv", walk(3))
    save_txt(tmp_path / "txt", "a", walk(3))
    assert (opened(tmp_path / "mot").format, opened(tmp_path / "mot").recordings) == ("mot", ["a"])
    assert (opened(tmp_path / "txt").format, opened(tmp_path / "txt").recordings) == ("save_txt", ["a"])
    for separator in (" ", ";"):
        (tmp_path / "none" / "cam_1.txt").write_text("1,1,10,10,20,20,0.5,1,1\n".replace(",", separator))
        with pytest.raises(SourceError, match=r"none holds no detections\n.*separated by commas"):
            opened(tmp_path / "none")
    (tmp_path / "a.json").write_text('{"videos": [], "annotations": [], "categories": []}')
    with pytest.raises(SourceError, match=r"a.json holds no detections"):
        opened(tmp_path / "a.json")


def test_recordings_of_one_name_are_named(tmp_path: Path) -> None:
    mot(tmp_path / "mot" / "a.txt", walk(3))
    mot(tmp_path / "mot" / "a.csv", walk(3))
    with pytest.raises(SourceError, match=r"a.csv and .*a.txt are both of the recording 'a'"):
        opened(tmp_path / "mot")
    folder = tmp_path / "coco"
    folder.mkdir()
    coco(folder / "a.json", {"x": walk(3)})
    coco(folder / "b.json", {"y": walk(3), "x": walk(3)})
    with pytest.raises(SourceError, match=r"video 1 of .*a.json and video 2 of .*b.json are both called 'x'"):
        opened(folder)
    coco(folder / "b.json", {"y": walk(3), "./y": walk(3)})
    with pytest.raises(SourceError, match=r"video 1 of .*b.json and video 2 of .*b.json are both called 'y'"):
        opened(folder / "b.json")


def test_labels_of_none_of_the_videos(tmp_path: Path, cache: SequenceCache) -> None:
    save_txt(tmp_path / "labels", "a", walk())
    with pytest.raises(SourceError, match=r"none of the 1 recordings, such as b.mp4, is among .*labels, such as a\n"):
        made(tmp_path / "labels", cache, [Recording(path=write_video(tmp_path / "b.mp4", 3), name="b.mp4")])


@pytest.mark.parametrize(
    ("ids", "tracks"),
    [
        ([2**60, 2**60 + 1, None], [0, 1, -1]),
        (["b", "a", None], [1, 0, -1]),
        ([2**70, "b", -1], [0, 1, -1]),
        ([3.0, 7, -1], [3, 7, -1]),
    ],
)
def test_ids_of_any_kind_are_told_apart(
    tmp_path: Path, cache: SequenceCache, ids: list[object], tracks: list[int]
) -> None:
    coco(tmp_path / "a.json", {"a": [(0, n, 0, (10.0 * n, 10.0, 9.0, 20.0), 0.9 - n / 10) for n in range(3)]})
    root = json.loads((tmp_path / "a.json").read_text())
    for note, track in zip(root["annotations"], ids, strict=True):
        note["track_id"] = track
    (tmp_path / "a.json").write_text(json.dumps(root))
    assert one(tmp_path / "a.json", cache).tracks.tolist() == tracks


@pytest.mark.parametrize(
    ("where", "changes", "reason"),
    [
        ("videos", {"fps": -5}, "it is said to have -5 frames a second; give --source-fps"),
        ("videos", {"fps": float("inf")}, "said to have inf frames a second"),
        ("videos", {"width": -200}, "its frames are said to be -200 x 100 px; give --source-size"),
        ("videos", {"width": float("inf")}, "cannot be read: cannot convert float infinity to integer"),
        ("images", {"frame_id": 10**12}, "speaks of frame 1000000000001; there may be up to"),
        ("images", {"frame_id": 10**30}, "cannot be read: "),
        ("images", {"frame_id": -4}, "before the first"),
        ("annotations", {"bboxes": [[1, 1, 5, 5]] * 99, "video_id": 2}, "in frame 41, which is not among those looked"),
        ("annotations", {"score": 10**400}, "cannot be read: "),
        ("annotations", {"bbox": 3}, "cannot be read: "),
    ],
)
def test_absurd_numbers_cost_their_recording_alone(
    tmp_path: Path, cache: SequenceCache, where: str, changes: dict[str, object], reason: str
) -> None:
    coco(tmp_path / "a.json", {"good": walk(), "bad": walk()})
    root = json.loads((tmp_path / "a.json").read_text())
    root[where][-1] |= changes
    (tmp_path / "a.json").write_text(json.dumps(root))
    good, bad = made(tmp_path / "a.json", cache)
    assert (good.status, bad.status) == ("done", "failed")
    assert reason in bad.reason


def test_absurd_numbers_of_text(tmp_path: Path, cache: SequenceCache) -> None:
    mot(tmp_path / "mot" / "a" / "gt" / "gt.txt", walk())
    seqinfo(tmp_path / "mot" / "a", frameRate=-1)
    mot(tmp_path / "mot" / "b" / "gt" / "gt.txt", walk())
    seqinfo(tmp_path / "mot" / "b", seqLength=10**12)
    for name, row in {"c": f"1,{2**60},0,0,9,9,1,1", "d": "1e300,1,0,0,9,9,1,1", "e": "1.5,1,0,0,9,9,1,1"}.items():
        (tmp_path / "mot" / f"{name}.txt").write_text(row + "\n")
    reasons = {outcome.recording.name: outcome.reason for outcome in made(tmp_path / "mot", cache)}
    assert reasons["a"] == "it is said to have -1 frames a second; give --source-fps"
    assert reasons["b"].startswith("speaks of frame 1000000000000; ")
    assert all("not a whole number, or one of more than 15 digits" in reasons[name] for name in "cde")
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "a_99999999999999999999.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (folder / "b_1.txt").write_text("0 0.5 0.5 0.1 0.1\n0 50 50 10 10\n")
    first, second = made(folder, cache, **TOLD)
    assert "are not those of save_txt" in first.reason
    assert "holds boxes far outside the picture; their coordinates must be from 0 to 1" in second.reason


def test_a_json_without_an_end(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 200_000)
    with pytest.raises(SourceError, match=r"a.json is not a COCO JSON of videos"):
        opened(tmp_path / "a.json")


def test_large_ids_and_none_beside_each_other(tmp_path: Path, cache: SequenceCache) -> None:
    rows: list[Row] = [(0, track, 0, (10.0 * n, 10.0, 9.0, 20.0), 0.9 - n / 10) for n, track in enumerate((-1, 2**40))]
    mot(tmp_path / "a.txt", rows)
    assert one(tmp_path / "a.txt", cache, **TOLD).tracks.tolist() == [-1, 0]


def test_every_frame_of_an_avi_has_a_time(tmp_path: Path) -> None:
    """Its frames are not in the order of their packets, and some writers' stamps are."""
    for codec in ("mpeg4", "libx264"):
        path = tmp_path / f"{codec}.avi"
        write_video(path, 30, codec=codec, tick=Fraction(1, 10), options={"bf": "2"})
        with av.open(str(path)) as container:
            decoded = sum(1 for _ in container.decode(video=0))
        times, tick_s, end_s = packet_times(path)
        assert len(times) == decoded == 30
        assert np.allclose(np.diff(times), 0.1)
        assert (tick_s, end_s) == (pytest.approx(0.1), pytest.approx(times[-1] + 0.1))


@pytest.mark.parametrize("module", ["vidgru.types", "vidgru.extraction.import_detections.importer"])
def test_examples_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted
    assert not found.failed


def test_names_stay_below_the_output(tmp_path: Path) -> None:
    coco(tmp_path / "a.json", {"../../x/a.mp4": walk(3), "/": walk(3)})
    assert opened(tmp_path / "a.json").recordings == ["x/a.mp4", "2"]
