"""Sets of time, as sorted lists of half-open intervals in seconds."""

from __future__ import annotations

from collections.abc import Iterable

TimeRange = tuple[float, float]

_MIN_S = 1e-3  # shorter pieces come from rounding


def merge_ranges(ranges: Iterable[TimeRange], gap_s: float = 0.0) -> list[TimeRange]:
    """Return the union of intervals; gaps up to `gap_s` are closed."""
    merged: list[TimeRange] = []
    for start_s, end_s in sorted(ranges):
        if merged and start_s <= merged[-1][1] + gap_s:
            merged[-1] = merged[-1][0], max(merged[-1][1], end_s)
        else:
            merged.append((start_s, end_s))
    return merged


def subtract_ranges(ranges: Iterable[TimeRange], removed: Iterable[TimeRange]) -> list[TimeRange]:
    """Return the time of `ranges` that is not in `removed`."""
    left = merge_ranges(ranges)
    for removed_start_s, removed_end_s in removed:
        pieces = []
        for start_s, end_s in left:
            pieces += [(start_s, min(end_s, removed_start_s)), (max(start_s, removed_end_s), end_s)]
        left = [(start_s, end_s) for start_s, end_s in pieces if end_s - start_s >= _MIN_S]
    return left


def total_s(ranges: Iterable[TimeRange]) -> float:
    """Length of the union of intervals in seconds."""
    return sum(end_s - start_s for start_s, end_s in merge_ranges(ranges))


def overlap_s(ranges: Iterable[TimeRange], start_s: float, end_s: float) -> float:
    """Seconds of [start_s, end_s) that are in the union of `ranges`."""
    return sum(max(min(end_s, last) - max(start_s, first), 0.0) for first, last in merge_ranges(ranges))
