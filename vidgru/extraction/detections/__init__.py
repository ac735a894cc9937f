"""What a detector saw that was run elsewhere, as sequences: text files, CSV and JSON of other tools."""

from vidgru.extraction.detections.collection import Collection, open_detections
from vidgru.extraction.detections.run import add_sequence, extract_detections, recording_of

__all__ = ["Collection", "add_sequence", "extract_detections", "open_detections", "recording_of"]
