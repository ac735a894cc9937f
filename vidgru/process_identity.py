"""Which processes live: what is found on a disk was perhaps left by one that was killed."""

from __future__ import annotations

import os
import platform
import sys
import uuid
from pathlib import Path


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
