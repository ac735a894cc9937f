"""Files: atomic writes, hashes, and what comes with the package."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vidgru.errors import OutputError


def write_atomic(path: Path, data: bytes, *, make_folder: bool = True) -> None:
    """Write `data` to `path`: a reader, or a run after a kill, finds the old file or the whole new one.

    Args:
        path: the file.
        data: all of it.
        make_folder: make the file's folder where it is not there, else that is an error.

    Raises:
        OutputError: the disk is full, read-only, or a part of the path is a file.
    """
    temporary = None
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)  # mkstemp makes private files; results are for the whole group
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}", "free the disk or choose another folder with --out"
        ) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


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


def bundled(name: str) -> Path | None:
    """A file that comes with vidgru: a preset of `configs/` or the demo's `demo.pt`; None if there is no such file.

    The wheel carries them in `vidgru/bundled`; a checkout has them in place.
    """
    checkout = _PACKAGE.parent
    for path in (_PACKAGE / "bundled" / name, checkout / "configs" / name, checkout / "data" / "demo" / name):
        if path.is_file():
            return path
    return None


_CHUNK = 1 << 20
_PACKAGE = Path(__file__).resolve().parent
_UMASK = os.umask(0)  # it can only be read by setting it
os.umask(_UMASK)
