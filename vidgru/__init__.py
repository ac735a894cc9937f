"""vidgru: folders of recordings into timelines of labelled, described events.

from vidgru import DetectorSettings, EvalConfig, ExtractConfig, TrainConfig, evaluate, extract, predict, train

extract("videos", ExtractConfig(detector=DetectorSettings(weights="yolo26n.pt")))
train("dataset", TrainConfig(detector=DetectorSettings(weights="yolo26n.pt")))
evaluate("runs/train", "dataset", EvalConfig(split="test"))
for prediction in predict("runs/train", "recordings"):
    for event in prediction.events:
        print(event.video, event.start_s, event.end_s, event.label, event.description)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vidgru.api import evaluate, extract, predict, train
    from vidgru.cache import SequenceCache
    from vidgru.config import (
        DetectorSettings,
        EvalConfig,
        ExtractConfig,
        ImportedDetectionSettings,
        NetworkSettings,
        PredictConfig,
        RuntimeSettings,
        ScaleSettings,
        TrainConfig,
    )
    from vidgru.errors import VidgruError
    from vidgru.extraction.import_detections import add_sequence
    from vidgru.extraction.results import ExtractionResult
    from vidgru.model.checkpoint import EventModel, load_model
    from vidgru.model.features import compute_features
    from vidgru.model.stream import EventStream
    from vidgru.prediction.results import PredictionResult
    from vidgru.types import Annotation, Event, FrameSequence, Recording

# Loaded on first use, so that `vidgru --help` does not wait for torch.
_HOME = {
    "DetectorSettings": "vidgru.config",
    "RuntimeSettings": "vidgru.config",
    "ImportedDetectionSettings": "vidgru.config",
    "NetworkSettings": "vidgru.config",
    "ScaleSettings": "vidgru.config",
    "Annotation": "vidgru.types",
    "EvalConfig": "vidgru.config",
    "Event": "vidgru.types",
    "EventModel": "vidgru.model.checkpoint",
    "EventStream": "vidgru.model.stream",
    "ExtractConfig": "vidgru.config",
    "ExtractionResult": "vidgru.extraction.results",
    "PredictConfig": "vidgru.config",
    "PredictionResult": "vidgru.prediction.results",
    "Recording": "vidgru.types",
    "FrameSequence": "vidgru.types",
    "SequenceCache": "vidgru.cache",
    "TrainConfig": "vidgru.config",
    "VidgruError": "vidgru.errors",
    "add_sequence": "vidgru.extraction.import_detections",
    "compute_features": "vidgru.model.features",
    "evaluate": "vidgru.api",
    "extract": "vidgru.api",
    "load_model": "vidgru.model.checkpoint",
    "predict": "vidgru.api",
    "train": "vidgru.api",
}

__version__ = "0.1.0"
__all__ = [
    "Annotation",
    "DetectorSettings",
    "EvalConfig",
    "Event",
    "EventModel",
    "EventStream",
    "ExtractConfig",
    "ExtractionResult",
    "FrameSequence",
    "ImportedDetectionSettings",
    "NetworkSettings",
    "PredictConfig",
    "PredictionResult",
    "Recording",
    "RuntimeSettings",
    "ScaleSettings",
    "SequenceCache",
    "TrainConfig",
    "VidgruError",
    "add_sequence",
    "compute_features",
    "evaluate",
    "extract",
    "load_model",
    "predict",
    "train",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'vidgru' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
