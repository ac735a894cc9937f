"""Cache entries for tests: how they are written, interrupted and damaged."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.sequences import make_sequence
from vidgru.cache import EntryWriter, SequenceCache
from vidgru.cache.entry import UNFINISHED
from vidgru.types import FrameSequence

FIELDS = {
    "status": "done",
    "duration_s": 9.5,
    "fps": 8.0,
    "size_px": (320, 192),
    "names": ("person", "car", "bag"),
    "feature_settings": {"imgsz": 640},
}
RUN_INFO = {"device": "cpu", "threads": 2}
KEY = SequenceCache.key("ab" * 32, {"imgsz": 640})
LONG = make_sequence(50, 2)  # 6 parts of 8 and one of 2


def write_entry(cache: SequenceCache, *sequences: FrameSequence, key: str = KEY) -> None:
    with cache.writer(key, RUN_INFO) as writer:
        for sequence in sequences:
            writer.append(sequence)
        writer.finish(**FIELDS)


def append_samples(writer: EntryWriter, stop: int = 50) -> None:
    """Append four samples at a time up to `stop`, and finish at 50."""
    for start in range(writer.samples, stop, 4):
        writer.append(LONG.frames(start, start + 4), {"next": min(start + 4, 50)})
    if stop == 50:
        writer.finish(**FIELDS)


def write_until(cache: SequenceCache, stop: int) -> Path:
    """Write up to sample `stop` as a writer that is then killed, and return its folder."""
    writer = cache.writer(KEY, RUN_INFO).__enter__()
    append_samples(writer, stop)
    return writer._folder


def write_without_kill(root: Path) -> dict[str, bytes]:
    """Write the whole entry in one go, and return its files."""
    cache = SequenceCache(root)
    with cache.writer(KEY, RUN_INFO) as writer:
        append_samples(writer)
    return read_files(root / KEY)


def write_recording(path: Path, data: bytes) -> Path:
    """Write a file whose mtime is some minutes ago."""
    path.write_bytes(data)
    os.utime(path, ns=(time.time_ns() - 300 * 10**9,) * 2)
    return path


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def entry_names(root: Path) -> list[str]:
    """Names of entries and incomplete entries."""
    return [path.name for path in (*root.glob("[!.]*"), *root.glob(f"{UNFINISHED}/*"))]


def damage_entry(folder: Path, kind: str) -> None:
    """Damage the first part, or `entry.json`, of an entry."""
    part = folder / "part-00000.safetensors"
    if kind == "flipped":
        data = bytearray(part.read_bytes())
        data[-3] ^= 1
        part.write_bytes(data)
    elif kind == "short":
        part.write_bytes(part.read_bytes()[:-10])
    elif kind == "empty":
        part.write_bytes(b"")
    elif kind == "missing":
        part.unlink()
    elif kind == "header":
        data = bytearray(part.read_bytes())
        data[8] ^= 1
        part.write_bytes(data)
    elif kind == "marked":
        (folder / "entry.json").rename(folder / "corrupt.json")
    elif kind == "entry":
        (folder / "entry.json").write_text("{")


def raise_errno(number: int) -> Callable[..., None]:
    """Return a function that fails with this error, whatever its arguments."""

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail
