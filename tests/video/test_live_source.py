import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from tests.streams import as_file, as_stream, refusal, serving
from tests.videos import draw_counter, read_counter, rotate_mp4, write_video
from vidgru.errors import SourceError
from vidgru.video.integrity import Damage
from vidgru.video.live_connection import DecodedFrame, LiveAddress, SourceLostError
from vidgru.video.live_source import LiveFrame, LiveSource, ReconnectPolicy
from vidgru.video.reader import VideoReader

SOON = ReconnectPolicy(initial_delay_s=0.01, max_delay_s=0.04, max_attempts=3)
ENOUGH_S = 20.0  # for anything here


@contextmanager
def feeding(source: str, fps: float = 5, patience: ReconnectPolicy = SOON) -> Iterator[tuple[LiveSource, list[str]]]:
    """A feed that is read, and what it says."""
    said: list[str] = []
    feed = LiveSource(LiveAddress(source), fps, 160, patience, said.append)
    feed.start()
    try:
        yield feed, said
    finally:
        feed.close()


def until(feed: LiveSource, true: Callable[[], object]) -> None:
    with feed.condition:
        assert feed.condition.wait_for(true, ENOUGH_S)


def take_all(feed: LiveSource, most: int | None = None) -> list[LiveFrame]:
    """Samples until the feed is over, or so many."""
    frames: list[LiveFrame] = []
    while most is None or len(frames) < most:
        until(feed, lambda: feed.has_frames() or feed.is_finished)
        frame = feed.take(is_idle=True)
        if frame is None:
            break
        frames.append(frame)
    if feed.error:
        raise feed.error
    return frames


class Made:
    """A connection whose frames are given: stamps in seconds, each drawn with its number; then the end, or a loss."""

    tick, rotation, duration_s, recorded_at = Fraction(1, 1000), 0, None, None

    def __init__(
        self,
        stamps: list[float | None],
        *,
        lost: str = "",
        first: int = 0,
        size_px: tuple[int, int] = (160, 96),
        before: Callable[[int], object] = lambda number: None,
    ) -> None:
        self.stamps, self.lost, self.first, self.size_px, self.before = stamps, lost, first, size_px, before
        self.is_finite = False
        self.damage = Damage()
        self.closed = False

    def frames(self) -> Iterator[DecodedFrame]:
        for number, stamp in enumerate(self.stamps, start=self.first):
            self.before(number)
            frame = av.VideoFrame.from_ndarray(draw_counter(number, *self.size_px), format="rgb24")
            yield DecodedFrame(None if stamp is None else Fraction(str(stamp)), Fraction(1, 10), frame)
        if self.lost:
            raise SourceLostError(self.lost)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Made | SourceLostError]:
    """What each attempt to connect comes to, in turn; after the last, it fails."""
    left: list[Made | SourceLostError] = []

    def connect(address: LiveAddress) -> Made:
        found = left.pop(0) if left else SourceLostError("nothing there")
        if isinstance(found, SourceLostError):
            raise found
        return found

    monkeypatch.setattr("vidgru.video.live_source.connect", connect)
    return left


def seconds(count: int, step: float = 0.1) -> list[float | None]:
    return [round(number * step, 3) for number in range(count)]


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [3, 5, 10, 30])
@pytest.mark.parametrize("served", [as_file, as_stream])
def test_samples_are_those_of_the_file(served: Callable[[Path], object], fps: float, tmp_path: Path) -> None:
    options = {"bf": "2", "g": "7"}
    path = write_video(tmp_path / "a.ts", 16, options=options, tick=Fraction(1, 90000))  # 1.6 s: all may wait
    with VideoReader(path) as reader:
        expected = [(f.time_s, f.index, f.image) for f in reader.sample(fps, (160, 96))]
    with serving(served(path)) as url, feeding(url, fps) as (feed, _):
        frames = take_all(feed, len(expected))
    assert [(f.time_s, f.index) for f in frames] == [(time_s, index) for time_s, index, _ in expected]
    assert all(np.array_equal(f.image, image) for f, (_, _, image) in zip(frames, expected, strict=True))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_frames_stand_upright(rotation: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 4, draw=lambda n, w, h: turned(n, w, h, rotation))
    rotate_mp4(path, rotation)
    with serving(as_file(path)) as url, feeding(url, 10) as (feed, _):
        frames = take_all(feed)
    assert [read_counter(frame.image) for frame in frames] == [0, 1, 2, 3]
    assert {frame.size_px for frame in frames} == {(160, 96) if rotation == 180 else (96, 160)}


def turned(number: int, width: int, height: int, clockwise: int) -> np.ndarray:
    """A counter as a camera stores it that is turned so far."""
    upright = (height, width) if clockwise in (90, 270) else (width, height)
    return np.ascontiguousarray(np.rot90(draw_counter(number, *upright), clockwise // 90))


def test_a_camera_gives_frames_by_the_clock(connections: list[Made | SourceLostError]) -> None:
    connections.append(Made([None] * 5, before=lambda number: time.sleep(0.02)))
    with feeding("0", 100) as (feed, _):
        times = [frame.time_s for frame in take_all(feed, 5)]
    assert times[0] == 0
    assert all(later - earlier >= 0.02 - 1e-4 for earlier, later in pairwise(times))


def test_a_source_may_change_its_size(connections: list[Made | SourceLostError]) -> None:
    connections += [Made(seconds(2), lost="gone"), Made(seconds(2), size_px=(96, 160))]
    with feeding("rtsp://cam", 240) as (feed, _):  # every frame is a sample
        frames = take_all(feed, 4)
    assert [frame.size_px for frame in frames] == [(160, 96)] * 2 + [(96, 160)] * 2
    assert [frame.image.shape for frame in frames] == [(96, 160, 3)] * 2 + [(160, 96, 3)] * 2


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_served_recording_ends(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 60, metadata={"creation_time": "2024-05-01T12:00:00Z"})
    with serving(as_file(path)) as url, feeding(url) as (feed, said):
        frames = take_all(feed)
        until(feed, lambda: feed.is_finished)
    assert len(frames) == 30  # more than may wait: none is passed over
    assert (feed.dropped_frames, feed.truncation, feed.end_s) == (0, "", 6.0)
    assert feed.recorded_at == "2024-05-01T12:00:00+00:00"
    assert said == [f"{url} is open: 160x96"]


def test_a_served_recording_that_breaks_off(connections: list[Made | SourceLostError]) -> None:
    made = Made(seconds(4), lost="Input/output error")
    made.is_finite = True
    connections.append(made)
    with feeding("http://cam/a.mp4", 10) as (feed, _):
        assert len(take_all(feed)) == 4
        until(feed, lambda: feed.is_finished)
    assert feed.truncation == "Input/output error"
    assert made.closed


def test_it_connects_again_and_again(connections: list[Made | SourceLostError]) -> None:
    first, second = Made(seconds(3), lost="Connection reset by peer"), Made(seconds(3), first=3)
    connections += [SourceLostError("refused"), first, SourceLostError("refused"), SourceLostError("refused"), second]
    with feeding("rtsp://u:secret@cam", 240) as (feed, said):  # every frame is a sample
        frames = take_all(feed, 6)
        while len(said) < 9:
            time.sleep(0.01)
        assert not feed.is_finished  # nor is it ever: three attempts are for a source that has not been open
    assert [read_counter(frame.image) for frame in frames] == [0, 1, 2, 3, 4, 5]
    times = [frame.time_s for frame in frames]
    assert times[:3] == [0, 0.1, 0.2]
    assert times == sorted(set(times))
    assert feed.damage.gaps == 1
    assert feed.damage.gap_s > 0
    back = said.pop(5)
    assert back.startswith("rtsp://cam is back after 0.")
    assert said[:8] == [
        "rtsp://cam cannot be opened (refused); retrying in 0.01 s",
        "rtsp://cam is open: 160x96",
        "rtsp://cam was lost (Connection reset by peer); retrying in 0.01 s",
        "rtsp://cam cannot be opened (refused); retrying in 0.02 s",
        "rtsp://cam cannot be opened (refused); retrying in 0.04 s",
        "rtsp://cam was lost (it ended); retrying in 0.01 s",
        "rtsp://cam cannot be opened (nothing there); retrying in 0.02 s",
        "rtsp://cam cannot be opened (nothing there); retrying in 0.04 s",
    ]
    assert first.closed
    assert second.closed


def test_a_source_that_never_opens(connections: list[Made | SourceLostError]) -> None:
    with (
        feeding("rtsp://u:secret@cam") as (feed, said),
        pytest.raises(SourceError, match="rtsp://cam cannot be opened, tried 3 times: nothing there") as error,
    ):
        take_all(feed)
    assert len(said) == 2
    assert "secret" not in "".join([*said, str(error.value)])


def test_nothing_listens() -> None:
    with feeding("tcp://u:secret@127.0.0.1:1") as (feed, _), pytest.raises(SourceError, match="Connection refused"):
        take_all(feed)


@pytest.mark.parametrize(("status", "why"), [(401, "Unauthorized"), (403, "Forbidden")])
def test_a_wrong_password_is_tried_once(status: int, why: str) -> None:
    with (
        serving(*[refusal(status)] * 3) as url,
        feeding(url) as (feed, _),
        pytest.raises(SourceError, match=f"tried once: .*{why}"),
    ):
        take_all(feed)


def test_an_unknown_kind_of_address_is_tried_once() -> None:
    with feeding("rstp://cam") as (feed, _), pytest.raises(SourceError, match="tried once: Protocol not found"):
        take_all(feed)


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("<html>" * 1000)
    with (
        serving(*[as_file(tmp_path / "page")] * 3) as url,
        feeding(url) as (feed, _),
        pytest.raises(SourceError, match="tried 3 times: Invalid data found"),
    ):
        take_all(feed)


def test_a_bug_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(address: LiveAddress) -> Made:
        raise ZeroDivisionError

    monkeypatch.setattr("vidgru.video.live_source.connect", connect)
    with feeding("rtsp://cam") as (feed, _), pytest.raises(ZeroDivisionError):
        take_all(feed)


def test_closing_ends_the_thread(connections: list[Made | SourceLostError]) -> None:
    made = Made([None] * 10**6)
    connections.append(made)
    with feeding("0") as (feed, _):
        until(feed, feed.has_frames)
    assert not feed._thread.is_alive()
    assert made.closed


# --- keeping up -------------------------------------------------------------------------------------------------------


def test_who_is_behind_gets_the_newest(connections: list[Made | SourceLostError]) -> None:
    go = [threading.Event() for _ in range(3)]
    waits = {20: go[0], 23: go[1], 24: go[2]}
    connections.append(Made(seconds(30), before=lambda n: waits[n].wait(ENOUGH_S) if n in waits else None))
    with feeding("rtsp://cam", 5) as (feed, said):  # every other frame is a sample; ten may wait
        until(feed, lambda: len(feed._queue) == 10)
        assert feed.dropped_frames == 0
        go[0].set()  # 20 is the eleventh sample, 22 another
        until(feed, lambda: feed.dropped_frames == 11)
        (newest,) = take_all(feed, 1)
        assert read_counter(newest.image) == 22
        assert feed.take(is_idle=False) is None
        assert len(said) == 2
        assert feed.take(is_idle=True) is None  # has caught up: all is as it was before
        go[1].set()
        go[2].set()
        assert [read_counter(frame.image) for frame in take_all(feed, 3)] == [24, 26, 28]
    assert said[1:3] == [
        "rtsp://cam: the detector is behind; dropping frames to keep up",
        "rtsp://cam: caught up, 11 frames dropped",
    ]


def test_a_served_recording_waits(connections: list[Made | SourceLostError]) -> None:
    made = Made(seconds(100))
    made.is_finite = True
    connections.append(made)
    with feeding("http://cam/a.mp4", 5) as (feed, _):
        until(feed, lambda: len(feed._queue) == 10)
        frames = take_all(feed)
    assert [read_counter(frame.image) for frame in frames] == list(range(0, 100, 2))
    assert feed.dropped_frames == 0
