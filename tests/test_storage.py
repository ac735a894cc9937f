import errno
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vidgru.errors import OutputError
from vidgru.storage import sha256_file, sync_folder, write_atomic


def test_replaces_whole(tmp_path: Path) -> None:
    write_atomic(tmp_path / "deep" / "a.txt", b"one")
    write_atomic(tmp_path / "deep" / "a.txt", b"two")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == b"two"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "a.txt", b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*a\.txt: No space left on device"):
        write_atomic(tmp_path / "a.txt", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.txt", b"old")]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_atomic(tmp_path / "a" / "b.txt", b"")


def test_results_are_readable_by_others(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.txt", b"")
    (tmp_path / "b.txt").write_bytes(b"")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file or directory"):
        write_atomic(tmp_path / "gone" / "a.txt", b"", make_folder=False)
    assert list(tmp_path.iterdir()) == []


# --- what killed processes leave ------------------------------------------------------------------------------------

WRITES_FOR_EVER = """
import os, sys, time
from pathlib import Path
from vidgru.storage import write_atomic

def hang(handle):
    print("writing", flush=True)
    time.sleep(600)

os.fsync = hang
write_atomic(Path(sys.argv[1]), b"half")
"""


@contextmanager
def writing(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that stands between writing a file and giving it its name."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITES_FOR_EVER, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            yield process
        finally:
            process.kill()


def temporary(folder: Path) -> Path:
    (found,) = folder.glob(".*.tmp")
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="where a process cannot be asked whether it lives")
def test_what_a_killed_process_left_is_swept_and_nothing_of_one_that_lives(tmp_path: Path) -> None:
    with writing(tmp_path / "a.txt") as process:
        left = temporary(tmp_path)
        write_atomic(tmp_path / "a.txt", b"whole")
        assert left.read_bytes() == b"half"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and a zombie yet
        write_atomic(tmp_path / "b.txt", b"")
        assert left.exists(), "it is of another file, whose next writer sees to it"
        write_atomic(tmp_path / "a.txt", b"whole again")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.txt": b"whole again", "b.txt": b""}


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc to tell when a process started")
def test_what_a_dead_process_left_whose_id_is_another_s_by_now(tmp_path: Path) -> None:
    with writing(tmp_path / "a.txt"):
        name = temporary(tmp_path).name
    old = tmp_path / re.sub(r"-\d+-(\d+)\.", rf"-{os.getpid()}-\1.", name)
    temporary(tmp_path).rename(old)
    write_atomic(tmp_path / "a.txt", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(("age_s", "stays"), [(0, True), (3600, True), (3 * 86400, False)])
@pytest.mark.parametrize("writer", ["0123abcd-1-99.", ""])
def test_what_a_writer_of_whom_nothing_is_known_left(tmp_path: Path, writer: str, age_s: float, stays: bool) -> None:
    for path in (left := tmp_path / f".a.txt.{writer}abcdefgh.tmp", mine := tmp_path / ".a.txt.notes.tmp"):
        path.write_text("")
        moment = path.stat().st_mtime - age_s
        os.utime(path, (moment, moment))
    write_atomic(tmp_path / "a.txt", b"")
    assert left.exists() == stays
    assert mine.exists(), "it is not such a file"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc to see which folder was synced")
def test_the_new_name_is_made_to_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    write_atomic(tmp_path / "a.txt", b"one")
    assert synced[-1] == str(tmp_path)
    assert len(synced) == 2


def test_a_file_system_that_cannot_sync_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", refuse)
    sync_folder(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_hash(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    calls: list[None] = []
    assert sha256_file(tmp_path / "a", lambda: calls.append(None)) == hashlib.sha256(data).hexdigest()
    assert len(calls) == -(-size // (1 << 20))
    assert sha256_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_hashing_ends_where_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(3 << 20))
    calls: list[None] = []

    def between() -> None:
        calls.append(None)
        if len(calls) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        sha256_file(tmp_path / "a", between)
    assert len(calls) == 2
