"""Live sources: clock, sampling, reconnection, dropped frames."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from tests.streams import as_file, as_stream, in_ranges, refusal, serving
from tests.videos import draw_counter, faststart, read_counter, rotate_mp4, write_video
from vidgru.errors import SourceError
from vidgru.video.damage import Damage
from vidgru.video.live_connection import DecodedFrame, LiveAddress, SourceLostError, _unread_error, connect
from vidgru.video.live_source import LiveClock, LiveFrame, LiveSource, ReconnectPolicy
from vidgru.video.reader import VideoReader

# --- clock ------------------------------------------------------------------------------------------------------------

START_S = 1000.0  # monotonic clock


def times(*frames: tuple[float | None, float], is_finite: bool = False, clock: LiveClock | None = None) -> list[float]:
    """Return the times of frames given as (stamp, arrival) in seconds."""
    clock = clock or LiveClock()
    return [
        float(clock.time(None if stamp is None else Fraction(str(stamp)), START_S + arrival_s, is_finite=is_finite))
        for stamp, arrival_s in frames
    ]


def test_clock_follows_stamps() -> None:
    assert times((0, 0), (0.2, 0.9), (0.4, 0.91), (0.6, 0.92)) == [0, 0.2, 0.4, 0.6]


def test_clock_counts_from_container_start() -> None:
    assert times((0.5, 0), (0.7, 0.2)) == [0.5, 0.7]
    assert times((0.5, 0), (0.7, 0.2), is_finite=True) == [0.5, 0.7]


def test_clock_starts_running_stream_at_zero() -> None:
    assert times((86400, 0), (86400.5, 0.5)) == [0, 0.5]
    assert times((-3, 0), (-2.5, 0.5)) == [0, 0.5]


def test_clock_uses_arrival_without_stamps() -> None:
    assert times((None, 0), (None, 0.25), (None, 0.75)) == [0, 0.25, 0.75]


def test_clock_advances_without_stamps() -> None:
    assert times((None, 0), (None, 0), (None, 0)) == [0, 0.001, 0.002]


@pytest.mark.parametrize("stamp", [500, 0.1, -40])
def test_clock_uses_arrival_if_stamps_leap(stamp: float) -> None:
    result = times((0, 0), (1, 1), (stamp, 1.5), (stamp + 0.5, 2))
    assert result == pytest.approx([0, 1, 1.5, 2], abs=0.01)


def test_clock_follows_stamps_over_pause() -> None:
    assert times((0, 0), (60, 60), (60.5, 60.5)) == [0, 60, 60.5]


def test_clock_follows_stamps_over_delay() -> None:
    assert times((0, 0), (0.5, 8), (1, 8), (1.5, 8)) == [0, 0.5, 1, 1.5]


def test_clock_follows_stamps_of_served_recording() -> None:
    assert times((0, 0), (60, 0.1), (59, 0.1), (120, 0.2), is_finite=True) == [0, 60, 59, 120]


def test_clock_resumes_by_arrival_after_reconnect() -> None:
    clock = LiveClock()
    assert times((0, 0), (1, 1), clock=clock) == [0, 1]
    clock.reconnect()
    assert times((77, 5), (77.5, 5.1), (78, 5.2), clock=clock) == pytest.approx([5, 5.5, 6], abs=0.01)


def test_clock_does_not_go_back_after_reconnect() -> None:
    clock = LiveClock()
    before = times((0, 0), (9, 0.1), clock=clock, is_finite=True)
    clock.reconnect()
    assert times((0, 0.2), clock=clock)[0] > before[-1]


def test_clock_does_not_add_up_connection_delays() -> None:
    clock = LiveClock()
    times((0, 3), (1, 3), (2, 3), (3, 3), (4, 4), clock=clock)  # the first frame is 3 s late
    assert (clock.first_zero_s, clock.zero_s) == (START_S, START_S)
    for number, second in enumerate(range(10, 60, 10), start=1):
        clock.reconnect()
        stamps = [(0.0, second + 3.0), (3.0, second + 3.0), (4.0, second + 4.0)]
        assert times(*stamps, clock=clock) == pytest.approx([second + 3, second + 6, second + 7], abs=0.05)
        assert clock.zero_s == pytest.approx(START_S - 3, abs=0.05), number
    assert clock.first_zero_s == pytest.approx(START_S, abs=0.05)


def test_clock_zero_is_earliest_estimate() -> None:
    clock = LiveClock()
    times((0, 3), (1, 3), (2, 3), (3, 3), clock=clock)  # all read at once: the first is 3 s late
    assert clock.zero_s == pytest.approx(START_S)
    times((4, 4.5), clock=clock)  # a late frame
    assert clock.zero_s == pytest.approx(START_S, abs=0.01)


def test_clock_zero_follows_slow_source() -> None:
    clock = LiveClock()
    times(*((second * 0.9995, second) for second in range(2000)), clock=clock)
    assert clock.zero_s == pytest.approx(START_S + 1, abs=0.01)


# --- source -----------------------------------------------------------------------------------------------------------

SOON = ReconnectPolicy(initial_delay_s=0.01, max_delay_s=0.04, max_attempts=3)
TIMEOUT_S = 120.0  # longer than any test takes


@contextmanager
def running(url: str, fps: float = 5, reconnect: ReconnectPolicy = SOON) -> Iterator[tuple[LiveSource, list[str]]]:
    """Run a live source; yield the source and its messages."""
    messages: list[str] = []
    source = LiveSource(LiveAddress(url), fps, 160, reconnect, messages.append)
    source.start()
    try:
        yield source, messages
    finally:
        source.close()


def wait_until(source: LiveSource, condition: Callable[[], object]) -> None:
    with source.condition:
        assert source.condition.wait_for(condition, TIMEOUT_S)


def take_all(source: LiveSource, max_frames: int | None = None) -> list[LiveFrame]:
    """Return the samples until the source has ended, or at most `max_frames`."""
    frames: list[LiveFrame] = []
    while max_frames is None or len(frames) < max_frames:
        wait_until(source, lambda: source.has_frames() or source.is_finished)
        frame = source.take(is_idle=True)
        if frame is None:
            break
        frames.append(frame)
    if source.error:
        raise source.error
    return frames


class FakeConnection:
    """A connection with frames at the given stamps (seconds), each showing its number; then the end, or a loss."""

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
def connections(monkeypatch: pytest.MonkeyPatch) -> list[FakeConnection | SourceLostError]:
    """List to fill with the result of each attempt to connect; after the last, attempts fail."""
    remaining: list[FakeConnection | SourceLostError] = []

    def connect(address: LiveAddress) -> FakeConnection:
        result = remaining.pop(0) if remaining else SourceLostError("nothing there")
        if isinstance(result, SourceLostError):
            raise result
        return result

    monkeypatch.setattr("vidgru.video.live_source.connect", connect)
    return remaining


def seconds(count: int, step: float = 0.1) -> list[float | None]:
    return [round(number * step, 3) for number in range(count)]


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [3, 5, 10, 30])
@pytest.mark.parametrize("served", [as_file, as_stream])
def test_live_samples_equal_file_samples(served: Callable[[Path], object], fps: float, tmp_path: Path) -> None:
    options = {"bf": "2", "g": "7"}
    path = write_video(tmp_path / "a.ts", 16, options=options, tick=Fraction(1, 90000))  # 1.6 s: all fit into the queue
    with VideoReader(path) as reader:
        expected = [(f.time_s, f.index, f.image) for f in reader.sample(fps, (160, 96))]
    with serving(served(path)) as url, running(url, fps) as (source, _):
        frames = take_all(source, len(expected))
    assert [(f.time_s, f.index) for f in frames] == [(time_s, index) for time_s, index, _ in expected]
    assert all(np.array_equal(f.image, image) for f, (_, _, image) in zip(frames, expected, strict=True))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_live_frames_are_upright(rotation: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 4, draw=lambda n, w, h: turned(n, w, h, rotation))
    rotate_mp4(path, rotation)
    with serving(as_file(path)) as url, running(url, 10) as (source, _):
        frames = take_all(source)
    assert [read_counter(frame.image) for frame in frames] == [0, 1, 2, 3]
    assert {frame.size_px for frame in frames} == {(160, 96) if rotation == 180 else (96, 160)}


def turned(number: int, width: int, height: int, clockwise: int) -> np.ndarray:
    """Draw a counter as a camera that is turned by so many degrees stores it."""
    upright = (height, width) if clockwise in (90, 270) else (width, height)
    return np.ascontiguousarray(np.rot90(draw_counter(number, *upright), clockwise // 90))


def test_camera_frames_are_timed_by_arrival(connections: list[FakeConnection | SourceLostError]) -> None:
    connections.append(FakeConnection([None] * 5, before=lambda number: time.sleep(0.02)))
    with running("0", 100) as (source, _):
        times = [frame.time_s for frame in take_all(source, 5)]
    assert times[0] == 0
    assert all(later - earlier >= 0.02 - 1e-4 for earlier, later in pairwise(times))


def test_source_may_change_frame_size(connections: list[FakeConnection | SourceLostError]) -> None:
    connections += [FakeConnection(seconds(2), lost="gone"), FakeConnection(seconds(2), size_px=(96, 160))]
    with running("rtsp://cam", 240) as (source, _):  # every frame is a sample
        frames = take_all(source, 4)
    assert [frame.size_px for frame in frames] == [(160, 96)] * 2 + [(96, 160)] * 2
    assert [frame.image.shape for frame in frames] == [(96, 160, 3)] * 2 + [(160, 96, 3)] * 2


# --- ends -------------------------------------------------------------------------------------------------------------


def test_served_recording_ends(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 60, metadata={"creation_time": "2024-05-01T12:00:00Z"})
    with serving(as_file(path)) as url, running(url) as (source, messages):
        frames = take_all(source)
        wait_until(source, lambda: source.is_finished)
    assert len(frames) == 30  # more than the queue holds: none is dropped
    assert (source.dropped_frames, source.truncation, source.end_s) == (0, "", 6.0)
    assert source.recorded_at == "2024-05-01T12:00:00+00:00"
    assert messages == [f"{url} is open: 160x96"]


def test_served_recording_reports_truncation(connections: list[FakeConnection | SourceLostError]) -> None:
    connection = FakeConnection(seconds(4), lost="Input/output error")
    connection.is_finite = True
    connections.append(connection)
    with running("http://cam/a.mp4", 10) as (source, _):
        assert len(take_all(source)) == 4
        wait_until(source, lambda: source.is_finished)
    assert source.truncation == "Input/output error"
    assert connection.closed


def test_lost_source_is_reconnected(connections: list[FakeConnection | SourceLostError]) -> None:
    first, second = FakeConnection(seconds(3), lost="Connection reset by peer"), FakeConnection(seconds(3), first=3)
    connections += [SourceLostError("refused"), first, SourceLostError("refused"), SourceLostError("refused"), second]
    with running("rtsp://u:secret@cam", 240) as (source, messages):  # every frame is a sample
        frames = take_all(source, 6)
        while len(messages) < 9:
            time.sleep(0.01)
        assert not source.is_finished  # the limit of attempts is for sources that have never been open
    assert [read_counter(frame.image) for frame in frames] == [0, 1, 2, 3, 4, 5]
    times = [frame.time_s for frame in frames]
    assert times[:3] == [0, 0.1, 0.2]
    assert times == sorted(set(times))
    assert source.damage.gaps == 1
    assert source.damage.gap_s > 0
    back = messages.pop(5)
    assert re.fullmatch(r"rtsp://cam is back after \d+\.\d s", back)
    assert messages[:8] == [
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


@pytest.mark.parametrize("lost", ["", "Connection reset by peer"])
def test_once_ends_with_the_source(connections: list[FakeConnection | SourceLostError], lost: str) -> None:
    connections += [SourceLostError("refused"), FakeConnection(seconds(3), lost=lost), FakeConnection(seconds(3))]
    with running("rtsp://cam", 10, replace(SOON, once=True)) as (source, messages):
        assert len(take_all(source)) == 3
        wait_until(source, lambda: source.is_finished)
    assert messages[0] == "rtsp://cam cannot be opened (refused); retrying in 0.01 s"
    assert messages[-1] == f"rtsp://cam is left ({lost or 'it ended'})"


def test_unopened_source_is_given_up(connections: list[FakeConnection | SourceLostError]) -> None:
    with (
        running("rtsp://u:secret@cam") as (source, messages),
        pytest.raises(SourceError, match="rtsp://cam cannot be opened, tried 3 times: nothing there") as error,
    ):
        take_all(source)
    assert len(messages) == 2
    assert "secret" not in "".join([*messages, str(error.value)])


def test_refused_connection_raises() -> None:
    with running("tcp://u:secret@127.0.0.1:1") as (source, _), pytest.raises(SourceError, match="Connection refused"):
        take_all(source)


@pytest.mark.parametrize(("status", "reason"), [
    (401, "Unauthorized .*\n  check user and password in the address"),
    (403, "Forbidden .*\n  check user and password in the address, or download the video"),
    (404, "Not Found\n  check the path in the address, or download the video"),
])  # fmt: skip
def test_refused_request_is_not_retried(status: int, reason: str) -> None:
    with (
        serving(*[refusal(status)] * 3) as url,
        running(url) as (source, _),
        pytest.raises(SourceError, match=f"tried once: .*{reason}"),
    ):
        take_all(source)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_busy_server_is_retried(status: int) -> None:
    with (
        serving(*[refusal(status)] * 3) as url,
        running(url) as (source, _),
        pytest.raises(SourceError, match="tried 3 times: Server returned"),
    ):
        take_all(source)


def test_refused_request_is_retried_once_open(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", 16, tick=Fraction(1, 90000))
    with serving(as_stream(path), refusal(404), as_stream(path)) as url, running(url) as (source, messages):
        wait_until(source, lambda: source.damage.gaps == 1)
    assert any("cannot be opened (Server returned 404 Not Found); retrying" in line for line in messages)


def test_unknown_protocol_is_not_retried() -> None:
    message = "tried once: Protocol not found\n  check what comes before ://"
    with running("rstp://cam") as (source, _), pytest.raises(SourceError, match=message):
        take_all(source)


@pytest.mark.parametrize("path", ["/index.m3u8", "/a/LIST.MPD?token=secret"])
def test_list_that_may_come_is_awaited(path: str) -> None:
    with (
        serving(*[refusal(404)] * 3) as url,
        running(url + path) as (source, _),
        pytest.raises(SourceError, match=r"tried 3 times: .*Not Found\n  check the path in the address"),
    ):
        take_all(source)


@pytest.mark.parametrize(("address", "is_final"), [
    ("rtsp://cam/yard", False),
    ("rtsps://u:p@cam/yard", False),
    ("https://cam/yard.m3u8#t=1", False),
    ("https://cam/yard.mp4?from=a.m3u8", True),
])  # fmt: skip
def test_missing_path_is_final_for_files_only(address: str, is_final: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise av.error.HTTPNotFoundError(0, "Server returned 404 Not Found")

    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(SourceLostError, match="404") as error:
        connect(LiveAddress(address))
    assert error.value.is_final == is_final
    assert error.value.remedy.startswith("check the path in the address")


def test_starting_page_is_awaited(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", 16, tick=Fraction(1, 90000))
    (tmp_path / "page").write_text("<html>" * 1000)
    with serving(as_file(tmp_path / "page"), as_file(path)) as url, running(url) as (source, messages):
        assert take_all(source)
    assert any("cannot be opened (Invalid data found" in line for line in messages)


def test_served_page_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("<html>" * 1000)
    message = "tried 3 times: Invalid data found .*\n  give the address of the video itself, not of a page"
    with (
        serving(*[as_file(tmp_path / "page")] * 3) as url,
        running(url) as (source, _),
        pytest.raises(SourceError, match=message),
    ):
        take_all(source)


def noise_mp4(path: Path) -> Path:
    noise = np.random.default_rng(0)
    return write_video(path, 10, draw=lambda n, w, h: noise.integers(0, 256, (h, w, 3), np.uint8))


def test_index_at_the_end_needs_ranges(tmp_path: Path) -> None:
    """FFmpeg's MP4 files have their index at the end; this one is larger than what FFmpeg keeps in memory."""
    path = noise_mp4(tmp_path / "a.mp4")
    with serving(*[in_ranges(path)] * 4) as url, running(url) as (source, _):
        assert len(take_all(source)) == 5
    message = (
        "tried once: the index of this file comes last, .*\n  download the video and give the file, or .* \\+faststart"
    )
    with (
        serving(*[as_file(path)] * 3) as url,
        running(url) as (source, _),
        pytest.raises(SourceError, match=message),
    ):
        take_all(source)


def test_lost_download_is_retried(tmp_path: Path) -> None:
    """The index comes first, and the connection is lost before the first frame."""
    path = faststart(noise_mp4(tmp_path / "a.mp4"))
    whole = path.read_bytes()

    def cut(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(whole)))
        request.end_headers()
        request.wfile.write(whole[: whole.index(b"mdat") + 4])

    with serving(cut, as_file(path)) as url, running(url) as (source, messages):
        assert len(take_all(source)) == 5
    assert "cannot be opened (Input/output error); retrying" in messages[0]
    with (
        serving(*[cut] * 3) as url,
        running(url) as (source, _),
        pytest.raises(SourceError, match=r"tried 3 times: Input/output error\n  check the connection .* \+faststart"),
    ):
        take_all(source)


@pytest.mark.parametrize(("name", "stream", "is_final"), [
    ("mov,mp4,m4a", SimpleNamespace(index_entries=[SimpleNamespace(pos=48)]), True),
    ("mov,mp4,m4a", SimpleNamespace(index_entries=[]), False),
    ("mov,mp4,m4a", SimpleNamespace(index_entries=[SimpleNamespace(pos=900)]), False),
    ("matroska,webm", SimpleNamespace(index_entries=[SimpleNamespace(pos=48)]), False),
])  # fmt: skip
def test_index_comes_last_only_if_certain(name: str, stream: SimpleNamespace, is_final: bool) -> None:
    container = SimpleNamespace(format=SimpleNamespace(name=name), streams=[stream])
    assert _unread_error(container, "Input/output error").is_final == is_final


def test_unexpected_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(address: LiveAddress) -> FakeConnection:
        raise ZeroDivisionError

    monkeypatch.setattr("vidgru.video.live_source.connect", connect)
    with running("rtsp://cam") as (source, _), pytest.raises(ZeroDivisionError):
        take_all(source)


def test_close_ends_thread(connections: list[FakeConnection | SourceLostError]) -> None:
    connection = FakeConnection([None] * 10**6)
    connections.append(connection)
    with running("0") as (source, _):
        wait_until(source, source.has_frames)
    assert not source._thread.is_alive()
    assert connection.closed


# --- keeping up -------------------------------------------------------------------------------------------------------


def test_slow_consumer_gets_newest_frame(connections: list[FakeConnection | SourceLostError]) -> None:
    go = [threading.Event() for _ in range(3)]
    waits = {20: go[0], 23: go[1], 24: go[2]}
    connections.append(FakeConnection(seconds(30), before=lambda n: waits[n].wait(TIMEOUT_S) if n in waits else None))
    with running("rtsp://cam", 5) as (source, messages):  # every other frame is a sample; the queue holds ten
        wait_until(source, lambda: len(source._queue) == 10)
        assert source.dropped_frames == 0
        go[0].set()  # frames 20 and 22 are the samples 11 and 12
        wait_until(source, lambda: source.dropped_frames == 11)
        (newest,) = take_all(source, 1)
        assert read_counter(newest.image) == 22
        assert source.take(is_idle=False) is None
        assert len(messages) == 2
        assert source.take(is_idle=True) is None  # caught up
        go[1].set()
        go[2].set()
        assert [read_counter(frame.image) for frame in take_all(source, 3)] == [24, 26, 28]
    assert messages[1:3] == [
        "rtsp://cam: the detector is behind; dropping frames to keep up",
        "rtsp://cam: caught up, 11 frames dropped",
    ]


def test_served_recording_waits_for_consumer(connections: list[FakeConnection | SourceLostError]) -> None:
    connection = FakeConnection(seconds(100))
    connection.is_finite = True
    connections.append(connection)
    with running("http://cam/a.mp4", 5) as (source, _):
        wait_until(source, lambda: len(source._queue) == 10)
        frames = take_all(source)
    assert [read_counter(frame.image) for frame in frames] == list(range(0, 100, 2))
    assert source.dropped_frames == 0
