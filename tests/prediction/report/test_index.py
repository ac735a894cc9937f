"""The index: its data, and sorting and filtering in a real browser."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.prediction.report.browsing import listed, ready, texts
from tests.prediction.report.pages import FPS, NASTY, SIZE, data_of, event, make_page
from tests.videos import write_video
from vidgru.prediction.report import index as module
from vidgru.prediction.report.index import IndexRow, write_index

LABELS = ("fall", "walk", NASTY)
Visit = Callable[..., Any]
HOSTILE_NAMES = (
    "\udcff\udcfe.mp4", "</script><b onclick=x>.mp4", "\u202e4pm.a\u2066\u200f.mp4", f"{'é' * 120}{'0' * 6}.mp4",
    "50%25 #1?a=b&c;.mp4", "\"it's\" `x` ${1} \\.mp4", "a\nb\r\tc\u2028.mp4", "=cmd|' -C'!A0.mp4",
)  # fmt: skip


def rows(root: Path) -> list[IndexRow]:
    def page(name: str) -> Path:
        return root / "events" / name / "report.html"

    busy = (event(1.0, 3.0, score=0.9), event(5.0, 50.0, "walk", 0.4))
    first = IndexRow(name="cam 1/b#.mp4", status="done", duration_s=60.0, events=busy, page=page("cam 1/b#.mp4"))
    second = IndexRow(name="a.mp4", status="partial", duration_s=3700.0, reason="3 corrupt frames", page=page("a.mp4"))
    return [
        replace(first, recorded_at="2024-05-06T07:08:09"),
        replace(second, events=(event(2.0, 2.5, NASTY, 0.7),)),
        IndexRow(name=f"{NASTY.replace('/', '')}.mp4", status="failed", duration_s=None, reason=f"is no video {NASTY}"),
        IndexRow(name="quiet.mp4", status="done", duration_s=10.0, page=page("quiet.mp4")),
    ]


def make_index(root: Path) -> Path:
    write_index(root / "events" / "index.html", rows(root), labels=LABELS)
    return root / "events" / "index.html"


def test_index_data(tmp_path: Path) -> None:
    page = make_index(tmp_path)
    data = data_of(page)
    assert data["events"] == [[0, 1000, 3000, 0, 0.9, 0], [0, 5000, 50000, 1, 0.4, 1], [1, 2000, 2500, 2, 0.7, 0]]
    assert [r["page"] for r in data["recordings"]] == [
        "cam%201/b%23.mp4/report.html",
        "a.mp4/report.html",
        None,
        "quiet.mp4/report.html",
    ]
    assert [r["status"] for r in data["recordings"]] == ["done", "partial", "failed", "done"]
    assert data["recordings"][2]["reason"] == f"is no video {NASTY}"
    assert data["notes"] == []
    text = page.read_text()
    assert "<b onclick" not in text
    assert len(text.split("</script>")) == 3


def test_index_limits_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS", 2)
    data = data_of(make_index(tmp_path))
    assert [row[4] for row in data["events"]] == [0.9, 0.7]
    assert data["notes"] == [
        "This page shows the 2 best scored of 3 events; the recordings' own pages and events.csv have all."
    ]
    assert data["recordings"][0]["events"] == 2


def test_index_limits_captions(tmp_path: Path) -> None:
    text = "트럭 🚚 <b>" * 24
    caption = {"description": text, "description_score": 0.25, "description_source": "model"}
    busy = tuple(event(float(n), n + 1.0, score=n / 20_000, **caption) for n in range(20_000))
    page = tmp_path / "index.html"
    write_index(page, [IndexRow(name="a.mp4", status="done", duration_s=1.0, events=busy)], labels=LABELS)
    data = data_of(page)
    assert 10_000_000 < page.stat().st_size < 20_000_000
    assert data["events"][-1] == [0, 19_999_000, 20_000_000, 0, 1.0, 19_999, text, 0.25, False]
    assert data["notes"][0].startswith(f"This page shows the {len(data['events']):,} best scored of 20,000 events")


def many(root: Path) -> Path:
    rng = np.random.default_rng(0)
    scores = rng.random((5000, 10)).round(3)
    rows = [
        IndexRow(
            name=f"camera {n % 20}/{n:05d}.mp4", status="done", duration_s=600.0, page=root / f"{n}/report.html",
            events=tuple(event(60.0 * i, 60.0 * i + 5, LABELS[i % 3], float(scores[n, i])) for i in range(10)),
        )
        for n in range(5000)
    ]  # fmt: skip
    write_index(root / "index.html", rows, labels=LABELS)
    return root / "index.html"


def test_index_of_5000_recordings(tmp_path: Path) -> None:
    page = many(tmp_path)
    assert len(data_of(page)["events"]) == 50_000
    assert page.stat().st_size < 5_000_000


def names(page: Any) -> list[str]:
    return [text.split("\n")[0] for text in texts(page, "#recordings .scroll .row")]


def events(page: Any) -> list[list[str]]:
    return [text.split("\n") for text in texts(page, "#events .scroll .row")]


@pytest.mark.slow
def test_index_sorts_and_filters_recordings(tmp_path: Path, visit: Visit) -> None:
    page = visit(make_index(tmp_path))
    broken = rows(tmp_path)[2].name
    assert page.locator("#facts").inner_text() == "4 recordings · 1 h 3 min · 3 events · 1 partial · 1 failed"
    assert names(page) == [broken, "a.mp4", "cam 1/b#.mp4", "quiet.mp4"]
    assert f"is no video {NASTY}" in page.locator("#recordings").inner_text()
    head = page.locator("#recordings .head")
    head.get_by_role("button", name="Length").click()
    assert names(page) == ["a.mp4", "cam 1/b#.mp4", "quiet.mp4", broken]
    head.get_by_role("button", name="Length").click()
    assert names(page) == ["quiet.mp4", "cam 1/b#.mp4", "a.mp4", broken]
    head.get_by_role("button", name="Best").click()
    assert names(page)[:2] == ["cam 1/b#.mp4", "a.mp4"]
    page.locator("#min_score").fill("60")
    page.locator(".chip", has_text="fall").click()
    assert names(page)[0] == "a.mp4"
    page.locator("#with_events").check()
    assert names(page) == ["a.mp4"]
    page.locator(".chip", has_text="fall").click()
    page.locator("#search").fill("CAM fall")
    assert names(page) == ["cam 1/b#.mp4"]
    page.locator("#search").fill("nowhere")
    assert "No recording matches the filters." in page.locator("#recordings").inner_text()
    page.locator("#search").fill("")
    page.locator("#with_events").uncheck()
    page.locator("#status").select_option("failed")
    assert names(page) == [broken]
    assert page.locator("b, i").count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("table", ["recordings", "events"])
def test_index_cuts_long_names_at_the_front(tmp_path: Path, visit: Visit, table: str) -> None:
    names = [f"(old) {'a long folder/' * 12}camera {number}.mp4" for number in range(3)]
    rows = [
        IndexRow(name=name, status="done", duration_s=60.0, events=(event(1.0, 3.0),), page=tmp_path / f"{number}.html")
        for number, name in enumerate(names)
    ]
    write_index(tmp_path / "index.html", rows, labels=LABELS)
    page = visit(tmp_path / "index.html")
    page.locator(f"#show_{table}").click()
    assert texts(page, f"#{table} .row .path") == names
    titles = "(selector) => [...document.querySelectorAll(selector)].map((cell) => cell.title)"
    assert page.evaluate(titles, f"#{table} .row .path") == names
    # both at once: rows may be drawn anew between two questions
    edges = """(row) => ['.path', 'bdi'].map((part) => {
        const { left, right } = document.querySelector(`${row} ${part}`).getBoundingClientRect();
        return [left, right];
    })"""
    cell, text = page.evaluate(edges, f"#{table} .row")
    assert text[0] < cell[0]
    assert text[1] == pytest.approx(cell[1], abs=2)


@pytest.mark.slow
def test_index_shows_reasons_and_all_labels(tmp_path: Path, visit: Visit) -> None:
    reason = "is no video: its index is missing, as if it was cut off while it was being written; " * 2
    labels = tuple(f"a rather long label {number}" for number in range(12))
    busy = tuple(event(5.0 * number, 5.0 * number + 2, label) for number, label in enumerate(labels))
    rows = [
        IndexRow(name="a.mp4", status="done", duration_s=60.0, events=busy, page=tmp_path / "a.html"),
        IndexRow(name="b.mp4", status="failed", duration_s=None, reason=reason),
        IndexRow(name="c.mp4", status="partial", duration_s=60.0, reason="3 corrupt frames", page=tmp_path / "c.html"),
    ]
    write_index(tmp_path / "index.html", rows, labels=labels)
    page = visit(tmp_path / "index.html")
    reason_text = page.locator(".reason span")
    assert reason_text.evaluate("element => element.scrollHeight <= element.clientHeight")
    assert page.locator(".reason").get_attribute("title") == reason
    state = page.locator(".state.partial").bounding_box()
    under = "([x, y]) => document.elementFromPoint(x, y).title"
    assert page.evaluate(under, [state["x"] + 5, state["y"] + 5]) == "3 corrupt frames"
    box = page.locator("#labels").bounding_box()
    for chip in page.locator(".chip").all():
        place = chip.bounding_box()
        assert box["y"] <= place["y"] < place["y"] + place["height"] <= box["y"] + box["height"]


@pytest.mark.slow
def test_index_sorts_and_filters_events(tmp_path: Path, visit: Visit) -> None:
    page = visit(make_index(tmp_path), color_scheme="dark")
    page.locator("#show_events").click()
    assert [row[0] for row in events(page)] == ["fall", NASTY, "walk"]
    head = page.locator("#events .head")
    head.get_by_role("button", name="Length").click()
    assert [row[0] for row in events(page)] == ["walk", "fall", NASTY]
    head.get_by_role("button", name="Recording").click()
    assert events(page)[0][0] == NASTY
    page.locator("#min_score").fill("50")
    assert page.locator("#show_events").inner_text() == "Events 2"
    page.locator(".chip", has_text="fall").click()
    assert [row[0] for row in events(page)] == [NASTY]
    assert "2024" not in page.locator("#events .scroll").inner_text()
    page.locator(".chip", has_text="fall").click()
    assert "2024-05-06 07:08:10" in page.locator("#events .scroll").inner_text()


@pytest.mark.slow
def test_index_links_to_event_and_back(tmp_path: Path, visit: Visit) -> None:
    events = (event(2.0, 4.0), event(6.0, 7.0, "walk", 0.95))
    name = "cam 1/b#.mp4"
    report = make_page(tmp_path, list(events), name=name, frames=10 * FPS)
    index = tmp_path / "events" / "index.html"
    write_index(index, [IndexRow(name=name, status="done", duration_s=10.0, events=events, page=report)], labels=LABELS)
    page = visit(index)
    page.locator("#show_events").click()
    page.locator("#events .row a").first.click()
    page.wait_for_selector("#panel_label")
    assert page.locator("#panel_label").inner_text() == "walk"
    page.wait_for_function("() => Math.abs(video.currentTime - 6) < 0.1")
    page.locator("#back").click()
    page.wait_for_selector("#recordings")
    page.locator("#recordings .row a").click()
    page.wait_for_selector("#stage")
    assert page.locator("h1").inner_text() == name


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8, or hold quotes and line breaks")
def test_pages_of_hostile_names_open(tmp_path: Path, visit: Visit) -> None:
    found = (event(2.0, 4.0), event(6.0, 7.0, "walk", 0.95))
    video = write_video(tmp_path / "clip.mp4", 10 * FPS, fps=FPS, size_px=SIZE, options={"g": "50"}).read_bytes()
    rows = [
        IndexRow(name=name, status="done", duration_s=10.0, events=found, page=page)
        for name in HOSTILE_NAMES
        if (page := make_page(tmp_path, list(found), name=name, frames=10 * FPS, video=video))
    ]
    write_index(tmp_path / "events" / "index.html", rows, labels=LABELS)
    page, titles = visit(tmp_path / "events" / "index.html"), []
    assert page.locator("#facts").inner_text().startswith(f"{len(rows)} recordings")
    for number in range(len(rows)):
        page.locator("#recordings .row a").nth(number).click()
        page.wait_for_selector("#stage")
        assert listed(ready(page)) == ["fall", "walk"]
        assert page.locator("h1 b, [onclick]").count() == 0
        titles.append(page.locator("h1").text_content())
        page.locator("#back").click()
        page.wait_for_selector("#recordings .row")
    # bytes that are not UTF-8 are shown as question marks, carriage returns as line breaks
    assert sorted(titles) == sorted(
        name.encode(errors="replace").decode().replace("\r", "\n") for name in HOSTILE_NAMES
    )


@pytest.mark.slow
def test_index_renders_rows_in_view(tmp_path: Path, visit: Visit) -> None:
    page = visit(many(tmp_path))
    assert page.locator("#show_recordings").inner_text() == "Recordings 5,000"
    assert page.locator("#recordings .scroll .row").count() < 60
    page.locator("#show_events").click()
    assert page.locator("#show_events").inner_text() == "Events 50,000"
    assert page.locator("#events .scroll .row").count() < 60
    page.locator("#events .scroll").evaluate("element => element.scrollTop = element.scrollHeight")
    page.wait_for_function("() => document.querySelector('#events .scroll .row:last-child').innerText.includes('0 %')")
    page.locator("#search").fill("camera 19/ fall")
    assert page.locator("#show_events").inner_text() == "Events 1,000"
