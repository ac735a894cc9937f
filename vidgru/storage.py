"""Files: atomic writes, hashes, and what comes with the package."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vidgru.errors import OutputError
from vidgru.locks import is_gone, started, this_host


def write_atomic(path: Path, data: bytes, *, make_folder: bool = True) -> None:
    """Write `data` to `path`: a reader, or a run after a kill, finds the old file or the whole new one.

    What killed processes left of writing the same file is deleted.

    Args:
        path: the file.
        data: all of it.
        make_folder: make the file's folder where it is not there, else that is an error.

    Raises:
        OutputError: the disk is full, read-only, or a part of the path is a file.
    """
    temporary: Path | None = None
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(path)
        with open(temporary, "xb") as file:
            file.write(data)
        replace_atomic(temporary, path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}", "free the disk or choose another folder with --out"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """A name for what is to become `path`, beside it, that nobody else has; it tells which process is at it."""
    pid = os.getpid()
    writer = f"{_digest(this_host())}-{pid}-{started(pid) or 0}"
    return path.with_name(f".{path.name}.{writer}.{secrets.token_hex(4)}.tmp")


def replace_atomic(temporary: Path, path: Path) -> None:
    """Rename what has been written under the name of `temporary_path`, and delete what killed processes left there.

    Raises:
        OSError: that cannot be done.
    """
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)
    _sweep(path)


def _sweep(path: Path) -> None:
    """Delete what others left of writing `path`: those of this machine that are dead, and those unknown long ago."""
    prefix, here = f".{path.name}.", _digest(this_host())
    with suppress(OSError), os.scandir(path.parent) as entries:
        now = path.stat().st_mtime  # it has just been written, and clocks of machines differ
        for entry in entries:
            found = _TEMPORARY.fullmatch(entry.name.removeprefix(prefix)) if entry.name.startswith(prefix) else None
            if found is None:
                continue
            with suppress(OSError):
                if found["host"] == here:
                    left = is_gone(int(found["pid"]), None if found["start"] == "0" else found["start"])
                else:
                    left = now - entry.stat().st_mtime > _LEFT_S
                if left:
                    os.unlink(entry)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write values as JSON that a person can read; as `write_atomic`."""
    write_atomic(path, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder outlast a power cut, where the system can: after a rename in it."""
    if os.name == "posix":
        with suppress(OSError):  # some network file systems refuse; they keep names by themselves
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def sha256_file(path: Path, between: Callable[[], None] | None = None) -> str:
    """SHA-256 of a file's bytes, in hex.

    Args:
        path: the file.
        between: called after every MB; what it raises ends the reading: a long file keeps nobody waiting.
    """
    digest, chunk = hashlib.sha256(), memoryview(bytearray(_CHUNK))
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(chunk):
            digest.update(chunk[:size])
            if between is not None:
                between()
    return digest.hexdigest()


def bundled_file(name: str) -> Path | None:
    """A file that comes with vidgru: a preset of `configs/` or the demo's `demo.pt`; None if there is no such file.

    The wheel carries them in `vidgru/bundled`; a checkout has them in place.
    """
    checkout = _PACKAGE.parent
    for path in (_PACKAGE / "bundled" / name, checkout / "configs" / name, checkout / "data" / "demo" / name):
        if path.is_file():
            return path
    return None


_CHUNK = 1 << 20
# behind the name of the file; host, process and its start were not told before
_TEMPORARY = re.compile(r"((?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)\.)?\w{8}\.tmp")
_LEFT_S = 86400.0  # nobody writes a file for a day
_PACKAGE = Path(__file__).resolve().parent
