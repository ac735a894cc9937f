"""The labelling page in a real browser: annotating by keys and mouse, drafts, saving, playing."""

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.labeling.conftest import RunningServer
from tests.prediction.report.browsing import click_time, ready, redrawn, settle, texts, time_of
from tests.videos import read_counter, write_video
from vidgru.datasets.annotations import load_dataset
from vidgru.errors import OutputError
from vidgru.types import Event

pytestmark = pytest.mark.slow
Visit = Callable[..., Any]
Serve = Callable[..., RunningServer]

NASTY = "</script><b onclick=\"alert('x')\">&amp;"
DURATION_S = 20.0


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name in ("a.mp4", "b.mp4"):
        write_video(folder / name, 200, fps=10, size_px=(320, 192), options={"g": "50"})
    return folder


def saved(page: Any) -> None:
    """Wait until the server has confirmed all changes."""
    redrawn(page)
    page.wait_for_function("() => document.getElementById('save_state').textContent === 'saved'")


def go_to(page: Any, time_s: float) -> None:
    click_time(page, time_s, DURATION_S)
    settle(page, time_s)


def opened(page: Any, name: str) -> None:
    page.wait_for_function("(name) => recording_name.textContent === name", arg=name)


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def title(page: Any) -> str:
    redrawn(page)
    return str(page.locator("#action_title").inner_text())


def lane_point(page: Any, time_s: float, lane: int) -> tuple[float, float]:
    box = page.locator("#lanes_canvas").bounding_box()
    return box["x"] + time_s / DURATION_S * box["width"], box["y"] + 20 * lane + 10


def drag(page: Any, start_s: float, end_s: float, lane: int) -> None:
    page.mouse.move(*lane_point(page, start_s, lane))
    page.mouse.down()
    page.mouse.move(*lane_point(page, end_s, lane), steps=6)
    page.mouse.up()


def pixel(page: Any, time_s: float, lane: int) -> list[int]:
    """Colour of the timeline at a time."""
    redrawn(page)
    x, y = lane_point(page, time_s, lane)
    shot = Image.open(io.BytesIO(page.screenshot(clip={"x": round(x), "y": round(y), "width": 1, "height": 1})))
    return list(np.asarray(shot.convert("RGB"))[0, 0].tolist())


# --- annotating -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080)])
def test_page_fits_the_screen(videos: Path, serve: Serve, visit: Visit, scheme: str, size: tuple[int, int]) -> None:
    viewport = dict(zip(("width", "height"), size, strict=True))
    page = ready(visit(serve(videos), color_scheme=scheme, viewport=viewport))
    for part in ("#recording_list", "#stage", "#play", "#ruler", "#lanes", "#actions", "#suggestion_list", "#training"):
        box = page.locator(part).bounding_box()
        assert box["y"] >= 0, part
        assert box["height"] > 10, part
        assert box["y"] + box["height"] <= size[1], part
        assert box["x"] + box["width"] <= size[0], part
    nameless = "els => els.filter(e => !(e.ariaLabel || e.innerText.trim() || e.labels?.length)).map(e => e.outerHTML)"
    assert page.eval_on_selector_all("button, select, input:not([hidden]), textarea", nameless) == []


def test_keys_mark_label_describe_and_undo(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    page = ready(visit(server))
    go_to(page, 2.05)
    press(page, "i")
    go_to(page, 3.55)
    press(page, "o")
    assert title(page) == "New event"
    assert page.locator("#action_text").inner_text() == "Press the number of its label: 1\xa0fall, 2\xa0sit."
    press(page, "2")
    saved(page)
    assert server.events() == [(2.0, 3.6, "sit", "")]
    assert title(page) == "sit"
    press(page, "1")
    saved(page)
    assert server.events() == [(2.0, 3.6, "fall", "")]
    press(page, "d")
    page.keyboard.type("Someone falls, 1 2 a r x.")
    press(page, "Enter")
    saved(page)
    assert server.events() == [(2.0, 3.6, "fall", "Someone falls, 1 2 a r x.")]
    go_to(page, 4.05)
    press(page, "Shift+O")
    go_to(page, 8.05)
    press(page, "i")
    go_to(page, 9.05)
    press(page, "l")  # the end is here, and the label is new
    page.keyboard.type("  jumps  high ")
    press(page, "Enter")
    saved(page)
    first = (2.0, 4.1, "fall", "Someone falls, 1 2 a r x.")
    assert server.events() == [first, (8.0, 9.1, "jumps high", "")]
    assert texts(page, ".lane_name") == ["fall", "sit", "jumps high"]
    press(page, "Delete")
    saved(page)
    assert server.events() == [first]
    press(page, "u")
    saved(page)
    assert len(server.events()) == 2
    press(page, "Control+z", "u", "u")
    saved(page)
    assert server.events() == [(2.0, 3.6, "fall", "")]
    press(page, "Control+Shift+z")
    saved(page)
    assert server.events() == [(2.0, 3.6, "fall", "Someone falls, 1 2 a r x.")]
    press(page, "Shift+U", "Shift+U", "Shift+U")
    saved(page)
    assert server.events() == [first]
    assert page.locator("#redo").is_disabled()
    rows = load_dataset(server.out).annotations
    assert [(a.start_s, a.end_s, a.label) for a in rows if a.label == "fall"] == [(2.0, 4.1, "fall")]


def test_mouse_adds_moves_and_resizes(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    page = ready(visit(server))
    drag(page, 4.0, 6.0, 1)
    saved(page)
    ((start_s, end_s, label, _),) = server.events()
    assert (start_s, end_s, label) == (pytest.approx(4, abs=0.05), pytest.approx(6, abs=0.05), "sit")
    drag(page, 5.0, 8.0, 1)
    saved(page)
    ((start_s, end_s, _, _),) = server.events()
    assert (start_s, end_s) == (pytest.approx(7, abs=0.1), pytest.approx(9, abs=0.1))
    drag(page, 9.0, 11.0, 1)
    saved(page)
    ((start_s, end_s, _, _),) = server.events()
    assert (start_s, end_s) == (pytest.approx(7, abs=0.1), pytest.approx(11, abs=0.1))
    page.locator(".lane_name", has_text="fall").click()
    saved(page)
    assert server.events()[0][2] == "fall"
    page.mouse.click(*lane_point(page, 15.0, 1))
    settle(page, 15.0)
    assert title(page) == "Nothing selected"
    page.mouse.click(*lane_point(page, 9.0, 0))
    assert title(page) == "fall"
    page.get_by_role("button", name="Delete").click()
    saved(page)
    page.locator("#undo").click()
    saved(page)
    assert len(server.events()) == 1


def test_frames_are_exact(tmp_path: Path, serve: Serve, visit: Visit) -> None:
    """Steps and clicks show the right frame of a video with uneven times; an event holds the frames it is marked at."""
    ticks = np.cumsum([0, *np.random.default_rng(1).choice([33, 40, 125, 700, 2000], 40)]).tolist()
    write_video(tmp_path / "v/a.mp4", len(ticks), ticks=ticks, size_px=(320, 192))
    server = serve(tmp_path / "v")
    page = ready(visit(server))
    duration_s = server.project.recordings[0].duration_s

    def shown() -> int:
        # The browser shows the frame or, if it does not, the page covers the wrong one.
        page.wait_for_function(
            """(ticks) => {
              const frame = (time) => ticks.findLastIndex((tick) => tick <= time * 1000 + 0.1);
              return !video.seeking && frame(video.currentTime) === frame(presentedTime) === still.hidden;
            }""",
            arg=ticks,
        )
        redrawn(page)
        redrawn(page)
        shot = np.asarray(Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB"))
        height, width = shot.shape[:2]
        scale = min(width / 320, height / 192)
        left, top = round((width - 320 * scale) / 2), round((height - 192 * scale) / 2)
        return read_counter(shot[top : height - top, left : width - left])

    numbers = []
    for _ in range(6):
        press(page, ".")
        numbers.append(shown())
    press(page, ",", ",")
    assert [*numbers, shown()] == [1, 2, 3, 4, 5, 6, 4]
    for number in (23, 17, 31):
        click_time(page, (ticks[number] + ticks[number + 1]) / 2000, duration_s)
        at = page.evaluate("() => video.currentTime")
        assert shown() == np.searchsorted(ticks, at * 1000, side="right") - 1
    first = shown()
    press(page, "i", ".", ".", "o", "1")
    saved(page)
    assert shown() == first + 2
    ((start_s, end_s, _, _),) = server.events()
    assert (start_s, end_s) == (ticks[first] / 1000, ticks[first + 3] / 1000)


def test_only_played_time_counts_as_watched(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    page = ready(visit(server))
    go_to(page, 3.05)
    go_to(page, 10.05)
    press(page, " ")
    page.wait_for_function("() => video.currentTime > 10.8")
    press(page, " ")
    stopped_s = time_of(page)
    press(page, "Shift+ArrowLeft", ".", ".")
    saved(page)
    ((start_s, end_s),) = server.project.recordings[0].labels.watched
    assert (start_s, end_s) == (pytest.approx(10.05, abs=0.16), pytest.approx(stopped_s, abs=0.25))
    press(page, "i")
    go_to(page, 5.05)
    press(page, "o", "x")  # nothing happens between the two
    saved(page)
    assert server.project.recordings[0].labels.watched[0] == (pytest.approx(1.0, abs=0.5), 5.1)
    press(page, "u")
    saved(page)
    assert server.project.recordings[0].labels.watched == [(start_s, end_s)]
    press(page, "u")  # what was only played
    assert "no longer counts as watched" in page.locator("#toast").inner_text()
    saved(page)
    assert server.project.recordings[0].labels.watched == []
    assert page.locator("#undo").is_disabled()
    press(page, "Shift+U")
    saved(page)
    assert server.project.recordings[0].labels.watched == [(start_s, end_s)]


def test_played_draft_is_not_watched(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    page = ready(visit(server))
    draft = Event(video="a.mp4", start_s=3.0, end_s=4.0, label="fall", score=0.7)
    server.project.set_drafts({0: [draft]})
    page.wait_for_function("() => document.getElementById('facts').textContent.includes('1 draft')")
    go_to(page, 2.55)
    press(page, " ")
    page.wait_for_function("() => video.currentTime > 4.7")
    press(page, " ")
    saved(page)
    before, after = server.project.recordings[0].labels.watched
    assert before == (pytest.approx(2.5, abs=0.16), 3.0)
    assert after == (4.0, pytest.approx(4.8, abs=0.3))
    watched, other = (pixel(page, time_s, 1) for time_s in (2.8, 6.0))
    assert pixel(page, 4.5, 1) == watched != other
    assert pixel(page, 3.5, 1) == other
    press(page, "u")
    saved(page)
    assert server.project.recordings[0].labels.watched == []
    assert pixel(page, 2.8, 1) == other


def test_recording_is_marked_as_empty(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    page = ready(visit(server))
    labels = lambda number: server.project.recordings[number].labels  # noqa: E731
    unknown = pixel(page, 10.0, 1)
    press(page, "Shift+X")
    saved(page)
    assert labels(0).is_empty
    assert pixel(page, 10.0, 1) != unknown
    page.wait_for_selector("#recording_r0 .mark")
    press(page, "u")
    saved(page)
    assert not labels(0).is_empty
    press(page, "Shift+X")
    drag(page, 1.0, 2.0, 0)  # an event takes it back, and undo restores it
    saved(page)
    assert not labels(0).is_empty
    press(page, "u")
    saved(page)
    assert labels(0).is_empty
    assert title(page) == "Nothing happens in this recording"
    page.locator("#recording_filter").select_option("done")
    page.wait_for_function("() => document.querySelectorAll('.recording').length === 1")
    assert texts(page, ".recording .name") == ["a.mp4"]
    press(page, "Escape", "/")
    page.keyboard.type("nowhere")
    page.wait_for_selector("#no_recordings:not([hidden])")


def test_nothing_else_happens_beside_an_event(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    page = ready(visit(server))
    unknown = pixel(page, 10.0, 1)
    drag(page, 4.0, 6.0, 0)
    saved(page)
    assert pixel(page, 10.0, 1) == pixel(page, 6.8, 1) == unknown
    assert pixel(page, 6.3, 1) != unknown  # half a second beside the event
    press(page, "Shift+X")
    assert "Nothing else happens in this recording. n opens the next one." in page.locator("#toast").inner_text()
    saved(page)
    assert pixel(page, 10.0, 1) != unknown
    assert server.project.recordings[0].labels.is_wholly_watched(DURATION_S)
    assert len(server.events()) == 1
    page.wait_for_selector("#recording_r0 .mark")
    press(page, "u")
    saved(page)
    assert server.project.recordings[0].labels.watched == []
    drafts = [Event(video="a.mp4", start_s=s, end_s=s + 1, label="sit", score=0.7) for s in (10.0, 14.0)]
    server.project.set_drafts({0: drafts})
    page.wait_for_function("() => document.getElementById('facts').textContent.includes('2 drafts')")
    press(page, "Shift+X")
    assert "2 drafts are still open." in page.locator("#toast").inner_text()
    saved(page)
    assert len(server.project.details(0)["drafts"]) == 2


def test_undo_returns_to_the_recording_it_changes(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    page = ready(visit(server))
    drag(page, 1.0, 2.0, 0)
    saved(page)
    press(page, "n")
    opened(page, "b.mp4")
    drag(ready(page), 3.0, 4.0, 1)
    saved(page)
    press(page, "u")
    saved(page)
    assert (len(server.events(0)), len(server.events(1))) == (1, 0)
    press(page, "u")
    opened(page, "a.mp4")
    saved(page)
    assert "a.mp4: Undone." in page.locator("#toast").inner_text()
    assert (len(server.events(0)), len(server.events(1))) == (0, 0)
    press(page, "Shift+U", "Shift+U")
    opened(page, "b.mp4")
    saved(page)
    assert (len(server.events(0)), len(server.events(1))) == (1, 1)


def test_fast_undo_stays_within_its_recording(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    page = ready(visit(server))
    press(page, "n")
    opened(page, "b.mp4")
    drag(ready(page), 3.0, 4.0, 1)
    press(page, "Delete")  # undone, it is an event again: in b.mp4 only
    saved(page)
    press(page, "Shift+N")
    opened(page, "a.mp4")
    drag(ready(page), 1.0, 2.0, 0)
    saved(page)
    press(page, "n")
    opened(page, "b.mp4")
    press_undo = "document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'u', bubbles: true }))"
    page.evaluate(f"() => [1, 2].forEach(() => {press_undo})")  # twice before the server has answered the first
    opened(page, "a.mp4")
    saved(page)
    page.wait_for_function("() => !redo.disabled")
    assert (server.events(0), server.events(1)) == ([], [])
    press(page, "u")
    opened(page, "b.mp4")
    saved(page)
    assert (len(server.events(0)), len(server.events(1))) == (0, 1)


def test_keys_work_after_mouse_clicks(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    page = ready(visit(server))
    drag(page, 4.0, 6.0, 0)
    drag(page, 8.0, 9.0, 1)
    saved(page)
    press(page, "Escape", "Home")
    settle(page, 0.0)
    for part in ("#recording_r0", "#frame_on", "#zoom_in", "#zoom_all", "#speed", "#mute", "#stage"):
        page.locator(part).first.click()
        if part == "#speed":
            press(page, "ArrowUp", "Enter")
        if part == "#stage":  # plays
            press(page, " ")
        page.wait_for_function("() => video.paused")
        press(page, "Escape", "Home", "Tab")
        assert title(page) == "fall", part
        press(page, "Tab")
        assert title(page) == "sit", part
    page.locator("#mute").click()
    press(page, " ")
    page.wait_for_function("() => !video.paused")
    press(page, " ", "End")
    settle(page, 19.95)
    press(page, "?", "Escape", "Tab")
    page.wait_for_function("() => document.activeElement === document.body")


def test_times_are_typed(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    page = ready(visit(server))
    press(page, "e")
    assert "Select an event to type its times" in page.locator("#toast").inner_text()
    drag(page, 4.0, 6.0, 0)
    press(page, "e")
    page.keyboard.type("0:07.125")
    press(page, "Enter")
    assert page.locator("#times_error").inner_text() == "The end must be after the start."
    press(page, "Tab", "Tab")  # OK, and back from there
    page.locator("#end_input").fill("later")
    press(page, "Enter")
    assert page.locator("#times_error").inner_text() == "Start and end must be numbers of seconds."
    page.locator("#end_input").fill("8,5")
    press(page, "Enter")
    saved(page)
    assert server.events() == [(7.125, 8.5, "fall", "")]
    press(page, "e", "Escape", "u")
    saved(page)
    assert server.events()[0][0] == pytest.approx(4.0, abs=0.05)


# --- drafts ---------------------------------------------------------------------------------------------------------


def test_drafts_are_accepted_corrected_and_rejected(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    page = ready(visit(server))
    times = [(2.0, 3.0, "fall"), (5.0, 6.0, "sit"), (8.0, 9.0, "fall"), (12.0, 14.0, "sit")]
    drafts = [Event(video="a.mp4", start_s=start, end_s=end, label=label, score=0.7) for start, end, label in times]
    server.project.set_drafts({0: drafts})
    page.wait_for_function("() => document.getElementById('facts').textContent.includes('4 drafts')")
    assert "4 drafts" in page.locator("#recording_r0").inner_text()
    press(page, "Tab")
    assert title(page) == "Draft: fall"
    press(page, "a")  # and on to the next one
    saved(page)
    assert server.events() == [(2.0, 3.0, "fall", "")]
    assert title(page) == "Draft: sit"
    press(page, "r")
    saved(page)
    assert server.project.recordings[0].labels.rejected == [(5.0, 6.0, "sit")]
    assert title(page) == "Draft: fall"
    press(page, "2")  # with another label
    saved(page)
    assert server.events()[1:] == [(8.0, 9.0, "sit", "")]
    press(page, "Tab")
    assert title(page) == "Draft: sit"
    drag(page, 14.0, 15.0, 1)  # with another end
    saved(page)
    assert server.events()[2] == (12.0, pytest.approx(15.0, abs=0.05), "sit", "")
    page.wait_for_function("() => !document.querySelector('#recording_r0').innerText.includes('draft')")
    press(page, "u", "u", "u", "u")
    saved(page)
    assert server.events() == []
    assert server.project.recordings[0].labels.rejected == []
    press(page, "Tab", "ArrowDown", "ArrowDown", "ArrowUp")
    assert title(page) == "Draft: sit"


def test_rejected_draft_is_watched_only_where_it_was_played(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    server.project.suggestions = lambda number: [
        {"recording": "r0", "start_s": 8.0, "end_s": 9.0, "reason": "unsure", "label": "sit"}
    ]
    times = {0: [(0.0, 19.0)], 1: [(2.0, 4.0)]}
    server.project.set_drafts(
        {
            number: [Event(video="", start_s=start, end_s=end, label="sit", score=0.7) for start, end in spans]
            for number, spans in times.items()
        }
    )
    page = ready(visit(server))
    page.wait_for_selector(".suggestion")
    press(page, "g")  # a second of a draft that is nearly as long as the recording
    page.wait_for_function("() => video.paused && video.currentTime > 8.9")
    press(page, "r")
    saved(page)
    (span,) = server.project.recordings[0].labels.watched
    assert span == pytest.approx((8.0, 9.0), abs=0.2)
    percent = round(5 * (span[1] - span[0]))
    page.wait_for_function(f"() => facts.textContent.endsWith(' {percent} % watched')")
    press(page, "u")
    saved(page)
    assert server.project.recordings[0].labels.watched == []
    assert server.project.recordings[0].labels.rejected == []
    page.locator("#recording_r1").click()
    opened(page, "b.mp4")
    press(page, "Tab", "r")  # a short one, by its first frame
    saved(page)
    assert server.project.recordings[1].labels.watched == [(2.0, 4.0)]


def test_drafts_arrive_with_the_answer_to_a_change(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    page = ready(visit(server))
    page.route("**/api/changes?*", lambda route: None)  # the page hears of nothing but the answers to its changes
    with page.expect_request("**/api/changes?*"):
        server.project.touch()
    server.project.set_drafts({0: [Event(video="a.mp4", start_s=8.0, end_s=9.0, label="sit", score=0.7)]})
    drag(page, 1.0, 2.0, 0)
    saved(page)
    page.wait_for_function("() => facts.textContent.includes('1 event · 1 draft')")
    press(page, "Tab")
    assert title(page) == "Draft: sit"


# --- training and suggestions -----------------------------------------------------------------------------------------


def test_training_panel_shows_progress_and_curve(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    page = ready(visit(server))
    shown = lambda part: page.locator(part).inner_text()  # noqa: E731

    def set_training(**facts: Any) -> None:
        server.training = {**server.training, **facts}
        server.project.touch()

    assert shown("#training_text") == "5 more labels until the next training"
    assert not page.locator("#curve").is_visible()
    press(page, "t")
    page.get_by_role("button", name="Train").click()
    page.wait_for_timeout(200)
    assert server.requests == 2
    set_training(state="running", message="training on 6 labels")
    page.wait_for_function("() => document.getElementById('train').disabled")
    assert shown("#training_text") == "training on 6 labels"
    point = {"metric": "event_f1", "low": None, "high": None, "measured": 5}
    set_training(state="idle", message="", curve=[{**point, "labels": 5, "value": 1.0, "measured": 1}])
    few = "5 labels: too few to tell how good the model is (measured on 1 held-out event)"
    page.wait_for_function("(text) => curve_text.textContent === text", arg=few)
    assert not page.locator("#curve").is_visible(), "a figure of a single event"
    curve = [{**point, "labels": 6, "value": 0.4}, {**point, "labels": 11, "value": 0.61, "low": 0.4, "high": 0.8}]
    set_training(state="idle", message="", new_labels=1, curve=curve)
    page.wait_for_selector("#curve:not([hidden])")
    assert shown("#training_text") == "4 more labels until the next training"
    assert shown("#curve_text") == "Event F1 0.61 (95 %: 0.40 to 0.80), 11 labels"
    set_training(curve=[{**point, "labels": 5, "value": 1.0, "low": 1.0, "high": 1.0}])
    guess = "Event F1 1.00 (95 %: 1.00 to 1.00), 5 labels (few labels: a guess)"
    page.wait_for_function("(text) => curve_text.textContent === text", arg=guess)
    drawn = "() => curve.getContext('2d').getImageData(0, 0, curve.width, curve.height).data.some((value) => value > 0)"
    redrawn(page)
    assert page.evaluate(drawn)
    set_training(state="failed", message="one label is too few")
    page.wait_for_selector("#training_text.error")
    assert shown("#training_text") == "one label is too few. 4 more labels until the next training"
    server.features.reason = "yolo26n.pt does not exist"
    server.project.touch()
    page.wait_for_function("() => document.getElementById('train').disabled")
    assert shown("#no_features") == "No features: yolo26n.pt does not exist"


def test_suggestions_are_opened_played_and_answered(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    suggested = [{"recording": "r1", "start_s": 4.0, "end_s": 5.0, "reason": "unsure", "label": "sit"}]
    suggested += [{"recording": "r0", "start_s": 9.0, "end_s": 10.0, "reason": "random", "label": None}]
    server.project.suggestions = lambda number: suggested
    page = ready(visit(server))
    page.wait_for_selector(".suggestion")
    rows = [text.replace("\N{EN DASH}", "to") for text in texts(page, ".suggestion")]
    assert rows == ["unsure\nsit\nb.mp4\n0:04.0 to 0:05.0", "random\na.mp4\n0:09.0 to 0:10.0"]
    page.locator("#speed").select_option("8")
    press(page, "g")  # plays to its last frame
    opened(page, "b.mp4")
    page.wait_for_function("() => video.paused && video.currentTime > 4.9")
    settle(page, 4.95)
    assert page.locator("#speed").input_value() == "2"
    assert page.evaluate("() => video.playbackRate") == 2
    press(page, "x")
    saved(page)
    assert server.project.recordings[1].labels.watched == [(4.0, 5.0)]
    page.wait_for_function("() => document.querySelectorAll('.suggestion').length === 1")
    page.locator("#speed").select_option("0.5")  # a speed that a person chooses for suggestions is kept
    press(page, "Enter")
    opened(page, "a.mp4")
    page.wait_for_function("() => video.paused && video.currentTime > 9.9")
    assert page.evaluate("() => video.playbackRate") == 0.5
    press(page, "g")
    assert "no more suggestions" in page.locator("#toast").inner_text()


def test_draft_of_a_suggestion_is_answered(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    stretches = [("r1", 4.0, 5.0), ("r1", 12.0, 13.0), ("r0", 9.0, 10.0)]
    suggested = [
        {"recording": r, "start_s": s, "end_s": e, "reason": "unsure", "label": "sit"} for r, s, e in stretches
    ]
    server.project.suggestions = lambda number: suggested
    times = [(4.2, 4.8), (12.1, 13.0)]
    server.project.set_drafts({1: [Event(video="b.mp4", start_s=s, end_s=e, label="sit", score=0.7) for s, e in times]})
    page = ready(visit(server))
    page.wait_for_selector(".suggestion")
    press(page, "g")
    opened(page, "b.mp4")
    page.wait_for_function("() => video.paused && video.currentTime > 4.9")
    assert title(page) == "Draft: sit"
    press(page, "Escape", "r")  # without a selection, and past its end
    saved(page)
    assert server.project.recordings[1].labels.rejected == [(4.2, 4.8, "sit")]
    press(page, "g")
    page.wait_for_function("() => video.paused && video.currentTime > 12.9")
    press(page, "a")
    saved(page)
    assert server.events(1) == [(12.1, 13.0, "sit", "")]
    page.wait_for_function("() => document.querySelectorAll('.suggestion').length === 1")
    page.locator("#recording_r0").click()
    opened(page, "a.mp4")
    press(page, "Shift+X")
    page.wait_for_selector(".suggestion", state="detached")


# --- saving ---------------------------------------------------------------------------------------------------------


def test_changes_are_kept_while_the_server_is_away(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    page = ready(visit(server, expect="net::ERR"))
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    server.stop()
    drag(page, 1.0, 2.0, 0)
    drag(page, 4.0, 5.0, 1)
    page.wait_for_selector("#banner:not([hidden])")
    assert page.locator("#banner").inner_text() == (
        "The server does not answer. Is vidgru label still running? 2 changes are kept in this page; do not close it."
    )
    assert page.locator("#save_state").inner_text() == "2 changes not saved"
    page.evaluate("() => location.assign('about:blank')")
    page.wait_for_timeout(200)
    assert asked == ["beforeunload"]
    server.start()
    saved(page)
    assert [event[2] for event in server.events()] == ["fall", "sit"]
    page.wait_for_selector("#banner", state="hidden")
    page.goto("about:blank")
    assert asked == ["beforeunload"]


def test_full_disk_is_reported(videos: Path, serve: Serve, visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(videos)
    page = ready(visit(server, expect="507"))

    def fail(path: Path, content: bytes) -> None:
        raise OutputError(f"cannot write {path}: no space left on device", "free some space")

    with monkeypatch.context() as patch:
        patch.setattr("vidgru.labeling.project.write_atomic", fail)
        drag(page, 1.0, 2.0, 0)
        page.wait_for_selector("#banner:not([hidden])")
        assert "no space left on device" in page.locator("#banner").inner_text()
        assert page.locator("#save_state").inner_text() == "1 change not saved"
    saved(page)
    page.wait_for_selector("#banner", state="hidden")
    assert len(server.events()) == 1
    assert server.out.exists()


def test_error_of_the_server_is_named_and_retried(
    videos: Path, serve: Serve, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(videos)
    page = ready(visit(server, expect="500"))

    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(server.project, "details", fail)
        page.reload()
        page.wait_for_selector("#toast:not([hidden])")
        assert page.locator("#toast").inner_text() == "a.mp4 cannot be opened: Internal Server Error"
    server.project.touch()
    ready(page)
    with monkeypatch.context() as patch:
        patch.setattr(server.project, "apply", fail)
        drag(page, 1.0, 2.0, 0)
        page.wait_for_selector("#banner:not([hidden])")
        assert page.locator("#banner").inner_text().startswith("Internal Server Error")
    saved(page)
    assert len(server.events()) == 1


def test_refused_change_is_taken_back(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    page = ready(visit(server, expect="400"))
    press(page, "i", "ArrowRight", "l")
    page.keyboard.type("background")
    press(page, "Enter")
    page.wait_for_selector("#toast:not([hidden])")
    assert "The server refused the change: background is the label of" in page.locator("#toast").inner_text()
    saved(page)
    assert title(page) == "Nothing selected"
    assert server.events() == []


def test_two_windows_lose_nothing(videos: Path, serve: Serve, visit: Visit) -> None:
    server = serve(videos)
    first, second = ready(visit(server)), ready(visit(server))
    for number in range(4):
        drag(first, 1.0 + 4 * number, 2.0 + 4 * number, 0)
        drag(second, 3.0 + 4 * number, 4.0 + 4 * number, 1)
    for page in (first, second):
        saved(page)
        page.wait_for_function("() => document.getElementById('facts').textContent.includes('8 events')")
    assert [event[2] for event in server.events()] == ["fall", "sit"] * 4
    go_to(first, 1.5)
    second.mouse.click(*lane_point(second, 1.5, 0))
    press(second, "2")
    for page in (first, second):
        page.wait_for_function("() => document.getElementById('now').textContent === 'sit'")


# --- playing --------------------------------------------------------------------------------------------------------


def test_playable_copy_is_made_on_demand(tmp_path: Path, serve: Serve, visit: Visit) -> None:
    write_video(tmp_path / "v/a.avi", 200, fps=10, size_px=(320, 192), codec="mpeg4")
    server = serve(tmp_path / "v")
    page = visit(server)
    page.wait_for_selector("#unplayable:not([hidden])")
    assert "cannot play the format" in page.locator("#unplayable_text").inner_text()
    assert page.locator("#play").is_disabled()
    press(page, "c")
    ready(page)
    assert not page.locator("#unplayable").is_visible()
    go_to(page, 7.05)
    press(page, "i", ".", "o", "1")
    saved(page)
    assert server.events() == [(7.0, 7.2, "fall", "")]
    page.reload()
    settle(ready(page), 0.0)


def test_names_are_escaped(tmp_path: Path, serve: Serve, visit: Visit) -> None:
    name = 'it\'s #1 100% "c" <i>カメラ?.mp4'
    write_video(tmp_path / "v" / name, 30, fps=10)
    server = serve(tmp_path / "v", (NASTY, "sit"))
    page = ready(visit(server))
    press(page, "i", "ArrowRight", "1", "d")
    page.keyboard.type(NASTY)
    press(page, "Enter")
    saved(page)
    assert server.events()[0][2:] == (NASTY, NASTY)
    assert title(page) == NASTY
    assert page.locator("h1").inner_text() == name
    assert page.locator("#action_text").inner_text() == NASTY
    assert page.locator("b:not(#time), i:not(.key), [onclick]").count() == 0


def test_help_opens_once(videos: Path, serve: Serve, visit: Visit) -> None:
    page = visit(serve(videos), help_open=True)
    page.wait_for_selector("#help[open]")
    press(page, "i", "Escape")
    ready(page)
    assert title(page) == "Nothing selected"
    page.reload()
    ready(page)
    assert not page.locator("#help").is_visible()
    press(page, "?")
    assert page.locator("#help").is_visible()
    assert re.search("start, end", page.locator("#help").inner_text())


def test_many_recordings_and_labels_stay_quick(tmp_path: Path, serve: Serve, visit: Visit) -> None:
    """Of 100 recordings and 5,000 events, only the rows in view are elements, and few layouts are forced per key."""
    first = write_video(tmp_path / "v/r000.mp4", 3000, fps=10)
    for number in range(1, 100):
        os.link(first, tmp_path / f"v/r{number:03}.mp4")
    events = "".join(f"v/r000.mp4,{n / 20},{n / 20 + 1},label {n % 12}\n" for n in range(4900))
    events += "".join(f"v/r{n:03}.mp4,1,2,fall\n" for n in range(1, 100))
    (tmp_path / "labels.csv").write_text(f"video,start,end,label\n{events}")
    server = serve(tmp_path / "v", ())
    page = visit(server, address="#r0")
    ready(page)
    assert "4,900 events" in page.locator("#facts").inner_text()
    assert 10 < page.locator(".recording").count() < 40
    page.evaluate("""() => {
      window.layouts = 0;
      const width = Object.getOwnPropertyDescriptor(Element.prototype, 'clientWidth').get;
      Object.defineProperty(Element.prototype, 'clientWidth', { get() { layouts++; return width.call(this); } });
    }""")
    press(page, "Tab", "2")  # the first event starts where the recording does
    saved(page)
    assert page.evaluate("() => layouts") < 200
    assert sorted(label for *_, label, _ in server.events())[:5] == ["label 0"] * 5
    assert [label for *_, label, _ in server.events()].count("label 1") == 410
    page.locator("#recording_list").evaluate("element => element.scrollTop = element.scrollHeight")
    page.wait_for_selector("#recording_r99")
    page.locator("#recording_search").fill("r05")
    page.wait_for_function("() => document.querySelectorAll('.recording').length === 10")
