"""Where recordings are still: by packets, by key frames, and recordings that do not tell."""

import tracemalloc
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.still_videos import FPS, WALK_S, draw_still, draw_walk, write_still
from tests.videos import write_video
from vidgru.types import Span
from vidgru.video import stillness
from vidgru.video.container import open_container
from vidgru.video.packets import AmbiguousPacketsError, PacketTable, read_packets
from vidgru.video.reader import VideoReader, probe
from vidgru.video.stillness import (
    CHECK_S,
    Gops,
    NotPlannableError,
    StillPlan,
    _Changes,
    find_motion,
    plan_span,
    plan_still,
    share_still,
)

SAMPLING_FPS = 5.0


def make_plan(path: Path, mask: np.ndarray | None = None) -> StillPlan:
    return plan_still(read_packets(path), path, probe(path), SAMPLING_FPS, lambda size_px: mask)


def dense_stretches(plan: StillPlan) -> list[tuple[float, float]]:
    """First and last time of each stretch that is decoded."""
    edges = np.flatnonzero(np.diff(plan.still, prepend=True, append=True))
    return [(plan.time_s[a], plan.time_s[b - 1]) for a, b in zip(edges[::2], edges[1::2], strict=True)]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_still(tmp_path_factory.mktemp("quiet") / "walk.mp4")


def test_plan_decodes_around_motion_only(walk: Path) -> None:
    plan = make_plan(walk)
    stretches = dense_stretches(plan)
    assert stretches[0][0] == 0.0  # the first sample is detected
    assert stretches[0][1] < 10  # the encoder settles
    assert stretches[-1][1] == plan.time_s[-1]  # nothing after the last key frame would show a change
    ((start_s, end_s),) = stretches[1:-1]
    assert WALK_S[0] - 4 <= start_s <= WALK_S[0] - 1
    assert WALK_S[1] + 3 <= end_s <= WALK_S[1] + 6
    assert plan.blind == 0


@pytest.mark.slow
def test_plan_of_a_transport_stream_with_b_frames(tmp_path: Path) -> None:
    """Seeks in it land after the key frame."""
    plan = make_plan(write_still(tmp_path / "a.ts", bf="3"))
    assert plan.still.mean() > 0.6


def test_plan_has_the_samples_of_decoding(walk: Path) -> None:
    plan = make_plan(walk)
    with VideoReader(walk) as reader:
        samples = [(sample.time_s, sample.index) for sample in reader.sample(SAMPLING_FPS, (32, 32))]
    assert list(zip(plan.time_s.tolist(), plan.frame_index.tolist(), strict=True)) == samples


def test_share_still_is_known_from_packets(walk: Path) -> None:
    share = share_still(read_packets(walk), probe(walk), SAMPLING_FPS)
    assert make_plan(walk).still.mean() <= share < 1


def draw_light(number: int, width: int, height: int) -> np.ndarray:
    """Draw light that becomes brighter by 12 levels in 60 s."""
    return draw_still(number, width, height) + np.uint8(number / FPS / 5)


def draw_creeping(number: int, width: int, height: int) -> np.ndarray:
    """Draw a shadow that creeps over an eighth of the scene in 60 s."""
    image = draw_still(number, width, height)
    image[:, : int(number / FPS / 60 * width / 8)] //= 2
    return image


@pytest.mark.slow
@pytest.mark.parametrize("draw", [draw_light, draw_creeping])
def test_slow_change_is_decoded(tmp_path: Path, draw: object) -> None:
    plan = make_plan(write_still(tmp_path / "a.mp4", 110, draw))  # type: ignore[arg-type]
    times = plan.time_s[~plan.still]
    assert np.diff(times).max() <= 2 * CHECK_S + 2
    assert plan.still.any()


@pytest.mark.slow
def test_noise_has_every_key_frame_checked(tmp_path: Path) -> None:
    def draw(number: int, width: int, height: int) -> np.ndarray:
        noise = draw_still(number, width, height, 6.0).astype(int) - draw_still(number, width, height)
        return np.clip(draw_walk(number, width, height) + noise, 0, 255).astype(np.uint8)

    plan = make_plan(write_still(tmp_path / "a.mp4", 80, draw))
    assert plan.blind == 1
    in_walk = (plan.time_s >= WALK_S[0]) & (plan.time_s < WALK_S[1])
    assert not plan.still[in_walk].any()
    assert plan.still[plan.time_s < 25].mean() > 0.5


@pytest.mark.slow
def test_motion_throughout_is_decoded_completely(tmp_path: Path) -> None:
    def draw(number: int, width: int, height: int) -> np.ndarray:
        return draw_walk(300 + number % 40, width, height)

    assert not make_plan(write_still(tmp_path / "a.mp4", 80, draw)).still.any()


@pytest.mark.slow
def test_masked_motion_is_ignored_in_pictures(tmp_path: Path) -> None:
    def draw(number: int, width: int, height: int) -> np.ndarray:
        image = draw_still(number, width, height, 6.0)  # packets do not show it
        image[24:40, :16] = 255 * (number // 20 % 2)
        return image

    path = write_still(tmp_path / "a.mp4", 80, draw)
    mask = np.zeros((64, 96), bool)
    mask[16:48, :24] = True
    assert make_plan(path, mask).still.mean() > 0.5
    assert make_plan(path).still.mean() < 0.1


@pytest.mark.parametrize(
    ("seconds", "codec", "options", "message"),
    [
        (70, "mjpeg", {}, "every frame is a key frame"),
        (70, "libx264", {"g": "1000"}, "key frames are too rare"),
        (20, "libx264", {}, "shorter than a minute"),
    ],
)
def test_recording_without_a_plan(
    tmp_path: Path, seconds: float, codec: str, options: dict[str, str], message: str
) -> None:
    path = tmp_path / "a.mkv"
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    all_options = {"preset": "ultrafast", "g": "20", **options} if codec == "libx264" else {}
    write_video(path, seconds, fps=1, size_px=(64, 64), codec=codec, pix_fmt=pix_fmt, options=all_options)
    with pytest.raises(NotPlannableError, match=message):
        make_plan(path)


def test_packets_without_timestamps_are_ambiguous(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.h264", 10)
    with pytest.raises(AmbiguousPacketsError, match="timestamps"):
        read_packets(path)


def make_packets(sizes: np.ndarray, fps: int = 25, group: int = 50) -> PacketTable:
    number = np.arange(len(sizes))
    return PacketTable(
        pts=number * (1000 // fps),
        size=sizes.astype(np.int32),
        is_key=number % group == 0,
        start=Fraction(0),
        tick=Fraction(1, 1000),
        end_s=len(sizes) / fps,
    )


def motion_of(packets: PacketTable, info: object) -> tuple[np.ndarray, np.ndarray]:
    return find_motion(packets, Gops(packets, SAMPLING_FPS), info)  # type: ignore[arg-type]


def test_packet_sizes_that_show_motion(walk: Path) -> None:
    info, rng = probe(walk), np.random.default_rng(0)
    sizes = 100 + rng.normal(0, 1, 25 * 120)
    sizes[25 * 60 : 25 * 62] += 15
    active, is_blind = motion_of(make_packets(sizes), info)
    assert np.flatnonzero(active).tolist() == [29, 30, 31, 32]  # from a second before to three seconds after
    assert not is_blind.any()


def test_packet_sizes_that_hide_motion(walk: Path) -> None:
    info, rng = probe(walk), np.random.default_rng(0)
    for sizes in (1000 + rng.normal(0, 200, 25 * 120), np.full(25 * 120, 1000)):
        _, is_blind = motion_of(make_packets(sizes), info)
        assert is_blind.all()
        # Key frames five seconds apart cannot replace packets.
        active, _ = motion_of(make_packets(sizes, group=125), info)
        assert active.all()


def test_uneven_frame_rate_hides_motion(walk: Path) -> None:
    packets = make_packets(np.full(25 * 120, 50.0))
    seconds = packets.pts // 1000
    kept = packets.is_key | (seconds % 3 > 0)  # every third second has hardly a frame
    uneven = PacketTable(
        **vars(packets) | {"pts": packets.pts[kept], "size": packets.size[kept], "is_key": packets.is_key[kept]}
    )
    assert motion_of(uneven, probe(walk))[1].all()


def test_pauses_without_frames(walk: Path) -> None:
    packets = make_packets(np.full(25 * 120, 50.0))
    later = PacketTable(**vars(packets) | {"pts": packets.pts + (packets.pts >= 60_000) * 1_200_000, "end_s": 1320.0})
    active, is_blind = motion_of(later, probe(walk))
    assert len(active) == len(is_blind) == 60
    far = PacketTable(**vars(packets) | {"pts": packets.pts + (packets.pts >= 60_000) * 10**14})
    with pytest.raises(NotPlannableError, match="more than a hundred days"):
        Gops(far, SAMPLING_FPS)


def test_memory_for_a_long_table_of_packets(walk: Path) -> None:
    packets, info = make_packets(np.full(25 * 3600, 50.0)), probe(walk)
    tracemalloc.start()
    try:
        gops = Gops(packets, SAMPLING_FPS)
        find_motion(packets, gops, info)
        assert tracemalloc.get_traced_memory()[1] < 5 * packets.pts.nbytes
    finally:
        tracemalloc.stop()


def test_times_are_exact() -> None:
    packets = replace(make_packets(np.full(25, 50.0)), start=Fraction(1, 3), tick=Fraction(1, 90_000))
    for stamps in (np.arange(0, 10**9, 99_999_937), np.arange(2**52, 2**52 + 20)):  # the product exceeds float64
        expected = [float(int(stamp) * packets.tick - packets.start) for stamp in stamps]
        assert packets.times(stamps).tolist() == expected


def test_threads_share_one_open_file(walk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, packets, info = make_plan(walk), read_packets(walk), probe(walk)
    opened: list[Path] = []
    monkeypatch.setattr(stillness, "open_container", lambda path: opened.append(path) or open_container(path))
    plan = plan_still(packets, walk, info, SAMPLING_FPS, lambda size_px: None, threads=4)
    assert opened == [walk]  # the index of a day in an MP4 file takes 75 MiB each time
    assert plan.still.tolist() == expected.still.tolist()


def test_changes_between_pictures() -> None:
    cells = np.full((20, 40), 100.0, np.float32)
    changes = _Changes()
    assert changes.compare(cells, cells + np.random.default_rng(0).normal(0, 0.5, cells.shape)) == "same"
    assert changes.compare(cells, cells + 3) == "drifted"  # all of it is a little brighter
    assert changes.compare(cells, cells + 10) == "changed"
    small = cells.copy()
    small[10, 10] += 9
    assert changes.compare(cells, small) == "changed"
    small[10, 10] = np.nan  # masked
    assert changes.compare(cells, small) == "same"


def test_changes_learn_a_clock_but_no_motion() -> None:
    rng = np.random.default_rng(0)
    changes = _Changes()
    cells = np.full((20, 40), 100.0, np.float32)
    for number in range(6):
        cells = cells.copy()
        cells[0, 30:38] = rng.integers(0, 255, 8)
        cells[10, 5:13] = rng.integers(0, 255, 8)
        changes.learn(number * CHECK_S, cells)
    clock, motion = cells.copy(), cells.copy()
    clock[0, 30:38] += 50
    motion[10, 5:13] += 50
    assert changes.compare(cells, clock) == "same"
    assert changes.compare(cells, motion) == "changed"


def test_changes_adapt_to_noise() -> None:
    rng = np.random.default_rng(0)
    changes = _Changes()
    pictures = [100 + rng.normal(0, 1.3, (20, 40)).astype(np.float32) for _ in range(40)]
    assert changes.compare(pictures[0], pictures[1]) == "changed"
    for number, picture in enumerate(pictures):
        changes.learn(number * CHECK_S, picture)
    assert changes.compare(pictures[0], pictures[1]) != "changed"


# --- spans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("span", "first", "stop", "key"),
    [((7, 13), 35, 65, 150), ((0, 4), 0, 20, 0), ((116, None), 580, 600, 2900), ((0, None), 0, 600, 0)],
)
def test_plan_of_a_span_has_its_samples(span: Span, first: int, stop: int, key: int) -> None:
    packets = make_packets(np.full(25 * 120, 50.0))
    plan = plan_span(packets, SAMPLING_FPS, span)
    samples = packets.sample_indices(SAMPLING_FPS)
    assert plan.frame_index.tolist() == samples[first:stop].tolist()
    assert plan.time_s.tolist() == packets.times(packets.stamps[samples[first:stop]]).tolist()
    assert plan.key_index[0] == key  # where decoding starts
    assert (plan.starts_late, plan.ends_early) == (first > 0, stop < 600)
    assert not plan.still.any()


def test_span_without_frames_has_no_plan() -> None:
    packets = make_packets(np.full(25 * 70, 50.0))
    with pytest.raises(NotPlannableError, match="it has no frames in that time"):
        plan_span(packets, SAMPLING_FPS, (80, 90))
    with pytest.raises(NotPlannableError, match="it has no frames in that time"):
        Gops(packets, SAMPLING_FPS).overlapping((80, 90))
    late_key = replace(packets, is_key=np.arange(len(packets.pts)) == 50)
    with pytest.raises(NotPlannableError, match="it does not start with a key frame"):
        plan_span(late_key, SAMPLING_FPS, (10, 20))


def test_still_plan_of_a_span(walk: Path) -> None:
    whole, packets, info = make_plan(walk), read_packets(walk), probe(walk)
    plan = plan_still(packets, walk, info, SAMPLING_FPS, lambda size_px: None, span=(23, 47))
    assert (plan.time_s[0], plan.time_s[-1]) == (22.0, 47.8)  # groups of pictures that overlap the span
    assert (plan.starts_late, plan.ends_early) == (True, True)
    assert plan.frame_index.tolist() == whole.frame_index[110:240].tolist()
    stretches, all_stretches = dense_stretches(plan), dense_stretches(whole)
    assert stretches[0] == (22.0, 22.0)  # the first sample is detected
    assert stretches[1] == all_stretches[1]  # the walk
