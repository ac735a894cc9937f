"""Start times of recordings, stored next to cache entries."""

from pathlib import Path

from tests.detectors import Weights
from tests.videos import write_video
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.extraction.pipeline import extract_recordings, recorded_at
from vidgru.sources import find_recordings


def test_start_time_is_stored_per_path(tmp_path: Path, tiny_weights: Weights) -> None:
    """The same file under two names has two start times and one cache entry."""
    metadata = {"creation_time": "2024-01-01T00:00:00.000000Z"}
    first = write_video(tmp_path / "v" / "20240506_070809.mp4", 10, metadata=metadata)
    second = tmp_path / "v" / "20240506_080910.mp4"
    second.write_bytes(first.read_bytes())
    settings = DetectorSettings(weights=str(tiny_weights("yolo26n")), imgsz=64, fps=5)
    runtime = RuntimeSettings(backend="torch", precision="fp32", threads=1, start_time="%Y%m%d_%H%M%S")
    cache = SequenceCache(tmp_path / "f")
    recordings = find_recordings([tmp_path / "v"])
    key = extract_recordings(recordings, cache, settings, runtime, progress=False)[0].key
    entry = cache.entry(str(key))
    assert entry is not None
    assert entry.recorded_at == "2024-01-01T00:00:00+00:00"
    assert recorded_at(cache, entry, first, "") == "2024-05-06T07:08:09"
    assert recorded_at(cache, entry, second, "") == "2024-05-06T08:09:10"
    assert recorded_at(cache, entry, second, "2020-02-02") == "2020-02-02T00:00:00"
    assert recorded_at(SequenceCache(tmp_path / "g"), entry, second, "") == entry.recorded_at
