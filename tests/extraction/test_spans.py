"""Spans: only a part of a recording is decoded, and its samples are those of full extraction."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.extraction.extraction_runs import RUNTIME, entry_files, part_files, set_part_samples
from tests.still_videos import draw_walk, write_still
from tests.videos import draw_counter
from vidgru.cache import Entry, SequenceCache
from vidgru.cache.writer import EntryWriter
from vidgru.config import DetectorSettings
from vidgru.extraction.decode_process import DecoderDiedError, DecoderProcess
from vidgru.extraction.pipeline import ExtractionResult, Extractor
from vidgru.extraction.results import ProgressBar
from vidgru.types import Recording, Span


class LineListener(ProgressBar):
    """Keeps the lines for the user."""

    def __init__(self, path: Path) -> None:
        super().__init__([path], False)
        self.lines: list[str] = []

    def log(self, line: str) -> None:
        self.lines.append(line)


def extract_span(
    path: Path, cache: Path, settings: DetectorSettings, span: Span | None, threads: int = 1
) -> tuple[ExtractionResult, list[str]]:
    """Extract a span of a video; returns also the lines for the user."""
    listener = LineListener(path)
    with Extractor(SequenceCache(cache), settings, replace(RUNTIME, threads=threads), listener) as extractor:
        extractor.submit(0, Recording(path=path, name=path.name, span=span))
        extractor.finish()
        ((_, result),) = extractor.results()
    return result, [line for line in listener.lines if "completely" in line]


def entry_of(cache: Path, result: ExtractionResult) -> Entry:
    assert result.key is not None
    assert SequenceCache(cache).verify(result.key) == []
    entry = SequenceCache(cache).entry(result.key)
    assert entry is not None
    return entry


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A moving scene of 80 s with a key frame every 2 s and B-frames."""
    return write_still(tmp_path_factory.mktemp("span") / "a.mp4", 80, draw_counter, bf="2")


@pytest.mark.slow
def test_span_has_the_samples_of_full_extraction(tmp_path: Path, counter: Path, settings: DetectorSettings) -> None:
    full, _ = extract_span(counter, tmp_path / "full", settings, None)
    expected = SequenceCache(tmp_path / "full").read(str(full.key))
    for span in ((23, 41), (0, 5), (71, None)):
        result, lines = extract_span(counter, tmp_path / "f", settings, span)
        assert (result.status, result.reason, result.span, lines) == ("done", "", span, [])
        entry = entry_of(tmp_path / "f", result)
        assert (entry.span, entry.duration_s) == (span, 80.0)
        sequence = SequenceCache(tmp_path / "f").read(entry.key)
        first, stop = np.searchsorted(expected.time_s, [span[0], span[1] or 1e9])
        frames = expected.frames(first, stop)
        for name in ("time_s", "frame_index", "offsets", "boxes", "scores", "classes", "appearance", "scene"):
            assert np.array_equal(getattr(sequence, name), getattr(frames, name)), name
        assert np.array_equal(sequence.scene_motion[1:], frames.scene_motion[1:])


@pytest.mark.slow
def test_span_bytes_are_independent_of_threads_and_other_spans(
    tmp_path: Path, counter: Path, settings: DetectorSettings
) -> None:
    first, _ = extract_span(counter, tmp_path / "a", settings, (10, 70))
    extract_span(counter, tmp_path / "b", settings, (10, 70), threads=2)
    assert part_files(tmp_path / "a") == part_files(tmp_path / "b")
    other, _ = extract_span(counter, tmp_path / "a", settings, (10, 60))
    assert len({first.key, other.key}) == 2
    again, _ = extract_span(counter, tmp_path / "a", settings, (10, 70))
    assert (again.status, again.key, again.span) == ("reused", first.key, (10, 70))


@pytest.mark.slow
def test_entry_of_the_whole_recording_is_used_for_a_span(
    tmp_path: Path, counter: Path, settings: DetectorSettings
) -> None:
    span, _ = extract_span(counter, tmp_path / "f", settings, (10, 20))
    full, _ = extract_span(counter, tmp_path / "f", settings, None)
    assert (full.status, full.samples) == ("done", 400)  # the part does not pass for all of it
    result, _ = extract_span(counter, tmp_path / "f", settings, (10, 20))
    assert (result.status, result.key, result.span) == ("reused", full.key, None)
    assert span.key != full.key


@pytest.mark.slow
@pytest.mark.parametrize("adaptive", [False, True])
def test_interrupted_span_resumes_with_equal_bytes(
    tmp_path: Path, counter: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch, adaptive: bool
) -> None:
    settings = replace(settings, adaptive=adaptive)
    path = write_still(tmp_path / "a.mp4", 80, draw_walk) if adaptive else counter
    set_part_samples(monkeypatch, 40)
    extract_span(path, tmp_path / "whole", settings, (11, 53))
    original = EntryWriter._write_part

    def write_part(self: EntryWriter, samples: int) -> None:
        if len(self._parts) == 3:
            raise KeyboardInterrupt
        original(self, samples)

    with monkeypatch.context() as patch:
        patch.setattr(EntryWriter, "_write_part", write_part)
        with pytest.raises(KeyboardInterrupt):
            extract_span(path, tmp_path / "f", settings, (11, 53))
    assert len(part_files(tmp_path / "f")) == 3
    result, _ = extract_span(path, tmp_path / "f", settings, (11, 53))
    assert result.status == "done"
    assert entry_files(tmp_path / "f") == entry_files(tmp_path / "whole")


@pytest.mark.slow
def test_adaptive_span_agrees_with_adaptive_extraction(tmp_path: Path, settings: DetectorSettings) -> None:
    settings = replace(settings, adaptive=True)
    path = write_still(tmp_path / "a.mp4", 80, draw_walk)
    full, _ = extract_span(path, tmp_path / "full", settings, None)
    result, lines = extract_span(path, tmp_path / "f", settings, (21, 47))
    assert (result.status, result.reason, lines) == ("done", "", [])
    assert 0 < result.still < result.samples
    expected = SequenceCache(tmp_path / "full").read(str(full.key))
    sequence = SequenceCache(tmp_path / "f").read(str(result.key))
    first, stop = np.searchsorted(expected.time_s, [20.0, 48.0])  # groups of pictures that overlap the span
    frames = expected.frames(first, stop)
    assert np.array_equal(sequence.time_s, frames.time_s)
    assert np.array_equal(sequence.frame_index, frames.frame_index)
    assert sequence.still is not None
    assert frames.still is not None
    is_walk = (sequence.time_s >= 29) & (sequence.time_s < 36)
    assert np.array_equal(sequence.still[is_walk], frames.still[is_walk])
    assert not sequence.still[is_walk].any()
    assert sequence.still[sequence.time_s < 26][1:].all()


@pytest.mark.slow
def test_adaptive_span_of_a_recording_without_packets_that_show_motion(
    tmp_path: Path, settings: DetectorSettings
) -> None:
    path = write_still(tmp_path / "a.mp4", 70, draw_walk, g="1")
    result, lines = extract_span(path, tmp_path / "f", replace(settings, adaptive=True), (20, 30))
    assert (result.samples, result.still, lines) == (50, 0, [])
    assert result.reason == "the span is decoded completely: every frame is a key frame"


@pytest.mark.slow
def test_span_of_a_recording_with_rare_key_frames(tmp_path: Path, settings: DetectorSettings) -> None:
    path = write_still(tmp_path / "a.mp4", 40, draw_counter, g="1000")
    full, _ = extract_span(path, tmp_path / "full", settings, None)
    result, lines = extract_span(path, tmp_path / "f", settings, (20, 30))
    assert (result.samples, lines) == (50, [])
    expected = SequenceCache(tmp_path / "full").read(str(full.key)).frames(100, 150)
    sequence = SequenceCache(tmp_path / "f").read(str(result.key))
    assert np.array_equal(sequence.time_s, expected.time_s)
    assert np.array_equal(sequence.boxes, expected.boxes)


def damage_bytes(path: Path, share: float) -> None:
    """Overwrite two thousand bytes of a recording."""
    data = bytearray(path.read_bytes())
    at = int(len(data) * share)
    data[at : at + 2000] = b"\x55" * 2000
    path.write_bytes(data)


@pytest.mark.slow
def test_damage_in_a_span_is_counted(tmp_path: Path, counter: Path, settings: DetectorSettings) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(counter.read_bytes())
    damage_bytes(path, 0.5)
    full, _ = extract_span(path, tmp_path / "full", settings, None)
    assert full.status == "partial"
    result, lines = extract_span(path, tmp_path / "f", settings, (30, 50))
    assert lines == ["a.mp4 is read completely, not only the time range: damage, or other frames than in its packets"]
    assert (result.status, result.reason, result.key) == ("partial", full.reason, full.key)
    assert entry_files(tmp_path / "f") == entry_files(tmp_path / "full")
    (before, _) = extract_span(path, tmp_path / "b", settings, (0, 20))
    assert (before.status, before.reason, before.samples) == ("done", "", 100)  # what was read is undamaged


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "span", "reason"),
    [
        ("a.avi", {"bf": "0"}, (20, 30), "AVI files do not store the times of frames"),
        ("a.mp4", {}, (90, 95), "it has no frames in that time"),
    ],
)
def test_recording_is_read_completely_where_a_span_cannot_be_read(
    tmp_path: Path, settings: DetectorSettings, name: str, options: dict[str, str], span: Span, reason: str
) -> None:
    path = write_still(tmp_path / name, 40, draw_walk, **options)
    result, lines = extract_span(path, tmp_path / "f", settings, span)
    assert lines == [f"{name} is read completely, not only the time range: {reason}"]
    assert (result.status, result.samples) == ("done", 200)
    assert entry_of(tmp_path / "f", result).span is None


@pytest.mark.slow
def test_decoder_that_dies_in_a_span(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = DecoderProcess.request

    def die_in_spans(self: DecoderProcess, message: dict[str, Any]) -> Iterator[Any]:
        if message.get("is_planned"):
            raise DecoderDiedError("its decoder crashed (SIGSEGV)", crashed=True)
        yield from request(self, message)

    monkeypatch.setattr(DecoderProcess, "request", die_in_spans)
    path = write_still(tmp_path / "a.mp4", 40, draw_walk)
    result, lines = extract_span(path, tmp_path / "f", settings, (20, 30))
    assert lines == ["a.mp4 is read completely, not only the time range: its decoder crashed (SIGSEGV)"]
    assert (result.status, result.samples) == ("done", 200)
