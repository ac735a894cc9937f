from pathlib import Path

import pytest

from vidgru.sources import is_live_source
from vidgru.video.live_connection import LiveAddress


@pytest.mark.parametrize("source", ["rtsp://cam/1", "RTSPS://cam/1", "http://cam/a.mp4", "tcp://1.2.3.4:5", "0", "12"])
def test_live_sources(source: str) -> None:
    assert is_live_source(source)


@pytest.mark.parametrize("source", ["a.mp4", "videos", "videos/*.mp4", "C:/videos", "list.txt", "-1", "1.5", "", "²"])
def test_recordings(source: str) -> None:
    assert not is_live_source(source)


def test_a_file_goes_before_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_live_source("0")
    (tmp_path / "0").mkdir()
    assert not is_live_source("0")


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
def test_names_hold_no_credentials(source: str, name: str) -> None:
    address = LiveAddress(source)
    assert address.name == name
    assert source not in repr(address)


def test_devices_and_schemes() -> None:
    assert LiveAddress("3").device == 3
    assert LiveAddress("http://cam").device is None
    assert (LiveAddress("3").scheme, LiveAddress("HTTP://cam").scheme) == ("", "http")
