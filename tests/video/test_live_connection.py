"""Addresses and connections of live sources, with servers on this machine."""

import socket
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.streams import as_file, as_stream, serving
from tests.videos import draw_counter, read_counter, write_video
from vidgru.video.live_connection import Connection, DecodedFrame, LiveAddress, SourceLostError, connect

# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("0", "camera 0"),
        ("rtsp://cam:554/stream1", "rtsp://cam:554/stream1"),
        ("rtsp://admin:secret@cam:554/stream1", "rtsp://cam:554/stream1"),
        ("RTSP://admin:secret@cam", "rtsp://cam"),
        ("rtsp://admin:se@c/r?e#t@cam/a", "rtsp://cam/a"),
        ("rtsp://nvr/cam?channel=1&subtype=0", "rtsp://nvr/cam?channel=1&subtype=0"),
        ("http://cam/video?user=admin&pwd=secret&x=1", "http://cam/video?user=***&pwd=***&x=1"),
        ("srt://host:9000?passphrase=a=secret==", "srt://host:9000?passphrase=***"),
        ("http://cam/video?secrettoken", "http://cam/video?***"),
        ("http://cam/video#secret", "http://cam/video"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
    ],
)  # fmt: skip
def test_address_name_hides_credentials(source: str, name: str) -> None:
    address = LiveAddress(source)
    assert address.name == name
    assert source not in repr(address)


def test_address_device_and_scheme() -> None:
    assert LiveAddress("3").device == 3
    assert LiveAddress("http://cam").device is None
    assert (LiveAddress("3").scheme, LiveAddress("HTTP://cam").scheme) == ("", "http")


class FakeCapture:
    """Stand-in for cv2.VideoCapture of camera 7, with three BGR frames."""

    def __init__(self, device: int) -> None:
        self.device, self.left, self.released = device, [0, 1, 2], False

    def isOpened(self) -> bool:  # noqa: N802
        return self.device == 7

    def read(self) -> tuple[bool, Any]:
        if not self.left:
            return False, None
        return True, np.ascontiguousarray(draw_counter(self.left.pop(0), 160, 96)[..., ::-1])

    def release(self) -> None:
        self.released = True


def drain(connection: Connection) -> tuple[list[DecodedFrame], str]:
    """Read a connection to its end; return its frames and the reason if it was lost."""
    frames: list[DecodedFrame] = []
    try:
        for decoded in connection.frames():
            frames.append(decoded)  # keep the frames before a loss
    except SourceLostError as lost:
        return frames, str(lost)
    finally:
        connection.close()
    return frames, ""


def image_of(decoded: DecodedFrame) -> np.ndarray:
    image: np.ndarray = decoded.frame.to_ndarray(format="rgb24")
    return image


def test_camera_gives_frames_without_stamps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidgru.video.live_connection.cv2.VideoCapture", FakeCapture)
    connection = connect(LiveAddress("7"))
    frames, reason = drain(connection)
    assert reason == "the camera gives no more frames"
    assert [decoded.stamp for decoded in frames] == [None] * 3
    assert all(np.array_equal(image_of(frames[n]), draw_counter(n, 160, 96)) for n in range(3))
    assert (connection.is_finite, connection.duration_s, connection.rotation) == (False, None, 0)
    with pytest.raises(SourceLostError, match="there is no such camera, or it is in use"):
        connect(LiveAddress("8"))


def test_stream_stamps_are_exact(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.mp4", 4, ticks=[0, 33, 67, 100], metadata={"creation_time": "2024-05-01T12:00:00Z"}
    )
    with serving(as_file(path)) as url:
        connection = connect(LiveAddress(url))
        frames, reason = drain(connection)
    assert reason == ""
    assert [decoded.stamp for decoded in frames] == [Fraction(tick, 1000) for tick in (0, 33, 67, 100)]
    assert connection.is_finite
    assert connection.recorded_at == "2024-05-01T12:00:00+00:00"


@pytest.mark.parametrize("served", [as_file, as_stream])
def test_untimed_stream_uses_frame_rate_if_finite(served: Any, tmp_path: Path) -> None:
    """A served recording has times at its frame rate, like a file; a live stream has none."""
    path = write_video(tmp_path / "a.h264", 6, options={"bf": "0"})
    with serving(served(path)) as url:
        connection = connect(LiveAddress(url))
        frames, _ = drain(connection)
    assert connection.is_finite == (served is as_file)
    expected = [Fraction(n, 25) if served is as_file else None for n in range(len(frames))]
    assert [decoded.stamp for decoded in frames] == expected
    assert len(frames) == 6


def test_stream_without_video_is_lost(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with (
        serving(as_file(tmp_path / "a.wav")) as url,
        pytest.raises(SourceLostError, match="has no video stream, only audio"),
    ):
        connect(LiveAddress(url))


def test_silent_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidgru.video.live_connection.OPEN_TIMEOUT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(SourceLostError, match="no data for 1 s"):
            connect(LiveAddress(url))


def test_silent_stream_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidgru.video.live_connection.PACKET_TIMEOUT_S", 1.0)
    path = write_video(tmp_path / "a.ts", 60, tick=Fraction(1, 90000))
    with serving(as_stream(path, lambda: time.sleep(3))) as url:
        frames, reason = drain(connect(LiveAddress(url)))
    assert reason == "no data for 1 s"
    numbers = [read_counter(image_of(decoded)) for decoded in frames]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 58  # including those the decoder held back


def test_error_hides_address() -> None:
    with pytest.raises(SourceLostError) as error:
        connect(LiveAddress("tcp://me:hunter2@127.0.0.1:1"))
    assert str(error.value) == "Connection refused"
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__
