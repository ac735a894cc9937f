"""Split a long recording at key frames, so that several decoders share it and together give the same samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vidgru.types import Array
from vidgru.video.packets import AmbiguousPacketsError, read_packets
from vidgru.video.reader import ResumePoint


def find_split_points(
    path: Path, fps: float, min_samples: int, on_progress: Callable[[], None] = lambda: None
) -> list[ResumePoint]:
    """Find samples at which a decoder can start, each at least `min_samples` after the one before.

    Reads all packets and decodes none: their PTS and key frames show which frames there are and which of them are
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
    indices = packets.sample_indices(fps)
    split_points: list[ResumePoint] = []
    segment_start = 0
    for number in np.unique(np.searchsorted(indices, packets.key_index)).tolist():  # the first at or after a key frame
        if number < len(indices) and number + 1 - segment_start >= min_samples:
            point = resume_point_at(number, indices, packets.key_pts, packets.key_index)
            if point.key_index > 0:
                split_points.append(point)
                segment_start = number + 1
    return split_points


def resume_point_at(number: int, sample_index: Array, key_pts: Array, key_index: Array) -> ResumePoint:
    """Return how to decode from a sample on, planned from packets: from the last key frame at or before it.

    Args:
        number: Number of the sample.
        sample_index: int64 [N], frame index of each sample.
        key_pts, key_index: int64 [K], PTS and frame index of each key frame.
    """
    index = int(sample_index[number])
    key = int(np.searchsorted(key_index, index, side="right")) - 1
    return ResumePoint(
        samples=number + 1, index=index, key_pts=int(key_pts[key]), key_index=int(key_index[key]), image=None
    )
