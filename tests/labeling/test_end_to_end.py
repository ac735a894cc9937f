"""From a folder of drawn recordings to a model, by keys and mouse alone."""

import csv
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.prediction.report.browsing import browser_pages
from vidgru.datasets.annotations import load_dataset
from vidgru.demo.dataset import write_recordings
from vidgru.storage import bundled_file

pytestmark = pytest.mark.slow

LABELS = ("leaves_bag", "runs")
MAX_TABS = 100  # more than a recording of a few seconds has events and drafts
PATIENCE_MS = 900_000  # training, on a machine that does other things too


@contextmanager
def running_label(folder: Path) -> Iterator[str]:
    """`vidgru label` of the recordings in a folder: the address of its page."""
    arguments = [folder / "videos", "--out", folder / "labels.csv", "--run", folder / "run", "--features"]
    arguments += [folder / "features", "--weights", bundled_file("demo.pt"), "--imgsz", 320, "--fps", 6]
    command = [sys.executable, "-m", "vidgru", "label", *map(str, arguments), "--no-browser", "--labels", "leaves_bag"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            printed = ""
            while not (match := re.search(r"open (http\S+)\n", printed)):
                line = process.stdout.readline()
                assert line, printed
                printed += line
            yield match[1]
        finally:
            process.send_signal(signal.SIGINT)
            try:
                code = process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert code == 0


def go_to(page: Any, time_s: float) -> None:
    box = page.locator("#ruler").bounding_box()
    share = time_s / page.evaluate("() => video.duration")
    page.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
    page.wait_for_function("() => !video.seeking")


def wait_for_text(page: Any, part: str, text: str) -> None:
    script = "([part, text]) => document.getElementById(part).textContent.includes(text)"
    page.wait_for_function(script, arg=[part, text])


def label_all(page: Any, truth: list[dict[str, str]]) -> None:
    """Label the events of every recording by keys; the second label is typed once."""
    known = ["leaves_bag"]
    for name in sorted({row["video"] for row in truth}):
        page.locator(".recording", has_text=Path(name).name).click()
        wait_for_text(page, "recording_name", Path(name).name)
        page.wait_for_function("() => video.readyState >= 2")
        for row in (row for row in truth if row["video"] == name and row["label"] in LABELS):
            go_to(page, float(row["start"]))
            page.keyboard.press("i")
            go_to(page, float(row["end"]))
            page.keyboard.press("o")
            if row["label"] in known:
                page.keyboard.press(str(known.index(row["label"]) + 1))
                continue
            page.keyboard.press("l")
            page.keyboard.type(row["label"])
            page.keyboard.press("Enter")
            known.append(row["label"])
        wait_for_text(page, "save_state", "saved")


def select_draft(page: Any) -> None:
    title = page.locator("#action_title")
    for _ in range(MAX_TABS):
        if title.inner_text().startswith("Draft"):
            return
        page.keyboard.press("Tab")
        page.wait_for_timeout(100)
    facts = page.locator("#facts").inner_text()
    pytest.fail(f"no draft after {MAX_TABS} times Tab, but {title.inner_text()!r}; {facts}")


def test_drawn_recordings_become_a_model(tmp_path: Path, chromium: Any) -> None:
    write_recordings(tmp_path, 3, seed=5)
    with open(tmp_path / "annotations.csv", encoding="utf-8") as file:
        truth = list(csv.DictReader(file))
    with running_label(tmp_path) as address, browser_pages(chromium) as open_page:
        page = open_page(address)
        page.set_default_timeout(120_000)
        page.wait_for_selector("#help[open]")
        page.keyboard.press("Escape")
        label_all(page, truth)
        page.wait_for_selector("#curve:not([hidden])", timeout=PATIENCE_MS)
        assert "labels" in page.locator("#curve_text").inner_text()
        page.wait_for_function("() => /\\d draft/.test(recording_list.textContent)", timeout=PATIENCE_MS)
        page.locator(".recording", has_text="draft").first.click()
        wait_for_text(page, "facts", "draft")
        page.keyboard.press("Home")
        select_draft(page)
        page.keyboard.press("a")
        wait_for_text(page, "save_state", "saved")
    with running_label(tmp_path) as address, browser_pages(chromium) as open_page:
        page = open_page(address)
        page.wait_for_selector("#curve:not([hidden])")
        page.wait_for_function("() => /3 events/.test(recording_list.textContent)")

    labels = load_dataset(tmp_path / "labels.csv")
    wanted = sorted((float(row["start"]), row["label"]) for row in truth if row["label"] in LABELS)
    events = [a for a in labels.annotations if a.start_s is not None and a.label in LABELS]
    assert len(events) == len(wanted) + 1
    for start_s, label in wanted:  # a pixel of the timeline is a tenth of a second
        assert any(event.label == label and abs(event.start_s - start_s) < 0.35 for event in events)
    train(tmp_path, tmp_path / "labels.csv")


def train(folder: Path, labels: Path) -> None:
    arguments: list[Any] = [labels, "--features", folder / "features", "--weights", bundled_file("demo.pt")]
    arguments += ["--imgsz", 320, "--fps", 6, "--out", folder / "model", "--epochs", 1, "--no-captions"]
    command = [sys.executable, "-m", "vidgru", "train", *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_MS / 1000)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (folder / "model/best.safetensors").is_file()
