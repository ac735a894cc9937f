"""Find recordings of one content under two names in two splits: equal bytes, equal images, one time of recording."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from vidgru.datasets.dataset import Dataset
from vidgru.datasets.rows import plural
from vidgru.errors import RecordingError
from vidgru.types import Array
from vidgru.video.reader import probe
from vidgru.video.thumbnails import read_thumbnails

_THREADS = 4
_MAX_COMPARED = 500  # recordings whose images are compared: reading a first frame takes 10 to 30 ms
_SIDE = 32  # pixels of the compared images, which encoding changes little
_COARSE = 4
# Gray levels. Of 300 clips of 46 surveillance videos, 7 pairs start with images that differ by less than 8 in 95 % of
# their pixels, each of one video; copies at half the size and crf 33 differ by 1 to 8.
_SAME_START, _SAME_LATER, _QUANTILE = 8.0, 12.0, 0.95
_MIN_CONTRAST = 8.0  # standard deviation; a black or plain start says nothing
_LATER = (0.25, 0.5, 0.75)  # of the shorter duration
_MAX_DECODED = 1000  # frames of a recording, for the later images
_EPOCHS = ("1904", "1970", "1980", "2000-01-01")  # of clocks that were never set


def warn_of_copies(dataset: Dataset, paths: Mapping[str, Path]) -> list[str]:
    """Warn about recordings of two splits that are copies, look the same, or state the same time of recording.

    Copies that were encoded again are found by their images; clips that were cut from one recording without encoding it
    again, by its time in their metadata.

    Args:
        dataset: With splits.
        paths: Videos by name.
    """
    splits: dict[str, set[str]] = {}
    for row in dataset.rows:
        splits.setdefault(row.annotation.video, set()).add(row.split)
    present = [name for name, path in paths.items() if name in splits and path.is_file() and os.path.getsize(path)]
    if len(set().union(*(splits[name] for name in present))) < 2:
        return []
    copies = _equal_files(present, paths, splits)
    copied = {name for pair in copies for name in pair}
    others = [name for name in present if name not in copied]
    alike = _look_alikes(others, paths, splits) if len(others) <= _MAX_COMPARED else []
    known = {name for pair in alike for name in pair}
    cuts = _of_one_time([name for name in others if name not in known], paths, splits)
    warnings = []
    for pairs, what, remedy in (
        (copies, "under two names in two splits", "delete the copies"),
        (alike, "in two splits with the same images", "delete the copies, or give both the same group"),
        (cuts, "in two splits with one time of recording", "name the recording of each clip in a column group"),
    ):
        if pairs:
            first = " and ".join(f"{name} in {'/'.join(sorted(splits[name]))}" for name in pairs[0])
            number = plural(len(pairs), "recording")
            warnings.append(f"{number} {what} (first: {first}); results will look better than they are: {remedy}")
    return warnings


def _equal_files(names: list[str], paths: Mapping[str, Path], splits: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Return pairs of recordings with equal bytes, one for each content."""
    by_size: dict[int, list[str]] = {}
    for name in names:
        by_size.setdefault(os.path.getsize(paths[name]), []).append(name)
    pairs = []
    for same_size in by_size.values():
        by_content: dict[bytes, list[str]] = {}
        for name in same_size if len(set().union(*(splits[name] for name in same_size))) > 1 else ():
            by_content.setdefault(_sha256(paths[name]), []).append(name)
        for equal in by_content.values():
            other = next((name for name in equal if splits[name] != splits[equal[0]]), None)
            if other is not None:
                pairs.append((equal[0], other))
    return pairs


def _sha256(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _look_alikes(names: list[str], paths: Mapping[str, Path], splits: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Return pairs of recordings that look the same at their start and at three later times."""
    with ThreadPoolExecutor(_THREADS) as pool:
        starts = dict(zip(names, pool.map(lambda name: _images(paths[name], (0.0,)), names), strict=True))
    used = [name for name in names if len(starts[name]) and starts[name].std() >= _MIN_CONTRAST]
    if len(used) < 2:
        return []
    images = np.concatenate([starts[name] for name in used])
    side = _SIDE // _COARSE
    coarse = images.reshape(len(used), _COARSE, side, _COARSE, side).mean(axis=(2, 4)).reshape(len(used), -1)
    pairs = []
    for index, name in enumerate(used):
        near = np.flatnonzero(np.abs(coarse[index + 1 :] - coarse[index]).max(axis=1) < _SAME_START) + index + 1
        for other in near:
            is_pair = splits[name] != splits[used[other]] and _differ(images[index], images[other]) < _SAME_START
            if is_pair and _same_later(paths[name], paths[used[other]]):
                pairs.append((name, used[other]))
                break
    return pairs


def _same_later(path: Path, other: Path) -> bool:
    """Whether two recordings look the same at later times of the shorter."""
    durations = [probe(file).duration_s or 0.0 for file in (path, other)]
    times_s = [share * min(durations) for share in _LATER]
    images, others = _images(path, times_s), _images(other, times_s)
    return len(images) == len(others) > 0 and max(map(_differ, images, others)) < _SAME_LATER


def _differ(image: Array, other: Array) -> float:
    """Return the difference that most pixels do not exceed, in gray levels."""
    return float(np.quantile(np.abs(image - other), _QUANTILE))


def _images(path: Path, times_s: Iterable[float]) -> Array:
    """Read small gray images of a recording at the given times, float32 [N, side, side]; none if it cannot be read."""
    try:
        thumbnails = list(read_thumbnails(path, times_s, longer_side_px=4 * _SIDE, max_frames=_MAX_DECODED))
    except RecordingError:  # extraction says why
        thumbnails = []
    small = [cv2.resize(t.image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).mean(axis=2) for t in thumbnails]
    return np.array(small, np.float32).reshape(len(small), _SIDE, _SIDE)


def _of_one_time(names: list[str], paths: Mapping[str, Path], splits: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Return a pair of recordings for each time of recording that recordings of two splits state."""
    with ThreadPoolExecutor(_THREADS) as pool:
        times = dict(zip(names, pool.map(lambda name: _recorded_at(paths[name]), names), strict=True))
    by_time: dict[str, list[str]] = {}
    for name, time in times.items():
        if time and not time.startswith(_EPOCHS):
            by_time.setdefault(time, []).append(name)
    pairs = (combinations(same, 2) for same in by_time.values())
    divided = (next((p for p in some if splits[p[0]] != splits[p[1]]), None) for some in pairs)
    return [pair for pair in divided if pair is not None]


def _recorded_at(path: Path) -> str:
    try:
        return probe(path).recorded_at or ""
    except RecordingError:
        return ""
