"""Packets of a recording: which frames there are, which are samples and where a decoder can start, without decoding."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import av
import numpy as np

from vidgru.errors import RecordingError
from vidgru.types import Array
from vidgru.video.container import container_start, find_video_stream, open_container, time_base
from vidgru.video.timestamps import SamplingGrid

_PROGRESS_PACKETS = 64  # packets per call of `on_progress`


class AmbiguousPacketsError(Exception):
    """The packets do not show which frames there are; the message says why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PacketTable:
    """The packets of a recording's video, one per frame, in decoding order.

    Attributes:
        pts: int64 [S], presentation time in ticks, each unique.
        size: int32 [S], bytes.
        is_key: bool [S], whether a decoder can start there.
        start: Start of the container in seconds.
        tick: Seconds per tick.
        end_s: End of the last packet in seconds.
    """

    pts: Array
    size: Array
    is_key: Array
    start: Fraction
    tick: Fraction
    end_s: float

    @cached_property
    def stamps(self) -> Array:
        """Presentation time of each frame in ticks, in order of presentation, int64 [S]."""
        stamps: Array = self.pts if (self.pts[1:] > self.pts[:-1]).all() else np.sort(self.pts)
        return stamps

    @cached_property
    def key_pts(self) -> Array:
        """PTS of each key frame, in order of presentation, int64 [K]."""
        key_pts: Array = np.sort(self.pts[self.is_key])
        return key_pts

    @cached_property
    def key_index(self) -> Array:
        """Index of each key frame among the frames in order of presentation, int64 [K]."""
        return np.searchsorted(self.stamps, self.key_pts)

    def times(self, stamps: Array) -> Array:
        """Return seconds from the start of the container, float64, of timestamps in ticks."""
        # As `float(stamp * tick - start)` of fractions, which the reader computes: rounded once, if it is exact here.
        divisor = self.tick.denominator * self.start.denominator
        factor, shift = self.tick.numerator * self.start.denominator, self.start.numerator * self.tick.denominator
        largest = int(np.abs(stamps).max(initial=0)) * factor + abs(shift)
        stamps = stamps if max(largest, divisor) < 1 << 53 else stamps.astype(object)
        return np.asarray((stamps * factor - shift) / divisor, np.float64)

    def sample_indices(self, fps: float) -> Array:
        """Return the index of each sample among the frames in order of presentation, by the rule of `SamplingGrid`."""
        # floor((stamp * tick - start + tick / 2) * rate) in whole numbers: fractions are slow for millions of frames.
        rate = SamplingGrid(fps).rate
        half_tick, offset = self.tick * rate / 2, self.start * rate
        factor = half_tick.numerator * offset.denominator
        shift = offset.numerator * half_tick.denominator
        divisor = half_tick.denominator * offset.denominator
        largest = (2 * int(np.abs(self.stamps).max(initial=0)) + 1) * factor + abs(shift)
        stamps = self.stamps if max(largest, divisor) < 1 << 62 else self.stamps.astype(object)
        points = np.maximum(((2 * stamps + 1) * factor - shift) // divisor, -1)
        return np.flatnonzero(np.append(points[:1] >= 0, points[1:] > points[:-1]))


def read_packets(path: Path, on_progress: Callable[[], None] = lambda: None) -> PacketTable:
    """Read all packets of a recording's video; none is decoded.

    Args:
        path: Path of the recording.
        on_progress: Called every few packets.

    Raises:
        AmbiguousPacketsError: Timestamps are missing or repeated, or packets are damaged.
    """
    stamps, sizes, keys = array("q"), array("i"), array("b")
    latest_dts, end = -(2**63), -(2**63)
    try:
        with open_container(path) as container:
            stream = find_video_stream(container)
            start, tick = container_start(container), time_base(stream)
            for count, packet in enumerate(container.demux(stream)):
                if count % _PROGRESS_PACKETS == 0:
                    on_progress()
                size = packet.size
                if not size or packet.is_discard:
                    continue
                pts, dts = packet.pts, packet.dts
                if pts is None:
                    raise AmbiguousPacketsError("packets have no timestamps")
                if packet.is_corrupt or (dts is not None and dts < latest_dts):
                    raise AmbiguousPacketsError("packets are damaged or out of order")
                latest_dts = latest_dts if dts is None else dts
                end = max(end, pts + (packet.duration or 0))
                stamps.append(pts)
                sizes.append(size)
                keys.append(packet.is_keyframe)
    except (RecordingError, av.error.FFmpegError, OSError, ValueError, IndexError) as error:  # as in `VideoReader`
        raise AmbiguousPacketsError(f"packets cannot be read: {error}") from None
    table = PacketTable(
        pts=np.frombuffer(stamps, np.int64) if stamps else np.zeros(0, np.int64),
        size=np.frombuffer(sizes, np.int32) if sizes else np.zeros(0, np.int32),
        is_key=np.frombuffer(keys, bool) if keys else np.zeros(0, bool),
        start=start,
        tick=tick,
        end_s=float(end * tick - start),
    )
    if (table.stamps[1:] == table.stamps[:-1]).any():
        raise AmbiguousPacketsError("timestamps are repeated")
    return table
