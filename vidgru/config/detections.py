"""Settings of what a detector saw that was run elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidgru.config.checks import require

DETECTIONS_SCHEMA = 1  # raised whenever the same detections would give other sequences


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """What a detector saw that was run elsewhere, in place of one that runs here.

    Attributes:
        detections: a file or folder of boxes to make sequences of, instead of running a detector: Ultralytics'
            save_txt, MOT, COCO of videos; or a cache that holds such sequences.
        source_fps: frames a second of the recordings whose detections those are, where neither the videos nor the
            detections tell, or where not every frame was looked at; 0 leaves it to them.
        source_size: their width and height in pixels, such as 1920x1080, where nothing else tells.
        classes: names of the classes, where the detections do not tell: a data.yaml with `names`, or a text file with
            one a line.
    """

    detections: str = ""
    source_fps: float = 0.0
    source_size: str = ""
    classes: str = ""

    def __post_init__(self) -> None:
        require(0 <= self.source_fps <= 1000, "source_fps", self.source_fps, "from 0 to 1000")
        known = not self.source_size or self.size_px is not None
        require(known, "source_size", self.source_size, "width and height in pixels, such as 1920x1080")
        for name in ("source_fps", "source_size", "classes"):
            used = bool(self.detections) or not getattr(self, name)
            require(used, name, getattr(self, name), "left out without detections")

    @property
    def size_px(self) -> tuple[int, int] | None:
        """`source_size` in numbers, None where it is empty or cannot be read."""
        match = re.fullmatch(r"([1-9]\d{0,4})[x*]([1-9]\d{0,4})", self.source_size)
        return (int(match[1]), int(match[2])) if match else None


def uses_imported_detections(feature_settings: Mapping[str, Any]) -> bool:
    """Whether features of these settings come of detections from elsewhere, not of a detector of vidgru's."""
    return "detections" in feature_settings
