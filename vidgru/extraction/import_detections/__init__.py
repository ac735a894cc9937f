"""Frame sequences from detections of other tools, read from text files, CSV or JSON."""

from vidgru.extraction.import_detections.importer import add_sequence, extract_detections
from vidgru.extraction.import_detections.source import DetectionSource, open_detections

__all__ = ["DetectionSource", "add_sequence", "extract_detections", "open_detections"]
