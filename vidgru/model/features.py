"""From a sequence to what the model takes: a vector an object and a vector a frame, in named groups of columns.

Everything is causal: a frame's features depend on it and on frames before it. `FeatureStream` carries what is needed of
those (where each track was seen last), so that stretches pushed one after another give exactly what the whole
recording gives at once. Lengths are in frame heights and rates per second, so that neither the shape of the picture
nor the sampling changes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from vidgru.errors import SettingsMismatchError
from vidgru.model.feature_spec import NEIGHBOURS, RELATION, SPEED, FeatureSpec
from vidgru.types import Array, Features, FrameSequence

_GAP_S = 1.0  # a track not seen for longer has no speed, unless samples are further apart
_BLOCK = 128  # frames whose neighbours are found at once: their distances stay in the processor's cache
_SURE = 0.3  # keypoints below this confidence fade to the middle of the box
_SMALL = 1e-3  # frame heights; keeps ratios of degenerate boxes finite


class FeatureStream:
    """Features of one recording, stretch by stretch.

    Args:
        feature_spec: what the model expects; None takes that of the first stretch.
    """

    def __init__(self, feature_spec: FeatureSpec | None = None) -> None:
        self.feature_spec = feature_spec
        self._time_s: float | None = None
        self._seen: _Seen | None = None

    def push(self, sequence: FrameSequence) -> Features:
        """Features of the next stretch.

        Raises:
            SettingsMismatchError: the sequence does not have the tensors that the layout says.
        """
        have = FeatureSpec.from_sequence(sequence)
        self.feature_spec = self.feature_spec or have
        if have != self.feature_spec:
            differ = [f.name for f in fields(have) if getattr(have, f.name) != getattr(self.feature_spec, f.name)]
            values = "; ".join(
                f"{n} is {getattr(have, n)}, the model's is {getattr(self.feature_spec, n)}" for n in differ
            )
            raise SettingsMismatchError(
                f"the features are laid out otherwise than the model's: {values}",
                "extract the recording with the model's detector, or train a model on such features",
            )
        steps_s = np.diff(sequence.time_s, prepend=self._before(sequence))
        rows = _Rows(sequence)
        objects = np.empty((len(sequence.boxes), have.object_width), np.float32)
        groups = have.object_groups()
        objects[:, groups["geometry"]] = _geometry(rows)
        if sequence.angle is not None:
            twice = 2 * sequence.angle.astype(np.float32)
            objects[:, groups["angle"]] = np.column_stack([np.cos(twice), np.sin(twice)])
        scores = sequence.scores.astype(np.float32)
        objects[:, groups["score"]] = np.column_stack([scores, np.log(scores + 1e-2)])
        objects[:, groups["class"]] = sequence.classes[:, None]
        speed, keypoint_speed, self._seen = _speeds(rows, self._seen)
        objects[:, groups["speed"]] = speed
        if rows.keypoints is not None:
            objects[:, groups["keypoints"]] = rows.keypoints.reshape(len(objects), 3 * have.keypoints)
            objects[:, groups["keypoint_speed"]] = keypoint_speed.reshape(len(objects), 2 * have.keypoints)
        objects[:, groups["relations"]] = _relations(rows, sequence.offsets)
        for name in ("motion", "appearance", "colour"):
            if name in groups:
                torch.from_numpy(objects)[:, groups[name]] = _tensor(getattr(sequence, name))
        counts = np.diff(sequence.offsets)
        sums = np.bincount(np.repeat(np.arange(len(counts)), counts), weights=scores, minlength=len(counts))
        per_frame = np.column_stack([steps_s, np.log1p(counts), sums])
        if len(sequence):
            self._time_s = float(sequence.time_s[-1])
        frame = np.concatenate(
            [
                per_frame.astype(np.float32),
                *(_tensor(t).float().numpy() for t in (sequence.scene, sequence.scene_motion) if t is not None),
            ],
            axis=1,
        )
        return Features(objects=objects, offsets=sequence.offsets, frame=frame, time_s=sequence.time_s)

    def _before(self, sequence: FrameSequence) -> float:
        """Time of the frame before this stretch; a recording's first step is as long as the sampling says."""
        if self._time_s is not None:
            return self._time_s
        return float(sequence.time_s[0]) - 1 / sequence.fps if len(sequence) else 0.0


def compute_features(sequence: FrameSequence) -> Features:
    """Features of a whole recording."""
    return FeatureStream().push(sequence)


def stream_features(parts: Iterable[FrameSequence], feature_spec: FeatureSpec) -> Iterator[Features]:
    """Features of consecutive stretches of one recording.

    Raises:
        SettingsMismatchError: a stretch does not have the tensors that the layout says.
    """
    stream = FeatureStream(feature_spec)
    for part in parts:
        yield stream.push(part)


class _Rows:
    """Objects of a stretch in frame heights: `centre` [M,2], `size` [M,2], `extent` [M] (the longer side)."""

    def __init__(self, sequence: FrameSequence) -> None:
        aspect = sequence.size_px[0] / sequence.size_px[1]
        scale = np.array([aspect, 1.0], np.float32)
        low, high = sequence.boxes[:, :2] * scale, sequence.boxes[:, 2:] * scale
        self.centre = (low + high) / 2
        self.size = np.maximum(high - low, _SMALL)
        self.extent = np.maximum(self.size[:, 0], self.size[:, 1])
        self.middle = np.float32(aspect / 2)
        self.gap_s = max(_GAP_S, 2 / sequence.fps)
        self.classes = sequence.classes
        self.tracks = sequence.tracks
        self.time_s = np.repeat(sequence.time_s, np.diff(sequence.offsets))
        self.keypoints: Array | None = None
        if sequence.keypoints is not None:
            points = _tensor(sequence.keypoints).float().numpy()
            sure = np.clip(points[:, :, 2:] / _SURE, 0, 1)
            # A keypoint the detector does not see has coordinates without meaning: they fade to the middle of the box.
            offset = (points[:, :, :2] * scale - self.centre[:, None]) / self.extent[:, None, None] * sure
            self.keypoints = np.concatenate([offset, points[:, :, 2:]], axis=2)


def _geometry(rows: _Rows) -> Array:
    log_size = np.log(rows.size)
    return np.column_stack(
        [
            rows.centre[:, 0] - rows.middle,
            rows.centre[:, 1],
            rows.size,
            log_size,
            rows.centre[:, 1] + rows.size[:, 1] / 2,
            log_size[:, 0] - log_size[:, 1],
        ]
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """Where each track was seen last; `state` is centre, log size, keypoints (x, y, sure) in one row."""

    tracks: Array
    time_s: Array
    state: Array


def _speeds(rows: _Rows, seen: _Seen | None) -> tuple[Array, Array, _Seen]:
    """Change since the track was seen last, per second: `SPEED` columns [M,8] and keypoints [M,K,2]."""
    total = len(rows.centre)
    points = 0 if rows.keypoints is None else rows.keypoints.shape[1]
    parts = [rows.centre, np.log(rows.size)]
    if rows.keypoints is not None:
        parts.append(rows.keypoints.reshape(total, 3 * points))
    state = np.concatenate(parts, axis=1)
    tracked = np.flatnonzero(rows.tracks >= 0)
    if seen is None:
        seen = _Seen(tracks=rows.tracks[:0], time_s=rows.time_s[:0], state=state[:0])
    before = len(seen.tracks)
    tracks = np.concatenate([seen.tracks, rows.tracks[tracked]])
    time_s = np.concatenate([seen.time_s, rows.time_s[tracked]])
    states = np.concatenate([seen.state, state[tracked]])

    order = np.argsort(tracks, kind="stable")  # by track, within it by time
    again = tracks[order[1:]] == tracks[order[:-1]]
    follows, precedes = order[1:][again], order[:-1][again]
    step_s = time_s[follows] - time_s[precedes]
    near = (step_s > 0) & (step_s <= rows.gap_s) & (follows >= before)
    follows, precedes = follows[near], precedes[near]
    step = step_s[near].astype(np.float32)[:, None]
    change = states.take(follows, axis=0) - states.take(precedes, axis=0)
    target = tracked[follows - before]
    extent = rows.extent[target][:, None]

    speed = np.zeros((total, len(SPEED)), np.float32)
    moved = change[:, :2] / step
    speed[target] = np.column_stack(
        [
            np.ones(len(target), np.float32),
            _compress(moved * 10),
            _compress(moved / extent * 10),
            _compress(np.hypot(moved[:, 0], moved[:, 1])[:, None] / extent * 10),
            _compress(change[:, 2:4] / step),
        ]
    )
    keypoint_speed = np.zeros((total, points, 2), np.float32)
    if points:
        old = states[precedes, 4:].reshape(-1, points, 3)
        new = states[follows, 4:].reshape(-1, points, 3)
        sure = np.clip(np.minimum(old[:, :, 2:], new[:, :, 2:]) / _SURE, 0, 1)
        keypoint_speed[target] = _compress((new - old)[:, :, :2] / step[:, :, None] * sure * 10)

    last = np.append(~again, True)[: len(order)]
    keep = order[last]
    keep = keep[time_s[keep] >= (rows.time_s[-1] - rows.gap_s if total else -np.inf)]
    return speed, keypoint_speed, _Seen(tracks=tracks[keep], time_s=time_s[keep], state=states[keep])


def _relations(rows: _Rows, offsets: Array) -> Array:
    """`RELATION` columns for each of the nearest neighbours in the frame: [M, 7 * NEIGHBOURS]."""
    found = np.zeros((len(rows.centre), NEIGHBOURS, len(RELATION)), np.float32)
    neighbours = _neighbours(rows.centre, offsets)
    for rank, other in enumerate(neighbours):
        one = np.flatnonzero(other >= 0)
        found[one, rank] = _relation(rows, one, other.take(one))
    return found.reshape(len(found), NEIGHBOURS * len(RELATION))


def _neighbours(centre: Array, offsets: Array) -> Array:
    """The objects nearest to each in its frame, the nearest first: int64 [NEIGHBOURS, M], -1 where there are fewer."""
    found = np.full((NEIGHBOURS, len(centre)), -1)
    counts = np.diff(offsets)
    for first in range(0, len(counts), _BLOCK):
        some = counts[first : first + _BLOCK]
        low, high = int(offsets[first]), int(offsets[first + len(some)])
        width = int(some.max())
        if width < 2:
            continue
        frame = np.repeat(np.arange(len(some)), some)
        start = offsets[first : first + len(some)].take(frame)  # of each object, the first row of its frame
        row = np.arange(high - low)
        slot = row + low - start
        apart = np.zeros((len(row), width), np.float32)
        for axis in (0, 1):
            here = centre[low:high, axis]
            padded = np.full((len(some), width), np.inf, np.float32)  # of each frame; empty slots are nobody's nearest
            padded[frame, slot] = here
            apart += np.square(here[:, None] - padded.take(frame, axis=0))
        apart[row, slot] = np.inf
        for rank in range(min(NEIGHBOURS, width - 1)):
            nearest = apart.argmin(axis=1)
            there = np.isfinite(apart[row, nearest])
            found[rank, low:high] = np.where(there, start + nearest, -1)
            apart[row, nearest] = np.inf
    return found


def _relation(rows: _Rows, one: Array, two: Array) -> Array:
    extent, other_extent = rows.extent.take(one), rows.extent.take(two)
    (centre, size), (other_centre, other_size) = (
        (rows.centre.take(which, axis=0), rows.size.take(which, axis=0)) for which in (one, two)
    )
    offset = (other_centre - centre) / extent[:, None]
    distance = np.hypot(offset[:, 0], offset[:, 1])
    low = np.maximum(centre - size / 2, other_centre - other_size / 2)
    high = np.minimum(centre + size / 2, other_centre + other_size / 2)
    sides = np.maximum(high - low, 0)
    common = sides[:, 0] * sides[:, 1]
    areas = size[:, 0] * size[:, 1] + other_size[:, 0] * other_size[:, 1]
    return np.column_stack(
        [
            np.ones(len(one), np.float32),
            _compress(offset),
            np.log1p(distance),
            np.log(other_extent / extent),
            common / (areas - common),
            rows.classes.take(one) == rows.classes.take(two),
        ]
    )


def _compress(value: Array) -> Array:
    """Sign and log(1 + size): rates span orders of magnitude, and the slow ones matter as well."""
    compressed: Array = np.sign(value) * np.log1p(np.abs(value))
    return compressed


def _tensor(values: Array) -> Tensor:
    """float16 for PyTorch, which makes float32 of it ten times as fast as NumPy; that is exact."""
    return torch.from_numpy(values.copy())  # it wants memory that could be written, which a mapped file's is not
