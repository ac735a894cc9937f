"""Sequences on disk: one entry a recording, keyed by content and settings, safe to kill at any moment.

    ROOT/
      index.jsonl                    which path held which bytes, and where their features lie
      <key>/part-00000.safetensors   a stretch of the sequence, cut at PART_SAMPLES samples
      <key>/entry.json               written last: its presence means finished
      .<key>.<random>.tmp/           an entry being written, or one that a kill left; it does not count

Equal work gives equal bytes: an entry holds no path, clock time or host. Parts are safetensors files, written
by that library and mapped from disk here without a copy (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from safetensors.numpy import save

from vidgru.errors import CacheError, OutputError
from vidgru.files import sha256_file, write_atomic
from vidgru.types import Array, Sequence

PART_SAMPLES = 2048
_KEY = re.compile(r"[0-9a-f]{64}")
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2"}
_LONGEST_HEADER = 1 << 20  # bytes; a part's header is under 2 kB


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of an entry."""

    name: str
    samples: int
    objects: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What `entry.json` says of a finished recording.

    Attributes:
        key: name of its folder.
        status: "done", or "partial" where the recording is damaged.
        duration_s: of the recording, from its container.
        fps: samples a second that were asked for.
        size_px: width and height of the upright frame.
        names: the detector's class names.
        what: settings that decide the features.
        how: settings and versions that are only recorded.
        damage: what was wrong with the recording, by kind; empty where nothing was.
        recorded_at: ISO 8601 wall-clock time of the container's start; None if it does not say.
        parts: the files, in order.
    """

    key: str
    status: str
    duration_s: float
    fps: float
    size_px: tuple[int, int]
    names: tuple[str, ...]
    what: dict[str, Any]
    how: dict[str, Any]
    damage: dict[str, Any] = field(default_factory=dict)
    recorded_at: str | None = None
    parts: tuple[Part, ...]

    @property
    def samples(self) -> int:
        """Frames in all parts."""
        return sum(part.samples for part in self.parts)

    @property
    def objects(self) -> int:
        """Objects in all parts."""
        return sum(part.objects for part in self.parts)


class SequenceCache:
    """A folder of entries. Nothing is written before the first entry is.

    Args:
        root: the folder; it need not exist.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()
        if self.root.exists() and not self.root.is_dir():
            raise OutputError(f"{self.root} is a file, not a folder", "choose another folder for the features")
        self._index = _read_index(self.root / "index.jsonl")

    # --- identity ---------------------------------------------------------------------------------------------------

    def sha256(self, path: Path) -> str:
        """SHA-256 of a recording's bytes; remembered for as long as its path, size and mtime stay the same."""
        stat = path.stat()
        known = self._index.get(str(path.resolve()))
        if known and (known["size"], known["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns):
            return str(known["sha256"])
        digest = sha256_file(path)
        self._index[str(path.resolve())] = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": digest}
        return digest

    @staticmethod
    def key(sha256: str, what: Mapping[str, Any]) -> str:
        """Name of the entry for these bytes under these settings: 64 hex digits."""
        return hashlib.sha256(_json({"sha256": sha256, "what": dict(what)})).hexdigest()

    def remember(self, path: Path, key: str) -> None:
        """Note in `index.jsonl` that the features of `path`, hashed by `sha256`, are entry `key`."""
        record = self._index[str(path.resolve())]
        if record.get("key") == key:
            return
        record["key"] = key
        line = _json({"path": str(path.resolve()), **record}) + b"\n"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with open(self.root / "index.jsonl", "ab") as file:  # one short append: whole lines from any process
                file.write(line)
        except OSError as error:
            raise OutputError(f"cannot write {self.root / 'index.jsonl'}: {error.strerror}") from error

    def lookup(self, path: Path, what: Mapping[str, Any]) -> Entry | None:
        """The finished entry of a recording under these settings.

        None if there is none, or only one that is not sound, or the recording cannot be read: extraction makes the
        entry again, and says what is wrong with the recording.
        """
        try:
            return self.entry(self.key(self.sha256(path), what))
        except (CacheError, OSError):
            return None

    def remembered(self, path: Path) -> Entry | None:
        """The entry last noted for a path, whatever its settings; None if none is, or it is gone or not sound."""
        try:
            return self.entry(self._index[str(path.resolve())]["key"])
        except (KeyError, CacheError):
            return None

    def sources(self) -> dict[str, list[str]]:
        """Paths that each key was made from, as far as `index.jsonl` knows."""
        paths: dict[str, list[str]] = {}
        for path, record in self._index.items():
            if "key" in record:
                paths.setdefault(record["key"], []).append(path)
        return paths

    # --- reading ----------------------------------------------------------------------------------------------------

    def entry(self, key: str) -> Entry | None:
        """What `entry.json` says, None if the entry is not finished.

        Raises:
            CacheError: `entry.json` is there but cannot be read.
        """
        path = self.root / key / "entry.json"
        try:
            values = json.loads(path.read_bytes())
            values["parts"] = tuple(Part(**part) for part in values["parts"])
            values["size_px"], values["names"] = tuple(values["size_px"]), tuple(values["names"])
            return Entry(key=key, **values)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise CacheError(f"{path} is not sound: {error}", "delete its folder; the next run makes it") from None

    def entries(self) -> Iterator[Entry]:
        """All finished entries, by key."""
        if self.root.is_dir():
            for folder in sorted(self.root.iterdir()):
                if _KEY.fullmatch(folder.name) and (entry := self.entry(folder.name)):
                    yield entry

    def parts(self, key: str) -> Iterator[Sequence]:
        """The stretches of an entry in order, each mapped from disk.

        Raises:
            CacheError: there is no such entry, or a part is missing or not sound.
        """
        entry = self.entry(key)
        if entry is None:
            raise CacheError(f"no finished entry {key} in {self.root}", "run vidgru extract")
        for part in entry.parts:
            try:
                yield _read_part(self.root / key / part.name)
            except FileNotFoundError:
                path = self.root / key / part.name
                raise CacheError(f"{path} is missing", "delete its folder; the next run makes it") from None

    def read(self, key: str) -> Sequence:
        """A whole sequence; mapped from disk where the entry has one part, joined in memory where it has several."""
        return Sequence.concatenate(list(self.parts(key)))

    def verify(self, key: str) -> list[str]:
        """What is unsound about an entry, in words; empty where it is sound. Reads every byte."""
        try:
            entry = self.entry(key)
        except CacheError as error:
            return [error.message]
        if entry is None:
            return ["not finished: no entry.json"]
        wrong = []
        for part in entry.parts:
            path = self.root / key / part.name
            try:
                if sha256_file(path) != part.sha256:
                    wrong.append(f"{part.name}: its bytes are not those that were written")
                elif (found := _read_part(path)) and (len(found), len(found.boxes)) != (part.samples, part.objects):
                    wrong.append(f"{part.name}: {len(found)} samples, entry.json says {part.samples}")
            except FileNotFoundError:
                wrong.append(f"{part.name}: missing")
            except CacheError as error:
                wrong.append(error.message)
        return wrong

    # --- writing ----------------------------------------------------------------------------------------------------

    def writer(self, key: str) -> EntryWriter:
        """A writer of entry `key`, to be used in a `with` block."""
        return EntryWriter(self.root / key)


class EntryWriter:
    """Writes one entry: `append` stretches of any length, then `finish`.

    It works in a folder of its own, which `finish` gives the entry's name: other processes see the whole entry or none,
    also when two make the same one. Left without `finish`, nothing of it counts.
    """

    def __init__(self, folder: Path) -> None:
        self._entry = folder
        self._folder = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
        self._parts: list[Part] = []
        self._pending: list[Sequence] = []
        self._waiting = 0

    def __enter__(self) -> EntryWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def append(self, sequence: Sequence) -> None:
        """Add the next stretch; full parts go to disk at once.

        Raises:
            OutputError: it cannot be written.
        """
        self._pending.append(sequence)
        self._waiting += len(sequence)
        while self._waiting >= PART_SAMPLES:
            self._flush(PART_SAMPLES)

    def finish(self, **facts: Any) -> None:
        """Write what is left and `entry.json`. `facts` are the fields of `Entry` but `key` and `parts`.

        An entry of a recording without a sample cannot be: such a recording is failed.

        Raises:
            OutputError: it cannot be written.
        """
        if self._waiting:
            self._flush(self._waiting)
        if not self._parts:
            raise ValueError("an entry needs at least one sample")
        entry = asdict(Entry(key="", parts=tuple(self._parts), **facts))
        del entry["key"]
        write_atomic(self._folder / "entry.json", _json(entry))
        try:
            if self._entry.exists():  # made by another process meanwhile, and equal, or unsound: replaced either way
                self._entry.rename(self._folder.with_suffix(".old"))
            self._folder.rename(self._entry)
        except OSError as error:
            raise OutputError(f"cannot write {self._entry}: {error.strerror}") from error
        finally:
            shutil.rmtree(self._folder.with_suffix(".old"), ignore_errors=True)

    def _flush(self, samples: int) -> None:
        joined = Sequence.concatenate(self._pending)
        part, rest = joined.frames(0, samples), joined.frames(samples, len(joined))
        self._pending, self._waiting = ([rest] if len(rest) else []), len(rest)
        facts = {"fps": part.fps, "names": part.names, "size_px": part.size_px}
        tensors = {name: np.ascontiguousarray(value) for name, value in part.tensors().items()}
        data = save(tensors, metadata={"vidgru": _json(facts).decode()})
        name = f"part-{len(self._parts):05d}.safetensors"
        write_atomic(self._folder / name, data)
        self._parts.append(
            Part(name=name, samples=len(part), objects=len(part.boxes), sha256=hashlib.sha256(data).hexdigest())
        )


def _json(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="backslashreplace")  # a file name that is not UTF-8 becomes a JSON escape


def _read_index(path: Path) -> dict[str, dict[str, Any]]:
    """Last record of each path. A line cut short by a kill is passed over: its recording is hashed again."""
    index: dict[str, dict[str, Any]] = {}
    if path.is_file():
        for line in path.read_bytes().splitlines():
            try:
                record = json.loads(line)
                index[record.pop("path")] = record
            except (ValueError, KeyError):
                continue
    return index


def _read_part(path: Path) -> Sequence:
    """Map a part from disk. Raises FileNotFoundError, or CacheError where the file is not a sound part."""
    try:
        mapped = np.memmap(path, np.uint8, mode="r")
        length = int(mapped[:8].view("<u8")[0])
        if not 0 < length < _LONGEST_HEADER:
            raise ValueError("no safetensors header")
        header = json.loads(mapped[8 : 8 + length].tobytes())
        facts = json.loads(header.pop("__metadata__")["vidgru"])
        tensors: dict[str, Array] = {}
        for name, info in header.items():
            first, last = (8 + length + offset for offset in info["data_offsets"])
            flat = mapped[first:last].view(np.ndarray).view(_DTYPES[info["dtype"]])
            tensors[name] = flat.reshape(info["shape"])
        return Sequence(**tensors, fps=facts["fps"], size_px=tuple(facts["size_px"]), names=tuple(facts["names"]))
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise CacheError(f"{path} is not a sound part: {error}", "delete its folder; the next run makes it") from None
