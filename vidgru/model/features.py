"""Compute the model's inputs from frame sequences: one vector per object and one per frame, in named column groups.

Features are causal: they depend on the frame and on earlier frames only. `FeatureStream` carries the last position of
each track, so that consecutive chunks give exactly the features of the whole recording. Lengths are in frame heights
and rates are per second, which makes features independent of aspect ratio and sampling rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from vidgru.errors import SettingsMismatchError
from vidgru.model.feature_spec import NEIGHBOURS, RELATION, SPEED, FeatureSpec
from vidgru.types import Array, Features, FrameSequence

_MAX_GAP_S = 1.0  # a track missing for longer has no speed, unless samples are farther apart than half of this
_FRAMES_PER_PIECE = 1024
_FRAMES_PER_BLOCK = 128  # keeps the distances of a neighbour search in the processor's cache
_CONFIDENT = 0.3  # keypoints of lower confidence fade to the box centre
_NEAR = 0.05  # box sizes; directions between nearer keypoints fade
_MIN_SIZE = 1e-3  # frame heights; keeps ratios of degenerate boxes finite


class FeatureStream:
    """Features of one recording, computed chunk by chunk.

    Args:
        feature_spec: Features the model expects; None adopts those of the first chunk.
    """

    def __init__(self, feature_spec: FeatureSpec | None = None) -> None:
        self.feature_spec = feature_spec
        self._time_s: float | None = None
        self._tracks: _TrackStates | None = None

    def push(self, sequence: FrameSequence) -> Features:
        """Return the features of the next chunk.

        Raises:
            SettingsMismatchError: The sequence does not have the tensors of the feature spec.
        """
        spec = FeatureSpec.from_sequence(sequence)
        self.feature_spec = self.feature_spec or spec
        if spec != self.feature_spec:
            _raise_mismatch(spec, self.feature_spec)
        steps_s = np.diff(sequence.time_s, prepend=self._previous_time_s(sequence))
        if sequence.still is not None:  # rounding of times must not make still frames differ
            steps_s[sequence.still] = 1 / sequence.fps
        scaled = _ScaledObjects(sequence)
        spec = self.feature_spec
        objects = np.empty((len(sequence.boxes), spec.object_width), np.float32)
        groups = spec.object_groups()
        objects[:, groups["geometry"]] = _geometry(scaled)
        if sequence.angle is not None:
            doubled = 2 * sequence.angle.astype(np.float32)
            objects[:, groups["angle"]] = np.column_stack([np.cos(doubled), np.sin(doubled)])
        scores = sequence.scores.astype(np.float32)
        objects[:, groups["score"]] = np.column_stack([scores, np.log(scores + 1e-2)])
        objects[:, groups["class"]] = sequence.classes[:, None]
        speed, keypoint_speed, self._tracks = _speeds(scaled, self._tracks)
        objects[:, groups["speed"]] = speed
        if scaled.keypoints is not None:
            objects[:, groups["keypoints"]] = scaled.keypoints.reshape(len(objects), 3 * spec.keypoints)
            objects[:, groups["keypoint_speed"]] = keypoint_speed.reshape(len(objects), 2 * spec.keypoints)
            if "keypoint_pairs" in groups:
                objects[:, groups["keypoint_pairs"]] = _pair_directions(scaled.keypoints, spec.keypoint_pairs())
        objects[:, groups["relations"]] = _relations(scaled, sequence.offsets)
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
        return Features(
            objects=objects, offsets=sequence.offsets, frame=frame, time_s=sequence.time_s, tracks=sequence.tracks
        )

    def skip(self, sequence: FrameSequence) -> None:
        """Pass over still frames, at least one, whose features equal those of the frame before."""
        self.push(sequence.frames(len(sequence) - 1, len(sequence)))  # the next speeds count from its objects

    def _previous_time_s(self, sequence: FrameSequence) -> float:
        """Return the time of the frame before this chunk, one sampling interval before the first if there is none."""
        if self._time_s is not None:
            return self._time_s
        return float(sequence.time_s[0]) - 1 / sequence.fps if len(sequence) else 0.0


def compute_features(sequence: FrameSequence) -> Features:
    """Return the features of a whole recording."""
    return FeatureStream().push(sequence)


def stream_features(parts: Iterable[FrameSequence], feature_spec: FeatureSpec) -> Iterator[Features]:
    """Yield the features of consecutive chunks of one recording.

    Raises:
        SettingsMismatchError: A chunk does not have the tensors of the feature spec.
    """
    stream = FeatureStream(feature_spec)
    for part in parts:
        yield stream.push(part)


def cut_parts(parts: Iterable[FrameSequence], ranges: Sequence[slice]) -> Iterator[tuple[int, FrameSequence, int]]:
    """Yield the frames in each of several ranges, in one pass over consecutive chunks of a recording.

    Yields:
        Number of the range, its next frames, at most `_FRAMES_PER_PIECE`, and the number of objects before them.
    """
    start = row = 0
    for part in parts:
        for number, frames in enumerate(ranges):
            low, high = max(frames.start - start, 0), min(frames.stop - start, len(part))
            for first in range(low, high, _FRAMES_PER_PIECE):
                piece = part.frames(first, min(first + _FRAMES_PER_PIECE, high))
                if part.still is not None:
                    piece = deepcopy(piece)  # views would keep all repeated objects of the part in memory
                yield number, piece, row + int(part.offsets[first])
        start, row = start + len(part), row + len(part.boxes)


def _raise_mismatch(spec: FeatureSpec, expected: FeatureSpec) -> NoReturn:
    names = [f.name for f in fields(spec) if f.compare and getattr(spec, f.name) != getattr(expected, f.name)]
    values = "; ".join(f"{name} is {getattr(spec, name)}, the model's is {getattr(expected, name)}" for name in names)
    raise SettingsMismatchError(
        f"the features differ from the model's: {values}",
        "extract the recording with the model's detector, or train a model on these features",
    )


class _ScaledObjects:
    """Objects of a chunk in frame heights: `centre` [M,2], `size` [M,2], `extent` [M] (the longer side)."""

    def __init__(self, sequence: FrameSequence) -> None:
        aspect = sequence.size_px[0] / sequence.size_px[1]
        scale = np.array([aspect, 1.0], np.float32)
        low, high = sequence.boxes[:, :2] * scale, sequence.boxes[:, 2:] * scale
        self.centre = (low + high) / 2
        self.size = np.maximum(high - low, _MIN_SIZE)
        self.extent = np.maximum(self.size[:, 0], self.size[:, 1])
        self.middle = np.float32(aspect / 2)
        self.max_gap_s = max(_MAX_GAP_S, 2 / sequence.fps)
        self.classes = sequence.classes
        self.tracks = sequence.tracks
        self.time_s = np.repeat(sequence.time_s, np.diff(sequence.offsets))
        self.keypoints: Array | None = None
        if sequence.keypoints is not None:
            points = _tensor(sequence.keypoints).float().numpy()
            # Coordinates of an invisible keypoint are arbitrary, so low confidence fades them to the box centre.
            weight = np.clip(points[:, :, 2:] / _CONFIDENT, 0, 1)
            offset = (points[:, :, :2] * scale - self.centre[:, None]) / self.extent[:, None, None] * weight
            self.keypoints = np.concatenate([offset, points[:, :, 2:]], axis=2)


def _geometry(scaled: _ScaledObjects) -> Array:
    log_size = np.log(scaled.size)
    return np.column_stack(
        [
            scaled.centre[:, 0] - scaled.middle,
            scaled.centre[:, 1],
            scaled.size,
            log_size,
            scaled.centre[:, 1] + scaled.size[:, 1] / 2,
            log_size[:, 0] - log_size[:, 1],
        ]
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _TrackStates:
    """Last state of each track: a row of centre, log size and keypoints (x, y, confidence)."""

    tracks: Array
    time_s: Array
    state: Array


def _speeds(scaled: _ScaledObjects, previous: _TrackStates | None) -> tuple[Array, Array, _TrackStates]:
    """Return changes per second since each track's last frame: `SPEED` columns [M,8] and keypoints [M,K,2]."""
    total = len(scaled.centre)
    points = 0 if scaled.keypoints is None else scaled.keypoints.shape[1]
    parts = [scaled.centre, np.log(scaled.size)]
    if scaled.keypoints is not None:
        parts.append(scaled.keypoints.reshape(total, 3 * points))
    state = np.concatenate(parts, axis=1)
    tracked = np.flatnonzero(scaled.tracks >= 0)
    if previous is None:
        previous = _TrackStates(tracks=scaled.tracks[:0], time_s=scaled.time_s[:0], state=state[:0])
    carried = len(previous.tracks)
    tracks = np.concatenate([previous.tracks, scaled.tracks[tracked]])
    time_s = np.concatenate([previous.time_s, scaled.time_s[tracked]])
    states = np.concatenate([previous.state, state[tracked]])

    order = np.argsort(tracks, kind="stable")  # by track, then by time
    same_track = tracks[order[1:]] == tracks[order[:-1]]
    later, earlier = order[1:][same_track], order[:-1][same_track]
    step_s = time_s[later] - time_s[earlier]
    valid = (step_s > 0) & (step_s <= scaled.max_gap_s) & (later >= carried)
    later, earlier = later[valid], earlier[valid]
    step = step_s[valid].astype(np.float32)[:, None]
    change = states.take(later, axis=0) - states.take(earlier, axis=0)
    target = tracked[later - carried]
    extent = scaled.extent[target][:, None]

    speed = np.zeros((total, len(SPEED)), np.float32)
    velocity = change[:, :2] / step
    speed[target] = np.column_stack(
        [
            np.ones(len(target), np.float32),
            _compress(velocity * 10),
            _compress(velocity / extent * 10),
            _compress(np.hypot(velocity[:, 0], velocity[:, 1])[:, None] / extent * 10),
            _compress(change[:, 2:4] / step),
        ]
    )
    keypoint_speed = np.zeros((total, points, 2), np.float32)
    if points:
        old = states[earlier, 4:].reshape(-1, points, 3)
        new = states[later, 4:].reshape(-1, points, 3)
        weight = np.clip(np.minimum(old[:, :, 2:], new[:, :, 2:]) / _CONFIDENT, 0, 1)
        keypoint_speed[target] = _compress((new - old)[:, :, :2] / step[:, :, None] * weight * 10)

    is_last = np.append(~same_track, True)[: len(order)]
    keep = order[is_last]
    keep = keep[time_s[keep] >= (scaled.time_s[-1] - scaled.max_gap_s if total else -np.inf)]
    return speed, keypoint_speed, _TrackStates(tracks=tracks[keep], time_s=time_s[keep], state=states[keep])


def _pair_directions(keypoints: Array, pairs: list[tuple[int, int]]) -> Array:
    """Return the directions between keypoints, which size and place do not change: `PAIR` columns [M, 2 * pairs].

    A direction is a unit vector without its signs; pairs nearer than `_NEAR` fade to zero, as noise decides theirs.
    """
    first, second = np.array(pairs).T
    position = keypoints[:, :, :2].transpose(2, 0, 1).copy()  # contiguous, which makes `take` twice as fast
    offset = np.abs(position.take(first, axis=2) - position.take(second, axis=2))
    across, down = offset
    offset /= np.sqrt(across * across + down * down) + _NEAR
    return np.concatenate([across, down], axis=1)


def _relations(scaled: _ScaledObjects, offsets: Array) -> Array:
    """Return the `RELATION` columns of each object's nearest neighbours in its frame: [M, 7 * NEIGHBOURS]."""
    relations = np.zeros((len(scaled.centre), NEIGHBOURS, len(RELATION)), np.float32)
    for rank, neighbour in enumerate(_neighbours(scaled.centre, offsets)):
        index = np.flatnonzero(neighbour >= 0)
        relations[index, rank] = _relation(scaled, index, neighbour.take(index))
    return relations.reshape(len(relations), NEIGHBOURS * len(RELATION))


def _neighbours(centre: Array, offsets: Array) -> Array:
    """Return the row of each object's nearest neighbours, nearest first: int64 [NEIGHBOURS, M], -1 for none."""
    neighbours = np.full((NEIGHBOURS, len(centre)), -1)
    counts = np.diff(offsets)
    for first in range(0, len(counts), _FRAMES_PER_BLOCK):
        block = counts[first : first + _FRAMES_PER_BLOCK]
        low, high = int(offsets[first]), int(offsets[first + len(block)])
        width = int(block.max())
        if width < 2:
            continue
        frame = np.repeat(np.arange(len(block)), block)
        start = offsets[first : first + len(block)].take(frame)  # first row of each object's frame
        row = np.arange(high - low)
        slot = row + low - start
        distance = np.zeros((len(row), width), np.float32)
        for axis in (0, 1):
            position = centre[low:high, axis]
            padded = np.full((len(block), width), np.inf, np.float32)  # empty slots are infinitely far away
            padded[frame, slot] = position
            distance += np.square(position[:, None] - padded.take(frame, axis=0))
        distance[row, slot] = np.inf
        for rank in range(min(NEIGHBOURS, width - 1)):
            nearest = distance.argmin(axis=1)
            exists = np.isfinite(distance[row, nearest])
            neighbours[rank, low:high] = np.where(exists, start + nearest, -1)
            distance[row, nearest] = np.inf
    return neighbours


def _relation(scaled: _ScaledObjects, index: Array, other: Array) -> Array:
    extent, other_extent = scaled.extent.take(index), scaled.extent.take(other)
    centre, other_centre = scaled.centre.take(index, axis=0), scaled.centre.take(other, axis=0)
    size, other_size = scaled.size.take(index, axis=0), scaled.size.take(other, axis=0)
    offset = (other_centre - centre) / extent[:, None]
    distance = np.hypot(offset[:, 0], offset[:, 1])
    low = np.maximum(centre - size / 2, other_centre - other_size / 2)
    high = np.minimum(centre + size / 2, other_centre + other_size / 2)
    sides = np.maximum(high - low, 0)
    overlap = sides[:, 0] * sides[:, 1]
    areas = size[:, 0] * size[:, 1] + other_size[:, 0] * other_size[:, 1]
    return np.column_stack(
        [
            np.ones(len(index), np.float32),
            _compress(offset),
            np.log1p(distance),
            np.log(other_extent / extent),
            overlap / (areas - overlap),
            scaled.classes.take(index) == scaled.classes.take(other),
        ]
    )


def _compress(value: Array) -> Array:
    """Return sign(x) * log(1 + |x|): rates span orders of magnitude, and slow ones matter too."""
    compressed: Array = np.sign(value) * np.log1p(np.abs(value))
    return compressed


def _tensor(values: Array) -> Tensor:
    """Return float16 values as a tensor: PyTorch converts them to float32 ten times as fast as NumPy, exactly."""
    return torch.from_numpy(values.copy())  # PyTorch needs writable memory, which a memory-mapped file does not give
