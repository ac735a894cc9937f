"""Letterboxes, masks and motion of preprocessed frames."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.detectors import Weights
from tests.videos import draw_counter
from vidgru.config import DetectorSettings
from vidgru.detector.backends import TorchBackend
from vidgru.detector.motion import FlowMeter, scene_motion
from vidgru.detector.preprocess import (
    MAX_UNCHANGED_S,
    PAD_VALUE,
    FramePreprocessor,
    Letterbox,
    PictureComparer,
    rasterize_polygons,
)
from vidgru.detector.yolo import Detector
from vidgru.detector.yolo_head import load_network
from vidgru.errors import SettingsError
from vidgru.types import Array

LEFT_HALF = "[[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]]"
UPPER_LEFT = [[[0.0, 0.0], [0.5, 0.0], [0.5, 0.5], [0.0, 0.5]]]


@pytest.mark.parametrize("size_px", [(1920, 1080), (1080, 1920), (640, 480), (641, 359), (33, 1000), (16, 16)])
def test_letterbox_equals_ultralytics(size_px: tuple[int, int]) -> None:
    from ultralytics.data.augment import LetterBox

    image = np.random.default_rng(0).integers(0, 255, (size_px[1], size_px[0], 3), dtype=np.uint8)
    expected = LetterBox(new_shape=(640, 640), auto=True, stride=32)(image=image)
    box = Letterbox.fit(size_px, 640, 32)
    canvas = np.empty((*box.input_hw, 3), np.uint8)
    box.place(cv2.resize(image, box.content_wh, interpolation=cv2.INTER_LINEAR), canvas)
    assert np.array_equal(canvas, expected)


def test_preprocessor_leaves_unmasked_frames_unchanged() -> None:
    preprocess = FramePreprocessor((160, 90), 160, [])
    image = draw_counter(5, 160, 90)
    prepared, flow = preprocess(image, 0.0)
    assert preprocess.scaled_wh == (160, 90)
    assert flow is None
    assert np.array_equal(prepared, image)


def test_letterbox_pads_with_grey() -> None:
    image, canvas = draw_counter(5, 160, 90), np.empty((96, 160, 3), np.uint8)
    Letterbox.fit((160, 90), 160, 32).place(image, canvas)
    assert np.array_equal(canvas[3:93], image)
    assert (canvas[:3] == PAD_VALUE).all()
    assert (canvas[93:] == PAD_VALUE).all()


def test_preprocessor_masks_image_and_motion() -> None:
    preprocess = FramePreprocessor((160, 96), 160, UPPER_LEFT)
    meter = FlowMeter()
    for number, time_s in ((0, 0.0), (1023, 0.2)):
        image = draw_counter(number, 160, 96)
        canvas, flow = preprocess(image, time_s)
        assert (canvas[:47, :79] == PAD_VALUE).all()
        assert np.array_equal(canvas[49:], image[49:])
        unmasked = meter.step(image, time_s)
    assert flow is not None
    assert unmasked is not None
    height, width = flow.grey_change.shape
    corner = np.s_[: height // 2 - 2, : width // 2 - 2]
    assert (flow.grey_change[corner] == 0).all()
    assert (unmasked.grey_change[corner] > 0).any()


def test_rasterize_polygons_covers_polygons() -> None:
    assert rasterize_polygons([], (8, 4)) is None
    mask = rasterize_polygons(json.loads(LEFT_HALF), (80, 40))
    assert mask is not None
    assert mask.shape == (40, 80)
    assert mask[:, :40].all()
    assert not mask[:, 42:].any()
    both = rasterize_polygons([*json.loads(LEFT_HALF), [[0.5, 0.5], [1, 0.5], [1, 1], [0.5, 1]]], (80, 40))
    assert both is not None
    assert both[25:].all()
    assert not both[:19, 42:].any()
    overlapping = rasterize_polygons([*json.loads(LEFT_HALF), [[0.2, 0], [0.8, 0], [0.8, 1], [0.2, 1]]], (80, 40))
    assert overlapping is not None
    assert overlapping[:, :64].all()


def test_mask_setting_is_file_or_list(tmp_path: Path) -> None:
    (tmp_path / "mask.yaml").write_text("# a clock\n- [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]\n")
    by_file = DetectorSettings(mask=str(tmp_path / "mask.yaml"))
    assert by_file == DetectorSettings(mask=LEFT_HALF)
    assert DetectorSettings(mask=by_file.mask) == by_file
    assert json.loads(by_file.mask) == [[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]]
    assert DetectorSettings().mask == ""
    assert by_file.feature_settings("") != DetectorSettings().feature_settings("")


@pytest.mark.parametrize("mask", ["[]", "[[0, 0]]", "[[[0, 0], [1, 1]]]", "[[[0, 0], [2, 0], [1, 1]]]", "[[[0, 0"])
def test_invalid_mask_setting_raises(mask: str) -> None:
    with pytest.raises(SettingsError, match="must be a list of polygons, each of three corners or more"):
        DetectorSettings(mask=mask)


def test_missing_mask_file_raises() -> None:
    with pytest.raises(SettingsError, match=r"mask is 'none\.yaml', which cannot be read: No such file"):
        DetectorSettings(mask="none.yaml")


def test_features_ignore_masked_pixels(tiny_weights: Weights) -> None:
    """The left halves of two recordings differ and are masked, so their features are equal."""

    def features(seed: int, mask: str) -> tuple[Array, Array]:
        settings = DetectorSettings(imgsz=64, mask=mask)
        detector = Detector(TorchBackend(*load_network(tiny_weights("yolov8n")), "cpu", "fp32"), settings)
        preprocess = FramePreprocessor((160, 96), 64, json.loads(settings.mask or "[]"))
        letterbox = Letterbox.fit((160, 96), 64, detector.stride)
        canvas = np.empty((1, *letterbox.input_hw, 3), np.uint8)
        scenes, motions = [], []
        for number in range(4):
            image = np.full((96, 160, 3), 60, np.uint8)
            image[:, 80 + number * 2 : 100 + number * 2] = 200
            image[:, :72] = np.random.default_rng([seed, number]).integers(0, 255, (96, 72, 3))
            prepared, flow = preprocess(cv2.resize(image, preprocess.scaled_wh), number / 5)
            letterbox.place(prepared, canvas[0])
            scenes.append(detector.detect(canvas, [letterbox])[0].scene)
            motions.append(scene_motion(flow))
        return np.stack(scenes), np.stack(motions)

    for mask, is_equal in ((LEFT_HALF, True), ("", False)):
        (scene, motion), (other_scene, other_motion) = features(1, mask), features(2, mask)
        assert np.array_equal(scene, other_scene) == is_equal
        assert np.array_equal(motion, other_motion) == is_equal
        assert motion.any(), "the visible half moves"


def test_picture_comparer_finds_samples_that_look_alike() -> None:
    rng = np.random.default_rng(0)
    image = np.full((96, 160, 3), 100, np.uint8)
    noisy = (image + rng.integers(-4, 5, image.shape)).astype(np.uint8)
    moved = image.copy()
    moved[40:48, 80:84] = 160  # half a cell
    coloured = moved.copy()
    coloured[40:48, 80:88] = (205, 110, 36)  # as bright as the cell was
    comparer = PictureComparer()
    assert not comparer.is_unchanged(image, 0.0)
    assert comparer.is_unchanged(noisy, 0.2)
    assert not comparer.is_unchanged(moved, 0.4)
    assert comparer.is_unchanged(moved, 0.6)
    assert comparer.is_unchanged(moved, 0.4 + MAX_UNCHANGED_S - 0.1)
    assert not comparer.is_unchanged(moved, 0.4 + MAX_UNCHANGED_S)
    assert not comparer.is_unchanged(coloured, 0.6 + MAX_UNCHANGED_S)
