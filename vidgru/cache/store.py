"""The sequence cache: a folder of entries, looked up by the content of a recording and the feature settings.

    ROOT/
      index.jsonl                    SHA-256 of each path, and the entry with its features
      <key>/part-00000.safetensors   a part of the sequence, PART_SAMPLES samples long; still samples without objects
      <key>/entry.json               written last: its presence means finished
      <key>/corrupt.json             what entry.json was renamed to when its entry was found corrupt
      .unfinished/<key>.<random>/    an incomplete entry: being written, or left by a kill
      .locks/                        locks: which process works on which entry

Equal work gives equal bytes: an entry contains no path, clock time or host.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Required, TypedDict, cast

from msgspec import Meta, convert

from vidgru.cache.entry import (
    INCOMPLETE_NAME,
    KEY,
    UNFINISHED,
    Entry,
    Hash,
    canonical_json,
    delete_resume_file,
    open_part,
    private_folder,
    read_entry,
)
from vidgru.cache.writer import EntryWriter
from vidgru.errors import CacheError, OutputError, PartChangedError, WeightsError
from vidgru.storage import parse_json, sha256_file, user_path, write_atomic
from vidgru.types import FrameSequence, Recording

_MAX_PATH_BYTES, _MAX_NAME_BYTES = 4096, 255
_MTIME_RESOLUTION_NS = 2_000_000_000  # of the coarsest file system, FAT


_Path = Annotated[str, Meta(pattern=r"\A[^\x00]+\Z")]


class _IndexRecord(TypedDict, total=False):
    """A line of `index.jsonl`; see `set_last_entry` and `set_alias`."""

    path: Required[_Path]
    sha256: Required[Hash]
    key: Required[Hash]
    size: int
    mtime_ns: int
    recorded_at: str
    racy: bool
    name: str
    detections: _Path
    video: _Path
    stamp: str


def _may_exist(path: str) -> bool:
    """Whether a file system may hold such a path; for others, each question about them is an error."""
    return len(os.fsencode(path)) < _MAX_PATH_BYTES and all(
        len(os.fsencode(name)) <= _MAX_NAME_BYTES for name in Path(path).parts
    )


class SequenceCache:
    """A folder of entries. Nothing is written before the first entry is.

    Args:
        root: The folder; need not exist.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = user_path(root)
        if self.root.exists() and not self.root.is_dir():
            raise OutputError(f"{self.root} is a file, not a folder", "choose another folder for the features")
        self._index = {record["path"]: record for record in self.records()}
        self._saved = dict(self._index)  # last record of each path on disk

    @property
    def lock_folder(self) -> Path:
        """Folder for `Locks` on entries; the name of a lock is the key."""
        return self.root / ".locks"

    # --- index ------------------------------------------------------------------------------------------------------

    def known_sha256(self, path: Path) -> str | None:
        """Return the SHA-256 of a recording's bytes if that is known without reading them, else None."""
        if not self._index:
            return None  # looking at each file of a large folder takes a while
        stat, known = path.stat(), self._index.get(os.path.realpath(path), {})
        if (known.get("size"), known.get("mtime_ns")) == (stat.st_size, stat.st_mtime_ns) and "racy" not in known:
            return str(known["sha256"])
        return None

    def sha256(self, path: Path, on_chunk: Callable[[], None] | None = None) -> str:
        """Return the SHA-256 of a recording's bytes, from the index while path, size and mtime stay the same.

        A file modified less than two seconds ago is hashed again the next time: it may be written to once more
        without a new mtime, because file systems store mtimes no finer (git calls such a file racy).

        Args:
            path: The recording.
            on_chunk: Called after every MB; an exception it raises stops the reading.
        """
        if (known_digest := self.known_sha256(path)) is not None:
            return known_digest
        name, stat = os.path.realpath(path), path.stat()
        is_racy = abs(time.time_ns() - stat.st_mtime_ns) < _MTIME_RESOLUTION_NS
        known = self._index.get(name, {})
        digest = sha256_file(path, on_chunk)
        record = {"path": name, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": digest}
        if known.get("sha256") == digest:  # unchanged bytes: keep what is known about them
            record |= {field: known[field] for field in ("key", "recorded_at") if field in known}
        self._index[name] = {**record, "racy": True} if is_racy else record
        return digest

    @staticmethod
    def key(sha256: str, feature_settings: Mapping[str, Any]) -> str:
        """Return the name of the entry for these bytes under these settings, 64 hex digits."""
        content = canonical_json({"sha256": sha256, "feature_settings": dict(feature_settings)})
        return hashlib.sha256(content).hexdigest()

    def set_last_entry(self, path: Path, key: str, recorded_at: str | None = None) -> None:
        """Record in `index.jsonl` that entry `key` has the features of `path`, which `sha256` has hashed.

        Args:
            path: The recording.
            key: Its entry.
            recorded_at: ISO 8601 wall-clock time of its start; None keeps a time recorded earlier.

        Raises:
            OutputError: The index cannot be written.
        """
        name = os.path.realpath(path)
        self._append(name, {**self._index[name], "key": key} | ({"recorded_at": recorded_at} if recorded_at else {}))

    def set_alias(self, path: Path, key: str, sha256: str, **fields: str) -> None:
        """Record in `index.jsonl` that entry `key` stands for `path`, although it was not made from a file's bytes.

        Args:
            path: Path that stands for the recording.
            key: The entry.
            sha256: Hash of the data it was made from.
            fields: `name` of the recording; `detections`, the file or folder that was imported; optionally `video`,
                its path, and `stamp`, which changes when the detections do.

        Raises:
            OutputError: The index cannot be written.
        """
        name = os.path.realpath(path)
        self._append(name, {"path": name, "sha256": sha256, "key": key, **fields})

    def record(self, path: Path) -> Mapping[str, Any]:
        """Return the last record of a path, as in `records`; empty if there is none."""
        return self._index.get(os.path.realpath(path), {})

    def recorded_at(self, path: Path) -> str | None:
        """Return the start time recorded for a path by `set_last_entry`, ISO 8601; None if there is none."""
        value = self.record(path).get("recorded_at")
        return None if value is None else str(value)

    def records(self) -> list[dict[str, Any]]:
        """Return the records of `index.jsonl`, oldest first: `path`, `sha256`, `key` and optional fields.

        A line that was cut short by a kill, or is no such record, is skipped: its recording is hashed again.
        """
        records = []
        path = self.root / "index.jsonl"
        for line in path.read_bytes().splitlines() if path.is_file() else []:
            with suppress(ValueError):
                record = convert(parse_json(line), _IndexRecord)
                datetime.fromisoformat(record.get("recorded_at", "2000-01-01"))
                Recording(path=Path(record["path"]), name=record.get("name", "a"))
                paths = [record[name] for name in ("path", "detections", "video") if name in record]
                if os.path.isabs(record["path"]) and all(map(_may_exist, paths)):
                    records.append(cast(dict[str, Any], record))
        return records

    def sources(self) -> dict[str, list[str]]:
        """Return the paths that each key was made from, as listed in `index.jsonl`."""
        paths: dict[str, dict[str, None]] = {}
        for record in self.records():
            paths.setdefault(record["key"], {})[record["path"]] = None
        return {key: list(of_key) for key, of_key in paths.items()}

    def compact(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Rewrite `index.jsonl` with the records for which `keep` is true, unless another process is adding to it.

        Raises:
            OutputError: The index cannot be written.
        """
        path = self.root / "index.jsonl"
        size = path.stat().st_size
        lines: dict[tuple[str, str], bytes] = {}
        for record in self.records():
            lines.pop((record["path"], record["key"]), None)  # the last of several equal records counts, in its place
            if keep(record):
                lines[record["path"], record["key"]] = canonical_json(record) + b"\n"
        if path.stat().st_size == size:
            write_atomic(path, b"".join(lines.values()))

    def _append(self, name: str, record: dict[str, Any]) -> None:
        """Append the record of a path to `index.jsonl`, unless it equals the last one there."""
        self._index[name] = record
        if record == self._saved.get(name):
            return
        line, path = canonical_json(record) + b"\n", self.root / "index.jsonl"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with open(path, "a+b") as file:  # a single short append: lines of several processes do not mix
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    line = line if file.read(1) == b"\n" else b"\n" + line  # the last line was cut short by a kill
                file.write(line)
        except OSError as error:
            raise OutputError(
                f"cannot write {path}: {error.strerror}", "free disk space or choose another folder with --out"
            ) from error
        self._saved[name] = record

    # --- reading ----------------------------------------------------------------------------------------------------

    def entry(self, key: str) -> Entry | None:
        """Read the `entry.json` of an entry; return None if the entry is not finished.

        Raises:
            CacheError: `entry.json` cannot be read.
        """
        return read_entry(self.root / key)

    def valid_entry(self, key: str) -> Entry | None:
        """Return the entry if all its files have the recorded size and a readable header, else None.

        Changed bytes inside a part are detected by `parts` and `verify`, which read all of them.
        """
        try:
            entry = self.entry(key)
            for part in entry.parts if entry else ():
                open_part(self.root / key, part)
        except CacheError:
            return None
        if entry is None:
            return None
        delete_resume_file(self.root / key)
        return entry

    def lookup(self, path: Path, feature_settings: Mapping[str, Any]) -> Entry | None:
        """Return the valid entry of a recording under these settings.

        None if there is none, if it is corrupt, or if the recording cannot be read: extraction then makes the entry
        again, and reports what is wrong with the recording.
        """
        try:
            return self.valid_entry(self.key(self.sha256(path), feature_settings))
        except OSError:
            return None

    def last_entry(self, path: Path) -> Entry | None:
        """Return the last entry recorded for a path, whatever its settings; None if there is none or it is corrupt.

        Entries of spans are passed over: the last one of the same bytes that covers all of the recording counts.
        """
        last = self.record(path)
        entry = self.valid_entry(last["key"]) if "key" in last else None
        if entry is None or entry.span is None:
            return entry
        bytes_read = last["path"], last["sha256"]
        keys = [record["key"] for record in self.records() if (record["path"], record["sha256"]) == bytes_read]
        earlier = map(self.valid_entry, reversed(keys))
        return next((entry for entry in earlier if entry is not None and entry.span is None), None)

    def check_detector(self, weights: str, sha256: str) -> None:
        """Check that a detector named by a model, not by the user, has made features here before.

        Models come from other people, and weights are files that Ultralytics loads as pickles.

        Args:
            weights: File name of the detector's weights, for the message.
            sha256: Hash of the file, in hex.

        Raises:
            WeightsError: No entry was made with it.
        """
        for folder in self.root.iterdir() if self.root.is_dir() else ():
            with suppress(CacheError):
                entry = self.entry(folder.name) if KEY.fullmatch(folder.name) else None
                if entry and entry.feature_settings.get("weights_sha256") == sha256:
                    return
        raise WeightsError(
            f"the model names the detector {weights}, which has made no features in {self.root} yet",
            f"pass it with --weights, if you trust that file (SHA-256 {sha256})",
        )

    def entries(self) -> Iterator[Entry]:
        """Iterate over all finished entries, by key."""
        for key in self.entry_keys():
            if entry := self.entry(key):
                yield entry

    def entry_keys(self) -> list[str]:
        """Return the keys of all entries, finished or corrupt, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(folder.name for folder in self.root.iterdir() if KEY.fullmatch(folder.name) and folder.is_dir())

    def incomplete_entries(self) -> list[tuple[str, Path]]:
        """Return key and folder of each entry that is being written, or was when its process was killed."""
        folder = self.root / UNFINISHED
        if not folder.is_dir():
            return []
        matches = ((INCOMPLETE_NAME.fullmatch(path.name), path) for path in sorted(folder.iterdir()))
        return [(match[1], path) for match, path in matches if match]

    def parts(self, key: str) -> Iterator[FrameSequence]:
        """Iterate over the parts of an entry in order, each mapped from disk once its checksum has been compared.

        An entry whose bytes have changed is marked as corrupt, so that the next extraction replaces it.

        Raises:
            CacheError: There is no such entry, or a part is missing or corrupt.
        """
        entry = self.entry(key)
        if entry is None:
            raise CacheError(f"no finished entry {key} in {self.root}", "run vidgru extract")
        for part in entry.parts:
            try:
                yield open_part(self.root / key, part, verify=True)
            except PartChangedError:
                with suppress(OutputError):  # the cache may be read-only
                    self.mark_corrupt(key)
                raise

    def read(self, key: str) -> FrameSequence:
        """Read a whole sequence: mapped from disk if the entry has one part, joined in memory if it has several."""
        return FrameSequence.concatenate(list(self.parts(key)))

    def verify(self, key: str) -> list[str]:
        """Check an entry, reading every byte. Return a description of each fault; empty if it is valid."""
        try:
            entry = self.entry(key)
        except CacheError as error:
            return [error.message]
        if entry is None:
            return ["found corrupt earlier" if self.is_marked_corrupt(key) else "not finished: no entry.json"]
        faults = []
        for part in entry.parts:
            try:
                open_part(self.root / key, part, verify=True)
            except CacheError as error:
                faults.append(error.message)
        return faults

    # --- writing ----------------------------------------------------------------------------------------------------

    def writer(self, key: str, run_info: Mapping[str, Any]) -> EntryWriter:
        """Return a writer of entry `key`, to use in a `with` block while holding the lock of the key."""
        return EntryWriter(self.root / key, run_info)

    def mark_corrupt(self, key: str) -> None:
        """Mark an entry that `verify` found corrupt as not finished, so that the next run makes it again.

        Raises:
            OutputError: The cache cannot be written.
        """
        try:
            os.replace(self.root / key / "entry.json", self.root / key / "corrupt.json")
        except FileNotFoundError:  # marked before, or replaced at this moment
            return
        except OSError as error:
            raise OutputError(f"cannot mark {self.root / key}: {error.strerror}", "delete that folder") from error

    def is_marked_corrupt(self, key: str) -> bool:
        """Whether an entry was found corrupt and has not been made again since."""
        return (self.root / key / "corrupt.json").exists()

    def remove(self, folder: Path) -> None:
        """Delete a finished or incomplete entry. A kill meanwhile leaves it incomplete, never half deleted.

        Raises:
            OutputError: It cannot be deleted.
        """
        try:
            if not INCOMPLETE_NAME.fullmatch(folder.name):
                target = private_folder(folder)
                target.parent.mkdir(exist_ok=True)
                folder = folder.rename(target)
            shutil.rmtree(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"cannot delete {folder}: {error.strerror}", "check its permissions") from error
