"""Films are what browsers play, frames and sound come at their times, and nothing half is left."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.prediction.flash_and_beep import FLASH_S, watch, write_flash_and_beep
from tests.videos import draw_counter, read_counter, write_video
from vidgru.errors import MissingDependencyError, OutputError, RecordingError
from vidgru.video import writer as film
from vidgru.video.display_frames import AudioReader, DisplayFrameReader
from vidgru.video.writer import VideoWriter, fit_video_size

SIZE = (160, 96)


def copy(source: Path, path: Path, start: float = 0.0, end: float | None = None) -> Path:
    """The source as a film, or a stretch of it."""
    with DisplayFrameReader(source) as reader, AudioReader(source) as sound:
        size_px = fit_video_size(reader.size_px, min_px=1, max_px=4096)
        limits: dict[str, Any] = {"start": Fraction(str(start))} | ({"end": Fraction(str(end))} if end else {})
        stretch = (limits["start"], limits.get("end", Fraction(10**6)))
        with VideoWriter(path, size_px=size_px, fps=reader.info.fps, audio=sound, **limits) as made:
            for picture in reader.frames(size_px, [stretch]):
                made.write(picture.image, picture.time, picture.end)
    return path


def boxes(path: Path) -> list[bytes]:
    """Names of the outermost boxes of an mp4 file (ISO 14496-12, 4.2)."""
    data, place, names = path.read_bytes(), 0, []
    while place < len(data):
        names.append(data[place + 4 : place + 8])
        place += int.from_bytes(data[place : place + 4], "big")
    return names


def test_it_is_what_browsers_play(tmp_path: Path) -> None:
    path = copy(write_video(tmp_path / "a.mkv", 20, size_px=(161, 97), codec="ffv1", pix_fmt="yuv444p"), tmp_path / "o")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.profile, context.pix_fmt) == ("h264", "High", "yuv420p")
        assert (context.width, context.height) == (160, 96)
        assert (context.color_range, context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1, 1)
        frames = list(container.decode(stream))
        assert {frame.rotation for frame in frames} == {0}
        assert [read_counter(frame.to_ndarray(format="rgb24")) for frame in frames] == list(range(20))
    assert boxes(path)[:2] == [b"ftyp", b"moov"], "a player that streams it can begin at once"


def test_colours_are_kept(tmp_path: Path) -> None:
    colours = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128)], np.uint8)
    image = np.repeat(np.repeat(colours[None], 96, 0), 32, 1)
    with VideoWriter(tmp_path / "o.mp4", size_px=(192, 96)) as made:
        made.write(image, Fraction(0), Fraction(1))
    with DisplayFrameReader(tmp_path / "o.mp4") as reader:
        found = next(iter(reader.frames((192, 96)))).image
    assert np.abs(found[48, 16::32].astype(int) - colours).max() < 12


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_frames_keep_their_times_also_where_they_are_uneven(tmp_path: Path, suffix: str) -> None:
    steps = np.random.default_rng(1).choice([7, 33, 40, 125, 700, 2000], 60)
    ticks = np.cumsum([0, *steps]).tolist()
    source = write_video(tmp_path / f"a.{suffix}", len(ticks), ticks=ticks)
    found = watch(copy(source, tmp_path / "o.mp4"))
    assert found.times == pytest.approx([tick / 1000 for tick in ticks], abs=1e-4)
    with DisplayFrameReader(source) as reader:
        *_, last = reader.frames(SIZE)
    assert found.duration_s == pytest.approx(float(last.end), abs=2e-3)


def test_television_rates_are_kept(tmp_path: Path) -> None:
    frame = Fraction(1001, 30000)
    source = write_video(tmp_path / "a.mp4", 60, ticks=[1001 * i for i in range(60)], tick=frame / 1001)
    assert watch(copy(source, tmp_path / "o.mp4")).times == pytest.approx(
        [float(i * frame) for i in range(60)], abs=1e-5
    )


def test_a_frame_rate_that_cannot_be_is_no_hindrance(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "o.mp4", size_px=SIZE, fps=90_000) as made:
        for n in range(10):
            made.write(draw_counter(n, *SIZE), Fraction(n, 10), Fraction(n + 1, 10))
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert container.streams.video[0].frames == 10


@pytest.mark.parametrize(
    ("suffix", "codec", "rate", "layout", "kept"),
    [
        ("mp4", "aac", 48000, "stereo", "aac"),
        ("ts", "aac", 44100, "mono", "aac"),
        ("flv", "aac", 44100, "stereo", "aac"),
        ("mkv", "libopus", 48000, "stereo", "opus"),
        ("mkv", "flac", 44100, "stereo", "flac"),
        ("mp4", "libmp3lame", 44100, "stereo", "mp3"),
        ("mkv", "libmp3lame", 16000, "mono", "mp3"),
        ("mkv", "libmp3lame", 11025, "mono", "aac"),
        ("mkv", "libmp3lame", 8000, "mono", "aac"),
        ("mkv", "pcm_s16le", 48000, "stereo", "aac"),
        ("mov", "pcm_alaw", 8000, "mono", "aac"),
        ("mkv", "ac3", 48000, "5.1", "aac"),
        ("mkv", "pcm_s16le", 6000, "mono", "aac"),
    ],
)
def test_sound_stays_with_the_picture(
    tmp_path: Path, suffix: str, codec: str, rate: int, layout: str, kept: str
) -> None:
    source = write_flash_and_beep(tmp_path / f"a.{suffix}", sound=codec, rate=rate, layout=layout)
    truth = watch(source)
    assert truth.heard is not None
    found = watch(copy(source, tmp_path / "o.mp4"))
    assert found.sound == kept
    assert found.heard is not None
    assert found.flash == pytest.approx(truth.flash, abs=1e-3)
    assert found.heard == pytest.approx(truth.heard, abs=0.015)
    assert found.heard == pytest.approx((found.flash, found.flash + FLASH_S), abs=0.03)


@pytest.mark.parametrize(("suffix", "codec", "rate"), [("mp4", "aac", 48000), ("mkv", "pcm_s16le", 16000)])
def test_a_stretch_has_its_own_sound_at_its_own_times(tmp_path: Path, suffix: str, codec: str, rate: int) -> None:
    source = write_flash_and_beep(tmp_path / f"a.{suffix}", 6.0, length_s=9, sound=codec, rate=rate)
    found = watch(copy(source, tmp_path / "o.mp4", 5.23, 7.41))
    assert found.flash == pytest.approx(0.77, abs=1e-3)
    assert found.heard == pytest.approx((0.77, 0.77 + FLASH_S), abs=0.02)
    assert found.duration_s == pytest.approx(2.18, abs=0.05)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_sound_stays_in_step_over_a_gap_and_a_late_start(tmp_path: Path, codec: str) -> None:
    source = write_flash_and_beep(
        tmp_path / "a.mkv", 3.0, length_s=4, sound=codec, sound_from_s=0.5, silent=lambda second: 1 < second < 2.2
    )
    found = watch(copy(source, tmp_path / "o.mp4"))
    assert found.flash == pytest.approx(3.0, abs=1e-3)
    assert found.heard == pytest.approx((3.0, 3.0 + FLASH_S), abs=0.03)


def test_damaged_sound_is_silence_and_no_end(tmp_path: Path) -> None:
    source = write_flash_and_beep(tmp_path / "a.mkv", sound="ac3", layout="stereo")
    data = bytearray(source.read_bytes())
    for place in np.random.default_rng(0).integers(len(data) // 4, len(data) // 2, 40):
        data[place] ^= 0xFF
    source.write_bytes(data)
    found = watch(copy(source, tmp_path / "o.mp4"))
    assert found.sound == "aac"
    assert found.duration_s == pytest.approx(4.0, abs=0.1)


def test_a_damaged_packet_is_left_out_of_copied_sound(tmp_path: Path) -> None:
    source = write_flash_and_beep(tmp_path / "a.ts")
    whole = watch(copy(source, tmp_path / "whole.mp4"))
    data = bytearray(source.read_bytes())
    headers = [place for place in range(len(data) - 1) if data[place] == 0xFF and data[place + 1] in (0xF0, 0xF1)]
    assert len(headers) > 10, "of packets with a header of their own (ADTS)"
    for place in headers[5:-5:7]:
        data[place + 1] = 0
    source.write_bytes(data)
    with av.open(str(copy(source, tmp_path / "o.mp4"))) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        assert [float(frame.pts * frame.time_base) for frame in container.decode(video=0)] == whole.times
        container.seek(0)
        heard = [float(packet.pts * packet.time_base) for packet in container.demux(audio=0) if packet.size]
    assert (min(heard) < 0.2, max(heard) > 3.8) == (True, True)


def test_a_silent_recording_gives_a_silent_film(tmp_path: Path) -> None:
    assert watch(copy(write_video(tmp_path / "a.mp4", 5), tmp_path / "o.mp4")).sound is None


@pytest.mark.parametrize(
    ("size_px", "least", "most", "made"),
    [
        ((1920, 1080), 640, 1920, (1920, 1080)),
        ((3840, 2160), 640, 1920, (1920, 1080)),
        ((320, 192), 640, 1920, (640, 384)),
        ((340, 256), 640, 1920, (680, 512)),
        ((1080, 1920), 640, 1920, (1080, 1920)),
        ((161, 97), 1, 4096, (160, 96)),
        ((1, 5000), 1, 4096, (2, 4096)),
        ((16, 16), 640, 1920, (640, 640)),
    ],
)
def test_sizes_are_even_and_within_limits(
    size_px: tuple[int, int], least: int, most: int, made: tuple[int, int]
) -> None:
    assert fit_video_size(size_px, min_px=least, max_px=most) == made


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_an_interrupted_film_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out" / "o.mp4"

    def interrupted() -> None:
        with VideoWriter(target, size_px=SIZE) as made:
            made.write(draw_counter(0, *SIZE), Fraction(0), Fraction(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(target.parent.iterdir()) == []


def test_a_film_that_was_there_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "o.mp4"
    target.write_bytes(b"old")
    with VideoWriter(target, size_px=SIZE) as made:
        made.write(draw_counter(0, *SIZE), Fraction(0), Fraction(1))
        assert target.read_bytes() == b"old"
    assert watch(target).times == [0]
    assert [path.name for path in tmp_path.iterdir()] == ["o.mp4"]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files cannot grow beyond a size: writing fails in the middle, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.99])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, share: float) -> None:
    """Full at the beginning, amidst the frames, at the index, and when that is put in front."""
    source = write_video(tmp_path / "a.mkv", 200, codec="ffv1")
    size = int(share * copy(source, tmp_path / "whole.mp4").stat().st_size)
    target = tmp_path / "out" / "o.mp4"
    with largest_file(size), pytest.raises(OutputError, match=r"cannot write .*o\.mp4: File too large"):
        copy(source, target)
    assert list(target.parent.iterdir()) == []


def test_sound_that_mp4_does_not_take_is_told_of_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on after a RecordingError; the disk is all right."""
    monkeypatch.setattr(film, "_MIN_MP3_HZ", 0)
    source = write_flash_and_beep(tmp_path / "a.mkv", sound="libmp3lame", rate=8000, layout="mono")
    with pytest.raises(RecordingError, match=r"cannot be encoded as H\.264 in MP4: Invalid argument"):
        copy(source, tmp_path / "out" / "o.mp4")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write .*o.mp4: (Not a directory|File exists)"):
        VideoWriter(tmp_path / "out" / "o.mp4", size_px=SIZE)


def test_a_build_without_h264_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film, "ENCODER", "libx264_that_is_not_there")
    with pytest.raises(MissingDependencyError, match=r"no H\.264 encoder") as caught:
        VideoWriter(tmp_path / "o.mp4", size_px=SIZE)
    assert "pip install" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []
