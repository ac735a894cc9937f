from fractions import Fraction

import pytest

from vidgru.video.live_source import LiveClock

CAME = 1000.0  # monotonic seconds


def times(
    *frames: tuple[float | None, float], is_finite: bool = False, timeline: LiveClock | None = None
) -> list[float]:
    """Times of frames that are given as stamp and arrival, in seconds."""
    timeline = timeline or LiveClock()
    return [
        float(timeline.time(None if stamp is None else Fraction(str(stamp)), CAME + came, is_finite=is_finite))
        for stamp, came in frames
    ]


def test_frames_are_as_far_apart_as_their_stamps() -> None:
    assert times((0, 0), (0.2, 0.9), (0.4, 0.91), (0.6, 0.92)) == [0, 0.2, 0.4, 0.6]


def test_stamps_count_from_where_the_container_starts() -> None:
    assert times((0.5, 0), (0.7, 0.2)) == [0.5, 0.7]
    assert times((0.5, 0), (0.7, 0.2), is_finite=True) == [0.5, 0.7]


def test_a_stream_that_has_run_for_long_begins_at_zero() -> None:
    assert times((86400, 0), (86400.5, 0.5)) == [0, 0.5]
    assert times((-3, 0), (-2.5, 0.5)) == [0, 0.5]


def test_without_stamps_time_is_that_of_arrival() -> None:
    assert times((None, 0), (None, 0.25), (None, 0.75)) == [0, 0.25, 0.75]


def test_without_stamps_time_goes_on_in_any_case() -> None:
    assert times((None, 0), (None, 0), (None, 0)) == [0, 0.001, 0.002]


@pytest.mark.parametrize("stamp", [500, 0.1, -40])
def test_where_stamps_leap_time_is_that_of_arrival(stamp: float) -> None:
    found = times((0, 0), (1, 1), (stamp, 1.5), (stamp + 0.5, 2))
    assert found == pytest.approx([0, 1, 1.5, 2], abs=0.01)


def test_a_pause_is_no_leap() -> None:
    assert times((0, 0), (60, 60), (60.5, 60.5)) == [0, 60, 60.5]


def test_a_delay_on_the_way_is_no_leap() -> None:
    assert times((0, 0), (0.5, 8), (1, 8), (1.5, 8)) == [0, 0.5, 1, 1.5]


def test_a_recording_that_is_served_at_once_has_its_own_times() -> None:
    assert times((0, 0), (60, 0.1), (59, 0.1), (120, 0.2), is_finite=True) == [0, 60, 59, 120]


def test_after_a_reconnect_time_goes_on_by_arrival_and_then_by_stamps() -> None:
    timeline = LiveClock()
    assert times((0, 0), (1, 1), timeline=timeline) == [0, 1]
    timeline.reconnect()
    assert times((77, 5), (77.5, 5.1), (78, 5.2), timeline=timeline) == pytest.approx([5, 5.5, 6], abs=0.01)


def test_after_a_reconnect_time_does_not_go_back() -> None:
    timeline = LiveClock()
    before = times((0, 0), (9, 0.1), timeline=timeline, is_finite=True)
    timeline.reconnect()
    assert times((0, 0.2), timeline=timeline)[0] > before[-1]


def test_delays_at_the_beginning_of_connections_do_not_add_up() -> None:
    timeline = LiveClock()
    times((0, 3), (1, 3), (2, 3), (3, 3), (4, 4), timeline=timeline)  # the first was three seconds old
    assert (timeline.first_zero_s, timeline.zero_s) == (CAME, CAME)
    for number, second in enumerate(range(10, 60, 10), start=1):
        timeline.reconnect()
        stamps = [(0.0, second + 3.0), (3.0, second + 3.0), (4.0, second + 4.0)]
        assert times(*stamps, timeline=timeline) == pytest.approx([second + 3, second + 6, second + 7], abs=0.05)
        assert timeline.zero_s == pytest.approx(CAME - 3, abs=0.05), number  # frames are told to be as old as they are
    assert timeline.first_zero_s == pytest.approx(CAME, abs=0.05)


def test_zero_is_as_early_as_frames_have_come() -> None:
    timeline = LiveClock()
    times((0, 3), (1, 3), (2, 3), (3, 3), timeline=timeline)  # read all at once: the first was three seconds old
    assert timeline.zero_s == pytest.approx(CAME)
    times((4, 4.5), timeline=timeline)  # a late one
    assert timeline.zero_s == pytest.approx(CAME, abs=0.01)


def test_zero_follows_a_clock_that_runs_slow() -> None:
    timeline = LiveClock()
    times(*((second * 0.9995, second) for second in range(2000)), timeline=timeline)
    assert timeline.zero_s == pytest.approx(CAME + 1, abs=0.01)
