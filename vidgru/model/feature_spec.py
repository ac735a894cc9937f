"""Column layout of features: named groups, their widths, and how a left-right mirror changes them.

To add a feature per object: its columns here, its values in `features.py`, the width of its projection in `encoder.py`
(`_GROUP_WIDTHS`) and its name in `FeatureGroup` of `config.py`. If it needs pixels, also a field of `FrameSequence`
(`types.py`), filled by `detector/`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from vidgru.keypoints import COCO_FLIP_IDX, check_flip_idx
from vidgru.types import Array, FrameSequence

# A leading "-" marks columns that a left-right mirror negates.
GEOMETRY = ("-x", "y", "width", "height", "log_width", "log_height", "bottom", "log_aspect")
ANGLE = ("cos", "-sin")  # of twice the angle: an oriented box repeats after half a turn
SCORE = ("score", "log_score")
CLASS = ("index",)
SPEED = ("known", "-x", "y", "-x_own", "y_own", "size", "log_width", "log_height")
RELATION = ("known", "-x", "y", "distance", "log_size", "overlap", "same_class")
TIME = ("step_s", "log_count", "scores")

NEIGHBOURS = 2
PAIR = ("across", "down")  # absolute values: a mirror swaps pairs but changes no sign

# COCO's shoulders to ankles. With eyes and ears, the pairs are twice as many and tell a linear model little more.
_COCO_JOINTS = range(5, 17)
_MAX_WIDTH = 32767  # of a group, and number of classes
_MAX_PAIRED = 16  # keypoints of which all pairs are features

# Columns of `FrameSequence.motion` and `FrameSequence.scene_motion` that a mirror negates: horizontal flow of objects
# and of the camera. The first columns of `scene_motion` are a grid of 3 rows by 4 columns, which a mirror reverses.
# The layout is defined in extraction, which this package cannot import; a test compares the two.
_MOTION_WIDTH, _MOTION_NEGATED = 22, (0, 6, 7, 8, 9, 12, 15)
_SCENE_MOTION_WIDTH, _SCENE_MOTION_NEGATED, _GRID = 20, (18,), (3, 4)


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """Groups of feature columns and their widths, as the detector and the feature settings determine them.

    Attributes:
        classes: Number of detector classes.
        motion, appearance, colour, scene, scene_motion: Width of the optional tensor; 0 if absent.
        keypoints: Number of keypoints per object; 0 if absent.
        flip_idx: Left-right partner of each keypoint; empty if unknown. Only training uses it, so specs that differ
            in it are equal.
        angle: Whether boxes are oriented.
    """

    classes: int
    motion: int = 0
    appearance: int = 0
    colour: int = 0
    keypoints: int = 0
    angle: bool = False
    scene: int = 0
    scene_motion: int = 0
    flip_idx: tuple[int, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for name in ("classes", "motion", "appearance", "colour", "keypoints", "scene", "scene_motion"):
            if not 0 <= getattr(self, name) <= _MAX_WIDTH:
                raise ValueError(f"FeatureSpec.{name} must be from 0 to {_MAX_WIDTH}, got {getattr(self, name)}")
        check_flip_idx(self.flip_idx, self.keypoints)

    @staticmethod
    def from_sequence(sequence: FrameSequence) -> FeatureSpec:
        """Return the spec of a frame sequence's tensors; 17 keypoints of unknown sides are taken for COCO's."""

        def width(tensor: Array | None) -> int:
            return 0 if tensor is None else int(tensor.shape[1])

        keypoints = width(sequence.keypoints)
        return FeatureSpec(
            classes=len(sequence.names),
            motion=width(sequence.motion),
            appearance=width(sequence.appearance),
            colour=width(sequence.colour),
            keypoints=keypoints,
            angle=sequence.angle is not None,
            scene=width(sequence.scene),
            scene_motion=width(sequence.scene_motion),
            flip_idx=sequence.flip_idx or (COCO_FLIP_IDX if keypoints == len(COCO_FLIP_IDX) else ()),
        )

    def object_groups(self) -> dict[str, slice]:
        """Return the columns of each group in `Features.objects`."""
        return _slices(
            geometry=len(GEOMETRY),
            angle=len(ANGLE) if self.angle else 0,
            score=len(SCORE),
            **{"class": len(CLASS)},
            speed=len(SPEED),
            motion=self.motion,
            keypoints=3 * self.keypoints,
            keypoint_speed=2 * self.keypoints,
            keypoint_pairs=len(PAIR) * len(self.keypoint_pairs()),
            relations=len(RELATION) * NEIGHBOURS,
            appearance=self.appearance,
            colour=self.colour,
        )

    def keypoint_pairs(self) -> list[tuple[int, int]]:
        """Return the pairs of keypoints whose direction is a feature.

        These are all pairs of COCO's shoulders to ankles, or of up to 16 keypoints of another set. Of larger sets
        about 16 keypoints are taken at equal steps, with their partners on the other side, so that a mirror only
        swaps pairs.
        """
        chosen = list(_COCO_JOINTS if self.flip_idx == COCO_FLIP_IDX else range(self.keypoints))
        if len(chosen) > _MAX_PAIRED:
            partner = self.flip_idx or chosen
            firsts = [point for point in chosen if point <= partner[point]]
            count = len(firsts) * _MAX_PAIRED // self.keypoints
            steps = [firsts[number * len(firsts) // count] for number in range(count)]
            chosen = sorted({*steps, *(partner[point] for point in steps)})
        return list(combinations(chosen, 2))

    def frame_groups(self) -> dict[str, slice]:
        """Return the columns of each group in `Features.frame`."""
        return _slices(time=len(TIME), scene=self.scene, scene_motion=self.scene_motion)

    @property
    def object_width(self) -> int:
        """F, the number of columns of `Features.objects`."""
        return _width(self.object_groups())

    @property
    def frame_width(self) -> int:
        """G, the number of columns of `Features.frame`."""
        return _width(self.frame_groups())


def _slices(**widths: int) -> dict[str, slice]:
    slices, start = {}, 0
    for name, width in widths.items():
        if width:
            slices[name] = slice(start, start + width)
        start += width
    return slices


def _width(groups: dict[str, slice]) -> int:
    return max(int(columns.stop) for columns in groups.values())


def mirror_columns(feature_spec: FeatureSpec) -> tuple[Array, Array, Array, Array] | None:
    """Return how a left-right mirror permutes and negates feature columns.

    Mirrored features are `objects[:, order] * sign` and `frame[:, frame_order] * frame_sign`. Appearance and scene
    vectors have no mirror image and stay unchanged; colours are averages over bands that a mirror keeps.

    Returns:
        `order` int64 [F], `sign` float32 [F], `frame_order` int64 [G], `frame_sign` float32 [G]; None if left and right
        are unknown: keypoints without `flip_idx`, or motion in another layout than extraction's.
    """
    known_keypoints = len(feature_spec.flip_idx) == feature_spec.keypoints
    known_motion = feature_spec.motion in (0, _MOTION_WIDTH)
    if not (known_keypoints and known_motion and feature_spec.scene_motion in (0, _SCENE_MOTION_WIDTH)):
        return None
    order, sign = np.arange(feature_spec.object_width), np.ones(feature_spec.object_width, np.float32)
    groups = feature_spec.object_groups()
    column_names: dict[str, tuple[str, ...]] = {
        "geometry": GEOMETRY,
        "angle": ANGLE,
        "speed": SPEED,
        "relations": RELATION * NEIGHBOURS,
    }
    for name, columns in column_names.items():
        if name in groups:
            sign[groups[name]] = [-1.0 if column.startswith("-") else 1.0 for column in columns]
    for name, width in (("keypoints", 3), ("keypoint_speed", 2)):
        if name in groups:
            start = groups[name].start
            order[groups[name]] = start + (np.array(feature_spec.flip_idx)[:, None] * width + np.arange(width)).ravel()
            sign[groups[name]] = np.tile([-1.0, *[1.0] * (width - 1)], feature_spec.keypoints)
    if "keypoint_pairs" in groups:
        pairs, start = feature_spec.keypoint_pairs(), groups["keypoint_pairs"].start
        partner = feature_spec.flip_idx
        source = [pairs.index((min(partner[a], partner[b]), max(partner[a], partner[b]))) for a, b in pairs]
        order[groups["keypoint_pairs"]] = start + np.concatenate([source, np.array(source) + len(pairs)])
    if "motion" in groups:
        sign[groups["motion"].start + np.array(_MOTION_NEGATED)] = -1.0
    frame_order, frame_sign = np.arange(feature_spec.frame_width), np.ones(feature_spec.frame_width, np.float32)
    if feature_spec.scene_motion:
        start = feature_spec.frame_groups()["scene_motion"].start
        cells = np.arange(_GRID[0] * _GRID[1])
        frame_order[start + cells] = start + cells.reshape(_GRID)[:, ::-1].ravel()
        frame_sign[start + np.array(_SCENE_MOTION_NEGATED)] = -1.0
    return order, sign, frame_order, frame_sign
