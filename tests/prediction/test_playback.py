"""Written videos in a real browser: they load, play with sound, and seek to the right frame."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.video.test_writer import copy
from tests.videos import read_counter, write_video

pytestmark = pytest.mark.slow


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    context = chromium.new_context()
    yield context.new_page()
    context.close()


def test_video_plays_and_seeks_in_browser(tmp_path: Path, page: Any) -> None:
    ticks = np.cumsum([0, *np.random.default_rng(1).choice([33, 40, 125, 700, 2000], 60)]).tolist()
    source = write_video(tmp_path / "a.mkv", len(ticks), ticks=ticks, audio_s=ticks[-1] / 1000)
    copy(source, tmp_path / "o.mp4")
    (tmp_path / "page.html").write_text('<body style="margin:0"><video src="o.mp4" preload="auto" muted></video>')
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_function("document.querySelector('video').readyState == 4")
    video = "document.querySelector('video')"
    assert page.evaluate(f"[{video}.videoWidth, {video}.videoHeight]") == [160, 96]
    for number in (0, 17, 5, 41, 58, 23):
        middle = (ticks[number] + ticks[number + 1]) / 2000
        page.evaluate(f"new Promise(done => {{ {video}.onseeked = done; {video}.currentTime = {middle} }})")
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        shot = Image.open(io.BytesIO(page.locator("video").screenshot())).convert("RGB")
        assert read_counter(np.asarray(shot)) == number
    page.evaluate(f"{video}.currentTime = 1; {video}.play()")
    page.wait_for_function(f"{video}.currentTime > 1.3")
    assert page.evaluate(f"{video}.webkitAudioDecodedByteCount") > 0
    assert page.evaluate(f"{video}.error") is None
