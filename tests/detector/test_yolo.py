"""Detectors of every kind with random weights, against Ultralytics' predictions on the same pixels."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.detectors import DEMO, KINDS, NAMES, Weights
from tests.videos import draw_counter
from vidgru.config import DetectorSettings
from vidgru.detector.appearance import APPEARANCE, COLOUR_COLUMNS, SCENE
from vidgru.detector.backends import TorchBackend
from vidgru.detector.preprocess import Letterbox
from vidgru.detector.yolo import Detections, Detector
from vidgru.detector.yolo_head import load_network

IMGSZ = 128


def detector(weights: Path, precision: str = "fp32", **settings: Any) -> Detector:
    values = {"imgsz": IMGSZ, "conf": 0.2, "max_objects": 300} | settings
    return Detector(TorchBackend(*load_network(weights), "cpu", precision), DetectorSettings(**values))


def canvas(model: Detector, draw_images: list[np.ndarray], batch: int = 4) -> tuple[np.ndarray, list[Letterbox]]:
    """Letterbox RGB images of any size into a batch, as Ultralytics does."""
    sizes_px = [(image_in.shape[1], image_in.shape[0]) for image_in in draw_images]
    boxes = [Letterbox.fit(size_px, model.settings.imgsz, model.stride) for size_px in sizes_px]
    images = np.full((batch, *boxes[0].input_hw, 3), 114, np.uint8)
    for image_in, box, image in zip(draw_images, boxes, images, strict=False):
        small = image_in
        if image_in.shape[1::-1] != box.content_wh:
            small = cv2.resize(image_in, box.content_wh, interpolation=cv2.INTER_LINEAR)
        box.place(small, image)
    return images, boxes


def draw_images(count: int = 3, width: int = 160, height: int = 96) -> list[np.ndarray]:
    return [draw_counter(number * 85 + 3, width, height) for number in range(count)]


def ultralytics(weights: Path, images: list[np.ndarray], conf: float, imgsz: int) -> list[Any]:
    from ultralytics import YOLO

    model = YOLO(str(weights))
    one_to_one = getattr(model.model.model[-1], "one2one_cv2", None) is not None
    options = {"nms": False} if one_to_one else {}
    bgr = [image[..., ::-1] for image in images]
    return [
        model.predict(image, conf=conf, iou=0.7, imgsz=imgsz, max_det=300, verbose=False, **options)[0] for image in bgr
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_detections_agree_with_ultralytics(tiny_weights: Weights, kind: str) -> None:
    model = detector(tiny_weights(kind))
    images, boxes = canvas(model, draw_images())
    found = model.detect(images, boxes)
    for objects, truth in zip(found, ultralytics(tiny_weights(kind), draw_images(), 0.2, IMGSZ), strict=True):
        other = truth.boxes if truth.obb is None else truth.obb
        scores, classes = other.conf.numpy(), other.cls.numpy()
        theirs = (other.xyxy.numpy() / [160, 96, 160, 96]).clip(0, 1)
        if not kind.endswith("seg"):  # Ultralytics drops objects with empty masks
            assert len(objects.boxes) == len(scores)
        assert len(scores) > 3
        # Rounding may swap objects with nearly equal scores, so each of Ultralytics' objects is matched to the nearest.
        distance = np.abs(objects.boxes[None] - theirs[:, None]).max(2)
        distance = np.maximum(distance, np.abs(objects.scores.astype(float) - scores[:, None]))
        distance += objects.classes != classes[:, None]
        match = distance.argmin(1)
        assert distance.min(1).max() < 2e-3
        if truth.keypoints is not None:
            assert objects.keypoints is not None
            places = truth.keypoints.data.numpy() / [160, 96, 1]
            np.testing.assert_allclose(objects.keypoints[match].astype(float), places, atol=5e-3)
        if truth.obb is not None:
            assert objects.angle is not None
            turned = objects.angle[match].astype(float) - truth.obb.xywhr.numpy()[:, 4]
            assert np.abs(np.sin(2 * turned)).max() < 5e-3  # they count from either side, we from the longer one


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_seen_has_its_types(tiny_weights: Weights, kind: str) -> None:
    model = detector(tiny_weights(kind), conf=0.1, max_objects=7)
    assert model.names == NAMES
    images, boxes = canvas(model, draw_images())
    for objects in model.detect(images, boxes):
        assert (objects.boxes.dtype, objects.boxes.shape) == (np.float32, (7, 4))
        assert (objects.scores.dtype, objects.classes.dtype) == (np.float16, np.int16)
        assert (np.diff(objects.scores.astype(float)) <= 0).all(), "best first"
        assert (objects.appearance.dtype, objects.appearance.shape) == (np.float16, (7, APPEARANCE))
        assert (objects.colour.dtype, objects.colour.shape) == (np.float16, (7, len(COLOUR_COLUMNS)))
        assert (objects.scene.dtype, objects.scene.shape) == (np.float16, (SCENE,))
        assert (objects.keypoints is not None) == kind.endswith("pose")
        assert (objects.angle is not None) == kind.endswith("obb")
        assert objects.keypoints is None or objects.keypoints.shape == (7, 17, 3)
        assert ((objects.boxes >= 0) & (objects.boxes <= 1)).all()
        assert all(np.isfinite(value).all() for value in vars(objects).values() if value is not None)


def bytes_of(objects: Detections) -> list[bytes]:
    return [np.ascontiguousarray(value).tobytes() for value in vars(objects).values() if value is not None]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["yolo26n", "yolov8n-pose", "yolov8n-obb"])
def test_detections_are_independent_of_batch(tiny_weights: Weights, kind: str, precision: str) -> None:
    torch.set_num_threads(1)
    model = detector(tiny_weights(kind), precision, conf=0.1, max_objects=20)
    shown = draw_images(4)
    images, boxes = canvas(model, shown)
    together = [bytes_of(objects) for objects in model.detect(images, boxes)]
    for number in range(4):
        alone, box = canvas(model, [shown[number]])
        assert bytes_of(model.detect(alone, box)[0]) == together[number]
    backwards, boxes = canvas(model, shown[::-1])
    assert [bytes_of(objects) for objects in model.detect(backwards, boxes)] == together[::-1]


def test_detections_without_objects(tiny_weights: Weights) -> None:
    model = detector(tiny_weights("yolov8n-pose"), conf=0.9999)
    images, boxes = canvas(model, draw_images())
    for objects in model.detect(images, boxes):
        assert objects.boxes.shape == (0, 4)
        assert objects.appearance.shape == (0, APPEARANCE)
        assert objects.colour.shape == (0, len(COLOUR_COLUMNS))
        assert objects.keypoints is not None
        assert objects.keypoints.shape == (0, 17, 3)
        assert np.abs(objects.scene).sum() > 0


def test_colour_ignores_padding(tiny_weights: Weights) -> None:
    model = detector(tiny_weights("yolo26n"), conf=0.05)
    shown = [np.full((100, 160, 3), rgb, np.uint8) for rgb in ((255, 0, 0), (0, 0, 255))]  # padded above and below
    images, boxes = canvas(model, shown)
    assert boxes[0].top > 0
    found = model.detect(images, boxes)
    for objects, lab in zip(found, ((0.5324, 0.8009, 0.6720), (0.3230, 0.7919, -1.0786)), strict=True):
        assert len(objects.boxes)
        np.testing.assert_allclose(objects.colour.astype(float), np.tile(lab, (len(objects.boxes), 3)), atol=2e-3)


def test_conf_and_max_objects_only_select(tiny_weights: Weights) -> None:
    images, boxes = canvas(detector(tiny_weights("yolo26n")), draw_images())
    few = detector(tiny_weights("yolo26n"), conf=0.2, max_objects=5).detect(images, boxes)
    many = detector(tiny_weights("yolo26n"), conf=0.05, max_objects=300).detect(images, boxes)
    for some, more in zip(few, many, strict=True):
        assert len(some.boxes) == 5 < len(more.boxes)
        assert np.array_equal(some.boxes, more.boxes[:5])
        assert np.array_equal(some.appearance, more.appearance[:5])


def test_iou_sets_nms_threshold(tiny_weights: Weights) -> None:
    images, boxes = canvas(detector(tiny_weights("yolov8n")), draw_images())
    strict = detector(tiny_weights("yolov8n"), iou=0.3).detect(images, boxes)
    loose = detector(tiny_weights("yolov8n"), iou=0.9).detect(images, boxes)
    assert sum(len(objects.boxes) for objects in strict) < sum(len(objects.boxes) for objects in loose)


def test_scene_ignores_padding(tiny_weights: Weights) -> None:
    """The scene of a plain image is the same with and without letterbox, and differs from that of padding alone."""
    model = detector(tiny_weights("yolo26n"))
    flat = np.full((96, 160, 3), 200, np.uint8)
    images, boxes = canvas(model, [flat])
    scene = model.detect(images, boxes)[0].scene.astype(float)
    images[:] = 114
    padding = model.detect(images, boxes)[0].scene.astype(float)
    square = Letterbox(input_hw=boxes[0].input_hw, content_wh=(128, 96), left=0, top=0)
    images[:] = 200
    whole = model.detect(images, [square])[0].scene.astype(float)
    assert np.abs(scene - whole).mean() < np.abs(scene - padding).mean()


@pytest.mark.skipif(not DEMO.exists(), reason="the demo detector is missing")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_demo_detector_agrees_with_ultralytics(precision: str) -> None:
    """Boxes agree to about a pixel at every precision."""
    from vidgru.demo import draw, scene  # noqa: F401

    model = detector(DEMO, precision, imgsz=320, conf=0.25)
    shown = draw_images(4, 320, 192)
    images, boxes = canvas(model, shown)
    found = model.detect(images, boxes)
    for objects, truth in zip(found, ultralytics(DEMO, shown, 0.25, 320), strict=True):
        strong = truth.boxes.conf.numpy() > 0.3
        theirs = truth.boxes.xyxyn.numpy()[strong]
        for box in theirs:
            assert len(objects.boxes)
            assert np.abs(objects.boxes - box).max(1).min() < (1e-3 if precision == "fp32" else 0.03)


def test_bf16_agrees_with_fp32(tiny_weights: Weights) -> None:
    exact, coarse = (detector(tiny_weights("yolo26n"), precision, conf=0.25) for precision in ("fp32", "bf16"))
    images, boxes = canvas(exact, draw_images())
    for a, b in zip(exact.detect(images, boxes), coarse.detect(images, boxes), strict=True):
        near = np.abs(a.boxes[:10, None] - b.boxes[None]).max(2).min(1)
        assert (near < 0.02).mean() >= 0.9
        np.testing.assert_allclose(a.scene.astype(float), b.scene.astype(float), atol=0.05)
