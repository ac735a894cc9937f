"""Detectors of every kind, with random weights, against Ultralytics' own predictions on the same pixels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.detectors import KINDS, NAMES
from tests.videos import draw_counter
from vidgru.config import DetectorSettings
from vidgru.detector.appearance import APPEARANCE, COLOUR_COLUMNS, SCENE, random_projection
from vidgru.detector.backends import TorchBackend
from vidgru.detector.preprocess import Letterbox
from vidgru.detector.yolo import Detections, Detector
from vidgru.detector.yolo_head import load_network

Weights = Callable[[str], Path]
IMGSZ = 128
DEMO = Path(__file__).parents[2] / "data" / "demo" / "demo.pt"


def detector(weights: Path, precision: str = "fp32", **settings: Any) -> Detector:
    values = {"imgsz": IMGSZ, "conf": 0.2, "max_objects": 300} | settings
    return Detector(TorchBackend(*load_network(weights), "cpu", precision), DetectorSettings(**values))


def canvas(model: Detector, pictures: list[np.ndarray], batch: int = 4) -> tuple[np.ndarray, list[Letterbox]]:
    """RGB pictures of any size, letterboxed as Ultralytics does it, in a batch."""
    sizes_px = [(picture.shape[1], picture.shape[0]) for picture in pictures]
    boxes = [Letterbox.fit(size_px, model.settings.imgsz, model.stride) for size_px in sizes_px]
    images = np.full((batch, *boxes[0].input_hw, 3), 114, np.uint8)
    for picture, box, image in zip(pictures, boxes, images, strict=False):
        small = picture
        if picture.shape[1::-1] != box.content_wh:
            small = cv2.resize(picture, box.content_wh, interpolation=cv2.INTER_LINEAR)
        box.place(small, image)
    return images, boxes


def pictures(count: int = 3, width: int = 160, height: int = 96) -> list[np.ndarray]:
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
def test_agrees_with_ultralytics_on_the_same_pixels(tiny_weights: Weights, kind: str) -> None:
    model = detector(tiny_weights(kind))
    images, boxes = canvas(model, pictures())
    found = model.detect(images, boxes)
    for seen, truth in zip(found, ultralytics(tiny_weights(kind), pictures(), 0.2, IMGSZ), strict=True):
        other = truth.boxes if truth.obb is None else truth.obb
        scores, classes = other.conf.numpy(), other.cls.numpy()
        theirs = (other.xyxy.numpy() / [160, 96, 160, 96]).clip(0, 1)
        if not kind.endswith("seg"):  # Ultralytics leaves out objects whose masks are empty
            assert len(seen.boxes) == len(scores)
        assert len(scores) > 3
        # Near equal scores may change places by rounding, so each of their objects looks for its like.
        distance = np.abs(seen.boxes[None] - theirs[:, None]).max(2)
        distance = np.maximum(distance, np.abs(seen.scores.astype(float) - scores[:, None]))
        distance += seen.classes != classes[:, None]
        match = distance.argmin(1)
        assert distance.min(1).max() < 2e-3
        if truth.keypoints is not None:
            assert seen.keypoints is not None
            places = truth.keypoints.data.numpy() / [160, 96, 1]
            np.testing.assert_allclose(seen.keypoints[match].astype(float), places, atol=5e-3)
        if truth.obb is not None:
            assert seen.angle is not None
            turned = seen.angle[match].astype(float) - truth.obb.xywhr.numpy()[:, 4]
            assert np.abs(np.sin(2 * turned)).max() < 5e-3  # they count from either side, we from the longer one


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_seen_has_its_types(tiny_weights: Weights, kind: str) -> None:
    model = detector(tiny_weights(kind), conf=0.1, max_objects=7)
    assert model.names == NAMES
    images, boxes = canvas(model, pictures())
    for seen in model.detect(images, boxes):
        assert (seen.boxes.dtype, seen.boxes.shape) == (np.float32, (7, 4))
        assert (seen.scores.dtype, seen.classes.dtype) == (np.float16, np.int16)
        assert (np.diff(seen.scores.astype(float)) <= 0).all(), "best first"
        assert (seen.appearance.dtype, seen.appearance.shape) == (np.float16, (7, APPEARANCE))
        assert (seen.colour.dtype, seen.colour.shape) == (np.float16, (7, len(COLOUR_COLUMNS)))
        assert (seen.scene.dtype, seen.scene.shape) == (np.float16, (SCENE,))
        assert (seen.keypoints is not None) == kind.endswith("pose")
        assert (seen.angle is not None) == kind.endswith("obb")
        assert seen.keypoints is None or seen.keypoints.shape == (7, 17, 3)
        assert ((seen.boxes >= 0) & (seen.boxes <= 1)).all()
        assert all(np.isfinite(value).all() for value in vars(seen).values() if value is not None)


def bytes_of(seen: Detections) -> list[bytes]:
    return [np.ascontiguousarray(value).tobytes() for value in vars(seen).values() if value is not None]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["yolo26n", "yolov8n-pose", "yolov8n-obb"])
def test_frames_do_not_depend_on_their_batch(tiny_weights: Weights, kind: str, precision: str) -> None:
    torch.set_num_threads(1)
    model = detector(tiny_weights(kind), precision, conf=0.1, max_objects=20)
    shown = pictures(4)
    images, boxes = canvas(model, shown)
    together = [bytes_of(seen) for seen in model.detect(images, boxes)]
    for number in range(4):
        alone, box = canvas(model, [shown[number]])
        assert bytes_of(model.detect(alone, box)[0]) == together[number]
    backwards, boxes = canvas(model, shown[::-1])
    assert [bytes_of(seen) for seen in model.detect(backwards, boxes)] == together[::-1]


def test_nothing_seen(tiny_weights: Weights) -> None:
    model = detector(tiny_weights("yolov8n-pose"), conf=0.9999)
    images, boxes = canvas(model, pictures())
    for seen in model.detect(images, boxes):
        assert seen.boxes.shape == (0, 4)
        assert seen.appearance.shape == (0, APPEARANCE)
        assert seen.colour.shape == (0, len(COLOUR_COLUMNS))
        assert seen.keypoints is not None
        assert seen.keypoints.shape == (0, 17, 3)
        assert np.abs(seen.scene).sum() > 0


def test_colour_is_of_the_frame_and_not_of_its_padding(tiny_weights: Weights) -> None:
    model = detector(tiny_weights("yolo26n"), conf=0.05)
    shown = [np.full((100, 160, 3), rgb, np.uint8) for rgb in ((255, 0, 0), (0, 0, 255))]  # padded above and below
    images, boxes = canvas(model, shown)
    assert boxes[0].top > 0
    found = model.detect(images, boxes)
    for seen, lab in zip(found, ((0.5324, 0.8009, 0.6720), (0.3230, 0.7919, -1.0786)), strict=True):
        assert len(seen.boxes)
        np.testing.assert_allclose(seen.colour.astype(float), np.tile(lab, (len(seen.boxes), 3)), atol=2e-3)


def test_lower_threshold_and_more_objects_add_and_do_not_change(tiny_weights: Weights) -> None:
    images, boxes = canvas(detector(tiny_weights("yolo26n")), pictures())
    few = detector(tiny_weights("yolo26n"), conf=0.2, max_objects=5).detect(images, boxes)
    many = detector(tiny_weights("yolo26n"), conf=0.05, max_objects=300).detect(images, boxes)
    for some, more in zip(few, many, strict=True):
        assert len(some.boxes) == 5 < len(more.boxes)
        assert np.array_equal(some.boxes, more.boxes[:5])
        assert np.array_equal(some.appearance, more.appearance[:5])


def test_nms_threshold_is_used(tiny_weights: Weights) -> None:
    images, boxes = canvas(detector(tiny_weights("yolov8n")), pictures())
    strict = detector(tiny_weights("yolov8n"), iou=0.3).detect(images, boxes)
    loose = detector(tiny_weights("yolov8n"), iou=0.9).detect(images, boxes)
    assert sum(len(seen.boxes) for seen in strict) < sum(len(seen.boxes) for seen in loose)


def test_scene_leaves_the_padding_out(tiny_weights: Weights) -> None:
    """A picture without edges or padding, and the same picture in a letterbox, look alike; all padding does not."""
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


@pytest.mark.skipif(not DEMO.exists(), reason="the demo detector is not there")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_demo_detector_agrees_with_ultralytics(precision: str) -> None:
    """On drawn scenes, at every precision: positions to a pixel or so, the same classes."""
    from vidgru.demo import draw, scene  # noqa: F401

    model = detector(DEMO, precision, imgsz=320, conf=0.25)
    shown = pictures(4, 320, 192)
    images, boxes = canvas(model, shown)
    found = model.detect(images, boxes)
    for seen, truth in zip(found, ultralytics(DEMO, shown, 0.25, 320), strict=True):
        strong = truth.boxes.conf.numpy() > 0.3
        theirs = truth.boxes.xyxyn.numpy()[strong]
        for box in theirs:
            assert len(seen.boxes)
            assert np.abs(seen.boxes - box).max(1).min() < (1e-3 if precision == "fp32" else 0.03)


def test_bf16_agrees_with_fp32(tiny_weights: Weights) -> None:
    exact, coarse = (detector(tiny_weights("yolo26n"), precision, conf=0.25) for precision in ("fp32", "bf16"))
    images, boxes = canvas(exact, pictures())
    for a, b in zip(exact.detect(images, boxes), coarse.detect(images, boxes), strict=True):
        near = np.abs(a.boxes[:10, None] - b.boxes[None]).max(2).min(1)
        assert (near < 0.02).mean() >= 0.9
        np.testing.assert_allclose(a.scene.astype(float), b.scene.astype(float), atol=0.05)


# --- letterbox and projection -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_px", [(1920, 1080), (1080, 1920), (640, 480), (641, 359), (33, 1000), (16, 16)])
def test_letterbox_is_that_of_ultralytics(size_px: tuple[int, int]) -> None:
    from ultralytics.data.augment import LetterBox

    picture = np.random.default_rng(0).integers(0, 255, (size_px[1], size_px[0], 3), dtype=np.uint8)
    truth = LetterBox(new_shape=(640, 640), auto=True, stride=32)(image=picture)
    box = Letterbox.fit(size_px, 640, 32)
    image = np.empty((*box.input_hw, 3), np.uint8)
    box.place(cv2.resize(picture, box.content_wh, interpolation=cv2.INTER_LINEAR), image)
    assert np.array_equal(image, truth)


def test_projection_is_fixed_for_ever() -> None:
    matrix = random_projection("level 0", 64, 16)
    assert matrix.shape == (64, 16)
    assert torch.equal(matrix.abs(), torch.full((64, 16), 0.125))
    assert (matrix[0] > 0).int().tolist() == [0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1]
