"""Display frames and audio packets, of videos whose frames show their own numbers."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.videos import draw_counter, faststart, read_counter, rotate_mp4, write_video
from vidgru.errors import RecordingChangedError, RecordingError
from vidgru.video.display_frames import AudioReader, DisplayFrame, DisplayFrameReader
from vidgru.video.reader import VideoReader

SIZE = (160, 96)


def read_frames(path: Path, *intervals: tuple[float, float], size_px: tuple[int, int] = SIZE) -> list[DisplayFrame]:
    exact = [(Fraction(str(start)), Fraction(str(end))) for start, end in intervals]
    with DisplayFrameReader(path) as reader:
        return list(reader.frames(size_px, exact)) if exact else list(reader.frames(size_px))


def numbers(frames: list[DisplayFrame]) -> list[int]:
    return [read_counter(frame.image) for frame in frames]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_display_frames_keep_uneven_times(tmp_path: Path, suffix: str) -> None:
    ticks = np.cumsum([0, *np.random.default_rng(0).choice([7, 33, 40, 125, 700, 5000], 40)]).tolist()
    frames = read_frames(write_video(tmp_path / f"a.{suffix}", len(ticks), ticks=ticks))
    assert numbers(frames) == list(range(len(ticks)))
    assert [frame.time for frame in frames] == [Fraction(tick, 1000) for tick in ticks]
    assert [frame.end for frame in frames[:-1]] == [frame.time for frame in frames[1:]]
    assert frames[-1].end > frames[-1].time


def test_times_count_from_earliest_stream(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 10, ticks=[500 + 100 * i for i in range(10)], audio_s=2)
    assert [frame.time for frame in read_frames(path)] == [Fraction(5 + i, 10) for i in range(10)]
    with AudioReader(path) as audio:
        times = [time for time, _ in audio.packets()]
    assert abs(times[0]) < Fraction(1, 5), "a decoder's priming packet may be before 0"
    assert times == sorted(set(times))
    assert 1.8 < times[-1] < 2


def test_interval_gives_frames_on_screen(tmp_path: Path) -> None:
    """Frames appear at 0, 1, 2, 5 and 6 s, so from 3 to 5 s the third is on screen."""
    path = write_video(tmp_path / "a.mp4", 5, ticks=[0, 1000, 2000, 5000, 6000], fps=1)
    assert numbers(read_frames(path, (3, 5))) == [2]
    assert numbers(read_frames(path, (3, 5.5))) == [2, 3]
    assert numbers(read_frames(path, (1, 2))) == [1]
    assert numbers(read_frames(path, (0.5, 0.6), (2.5, 2.6), (3, 4), (6.5, 9))) == [0, 2, 4], "each frame once"
    assert numbers(read_frames(path, (70, 90))) == []


@pytest.mark.parametrize(
    "suffix",
    ["mp4", "ts", "avi", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mkv", "flv", "h264", "mov"))],
)
def test_seeking_between_intervals_gives_same_frames(tmp_path: Path, suffix: str) -> None:
    codec, options = ("mpeg4", {"g": "40"}) if suffix == "avi" else ("libx264", {"g": "40"})
    tick = Fraction(1, 10) if suffix == "avi" else Fraction(1, 1000)
    path = write_video(tmp_path / f"a.{suffix}", 300, tick=tick, codec=codec, options=options)
    all_frames = read_frames(path)
    wanted = [(1.05, 1.3), (12, 12.4), (12.55, 12.7), (21.91, 22.3), (29.9, 70)]
    exact = [(Fraction(str(start)), Fraction(str(end))) for start, end in wanted]
    expected = [p for p in all_frames if any(p.end > start and p.time < end for start, end in exact)]
    result = read_frames(path, *wanted)
    assert len(result) > 5
    assert numbers(result) == numbers(expected)
    assert [(p.time, p.end) for p in result] == [(p.time, p.end) for p in expected]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(result, expected, strict=True))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Fraction]:
    """Return the times of all frames decoded during the test."""
    times: list[Fraction] = []
    original = VideoReader._decode

    def counting(self: VideoReader) -> Any:
        for time, frame in original(self):
            times.append(time)
            yield time, frame

    monkeypatch.setattr(VideoReader, "_decode", counting)
    return times


def test_gaps_between_intervals_are_not_decoded(tmp_path: Path, decoded: list[Fraction]) -> None:
    path = write_video(tmp_path / "a.mp4", 400, options={"g": "20"})
    assert numbers(read_frames(path, (1, 1.2), (20, 20.2), (35, 35.2))) == [10, 11, 200, 201, 350, 351]
    assert len(decoded) < 90


def test_unseekable_file_is_reopened_once(tmp_path: Path, decoded: list[Fraction]) -> None:
    path = write_video(tmp_path / "a.avi", 600, tick=Fraction(1, 10), codec="mpeg4")
    assert numbers(read_frames(path, *((start, start + 0.2) for start in range(0, 60, 10)))) == [
        number for start in range(0, 600, 100) for number in (start, start + 1)
    ]
    assert len(decoded) < 600


def test_file_without_key_frames_is_read_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidgru.video.display_frames._MIN_SEEK_S", 1)
    path = write_video(tmp_path / "a.ts", 200, options={"g": "1000", "sc_threshold": "0"})
    assert numbers(read_frames(path, (12, 12.3), (17, 17.2))) == [120, 121, 122, 170, 171]


@pytest.mark.parametrize("clockwise", [0, 90, 180, 270])
def test_display_frames_are_upright(tmp_path: Path, clockwise: int) -> None:
    path = write_video(tmp_path / "a.mp4", 5)
    rotate_mp4(path, clockwise)
    with DisplayFrameReader(path) as reader:
        assert reader.size_px == (SIZE if clockwise % 180 == 0 else SIZE[::-1])
        frame = list(reader.frames(reader.size_px))[3]
    expected = np.rot90(draw_counter(3, *SIZE), -clockwise // 90)
    assert frame.image.shape == expected.shape
    assert frame.image.flags.c_contiguous
    assert frame.image.flags.writeable
    assert np.abs(frame.image.astype(int) - expected).mean() < 8


@pytest.mark.parametrize(
    ("aspect", "clockwise", "size_px"),
    [("2/1", 0, (320, 96)), ("1/2", 0, (160, 192)), ("2/1", 90, (96, 320)), ("1000/1", 0, SIZE)],
)
def test_size_has_square_pixels(tmp_path: Path, aspect: str, clockwise: int, size_px: tuple[int, int]) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(draw_counter(1, *SIZE), format="rgb24")))
        container.mux(stream.encode(None))
    rotate_mp4(path, clockwise)
    with DisplayFrameReader(path) as reader:
        assert reader.size_px == size_px
        assert next(iter(reader.frames(reader.size_px))).image.shape == (*size_px[::-1], 3)


@pytest.mark.parametrize(("size_px", "matrix"), [((160, 96), "smpte170m"), ((1280, 720), "bt709")])
def test_unspecified_colours_follow_frame_size(tmp_path: Path, size_px: tuple[int, int], matrix: str) -> None:
    """Pure green has different luma in BT.601 and BT.709; if unspecified, the frame size decides."""
    luma = {"smpte170m": (145, 54, 34), "bt709": (173, 42, 26)}[matrix]
    frame = av.VideoFrame(*size_px, "yuv420p")
    for plane, value in zip(frame.planes, luma, strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size_px, "yuv420p"
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    image = read_frames(tmp_path / "a.mkv", size_px=size_px)[0].image
    assert np.abs(image.reshape(-1, 3).mean(0) - (0, 255, 0)).max() < 4


def test_damaged_file_gives_decodable_frames(tmp_path: Path) -> None:
    path = faststart(write_video(tmp_path / "a.mp4", 200, options={"g": "20"}))
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for position in rng.integers(len(data) // 3, len(data), 60):
        data[position] ^= 0xFF
    path.write_bytes(data[: len(data) * 9 // 10])
    frames = read_frames(path)
    times = [frame.time for frame in frames]
    assert 100 < len(frames) < 200
    assert times == sorted(set(times))
    assert all(frame.end > frame.time for frame in frames)


def test_missing_recording_raises(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be opened: No such file"):
        DisplayFrameReader(tmp_path / "a.mp4")
    with pytest.raises(RecordingError, match="is not a file"):
        AudioReader(tmp_path / "a.mp4")


def test_recording_changed_during_reading_raises(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 30)
    with DisplayFrameReader(path) as reader:
        frames = reader.frames(SIZE)
        next(frames)
        path.write_bytes(path.read_bytes() + b"more")
        with pytest.raises(RecordingChangedError, match="changed while it was read"):
            list(frames)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_audio_packets_start_at_time(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a.{suffix}", 200, audio_s=20, options={"g": "20"})
    with AudioReader(path) as audio:
        all_times = [time for time, _ in audio.packets()]
    with AudioReader(path) as audio:
        later = [time for time, _ in audio.packets(Fraction(12))]
    assert later[0] <= 12, "no packet from 12 s on is missing"
    assert later == all_times[-len(later) :]
    if suffix != "ts":
        assert later[0] > 5


def test_silent_recording_has_no_packets(tmp_path: Path) -> None:
    with AudioReader(write_video(tmp_path / "a.mp4", 3)) as audio:
        assert audio.stream is None
        assert list(audio.packets()) == []
