"""One entry on disk: what `entry.json` says, and its parts.

Parts are safetensors files, written by that library and mapped from disk here without a copy
(https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vidgru.errors import CacheError
from vidgru.storage import sha256_file
from vidgru.types import Array, FrameSequence

KEY = re.compile(r"[0-9a-f]{64}")
UNFINISHED = ".unfinished"  # in a cache's folder; apart, so that what was left is found without listing all entries
LEFTOVER = re.compile(r"([0-9a-f]{64})\.[0-9a-f]+")
RESUME = "resume.json"
LIVE = "live"  # in `Entry.run_info`: the source of an entry that comes of no file
REMEDY = "extract its recording again; that makes the entry anew"
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2"}
_LONGEST_HEADER = 1 << 20  # bytes; a part's header is under 2 kB


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of an entry."""

    name: str
    samples: int
    objects: int
    bytes: int
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
        feature_settings: settings that decide the features.
        run_info: settings and versions that are only recorded.
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
    feature_settings: dict[str, Any]
    run_info: dict[str, Any]
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


def live_source(folder: Path) -> str | None:
    """The live source that an entry, or what a killed run left of one, was recorded from; None for those of files."""
    for name in ("entry.json", RESUME):
        try:
            source = json.loads((folder / name).read_bytes())["run_info"].get(LIVE)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        return None if source is None else str(source)
    return None


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """The one way a value is written here: equal values give equal bytes."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="backslashreplace")  # a file name that is not UTF-8 becomes a JSON escape


def private_folder(entry: Path) -> Path:
    """Where an entry can be written, or taken apart, under a name that nobody else has."""
    return entry.parent / UNFINISHED / f"{entry.name}.{secrets.token_hex(4)}"


def tidy(folder: Path) -> None:
    """Delete what only an unfinished entry needs. Until it has its name it does; a kill may come in between."""
    with suppress(OSError):
        (folder / RESUME).unlink()


def read_entry(folder: Path) -> Entry | None:
    """What `entry.json` says, None if there is none.

    Raises:
        CacheError: it is there but cannot be read.
    """
    path = folder / "entry.json"
    try:
        values = json.loads(path.read_bytes())
        values["parts"] = tuple(Part(**part) for part in values["parts"])
        values["size_px"], values["names"] = tuple(values["size_px"]), tuple(values["names"])
        return Entry(key=folder.name, **values)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise CacheError(f"{path} is not sound: {error}", REMEDY) from None


def read_part(path: Path) -> FrameSequence:
    """Map a part from disk.

    Raises:
        CacheError: it is missing, or is not a sound part.
    """
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
        return FrameSequence(**tensors, fps=facts["fps"], size_px=tuple(facts["size_px"]), names=tuple(facts["names"]))
    except FileNotFoundError:
        raise CacheError(f"{path} is missing", REMEDY) from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError) as error:
        raise CacheError(f"{path} is not a sound part: {error}", REMEDY) from None


def shape_fault(folder: Path, part: Part) -> str | None:
    """What can be seen to be wrong with a part without reading its tensors; None where nothing can."""
    try:
        if (size := (folder / part.name).stat().st_size) != part.bytes:
            return f"{part.name}: {size} bytes, {part.bytes} were written"
        found = read_part(folder / part.name)
    except FileNotFoundError:
        return f"{part.name}: missing"
    except OSError as error:
        return f"{part.name}: cannot be read: {error.strerror}"
    except CacheError as error:
        return error.message
    if (len(found), len(found.boxes)) != (part.samples, part.objects):
        return f"{part.name}: {len(found)} samples, entry.json says {part.samples}"
    return None


def fault(folder: Path, part: Part) -> str | None:
    """What is wrong with a part, in words; None where it is sound. Reads every byte."""
    if wrong := shape_fault(folder, part):
        return wrong
    try:
        same = sha256_file(folder / part.name) == part.sha256
    except OSError as error:
        return f"{part.name}: cannot be read: {error.strerror}"
    return None if same else f"{part.name}: its bytes are not those that were written"
