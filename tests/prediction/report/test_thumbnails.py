"""Still pictures for browsers that cannot play a recording."""

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.prediction.report.pages import event
from tests.videos import read_counter, write_video
from vidgru.prediction.report.page import EVENLY_SPACED, MAX_PICTURES, make_pictures


def image_of(uri: str) -> np.ndarray:
    head, _, text = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), 1), cv2.COLOR_BGR2RGB)


def test_pictures_over_the_recording_and_of_each_event(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 480)
    found = make_pictures(path, 48.0, [event(10.0, 10.6)], 10**7)
    evenly = [1000 + 2000 * number for number in range(EVENLY_SPACED)]
    assert [time for time, _ in found] == sorted([*evenly, 10_300])
    assert [read_counter(image_of(uri)) for _, uri in found] == [time // 100 for time, _ in found]


def test_no_more_than_the_budget_holds(tmp_path: Path) -> None:
    def noise(number: int, width: int, height: int) -> np.ndarray:
        return np.random.default_rng(number).integers(0, 255, (height, width, 3)).astype(np.uint8)

    path = write_video(tmp_path / "a.mp4", 100, size_px=(240, 136), options={"preset": "ultrafast"}, draw=noise)
    events = [event(i / 20, i / 20 + 0.02, score=i / 200) for i in range(190)]
    many = make_pictures(path, 10.0, events, 10**8)
    assert EVENLY_SPACED < len(many) <= MAX_PICTURES
    for budget in (1_000_000, 200_000):
        found = make_pictures(path, 10.0, events, budget)
        assert sum(len(uri) for _, uri in found) <= budget
    assert make_pictures(path, 10.0, events, 0) == []


@pytest.mark.parametrize("content", [b"", b"no video"])
def test_no_pictures_of_what_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    assert make_pictures(tmp_path / "a.mp4", 10.0, [], 10**6) == []
