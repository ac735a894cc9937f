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
from vidgru.storage import parse_json, sha256_file, sync_folder, unused_path, write_atomic


def test_write_atomic_replaces_the_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "deep" / "a.txt", b"one")
    write_atomic(tmp_path / "deep" / "a.txt", b"two")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == b"two"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]


def test_write_atomic_keeps_the_old_file_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "a.txt", b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*a\.txt: No space left on device"):
        write_atomic(tmp_path / "a.txt", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.txt", b"old")]


def test_write_atomic_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_atomic(tmp_path / "a" / "b.txt", b"")


def test_write_atomic_uses_default_permissions(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.txt", b"")
    (tmp_path / "b.txt").write_bytes(b"")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_write_atomic_without_make_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file or directory"):
        write_atomic(tmp_path / "gone" / "a.txt", b"", make_folder=False)
    assert list(tmp_path.iterdir()) == []


# --- files left by killed processes ----------------------------------------------------------------------------

HANG_IN_FSYNC = """
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
def hanging_writer(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that hangs between writing a file and renaming it."""
    with subprocess.Popen(
        [sys.executable, "-c", HANG_IN_FSYNC, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            yield process
        finally:
            process.kill()


def temporary(folder: Path) -> Path:
    (path,) = folder.glob(".*.tmp")
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="process state cannot be queried")
def test_write_atomic_deletes_files_of_dead_writers_only(tmp_path: Path) -> None:
    with hanging_writer(tmp_path / "a.txt") as process:
        abandoned = temporary(tmp_path)
        write_atomic(tmp_path / "a.txt", b"whole")
        assert abandoned.read_bytes() == b"half"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but still a zombie
        write_atomic(tmp_path / "b.txt", b"")
        assert abandoned.exists(), "only the next writer of the same file deletes it"
        write_atomic(tmp_path / "a.txt", b"whole again")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.txt": b"whole again", "b.txt": b""}


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc for process start times")
def test_write_atomic_detects_reused_process_id(tmp_path: Path) -> None:
    with hanging_writer(tmp_path / "a.txt"):
        name = temporary(tmp_path).name
    old = tmp_path / re.sub(r"-\d+-(\d+)\.", rf"-{os.getpid()}-\1.", name)
    temporary(tmp_path).rename(old)
    write_atomic(tmp_path / "a.txt", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(("age_s", "stays"), [(0, True), (3600, True), (3 * 86400, False)])
@pytest.mark.parametrize("writer", ["0123abcd-1-99.", ""])
def test_write_atomic_deletes_old_files_of_unknown_writers(
    tmp_path: Path, writer: str, age_s: float, stays: bool
) -> None:
    for path in (abandoned := tmp_path / f".a.txt.{writer}abcdefgh.tmp", other := tmp_path / ".a.txt.notes.tmp"):
        path.write_text("")
        modified = path.stat().st_mtime - age_s
        os.utime(path, (modified, modified))
    write_atomic(tmp_path / "a.txt", b"")
    assert abandoned.exists() == stays
    assert other.exists(), "not a temporary file of vidgru"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc to see which folder was synced")
def test_write_atomic_syncs_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    write_atomic(tmp_path / "a.txt", b"one")
    assert synced[-1] == str(tmp_path)
    assert len(synced) == 2


def test_sync_folder_ignores_unsupported_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", refuse)
    sync_folder(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_sha256_file(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    calls: list[None] = []
    assert sha256_file(tmp_path / "a", lambda: calls.append(None)) == hashlib.sha256(data).hexdigest()
    assert len(calls) == -(-size // (1 << 20))
    assert sha256_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_sha256_file_stops_on_callback_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(3 << 20))
    calls: list[None] = []

    def on_chunk() -> None:
        calls.append(None)
        if len(calls) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        sha256_file(tmp_path / "a", on_chunk)
    assert len(calls) == 2


def test_unused_path_counts_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unused_path(tmp_path / "a.v1", Path.exists) == tmp_path / "a.v1"
    for folder in ("a.v1", "a.v12"):
        (tmp_path / folder).mkdir()
    assert unused_path(tmp_path / "a.v1", Path.exists) == tmp_path / "a.v13"
    (tmp_path / "start.safetensors").touch()
    assert unused_path(tmp_path / "start.safetensors", Path.exists).name == "start2.safetensors"
    monkeypatch.chdir(tmp_path / "a.v1")
    assert unused_path(Path("."), Path.exists) == tmp_path / "a.v13"


@pytest.mark.parametrize("text", ["[" * 100_000, "[1", "9" * 5000])
def test_parse_json_raises_value_errors_only(text: str) -> None:
    with pytest.raises(ValueError, match=r"nested too deeply|Expecting|integer string"):
        parse_json(text)
