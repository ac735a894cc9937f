import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.prediction.fake_project import make_model
from vidgru.config import PredictConfig
from vidgru.errors import SettingsError
from vidgru.flags import from_settings
from vidgru.prediction.predictor import TimeRange, event_start_time, scores_locally, span_to_read
from vidgru.types import Event, Span


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        ("", "", "abc"),
        ("2024-05-06T08:00:10+00:00", "", "bc"),
        ("2024-05-06T08:00:11+00:00", "", "c"),
        ("", "2024-05-06T08:00:10+00:00", "a"),
        ("", "2024-05-06T08:00:10.001+00:00", "ab"),
        ("2024-05-06T10:00:05+02:00", "2024-05-06T08:00:25+00:00", "abc"),
        ("2024-05-06T08:01:00+00:00", "", ""),
    ],
)
def test_time_range_overlaps(since: str, until: str, expected: str) -> None:
    spans = {"a": (0.0, 10.0), "b": (10.0, 11.0), "c": (20.0, 30.0)}
    period = TimeRange(since, until)
    touching = [name for name, span in spans.items() if period.overlaps("2024-05-06T08:00:00+00:00", *span)]
    assert "".join(touching) == expected
    assert bool(period) == bool(since or until)


def test_time_range_uses_local_time_without_offset() -> None:
    here = datetime(2024, 5, 6, 8).astimezone()
    period = TimeRange("2024-05-06T08:00:05", "2024-05-06T08:00:06")
    for recorded_at in (
        "2024-05-06T08:00:00",
        here.isoformat(),
        here.astimezone(timezone(timedelta(hours=5))).isoformat(),
    ):
        assert period.overlaps(recorded_at, 5.0, 5.5)
        assert not period.overlaps(recorded_at, 6.0, 7.0)


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        ("08:30:00", "08:35:00", (27 * 60, 37 * 60)),  # two minutes and some seconds before, a minute and some after
        ("08:30:20", "08:34:30", (28 * 60, 36 * 60)),
        ("08:02:00", "08:03:00", (0, 5 * 60)),
        ("08:50:00", "08:59:00", (47 * 60, None)),
        ("08:50:00", "", (47 * 60, None)),
        ("", "08:10:00", (0, 12 * 60)),
        ("08:01:00", "08:58:30", None),
        ("07:00:00", "09:30:00", None),
    ],
)
def test_span_is_wider_than_the_time_range(tmp_path: Path, since: str, until: str, expected: Span | None) -> None:
    model = make_model(tmp_path / "m.safetensors", {"fps": 8.0}, timed=True)
    day = "2024-05-06T"
    time_range = TimeRange(*(f"{day}{time}+00:00" if time else "" for time in (since, until)))
    assert span_to_read(model, time_range, f"{day}10:00:00+02:00", 3600.0) == expected


def test_span_covers_what_a_model_looks_ahead(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m.safetensors", {"fps": 8.0}, timed=True)
    patient = replace(model, decode=replace(model.decode, min_s=100.0, merge_s=50.0))
    time_range = TimeRange("", "2024-05-06T08:10:00+00:00")
    assert span_to_read(model, time_range, "2024-05-06T08:00:00+00:00", 3600.0) == (0, 12 * 60)
    assert span_to_read(patient, time_range, "2024-05-06T08:00:00+00:00", 3600.0) == (0, 14 * 60)


def test_scores_of_windows_depend_on_the_whole_recording(tmp_path: Path) -> None:
    assert scores_locally(make_model(tmp_path / "m.safetensors", {"fps": 8.0}, timed=True))
    assert not scores_locally(make_model(tmp_path / "m.safetensors", {"fps": 8.0}))


def test_event_start_time() -> None:
    event = Event(video="a.mp4", start_s=61.5, end_s=62.0, label="fall", score=0.5)
    assert event_start_time(event, "2024-05-06T23:59:00+02:00") == "2024-05-07T00:00:01.500+02:00"
    assert event_start_time(event, "2024-05-06T23:59:00") == "2024-05-07T00:00:01.500"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"since": "yesterday"}, r"since is 'yesterday'; it must be an ISO 8601 time\n  such as 2024-05-06T07:08:09"),
        ({"until": "12:00"}, r"until is '12:00'; it must be an ISO 8601 time"),
        (
            {"since": "2024-05-06T08:00", "until": "2024-05-06T07:00"},
            r"until is '2024-05-06T07:00'; it must be after since, which is '2024-05-06T08:00'",
        ),
        ({"context": -1.0}, r"context is -1\.0; it must be from 0 to 3600 seconds"),
    ],
)
def test_predict_config_rejects_invalid_times(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        from_settings(PredictConfig, **values)


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone cannot be set here")
def test_event_start_time_across_clock_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        event = Event(video="a.mp4", start_s=7200.0, end_s=7201.0, label="fall", score=0.5)
        start_time = event_start_time(event, "2024-10-27T01:30:00")
        assert start_time == "2024-10-27T02:30:00.000"  # the second time: at three the clock was set back to two
        assert not TimeRange("2024-10-27T03:00", "").overlaps("2024-10-27T01:30:00", event.start_s, event.end_s)
    finally:
        monkeypatch.undo()
        time.tzset()
