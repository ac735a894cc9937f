"""Delete from a cache what no recording needs.

That is entries of recordings that are gone or have changed, corrupt entries, and incomplete ones of killed runs. What
another process has locked is kept, and so are recordings of live sources, which cannot be made again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidgru.cache.entry import live_source
from vidgru.cache.store import SequenceCache
from vidgru.errors import CacheError
from vidgru.locks import Locks
from vidgru.storage import format_bytes

UNKNOWN_SOURCE = "an unknown recording"
_INCOMPLETE = "incomplete"


def prune_cache(root: Path) -> list[str]:
    """Delete from a cache what no recording needs, and return a line per deletion and the totals.

    Raises:
        CacheError: The index is empty, so that needed entries are unknown.
        OutputError: Something cannot be deleted.
    """
    cache = SequenceCache(root)
    if not cache.records():
        raise CacheError(
            f"{root / 'index.jsonl'} lists no recordings, so needed entries are unknown",
            "run vidgru extract on the recordings: it reuses their entries and lists them",
        )
    sources, removed, freed = cache.sources(), Counter[str](), 0
    lines: list[str] = []
    with Locks(cache.lock_folder) as locks:
        busy = {name for name in locks.names() if not locks.acquire(name)}  # this also clears locks of dead processes
        for key in {key for key, _, _ in _unneeded(cache)}:
            if key not in busy and not locks.holds(key) and not locks.acquire(key):
                busy.add(key)
        # again: before all locks were held, another process may have finished an entry and listed it
        for key, folder, reason in _unneeded(cache):
            title = f"{folder.name}, of {', '.join(sources.get(key, [UNKNOWN_SOURCE]))}"
            if not locks.holds(key):
                lines.append(f"kept {title}: locked by another process")
                continue
            size = sum(path.stat().st_size for path in folder.iterdir())
            cache.remove(folder)
            lines.append(f"removed {title}: {reason}, {format_bytes(size)}")
            removed[reason] += 1
            freed += size
        keys = set(cache.entry_keys())
        if not busy:  # else another process may be appending to the index
            cache.compact(lambda record: record["key"] in keys and _is_needed(cache, record))
    incomplete = removed.pop(_INCOMPLETE, 0)
    total = f"removed {_entries(removed.total())} and {incomplete} incomplete, {format_bytes(freed)} freed"
    return [*lines, f"{total}; {_entries(len(keys))} kept"]


def _unneeded(cache: SequenceCache) -> list[tuple[str, Path, str]]:
    """Return key, folder and reason of what can be deleted."""
    needed = {record["key"] for record in cache.records() if _is_needed(cache, record)}
    unneeded = [(key, path, _INCOMPLETE) for key, path in cache.incomplete_entries() if live_source(path) is None]
    for key in cache.entry_keys():
        folder = cache.root / key
        if live_source(folder) is not None:
            continue
        if key not in needed:
            unneeded.append((key, folder, "its recording is gone or has changed"))
        elif cache.valid_entry(key) is None:
            unneeded.append((key, folder, "corrupt"))
    return unneeded


def _is_needed(cache: SequenceCache, record: Mapping[str, Any]) -> bool:
    """Return whether the recording of an index record exists, or may exist on a disk that is not mounted.

    An entry of imported detections is needed as long as these exist and are the latest of their recording.
    """
    path = Path(record["path"])
    if "detections" in record:
        origin = Path(record["detections"])
        is_latest = cache.record(path).get("sha256") == record["sha256"]
        return is_latest and (origin.exists() or not origin.parent.exists())
    try:
        stat = path.stat()
        if stat.st_size != record.get("size"):
            return False
        return stat.st_mtime_ns == record.get("mtime_ns") or cache.sha256(path) == record["sha256"]
    except (FileNotFoundError, NotADirectoryError):
        return not path.parent.exists()
    except OSError:  # it exists, but cannot be read now
        return True


def _entries(count: int) -> str:
    return f"{count} {'entry' if count == 1 else 'entries'}"
