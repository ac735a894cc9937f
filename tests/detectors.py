"""Tiny detectors with random weights that detect objects everywhere, as Ultralytics checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics.nn import tasks
from ultralytics.utils import YAML
from ultralytics.utils.checks import check_yaml

from tests.videos import draw_counter

Weights = Callable[[str], Path]  # type of the fixture `tiny_weights`
DEMO = Path(__file__).parents[1] / "data" / "demo" / "demo.pt"
KINDS = {
    "yolo26n": "detect",
    "yolo11n": "detect",
    "yolov8n": "detect",
    "yolov8n-pose": "pose",
    "yolo26n-pose": "pose",
    "yolov8n-obb": "obb",
    "yolo26n-obb": "obb",
    "yolo11n-seg": "segment",
    "yolo26n-seg": "segment",
}
# Networks take seconds each: the fast set has one detector per kind of head.
_FAST_KINDS = {"yolo26n", "yolov8n-pose", "yolo26n-obb", "yolo11n-seg"}
KIND_PARAMETERS = [kind if kind in _FAST_KINDS else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
NAMES = ("person", "car", "bag")
_CLASSES = {
    "detect": tasks.DetectionModel,
    "pose": tasks.PoseModel,
    "obb": tasks.OBBModel,
    "segment": tasks.SegmentationModel,
}


def make_weights(path: Path, kind: str = "yolo26n", *, seed: int = 0) -> Path:
    """Write a detector of `kind` (a name in Ultralytics' model zoo), half as wide as its nano size."""
    torch.manual_seed(seed)
    family, _, suffix = kind.partition("-")
    recipe = YAML.load(check_yaml(f"{family.removesuffix('n')}{suffix and '-'}{suffix}.yaml"))
    recipe["scales"], recipe["scale"] = {"n": [0.33, 0.125, 1024]}, "n"
    model: Any = _CLASSES[KINDS[kind]](recipe, ch=3, nc=len(NAMES), verbose=False)
    model.names, model.task = dict(enumerate(NAMES)), KINDS[kind]
    _calibrate(model)
    torch.save({"model": model, "train_args": {"task": KINDS[kind]}}, path)
    return path


def _calibrate(model: Any) -> None:
    """Fit the batch norms to images and the last layers to sensible ranges, as training would.

    Otherwise random weights give the same output everywhere, or scores so near to 1 that their order is random.
    """
    frames = np.full((16, 128, 128, 3), 114, np.uint8)
    for number, frame in enumerate(frames):  # every other frame is letterboxed
        top = number % 2 * 25
        frame[top : 128 - top] = draw_counter(number * 61 + 5, 128, 128 - 2 * top)
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum, layer.eps = 1.0, 0.1  # do not amplify channels that hardly vary
    head = model.model[-1]
    with torch.no_grad():
        model.train()(images)
        model.eval()
        for prefix in ("", "one2one_"):
            for part, spread, centre in (
                ("cv2", 0.3, 1.5),
                ("cv3", 1.5, -1.5),
                ("cv4", 0.8, 0.0),
                ("cv4_kpts", 0.8, 0.0),
            ):
                for level in getattr(head, prefix + part, None) or ():
                    last = level if isinstance(level, torch.nn.Conv2d) else level[-1]
                    if isinstance(last, torch.nn.Conv2d):
                        _rescale(model, images, last, spread, centre, head.reg_max if part == "cv2" else 1)


def _rescale(model: Any, images: torch.Tensor, last: torch.nn.Conv2d, spread: float, centre: float, bins: int) -> None:
    """Give a last layer's output this standard deviation and mean; binned distances get a mean of a few cells."""
    outputs: list[torch.Tensor] = []
    torch.nn.init.normal_(last.weight)
    torch.nn.init.zeros_(last.bias)
    hook = last.register_forward_hook(lambda layer, inputs, output: outputs.append(output))
    model(images)
    hook.remove()
    last.weight *= spread / outputs[0].std().clamp(min=1e-3)
    last.bias[:] = -0.7 * torch.arange(bins).repeat(4) if bins > 1 else centre
