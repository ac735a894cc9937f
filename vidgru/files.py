"""Files: atomic writes, hashes, and what comes with the package."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from vidgru.errors import OutputError


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path`: a reader, or a run after a kill, finds the old file or the whole new one.

    Raises:
        OutputError: the disk is full, read-only, or a part of the path is a file.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)  # mkstemp makes private files; results are for the whole group
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}", "free the disk or choose another folder with --out"
        ) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bundled(name: str) -> Path | None:
    """A file that comes with vidgru: a preset of `configs/` or the demo's `demo.pt`; None if there is no such file.

    The wheel carries them in `vidgru/bundled`; a checkout has them in place.
    """
    checkout = _PACKAGE.parent
    for path in (_PACKAGE / "bundled" / name, checkout / "configs" / name, checkout / "data" / "demo" / name):
        if path.is_file():
            return path
    return None


_PACKAGE = Path(__file__).resolve().parent
_UMASK = os.umask(0)  # it can only be read by setting it
os.umask(_UMASK)
