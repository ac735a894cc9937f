"""Thumbnails of videos whose frames show their own numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.videos import read_counter, rotate_mp4, write_video
from vidgru.errors import RecordingError
from vidgru.video import thumbnails
from vidgru.video.container import open_container
from vidgru.video.reader import VideoReader
from vidgru.video.thumbnails import Thumbnail, read_thumbnails

FEW_KEYS = {"g": "25", "sc_threshold": "0"}  # a key frame every 2.5 seconds


def read_at(path: Path, times_s: list[float], *, longer_side_px: int = 160, max_frames: int = 1000) -> list[Thumbnail]:
    return list(read_thumbnails(path, times_s, longer_side_px=longer_side_px, max_frames=max_frames))


def numbers(result: list[Thumbnail]) -> list[int]:
    return [read_counter(thumbnail.image) for thumbnail in result]


class LoggedContainer:
    """A container that counts seeks and packets, and fails as its log says."""

    def __init__(self, log: "ContainerLog", container: Any) -> None:
        self._log, self._container = log, container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def seek(self, *arguments: Any, **options: Any) -> None:
        self._log.seeks += 1
        self._container.seek(*arguments, **options)

    def demux(self, stream: Any) -> Iterator[Any]:
        for packet in self._container.demux(stream):
            self._log.packets += 1
            if self._log.packets in self._log.unreadable:
                raise av.error.InvalidDataError(0, "injected")
            yield packet
        if self._log.at_end is not None:
            raise self._log.at_end


@dataclass
class ContainerLog:
    seeks: int = 0
    packets: int = 0
    unreadable: set[int] = field(default_factory=set)
    at_end: Exception | None = None


@contextmanager
def logging_containers(monkeypatch: pytest.MonkeyPatch) -> Iterator[ContainerLog]:
    log = ContainerLog()

    @contextmanager
    def open_logged(path: Path) -> Iterator[LoggedContainer]:
        with open_container(path) as container:
            yield LoggedContainer(log, container)

    with monkeypatch.context() as patch:
        patch.setattr(thumbnails, "open_container", open_logged)
        yield log


@pytest.mark.parametrize("max_frames", [109, 1000])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "webm"])
def test_thumbnail_is_first_frame_at_or_after_time(tmp_path: Path, suffix: str, max_frames: int) -> None:
    codec = {"avi": "mpeg4", "webm": "libvpx"}.get(suffix, "libx264")
    tick = Fraction(1, 10) if suffix == "avi" else Fraction(1, 1000)
    path = write_video(tmp_path / f"a.{suffix}", 120, codec=codec, tick=tick, options={"g": "15"})
    result = read_at(path, [11.0, 0.0, 0.65, 0.9, 7.3], max_frames=max_frames)
    assert numbers(result) == [0, 7, 9, 73, 110]
    assert [thumbnail.time_s for thumbnail in result] == pytest.approx([0, 0.7, 0.9, 7.3, 11.0], abs=1e-9)


def test_thumbnail_far_from_key_frame_is_earlier(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 100, options=FEW_KEYS)
    result = read_at(path, [4.8, 9.9], max_frames=10)
    assert numbers(result) == [29, 79]
    assert [thumbnail.time_s for thumbnail in result] == pytest.approx([2.9, 7.9])


def test_thumbnails_give_each_frame_once(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30)
    assert numbers(read_at(path, [0.31, 0.35, 0.4, 2.95, 50.0])) == [4, 29]
    assert numbers(read_at(path, [0.31, 2.9, 50.0])) == [4, 29]
    assert numbers(read_at(path, [50.0], max_frames=40)) == [29]
    assert read_at(path, []) == []


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_thumbnail_times_equal_sampled_times(tmp_path: Path, suffix: str) -> None:
    """Audio starts at 0 and the video two seconds later; a transport stream starts with the audio's priming samples."""
    ticks = [2000 + 100 * i for i in range(60)]
    path = write_video(tmp_path / f"a.{suffix}", 60, ticks=ticks, audio_s=6, options=FEW_KEYS)
    with VideoReader(path) as reader:
        times = {read_counter(frame.image): frame.time_s for frame in reader.sample(10, (160, 96))}
    result = read_at(path, [times[0], times[55]], max_frames=54)
    assert [(read_counter(thumbnail.image), thumbnail.time_s) for thumbnail in result] == [
        (0, times[0]),
        (55, times[55]),
    ]
    assert times[0] == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("clockwise", [0, 90, 180, 270])
def test_thumbnails_are_upright(tmp_path: Path, clockwise: int) -> None:
    path = write_video(tmp_path / "a.mp4", 10)
    (stored,) = read_at(path, [0.5])
    rotate_mp4(path, clockwise)
    (rotated,) = read_at(path, [0.5])
    assert rotated.image.shape == ((96, 160, 3) if clockwise in (0, 180) else (160, 96, 3))
    assert np.array_equal(np.rot90(rotated.image, clockwise // 90), stored.image)


def test_thumbnails_are_never_enlarged(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 5)
    assert [read_at(path, [0.2], longer_side_px=side)[0].image.shape for side in (80, 500)] == [
        (48, 80, 3),
        (96, 160, 3),
    ]
    assert read_at(path, [0.2], longer_side_px=80)[0].image.dtype == np.uint8


def test_thumbnails_skip_damage(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", 100, options=FEW_KEYS)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 188 * 188
    data[middle : middle + 188 * 20] = bytes(188 * 20)
    path.write_bytes(data)
    result = read_at(path, [0.5, 9.0], max_frames=60)
    assert numbers(result) == [5, 90]


def test_late_stream_ends_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyAV raises IndexError when it flushes such a stream; no file reproduces this reliably."""
    path = write_video(tmp_path / "a.ts", 30)
    with logging_containers(monkeypatch) as log:
        log.at_end = IndexError("list index out of range")
        assert numbers(read_at(path, [0.5, 50.0], max_frames=60)) == [5, 29]
        assert numbers(read_at(path, [0.5, 50.0])) == [5, 29]


def test_unreadable_packets_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mkv", 30, codec="mjpeg", pix_fmt="yuvj420p")
    with logging_containers(monkeypatch) as log:
        log.unreadable = {4, 5, 9}
        assert numbers(read_at(path, [2.5])) == [25]


def test_little_is_read_without_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"g": "100", "sc_threshold": "0"}
    path, other = (write_video(tmp_path / f"a.{suffix}", 500, options=options) for suffix in ("ts", "mkv"))
    times = [9.0 * n + 3 for n in range(6)]
    with logging_containers(monkeypatch) as log:
        result = numbers(read_at(path, times, max_frames=165))
        assert log.seeks < 3 * len(times)
        assert log.packets < 1.3 * 500, "about as many as the file has"
    assert result == numbers(read_at(other, times, max_frames=165)), "same as with an index"


def test_reading_is_bounded_without_key_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.ts", 400, options={"g": "9999", "sc_threshold": "0"})
    with logging_containers(monkeypatch) as log:
        result = read_at(path, [float(n) for n in range(20, 40)], max_frames=20)
        assert log.packets <= 20 * (thumbnails._PACKETS_PER_FRAME + 1 + thumbnails._MAX_HELD_BACK)
    assert result == []


def test_unreadable_files_raise(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("a diary")
    with pytest.raises(RecordingError, match="is not a readable video"):
        read_at(path, [0.0])
    with pytest.raises(RecordingError, match="is not a file"):
        read_at(tmp_path / "none.mp4", [0.0])
