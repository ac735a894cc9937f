"""Settings of the detector: what it computes, and how it runs.

WHAT is computed (`DetectorSettings`) decides the features: it is part of a cache entry's key and is stored in every
model. HOW it ran (`RunSettings`) is only recorded, so that a model trained from a GPU's features runs on a laptop's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from vidgru.config.checks import require, require_choices
from vidgru.config.detections import DETECTIONS_SCHEMA, DetectionSettings
from vidgru.config.scale import ScaleSettings
from vidgru.errors import SettingsError

FEATURE_SCHEMA = 2  # raised whenever the same settings would give other features


@dataclass(frozen=True, kw_only=True)
class DetectorSettings:
    """What is computed from a recording.

    Attributes:
        weights: an Ultralytics detector: detect, segment, pose or OBB; v8, 11, 26 or your own `.pt`.
        fps: samples a second.
        imgsz: longer side of the network's input in pixels, a multiple of 32.
        conf: objects scored below this are left out (the tracker likes weak ones, so keep it low).
        iou: overlap above which NMS drops the weaker box (heads without NMS ignore it).
        max_objects: at most this many objects a frame, the best scored.
        tracker: how track ids are made.
        mask: what is not to be looked at (a burnt-in clock, a screen): a YAML or JSON file with a list of polygons,
            each a list of corners [x, y] from 0 to 1; or that list itself. It is kept as the list.
    """

    weights: str = "yolo26n.pt"
    fps: float = 8.0
    imgsz: int = 640
    conf: float = 0.1
    iou: float = 0.7
    max_objects: int = 32
    tracker: Literal["bytetrack", "ocsort", "none"] = "bytetrack"
    mask: str = ""

    def __post_init__(self) -> None:
        for name in ("fps", "conf", "iou"):  # 5 and 5.0 are one setting, and have to be one key
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "mask", _polygons(self.mask))
        require(0 < self.fps <= 240, "fps", self.fps, "above 0 and at most 240")
        require(self.imgsz >= 32 and self.imgsz % 32 == 0, "imgsz", self.imgsz, "a multiple of 32")
        require(0 < self.conf < 1, "conf", self.conf, "between 0 and 1")
        require(0 < self.iou <= 1, "iou", self.iou, "above 0 and at most 1")
        require(self.max_objects >= 1, "max_objects", self.max_objects, "at least 1")

    def feature_settings(self, weights_sha256: str) -> dict[str, Any]:
        """The settings that decide the features, as they stand in keys, entries and models."""
        values = {name: getattr(self, name) for name in DetectorSettings.__dataclass_fields__ if name != "weights"}
        return {**values, "weights_sha256": weights_sha256, "schema": FEATURE_SCHEMA}

    def imported_detections_settings(self, names: Sequence[str], keypoints: int) -> dict[str, Any]:
        """The same of what a detector saw that was run elsewhere: the tracker is for what has no track ids.

        Args:
            names: of its classes.
            keypoints: of an object.
        """
        values = {name: getattr(self, name) for name in ("fps", "conf", "max_objects", "tracker")}
        return {**values, "names": list(names), "keypoints": keypoints, "detections": DETECTIONS_SCHEMA}


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How the detector runs. Recorded in each entry, not part of its key.

    Attributes:
        backend: what runs the network. auto: the fastest that is installed: OpenVINO on x86 CPUs if the extra is there,
            else torch.
        device: of the detector and of training: auto, cpu, cuda, cuda:1, mps. Training's auto is cuda, else cpu.
        precision: of the convolutions; boxes are always decoded in fp32. auto: bf16 where the device has units for it.
        detector_batch: frames a forward pass; 0 chooses by device.
        threads: CPU cores that extraction uses, each for a decoder and a thread of the detector, 0 is all; and CPU
            threads of training, 0 is one.
        start_time: when the recordings begin, if their containers do not tell, or tell wrongly: an ISO 8601 time, or a
            pattern of their names such as %Y%m%d_%H%M%S (Python's strptime).
    """

    backend: Literal["auto", "torch", "openvino"] = "auto"
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    detector_batch: int = 0
    threads: int = 0
    start_time: str = ""

    def __post_init__(self) -> None:
        require_choices(self)
        require(self.detector_batch >= 0, "detector_batch", self.detector_batch, "0 or more")
        require(self.threads >= 0, "threads", self.threads, "0 or more")


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(DetectorSettings, RunSettings, DetectionSettings, ScaleSettings):
    """Settings of `vidgru extract`.

    Attributes:
        out: folder of the sequence cache.
        verbose: a line on stderr for each recording as it ends.
        dry_run: tell what there is to do, and how long it would take, tried on a few seconds; write nothing.
    """

    out: str = "features"
    verbose: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        DetectorSettings.__post_init__(self)
        RunSettings.__post_init__(self)
        DetectionSettings.__post_init__(self)
        ScaleSettings.__post_init__(self)
        for name in ("mask", "shard", "ray", "dry_run"):
            require(
                not (self.detections and getattr(self, name)), name, getattr(self, name), "left out with detections"
            )


def _polygons(mask: str) -> str:
    """The polygons of a mask, given as a file or as they are, as JSON; empty where there are none."""
    if not mask:
        return ""
    feature_settings = f"mask is {mask!r}"
    text = mask
    if not mask.lstrip().startswith("["):
        try:
            text = Path(mask).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{feature_settings}, which cannot be read: {getattr(error, 'strerror', error)}"
            ) from None
    try:
        polygons = [[[float(x), float(y)] for x, y in polygon] for polygon in yaml.safe_load(text)]
    except (yaml.YAMLError, TypeError, ValueError):
        polygons = []
    inside = all(0 <= number <= 1 for polygon in polygons for corner in polygon for number in corner)
    if not polygons or not inside or min(map(len, polygons)) < 3:
        raise SettingsError(
            f"{feature_settings}; it must be a list of polygons, each of three corners or more, [x, y] from 0 to 1",
            "for example [[[0, 0], [0.3, 0], [0.3, 0.1], [0, 0.1]]] for the upper left",
        )
    return json.dumps(polygons)
