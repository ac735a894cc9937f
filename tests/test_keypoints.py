import doctest

import pytest

import vidgru.keypoints
from vidgru.keypoints import COCO_FLIP_IDX, check_flip_idx, flip_idx_from_names

COCO_NAMES = ["nose"] + [
    f"{side}_{part}"
    for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for side in ("left", "right")
]


def test_docstring_examples() -> None:
    assert doctest.testmod(vidgru.keypoints).failed == 0


@pytest.mark.parametrize(
    ("names", "flip_idx"),
    [
        (COCO_NAMES, COCO_FLIP_IDX),
        (["Nose", "LEye", "REye", "tail"], (0, 2, 1, 3)),
        (["leftHip", "rightHip"], (1, 0)),
        (["Hip-L", "neck", "Hip-R"], (2, 1, 0)),
        (["hand.left.tip", "hand.right.tip"], (1, 0)),
        (["0", "1", "2"], ()),  # Ultralytics' names for keypoints without names
        (["nose", "left_eye"], ()),
        (["eye", "eye"], ()),
        (["bright", "leftover"], ()),
    ],
)
def test_flip_idx_from_names(names: list[str], flip_idx: tuple[int, ...]) -> None:
    assert flip_idx_from_names([names], len(names)) == flip_idx


def test_flip_idx_requires_agreeing_classes() -> None:
    names = ["nose", "left_eye", "right_eye"]
    assert flip_idx_from_names([names, names], 3) == (0, 2, 1)
    assert flip_idx_from_names([names, names[::-1]], 3) == ()
    assert flip_idx_from_names([names], 4) == ()
    assert flip_idx_from_names([], 3) == ()


@pytest.mark.parametrize("flip_idx", [(0, 1), (1, 2, 0), (0, 1, 3), (0, 0, 2)])
def test_check_flip_idx_rejects_other_lists(flip_idx: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"flip_idx is \[.*\]; it must pair the 3 keypoints: .* such as \[0, 2, 1\]"):
        check_flip_idx(flip_idx, 3)
