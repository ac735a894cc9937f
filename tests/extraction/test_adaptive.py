"""Adaptive extraction: still stretches are not decoded, and what is equals full extraction."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import av
import numpy as np
import pytest

from tests.extraction.extraction_runs import RUNTIME, entry_files, extract, part_files, set_part_samples
from tests.still_videos import WALK_S, write_still
from vidgru.cache import SequenceCache
from vidgru.cache.writer import EntryWriter
from vidgru.config import DetectorSettings
from vidgru.extraction.decode_process import DecoderDiedError, DecoderProcess
from vidgru.extraction.decode_task import RecordingState
from vidgru.types import FrameSequence, Recording


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_still(tmp_path_factory.mktemp("still") / "walk.mp4", bf="2")


@pytest.fixture
def adaptive(settings: DetectorSettings) -> DetectorSettings:
    return replace(settings, adaptive=True)


def read(cache: Path, key: str | None) -> FrameSequence:
    assert key is not None
    assert SequenceCache(cache).verify(key) == []
    return SequenceCache(cache).read(key)


def frame_equal(first: FrameSequence, second: FrameSequence) -> bool:
    names = ("boxes", "scores", "classes", "appearance", "scene")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)


def test_adaptive_extraction_agrees_with_full_extraction(
    tmp_path: Path, walk: Path, settings: DetectorSettings, adaptive: DetectorSettings
) -> None:
    (full,), (result,) = extract(walk, tmp_path / "full", settings), extract(walk, tmp_path / "a", adaptive)
    assert (result.status, result.samples, result.reason) == ("done", 400, "")
    assert 200 < result.still < 390
    assert result.key != full.key
    expected, sequence = read(tmp_path / "full", full.key), read(tmp_path / "a", result.key)
    assert sequence.still is not None
    assert expected.still is None
    assert sequence.still.sum() == result.still
    for name in ("time_s", "frame_index"):
        assert np.array_equal(getattr(sequence, name), getattr(expected, name))
    assert not sequence.still[(sequence.time_s >= WALK_S[0]) & (sequence.time_s < WALK_S[1])].any()
    for t in range(len(sequence)):
        frame, other = sequence.frames(t, t + 1), expected.frames(t, t + 1)
        if sequence.still[t]:
            other = sequence.frames(t - 1, t)
            assert not frame.motion.any()  # type: ignore[union-attr]
            assert not frame.scene_motion.any()  # type: ignore[union-attr]
        elif not frame_equal(frame, other):  # it looks like the one before
            other = sequence.frames(t - 1, t)
        assert frame_equal(frame, other), t
        if sequence.still[t]:
            assert np.array_equal(frame.tracks, other.tracks)
        elif not sequence.still[t - 1]:
            assert np.array_equal(frame.scene_motion, expected.scene_motion[t : t + 1])  # type: ignore[index]


def test_tracks_outlast_still_stretches() -> None:
    def track(*columns: int) -> list[int]:
        boxes = np.array([(x / 10, 0.4, x / 10 + 0.1, 0.6) for x in columns], np.float32)
        objects = boxes, np.full(len(boxes), 0.9, np.float16), np.zeros(len(boxes), np.int16)
        latest[:] = objects
        return state.track("bytetrack", (640, 360), *objects).tolist()

    latest: list[np.ndarray] = []
    state = RecordingState(number=0, recording=Recording(path=Path("a.mp4"), name="a.mp4"))
    assert track(1, 5) == [1, 2]
    assert track(1) == [1]  # the other one leaves
    for samples in (1, 500, 2048):
        state.track_still(*latest, samples)
    track(1, 5)
    assert track(1, 5) == [1, 3]  # somebody else is there, an hour later


@pytest.mark.slow
def test_short_recording_is_decoded_completely(
    tmp_path: Path, settings: DetectorSettings, adaptive: DetectorSettings
) -> None:
    path = write_still(tmp_path / "a.mp4", 4)
    (full,), (result,) = extract(path, tmp_path / "full", settings), extract(path, tmp_path / "a", adaptive)
    assert result.reason == "decoded completely: it is shorter than a minute"
    assert result.still == 0
    sequence = read(tmp_path / "a", result.key)
    assert np.array_equal(sequence.boxes, read(tmp_path / "full", full.key).boxes)
    assert sequence.still is not None
    (again,) = extract(path, tmp_path / "a", adaptive)
    assert (again.status, again.reason) == ("reused", result.reason)


def die_once_while_planning(monkeypatch: pytest.MonkeyPatch, *, crashed: bool) -> None:
    """Have the first decoder die that plans."""
    request = DecoderProcess.request
    deaths = []

    def die_while_planning(self: DecoderProcess, message: dict[str, Any]) -> Iterator[Any]:
        if message["kind"] == "plan" and not deaths:
            deaths.append(message)
            raise DecoderDiedError("its decoder crashed (SIGSEGV)", crashed=crashed)
        yield from request(self, message)

    monkeypatch.setattr(DecoderProcess, "request", die_while_planning)


@pytest.mark.slow
@pytest.mark.parametrize("crashed", [True, False])
def test_decoder_that_crashes_while_planning(
    tmp_path: Path, adaptive: DetectorSettings, monkeypatch: pytest.MonkeyPatch, crashed: bool
) -> None:
    die_once_while_planning(monkeypatch, crashed=crashed)
    (result,) = extract(write_still(tmp_path / "a.mp4", 4), tmp_path / "f", adaptive)
    assert result.status == "done"
    reason = "its decoder crashed (SIGSEGV) at its packets or key frames" if crashed else "it is shorter than a minute"
    assert result.reason == f"decoded completely: {reason}"


def interrupt_after(monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    """Have a run fail as it writes the part after this number of parts."""
    original = EntryWriter._write_part

    def write_part(self: EntryWriter, samples: int) -> None:
        if len(self._parts) == parts:
            raise KeyboardInterrupt
        original(self, samples)

    monkeypatch.setattr(EntryWriter, "_write_part", write_part)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 2, 4, 6])
def test_interrupted_adaptive_run_resumes_with_equal_bytes(
    tmp_path: Path, walk: Path, adaptive: DetectorSettings, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    set_part_samples(monkeypatch, 56)  # parts begin within still stretches, and within others
    extract(walk, tmp_path / "whole", adaptive)
    with monkeypatch.context() as patch:
        interrupt_after(patch, parts)
        with pytest.raises(KeyboardInterrupt):
            extract(walk, tmp_path / "a", adaptive)
    assert len(list((tmp_path / "a").rglob("part-*"))) == parts
    (result,) = extract(walk, tmp_path / "a", adaptive)
    assert result.status == "done"
    assert entry_files(tmp_path / "a") == entry_files(tmp_path / "whole")


@pytest.mark.slow
def test_interrupted_before_the_entry_is_finished(
    tmp_path: Path, walk: Path, adaptive: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_part_samples(monkeypatch, 50)  # 8 full parts: nothing is left to be written with `entry.json`
    extract(walk, tmp_path / "whole", adaptive)
    with monkeypatch.context() as patch:
        patch.setattr(EntryWriter, "finish", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            extract(walk, tmp_path / "a", adaptive)
    assert len(list((tmp_path / "a").rglob("part-*"))) == 8
    (result,) = extract(walk, tmp_path / "a", adaptive)
    assert (result.status, result.samples) == ("done", 400)
    assert entry_files(tmp_path / "a") == entry_files(tmp_path / "whole")


@pytest.mark.slow
def test_crash_while_planning_again_drops_planned_parts(
    tmp_path: Path, walk: Path, adaptive: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_part_samples(monkeypatch, 56)
    for name, parts in (("undisturbed", 0), ("a", 4)):
        if parts:
            with monkeypatch.context() as patch:
                interrupt_after(patch, parts)
                with pytest.raises(KeyboardInterrupt):
                    extract(walk, tmp_path / name, adaptive)
        with monkeypatch.context() as patch:
            die_once_while_planning(patch, crashed=True)
            (result,) = extract(walk, tmp_path / name, adaptive)
        assert (result.status, result.samples, result.still) == ("done", 400, 0)
        assert "decoded completely: its decoder crashed" in result.reason
        assert read(tmp_path / name, result.key).time_s[0] == 0
    assert entry_files(tmp_path / "a") == entry_files(tmp_path / "undisturbed")


@pytest.mark.slow
def test_adaptive_bytes_are_independent_of_threads(
    tmp_path: Path, walk: Path, adaptive: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidgru.extraction.decode_task.SEGMENT_SAMPLES", 16)  # the walk is shared among decoders
    for threads in (1, 3):
        extract(walk, tmp_path / str(threads), adaptive, replace(RUNTIME, threads=threads))
    assert part_files(tmp_path / "1") == part_files(tmp_path / "3")


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 3])
def test_damage_in_a_decoded_stretch_gives_up_the_plan(
    tmp_path: Path, walk: Path, settings: DetectorSettings, adaptive: DetectorSettings, threads: int
) -> None:
    path = tmp_path / "a.mp4"
    data = bytearray(walk.read_bytes())
    with av.open(str(walk)) as container:
        packet = next(p for p in container.demux(video=0) if p.pts * p.time_base >= WALK_S[0] + 1)
        data[packet.pos + 8 : packet.pos + packet.size] = bytes(packet.size - 8)
    path.write_bytes(data)
    runtime = replace(RUNTIME, threads=threads)
    (full,) = extract(path, tmp_path / "full", settings, runtime)
    (result,) = extract(path, tmp_path / "a", adaptive, runtime)
    assert result.status == full.status == "partial"
    assert result.reason.startswith(full.reason)
    assert "decoded completely: damage" in result.reason
    sequence, expected = read(tmp_path / "a", result.key), read(tmp_path / "full", full.key)
    assert np.array_equal(sequence.boxes, expected.boxes)
    assert np.array_equal(sequence.tracks, expected.tracks)


@pytest.mark.slow
def test_summary_counts_still_samples(tmp_path: Path, walk: Path, adaptive: DetectorSettings) -> None:
    (result,) = extract(walk, tmp_path, adaptive)
    (row,) = map(json.loads, (tmp_path / "summary.jsonl").read_text().splitlines())
    assert row["still"] == result.still
