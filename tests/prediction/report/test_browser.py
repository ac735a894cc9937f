"""The report in a real browser: playback, seeking, filters, corrections."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.prediction.report.browsing import (
    annotations,
    click_time,
    listed,
    ready,
    redrawn,
    saved,
    selected,
    settle,
    texts,
    time_of,
)
from tests.prediction.report.pages import FPS, NASTY, SIZE, entry, event, make_page, scored, sequence, square
from tests.training.synthetic import timed_data, visits
from vidgru.cache import SequenceCache
from vidgru.config import TrainConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.flags import from_settings
from vidgru.model.attribution import AttendedObject, Explanation, MomentScores
from vidgru.model.checkpoint import load_model
from vidgru.model.stream import score_recording
from vidgru.prediction.report.page import write_page
from vidgru.training.run import train
from vidgru.types import Event, Recording

pytestmark = pytest.mark.slow
Visit = Callable[..., Any]

FOUND = [event(2.0, 4.0), event(6.0, 7.0, "walk", 0.6), event(10.0, 13.0, score=0.9), event(15.0, 16.5, "walk", 0.7)]

# Of the upper and the lower half of the overlay: left, top, right, bottom of what is drawn strongly; null for nothing.
BOXES = """() => {
  const canvas = document.getElementById('overlay');
  const { width, height } = canvas;
  const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
  const halves = [null, null];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (pixels[(y * width + x) * 4 + 3] <= 200) continue;
      const half = y < height / 2 ? 0 : 1;
      const [left, top, right, bottom] = halves[half] ?? [x, y, x, y];
      halves[half] = [Math.min(left, x), Math.min(top, y), Math.max(right, x + 1), Math.max(bottom, y + 1)];
    }
  }
  return { width, height, halves };
}"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of most tests; none of them changes it."""
    return make_page(tmp_path_factory.mktemp("plain"), FOUND)


def corners(page: Any) -> list[tuple[float, ...]]:
    """Boxes on the overlay as left, top, right, bottom in the recording's pixels, found by their edges."""
    boxes = page.evaluate(BOXES)
    scale = min(boxes["width"] / SIZE[0], boxes["height"] / SIZE[1])
    left, top = (boxes["width"] - SIZE[0] * scale) / 2, (boxes["height"] - SIZE[1] * scale) / 2
    return [
        tuple((edge - margin) / scale for edge, margin in zip(box, (left, top) * 2, strict=True))
        for box in boxes["halves"]
        if box is not None
    ]


# --- looking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_the_screen_and_plays(plain: Path, visit: Visit, scheme: str) -> None:
    page = ready(visit(plain, color_scheme=scheme))
    assert listed(page) == ["fall", "walk", "fall", "walk"]
    for part in ("#stage", "#play", "#ruler", "#lanes", "#scores", "#gates", "#event_list", "#save"):
        box = page.locator(part).bounding_box()
        assert box["y"] >= 0, part
        assert box["height"] > 10, part
        assert box["y"] + box["height"] <= 720, part
        assert box["x"] + box["width"] <= 1280, part
    assert not page.locator("#unplayable").is_visible()
    page.keyboard.press(" ")
    page.wait_for_function("() => video.currentTime > 0.3")
    page.keyboard.press(" ")
    assert page.evaluate("() => video.paused")
    nameless = "els => els.filter(e => !(e.ariaLabel || e.innerText.trim() || e.labels?.length)).map(e => e.outerHTML)"
    assert page.eval_on_selector_all("button, select, input", nameless) == []


@pytest.mark.parametrize("target", ["#ruler", "#lanes_canvas", "#scores", "#gates"])
def test_click_on_timeline_seeks(plain: Path, visit: Visit, target: str) -> None:
    page = ready(visit(plain))
    for time_s in (11.3, 3.3, 19.0):
        click_time(page, time_s, target=target)
        settle(page, time_s)
        assert time_of(page) == pytest.approx(time_s, abs=0.1)
        assert page.locator("#ruler").get_attribute("aria-valuenow") == f"{time_of(page):.1f}"
        head, ruler = (page.locator(part).bounding_box() for part in ("#playhead", "#ruler"))
        assert (head["x"] + 1 - ruler["x"]) / ruler["width"] * 20 == pytest.approx(time_s, abs=0.1)


def test_drag_seeks_and_zoom_keeps_clicks_exact(plain: Path, visit: Visit) -> None:
    page = ready(visit(plain))
    box = page.locator("#ruler").bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 5, steps=5)
    page.mouse.up()
    settle(page, 10.0)
    for _ in range(3):
        page.keyboard.press("+")
    click_time(page, 1.0, 2.5)  # an eighth of the recording, with the playhead in its middle
    settle(page, 9.75)
    assert time_of(page) == pytest.approx(9.75, abs=0.1)
    page.keyboard.press("0")
    click_time(page, 5.0)
    settle(page, 5.0)


def test_keys_step_between_events(plain: Path, visit: Visit) -> None:
    page = ready(visit(plain))
    for key, start_s, label in [
        ("n", 2, "fall"),
        ("n", 6, "walk"),
        ("n", 10, "fall"),
        ("p", 6, "walk"),
        ("p", 2, "fall"),
        ("p", 2, "fall"),
    ]:
        page.keyboard.press(key)
        settle(page, start_s)
        assert time_of(page) == pytest.approx(start_s, abs=0.01)
        assert selected(page) == label
    page.keyboard.press("ArrowRight")
    settle(page, 3.0)
    page.keyboard.press("Shift+ArrowRight")
    settle(page, 13.0)
    page.keyboard.press(",")
    settle(page, 12.9)
    page.keyboard.press("Escape")
    assert selected(page) == ""
    page.keyboard.press("n")
    settle(page, 15.0)
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("n")
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    assert time_of(page) == pytest.approx(15, abs=0.01)


def test_filters_select_events(plain: Path, visit: Visit) -> None:
    page = ready(visit(plain))
    page.locator(".chip", has_text="fall").click()
    assert listed(page) == ["walk", "walk"]
    assert page.locator("#event_count").inner_text() == "2 of 4 events"
    page.locator("#min_score").fill("65")
    assert listed(page) == ["walk"]
    page.keyboard.press("n")
    settle(page, 15.0)
    page.keyboard.press("n")
    assert time_of(page) == pytest.approx(15.0, abs=0.01)
    page.locator("#min_score").fill("95")
    assert page.locator("#no_events").inner_text() == "No event matches the filters."
    page.locator("#min_score").fill("0")
    page.locator(".chip", has_text="fall").click()
    page.locator("#order").select_option("score")
    assert [row.split("\n")[1] for row in texts(page, ".row.event")] == [
        "90 %",
        "80 %",
        "70 %",
        "60 %",
    ]
    page.locator("#order").evaluate("element => element.blur()")
    page.keyboard.press("Escape")
    for start_s in (10.0, 2.0, 15.0):  # in the order of the list
        page.keyboard.press("ArrowDown")
        settle(page, start_s)


def test_boxes_match_objects(plain: Path, visit: Visit) -> None:
    page = ready(visit(plain))
    page.locator("#show_names").uncheck()
    for number in (33, 118):
        click_time(page, number / FPS + 0.04)
        settle(page, number / FPS + 0.04)
        cloud, mover = corners(page)
        assert cloud == pytest.approx((32, 19.2, 128, 57.6), abs=3)
        assert mover == pytest.approx(square(number), abs=3)
    assert not page.locator("#no_boxes").is_visible()
    click_time(page, 8.5)  # more than a second from any event
    settle(page, 8.5)
    assert len(corners(page)) == 2
    page.locator("#show_boxes").uncheck()
    redrawn(page)
    assert corners(page) == []


def test_missing_boxes_are_reported(tmp_path: Path, visit: Visit) -> None:
    """Long recordings have boxes around events only."""
    page = visit(make_page(tmp_path, [event(100.0, 200.0)], frames=4001, video=False))
    page.locator("#show_names").uncheck()
    for time_s, is_reported in [(50.0, True), (150.0, False)]:
        click_time(page, time_s, 400.1)
        redrawn(page)
        assert page.locator("#no_boxes").is_visible() == is_reported
        assert len(corners(page)) == (0 if is_reported else 2)
    assert "Boxes are included from 1 s before" in page.locator("#notes_summary").inner_text()
    page.locator("#about_button").click()
    assert "Boxes are included from 1 s before" in page.locator("#notes").inner_text()


def test_boxes_are_interpolated(tmp_path: Path, visit: Visit) -> None:
    """Every fifth frame is sampled; on the others, boxes still match the square."""
    dense, some = sequence(200), np.arange(0, 200, 5)
    rows = (some[:, None] * 2 + [0, 1]).ravel()
    sparse = replace(
        dense,
        time_s=dense.time_s[some],
        frame_index=dense.frame_index[some],
        offsets=dense.offsets[: len(some) + 1],
        **{name: getattr(dense, name)[rows] for name in ("boxes", "scores", "classes", "tracks")},
        fps=2.0,
    )
    facts = {"scored": scored(sparse.time_s, 80, 2, FOUND), "entry": entry(20.0, fps=2.0), "parts": [sparse]}
    page = ready(visit(make_page(tmp_path, FOUND, **facts)))
    page.locator("#show_names").uncheck()
    for number in (32, 33, 118):
        click_time(page, number / FPS + 0.04)
        settle(page, number / FPS + 0.04)
        cloud, mover = corners(page)
        assert cloud == pytest.approx((32, 19.2, 128, 57.6), abs=3)
        assert mover == pytest.approx(square(number), abs=3)


def test_attention_is_highlighted(plain: Path, visit: Visit) -> None:
    page = ready(visit(plain))
    amber = """() => {
      const canvas = document.getElementById('overlay');
      const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      const halves = [0, 0];
      for (let i = 0; i < pixels.length; i += 4) {
        const [red, green, blue, alpha] = pixels.subarray(i, i + 4);
        const isAmber = red > 240 && green > 150 && green < 200 && blue < 40 && alpha > 250;
        if (isAmber) halves[i < pixels.length / 2 ? 0 : 1]++;
      }
      return halves;
    }"""
    page.locator("#show_names").uncheck()
    click_time(page, 3.0)
    settle(page, 3.0)
    cloud, mover = page.evaluate(amber)
    # Edges of 48 x 48 and of 96 x 38 pixels, drawn as wide as the share's root: 0.8 and 0.2.
    assert mover / (4 * 48) > 1.3 * cloud / (2 * (96 + 38)) > 0
    page.locator("#show_attention").uncheck()
    redrawn(page)
    assert page.evaluate(amber) == [0, 0]


def test_explanation_of_event(tmp_path: Path, visit: Visit) -> None:
    reason = Explanation(
        event=FOUND[0], score=0.8, baseline=0.75, score_without={"motion": 0.3, "scene": 0.751},
        keep_peaks=(), forget_peaks=(),
        objects=(AttendedObject(track=7, label="square", share=0.6),),
    )  # fmt: skip
    page = ready(visit(make_page(tmp_path, FOUND, explanations={FOUND[0]: reason})))
    page.keyboard.press("n")
    text = page.locator("#explanation").inner_text()
    assert "square 7\n60 %" in text.replace("\n\n", "\n")
    assert re.search(r"30 \(.45\)", text)
    assert "Little change without scene." in text
    page.keyboard.press("n")
    assert not page.locator("#explanation").is_visible()


@pytest.mark.parametrize(
    ("address", "start_s", "label"), [("#event=2", 10.0, "fall"), ("#t=7.5", 7.5, ""), ("#event=99", 0.0, "")]
)
def test_address_selects_event_or_time(plain: Path, visit: Visit, address: str, start_s: float, label: str) -> None:
    page = ready(visit(plain, address=address))
    settle(page, start_s)
    assert time_of(page) == pytest.approx(start_s, abs=0.01)
    assert selected(page) == label


def test_wall_clock_and_damage_are_shown(tmp_path: Path, visit: Visit) -> None:
    page = ready(visit(make_page(tmp_path, FOUND, recorded_at="2024-12-31T23:59:55+05:30", damage="3 corrupt frames")))
    assert page.locator("#damage").inner_text() == "Partial: 3 corrupt frames"
    page.keyboard.press("n")
    page.keyboard.press("n")
    settle(page, 6.0)
    assert page.locator("#clock").inner_text() == "2025-01-01 00:00:01 +05:30"
    assert re.search(r"0:06\.0 . 0:07\.0 · 00:00:01", page.locator(".row.event").nth(1).inner_text())
    assert not page.locator("#about_button").is_visible()  # nothing is left out


def test_labels_and_names_are_escaped(tmp_path: Path, visit: Visit) -> None:
    name = 'it\'s #1 100% "c" <i>カメラ?.mp4'
    events = [event(2.0, 4.0, NASTY, description=NASTY)]
    page = ready(visit(make_page(tmp_path, events, name=name, labels=[NASTY, "walk"], damage=NASTY)))
    assert page.locator("h1").inner_text() == name
    assert page.title() == name
    page.keyboard.press("n")
    assert selected(page) == NASTY
    assert page.locator("#panel_text").inner_text() == NASTY
    assert texts(page, "b") == ["0:02.0"]
    assert page.locator("h1 i, [onclick]").count() == 0
    page.keyboard.press("e")
    assert page.locator("#edit_label").input_value() == NASTY


def test_thresholds_find_events_anew(tmp_path: Path, visit: Visit) -> None:
    facts = scored(np.arange(200) / FPS, 400, 2, FOUND)
    facts.scores[175:190, 0] = 0.4
    facts.scores[130:135, 0] = 0.4  # makes the event before it longer
    page = ready(visit(make_page(tmp_path, FOUND, scored=facts, given_thresholds=["walk"])))
    page.locator("#thresholds summary").click()
    sliders = page.locator("#threshold_rows input")
    sliders.nth(0).fill("30")
    page.wait_for_selector(".row.new")
    assert listed(page) == ["fall", "walk", "fall", "walk", "fall"]
    note = page.locator("#threshold_note").inner_text()
    assert "1 more event (dashed) and 0 fewer (faint); 1 other with another start or end. " in note
    assert page.locator("#threshold_flag").inner_text() == "--threshold fall=0.3,walk=0.5"
    page.locator("#threshold_rows input").nth(0).evaluate("element => element.blur()")
    page.locator(".row.new").click()
    settle(page, 17.5)
    page.keyboard.press("m")
    assert page.locator("#save_state").inner_text() == "unsaved: 1 correction"
    assert page.locator(".row.new").count() == 0
    assert page.locator(".mark.added").count() == 1
    sliders.nth(0).fill("90")
    page.wait_for_selector(".row.lost")
    assert texts(page, ".row.lost .name") == ["fall", "fall"]
    page.locator("#threshold_reset").click()
    assert page.locator(".row.lost").count() == 0
    rows = annotations(saved(page, tmp_path / "videos"))
    assert [row[0] for row in rows] == [2.0, 6.0, 10.0, 15.0, 17.5]


def test_score_below_threshold_is_explained(tmp_path: Path, visit: Visit) -> None:
    page = ready(visit(make_page(tmp_path, [event(2.0, 4.0, score=0.3), event(6.0, 8.0, score=0.6)])))
    page.keyboard.press("n")
    assert "Its best frame reached the threshold of 50 %" in page.locator("#panel_below").inner_text()
    page.keyboard.press("n")
    assert page.locator("#panel_below").inner_text() == ""


def test_click_on_scores_shows_the_moment(tmp_path: Path, visit: Visit) -> None:
    facts = scored(np.arange(200) / FPS, 400, 2, FOUND)
    facts.scores[175:190, 0] = 0.4
    page = ready(visit(make_page(tmp_path, FOUND, scored=facts)))
    box = page.locator("#scores").bounding_box()
    page.mouse.click(box["x"] + 18.0 / 20 * box["width"], box["y"] + 0.6 * box["height"])
    settle(page, 18.0)
    assert page.locator("#moment_title").inner_text() == "fall at 0:18.0"
    candidate = page.locator("#moment_candidate").inner_text()
    assert re.fullmatch(r"Not in an event: .* of 50 % would have to be 40 % \(0:17\.5 . 0:19\.0\)\.", candidate)
    assert texts(page, "#moment_scores .bar") == ["fall\n40 %", "walk\n10 %"]
    assert texts(page, "#moment_objects .bar") == ["square 7\n80 %", "cloud\n20 %"]
    assert page.locator("#moment_command").inner_text().endswith("/videos/a.mp4 --at 18.0 --label fall")
    assert not page.locator("#moment_groups_part").is_visible()  # this page has no explained moments
    page.locator("#moment_try").click()
    assert page.locator("#threshold_flag").inner_text() == "--threshold fall=0.4"
    page.locator(".row.new").click()
    assert not page.locator("#moment").is_visible()
    click_time(page, 11.0, target="#scores")
    assert page.locator("#moment_candidate").inner_text().startswith("In an event. The highest threshold")
    page.keyboard.press("Escape")
    assert not page.locator("#moment").is_visible()


def test_click_on_scores_shows_feature_groups(tmp_path: Path, visit: Visit) -> None:
    scores = np.array([
        [[0.4, 0.1], [0.15, 0.1], [0.46, 0.1], [0.401, 0.1]],
        [[0.2, 0.3], [0.2, 0.05], [0.2, 0.3], [0.2, 0.3]],
    ])  # fmt: skip
    moments = MomentScores(time_s=np.array([8.5, 18.0]), scores=scores, groups=("motion", "scene_motion", "colour"))
    reason = Explanation(
        event=FOUND[2],
        score=0.9,
        baseline=0.85,
        score_without={"motion": 0.3},
        keep_peaks=(),
        forget_peaks=(),
        objects=(),
    )
    page = ready(visit(make_page(tmp_path, FOUND, moments=moments, explanations={FOUND[2]: reason})))
    box = page.locator("#scores").bounding_box()

    def click_score(time_s: float, score: float) -> str:
        page.mouse.click(box["x"] + time_s / 20 * box["width"], box["y"] + (1 - score) * box["height"])
        settle(page, time_s)
        return str(page.locator("#moment_groups_part").inner_text())

    page.locator("#labels .chip").nth(1).click()  # hides walk, so that all clicks are about falls
    text = click_score(8.6, 0.1)
    assert text.startswith("Score without a feature group, in the second around 0:08.5 (with all: 40 %)")
    less, more = texts(page, "#moment_groups .bar")
    assert re.fullmatch(r"motion\n15 \(.25\)", less)
    assert more == "scene motion\n46 (+6)"
    assert page.locator("#moment_other_groups").inner_text() == "Little change without colour."
    assert page.locator("#moment_command").inner_text().endswith("/videos/a.mp4 --at 8.6 --label fall")
    text = click_score(5.0, 0.1)
    assert "in the second around 0:08.5, the nearest explained moment (with all: 40 %)" in text
    assert page.locator("#moment_command").inner_text().endswith(" --at 5.0 --label fall")
    text = click_score(17.9, 0.1)
    assert "in the second around 0:18.0 (with all: 20 %)" in text
    assert page.locator("#moment_other_groups").inner_text() == "Almost no change without motion, scene motion, colour."
    text = click_score(11.0, 0.8)  # in an event that is explained
    assert re.search(r"in the event 0:10\.0 . 0:13\.0 \(with all: 85 %\)", text)
    assert re.fullmatch(r"motion\n30 \(.55\)", *texts(page, "#moment_groups .bar"))


def test_page_opens_at_the_first_event(plain: Path, visit: Visit) -> None:
    page = ready(visit(plain, address=""))
    settle(page, 2.0)
    assert selected(page) == "fall"
    assert page.locator("#toast").inner_text().startswith("Keys: n and p go to the next and previous event")
    assert page.locator("#legend").inner_text().startswith("score")
    assert page.locator("#legend").bounding_box()["y"] < 710
    page.reload()
    settle(page, 2.0)
    assert not page.locator("#toast").is_visible()


def test_boxes_hardly_attended_are_thin(tmp_path: Path, visit: Visit) -> None:
    facts = scored(np.arange(200) / FPS, 400, 2, FOUND)
    facts.attention[1::2] = 0.02
    page = ready(visit(make_page(tmp_path, FOUND, scored=facts)))
    page.locator("#show_names").uncheck()
    redrawn(page)
    assert len(corners(page)) == 1  # the cloud is drawn faintly
    page.locator("#show_attention").uncheck()
    redrawn(page)
    assert len(corners(page)) == 2


# --- without the video ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [True, False])
def test_pictures_replace_unplayable_video(tmp_path: Path, visit: Visit, gone: bool) -> None:
    path = make_page(tmp_path, FOUND)
    video = tmp_path / "videos" / "a.mp4"
    if gone:
        video.unlink()
    else:
        video.write_bytes(b"no video")
    page = visit(path, expect="net::ERR_FILE_NOT_FOUND")
    page.wait_for_selector("#unplayable:not([hidden])")
    reason = f"has been moved or deleted (a.mp4 in {video.parent})" if gone else "convert it to H.264 in MP4"
    assert reason in page.locator("#unplayable").inner_text()
    assert page.locator("#strip button").count() == 27
    assert page.locator("#strip span").nth(0).inner_text() == "0:00.5"
    assert page.locator("#play").is_disabled()
    page.locator("#show_names").uncheck()
    click_time(page, 11.45)
    page.wait_for_function("() => still.complete && still.naturalWidth > 0")
    redrawn(page)
    shown = page.locator("#strip button.current").get_attribute("aria-label")
    assert shown == "Picture at 0:11.5"
    assert float(page.locator("#ruler").get_attribute("aria-valuenow")) == pytest.approx(11.45, abs=0.1)
    assert page.evaluate("() => document.getElementById('still').naturalWidth") == SIZE[0]
    _, mover = corners(page)
    assert mover == pytest.approx(square(115), abs=3)
    page.keyboard.press("p")
    assert selected(page) == "fall"
    page.locator("#strip button").nth(2).click()
    assert page.locator("#strip button.current").count() == 1


def test_page_without_video_file(tmp_path: Path, visit: Visit) -> None:
    page = visit(make_page(tmp_path, FOUND, video=False, gates=False))
    assert "did not exist when this page was made" in page.locator("#unplayable").inner_text()
    assert not page.locator("#gates").is_visible()
    page.locator("#show_names").uncheck()
    click_time(page, 3.0)
    redrawn(page)
    assert len(corners(page)) == 2


# --- correcting -----------------------------------------------------------------------------------------------------


def test_corrections_are_saved_as_annotations(tmp_path: Path, visit: Visit) -> None:
    events = [*FOUND[:3], event(15.0, 16.5, "walk", 0.7, description='One says "hi",\nand goes')]
    page = ready(visit(make_page(tmp_path, events, name="cam 1/a.mp4")))
    page.keyboard.press("n")
    page.keyboard.press("e")  # another label
    page.locator("#edit_label").fill("  slips,  and  falls ")
    page.locator("#edit_start").fill("2.25")
    page.locator("#edit_end").fill("1")
    page.keyboard.press("Tab")
    assert "The end must be after the start." in page.locator("#edit_error").inner_text()
    page.locator("#edit_end").fill("4.125")
    page.locator("#edit_form .strong").click()
    page.keyboard.press("n")  # wrong
    page.keyboard.press("Delete")
    assert listed(page) == ["slips, and falls", "fall", "walk"]
    assert selected(page) == "fall"
    page.keyboard.press("m")
    assert page.locator(".mark.confirmed").count() == 1
    click_time(page, 18.0)  # missed
    settle(page, 18.0)
    page.keyboard.press("a")
    page.locator("#edit_label").fill("walk")
    page.keyboard.press("Tab")
    click_time(page, 19.0)
    settle(page, 19.0)
    page.locator("#end_now").click()
    assert page.locator("#save_state").inner_text() == "unsaved: 3 corrections"
    path = saved(page, tmp_path / "videos")
    assert path.name == "cam 1_a.mp4.annotations.csv"
    assert path.read_text().startswith("video,start,end,label,description,split\ncam 1/a.mp4,2.250,4.125,")
    assert page.locator("#save_state").inner_text() == ""
    assert str(tmp_path / "videos") in page.locator("#toast").inner_text()
    rows = annotations(path)
    assert rows[:3] == [
        (2.25, 4.125, "slips, and falls", None),
        (10.0, 13.0, "fall", None),
        (15.0, 16.5, "walk", 'One says "hi",\nand goes'),
    ]
    assert rows[3] == (pytest.approx(18, abs=0.1), pytest.approx(19, abs=0.1), "walk", None)
    assert [r.name for r in load_dataset(path).recordings.values()] == ["cam 1/a.mp4"]


def test_edges_are_dragged_and_undone(plain: Path, visit: Visit) -> None:
    page = ready(visit(plain))
    page.keyboard.press("n")
    box = page.locator("#lanes_canvas").bounding_box()
    at = lambda time_s: box["x"] + time_s / 20 * box["width"]  # noqa: E731

    def drag(start_s: float, end_s: float) -> None:
        page.mouse.move(at(start_s), box["y"] + 10)
        page.mouse.down()
        page.mouse.move(at(end_s), box["y"] + 10, steps=6)
        page.mouse.up()

    drag(4.0, 5.0)  # not while it is not edited
    assert page.locator("#undo").is_disabled()
    page.keyboard.press("e")
    drag(4.0, 5.0)
    assert float(page.locator("#edit_end").input_value()) == pytest.approx(5.0, abs=0.05)
    drag(2.0, 1.0)
    assert float(page.locator("#edit_start").input_value()) == pytest.approx(1.0, abs=0.05)
    drag(5.0, 0.2)  # an end does not pass its start
    assert float(page.locator("#edit_end").input_value()) > float(page.locator("#edit_start").input_value())
    for _ in range(3):
        page.locator("#undo").click()
    assert page.locator("#edit_start").input_value() == "2.000"
    assert page.locator("#edit_end").input_value() == "4.000"
    assert page.locator("#undo").is_disabled()
    page.locator("#undo").evaluate("element => element.blur()")
    page.keyboard.press("Delete")
    page.keyboard.press("u")
    assert listed(page) == ["fall", "walk", "fall", "walk"]
    assert page.locator("#save_state").inner_text() == ""


def test_event_free_recording_is_saved(tmp_path: Path, visit: Visit) -> None:
    page = ready(visit(make_page(tmp_path, FOUND[:1])))
    page.keyboard.press("n")
    page.keyboard.press("Delete")
    path = saved(page, tmp_path / "videos")
    assert path.read_text() == "video,start,end,label,description,split\na.mp4,,,,,\n"
    assert annotations(path) == [(None, None, None, None)]


def test_saving_warns_of_missing_events(tmp_path: Path, visit: Visit) -> None:
    whole = scored(np.arange(200) / FPS, 400, 2, FOUND)
    page = ready(visit(make_page(tmp_path, FOUND[:1], scored=whole)))
    page.keyboard.press("n")
    page.keyboard.press("m")
    downloads: list[Any] = []
    page.on("download", lambda download: downloads.append(download))
    for close in (lambda: page.keyboard.press("Escape"), lambda: page.get_by_text("Cancel").click()):
        page.keyboard.press("Control+s")
        assert "3 events were left out of this page by --labels" in page.locator("#incomplete").inner_text()
        close()
        assert not page.locator("#incomplete").is_visible()
    page.wait_for_timeout(300)
    assert downloads == []
    assert page.locator("#save_state").inner_text() == "unsaved: confirmations"
    page.locator("#save").click()
    with page.expect_download() as download:
        page.locator("#save_anyway").click()
    path = tmp_path / "videos" / download.value.suggested_filename
    download.value.save_as(path)
    assert annotations(path) == [(2.0, 4.0, "fall", None)]
    assert page.locator("#save_state").inner_text() == ""


@pytest.mark.parametrize("corrected", [True, False])
def test_leaving_warns_of_unsaved_corrections(plain: Path, visit: Visit, corrected: bool) -> None:
    page = ready(visit(plain))
    asked: list[str] = []

    def answer(dialog: Any) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", answer)
    page.locator(".row.event").first.click()
    page.keyboard.press("Delete")
    if not corrected:
        page.keyboard.press("u")
    page.reload()
    assert asked == (["beforeunload"] if corrected else [])


def test_many_events_and_labels(tmp_path: Path, visit: Visit) -> None:
    labels = [f"label {number}" for number in range(60)]
    events: list[Event] = [event(i / 250, i / 250 + 0.05, labels[i % 60], (i % 97) / 97) for i in range(4900)]
    page = ready(visit(make_page(tmp_path, events, labels=labels)))
    assert page.locator(".row.event").count() < 40
    page.locator("#min_score").fill("99")
    page.locator("#min_score").fill("0")
    page.locator("#event_list").evaluate("element => element.scrollTop = element.scrollHeight")
    page.wait_for_function("() => [...document.querySelectorAll('.row.event')].some(row => row.id === 'event_4899')")
    page.locator("#event_4899").click()
    assert selected(page) == labels[4899 % 60]
    box = page.locator("#timeline").bounding_box()
    assert box["y"] + box["height"] <= 720


def test_correction_is_used_for_training(tmp_path: Path, visit: Visit) -> None:
    """A new recording with a label corrected in the page, added to the dataset."""
    data = timed_data(tmp_path / "data")
    whole = visits([(2.0, 4.5, "visit")], 99)
    data.add("new.mp4", whole, "", "")
    data.rows.pop()
    data.write()
    model = load_model(
        train(
            data.root,
            from_settings(TrainConfig, **data.train_settings(out=str(tmp_path / "first"), epochs=1, hidden=8)),
        )
    )
    recording = Recording(path=data.root / "videos" / "new.mp4", name="new.mp4")
    cache = SequenceCache(data.features)
    features = cache.lookup(recording.path, model.feature_settings)
    assert features is not None
    events = [Event(video="new.mp4", start_s=2.0, end_s=4.5, label="delivery", score=0.6)]
    write_page(
        tmp_path / "events" / "new.mp4" / "report.html",
        model=model,
        recording=recording,
        entry=features,
        parts=cache.parts(features.key),
        scored=score_recording(model, cache.parts(features.key), video="new.mp4", duration_s=10.0, gates=True),
        events=events,
        recorded_at=None,
        damage="",
    )
    page = visit(tmp_path / "events" / "new.mp4" / "report.html")
    page.wait_for_selector("#unplayable:not([hidden])")
    page.keyboard.press("n")
    page.keyboard.press("e")
    page.locator("#edit_label").fill("visit at night")
    page.locator("#edit_form .strong").click()
    file = saved(page, data.root / "videos")
    (data.root / "data.yaml").write_text(f"annotations: [annotations.csv, videos/{file.name}]\nvideos: videos\n")
    both = load_dataset(data.root / "data.yaml")
    assert "visit at night" in both.labels
    again = train(
        data.root / "data.yaml",
        from_settings(TrainConfig, **data.train_settings(out=str(tmp_path / "again"), epochs=1, hidden=8)),
    )
    assert load_model(again).labels == ("delivery", "visit", "visit at night")
