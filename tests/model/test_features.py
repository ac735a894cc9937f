import itertools
from dataclasses import replace

import numpy as np
import pytest

from tests.sequences import make_sequence, sequences_equal, with_still_frames
from vidgru.detector import motion
from vidgru.errors import SettingsMismatchError
from vidgru.keypoints import COCO_FLIP_IDX
from vidgru.model.feature_spec import SPEED, FeatureSpec, mirror_columns
from vidgru.model.features import FeatureStream, compute_features, cut_parts, stream_features
from vidgru.types import FrameSequence


def moving(boxes: np.ndarray, *, fps: float = 8.0, tracks: np.ndarray | None = None, size=(320, 160)) -> FrameSequence:
    """A box a frame: float [T, 4]."""
    frames = len(boxes)
    return FrameSequence(
        time_s=np.arange(frames) / fps,
        frame_index=np.arange(frames, dtype=np.int64),
        offsets=np.arange(frames + 1, dtype=np.int64),
        boxes=boxes.astype(np.float32),
        scores=np.full(frames, 0.5, np.float16),
        classes=np.zeros(frames, np.int16),
        tracks=np.ones(frames, np.int32) if tracks is None else tracks.astype(np.int32),
        fps=fps,
        size_px=size,
        names=("person",),
    )


def group(sequence: FrameSequence, name: str) -> np.ndarray:
    return compute_features(sequence).objects[:, FeatureSpec.from_sequence(sequence).object_groups()[name]]


def walk(fps: float, seconds: float = 2.0, per_s: float = 0.1) -> np.ndarray:
    x = np.arange(int(seconds * fps)) / fps * per_s
    return np.column_stack([x, np.full_like(x, 0.2), x + 0.1, np.full_like(x, 0.6)])


@pytest.mark.parametrize("cuts", [(0,), (1, 2, 3), (7, 7, 7), (13, 150), tuple(range(1, 200))])
@pytest.mark.parametrize("keypoints", [0, 5, 17])
def test_feature_stream_equals_whole_recording(cuts: tuple[int, ...], keypoints: int) -> None:
    sequence = make_sequence(200, keypoints=keypoints, seed=4)
    whole = compute_features(sequence)
    stream, edges = FeatureStream(), [0, *cuts, 200]
    parts = [stream.push(sequence.frames(a, b)) for a, b in itertools.pairwise(edges)]
    assert np.array_equal(np.concatenate([part.objects for part in parts]), whole.objects)
    assert np.array_equal(np.concatenate([part.frame for part in parts]), whole.frame)
    assert np.isfinite(whole.objects).all()
    assert whole.objects.dtype == whole.frame.dtype == np.float32


def test_cut_parts_releases_parts_with_still_frames() -> None:
    part = with_still_frames(make_sequence(40), [*range(5, 30)])
    ((number, piece, row),) = cut_parts([part], [slice(3, 9)])
    assert (number, row) == (0, part.offsets[3])
    assert sequences_equal(piece, part.frames(3, 9))
    for name, value in piece.tensors().items():
        assert not np.shares_memory(value, getattr(part, name)), name


def test_features_are_causal() -> None:
    sequence = make_sequence(60, keypoints=17)
    part, whole = compute_features(sequence.frames(0, 40)), compute_features(sequence)
    assert np.array_equal(part.objects, whole.objects[: len(part.objects)])
    assert np.array_equal(part.frame, whole.frame[:40])


@pytest.mark.parametrize("optional", [True, False])
@pytest.mark.parametrize("objects", [0, 1, 2, 3, None])
def test_features_have_widths_of_spec(objects: int | None, optional: bool) -> None:
    sequence = make_sequence(9, objects, optional=optional)
    features, feature_spec = compute_features(sequence), FeatureSpec.from_sequence(sequence)
    assert features.objects.shape == (len(sequence.boxes), feature_spec.object_width)
    assert features.frame.shape == (9, feature_spec.frame_width)
    for name in ("appearance", "colour"):
        assert (name in feature_spec.object_groups()) == optional
        if optional:
            assert np.array_equal(features.objects[:, feature_spec.object_groups()[name]], getattr(sequence, name))


def test_mirror_columns_keep_colours() -> None:
    feature_spec = FeatureSpec(classes=3, motion=22, appearance=7, colour=9)
    columns = mirror_columns(feature_spec)
    assert columns is not None
    order, sign = columns[0][feature_spec.object_groups()["colour"]], columns[1][feature_spec.object_groups()["colour"]]
    assert np.array_equal(order, np.arange(feature_spec.object_width)[feature_spec.object_groups()["colour"]])
    assert (sign == 1).all()


def test_speed_is_independent_of_sampling_rate() -> None:
    slow, fast = group(moving(walk(4), fps=4), "speed"), group(moving(walk(16), fps=16), "speed")
    assert np.array_equal(slow[0], np.zeros(len(SPEED)))
    np.testing.assert_allclose(slow[1:], np.broadcast_to(fast[-1], slow[1:].shape), rtol=2e-2, atol=1e-3)
    # 0.1 frame widths a second are 0.2 heights of a picture twice as wide as high
    np.testing.assert_allclose(slow[1:, SPEED.index("-x")], np.log1p(10 * 0.2), rtol=1e-3)


def test_speed_requires_recent_track() -> None:
    boxes = walk(8)
    assert not group(moving(boxes, tracks=np.full(len(boxes), -1)), "speed").any()
    sequence = moving(boxes)
    late = replace(sequence, time_s=sequence.time_s + np.where(np.arange(len(boxes)) >= 8, 1.0, 0.0))
    known = group(late, "speed")[:, 0]
    assert list(np.flatnonzero(known == 0)) == [0, 8]


def test_step_duration() -> None:
    sequence = moving(walk(8))
    assert np.allclose(compute_features(sequence).frame[:, 0], 1 / 8)
    paused = replace(sequence, time_s=sequence.time_s + np.where(np.arange(16) >= 5, 3.0, 0.0))
    assert compute_features(paused).frame[5, 0] == pytest.approx(3.125)


def test_relations_to_nearest_neighbours() -> None:
    centres = np.array([0.1, 0.2, 0.5, 0.9])
    boxes = np.column_stack([centres - 0.02, np.full(4, 0.4), centres + 0.02, np.full(4, 0.5)])
    sequence = moving(boxes, size=(100, 100))
    sequence = replace(
        sequence,
        offsets=np.array([0, 4]),
        time_s=sequence.time_s[:1],
        frame_index=sequence.frame_index[:1],
        classes=np.array([0, 0, 1, 0], np.int16),
    )
    relations = group(sequence, "relations").reshape(4, 2, 7)
    np.testing.assert_allclose(relations[:, :, 3], np.log1p([[1, 4], [1, 3], [3, 4], [4, 7]]), rtol=1e-3)
    assert relations[:, :, 6].tolist() == [[1, 0], [1, 0], [0, 0], [0, 1]]
    alone = group(moving(walk(8)), "relations")
    assert not alone.any()


def test_invisible_keypoints_have_no_effect() -> None:
    sequence = make_sequence(5, 2, keypoints=17)
    assert sequence.keypoints is not None
    unseen = sequence.keypoints.copy()
    unseen[:, :, 2] = 0
    elsewhere = unseen.copy()
    elsewhere[:, :, :2] += 0.5
    first_features, second_features = (
        compute_features(replace(sequence, keypoints=k)).objects for k in (unseen, elsewhere)
    )
    assert np.array_equal(first_features, second_features)


def test_keypoint_pairs_are_directions() -> None:
    sequence = make_sequence(3, 1, keypoints=3, optional=False)
    assert sequence.keypoints is not None
    sequence.boxes[:] = [0.2, 0.5, 0.4, 0.9]
    sequence.keypoints[:] = [[0.2, 0.5, 1], [0.4, 0.5, 1], [0.2, 0.9, 1]]  # a right angle; the picture is 320 x 192
    sequence.keypoints[1, 2, 2] = 0  # an unseen point fades to the centre of the box
    sequence.keypoints[2, :, :2] = 0.4
    pairs = group(sequence, "keypoint_pairs").reshape(-1, 2, 3)
    assert FeatureSpec.from_sequence(sequence).keypoint_pairs() == [(0, 1), (0, 2), (1, 2)]
    length = np.hypot(0.2 * 320 / 192, 0.4)
    diagonal = [0.2 * 320 / 192 / length, 0.4 / length]
    np.testing.assert_allclose(pairs[0], [[1, 0, diagonal[0]], [0, 1, diagonal[1]]], atol=0.07)
    np.testing.assert_allclose(pairs[1], [[1, diagonal[0], diagonal[0]], [0, diagonal[1], diagonal[1]]], atol=0.1)
    assert not pairs[2].any()


@pytest.mark.parametrize(
    ("keypoints", "flip_idx", "chosen"),
    [
        (1, (), 0),
        (2, (), 2),
        (3, (), 3),
        (16, (), 16),
        (17, (), 16),
        (17, COCO_FLIP_IDX, 12),
        (133, tuple(range(132, -1, -1)), 16),
    ],
)
def test_keypoint_pairs_of_any_set(keypoints: int, flip_idx: tuple[int, ...], chosen: int) -> None:
    pairs = FeatureSpec(classes=1, keypoints=keypoints, flip_idx=flip_idx).keypoint_pairs()
    assert len(pairs) == chosen * (chosen - 1) // 2
    assert len({point for pair in pairs for point in pair}) == chosen


def test_stream_features_refuse_other_tensors() -> None:
    feature_spec = FeatureSpec.from_sequence(make_sequence(3))
    message = r"differ from the model's: motion is 0, the model's is 6; appear.*; colour is 0, the model's is 3"
    with pytest.raises(SettingsMismatchError, match=message):
        list(stream_features([make_sequence(3, optional=False)], feature_spec))


def test_sides_of_keypoints_do_not_decide_features() -> None:
    sequence = make_sequence(3, keypoints=3, flip_idx=(0, 2, 1))
    feature_spec = FeatureSpec.from_sequence(sequence)
    assert feature_spec.flip_idx == (0, 2, 1)
    assert list(stream_features([replace(sequence, flip_idx=())], feature_spec))


def mirror(sequence: FrameSequence) -> FrameSequence:
    """The same scene seen in a mirror, without optional tensors."""
    boxes = sequence.boxes.copy()
    boxes[:, [0, 2]] = 1 - boxes[:, [2, 0]]
    points = None
    if sequence.keypoints is not None:
        points = sequence.keypoints[:, sequence.flip_idx or COCO_FLIP_IDX].astype(np.float64)
        points[:, :, 0] = 1 - points[:, :, 0]
        points = points.astype(np.float16)
    return replace(sequence, boxes=boxes, keypoints=points, motion=None, appearance=None, scene=None, scene_motion=None)


@pytest.mark.parametrize(("keypoints", "flip_idx"), [(0, ()), (17, ()), (5, (1, 0, 2, 4, 3))])
def test_mirror_columns_equal_mirrored_scene(keypoints: int, flip_idx: tuple[int, ...]) -> None:
    sequence = make_sequence(50, keypoints=keypoints, flip_idx=flip_idx, optional=False)
    columns = mirror_columns(FeatureSpec.from_sequence(sequence))
    assert columns is not None
    order, sign, frame_order, frame_sign = columns
    features, mirrored = compute_features(sequence), compute_features(mirror(sequence))
    np.testing.assert_allclose(features.objects[:, order] * sign, mirrored.objects, atol=0.15)
    np.testing.assert_allclose(features.frame[:, frame_order] * frame_sign, mirrored.frame, atol=1e-6)


@pytest.mark.parametrize("feature_spec", [
    FeatureSpec(
        classes=3, motion=22, keypoints=17, angle=True, scene=5, scene_motion=20, appearance=7, colour=9,
        flip_idx=COCO_FLIP_IDX,
    ),
    FeatureSpec(classes=1, keypoints=3, flip_idx=(0, 2, 1)),
    FeatureSpec(classes=1, keypoints=45, flip_idx=(0, *range(44, 0, -1))),
    FeatureSpec(classes=1),
])  # fmt: skip
def test_mirror_columns_are_an_involution(feature_spec: FeatureSpec) -> None:
    columns = mirror_columns(feature_spec)
    assert columns is not None
    for order, sign in (columns[:2], columns[2:]):
        assert np.array_equal(order[order], np.arange(len(order)))
        assert np.array_equal(sign * sign[order], np.ones(len(sign)))


@pytest.mark.parametrize("feature_spec", [FeatureSpec(classes=1, keypoints=17), FeatureSpec(classes=1, motion=6)])
def test_mirror_columns_of_unknown_layout(feature_spec: FeatureSpec) -> None:
    assert mirror_columns(feature_spec) is None


def test_mirror_columns_match_extraction() -> None:
    feature_spec = FeatureSpec(
        classes=1, motion=len(motion.MOTION_COLUMNS), scene_motion=len(motion.SCENE_MOTION_COLUMNS)
    )
    columns = mirror_columns(feature_spec)
    assert columns is not None
    order, sign, frame_order, frame_sign = columns
    inside, scene = feature_spec.object_groups()["motion"], feature_spec.frame_groups()["scene_motion"]
    assert tuple(sign[inside]) == motion.MOTION_MIRROR_SIGN
    assert tuple(order[inside] - inside.start) == motion.MOTION_MIRROR_COLUMN
    assert tuple(frame_sign[scene]) == motion.SCENE_MOTION_MIRROR_SIGN
    assert tuple(frame_order[scene] - scene.start) == motion.SCENE_MOTION_MIRROR_COLUMN
