"""What is wrong with a recording: counted while it is decoded, and read off the structure of its file."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

_TS_PACKETS = (188, 192, 204)  # bytes: plain, with an arrival time (Blu-ray), with error correction
_TS_SYNC = 0x47
_TS_PACKETS_AT_ONCE = 1 << 15


@dataclass(kw_only=True)
class Damage:
    """What was wrong with a recording. All zero for a good one, also where its frame rate varies or has pauses.

    Attributes:
        corrupt_frames: frames the decoder marked as damaged.
        decode_errors: packets that could not be decoded, or not be read.
        gaps, gap_s: stretches without a frame beside such errors, their number and sum in seconds.
        backward_frames: frames whose time lies before that of an earlier frame.
        missing_tail_s: seconds the container announces after its last frame.
        missing_bytes: bytes the file's structure announces after its end.
        broken_packets: packets of a transport stream that do not begin as they must; FFmpeg passes over them.
        decoder_deaths: times the decoder crashed or hung for good; nothing after that could be read.
    """

    corrupt_frames: int = 0
    decode_errors: int = 0
    gaps: int = 0
    gap_s: float = 0.0
    backward_frames: int = 0
    missing_tail_s: float = 0.0
    missing_bytes: int = 0
    broken_packets: int = 0
    decoder_deaths: int = 0

    def facts(self) -> dict[str, int | float]:
        """The counts that are not zero, seconds rounded to milliseconds."""
        values = {name: getattr(self, name) for name in Damage.__dataclass_fields__}
        return {name: round(value, 3) for name, value in values.items() if value}

    def __str__(self) -> str:
        words = {
            "corrupt_frames": "{} corrupt frames",
            "decode_errors": "{} decode errors",
            "gaps": "{} gaps",
            "gap_s": "{} s in gaps",
            "backward_frames": "{} frames that go back in time",
            "missing_tail_s": "last {} s missing",
            "missing_bytes": "the file ends {} bytes early",
            "broken_packets": "{} packets of the transport stream are broken",
            "decoder_deaths": "the decoder crashed or hung",
        }
        return ", ".join(words[name].format(value) for name, value in self.facts().items())


def missing_bytes(path: Path, container: str) -> int:
    """Bytes that the outermost structure of a file announces beyond its end; 0 where it announces none.

    Copies that were broken off are found by it also where the container tells no duration.

    Args:
        path: the file.
        container: FFmpeg's name of its format.
    """
    measure = next((measure for name, measure in _MEASURES.items() if container.startswith(name)), None)
    if measure is None:
        return 0
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        return max(measure(file, size) - size, 0)


def _riff_end(file: BinaryIO, size: int) -> int:
    """AVI: a chain of RIFF chunks (Microsoft, "AVI RIFF File Reference"; OpenDML 1.02 for more than one)."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF" or length in (0, 0xFFFFFFFF):  # a writer that could not go back to note the length
            return 0
        end += 8 + length + length % 2
    return end if end - size != 1 else 0  # the last padding byte is often left out


def _boxes_end(file: BinaryIO, size: int) -> int:
    """MP4 and QuickTime: a chain of boxes (ISO/IEC 14496-12, 4.2)."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        if length < 8 or not kind.isascii():  # 0: to the end of the file; anything else is no box
            return 0
        end += length
    return end


def _segment_end(file: BinaryIO, size: int) -> int:
    """Matroska and WebM: an EBML header and a segment, each an ID, a length and content (RFC 8794, sections 4 to 6)."""
    end = 0
    for _ in range(2):
        file.seek(end)
        _vint(file)
        length, bits = _vint(file)
        if not bits or length == (1 << bits) - 1:  # unknown length: written live
            return 0
        end = file.tell() + length
    return end


def _vint(file: BinaryIO) -> tuple[int, int]:
    """An EBML number without its length marker, and how many bits it has; (0, 0) where there is none."""
    first = file.read(1)
    if not first or not first[0]:
        return 0, 0
    more = 8 - first[0].bit_length()
    bits = 7 * (more + 1)
    return int.from_bytes(first + file.read(more), "big") & ((1 << bits) - 1), bits


def _packets_end(file: BinaryIO, size: int) -> int:
    """MPEG transport stream: whole packets of one length (ISO/IEC 13818-1, 2.4.3)."""
    length, _ = _packets(file)
    return -(-size // length) * length if length else 0


def _packets(file: BinaryIO) -> tuple[int, int]:
    """Length of a transport stream's packets, and where in them the sync byte is; zeros where that cannot be seen."""
    head = file.read(4 * max(_TS_PACKETS) + 4)
    for length in _TS_PACKETS:
        offset = 4 if length == 192 else 0
        if all(head[at : at + 1] == bytes([_TS_SYNC]) for at in range(offset, min(len(head), 4 * length), length)):
            return length, offset
    return 0, 0


def broken_packets(path: Path, container: str, on_progress: Callable[[], None] = lambda: None) -> int:
    """Packets of a transport stream that lack their sync byte, before the last that has it; 0 for other formats.

    Args:
        path: the file, all of which is read.
        container: FFmpeg's name of its format.
        on_progress: called every few MB.
    """
    if container != "mpegts":
        return 0
    with open(path, "rb") as file:
        length, offset = _packets(file)
        if not length:
            return 0
        file.seek(0)
        seen = good = until = 0
        while chunk := file.read(length * _TS_PACKETS_AT_ONCE):
            synced = np.frombuffer(chunk, np.uint8)[offset::length] == _TS_SYNC
            if synced.any():
                good, until = good + int(synced.sum()), seen + int(np.flatnonzero(synced)[-1]) + 1
            seen += len(synced)
            on_progress()
    return until - good


_MEASURES: dict[str, Callable[[BinaryIO, int], int]] = {
    "avi": _riff_end,
    "mov": _boxes_end,
    "matroska": _segment_end,
    "mpegts": _packets_end,
}
