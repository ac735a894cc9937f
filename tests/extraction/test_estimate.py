"""Estimates of what a run would do."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.extraction.extraction_runs import RUNTIME, extract
from tests.still_videos import write_still
from tests.videos import write_video
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings
from vidgru.errors import RecordingError
from vidgru.extraction import estimate as module
from vidgru.extraction.decode_process import DecoderProcess
from vidgru.extraction.estimate import estimate
from vidgru.sources import find_recordings
from vidgru.video.container import VideoInfo


def test_estimate_of_a_folder(
    tmp_path: Path, tiny_weights: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHORT", 5)
    monkeypatch.setattr(module, "_LONG", 15)
    settings = DetectorSettings(weights=str(tiny_weights("yolo26n")), imgsz=64, fps=5)
    videos, features = tmp_path / "v", tmp_path / "f"
    done = write_video(videos / "a.mp4", 20)
    extract(done, features, settings)
    write_video(videos / "b.mp4", 60)
    write_video(videos / "c.mp4", 40)
    write_video(videos / "d.mp4", 30, size_px=(96, 160))
    (videos / "e.mp4").write_text("no video")
    before = sorted(features.rglob("*"))
    cache = SequenceCache(features)
    monkeypatch.setattr(cache, "sha256", Mock(side_effect=AssertionError("an estimate hashes nothing")))
    estimated = estimate(find_recordings([videos]), cache, settings, RUNTIME)
    assert sorted(features.rglob("*")) == before, "nothing is written"
    assert (estimated.recordings, estimated.unknown) == (5, 0)
    assert estimated.cached == 0, "a file this young is hashed again, which an estimate does not do"
    assert len(estimated.unreadable) == 1
    assert estimated.unreadable[0].startswith("e.mp4: is not a readable video")
    assert estimated.video_s == pytest.approx(2 + 6 + 4 + 3, abs=0.1)
    assert estimated.samples == round(estimated.video_s * 5)
    assert estimated.tried == ("b.mp4", "d.mp4"), "the longest of each size"
    assert estimated.bytes is not None
    entry = next(SequenceCache(features).entries())
    bytes_per_sample = entry.parts[0].bytes / entry.samples
    assert 0.3 * bytes_per_sample < estimated.bytes / estimated.samples < 3 * bytes_per_sample
    assert estimated.seconds is not None
    assert estimated.seconds > 0
    assert "5 recordings, 0 of them cached, 4 to do" in str(estimated)
    assert estimated.still is None, "they are shorter than a minute"


def test_estimate_knows_cached_recordings_unread(tmp_path: Path, tiny_weights: Callable[[str], Path]) -> None:
    settings = DetectorSettings(weights=str(tiny_weights("yolo26n")), imgsz=64, fps=5)
    path = write_video(tmp_path / "v" / "a.mp4", 20)
    os.utime(path, (1e9, 1e9))
    extract(path, tmp_path / "f", settings)
    estimated = estimate(find_recordings([path]), SequenceCache(tmp_path / "f"), settings, RUNTIME)
    assert (estimated.cached, estimated.samples) == (1, 0)
    assert (estimated.bytes, estimated.seconds, estimated.tried) == (None, None, ())
    assert str(estimated).splitlines() == ["1 recording, 1 of them cached, 0 to do", "0.00 hours, 0 samples"]


@pytest.mark.slow
def test_estimate_of_still_recordings(tmp_path: Path, tiny_weights: Callable[[str], Path]) -> None:
    settings = DetectorSettings(weights=str(tiny_weights("yolo26n")), imgsz=64, fps=5)
    path = write_still(tmp_path / "v" / "a.mp4")
    full, adaptive = (
        estimate(find_recordings([path]), SequenceCache(tmp_path / "f"), chosen, RUNTIME)
        for chosen in (settings, replace(settings, adaptive=True))
    )
    assert full.still == adaptive.still
    assert full.still is not None
    assert 0.5 < full.still < 0.95
    assert "still as far as packets show: " in str(full)
    assert full.adaptive_seconds is not None
    assert full.seconds is not None
    assert full.adaptive_seconds > 0
    assert full.bytes is not None
    assert adaptive.bytes is not None
    assert adaptive.bytes < 0.6 * full.bytes


def test_estimate_survives_a_crashing_decoder(
    tmp_path: Path, tiny_weights: Callable[[str], Path], faults: None
) -> None:
    settings = DetectorSettings(weights=str(tiny_weights("yolo26n")), imgsz=64, fps=5)
    write_video(tmp_path / "v" / "early.mp4", 20)
    estimated = estimate(find_recordings([tmp_path / "v"]), SequenceCache(tmp_path / "f"), settings, RUNTIME)
    assert estimated.unreadable == ("early.mp4: its decoder crashed (SIGSEGV)",)


def test_estimate_reads_several_recordings_at_a_time(
    tmp_path: Path, tiny_weights: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=60)  # one decoder alone would wait until this breaks

    def probe(decoder: DecoderProcess, path: Path) -> VideoInfo:
        both.wait()
        if path.name == "3.mp4":
            raise RecordingError("is not a readable video")
        rest = {"rotation": 0, "fps": 10.0, "frames": None, "codec": "h264", "container": "mp4", "recorded_at": None}
        return VideoInfo(size_px=(64, 64), duration_s=float(path.stem), **rest)

    monkeypatch.setattr(DecoderProcess, "probe", probe)
    monkeypatch.setattr(module, "_try_run", lambda recordings, *settings: (None, None))
    for number in range(6):
        (tmp_path / f"{number}.mp4").write_bytes(b"video")
    settings = DetectorSettings(weights=str(tiny_weights("yolo26n")), imgsz=64, fps=5)
    run = replace(RUNTIME, threads=2)
    estimated = estimate(find_recordings([tmp_path]), SequenceCache(tmp_path / "f"), settings, run)
    assert estimated.unreadable == ("3.mp4: is not a readable video",)
    assert (estimated.video_s, estimated.tried) == (0 + 1 + 2 + 4 + 5, ("5.mp4",))
