"""Written videos: format, times, audio, and no incomplete files."""

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
from vidgru.video.display_frames import AudioReader, DisplayFrameReader
from vidgru.video.writer import VideoWriter, fit_video_size

SIZE = (160, 96)


def copy(source: Path, path: Path, start: float = 0.0, end: float | None = None) -> Path:
    """Write the source, or a part of it, as a video."""
    with DisplayFrameReader(source) as reader, AudioReader(source) as audio:
        size_px = fit_video_size(reader.size_px, min_px=1, max_px=4096)
        limits: dict[str, Any] = {"start": Fraction(str(start))} | ({"end": Fraction(str(end))} if end else {})
        interval = (limits["start"], limits.get("end", Fraction(10**6)))
        with VideoWriter(path, size_px=size_px, fps=reader.info.fps, audio=audio, **limits) as writer:
            for frame in reader.frames(size_px, [interval]):
                writer.write(frame.image, frame.time, frame.end)
    return path


def boxes(path: Path) -> list[bytes]:
    """Return the names of the outermost boxes of an mp4 file (ISO 14496-12, 4.2)."""
    data, position, names = path.read_bytes(), 0, []
    while position < len(data):
        names.append(data[position + 4 : position + 8])
        position += int.from_bytes(data[position : position + 4], "big")
    return names


def test_video_has_format_that_browsers_play(tmp_path: Path) -> None:
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
    assert boxes(path)[:2] == [b"ftyp", b"moov"], "players can start while they download"


def test_video_keeps_colours(tmp_path: Path) -> None:
    colours = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128)], np.uint8)
    image = np.repeat(np.repeat(colours[None], 96, 0), 32, 1)
    with VideoWriter(tmp_path / "o.mp4", size_px=(192, 96)) as writer:
        writer.write(image, Fraction(0), Fraction(1))
    with DisplayFrameReader(tmp_path / "o.mp4") as reader:
        image = next(iter(reader.frames((192, 96)))).image
    assert np.abs(image[48, 16::32].astype(int) - colours).max() < 12


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_video_keeps_uneven_times(tmp_path: Path, suffix: str) -> None:
    steps = np.random.default_rng(1).choice([7, 33, 40, 125, 700, 2000], 60)
    ticks = np.cumsum([0, *steps]).tolist()
    source = write_video(tmp_path / f"a.{suffix}", len(ticks), ticks=ticks)
    result = watch(copy(source, tmp_path / "o.mp4"))
    assert result.times == pytest.approx([tick / 1000 for tick in ticks], abs=1e-4)
    with DisplayFrameReader(source) as reader:
        *_, last = reader.frames(SIZE)
    assert result.duration_s == pytest.approx(float(last.end), abs=2e-3)


def test_video_keeps_television_rates(tmp_path: Path) -> None:
    frame = Fraction(1001, 30000)
    source = write_video(tmp_path / "a.mp4", 60, ticks=[1001 * i for i in range(60)], tick=frame / 1001)
    assert watch(copy(source, tmp_path / "o.mp4")).times == pytest.approx(
        [float(i * frame) for i in range(60)], abs=1e-5
    )


def test_absurd_frame_rate_is_accepted(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "o.mp4", size_px=SIZE, fps=90_000) as writer:
        for n in range(10):
            writer.write(draw_counter(n, *SIZE), Fraction(n, 10), Fraction(n + 1, 10))
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert container.streams.video[0].frames == 10


@pytest.mark.parametrize(
    ("suffix", "codec", "rate", "layout", "written_codec"),
    [
        ("mp4", "aac", 48000, "stereo", "aac"),
        pytest.param("ts", "aac", 44100, "mono", "aac", marks=pytest.mark.slow),
        pytest.param("flv", "aac", 44100, "stereo", "aac", marks=pytest.mark.slow),
        ("mkv", "libopus", 48000, "stereo", "opus"),
        pytest.param("mkv", "flac", 44100, "stereo", "flac", marks=pytest.mark.slow),
        pytest.param("mp4", "libmp3lame", 44100, "stereo", "mp3", marks=pytest.mark.slow),
        pytest.param("mkv", "libmp3lame", 16000, "mono", "mp3", marks=pytest.mark.slow),
        ("mkv", "libmp3lame", 11025, "mono", "aac"),
        pytest.param("mkv", "libmp3lame", 8000, "mono", "aac", marks=pytest.mark.slow),
        pytest.param("mkv", "pcm_s16le", 48000, "stereo", "aac", marks=pytest.mark.slow),
        ("mov", "pcm_alaw", 8000, "mono", "aac"),
        pytest.param("mkv", "ac3", 48000, "5.1", "aac", marks=pytest.mark.slow),
        pytest.param("mkv", "pcm_s16le", 6000, "mono", "aac", marks=pytest.mark.slow),
    ],
)
def test_audio_stays_in_sync(
    tmp_path: Path, suffix: str, codec: str, rate: int, layout: str, written_codec: str
) -> None:
    source = write_flash_and_beep(tmp_path / f"a.{suffix}", sound=codec, rate=rate, layout=layout)
    original = watch(source)
    assert original.heard is not None
    result = watch(copy(source, tmp_path / "o.mp4"))
    assert result.sound == written_codec
    assert result.heard is not None
    assert result.flash == pytest.approx(original.flash, abs=1e-3)
    assert result.heard == pytest.approx(original.heard, abs=0.015)
    assert result.heard == pytest.approx((result.flash, result.flash + FLASH_S), abs=0.03)


@pytest.mark.parametrize(("suffix", "codec", "rate"), [("mp4", "aac", 48000), ("mkv", "pcm_s16le", 16000)])
def test_cut_video_has_audio_in_sync(tmp_path: Path, suffix: str, codec: str, rate: int) -> None:
    source = write_flash_and_beep(tmp_path / f"a.{suffix}", 6.0, length_s=9, sound=codec, rate=rate)
    result = watch(copy(source, tmp_path / "o.mp4", 5.23, 7.41))
    assert result.flash == pytest.approx(0.77, abs=1e-3)
    assert result.heard == pytest.approx((0.77, 0.77 + FLASH_S), abs=0.02)
    assert result.duration_s == pytest.approx(2.18, abs=0.05)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_audio_stays_in_sync_over_gap(tmp_path: Path, codec: str) -> None:
    source = write_flash_and_beep(
        tmp_path / "a.mkv", 3.0, length_s=4, sound=codec, sound_from_s=0.5, silent=lambda second: 1 < second < 2.2
    )
    result = watch(copy(source, tmp_path / "o.mp4"))
    assert result.flash == pytest.approx(3.0, abs=1e-3)
    assert result.heard == pytest.approx((3.0, 3.0 + FLASH_S), abs=0.03)


def test_damaged_audio_becomes_silence(tmp_path: Path) -> None:
    source = write_flash_and_beep(tmp_path / "a.mkv", sound="ac3", layout="stereo")
    data = bytearray(source.read_bytes())
    for position in np.random.default_rng(0).integers(len(data) // 4, len(data) // 2, 40):
        data[position] ^= 0xFF
    source.write_bytes(data)
    result = watch(copy(source, tmp_path / "o.mp4"))
    assert result.sound == "aac"
    assert result.duration_s == pytest.approx(4.0, abs=0.1)


def test_damaged_packets_are_left_out_of_copied_audio(tmp_path: Path) -> None:
    source = write_flash_and_beep(tmp_path / "a.ts")
    intact = watch(copy(source, tmp_path / "intact.mp4"))
    data = bytearray(source.read_bytes())
    headers = [
        position for position in range(len(data) - 1) if data[position] == 0xFF and data[position + 1] in (0xF0, 0xF1)
    ]
    assert len(headers) > 10, "packets with an ADTS header"
    for position in headers[5:-5:7]:
        data[position + 1] = 0
    source.write_bytes(data)
    with av.open(str(copy(source, tmp_path / "o.mp4"))) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        assert [float(frame.pts * frame.time_base) for frame in container.decode(video=0)] == intact.times
        container.seek(0)
        heard = [float(packet.pts * packet.time_base) for packet in container.demux(audio=0) if packet.size]
    assert (min(heard) < 0.2, max(heard) > 3.8) == (True, True)


def test_silent_recording_gives_silent_video(tmp_path: Path) -> None:
    assert watch(copy(write_video(tmp_path / "a.mp4", 5), tmp_path / "o.mp4")).sound is None


@pytest.mark.parametrize(
    ("size_px", "min_px", "max_px", "expected"),
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
def test_fit_video_size_is_even_and_limited(
    size_px: tuple[int, int], min_px: int, max_px: int, expected: tuple[int, int]
) -> None:
    assert fit_video_size(size_px, min_px=min_px, max_px=max_px) == expected


# --- errors ----------------------------------------------------------------------------------------------------------


def test_interrupted_video_leaves_no_file(tmp_path: Path) -> None:
    target = tmp_path / "out" / "o.mp4"

    def interrupted() -> None:
        with VideoWriter(target, size_px=SIZE) as writer:
            writer.write(draw_counter(0, *SIZE), Fraction(0), Fraction(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(target.parent.iterdir()) == []


def test_existing_video_stays_until_new_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "o.mp4"
    target.write_bytes(b"old")
    with VideoWriter(target, size_px=SIZE) as writer:
        writer.write(draw_counter(0, *SIZE), Fraction(0), Fraction(1))
        assert target.read_bytes() == b"old"
    assert watch(target).times == [0]
    assert [path.name for path in tmp_path.iterdir()] == ["o.mp4"]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limit the size of files: writing fails in the middle, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.99])
def test_full_disk_raises_and_leaves_no_file(tmp_path: Path, share: float) -> None:
    """The disk is full at the start, during the frames, at the index, or when that moves to the front."""
    source = write_video(tmp_path / "a.mkv", 200, codec="ffv1")
    size = int(share * copy(source, tmp_path / "complete.mp4").stat().st_size)
    target = tmp_path / "out" / "o.mp4"
    with largest_file(size), pytest.raises(OutputError, match=r"cannot write .*o\.mp4: File too large"):
        copy(source, target)
    assert list(target.parent.iterdir()) == []


def test_rejected_audio_raises_recording_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A RecordingError does not end the run, because other recordings can still be written."""
    monkeypatch.setattr("vidgru.video.writer._MIN_MP3_HZ", 0)
    source = write_flash_and_beep(tmp_path / "a.mkv", sound="libmp3lame", rate=8000, layout="mono")
    with pytest.raises(RecordingError, match=r"cannot be encoded as H\.264 in MP4: Invalid argument"):
        copy(source, tmp_path / "out" / "o.mp4")
    assert list((tmp_path / "out").iterdir()) == []


def test_folder_that_is_a_file_raises(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write .*o.mp4: (Not a directory|File exists)"):
        VideoWriter(tmp_path / "out" / "o.mp4", size_px=SIZE)


def test_missing_h264_encoder_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidgru.video.writer.ENCODER", "libx264_that_is_not_there")
    with pytest.raises(MissingDependencyError, match=r"no H\.264 encoder") as caught:
        VideoWriter(tmp_path / "o.mp4", size_px=SIZE)
    assert "pip install" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []
