"""Whole runs on small videos: results, entries, reuse, equal bytes, damage, interruption, late submissions."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.detectors import Weights
from tests.extraction.extraction_runs import RUNTIME, entry_files, extract, part_files, set_part_samples
from tests.videos import faststart, rotate_mp4, write_video
from vidgru import cli
from vidgru.cache import EntryWriter, SequenceCache
from vidgru.config import DetectorSettings
from vidgru.detector.motion import MOTION_COLUMNS, SCENE_MOTION_COLUMNS
from vidgru.detector.tracker import Tracker
from vidgru.errors import LockLostError, WeightsError
from vidgru.extraction import decode_process, pipeline
from vidgru.extraction.decode_process import DecoderDiedError
from vidgru.extraction.pipeline import (
    ExtractionResult,
    Extractor,
    extract_recordings,
    feature_settings_for,
    summary_table,
)
from vidgru.extraction.results import ExtractionStoppedError, ProgressBar
from vidgru.locks import Locks
from vidgru.sources import find_recordings
from vidgru.types import Recording
from vidgru.video.reader import ResumePoint, ResumePointNotFoundError


@pytest.fixture
def settings(tiny_weights: Weights) -> DetectorSettings:
    return DetectorSettings(weights=str(tiny_weights("yolov8n-pose")), imgsz=64, fps=5, conf=0.2, max_objects=6)


@pytest.fixture
def quiet() -> Iterator[ProgressBar]:
    with ProgressBar([Path()] * 4, shown=False) as bar:
        yield bar


def recorded(folder: Path, name: str, frames: int) -> Recording:
    return Recording(path=write_video(folder / "v" / name, frames), name=name)


def test_extraction_caches_a_folder_of_videos(tmp_path: Path, settings: DetectorSettings) -> None:
    write_video(tmp_path / "v" / "a.mp4", 40)
    write_video(tmp_path / "v" / "sub" / "b.mkv", 25, size_px=(96, 160))
    rotate_mp4(write_video(tmp_path / "v" / "c.mp4", 15, size_px=(320, 192)), 90)
    ended: list[str] = []
    results = extract(tmp_path / "v", tmp_path / "f", settings, on_result=lambda o: ended.append(o.recording.name))
    assert [o.recording.name for o in results] == ["a.mp4", "c.mp4", "sub/b.mkv"]
    assert sorted(ended) == ["a.mp4", "c.mp4", "sub/b.mkv"]
    assert [(o.status, o.samples, o.reason) for o in results] == [("done", 20, ""), ("done", 8, ""), ("done", 13, "")]
    cache = SequenceCache(tmp_path / "f")
    for result, size in zip(results, [(160, 96), (192, 320), (96, 160)], strict=True):
        assert result.key is not None
        entry, sequence = cache.entry(result.key), cache.read(result.key)
        assert entry is not None
        assert cache.verify(result.key) == []
        assert (entry.status, entry.size_px, entry.damage, entry.recorded_at) == ("done", size, {}, None)
        assert entry.feature_settings == feature_settings_for(settings)
        assert entry.run_info["backend"] == "torch"
        assert (entry.run_info["precision"], entry.run_info["device"], entry.run_info["threads"]) == ("fp32", "cpu", 1)
        assert (
            entry.run_info["versions"]["torch"] == torch.__version__.split("+")[0]
            or entry.run_info["versions"]["torch"]
        )
        assert len(sequence) == result.samples
        assert sequence.names == ("person", "car", "bag")
        np.testing.assert_allclose(sequence.time_s, np.arange(result.samples) / 5, atol=1e-9)
        np.testing.assert_array_equal(sequence.frame_index, np.arange(result.samples) * 2)
        assert sequence.motion is not None
        assert sequence.motion.shape[1] == len(MOTION_COLUMNS)
        assert not sequence.motion[: sequence.offsets[1]].any(), "nothing has moved at the first sample"
        assert sequence.motion[sequence.offsets[1] :].any()
        assert sequence.scene_motion is not None
        assert sequence.scene_motion.shape[1] == len(SCENE_MOTION_COLUMNS)
        assert sequence.keypoints is not None
        assert sequence.tracks.max() >= 1
    lines = [json.loads(line) for line in (tmp_path / "f" / "summary.jsonl").read_text().splitlines()]
    assert [(line["recording"], line["status"]) for line in lines] == [
        (n, "done") for n in ("a.mp4", "c.mp4", "sub/b.mkv")
    ]


def test_cached_recordings_are_reused_without_decoding(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "v" / "a.mp4", 12)
    first = extract(tmp_path / "v", tmp_path / "f", settings)
    monkeypatch.setattr(decode_process, "COMMAND", ["false"])
    monkeypatch.setattr("vidgru.detector.backends.open_backend", None)
    again = extract(tmp_path / "v", tmp_path / "f", settings)
    assert [(o.status, o.key, o.samples) for o in again] == [("reused", first[0].key, first[0].samples)]
    (tmp_path / "v" / "a.mp4").rename(tmp_path / "v" / "moved.mp4")
    assert extract(tmp_path / "v", tmp_path / "f", settings)[0].status == "reused"


def test_cached_run_imports_no_detector(tmp_path: Path, settings: DetectorSettings) -> None:
    """The imports take longer than everything else that such a run does."""
    write_video(tmp_path / "v" / "a.mp4", 12)
    flags = [
        "extract",
        str(tmp_path / "v"),
        "--weights",
        settings.weights,
        "--imgsz",
        "64",
        "--out",
        str(tmp_path / "f"),
    ]
    assert cli.run(flags) == 0
    code = (
        "import sys; from vidgru.cli import run; from vidgru.extraction import decode_process\n"
        "decode_process.COMMAND = ['false']\n"
        "code = run(sys.argv[1:])\n"
        "print(code, [name for name in ('torch', 'torchvision', 'ultralytics', 'openvino') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "0 []"


def test_feature_settings_make_separate_entries(tmp_path: Path, settings: DetectorSettings) -> None:
    write_video(tmp_path / "v" / "a.mp4", 12)
    settings, cache = replace(settings, max_objects=300), SequenceCache(tmp_path / "f")
    before = extract(tmp_path / "v", cache.root, settings)[0].key
    assert before is not None
    old = cache.read(before).tensors()
    values = {"fps": 4.0, "imgsz": 96, "conf": 0.3, "iou": 0.2, "max_objects": 3, "tracker": "none"}
    for name, value in values.items():
        after = extract(tmp_path / "v", cache.root, replace(settings, **{name: value}))[0]
        assert after.status == "done"
        assert after.key is not None
        assert after.key != before
        new = cache.read(after.key).tensors()
        assert any(not np.array_equal(old[tensor], new[tensor]) for tensor in old), f"{name} is used"
    assert len(list(cache.entries())) == 1 + len(values)


def test_equal_recordings_share_an_entry(tmp_path: Path, settings: DetectorSettings) -> None:
    write_video(tmp_path / "v" / "a.mp4", 12)
    for name in ("b.mp4", "c.mp4"):
        (tmp_path / "v" / name).write_bytes((tmp_path / "v" / "a.mp4").read_bytes())
    results = extract(tmp_path / "v", tmp_path / "f", settings)
    assert sorted(o.status for o in results) == ["done", "reused", "reused"]
    assert len({o.key for o in results}) == 1
    assert len(SequenceCache(tmp_path / "f").sources()[str(results[0].key)]) == 3


def test_bytes_are_independent_of_batch_mates_and_threads(tmp_path: Path, settings: DetectorSettings) -> None:
    for number, frames in enumerate((13, 31, 22)):
        write_video(tmp_path / "v" / f"{number}.mp4", frames, options={"crf": str(18 + number)})
    write_video(tmp_path / "v" / "tall.mp4", 9, size_px=(96, 160))
    extract(tmp_path / "v", tmp_path / "together", settings)
    extract(tmp_path / "v", tmp_path / "threads", settings, replace(RUNTIME, threads=3))
    for video in sorted((tmp_path / "v").iterdir()):
        extract(video, tmp_path / "alone", settings)
    assert len(part_files(tmp_path / "together")) == 4
    assert part_files(tmp_path / "alone") == part_files(tmp_path / "together")
    assert part_files(tmp_path / "threads") == part_files(tmp_path / "together")
    entries = [
        {p.parent.name: p.read_bytes() for p in (tmp_path / f).rglob("entry.json")} for f in ("alone", "together")
    ]
    assert entries[0] == entries[1]


def test_unreadable_files_do_not_affect_others(tmp_path: Path, settings: DetectorSettings) -> None:
    write_video(tmp_path / "v" / "good.mp4", 12)
    (tmp_path / "v" / "text.mp4").write_text("hello\n" * 200)
    (tmp_path / "v" / "empty.mp4").touch()
    long = faststart(write_video(tmp_path / "long.mp4", 100))
    (tmp_path / "v" / "cut.mp4").write_bytes(long.read_bytes()[: long.stat().st_size * 2 // 3])
    results = {o.recording.name: o for o in extract(tmp_path / "v", tmp_path / "f", settings)}
    assert {name: o.status for name, o in results.items()} == {
        "good.mp4": "done",
        "text.mp4": "failed",
        "empty.mp4": "failed",
        "cut.mp4": "partial",
    }
    assert results["text.mp4"].key is None
    assert "is not a readable video" in results["text.mp4"].reason
    assert "is empty" in results["empty.mp4"].reason
    assert "s missing" in results["cut.mp4"].reason
    assert results["cut.mp4"].samples > 10
    entry = SequenceCache(tmp_path / "f").entry(str(results["cut.mp4"].key))
    assert entry is not None
    assert entry.status == "partial"
    assert entry.damage["missing_tail_s"] > 1
    table = summary_table(list(results.values()))
    assert "failed   text.mp4: is not a readable video" in table
    assert table.splitlines()[-1].startswith("1 done, 1 partial, 2 failed:")
    again = {o.recording.name: o for o in extract(tmp_path / "v", tmp_path / "f", settings)}
    assert again["cut.mp4"].status == "reused"
    assert "s missing" in again["cut.mp4"].reason, "that it is damaged is not forgotten"


def test_file_changed_during_extraction_fails(tmp_path: Path, settings: DetectorSettings, faults: None) -> None:
    write_video(tmp_path / "v" / "touch.mp4", 30)
    result = extract(tmp_path / "v", tmp_path / "f", settings)[0]
    assert (result.status, result.key) == ("failed", None)
    assert result.reason.startswith("changed while it was read")
    assert not list((tmp_path / "f").rglob("part-*")), "nothing half is left"


def test_missing_file_fails(tmp_path: Path, settings: DetectorSettings) -> None:
    recording = Recording(path=tmp_path / "gone.mp4", name="gone.mp4")
    results = extract_recordings([recording], SequenceCache(tmp_path / "f"), settings, RUNTIME, progress=False)
    assert results[0].status == "failed"
    assert "cannot be opened: No such file" in results[0].reason


@pytest.mark.parametrize(
    "where", ["vidgru.extraction.decode_task.Tracker", "vidgru.extraction.detector_pool.object_motion"]
)
def test_bug_in_a_thread_ends_the_run(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def broken(*arguments: object) -> None:
        raise KeyError("a bug")

    write_video(tmp_path / "v" / "a.mp4", 12)
    monkeypatch.setattr(where, broken)
    with pytest.raises(KeyError, match="a bug"):
        extract(tmp_path / "v", tmp_path / "f", settings)
    assert not [t for t in threading.enumerate() if t.name.startswith("vidgru")], "no thread is left"


def test_copy_of_a_failed_recording_is_extracted(tmp_path: Path, settings: DetectorSettings, faults: None) -> None:
    first = write_video(tmp_path / "v" / "touch.mp4", 30)
    (tmp_path / "v" / "twin.mp4").write_bytes(first.read_bytes())
    # one thread and one decoder: the first is begun first
    touched, twin = extract(tmp_path / "v", tmp_path / "f", settings, replace(RUNTIME, detector_batch=2, threads=1))
    assert (touched.status, twin.status) == ("failed", "done")


def test_ctrl_c_keeps_finished_entries(tmp_path: Path, settings: DetectorSettings) -> None:
    write_video(tmp_path / "v" / "a.mp4", 5)
    write_video(tmp_path / "v" / "b.mp4", 400)

    def interrupt(result: ExtractionResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(tmp_path / "v", tmp_path / "f", settings, replace(RUNTIME, detector_batch=2), on_result=interrupt)
    entries = list(SequenceCache(tmp_path / "f").entries())
    assert len(entries) == 1
    assert {path.name for path in (tmp_path / "f").glob("[!.]*")} == {entries[0].key, "index.jsonl", "summary.jsonl"}
    assert not SequenceCache(tmp_path / "f").incomplete_entries()
    assert sorted(o.status for o in extract(tmp_path / "v", tmp_path / "f", settings)) == ["done", "reused"]


def test_tracks_replay_across_parts(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "v" / "a.mp4", 60)
    extract(tmp_path / "v", tmp_path / "whole", settings)
    set_part_samples(monkeypatch, 7)
    monkeypatch.setattr(pipeline, "_CHUNK_SAMPLES", 4)
    result = extract(tmp_path / "v", tmp_path / "cut", settings)[0]
    assert result.key is not None
    cut, whole = SequenceCache(tmp_path / "cut"), SequenceCache(tmp_path / "whole").read(result.key)
    assert [len(part) for part in cut.parts(result.key)] == [7, 7, 7, 7, 2]
    for name, tensor in cut.read(result.key).tensors().items():
        np.testing.assert_array_equal(tensor, whole.tensors()[name], err_msg=name)
    tracker, ids = Tracker(settings.tracker, whole.size_px), []
    for part in cut.parts(result.key):
        for t in range(len(part)):
            frame = part.frames(t, t + 1)
            ids.append(tracker.update(frame.boxes, frame.scores, frame.classes))
    np.testing.assert_array_equal(np.concatenate(ids), whole.tracks)


@pytest.mark.parametrize("kind", ["yolo26n", "yolov8n-obb", "yolo11n-seg"])
def test_detector_tasks_have_their_tensors(tmp_path: Path, tiny_weights: Weights, kind: str) -> None:
    write_video(tmp_path / "v" / "a.mp4", 12)
    settings = DetectorSettings(weights=str(tiny_weights(kind)), imgsz=64, fps=5, tracker="ocsort")
    result = extract(tmp_path / "v", tmp_path / "f", settings)[0]
    sequence = SequenceCache(tmp_path / "f").read(str(result.key))
    assert (sequence.angle is not None) == (kind == "yolov8n-obb")
    assert sequence.keypoints is None


def test_recording_without_objects_is_cached(tmp_path: Path, settings: DetectorSettings) -> None:
    write_video(tmp_path / "v" / "a.mp4", 12)
    values = {name: getattr(settings, name) for name in DetectorSettings.__dataclass_fields__}
    result = extract(tmp_path / "v", tmp_path / "f", DetectorSettings(**values | {"conf": 0.9999}))[0]
    sequence = SequenceCache(tmp_path / "f").read(str(result.key))
    assert (len(sequence), len(sequence.boxes)) == (6, 0)
    assert sequence.keypoints is not None
    assert sequence.keypoints.shape == (0, 17, 3)


def test_recordings_of_many_shapes(tmp_path: Path, settings: DetectorSettings) -> None:
    sizes = [(160, 96), (96, 160), (128, 128), (160, 32), (64, 160), (160, 64), (32, 160)]
    for number, size in enumerate(sizes):
        write_video(tmp_path / "v" / f"{number}.mp4", 7, size_px=size)
    results = extract(tmp_path / "v", tmp_path / "f", settings)
    assert [(o.status, o.samples) for o in results] == [("done", 4)] * len(sizes)


def test_empty_run_writes_nothing(tmp_path: Path, settings: DetectorSettings) -> None:
    assert extract_recordings([], SequenceCache(tmp_path / "f"), settings, RUNTIME, progress=False) == []
    assert not (tmp_path / "f").exists()
    assert summary_table([]).startswith("nothing to do")


def test_missing_weights_end_the_run_at_once(tmp_path: Path) -> None:
    write_video(tmp_path / "v" / "a.mp4", 5)
    with pytest.raises(WeightsError, match="no such weights file"):
        extract(tmp_path / "v", tmp_path / "f", DetectorSettings(weights=str(tmp_path / "none.pt")))
    assert not (tmp_path / "f").exists()


def test_extraction_restores_torch_threads(tmp_path: Path, settings: DetectorSettings) -> None:
    write_video(tmp_path / "v" / "a.mp4", 5)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    extract(tmp_path / "v", tmp_path / "f", settings)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


# --- several processes, and other users of the cache ------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_share_a_folder(tmp_path: Path, settings: DetectorSettings) -> None:
    for number in range(6):
        write_video(tmp_path / "v" / f"slow{number}.mp4", 30 + number)
    code = (
        "import sys; from tests import fault_injection; from vidgru.extraction import decode_process as decoder\n"
        "from vidgru.cli import run\n"
        "decoder.COMMAND = [sys.executable, '-m', 'tests.fault_injection']\n"
        "sys.exit(run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "extract", str(tmp_path / "v"), "--weights", settings.weights]
    command += ["--out", str(tmp_path / "f"), "--imgsz", "64", "--fps", "5", "--conf", "0.2", "--max-objects", "6"]
    command += ["--backend", "torch", "--precision", "fp32", "--threads", "1"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0].splitlines()[-1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    made = [int(line.split(" done")[0]) if " done" in line else 0 for line in said]
    assert sum(made) == 6, said
    assert min(made) > 0, said
    extract(tmp_path / "v", tmp_path / "alone", settings)
    assert entry_files(tmp_path / "f") == entry_files(tmp_path / "alone")
    assert not SequenceCache(tmp_path / "f").incomplete_entries()


def test_locked_recording_is_waited_for(
    tmp_path: Path, settings: DetectorSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / "v" / f"{name}.mp4", 20 if name == "a" else 25)
    extract(tmp_path / "v" / "a.mp4", tmp_path / "ready", settings)
    cache = SequenceCache(tmp_path / "f")
    key = SequenceCache(tmp_path / "ready").lookup(tmp_path / "v" / "a.mp4", feature_settings_for(settings))
    assert key is not None
    other = Locks(cache.lock_folder)
    assert other.acquire(key.key)
    ended: list[str] = []

    def finish(result: Any) -> None:
        ended.append(result.recording.name)
        if result.recording.name == "b.mp4":
            (tmp_path / "ready" / key.key).rename(tmp_path / "f" / key.key)
            other.close()

    recordings = find_recordings([tmp_path / "v"])
    results = extract_recordings(recordings, SequenceCache(tmp_path / "f"), settings, RUNTIME, on_result=finish)
    assert ended == ["b.mp4", "a.mp4"]
    assert capsys.readouterr().err.count("a.mp4 is waiting: locked by another process\n") == 1
    assert [o.status for o in results] == ["reused", "done"]


def test_corrupt_entry_is_extracted_again(tmp_path: Path, settings: DetectorSettings) -> None:
    write_video(tmp_path / "v" / "a.mp4", 20)
    key = str(extract(tmp_path / "v", tmp_path / "f", settings)[0].key)
    whole = part_files(tmp_path / "f")
    part = tmp_path / "f" / key / "part-00000.safetensors"
    part.write_bytes(part.read_bytes()[:-10])
    assert extract(tmp_path / "v", tmp_path / "f", settings)[0].status == "done"
    assert part_files(tmp_path / "f") == whole


@pytest.mark.slow
def test_bytes_are_independent_of_omp_threads(tmp_path: Path, settings: DetectorSettings) -> None:
    """Frameworks that set OMP_NUM_THREADS for their workers do not change the bytes."""
    write_video(tmp_path / "v" / "a.mp4", 30)
    words = ["extract", str(tmp_path / "v"), "--weights", settings.weights, "--imgsz", "64", "--fps", "5"]
    words += ["--backend", "torch", "--precision", "fp32", "--threads", "2", "--out"]
    assert os.environ["OMP_NUM_THREADS"] == "1", "as tests are run"
    assert cli.run([*words, str(tmp_path / "1")]) == 0
    command = [sys.executable, "-m", "vidgru", *words, str(tmp_path / "4")]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "4"})
    assert entry_files(tmp_path / "1") == entry_files(tmp_path / "4")


# --- recordings that are submitted while others are extracted ---------------------------------------------------------


def test_late_submissions_give_the_same_bytes(tmp_path: Path, settings: DetectorSettings, quiet: ProgressBar) -> None:
    recordings = [recorded(tmp_path, f"{n}.mp4", frames) for n, frames in enumerate((21, 13, 40))]
    gone = Recording(path=tmp_path / "gone.mp4", name="gone.mp4")
    found: dict[int, ExtractionResult] = {}
    with Extractor(SequenceCache(tmp_path / "came"), settings, RUNTIME, quiet) as extractor:
        extractor.submit(3, recordings[0])
        for number, result in extractor.results():
            found[number] = result
            if number == 3:  # the next come when nothing is left to do, and from other threads
                for thread in [
                    threading.Thread(target=extractor.submit, args=one)
                    for one in ((1, recordings[1]), (0, gone), (2, recordings[2]))
                ]:
                    thread.start()
                    thread.join()
                extractor.finish()
    assert {number: result.status for number, result in found.items()} == {
        3: "done",
        1: "done",
        2: "done",
        0: "failed",
    }
    assert [found[number].recording for number in (3, 1, 2)] == recordings
    extract(tmp_path / "v", tmp_path / "at once", settings)
    assert entry_files(tmp_path / "came") == entry_files(tmp_path / "at once")


def test_leaving_the_block_stops_the_reader(tmp_path: Path, settings: DetectorSettings, quiet: ProgressBar) -> None:
    ended: list[BaseException] = []

    def read() -> None:
        try:
            list(extractor.results())
        except ExtractionStoppedError as error:
            ended.append(error)

    with Extractor(SequenceCache(tmp_path / "f"), settings, RUNTIME, quiet) as extractor:
        extractor.submit(0, recorded(tmp_path, "long.mp4", 600))
        reader = threading.Thread(target=read)
        reader.start()
        while not SequenceCache(tmp_path / "f").lock_folder.exists():
            threading.Event().wait(0.01)
    reader.join()
    assert len(ended) == 1
    assert not SequenceCache(tmp_path / "f").lock_folder.exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vidgru")]


def test_threads_setting_bounds_the_decoders(tmp_path: Path, settings: DetectorSettings, quiet: ProgressBar) -> None:
    assert len(Extractor(SequenceCache(tmp_path / "f"), settings, RUNTIME, quiet)._decoders) == RUNTIME.threads == 1


def test_segments_are_shared_only_while_the_detector_is_idle(
    tmp_path: Path, settings: DetectorSettings, quiet: ProgressBar, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = Extractor(SequenceCache(tmp_path / "f"), settings, replace(RUNTIME, threads=2), quiet)
    extractor.submit(0, Recording(path=tmp_path / "a.mp4", name="a.mp4"))
    first = extractor._next_segment()
    assert first is not None
    first.status = "running"
    points = [ResumePoint(samples=n, index=n, key_pts=n, key_index=n, image=None) for n in (10, 20, 30)]
    extractor._share(first, points)
    assert extractor._next_segment() is None, "the detector is busy"
    monkeypatch.setattr(extractor._pool, "is_idle", lambda: True)
    second = extractor._next_segment()
    assert second is not None
    assert (second.number, second.resume_from, second.end) == (1, points[0], points[1])


def test_started_recordings_precede_new_ones(tmp_path: Path, settings: DetectorSettings, quiet: ProgressBar) -> None:
    extractor = Extractor(SequenceCache(tmp_path / "f"), settings, replace(RUNTIME, threads=2), quiet)

    def next_segment() -> tuple[int, int] | None:
        segment = extractor._next_segment()
        if segment is None:
            return None
        segment.status = "running"
        return segment.state.number, segment.number

    extractor.submit(0, Recording(path=tmp_path / "a.mp4", name="a.mp4"))
    assert next_segment() == (0, 0)
    first = extractor._started[0].segments[0]
    extractor._share(first, [ResumePoint(samples=10, index=10, key_pts=10, key_index=10, image=None)])
    for number in (1, 2):
        extractor.submit(number, Recording(path=tmp_path / f"{number}.mp4", name=f"{number}.mp4"))
    assert next_segment() == (1, 0), "the start of recording 0 is being decoded, and the detector is busy"
    first.status = "done"
    assert [next_segment() for _ in range(3)] == [(0, 1), (2, 0), None]


def test_preferred_recording_is_started_next(tmp_path: Path, settings: DetectorSettings, quiet: ProgressBar) -> None:
    extractor = Extractor(SequenceCache(tmp_path / "f"), settings, RUNTIME, quiet)
    for number in range(4):
        extractor.submit(number, Recording(path=tmp_path / f"{number}.mp4", name=f"{number}.mp4"))
    order = []
    for preferred in (2, 2, 9, 3):  # waiting, started already, unknown, waiting
        extractor.prefer(preferred)
        segment = extractor._next_segment()
        assert segment is not None
        segment.status = "running"
        order.append(segment.state.number)
    assert order == [2, 0, 1, 3]


def test_decoder_killed_twice_from_outside_fails(
    tmp_path: Path, settings: DetectorSettings, quiet: ProgressBar
) -> None:
    extractor = Extractor(SequenceCache(tmp_path / "f"), settings, RUNTIME, quiet)
    extractor.submit(0, Recording(path=tmp_path / "a.mp4", name="a.mp4"))
    segment = extractor._next_segment()
    assert segment is not None
    segment.passed = 5
    death = DecoderDiedError("its decoder crashed (SIGKILL)", crashed=True, killed_from_outside=True)
    extractor._end_segment(segment, death)
    _, result = extractor._results.pop()
    assert result.status == "failed"
    assert result.reason == "its decoder crashed (SIGKILL) twice at one place: out of memory? Run again to resume it"


def test_lost_resume_point_fails_after_earlier_segments(
    tmp_path: Path, settings: DetectorSettings, quiet: ProgressBar
) -> None:
    extractor = Extractor(SequenceCache(tmp_path / "f"), settings, RUNTIME, quiet)
    extractor.submit(0, Recording(path=tmp_path / "a.mp4", name="a.mp4"))
    first = extractor._next_segment()
    assert first is not None
    first.status = "running"
    extractor._share(first, [ResumePoint(samples=10, index=10, key_pts=None, key_index=0, image=None)])
    second = first.state.segments[1]
    second.status = "done"
    extractor._end_segment(second, ResumePointNotFoundError())
    assert not extractor._results, "the first segment may still be extended over the second"
    first.status = "done"
    extractor._end_segment(first, "complete")
    _, result = extractor._results.pop()
    assert (result.status, result.reason) == (
        "failed",
        "does not decode to the same frames twice; convert it with ffmpeg",
    )


def test_recording_taken_over_by_another_process_fails(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*arguments: object, **facts: object) -> None:
        raise LockLostError("its folder is gone")

    write_video(tmp_path / "v" / "a.mp4", 12)
    monkeypatch.setattr(EntryWriter, "finish", lose)
    (result,) = extract(tmp_path / "v", tmp_path / "f", settings)
    assert result.status == "failed"
    assert result.reason.startswith("was taken over by another process while this one was suspended; run again")
