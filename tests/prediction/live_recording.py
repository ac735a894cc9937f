"""Recorders of a live source, for tests."""

from tests.sequences import make_sequence
from vidgru.cache import SequenceCache
from vidgru.cache.writer import PART_SAMPLES
from vidgru.prediction.live import LiveRecorder

__all__ = ["PART_SAMPLES", "SequenceCache"]

BEGAN = "2024-05-01T12:00:00.000+00:00"
FEATURE_SETTINGS = {"fps": 8.0, "weights_sha256": "0" * 64}
RUN_INFO = {"device": "cpu"}
URL = "rtsp://cam/1"


def record(cache: SequenceCache, frames: int, *, began: str = BEGAN) -> LiveRecorder:
    """Record so many frames, without finishing the entry."""
    recorder = LiveRecorder(cache, URL, began, FEATURE_SETTINGS, RUN_INFO)
    sequence = make_sequence(frames, 1)
    for number in range(frames):
        recorder.append(sequence.frames(number, number + 1))
    return recorder
