"""The writer of cache entries: parts, resuming after kills, takeovers and disk errors."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cache.entries import (
    FIELDS,
    KEY,
    LONG,
    RUN_INFO,
    append_samples,
    damage_entry,
    entry_names,
    raise_errno,
    read_files,
    write_entry,
    write_until,
    write_without_kill,
)
from tests.sequences import make_sequence, sequences_equal
from vidgru.cache import SequenceCache
from vidgru.cache.entry import UNFINISHED
from vidgru.errors import CacheError, LockLostError, OutputError
from vidgru.types import FrameSequence


@pytest.fixture
def parts_of_8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidgru.cache.writer.PART_SAMPLES", 8)


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_writer_cuts_parts_at_a_fixed_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidgru.cache.writer.PART_SAMPLES", 8)
    sequence = make_sequence(29)
    ways = {"whole": [sequence], "single": [sequence.frames(t, t + 1) for t in range(29)]}
    for name, sequences in ways.items():
        cache = SequenceCache(tmp_path / name)
        write_entry(cache, *sequences)
        assert [len(part) for part in cache.parts(KEY)] == [8, 8, 8, 5]
        assert sequences_equal(cache.read(KEY), sequence)
    assert read_files(tmp_path / "whole" / KEY) == read_files(tmp_path / "single" / KEY)


def test_entry_appears_when_finished(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)

    def write_until_error() -> None:
        with cache.writer(KEY, RUN_INFO) as writer:
            writer.append(make_sequence(3, 1))
            assert cache.entry(KEY) is None
            raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        write_until_error()
    assert cache.entry(KEY) is None
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CacheError, match="no finished entry"):
        cache.read(KEY)


def test_finish_needs_a_sample(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="at least one sample"),
        SequenceCache(tmp_path).writer(KEY, RUN_INFO) as writer,
    ):
        writer.finish(**FIELDS)


@pytest.mark.usefixtures("parts_of_8")
@pytest.mark.parametrize("stop", [0, 4, 8, 20, 24, 48])
def test_writer_resumes_after_a_kill(tmp_path: Path, stop: int) -> None:
    cache = SequenceCache(tmp_path / "killed")
    write_until(cache, stop)
    with cache.writer(KEY, RUN_INFO) as writer:
        assert writer.samples == stop // 8 * 8
        assert writer.state == ({"next": writer.samples} if writer.samples else None)
        resumed = list(writer.resumed_parts())
        assert not resumed or sequences_equal(FrameSequence.concatenate(resumed), LONG.frames(0, writer.samples))
        append_samples(writer, 48)
        assert len(list(writer.resumed_parts())) == len(resumed)  # without those written since
        writer.append(LONG.frames(48, 50))
        writer.finish(**FIELDS)
    assert entry_names(cache.root) == [KEY]
    assert read_files(cache.root / KEY) == write_without_kill(tmp_path / "whole")
    assert cache.verify(KEY) == []
    assert sequences_equal(cache.read(KEY), LONG)


@pytest.mark.usefixtures("parts_of_8")
def test_writer_resumes_after_sigkill(tmp_path: Path) -> None:
    code = (
        "import tests.cache.entries as t, vidgru.cache.writer as w, pathlib, sys, time\n"
        "w.PART_SAMPLES = 8\n"
        "t.write_until(t.SequenceCache(pathlib.Path(sys.argv[1])), 44)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    cache = SequenceCache(tmp_path / "killed")
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code, cache.root], cwd=root, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    with cache.writer(KEY, RUN_INFO) as writer:
        assert writer.samples == 40
        append_samples(writer)
    assert read_files(cache.root / KEY) == write_without_kill(tmp_path / "whole")


@pytest.mark.usefixtures("parts_of_8")
def test_writer_resumes_at_the_last_state(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path / "killed")
    killed = cache.writer(KEY, RUN_INFO).__enter__()
    killed.append(LONG.frames(0, 8), {"next": 8})
    killed.append(LONG.frames(8, 16))  # unknown state
    killed.append(LONG.frames(16, 26), {"next": 26})  # the part ends inside the sequence
    assert len(read_files(killed._folder)) == 4  # three parts and the resume point
    with cache.writer(KEY, RUN_INFO) as writer:
        assert (writer.samples, writer.state) == (8, {"next": 8})
        assert sorted(read_files(writer._folder)) == ["part-00000.safetensors", "resume.json"]
        append_samples(writer)
    assert read_files(cache.root / KEY) == write_without_kill(tmp_path / "whole")


@pytest.mark.usefixtures("parts_of_8")
@pytest.mark.parametrize("kind", ["flipped", "short", "missing"])
def test_writer_resumes_before_the_first_corrupt_part(tmp_path: Path, kind: str) -> None:
    cache = SequenceCache(tmp_path / "killed")
    folder = write_until(cache, 40)
    for name, index in (("part-00000.safetensors", 3), ("part-00003.safetensors", 0)):
        os.replace(folder / name, folder / f"{index}.swap")
    os.replace(folder / "0.swap", folder / "part-00000.safetensors")
    damage_entry(folder, kind)  # becomes part 3
    if kind != "missing":
        os.replace(folder / "part-00000.safetensors", folder / "part-00003.safetensors")
    os.replace(folder / "3.swap", folder / "part-00000.safetensors")
    with cache.writer(KEY, RUN_INFO) as writer:
        assert (writer.samples, writer.state) == (24, {"next": 24})
        append_samples(writer)
    assert read_files(cache.root / KEY) == write_without_kill(tmp_path / "whole")


@pytest.mark.usefixtures("parts_of_8")
def test_writer_resumes_the_longest_folder(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    (tmp_path / "aside").mkdir()
    for stop in (16, 40, 24):
        folder = write_until(cache, stop)
        folder.rename(tmp_path / "aside" / folder.name)
    incomplete = tmp_path / UNFINISHED
    for folder in (tmp_path / "aside").iterdir():
        folder.rename(incomplete / folder.name)
    (tmp_path / "aside").rmdir()
    (incomplete / f"{KEY}.00000000").mkdir()
    (incomplete / f"{KEY}.00000001").mkdir()
    (incomplete / f"{KEY}.00000001/resume.json").write_text('{"parts')
    (other := incomplete / f"{'0' * 64}.00000001").mkdir()
    with cache.writer(KEY, RUN_INFO) as writer:
        assert writer.samples == 40
        assert sorted(entry_names(tmp_path)) == sorted([other.name, writer._folder.name])
        assert cache.incomplete_entries() == sorted([("0" * 64, other), (KEY, writer._folder)])


@pytest.mark.usefixtures("parts_of_8")
def test_writer_does_not_resume_other_run_info(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    write_until(cache, 40)
    with cache.writer(KEY, {**RUN_INFO, "threads": 4}) as writer:
        assert (writer.samples, writer.state) == (0, None)
        assert list(writer.resumed_parts()) == []
        assert entry_names(tmp_path) == []


@pytest.mark.usefixtures("parts_of_8")
def test_restart_drops_resumed_parts(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path / "killed")
    write_until(cache, 40)
    with cache.writer(KEY, RUN_INFO) as writer:
        assert writer.samples == 40
        writer.restart()
        assert (writer.samples, writer.state) == (0, None)
        assert entry_names(cache.root) == []
        append_samples(writer)
    assert read_files(cache.root / KEY) == write_without_kill(tmp_path / "whole")


@pytest.mark.usefixtures("parts_of_8")
def test_writer_keeps_its_folder_with_a_resume_point(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    with cache.writer(KEY, RUN_INFO) as writer:
        append_samples(writer, 12)
    assert entry_names(tmp_path) == [writer._folder.name]  # kept: it has a resume point
    with cache.writer(KEY, RUN_INFO) as writer:
        pass
    assert entry_names(tmp_path) == [writer._folder.name]
    with cache.writer(KEY, RUN_INFO) as writer:
        append_samples(writer, 20)
        writer.discard()
    assert entry_names(tmp_path) == []
    with cache.writer(KEY, RUN_INFO) as writer:
        writer.append(LONG.frames(0, 12))
        assert entry_names(tmp_path) != []
    assert entry_names(tmp_path) == []


@pytest.mark.usefixtures("parts_of_8")
@pytest.mark.parametrize("stop", [4, 12, 48])
def test_writer_detects_takeover(tmp_path: Path, stop: int) -> None:
    cache = SequenceCache(tmp_path / "killed")
    suspended = cache.writer(KEY, RUN_INFO).__enter__()
    append_samples(suspended, 8)
    with cache.writer(KEY, RUN_INFO) as writer:
        assert writer.samples == 8
        with pytest.raises(LockLostError, match="another process has taken over this recording"):
            suspended.append(LONG.frames(8, 16), {"next": 16})
        with pytest.raises(LockLostError):
            suspended.finish(**FIELDS)
        append_samples(writer)
    with pytest.raises(LockLostError):
        suspended.finish(**FIELDS)
    suspended.__exit__(None, None, None)
    assert entry_names(cache.root) == [KEY]
    assert read_files(cache.root / KEY) == write_without_kill(tmp_path / "whole")


@pytest.mark.usefixtures("parts_of_8")
def test_takeover_during_finish_keeps_the_existing_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = SequenceCache(tmp_path)
    before = write_without_kill(tmp_path)
    with cache.writer(KEY, RUN_INFO) as suspended:
        append_samples(suspended, 48)
        rename = Path.rename

        def taken(path: Path, target: Path) -> Path:
            if path == suspended._folder:
                rename(path, path.with_name("taken"))
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", taken)
        with pytest.raises(LockLostError):
            suspended.finish(**FIELDS)
    assert read_files(tmp_path / KEY) == before


@pytest.mark.usefixtures("parts_of_8")
@pytest.mark.parametrize("step", ["before renaming", "after renaming"])
def test_kill_during_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    cache = SequenceCache(tmp_path / "killed")
    writer = cache.writer(KEY, RUN_INFO).__enter__()
    append_samples(writer, 48)
    writer.append(LONG.frames(48, 50))
    before = step == "before renaming"
    with monkeypatch.context() as patch:
        patch.setattr(*((Path, "rename") if before else ("vidgru.cache.writer.delete_resume_file",)), interrupt)
        with pytest.raises(KeyboardInterrupt):
            writer.finish(**FIELDS)
    assert (cache.valid_entry(KEY) is None) == before
    with cache.writer(KEY, RUN_INFO) as writer:
        assert writer.samples == (48 if before else 0)
        if before:
            append_samples(writer)
    assert entry_names(cache.root) == [KEY]
    assert read_files(cache.root / KEY) == write_without_kill(tmp_path / "whole")


@pytest.mark.usefixtures("parts_of_8")
@pytest.mark.parametrize(("call", "kept"), [("mkdir", 0), ("fsync", 0), ("fsync", 8), ("finish", 8)])
def test_full_disk_leaves_no_partial_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, kept: int
) -> None:
    cache = SequenceCache(tmp_path / "features")
    with cache.writer(KEY, RUN_INFO) as writer:
        append_samples(writer, kept)
        with monkeypatch.context() as patch:
            if call == "fsync":
                patch.setattr(os, "fsync", raise_errno(errno.ENOSPC))
            elif call == "mkdir":
                patch.setattr(Path, "mkdir", raise_errno(errno.ENOSPC))
            else:
                patch.setattr(Path, "rename", raise_errno(errno.ENOSPC))
            with pytest.raises(OutputError, match=r"cannot write .*No space left on device\n  .*disk") as caught:  # noqa: PT012
                writer.append(LONG.frames(kept, 16), {"next": 16})
                writer.finish(**FIELDS)
        assert not isinstance(caught.value, LockLostError)
    assert cache.valid_entry(KEY) is None
    assert not (cache.root / KEY).exists()
    with cache.writer(KEY, RUN_INFO) as writer:
        assert writer.samples == {"mkdir": 0, "fsync": kept, "finish": 16}[call]
        append_samples(writer)
    assert entry_names(cache.root) == [KEY]


def test_deleted_cache_is_not_a_takeover(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path / "features")
    with cache.writer(KEY, RUN_INFO) as writer:
        writer.append(make_sequence(2048, 0))
        (tmp_path / "features").rename(tmp_path / "elsewhere")
        with pytest.raises(OutputError, match="No such file or directory"):
            writer.finish(**FIELDS)
    assert not (tmp_path / "features").exists()
