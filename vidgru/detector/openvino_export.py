"""Export the network as an OpenVINO graph, once, and cache it in the user's cache folder.

One graph serves all batch sizes and input shapes. It is cached as a single file, so that it is either complete or
absent: safetensors of the graph's two parts, the network's properties and a hash of them all. With the file in place,
neither the PyTorch weights are read nor Ultralytics imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
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

_SCHEMA = 3  # raise it whenever the file for the same weights changes
_INSTALL = 'pip install "vidgru[openvino]"'


def open_core() -> Any:
    """Return an `openvino.Core`, always the same one, imported without OpenVINO's telemetry.

    Raises:
        MissingDependencyError: OpenVINO is not installed, or broken.
    """
    with _without_telemetry():
        try:
            import openvino

            return _shared_core(openvino.Core)
        except (ImportError, OSError, RuntimeError) as error:
            if isinstance(error, ModuleNotFoundError) and error.name == "openvino":
                raise MissingDependencyError("the backend 'openvino' is not installed", _INSTALL) from None
            message = f"openvino is installed but cannot be used: {first_line(error)}"
            raise MissingDependencyError(message, _INSTALL) from None


@cache
def _shared_core(core: Callable[[], Any]) -> Any:
    """Return the one core of this process, which is never released.

    OpenVINO's CPU plugin sets up a signal stack for the thread that loads it, and unmaps it when the plugin is unloaded
    with its last user, maybe in another thread (2026.4). The next signal to the first thread, such as Ctrl-C, would
    then end the process.
    """
    return core()


def open_graph(weights: Path, weights_sha256: str, core: Any, *, trusted: bool = False) -> tuple[Any, NetworkSpec]:
    """Return the graph of a network, from the cache or newly exported.

    Args:
        weights: Weights file of an Ultralytics detector.
        weights_sha256: Hash of the file, in hex.
        core: An `openvino.Core`, which reads the graph.
        trusted: Whether the weights file may run any code.

    Returns:
        An `openvino.Model` in fp32, and the network's properties. The model maps uint8 images [B, H, W, 3] to
        distances, logits and extra (if the task has it) as in `RawOutput`, and the pyramid as [B, h, w, C].

    Raises:
        WeightsError: The file is not an Ultralytics detector, or has operations that OpenVINO does not support.
    """
    made_from = {name: version(name) for name in ("openvino", "torch", "ultralytics")}
    made_from |= {"weights": weights_sha256, "schema": str(_SCHEMA)}
    key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    path = _cache_folder() / "graphs" / f"{key}.safetensors"
    with suppress(Exception):  # missing, incomplete, corrupt or unreadable: export it again
        return _unpack(path.read_bytes(), core)
    data = _export(weights, trusted)
    with suppress(OutputError):  # without a writable folder, it is exported every time
        write_atomic(path, data)
    return _unpack(data, core)  # read from the bytes also when new, so that the first run equals later ones


class _TupleOutput(torch.nn.Module):
    """The network as a function of images to a tuple of tensors, which a graph can represent."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self._module = module

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        raw: RawOutput = self._module(images.permute(0, 3, 1, 2).float())
        extra = () if raw.extra is None else (raw.extra,)
        return (raw.distances, raw.logits, *extra, *(level.permute(0, 2, 3, 1) for level in raw.pyramid))


def _export(weights: Path, trusted: bool) -> bytes:
    """Convert a network; return the content of its file."""
    import openvino

    module, spec = load_network(weights, trusted=trusted)
    side = 4 * max(spec.strides)
    example = torch.zeros(2, side, side + max(spec.strides), 3, dtype=torch.uint8)
    shape = openvino.PartialShape([-1, -1, -1, 3])
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "graph.xml"
        try:
            with _without_telemetry(), _without_arguments(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch warns that tracing is deprecated and may freeze sizes
                graph = openvino.convert_model(
                    _TupleOutput(module), example_input=example, input=[(shape, openvino.Type.u8)]
                )
            openvino.save_model(graph, xml, compress_to_fp16=False)
        except Exception as error:  # unsupported operations raise various exceptions
            message = f"{weights} cannot run in OpenVINO: {first_line(error)}"
            raise WeightsError(message, "pass --backend torch") from None
        parts = {
            "network": np.frombuffer(json.dumps(asdict(spec), sort_keys=True).encode(), np.uint8),
            "xml": np.fromfile(xml, np.uint8),
            "weights": np.fromfile(xml.with_suffix(".bin"), np.uint8),
        }
    return save(parts | {"sha256": _digest(parts)})


def _unpack(data: bytes, core: Any) -> tuple[Any, NetworkSpec]:
    """Return the graph and the network's properties of a file. Raises ValueError, among others, if it is corrupt."""
    parts = load(data)
    if not np.array_equal(parts.pop("sha256"), _digest(parts)):
        raise ValueError("corrupt")
    properties = json.loads(parts["network"].tobytes())
    values: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in properties.items()}
    return core.read_model(parts["xml"].tobytes(), parts["weights"].tobytes()), NetworkSpec(**values)


def _digest(parts: dict[str, Any]) -> Any:
    digest = hashlib.sha256()
    for name in ("network", "xml", "weights"):
        digest.update(hashlib.sha256(parts[name].tobytes()).digest())
    return np.frombuffer(digest.digest(), np.uint8)


def _cache_folder() -> Path:
    """Return the folder for files that can be made again: `VIDGRU_CACHE`, else the user's cache folder."""
    if path := os.environ.get("VIDGRU_CACHE"):
        return Path(path)
    try:
        home = Path.home()
    except RuntimeError:
        home = Path(os.devnull)  # this user has no home: nothing can be cached
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "vidgru" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "vidgru"


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Hide the package `openvino_telemetry`, through which OpenVINO reports to its makers; it is optional."""
    name = "openvino_telemetry"
    module = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # importing it raises ImportError
    try:
        yield
    finally:
        del sys.modules[name]
        if module is not None:
            sys.modules[name] = module


@contextmanager
def _without_arguments() -> Iterator[None]:
    """Hide the command line: OpenVINO takes `--verbose` for its own, prints a report and traces all memory."""
    arguments = sys.argv
    sys.argv = arguments[:1]
    try:
        yield
    finally:
        sys.argv = arguments
