"""Single pictures of videos whose frames show their own numbers."""

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
from vidgru.video import thumbnails as pictures_module
from vidgru.video.container import open_container
from vidgru.video.reader import VideoReader
from vidgru.video.thumbnails import Thumbnail, read_thumbnails

FEW_KEYS = {"g": "25", "sc_threshold": "0"}  # a key frame every 2.5 seconds


def at(path: Path, times_s: list[float], *, longer_side_px: int = 160, max_frames: int = 1000) -> list[Thumbnail]:
    return list(read_thumbnails(path, times_s, longer_side_px=longer_side_px, max_frames=max_frames))


def numbers(found: list[Thumbnail]) -> list[int]:
    return [read_counter(picture.image) for picture in found]


class Opened:
    """A container that counts what is done with it, and fails when it is told to."""

    def __init__(self, log: "Log", container: Any) -> None:
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
                raise av.error.InvalidDataError(0, "made up")
            yield packet
        if self._log.at_end is not None:
            raise self._log.at_end


@dataclass
class Log:
    seeks: int = 0
    packets: int = 0
    unreadable: set[int] = field(default_factory=set)
    at_end: Exception | None = None


@contextmanager
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    log = Log()

    @contextmanager
    def instead(path: Path) -> Iterator[Opened]:
        with open_container(path) as container:
            yield Opened(log, container)

    with monkeypatch.context() as patch:
        patch.setattr(pictures_module, "open_container", instead)
        yield log


@pytest.mark.parametrize("max_frames", [109, 1000])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "webm"])
def test_a_picture_is_the_first_frame_at_or_after_its_time(tmp_path: Path, suffix: str, max_frames: int) -> None:
    codec = {"avi": "mpeg4", "webm": "libvpx"}.get(suffix, "libx264")
    tick = Fraction(1, 10) if suffix == "avi" else Fraction(1, 1000)
    path = write_video(tmp_path / f"a.{suffix}", 120, codec=codec, tick=tick, options={"g": "15"})
    found = at(path, [11.0, 0.0, 0.65, 0.9, 7.3], max_frames=max_frames)
    assert numbers(found) == [0, 7, 9, 73, 110]
    assert [picture.time_s for picture in found] == pytest.approx([0, 0.7, 0.9, 7.3, 11.0], abs=1e-9)


def test_far_from_a_key_frame_an_earlier_picture_is_taken_and_tells_its_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 100, options=FEW_KEYS)
    found = at(path, [4.8, 9.9], max_frames=10)
    assert numbers(found) == [29, 79]
    assert [picture.time_s for picture in found] == pytest.approx([2.9, 7.9])


def test_a_frame_is_given_once_and_the_last_stands_for_what_is_later(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30)
    assert numbers(at(path, [0.31, 0.35, 0.4, 2.95, 50.0])) == [4, 29]
    assert numbers(at(path, [0.31, 2.9, 50.0])) == [4, 29]
    assert numbers(at(path, [50.0], max_frames=40)) == [29]
    assert at(path, []) == []


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_times_are_those_of_extraction(tmp_path: Path, suffix: str) -> None:
    """Sound starts at 0, the video two seconds later; a transport stream starts with the sound's priming samples."""
    ticks = [2000 + 100 * i for i in range(60)]
    path = write_video(tmp_path / f"a.{suffix}", 60, ticks=ticks, audio_s=6, options=FEW_KEYS)
    with VideoReader(path) as reader:
        times = {read_counter(frame.image): frame.time_s for frame in reader.sample(10, (160, 96))}
    found = at(path, [times[0], times[55]], max_frames=54)
    assert [(read_counter(picture.image), picture.time_s) for picture in found] == [(0, times[0]), (55, times[55])]
    assert times[0] == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("clockwise", [0, 90, 180, 270])
def test_pictures_stand_upright(tmp_path: Path, clockwise: int) -> None:
    path = write_video(tmp_path / "a.mp4", 10)
    (plain,) = at(path, [0.5])
    rotate_mp4(path, clockwise)
    (turned,) = at(path, [0.5])
    assert turned.image.shape == ((96, 160, 3) if clockwise in (0, 180) else (160, 96, 3))
    assert np.array_equal(np.rot90(turned.image, clockwise // 90), plain.image)


def test_pictures_are_made_smaller_and_never_larger(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 5)
    assert [at(path, [0.2], longer_side_px=side)[0].image.shape for side in (80, 500)] == [(48, 80, 3), (96, 160, 3)]
    assert at(path, [0.2], longer_side_px=80)[0].image.dtype == np.uint8


def test_damage_is_passed_over(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", 100, options=FEW_KEYS)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 188 * 188
    data[middle : middle + 188 * 20] = bytes(188 * 20)
    path.write_bytes(data)
    found = at(path, [0.5, 9.0], max_frames=60)
    assert numbers(found) == [5, 90]


def test_a_stream_that_turns_up_late_is_the_end_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyAV raises IndexError when it flushes one; which file makes it do so is up to how FFmpeg probes."""
    path = write_video(tmp_path / "a.ts", 30)
    with opened(monkeypatch) as log:
        log.at_end = IndexError("list index out of range")
        assert numbers(at(path, [0.5, 50.0], max_frames=60)) == [5, 29]
        assert numbers(at(path, [0.5, 50.0])) == [5, 29]


def test_reading_goes_on_after_packets_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mkv", 30, codec="mjpeg", pix_fmt="yuvj420p")
    with opened(monkeypatch) as log:
        log.unreadable = {4, 5, 9}
        assert numbers(at(path, [2.5])) == [25]


def test_where_key_frames_are_rare_and_there_is_no_index_little_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"g": "100", "sc_threshold": "0"}
    path, other = (write_video(tmp_path / f"a.{suffix}", 1000, options=options) for suffix in ("ts", "mkv"))
    times = [9.0 * n + 3 for n in range(11)]
    with opened(monkeypatch) as log:
        found = numbers(at(path, times, max_frames=165))
        assert log.seeks < 3 * len(times)
        assert log.packets < 1.3 * 1000, "as many as the file has, about"
    assert found == numbers(at(other, times, max_frames=165)), "the same as where there is an index"


def test_what_may_be_read_is_bounded_where_there_are_no_key_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.ts", 400, options={"g": "9999", "sc_threshold": "0"})
    with opened(monkeypatch) as log:
        found = at(path, [float(n) for n in range(20, 40)], max_frames=20)
        assert log.packets <= 20 * (pictures_module._PACKETS_PER_FRAME + 1 + pictures_module._MAX_HELD_BACK)
    assert found == []


def test_what_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("a diary")
    with pytest.raises(RecordingError, match="is not a readable video"):
        at(path, [0.0])
    with pytest.raises(RecordingError, match="is not a file"):
        at(tmp_path / "none.mp4", [0.0])
