"""Features of live sources served on this machine, against those of the file."""

import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.sequences import sequences_equal
from tests.streams import as_file, as_stream, serving
from tests.videos import write_video
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.detector.yolo import Detector
from vidgru.errors import SourceError, WeightsError
from vidgru.extraction.live import LiveExtractor, ReconnectPolicy
from vidgru.extraction.pipeline import extract_recordings
from vidgru.types import FrameSequence, Recording

SOON = ReconnectPolicy(initial_delay_s=0.01, max_delay_s=0.04, max_attempts=2)
RUN = RuntimeSettings(backend="torch", precision="fp32", detector_batch=1, threads=2)
MASK = "[[[0, 0], [0.3, 0], [0.3, 0.3], [0, 0.3]]]"


def detect(weights: Path, **settings: Any) -> DetectorSettings:
    return DetectorSettings(weights=str(weights), **{"imgsz": 160, "fps": 5, **settings})


def extract_file(path: Path, settings: DetectorSettings, folder: Path) -> FrameSequence:
    cache = SequenceCache(folder / "features")
    (outcome,) = extract_recordings([Recording(path=path, name=path.name)], cache, settings, RUN, progress=False)
    assert outcome.key, outcome.reason
    return cache.read(outcome.key)


def read_all(extractor: LiveExtractor, max_samples: int | None = None) -> FrameSequence:
    parts: list[FrameSequence] = []
    while not extractor.is_finished and (max_samples is None or len(parts) < max_samples):
        sample = extractor.read(0.1)
        if sample is not None:
            assert len(sample.sequence) == 1
            parts.append(sample.sequence)
    return FrameSequence.concatenate(parts)


@pytest.mark.parametrize(("settings", "served"), [
    ({}, as_file),
    ({"mask": MASK, "tracker": "ocsort"}, as_stream),
    pytest.param({}, as_stream, marks=pytest.mark.slow),
    pytest.param({"mask": MASK, "tracker": "ocsort"}, as_file, marks=pytest.mark.slow),
])  # fmt: skip
def test_live_features_equal_file_features(
    settings: dict[str, Any],
    served: Callable[[Path], Any],
    tiny_weights: Callable[[], Path],
    tmp_path: Path,
) -> None:
    path = write_video(
        tmp_path / "a.ts", 20, tick=Fraction(1, 90000)
    )  # all samples fit into the queue: none is dropped
    expected = extract_file(path, detect(tiny_weights(), **settings), tmp_path)
    with (
        serving(served(path)) as url,
        LiveExtractor(
            url, detect(tiny_weights(), **settings), RUN, reconnect=SOON, notify=lambda line: None
        ) as extractor,
    ):
        sequence = read_all(extractor, len(expected))
        assert extractor.source.dropped_frames == 0
        assert extractor.run_info["batch"] == 1
    assert len(expected.boxes) > 0
    assert (expected.tracks >= 0).any()
    assert sequences_equal(sequence, expected)


def test_served_recording_is_extracted_whole(tiny_weights: Callable[[], Path], tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 60)
    expected = extract_file(path, detect(tiny_weights()), tmp_path)
    with (
        serving(as_file(path)) as url,
        LiveExtractor(url, detect(tiny_weights()), RUN, reconnect=SOON, notify=lambda line: None) as extractor,
    ):
        sequence = read_all(extractor)
        assert extractor.is_finished
        assert extractor.read(0) is None
    assert len(sequence) == 30
    assert sequences_equal(sequence, expected)


def test_slow_detector_gets_newest_frames(
    tiny_weights: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.ts", 100, tick=Fraction(1, 90000))
    messages: list[str] = []
    is_read = threading.Event()
    original = Detector.detect

    def slow(self: Detector, *arguments: Any) -> Any:
        is_read.wait(60)
        return original(self, *arguments)

    def notify(line: str) -> None:
        messages.append(line)
        if "was lost" in line:
            is_read.set()

    monkeypatch.setattr(Detector, "detect", slow)
    with (
        serving(as_stream(path)) as url,
        LiveExtractor(
            url, detect(tiny_weights()), RUN, reconnect=ReconnectPolicy(initial_delay_s=60), notify=notify
        ) as extractor,
    ):
        parts: list[FrameSequence] = []
        while not (parts and parts[-1].time_s[-1] >= 9.8):
            sample = extractor.read(1)
            if sample is not None:
                parts.append(sample.sequence)
        dropped_frames = extractor.source.dropped_frames
    sequence = FrameSequence.concatenate(parts)  # verifies that times increase
    assert dropped_frames > 0
    assert len(sequence) + dropped_frames == 50
    assert sequence.time_s[-1] == pytest.approx(9.8)
    assert any("is behind; dropping frames to keep up" in line for line in messages)
    assert messages[0].startswith("detector: ")


def test_silence_ends_while_the_detector_works(
    tiny_weights: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.ts", 60, tick=Fraction(1, 90000))  # FFmpeg waits for as much to identify it
    goes_on, ends = threading.Event(), threading.Event()
    original = Detector.detect

    def waiting(self: Detector, *arguments: Any) -> Any:
        goes_on.wait(60)
        return original(self, *arguments)

    monkeypatch.setattr(Detector, "detect", waiting)
    with (
        serving(as_stream(path, lambda: ends.wait(60))) as url,
        LiveExtractor(url, detect(tiny_weights()), RUN, reconnect=SOON, notify=lambda line: None) as extractor,
    ):
        assert extractor.silence_s() == 0, "no frame has come"
        while extractor.source.silence_s() == 0:
            assert extractor.read(0.01) is None
        while not extractor._in_detector:
            assert extractor.read(0.01) is None
        assert extractor.silence_s() == 0
        goes_on.set()
        while extractor.silence_s() == 0:
            extractor.read(0.01)
        ends.set()


def test_detector_error_is_raised(
    tiny_weights: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Detector, *arguments: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(Detector, "detect", broken)
    path = write_video(tmp_path / "a.mp4", 20)
    with (
        serving(as_file(path)) as url,
        LiveExtractor(url, detect(tiny_weights()), RUN, reconnect=SOON, notify=lambda line: None) as extractor,
        pytest.raises(ZeroDivisionError),
    ):
        read_all(extractor)


def test_unopened_source_raises(tiny_weights: Callable[[], Path]) -> None:
    settings = detect(tiny_weights())
    with (
        LiveExtractor("tcp://127.0.0.1:1", settings, RUN, reconnect=SOON, notify=lambda line: None) as extractor,
        pytest.raises(SourceError, match="cannot be opened, tried 2 times: Connection refused"),
    ):
        read_all(extractor)


def test_missing_weights_raise(tmp_path: Path) -> None:
    with pytest.raises(WeightsError), LiveExtractor("0", detect(tmp_path / "none.pt"), RUN, notify=lambda line: None):
        pass
