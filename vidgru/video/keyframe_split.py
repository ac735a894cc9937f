"""Split a long recording at key frames, so that several decoders share it and together give the same samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vidgru.video.packets import AmbiguousPacketsError, read_packets
from vidgru.video.reader import ResumePoint


def find_split_points(
    path: Path, fps: float, min_samples: int, on_progress: Callable[[], None] = lambda: None
) -> list[ResumePoint]:
    """Find samples at which a decoder can start, each at least `min_samples` after the one before.

    Reads all packets and decodes none: their PTS and key frames tell which frames there are and which of them are
    samples. Each split point is the first sample at or after a key frame, so that hardly any frame is decoded twice:
    one decoder ends with that sample, and the next starts with it only to measure motion from it.

    Args:
        path: Path of the recording.
        fps: Samples per second.
        min_samples: Minimum number of samples per segment.
        on_progress: Called every few packets.

    Returns:
        Split points in order; none if the packets are ambiguous (PTS missing or repeated) or damaged.
    """
    try:
        packets = read_packets(path, on_progress)
    except AmbiguousPacketsError:
        return []
    key_pts = np.sort(packets.pts[packets.is_key])
    key_indices = np.searchsorted(packets.stamps, key_pts)
    indices = packets.sample_indices(fps)
    split_points: list[ResumePoint] = []
    segment_start = 0
    # Of several key frames between two samples, decoding starts at the last.
    for number, key in zip(*_last_keys(np.searchsorted(indices, key_indices)), strict=True):
        if number < len(indices) and number + 1 - segment_start >= min_samples and key_indices[key] > 0:
            split_points.append(
                ResumePoint(
                    samples=number + 1,
                    index=int(indices[number]),
                    key_pts=int(key_pts[key]),
                    key_index=int(key_indices[key]),
                    image=None,
                )
            )
            segment_start = number + 1
    return split_points


def _last_keys(samples: np.ndarray) -> tuple[list[int], list[int]]:
    """Return the distinct values of a sorted array, and the last position of each."""
    values, first, counts = np.unique(samples, return_index=True, return_counts=True)
    return values.tolist(), (first + counts - 1).tolist()
