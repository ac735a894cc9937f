"""Single pictures of videos whose frames show their own numbers."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.videos import read_counter, rotate_mp4, write_video
from vidgru.errors import RecordingError
from vidgru.extract.pictures import Picture, pictures
from vidgru.extract.video import VideoReader

FEW_KEYS = {"g": "25", "sc_threshold": "0"}  # a key frame every 2.5 seconds


def at(path: Path, times_s: list[float], *, side_px: int = 160, most_frames: int = 1000) -> list[Picture]:
    return list(pictures(path, times_s, side_px=side_px, most_frames=most_frames))


def numbers(found: list[Picture]) -> list[int]:
    return [read_counter(picture.image) for picture in found]


@pytest.mark.parametrize("most_frames", [109, 1000])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "webm"])
def test_a_picture_is_the_first_frame_at_or_after_its_time(tmp_path: Path, suffix: str, most_frames: int) -> None:
    codec = {"avi": "mpeg4", "webm": "libvpx"}.get(suffix, "libx264")
    tick = Fraction(1, 10) if suffix == "avi" else Fraction(1, 1000)
    path = write_video(tmp_path / f"a.{suffix}", 120, codec=codec, tick=tick, options={"g": "15"})
    found = at(path, [11.0, 0.0, 0.65, 0.9, 7.3], most_frames=most_frames)
    assert numbers(found) == [0, 7, 9, 73, 110]
    assert [picture.time_s for picture in found] == pytest.approx([0, 0.7, 0.9, 7.3, 11.0], abs=1e-9)


def test_far_from_a_key_frame_an_earlier_picture_is_taken_and_tells_its_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 100, options=FEW_KEYS)
    found = at(path, [4.8, 9.9], most_frames=10)
    assert numbers(found) == [29, 79]
    assert [picture.time_s for picture in found] == pytest.approx([2.9, 7.9])


def test_a_frame_is_given_once_and_the_last_stands_for_what_is_later(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30)
    assert numbers(at(path, [0.31, 0.35, 0.4, 2.95, 50.0])) == [4, 29]
    assert numbers(at(path, [0.31, 2.9, 50.0])) == [4, 29]
    assert numbers(at(path, [50.0], most_frames=40)) == [29]
    assert at(path, []) == []


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_times_are_those_of_extraction(tmp_path: Path, suffix: str) -> None:
    """Sound starts at 0, the video two seconds later; a transport stream starts with the sound's priming samples."""
    ticks = [2000 + 100 * i for i in range(60)]
    path = write_video(tmp_path / f"a.{suffix}", 60, ticks=ticks, audio_s=6, options=FEW_KEYS)
    with VideoReader(path) as reader:
        times = {read_counter(frame.image): frame.time_s for frame in reader.sample(10, (160, 96))}
    found = at(path, [times[0], times[55]], most_frames=54)
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
    assert [at(path, [0.2], side_px=side)[0].image.shape for side in (80, 500)] == [(48, 80, 3), (96, 160, 3)]
    assert at(path, [0.2], side_px=80)[0].image.dtype == np.uint8


def test_damage_is_passed_over(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", 100, options=FEW_KEYS)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 188 * 188
    data[middle : middle + 188 * 20] = bytes(188 * 20)
    path.write_bytes(data)
    found = at(path, [0.5, 9.0], most_frames=60)
    assert numbers(found) == [5, 90]


def test_what_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("a diary")
    with pytest.raises(RecordingError, match="is not a video that can be read"):
        at(path, [0.0])
    with pytest.raises(RecordingError, match="is not a file"):
        at(tmp_path / "none.mp4", [0.0])
