"""What a detector saw that was run elsewhere, as sequences: text files, CSV and JSON of other tools."""

from vidgru.extraction.import_detections.importer import add_sequence, extract_detections, recording_of
from vidgru.extraction.import_detections.source import DetectionSource, open_detections

__all__ = ["DetectionSource", "add_sequence", "extract_detections", "open_detections", "recording_of"]
