"""Who works on what: leases over a shared folder, between processes on one machine or on several that share a disk.

A lease is a file that its holder touches every few seconds. Nothing but a file system is needed: making a file that
must not exist yet is atomic, on NFS 3 and later too. A lease is dead, and may be taken over, if

- its holder ran on this machine and its process is gone: a run after `kill -9` does not wait; or
- it has not been touched for EXPIRY_S seconds by the clock of the file system. Clocks of machines differ, so its mtime
  is held against that of a file written in the same folder at that moment, never against the clock here. A lease that
  does not read, cut short by a kill, is judged by this alone.

Taking over is for one at a time: it needs `<name>.steal`, made as a lease is, under which the lease is looked at again
and replaced by a rename. What can still go wrong: a holder that stood still for EXPIRY_S (a laptop that slept, a disk
that hung) may wake at the moment in which its lease is taken over, and touch or delete the new holder's; and where a
taker is killed between two system calls, two others may clear its `.steal` away at once and take over both. Then two
work on the same thing for up to HEARTBEAT_S, until one sees another's lease in the place of its own and `holds` turns
False. That costs work and nothing else: a cache entry is written in a folder of its own, taking it over renames that
folder, and it becomes the entry whole.
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

HEARTBEAT_S = 5.0
EXPIRY_S = 60.0
_ATTEMPTS = 8  # at a lease that others release, or at a folder that they remove, at the same moment


@dataclass
class _Held:
    """A lease of this process: what its file says, and when it was last seen to be ours (monotonic clock)."""

    text: bytes
    touched: float


class Locks:
    """The leases that this process holds in a folder, to be used in a `with` block; at its end all are released.

    Threads may share one. A forked child may not: its parent goes on holding them, and it makes its own.

    Args:
        folder: shared by all who must not do the same work; made when the first lease is taken, removed when empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()  # of _held; never held while the disk is waited for
        self._process = os.getpid()
        self._closing = threading.Event()
        self._heart: threading.Thread | None = None

    def __enter__(self) -> Locks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def acquire(self, name: str) -> bool:
        """Become the holder of `name`; False if it has one that lives, this object among them.

        Raises:
            OutputError: the folder cannot be written.
        """
        if os.getpid() != self._process:
            raise RuntimeError("Leases are their process's own; make another after a fork")
        with self._lock:
            if name in self._held:
                return False
            held = self._held[name] = _Held(_claim(), float("-inf"))  # not held yet, and no other thread tries
        taken = False
        try:
            taken = self._take(name, held.text)
        except OSError as error:
            raise OutputError(
                f"cannot write {self.folder}: {error.strerror}", "free the disk or choose a folder that can be written"
            ) from error
        finally:
            with self._lock:
                if taken:
                    held.touched = time.monotonic()
                else:
                    del self._held[name]
                if taken and self._heart is None:
                    self._heart = threading.Thread(target=self._beat, name="leases", daemon=True)
                    self._heart.start()
        return taken

    def holds(self, name: str) -> bool:
        """Whether `name` is still ours: False once it was released, lost, or not touched for EXPIRY_S."""
        held = self._held.get(name)
        return held is not None and os.getpid() == self._process and time.monotonic() - held.touched < EXPIRY_S

    def release(self, name: str) -> None:
        """Give `name` up; nothing happens where it is not ours."""
        if os.getpid() != self._process:
            return
        with self._lock:
            held = self._held.pop(name, None)
        path = self._path(name)
        with suppress(OSError):  # one that cannot be deleted expires
            if held is not None and path.read_bytes() == held.text:
                path.unlink()

    def names(self) -> list[str]:
        """What anyone has a lease of, dead ones among them."""
        return sorted(path.stem for path in self.folder.glob("*.lease"))

    def held_by_others(self) -> list[str]:
        """Names of which somebody else has a lease that lives. Dead ones are deleted.

        Raises:
            OutputError: the folder cannot be written.
        """
        found = []
        for name in self.names():
            if self.holds(name):
                continue
            if self.acquire(name):  # as no living one can be
                self.release(name)
            else:
                found.append(name)
        return found

    def close(self) -> None:
        """Release all."""
        if os.getpid() != self._process:
            return
        self._closing.set()
        for name in list(self._held):
            self.release(name)
        with suppress(OSError):  # it is not there, or others have leases in it
            for path in (*self.folder.glob(".*.tmp"), *self.folder.glob("*.steal")):
                if self._age(path) > EXPIRY_S:  # a kill left it
                    path.unlink()
            self.folder.rmdir()

    # --- taking -----------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.lease"

    def _take(self, name: str, text: bytes) -> bool:
        path = self._path(name)
        for _ in range(_ATTEMPTS):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                _create(path, text)
                return True
            except FileNotFoundError:  # another that closed has just removed the folder
                continue
            except FileExistsError:
                pass
            try:
                return self._is_dead(path) and self._steal(path, text)
            except FileNotFoundError:  # released meanwhile
                continue
        return False

    def _steal(self, path: Path, text: bytes) -> bool:
        """Replace a dead lease; False if another is at it, or was faster."""
        lock, mine = path.with_suffix(".steal"), path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            _create(lock, text)
        except FileExistsError:
            if not self._is_dead(lock):
                return False
            lock.unlink(missing_ok=True)  # its maker was killed at it
            return self._steal(path, text)
        try:
            if not self._is_dead(path):
                return False
            mine.write_bytes(text)
            os.replace(mine, path)
            return True
        finally:
            mine.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)

    def _is_dead(self, path: Path) -> bool:
        try:
            holder = json.loads(path.read_bytes())
            if holder["host"] == this_host() and is_gone(holder["pid"], holder["started"]):
                return True
        except (ValueError, TypeError, KeyError):
            pass
        return self._age(path) > EXPIRY_S

    def _age(self, path: Path) -> float:
        """Seconds since a file was touched, by the file system's clock."""
        probe = path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            probe.touch()
            os.utime(probe)  # of the server, where the disk is a network's
            with open(path, "rb") as file:  # opening makes a network file system ask the server
                return probe.stat().st_mtime - os.fstat(file.fileno()).st_mtime
        finally:
            probe.unlink(missing_ok=True)

    # --- keeping ----------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        while not self._closing.wait(HEARTBEAT_S):
            with self._lock:
                held = {name: one for name, one in self._held.items() if one.touched > float("-inf")}
            for name, one in held.items():
                self._touch(name, one)

    def _touch(self, name: str, held: _Held) -> None:
        """Keep a lease alive, or forget it if it is another's by now."""
        path = self._path(name)
        try:
            ours = path.read_bytes() == held.text
            if ours:
                os.utime(path)
                held.touched = time.monotonic()
        except FileNotFoundError:
            ours = False
        except OSError:  # the disk does not answer: it is ours until it could have expired
            return
        if not ours:
            with self._lock:
                if self._held.get(name) is held:
                    del self._held[name]


def _create(path: Path, text: bytes) -> None:
    """Write a file that must not exist yet.

    Where the file system has hard links it is there whole at once: a kill between making and writing it would leave a
    lease that does not read, and a wait for that to expire.
    """
    whole = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        whole.write_bytes(text)
        try:
            os.link(whole, path)
        except FileExistsError:
            raise
        except OSError:  # there are none
            with open(path, "xb") as file:
                file.write(text)
    finally:
        whole.unlink(missing_ok=True)


def _claim() -> bytes:
    """What a lease says of its holder; the token makes each one different."""
    pid = os.getpid()
    return json.dumps(
        {"token": secrets.token_hex(8), "host": this_host(), "pid": pid, "started": started(pid)}
    ).encode()


def this_host() -> str:
    """This machine, from boot to boot, and this container of it: where equal, process ids mean the same processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux: its network card; a number made up in place of one differs from process to process
        return f"{platform.node()} {uuid.getnode():012x}"


def started(pid: int) -> str | None:
    """When a process started, in ticks after boot; "ended" if only its parent's waiting for it keeps it listed.

    None where the system does not tell.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return "ended" if fields[0] in (b"Z", b"X") else fields[19].decode()
    except (OSError, IndexError):
        return None


def is_gone(pid: int, start: str | None) -> bool:
    """Whether a process of this machine has ended, its id perhaps another's by now.

    Args:
        pid: its id.
        start: when it started, as `started` told then.
    """
    if sys.platform == "win32":  # where asking is a signal
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        pass
    now = started(pid)
    return start is not None and now is not None and now != start
