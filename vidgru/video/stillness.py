"""Find where a recording is still, from its packets and a few key frames, so that it need not be decoded there.

    packets        sizes against the recording's own baseline  ──▶  groups of pictures in which something moves
    key frames     one in `CHECK_S`, decoded small             ──▶  stretches whose picture changes slowly, or for good

Both err on the side of decoding. Where packets do not show motion, because noise or a constant bit rate hides it, every
key frame is checked if key frames are frequent, else everything is decoded there. A key frame is compared with the last
picture that the detector gets, not with the last one checked, so slow changes add up. The plan is a function of the
file, the sampling rate and the span alone. Related: NoScope (Kang et al. 2017), CoVA (Hwang et al. 2022).

If only a span of a recording is to be read, the plan has the samples of that span (`plan_span`, if all are decoded).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

from vidgru.errors import RecordingError
from vidgru.types import Array, Span
from vidgru.video.container import VideoInfo, find_video_stream, new_decoder, open_container
from vidgru.video.packets import PacketTable
from vidgru.video.reader import SEEK_MARGINS_S
from vidgru.video.scaling import FrameScaler, scaled_size

CHECK_S = 20.0  # seconds between key frames that are checked in still stretches
BEFORE_S, AFTER_S = 1.0, 3.0  # least time that is decoded before and after motion
_REDETECT_S = 300.0  # time after which objects are detected again although nothing has changed
_BUSY_S = 20.0  # where packets do not show motion: time that is decoded after a change, before checking again
_FREQUENT_S, _RARE_S = 2.5, 30.0  # key frames at least so often replace packets; key frames rarer than this are no help

# Sizes of packets are compared within spans of some minutes, because light and noise change them.
_SPAN_S, _SHORTEST_S, _LONGEST_S = 300.0, 60.0, 1e7
_BLOCK_S = 1.0
_MIN_PACKETS = 8  # of one kind in a span, for a baseline
# Someone who walks, 2 % of the picture wide and 7 % high, adds 12 to 48 bytes to each frame of 640x360 in H.264 at CRF
# 23 to 28, with zero latency or not, whatever the noise.
_MOTION_BYTES, _MOTION_PIXELS = 10.0, 640 * 360
_SIGMAS = 6.0
_FILLED_SPREAD, _FILLED_BYTES = 0.01, 200  # packets of equal size: a constant bit rate that is filled up
_UNEVEN_FRAMES = 0.3  # relative spread of the frames per second, above which the frame rate varies

# Pictures are compared by the mean luma of cells of 8x8 pixels, at most 40 of them side by side.
_PICTURE_PX, _CELL_PX = 320, 8
_CHANGE, _CELL_SIGMAS, _MAX_NOISE = 3.5, 5.0, 1.5  # of luma levels, 0 to 255
_LIGHT_CHANGE, _LIGHT_DRIFT = 6.0, 2.0  # of the median of all cells
_LEARNING_RATE = 0.1
# A clock that is burnt into the picture changes in few cells near its upper or lower edge, time and again.
_CLOCK_BAND, _CLOCK_SHARE, _CLOCK_RATE, _CLOCK_CHANGE = 0.15, 0.06, 0.1, 1.5


class NotPlannableError(Exception):
    """Packets do not show where the recording is still; the message says why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StillPlan:
    """Which samples of a recording are decoded.

    Decoding a stretch starts at a key frame, and its first sample is the first one at or after it.

    Attributes:
        time_s: float64 [N], time of each sample.
        pts: int64 [N], its PTS.
        frame_index: int64 [N], index of its frame in the recording.
        still: bool [N], whether it is not decoded.
        key_pts, key_index: int64 [K], PTS and frame index of each key frame, from the last one at or before the first
            sample on.
        blind: Share of the recording, or of the span, in which packets do not show motion.
        starts_late: Whether samples of the recording precede the first one.
        ends_early: Whether samples of the recording follow the last one.
    """

    time_s: Array
    pts: Array
    frame_index: Array
    still: Array
    key_pts: Array
    key_index: Array
    blind: float
    starts_late: bool = False
    ends_early: bool = False


def plan_span(packets: PacketTable, fps: float, span: Span) -> StillPlan:
    """Plan to decode all samples in a span of a recording.

    Args:
        packets: Its packets.
        fps: Samples per second.
        span: Start and end in seconds; an end of None is the recording's.

    Raises:
        NotPlannableError: It has no samples in the span, or does not start with a key frame.
    """
    if not len(packets.key_index) or packets.key_index[0] > 0:
        raise NotPlannableError("it does not start with a key frame")
    samples = packets.sample_indices(fps)
    time_s = packets.times(packets.stamps[samples])
    first = int(np.searchsorted(time_s, span[0])) if span[0] else 0  # the first one may be half a tick before 0
    stop = len(samples) if span[1] is None else int(np.searchsorted(time_s, span[1]))
    if first >= stop:
        raise NotPlannableError("it has no frames in that time")
    key = int(np.searchsorted(packets.key_index, samples[first], side="right")) - 1
    return StillPlan(
        time_s=time_s[first:stop],
        pts=packets.stamps[samples[first:stop]],
        frame_index=samples[first:stop],
        still=np.zeros(stop - first, bool),
        key_pts=packets.key_pts[key:],
        key_index=packets.key_index[key:],
        blind=0.0,
        starts_late=first > 0,
        ends_early=stop < len(samples),
    )


def plan_still(
    packets: PacketTable,
    path: Path,
    info: VideoInfo,
    fps: float,
    ignored: Callable[[tuple[int, int]], Array | None],
    *,
    span: Span | None = None,
    threads: int = 1,
    on_progress: Callable[[], None] = lambda: None,
) -> StillPlan:
    """Decide which samples of a recording are decoded.

    Args:
        packets: Its packets.
        path: The recording.
        info: Its properties.
        fps: Samples per second.
        ignored: Returns the pixels to ignore, bool [h, w], of an upright picture of this width and height; or None.
        span: Part of the recording to plan, widened to whole groups of pictures; None plans all of it.
        threads: Threads that decode key frames.
        on_progress: Called at least once per key frame.

    Raises:
        NotPlannableError: Packets and key frames do not show it.
        RecordingError: It cannot be opened any more.
    """
    gops = Gops(packets, fps)
    active, is_blind = find_motion(packets, gops, info)  # in the whole recording: its baselines need minutes
    groups = slice(0, len(gops)) if span is None else gops.overlapping(span)
    all_samples = gops.samples
    gops, active, is_blind = gops.cut(groups), active[groups], is_blind[groups]
    decoded = active.copy()
    decoded[-1] = True  # no key frame follows that would show a change
    first_only = np.zeros(len(decoded), bool)
    with _KeyFrames(path, info, gops.key_pts, ignored, threads, on_progress) as pictures:
        _compare_pictures(gops, is_blind, decoded, first_only, pictures)
    pts = packets.stamps[gops.samples]
    return StillPlan(
        time_s=packets.times(pts),
        pts=pts,
        frame_index=gops.samples,
        still=gops.still_samples(decoded, first_only),
        key_pts=gops.key_pts,
        key_index=gops.key_index,
        blind=float(gops.seconds[is_blind].sum() / gops.seconds.sum()),
        starts_late=bool(gops.samples[0] > all_samples[0]),
        ends_early=bool(gops.samples[-1] < all_samples[-1]),
    )


def share_still(packets: PacketTable, info: VideoInfo, fps: float) -> float:
    """Return the share of the samples that are still as far as packets show.

    Raises:
        NotPlannableError: Packets do not show it.
    """
    gops = Gops(packets, fps)
    active, is_blind = find_motion(packets, gops, info)
    first_only = np.zeros(len(active), bool)
    first_only[1:] = active[:-1] | is_blind[1:]
    return float(gops.still_samples(active, first_only).mean())


class Gops:
    """Groups of pictures: a key frame and what follows up to the next one, G in all, in order of presentation.

    Args:
        packets: The recording's packets.
        fps: Samples per second.

    Attributes:
        samples: int64 [N], frame index of each sample.
        key_pts, key_index: int64 [G], PTS and frame index of each key frame.
        start_s: float64 [G], time of each key frame.
        seconds: float64 [G], length of each group.
        first_sample: int64 [G], first sample at or after each key frame; N if there is none.

    Raises:
        NotPlannableError: Decoding cannot start where it would have to.
    """

    def __init__(self, packets: PacketTable, fps: float) -> None:
        if not len(packets.pts):
            raise NotPlannableError("there are no packets")
        self.key_pts, self.key_index = packets.key_pts, packets.key_index
        if len(self.key_pts) > len(packets.pts) / 2:
            raise NotPlannableError("every frame is a key frame")
        if not len(self.key_pts) or self.key_index[0] > 0:
            raise NotPlannableError("it does not start with a key frame")
        self.start_s = packets.times(self.key_pts)
        self.seconds = np.diff(self.start_s, append=max(packets.end_s, float(packets.times(packets.stamps[-1:])[0])))
        if self.seconds.sum() < _SHORTEST_S:
            raise NotPlannableError("it is shorter than a minute")
        if self.seconds.sum() > _LONGEST_S:
            raise NotPlannableError("its timestamps span more than a hundred days")
        if len(self.key_pts) < 3 or np.median(self.seconds[:-1]) > _RARE_S:
            raise NotPlannableError("key frames are too rare")
        self.samples = packets.sample_indices(fps)
        self.first_sample = np.searchsorted(self.samples, self.key_index)

    def __len__(self) -> int:
        return len(self.key_pts)

    def overlapping(self, span: Span) -> slice:
        """Return the groups that overlap a span in seconds.

        Raises:
            NotPlannableError: There are no samples in them.
        """
        end_s = np.inf if span[1] is None else span[1]
        first = max(int(np.searchsorted(self.start_s, span[0], side="right")) - 1, 0)
        stop = int(np.searchsorted(self.start_s, end_s))
        edges = np.append(self.first_sample, len(self.samples))
        is_after_end = self.start_s[first] + self.seconds[first] <= span[0]
        if is_after_end or first >= stop or edges[first] == edges[stop]:
            raise NotPlannableError("it has no frames in that time")
        return slice(first, stop)

    def cut(self, groups: slice) -> Gops:
        """Return consecutive groups as if the recording had no others; frame indices and times stay."""
        part = copy(self)
        for name in ("key_pts", "key_index", "start_s", "seconds"):
            setattr(part, name, getattr(self, name)[groups])
        edges = np.append(self.first_sample, len(self.samples))
        part.samples = self.samples[edges[groups.start] : edges[groups.stop]]
        part.first_sample = self.first_sample[groups] - edges[groups.start]
        return part

    def still_samples(self, decoded: Array, first_only: Array) -> Array:
        """Return which samples are not decoded, bool [N].

        Args:
            decoded: bool [G], groups that are decoded, with the first sample after each.
            first_only: bool [G], groups of which only the first sample is decoded.
        """
        of_group = np.searchsorted(self.first_sample, np.arange(len(self.samples)), side="right") - 1
        still = ~decoded[np.maximum(of_group, 0)]
        is_end = np.concatenate([[True], decoded[:-1]])
        first = self.first_sample[first_only | is_end]
        still[first[first < len(still)]] = False
        still[-1:] = False
        return still


# --- packets ----------------------------------------------------------------------------------------------------------


def find_motion(packets: PacketTable, gops: Gops, info: VideoInfo) -> tuple[Array, Array]:
    """Find groups of pictures in which packets show motion, and those in which they would not.

    The excess of each packet over the baseline of its kind is averaged over blocks of a second. The kind is the place
    in the group of pictures, whose sizes repeat from group to group while nothing moves. Blocks whose excess is far
    above that of most blocks of their span have motion; groups near them are decoded too. A span is blind if the excess
    of blocks scatters by more than a small object would add.

    Returns:
        Groups to decode, bool [G]; and groups in blind spans, bool [G], of which those that key frames cannot replace
        are to be decoded too.
    """
    times = packets.pts * float(packets.tick) - float(packets.start)
    block = (times / _BLOCK_S).clip(0).astype(np.int32)
    end_s = times.max()
    del times  # a day has millions of packets
    blocks = int(block.max()) + 1
    counts = np.bincount(block, minlength=blocks)
    usual_count = max(float(np.median(counts)), 1.0)
    means = np.zeros(blocks)
    threshold = _MOTION_BYTES * (info.size_px[0] * info.size_px[1] / _MOTION_PIXELS) ** 0.5
    is_active, is_blind = np.zeros(blocks, bool), np.zeros(blocks, bool)
    span_blocks = round(_SPAN_S / _BLOCK_S)
    edges = list(range(0, blocks, span_blocks))
    if block[-1] >= span_blocks and end_s - edges[-1] * _BLOCK_S < _SPAN_S / 2:  # too short for its own statistics
        edges.pop()
    is_reordered = packets.pts < np.maximum.accumulate(packets.pts)
    first_packets = np.append(0, np.flatnonzero(packets.is_key))
    order = np.argsort(block, kind="stable")
    packet_edges = np.append(0, np.cumsum(counts))
    for first, stop in pairwise([*edges, blocks]):
        of_span = slice(first, stop)
        rows = order[packet_edges[first] : packet_edges[stop]]
        excess = _excess(packets, rows, first_packets, is_reordered)
        means[of_span] = np.bincount(block[rows] - first, excess, stop - first) / usual_count
        low, median = np.quantile(means[of_span], [0.1, 0.5])
        spread = _SIGMAS * (median - low) / 1.2816  # in standard deviations, if the values are normally distributed
        frames = np.quantile(counts[of_span], [0.1, 0.9])
        is_uneven = np.diff(frames)[0] > _UNEVEN_FRAMES * usual_count
        sizes = packets.size[rows[~packets.is_key[rows]]]
        quartiles = np.quantile(sizes, [0.25, 0.5, 0.75]) if len(sizes) else np.zeros(3)
        is_filled = quartiles[1] > _FILLED_BYTES and quartiles[2] - quartiles[0] < _FILLED_SPREAD * quartiles[1]
        is_blind[of_span] = spread > threshold or is_uneven or is_filled or not len(sizes)
        is_active[of_span] = means[of_span] > median + max(spread, 0.4 * threshold)
    # A group is decoded if a block between BEFORE_S after its end and AFTER_S before its start is active.
    starts, ends = gops.start_s - AFTER_S, gops.start_s + gops.seconds + BEFORE_S
    active = _any_between(is_active, starts, ends)
    blind = _any_between(is_blind, gops.start_s, gops.start_s + gops.seconds)
    return active | (gops.seconds > _RARE_S) | (blind & (gops.seconds > _FREQUENT_S)), blind


def _excess(packets: PacketTable, rows: Array, first_packets: Array, is_reordered: Array) -> Array:
    """Return the bytes of packets above the baseline of their kind, float64; 0 for key frames.

    Args:
        packets: All packets.
        rows: int64, those of a span.
        first_packets: int64, first packet of each group of pictures, increasing.
        is_reordered: bool [S], B-frames.
    """
    size = packets.size[rows]
    group = np.searchsorted(first_packets, rows, side="right") - 1
    place = rows - first_packets[group]  # in decoding order
    following = packets.pts[np.minimum(rows + 1, len(packets.pts) - 1)]
    is_reference = following < packets.pts[rows]  # others refer to a B-frame if the next packet is shown earlier
    by_kind, _ = _baseline(is_reordered[rows] * (1 + is_reference), size)
    by_place, counts = _baseline(place, size)
    baseline = np.where(counts < _MIN_PACKETS, by_kind, by_place)
    return np.where(packets.is_key[rows], 0.0, size - baseline)


def _baseline(group: Array, size: Array) -> tuple[Array, Array]:
    """Return the lower quartile of the sizes in the group of each packet, and the number of packets in it."""
    order = np.lexsort((size, group))
    values, first, counts = np.unique(group[order], return_index=True, return_counts=True)
    low = size[order][first + counts // 4]
    row = np.searchsorted(values, group)
    return low[row].astype(np.float64), counts[row]


def _any_between(blocks: Array, start_s: Array, end_s: Array) -> Array:
    """Return whether any block that overlaps each interval is true."""
    sums = np.concatenate([[0], np.cumsum(blocks)])
    first = np.floor(start_s / _BLOCK_S).astype(np.int64).clip(0, len(blocks))
    last = np.ceil(end_s / _BLOCK_S).astype(np.int64).clip(0, len(blocks))
    result: Array = sums[last] > sums[first]
    return result


# --- pictures ---------------------------------------------------------------------------------------------------------


def _compare_pictures(gops: Gops, is_blind: Array, decoded: Array, first_only: Array, pictures: _KeyFrames) -> None:
    """Compare key frames in still stretches with the last picture that the detector gets.

    Extends `decoded` and `first_only` where they differ.

    Args:
        gops: The groups of pictures.
        is_blind: bool [G], groups in which packets do not show motion: each key frame is checked.
        decoded: bool [G], groups to decode.
        first_only: bool [G], groups of which only the first sample is decoded.
        pictures: Their key frames.
    """
    ordinal = np.floor(gops.start_s / CHECK_S)
    is_check = is_blind | np.concatenate([[True], ordinal[1:] > ordinal[:-1]])
    changes = _Changes()
    reference, detected_s, checked = pictures[0], gops.start_s[0], 0
    first_only[0] = True
    while True:
        start = _next(decoded, checked)  # of the next stretch to decode
        check = _next(is_check, checked + 1)
        if start is None and check is None:
            return
        if start is not None and (check is None or start <= check):
            if start > checked and changes.compare(reference, pictures[start]) == "changed":
                decoded[checked:start] = True
            end = _next(~decoded, start)
            if end is None:
                return
            first_only[end] = True
            reference, detected_s, checked = pictures[end], gops.start_s[end], end
            continue
        assert check is not None
        pictures.prefetch(is_check & ~decoded, check)
        picture = pictures[check]
        verdict = changes.compare(reference, picture)
        changes.learn(gops.start_s[check], picture)
        if verdict == "changed":
            wait_s = _BUSY_S if is_blind[check] else AFTER_S
            decoded[checked : max(int(np.searchsorted(gops.start_s, gops.start_s[check] + wait_s)), check)] = True
        else:
            checked = check
            if verdict == "drifted" or gops.start_s[check] - detected_s >= _REDETECT_S:
                first_only[check] = True
                reference, detected_s = picture, gops.start_s[check]


def _next(mask: Array, start: int) -> int | None:
    """Return the first position from `start` where a mask is true; None if there is none."""
    for first in range(start, len(mask), 1024):
        positions = np.flatnonzero(mask[first : first + 1024])
        if len(positions):
            return first + int(positions[0])
    return None


class _Changes:
    """Compares pictures, given as mean luma of cells, and learns how much each cell changes while nothing happens."""

    def __init__(self) -> None:
        self._noise: Array | None = None
        self._clock_rate: Array | None = None
        self._latest: tuple[float, Array] | None = None

    def compare(self, first: Array, second: Array) -> str:
        """Return "changed", "drifted" if only the light or little has changed, or "same"."""
        difference = second - first
        light = float(np.nanmedian(difference))
        if abs(light) > _LIGHT_CHANGE:
            return "changed"
        noise = 0.0 if self._noise is None else self._noise
        excess = np.nan_to_num(np.abs(difference - light)) / np.maximum(_CHANGE, _CELL_SIGMAS * noise)
        excess[self._clock_cells(excess.shape)] = 0
        if excess.max() > 2 or (excess > 1).sum() > 1:
            return "changed"
        return "drifted" if abs(light) > _LIGHT_DRIFT or excess.max() > 0.6 else "same"

    def learn(self, time_s: float, cells: Array) -> None:
        """Take the next checked picture. Pictures less than CHECK_S after the last one are left out."""
        if self._latest is not None and time_s - self._latest[0] < CHECK_S - 1:
            return
        latest, self._latest = self._latest, (time_s, cells)
        if latest is None:
            return
        difference = cells - latest[1]
        difference = np.nan_to_num(np.abs(difference - np.nanmedian(difference)))
        if self._noise is None or self._clock_rate is None:
            self._noise, self._clock_rate = np.full(cells.shape, 0.5), np.zeros(cells.shape)
        # The mean of the absolute value of normally distributed numbers is 0.8 standard deviations.
        self._noise += _LEARNING_RATE * (np.minimum(difference / 0.8, _MAX_NOISE) - self._noise)
        self._clock_rate += _LEARNING_RATE * ((difference > _CLOCK_CHANGE) - self._clock_rate)

    def _clock_cells(self, shape: tuple[int, ...]) -> Array:
        """Return the cells of a clock, bool [rows, columns]."""
        if self._clock_rate is None:
            return np.zeros(shape, bool)
        cells: Array = self._clock_rate > _CLOCK_RATE * (1 - _LEARNING_RATE)
        band = max(round(shape[0] * _CLOCK_BAND), 1)
        cells[band : shape[0] - band] = False
        return cells if cells.mean() <= _CLOCK_SHARE else np.zeros(shape, bool)


class _KeyFrames:
    """Key frames of a recording as mean luma of cells, float32 [rows, columns], NaN where all pixels are ignored.

    Args:
        path, info, ignored, threads, on_progress: See `plan_still`.
        key_pts: PTS of each key frame.
    """

    def __init__(
        self,
        path: Path,
        info: VideoInfo,
        key_pts: Array,
        ignored: Callable[[tuple[int, int]], Array | None],
        threads: int,
        on_progress: Callable[[], None],
    ) -> None:
        self._key_pts, self._on_progress = key_pts, on_progress
        self._size_px = scaled_size(info.size_px, min(_PICTURE_PX, max(info.size_px)))
        self._rotation = info.rotation
        mask = ignored(self._size_px)
        self._weights = np.ones(self._size_px[::-1], np.float32) if mask is None else (~mask).astype(np.float32)
        self._ahead = 2 * threads
        self._futures: dict[int, Future[Array]] = {}
        self._local = threading.local()  # a decoder and a scaler per thread
        self._executor = ThreadPoolExecutor(threads)
        # One container for all threads, because the index of a long MP4 file takes much memory.
        self._container = open_container(path)
        self._stream = find_video_stream(self._container)
        self._lock = threading.Lock()  # held while the container is read

    def __enter__(self) -> _KeyFrames:
        return self

    def __exit__(self, *exception: object) -> None:
        self._executor.shutdown(cancel_futures=True)
        self._container.close()

    def prefetch(self, wanted: Array, start: int) -> None:
        """Start decoding the next few of the wanted key frames, bool [G], from `start`."""
        key: int | None = start
        for _ in range(self._ahead):
            if key is not None and key not in self._futures:
                self._futures[key] = self._executor.submit(self._decode, key)
            key = None if key is None else _next(wanted, key + 1)
        for key in [key for key in self._futures if key < start]:
            del self._futures[key]  # no longer needed

    def __getitem__(self, key: int) -> Array:
        """Return a key frame.

        Raises:
            NotPlannableError: It cannot be decoded.
        """
        self._on_progress()
        future = self._futures.pop(key, None) or self._executor.submit(self._decode, key)
        try:
            return future.result()
        except (RecordingError, av.error.FFmpegError, OSError, ValueError, IndexError) as error:
            raise NotPlannableError(f"a key frame cannot be decoded: {error}") from None

    def _decode(self, key: int) -> Array:
        """Decode one key frame, in a thread of the pool."""
        pts = int(self._key_pts[key])
        with self._lock:
            packet = self._read(pts)
        if not hasattr(self._local, "decoder"):
            self._local.decoder = new_decoder(self._stream)
            self._local.scaler = FrameScaler(self._size_px, self._rotation, "gray")
        decoder, scaler = self._local.decoder, self._local.scaler
        decoder.flush_buffers()  # also after one that failed
        frames = [*decoder.decode(packet), *decoder.decode(None)]
        if len(frames) != 1 or frames[0].is_corrupt:
            raise ValueError(f"the one at {pts} ticks is damaged")
        return self._cells(scaler.upright(scaler.scale(frames[0])))

    def _read(self, pts: int) -> Any:
        """Return the packet of a key frame."""
        for margin_s in SEEK_MARGINS_S:
            self._container.seek(pts - int(margin_s / self._stream.time_base), stream=self._stream, backward=True)
            for packet in self._container.demux(self._stream):
                if packet.pts is None or packet.pts > pts:
                    break
                if packet.pts == pts:
                    return packet
        raise ValueError(f"there is none at {pts} ticks")

    def _cells(self, image: Array) -> Array:
        """Return the mean of the pixels of each cell that are not ignored; NaN where all are."""
        height, width = (side // _CELL_PX * _CELL_PX for side in image.shape)
        sums, weights = (
            plane[:height, :width].reshape(height // _CELL_PX, _CELL_PX, width // _CELL_PX, _CELL_PX).sum((1, 3))
            for plane in (image * self._weights, self._weights)
        )
        cells: Array = np.where(weights > 0, sums / np.maximum(weights, 1), np.nan).astype(np.float32)
        return cells
