"""What passes between the wings: recordings, sequences, features, annotations, events.

All are frozen dataclasses that check themselves when made. Arrays are NumPy's, so that the cache can map them from
disk and nothing here imports torch.
"""

from vidgru.types.events import DESCRIBED, Annotation, Event, Recording
from vidgru.types.features import Features
from vidgru.types.sequence import FRAME_TENSORS, OBJECT_TENSORS, Array, FrameSequence

__all__ = [
    "DESCRIBED",
    "FRAME_TENSORS",
    "OBJECT_TENSORS",
    "Annotation",
    "Array",
    "Event",
    "Features",
    "FrameSequence",
    "Recording",
]
