"""Damage of recordings: truncated files, broken packets, gaps."""

import struct
import subprocess
import sys
from pathlib import Path

import av
import pytest

from tests.videos import faststart, write_video
from vidgru.video.damage import Damage, count_missing_bytes, scan_packets
from vidgru.video.reader import VideoReader

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_damage.py"
FORMATS = {
    "mp4": "mov,mp4,m4a,3gp,3g2,mj2",
    "mkv": "matroska,webm",
    "webm": "matroska,webm",
    "avi": "avi",
    "ts": "mpegts",
}
CODECS = {"avi": "mpeg4", "webm": "libvpx"}


def video(folder: Path, suffix: str, frames: int = 40) -> Path:
    path = write_video(folder / f"a.{suffix}", frames, codec=CODECS.get(suffix, "libx264"), options={"g": "10"})
    return faststart(path) if suffix == "mp4" else path


def damage(path: Path) -> Damage:
    with VideoReader(path) as reader:
        for _ in reader.sample(5, (64, 64)):
            pass
    return reader.damage


@pytest.mark.parametrize("suffix", FORMATS)
def test_missing_bytes_are_counted_if_truncated(tmp_path: Path, suffix: str) -> None:
    path = video(tmp_path, suffix)
    data = path.read_bytes()
    assert count_missing_bytes(path, FORMATS[suffix]) == 0
    assert not damage(path).facts()
    for size in (len(data) - 7, len(data) * 3 // 4 // 188 * 188 + 5):
        path.write_bytes(data[:size])
        missing = count_missing_bytes(path, FORMATS[suffix])
        assert missing == (-size % 188 if suffix == "ts" else len(data) - size)
    assert damage(path).missing_bytes == missing


def test_missing_bytes_are_0_for_other_containers(tmp_path: Path) -> None:
    (tmp_path / "a.flv").write_bytes(b"FLV\x01" * 10)
    assert count_missing_bytes(tmp_path / "a.flv", "flv") == 0


def riff(length: int, content: int) -> bytes:
    return b"RIFF" + struct.pack("<I", length) + bytes(content)


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        (riff(10, 10) + riff(6, 6), 0),  # OpenDML: several chunks
        (riff(10, 10) + riff(60, 6), 54),
        (riff(11, 12), 0),
        (riff(11, 11), 0),  # padding byte omitted
        (riff(11, 10), 2),
        (riff(0, 50), 0),  # length never set
        (riff(0xFFFFFFFF, 50), 0),
        (riff(10, 10) + b"garbage after the end", 0),
        (b"", 0),
    ],
)
def test_riff_chunks_declare_end(tmp_path: Path, data: bytes, missing: int) -> None:
    (tmp_path / "a.avi").write_bytes(data)
    assert count_missing_bytes(tmp_path / "a.avi", "avi") == missing


def box(length: int, content: int, *, kind: bytes = b"mdat", long: int | None = None) -> bytes:
    return struct.pack(">I4s", length, kind) + (b"" if long is None else struct.pack(">Q", long)) + bytes(content)


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        (box(16, 8) + box(20, 12, kind=b"moov"), 0),
        (box(16, 8) + box(20, 5, kind=b"moov"), 7),
        (box(1, 10, long=26), 0),
        (box(1, 10, long=1 << 33), (1 << 33) - 26),
        (box(0, 10), 0),  # to the end of the file
        (box(16, 8) + box(0xF00000, 9, kind=b"\xff\xfe\x01\x80"), 0),  # not a box
        (box(16, 8) + bytes(5), 0),
    ],
)
def test_mp4_boxes_declare_end(tmp_path: Path, data: bytes, missing: int) -> None:
    (tmp_path / "a.mp4").write_bytes(data)
    assert count_missing_bytes(tmp_path / "a.mp4", FORMATS["mp4"]) == missing


@pytest.mark.parametrize(
    ("segment", "missing"),
    [
        (b"\x8a" + bytes(10), 0),
        (b"\x8a" + bytes(4), 6),
        (b"\x01" + (10).to_bytes(7, "big") + bytes(7), 3),
        (b"\xff" + bytes(4), 0),  # live: unknown length, in one byte or in eight
        (b"\x01" + b"\xff" * 7 + bytes(4), 0),
        (b"\x00" + bytes(10), 0),  # not a number
        (b"\x8a" + bytes(10) + b"tags of another program", 0),
    ],
)
def test_matroska_segment_declares_end(tmp_path: Path, segment: bytes, missing: int) -> None:
    head = b"\x1a\x45\xdf\xa3\x84" + bytes(4) + b"\x18\x53\x80\x67"
    (tmp_path / "a.mkv").write_bytes(head + segment)
    assert count_missing_bytes(tmp_path / "a.mkv", "matroska,webm") == missing


def test_live_matroska_is_complete(tmp_path: Path) -> None:
    path = video(tmp_path, "mkv")
    data = bytearray(path.read_bytes())
    length = data.index(b"\x18\x53\x80\x67") + 4
    assert data[length] == 1, "eight bytes"
    data[length + 1 : length + 8] = b"\xff" * 7
    path.write_bytes(data)
    assert count_missing_bytes(path, "matroska,webm") == 0
    assert not damage(path).facts()


@pytest.mark.parametrize(("length", "offset"), [(188, 0), (192, 4), (204, 0)])
def test_transport_stream_packets_are_counted(tmp_path: Path, length: int, offset: int) -> None:
    path = tmp_path / "a.ts"
    packet = bytes(offset) + b"\x47" + bytes(length - offset - 1)
    path.write_bytes(packet * 10)
    assert (count_missing_bytes(path, "mpegts"), scan_packets(path, "mpegts")[0]) == (0, 0)
    path.write_bytes((packet * 10)[:-7])
    assert (count_missing_bytes(path, "mpegts"), scan_packets(path, "mpegts")[0]) == (7, 0)
    path.write_bytes(packet * 6 + bytes(2 * length) + packet * 2)
    assert (count_missing_bytes(path, "mpegts"), scan_packets(path, "mpegts")[0]) == (0, 2)
    path.write_bytes(packet * 6 + bytes(2 * length))
    assert scan_packets(path, "mpegts")[0] == 0, "recorders fill their last block with zeros"
    path.write_bytes(b"\x00" + packet * 10)
    assert (count_missing_bytes(path, "mpegts"), scan_packets(path, "mpegts")[0]) == (0, 0)


def test_broken_packets_are_counted_across_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidgru.video.damage._TS_PACKETS_PER_READ", 3)
    good, bad = b"\x47" + bytes(187), bytes(188)
    (tmp_path / "a.ts").write_bytes(good * 5 + bad * 4 + good + bad + good + bad * 4)
    assert scan_packets(tmp_path / "a.ts", "mpegts")[0] == 5
    assert scan_packets(tmp_path / "a.ts", "avi")[0] == 0


def test_broken_transport_packet_is_reported(tmp_path: Path) -> None:
    path = video(tmp_path, "ts", frames=120)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 // 188 * 188] = 0
    path.write_bytes(data)
    assert damage(path).broken_packets == 1
    assert "1 broken transport stream packets" in str(damage(path))


def test_missing_head_is_a_gap(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 40, options={"g": "10", "bf": "0"})
    headless = tmp_path / "headless.mkv"
    with av.open(str(path)) as source, av.open(str(headless), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for packet in list(source.demux(stream))[3:-1]:
            packet.stream = copy
            target.mux(packet)
    result = damage(headless)
    assert result.gaps >= 1
    assert result.gap_s >= 0.6


def test_lost_matroska_block_is_a_gap(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 100, options={"g": "20"})
    with av.open(str(path)) as container:
        positions = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    data[positions[50] : positions[53]] = bytes(positions[53] - positions[50])
    path.write_bytes(data)
    result = damage(path)
    assert result.gaps >= 1
    assert result.gap_s >= 0.1


def test_packet_without_frame_is_a_gap(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.webm", 60, codec="libvpx", options={"deadline": "realtime", "cpu-used": "8"})
    with av.open(str(path)) as container:
        sizes = [(bytes(packet), packet.pts) for packet in container.demux(video=0) if packet.size]
    packet = next(content for content, pts in sizes if pts > 3000)
    data = bytearray(path.read_bytes())
    assert data.count(packet) == 1
    data[data.index(packet)] &= ~0x10  # show_frame (RFC 6386, 9.1)
    path.write_bytes(data)
    assert damage(path).gaps == 1


def test_packed_b_frames_are_no_gap(tmp_path: Path) -> None:
    """The packet timestamps of packed B-frames in AVI are out of order."""
    path = write_video(tmp_path / "a.avi", 60, codec="mpeg4", options={"bf": "2", "g": "12"})
    assert not damage(path).facts()


@pytest.mark.parametrize("frames", [1, 30])
@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
def test_audio_longer_than_video_is_no_damage(tmp_path: Path, suffix: str, frames: int) -> None:
    assert not damage(write_video(tmp_path / f"a.{suffix}", frames, audio_s=4.8)).facts()


def test_late_stream_does_not_end_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyAV raises IndexError when it flushes such a stream; no file reproduces this reliably."""
    path = video(tmp_path, "ts", frames=50)
    with VideoReader(path) as reader:
        expected = [frame.index for frame in reader.sample(5, (64, 64))]
    with VideoReader(path) as reader:
        demux, calls = reader._container.demux, []

        class LateStreamContainer:
            def __getattr__(self, name: str) -> object:
                return getattr(container, name)

            def demux(self, streams: object) -> object:
                calls.append(streams)
                yield from demux(streams)
                if len(calls) == 1:
                    raise IndexError("list index out of range")

        container = reader._container
        reader._frames.close()
        reader._container, reader._frames = LateStreamContainer(), reader._decode()
        reader._container.seek(0)
        reader._first = next(reader._frames)
        assert [frame.index for frame in reader.sample(5, (64, 64))] == expected
    assert len(calls) == 2
    assert not reader.damage.facts()


@pytest.mark.slow
def test_damage_check_finds_no_silent_loss() -> None:
    command = [sys.executable, str(SCRIPT), "--variants", "72", "--seed", "3"]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "\n0 problems" in completed.stdout
