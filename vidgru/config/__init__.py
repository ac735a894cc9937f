"""One frozen dataclass a verb. Flags and YAML keys are its fields; bad values are refused here, before heavy work."""

from vidgru.config.detections import DetectionSettings, uses_imported_detections
from vidgru.config.extract import FEATURE_SCHEMA, DetectorSettings, ExtractConfig, RunSettings
from vidgru.config.predict import ExplainConfig, PredictConfig
from vidgru.config.scale import ScaleSettings
from vidgru.config.tools import AnnotationFormat, ConvertConfig, DemoConfig, ExportConfig, InfoConfig
from vidgru.config.train import Cell, CompareConfig, EvalConfig, FeatureGroup, TrainConfig

__all__ = [
    "FEATURE_SCHEMA",
    "AnnotationFormat",
    "Cell",
    "CompareConfig",
    "ConvertConfig",
    "DemoConfig",
    "DetectionSettings",
    "DetectorSettings",
    "EvalConfig",
    "ExplainConfig",
    "ExportConfig",
    "ExtractConfig",
    "FeatureGroup",
    "InfoConfig",
    "PredictConfig",
    "RunSettings",
    "ScaleSettings",
    "TrainConfig",
    "uses_imported_detections",
]
