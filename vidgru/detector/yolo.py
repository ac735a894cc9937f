"""Frames to objects and scene vectors, in one forward pass of the detector's network.

The network's raw output holds the feature pyramid beside the predictions, so appearance and scene cost no second pass.
Every frame is independent of its neighbours in a batch: batches have a fixed size, and what is computed of objects,
whose number varies, goes through float64 where functions are not exact. (PyTorch computes the last elements of an array
by other code than the rest, so that in float32 the last bit of a sigmoid depends on where in the array it stands.)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import nms, roi_align

from vidgru.config import DetectorSettings
from vidgru.detector.appearance import object_colour
from vidgru.detector.backends import Backend
from vidgru.detector.preprocess import Letterbox
from vidgru.detector.yolo_head import RawOutput
from vidgru.types import Array

APPEARANCE = 64  # values that describe an object
SCENE = 64  # values that describe a frame
_MOST_CANDIDATES = 4096  # a frame, before NMS
_CLASS_SHIFT_PX = 7680  # as Ultralytics does, so that rounding is the same


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """What was seen in one frame, best first; arrays as in `vidgru.types.Sequence`.

    Attributes:
        boxes: float32 [M, 4], xyxy, normalised to the upright frame.
        scores: float16 [M].
        classes: int16 [M].
        appearance: float16 [M, APPEARANCE].
        colour: float16 [M, len(COLOUR_COLUMNS)].
        scene: float16 [SCENE].
        angle: float16 [M] in radians, oriented boxes only.
        keypoints: float16 [M, K, 3], pose only.
    """

    boxes: Array
    scores: Array
    classes: Array
    appearance: Array
    colour: Array
    scene: Array
    angle: Array | None
    keypoints: Array | None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Candidates:
    """Rows of raw output that score above the threshold, on the CPU whatever the device: there are few."""

    frames: torch.Tensor
    cells: torch.Tensor
    classes: torch.Tensor
    scores: torch.Tensor
    distances: torch.Tensor
    extra: torch.Tensor | None

    def take(self, rows: torch.Tensor) -> _Candidates:
        return _Candidates(
            frames=self.frames[rows],
            cells=self.cells[rows],
            classes=self.classes[rows],
            scores=self.scores[rows],
            distances=self.distances[rows],
            extra=None if self.extra is None else self.extra[rows],
        )


class Detector:
    """A detector that is ready to run.

    Args:
        backend: runs the network.
        settings: what is computed.

    Attributes:
        names: class names.
    """

    def __init__(self, backend: Backend, settings: DetectorSettings) -> None:
        self.backend = backend
        self.settings = settings
        self.names = backend.network.names
        self._network = backend.network
        self._least_logit = math.log(settings.conf / (1 - settings.conf)) - 0.01  # scores are compared exactly later
        self._projections = [
            projection(f"level {level}", channels, width).to(backend.device)
            for level, (channels, width) in enumerate(
                zip(self._network.channels, _widths(len(self._network.channels)), strict=True)
            )
        ]
        self._centres: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def stride(self) -> int:
        """What the sides of the network's input are multiples of, in pixels."""
        return max(self._network.strides)

    @torch.inference_mode()
    def detect(self, images: Array, letterboxes: Sequence[Letterbox]) -> list[Detections]:
        """Detect in a batch.

        Args:
            images: uint8 [B, H, W, 3] RGB, letterboxed. B has to be the same in all calls for equal bytes.
            letterboxes: of the first images; what follows them in the batch is padding and is left out.
        """
        raw = self.backend(torch.from_numpy(images))
        grid = self._grid(images.shape[1:3])
        found = self._candidates(raw, len(letterboxes))
        boxes, angle = self._boxes(found, grid)
        kept = self._select(found, boxes, angle, len(letterboxes))
        rows = torch.cat(kept)
        found, boxes = found.take(rows), boxes[rows]
        keypoints = self._keypoints(found, grid)
        if angle is not None:
            boxes, angle = _enclosing(boxes, angle[rows])
        appearance, scene = self._describe(raw.pyramid, found.frames, boxes, letterboxes)
        offset = torch.tensor([[box.left, box.top] for box in letterboxes], dtype=torch.float32)[found.frames]
        size = torch.tensor([box.content_wh for box in letterboxes], dtype=torch.float32)[found.frames]
        boxes = ((boxes - offset.repeat(1, 2)) / size.repeat(1, 2)).clamp(0, 1)
        if keypoints is not None:
            keypoints[..., :2] = ((keypoints[..., :2] - offset[:, None]) / size[:, None]).clamp(0, 1)
        counts = [len(rows) for rows in kept]
        shown = [box.content(image) for box, image in zip(letterboxes, images, strict=False)]
        return _split(counts, boxes, found.scores, found.classes, appearance, scene, angle, keypoints, shown)

    # --- from raw output to objects ---------------------------------------------------------------------------------

    def _candidates(self, raw: RawOutput, frames_used: int) -> _Candidates:
        """All that scores above the threshold, in the order frame, cell, class.

        With NMS a cell stands for its best class; a one-to-one head can name several classes in one cell.
        """
        best = raw.logits[:frames_used].amax(2)
        where = (best > self._least_logit).nonzero(as_tuple=True)
        logits = raw.logits[where].cpu().double()
        if self._network.nms:
            top, classes = logits.max(1)
            rows = torch.arange(len(top))
        else:
            rows, classes = (logits > self._least_logit).nonzero(as_tuple=True)
            top = logits[rows, classes]
        scores = top.sigmoid().float()
        above = scores > self.settings.conf
        rows = rows[above]
        return _Candidates(
            frames=where[0].cpu()[rows],
            cells=where[1].cpu()[rows],
            classes=classes[above],
            scores=scores[above],
            distances=raw.distances[where].cpu()[rows],
            extra=None if raw.extra is None else raw.extra[where].cpu()[rows],
        )

    def _boxes(
        self, found: _Candidates, grid: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Boxes xyxy in pixels of the input; oriented boxes as centre, width, height with their angles."""
        distances = found.distances
        if self._network.bins > 1:  # expected value of the distance's distribution (Generalized Focal Loss, eq. 4)
            chances = distances.view(-1, 4, self._network.bins).double().softmax(2)
            distances = (chances * torch.arange(self._network.bins)).sum(2)
        near, far = distances.float().chunk(2, 1)
        centre, stride = grid[0][found.cells], grid[1][found.cells, None]
        if self._network.task != "obb":
            return torch.cat([centre - near, centre + far], 1) * stride, None
        assert found.extra is not None
        angle = found.extra[:, 0].double()
        if self._network.doubled:
            angle = (angle.sigmoid() - 0.25) * math.pi
        x, y = ((far - near) / 2).unbind(1)
        cos, sin = angle.cos().float(), angle.sin().float()
        turned = torch.stack([x * cos - y * sin, x * sin + y * cos], 1)
        return torch.cat([(turned + centre) * stride, (near + far) * stride], 1), angle

    def _keypoints(self, found: _Candidates, grid: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor | None:
        """Keypoints [M, K, 3] in pixels of the input, and their confidence (1 where the model gives none)."""
        if self._network.keypoints is None or found.extra is None:
            return None
        values = found.extra.double().view(-1, *self._network.keypoints)
        scale, shift = (2.0, 0.5) if self._network.doubled else (1.0, 0.0)
        centre, stride = grid[0][found.cells, None], grid[1][found.cells, None, None]
        places = (values[..., :2] * scale + (centre - shift)) * stride
        confidence = values[..., 2:].sigmoid() if values.shape[2] == 3 else torch.ones_like(values[..., :1])
        return torch.cat([places, confidence], 2).float()

    def _select(
        self, found: _Candidates, boxes: torch.Tensor, angle: torch.Tensor | None, frames_used: int
    ) -> list[torch.Tensor]:
        """Rows to keep of each frame, best first: after NMS within classes, at most `max_objects`."""
        kept = []
        classes, scores = found.classes, found.scores
        ends = torch.bincount(found.frames, minlength=frames_used).cumsum(0).tolist()
        for first, last in zip([0, *ends], ends, strict=False):
            order = scores[first:last].sort(descending=True, stable=True).indices + first
            if self._network.nms and len(order):
                order = order[:_MOST_CANDIDATES]
                apart = boxes[order].clone()  # boxes of other classes are moved away, so that they do not overlap
                if angle is None:
                    apart += classes[order, None] * _CLASS_SHIFT_PX
                    order = order[nms(apart, scores[order], self.settings.iou)]
                else:
                    apart[:, :2] += classes[order, None] * _CLASS_SHIFT_PX
                    order = order[_rotated_nms(apart, angle[order].float(), scores[order], self.settings.iou)]
            kept.append(order[: self.settings.max_objects])
        return kept

    # --- appearance and scene ---------------------------------------------------------------------------------------

    def _describe(
        self,
        pyramid: tuple[torch.Tensor, ...],
        frames: torch.Tensor,
        boxes: torch.Tensor,
        letterboxes: Sequence[Letterbox],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appearance [M, APPEARANCE] of boxes in pixels of the input, and scene [B, SCENE] without the padding around.

        Each pyramid level is projected to a few channels and averaged over the box, or the frame; levels side by side.
        """
        regions = torch.cat([frames[:, None].to(boxes.dtype), boxes], 1).to(self.backend.device)
        inside, whole = [], []
        batch = len(pyramid[0])  # shapes stay the same however many frames are used
        areas = [*letterboxes, *[letterboxes[0]] * (batch - len(letterboxes))]
        for features, matrix, stride in zip(pyramid, self._projections, self._network.strides, strict=True):
            narrow = features.permute(0, 2, 3, 1) @ matrix.to(features.dtype)
            narrow = narrow.permute(0, 3, 1, 2).float().contiguous()
            inside.append(roi_align(narrow, regions, (1, 1), 1 / stride, sampling_ratio=4, aligned=True).flatten(1))
            weights = torch.stack([_coverage(box, stride, narrow.shape[2:]) for box in areas]).to(narrow.device)
            whole.append((narrow * weights[:, None]).sum((2, 3)))
        return torch.cat(inside, 1), torch.cat(whole, 1)

    def _grid(self, input_hw: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Centres [N, 2] in cells and strides [N] of all cells, in the order of the raw output."""
        height, width = input_hw
        if (height, width) not in self._centres:
            centres, strides = [], []
            for stride in self._network.strides:
                y = torch.arange(height // stride, dtype=torch.float32) + 0.5
                x = torch.arange(width // stride, dtype=torch.float32) + 0.5
                centres.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), 2).flatten(0, 1))
                strides.append(torch.full((len(centres[-1]),), float(stride)))
            self._centres[height, width] = (torch.cat(centres), torch.cat(strides))
        return self._centres[height, width]


def projection(name: str, channels: int, width: int) -> torch.Tensor:
    """A fixed random projection [channels, width] of signs, scaled to keep the variance of independent channels.

    Signs come from SHAKE-256 of the name, so that they are the same on every machine and in every version
    (Achlioptas 2003, "Database-friendly random projections").
    """
    digest = hashlib.shake_256(f"vidgru {name} {channels}x{width}".encode()).digest(-(-channels * width // 8))
    bits = np.unpackbits(np.frombuffer(digest, np.uint8))[: channels * width]
    return torch.from_numpy((bits.reshape(channels, width) * 2.0 - 1.0).astype(np.float32)) / math.sqrt(channels)


def _widths(levels: int) -> list[int]:
    """Projected channels of each pyramid level, the coarsest, which knows most, twice as wide as the others."""
    fine = APPEARANCE // (levels + 1)
    return [fine] * (levels - 1) + [APPEARANCE - fine * (levels - 1)]


def _coverage(box: Letterbox, stride: int, cells_hw: torch.Size) -> torch.Tensor:
    """Share of each cell [h, w] in the frame's own area; sums to 1."""
    sides = []
    for cells, start, length in zip(cells_hw, (box.top, box.left), box.content_wh[::-1], strict=True):
        edges = torch.arange(cells + 1, dtype=torch.float32) * stride
        within = edges.clamp(start, start + length)
        sides.append((within[1:] - within[:-1]) / length)
    return sides[0][:, None] * sides[1]


def _enclosing(boxes: torch.Tensor, angle: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Upright boxes xyxy around oriented ones, and the angle of their longer side, 0 to pi."""
    centre, width, height = boxes[:, :2], boxes[:, 2], boxes[:, 3]
    cos, sin = angle.cos().abs().float(), angle.sin().abs().float()
    half = torch.stack([width * cos + height * sin, width * sin + height * cos], 1) / 2
    longer = torch.where(width >= height, angle, angle + math.pi / 2)
    return torch.cat([centre - half, centre + half], 1), longer.remainder(math.pi)


def _rotated_nms(boxes: torch.Tensor, angle: torch.Tensor, scores: torch.Tensor, iou: float) -> torch.Tensor:
    """Rows of oriented boxes (centre, width, height) that NMS keeps, best first, by Ultralytics' probabilistic IoU."""
    from ultralytics.utils.metrics import batch_probiou
    from ultralytics.utils.nms import TorchNMS

    oriented = torch.cat([boxes, angle[:, None]], 1)
    kept: torch.Tensor = TorchNMS.fast_nms(oriented, scores, iou, iou_func=batch_probiou)
    return kept


def _split(
    counts: list[int],
    boxes: torch.Tensor,
    scores: torch.Tensor,
    classes: torch.Tensor,
    appearance: torch.Tensor,
    scene: torch.Tensor,
    angle: torch.Tensor | None,
    keypoints: torch.Tensor | None,
    shown: Sequence[Array],
) -> list[Detections]:
    """One `Detections` a frame, in the types of the cache; `shown` are the frames without padding."""
    host_boxes, host_scores, host_classes = boxes.numpy(), _half(scores), classes.to(torch.int16).numpy()
    host_appearance, host_scene = _half(appearance), _half(scene)
    host_angle = None if angle is None else _half(angle)
    host_keypoints = None if keypoints is None else _half(keypoints)
    ends = np.cumsum(counts).tolist()
    return [
        Detections(
            boxes=host_boxes[first:last],
            scores=host_scores[first:last],
            classes=host_classes[first:last],
            appearance=host_appearance[first:last],
            colour=object_colour(shown[frame], host_boxes[first:last]),
            scene=host_scene[frame],
            angle=None if host_angle is None else host_angle[first:last],
            keypoints=None if host_keypoints is None else host_keypoints[first:last],
        )
        for frame, (first, last) in enumerate(zip([0, *ends], ends, strict=False))
    ]


def _half(values: torch.Tensor) -> Array:
    """float16 on the host, within its range."""
    half: Array = values.clamp(-65504, 65504).to(torch.float16).cpu().numpy()
    return half
