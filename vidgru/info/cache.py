"""What a cache of sequences holds, whether it is sound, and what of it nobody needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vidgru.cache import Entry, SequenceCache
from vidgru.cache.entry import KEY, live_source
from vidgru.errors import CacheError, OutputError
from vidgru.info.formatting import Info, bytes_text, duration_text, rate_text, settings_text
from vidgru.locks import Locks
from vidgru.types import FrameSequence

SHOWN_CLASSES = 15
UNKNOWN = "a recording not known here"
UNFINISHED = "unfinished"


def holds_cache(path: Path) -> bool:
    """Whether a folder is a cache, or the beginning of one."""
    return bool(_keys(path) or SequenceCache(path).incomplete_entries() or (path / "index.jsonl").is_file())


def about_cache(root: Path, only: str | None, verify: bool) -> Info:
    """Totals of the cache at `root`, or of its entry `only`, by settings."""
    cache = SequenceCache(root)
    sources = cache.sources()
    keys = _keys(root) if only is None else [only]
    unfinished = {key for key, _ in cache.incomplete_entries() if only in (None, key)}
    unsound: dict[str, list[str]] = {}
    groups: dict[str, list[tuple[Entry, Counter[str]]]] = {}
    for key in keys:
        try:
            entry = cache.entry(key)
            if entry is None and not cache.is_marked_corrupt(key):
                unfinished.add(key)
            elif wrong := cache.verify(key) if verify or entry is None else []:
                unsound[key] = wrong
            elif entry is not None:
                groups.setdefault(settings_text(entry.feature_settings), []).append((entry, _objects(cache, entry)))
        except CacheError as error:
            unsound[key] = [error.message]
    finished = [entry for group in groups.values() for entry, _ in group]
    partial = sum(entry.status == "partial" for entry in finished)
    lines = [f"cache {root}: {_entries(len(finished))}"]
    lines[0] += f", {partial} of damaged recordings" if partial else ""
    if unfinished:
        lines.append(f"{len(unfinished)} unfinished: extracting their recordings again completes them")
    for settings, group in groups.items():
        lines += [f"settings: {settings}", *(f"  {line}" for line in _totals(cache, group))]
    if len(keys) == 1 and finished:
        lines += _facts(finished[0], sources)
    for key, wrong in unsound.items():
        lines += [f"UNSOUND {key}, of {', '.join(sources.get(key, [UNKNOWN]))}", *(f"  {line}" for line in wrong)]
        try:
            if verify:
                cache.mark_corrupt(key)
        except OutputError as error:  # a cache to look at may be read-only
            lines.append(f"  {error.message}: {error.remedy}, or it is taken for sound")
    if unsound:
        lines.append(f"{len(unsound)} unsound: extracting their recordings again replaces them")
    elif verify:
        lines.append("every byte of the finished entries is as it was written")
    return Info(lines=tuple(lines), sound=not unsound)


def prune_cache(root: Path) -> list[str]:
    """Delete what no recording needs from a cache, and say what it was.

    Raises:
        CacheError: nothing tells what is needed.
        OutputError: something cannot be deleted.
    """
    cache = SequenceCache(root)
    if not cache.records():
        raise CacheError(
            f"{root / 'index.jsonl'} holds no recording, so nothing tells which entries are needed",
            "run vidgru extract on the recordings: it reuses their entries and notes them",
        )
    sources, removed, freed = cache.sources(), Counter[str](), 0
    lines: list[str] = []
    with Locks(cache.lock_folder) as locks:
        busy = {name for name in locks.names() if not locks.acquire(name)}  # dead leases are cleared away with this
        for key in {key for key, _, _ in _doomed(cache)}:
            if key not in busy and not locks.holds(key) and not locks.acquire(key):
                busy.add(key)
        for key, folder, why in _doomed(cache):  # again, now that nobody can be about to finish and note them
            named = f"{folder.name}, of {', '.join(sources.get(key, [UNKNOWN]))}"
            if not locks.holds(key):
                lines.append(f"kept {named}: another process works on it")
                continue
            size = sum(path.stat().st_size for path in folder.iterdir())
            cache.remove(folder)
            lines.append(f"removed {named}: {why}, {bytes_text(size)}")
            removed[why] += 1
            freed += size
        keys = set(_keys(root))
        if not busy:  # else lines may be added at this moment
            cache.compact(lambda record: record["key"] in keys and _is_needed(cache, record))
    unfinished = removed.pop(UNFINISHED, 0)
    total = f"removed {_entries(removed.total())} and {unfinished} unfinished, {bytes_text(freed)} freed"
    return [*lines, f"{total}; {_entries(len(keys))} kept"]


def _keys(root: Path) -> list[str]:
    return sorted(folder.name for folder in root.iterdir() if KEY.fullmatch(folder.name) and folder.is_dir())


def _doomed(cache: SequenceCache) -> list[tuple[str, Path, str]]:
    """Key and folder of what is not needed, and why. What was recorded from a live source is all there is of it."""
    needed = {record["key"] for record in cache.records() if _is_needed(cache, record)}
    found = [(key, folder, UNFINISHED) for key, folder in cache.incomplete_entries() if live_source(folder) is None]
    for key in _keys(cache.root):
        folder = cache.root / key
        if live_source(folder) is not None:
            continue
        if key not in needed:
            found.append((key, folder, "its recording is gone or has changed"))
        elif cache.valid_entry(key) is None:
            found.append((key, folder, "not sound"))
    return found


def _is_needed(cache: SequenceCache, record: Mapping[str, Any]) -> bool:
    """Whether a record of the index speaks of a recording that is there, or may be on a disk that is not.

    One of given detections is needed while those are there, and are the latest of their recording.
    """
    path = Path(record["path"])
    if "detections" in record:
        origin = Path(record["detections"])
        return _is_latest(cache, record) and (origin.exists() or not origin.parent.exists())
    try:
        stat = path.stat()
        if stat.st_size != record.get("size"):
            return False
        return stat.st_mtime_ns == record.get("mtime_ns") or cache.sha256(path) == record["sha256"]
    except (FileNotFoundError, NotADirectoryError):
        return not path.parent.exists()
    except OSError:  # it is there, and cannot be read now
        return True


def _is_latest(cache: SequenceCache, record: Mapping[str, Any]) -> bool:
    """Whether the detections of a recording are not known to have changed since."""
    return bool(cache.record(Path(record["path"])).get("sha256") == record["sha256"])


def _entries(count: int) -> str:
    return f"{count} {'entry' if count == 1 else 'entries'}"


def _objects(cache: SequenceCache, entry: Entry) -> Counter[str]:
    """Objects of an entry by class name. Only the classes are read from disk."""
    counts: Counter[str] = Counter()
    for part in cache.parts(entry.key):
        classes, times = np.unique(part.classes, return_counts=True)
        counts.update({_name(part.names, int(c)): int(n) for c, n in zip(classes, times, strict=True)})
    return counts


def _name(names: tuple[str, ...], index: int) -> str:
    return names[index] if 0 <= index < len(names) else f"class {index}"


def _totals(cache: SequenceCache, group: list[tuple[Entry, Counter[str]]]) -> list[str]:
    """Length and size of entries of the same settings, and their objects a frame by class."""
    samples = sum(entry.samples for entry, _ in group)
    files = [cache.root / entry.key / part.name for entry, _ in group for part in entry.parts]
    counts: Counter[str] = sum((counts for _, counts in group), Counter())
    rates = [(name, count / samples) for name, count in counts.most_common()]
    lines = [
        f"{duration_text(sum(entry.duration_s for entry, _ in group))}, {samples:,} samples, "
        f"{bytes_text(sum(file.stat().st_size for file in files))}",
        f"tensors: {_tensors(next(cache.parts(group[0][0].key)))}",
        f"objects: {rate_text(counts.total() / samples)} a frame",
        *(f"  {name} {rate_text(rate)} a frame" for name, rate in rates[:SHOWN_CLASSES]),
    ]
    if rest := rates[SHOWN_CLASSES:]:
        lines.append(f"  {len(rest)} more classes {rate_text(sum(rate for _, rate in rest))} a frame")
    return lines


def _tensors(sequence: FrameSequence) -> str:
    """The tensors of a sequence, each with the shape of one object's or one frame's share."""
    shapes = {name: list(t.shape[1:]) for name, t in sequence.tensors().items() if name != "offsets"}
    return ", ".join(f"{name} {shape}" if shape else name for name, shape in shapes.items())


def _facts(entry: Entry, sources: Mapping[str, Iterable[str]]) -> list[str]:
    """What can be said of a single entry only."""
    lines = [f"made from: {path}" for path in sources.get(entry.key, [])]
    lines.append(f"frame: {entry.size_px[0]}x{entry.size_px[1]} px, {entry.fps:g} samples a second asked for")
    lines += [f"recorded at: {entry.recorded_at}"] if entry.recorded_at else []
    lines += [f"damage: {kind} {amount}" for kind, amount in sorted(entry.damage.items())]
    return [*lines, f"run: {settings_text(entry.run_info)}"]
