"""Damage of recordings: the counts that `reader.py` makes while decoding, and what the structure of a file reveals."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vidgru.types import Array

_TS_PACKET_BYTES = (188, 192, 204)  # plain, with arrival time (Blu-ray), with error correction
_TS_SYNC = 0x47
_TS_PACKETS_PER_READ = 1 << 15


@dataclass(kw_only=True)
class Damage:
    """Damage of a recording. All zero for an intact one, also if its frame rate varies or it has pauses.

    Attributes:
        corrupt_frames: Frames that the decoder marked as corrupt.
        decode_errors: Packets that could not be read or decoded.
        gaps, gap_s: Number and total seconds of gaps without frames next to such errors.
        backward_frames: Frames whose time is before that of an earlier frame.
        missing_tail_s: Seconds that the container declares after its last frame.
        missing_bytes: Bytes that the file's structure declares after its end.
        broken_packets: Transport stream packets without a sync byte; FFmpeg skips them silently.
        decoder_deaths: Times the decoder crashed or hung for good; nothing after that could be read.
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
        """Return the values that are not zero, seconds rounded to milliseconds."""
        values = {name: getattr(self, name) for name in Damage.__dataclass_fields__}
        return {name: round(value, 3) for name, value in values.items() if value}

    def __str__(self) -> str:
        phrases = {
            "corrupt_frames": "{} corrupt frames",
            "decode_errors": "{} decode errors",
            "gaps": "{} gaps",
            "gap_s": "{} s in gaps",
            "backward_frames": "{} frames that go back in time",
            "missing_tail_s": "last {} s missing",
            "missing_bytes": "the file ends {} bytes early",
            "broken_packets": "{} broken transport stream packets",
            "decoder_deaths": "the decoder crashed or hung",
        }
        return ", ".join(phrases[name].format(value) for name, value in self.facts().items())


def count_missing_bytes(path: Path, container: str) -> int:
    """Count the bytes that the outermost structure of a file declares beyond its end; 0 if it declares none.

    This detects truncated copies even if the container declares no duration.

    Args:
        path: Path of the file.
        container: FFmpeg's name of its format.
    """
    find_end = next((find_end for name, find_end in _END_FINDERS.items() if container.startswith(name)), None)
    if find_end is None:
        return 0
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        return max(find_end(file, size) - size, 0)


def scan_packets(path: Path, container: str, on_progress: Callable[[], None] = lambda: None) -> tuple[int, int]:
    """Count the packets of a transport stream without a sync byte, and the joins of files in it.

    Broken packets after the last one with a sync byte do not count: recorders fill their last block with zeros.

    Args:
        path: Path of the file, which is read whole.
        container: FFmpeg's name of its format; the counts are 0 for all but "mpegts".
        on_progress: Called every few MB.
    """
    if container != "mpegts":
        return 0, 0
    with open(path, "rb") as file:
        length, offset = _packet_format(file)
        if not length:
            return 0, 0
        file.seek(0)
        packets = synced_packets = end = 0  # end: number of packets up to the last synced one
        joins = _Joins()
        while chunk := file.read(length * _TS_PACKETS_PER_READ):
            content = np.frombuffer(chunk, np.uint8)
            is_synced = content[offset::length] == _TS_SYNC
            if is_synced.any():
                synced_packets += int(is_synced.sum())
                end = packets + int(np.flatnonzero(is_synced)[-1]) + 1
            packets += len(is_synced)
            headers = content[: len(content) // length * length].reshape(-1, length)[:, offset : offset + 4]
            joins.add(headers[headers[:, 0] == _TS_SYNC])
            on_progress()
    return end - synced_packets, joins.number


class _Joins:
    """Counts the joins in a transport stream (ISO/IEC 13818-1, 2.4.3.2): packets of all PIDs are counted from 0 again.

    Lost packets break the count too, but do not continue with 0, on the table of programs and on another PID at once.

    Attributes:
        number: Number of joins.
    """

    def __init__(self) -> None:
        self.number = 0
        self._latest: dict[int, int] = {}  # count of the latest packet by PID
        self._is_open = False  # whether the latest table is counted 0, and no join has been counted since

    def add(self, headers: Array) -> None:
        """Take the headers of further packets, uint8 [N, 4]."""
        pids = (headers[:, 1].astype(np.int64) & 0x1F) << 8 | headers[:, 2]
        counts = headers[:, 3].astype(np.int64) & 0x0F
        restarts = []  # packets counted 0 out of order, and tables
        for pid in np.unique(pids):
            at = np.flatnonzero((pids == pid) & (headers[:, 3] & 0x10 > 0))  # packets without payload are not counted
            if len(at):
                previous = np.concatenate([[self._latest.get(int(pid), 15)], counts[at[:-1]]])
                restarts.append(at if pid == 0 else at[(counts[at] == 0) & (previous != 15)])
                self._latest[int(pid)] = int(counts[at[-1]])
        for packet in np.sort(np.concatenate(restarts)) if restarts else ():
            if pids[packet] == 0:
                self._is_open = counts[packet] == 0
            elif self._is_open:
                self.number += 1
                self._is_open = False


def _riff_end(file: BinaryIO, size: int) -> int:
    """AVI: a chain of RIFF chunks (Microsoft, "AVI RIFF File Reference"; OpenDML 1.02 for more than one)."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        name, length = struct.unpack("<4sI", file.read(8))
        if name != b"RIFF" or length in (0, 0xFFFFFFFF):  # the writer could not seek back to set the length
            return 0
        end += 8 + length + length % 2
    return end if end - size != 1 else 0  # writers often omit the last padding byte


def _boxes_end(file: BinaryIO, size: int) -> int:
    """MP4 and QuickTime: a chain of boxes (ISO/IEC 14496-12, 4.2)."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        length, name = struct.unpack(">I4s", file.read(8))
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        if length < 8 or not name.isascii():  # 0: up to the end of the file; anything else is not a box
            return 0
        end += length
    return end


def _segment_end(file: BinaryIO, size: int) -> int:
    """Matroska and WebM: an EBML header and a segment, each with ID, length and content (RFC 8794, sections 4 to 6)."""
    end = 0
    for _ in range(2):
        file.seek(end)
        _read_vint(file)
        length, bits = _read_vint(file)
        if not bits or length == (1 << bits) - 1:  # unknown length: written live
            return 0
        end = file.tell() + length
    return end


def _read_vint(file: BinaryIO) -> tuple[int, int]:
    """Read an EBML number; return it without its length marker, and its number of bits. (0, 0) if there is none."""
    first = file.read(1)
    if not first or not first[0]:
        return 0, 0
    more = 8 - first[0].bit_length()
    bits = 7 * (more + 1)
    return int.from_bytes(first + file.read(more), "big") & ((1 << bits) - 1), bits


def _packets_end(file: BinaryIO, size: int) -> int:
    """MPEG transport stream: whole packets of one length (ISO/IEC 13818-1, 2.4.3)."""
    length, _ = _packet_format(file)
    return -(-size // length) * length if length else 0


def _packet_format(file: BinaryIO) -> tuple[int, int]:
    """Return the length of a transport stream's packets and the offset of their sync byte; (0, 0) if unknown."""
    head = file.read(4 * max(_TS_PACKET_BYTES) + 4)
    for length in _TS_PACKET_BYTES:
        offset = 4 if length == 192 else 0
        if all(head[at : at + 1] == bytes([_TS_SYNC]) for at in range(offset, min(len(head), 4 * length), length)):
            return length, offset
    return 0, 0


_END_FINDERS: dict[str, Callable[[BinaryIO, int], int]] = {
    "avi": _riff_end,
    "mov": _boxes_end,
    "matroska": _segment_end,
    "mpegts": _packets_end,
}
