"""Measured attributes of an event: what the words of a caption are about.

Each object is pooled over its track: its class, its colour, what it looks like, where it came from and went, and when.
Pooling over a track makes these far more certain than single frames do.
"""

from __future__ import annotations

import numpy as np

from vidgru.model.feature_spec import FeatureSpec
from vidgru.types import Array, Features

MAX_OBJECTS = 12  # of an event: the tracks with the most frames
_MIN_FRAMES, _MIN_SHARE = 3, 0.1  # of a track; shorter ones are stray detections, unless there are no others
_POOLED = ("geometry", "speed", "motion")  # feature groups whose means say how an object moves
_PATH = 20
_RANKS = 4
_COUNTS = 4  # figures per class
_MOVES = 0.6  # of the compressed flow: 0.2 box widths per second
_TURN = 4.0  # per frame height: displacements saturate, as captions name directions and not distances


def attribute_groups(spec: FeatureSpec) -> dict[str, slice]:
    """Return the columns of each group of an object's attributes; groups that the features lack are left out."""
    groups = spec.object_groups()

    def width(name: str) -> int:
        return groups[name].stop - groups[name].start if name in groups else 0

    widths = {
        "class": spec.classes,
        "colour": width("colour"),
        "appearance": width("appearance"),
        "movement": sum(map(width, _POOLED)) + _PATH + _RANKS,
    }
    edges = np.cumsum([0, *widths.values()]).tolist()
    return {name: slice(first, first + w) for (name, w), first in zip(widths.items(), edges, strict=False) if w}


def object_attributes(features: Features, spec: FeatureSpec) -> Array:
    """Measure the objects of an event.

    Args:
        features: Features of the event's frames.
        spec: Their columns.

    Returns:
        float32 [N,A], N at most `MAX_OBJECTS`, in the order of their first frames; columns as in `attribute_groups`.
    """
    groups, frames = spec.object_groups(), len(features)
    frame, classes = _frames_and_classes(features, spec)
    # Objects without a track are taken for one object per class.
    names = np.where(features.tracks >= 0, features.tracks.astype(np.int64), -1 - classes)
    ids, first_rows, sizes = np.unique(names, return_index=True, return_counts=True)
    order = np.argsort(-sizes, kind="stable")
    lasting = order[sizes[order] >= max(_MIN_FRAMES, _MIN_SHARE * frames)]
    kept = (lasting if len(lasting) else order)[:MAX_OBJECTS]
    kept = kept[np.argsort(first_rows[kept], kind="stable")]
    result = np.zeros((len(kept), max(columns.stop for columns in attribute_groups(spec).values())), np.float32)
    seen = np.zeros(spec.classes, np.int64)
    side = _sides(features.objects[:, groups["geometry"].start], frame, classes, names, ids[kept])
    for number, track in enumerate(kept.tolist()):
        rows = np.flatnonzero(names == ids[track])
        objects = features.objects[rows]
        score = objects[:, groups["score"].start]
        weight = score / max(score.sum(), 1e-6)
        votes = np.bincount(classes[rows], weights=score, minlength=spec.classes)
        its_class = int(votes.argmax())
        centre = objects[:, groups["geometry"].start : groups["geometry"].start + 2]
        begin, end = frame[rows[0]] / frames, (frame[rows[-1]] + 1) / frames
        halfway = centre[len(rows) // 2]
        path = [
            *centre[0],
            *centre[-1],
            *(centre[-1] - centre[0]),
            *np.tanh(_TURN * (centre[-1] - centre[0])),
            *np.tanh(_TURN * (halfway - centre[0])),
            *np.tanh(_TURN * (centre[-1] - halfway)),
            begin,
            end,
            min(len(rows) / frames, 1.0),
            begin == 0,
            end == 1,
            number == 0,
            side[number],
            np.sign(side[number]),
        ]
        pooled = [weight @ objects[:, groups[name]] for name in ("colour", "appearance", *_POOLED) if name in groups]
        rank = np.eye(_RANKS)[min(int(seen[its_class]), _RANKS - 1)]
        seen[its_class] += 1
        result[number] = np.concatenate([np.eye(spec.classes)[its_class], *pooled, path, rank])
    return result


def _frames_and_classes(features: Features, spec: FeatureSpec) -> tuple[Array, Array]:
    """Return the frame and the class of every object, int64 [M] each."""
    frame = np.repeat(np.arange(len(features)), np.diff(features.offsets))
    classes = features.objects[:, spec.object_groups()["class"].start].astype(np.int64)
    return frame, classes.clip(0, spec.classes - 1)


def _sides(x: Array, frame: Array, classes: Array, names: Array, kept: Array) -> Array:
    """Return on which side of its nearest companion each kept track is: mean tanh of the distance, 0 without any."""
    sides = np.zeros(len(kept))
    rows = [np.flatnonzero(names == name) for name in kept]
    for number, own in enumerate(rows):
        nearest = np.inf
        for other in rows[:number] + rows[number + 1 :]:
            if classes[other[0]] != classes[own[0]]:
                continue
            _, mine, theirs = np.intersect1d(frame[own], frame[other], return_indices=True)
            if len(mine) < max(_MIN_FRAMES, min(len(own), len(other)) / 2):
                continue
            offset = x[own[mine]] - x[other[theirs]]
            if np.abs(offset).mean() < nearest:
                nearest, sides[number] = np.abs(offset).mean(), np.tanh(2 * _TURN * offset).mean()
    return sides


def count_attributes(features: Features, spec: FeatureSpec) -> Array:
    """Count the objects of each class: float32 [8 C].

    Objects count as much as their scores, so that doubtful second boxes of one object change little. First all of them
    are counted, then those that move to the side to which most of their class move: 0.9 quantile, median and mean of
    the frames with the class, and mean of all frames.
    """
    groups = spec.object_groups()
    frame, classes = _frames_and_classes(features, spec)
    score = features.objects[:, groups["score"].start].astype(np.float64)
    # Both are 0 for objects that stand still: flow in the box, else the speed of the track.
    sideways = features.objects[:, groups["motion"].start if "motion" in groups else groups["speed"].start + 1]
    counts = np.zeros((2, _COUNTS, spec.classes), np.float32)
    for index in np.unique(classes):
        rows = classes == index
        main = np.sign(score[rows] @ sideways[rows])
        for number, chosen in enumerate((rows, rows & (main * sideways > _MOVES))):
            per_frame = np.bincount(frame[chosen], weights=score[chosen], minlength=len(features))
            present = per_frame[per_frame > 0] if chosen.any() else per_frame
            counts[number, :, index] = np.quantile(present, 0.9), np.median(present), present.mean(), per_frame.mean()
    return counts.ravel()
