"""Shards: every recording is in exactly one, loads are balanced, and the order does not matter."""

import random
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.videos import write_video
from vidgru.cache import SequenceCache
from vidgru.extraction.sharding import (
    SLACK,
    ShardItem,
    assign,
    content_identity,
    select_shard,
    shard_recordings,
    summary_name,
)
from vidgru.types import Recording


def make_items(number: int, *, seed: int = 0, shortest: float = 10.0, longest: float = 600.0) -> list[ShardItem]:
    rng = random.Random(seed)
    return [ShardItem(f"{rng.getrandbits(128):032x}", rng.uniform(shortest, longest)) for _ in range(number)]


def loads(items: Iterable[ShardItem], shards: dict[str, int], count: int) -> list[float]:
    totals = [0.0] * count
    for identity, seconds in items:
        totals[shards[identity]] += seconds
    return totals


@pytest.mark.parametrize("count", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("number", [0, 1, 7, 500])
def test_assign_bounds_the_load_of_shards(number: int, count: int) -> None:
    items = make_items(number)
    shards = assign(items, count)
    assert shards.keys() == {item.identity for item in items}
    assert set(shards.values()) <= set(range(count))
    totals = loads(items, shards, count)
    mean = sum(totals) / count
    longest = max((item.seconds for item in items), default=0.0)
    assert max(totals) <= max((1 + SLACK) * mean, mean + longest) + 1e-6
    if number == 500 and count <= 8:
        assert max(totals) <= (1 + SLACK) * mean + 1e-6


def test_assign_is_independent_of_order() -> None:
    items = make_items(200)
    mixed = items[:]
    random.Random(1).shuffle(mixed)
    assert assign(mixed, 6) == assign(items, 6)


def test_assign_balances_equal_lengths() -> None:
    items = [ShardItem(item.identity, 3600.0) for item in make_items(800)]
    totals = loads(items, assign(items, 8), 8)
    assert max(totals) <= (1 + SLACK) * 100 * 3600


def test_assign_moves_few_when_items_or_shards_are_added() -> None:
    items = make_items(1000)
    before = assign(items, 8)
    for number in range(5):
        after = assign([*items, *make_items(1, seed=100 + number)], 8)
        assert sum(after[identity] != shard for identity, shard in before.items()) < 30
    wider = assign(items, 9)
    assert sum(wider[identity] != shard for identity, shard in before.items()) < 250  # 1000/9 have to


def test_assign_gives_a_dominant_item_its_own_shard() -> None:
    items = [*make_items(20), ShardItem("film", 1e6)]
    shards = assign(items, 3)
    assert [identity for identity, shard in shards.items() if shard == shards["film"]] == ["film"]


def test_assign_keeps_copies_together() -> None:
    items = make_items(100)
    again = [ShardItem(item.identity, item.seconds - 1) for item in items]
    assert assign([*again, *items], 4) == assign(items, 4)
    things = list(enumerate([*items, *items]))
    parts = [select_shard([(number, item) for number, item in things], (part, 4)) for part in (1, 2, 3, 4)]
    assert sorted(number for part in parts for number in part) == list(range(200))
    for part in parts:
        assert {number % 100 for number in part} == {number for number in part if number < 100}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number, frames in enumerate((10, 60, 30, 20, 25, 15)):
        write_video(folder / f"{number}.mp4", frames)
    shutil.copy(folder / "1.mp4", folder / "copy.mp4")
    (folder / "torn.mp4").write_bytes((folder / "2.mp4").read_bytes()[:700])
    (folder / "empty.mp4").touch()
    return folder


def recordings(folder: Path) -> list[Recording]:
    return [Recording(path=path, name=path.name) for path in sorted(folder.iterdir())]


def test_shard_recordings_partitions_by_content(videos: Path, tmp_path: Path) -> None:
    cache, given = SequenceCache(tmp_path / "features"), recordings(videos)
    parts = [shard_recordings(given, (number, 2), cache) for number in (1, 2)]
    names = [[recording.name for recording in part] for part in parts]
    assert sorted(name for part in names for name in part) == sorted(recording.name for recording in given)
    assert all(part == sorted(part) for part in names), "in their order"
    assert all(("1.mp4" in part) == ("copy.mp4" in part) for part in names)
    assert all(names)

    moved = tmp_path / "elsewhere"
    moved.mkdir()
    renamed = [moved / f"{100 - number}.avi" for number, _ in enumerate(given)]
    for recording, path in zip(given, renamed, strict=True):
        shutil.copy(recording.path, path)
    others = [Recording(path=path, name=f"x/{path.name}") for path in reversed(renamed)]
    theirs = [shard_recordings(others, (number, 2), cache) for number in (1, 2)]
    content = [{recording.path.read_bytes() for recording in part} - {b""} for part in parts]
    assert content == [{recording.path.read_bytes() for recording in part} - {b""} for part in theirs]
    assert not cache.root.exists()


def test_single_shard_reads_nothing(tmp_path: Path) -> None:
    gone = [Recording(path=tmp_path / "gone.mp4", name="gone.mp4")]
    assert shard_recordings(gone, (1, 1), SequenceCache(tmp_path / "features")) == gone


def test_missing_recording_is_in_exactly_one_shard(tmp_path: Path) -> None:
    gone = [Recording(path=tmp_path / f"{number}.mp4", name=f"{number}.mp4") for number in range(3)]
    cache = SequenceCache(tmp_path / "features")
    parts = [shard_recordings(gone, (number, 2), cache) for number in (1, 2)]
    assert sorted(recording.name for part in parts for recording in part) == ["0.mp4", "1.mp4", "2.mp4"]


@pytest.mark.parametrize("size", [0, 5, 65_536, 1_000_000])
def test_content_identity_depends_on_content_only(tmp_path: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    first, second = tmp_path / "a.mp4", tmp_path / "b.mkv"
    first.write_bytes(data)
    second.write_bytes(data)
    assert content_identity(first) == content_identity(second)
    second.write_bytes(data + b"x")
    assert content_identity(first) != content_identity(second)
    if size:
        second.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert content_identity(first) != content_identity(second)


def test_summary_name_of_a_shard() -> None:
    assert [summary_name(part) for part in ((1, 1), (2, 8))] == ["summary.jsonl", "summary.2-of-8.jsonl"]
