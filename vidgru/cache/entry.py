"""One cache entry on disk: `entry.json` and its parts.

Parts are safetensors files, written by that library and mapped from disk here without a copy
(https://github.com/huggingface/safetensors, "Format").

A part whose sequence has the tensor `still` (see `FrameSequence`) stores each still frame as its time and index only:
`offsets`, `scene` and `scene_motion` have rows for the other frames, and for the first of the part. Reading such a part
repeats their objects in memory.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta, convert

from vidgru.errors import CacheError, PartChangedError
from vidgru.storage import parse_json, sha256_file
from vidgru.types import FRAME_TENSORS, OBJECT_TENSORS, Array, FrameSequence, Span

KEY = re.compile(r"[0-9a-f]{64}")
UNFINISHED = ".unfinished"  # subfolder of a cache, so that finding incomplete entries does not list all entries
INCOMPLETE_NAME = re.compile(r"([0-9a-f]{64})\.[0-9a-f]+")
RESUME = "resume.json"
LIVE = "live"  # key of `Entry.run_info` with the source of an entry that was recorded live
REMEDY = "extract its recording again; this replaces the entry"
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "BOOL": "|u1"}
_MAX_HEADER_BYTES = 1 << 20  # the header of a part is under 2 kB
_MAX_ENTRY_BYTES = 1 << 26  # a part takes 150
_MAX_REPEATED = 1 << 22  # objects of a part with still frames: many times those of PART_SAMPLES frames of detectors
_EVERY_FRAME = ("time_s", "frame_index", "still")  # tensors stored for still frames


Count = Annotated[int, Meta(ge=0, le=1 << 50)]
Hash = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


@dataclass(frozen=True, kw_only=True)
class EntryPart:
    """One file of an entry.

    Attributes:
        name: File name.
        samples: Number of frames.
        objects: Number of objects.
        still: Number of frames that are still, see `FrameSequence`.
        bytes: File size.
        sha256: SHA-256 of the file, in hex.
    """

    name: Annotated[str, Meta(pattern=r"\Apart-\d{5,9}\.safetensors\Z")]
    samples: Count
    objects: Count
    still: Count = 0
    bytes: Count
    sha256: Hash


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Content of `entry.json` for a finished recording.

    Attributes:
        key: Name of its folder.
        status: "done", or "partial" if the recording is damaged.
        duration_s: Duration of the recording, from its container.
        fps: Requested samples per second.
        size_px: Width and height of the upright frame.
        names: Class names of the detector.
        feature_settings: Settings that decide the features.
        run_info: Settings and versions that are only recorded.
        damage: Damage of the recording by kind; empty if there is none.
        recorded_at: ISO 8601 wall-clock time of the container's start; None if unknown.
        adaptive_note: What kept an adaptive extraction from skipping still stretches; empty if nothing did.
        parts: Its files, in order.
    """

    key: str
    status: Literal["done", "partial"]
    duration_s: Annotated[float, Meta(ge=0, le=1e9)]
    fps: Annotated[float, Meta(gt=0, le=1e6)]
    size_px: tuple[Count, Count]
    names: tuple[str, ...]
    feature_settings: dict[str, Any]
    run_info: dict[str, Any]
    damage: dict[str, Count | Annotated[float, Meta(ge=0, le=1e9)]] = field(default_factory=dict)
    recorded_at: str | None = None
    adaptive_note: str = ""
    parts: tuple[EntryPart, ...]

    def __post_init__(self) -> None:
        if self.recorded_at is not None:
            datetime.fromisoformat(self.recorded_at)
        convert(self.feature_settings.get("span"), Span | None)

    @property
    def span(self) -> Span | None:
        """The part of the recording that it covers; None if it covers all of it."""
        span = self.feature_settings.get("span")
        return None if span is None else (span[0], span[1])

    @property
    def samples(self) -> int:
        """Number of frames in all parts."""
        return sum(part.samples for part in self.parts)

    @property
    def objects(self) -> int:
        """Number of objects in all parts."""
        return sum(part.objects for part in self.parts)

    @property
    def still(self) -> int:
        """Number of still frames in all parts: they repeat the objects of the frame before."""
        return sum(part.still for part in self.parts)


def span_settings(feature_settings: Mapping[str, Any], span: Span | None) -> dict[str, Any]:
    """Return the feature settings of an entry that covers only this part of its recording; None: all of it."""
    return {**feature_settings} if span is None else {**feature_settings, "span": [*span]}


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """Serialize a value so that equal values give equal bytes."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="backslashreplace")  # a file name that is not UTF-8 becomes a JSON escape


def private_folder(entry: Path) -> Path:
    """Return a unique folder in which to write an entry, or to delete one."""
    return entry.parent / UNFINISHED / f"{entry.name}.{secrets.token_hex(4)}"


def delete_resume_file(folder: Path) -> None:
    """Delete the resume file of a finished entry. A kill between renaming the folder and this call leaves it there."""
    with suppress(OSError):
        (folder / RESUME).unlink()


def live_source(folder: Path) -> str | None:
    """Return the live source that an entry, finished or incomplete, was recorded from; None if it is of a file."""
    for name in ("entry.json", RESUME):
        try:
            source = parse_json((folder / name).read_bytes())["run_info"].get(LIVE)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        return None if source is None else str(source)
    return None


def read_entry(folder: Path) -> Entry | None:
    """Read `entry.json`; return None if there is none.

    Raises:
        CacheError: It cannot be read.
    """
    path = folder / "entry.json"
    try:
        if path.stat().st_size > _MAX_ENTRY_BYTES:
            raise ValueError(f"larger than {_MAX_ENTRY_BYTES} bytes")
        return convert({**parse_json(path.read_bytes()), "key": folder.name}, Entry)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, OSError) as error:
        raise CacheError(f"{path} is corrupt: {error}", REMEDY) from None


@dataclass(frozen=True, kw_only=True)
class _PartMetadata:
    fps: float
    size_px: tuple[Count, Count]
    names: tuple[str, ...]
    flip_idx: tuple[int, ...] = ()


def read_part(path: Path) -> FrameSequence:
    """Map a part from disk. Raises CacheError if it is missing or corrupt."""
    try:
        mapped = np.memmap(path, np.uint8, mode="r")
        length = int(mapped[:8].view("<u8")[0])
        if not 0 < length < _MAX_HEADER_BYTES:
            raise ValueError("no safetensors header")
        header = parse_json(mapped[8 : 8 + length].tobytes())
        metadata = convert(parse_json(header.pop("__metadata__")["vidgru"]), _PartMetadata)
        tensors: dict[str, Any] = {}
        for name, info in header.items():
            first, last = (8 + length + offset for offset in info["data_offsets"])
            flat = mapped[first:last].view(np.ndarray).view(_DTYPES[info["dtype"]])
            tensors[name] = flat.reshape(info["shape"])
        if "still" in tensors:
            tensors = _repeat_objects(tensors | {"still": tensors["still"] != 0})
        return FrameSequence(**tensors, **vars(metadata))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError) as error:
        raise CacheError(f"{path} is corrupt: {error}", REMEDY) from None


def stored_tensors(sequence: FrameSequence) -> dict[str, Array]:
    """Return the tensors of a part as they are stored: without the objects of still frames, except the first's."""
    tensors = sequence.tensors()
    if sequence.still is None:
        return tensors
    is_stored = ~sequence.still
    is_stored[:1] = True
    counts = np.diff(sequence.offsets)
    is_object_stored = np.repeat(is_stored, counts)
    for name, value in tensors.items():
        if name in OBJECT_TENSORS:
            tensors[name] = value[is_object_stored]
        elif name in FRAME_TENSORS and name not in _EVERY_FRAME:
            tensors[name] = value[is_stored]
    return tensors | {"offsets": np.cumsum([0, *counts[is_stored]], dtype=np.int64)}


def _repeat_objects(tensors: dict[str, Array]) -> dict[str, Array]:
    """Invert `stored_tensors`.

    Raises:
        ValueError: The tensors do not fit, or would become too large.
    """
    still, offsets = tensors["still"], tensors["offsets"]
    is_stored = ~still
    is_stored[:1] = True
    rows = np.cumsum(is_stored) - 1  # stored frame of each frame
    stored_counts = np.diff(offsets)
    if still.ndim != 1 or len(offsets) != is_stored.sum() + 1 or offsets[0] != 0 or (stored_counts < 0).any():
        raise ValueError("offsets do not fit the frames that are not still")
    counts = stored_counts[rows]
    total = int(counts.sum())
    if total > max(_MAX_REPEATED, offsets[-1]):
        raise ValueError(f"its still frames repeat {total} objects")
    new_offsets = np.cumsum([0, *counts], dtype=np.int64)
    objects = np.arange(total) - np.repeat(new_offsets[:-1] - offsets[rows], counts)  # stored object of each object
    for name, value in tensors.items():
        if name in OBJECT_TENSORS:
            tensors[name] = value[objects]
        elif name in FRAME_TENSORS and name not in _EVERY_FRAME:
            tensors[name] = value[rows]
    if "scene_motion" in tensors:
        tensors["scene_motion"][still] = 0
    if "motion" in tensors:
        tensors["motion"][np.repeat(still, counts)] = 0
    return tensors | {"offsets": new_offsets}


def open_part(folder: Path, part: EntryPart, *, verify: bool = False) -> FrameSequence:
    """Map a part from disk after comparing its size and shapes with `entry.json`.

    Args:
        folder: Folder of the entry.
        part: The part.
        verify: Also read all its bytes, compare their SHA-256, and check its numbers.

    Raises:
        PartChangedError: Its bytes are not those that were written.
        CacheError: It is missing, cannot be read, or does not fit.
    """
    path = folder / part.name
    try:
        if (size := path.stat().st_size) != part.bytes:
            raise CacheError(f"{path}: {size} bytes instead of {part.bytes}", REMEDY)
        # Read rather than hashed in the mapping, in which an error of the disk would end the process.
        if verify and sha256_file(path) != part.sha256:
            raise PartChangedError(f"{path}: its bytes differ from those that were written", REMEDY)
    except FileNotFoundError:
        raise CacheError(f"{path} is missing", REMEDY) from None
    except OSError as error:
        raise CacheError(f"{path}: cannot be read: {error.strerror}", REMEDY) from None
    sequence = read_part(path)
    if (len(sequence), len(sequence.boxes)) != (part.samples, part.objects):
        raise CacheError(f"{path}: {len(sequence)} samples, but entry.json lists {part.samples}", REMEDY)
    if part.still != (0 if sequence.still is None else sequence.still.sum()):
        raise CacheError(f"{path}: its still samples are not the {part.still} that entry.json lists", REMEDY)
    if verify and (fault := sequence.find_fault()):
        raise CacheError(f"{path}: {fault}", f"delete {folder} and extract the recording again")
    return sequence
