"""How the detector's network runs: PyTorch, in fp32, bf16 or fp16.

A backend turns a batch of images into the network's raw output: box distances, class logits, keypoints or angles, and
the feature pyramid, all of one forward pass. Decoding into boxes is `detector.py`'s, in fp32 whatever the precision:
box distances decoded in bf16 move the boxes (mean IoU 0.91 with fp32), convolutions in bf16 do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vidgru.errors import SettingsError, WeightsError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_HEADS = {"Detect": "detect", "v10Detect": "detect", "Segment": "segment", "Segment26": "segment"}
_HEADS |= {"Pose": "pose", "Pose26": "pose", "OBB": "obb", "OBB26": "obb"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A detector's network and what is needed to decode its output.

    Attributes:
        module: the PyTorch module; called on images [B, 3, H, W] of values 0 to 255 it returns a `RawOutput`.
        names: class names.
        task: detect, segment, pose or obb.
        strides: pixels of the input per cell of each pyramid level.
        channels: channels of each pyramid level.
        bins: bins of the box distance distributions; 1 where distances are given outright.
        nms: whether boxes overlap and need NMS; False for one-to-one heads.
        keypoints: number of keypoints and values of each (2 or 3); None but for pose.
        doubled: keypoint offsets and angles are coded as before YOLO26: offsets count half cells, angles are logits.
    """

    module: torch.nn.Module
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


class TorchBackend:
    """Runs a network with PyTorch.

    Args:
        network: what to run; the backend takes it over and converts it in place.
        device: auto, cpu, cuda, cuda:1, mps.
        precision: of the convolutions. auto is bf16 on CPUs with units for it, fp16 on CUDA, else fp32.

    Attributes:
        network, device, precision: as resolved.

    Raises:
        SettingsError: the device is not there, or cannot do the precision.
    """

    name = "torch"

    def __init__(self, network: Network, device: str = "auto", precision: str = "auto") -> None:
        self.network = network
        self.device = _resolve_device(device)
        self.precision = _resolve_precision(precision, self.device)
        self._dtype = _DTYPES[self.precision]
        module = network.module.to(self.device, self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for last in module.model[-1].forward.last_layers():
            last.float()

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> RawOutput:
        """Run the network on uint8 images [B, H, W, 3], RGB, on any device; the output is on the backend's."""
        pixels = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)  # NHWC in memory is channels_last
        output: RawOutput = self.network.module(pixels.to(self._dtype))
        return output


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


def find_weights(weights: str) -> Path:
    """The weights file. A stock name such as `yolo26n.pt` that is not there is fetched by Ultralytics.

    Raises:
        WeightsError: there is no such file, and it cannot be fetched.
    """
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    remedy = "pass --weights with the path of an Ultralytics detector (.pt)"
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    if weights not in GITHUB_ASSETS_NAMES:
        raise WeightsError(f"no such weights file: {weights}", remedy)
    try:
        found = Path(attempt_download_asset(weights, retry=1))
    except Exception as error:  # whatever the network, a proxy or the disk has to say
        raise WeightsError(f"{weights} is not here and cannot be downloaded: {_first_line(error)}", remedy) from None
    if not found.is_file():
        raise WeightsError(f"{weights} is not here and cannot be downloaded", remedy)
    return found


def load_network(path: Path) -> Network:
    """Load and fuse an Ultralytics detector, in fp32 on the CPU. YOLO26 keeps its one-to-one head, free of NMS.

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
        raise WeightsError(f"{path} cannot be loaded: {_first_line(error)}", remedy) from None
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
    return Network(
        module=module,
        names=tuple(str(names[i]) for i in sorted(names)),
        task=_HEADS[kind],
        strides=tuple(int(stride) for stride in head.stride),
        channels=tuple(next(level.parameters()).shape[1] for level in boxes),
        bins=int(head.reg_max),
        nms=not one_to_one,
        keypoints=(int(head.kpt_shape[0]), int(head.kpt_shape[1])) if _HEADS[kind] == "pose" else None,
        doubled=not kind.endswith("26"),
    )


def has_bf16_units() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AVX512-BF16 or AMX); elsewhere bf16 is slower than fp32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _precise(layers: Any, features: torch.Tensor) -> torch.Tensor:
    output: torch.Tensor = layers[-1](layers[:-1](features).float())
    return output


def _cells(levels: list[torch.Tensor]) -> torch.Tensor:
    """Maps [B, C, h, w] of all levels as cells [B, N, C]."""
    return torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in levels], 1)


def _resolve_device(device: str) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SettingsError(f"device is {device!r}, which cannot be used: {_first_line(error)}") from None
    return found


def _resolve_precision(precision: str, device: torch.device) -> str:
    if precision == "auto":
        if device.type == "cuda":
            return "fp16"
        return "bf16" if device.type == "cpu" and has_bf16_units() else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise SettingsError("precision is 'fp16', which the cpu cannot do", "use fp32, bf16 or auto")
    return precision


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].lstrip("❌ ") if lines else type(error).__name__  # Ultralytics puts a cross before its errors


def rotated_nms(boxes: torch.Tensor, angle: torch.Tensor, scores: torch.Tensor, iou: float) -> torch.Tensor:
    """Rows of oriented boxes (centre, width, height) that NMS keeps, best first, by Ultralytics' probabilistic IoU."""
    from ultralytics.utils.metrics import batch_probiou
    from ultralytics.utils.nms import TorchNMS

    oriented = torch.cat([boxes, angle[:, None]], 1)
    kept: torch.Tensor = TorchNMS.fast_nms(oriented, scores, iou, iou_func=batch_probiou)
    return kept
