"""Timestamp selection, the sampling grid, and start times from settings and file names."""

from fractions import Fraction
from pathlib import Path

import pytest

from vidgru.errors import SettingsError
from vidgru.video.timestamps import SamplingGrid, StartTimes, TimestampSelector


def test_selector_prefers_steadier_timestamps() -> None:
    """PTS that jump back and forth, as those of packed B-frames in AVI do, lose against steady DTS."""
    selector = TimestampSelector()
    stamps = [selector.select(pts, dts) for dts, pts in enumerate([0, 3, 1, 2, 6, 4])]
    assert stamps == [0, 3, 2, 3, 4, 5]
    assert not selector.is_steady


def test_selector_uses_the_other_timestamp_if_missing() -> None:
    selector = TimestampSelector()
    assert [selector.select(0, 0), selector.select(None, 1), selector.select(2, None)] == [0, 1, 2]
    assert selector.select(None, None) is None
    assert selector.is_steady


def test_grid_takes_each_frame_once() -> None:
    """At 2 samples per second, a gap and a slow source give fewer samples."""
    grid, tick = SamplingGrid(2), Fraction(1, 1000)
    times = [Fraction(n, 10) for n in (0, 4, 5, 6, 9, 10, 31, 34, 35)]
    assert [grid.is_sample(time, tick) for time in times] == [True, False, True, False, False, True, True, False, True]


def test_grid_accepts_frame_half_a_tick_early() -> None:
    grid, tick = SamplingGrid(3), Fraction(1, 1000)
    assert [grid.is_sample(Fraction(ms, 1000), tick) for ms in (0, 332, 333, 666)] == [True, False, True, False]


@pytest.mark.parametrize(
    ("start_time", "name", "expected"),
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
def test_start_time_is_fixed_or_from_name(start_time: str, name: str, expected: str | None) -> None:
    assert StartTimes(start_time).of(Path("20200101_000000") / name) == expected


def test_invalid_start_time_raises() -> None:
    with pytest.raises(SettingsError, match=r"start_time is 'noon'; it must be an ISO 8601 time such as"):
        StartTimes("noon")
    with pytest.raises(SettingsError, match=r"the field %Q is not supported\n  supported fields: %Y %m"):
        StartTimes("%Y%Q")
