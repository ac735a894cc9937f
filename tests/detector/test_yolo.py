"""Detectors of every kind with random weights, against Ultralytics' predictions on the same pixels."""

from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.detectors import DEMO, KIND_PARAMETERS, NAMES, Weights
from tests.videos import draw_counter
from vidgru.config import DetectorSettings
from vidgru.demo.scenes import EVENT_KINDS, plan_clip
from vidgru.detector.appearance import APPEARANCE, COLOUR_COLUMNS, SCENE
from vidgru.detector.backends import TorchBackend
from vidgru.detector.preprocess import Letterbox
from vidgru.detector.yolo import Detections, Detector, _similar_class
from vidgru.detector.yolo_head import load_network
from vidgru.errors import SettingsError

IMGSZ = 128


def detector(weights: Path, precision: str = "fp32", **settings: Any) -> Detector:
    values = {"imgsz": IMGSZ, "conf": 0.2, "max_objects": 300} | settings
    return Detector(TorchBackend(*load_network(weights), "cpu", precision), DetectorSettings(**values))


def letterbox(model: Detector, images: list[np.ndarray], batch: int = 4) -> tuple[np.ndarray, list[Letterbox]]:
    """Letterbox RGB images of any size into a batch, as Ultralytics does."""
    boxes = [Letterbox.fit(image.shape[1::-1], model.settings.imgsz, model.stride) for image in images]
    canvas = np.full((batch, *boxes[0].input_hw, 3), 114, np.uint8)
    for image, box, row in zip(images, boxes, canvas, strict=False):
        is_scaled = image.shape[1::-1] != box.content_wh
        box.place(cv2.resize(image, box.content_wh, interpolation=cv2.INTER_LINEAR) if is_scaled else image, row)
    return canvas, boxes


def draw_images(count: int = 3, width: int = 160, height: int = 96) -> list[np.ndarray]:
    return [draw_counter(number * 85 + 3, width, height) for number in range(count)]


def predict_with_ultralytics(weights: Path, images: list[np.ndarray], conf: float, imgsz: int) -> list[Any]:
    from ultralytics import YOLO

    model = YOLO(str(weights))
    one_to_one = getattr(model.model.model[-1], "one2one_cv2", None) is not None
    options = {"nms": False} if one_to_one else {}
    bgr = [image[..., ::-1] for image in images]
    return [
        model.predict(image, conf=conf, iou=0.7, imgsz=imgsz, max_det=300, verbose=False, **options)[0] for image in bgr
    ]


@pytest.mark.parametrize("kind", KIND_PARAMETERS)
def test_detections_agree_with_ultralytics(tiny_weights: Weights, kind: str) -> None:
    model = detector(tiny_weights(kind))
    canvas, boxes = letterbox(model, draw_images())
    detections = model.detect(canvas, boxes)
    predictions = predict_with_ultralytics(tiny_weights(kind), draw_images(), 0.2, IMGSZ)
    for objects, prediction in zip(detections, predictions, strict=True):
        other = prediction.boxes if prediction.obb is None else prediction.obb
        scores, classes = other.conf.numpy(), other.cls.numpy()
        xyxy = (other.xyxy.numpy() / [160, 96, 160, 96]).clip(0, 1)
        if not kind.endswith("seg"):  # Ultralytics drops objects with empty masks
            assert len(objects.boxes) == len(scores)
        assert len(scores) > 3
        # Rounding may swap objects with nearly equal scores, so each of Ultralytics' objects is matched to the nearest.
        distance = np.abs(objects.boxes[None] - xyxy[:, None]).max(2)
        distance = np.maximum(distance, np.abs(objects.scores.astype(float) - scores[:, None]))
        distance += objects.classes != classes[:, None]
        match = distance.argmin(1)
        assert distance.min(1).max() < 2e-3
        if prediction.keypoints is not None:
            assert objects.keypoints is not None
            keypoints = prediction.keypoints.data.numpy() / [160, 96, 1]
            np.testing.assert_allclose(objects.keypoints[match].astype(float), keypoints, atol=5e-3)
        if prediction.obb is not None:
            assert objects.angle is not None
            difference = objects.angle[match].astype(float) - prediction.obb.xywhr.numpy()[:, 4]
            # Ultralytics measures angles from either side, vidgru from the longer one.
            assert np.abs(np.sin(2 * difference)).max() < 5e-3


@pytest.mark.parametrize("kind", KIND_PARAMETERS)
def test_detections_have_documented_types(tiny_weights: Weights, kind: str) -> None:
    model = detector(tiny_weights(kind), conf=0.1, max_objects=7)
    assert model.names == NAMES
    canvas, boxes = letterbox(model, draw_images())
    for objects in model.detect(canvas, boxes):
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
    images = draw_images(4)
    canvas, boxes = letterbox(model, images)
    expected = [bytes_of(objects) for objects in model.detect(canvas, boxes)]
    for number in range(4):
        alone, box = letterbox(model, [images[number]])
        assert bytes_of(model.detect(alone, box)[0]) == expected[number]
    reversed_canvas, boxes = letterbox(model, images[::-1])
    assert [bytes_of(objects) for objects in model.detect(reversed_canvas, boxes)] == expected[::-1]


def test_detections_without_objects(tiny_weights: Weights) -> None:
    model = detector(tiny_weights("yolov8n-pose"), conf=0.9999)
    canvas, boxes = letterbox(model, draw_images())
    for objects in model.detect(canvas, boxes):
        assert objects.boxes.shape == (0, 4)
        assert objects.appearance.shape == (0, APPEARANCE)
        assert objects.colour.shape == (0, len(COLOUR_COLUMNS))
        assert objects.keypoints is not None
        assert objects.keypoints.shape == (0, 17, 3)
        assert np.abs(objects.scene).sum() > 0


def test_colour_ignores_padding(tiny_weights: Weights) -> None:
    model = detector(tiny_weights("yolo26n"), conf=0.05)
    images = [np.full((100, 160, 3), rgb, np.uint8) for rgb in ((255, 0, 0), (0, 0, 255))]  # padded above and below
    canvas, boxes = letterbox(model, images)
    assert boxes[0].top > 0
    labs = ((0.5324, 0.8009, 0.6720), (0.3230, 0.7919, -1.0786))
    for objects, lab in zip(model.detect(canvas, boxes), labs, strict=True):
        assert len(objects.boxes)
        np.testing.assert_allclose(objects.colour.astype(float), np.tile(lab, (len(objects.boxes), 3)), atol=2e-3)


def test_conf_and_max_objects_only_select(tiny_weights: Weights) -> None:
    canvas, boxes = letterbox(detector(tiny_weights("yolo26n")), draw_images())
    selected = detector(tiny_weights("yolo26n"), conf=0.2, max_objects=5).detect(canvas, boxes)
    all_objects = detector(tiny_weights("yolo26n"), conf=0.05, max_objects=300).detect(canvas, boxes)
    for best, objects in zip(selected, all_objects, strict=True):
        assert len(best.boxes) == 5 < len(objects.boxes)
        assert np.array_equal(best.boxes, objects.boxes[:5])
        assert np.array_equal(best.appearance, objects.appearance[:5])


def test_only_keeps_classes(tiny_weights: Weights) -> None:
    canvas, boxes = letterbox(detector(tiny_weights("yolo26n")), draw_images())
    all_objects = detector(tiny_weights("yolo26n")).detect(canvas, boxes)
    selected = detector(tiny_weights("yolo26n"), only=("person", "bag")).detect(canvas, boxes)
    for some, objects in zip(selected, all_objects, strict=True):
        kept = np.isin(objects.classes, (0, 2))
        assert 0 < len(some.boxes) < len(objects.boxes)
        assert np.array_equal(some.boxes, objects.boxes[kept])
        assert np.array_equal(some.scene, objects.scene)


@pytest.mark.parametrize(("name", "near"), [
    ("people", "person"), ("Persons", "person"), ("buses", "bus"), ("motorcyle", "motorcycle"), ("bag", "handbag"),
    ("table", "dining table"), ("ball", "sports ball"), ("phone", "Cell phone"), ("pedestrian", ""), ("sofa", ""),
])  # fmt: skip
def test_similar_class_is_a_typo_plural_or_end(name: str, near: str) -> None:
    """Words of similar letters are other things: table is no apple, and phone no spoon."""
    names = "apple", "person", "bus", "mouse", "motorcycle", "handbag", "dining table", "sports ball", "spoon"
    assert _similar_class(name, (*names, "Cell phone")) == near


@pytest.mark.parametrize(("name", "remedy"), [
    ("persn", "did you mean person"), ("people", "did you mean person"), ("tree", "its classes are: person, car, bag"),
])  # fmt: skip
def test_only_unknown_class_is_refused(tiny_weights: Weights, name: str, remedy: str) -> None:
    with pytest.raises(SettingsError, match=f"yolo26n.pt has no class '{name}' for --only\n  {remedy}"):
        detector(tiny_weights("yolo26n"), only=("person", name))


def test_iou_sets_nms_threshold(tiny_weights: Weights) -> None:
    canvas, boxes = letterbox(detector(tiny_weights("yolov8n")), draw_images())
    strict = detector(tiny_weights("yolov8n"), iou=0.3).detect(canvas, boxes)
    loose = detector(tiny_weights("yolov8n"), iou=0.9).detect(canvas, boxes)
    assert sum(len(objects.boxes) for objects in strict) < sum(len(objects.boxes) for objects in loose)


def test_scene_ignores_padding(tiny_weights: Weights) -> None:
    """The scene of a plain image is the same with and without letterbox, and differs from that of padding alone."""
    model = detector(tiny_weights("yolo26n"))
    flat = np.full((96, 160, 3), 200, np.uint8)
    canvas, boxes = letterbox(model, [flat])
    scene = model.detect(canvas, boxes)[0].scene.astype(float)
    canvas[:] = 114
    padding = model.detect(canvas, boxes)[0].scene.astype(float)
    square = Letterbox(input_hw=boxes[0].input_hw, content_wh=(128, 96), left=0, top=0)
    canvas[:] = 200
    filled = model.detect(canvas, [square])[0].scene.astype(float)
    assert np.abs(scene - filled).mean() < np.abs(scene - padding).mean()


@pytest.mark.skipif(not DEMO.exists(), reason="the demo detector is missing")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_demo_detector_agrees_with_ultralytics(precision: str) -> None:
    """In synthetic scenes, boxes agree to about a pixel at every precision."""
    model = detector(DEMO, precision, imgsz=320, conf=0.25)
    images = [next(islice(plan_clip(kind, 70).frames(), 24, None))[0] for kind in EVENT_KINDS[:4]]
    canvas, boxes = letterbox(model, images)
    compared = 0
    for objects, prediction in zip(
        model.detect(canvas, boxes), predict_with_ultralytics(DEMO, images, 0.25, 320), strict=True
    ):
        is_strong = prediction.boxes.conf.numpy() > 0.3
        for box in prediction.boxes.xyxyn.numpy()[is_strong]:
            assert np.abs(objects.boxes - box).max(1).min() < (1e-3 if precision == "fp32" else 0.03)
            compared += 1
    assert compared > 4


def test_bf16_agrees_with_fp32(tiny_weights: Weights) -> None:
    exact, coarse = (detector(tiny_weights("yolo26n"), precision, conf=0.25) for precision in ("fp32", "bf16"))
    canvas, boxes = letterbox(exact, draw_images())
    for a, b in zip(exact.detect(canvas, boxes), coarse.detect(canvas, boxes), strict=True):
        near = np.abs(a.boxes[:10, None] - b.boxes[None]).max(2).min(1)
        assert (near < 0.02).mean() >= 0.9
        np.testing.assert_allclose(a.scene.astype(float), b.scene.astype(float), atol=0.05)
