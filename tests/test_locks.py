"""Locks: one holder at a time, dead ones taken over at once or in time, by the clock of the disk."""

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
from vidgru.locks import EXPIRY_S, Locks, is_gone, started, this_host

ROOT = Path(__file__).parent.parent
NAMES = [f"{number:03d}" for number in range(200)]
LINUX = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="only Linux tells at once that a holder died")


@contextmanager
def process(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs `code` after the imports it needs; killed at the end of the block."""
    command = [sys.executable, "-c", f"import sys, time, pathlib\nfrom vidgru.locks import Locks\n{code}"]
    with subprocess.Popen(
        [*command, *map(str, arguments)], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def said(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


def hear(running: subprocess.Popen[str], line: str) -> None:
    assert running.stdin is not None
    running.stdin.write(line + "\n")
    running.stdin.flush()


def grow_old(folder: Path, name: str = "a", suffix: str = "lease", seconds: float = EXPIRY_S + 5) -> Path:
    """Have a lease look as if it had not been touched for that long."""
    path = folder / f"{name}.{suffix}"
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def foreign(folder: Path, name: str = "a") -> Path:
    """A lease that a process of another machine holds."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.lease"
    path.write_text(json.dumps({"token": "ab", "host": "elsewhere", "pid": os.getpid(), "started": "1"}))
    return path


HOLD = """
locks = Locks(pathlib.Path(sys.argv[1]))
print(locks.acquire("a"), flush=True)
sys.stdin.readline()
locks.close()
"""


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    with Locks(tmp_path / "l") as one, Locks(tmp_path / "l") as other:
        assert one.acquire("a")
        assert not one.acquire("a")
        assert not other.acquire("a")
        assert one.holds("a")
        assert not other.holds("a")
        assert other.acquire("b")
        assert one.names() == ["a", "b"]
        other.release("a")  # not theirs: nothing happens
        assert one.holds("a")
        one.release("a")
        assert not one.holds("a")
        assert other.acquire("a")
    assert not (tmp_path / "l").exists()


def test_nothing_is_made_before_the_first_is_taken(tmp_path: Path) -> None:
    with Locks(tmp_path / "l") as locks:
        assert locks.names() == []
    assert list(tmp_path.iterdir()) == []


def test_a_living_process_keeps_its_lease(tmp_path: Path) -> None:
    with process(HOLD, tmp_path / "l") as other, Locks(tmp_path / "l") as locks:
        assert said(other) == "True"
        assert not locks.acquire("a")
        hear(other, "close")
        assert other.wait(10) == 0
        assert locks.acquire("a")


@LINUX
def test_a_killed_process_is_followed_at_once(tmp_path: Path) -> None:
    with process(HOLD, tmp_path / "l") as other, Locks(tmp_path / "l") as locks:
        assert said(other) == "True"
        other.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 5
        while not locks.acquire("a"):  # before anyone waits for it, while it is still listed as ended
            assert time.monotonic() < deadline
        assert locks.holds("a")
        assert sorted(path.name for path in (tmp_path / "l").iterdir()) == ["a.lease"]


@LINUX
def test_a_process_id_used_again_is_not_the_holder(tmp_path: Path) -> None:
    with process(HOLD, tmp_path / "l") as other, Locks(tmp_path / "l") as locks:
        said(other)
        lock = tmp_path / "l" / "a.lease"
        holder = json.loads(lock.read_bytes())
        assert not locks.acquire("a")
        lock.write_text(json.dumps({**holder, "started": "1"}))
        assert locks.acquire("a")


def test_a_lease_of_another_machine_expires_by_the_clock_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)  # the clock here is of no use
    folder = tmp_path / "l"
    foreign(folder)
    with Locks(folder) as locks:
        assert not locks.acquire("a")
        then = (folder / "a.lease").stat().st_mtime - EXPIRY_S + 5
        os.utime(folder / "a.lease", (then, then))
        assert not locks.acquire("a")
        os.utime(folder / "a.lease", (then - 10, then - 10))
        assert locks.acquire("a")
        assert [path.name for path in folder.iterdir()] == ["a.lease"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"host": 1}'])
def test_a_half_written_lease_is_judged_by_its_age(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.lease").write_text(text)
    with Locks(tmp_path) as locks:
        assert not locks.acquire("a")
        grow_old(tmp_path)
        assert locks.acquire("a")


def test_held_leases_are_kept_young(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vidgru.locks, "HEARTBEAT_S", 0.02)
    with Locks(tmp_path) as locks:
        assert locks.acquire("a")
        path = grow_old(tmp_path)
        deadline = time.monotonic() + 5
        while time.time() - path.stat().st_mtime > 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert locks.holds("a")


@pytest.mark.parametrize("how", ["gone", "another's"])
def test_a_lost_lease_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(vidgru.locks, "HEARTBEAT_S", 0.02)
    with Locks(tmp_path / "l") as locks:
        assert locks.acquire("a")
        assert locks.acquire("b")
        if how == "gone":
            (tmp_path / "l" / "a.lease").unlink()
        else:
            foreign(tmp_path / "l")
        deadline = time.monotonic() + 5
        while locks.holds("a"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert locks.holds("b")
        assert locks.acquire("a") == (how == "gone")
    assert (tmp_path / "l" / "a.lease").exists() == (how != "gone")  # another's is not deleted


def test_a_holder_that_stood_still_does_not_think_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Locks(tmp_path) as locks:
        assert locks.acquire("a")
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + EXPIRY_S + 1)
        assert not locks.holds("a")


def test_two_processes_take_each_of_many_once(tmp_path: Path) -> None:
    code = """
locks = Locks(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(*[f"{n:03d}" for n in range(200) if locks.acquire(f"{n:03d}")], flush=True)
sys.stdin.readline()
"""
    with process(code, tmp_path / "l") as one, process(code, tmp_path / "l") as other:
        for running in (one, other):
            said(running)
        for running in (one, other):
            hear(running, "go")
        taken = [said(running).split() for running in (one, other)]
    assert sorted(taken[0] + taken[1]) == NAMES


def test_one_of_several_takers_gets_a_dead_lease(tmp_path: Path) -> None:
    folder = tmp_path / "l"
    for name in NAMES:
        foreign(folder, name)
        grow_old(folder, name)
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
    with process(code, folder) as one, process(code, folder) as two, process(code, folder) as three:
        running = (one, two, three)
        for taker in running:
            said(taker)
        for taker in running:
            hear(taker, "go")
        taken = [name for taker in running for name in said(taker).split()]
        assert sorted(taken) == NAMES
        assert {path.suffix for path in folder.iterdir()} == {".lease"}


def test_threads_may_share_one(tmp_path: Path) -> None:
    foreign(tmp_path)
    grow_old(tmp_path)
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


def test_a_taker_that_was_killed_at_it_blocks_for_a_while_only(tmp_path: Path) -> None:
    foreign(tmp_path)
    grow_old(tmp_path)
    foreign(tmp_path, "b").rename(tmp_path / "a.steal")
    with Locks(tmp_path) as locks:
        assert not locks.acquire("a")
        grow_old(tmp_path, suffix="steal")
        assert locks.acquire("a")
        assert locks.holds("a")
        assert [path.name for path in tmp_path.iterdir()] == ["a.lease"]


@LINUX
def test_a_taker_that_was_killed_at_it_here_does_not_block(tmp_path: Path) -> None:
    with process(HOLD, tmp_path) as other, Locks(tmp_path) as locks:
        said(other)
        other.kill()
        other.wait()
        shutil.copy(tmp_path / "a.lease", tmp_path / "a.steal")
        assert locks.acquire("a")


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    with Locks(tmp_path / "l") as one, Locks(tmp_path / "l") as other:
        assert one.acquire("a")
        assert not other.acquire("a")
        grow_old(tmp_path / "l")
        assert other.acquire("a")
    assert not (tmp_path / "l").exists()


def test_what_kills_left_in_the_folder_is_cleared_away_in_time(tmp_path: Path) -> None:
    folder = tmp_path / "l"
    with Locks(folder) as locks:
        assert locks.acquire("a")
        (folder / ".ab.tmp").touch()
        (folder / "b.steal").touch()
    assert len(list(folder.iterdir())) == 2  # young: someone may be at it
    grow_old(folder, ".ab", "tmp")
    grow_old(folder, "b", "steal")
    Locks(folder).close()
    assert not folder.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_no_leases(tmp_path: Path) -> None:
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
        assert said(running) == "0 True ['a']"


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with (
        Locks(tmp_path / "file" / "l") as locks,
        pytest.raises(OutputError, match=r"cannot write .*l: Not a directory\n  free the disk or choose"),
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
        assert locks.acquire("a")  # it was not left as taken


def test_who_else_is_at_work(tmp_path: Path) -> None:
    folder = tmp_path / "l"
    with Locks(folder) as one, Locks(folder) as other:
        assert one.held_by_others() == []
        for locks, name in ((one, "run-1"), (other, "run-2"), (other, "else")):
            assert locks.acquire(name)
        foreign(folder, "run-3")
        foreign(folder, "run-4")
        grow_old(folder, "run-4")
        assert one.held_by_others() == ["else", "run-2", "run-3"]
        assert other.held_by_others() == ["run-1", "run-3"]
        assert not (folder / "run-4.lease").exists(), "a dead one is deleted"
        other.release("run-2")
        (folder / "run-3.lease").unlink()
        assert one.held_by_others() == ["else"]


@LINUX
def test_a_killed_process_is_not_at_work(tmp_path: Path) -> None:
    with process(HOLD, tmp_path / "l") as running, Locks(tmp_path / "l") as locks:
        assert said(running) == "True"
        assert locks.held_by_others() == ["a"]
        running.kill()
        running.wait()
        assert locks.held_by_others() == []


def test_processes_of_a_machine_agree_on_its_name() -> None:
    code = "from vidgru.locks import this_host; print(this_host())"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == this_host()


@LINUX
def test_a_process_from_its_life_to_its_end() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        start = started(process.pid)
        assert start is not None
        assert start.isdigit()
        assert not is_gone(process.pid, start)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert started(process.pid) == "ended"
        assert is_gone(process.pid, start)
    assert is_gone(process.pid, start)
    assert is_gone(process.pid, None)


@LINUX
def test_an_id_that_is_another_s_by_now() -> None:
    mine = started(os.getpid())
    assert mine is not None
    assert not is_gone(os.getpid(), mine)
    assert not is_gone(os.getpid(), None)  # nothing tells them apart
    assert is_gone(os.getpid(), str(int(mine) - 1))
