"""Measure how far two runs over the same frames agree, of a detector or of extraction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vidgru.types import FrameSequence

if TYPE_CHECKING:  # importing it takes seconds, and not all who compare need it
    from vidgru.detector.yolo import Detections

SCORE, IOU = 0.25, 0.5
CONFIDENT = 0.5  # objects of one run that the other must have


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement over boxes that score at least 0.25 in either run.

    Attributes:
        boxes: Number of such boxes in the first and in the second run.
        matched: Shares of them that match a box of any score in the other run.
        iou: Mean IoU of pairs.
        classes: Share of pairs of equal class.
        appearance: Mean cosine similarity of pairs.
        colour: Mean difference of pairs, in hundredths of CIELAB units.
        scene: Least cosine similarity of frames.
    """

    boxes: tuple[int, int]
    matched: tuple[float, float]
    iou: float
    classes: float
    appearance: float
    colour: float
    scene: float

    def holds(self) -> bool:
        """Whether the targets are met."""
        shares = (*self.matched, self.iou, self.classes)
        looks = min(self.appearance, self.scene) >= 0.99 and self.colour <= 0.01
        return min(self.boxes) > 0 and min(shares) >= 0.98 and looks


def agreement(first: Sequence[Detections], second: Sequence[Detections]) -> Agreement:
    """Compare two runs over the same frames, made with a score threshold well below 0.25."""
    boxes, matched = np.zeros(2, int), np.zeros(2, int)
    ious: list[float] = []
    classes: list[bool] = []
    appearance: list[float] = []
    colour: list[float] = []
    scene = 1.0
    for a, b in zip(first, second, strict=True):
        strong_a, strong_b = a.scores >= SCORE, b.scores >= SCORE
        boxes += strong_a.sum(), strong_b.sum()
        for i, j, iou in _pairs(a, b):
            if strong_a[i] or strong_b[j]:
                matched += strong_a[i], strong_b[j]
                ious.append(iou)
                classes.append(bool(a.classes[i] == b.classes[j]))
                appearance.append(_cosine(a.appearance[i], b.appearance[j]))
                colour.append(float(np.abs(a.colour[i].astype(float) - b.colour[j]).mean()))
        scene = min(scene, _cosine(a.scene, b.scene))
    shares = matched / np.maximum(boxes, 1)
    return Agreement(
        boxes=(int(boxes[0]), int(boxes[1])),
        matched=(float(shares[0]), float(shares[1])),
        iou=float(np.mean(ious)),
        classes=float(np.mean(classes)),
        appearance=float(np.mean(appearance)),
        colour=float(np.mean(colour)),
        scene=scene,
    )


def _pairs(a: Detections, b: Detections) -> list[tuple[int, int, float]]:
    """Match greedily, best IoU first; among boxes of equal IoU, equal classes and close scores first."""
    iou = box_iou(a.boxes.astype(float), b.boxes.astype(float))
    rows, columns = (iou >= IOU).nonzero()
    other = a.classes[rows] != b.classes[columns]
    apart = np.abs(a.scores[rows].astype(float) - b.scores[columns])
    taken_a: set[int] = set()
    taken_b: set[int] = set()
    pairs = []
    for k in np.lexsort((apart, other, -iou[rows, columns])):
        i, j = int(rows[k]), int(columns[k])
        if i not in taken_a and j not in taken_b:
            taken_a.add(i)
            taken_b.add(j)
            pairs.append((i, j, float(iou[i, j])))
    return pairs


def missing_objects(expected: FrameSequence, actual: FrameSequence) -> list[tuple[float, str]]:
    """Time and class of the confident objects of a sequence that have none like them in the other, of equal samples."""
    objects = []
    for t in range(len(expected)):
        first, second = expected.frames(t, t + 1), actual.frames(t, t + 1)
        iou = box_iou(first.boxes, second.boxes)
        is_like = (iou >= IOU) & (first.classes[:, None] == second.classes)
        for row in np.flatnonzero((first.scores >= CONFIDENT) & ~is_like.any(1)):
            objects.append((float(first.time_s[0]), first.names[first.classes[row]]))
    return objects


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the IoU of each pair of boxes, [n, m]."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = (high - low).clip(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b)]
    return np.asarray(inside / np.maximum(areas[0][:, None] + areas[1][None] - inside, 1e-12))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(float), b.astype(float)
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))
