"""When recordings begin."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.extraction.test_pipeline import run
from tests.videos import write_video
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.errors import SettingsError
from vidgru.extraction.pipeline import recorded_at
from vidgru.video.timestamps import StartTimes


@pytest.mark.parametrize(
    ("start_time", "name", "begins"),
    [
        ("", "20240506_070809.mp4", None),
        ("2024-05-06T07:08:09", "a.mp4", "2024-05-06T07:08:09"),
        ("2024-05-06 07:08:09+02:00", "a.mp4", "2024-05-06T07:08:09+02:00"),
        ("%Y%m%d_%H%M%S", "gate_20240506_070809_x.mp4", "2024-05-06T07:08:09"),
        ("%Y%m%d_%H%M%S", "gate_20249906_070809.mp4", None),
        ("%Y%m%d_%H%M%S", "99991399_000000_20240506_070809.mp4", "2024-05-06T07:08:09"),
        ("%Y%m%d_%H%M%S", "gate.mp4", None),
        ("cam1-%d.%m.%y %H.%M", "cam1-06.05.24 07.08.avi", "2024-05-06T07:08:00"),
        ("%Y-%m-%dT%H%M%S.%f", "2024-05-06T070809.250.mkv", "2024-05-06T07:08:09.250000"),
        ("%Y%m%d%H%M%z", "202405060708+0900.mkv", "2024-05-06T07:08:00+09:00"),
        ("%b %d %Y", "May 06 2024.mp4", "2024-05-06T00:00:00"),
    ],
)
def test_start_time_is_fixed_or_from_name(start_time: str, name: str, begins: str | None) -> None:
    assert StartTimes(start_time).of(Path("20200101_000000") / name) == begins


def test_invalid_start_time_raises() -> None:
    with pytest.raises(SettingsError, match=r"start_time is 'noon'; it must be an ISO 8601 time such as"):
        StartTimes("noon")
    with pytest.raises(SettingsError, match=r"the field %Q is not supported\n  supported fields: %Y %m"):
        StartTimes("%Y%Q")


def test_start_time_is_stored_per_path(tmp_path: Path, tiny_weights: Callable[[str], Path]) -> None:
    """The same bytes under two names begin at two times, and have one entry."""
    made = {"creation_time": "2024-01-01T00:00:00.000000Z"}
    first = write_video(tmp_path / "v" / "20240506_070809.mp4", 10, metadata=made)
    second = tmp_path / "v" / "20240506_080910.mp4"
    second.write_bytes(first.read_bytes())
    settings = DetectorSettings(weights=str(tiny_weights("yolo26n")), imgsz=64, fps=5)
    how = RuntimeSettings(backend="torch", precision="fp32", threads=1, start_time="%Y%m%d_%H%M%S")
    key = run(tmp_path / "v", tmp_path / "f", settings, how)[0].key
    cache = SequenceCache(tmp_path / "f")
    entry = cache.entry(str(key))
    assert entry is not None
    assert entry.recorded_at == "2024-01-01T00:00:00+00:00"
    assert recorded_at(cache, entry, first, "") == "2024-05-06T07:08:09"
    assert recorded_at(cache, entry, second, "") == "2024-05-06T08:09:10"
    assert recorded_at(cache, entry, second, "2020-02-02") == "2020-02-02T00:00:00"
    assert recorded_at(SequenceCache(tmp_path / "g"), entry, second, "") == entry.recorded_at
