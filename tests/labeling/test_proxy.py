"""Which videos browsers play, and proxies of the others."""

import time
from pathlib import Path

import av
import numpy as np
import pytest

from tests.videos import read_counter, rotate_mp4, write_video
from vidgru.labeling.proxy import ProxyVideos, is_evenly_spaced, make_proxy, read_media_info
from vidgru.video.display_frames import DisplayFrameReader
from vidgru.video.frame_times import packet_times


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "is_playable"),
    [
        ("a.mp4", "libx264", "yuv420p", True),
        ("a.mov", "libx264", "yuv420p", True),
        ("a.mkv", "libx264", "yuv420p", False),
        ("a.mp4", "libx264", "yuv420p10le", False),
        ("a.mp4", "libx264", "yuv444p", False),
        ("a.mp4", "mpeg4", "yuv420p", False),
        ("a.avi", "mpeg4", "yuv420p", False),
        ("a.webm", "libvpx-vp9", "yuv420p", True),
        ("a.mp4", "libx265", "yuv420p", False),
    ],
)
def test_playable_videos(tmp_path: Path, name: str, codec: str, pix_fmt: str, is_playable: bool) -> None:
    path = write_video(tmp_path / name, frames=3, codec=codec, pix_fmt=pix_fmt)
    info = read_media_info(path)
    assert (info.is_playable, info.size_px) == (is_playable, (160, 96))


def test_media_info_opens_the_video_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", frames=3)
    opened, original = [], av.open
    monkeypatch.setattr(av, "open", lambda *args, **options: opened.append(args) or original(*args, **options))
    read_media_info(path)
    assert len(opened) == 1


def test_proxy_shows_the_same_frames_at_the_same_times(tmp_path: Path) -> None:
    ticks = np.cumsum([0, *[33, 40, 120, 41, 7] * 2])
    source = write_video(tmp_path / "a.mkv", frames=11, ticks=ticks.tolist(), codec="mpeg4", size_px=(1600, 150))
    target = tmp_path / "out" / "a.mp4"
    make_proxy(source, target, lambda share: None)
    info = read_media_info(target)
    assert (info.is_playable, info.size_px) == (True, (1280, 120))
    expected, actual = packet_times(source)[0], packet_times(target)[0]
    assert np.abs(expected - actual).max() < 1e-4
    with DisplayFrameReader(target) as reader:
        frames = [(frame.time, read_counter(frame.image)) for frame in reader.frames((320, 30))]
    assert [number for _, number in frames] == list(range(11))
    with av.open(str(target)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    head = target.read_bytes()[:64]
    assert b"moov" in head  # in front, so that playing starts before the whole file is there


def test_proxy_is_upright(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", frames=3)
    rotate_mp4(source, 90)
    make_proxy(source, tmp_path / "b.mp4", lambda share: None)
    assert read_media_info(source).size_px == read_media_info(tmp_path / "b.mp4").size_px == (96, 160)


def test_even_frames_need_no_list() -> None:
    assert is_evenly_spaced(np.arange(5) / 25, 25.0)
    assert not is_evenly_spaced(np.arange(5) / 25 + 0.02, 25.0)
    assert not is_evenly_spaced(np.arange(5) / 25, None)


def wait_until_done(proxies: ProxyVideos, source: Path) -> dict[str, object]:
    deadline = time.monotonic() + 60
    while proxies.status(source)["state"] in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return proxies.status(source)


@pytest.mark.slow
def test_proxies_are_made_once_and_failures_have_reasons(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.avi", codec="mpeg4", frames=20)
    broken = tmp_path / "b.avi"
    broken.write_bytes(b"broken")
    changes: list[None] = []
    proxies = ProxyVideos(tmp_path / "proxies", lambda: changes.append(None))
    assert proxies.status(source) == {"state": "none", "progress": 0.0, "reason": ""}
    proxies.start(source)
    proxies.start(broken)
    assert wait_until_done(proxies, source) == {"state": "ready", "progress": 1.0, "reason": ""}
    failed = wait_until_done(proxies, broken)
    assert failed["state"] == "failed"
    assert "is not a readable video" in str(failed["reason"])
    assert changes
    proxies.close()
    again = ProxyVideos(tmp_path / "proxies", lambda: None)
    assert again.find(source) is not None
    write_video(source, codec="mpeg4", frames=21)  # another video under the same name needs another proxy
    assert again.find(source) is None
    again.close()


@pytest.mark.slow
def test_closing_stops_a_proxy_and_leaves_no_file(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.avi", codec="mpeg4", frames=100, fps=25, size_px=(640, 360))
    proxies = ProxyVideos(tmp_path / "proxies", lambda: None)
    proxies.start(source)
    deadline = time.monotonic() + 60
    while not (tmp_path / "proxies").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    proxies.close()
    assert list((tmp_path / "proxies").iterdir()) == []
