"""Turn frames into objects and scene vectors, in one forward pass of the detector's network.

The network's raw output holds the feature pyramid beside the predictions, so appearance and scene need no second pass.
A frame's result does not depend on its batch: batches have a fixed size, and the objects, whose number varies, go
through float64 where functions are not exact. (PyTorch computes the last elements of an array with other code than the
rest, so in float32 the last bit of a sigmoid depends on the element's position in the array.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import torch

from vidgru.config import DetectorSettings
from vidgru.detector.appearance import AppearancePooling, object_colour
from vidgru.detector.backends import Backend
from vidgru.detector.preprocess import Letterbox
from vidgru.detector.torchvision_ops import nms
from vidgru.detector.yolo_head import RawOutput
from vidgru.errors import SettingsError
from vidgru.types import Array

_MAX_CANDIDATES = 4096  # per frame, before NMS
_MIN_SIMILARITY = 0.75  # of a class to what was meant; lower ones are other words, such as apple for table
_CLASS_OFFSET_PX = 7680  # Ultralytics' value, so that boxes are rounded in the same way


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """Objects and scene of one frame, best objects first; dtypes as in `vidgru.types.FrameSequence`.

    Attributes:
        boxes: float32 [M, 4], xyxy, normalised to the upright frame.
        scores: float16 [M].
        classes: int16 [M].
        appearance: float16 [M, APPEARANCE].
        colour: float16 [M, len(COLOUR_COLUMNS)].
        scene: float16 [SCENE].
        angle: float16 [M] in radians; None unless boxes are oriented.
        keypoints: float16 [M, K, 3]; None unless the task is pose.
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
    """Rows of raw output with a score above the threshold, on the CPU whatever the device, because they are few."""

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
    """Detects objects in batches of frames.

    Args:
        backend: Runs the network.
        settings: What to compute.

    Attributes:
        names: Class names.
        flip_idx: Left-right partner of each keypoint; empty if unknown.
        stride: Number of pixels that the sides of the network's input are multiples of.

    Raises:
        SettingsError: The detector lacks a class that is to be kept.
    """

    def __init__(self, backend: Backend, settings: DetectorSettings) -> None:
        self.backend = backend
        self.settings = settings
        self._spec = backend.spec
        self.names, self.flip_idx = self._spec.names, self._spec.flip_idx
        self.stride = max(self._spec.strides)
        if unknown := [name for name in settings.only if name not in self.names]:
            near = _similar_class(unknown[0], self.names)
            remedy = f"did you mean {near}?" if near else f"its classes are: {', '.join(self.names)}"
            raise SettingsError(f"{settings.weights} has no class {unknown[0]!r} for --only", remedy)
        self._is_kept = torch.tensor([not settings.only or name in settings.only for name in self.names])
        # A margin below the threshold: scores are compared exactly later.
        self._min_logit = math.log(settings.conf / (1 - settings.conf)) - 0.01
        self._pool_appearance = AppearancePooling(self._spec.channels, self._spec.strides, backend.device)
        self._cells: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}  # by height and width of the input

    @torch.inference_mode()
    def detect(self, images: Array, letterboxes: Sequence[Letterbox]) -> list[Detections]:
        """Detect objects in a batch.

        Args:
            images: uint8 [B, H, W, 3], RGB, letterboxed. B has to be the same in all calls for equal bytes.
            letterboxes: Letterboxes of the first images; the rest of the batch is padding, and gives no result.
        """
        raw = self.backend(torch.from_numpy(images))
        centres, strides = self._cell_grid(images.shape[1:3])
        candidates = self._find_candidates(raw, len(letterboxes))
        boxes, angle = self._decode_boxes(candidates, centres, strides)
        rows_per_frame = self._select(candidates, boxes, angle, len(letterboxes))
        rows = torch.cat(rows_per_frame)
        objects, boxes = candidates.take(rows), boxes[rows]
        keypoints = self._decode_keypoints(objects, centres, strides)
        if angle is not None:
            boxes, angle = _enclosing_boxes(boxes, angle[rows])
        appearance, scene = self._pool_appearance(raw.pyramid, objects.frames, boxes, letterboxes)
        offset = torch.tensor([[box.left, box.top] for box in letterboxes], dtype=torch.float32)[objects.frames]
        size = torch.tensor([box.content_wh for box in letterboxes], dtype=torch.float32)[objects.frames]
        boxes = ((boxes - offset.repeat(1, 2)) / size.repeat(1, 2)).clamp(0, 1)
        if keypoints is not None:
            keypoints[..., :2] = ((keypoints[..., :2] - offset[:, None]) / size[:, None]).clamp(0, 1)
        # To the types of the cache, all objects at once, then split by frame.
        host_boxes, host_classes = boxes.numpy(), objects.classes.to(torch.int16).numpy()
        host_scores, host_appearance, host_scene = _to_half(objects.scores), _to_half(appearance), _to_half(scene)
        host_angle = None if angle is None else _to_half(angle)
        host_keypoints = None if keypoints is None else _to_half(keypoints)
        detections, first = [], 0
        for frame, (image, letterbox) in enumerate(zip(images, letterboxes, strict=False)):
            last = first + len(rows_per_frame[frame])
            detections.append(
                Detections(
                    boxes=host_boxes[first:last],
                    scores=host_scores[first:last],
                    classes=host_classes[first:last],
                    appearance=host_appearance[first:last],
                    colour=object_colour(letterbox.content(image), host_boxes[first:last]),
                    scene=host_scene[frame],
                    angle=None if host_angle is None else host_angle[first:last],
                    keypoints=None if host_keypoints is None else host_keypoints[first:last],
                )
            )
            first = last
        return detections

    def _find_candidates(self, raw: RawOutput, frames: int) -> _Candidates:
        """Return all candidates with a score above the threshold, in the order frame, cell, class.

        With NMS, each cell gives its best class only; a one-to-one head may give several classes per cell.
        """
        best = raw.logits[:frames].amax(2)
        frame_cells = (best > self._min_logit).nonzero(as_tuple=True)
        logits = raw.logits[frame_cells].cpu().double()
        if self._spec.needs_nms:
            top, classes = logits.max(1)
            rows = torch.arange(len(top))
        else:
            rows, classes = (logits > self._min_logit).nonzero(as_tuple=True)
            top = logits[rows, classes]
        scores = top.sigmoid().float()
        is_above = (scores > self.settings.conf) & self._is_kept[classes]
        rows = rows[is_above]
        return _Candidates(
            frames=frame_cells[0].cpu()[rows],
            cells=frame_cells[1].cpu()[rows],
            classes=classes[is_above],
            scores=scores[is_above],
            distances=raw.distances[frame_cells].cpu()[rows],
            extra=None if raw.extra is None else raw.extra[frame_cells].cpu()[rows],
        )

    def _decode_boxes(
        self, candidates: _Candidates, centres: torch.Tensor, strides: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return boxes xyxy in pixels of the input and None; oriented boxes as centre and size, and their angles."""
        distances = candidates.distances
        if self._spec.reg_max > 1:  # expectation of the distance's distribution (Generalized Focal Loss, eq. 4)
            probabilities = distances.view(-1, 4, self._spec.reg_max).double().softmax(2)
            distances = (probabilities * torch.arange(self._spec.reg_max)).sum(2)
        left_top, right_bottom = distances.float().chunk(2, 1)
        centre, stride = centres[candidates.cells], strides[candidates.cells, None]
        if self._spec.task != "obb":
            return torch.cat([centre - left_top, centre + right_bottom], 1) * stride, None
        assert candidates.extra is not None
        angle = candidates.extra[:, 0].double()
        if self._spec.has_legacy_coding:
            angle = (angle.sigmoid() - 0.25) * math.pi
        x, y = ((right_bottom - left_top) / 2).unbind(1)
        cos, sin = angle.cos().float(), angle.sin().float()
        rotated = torch.stack([x * cos - y * sin, x * sin + y * cos], 1)
        return torch.cat([(rotated + centre) * stride, (left_top + right_bottom) * stride], 1), angle

    def _decode_keypoints(
        self, candidates: _Candidates, centres: torch.Tensor, strides: torch.Tensor
    ) -> torch.Tensor | None:
        """Return keypoints [M, K, 3]: x and y in pixels of the input, and confidence (1 if the model gives none)."""
        if self._spec.keypoints is None or candidates.extra is None:
            return None
        values = candidates.extra.double().view(-1, *self._spec.keypoints)
        scale, shift = (2.0, 0.5) if self._spec.has_legacy_coding else (1.0, 0.0)
        centre, stride = centres[candidates.cells, None], strides[candidates.cells, None, None]
        xy = (values[..., :2] * scale + (centre - shift)) * stride
        confidence = values[..., 2:].sigmoid() if values.shape[2] == 3 else torch.ones_like(values[..., :1])
        return torch.cat([xy, confidence], 2).float()

    def _select(
        self, candidates: _Candidates, boxes: torch.Tensor, angle: torch.Tensor | None, frames: int
    ) -> list[torch.Tensor]:
        """Return the rows to keep per frame, best first: after NMS within classes, at most `max_objects`."""
        rows_per_frame = []
        classes, scores = candidates.classes, candidates.scores
        ends = torch.bincount(candidates.frames, minlength=frames).cumsum(0).tolist()
        for first, last in zip([0, *ends], ends, strict=False):
            rows = scores[first:last].sort(descending=True, stable=True).indices + first
            if self._spec.needs_nms and len(rows):
                rows = rows[:_MAX_CANDIDATES]
                # Offsets move boxes of different classes apart, so that one NMS serves all classes.
                apart = boxes[rows].clone()
                if angle is None:
                    apart += classes[rows, None] * _CLASS_OFFSET_PX
                    rows = rows[nms(apart, scores[rows], self.settings.iou)]
                else:
                    apart[:, :2] += classes[rows, None] * _CLASS_OFFSET_PX
                    rows = rows[_rotated_nms(apart, angle[rows].float(), scores[rows], self.settings.iou)]
            rows_per_frame.append(rows[: self.settings.max_objects])
        return rows_per_frame

    def _cell_grid(self, input_hw: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the centres [N, 2] in cells and the strides [N] of all cells, in the order of the raw output."""
        if input_hw not in self._cells:
            height, width = input_hw
            centres, strides = [], []
            for stride in self._spec.strides:
                y = torch.arange(height // stride, dtype=torch.float32) + 0.5
                x = torch.arange(width // stride, dtype=torch.float32) + 0.5
                centres.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), 2).flatten(0, 1))
                strides.append(torch.full((len(centres[-1]),), float(stride)))
            self._cells[input_hw] = (torch.cat(centres), torch.cat(strides))
        return self._cells[input_hw]


def _similar_class(name: str, names: Sequence[str]) -> str:
    """Return the class that was probably meant: a typo, a plural, or the end of its name; empty if none is near."""
    meant = "person" if name.lower() == "people" else name.lower()
    known = {item.lower(): item for item in names}
    near = get_close_matches(meant, known, n=1, cutoff=_MIN_SIMILARITY)
    near += [item for item in known if item.endswith(meant)]
    return known[near[0]] if near else ""


def _enclosing_boxes(boxes: torch.Tensor, angle: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return upright boxes xyxy around oriented ones (centre, size), and the angle of their longer side, 0 to pi."""
    centre, width, height = boxes[:, :2], boxes[:, 2], boxes[:, 3]
    cos, sin = angle.cos().abs().float(), angle.sin().abs().float()
    half = torch.stack([width * cos + height * sin, width * sin + height * cos], 1) / 2
    longer = torch.where(width >= height, angle, angle + math.pi / 2)
    return torch.cat([centre - half, centre + half], 1), longer.remainder(math.pi)


def _rotated_nms(boxes: torch.Tensor, angle: torch.Tensor, scores: torch.Tensor, iou: float) -> torch.Tensor:
    """Run NMS on oriented boxes (centre, size) by Ultralytics' probabilistic IoU; return the kept rows, best first."""
    from ultralytics.utils.metrics import batch_probiou
    from ultralytics.utils.nms import TorchNMS

    oriented = torch.cat([boxes, angle[:, None]], 1)
    rows: torch.Tensor = TorchNMS.fast_nms(oriented, scores, iou, iou_func=batch_probiou)
    return rows


def _to_half(values: torch.Tensor) -> Array:
    """Return float16 values on the host, clamped to its range."""
    half: Array = values.clamp(-65504, 65504).to(torch.float16).cpu().numpy()
    return half
