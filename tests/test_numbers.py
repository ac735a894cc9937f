"""Numbers and times as people write them."""

import math

import pytest

from vidgru.numbers import clock, number


@pytest.mark.parametrize(("text", "value"), [("12", 12), ("-1.5e2", -150), (".5", 0.5), ("3.", 3)])
def test_number_reads_plain_decimals(text: str, value: float) -> None:
    assert number(text) == clock(text) == value


@pytest.mark.parametrize("text", ["", "1,5", "1_000", "inf", "1e999", " 1", "\u0661"])
def test_number_refuses_other_text(text: str) -> None:
    assert math.isnan(number(text))


@pytest.mark.parametrize(("text", "seconds"), [("1:23.5", 83.5), ("75:30", 4530), ("1:02:03,25", 3723.25)])
def test_clock_reads_times(text: str, seconds: float) -> None:
    assert clock(text) == seconds


@pytest.mark.parametrize("text", ["", "1:60", "1:2:3:4", "a:10", "1:75:00"])
def test_clock_refuses_other_text(text: str) -> None:
    assert math.isnan(clock(text))
