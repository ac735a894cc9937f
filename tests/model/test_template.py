import pytest

from vidgru.model.captioner import template_caption
from vidgru.types import DESCRIBED, Event


def event(start_s: float, end_s: float, label: str = "left_behind") -> Event:
    return Event(video="a.mp4", start_s=start_s, end_s=end_s, label=label, score=0.5)


@pytest.mark.parametrize(("start_s", "end_s", "names", "text"), [
    (12.0, 15.999, ["person", "bag"], "Person and bag: left behind (00:12\N{EN DASH}00:15)"),
    (0.0, 0.125, [], "Left behind (00:00\N{EN DASH}00:00)"),
    (59.9, 61.0, ["car"], "Car: left behind (00:59\N{EN DASH}01:01)"),
    (0.0, 3599.0, ["a", "b", "c", "d"], "A, b and c: left behind (00:00\N{EN DASH}59:59)"),
    (3590.0, 3661.0, ["car"], "Car: left behind (0:59:50\N{EN DASH}1:01:01)"),
    (36000.0, 40000.0, [], "Left behind (10:00:00\N{EN DASH}11:06:40)"),
])  # fmt: skip
def test_template_caption(start_s: float, end_s: float, names: list[str], text: str) -> None:
    assert template_caption(event(start_s, end_s), names) == text


def test_template_caption_of_the_user() -> None:
    names = ["person", "bag"]
    text = template_caption(event(12, 16), names, "{objects} at {start}-{end}: {label} {{sic}}")
    assert text == "Person and bag at 00:12-00:16: left behind {sic}"
    assert template_caption(event(12, 16), names, "누군가 가방을 두고 갔다") == "누군가 가방을 두고 갔다"


def test_template_caption_without_label() -> None:
    assert template_caption(event(0, 2, DESCRIBED), ["person", "bag"]) == "Person and bag (00:00\N{EN DASH}00:02)"
    assert template_caption(event(0, 2, DESCRIBED), []) == "(00:00\N{EN DASH}00:02)"


@pytest.mark.parametrize(("label", "shown"), [("넘어짐", "넘어짐"), ("_a__b_", "a  b"), ("on fire 🔥", "on fire 🔥")])
def test_template_caption_replaces_underscores(label: str, shown: str) -> None:
    assert template_caption(event(1, 2, label), ["person"]) == f"Person: {shown} (00:01\N{EN DASH}00:02)"
