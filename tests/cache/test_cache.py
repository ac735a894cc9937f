import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vidgru.cache.store
from tests.sequences import make_sequence, sequences_equal
from vidgru.cache import Entry, EntryWriter, SequenceCache
from vidgru.cache.entry import UNFINISHED
from vidgru.errors import CacheError, LockLostError, OutputError
from vidgru.types import FrameSequence

FACTS = {
    "status": "done",
    "duration_s": 9.5,
    "fps": 8.0,
    "size_px": (320, 192),
    "names": ("person", "car", "bag"),
    "feature_settings": {"imgsz": 640},
}
HOW = {"device": "cpu", "threads": 2}
KEY = SequenceCache.key("ab" * 32, {"imgsz": 640})


def write(cache: SequenceCache, *stretches: FrameSequence, key: str = KEY) -> None:
    with cache.writer(key, HOW) as writer:
        for stretch in stretches:
            writer.append(stretch)
        writer.finish(**FACTS)


def no_reading(path: Path, between: object = None) -> str:
    raise AssertionError(f"{path} was read again")


def recording(path: Path, data: bytes) -> Path:
    """A file written some minutes ago."""
    path.write_bytes(data)
    os.utime(path, ns=(time.time_ns() - 300 * 10**9,) * 2)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("objects", [0, 1, None])
@pytest.mark.parametrize("optional", [True, False])
def test_what_is_written_is_read(tmp_path: Path, objects: int | None, optional: bool) -> None:
    cache = SequenceCache(tmp_path)
    sequence = make_sequence(30, objects, optional=optional, keypoints=5 if optional else 0)
    write(cache, sequence)
    assert sequences_equal(cache.read(KEY), sequence)
    entry = cache.entry(KEY)
    assert entry is not None
    assert (entry.samples, entry.objects) == (30, len(sequence.boxes))
    assert entry.names == ("person", "car", "bag")
    assert cache.verify(KEY) == []
    assert [found.key for found in cache.entries()] == [KEY]


def test_parts_are_cut_at_a_fixed_number_of_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidgru.cache.writer.PART_SAMPLES", 8)
    sequence = make_sequence(29)
    ways = {"whole": [sequence], "single": [sequence.frames(t, t + 1) for t in range(29)]}
    for name, stretches in ways.items():
        cache = SequenceCache(tmp_path / name)
        write(cache, *stretches)
        assert [len(part) for part in cache.parts(KEY)] == [8, 8, 8, 5]
        assert sequences_equal(cache.read(KEY), sequence)
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
        "damage", "duration_s", "feature_settings", "fps", "names", "parts", "recorded_at", "run_info", "size_px",
        "status",
    }  # fmt: skip
    assert not any(str(tmp_path).encode() in data for data in files(tmp_path / KEY).values())


def test_entry_does_not_exist_before_it_is_finished(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)

    def stopped_half_way() -> None:
        with cache.writer(KEY, HOW) as writer:
            writer.append(make_sequence(3, 1))
            assert cache.entry(KEY) is None
            raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        stopped_half_way()
    assert cache.entry(KEY) is None
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CacheError, match="no finished entry"):
        cache.read(KEY)


@pytest.mark.parametrize("kind", ["entry", "missing", "short", "header", "marked"])
def test_an_unsound_entry_is_not_usable(tmp_path: Path, kind: str) -> None:
    video = recording(tmp_path / "a.mp4", b"one")
    cache = SequenceCache(tmp_path / "features")
    key = cache.key(cache.sha256(video), {})
    write(cache, make_sequence(10, 2), key=key)
    cache.set_last_entry(video, key)
    before = files(cache.root / key)
    for found in (cache.valid_entry(key), cache.lookup(video, {}), cache.last_entry(video)):
        assert isinstance(found, Entry)
    damage(cache.root / key, kind)
    for found in (cache.valid_entry(key), cache.lookup(video, {}), cache.last_entry(video)):
        assert found is None
    write(cache, make_sequence(10, 2), key=key)
    assert cache.valid_entry(key)
    assert files(cache.root / key) == before
    assert not cache.is_marked_corrupt(key)


def test_a_marked_entry_is_said_to_be_unsound(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    write(cache, make_sequence(3, 1))
    cache.mark_corrupt(KEY)
    cache.mark_corrupt(KEY)
    assert cache.entry(KEY) is None
    assert cache.verify(KEY) == ["found unsound before"]


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
    with pytest.raises(ValueError, match="at least one sample"), SequenceCache(tmp_path).writer(KEY, HOW) as writer:
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
    video = recording(tmp_path / "a.mp4", b"one")
    root = tmp_path / "features"
    first = SequenceCache(root).sha256(video)
    cache = SequenceCache(root)
    assert cache.sha256(video) == first
    cache.set_last_entry(video, KEY)

    with monkeypatch.context() as patch:
        patch.setattr(vidgru.cache.store, "sha256_file", no_reading)
        assert SequenceCache(root).sha256(video) == first
    video.write_bytes(b"two")
    os.utime(video, ns=(1, 1))
    assert SequenceCache(root).sha256(video) != first
    assert SequenceCache(root).sources() == {KEY: [str(video.resolve())]}


def test_a_file_written_just_now_is_hashed_again(tmp_path: Path) -> None:
    video, root = tmp_path / "a.mp4", tmp_path / "features"
    video.write_bytes(b"one")
    cache = SequenceCache(root)
    first = cache.sha256(video)
    cache.set_last_entry(video, KEY, "2024-05-01T12:00:00+00:00")
    stat = video.stat()
    video.write_bytes(b"two")  # of the same size, and so soon after that its mtime is the same
    os.utime(video, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert cache.sha256(video) != first
    assert SequenceCache(root).sha256(video) != first


def test_what_is_known_of_a_file_outlives_its_second_hashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, root = tmp_path / "a.mp4", tmp_path / "features"
    video.write_bytes(b"one")
    cache = SequenceCache(root)
    cache.sha256(video)
    cache.set_last_entry(video, KEY, "2024-05-01T12:00:00+00:00")
    recording(video, b"one")  # touched
    cache = SequenceCache(root)
    cache.sha256(video)
    cache.set_last_entry(video, KEY)
    monkeypatch.setattr(vidgru.cache.store, "sha256_file", no_reading)
    cache = SequenceCache(root)
    cache.sha256(video)
    assert cache.recorded_at(video) == "2024-05-01T12:00:00+00:00"
    assert [record.get("racy") for record in cache.records()] == [True, None]


def test_recorded_at_is_remembered(tmp_path: Path) -> None:
    video, root = recording(tmp_path / "a.mp4", b"one"), tmp_path / "features"
    cache = SequenceCache(root)
    cache.sha256(video)
    assert cache.recorded_at(video) is None
    cache.set_last_entry(video, KEY)
    assert SequenceCache(root).recorded_at(video) is None
    for time_of_it in ("2024-05-01T12:00:00", None, "2024-05-01T12:00:00"):  # None leaves what is known
        cache.set_last_entry(video, KEY, time_of_it)
        assert cache.recorded_at(video) == "2024-05-01T12:00:00"
    assert len(cache.records()) == 2
    cache.set_last_entry(video, KEY, "2024-05-02T12:00:00")
    assert SequenceCache(root).recorded_at(video) == "2024-05-02T12:00:00"
    assert len(cache.records()) == 3


def test_hashing_can_be_given_up(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    cache = SequenceCache(tmp_path / "features")
    with pytest.raises(KeyboardInterrupt):
        cache.sha256(recording(tmp_path / "a.mp4", b"one"), stop)


def test_index_outlives_a_line_cut_short(tmp_path: Path) -> None:
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
    elif kind == "header":
        data = bytearray(part.read_bytes())
        data[8] ^= 1
        part.write_bytes(data)
    elif kind == "marked":
        (folder / "entry.json").rename(folder / "unsound.json")
    elif kind == "entry":
        (folder / "entry.json").write_text("{")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("flipped", "not those that were written"),
        ("short", "bytes, "),
        ("empty", "0 bytes, "),
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
    cache.set_last_entry(video, KEY)
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


# --- going on after a kill ------------------------------------------------------------------------------------------

LONG = make_sequence(50, 2)  # 6 parts of 8 and one of 2


@pytest.fixture
def parts_of_8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidgru.cache.writer.PART_SAMPLES", 8)


def undisturbed(root: Path) -> dict[str, bytes]:
    cache = SequenceCache(root)
    with cache.writer(KEY, HOW) as writer:
        go_on(writer)
    return files(root / KEY)


def go_on(writer: EntryWriter, stop: int = 50) -> None:
    """Append four samples at a time from where the writer is to `stop`, which is the end if it is 50."""
    for start in range(writer.samples, stop, 4):
        writer.append(LONG.frames(start, start + 4), {"next": min(start + 4, 50)})
    if stop == 50:
        writer.finish(**FACTS)


def killed_at(cache: SequenceCache, stop: int) -> Path:
    """What a writer leaves that is killed before sample `stop`."""
    writer = cache.writer(KEY, HOW).__enter__()
    go_on(writer, stop)
    return writer._folder


def folders(root: Path) -> list[str]:
    """Entries, and what is unfinished."""
    return [path.name for path in (*root.glob("[!.]*"), *root.glob(f"{UNFINISHED}/*"))]


@pytest.mark.usefixtures("parts_of_8")
@pytest.mark.parametrize("stop", [0, 4, 8, 20, 24, 48])
def test_a_killed_entry_is_gone_on_with(tmp_path: Path, stop: int) -> None:
    cache = SequenceCache(tmp_path / "killed")
    killed_at(cache, stop)
    with cache.writer(KEY, HOW) as writer:
        assert writer.samples == stop // 8 * 8
        assert writer.state == ({"next": writer.samples} if writer.samples else None)
        adopted = list(writer.resumed_parts())
        assert not adopted or sequences_equal(FrameSequence.concatenate(adopted), LONG.frames(0, writer.samples))
        go_on(writer, 48)
        assert len(list(writer.resumed_parts())) == len(adopted)  # not those written since
        writer.append(LONG.frames(48, 50))
        writer.finish(**FACTS)
    assert folders(cache.root) == [KEY]
    assert files(cache.root / KEY) == undisturbed(tmp_path / "whole")
    assert cache.verify(KEY) == []
    assert sequences_equal(cache.read(KEY), LONG)


@pytest.mark.usefixtures("parts_of_8")
def test_a_process_killed_half_way_loses_nothing_finished(tmp_path: Path) -> None:
    code = (
        "import tests.cache.test_cache as t, vidgru.cache.writer as w, pathlib, sys, time\n"
        "w.PART_SAMPLES = 8\n"
        "t.killed_at(t.SequenceCache(pathlib.Path(sys.argv[1])), 44)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    cache = SequenceCache(tmp_path / "killed")
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code, cache.root], cwd=root, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    with cache.writer(KEY, HOW) as writer:
        assert writer.samples == 40
        go_on(writer)
    assert files(cache.root / KEY) == undisturbed(tmp_path / "whole")


@pytest.mark.usefixtures("parts_of_8")
def test_parts_without_a_state_are_made_again(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path / "killed")
    left = cache.writer(KEY, HOW).__enter__()
    left.append(LONG.frames(0, 8), {"next": 8})
    left.append(LONG.frames(8, 16))  # its state is not known
    left.append(LONG.frames(16, 26), {"next": 26})  # the part ends before the stretch does
    assert len(files(left._folder)) == 4  # three parts and the resume point
    with cache.writer(KEY, HOW) as writer:
        assert (writer.samples, writer.state) == (8, {"next": 8})
        assert sorted(files(writer._folder)) == ["part-00000.safetensors", "resume.json"]
        go_on(writer)
    assert files(cache.root / KEY) == undisturbed(tmp_path / "whole")


@pytest.mark.usefixtures("parts_of_8")
@pytest.mark.parametrize("kind", ["flipped", "short", "missing"])
def test_parts_are_kept_up_to_the_first_unsound_one(tmp_path: Path, kind: str) -> None:
    cache = SequenceCache(tmp_path / "killed")
    folder = killed_at(cache, 40)
    for name, index in (("part-00000.safetensors", 3), ("part-00003.safetensors", 0)):
        os.replace(folder / name, folder / f"{index}.swap")
    os.replace(folder / "0.swap", folder / "part-00000.safetensors")
    damage(folder, kind)  # what is to be part 3
    if kind != "missing":
        os.replace(folder / "part-00000.safetensors", folder / "part-00003.safetensors")
    os.replace(folder / "3.swap", folder / "part-00000.safetensors")
    with cache.writer(KEY, HOW) as writer:
        assert (writer.samples, writer.state) == (24, {"next": 24})
        go_on(writer)
    assert files(cache.root / KEY) == undisturbed(tmp_path / "whole")


@pytest.mark.usefixtures("parts_of_8")
def test_the_best_of_several_is_adopted_and_the_others_deleted(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    (tmp_path / "aside").mkdir()
    for stop in (16, 40, 24):
        folder = killed_at(cache, stop)
        folder.rename(tmp_path / "aside" / folder.name)
    apart = tmp_path / UNFINISHED
    for folder in (tmp_path / "aside").iterdir():
        folder.rename(apart / folder.name)
    (tmp_path / "aside").rmdir()
    (apart / f"{KEY}.00000000").mkdir()
    (apart / f"{KEY}.00000001").mkdir()
    (apart / f"{KEY}.00000001/resume.json").write_text('{"parts')
    (other := apart / f"{'0' * 64}.00000001").mkdir()
    with cache.writer(KEY, HOW) as writer:
        assert writer.samples == 40
        assert sorted(folders(tmp_path)) == sorted([other.name, writer._folder.name])
        assert cache.incomplete_entries() == sorted([("0" * 64, other), (KEY, writer._folder)])


@pytest.mark.usefixtures("parts_of_8")
def test_what_was_made_otherwise_is_not_gone_on_with(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    killed_at(cache, 40)
    with cache.writer(KEY, {**HOW, "threads": 4}) as writer:
        assert (writer.samples, writer.state) == (0, None)
        assert list(writer.resumed_parts()) == []
        assert folders(tmp_path) == []


@pytest.mark.usefixtures("parts_of_8")
def test_beginning_anew(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path / "killed")
    killed_at(cache, 40)
    with cache.writer(KEY, HOW) as writer:
        assert writer.samples == 40
        writer.restart()
        assert (writer.samples, writer.state) == (0, None)
        assert folders(cache.root) == []
        go_on(writer)
    assert files(cache.root / KEY) == undisturbed(tmp_path / "whole")


@pytest.mark.usefixtures("parts_of_8")
def test_what_a_writer_leaves(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    with cache.writer(KEY, HOW) as writer:
        go_on(writer, 12)
    assert folders(tmp_path) == [writer._folder.name]  # a resume point: kept
    with cache.writer(KEY, HOW) as writer:
        pass
    assert folders(tmp_path) == [writer._folder.name]
    with cache.writer(KEY, HOW) as writer:
        go_on(writer, 20)
        writer.discard()
    assert folders(tmp_path) == []
    with cache.writer(KEY, HOW) as writer:
        writer.append(LONG.frames(0, 12))
        assert folders(tmp_path) != []
    assert folders(tmp_path) == []


@pytest.mark.usefixtures("parts_of_8")
@pytest.mark.parametrize("stop", [4, 12, 48])
def test_a_slow_owner_learns_that_another_took_over(tmp_path: Path, stop: int) -> None:
    cache = SequenceCache(tmp_path / "killed")
    slow = cache.writer(KEY, HOW).__enter__()
    go_on(slow, 8)
    with cache.writer(KEY, HOW) as writer:
        assert writer.samples == 8
        with pytest.raises(LockLostError, match="another process has taken this recording over"):
            slow.append(LONG.frames(8, 16), {"next": 16})
        with pytest.raises(LockLostError):
            slow.finish(**FACTS)
        go_on(writer)
    with pytest.raises(LockLostError):
        slow.finish(**FACTS)
    slow.__exit__(None, None, None)
    assert folders(cache.root) == [KEY]
    assert files(cache.root / KEY) == undisturbed(tmp_path / "whole")


@pytest.mark.usefixtures("parts_of_8")
def test_an_owner_whose_folder_goes_as_it_finishes_leaves_the_entry_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = SequenceCache(tmp_path)
    before = undisturbed(tmp_path)
    with cache.writer(KEY, HOW) as slow:
        go_on(slow, 48)
        rename = Path.rename

        def taken(path: Path, target: Path) -> Path:
            if path == slow._folder:
                rename(path, path.with_name("taken"))
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", taken)
        with pytest.raises(LockLostError):
            slow.finish(**FACTS)
    assert files(tmp_path / KEY) == before


@pytest.mark.usefixtures("parts_of_8")
@pytest.mark.parametrize("step", ["before its name", "after its name"])
def test_a_kill_as_the_entry_is_given_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    cache = SequenceCache(tmp_path / "killed")
    writer = cache.writer(KEY, HOW).__enter__()
    go_on(writer, 48)
    writer.append(LONG.frames(48, 50))
    before = step == "before its name"
    with monkeypatch.context() as patch:
        patch.setattr(*((Path, "rename") if before else ("vidgru.cache.writer.tidy",)), stopped)
        with pytest.raises(KeyboardInterrupt):
            writer.finish(**FACTS)
    assert (cache.valid_entry(KEY) is None) == before
    with cache.writer(KEY, HOW) as writer:
        assert writer.samples == (48 if before else 0)
        if before:
            go_on(writer)
    assert folders(cache.root) == [KEY]
    assert files(cache.root / KEY) == undisturbed(tmp_path / "whole")


def stopped(*arguments: object) -> None:
    raise KeyboardInterrupt


# --- disks that fail ------------------------------------------------------------------------------------------------


def fail(number: int) -> Callable[..., None]:
    def failing(*arguments: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    return failing


@pytest.mark.usefixtures("parts_of_8")
@pytest.mark.parametrize(("call", "kept"), [("mkdir", 0), ("fsync", 0), ("fsync", 8), ("finish", 8)])
def test_a_full_disk_leaves_no_half_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, kept: int
) -> None:
    cache = SequenceCache(tmp_path / "features")
    with cache.writer(KEY, HOW) as writer:
        go_on(writer, kept)
        with monkeypatch.context() as patch:
            if call == "fsync":
                patch.setattr(os, "fsync", fail(errno.ENOSPC))
            elif call == "mkdir":
                patch.setattr(Path, "mkdir", fail(errno.ENOSPC))
            else:
                patch.setattr(Path, "rename", fail(errno.ENOSPC))
            with pytest.raises(OutputError, match=r"cannot write .*No space left on device\n  .*disk") as caught:  # noqa: PT012
                writer.append(LONG.frames(kept, 16), {"next": 16})
                writer.finish(**FACTS)
        assert not isinstance(caught.value, LockLostError)
    assert cache.valid_entry(KEY) is None
    assert not (cache.root / KEY).exists()
    with cache.writer(KEY, HOW) as writer:
        assert writer.samples == {"mkdir": 0, "fsync": kept, "finish": 16}[call]
        go_on(writer)
    assert folders(cache.root) == [KEY]


def test_a_file_in_the_place_of_the_cache_that_comes_late(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path / "features")
    cache.sha256(recording(tmp_path / "a.mp4", b"one"))
    (tmp_path / "features").write_text("")
    with cache.writer(KEY, HOW) as writer:
        writer.append(make_sequence(3, 1))
        with pytest.raises(OutputError, match=r"cannot write .*features.*\n  "):
            writer.finish(**FACTS)
    with pytest.raises(OutputError, match=r"cannot write .*index\.jsonl: .*\n  "):
        cache.set_last_entry(tmp_path / "a.mp4", KEY)
    assert (tmp_path / "features").read_text() == ""


def test_a_cache_deleted_meanwhile_is_not_taken_over(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path / "features")
    with cache.writer(KEY, HOW) as writer:
        writer.append(make_sequence(2048, 0))
        (tmp_path / "features").rename(tmp_path / "elsewhere")
        with pytest.raises(OutputError, match="No such file or directory"):
            writer.finish(**FACTS)
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize("call", ["rename", "rmtree"])
def test_what_cannot_be_deleted_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    cache = SequenceCache(tmp_path)
    write(cache, make_sequence(3, 1))
    with monkeypatch.context() as patch:
        patch.setattr(*((Path, call) if call == "rename" else ("shutil.rmtree",)), fail(errno.EROFS))
        with pytest.raises(OutputError, match=r"cannot delete .*Read-only file system\n  check its permissions"):
            cache.remove(tmp_path / KEY)
    assert cache.valid_entry(KEY) is None or call == "rename"
    cache.remove(tmp_path / KEY)
    assert not (tmp_path / KEY).exists()


def test_an_entry_that_cannot_be_marked_or_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = SequenceCache(tmp_path)
    (tmp_path / UNFINISHED / f"{KEY}.00000000").mkdir(parents=True)
    monkeypatch.setattr(os, "replace", fail(errno.EROFS))
    monkeypatch.setattr(Path, "rename", fail(errno.EROFS))
    with pytest.raises(OutputError, match=r"cannot mark .*\n  delete that folder"):
        cache.mark_corrupt(KEY)
    with pytest.raises(OutputError, match=r"cannot adopt .*\n  see to the disk"), cache.writer(KEY, HOW):
        pass
