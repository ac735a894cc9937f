from dataclasses import replace

import numpy as np
import pytest

from tests.sequences import make_sequence
from vidgru.datasets.windows import Window, slice_window
from vidgru.errors import SettingsError
from vidgru.model.feature_spec import FeatureSpec, mirror_columns
from vidgru.model.features import compute_features
from vidgru.training.augment import Augmenter, mirror, why_not_mirrored

SEQUENCE = make_sequence(100, keypoints=17, optional=False)
FEATURES = compute_features(SEQUENCE)
LAYOUT = FeatureSpec.from_sequence(SEQUENCE)
LABELS = ("fall", "walk")


def window(length: int = 40) -> Window:
    return slice_window(FEATURES, 5, length, labels=np.array([0, 1, 0], np.float32))


def test_augmentation_keeps_labels_and_steps() -> None:
    augment, rng = Augmenter(LAYOUT, LABELS), np.random.default_rng(0)
    lengths = []
    for _ in range(200):
        changed = augment(window(), rng)
        assert changed.labels is not None
        assert changed.labels.tolist() == [0, 1, 0]
        assert changed.offsets[-1] == len(changed.objects)
        assert changed.mask.all()
        lengths.append(len(changed))
        assert len(augment(window(1), rng)) >= 1
    assert min(lengths) >= 40 * 0.7 / 1.25 - 1
    assert max(lengths) <= 40 / 0.8 + 1
    assert len(set(lengths)) > 10


def test_augmentation_keeps_frame_order() -> None:
    augment, rng = Augmenter(LAYOUT, ["turn_left"]), np.random.default_rng(0)  # no mirror
    plain = window()
    marks = np.arange(40, dtype=np.float32)
    plain.frame[:, 0] = marks
    plain.objects[:, -1] = np.repeat(marks, np.diff(plain.offsets))
    for _ in range(50):
        changed = augment(plain, rng)
        steps = changed.frame[:, 0]
        assert (np.diff(steps) >= 0).all()
        assert np.array_equal(changed.objects[:, -1], np.repeat(steps, np.diff(changed.offsets)))


def test_mirror_is_its_own_inverse() -> None:
    columns = mirror_columns(LAYOUT)
    assert columns is not None
    features = window()
    turned = replace(features, objects=features.objects.copy(), frame=features.frame.copy())
    mirror(turned, columns)
    order, sign, frame_order, frame_sign = columns
    assert not np.array_equal(turned.objects, features.objects)
    assert np.array_equal(turned.objects, features.objects[:, order] * sign)
    assert np.array_equal(turned.frame, features.frame[:, frame_order] * frame_sign)
    mirror(turned, columns)
    assert np.array_equal(turned.objects, features.objects)
    assert np.array_equal(turned.frame, features.frame)


@pytest.mark.parametrize(
    ("labels", "sided"),
    [
        (("turn_left", "turn_right"), True),
        (("Left turn",), True),
        (("turnLeft",), True),
        (("leftward",), True),
        (("walk",), False),
        (("bright", "leftover"), False),
    ],
)
def test_labels_naming_a_side_prevent_mirroring(labels: tuple[str, ...], sided: bool) -> None:
    assert (Augmenter(LAYOUT, labels).mirror is None) == sided
    assert bool(why_not_mirrored(LAYOUT, labels, None)) == sided
    assert Augmenter(LAYOUT, labels, mirror=True).mirror is not None
    assert Augmenter(LAYOUT, labels, mirror=False).mirror is None


def test_why_not_mirrored_gives_the_reason() -> None:
    unknown = FeatureSpec(classes=1, keypoints=21)
    assert why_not_mirrored(LAYOUT, LABELS, False) == "--no-mirror"
    assert why_not_mirrored(LAYOUT, ["wave", "turnLeft"], None) == "the label 'turnLeft' names a side"
    message = "left and right of the 21 keypoints are unknown; pass --flip-idx, as in the detector's data.yaml"
    assert why_not_mirrored(unknown, LABELS, None) == message
    with pytest.raises(SettingsError, match=r"mirror is True, but left and right of the 21 .*\n.*--flip-idx"):
        why_not_mirrored(unknown, LABELS, True)
    assert "the motion columns" in why_not_mirrored(FeatureSpec(classes=1, motion=6), LABELS, None)
    known = replace(unknown, flip_idx=(1, 0, *range(2, 21)))
    assert why_not_mirrored(known, LABELS, True) == why_not_mirrored(known, LABELS, None) == ""


def test_targets_and_weights_stay_with_steps() -> None:
    augment, rng = Augmenter(LAYOUT, ["turn_left"]), np.random.default_rng(0)
    marks = np.arange(100, dtype=np.float32)
    FEATURES.frame[:, 0] = marks
    plain = slice_window(FEATURES, 80, 40, marks[:, None], marks / 2)  # half of it is padding
    lengths = []
    for _ in range(50):
        changed = augment(plain, rng)
        assert changed.targets is not None
        assert changed.weights is not None
        assert np.array_equal(changed.targets[:, 0], changed.frame[:, 0])
        assert np.array_equal(changed.weights, changed.frame[:, 0] / 2)
        assert np.array_equal(changed.weights > 0, changed.mask)
        lengths.append(len(changed))
    assert min(lengths) >= 40 / 1.25  # only clips are cut
    assert len(set(lengths)) > 5
