import json
import os
from pathlib import Path

import numpy as np
import pytest

import vidgru.cache
from tests.sequences import make_sequence, same
from vidgru.cache import SequenceCache
from vidgru.errors import CacheError, OutputError
from vidgru.types import Sequence

FACTS = {
    "status": "done",
    "duration_s": 9.5,
    "fps": 8.0,
    "size_px": (320, 192),
    "names": ("person", "car", "bag"),
    "what": {"imgsz": 640},
    "how": {"device": "cpu"},
}
KEY = SequenceCache.key("ab" * 32, {"imgsz": 640})


def write(cache: SequenceCache, *stretches: Sequence, key: str = KEY) -> None:
    with cache.writer(key) as writer:
        for stretch in stretches:
            writer.append(stretch)
        writer.finish(**FACTS)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("objects", [0, 1, None])
@pytest.mark.parametrize("optional", [True, False])
def test_what_is_written_is_read(tmp_path: Path, objects: int | None, optional: bool) -> None:
    cache = SequenceCache(tmp_path)
    sequence = make_sequence(30, objects, optional=optional, keypoints=5 if optional else 0)
    write(cache, sequence)
    assert same(cache.read(KEY), sequence)
    entry = cache.entry(KEY)
    assert entry is not None
    assert (entry.samples, entry.objects) == (30, len(sequence.boxes))
    assert entry.names == ("person", "car", "bag")
    assert cache.verify(KEY) == []
    assert [found.key for found in cache.entries()] == [KEY]


def test_parts_are_cut_at_a_fixed_number_of_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vidgru.cache, "PART_SAMPLES", 8)
    sequence = make_sequence(29)
    ways = {"whole": [sequence], "single": [sequence.frames(t, t + 1) for t in range(29)]}
    for name, stretches in ways.items():
        cache = SequenceCache(tmp_path / name)
        write(cache, *stretches)
        assert [len(part) for part in cache.parts(KEY)] == [8, 8, 8, 5]
        assert same(cache.read(KEY), sequence)
    assert files(tmp_path / "whole" / KEY) == files(tmp_path / "single" / KEY)


def test_parts_are_mapped_not_copied(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    write(cache, make_sequence(10, 3))
    boxes = cache.read(KEY).boxes
    base = boxes
    while not isinstance(base, np.memmap):
        assert base.base is not None
        base = base.base
    assert not boxes.flags.writeable


def test_entry_names_no_place_and_no_time(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    write(cache, make_sequence(3, 1))
    entry = json.loads((tmp_path / KEY / "entry.json").read_text())
    assert set(entry) == {
        "damage", "duration_s", "fps", "how", "names", "parts", "recorded_at", "size_px", "status", "what",
    }  # fmt: skip
    assert not any(str(tmp_path).encode() in data for data in files(tmp_path / KEY).values())


def test_entry_does_not_exist_before_it_is_finished(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)

    def stopped_half_way() -> None:
        with cache.writer(KEY) as writer:
            writer.append(make_sequence(3, 1))
            assert cache.entry(KEY) is None
            raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        stopped_half_way()
    assert cache.entry(KEY) is None
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CacheError, match="no finished entry"):
        cache.read(KEY)


def test_two_writers_of_one_entry_do_no_harm(tmp_path: Path) -> None:
    cache, sequence = SequenceCache(tmp_path), make_sequence(10, 2)
    with cache.writer(KEY) as slow:
        slow.append(sequence)
        with cache.writer(KEY) as interrupted:
            interrupted.append(sequence)
        write(cache, sequence)
        slow.finish(**FACTS)
    assert cache.verify(KEY) == []
    assert [path.name for path in tmp_path.iterdir()] == [KEY]


def test_an_unsound_entry_is_not_found_and_can_be_written_again(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"one")
    cache = SequenceCache(tmp_path / "features")
    key = cache.key(cache.sha256(video), {})
    write(cache, make_sequence(10, 2), key=key)
    damage(tmp_path / "features" / key, "entry")
    assert cache.lookup(video, {}) is None
    write(cache, make_sequence(10, 2), key=key)
    assert cache.lookup(video, {}) is not None
    assert cache.lookup(tmp_path / "gone.mp4", {}) is None


def test_an_entry_needs_a_sample(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one sample"), SequenceCache(tmp_path).writer(KEY) as writer:
        writer.finish(**FACTS)


def test_key_tells_content_and_settings_apart() -> None:
    keys = {
        SequenceCache.key("a" * 64, {"fps": 8.0, "imgsz": 640}),
        SequenceCache.key("b" * 64, {"fps": 8.0, "imgsz": 640}),
        SequenceCache.key("a" * 64, {"fps": 4.0, "imgsz": 640}),
    }
    assert len(keys) == 3
    assert SequenceCache.key("a" * 64, {"imgsz": 640, "fps": 8.0}) in keys


def test_hash_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"one")
    root = tmp_path / "features"
    first = SequenceCache(root).sha256(video)
    cache = SequenceCache(root)
    assert cache.sha256(video) == first
    cache.remember(video, KEY)

    def no_reading(path: Path) -> str:
        raise AssertionError(f"{path} was read again")

    with monkeypatch.context() as patch:
        patch.setattr(vidgru.cache, "sha256_file", no_reading)
        assert SequenceCache(root).sha256(video) == first
    video.write_bytes(b"two")
    os.utime(video, ns=(1, 1))
    assert SequenceCache(root).sha256(video) != first
    assert SequenceCache(root).sources() == {KEY: [str(video.resolve())]}


def test_index_outlives_a_line_cut_short(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"one")
    cache = SequenceCache(tmp_path / "features")
    cache.sha256(video)
    cache.remember(video, KEY)
    with open(tmp_path / "features" / "index.jsonl", "ab") as file:
        file.write(b'{"path":"/b.mp4","si')
    assert list(SequenceCache(tmp_path / "features").sources()) == [KEY]


def test_equal_recordings_share_an_entry(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path / "features")
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"same")
    key = cache.key(cache.sha256(tmp_path / "a.mp4"), {"fps": 8})
    write(cache, make_sequence(3, 1), key=key)
    found = cache.lookup(tmp_path / "b.mp4", {"fps": 8})
    assert found is not None
    assert found.key == key
    assert cache.lookup(tmp_path / "b.mp4", {"fps": 4}) is None


def damage(folder: Path, kind: str) -> None:
    part = folder / "part-00000.safetensors"
    if kind == "flipped":
        data = bytearray(part.read_bytes())
        data[-3] ^= 1
        part.write_bytes(data)
    elif kind == "short":
        part.write_bytes(part.read_bytes()[:-10])
    elif kind == "empty":
        part.write_bytes(b"")
    elif kind == "missing":
        part.unlink()
    elif kind == "entry":
        (folder / "entry.json").write_text("{")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("flipped", "not those that were written"),
        ("short", "not those that were written"),
        ("empty", "not those that were written"),
        ("missing", "part-00000.safetensors: missing"),
        ("entry", "entry.json is not sound"),
    ],
)
def test_verify_names_what_is_unsound(tmp_path: Path, kind: str, message: str) -> None:
    cache = SequenceCache(tmp_path)
    write(cache, make_sequence(10, 2))
    damage(tmp_path / KEY, kind)
    assert len(cache.verify(KEY)) == 1
    assert message in cache.verify(KEY)[0]


@pytest.mark.parametrize("kind", ["short", "empty"])
def test_reading_an_unsound_part_says_so(tmp_path: Path, kind: str) -> None:
    cache = SequenceCache(tmp_path)
    write(cache, make_sequence(10, 2))
    damage(tmp_path / KEY, kind)
    with pytest.raises(CacheError, match=r"part-00000\.safetensors is not a sound part"):
        cache.read(KEY)


def test_reading_a_missing_part_says_so(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    write(cache, make_sequence(10, 2))
    damage(tmp_path / KEY, "missing")
    with pytest.raises(CacheError, match=r"part-00000\.safetensors is missing"):
        cache.read(KEY)


def test_a_name_that_is_not_utf8_is_remembered(tmp_path: Path) -> None:
    video = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    video.write_bytes(b"one")
    cache = SequenceCache(tmp_path / "features")
    cache.sha256(video)
    cache.remember(video, KEY)
    assert SequenceCache(tmp_path / "features").sources() == {KEY: [str(video.resolve())]}


def test_a_file_in_the_place_of_the_cache(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        SequenceCache(tmp_path / "features")


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path / "features")
    assert cache.entry(KEY) is None
    assert list(cache.entries()) == []
    assert not (tmp_path / "features").exists()
