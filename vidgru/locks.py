"""Locks over a shared folder, between processes on one machine or on several that share a disk.

A lock is a file that its holder touches every HEARTBEAT_S seconds. Only a file system is needed: creating a file that
must not exist yet is atomic, on NFS 3 and later too. A lock is dead, and may be taken over, if

- its holder ran on this machine and that process has ended: a run after `kill -9` does not wait; or
- it has not been touched for EXPIRY_S seconds by the clock of the file system. Clocks of machines differ, so its mtime
  is compared with that of a file written to the same folder at that moment, never with the local clock. A lock file
  that cannot be parsed, cut short by a kill, is subject to this rule alone.

Only one process at a time may take over a lock: it needs `<name>.steal`, created as a lock is, under which it checks
the lock again and replaces it by a rename.

Two races remain. A holder that was suspended for EXPIRY_S (a laptop that slept, a disk that hung) may wake just as its
lock is taken over, and touch or delete the new holder's. And if a process is killed between two system calls while it
takes over, two others may remove its `.steal` at once and both take over. In either case two processes work on the
same thing for up to HEARTBEAT_S, until one sees the other's lock in place of its own and `holds` turns False. That
costs work and nothing else: a cache entry is written in a private folder, taking it over renames that folder, and it
becomes the entry whole.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import sys
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from vidgru.errors import OutputError

# Why not `filelock.SoftFileLease` (4.3.1)? A kill between creating its file and writing it leaves an empty file that it
# never takes over; without RENAME_EXCHANGE, as on NFS, it takes over no dead lock at all; a lock of another machine is
# never taken at the first attempt, however old; and each lock held costs a thread and an open file.

HEARTBEAT_S = 5.0
EXPIRY_S = 60.0
_MAX_ATTEMPTS = 8  # while others release the lock, or remove the folder, at the same moment


@dataclass
class _HeldLock:
    """A lock of this process: the content of its file, and when it was last confirmed (monotonic clock)."""

    content: bytes
    confirmed: float


class Locks:
    """Locks that this process holds in a folder. Use in a `with` block, which releases all of them at its end.

    Threads may share an instance. A forked child may not: the parent keeps its locks, and the child needs an instance
    of its own.

    Args:
        folder: Folder shared by all processes that must not do the same work; created with the first lock and removed
            once empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[str, _HeldLock] = {}
        self._mutex = threading.Lock()  # guards _held; never held while waiting for the disk
        self._pid = os.getpid()
        self._closing = threading.Event()
        self._heartbeat: threading.Thread | None = None

    def __enter__(self) -> Locks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def acquire(self, name: str) -> bool:
        """Acquire lock `name` without waiting. Return False if a live holder has it, this object included.

        Raises:
            OutputError: The folder cannot be written.
        """
        if os.getpid() != self._pid:
            raise RuntimeError("Locks cannot be used after a fork; create a new instance in the child")
        with self._mutex:
            if name in self._held:
                return False
            # Not held yet (`confirmed` is long past), but no other thread may try meanwhile.
            held = self._held[name] = _HeldLock(_owner_record(), float("-inf"))
        acquired = False
        try:
            acquired = self._acquire(name, held.content)
        except OSError as error:
            raise OutputError(
                f"cannot write {self.folder}: {error.strerror}", "free disk space or choose a writable folder"
            ) from error
        finally:
            with self._mutex:
                if acquired:
                    held.confirmed = time.monotonic()
                else:
                    del self._held[name]
                if acquired and self._heartbeat is None:
                    self._heartbeat = threading.Thread(target=self._keep_alive, name="locks", daemon=True)
                    self._heartbeat.start()
        return acquired

    def holds(self, name: str) -> bool:
        """Whether this object still holds `name`: False once released, lost, or not touched for EXPIRY_S."""
        held = self._held.get(name)
        return held is not None and os.getpid() == self._pid and time.monotonic() - held.confirmed < EXPIRY_S

    def release(self, name: str) -> None:
        """Release `name`; do nothing if this object does not hold it."""
        if os.getpid() != self._pid:
            return
        with self._mutex:
            held = self._held.pop(name, None)
        path = self._path(name)
        with suppress(OSError):  # a file that cannot be deleted expires
            if held is not None and path.read_bytes() == held.content:
                path.unlink()

    def names(self) -> list[str]:
        """Return the names of all locks in the folder, dead ones included."""
        return sorted(path.stem for path in self.folder.glob("*.lock"))

    def held_by_others(self) -> list[str]:
        """Return the names of locks with a live holder other than this object, and delete dead ones.

        Raises:
            OutputError: The folder cannot be written.
        """
        names = []
        for name in self.names():
            if self.holds(name):
                continue
            if self.acquire(name):  # only a dead lock can be acquired
                self.release(name)
            else:
                names.append(name)
        return names

    def close(self) -> None:
        """Release all locks, and remove the folder if it is empty."""
        if os.getpid() != self._pid:
            return
        self._closing.set()
        for name in list(self._held):
            self.release(name)
        with suppress(OSError):  # the folder is gone already, or others have locks in it
            for path in (*self.folder.glob(".*.tmp"), *self.folder.glob("*.steal")):
                if self._age_s(path) > EXPIRY_S:  # left by a killed process
                    path.unlink()
            self.folder.rmdir()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.lock"

    def _acquire(self, name: str, content: bytes) -> bool:
        path = self._path(name)
        for _ in range(_MAX_ATTEMPTS):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                _create(path, content)
                return True
            except FileNotFoundError:  # another process has just closed and removed the folder
                continue
            except FileExistsError:
                pass
            try:
                return self._is_dead(path) and self._take_over(path, content)
            except FileNotFoundError:  # released meanwhile
                continue
        return False

    def _take_over(self, path: Path, content: bytes) -> bool:
        """Replace a dead lock; return False if another process is doing so or was faster."""
        guard, replacement = path.with_suffix(".steal"), path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            _create(guard, content)
        except FileExistsError:
            if not self._is_dead(guard):
                return False
            guard.unlink(missing_ok=True)  # its process was killed while taking over
            return self._take_over(path, content)
        try:
            if not self._is_dead(path):
                return False
            replacement.write_bytes(content)
            os.replace(replacement, path)
            return True
        finally:
            replacement.unlink(missing_ok=True)
            guard.unlink(missing_ok=True)

    def _is_dead(self, path: Path) -> bool:
        try:
            owner = json.loads(path.read_bytes())
            if owner["host"] == host_id() and has_process_ended(owner["pid"], owner["started"]):
                return True
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        return self._age_s(path) > EXPIRY_S

    def _age_s(self, path: Path) -> float:
        """Seconds since a file was touched, by the clock of the file system."""
        probe = path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            probe.touch()
            os.utime(probe)  # a network disk sets its server's time
            with open(path, "rb") as file:  # opening makes a network file system ask the server, not its cache
                return probe.stat().st_mtime - os.fstat(file.fileno()).st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _keep_alive(self) -> None:
        while not self._closing.wait(HEARTBEAT_S):
            with self._mutex:
                acquired = {name: held for name, held in self._held.items() if held.confirmed > float("-inf")}
            for name, held in acquired.items():
                self._touch(name, held)

    def _touch(self, name: str, held: _HeldLock) -> None:
        """Touch the file of a lock, or drop the lock if another process has taken it over."""
        path = self._path(name)
        try:
            is_ours = path.read_bytes() == held.content
            if is_ours:
                os.utime(path)
                held.confirmed = time.monotonic()
        except FileNotFoundError:
            is_ours = False
        except OSError:  # the disk does not answer: the lock is ours until it could have expired
            return
        if not is_ours:
            with self._mutex:
                if self._held.get(name) is held:
                    del self._held[name]


def _create(path: Path, content: bytes) -> None:
    """Write a file that must not exist yet.

    A kill between creating and writing a file would leave a lock that nobody can parse, and others would wait for it
    to expire. So the file is written under another name first and linked, where the file system has hard links.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        temporary.write_bytes(content)
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # no hard links
            with open(path, "xb") as file:
                file.write(content)
    finally:
        temporary.unlink(missing_ok=True)


def _owner_record() -> bytes:
    """Content of a lock file: its owner, and a token that makes each lock different."""
    pid = os.getpid()
    record = {"token": secrets.token_hex(8), "host": host_id(), "pid": pid, "started": process_start(pid)}
    return json.dumps(record).encode()


# --- process identity -------------------------------------------------------------------------------------------------


def host_id() -> str:
    """Identify this machine, boot and container: process ids are comparable only between equal host ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux: its network card, or a random number that differs from process to process
        return f"{platform.node()} {uuid.getnode():012x}"


def process_start(pid: int) -> str | None:
    """Return the start time of a process in clock ticks after boot, "ended" for a zombie, None if unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return "ended" if fields[0] in (b"Z", b"X") else fields[19].decode()
    except (OSError, IndexError):
        return None


def has_process_ended(pid: int, start: str | None) -> bool:
    """Whether a process of this machine has ended, even if its id has been reused since.

    Args:
        pid: Process id.
        start: Its `process_start`, recorded while it ran; None if unknown.
    """
    if sys.platform == "win32":  # there, os.kill(pid, 0) would interrupt the process
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's process
        pass
    current = process_start(pid)
    return start is not None and current is not None and current != start
