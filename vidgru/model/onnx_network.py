"""An exported network, run by ONNX Runtime: the same scores as of the PyTorch network that it was made of.

The graph is cut where frames have become vectors (`onnx.utils.Extractor`), so that frames are encoded once, whatever
reads them then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidgru.errors import MissingDependencyError, ModelError
from vidgru.model.encoder import EncodedFrames
from vidgru.model.event_gru import Architecture, Reading, Scores, State
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.onnx_graph import INSTALL, import_onnx
from vidgru.types import Array

SUFFIX = ".onnx"
_STATES = ("state", "cell")


def read_graph(path: Path) -> tuple[Any, dict[str, str]]:
    """A graph, an `onnx.ModelProto`, and its metadata. Nothing but this file is read.

    Raises:
        ModelError: it is no ONNX file.
        MissingDependencyError: the package `onnx` is not installed.
    """
    onnx = import_onnx()
    try:
        graph = onnx.load_model_from_string(path.read_bytes())
    except Exception as error:  # protobuf's, which has no public name in all versions
        raise ModelError(
            f"{path} is not an ONNX file: {str(error) or type(error).__name__}", "give a file that vidgru export wrote"
        ) from None
    return graph, {entry.key: entry.value for entry in graph.metadata_props}


class OnnxNetwork:
    """A network as `vidgru export` wrote it; it is scored on one thread of the CPU.

    Args:
        graph: the `onnx.ModelProto`.
        feature_spec: the features it reads.
        architecture: its shape.

    Raises:
        ValueError: it is not such a graph.
        MissingDependencyError: a package that is needed is not installed.
    """

    device = torch.device("cpu")

    def __init__(self, graph: Any, feature_spec: FeatureSpec, architecture: Architecture) -> None:
        self.feature_spec, self.architecture = feature_spec, architecture
        extractor = import_onnx().utils.Extractor(graph)
        inputs = {value.name for value in graph.graph.input}
        inner = {value.name for value in graph.graph.value_info}
        self._states = [name for name in _STATES if name in inputs]
        logits = [name for name in ("frame_logits", "clip_logits") if name in inner]
        self._read_outputs = [*logits, "hidden", *(f"next_{name}" for name in self._states)]
        self._encode = _session(extractor, ["objects", "counts", "frame"], ["vectors", "attention"])
        self._read = _session(extractor, ["vectors", "mask", *self._states], self._read_outputs)

    def encode(self, objects: Tensor, counts: Tensor, frame: Tensor) -> EncodedFrames:
        """Frames as vectors; arguments as of `EventGRU.forward`."""
        inputs = {"objects": objects.numpy(), "counts": counts.numpy(), "frame": frame.numpy()}
        vectors, attention = self._encode.run(["vectors", "attention"], inputs)
        return EncodedFrames(torch.from_numpy(vectors), torch.from_numpy(attention), None)

    def read(self, vectors: Tensor, mask: Tensor, state: State = None) -> Reading:
        """Read encoded frames, and score each: float32 [B,T,width], bool [B,T], state as returned or None."""
        found = self._run(vectors, mask, state)
        after = [found[f"next_{name}"] for name in self._states]
        logits = found.get("frame_logits")
        return Reading(None if logits is None else torch.from_numpy(logits), torch.from_numpy(found["hidden"]), after)

    def score(self, vectors: Tensor, mask: Tensor) -> Scores:
        """Score clips or windows whose frames are encoded: float32 [B,T,width], bool [B,T]."""
        found = self._run(vectors, mask, None)
        clips, frames = (found.get(name) for name in ("clip_logits", "frame_logits"))
        return Scores(*(None if logits is None else torch.from_numpy(logits) for logits in (clips, frames)))

    def _run(self, vectors: Tensor, mask: Tensor, state: list[Array] | None) -> dict[str, Array]:
        if state is None:
            shape = self.architecture.layers, len(vectors), self.architecture.hidden
            state = [np.zeros(shape, np.float32) for _ in self._states]
        inputs = {"vectors": vectors.numpy(), "mask": mask.numpy(), **dict(zip(self._states, state, strict=True))}
        return dict(zip(self._read_outputs, self._read.run(self._read_outputs, inputs), strict=True))


def _session(extractor: Any, inputs: list[str], outputs: list[str]) -> Any:
    """The part of the graph between these values, ready to run."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "exported models need the package onnxruntime, which is not installed", INSTALL
        ) from None
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # as the rest of prediction; and the same bytes
    try:
        part = extractor.extract_model(inputs, outputs)
        return onnxruntime.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of several kinds, which onnxruntime does not name in public
        problem = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"its graph cannot be run: {problem}") from None
