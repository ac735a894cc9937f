"""Captions in a real browser: shown, searched, edited, and escaped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.prediction.report.browsing import annotations, click_time, listed, ready, redrawn, saved, settle, texts
from tests.prediction.report.pages import event, make_page
from vidgru.prediction.report.index import IndexRow, write_index
from vidgru.types import Event

pytestmark = pytest.mark.slow
Visit = Callable[..., Any]

ENGLISH = "A person in red puts a bag down"
KOREAN = "빨간 옷을 입은 사람이 가방을 내려놓는다"
PORTUGUESE = "Um caminhão azul passa 🚚"
ARABIC = "شخصان يلتقيان عند الباب"
TEMPLATE = "person, bag: fall, 00:10-00:13"
ATTACK = '</script><img src=x onerror="document.title=1"><b>&amp;</b>${1}'


def described(start_s: float, end_s: float, text: str, label: str = "fall", sure: float = 0.72, **facts: Any) -> Event:
    caption = {"description": text, "description_score": sure, "description_source": "model"}
    return event(start_s, end_s, label, **{**caption, **facts})


FOUND = [
    described(2.0, 4.0, ENGLISH),
    described(6.0, 8.0, KOREAN, "walk", score=0.6),
    described(7.0, 9.0, PORTUGUESE, score=0.9),
    described(10.0, 13.0, TEMPLATE, sure=0.31, description_source="template"),
    described(15.0, 16.5, ARABIC, "walk", score=0.7),
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_page(tmp_path_factory.mktemp("described"), FOUND)


def panel_caption(page: Any) -> str:
    """Caption of the selected event; empty if it has none."""
    text = page.locator("#panel_text")
    return str(text.inner_text()) if text.is_visible() else ""


def captions(page: Any) -> list[str]:
    redrawn(page)
    return texts(page, "#captions p")


def write(page: Any, text: str) -> None:
    """Write a caption for the selected event."""
    page.keyboard.press("e")
    page.locator("#edit_text").fill(text)
    page.locator("#edit_form .strong").click()


# --- looking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (1280, 720)])
def test_caption_is_shown_with_its_event(plain: Path, visit: Visit, width: int, height: int) -> None:
    page = ready(visit(plain, viewport={"width": width, "height": height}))
    row = page.locator(".row.event").nth(1)
    assert row.locator(".words").inner_text() == KOREAN
    assert row.locator(".caption_score").inner_text() == "72 %"
    assert row.locator(".words").evaluate("e => e.scrollHeight <= e.clientHeight")  # nothing of it is cut off
    row.click()
    assert panel_caption(page) == KOREAN
    assert page.locator("#panel_source").inner_text() == "Caption score 72 %"
    panel = page.locator("#panel").bounding_box()
    assert panel["y"] + panel["height"] <= height
    lanes = page.locator("#lanes_canvas").bounding_box()
    page.mouse.move(lanes["x"] + 7.5 / 20 * lanes["width"], lanes["y"] + 30)  # "walk" is the second lane
    assert page.locator("#hover_caption").inner_text() == KOREAN
    page.mouse.move(lanes["x"] + 5 / 20 * lanes["width"], lanes["y"] + 30)
    assert not page.locator("#hover_caption").is_visible()


def test_current_captions_are_over_the_picture(plain: Path, visit: Visit) -> None:
    page = ready(visit(plain))
    for time_s, shown in [
        (1.9, []),
        (2.0, [ENGLISH]),
        (6.5, [KOREAN]),
        (7.5, [PORTUGUESE, KOREAN]),  # the better scored first
        (8.5, [PORTUGUESE]),
        (9.0, []),
    ]:
        page.evaluate("time => { video.currentTime = time; }", time_s)
        settle(page, time_s)
        assert captions(page) == shown
    page.locator(".row.event").nth(1).click()
    click_time(page, 7.5)
    settle(page, 7.5)
    assert captions(page) == [KOREAN, PORTUGUESE]  # the selected event's first
    page.locator(".chip", has_text="fall").click()
    assert captions(page) == [KOREAN]
    page.locator("#show_captions").uncheck()
    assert captions(page) == []


def test_captions_follow_playback(plain: Path, visit: Visit) -> None:
    page = ready(visit(plain, address="#t=1.5"))
    page.locator("#speed").select_option("2")
    assert captions(page) == []
    page.locator("#play").click()
    page.locator("#captions p", has_text=ENGLISH).wait_for()
    page.wait_for_function("() => video.currentTime > 4 && !document.querySelector('#captions p')")
    assert not page.evaluate("() => video.paused")


def test_template_is_marked(plain: Path, visit: Visit) -> None:
    page = ready(visit(plain))
    source = "From a template, because the score of the model\u2019s caption was too low (31 %)."
    row = page.locator(".row.event").nth(3)
    assert row.locator(".mark").inner_text() == "template"
    assert row.locator(".caption").get_attribute("title") == f"{TEMPLATE}\n{source}"
    colours = [page.locator(".words").nth(n).evaluate("e => getComputedStyle(e).color") for n in (2, 3)]
    assert colours[0] != colours[1]
    assert page.locator(".row.event .mark").count() == 1
    row.click()
    settle(page, 10.0)
    assert panel_caption(page) == TEMPLATE
    assert page.locator("#panel_source").inner_text() == source
    assert "template" in str(page.locator("#panel_text").get_attribute("class"))
    assert captions(page) == [TEMPLATE]
    assert page.locator("#captions .template").count() == 1


def test_caption_direction_follows_language(plain: Path, visit: Visit) -> None:
    page = ready(visit(plain))
    ways = page.evaluate(
        "() => [...document.querySelectorAll('.row.event .words')].map(words => getComputedStyle(words).direction)"
    )
    assert ways == ["ltr", "ltr", "ltr", "ltr", "rtl"]


def test_page_without_captions_hides_them(tmp_path: Path, visit: Visit) -> None:
    page = ready(visit(make_page(tmp_path, [event(2.0, 4.0)])))
    page.keyboard.press("n")
    for part in ("#captions_option", "#panel_text", "#panel_source", ".caption"):
        assert not page.locator(part).is_visible()


def test_captions_are_escaped(tmp_path: Path, visit: Visit) -> None:
    events = [described(2.0, 4.0, ATTACK), described(5.0, 6.0, ATTACK, description_source="template")]
    report = make_page(tmp_path, events)
    page = ready(visit(report))
    for number, start_s in enumerate((2.0, 5.0)):
        page.keyboard.press("n")
        settle(page, start_s)
        assert panel_caption(page) == ATTACK
        assert captions(page) == [ATTACK]
        assert page.locator(".row.event .words").nth(number).inner_text() == ATTACK
    write(page, ATTACK + "'\"")
    assert panel_caption(page) == ATTACK + "'\""
    assert page.title() == "a.mp4"
    index = tmp_path / "events" / "index.html"
    write_index(
        index, [IndexRow(name="a.mp4", status="done", duration_s=9.0, events=tuple(events), page=report)],
        labels=("fall", "walk"),
    )  # fmt: skip
    other = visit(index)
    other.locator("#show_events").click()
    assert texts(other, "#events .words") == [ATTACK] * 2
    assert other.title() == "Events"
    for each in (page, other):
        assert each.locator("img[src=x], #captions b, .words b, #panel_text b").count() == 0


# --- all recordings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (1280, 720)])
def test_index_shows_and_searches_captions(tmp_path: Path, visit: Visit, width: int, height: int) -> None:
    whole = IndexRow(name="yard.mp4", status="done", duration_s=20.0, events=tuple(FOUND), page=tmp_path / "a.html")
    bare = IndexRow(name="bare.mp4", status="done", duration_s=20.0, events=(event(1.0, 2.0, score=0.1),))
    write_index(tmp_path / "index.html", [whole, bare], labels=("fall", "walk"))
    page = visit(tmp_path / "index.html", viewport={"width": width, "height": height})
    page.locator("#show_events").click()
    words = lambda: texts(page, "#events .words")  # noqa: E731
    assert words() == [PORTUGUESE, ENGLISH, TEMPLATE, ARABIC, KOREAN]  # by score
    assert page.locator("#events .scroll .row").count() == 6
    assert page.locator("#events .caption").nth(0).get_attribute("title") == f"{PORTUGUESE}\nCaption score 72 %"
    assert texts(page, "#events .template .mark") == ["template"]
    page.locator("#events .head").get_by_role("button", name="Caption").click()
    assert words() == sorted([PORTUGUESE, ENGLISH, TEMPLATE, ARABIC, KOREAN])
    for query, matches in [
        ("가방", [KOREAN]),
        ("\u1100\u1161\u1107\u1161\u11bc", [KOREAN]),  # the same word, decomposed
        ("caminhao", [PORTUGUESE]),
        ("CAMINHÃO yard", [PORTUGUESE]),
        ("🚚", [PORTUGUESE]),
        ("الباب", [ARABIC]),
        ("bag fall", [ENGLISH, TEMPLATE]),
        ("bag nowhere", []),
    ]:
        page.locator("#search").fill(query)
        assert words() == matches, query
    page.locator("#search").fill("가방")
    page.locator("#show_recordings").click()
    assert page.locator("#show_recordings").inner_text() == "Recordings 1"


# --- correcting -----------------------------------------------------------------------------------------------------


def test_captions_are_edited_and_saved(tmp_path: Path, visit: Visit) -> None:
    page = ready(visit(make_page(tmp_path, FOUND)))
    page.keyboard.press("n")
    page.keyboard.press("e")
    assert page.locator("#edit_text").input_value() == ENGLISH
    page.locator("#edit_text").fill('  A person in blue, who says "안녕",\nputs a bag down ')
    page.locator("#edit_form .strong").click()
    page.keyboard.press("n")
    page.keyboard.press("m")  # left as predicted
    page.keyboard.press("n")
    write(page, "")  # removed
    assert (panel_caption(page), page.locator("#panel_source").is_visible()) == ("", False)
    assert page.locator("#save_state").inner_text() == "unsaved: 2 corrections"
    assert listed(page) == ["fall", "walk", "fall", "fall", "walk"]
    path = saved(page, tmp_path / "videos")
    assert annotations(path) == [
        (2.0, 4.0, "fall", 'A person in blue, who says "안녕",\nputs a bag down'),
        (6.0, 8.0, "walk", KOREAN),
        (7.0, 9.0, "fall", None),
        (10.0, 13.0, "fall", None),  # a template
        (15.0, 16.5, "walk", ARABIC),
    ]
    text = path.read_text(encoding="utf-8")
    assert text.startswith("video,start,end,label,description,split\n")
    assert TEMPLATE not in text
    assert "Template captions are left out." in page.locator("#toast").inner_text()


def test_caption_replaces_template(tmp_path: Path, visit: Visit) -> None:
    page = ready(visit(make_page(tmp_path, FOUND[3:4])))
    page.keyboard.press("n")
    page.keyboard.press("e")
    assert page.locator("#edit_text").input_value() == ""
    page.locator("#edit_text").fill("사람이 넘어진다")
    page.keyboard.press("Control+s")  # while typing
    page.wait_for_selector("#toast:not([hidden])")
    assert texts(page, ".row.event .mark") == ["edited"]
    assert not page.locator("#panel_source").is_visible()
    path = saved(page, tmp_path / "videos")
    assert annotations(path) == [(10.0, 13.0, "fall", "사람이 넘어진다")]
    page.locator("#undo").click()
    assert panel_caption(page) == TEMPLATE
    assert texts(page, ".row.event .mark") == ["template"]


def test_template_is_dropped_when_label_changes(tmp_path: Path, visit: Visit) -> None:
    page = ready(visit(make_page(tmp_path, FOUND)))
    for number, left in ((3, ""), (0, ENGLISH)):
        page.locator(".row.event").nth(number).click()
        page.keyboard.press("e")
        page.locator("#edit_label").fill("slip")
        page.locator("#edit_form .strong").click()
        assert panel_caption(page) == left
    page.keyboard.press("a")  # a missed event has no caption, and can get one
    page.locator("#edit_text").fill("One more")
    page.locator("#edit_form .strong").click()
    assert panel_caption(page) == "One more"
