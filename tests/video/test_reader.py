"""Sampling, times, orientation and damage, of videos whose frames show their own numbers."""

import os
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from tests.videos import draw_counter, faststart, read_counter, rotate_mp4, write_video
from vidgru.errors import RecordingChangedError, RecordingError
from vidgru.video.damage import Damage
from vidgru.video.frame_times import packet_times
from vidgru.video.keyframe_split import find_split_points
from vidgru.video.packets import read_packets
from vidgru.video.reader import ResumePoint, SampledFrame, VideoReader, probe

SIZE = (160, 96)


def sampled(path: Path, fps: float, size_px: tuple[int, int] = SIZE) -> tuple[list[SampledFrame], VideoReader]:
    with VideoReader(path) as reader:
        return list(reader.sample(fps, size_px)), reader


def frame_facts(frame: SampledFrame) -> tuple[float, int, int, bytes, ResumePoint | None]:
    return frame.time_s, frame.index, frame.number, frame.image.tobytes(), frame.resume_point


def sample_by_definition(times: list[Fraction], fps: Fraction, tick: Fraction) -> list[int]:
    """Return the sampled frames by the definition of the sampling rule, grid point by grid point."""
    taken: list[int] = []
    for k in range(int(times[-1] * fps) + 2):
        after = [i for i, time in enumerate(times) if time >= Fraction(k) / fps - tick / 2]
        if after and after[0] not in taken:
            taken.append(after[0])
    return taken


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "mov", "flv", "webm"])
def test_frame_times_are_exact_in_every_container(tmp_path: Path, suffix: str) -> None:
    tick = Fraction(1, 10) if suffix == "avi" else Fraction(1, 1000)
    codec = {"avi": "mpeg4", "webm": "libvpx"}.get(suffix, "libx264")
    frames, reader = sampled(write_video(tmp_path / f"a.{suffix}", tick=tick, codec=codec), 10)
    assert [read_counter(frame.image) for frame in frames] == list(range(30))
    assert [frame.index for frame in frames] == list(range(30))
    assert [frame.time_s for frame in frames] == pytest.approx([i / 10 for i in range(30)], abs=1e-9)
    assert not reader.damage.facts()
    assert reader.end_s == pytest.approx(3.0)


@pytest.mark.parametrize("fps", [1, 3, 7.5, 8, 10, 25, 240])
def test_sampling_of_even_frame_rate(tmp_path: Path, fps: float) -> None:
    frames, _ = sampled(write_video(tmp_path / "a.mp4", 40, fps=10), fps)
    expected = sample_by_definition([Fraction(i, 10) for i in range(40)], Fraction(str(fps)), Fraction(1, 1000))
    assert [read_counter(frame.image) for frame in frames] == expected


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize(("numerator", "fps"), [(24000, 8), (24000, 24), (30000, 8), (30000, 10), (60000, 7.5)])
def test_sampling_of_television_rates(tmp_path: Path, suffix: str, numerator: int, fps: float) -> None:
    """Containers round the timestamps of 23.976, 29.97 and 59.94 frames per second to ticks of their own."""
    frame = Fraction(1001, numerator)
    if suffix == "avi":
        path = write_video(tmp_path / "a.avi", 90, ticks=range(90), tick=frame, codec="mpeg4")
    else:
        path = write_video(tmp_path / f"a.{suffix}", 90, ticks=[1001 * i for i in range(90)], tick=frame / 1001)
    frames, reader = sampled(path, fps)
    with av.open(str(path)) as container:
        tick = Fraction(str(container.streams.video[0].time_base))
    times = [round(i * frame / tick) * tick for i in range(90)]
    assert [read_counter(frame.image) for frame in frames] == sample_by_definition(times, Fraction(str(fps)), tick)
    assert all(abs(sample.time_s - float(sample.index * frame)) <= float(tick) for sample in frames)
    assert not reader.damage.facts()


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("fps", [2, 8, 30])
def test_sampling_of_variable_rate_and_pauses(tmp_path: Path, suffix: str, fps: int) -> None:
    rng = np.random.default_rng(fps)
    ticks = np.cumsum([0, *rng.choice([10, 33, 40, 125, 700, 5000], 40)]).tolist()
    path = write_video(tmp_path / f"a.{suffix}", len(ticks), ticks=ticks)
    frames, reader = sampled(path, fps)
    times = [Fraction(t, 1000) for t in ticks]
    with av.open(str(path)) as container:  # muxers choose a finer tick than requested
        tick = Fraction(str(container.streams.video[0].time_base))
    expected = sample_by_definition(times, Fraction(fps), tick)
    assert [read_counter(frame.image) for frame in frames] == expected
    assert [frame.time_s for frame in frames] == pytest.approx([float(times[i]) for i in expected], abs=1e-9)
    assert not reader.damage.facts(), "pauses are not damage"


def test_sampling_accepts_frame_half_tick_early(tmp_path: Path) -> None:
    """At 3 fps in milliseconds, frame 1 is at 0.333 s: before 1/3 s, but by less than half a tick."""
    ticks = [0, 333, 667, 1000]
    frames, _ = sampled(write_video(tmp_path / "a.mkv", 4, ticks=ticks), 3)
    assert [frame.index for frame in frames] == [0, 1, 2, 3]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_times_count_from_earliest_stream(tmp_path: Path, suffix: str) -> None:
    """Audio starts at 0 and the video half a second later, so its first frame is at 0.5 s."""
    path = write_video(tmp_path / f"late.{suffix}", 20, ticks=[500 + 100 * i for i in range(20)], audio_s=3)
    frames, reader = sampled(path, 10)
    assert [frame.time_s for frame in frames] == pytest.approx([0.5 + i / 10 for i in range(20)], abs=1e-9)
    assert [read_counter(frame.image) for frame in frames] == list(range(20))
    assert not reader.damage.facts(), "audio longer than the video is not damage"


def test_times_start_at_zero_despite_late_pts(tmp_path: Path) -> None:
    path = write_video(tmp_path / "late.ts", 20, ticks=[77_000 + 100 * i for i in range(20)])
    frames, reader = sampled(path, 5)
    assert [frame.time_s for frame in frames] == pytest.approx([i / 5 for i in range(10)], abs=1e-9)
    assert reader.info.duration_s == pytest.approx(2.0, abs=0.15)


def test_untimed_stream_uses_frame_rate(tmp_path: Path) -> None:
    frames, reader = sampled(write_video(tmp_path / "raw.h264", options={"bf": "0"}), 25)
    assert [read_counter(frame.image) for frame in frames] == list(range(30))
    assert [frame.time_s for frame in frames] == pytest.approx([i / 25 for i in range(30)])
    assert reader.info.duration_s is None
    assert not reader.damage.facts()


@pytest.mark.parametrize("clockwise", [0, 90, 180, 270])
def test_sampled_frames_are_upright(tmp_path: Path, clockwise: int) -> None:
    path = write_video(tmp_path / "a.mp4", 5)
    rotate_mp4(path, clockwise)
    info = probe(path)
    assert info.rotation == clockwise
    assert info.size_px == (SIZE if clockwise % 180 == 0 else SIZE[::-1])
    frames, _ = sampled(path, 10, info.size_px)
    expected = np.rot90(draw_counter(3, *SIZE), -clockwise // 90)
    assert frames[3].image.shape == expected.shape
    assert np.abs(frames[3].image.astype(int) - expected).mean() < 8


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "size_px"),
    [
        ("ffv1", "yuv444p", (161, 97)),
        ("ffv1", "gray", SIZE),
        ("ffv1", "yuv420p10le", SIZE),
        ("ffv1", "gray16le", (33, 47)),
        ("mjpeg", "yuvj420p", SIZE),
        ("libvpx-vp9", "yuv420p", (150, 90)),
    ],
)
def test_unusual_sizes_and_pixel_formats(tmp_path: Path, codec: str, pix_fmt: str, size_px: tuple[int, int]) -> None:
    path = write_video(tmp_path / "a.mkv", 12, codec=codec, pix_fmt=pix_fmt, size_px=size_px)
    frames, reader = sampled(path, 10, (120, 72))
    assert reader.info.size_px == size_px
    assert [read_counter(frame.image) for frame in frames] == list(range(12))
    assert all(frame.image.shape == (72, 120, 3) and frame.image.dtype == np.uint8 for frame in frames)


def test_limited_range_becomes_full_range(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 2, codec="ffv1", draw=lambda n, w, h: np.full((h, w, 3), 255 * n, np.uint8))
    frames, _ = sampled(path, 10)
    assert frames[0].image.max() <= 1
    assert frames[1].image.min() >= 250


def test_probe_reads_container_properties(tmp_path: Path) -> None:
    info = probe(write_video(tmp_path / "a.mp4", metadata={"creation_time": "2024-05-06T07:08:09.000000Z"}))
    assert (info.size_px, info.rotation, info.fps, info.frames, info.codec) == (SIZE, 0, 10.0, 30, "h264")
    assert info.duration_s == pytest.approx(3.0)
    assert info.recorded_at == "2024-05-06T07:08:09+00:00"


def test_probe_ignores_unset_creation_time(tmp_path: Path) -> None:
    assert (
        probe(write_video(tmp_path / "a.mp4", metadata={"creation_time": "1970-01-01T00:00:00Z"})).recorded_at is None
    )
    assert probe(write_video(tmp_path / "b.mp4")).recorded_at is None


# --- unreadable files -------------------------------------------------------------------------------------------------


def test_text_file_raises(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("This is not a video.\n" * 100)
    with pytest.raises(RecordingError, match="is not a readable video: Invalid data"):
        VideoReader(tmp_path / "a.mp4")


def test_empty_missing_and_folder_raise(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(RecordingError, match=r"is empty \(0 bytes\)"):
        VideoReader(tmp_path / "empty.mp4")
    with pytest.raises(RecordingError, match="cannot be opened: No such file"):
        VideoReader(tmp_path / "missing.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(RecordingError, match="is not a file"):
        VideoReader(tmp_path / "folder.mp4")


def test_audio_without_video_raises(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(RecordingError, match="has no video stream, only audio"):
        VideoReader(tmp_path / "a.mp4")


def test_undecodable_video_raises(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 3, codec="mjpeg", pix_fmt="yuvj420p", tick=Fraction(1, 10))
    data = bytearray(path.read_bytes())
    start = data.index(b"movi")
    for position in range(start, data.index(b"idx1")):
        if data[position : position + 4] == b"00dc":
            length = int.from_bytes(data[position + 4 : position + 8], "little")
            data[position + 8 : position + 8 + length] = bytes(length)
    path.write_bytes(data)
    with pytest.raises(RecordingError, match=r"has no frame that can be decoded \(\d+ packets failed\)"):
        VideoReader(path)


def test_oversized_frames_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidgru.video.container.MAX_SIDE_PX", 100)
    with pytest.raises(RecordingError, match="frames that are too large: 160x96"):
        VideoReader(write_video(tmp_path / "a.mp4", 2))


def test_mp4_without_index_raises(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # an mp4 has its index at the end
    with pytest.raises(RecordingError, match="is not a readable video"):
        VideoReader(path)


def test_file_changed_during_reading_raises(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    with VideoReader(path) as reader:
        samples = reader.sample(10, SIZE)
        next(samples)
        os.utime(path, ns=(1, 1))
        with pytest.raises(RecordingChangedError, match="changed while it was read"):
            list(samples)


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "flv"])
def test_damage_counts_missing_tail(tmp_path: Path, suffix: str) -> None:
    tick = Fraction(1, 10) if suffix == "avi" else Fraction(1, 1000)
    path = write_video(tmp_path / f"a.{suffix}", 100, tick=tick)
    path = faststart(path) if suffix == "mp4" else path
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    frames, reader = sampled(path, 10)
    assert 30 < len(frames) < 90
    assert [read_counter(frame.image) for frame in frames[:30]] == [frame.index for frame in frames[:30]]
    assert reader.damage.missing_tail_s > 1
    assert "s missing" in str(reader.damage)


def test_damage_of_flipped_bits_is_reproducible(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 100, options={"g": "20"})
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat")
    for position in np.random.default_rng(1).integers(start + 100, len(data) - 4000, 12):
        data[position] ^= 0xFF
    path.write_bytes(data)
    runs = [sampled(path, 10) for _ in range(3)]
    assert runs[0][1].damage.corrupt_frames > 0
    assert len(runs[0][0]) > 80
    for frames, reader in runs[1:]:
        assert reader.damage == runs[0][1].damage
        assert all(np.array_equal(a.image, b.image) for a, b in zip(frames, runs[0][0], strict=True))


def test_damage_counts_gap_next_to_errors(tmp_path: Path) -> None:
    """Packets 30 to 59 are overwritten, so three seconds cannot be decoded."""
    path = write_video(tmp_path / "a.mkv", 90, codec="mjpeg", pix_fmt="yuvj420p")
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for packet in packets[30:60]:
        start = data.index(bytes(packet)[:200])
        data[start : start + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    frames, reader = sampled(path, 10)
    assert [read_counter(frame.image) for frame in frames] == [*range(30), *range(60, 90)]
    assert reader.damage.gaps == 1
    assert reader.damage.gap_s == pytest.approx(3.0)
    assert reader.damage.decode_errors == 30


def test_hevc_with_b_frames_resumes_at_key_frames(tmp_path: Path) -> None:
    """Before an IDR picture, FFmpeg gives two frames the same DTS, which is no damage."""
    options = {"x265-params": "keyint=25:min-keyint=25:open-gop=0:log-level=none"}
    path = write_video(tmp_path / "a.mp4", 100, fps=25, codec="libx265", options=options)
    with VideoReader(path) as reader:
        frames = list(reader.sample(5, SIZE, resume_point_every=1))
    points = [frame.resume_point for frame in frames]
    assert [point.key_index for point in points if point] == [0] * 5 + [25] * 5 + [50] * 5 + [75] * 5
    assert all(point and point.key_pts is not None for point in points)
    with VideoReader(path) as reader:
        resumed = list(reader.sample(5, SIZE, resume_from=points[12]))
    assert [(frame.number, frame.index, frame.time_s) for frame in resumed] == [
        (frame.number, frame.index, frame.time_s) for frame in frames[12:]
    ]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(resumed, frames[12:], strict=True))


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"bf": "3", "g": "25"}),
        ("libx264", {"bf": "3", "g": "25", "x264-params": "open-gop=1"}),
        ("libx264", {"bf": "3", "g": "25", "x264-params": "tff=1"}),  # interlaced: everything is decoded
        ("libx265", {"x265-params": "keyint=25:bframes=4:log-level=none"}),
        ("libx265", {"x265-params": "keyint=25:bframes=4:temporal-layers=3:log-level=none"}),
    ],
)
@pytest.mark.parametrize("fps", [3, 5])
def test_skipping_frames_that_no_sample_needs_gives_equal_samples(
    tmp_path: Path, codec: str, options: dict[str, str], fps: int
) -> None:
    path = write_video(tmp_path / "a.mp4", 98, fps=25, codec=codec, options=options)
    packets = read_packets(path)
    needed = packets.stamps[packets.sample_indices(fps)].tolist()
    with VideoReader(path) as full, VideoReader(path) as skipping:
        frames = list(full.sample(fps, SIZE, resume_point_every=1))
        assert [frame_facts(frame) for frame in skipping.sample(fps, SIZE, resume_point_every=1, needed=needed)] == [
            frame_facts(frame) for frame in frames
        ]
        assert skipping.end_s == full.end_s
        assert skipping.damage == full.damage == Damage()
        point = frames[6].resume_point
        resumed = skipping.sample(fps, SIZE, resume_from=point, resume_point_every=1, needed=needed[6:])
        assert [frame_facts(frame) for frame in resumed] == [frame_facts(frame) for frame in frames[6:]]


@pytest.mark.parametrize(("codec", "options"), [("libx264", {"bf": "2"}), ("libx265", {"x265-params": "bframes=2"})])
def test_damage_in_skipped_frames_is_not_seen(tmp_path: Path, codec: str, options: dict[str, str]) -> None:
    """Which shows that they are not decoded; a damaged frame that others refer to is seen."""
    path = write_video(tmp_path / "a.mp4", 50, fps=25, codec=codec, options=options)
    packets = read_packets(path)
    needed = packets.stamps[packets.sample_indices(5)].tolist()
    data = path.read_bytes()
    with av.open(str(path)) as container:
        others = [p for p in container.demux(video=0) if p.size and p.pts not in needed]
    seen: list[tuple[bool, bool]] = []
    for packet in others:
        assert packet.pos is not None
        damaged = bytearray(data)
        damaged[packet.pos + 8 : packet.pos + packet.size] = bytes(packet.size - 8)
        path.write_bytes(damaged)
        with VideoReader(path) as full, VideoReader(path) as skipping:
            assert len(list(full.sample(5, SIZE))) == len(list(skipping.sample(5, SIZE, needed=needed)))
            seen.append((bool(full.damage.facts()), bool(skipping.damage.facts())))
    assert set(seen) >= {(True, True), (True, False)}
    assert (False, True) not in seen


def test_damage_counts_backward_times(tmp_path: Path) -> None:
    """One frame has the timestamps of the first."""
    path = write_video(tmp_path / "a.ts", 40, options={"bf": "0"})
    data = bytearray(path.read_bytes())
    starts = [match.start() + 9 for match in re.finditer(rb"\x00\x00\x01\xe0", data)]  # ISO/IEC 13818-1, 2.4.3.6
    data[starts[25] : starts[25] + 5] = data[starts[0] : starts[0] + 5]
    path.write_bytes(data)
    frames, reader = sampled(path, 10)
    assert [read_counter(frame.image) for frame in frames] == [*range(25), *range(26, 40)]
    assert reader.damage.backward_frames == 1


@pytest.mark.parametrize("second_start", [0, 3000, 20_000])
def test_joined_transport_streams_are_read_on(tmp_path: Path, second_start: int) -> None:
    """The clock starts again, or jumps ahead; no frame is lost and nothing is damaged."""
    first = write_video(tmp_path / "a.ts", 30, audio_s=3)
    second = write_video(tmp_path / "b.ts", 25, ticks=[second_start + 100 * i for i in range(25)])
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes() + first.read_bytes())
    frames, reader = sampled(path, 10)
    assert [read_counter(frame.image) for frame in frames] == [*range(30), *range(25), *range(30)]
    assert not reader.damage.facts()
    times = [frame.time_s for frame in frames]
    assert np.diff(times).min() > 0.05
    assert np.allclose(packet_times(path)[0], times, atol=0.11)
    assert find_split_points(path, 10, 5) == []


@pytest.mark.parametrize("lost", [1, 2])
def test_lost_transport_packets_are_damage(tmp_path: Path, lost: int) -> None:
    path = write_video(tmp_path / "a.ts", 40, options={"g": "10"})
    data = path.read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    starts = [n for n, packet in enumerate(packets) if packet[1] & 0x40 and b"\x00\x00\x01\xe0" in packet]
    for start in starts[20 - lost : 20]:  # before a key frame, where a join could be
        packets[start] = b""
    path.write_bytes(b"".join(packets))
    assert sampled(path, 10)[1].damage.facts()


# --- choice of the stream -------------------------------------------------------------------------------------------


def write_streams(path: Path, *streams: tuple[str, int, int], default: int | None = None) -> Path:
    """Write a container with several video streams, each with codec, width and number of frames."""
    with av.open(str(path), "w") as container:
        added = []
        for codec, width, _ in streams:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height = width, width // 2
            stream.pix_fmt = {"png": "rgb24", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
            added.append(stream)
        for number, stream in enumerate(added):
            if default is not None:
                stream.disposition = Disposition.default if number == default else Disposition(0)
        packets = []
        for stream, (_, width, frames) in zip(added, streams, strict=True):
            for index in range(frames):
                frame = av.VideoFrame.from_ndarray(draw_counter(index, width, width // 2), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 10)
                packets += stream.encode(frame.reformat(format=stream.pix_fmt))
            packets += stream.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


@pytest.mark.parametrize(
    ("name", "streams", "default", "width", "others"),
    [
        ("a.mp4", [("png", 320, 1), ("libx264", 160, 20)], None, 160, ()),
        ("a.mkv", [("mjpeg", 320, 1), ("libx264", 160, 20)], None, 160, ()),
        ("a.mkv", [("libx264", 320, 1), ("libx264", 160, 20)], None, 160, ()),
        ("a.mkv", [("mjpeg", 320, 20), ("libx264", 160, 20)], None, 320, ("160x80 h264",)),
        ("a.mkv", [("libx264", 320, 20), ("libx264", 160, 20)], 1, 160, ("320x160 h264",)),
        ("a.mp4", [("libx264", 320, 20), ("libx264", 160, 20)], None, 320, ("160x80 h264",)),
        ("a.mkv", [("mjpeg", 320, 1)], None, 320, ()),
    ],
)
def test_moving_default_stream_is_read(
    tmp_path: Path,
    name: str,
    streams: list[tuple[str, int, int]],
    default: int | None,
    width: int,
    others: tuple[str, ...],
) -> None:
    info = probe(write_streams(tmp_path / name, *streams, default=default))
    assert (info.size_px[0], info.others) == (width, others)


def test_damage_str_lists_nonzero_counts() -> None:
    assert str(Damage()) == ""
    damage = Damage(corrupt_frames=3, gap_s=1.23456, gaps=1)
    assert damage.facts() == {"corrupt_frames": 3, "gaps": 1, "gap_s": 1.235}
    assert str(damage) == "3 corrupt frames, 1 gaps, 1.235 s in gaps"


def test_file_name_with_colons_is_not_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "2024-01-01T12:30:00.mp4", 5)
    monkeypatch.chdir(tmp_path)
    assert probe(Path("2024-01-01T12:30:00.mp4")).frames == 5
