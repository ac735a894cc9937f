"""The network as an OpenVINO graph: exported once, kept in the user's cache folder, found there the next time.

One graph serves all batch sizes and input shapes. What is kept is one file, so that it is there whole or not at all:
safetensors of the graph's two parts, the network's facts and a hash of it all. With it in place the PyTorch weights are
not read.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load, save

from vidgru.detector.weights import first_line
from vidgru.detector.yolo_head import NetworkSpec, RawOutput, load_network
from vidgru.errors import MissingDependencyError, OutputError, WeightsError
from vidgru.storage import write_atomic

_SCHEMA = 1  # raised whenever the graph that is made of the same weights changes
_INSTALL = 'pip install "vidgru[openvino]"'


def open_core() -> Any:
    """An `openvino.Core`, from a package that does not report to its makers, as it would by itself.

    Raises:
        MissingDependencyError: OpenVINO is not installed, or broken.
    """
    with _no_telemetry():
        try:
            import openvino

            return openvino.Core()
        except (ImportError, OSError, RuntimeError) as error:
            if isinstance(error, ModuleNotFoundError) and error.name == "openvino":
                raise MissingDependencyError("the backend 'openvino' is not installed", _INSTALL) from None
            broken = f"openvino is installed but cannot be used: {first_line(error)}"
            raise MissingDependencyError(broken, _INSTALL) from None


def open_graph(weights: Path, weights_sha256: str, core: Any) -> tuple[Any, NetworkSpec]:
    """The graph of these weights, and what the network is.

    Args:
        weights: an Ultralytics detector.
        weights_sha256: of the file, in hex.
        core: an `openvino.Core`, which reads the graph.

    Returns:
        An `openvino.Model` in fp32 that takes uint8 images [B, H, W, 3] and gives distances, logits, extra (where the
        task has it) as in `RawOutput`, and the pyramid as [B, h, w, C]; and the network's facts.

    Raises:
        WeightsError: it is not an Ultralytics detector, or has parts that OpenVINO cannot run.
    """
    made_from = {name: version(name) for name in ("openvino", "torch", "ultralytics")}
    made_from |= {"weights": weights_sha256, "schema": str(_SCHEMA)}
    key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    path = _cache_folder() / "graphs" / f"{key}.safetensors"
    with suppress(Exception):  # not there, half, spoilt, not readable: whatever is wrong with it, it is made again
        return _unpack(path.read_bytes(), core)
    data = _export(weights)
    with suppress(OutputError):  # a folder that cannot be written is done without
        write_atomic(path, data)
    return _unpack(data, core)  # read back also when it is new: the same bytes now and later


class _Plain(torch.nn.Module):
    """The network from images to a tuple of tensors, as a graph can give it."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self._module = module

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        raw: RawOutput = self._module(images.permute(0, 3, 1, 2).float())
        extra = () if raw.extra is None else (raw.extra,)
        return (raw.distances, raw.logits, *extra, *(level.permute(0, 2, 3, 1) for level in raw.pyramid))


def _export(weights: Path) -> bytes:
    """The bytes of the file that is kept."""
    import openvino

    module, network = load_network(weights)
    side = 4 * max(network.strides)
    example = torch.zeros(2, side, side + max(network.strides), 3, dtype=torch.uint8)
    shape = openvino.PartialShape([-1, -1, -1, 3])
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "graph.xml"
        try:
            with _no_telemetry(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch's: tracing is deprecated, and sizes could be frozen
                graph = openvino.convert_model(_Plain(module), example_input=example, input=[(shape, openvino.Type.u8)])
            openvino.save_model(graph, xml, compress_to_fp16=False)
        except Exception as error:  # what OpenVINO cannot run, it tells in exceptions of all kinds
            message = f"{weights} cannot run in OpenVINO: {first_line(error)}"
            raise WeightsError(message, "pass --backend torch") from None
        parts = {
            "network": np.frombuffer(json.dumps(asdict(network), sort_keys=True).encode(), np.uint8),
            "xml": np.fromfile(xml, np.uint8),
            "weights": np.fromfile(xml.with_suffix(".bin"), np.uint8),
        }
    return save(parts | {"sha256": _digest(parts)})


def _unpack(data: bytes, core: Any) -> tuple[Any, NetworkSpec]:
    """The graph and the network's facts in the bytes of a file; ValueError and others if they are not what was kept."""
    parts = load(data)
    if not np.array_equal(parts.pop("sha256"), _digest(parts)):
        raise ValueError("spoilt")
    facts = json.loads(parts["network"].tobytes())
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
    return core.read_model(parts["xml"].tobytes(), parts["weights"].tobytes()), NetworkSpec(**values)


def _digest(parts: dict[str, Any]) -> Any:
    digest = hashlib.sha256()
    for name in ("network", "xml", "weights"):
        digest.update(hashlib.sha256(parts[name].tobytes()).digest())
    return np.frombuffer(digest.digest(), np.uint8)


def _cache_folder() -> Path:
    """Where vidgru keeps what can be made again: `VIDGRU_CACHE`, else the user's cache folder on this system."""
    if chosen := os.environ.get("VIDGRU_CACHE"):
        return Path(chosen)
    try:
        home = Path.home()
    except RuntimeError:
        home = Path(os.devnull)  # this user has none: nothing can be kept there
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "vidgru" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "vidgru"


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """Hide the package `openvino_telemetry`, which OpenVINO does without where it is not installed."""
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # importing it raises ImportError
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
