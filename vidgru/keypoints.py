"""Left and right of keypoints: which keypoint takes the place of which in a mirror.

A `flip_idx`, as in a `data.yaml` of Ultralytics, lists for each keypoint its partner on the other side, or itself:
(0, 2, 1) for nose, left eye and right eye.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles (https://cocodataset.org/#keypoints-2020)
COCO_FLIP_IDX = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)

# A side as a word of its own (left_eye, eye-left, L_Eye, eye.R) or at the start of a camel-case name (leftEye, LEye).
_SIDE = re.compile(r"(?<![a-z])(left|right|l|r)(?![a-z])", re.IGNORECASE)
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[LR])(?=[A-Z][a-z])")
_OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}


def check_flip_idx(flip_idx: Sequence[int], keypoints: int) -> tuple[int, ...]:
    """Return the indices as a tuple; an empty one stands for unknown sides.

    Raises:
        ValueError: They are not pairs of the keypoints.
    """
    indices = tuple(int(index) for index in flip_idx)
    is_permutation = sorted(indices) == list(range(keypoints))
    if indices and not (is_permutation and all(indices[indices[i]] == i for i in range(keypoints))):
        raise ValueError(
            f"flip_idx is {list(indices)}; it must pair the {keypoints} keypoints: for each its partner on the other "
            "side, or itself, such as [0, 2, 1] for nose, left eye, right eye"
        )
    return indices


def flip_idx_from_names(names: Iterable[Sequence[str]], keypoints: int) -> tuple[int, ...]:
    """Return the `flip_idx` of keypoints by their names; empty if no name has a side, or a partner is missing.

    >>> flip_idx_from_names([["nose", "left_eye", "right_eye"]], 3)
    (0, 2, 1)

    Args:
        names: Names of the keypoints of each class; the classes must agree on the sides.
        keypoints: Number of keypoints.
    """
    candidates = {_flip_idx(class_names) for class_names in names}
    flip_idx = candidates.pop() if len(candidates) == 1 else ()
    return flip_idx if len(flip_idx) == keypoints else ()


def _flip_idx(names: Sequence[str]) -> tuple[int, ...]:
    words = [_CAMEL_CASE.sub(" ", str(name)).lower() for name in names]
    mirrored = [_SIDE.sub(lambda side: _OTHER_SIDE[side[0]], name) for name in words]
    if mirrored == words or len(set(words)) < len(words) or set(mirrored) != set(words):
        return ()
    return tuple(words.index(name) for name in mirrored)
