"""Locks: one holder at a time; dead locks are taken over at once or after expiry, by the clock of the disk."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import vidgru.locks
from vidgru.errors import OutputError
from vidgru.locks import EXPIRY_S, Locks, has_process_ended, host_id, process_start

ROOT = Path(__file__).parent.parent
NAMES = [f"{number:03d}" for number in range(200)]
LINUX = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="only Linux shows at once that a holder died")


@contextmanager
def process(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run `code` in a Python process after the imports it needs, and kill it at the end of the block."""
    command = [sys.executable, "-c", f"import sys, time, pathlib\nfrom vidgru.locks import Locks\n{code}"]
    with subprocess.Popen(
        [*command, *map(str, arguments)], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def read_line(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


def send_line(running: subprocess.Popen[str], line: str) -> None:
    assert running.stdin is not None
    running.stdin.write(line + "\n")
    running.stdin.flush()


def age_file(folder: Path, name: str = "a", suffix: str = "lock", seconds: float = EXPIRY_S + 5) -> Path:
    """Make a lock look as if it had not been touched for `seconds`."""
    path = folder / f"{name}.{suffix}"
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def write_foreign_lock(folder: Path, name: str = "a") -> Path:
    """Create a lock held by a process of another machine."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.lock"
    path.write_text(json.dumps({"token": "ab", "host": "elsewhere", "pid": os.getpid(), "started": "1"}))
    return path


HOLD = """
locks = Locks(pathlib.Path(sys.argv[1]))
print(locks.acquire("a"), flush=True)
sys.stdin.readline()
locks.close()
"""


def test_lock_has_one_holder(tmp_path: Path) -> None:
    with Locks(tmp_path / "l") as locks, Locks(tmp_path / "l") as other:
        assert locks.acquire("a")
        assert not locks.acquire("a")
        assert not other.acquire("a")
        assert locks.holds("a")
        assert not other.holds("a")
        assert other.acquire("b")
        assert locks.names() == ["a", "b"]
        other.release("a")  # not its lock: no effect
        assert locks.holds("a")
        locks.release("a")
        assert not locks.holds("a")
        assert other.acquire("a")
    assert not (tmp_path / "l").exists()


def test_locks_folder_is_created_with_the_first_lock(tmp_path: Path) -> None:
    with Locks(tmp_path / "l") as locks:
        assert locks.names() == []
    assert list(tmp_path.iterdir()) == []


def test_live_process_keeps_its_lock(tmp_path: Path) -> None:
    with process(HOLD, tmp_path / "l") as other, Locks(tmp_path / "l") as locks:
        assert read_line(other) == "True"
        assert not locks.acquire("a")
        send_line(other, "close")
        assert other.wait(10) == 0
        assert locks.acquire("a")


@LINUX
def test_lock_of_killed_process_is_acquired_at_once(tmp_path: Path) -> None:
    with process(HOLD, tmp_path / "l") as other, Locks(tmp_path / "l") as locks:
        assert read_line(other) == "True"
        other.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 5
        while not locks.acquire("a"):  # before the zombie is reaped
            assert time.monotonic() < deadline
        assert locks.holds("a")
        assert sorted(path.name for path in (tmp_path / "l").iterdir()) == ["a.lock"]


@LINUX
def test_reused_process_id_is_not_the_holder(tmp_path: Path) -> None:
    with process(HOLD, tmp_path / "l") as other, Locks(tmp_path / "l") as locks:
        read_line(other)
        lock = tmp_path / "l" / "a.lock"
        holder = json.loads(lock.read_bytes())
        assert not locks.acquire("a")
        lock.write_text(json.dumps({**holder, "started": "1"}))
        assert locks.acquire("a")


def test_foreign_lock_expires_by_the_disk_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)  # the local clock is useless
    folder = tmp_path / "l"
    write_foreign_lock(folder)
    with Locks(folder) as locks:
        assert not locks.acquire("a")
        then = (folder / "a.lock").stat().st_mtime - EXPIRY_S + 5
        os.utime(folder / "a.lock", (then, then))
        assert not locks.acquire("a")
        os.utime(folder / "a.lock", (then - 10, then - 10))
        assert locks.acquire("a")
        assert [path.name for path in folder.iterdir()] == ["a.lock"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"host": 1}'])
def test_unparsable_lock_expires_by_age(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.lock").write_text(text)
    with Locks(tmp_path) as locks:
        assert not locks.acquire("a")
        age_file(tmp_path)
        assert locks.acquire("a")


def test_heartbeat_touches_held_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vidgru.locks, "HEARTBEAT_S", 0.02)
    with Locks(tmp_path) as locks:
        assert locks.acquire("a")
        path = age_file(tmp_path)
        deadline = time.monotonic() + 5
        while time.time() - path.stat().st_mtime > 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert locks.holds("a")


@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_lost_lock_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr(vidgru.locks, "HEARTBEAT_S", 0.02)
    with Locks(tmp_path / "l") as locks:
        assert locks.acquire("a")
        assert locks.acquire("b")
        if change == "deleted":
            (tmp_path / "l" / "a.lock").unlink()
        else:
            write_foreign_lock(tmp_path / "l")
        deadline = time.monotonic() + 5
        while locks.holds("a"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert locks.holds("b")
        assert locks.acquire("a") == (change == "deleted")
    assert (tmp_path / "l" / "a.lock").exists() == (change != "deleted")  # the new holder's lock stays


def test_suspended_holder_no_longer_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Locks(tmp_path) as locks:
        assert locks.acquire("a")
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + EXPIRY_S + 1)
        assert not locks.holds("a")


def test_two_processes_share_no_lock(tmp_path: Path) -> None:
    code = """
locks = Locks(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(*[f"{n:03d}" for n in range(200) if locks.acquire(f"{n:03d}")], flush=True)
sys.stdin.readline()
"""
    with process(code, tmp_path / "l") as first, process(code, tmp_path / "l") as second:
        for child in (first, second):
            read_line(child)
        for child in (first, second):
            send_line(child, "go")
        taken = [read_line(child).split() for child in (first, second)]
    assert sorted(taken[0] + taken[1]) == NAMES


def test_dead_lock_is_taken_over_by_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "l"
    for name in NAMES:
        write_foreign_lock(folder, name)
        age_file(folder, name)
    code = """
locks = Locks(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
taken = set()
for _ in range(3):
    taken |= {name for name in locks.names() if locks.acquire(name)}
print(*[name for name in taken if locks.holds(name)], flush=True)
sys.stdin.readline()
"""
    with process(code, folder) as first, process(code, folder) as second, process(code, folder) as third:
        running = (first, second, third)
        for child in running:
            read_line(child)
        for child in running:
            send_line(child, "go")
        taken = [name for child in running for name in read_line(child).split()]
        assert sorted(taken) == NAMES
        assert {path.suffix for path in folder.iterdir()} == {".lock"}


def test_threads_share_an_instance(tmp_path: Path) -> None:
    write_foreign_lock(tmp_path)
    age_file(tmp_path)
    taken: list[str] = []
    with Locks(tmp_path) as locks:

        def take_all() -> None:
            taken.extend(name for name in ["a", *NAMES[:50]] if locks.acquire(name))

        threads = [threading.Thread(target=take_all) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == sorted(["a", *NAMES[:50]])


def test_foreign_kill_during_takeover_blocks_until_expiry(tmp_path: Path) -> None:
    write_foreign_lock(tmp_path)
    age_file(tmp_path)
    write_foreign_lock(tmp_path, "b").rename(tmp_path / "a.steal")
    with Locks(tmp_path) as locks:
        assert not locks.acquire("a")
        age_file(tmp_path, suffix="steal")
        assert locks.acquire("a")
        assert locks.holds("a")
        assert [path.name for path in tmp_path.iterdir()] == ["a.lock"]


@LINUX
def test_local_kill_during_takeover_does_not_block(tmp_path: Path) -> None:
    with process(HOLD, tmp_path) as other, Locks(tmp_path) as locks:
        read_line(other)
        other.kill()
        other.wait()
        shutil.copy(tmp_path / "a.lock", tmp_path / "a.steal")
        assert locks.acquire("a")


def test_acquire_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    with Locks(tmp_path / "l") as locks, Locks(tmp_path / "l") as other:
        assert locks.acquire("a")
        assert not other.acquire("a")
        age_file(tmp_path / "l")
        assert other.acquire("a")
    assert not (tmp_path / "l").exists()


def test_close_deletes_abandoned_files_once_expired(tmp_path: Path) -> None:
    folder = tmp_path / "l"
    with Locks(folder) as locks:
        assert locks.acquire("a")
        (folder / ".ab.tmp").touch()
        (folder / "b.steal").touch()
    assert len(list(folder.iterdir())) == 2  # recent: another process may be using them
    age_file(folder, ".ab", "tmp")
    age_file(folder, "b", "steal")
    Locks(folder).close()
    assert not folder.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forked_child_holds_no_locks(tmp_path: Path) -> None:
    code = """
import os
locks = Locks(pathlib.Path(sys.argv[1]))
assert locks.acquire("a")
child = os.fork()
if not child:
    try:
        held = locks.holds("a")
        locks.release("a")
        locks.close()
        try:
            locks.acquire("b")
        except RuntimeError:
            os._exit(3 if held else 0)
    finally:
        os._exit(4)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), locks.holds("a"), locks.names(), flush=True)
"""
    with process(code, tmp_path) as running:
        assert read_line(running) == "0 True ['a']"


def test_acquire_in_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with (
        Locks(tmp_path / "file" / "l") as locks,
        pytest.raises(
            OutputError, match=r"cannot write .*l: Not a directory\n  free disk space or choose a writable folder"
        ),
    ):
        locks.acquire("a")

    def read_only(*arguments: object, **named: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with Locks(tmp_path) as locks:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "mkdir", read_only)
            with pytest.raises(OutputError, match="Read-only file system"):
                locks.acquire("a")
        assert not locks.holds("a")
        assert locks.acquire("a")  # not left as held


def test_held_by_others_lists_live_locks(tmp_path: Path) -> None:
    folder = tmp_path / "l"
    with Locks(folder) as locks, Locks(folder) as other:
        assert locks.held_by_others() == []
        for holder, name in ((locks, "run-1"), (other, "run-2"), (other, "else")):
            assert holder.acquire(name)
        write_foreign_lock(folder, "run-3")
        write_foreign_lock(folder, "run-4")
        age_file(folder, "run-4")
        assert locks.held_by_others() == ["else", "run-2", "run-3"]
        assert other.held_by_others() == ["run-1", "run-3"]
        assert not (folder / "run-4.lock").exists(), "a dead lock is deleted"
        other.release("run-2")
        (folder / "run-3.lock").unlink()
        assert locks.held_by_others() == ["else"]


@LINUX
def test_held_by_others_skips_killed_process(tmp_path: Path) -> None:
    with process(HOLD, tmp_path / "l") as running, Locks(tmp_path / "l") as locks:
        assert read_line(running) == "True"
        assert locks.held_by_others() == ["a"]
        running.kill()
        running.wait()
        assert locks.held_by_others() == []


# --- process identity ------------------------------------------------------------------------------------------------


def test_host_id_is_equal_between_processes() -> None:
    code = "from vidgru.locks import host_id; print(host_id())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == host_id()


@LINUX
def test_has_process_ended_from_start_to_reaping() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        start = process_start(process.pid)
        assert start is not None
        assert start.isdigit()
        assert not has_process_ended(process.pid, start)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process_start(process.pid) == "ended"
        assert has_process_ended(process.pid, start)
    assert has_process_ended(process.pid, start)
    assert has_process_ended(process.pid, None)


@LINUX
def test_has_process_ended_with_reused_id() -> None:
    start = process_start(os.getpid())
    assert start is not None
    assert not has_process_ended(os.getpid(), start)
    assert not has_process_ended(os.getpid(), None)  # without a start time, the id decides
    assert has_process_ended(os.getpid(), str(int(start) - 1))
