"""What scoring needs of a network, whatever runs it: PyTorch (`event_gru.py`) or ONNX Runtime (`onnx_network.py`)."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from vidgru.model.encoder import EncodedFrames
from vidgru.model.event_gru import Architecture, Reading, Scores, State
from vidgru.model.feature_spec import FeatureSpec


class Network(Protocol):
    """Encoder, recurrent layer and heads, ready to score."""

    @property
    def architecture(self) -> Architecture:
        """Its shape."""
        ...

    @property
    def feature_spec(self) -> FeatureSpec:
        """The features it reads."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it takes its inputs."""
        ...

    def encode(self, objects: Tensor, counts: Tensor, frame: Tensor) -> EncodedFrames:
        """Frames as vectors; arguments as of `EventGRU.forward`."""
        ...

    def read(self, vectors: Tensor, mask: Tensor, state: State = None) -> Reading:
        """Read encoded frames, behind those that left this state: float32 [B,T,width], bool [B,T]."""
        ...

    def score(self, vectors: Tensor, mask: Tensor) -> Scores:
        """Score clips or windows whose frames are encoded: float32 [B,T,width], bool [B,T]."""
        ...
