"""What is drawn is where it should be, at the time it should be there."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vidgru.prediction.annotate_video import DrawnObjects, Overlay, attention_excess, clock_text
from vidgru.prediction.text_render import colour
from vidgru.types import Event

SIZE = (640, 400)
GREY = 128


def objects(
    *boxes: tuple[float, float, float, float], attention: tuple[float, ...] = (), **values: object
) -> DrawnObjects:
    n = len(boxes)
    return DrawnObjects(
        boxes=np.array(boxes, np.float32).reshape(n, 4),
        scores=np.asarray(values.get("scores", (0.9,) * n), np.float16),
        classes=np.asarray(values.get("classes", range(n)), np.int16),
        tracks=np.asarray(values.get("tracks", range(n)), np.int32),
        attention=np.asarray(attention or (1 / max(n, 1),) * n, np.float32),
    )


def event(start_s: float, end_s: float, label: str = "fall", score: float = 0.9, **facts: Any) -> Event:
    return Event(video="a.mp4", start_s=start_s, end_s=end_s, label=label, score=score, **facts)


def drawn(seen: DrawnObjects, *events: Event, time_s: float = 1.0, size_px: tuple[int, int] = SIZE) -> np.ndarray:
    overlay = Overlay(size_px=size_px, names=("person", "car", "bag"), labels=("fall", "walk", "run"), events=events)
    image = np.full((*size_px[::-1], 3), GREY, np.uint8)
    overlay.draw(image, time_s, seen)
    return image


def lines(image: np.ndarray) -> int:
    """How many lines of sentences there are, below that of the labels: each is a strip of one dark colour."""
    dark = (image[:, 7] == (24, 24, 24)).all(-1)
    return int((np.diff(dark.astype(int), prepend=0) == 1).sum())


def near(pixel: np.ndarray, shade: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel.astype(int) - shade).max() <= 3)


def bar(image: np.ndarray) -> bool:
    """Whether the top edge is darkened, at its middle, where no label is."""
    return bool((image[1, SIZE[0] // 2] < GREY - 40).all())


def test_a_box_is_drawn_in_the_colour_of_its_class_on_its_edges() -> None:
    image = drawn(objects((0.25, 0.5, 0.5, 0.75), classes=(2,)))
    left, top, right, bottom = 160, 200, 320, 300
    for x, y in ((left, 250), (right, 250), (240, top), (240, bottom)):
        assert near(image[y, x], colour(2))
    assert near(image[250, 240], (GREY,) * 3), "the inside is free"
    rows, columns = np.nonzero((image != GREY).any(-1) & (np.arange(SIZE[1]) > 60)[:, None])  # without the time
    assert (rows.min() >= top - 30, columns.min() >= left - 8) == (True, True)
    assert (rows.max() <= bottom + 4, columns.max() <= right + 4) == (True, True)


def test_an_object_that_has_the_attention_stands_out() -> None:
    two = ((0.1, 0.4, 0.3, 0.8), (0.6, 0.4, 0.8, 0.8))
    equal, first = drawn(objects(*two)), drawn(objects(*two, attention=(0.9, 0.1)))
    x, y = 128, 240
    assert near(equal[y, x], (GREY,) * 3)
    assert np.abs(first[y, x].astype(int) - GREY).max() > 15, "a wash of its colour"
    assert near(first[y, 448], (GREY,) * 3), "none over the other"
    shade = [(np.abs(image[y].astype(int) - colour(0)).max(-1) <= 3).sum() for image in (equal, first)]
    assert shade[1] > shade[0], "thicker edges"
    strip = slice(160 - 18, 160 - 1)
    assert not np.array_equal(equal[strip, :260], first[strip, :260]), "its label tells the share"


def test_a_lone_object_is_not_called_attended_to() -> None:
    box = (0.1, 0.4, 0.3, 0.8)
    assert near(drawn(objects(box, attention=(1.0,)))[240, 128], (GREY,) * 3)


@pytest.mark.parametrize(
    ("attention", "beyond"),
    [
        ((), ()),
        ((1.0,), (0.0,)),
        ((0.5, 0.5), (0.0, 0.0)),
        ((1.0, 0.0), (1.0, 0.0)),
        ((0.75, 0.25), (0.5, 0.0)),
        ((0.4, 0.2, 0.2, 0.2), (0.2, 0.0, 0.0, 0.0)),
    ],
)
def test_attention_beyond_an_equal_share(attention: tuple[float, ...], beyond: tuple[float, ...]) -> None:
    assert attention_excess(np.array(attention, np.float32)).tolist() == pytest.approx(beyond, abs=1e-6)


def test_weak_objects_are_drawn_where_something_speaks_for_them() -> None:
    box, away = (0.1, 0.5, 0.3, 0.8), (0.8, 0.9, 0.9, 0.95)
    edge = (260, 64)

    def seen(**values: object) -> bool:
        return not near(drawn(objects(box, away, **values))[edge], (GREY,) * 3)

    assert seen(scores=(0.3, 0.9), tracks=(-1, -1))
    assert not seen(scores=(0.12, 0.9), tracks=(-1, -1))
    assert seen(scores=(0.12, 0.9), tracks=(5, -1))
    assert seen(scores=(0.12, 0.9), tracks=(-1, -1), attention=(0.9, 0.1))


def test_the_bar_is_there_as_long_as_an_event() -> None:
    nothing = objects()
    for time_s, there in ((0.99, False), (1.0, True), (2.49, True), (2.5, False)):
        assert bar(drawn(nothing, event(1, 2.5), time_s=time_s)) is there
    assert near(drawn(nothing, event(1, 2.5))[10, 8], colour(0)), "the label in its colour"
    assert near(drawn(nothing, event(1, 2.5, "walk"))[10, 8], colour(1))


def test_the_time_is_always_there() -> None:
    images = [drawn(objects(), time_s=time_s) for time_s in (1.0, 1.05, 1.1)]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[1], images[2])
    assert (images[0][:, : SIZE[0] // 2] == GREY).all()


def test_events_at_once_stand_side_by_side_then_below() -> None:
    few = drawn(objects(), event(0, 3), event(0, 3, "walk"))
    assert near(few[10, 8], colour(0))
    assert any(near(few[10, x], colour(1)) for x in range(60, 250))
    many = drawn(objects(), *(event(0, 3, label) for label in ("a" * 30, "b" * 30, "run", "walk")))
    height = [int((image[:, -2] < GREY - 40).all(-1).sum()) for image in (few, many)]
    assert height[1] > 1.5 * height[0]


def test_sentences_of_events_stand_below_their_labels_and_go_with_them() -> None:
    one = event(1, 2.5, description="A person in red comes\nfrom the left")
    assert [lines(drawn(objects(), one, time_s=time_s)) for time_s in (0.99, 1.0, 2.49, 2.5)] == [0, 1, 1, 0]
    assert near(drawn(objects(), one)[10, 8], colour(0)), "the label is still there"
    marked = drawn(objects(), replace(one, description_source="template"))
    assert lines(marked) == 1
    assert not np.array_equal(marked, drawn(objects(), one)), "what is put together stands in brackets"
    crowd = [event(0, 3, score=n / 10, description=f"Number {n} " * 20) for n in range(9)]
    whole = drawn(objects(), *crowd)
    assert lines(whole) == 2, "of many events the picture is still seen"
    assert np.array_equal(whole[100:], drawn(objects(), *reversed(crowd))[100:])
    best = drawn(objects(), *(replace(one, description=None) if one.score < 0.65 else one for one in crowd))
    assert np.array_equal(whole, best), "those that score best are told"


def test_a_label_without_room_above_is_below_the_bar_and_inside() -> None:
    image = drawn(objects((0.2, 0.0, 0.9, 0.9)), event(0, 3))
    assert (image[2, 140:500] < GREY).all(), "the bar is not written over"
    assert any(near(image[y, 132], colour(0)) for y in range(22, 50))


@pytest.mark.parametrize("size_px", [(2, 2), (16, 16), (64, 640), (1920, 1080), (4096, 20)])
@pytest.mark.parametrize("box", [(0, 0, 1, 1), (0.99, 0.99, 1, 1), (0, 0, 0, 0), (0.3, 0.3, 0.30001, 0.9)])
def test_no_size_and_no_box_is_too_small(size_px: tuple[int, int], box: tuple[float, float, float, float]) -> None:
    seen = objects(box, (0.5, 0.5, 0.6, 0.6), classes=(99, -1), attention=(0.9, 0.1))
    assert drawn(seen, event(0, 3, "Stürzt über den Stuhl"), size_px=size_px).shape == (*size_px[::-1], 3)


@pytest.mark.parametrize(
    ("time_s", "text"),
    [(0, "0:00.0"), (5.04, "0:05.0"), (59.99, "0:59.9"), (60, "1:00.0"), (754.5, "12:34.5"), (3723.4, "1:02:03.4")],
)
def test_times_as_players_show_them(time_s: float, text: str) -> None:
    assert clock_text(time_s) == text
