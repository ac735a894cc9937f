import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from tests import videos
from tests.datasets.formats.files import FILES, write
from tests.detectors import Weights
from tests.prediction.fake_project import FakeProject, flip_bit, make_model
from tests.sequences import make_sequence, with_still_frames
from vidgru.cache.entry import UNFINISHED
from vidgru.errors import AnnotationError, ModelError, SettingsError, SourceError
from vidgru.info import format_bytes, format_duration, inspect_path
from vidgru.model.checkpoint import load_model
from vidgru.storage import bundled_file


@pytest.fixture
def project(tmp_path: Path) -> FakeProject:
    return FakeProject(tmp_path)


def write_video(path: Path, frames: int = 30, creation_time: str | None = None) -> Path:
    with av.open(str(path), "w") as container:
        if creation_time:
            container.metadata["creation_time"] = creation_time
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(frames):
            image = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return path


# --- a cache --------------------------------------------------------------------------------------------------------


def test_cache_totals(project: FakeProject) -> None:
    paths = [project.record("a.mp4", frames=40), project.record("b.mp4", frames=24, status="partial")]
    report = inspect_path(project.cache.root)
    assert report.is_valid
    assert report.lines[0] == f"cache {project.cache.root}: 2 entries, 1 of damaged recordings"
    assert "fps 8," in report.lines[1]
    assert f"weights_sha256 {project.feature_settings['weights_sha256'][:12]}…" in report.lines[1]
    assert report.lines[2].startswith("  8.000 s, 64 samples, ")

    sequences = [
        project.cache.read(project.cache.key(project.cache.sha256(path), project.feature_settings)) for path in paths
    ]
    total = sum(len(sequence.boxes) for sequence in sequences)
    assert f"  objects: {total / 64:.1f} per frame" in report.lines
    people = sum(int((sequence.classes == 0).sum()) for sequence in sequences)
    rate = people / 64
    assert f"    person {f'{rate:.1f}' if rate >= 1 else f'{rate:.2g}'} per frame" in report.lines


def test_cache_lists_tensors(project: FakeProject) -> None:
    project.record("a.mp4")
    (line,) = [line for line in inspect_path(project.cache.root).lines if line.startswith("  tensors: ")]
    assert "boxes [4]" in line
    assert "scores, classes, tracks" in line
    assert "offsets" not in line


def test_dataset_too_small_to_split(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    (tmp_path / "labels.csv").write_text("video,start,end,label,description,split\na.mp4,,,fall,,\n")
    text = str(inspect_path(tmp_path / "labels.csv"))
    assert "fall" in text
    assert "the only train recording cannot be divided" in text


def test_cache_groups_by_settings(project: FakeProject) -> None:
    project.record("a.mp4")
    project.feature_settings = {**project.feature_settings, "fps": 4.0}
    project.record("a.mp4", frames=16)
    settings = [line for line in inspect_path(project.cache.root).lines if line.startswith("settings: ")]
    assert len(settings) == 2
    assert {"fps 8", "fps 4"} == {part for line in settings for part in line.split(", ") if part.startswith("fps ")}


def test_rare_classes_are_summed_up(project: FakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    project.record("a.mp4")
    monkeypatch.setattr("vidgru.info.SHOWN_CLASSES", 1)
    assert any(line.startswith("    2 more classes ") for line in inspect_path(project.cache.root).lines)
    monkeypatch.undo()
    assert not any("more classes" in line for line in inspect_path(project.cache.root).lines)


def test_empty_cache(project: FakeProject) -> None:
    project.cache.root.mkdir()
    (project.cache.root / "index.jsonl").touch()
    assert inspect_path(project.cache.root).lines == (f"cache {project.cache.root}: 0 entries",)


def test_entry_details(project: FakeProject) -> None:
    path = project.record(
        "a.mp4", recorded_at="2024-05-01T12:00:00+00:00", status="partial", damage={"corrupt_frames": 3}
    )
    project.record("b.mp4")
    key = project.cache.key(project.cache.sha256(path), project.feature_settings)
    report = inspect_path(project.cache.root / key)
    assert report.lines[0] == f"cache {project.cache.root}: 1 entry, 1 of damaged recordings"
    for line in (
        f"source: {path}",
        "frame: 320x192 px, sampled at 8 per second",
        "recorded at: 2024-05-01T12:00:00+00:00",
        "damage: corrupt_frames 3",
        "run: device cpu",
    ):
        assert line in report.lines


def test_parts_of_recordings_are_shown(project: FakeProject) -> None:
    project.record("a.mp4")
    project.feature_settings = {**project.feature_settings, "span": [300, 720]}
    path = project.record("b.mp4", duration_s=3600.0)
    key = project.cache.key(project.cache.sha256(path), project.feature_settings)
    lines = inspect_path(project.cache.root).lines
    assert "  parts of recordings, made with predict --since or --until: 1" in lines
    assert sum(line.startswith("settings:") for line in lines) == 1
    assert lines[2].startswith("  7 min 5.0 s, ")  # 5 s, and 7 minutes of an hour
    assert "covers: 0:05:00-0:12:00 of 1.00 hours" in inspect_path(project.cache.root / key).lines


def test_still_samples_are_counted(project: FakeProject) -> None:
    sequence = with_still_frames(make_sequence(40, 2), list(range(10, 40)))
    path = project.record("a.mp4", sequence=sequence, adaptive_note="packets do not show motion in 9% of it")
    key = project.cache.key(project.cache.sha256(path), project.feature_settings)
    assert "  still: 75.0% of the samples, not decoded" in inspect_path(project.cache.root).lines
    lines = inspect_path(project.cache.root / key).lines
    assert "still: 30 of 40 samples, not decoded" in lines
    assert "adaptive: packets do not show motion in 9% of it" in lines


def test_incomplete_entries_are_valid(project: FakeProject) -> None:
    path = project.record("a.mp4")
    project.record("b.mp4")
    (
        project.cache.root / project.cache.key(project.cache.sha256(path), project.feature_settings) / "entry.json"
    ).unlink()
    for verify in (False, True):
        report = inspect_path(project.cache.root, verify=verify)
        assert report.is_valid
        assert report.lines[0].endswith(": 1 entry")
        assert report.lines[1].startswith("1 incomplete: extracting their recordings again completes them")


def test_info_counts_entries_of_killed_runs(project: FakeProject) -> None:
    key = "ab" * 32
    for name in (f"{key}.00000000", f"{key}.00000001"):
        (project.cache.root / UNFINISHED / name).mkdir(parents=True)
    report = inspect_path(project.cache.root)
    assert report.lines[0].endswith(": 0 entries")
    assert report.lines[1] == "1 incomplete: extracting their recordings again completes them"
    path = project.record("a.mp4")
    assert "1 incomplete: extracting their recordings again completes them" in inspect_path(project.cache.root).lines
    assert not any("incomplete" in line for line in inspect_path(project.entry_folder(path)).lines)


def test_verify_lists_corrupt_entries(project: FakeProject) -> None:
    names = ("a.mp4", "b.mp4", "c.mp4")
    paths = {name: project.record(name) for name in names}
    folders = {
        n: project.cache.root / project.cache.key(project.cache.sha256(p), project.feature_settings)
        for n, p in paths.items()
    }
    assert inspect_path(project.cache.root, verify=True).is_valid
    assert inspect_path(project.cache.root, verify=True).lines[-1] == "all checksums match"

    flip_bit(folders["b.mp4"])
    assert inspect_path(project.cache.root).is_valid  # a flipped bit is not seen without reading every byte
    assert project.cache.lookup(paths["b.mp4"], project.feature_settings)
    report = inspect_path(project.cache.root, verify=True)
    assert not report.is_valid
    assert f"CORRUPT {folders['b.mp4'].name}, of {paths['b.mp4']}" in report.lines
    part = folders["b.mp4"] / "part-00000.safetensors"
    assert f"  {part}: its bytes differ from those that were written" in report.lines
    assert report.lines[-1] == "1 corrupt: extracting their recordings again replaces them"
    assert project.cache.lookup(paths["b.mp4"], project.feature_settings) is None  # so that they do
    for verify in (True, False):
        report = inspect_path(folders["b.mp4"], verify=verify)
        assert not report.is_valid
        assert "  found corrupt earlier" in report.lines
    assert inspect_path(folders["c.mp4"], verify=True).is_valid
    project.record("b.mp4")
    assert project.cache.lookup(paths["b.mp4"], project.feature_settings)
    assert inspect_path(project.cache.root, verify=True).is_valid

    (folders["a.mp4"] / "part-00000.safetensors").unlink()
    (folders["c.mp4"] / "entry.json").write_text("{")
    report = inspect_path(project.cache.root)
    assert not report.is_valid
    assert report.lines[-1].startswith("2 corrupt")
    assert any("entry.json is corrupt" in line for line in report.lines)
    assert any("part-00000.safetensors is missing" in line for line in report.lines)


def test_verify_of_a_read_only_cache(project: FakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    flip_bit(project.entry_folder(project.record("a.mp4")))

    def read_only(*names: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", read_only)
    report = inspect_path(project.cache.root, verify=True)
    assert not report.is_valid
    assert any("Read-only file system: delete that folder, else the next run uses it" in line for line in report.lines)


def test_prune_applies_to_caches(project: FakeProject) -> None:
    path = project.record("a.mp4")
    for other in (project.model, project.videos, project.entry_folder(path)):
        with pytest.raises(SettingsError, match=r"prune applies to caches, and .* is not a cache"):
            inspect_path(other, prune=True)


# --- the others -----------------------------------------------------------------------------------------------------


def test_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", creation_time="2024-05-01T12:00:00Z")
    assert inspect_path(path).lines == (
        f"video {path}: 64x48 px, {path.stat().st_size / 1000:.1f} kB",
        "duration: 3.000 s",
        "frame rate: 10.000 per second",
        "frames, from the header: 30",
        "codec: mpeg4 in mov,mp4,m4a,3gp,3g2,mj2",
        "recorded at: 2024-05-01T12:00:00+00:00",
    )
    assert "recorded at: unknown" in inspect_path(write_video(tmp_path / "b.mp4")).lines


def test_weights_of_a_detector(tiny_weights: Weights) -> None:
    path = tiny_weights("yolov8n-pose")
    size, input_px, boxes, keypoints, classes = inspect_path(path).lines
    assert size.startswith(f"detector {path}: pose, 3 classes, ")
    assert input_px == "input: trained at 640 px; --imgsz takes multiples of 32"
    assert (boxes, keypoints) == ("boxes: overlapping ones are removed (--iou)", "keypoints: 17 per object")
    assert classes == "classes, for --only: person, car, bag"


def test_model_and_run(project: FakeProject) -> None:
    lines = inspect_path(project.model).lines
    assert lines[0].startswith(f"model {project.model}: 3 labels, ")
    assert " parameters, " in lines[0]
    text = "\n".join(lines)
    assert "architecture: bidirectional False, cell gru, " in text
    assert "labels: fall, run, walk\nclip head: several labels at a time\n" in text
    assert "reads windows of 2 s at 8 samples per second" in text
    assert "detector.pt, 3 classes" in text
    assert "  fall: starts at score 0.500, ends below 0.500" in text
    assert "validation metrics: macro_f1 0.75" in text
    model = load_model(project.model)
    trimmed = replace(model, decode=replace(model.decode, start_trim_s=(0.25, 0, 0), end_trim_s=(0.5, 0, 0)))
    trimmed.save(project.root / "trimmed.safetensors")
    shortened = "  fall: shortened by 0.25 s at the start and 0.50 s at the end"
    assert shortened in inspect_path(project.root / "trimmed.safetensors").lines
    shutil.copy(project.model, project.root / "best.safetensors")
    assert inspect_path(project.root).lines[1:] == lines[1:]


def test_model_of_timed_events(project: FakeProject) -> None:
    replace(make_model(project.model, project.feature_settings, timed=True), lookahead=4).save(project.model)
    text = str(inspect_path(project.model))
    assert "frame head: several labels at a time\n" in text
    assert "clip head" not in text
    assert "reads recordings at 8 samples per second, with a lookahead of 0.5 s" in text


def test_dataset(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos/a.mp4")
    (tmp_path / "videos/b.mp4").touch()
    file = tmp_path / "annotations.csv"
    file.write_text(
        "video,start,end,label,description,split\na.mp4,0,1,fall,,train\na.mp4,2,7,walk,,val\nz.mp4,,,walk,,train\n"
        "b.mp4,1,2,fall,,train\n"
    )
    (tmp_path / "set.yaml").write_text("path: .\n")
    for path in (tmp_path, file, tmp_path / "set.yaml"):
        text = str(inspect_path(path))
        assert text.startswith(f"dataset {path}\n")
        assert "3 events of 2 labels in 2 recordings (one label at a time)" in text
        assert "events cover 66.7% of the time (2.0 of 3.0 s)" in text
        assert "warning: 1 video missing: z.mp4 (line 4); skipped" in text
        assert "1 end past the end of the recording, clipped (line 3: a.mp4 ends at 3.00 s, not 7)" in text
        assert "warning: 1 recording cannot be read (first: b.mp4 is empty (0 bytes)" in text


def test_dataset_says_what_training_holds_out(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for name in "abcdefgh":
        (tmp_path / f"videos/{name}.mp4").touch()
    rows = [f"{name}.mp4,,,{label},," for name, label in zip("abcdefgh", "xyxyxyxy", strict=True)]
    (tmp_path / "annotations.csv").write_text("\n".join(["video,start,end,label,description,split", *rows]))
    text = str(inspect_path(tmp_path))
    assert "5 members: each learns from all recordings but a part of its own, by video, seed 0" in text
    assert "held out as val" not in text


def test_dataset_of_imported_detections(tmp_path: Path) -> None:
    (tmp_path / "mot").mkdir()
    for name in ("a", "b"):
        (tmp_path / "mot" / f"{name}.txt").write_text("1,1,10,10,20,20,0.9,1,1\n")
    (tmp_path / "x.csv").write_text("video,start,end,label\na.mp4,1,2,walk\nb.mp4,1,2,walk\n")
    with pytest.raises(AnnotationError, match=r"2 videos missing: .*\n.*pass boxes of another program with --det"):
        inspect_path(tmp_path / "x.csv")
    text = str(inspect_path(tmp_path / "x.csv", detections=str(tmp_path / "mot")))
    assert "2 events of 1 label in 2 recordings" in text
    assert "cannot be read" not in text


def test_untrainable_dataset_is_described(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    (tmp_path / "annotations.csv").write_text("video,start,end,label\na.mp4,0,1,fall\na.mp4,4,5,fall\n")
    text = str(inspect_path(tmp_path))
    assert "2 events of 1 label in 1 recording" in text
    assert "no val rows, and the only train recording cannot be divided" in text
    assert "line 3: start 4 s is past the end of a.mp4 (3.00 s)" in text


@pytest.mark.parametrize("kind", ["activitynet", "elan", "cvat", "list", "kinetics", "folders"])
def test_datasets_of_other_tools(tmp_path: Path, kind: str) -> None:
    videos = (
        "v_abc_-012345.mp4|quiet000000.mp4|rec 1.mp4|yard.mp4|000.mp4|001.mp4|002.mp4|-3B32lodo2M.mp4|_dbcJuKJQNs.mp4"
    )
    if kind == "folders":
        path = write(tmp_path, "notes.md", "", "walk/a.mp4|fall/b.mp4").parent
    elif kind == "cvat":
        write(tmp_path, *FILES[kind], videos)
        path = write(tmp_path, "set.yaml", "annotations: annotations.xml\nfps: 25\n")
    else:
        path = write(tmp_path, *FILES[kind], videos)
    text = str(inspect_path(path))
    assert text.startswith(f"dataset {path}\n")
    assert " label" in text.splitlines()[1]


def test_errors_list_accepted_paths(project: FakeProject) -> None:
    expected = "vidgru info takes a video, a cache or a cache entry, a dataset"
    with pytest.raises(SourceError, match=rf"no such file or folder: .*none\n  {expected}"):
        inspect_path(project.root / "none")
    (project.root / "notes.md").write_text("hello")
    with pytest.raises(SourceError, match=rf"notes\.md is not a readable video: .*\n  {expected}"):
        inspect_path(project.root / "notes.md")
    with pytest.raises(
        SourceError, match=rf"holds no cache entry, no annotations and no best\.safetensors\n  {expected}"
    ):
        inspect_path(project.videos)
    path = project.record("a.mp4")
    part = (
        project.cache.root
        / project.cache.key(project.cache.sha256(path), project.feature_settings)
        / "part-00000.safetensors"
    )
    with pytest.raises(SourceError, match=rf"is a part of a cache entry\n  pass its folder: {part.parent}"):
        inspect_path(part)
    (project.root / "other.safetensors").write_bytes(b"none")
    with pytest.raises(ModelError, match="is not a vidgru model"):
        inspect_path(project.root / "other.safetensors")
    (project.root / "table.csv").write_text(json.dumps({}))
    with pytest.raises(AnnotationError, match="missing column"):
        inspect_path(project.root / "table.csv")
    (project.root / "metrics.json").write_text(json.dumps({"accuracy": 1.0}))
    with pytest.raises(AnnotationError, match=r"metrics.json is in no known format\n"):
        inspect_path(project.root / "metrics.json")


def test_verify_applies_to_caches(project: FakeProject) -> None:
    with pytest.raises(
        SettingsError, match=r"verify applies to caches and cache entries, and .*model\.safetensors is neither"
    ):
        inspect_path(project.model, verify=True)


@pytest.mark.parametrize(
    ("size", "text"),
    [(999, "999 bytes"), (1000, "1.0 kB"), (3_700_000, "3.7 MB"), (10**9, "1.0 GB"), (10**16, "10000.0 TB")],
)
def test_format_bytes(size: int, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.000 s"), (59.9, "59.900 s"), (61, "1 min 1.0 s"), (36000, "10.00 hours")]
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_info_measures_joined_streams(tmp_path: Path) -> None:
    part = videos.write_video(tmp_path / "part.ts", 30, fps=10).read_bytes()
    (tmp_path / "a.ts").write_bytes(part * 3)
    assert "duration: 9.000 s" in str(inspect_path(tmp_path / "a.ts"))
    (tmp_path / "a.csv").write_text("video,start,end,label\na.ts,7,8,walk\n")
    assert "past the end" not in str(inspect_path(tmp_path / "a.csv"))
    (tmp_path / "a.csv").write_text("video,start,end,label\na.ts,9.5,10,walk\n")
    assert "start 9.5 s is past the end of a.ts (9.00 s)" in str(inspect_path(tmp_path / "a.csv"))


def test_inspect_model_lists_words_of_captions() -> None:
    model = bundled_file("demo.safetensors")
    assert model is not None
    printed = str(inspect_path(model))
    assert "  colour: black, blue, green, red, white, yellow\n" in printed
    assert "detector: demo.pt, 3 classes" in printed, "no path of the machine that trained it"
