"""What the detector's network is: its weights file, the facts needed to decode its output, and a head without decoding.

The network gives raw output: box distances, class logits, keypoints or angles, and the feature pyramid, all of one
forward pass. Decoding into boxes is `detector.py`'s, in fp32 whatever the precision: box distances decoded in bf16 move
the boxes (mean IoU 0.91 with fp32), convolutions in bf16 do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vidgru.detector.weights import first_line
from vidgru.errors import WeightsError

_HEADS = {"Detect": "detect", "v10Detect": "detect", "Segment": "segment", "Segment26": "segment"}
_HEADS |= {"Pose": "pose", "Pose26": "pose", "OBB": "obb", "OBB26": "obb"}


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """What is needed to decode a network's output.

    Attributes:
        names: class names.
        task: detect, segment, pose or obb.
        strides: pixels of the input per cell of each pyramid level.
        channels: channels of each pyramid level.
        bins: bins of the box distance distributions; 1 where distances are given outright.
        nms: whether boxes overlap and need NMS; False for one-to-one heads.
        keypoints: number of keypoints and values of each (2 or 3); None but for pose.
        doubled: keypoint offsets and angles are coded as before YOLO26: offsets count half cells, angles are logits.
    """

    names: tuple[str, ...]
    task: str
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    bins: int
    nms: bool
    keypoints: tuple[int, int] | None
    doubled: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class RawOutput:
    """Output of one forward pass, `N` cells of all pyramid levels, finest first.

    Attributes:
        distances: [B, N, 4 * bins], from each cell's centre to the box's left, top, right, bottom.
        logits: [B, N, classes].
        extra: [B, N, K * 2 or 3] keypoints or [B, N, 1] angles; None for other tasks.
        pyramid: feature maps [B, C, h, w], finest first.
    """

    distances: torch.Tensor
    logits: torch.Tensor
    extra: torch.Tensor | None
    pyramid: tuple[torch.Tensor, ...]


class _RawHead:
    """Stands in for the head's forward: its convolutions and nothing else, no decoding, NMS or mask prototypes.

    The last layers of boxes, keypoints and angles run in fp32 whatever the precision of the rest: they cost nothing,
    and their output is a position.
    """

    def __init__(self, head: Any, one_to_one: bool) -> None:
        parts = head.one2one if one_to_one else head.one2many
        self._boxes, self._classes = parts["box_head"], parts["cls_head"]
        self._extra = parts.get("pose_head", parts.get("angle_head"))
        self._keypoints = parts.get("kpts_head")

    def last_layers(self) -> list[torch.nn.Module]:
        """The layers to be kept in fp32."""
        extra = self._keypoints if self._keypoints is not None else [level[-1] for level in self._extra or ()]
        return [*(level[-1] for level in self._boxes), *extra]

    def __call__(self, pyramid: list[torch.Tensor]) -> RawOutput:
        levels = range(len(pyramid))
        extra = None
        if self._keypoints is not None:
            extra = [self._keypoints[i](self._extra[i](pyramid[i]).float()) for i in levels]
        elif self._extra is not None:
            extra = [_precise(self._extra[i], pyramid[i]) for i in levels]
        return RawOutput(
            distances=_cells([_precise(self._boxes[i], pyramid[i]) for i in levels]),
            logits=_cells([self._classes[i](pyramid[i]) for i in levels]),
            extra=None if extra is None else _cells(extra),
            pyramid=tuple(pyramid),
        )


def load_network(path: Path) -> tuple[torch.nn.Module, NetworkSpec]:
    """Load and fuse an Ultralytics detector, in fp32 on the CPU. YOLO26 keeps its one-to-one head, free of NMS.

    Returns:
        The module, which called on images [B, 3, H, W] of values 0 to 255 gives a `RawOutput`, and what it is.

    Raises:
        WeightsError: it is not an Ultralytics detector.
    """
    remedy = "pass an Ultralytics detect, segment, pose or OBB model (.pt; v8, 11, 26)"
    if path.suffix != ".pt":
        raise WeightsError(f"{path} is not an Ultralytics weights file (.pt)", remedy)
    from ultralytics.nn.tasks import load_checkpoint

    try:
        module, _ = load_checkpoint(str(path))
    except Exception as error:  # unpickling a file of unknown origin can raise anything
        raise WeightsError(f"{path} cannot be loaded: {first_line(error)}", remedy) from None
    head = module.model[-1] if isinstance(getattr(module, "model", None), torch.nn.Sequential) else module
    kind = type(head).__name__
    if kind not in _HEADS:
        raise WeightsError(f"{path} is not a detector that vidgru can use: its head is {kind}", remedy)
    if (channels := next(module.parameters()).shape[1]) != 3:
        raise WeightsError(f"{path} takes images of {channels} channels, not 3", remedy)
    one_to_one = getattr(head, "one2one_cv2", None) is not None
    if one_to_one:
        head.end2end = True  # otherwise fuse() keeps the other head
    module = module.fuse(verbose=False).eval().requires_grad_(False)
    head.forward = _RawHead(head, one_to_one)
    first = next(layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d))
    first.weight /= 255  # saves scaling every image, and whole numbers up to 255 are exact in bf16
    names = module.names if isinstance(module.names, dict) else dict(enumerate(module.names))
    boxes = head.one2one["box_head"] if one_to_one else head.one2many["box_head"]
    network = NetworkSpec(
        names=tuple(str(names[i]) for i in sorted(names)),
        task=_HEADS[kind],
        strides=tuple(int(stride) for stride in head.stride),
        channels=tuple(next(level.parameters()).shape[1] for level in boxes),
        bins=int(head.reg_max),
        nms=not one_to_one,
        keypoints=(int(head.kpt_shape[0]), int(head.kpt_shape[1])) if _HEADS[kind] == "pose" else None,
        doubled=not kind.endswith("26"),
    )
    return module, network


def _precise(layers: Any, features: torch.Tensor) -> torch.Tensor:
    output: torch.Tensor = layers[-1](layers[:-1](features).float())
    return output


def _cells(levels: list[torch.Tensor]) -> torch.Tensor:
    """Maps [B, C, h, w] of all levels as cells [B, N, C]."""
    return torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in levels], 1)
