"""Sequences on disk: one entry a recording, keyed by content and settings, safe to kill at any moment.

    ROOT/
      index.jsonl                    which path held which bytes, and where their features lie
      <key>/part-00000.safetensors   a stretch of the sequence, cut at PART_SAMPLES samples
      <key>/entry.json               written last: its presence means finished
      <key>/unsound.json             what entry.json became when its entry was found unsound
      .unfinished/<key>.<random>/    an entry being written, or one that a kill left; it does not count
      .leases/                       who works on which entry

Equal work gives equal bytes: an entry holds no path, clock time or host.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vidgru.cache.entry import (
    KEY,
    LEFTOVER,
    UNFINISHED,
    Entry,
    Part,
    canonical_json,
    fault,
    private_folder,
    read_entry,
    read_part,
    shape_fault,
    tidy,
)
from vidgru.cache.writer import EntryWriter
from vidgru.errors import CacheError, OutputError
from vidgru.storage import sha256_file, write_atomic
from vidgru.types import FrameSequence

__all__ = ["Entry", "EntryWriter", "Part", "SequenceCache"]

_MTIME_GRAIN_NS = 2_000_000_000  # the coarsest a file system keeps: FAT's two seconds


class SequenceCache:
    """A folder of entries. Nothing is written before the first entry is.

    Args:
        root: the folder; it need not exist.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()
        if self.root.exists() and not self.root.is_dir():
            raise OutputError(f"{self.root} is a file, not a folder", "choose another folder for the features")
        self._index = {record["path"]: record for record in self.records()}
        self._saved = dict(self._index)  # the last line of each path, as it is on disk

    @property
    def lock_folder(self) -> Path:
        """Where `Locks` says who works on which entry; a lease is named after the key."""
        return self.root / ".leases"

    # --- identity ---------------------------------------------------------------------------------------------------

    def sha256(self, path: Path, between: Callable[[], None] | None = None) -> str:
        """SHA-256 of a recording's bytes; remembered for as long as its path, size and mtime stay the same.

        A file written less than two seconds ago is hashed again the next time: more may be written to it without
        its mtime changing, for file systems keep that no finer (git calls such a file racy).

        Args:
            path: the recording.
            between: called after every MB; what it raises ends the reading.
        """
        name, stat = str(path.resolve()), path.stat()
        racy = abs(time.time_ns() - stat.st_mtime_ns) < _MTIME_GRAIN_NS
        known = self._index.get(name, {})
        if (known.get("size"), known.get("mtime_ns")) == (stat.st_size, stat.st_mtime_ns) and "racy" not in known:
            return str(known["sha256"])
        digest = sha256_file(path, between)
        record = {"path": name, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": digest}
        if known.get("sha256") == digest:  # the same bytes: what else is known of them holds
            record |= {field: known[field] for field in ("key", "recorded_at") if field in known}
        self._index[name] = {**record, "racy": True} if racy else record
        return digest

    @staticmethod
    def key(sha256: str, feature_settings: Mapping[str, Any]) -> str:
        """Name of the entry for these bytes under these settings: 64 hex digits."""
        return hashlib.sha256(
            canonical_json({"sha256": sha256, "feature_settings": dict(feature_settings)})
        ).hexdigest()

    def set_last_entry(self, path: Path, key: str, recorded_at: str | None = None) -> None:
        """Note in `index.jsonl` that the features of `path`, hashed by `sha256`, are entry `key`.

        Args:
            path: the recording.
            key: its entry.
            recorded_at: ISO 8601 wall-clock time of its start; where None, one noted before stays.

        Raises:
            OutputError: it cannot be written.
        """
        name = str(path.resolve())
        self._append(name, {**self._index[name], "key": key} | ({"recorded_at": recorded_at} if recorded_at else {}))

    def set_alias(self, path: Path, key: str, sha256: str, **facts: str) -> None:
        """Note in `index.jsonl` that entry `key` stands for `path`, but was not made from the bytes of a file there.

        Args:
            path: what stands for its recording.
            key: the entry.
            sha256: digest of what it was made from.
            facts: `name`, of the recording; `detections`, the file or folder that those were in; perhaps `video`,
                where it lies, and `stamp`, which changes when the detections do.

        Raises:
            OutputError: it cannot be written.
        """
        name = str(path.resolve())
        self._append(name, {"path": name, "sha256": sha256, "key": key, **facts})

    def alias(self, path: Path) -> Mapping[str, Any]:
        """The record last noted for a path, as `records` has it; empty if none is."""
        return self._index.get(str(path.resolve()), {})

    def _append(self, name: str, record: dict[str, Any]) -> None:
        """Write a path's record behind those of `index.jsonl`, unless it is the last there."""
        self._index[name] = record
        if record == self._saved.get(name):
            return
        line, file_path = canonical_json(record) + b"\n", self.root / "index.jsonl"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with open(file_path, "a+b") as file:  # one short append: whole lines from any process
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    line = line if file.read(1) == b"\n" else b"\n" + line  # the last was cut short by a kill
                file.write(line)
        except OSError as error:
            raise OutputError(
                f"cannot write {file_path}: {error.strerror}", "free disk space or choose another folder with --out"
            ) from error
        self._saved[name] = record

    def recorded_at(self, path: Path) -> str | None:
        """The time last noted for a path by `remember`, ISO 8601; None if none is."""
        value = self._index.get(str(path.resolve()), {}).get("recorded_at")
        return None if value is None else str(value)

    def lookup(self, path: Path, feature_settings: Mapping[str, Any]) -> Entry | None:
        """The usable entry of a recording under these settings.

        None if there is none, or only one that is not sound, or the recording cannot be read: extraction makes the
        entry again, and says what is wrong with the recording.
        """
        try:
            return self.valid_entry(self.key(self.sha256(path), feature_settings))
        except OSError:
            return None

    def last_entry(self, path: Path) -> Entry | None:
        """The entry last noted for a path, whatever its settings; None if none is, or it is gone or not sound."""
        key = self._index.get(str(path.resolve()), {}).get("key")
        return None if key is None else self.valid_entry(key)

    def records(self) -> list[dict[str, Any]]:
        """The lines of `index.jsonl`, oldest first: `path`, `size`, `mtime_ns`, `sha256`, `key`; perhaps `recorded_at`.

        A line cut short by a kill is passed over: its recording is hashed again.
        """
        found = []
        path = self.root / "index.jsonl"
        for line in path.read_bytes().splitlines() if path.is_file() else []:
            try:
                record = json.loads(line)
                if all(isinstance(record[field], str) for field in ("path", "sha256", "key")):
                    found.append(record)
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def sources(self) -> dict[str, list[str]]:
        """Paths that each key was made from, as far as `index.jsonl` knows."""
        paths: dict[str, dict[str, None]] = {}
        for record in self.records():
            paths.setdefault(record["key"], {})[record["path"]] = None
        return {key: list(found) for key, found in paths.items()}

    # --- reading ----------------------------------------------------------------------------------------------------

    def entry(self, key: str) -> Entry | None:
        """What `entry.json` says, None if the entry is not finished.

        Raises:
            CacheError: `entry.json` is there but cannot be read.
        """
        return read_entry(self.root / key)

    def valid_entry(self, key: str) -> Entry | None:
        """The entry if all its files are there and have their size and a header that reads, else None.

        Changed bytes inside a part are found by `verify` only, which reads them all.
        """
        try:
            entry = self.entry(key)
        except CacheError:
            return None
        if entry is None or any(shape_fault(self.root / key, part) for part in entry.parts):
            return None
        tidy(self.root / key)
        return entry

    def entries(self) -> Iterator[Entry]:
        """All finished entries, by key."""
        if self.root.is_dir():
            for folder in sorted(self.root.iterdir()):
                if KEY.fullmatch(folder.name) and (entry := self.entry(folder.name)):
                    yield entry

    def incomplete_entries(self) -> list[tuple[str, Path]]:
        """Key and folder of what is being written, or was when its process was killed."""
        folder = self.root / UNFINISHED
        if not folder.is_dir():
            return []
        found = ((LEFTOVER.fullmatch(path.name), path) for path in sorted(folder.iterdir()))
        return [(match[1], path) for match, path in found if match]

    def parts(self, key: str) -> Iterator[FrameSequence]:
        """The stretches of an entry in order, each mapped from disk.

        Raises:
            CacheError: there is no such entry, or a part is missing or not sound.
        """
        entry = self.entry(key)
        if entry is None:
            raise CacheError(f"no finished entry {key} in {self.root}", "run vidgru extract")
        for part in entry.parts:
            yield read_part(self.root / key / part.name)

    def read(self, key: str) -> FrameSequence:
        """A whole sequence; mapped from disk where the entry has one part, joined in memory where it has several."""
        return FrameSequence.concatenate(list(self.parts(key)))

    def verify(self, key: str) -> list[str]:
        """What is unsound about an entry, in words; empty where it is sound. Reads every byte."""
        try:
            entry = self.entry(key)
        except CacheError as error:
            return [error.message]
        if entry is None:
            return ["found unsound before"] if self.is_marked_corrupt(key) else ["not finished: no entry.json"]
        return [wrong for part in entry.parts if (wrong := fault(self.root / key, part))]

    # --- writing ----------------------------------------------------------------------------------------------------

    def writer(self, key: str, run_info: Mapping[str, Any]) -> EntryWriter:
        """A writer of entry `key`, to be used in a `with` block by who holds the lease of the key."""
        return EntryWriter(self.root / key, run_info)

    def mark_corrupt(self, key: str) -> None:
        """Have an entry that `verify` found unsound count as not finished, so that the next run makes it again.

        Raises:
            OutputError: the cache cannot be written.
        """
        try:
            os.replace(self.root / key / "entry.json", self.root / key / "unsound.json")
        except FileNotFoundError:  # marked before, or replaced at this moment
            return
        except OSError as error:
            raise OutputError(f"cannot mark {self.root / key}: {error.strerror}", "delete that folder") from error

    def is_marked_corrupt(self, key: str) -> bool:
        """Whether an entry was found unsound and has not been made again since."""
        return (self.root / key / "unsound.json").exists()

    def remove(self, folder: Path) -> None:
        """Delete an entry or a leftover; killed half-way, it leaves a leftover and no half entry.

        Raises:
            OutputError: it cannot be deleted.
        """
        try:
            if not LEFTOVER.fullmatch(folder.name):
                apart = private_folder(folder)
                apart.parent.mkdir(exist_ok=True)
                folder = folder.rename(apart)
            shutil.rmtree(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"cannot delete {folder}: {error.strerror}", "check its permissions") from error

    def compact(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Rewrite `index.jsonl` with the records that `keep` is true of, unless another process adds to it meanwhile.

        Raises:
            OutputError: it cannot be written.
        """
        path = self.root / "index.jsonl"
        size = path.stat().st_size
        kept: dict[tuple[str, str], bytes] = {}
        for record in self.records():
            kept.pop((record["path"], record["key"]), None)  # the last of equal ones, in its place
            if keep(record):
                kept[record["path"], record["key"]] = canonical_json(record) + b"\n"
        if path.stat().st_size == size:
            write_atomic(path, b"".join(kept.values()))
