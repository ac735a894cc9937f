"""Load an Ultralytics network with a raw head: one without decoding, NMS or mask prototypes.

One forward pass gives box distances, class logits, keypoints or angles, and the feature pyramid. `vidgru.detector.yolo`
decodes them in fp32 whatever the precision of the network: box distances decoded in bf16 move the boxes (mean IoU 0.91
with fp32), convolutions in bf16 do not.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vidgru.detector.weights import first_line
from vidgru.errors import WeightsError
from vidgru.keypoints import flip_idx_from_names

_TASKS = {
    "Detect": "detect", "v10Detect": "detect", "Segment": "segment", "Segment26": "segment",
    "Pose": "pose", "Pose26": "pose", "OBB": "obb", "OBB26": "obb",
}  # fmt: skip
_MAX_LISTED = 5  # names in an error


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """Properties of a network that decoding its output requires.

    Attributes:
        names: Class names.
        task: detect, segment, pose or obb.
        strides: Input pixels per cell of each pyramid level.
        channels: Channels of each pyramid level.
        reg_max: Bins of the box distance distributions; 1 if the network gives distances directly.
        needs_nms: Whether boxes overlap; False for one-to-one heads.
        keypoints: Number of keypoints and values per keypoint (2 or 3); None unless the task is pose.
        flip_idx: Left-right partner of each keypoint, by the names of the keypoints; empty if they name no sides.
        has_legacy_coding: Whether keypoints and angles are coded as before YOLO26: keypoint offsets count half cells,
            and angles are logits.
    """

    names: tuple[str, ...]
    task: str
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    reg_max: int
    needs_nms: bool
    keypoints: tuple[int, int] | None
    flip_idx: tuple[int, ...]
    has_legacy_coding: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class RawOutput:
    """Output of one forward pass, with N cells over all pyramid levels, the finest level first.

    Attributes:
        distances: [B, N, 4 * reg_max], from each cell's centre to the left, top, right and bottom of the box.
        logits: [B, N, classes].
        extra: [B, N, K * 2 or 3] keypoints or [B, N, 1] angles; None for other tasks.
        pyramid: Feature maps [B, C, h, w], finest first.
    """

    distances: torch.Tensor
    logits: torch.Tensor
    extra: torch.Tensor | None
    pyramid: tuple[torch.Tensor, ...]


class _RawHead:
    """Replacement of the head's `forward`: its convolutions only.

    The last layers of boxes, keypoints and angles run in fp32 whatever the precision of the rest: they cost nothing,
    and their output is a position.
    """

    def __init__(self, head: Any, *, is_one_to_one: bool) -> None:
        branches = head.one2one if is_one_to_one else head.one2many
        self._boxes, self._classes = branches["box_head"], branches["cls_head"]
        self._extra = branches.get("pose_head", branches.get("angle_head"))
        self._keypoints = branches.get("kpts_head")

    def fp32_layers(self) -> list[torch.nn.Module]:
        """Return the layers that stay in fp32."""
        extra = self._keypoints if self._keypoints is not None else [level[-1] for level in self._extra or ()]
        return [*(level[-1] for level in self._boxes), *extra]

    def __call__(self, pyramid: list[torch.Tensor]) -> RawOutput:
        levels = range(len(pyramid))
        extra = None
        if self._keypoints is not None:
            extra = [self._keypoints[i](self._extra[i](pyramid[i]).float()) for i in levels]
        elif self._extra is not None:
            extra = [_run_last_in_fp32(self._extra[i], pyramid[i]) for i in levels]
        return RawOutput(
            distances=_to_cells([_run_last_in_fp32(self._boxes[i], pyramid[i]) for i in levels]),
            logits=_to_cells([self._classes[i](pyramid[i]) for i in levels]),
            extra=None if extra is None else _to_cells(extra),
            pyramid=tuple(pyramid),
        )


def load_network(path: Path, *, trusted: bool = False) -> tuple[torch.nn.Module, NetworkSpec]:
    """Load and fuse an Ultralytics detector, in fp32 on the CPU. YOLO26 keeps its one-to-one head, which needs no NMS.

    Args:
        path: The weights file, a pickle.
        trusted: Let the file run any code. Otherwise only the layers and data types of Ultralytics' own checkpoints
            are loaded.

    Returns:
        The module, which maps images [B, 3, H, W] with values 0 to 255 to a `RawOutput`, and its properties.

    Raises:
        WeightsError: The file is not an Ultralytics detector.
    """
    remedy = "pass an Ultralytics detect, segment, pose or OBB model (.pt; v8, 11, 26)"
    if path.suffix != ".pt":
        raise WeightsError(f"{path} is not an Ultralytics weights file (.pt)", remedy)
    from ultralytics.nn.tasks import load_checkpoint

    try:
        module = load_checkpoint(str(path))[0] if trusted else _load_safely(path)
    except WeightsError:
        raise
    except Exception as error:  # unpickling a file of unknown origin may raise anything
        raise WeightsError(f"{path} cannot be loaded: {first_line(error)}", remedy) from None
    head = module.model[-1] if isinstance(getattr(module, "model", None), torch.nn.Sequential) else module
    head_type = type(head).__name__
    if head_type not in _TASKS:
        raise WeightsError(f"{path} is not a supported detector: its head is {head_type}", remedy)
    if (channels := next(module.parameters()).shape[1]) != 3:
        raise WeightsError(f"{path} takes images with {channels} channels; 3 are required", remedy)
    is_one_to_one = getattr(head, "one2one_cv2", None) is not None
    if is_one_to_one:
        head.end2end = True  # otherwise fuse() removes the one-to-one head
    module = module.fuse(verbose=False).eval().requires_grad_(False)
    head.forward = _RawHead(head, is_one_to_one=is_one_to_one)
    first = next(layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d))
    first.weight /= 255  # saves scaling every image, and whole numbers up to 255 are exact in bf16
    names = module.names if isinstance(module.names, dict) else dict(enumerate(module.names))
    boxes = head.one2one["box_head"] if is_one_to_one else head.one2many["box_head"]
    task = _TASKS[head_type]
    keypoints = (int(head.kpt_shape[0]), int(head.kpt_shape[1])) if task == "pose" else None
    spec = NetworkSpec(
        names=tuple(str(names[i]) for i in sorted(names)),
        task=task,
        strides=tuple(int(stride) for stride in head.stride),
        channels=tuple(next(level.parameters()).shape[1] for level in boxes),
        reg_max=int(head.reg_max),
        needs_nms=not is_one_to_one,
        keypoints=keypoints,
        flip_idx=flip_idx_from_names(getattr(module, "kpt_names", {}).values(), keypoints[0]) if keypoints else (),
        has_legacy_coding=not head_type.endswith("26"),
    )
    return module, spec


def _load_safely(path: Path) -> Any:
    """Return the network of a checkpoint, of which nothing but known layers and data types is loaded.

    Raises:
        WeightsError: The checkpoint needs more.
    """
    from ultralytics.nn.tasks import torch_safe_load
    from ultralytics.utils import DEFAULT_CFG_DICT

    names: list[str] = []
    try:
        checkpoint, _ = torch_safe_load(str(path), safe_only=True)
    except Exception:
        with suppress(Exception):  # not a file that PyTorch wrote: the first error is the better one
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)  # less what has just been allowed
        if not names:
            raise
    else:
        if not checkpoint.get("modelopt"):
            module = (checkpoint.get("ema") or checkpoint["model"]).float()
            module.args = {**DEFAULT_CFG_DICT, **checkpoint.get("train_args", {})}
            return module
        names = ["modelopt"]  # of quantized checkpoints: Ultralytics imports, and may install, that package
    listed = ", ".join(sorted(names)[:_MAX_LISTED]) + ", ..." * (len(names) > _MAX_LISTED)
    raise WeightsError(
        f"{path} would run code that weights do not need: it imports {listed}",
        "do not use it, unless you trust its author: --trust-weights lets the file run any code",
    )


def _run_last_in_fp32(layers: Any, features: torch.Tensor) -> torch.Tensor:
    output: torch.Tensor = layers[-1](layers[:-1](features).float())
    return output


def _to_cells(levels: list[torch.Tensor]) -> torch.Tensor:
    """Flatten the maps [B, C, h, w] of all levels to cells [B, N, C]."""
    return torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in levels], 1)
