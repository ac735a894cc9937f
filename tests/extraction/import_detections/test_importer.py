"""Import of recordings into a cache: times, reuse, failures and aborted runs."""

import doctest
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.extraction.import_detections.detection_files import (
    DETECT,
    HEIGHT,
    SOURCE_FLAGS,
    WIDTH,
    Row,
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
from tests.videos import write_video
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings
from vidgru.errors import OutputError, SettingsMismatchError, SourceError
from vidgru.extraction import results as results_module
from vidgru.extraction.import_detections import (
    add_sequence,
    extract_detections,
    importer,
)
from vidgru.extraction.results import ExtractionResult
from vidgru.locks import Locks
from vidgru.types import FrameSequence, Recording
from vidgru.video.reader import VideoReader

Box = tuple[float, float, float, float]


def test_weak_and_surplus_objects_are_dropped(tmp_path: Path, cache: SequenceCache) -> None:
    rows: list[Row] = [(0, n, 0, (10.0 * n, 10.0, 9.0, 20.0), 0.05 + 0.1 * n) for n in range(6)]
    rows.append((0, 9, 0, (400.0, 10.0, 20.0, 20.0), 0.9))  # outside the picture
    write_mot(tmp_path / "a.txt", rows)
    detect = replace(DETECT, conf=0.2, max_objects=3)
    (result,) = extract_detections(open_source(tmp_path / "a.txt", detect, **SOURCE_FLAGS), None, cache, progress=False)
    assert cache.read(result.key).tracks.tolist() == [5, 4, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda box: tuple(value / 200 for value in box), "no coordinate above .* look normalised, and its format has"),
        (lambda box: (*box[:3], 0.8), "contains only boxes below one pixel; check the order of its columns"),
        (
            lambda box: (box[0] + 500, *box[1:]),
            "all its boxes outside the picture of 200x100 px.*; check --source-size",
        ),
    ],
)
def test_boxes_in_other_units(tmp_path: Path, cache: SequenceCache, change: Callable[[Box], Box], message: str) -> None:
    write_mot(tmp_path / "a.txt", [(frame, t, c, change(box), score) for frame, t, c, box, score in walk_rows()])
    (result,) = extract(tmp_path / "a.txt", cache, **SOURCE_FLAGS)
    assert result.status == "failed"
    assert re.search(message, result.reason)


def test_boxes_beyond_the_picture_are_noted(tmp_path: Path, cache: SequenceCache) -> None:
    rows = walk_rows()
    write_mot(tmp_path / "out" / "a.txt", rows)
    (result,) = extract(tmp_path / "out", cache, source_fps=10.0, source_size="60x100")
    assert (result.status, result.reason.partition(",")[0]) == (
        "done",
        "has 50% of its boxes outside the picture of 60x100 px",
    )
    corners = [
        (f, t, c, (*box[:2], box[0] + box[2], box[1] + box[3]), score) for f, t, c, box, score in walk_rows(start=80)
    ]
    write_mot(tmp_path / "corners" / "a.txt", corners)
    (result,) = extract(tmp_path / "corners", cache, **SOURCE_FLAGS)
    assert re.match(
        "has .*% of its boxes reaching beyond the picture of 200x100 px; check --source-size", result.reason
    )


def test_keypoints_in_other_units_than_boxes(tmp_path: Path, cache: SequenceCache) -> None:
    write_coco(tmp_path / "a.json", {"a": walk_rows()})
    root = json.loads((tmp_path / "a.json").read_text())
    for note in root["annotations"]:
        note["keypoints"] = [0.5, 0.25, 2, 0.75, 0.5, 2]
    (tmp_path / "a.json").write_text(json.dumps(root))
    (result,) = extract(tmp_path / "a.json", cache, **SOURCE_FLAGS)
    assert "boxes in pixels, but its keypoints look normalised; multiply them by width and height" in result.reason


def test_entries_are_reused_for_equal_settings_only(tmp_path: Path, cache: SequenceCache) -> None:
    write_mot(tmp_path / "mot" / "a.txt", walk_rows())
    first = extract(tmp_path / "mot", cache, **SOURCE_FLAGS)[0]
    assert [first.status, extract(tmp_path / "mot", cache, **SOURCE_FLAGS)[0].status] == ["done", "reused"]
    moved = tmp_path / "moved"
    (tmp_path / "mot").rename(moved)
    again = extract(moved, SequenceCache(cache.root), **SOURCE_FLAGS)[0]
    assert (again.status, again.key) == ("reused", first.key)
    for settings in ({"source_fps": 20.0}, {"source_size": "400x100"}):
        assert extract(moved, cache, **{**SOURCE_FLAGS, **settings})[0].key != first.key
    write_mot(moved / "a.txt", walk_rows(start=11))
    assert extract(moved, cache, **SOURCE_FLAGS)[0].status == "done"


def test_unchanged_files_are_not_read_again(tmp_path: Path, cache: SequenceCache) -> None:
    path = tmp_path / "mot" / "a.txt"
    write_mot(path, walk_rows())
    past = time.time_ns() - 10**10
    os.utime(path, ns=(past, past))
    key = extract(tmp_path / "mot", cache, **SOURCE_FLAGS)[0].key
    text = path.read_bytes()
    path.write_bytes(text.replace(b"0.75", b"0.55"))
    os.utime(path, ns=(past, past))  # identified by size and mtime, like recordings
    assert extract(tmp_path / "mot", SequenceCache(cache.root), **SOURCE_FLAGS)[0].key == key


def test_classes_are_mapped_to_given_names(tmp_path: Path, cache: SequenceCache) -> None:
    write_coco(tmp_path / "a.json", {"a": walk_rows()})
    (tmp_path / "names.txt").write_text("bike\ncar\nperson\n")
    sequence = extract_one(tmp_path / "a.json", cache, classes=str(tmp_path / "names.txt"))
    assert sequence.names == ("bike", "car", "person")
    assert sequence.classes[0] == 2
    (tmp_path / "names.txt").write_text("bike\ncar\n")
    (result,) = extract(tmp_path / "a.json", cache, classes=str(tmp_path / "names.txt"))
    assert result.status == "failed"
    assert "contains an object of class 'person', which is not among" in result.reason


def test_times_and_size_come_from_the_video(tmp_path: Path, cache: SequenceCache) -> None:
    """Samples are those that extraction takes from the same file."""
    video = tmp_path / "videos" / "a.mp4"
    video.parent.mkdir()
    write_video(video, 30, fps=25)
    write_mot(tmp_path / "mot" / "a.txt", walk_rows(30))
    (result,) = extract(tmp_path / "mot", cache, [Recording(path=video, name="a.mp4")])
    sequence = cache.read(result.key)
    with VideoReader(video) as reader:
        frames = [(frame.time_s, frame.index) for frame in reader.sample(DETECT.fps, (32, 32))]
        assert sequence.size_px == reader.info.size_px
        assert result.duration_s == pytest.approx(reader.info.duration_s)
    assert [(pytest.approx(time_s), index) for time_s, index in frames] == list(
        zip(sequence.time_s.tolist(), sequence.frame_index.tolist(), strict=True)
    )
    write_mot(tmp_path / "mot" / "a.txt", walk_rows(31))
    (result,) = extract(tmp_path / "mot", cache, [Recording(path=video, name="a.mp4")])
    assert result.reason.startswith(
        "its detections contain frame 31, but its video has 30 frames: they belong to another"
    )


def test_save_txt_video_without_labels_is_empty(tmp_path: Path, cache: SequenceCache) -> None:
    video = tmp_path / "empty.mp4"
    write_video(video, 10, fps=10)
    write_save_txt(tmp_path / "labels", "a", walk_rows())
    names = ("empty.mp4", "no.mp4", "a.mp4")
    empty, missing, _ = extract(
        tmp_path / "labels", cache, [Recording(path=tmp_path / name, name=name) for name in names]
    )
    assert (empty.status, len(cache.read(empty.key).boxes)) == ("done", 0)
    assert empty.reason == f"has no labels in {tmp_path / 'labels'}, so it has no objects"
    assert (missing.status, missing.reason) == ("failed", f"is not among the detections in {tmp_path / 'labels'}")


def test_source_fps_that_contradicts_the_video(tmp_path: Path, cache: SequenceCache) -> None:
    video = tmp_path / "a.mp4"
    write_video(video, 20, fps=10)
    write_mot(tmp_path / "mot" / "a.txt", walk_rows(20))
    recordings = [Recording(path=video, name="a.mp4")]
    (slow,) = extract(tmp_path / "mot", cache, recordings, source_fps=2.0)
    assert slow.status == "failed"
    assert slow.reason.startswith("its detections end at 9.5 s at 2 frames per second, but its video is 2.0 s long")
    (near,) = extract(tmp_path / "mot", cache, recordings, source_fps=9.97)
    assert (near.status, near.duration_s) == ("done", pytest.approx(20 / 9.97))


def test_ambiguous_video_name_fails(tmp_path: Path, cache: SequenceCache) -> None:
    """Ultralytics numbers its folders: predict/labels, predict2/labels."""
    write_video(tmp_path / "a.mp4", 40, fps=10)
    for folder in ("predict", "predict2"):
        write_save_txt(tmp_path / "runs" / folder / "labels", "a", walk_rows())
    (result,) = extract(tmp_path / "runs", cache, [Recording(path=tmp_path / "a.mp4", name="a.mp4")])
    assert result.status == "failed"
    assert result.reason.startswith("matches several recordings, predict/a, predict2/a, in ")


def test_read_only_cache(tmp_path: Path, cache: SequenceCache, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mot(tmp_path / "mot" / "a.txt", walk_rows())
    extract(tmp_path / "mot", cache, **SOURCE_FLAGS)

    def refuse(*_: object) -> None:
        raise OutputError("cannot write")

    monkeypatch.setattr(results_module, "write_atomic", refuse)
    (tmp_path / "mot" / "b.txt").write_text("1,1,0,0,nan,9,0.5,1,1")
    assert [result.status for result in extract(tmp_path / "mot", cache, **SOURCE_FLAGS)] == ["reused", "failed"]
    write_mot(tmp_path / "mot" / "c.txt", walk_rows(9))
    with pytest.raises(OutputError, match="cannot write"):
        extract(tmp_path / "mot", cache, **SOURCE_FLAGS)


def test_aborted_run_writes_its_summary(tmp_path: Path, cache: SequenceCache) -> None:
    for name, frames in (("a", 40), ("b", 9)):
        write_mot(tmp_path / "mot" / f"{name}.txt", walk_rows(frames))

    def stop(_: ExtractionResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_detections(open_source(tmp_path / "mot", **SOURCE_FLAGS), None, cache, progress=False, on_result=stop)
    (line,) = (cache.root / "summary.jsonl").read_text().splitlines()
    assert json.loads(line)["recording"] == "a"


def test_interrupt_does_not_wait_for_a_lock(tmp_path: Path, cache: SequenceCache) -> None:
    write_mot(tmp_path / "mot" / "a.txt", walk_rows())
    write_mot(tmp_path / "mot" / "b.txt", walk_rows(9))
    key = extract(tmp_path / "mot", cache, **SOURCE_FLAGS)[1].key
    shutil.rmtree(cache.root / key)

    def stop(_: ExtractionResult) -> None:
        raise KeyboardInterrupt

    with Locks(cache.lock_folder) as other:
        assert other.acquire(key)
        with pytest.raises(KeyboardInterrupt):
            extract_detections(
                open_source(tmp_path / "mot", **SOURCE_FLAGS), None, cache, progress=False, on_result=stop
            )


@pytest.mark.parametrize("name", ["/videos/a.mp4", "../a.mp4"])
def test_add_sequence_rejects_absolute_names(cache: SequenceCache, name: str) -> None:
    sequence = FrameSequence.from_detections(
        frame=[0], boxes=[[0, 0, 9, 9]], size_px=(WIDTH, HEIGHT), names=["cat"], source_fps=8, fps=8
    )
    with pytest.raises(ValueError, match=r"it must be the recording's name in annotations"):
        add_sequence(cache, name, sequence)


@pytest.mark.parametrize(
    ("line", "settings", "reason"),
    [
        ("1,1,0,0,9,9,0.5,1,1", {"source_fps": 0.0}, "its frame rate is unknown; .* --source-fps"),
        ("1,1,0,0,9,9,0.5,1,1", {"source_size": ""}, "its frame size is unknown; .* --source-size"),
        ("-1,1,0,0,9,9,0.5,1,1", {}, "contains an object before the first frame"),
        ("1,1,0,0,9,9,35.2,1,1", {}, "contains scores from 35.2 to 35.2; they must be from 0 to 1"),
        ("1,1,0,0,9,9,0.5,-3,1", {}, "contains class -3; MOT classes are whole numbers"),
        ("1,1,0,0,9,9,0.5,101,1", {}, "contains an object of class 100, but only 100 classes have names; .* --classes"),
        ("1,1,0,0,nan,9,0.5,1,1", {}, "contains lines that do not begin with frame, id, left, top, width, height"),
        ("", {}, "contains no objects, and its length is unknown"),
    ],
)
def test_invalid_recording_does_not_affect_others(
    tmp_path: Path, cache: SequenceCache, line: str, settings: dict[str, object], reason: str
) -> None:
    write_mot(tmp_path / "mot" / "good" / "gt" / "gt.txt", walk_rows())
    write_seqinfo(tmp_path / "mot" / "good")
    (tmp_path / "mot" / "bad.txt").write_text(f"{line}\n" if line else "")
    results = extract(tmp_path / "mot", cache, **{**SOURCE_FLAGS, **settings})
    assert {result.recording.name: result.status for result in results} == {"bad": "failed", "good": "done"}
    (message,) = [result.reason for result in results if result.reason]
    assert re.search(reason, message), message


def test_add_sequence(cache: SequenceCache) -> None:
    sequence = FrameSequence.from_detections(
        frame=[0, 1], boxes=[[10, 20, 50, 90]] * 2, size_px=(100, 100), names=["cat"], source_fps=5, fps=5
    )
    key = add_sequence(cache, "cam/a.mp4", sequence)
    assert add_sequence(cache, "b.mp4", sequence) == key
    assert sequences_equal(cache.read(key), sequence)
    detection_source = open_source(cache.root)
    assert detection_source.recording_names == ["cam/a.mp4", "b.mp4"]
    results = extract_detections(detection_source, [detection_source.recording("b.mp4")], cache, progress=False)
    assert [(result.status, result.key) for result in results] == [("reused", key)]
    with pytest.raises(SettingsMismatchError, match="no sequences with these settings; it has some with fps 5"):
        open_source(cache.root, DetectorSettings(fps=8.0))
    with pytest.raises(SourceError, match="is already a cache of sequences"):
        extract_detections(detection_source, None, SequenceCache(cache.root / "other"), progress=False)


def test_labels_of_other_videos(tmp_path: Path, cache: SequenceCache) -> None:
    write_save_txt(tmp_path / "labels", "a", walk_rows())
    with pytest.raises(SourceError, match=r"none of the 1 recordings, such as b.mp4, is among .*labels, such as a\n"):
        extract(tmp_path / "labels", cache, [Recording(path=write_video(tmp_path / "b.mp4", 3), name="b.mp4")])


def test_add_sequence_docstring_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importer)
    assert result.attempted
    assert not result.failed
