"""The cache: index, reading, verification and removal of entries."""

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vidgru.cache.entry
import vidgru.cache.store
import vidgru.cache.writer
from tests.cache.entries import (
    FIELDS,
    KEY,
    RUN_INFO,
    damage_entry,
    raise_errno,
    read_files,
    write_entry,
    write_recording,
)
from tests.sequences import make_sequence, sequences_equal, with_still_frames
from vidgru.cache import Entry, SequenceCache
from vidgru.cache.entry import UNFINISHED, stored_tensors
from vidgru.errors import CacheError, OutputError


def fail_on_read(path: Path, on_chunk: object = None) -> str:
    raise AssertionError(f"{path} was hashed again")


@pytest.mark.parametrize("objects", [0, 1, None])
@pytest.mark.parametrize("optional", [True, False])
def test_read_returns_what_was_written(tmp_path: Path, objects: int | None, optional: bool) -> None:
    cache = SequenceCache(tmp_path)
    pose = {"keypoints": 5, "flip_idx": (1, 0, 2, 4, 3)} if optional else {}
    sequence = make_sequence(30, objects, optional=optional, **pose)
    write_entry(cache, sequence)
    assert sequences_equal(cache.read(KEY), sequence)
    entry = cache.entry(KEY)
    assert entry is not None
    assert (entry.samples, entry.objects) == (30, len(sequence.boxes))
    assert entry.names == ("person", "car", "bag")
    assert cache.verify(KEY) == []
    assert [entry.key for entry in cache.entries()] == [KEY]


@pytest.mark.parametrize("optional", [True, False])
@pytest.mark.parametrize("still", [[], [3, 4, 5, 9], list(range(1, 30))])
def test_still_samples_are_read_as_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, still: list[int], optional: bool
) -> None:
    monkeypatch.setattr(vidgru.cache.writer, "PART_SAMPLES", 8)  # parts start within still stretches, too
    cache = SequenceCache(tmp_path)
    sequence = with_still_frames(make_sequence(30, optional=optional, keypoints=3), still)
    write_entry(cache, sequence)
    assert sequences_equal(cache.read(KEY), sequence)
    entry = cache.entry(KEY)
    assert entry is not None
    assert (entry.samples, entry.still, entry.objects) == (30, len(still), len(sequence.boxes))
    assert cache.verify(KEY) == []


def test_still_samples_store_only_their_times() -> None:
    sequence = with_still_frames(make_sequence(1000, 5), list(range(1, 1000)))
    first = sequence.frames(0, 1)
    size, first_size = (sum(t.nbytes for t in stored_tensors(part).values()) for part in (sequence, first))
    assert size == first_size + 999 * (8 + 8 + 1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("still", 3, "its still samples are not the 3"), ("objects", 9, "lists 30"), ("samples", 29, "lists 29")],
)
def test_still_samples_are_checked(tmp_path: Path, field: str, value: int, message: str) -> None:
    cache = SequenceCache(tmp_path)
    write_entry(cache, with_still_frames(make_sequence(30, 2), [4, 5]))
    path = tmp_path / KEY / "entry.json"
    content = json.loads(path.read_text())
    content["parts"][0][field] = value
    path.write_text(json.dumps(content))
    (fault,) = cache.verify(KEY)
    assert message in fault


def test_part_that_repeats_too_much_is_corrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = SequenceCache(tmp_path)
    write_entry(cache, with_still_frames(make_sequence(30, 2), list(range(1, 30))))
    monkeypatch.setattr(vidgru.cache.entry, "_MAX_REPEATED", 59)
    (fault,) = cache.verify(KEY)
    assert "its still frames repeat 60 objects" in fault


def test_read_maps_parts_from_disk(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    write_entry(cache, make_sequence(10, 3))
    boxes = cache.read(KEY).boxes
    base = boxes
    while not isinstance(base, np.memmap):
        assert base.base is not None
        base = base.base
    assert not boxes.flags.writeable


def test_entry_contains_no_path_or_time(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    write_entry(cache, make_sequence(3, 1))
    entry = json.loads((tmp_path / KEY / "entry.json").read_text())
    assert set(entry) == {
        "adaptive_note", "damage", "duration_s", "feature_settings", "fps", "names", "parts", "recorded_at", "run_info",
        "size_px", "status",
    }  # fmt: skip
    assert not any(str(tmp_path).encode() in data for data in read_files(tmp_path / KEY).values())


@pytest.mark.parametrize("kind", ["entry", "missing", "short", "header", "marked"])
def test_corrupt_entry_is_not_valid(tmp_path: Path, kind: str) -> None:
    video = write_recording(tmp_path / "a.mp4", b"one")
    cache = SequenceCache(tmp_path / "features")
    key = cache.key(cache.sha256(video), {})
    write_entry(cache, make_sequence(10, 2), key=key)
    cache.set_last_entry(video, key)
    before = read_files(cache.root / key)
    for entry in (cache.valid_entry(key), cache.lookup(video, {}), cache.last_entry(video)):
        assert isinstance(entry, Entry)
    damage_entry(cache.root / key, kind)
    for entry in (cache.valid_entry(key), cache.lookup(video, {}), cache.last_entry(video)):
        assert entry is None
    write_entry(cache, make_sequence(10, 2), key=key)
    assert cache.valid_entry(key)
    assert read_files(cache.root / key) == before
    assert not cache.is_marked_corrupt(key)
    assert cache.lookup(tmp_path / "gone.mp4", {}) is None


def test_last_entry_is_of_the_whole_recording(tmp_path: Path) -> None:
    video, root = write_recording(tmp_path / "a.mp4", b"one"), tmp_path / "features"

    def record(settings: dict[str, Any]) -> str:
        cache = SequenceCache(root)
        key = cache.key(cache.sha256(video), settings)
        with cache.writer(key, RUN_INFO) as writer:
            writer.append(make_sequence(3, 1))
            writer.finish(**{**FIELDS, "feature_settings": settings})
        cache.set_last_entry(video, key)
        return key

    def last_key() -> str | None:
        entry = SequenceCache(root).last_entry(video)
        return None if entry is None else entry.key

    span = record({"fps": 8.0, "span": [60, 120]})
    assert last_key() is None
    record({"fps": 4.0})
    whole = record({"fps": 8.0})
    assert record({"fps": 8.0, "span": [60, 120]}) == span
    assert last_key() == whole
    assert span in SequenceCache(root).sources()  # else pruning would delete it
    write_recording(video, b"other bytes")
    record({"fps": 8.0, "span": [60, 120]})
    assert last_key() is None


def test_verify_reports_a_marked_entry(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    write_entry(cache, make_sequence(3, 1))
    cache.mark_corrupt(KEY)
    cache.mark_corrupt(KEY)
    assert cache.entry(KEY) is None
    assert cache.verify(KEY) == ["found corrupt earlier"]


def test_key_depends_on_content_and_settings() -> None:
    keys = {
        SequenceCache.key("a" * 64, {"fps": 8.0, "imgsz": 640}),
        SequenceCache.key("b" * 64, {"fps": 8.0, "imgsz": 640}),
        SequenceCache.key("a" * 64, {"fps": 4.0, "imgsz": 640}),
    }
    assert len(keys) == 3
    assert SequenceCache.key("a" * 64, {"imgsz": 640, "fps": 8.0}) in keys


def test_sha256_is_cached_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_recording(tmp_path / "a.mp4", b"one")
    root = tmp_path / "features"
    first = SequenceCache(root).sha256(video)
    cache = SequenceCache(root)
    assert cache.sha256(video) == first
    cache.set_last_entry(video, KEY)

    with monkeypatch.context() as patch:
        patch.setattr(vidgru.cache.store, "sha256_file", fail_on_read)
        assert SequenceCache(root).sha256(video) == first
    video.write_bytes(b"two")
    os.utime(video, ns=(1, 1))
    assert SequenceCache(root).sha256(video) != first
    assert SequenceCache(root).sources() == {KEY: [str(video.resolve())]}


def test_sha256_rehashes_a_recently_written_file(tmp_path: Path) -> None:
    video, root = tmp_path / "a.mp4", tmp_path / "features"
    video.write_bytes(b"one")
    cache = SequenceCache(root)
    first = cache.sha256(video)
    cache.set_last_entry(video, KEY, "2024-05-01T12:00:00+00:00")
    stat = video.stat()
    video.write_bytes(b"two")  # same size, and so soon that the mtime is the same
    os.utime(video, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert cache.sha256(video) != first
    assert SequenceCache(root).sha256(video) != first


def test_index_fields_survive_rehashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, root = tmp_path / "a.mp4", tmp_path / "features"
    video.write_bytes(b"one")
    cache = SequenceCache(root)
    cache.sha256(video)
    cache.set_last_entry(video, KEY, "2024-05-01T12:00:00+00:00")
    write_recording(video, b"one")  # touched
    cache = SequenceCache(root)
    cache.sha256(video)
    cache.set_last_entry(video, KEY)
    monkeypatch.setattr(vidgru.cache.store, "sha256_file", fail_on_read)
    cache = SequenceCache(root)
    cache.sha256(video)
    assert cache.recorded_at(video) == "2024-05-01T12:00:00+00:00"
    assert [record.get("racy") for record in cache.records()] == [True, None]


def test_recorded_at_is_stored_in_the_index(tmp_path: Path) -> None:
    video, root = write_recording(tmp_path / "a.mp4", b"one"), tmp_path / "features"
    cache = SequenceCache(root)
    cache.sha256(video)
    assert cache.recorded_at(video) is None
    cache.set_last_entry(video, KEY)
    assert SequenceCache(root).recorded_at(video) is None
    for start_time in ("2024-05-01T12:00:00", None, "2024-05-01T12:00:00"):  # None keeps the known time
        cache.set_last_entry(video, KEY, start_time)
        assert cache.recorded_at(video) == "2024-05-01T12:00:00"
    assert len(cache.records()) == 2
    cache.set_last_entry(video, KEY, "2024-05-02T12:00:00")
    assert SequenceCache(root).recorded_at(video) == "2024-05-02T12:00:00"
    assert len(cache.records()) == 3


def test_sha256_stops_on_callback_error(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    cache = SequenceCache(tmp_path / "features")
    with pytest.raises(KeyboardInterrupt):
        cache.sha256(write_recording(tmp_path / "a.mp4", b"one"), stop)


def test_index_with_truncated_line(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"one")
    cache = SequenceCache(tmp_path / "features")
    cache.sha256(video)
    cache.set_last_entry(video, KEY)
    with open(tmp_path / "features" / "index.jsonl", "ab") as file:
        file.write(b'{"path":"/b.mp4","si')
    cache = SequenceCache(tmp_path / "features")
    assert list(cache.sources()) == [KEY]
    cache.sha256(video)
    cache.set_last_entry(video, "0" * 64)
    assert list(SequenceCache(tmp_path / "features").sources()) == [KEY, "0" * 64]


def test_equal_recordings_share_an_entry(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path / "features")
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"same")
    key = cache.key(cache.sha256(tmp_path / "a.mp4"), {"fps": 8})
    write_entry(cache, make_sequence(3, 1), key=key)
    entry = cache.lookup(tmp_path / "b.mp4", {"fps": 8})
    assert entry is not None
    assert entry.key == key
    assert cache.lookup(tmp_path / "b.mp4", {"fps": 4}) is None


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("flipped", "its bytes differ from those that were written"),
        ("short", r"part-00000.safetensors: \d+ bytes instead of \d+"),
        ("empty", r"part-00000.safetensors: 0 bytes instead of \d+"),
        ("missing", "part-00000.safetensors is missing"),
        ("entry", "entry.json is corrupt"),
    ],
)
def test_verify_describes_the_fault(tmp_path: Path, kind: str, message: str) -> None:
    cache = SequenceCache(tmp_path)
    write_entry(cache, make_sequence(10, 2))
    damage_entry(tmp_path / KEY, kind)
    (fault,) = cache.verify(KEY)
    assert re.search(message, fault)


def test_read_of_corrupt_part_raises(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    for kind, message in (
        ("short", ": "),
        ("empty", ": 0 bytes"),
        ("missing", " is missing"),
        ("flipped", ": its "),
    ):
        write_entry(cache, make_sequence(10, 2))
        damage_entry(tmp_path / KEY, kind)
        with pytest.raises(CacheError, match=rf"part-00000\.safetensors{message}"):
            cache.read(KEY)
        assert cache.is_marked_corrupt(KEY) == (kind == "flipped"), "else the next extraction would reuse it"


def test_read_of_numbers_that_are_not_finite_raises(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    for name, value in (("scene", np.inf), ("boxes", np.nan)):
        sequence = make_sequence(10, 2)
        getattr(sequence, name)[3, 1] = value
        write_entry(cache, sequence)
        with pytest.raises(CacheError, match=f"safetensors: {name} holds numbers that are not finite\n  delete "):
            cache.read(KEY)


def test_index_with_path_that_is_not_utf8(tmp_path: Path) -> None:
    video = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    video.write_bytes(b"one")
    cache = SequenceCache(tmp_path / "features")
    cache.sha256(video)
    cache.set_last_entry(video, KEY)
    assert SequenceCache(tmp_path / "features").sources() == {KEY: [str(video.resolve())]}


@pytest.mark.parametrize("name", ["x" * 256, "é" * 128, "x/" * 2048])
def test_index_with_path_that_cannot_exist(tmp_path: Path, name: str) -> None:
    """Such a record is skipped: the other recordings of the cache are used."""
    cache = SequenceCache(tmp_path / "features")
    video = write_recording(tmp_path / "a.mp4", b"one")
    cache.sha256(video)
    cache.set_last_entry(video, KEY)
    index = tmp_path / "features" / "index.jsonl"
    index.write_text(index.read_text() + json.dumps({"path": f"/{name}", "sha256": KEY, "key": KEY}) + "\n")
    assert SequenceCache(tmp_path / "features").sources() == {KEY: [str(video.resolve())]}


def test_cache_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        SequenceCache(tmp_path / "features")


def test_lookup_creates_no_folder(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path / "features")
    assert cache.entry(KEY) is None
    assert list(cache.entries()) == []
    assert not (tmp_path / "features").exists()


def test_cache_root_replaced_by_a_file(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path / "features")
    cache.sha256(write_recording(tmp_path / "a.mp4", b"one"))
    (tmp_path / "features").write_text("")
    with cache.writer(KEY, RUN_INFO) as writer:
        writer.append(make_sequence(3, 1))
        with pytest.raises(OutputError, match=r"cannot write .*features.*\n  "):
            writer.finish(**FIELDS)
    with pytest.raises(OutputError, match=r"cannot write .*index\.jsonl: .*\n  "):
        cache.set_last_entry(tmp_path / "a.mp4", KEY)
    assert (tmp_path / "features").read_text() == ""


@pytest.mark.parametrize("call", ["rename", "rmtree"])
def test_remove_reports_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    cache = SequenceCache(tmp_path)
    write_entry(cache, make_sequence(3, 1))
    with monkeypatch.context() as patch:
        patch.setattr(*((Path, call) if call == "rename" else ("shutil.rmtree",)), raise_errno(errno.EROFS))
        with pytest.raises(OutputError, match=r"cannot delete .*Read-only file system\n  check its permissions"):
            cache.remove(tmp_path / KEY)
    assert cache.valid_entry(KEY) is None or call == "rename"
    cache.remove(tmp_path / KEY)
    assert not (tmp_path / KEY).exists()


def test_mark_corrupt_and_resume_report_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = SequenceCache(tmp_path)
    (tmp_path / UNFINISHED / f"{KEY}.00000000").mkdir(parents=True)
    monkeypatch.setattr(os, "replace", raise_errno(errno.EROFS))
    monkeypatch.setattr(Path, "rename", raise_errno(errno.EROFS))
    with pytest.raises(OutputError, match=r"cannot mark .*\n  delete that folder"):
        cache.mark_corrupt(KEY)
    with pytest.raises(OutputError, match=r"cannot resume .*\n  check the disk"), cache.writer(KEY, RUN_INFO):
        pass
