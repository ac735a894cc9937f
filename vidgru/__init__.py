"""vidgru: turn folders of recordings into timelines of labelled, described events.

from vidgru import DetectorSettings, EvalConfig, ExtractConfig, TrainConfig, evaluate, extract, predict, train

extract("videos", ExtractConfig(detector=DetectorSettings(weights="yolo26n.pt", fps=5)))
train("dataset", TrainConfig(detector=DetectorSettings(weights="yolo26n.pt", fps=5), epochs=60))
evaluate("runs/train", "dataset", EvalConfig(split="test"))
for result in predict("runs/train", "recordings"):
    for event in result.events:
        print(event.video, event.start_s, event.end_s, event.label, event.description)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from vidgru.config import (
    CompareConfig,
    ConvertConfig,
    DetectorSettings,
    EvalConfig,
    ExplainConfig,
    ExportConfig,
    ExtractConfig,
    ImportedDetectionSettings,
    LabelConfig,
    NetworkSettings,
    PredictConfig,
    PretrainConfig,
    RuntimeSettings,
    ScaleSettings,
    SuggestConfig,
    TrainConfig,
    TuneConfig,
)
from vidgru.errors import VidgruError

if TYPE_CHECKING:
    from vidgru.api import (
        compare,
        convert,
        evaluate,
        explain,
        export,
        extract,
        label,
        predict,
        predict_live,
        pretrain,
        suggest,
        train,
        tune,
    )
    from vidgru.cache import SequenceCache
    from vidgru.extraction.import_detections import add_sequence
    from vidgru.extraction.results import ExtractionResult
    from vidgru.model.checkpoint import EventModel, load_model
    from vidgru.model.features import compute_features
    from vidgru.model.stream import EventStream
    from vidgru.prediction.results import PredictionResult, RecordingScores
    from vidgru.types import Annotation, Event, FrameSequence, Recording

# Imported on first use, so that `import vidgru` and `vidgru --help` do not wait for NumPy and PyTorch.
_MODULES = {
    "compare": "vidgru.api",
    "convert": "vidgru.api",
    "evaluate": "vidgru.api",
    "explain": "vidgru.api",
    "export": "vidgru.api",
    "extract": "vidgru.api",
    "label": "vidgru.api",
    "predict": "vidgru.api",
    "predict_live": "vidgru.api",
    "pretrain": "vidgru.api",
    "suggest": "vidgru.api",
    "train": "vidgru.api",
    "tune": "vidgru.api",
    "SequenceCache": "vidgru.cache",
    "add_sequence": "vidgru.extraction.import_detections",
    "ExtractionResult": "vidgru.extraction.results",
    "EventModel": "vidgru.model.checkpoint",
    "load_model": "vidgru.model.checkpoint",
    "compute_features": "vidgru.model.features",
    "EventStream": "vidgru.model.stream",
    "PredictionResult": "vidgru.prediction.results",
    "RecordingScores": "vidgru.prediction.results",
    "Annotation": "vidgru.types",
    "Event": "vidgru.types",
    "FrameSequence": "vidgru.types",
    "Recording": "vidgru.types",
}

__version__ = "0.1.0"
__all__ = [
    "Annotation",
    "CompareConfig",
    "ConvertConfig",
    "DetectorSettings",
    "EvalConfig",
    "Event",
    "EventModel",
    "EventStream",
    "ExplainConfig",
    "ExportConfig",
    "ExtractConfig",
    "ExtractionResult",
    "FrameSequence",
    "ImportedDetectionSettings",
    "LabelConfig",
    "NetworkSettings",
    "PredictConfig",
    "PredictionResult",
    "PretrainConfig",
    "Recording",
    "RecordingScores",
    "RuntimeSettings",
    "ScaleSettings",
    "SequenceCache",
    "SuggestConfig",
    "TrainConfig",
    "TuneConfig",
    "VidgruError",
    "add_sequence",
    "compare",
    "compute_features",
    "convert",
    "evaluate",
    "explain",
    "export",
    "extract",
    "label",
    "load_model",
    "predict",
    "predict_live",
    "pretrain",
    "suggest",
    "train",
    "tune",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'vidgru' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
