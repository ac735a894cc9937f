"""What a run would do, told beforehand."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.extraction.extraction_runs import RUNTIME, extract
from tests.videos import write_video
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings
from vidgru.extraction import estimate as module
from vidgru.extraction.estimate import estimate
from vidgru.sources import find_recordings


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
    found = estimate(find_recordings([videos]), SequenceCache(features), settings, RUNTIME)
    assert sorted(features.rglob("*")) == before, "nothing is written"
    assert (found.recordings, found.unknown) == (5, 0)
    assert found.there == 0, "a file this young is hashed again, which an estimate does not do"
    assert len(found.unreadable) == 1
    assert found.unreadable[0].startswith("e.mp4: is not a readable video")
    assert found.video_s == pytest.approx(2 + 6 + 4 + 3, abs=0.1)
    assert found.samples == round(found.video_s * 5)
    assert found.tried == ("b.mp4", "d.mp4"), "the longest of each size"
    assert found.bytes is not None
    entry = next(SequenceCache(features).entries())
    a_sample = entry.parts[0].bytes / entry.samples
    assert 0.3 * a_sample < found.bytes / found.samples < 3 * a_sample
    assert found.seconds is not None
    assert found.seconds > 0
    assert "5 recordings, 0 of them extracted already, 4 to do" in str(found)


def test_estimate_knows_cached_recordings_unread(tmp_path: Path, tiny_weights: Callable[[str], Path]) -> None:
    settings = DetectorSettings(weights=str(tiny_weights("yolo26n")), imgsz=64, fps=5)
    path = write_video(tmp_path / "v" / "a.mp4", 20)
    os.utime(path, (1e9, 1e9))
    extract(path, tmp_path / "f", settings)
    found = estimate(find_recordings([path]), SequenceCache(tmp_path / "f"), settings, RUNTIME)
    assert (found.there, found.samples, found.bytes, found.seconds, found.tried) == (1, 0, None, None, ())
    assert str(found).splitlines() == ["1 recordings, 1 of them extracted already, 0 to do", "0.00 hours, 0 samples"]


def test_estimate_survives_a_crashing_decoder(
    tmp_path: Path, tiny_weights: Callable[[str], Path], faults: None
) -> None:
    settings = DetectorSettings(weights=str(tiny_weights("yolo26n")), imgsz=64, fps=5)
    write_video(tmp_path / "v" / "early.mp4", 20)
    found = estimate(find_recordings([tmp_path / "v"]), SequenceCache(tmp_path / "f"), settings, RUNTIME)
    assert found.unreadable == ("early.mp4: its decoder crashed (SIGSEGV)",)
