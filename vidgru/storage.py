"""Files: atomic writes, hashes, and files bundled with the package."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

from vidgru.errors import OutputError
from vidgru.locks import has_process_ended, host_id, process_start

_CHUNK = 1 << 20
_PACKAGE = Path(__file__).resolve().parent
# The part of a temporary file's name after the name of its target. Earlier versions wrote no host, pid and start.
_TEMPORARY_SUFFIX = re.compile(r"((?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)\.)?\w{8}\.tmp")
_ABANDONED_S = 86400.0  # no write takes a day


def user_path(path: str | Path) -> Path:
    """Return a path as a user gave it, with `~` expanded; `~name` stays if there is no such user."""
    return Path(os.path.expanduser(path))


def write_atomic(path: Path, data: bytes, *, make_folder: bool = True) -> None:
    """Write `data` to `path`: readers, and a run after a kill, see either the old file or the whole new one.

    Temporary files that killed processes left while writing the same file are deleted.

    Args:
        path: Target file.
        data: Its whole content.
        make_folder: Create the parent folder if it is missing; otherwise a missing folder is an error.

    Raises:
        OutputError: The disk is full or read-only, or a part of the path is a file.
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
            f"cannot write {path}: {error.strerror or error}", "free disk space or choose another folder with --out"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write values as indented JSON, with `write_atomic`."""
    write_atomic(path, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def temporary_path(path: Path) -> Path:
    """Return a unique path beside `path` to write its content to. The name identifies the writing process."""
    pid = os.getpid()
    writer = f"{_short_hash(host_id())}-{pid}-{process_start(pid) or 0}"
    return path.with_name(f".{path.name}.{writer}.{secrets.token_hex(4)}.tmp")


def replace_atomic(temporary: Path, path: Path) -> None:
    """Flush a file written at `temporary_path(path)`, rename it to `path`, and delete abandoned ones.

    Raises:
        OSError: The file cannot be flushed or renamed.
    """
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)
    _delete_abandoned(path)


def _delete_abandoned(path: Path) -> None:
    """Delete temporary files of `path` whose writer has ended, or, if the writer is unknown, that are a day old."""
    prefix, host = f".{path.name}.", _short_hash(host_id())
    with suppress(OSError), os.scandir(path.parent) as entries:
        now = path.stat().st_mtime  # just written, so by the disk's clock: clocks of machines differ
        for entry in entries:
            if not entry.name.startswith(prefix):
                continue
            match = _TEMPORARY_SUFFIX.fullmatch(entry.name.removeprefix(prefix))
            if match is None:
                continue
            with suppress(OSError):
                if match["host"] == host:
                    start = None if match["start"] == "0" else match["start"]
                    is_abandoned = has_process_ended(int(match["pid"]), start)
                else:
                    is_abandoned = now - entry.stat().st_mtime > _ABANDONED_S
                if is_abandoned:
                    os.unlink(entry)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk after a rename, where the system supports it."""
    if os.name == "posix":
        with suppress(OSError):  # some network file systems refuse; they keep names by themselves
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def unused_path(path: Path, is_used: Callable[[Path], bool]) -> Path:
    """Return the path, or the first of path2, path3, ... that is not used: runs/train2, start2.safetensors."""
    base, suffix = (path.with_suffix(""), path.suffix) if path.is_file() else (path, "")
    if not base.name or base.name == "..":
        base = base.resolve()
    candidates = (base.with_name(f"{base.name}{number}{suffix}") for number in count(2))
    return next(candidate for candidate in chain([path], candidates) if not is_used(candidate))


def sha256_file(path: Path, on_chunk: Callable[[], None] | None = None) -> str:
    """Return the SHA-256 of a file's bytes, in hex.

    Args:
        path: The file.
        on_chunk: Called after every MB; an exception it raises stops the reading of a long file.

    Raises:
        OSError: It cannot be read, or is none: opening a named pipe would wait forever.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        # A part of a cache is small, and clearing a whole MB would take longer than hashing it.
        chunk = memoryview(bytearray(max(4096, min(os.fstat(file.fileno()).st_size, _CHUNK))))
        while size := file.readinto(chunk):
            digest.update(chunk[:size])
            if on_chunk is not None:
                on_chunk()
    return digest.hexdigest()


def bundled_file(name: str) -> Path | None:
    """Return a file that comes with vidgru, a preset of `configs/` or a model of `data/demo/`; None if there is none.

    The wheel carries these files in `vidgru/bundled`; in a checkout they are in their own folders.
    """
    checkout = _PACKAGE.parent
    for path in (_PACKAGE / "bundled" / name, checkout / "configs" / name, checkout / "data" / "demo" / name):
        if path.is_file():
            return path
    return None


def format_bytes(size: int) -> str:
    """Format a number of bytes with a decimal prefix."""
    power = min(len(f"{size}") - 1, 14) // 3
    return f"{size / 1000**power:.1f} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}" if power else f"{size} bytes"
