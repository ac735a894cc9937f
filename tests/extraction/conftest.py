"""Fixtures of the extraction tests."""

import pytest

from tests.detectors import Weights
from vidgru.config import DetectorSettings


@pytest.fixture
def settings(tiny_weights: Weights) -> DetectorSettings:
    """Settings of a tiny detector that finds objects everywhere."""
    return DetectorSettings(weights=str(tiny_weights("yolo26n")), imgsz=64, fps=5, conf=0.2, max_objects=6)
