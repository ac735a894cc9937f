import time
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


def extracted(path: Path, settings: DetectorSettings, folder: Path) -> FrameSequence:
    cache = SequenceCache(folder / "features")
    (outcome,) = extract_recordings([Recording(path=path, name=path.name)], cache, settings, RUN, progress=False)
    assert outcome.key, outcome.reason
    return cache.read(outcome.key)


def watched(camera: LiveExtractor, most: int | None = None) -> FrameSequence:
    parts: list[FrameSequence] = []
    while not camera.is_finished and (most is None or len(parts) < most):
        seen = camera.read(0.1)
        if seen is not None:
            assert len(seen.sequence) == 1
            parts.append(seen.sequence)
    return FrameSequence.concatenate(parts)


@pytest.mark.parametrize("served", [as_file, as_stream])
@pytest.mark.parametrize("settings", [{}, {"mask": MASK, "tracker": "ocsort"}])
def test_a_stream_gives_the_sequence_of_the_file(
    settings: dict[str, Any],
    served: Callable[[Path], Any],
    tiny_weights: Callable[[], Path],
    tmp_path: Path,
) -> None:
    path = write_video(tmp_path / "a.ts", 20, tick=Fraction(1, 90000))  # as many samples as may wait: none is dropped
    expected = extracted(path, detect(tiny_weights(), **settings), tmp_path)
    with (
        serving(served(path)) as url,
        LiveExtractor(url, detect(tiny_weights(), **settings), RUN, reconnect=SOON, notify=lambda line: None) as camera,
    ):
        found = watched(camera, len(expected))
        assert camera.source.dropped_frames == 0
        assert camera.run_info["batch"] == 1
    assert len(expected.boxes) > 0
    assert (expected.tracks >= 0).any()
    assert sequences_equal(found, expected)


def test_a_served_recording_is_seen_whole(tiny_weights: Callable[[], Path], tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 60)
    expected = extracted(path, detect(tiny_weights()), tmp_path)
    with (
        serving(as_file(path)) as url,
        LiveExtractor(url, detect(tiny_weights()), RUN, reconnect=SOON, notify=lambda line: None) as camera,
    ):
        found = watched(camera)
        assert camera.is_finished
        assert camera.read(0) is None
    assert len(found) == 30
    assert sequences_equal(found, expected)


def test_a_slow_detector_sees_the_newest(
    tiny_weights: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.ts", 100, tick=Fraction(1, 90000))
    said: list[str] = []
    whole = Detector.detect

    def slow(self: Detector, *arguments: Any) -> Any:
        time.sleep(0.05)  # while all that is served has long been read
        return whole(self, *arguments)

    monkeypatch.setattr(Detector, "detect", slow)
    with (
        serving(as_stream(path)) as url,
        LiveExtractor(
            url, detect(tiny_weights()), RUN, reconnect=ReconnectPolicy(initial_delay_s=60), notify=said.append
        ) as camera,
    ):
        parts: list[FrameSequence] = []
        while not (parts and parts[-1].time_s[-1] >= 9.8):
            seen = camera.read(1)
            if seen is not None:
                parts.append(seen.sequence)
        dropped_frames = camera.source.dropped_frames
    found = FrameSequence.concatenate(parts)  # checks that times rise
    assert dropped_frames > 0
    assert len(found) + dropped_frames == 50
    assert found.time_s[-1] == pytest.approx(9.8)
    assert any("is behind; dropping frames to keep up" in line for line in said)
    assert said[0].startswith("detector: ")


def test_a_detector_that_crashes(
    tiny_weights: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Detector, *arguments: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(Detector, "detect", broken)
    path = write_video(tmp_path / "a.mp4", 20)
    with (
        serving(as_file(path)) as url,
        LiveExtractor(url, detect(tiny_weights()), RUN, reconnect=SOON, notify=lambda line: None) as camera,
        pytest.raises(ZeroDivisionError),
    ):
        watched(camera)


def test_a_source_that_never_opens(tiny_weights: Callable[[], Path]) -> None:
    settings = detect(tiny_weights())
    with (
        LiveExtractor("tcp://127.0.0.1:1", settings, RUN, reconnect=SOON, notify=lambda line: None) as camera,
        pytest.raises(SourceError, match="cannot be opened, tried 2 times: Connection refused"),
    ):
        watched(camera)


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError), LiveExtractor("0", detect(tmp_path / "none.pt"), RUN, notify=lambda line: None):
        pass
