"""Whole runs on small videos: outcomes, entries, reuse, same bytes, damage, interruption."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.videos import faststart, rotate_mp4, write_video
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.detector.motion import MOTION_COLUMNS, SCENE_MOTION_COLUMNS
from vidgru.detector.tracker import Tracker
from vidgru.errors import WeightsError
from vidgru.extraction import decode_process as decoder
from vidgru.extraction import pipeline
from vidgru.extraction.pipeline import ExtractionResult, extract_recordings, feature_settings_for, summary_table
from vidgru.sources import find_recordings
from vidgru.types import Recording

Weights = Callable[[str], Path]

HOW = RuntimeSettings(backend="torch", precision="fp32", threads=1)


@pytest.fixture
def settings(tiny_weights: Weights) -> DetectorSettings:
    return DetectorSettings(weights=str(tiny_weights("yolov8n-pose")), imgsz=64, fps=5, conf=0.2, max_objects=6)


def run(
    folder: Path, cache: Path, settings: DetectorSettings, run_info: RuntimeSettings | None = None, **options: Any
) -> list[ExtractionResult]:
    run_info = run_info or HOW
    return extract_recordings(
        find_recordings([folder]), SequenceCache(cache), settings, run_info, progress=False, **options
    )


def small_parts(monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
    for where in ("cache.writer", "extraction.decode_task", "extraction.pipeline"):
        monkeypatch.setattr(f"vidgru.{where}.PART_SAMPLES", samples)


def parts(cache: Path) -> dict[str, bytes]:
    return {str(p.relative_to(cache)): p.read_bytes() for p in sorted(cache.rglob("part-*.safetensors"))}


def test_a_folder_of_videos(tmp_path: Path, settings: DetectorSettings) -> None:
    write_video(tmp_path / "v" / "a.mp4", 40)
    write_video(tmp_path / "v" / "sub" / "b.mkv", 25, size_px=(96, 160))
    rotate_mp4(write_video(tmp_path / "v" / "c.mp4", 15, size_px=(320, 192)), 90)
    ended: list[str] = []
    outcomes = run(tmp_path / "v", tmp_path / "f", settings, on_result=lambda o: ended.append(o.recording.name))
    assert [o.recording.name for o in outcomes] == ["a.mp4", "c.mp4", "sub/b.mkv"]
    assert sorted(ended) == ["a.mp4", "c.mp4", "sub/b.mkv"]
    assert [(o.status, o.samples, o.reason) for o in outcomes] == [("done", 20, ""), ("done", 8, ""), ("done", 13, "")]
    cache = SequenceCache(tmp_path / "f")
    for outcome, size in zip(outcomes, [(160, 96), (192, 320), (96, 160)], strict=True):
        assert outcome.key is not None
        entry, sequence = cache.entry(outcome.key), cache.read(outcome.key)
        assert entry is not None
        assert cache.verify(outcome.key) == []
        assert (entry.status, entry.size_px, entry.damage, entry.recorded_at) == ("done", size, {}, None)
        assert entry.feature_settings == feature_settings_for(settings)
        assert entry.run_info["backend"] == "torch"
        assert (entry.run_info["precision"], entry.run_info["device"], entry.run_info["threads"]) == ("fp32", "cpu", 1)
        assert (
            entry.run_info["versions"]["torch"] == torch.__version__.split("+")[0]
            or entry.run_info["versions"]["torch"]
        )
        assert len(sequence) == outcome.samples
        assert sequence.names == ("person", "car", "bag")
        np.testing.assert_allclose(sequence.time_s, np.arange(outcome.samples) / 5, atol=1e-9)
        np.testing.assert_array_equal(sequence.frame_index, np.arange(outcome.samples) * 2)
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


def test_what_is_there_is_not_decoded_again(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "v" / "a.mp4", 12)
    first = run(tmp_path / "v", tmp_path / "f", settings)
    monkeypatch.setattr(decoder, "COMMAND", ["false"])
    monkeypatch.setattr("vidgru.detector.backends.open_backend", None)
    again = run(tmp_path / "v", tmp_path / "f", settings)
    assert [(o.status, o.key, o.samples) for o in again] == [("reused", first[0].key, first[0].samples)]
    (tmp_path / "v" / "a.mp4").rename(tmp_path / "v" / "moved.mp4")
    assert run(tmp_path / "v", tmp_path / "f", settings)[0].status == "reused"


@pytest.mark.parametrize(
    "changed", [{"fps": 4.0}, {"imgsz": 96}, {"conf": 0.3}, {"iou": 0.2}, {"max_objects": 3}, {"tracker": "none"}]
)
def test_every_setting_that_decides_the_features_makes_its_own_entry(
    tmp_path: Path, settings: DetectorSettings, changed: dict[str, Any]
) -> None:
    write_video(tmp_path / "v" / "a.mp4", 12)
    values = {name: getattr(settings, name) for name in DetectorSettings.__dataclass_fields__} | {"max_objects": 300}
    before = run(tmp_path / "v", tmp_path / "f", DetectorSettings(**values))[0]
    after = run(tmp_path / "v", tmp_path / "f", DetectorSettings(**values | changed))[0]
    assert after.status == "done"
    assert after.key != before.key
    cache = SequenceCache(tmp_path / "f")
    assert before.key is not None
    assert after.key is not None
    old, new = cache.read(before.key).tensors(), cache.read(after.key).tensors()
    assert any(not np.array_equal(old[name], new[name]) for name in old), "the setting is used"


def test_equal_recordings_share_an_entry(tmp_path: Path, settings: DetectorSettings) -> None:
    write_video(tmp_path / "v" / "a.mp4", 12)
    for name in ("b.mp4", "c.mp4"):
        (tmp_path / "v" / name).write_bytes((tmp_path / "v" / "a.mp4").read_bytes())
    outcomes = run(tmp_path / "v", tmp_path / "f", settings)
    assert sorted(o.status for o in outcomes) == ["done", "reused", "reused"]
    assert len({o.key for o in outcomes}) == 1
    assert len(SequenceCache(tmp_path / "f").sources()[str(outcomes[0].key)]) == 3


def test_bytes_do_not_depend_on_company_batch_filling_or_threads(tmp_path: Path, settings: DetectorSettings) -> None:
    for number, frames in enumerate((13, 31, 22)):
        write_video(tmp_path / "v" / f"{number}.mp4", frames, options={"crf": str(18 + number)})
    write_video(tmp_path / "v" / "tall.mp4", 9, size_px=(96, 160))
    run(tmp_path / "v", tmp_path / "together", settings)
    run(tmp_path / "v", tmp_path / "threads", settings, replace(HOW, threads=3))
    for video in sorted((tmp_path / "v").iterdir()):
        run(video, tmp_path / "alone", settings)
    assert len(parts(tmp_path / "together")) == 4
    assert parts(tmp_path / "alone") == parts(tmp_path / "together")
    assert parts(tmp_path / "threads") == parts(tmp_path / "together")
    entries = [
        {p.parent.name: p.read_bytes() for p in (tmp_path / f).rglob("entry.json")} for f in ("alone", "together")
    ]
    assert entries[0] == entries[1]


def test_one_bad_file_costs_only_itself(tmp_path: Path, settings: DetectorSettings) -> None:
    write_video(tmp_path / "v" / "good.mp4", 12)
    (tmp_path / "v" / "text.mp4").write_text("hello\n" * 200)
    (tmp_path / "v" / "empty.mp4").touch()
    long = faststart(write_video(tmp_path / "long.mp4", 100))
    (tmp_path / "v" / "cut.mp4").write_bytes(long.read_bytes()[: long.stat().st_size * 2 // 3])
    outcomes = {o.recording.name: o for o in run(tmp_path / "v", tmp_path / "f", settings)}
    assert {name: o.status for name, o in outcomes.items()} == {
        "good.mp4": "done",
        "text.mp4": "failed",
        "empty.mp4": "failed",
        "cut.mp4": "partial",
    }
    assert outcomes["text.mp4"].key is None
    assert "is not a readable video" in outcomes["text.mp4"].reason
    assert "is empty" in outcomes["empty.mp4"].reason
    assert "s missing" in outcomes["cut.mp4"].reason
    assert outcomes["cut.mp4"].samples > 10
    entry = SequenceCache(tmp_path / "f").entry(str(outcomes["cut.mp4"].key))
    assert entry is not None
    assert entry.status == "partial"
    assert entry.damage["missing_tail_s"] > 1
    table = summary_table(list(outcomes.values()))
    assert "failed   text.mp4: is not a readable video" in table
    assert table.splitlines()[-1].startswith("1 done, 1 partial, 2 failed:")
    again = {o.recording.name: o for o in run(tmp_path / "v", tmp_path / "f", settings)}
    assert again["cut.mp4"].status == "reused"
    assert "s missing" in again["cut.mp4"].reason, "that it is damaged is not forgotten"


def test_a_file_that_changes_while_it_is_read_fails(tmp_path: Path, settings: DetectorSettings, faults: None) -> None:
    write_video(tmp_path / "v" / "touch.mp4", 30)
    outcome = run(tmp_path / "v", tmp_path / "f", settings)[0]
    assert (outcome.status, outcome.key) == ("failed", None)
    assert outcome.reason.startswith("changed while it was read")
    assert not list((tmp_path / "f").rglob("part-*")), "nothing half is left"


def test_a_recording_that_is_gone_fails(tmp_path: Path, settings: DetectorSettings) -> None:
    recording = Recording(path=tmp_path / "gone.mp4", name="gone.mp4")
    outcomes = extract_recordings([recording], SequenceCache(tmp_path / "f"), settings, HOW, progress=False)
    assert outcomes[0].status == "failed"
    assert "cannot be opened: No such file" in outcomes[0].reason


@pytest.mark.parametrize(
    "where", ["vidgru.extraction.pipeline.Tracker", "vidgru.extraction.detector_pool.object_motion"]
)
def test_a_bug_is_not_a_bad_file(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def broken(*arguments: object) -> None:
        raise KeyError("a bug")

    write_video(tmp_path / "v" / "a.mp4", 12)
    monkeypatch.setattr(where, broken)
    with pytest.raises(KeyError, match="a bug"):
        run(tmp_path / "v", tmp_path / "f", settings)
    assert not [t for t in threading.enumerate() if t.name.startswith("vidgru")], "no thread is left"


def test_a_bug_in_a_decoder_process_costs_the_recording_and_is_told(
    tmp_path: Path, settings: DetectorSettings, faults: None, capfd: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "v" / "bug.mp4", 30)
    write_video(tmp_path / "v" / "good.mp4", 20)
    bug, good = run(tmp_path / "v", tmp_path / "f", settings)
    assert (bug.status, good.status) == ("failed", "done")
    assert bug.reason == "stumbles over a fault in vidgru, please report it: KeyError('a bug')"
    assert "Traceback" in capfd.readouterr().err


def test_equal_recordings_do_not_share_what_befalls_one_of_them(
    tmp_path: Path, settings: DetectorSettings, faults: None
) -> None:
    first = write_video(tmp_path / "v" / "touch.mp4", 30)
    (tmp_path / "v" / "twin.mp4").write_bytes(first.read_bytes())
    # one thread and one decoder: the first is begun first
    touched, twin = run(tmp_path / "v", tmp_path / "f", settings, replace(HOW, detector_batch=2, threads=1))
    assert (touched.status, twin.status) == ("failed", "done")


def test_decoder_processes_that_cannot_start_are_no_bad_file(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "v" / "a.mp4", 12)
    monkeypatch.setattr(decoder, "COMMAND", ["false"])
    with pytest.raises(RuntimeError, match="decoder processes cannot be started: its decoder ended with exit code 1"):
        run(tmp_path / "v", tmp_path / "f", settings)


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path, settings: DetectorSettings) -> None:
    write_video(tmp_path / "v" / "a.mp4", 5)
    write_video(tmp_path / "v" / "b.mp4", 400)

    def interrupt(outcome: ExtractionResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "v", tmp_path / "f", settings, replace(HOW, detector_batch=2), on_result=interrupt)
    entries = list(SequenceCache(tmp_path / "f").entries())
    assert len(entries) == 1
    assert {path.name for path in (tmp_path / "f").glob("[!.]*")} == {entries[0].key, "index.jsonl", "summary.jsonl"}
    assert not SequenceCache(tmp_path / "f").incomplete_entries()
    assert sorted(o.status for o in run(tmp_path / "v", tmp_path / "f", settings)) == ["done", "reused"]


def test_parts_are_cut_and_tracks_replay_over_them(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "v" / "a.mp4", 60)
    run(tmp_path / "v", tmp_path / "whole", settings)
    small_parts(monkeypatch, 7)
    monkeypatch.setattr(pipeline, "_CHUNK_SAMPLES", 4)
    outcome = run(tmp_path / "v", tmp_path / "cut", settings)[0]
    assert outcome.key is not None
    cut, whole = SequenceCache(tmp_path / "cut"), SequenceCache(tmp_path / "whole").read(outcome.key)
    assert [len(part) for part in cut.parts(outcome.key)] == [7, 7, 7, 7, 2]
    for name, tensor in cut.read(outcome.key).tensors().items():
        np.testing.assert_array_equal(tensor, whole.tensors()[name], err_msg=name)
    tracker, ids = Tracker(settings.tracker, whole.size_px), []
    for part in cut.parts(outcome.key):
        for t in range(len(part)):
            frame = part.frames(t, t + 1)
            ids.append(tracker.update(frame.boxes, frame.scores, frame.classes))
    np.testing.assert_array_equal(np.concatenate(ids), whole.tracks)


@pytest.mark.parametrize("kind", ["yolo26n", "yolov8n-obb", "yolo11n-seg"])
def test_other_kinds_of_detectors(tmp_path: Path, tiny_weights: Weights, kind: str) -> None:
    write_video(tmp_path / "v" / "a.mp4", 12)
    settings = DetectorSettings(weights=str(tiny_weights(kind)), imgsz=64, fps=5, tracker="ocsort")
    outcome = run(tmp_path / "v", tmp_path / "f", settings)[0]
    sequence = SequenceCache(tmp_path / "f").read(str(outcome.key))
    assert (sequence.angle is not None) == (kind == "yolov8n-obb")
    assert sequence.keypoints is None


def test_nothing_seen_at_all(tmp_path: Path, settings: DetectorSettings) -> None:
    write_video(tmp_path / "v" / "a.mp4", 12)
    values = {name: getattr(settings, name) for name in DetectorSettings.__dataclass_fields__}
    outcome = run(tmp_path / "v", tmp_path / "f", DetectorSettings(**values | {"conf": 0.9999}))[0]
    sequence = SequenceCache(tmp_path / "f").read(str(outcome.key))
    assert (len(sequence), len(sequence.boxes)) == (6, 0)
    assert sequence.keypoints is not None
    assert sequence.keypoints.shape == (0, 17, 3)


def test_many_shapes_at_once(tmp_path: Path, settings: DetectorSettings) -> None:
    sizes = [(160, 96), (96, 160), (128, 128), (160, 32), (64, 160), (160, 64), (32, 160)]
    for number, size in enumerate(sizes):
        write_video(tmp_path / "v" / f"{number}.mp4", 7, size_px=size)
    outcomes = run(tmp_path / "v", tmp_path / "f", settings)
    assert [(o.status, o.samples) for o in outcomes] == [("done", 4)] * len(sizes)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_progress_bar_is_for_terminals(
    tmp_path: Path,
    settings: DetectorSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    terminal: bool,
) -> None:
    write_video(tmp_path / "v" / "a.mp4", 12)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    extract_recordings(find_recordings([tmp_path / "v"]), SequenceCache(tmp_path / "f"), settings, HOW)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("1/1 recordings" in shown.err) == terminal
    assert "frames/s, " in shown.err or not terminal
    assert "detector: yolov8n-pose.pt, torch fp32 on cpu, 1 threads\n" in shown.err
    assert ("100%" in shown.err) == terminal


def test_nothing_to_do(tmp_path: Path, settings: DetectorSettings) -> None:
    assert extract_recordings([], SequenceCache(tmp_path / "f"), settings, HOW, progress=False) == []
    assert not (tmp_path / "f").exists()
    assert summary_table([]).startswith("nothing to do")


def test_of_many_that_ended_alike_a_few_are_named() -> None:
    def failed(name: str, reason: str) -> ExtractionResult:
        recording = Recording(path=Path(name), name=name)
        return ExtractionResult(
            recording=recording, status="failed", key=None, samples=0, duration_s=None, reason=reason, seconds=0.0
        )

    ended = [failed(f"{n}.mp4", "is empty") for n in range(9)]
    ended.insert(1, failed("odd.mp4", "is a text"))
    assert summary_table(ended).splitlines() == [
        "failed   0.mp4: is empty",
        "failed   1.mp4: is empty",
        "failed   2.mp4: is empty",
        "failed   6 more: is empty",
        "failed   odd.mp4: is a text",
        "10 failed: 0.00 hours of video, 0 samples",
    ]
    assert "more" not in summary_table(ended[:5]), "a line that says 1 more could as well name it"
    many = summary_table([failed(f"{n}.mp4", f"reason {n}") for n in range(30)]).splitlines()
    assert many[20:] == ["... and 10 more in summary.jsonl", "30 failed: 0.00 hours of video, 0 samples"]


def test_missing_weights_stop_the_run_before_it_starts(tmp_path: Path) -> None:
    write_video(tmp_path / "v" / "a.mp4", 5)
    with pytest.raises(WeightsError, match="no such weights file"):
        run(tmp_path / "v", tmp_path / "f", DetectorSettings(weights=str(tmp_path / "none.pt")))
    assert not (tmp_path / "f").exists()


def test_thread_settings_of_the_process_are_given_back(tmp_path: Path, settings: DetectorSettings) -> None:
    write_video(tmp_path / "v" / "a.mp4", 5)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    run(tmp_path / "v", tmp_path / "f", settings)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
