"""Run the detector's network in PyTorch (fp32, bf16, fp16) or in OpenVINO (fp32, bf16; CPUs only).

A backend maps a batch of images to the network's raw output. It runs one batch on one core: several threads that call
it at the same time use several cores. The precision is always given by name and never left to the library.
"""

from __future__ import annotations

import platform
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch

from vidgru.config import RuntimeSettings
from vidgru.detector.openvino_export import open_core, open_graph
from vidgru.detector.weights import first_line
from vidgru.detector.yolo_head import NetworkSpec, RawOutput, load_network
from vidgru.errors import MissingDependencyError, SettingsError, WeightsError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_OPENVINO_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
_MAX_COMPILED_SHAPES = 8


class Backend(Protocol):
    """Runs a network. Several threads may call it at the same time.

    Attributes:
        name: torch or openvino.
        spec: Properties of the network, to decode its output.
        device: Device of the output; images may be there or on the CPU.
        precision: Precision of the convolutions: fp32, bf16 or fp16.
    """

    name: str
    spec: NetworkSpec
    device: torch.device
    precision: str

    def __call__(self, images: torch.Tensor) -> RawOutput:
        """Run the network on uint8 images [B, H, W, 3], RGB. Later calls do not overwrite the output."""


def open_backend(weights: Path, weights_sha256: str, run: RuntimeSettings, streams: int) -> Backend:
    """Load the network into the backend that the settings choose.

    `auto` is OpenVINO if it is installed and faster than PyTorch (on x86 CPUs), else PyTorch; also PyTorch if OpenVINO
    is broken or does not support the network.

    Args:
        weights: Weights file of an Ultralytics detector.
        weights_sha256: Hash of the file, in hex.
        run: Backend, device and precision, and whether the weights are trusted.
        streams: Number of threads that will call the backend at the same time.

    Raises:
        WeightsError: The file is not an Ultralytics detector, or the chosen backend does not support it.
        SettingsError: The device is not available, or the backend or device does not support the precision.
        MissingDependencyError: The chosen backend is not installed.
    """
    if run.backend == "openvino":
        return OpenVinoBackend(weights, weights_sha256, run.device, run.precision, streams, trusted=run.trust_weights)
    if run.backend == "auto" and run.precision != "fp16" and _suits_openvino(resolve_device(run.device)):
        try:
            return OpenVinoBackend(weights, weights_sha256, "cpu", run.precision, streams, trusted=run.trust_weights)
        except (MissingDependencyError, SettingsError, WeightsError):
            pass  # if the settings or weights are at fault, PyTorch raises the error
    return TorchBackend(*load_network(weights, trusted=run.trust_weights), run.device, run.precision)


class TorchBackend:
    """Runs a network with PyTorch.

    Args:
        module: Network with a raw head; it is converted in place.
        spec: Properties of the network.
        device: auto, cpu, cuda, cuda:1, mps.
        precision: Precision of the convolutions. auto is bf16 on CPUs with bf16 units, fp16 on CUDA, else fp32.

    Attributes:
        name, spec, device, precision: See `Backend`.

    Raises:
        SettingsError: The device is not available, or does not support the precision.
    """

    name = "torch"

    def __init__(
        self, module: torch.nn.Module, spec: NetworkSpec, device: str = "auto", precision: str = "auto"
    ) -> None:
        self.spec = spec
        self.device = resolve_device(device)
        self.precision = _resolve_precision(precision, self.device)
        self._dtype = _DTYPES[self.precision]
        self._module: Any = module.to(self.device, self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for layer in self._module.model[-1].forward.fp32_layers():
            layer.float()

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> RawOutput:
        """Run the network on uint8 images [B, H, W, 3], RGB, on any device."""
        pixels = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)  # NHWC in memory is channels_last
        output: RawOutput = self._module(pixels.to(self._dtype))
        return output


class OpenVinoBackend:
    """Runs a network with OpenVINO on the CPU.

    Args:
        weights: Weights file of an Ultralytics detector.
        weights_sha256: Hash of the file, in hex.
        device: auto or cpu.
        precision: Precision of the convolutions. auto is bf16 on CPUs with bf16 units, else fp32.
        streams: Number of batches that may run at the same time, each on one core.
        trusted: Whether the weights file may run any code.

    Attributes:
        name, spec, device, precision: See `Backend`.

    Raises:
        MissingDependencyError: OpenVINO is not installed, or broken.
        SettingsError: The device is not the CPU, or does not support the precision.
        WeightsError: The file is not an Ultralytics detector, or has operations that OpenVINO does not support.
    """

    name = "openvino"

    def __init__(
        self,
        weights: Path,
        weights_sha256: str,
        device: str = "auto",
        precision: str = "auto",
        streams: int = 1,
        *,
        trusted: bool = False,
    ) -> None:
        if device not in ("auto", "cpu"):
            raise SettingsError(f"device is {device!r}, which the backend 'openvino' cannot use", "use cpu or auto")
        if precision == "fp16":
            raise SettingsError(
                "precision is 'fp16', which the backend 'openvino' does not support", "use fp32, bf16 or auto"
            )
        self.device = torch.device("cpu")
        self.precision = _resolve_precision(precision, self.device)
        self._core = open_core()
        if self.precision == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise SettingsError("precision is 'bf16', which OpenVINO does not support on this CPU", "use fp32 or auto")
        self._graph, self.spec = open_graph(weights, weights_sha256, self._core, trusted=trusted)
        self._options = {
            "INFERENCE_PRECISION_HINT": _OPENVINO_PRECISIONS[self.precision],
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            "ENABLE_HYPER_THREADING": True,  # streams count logical cores
            "ENABLE_CPU_PINNING": False,  # decoders share the cores
        }
        self._lock = threading.Lock()
        self._compiled: dict[tuple[int, ...], _CompiledGraph] = {}  # least recently used first

    def __call__(self, images: torch.Tensor) -> RawOutput:
        """Run the network on uint8 images [B, H, W, 3], RGB, on the CPU. The first call with a shape compiles it."""
        distances, logits, *others = self._compile(tuple(images.shape))(images)
        levels = len(self.spec.strides)
        return RawOutput(
            distances=distances,
            logits=logits,
            extra=others[0] if len(others) > levels else None,
            pyramid=tuple(level.permute(0, 3, 1, 2) for level in others[-levels:]),
        )

    def _compile(self, shape: tuple[int, ...]) -> _CompiledGraph:
        """Return the graph compiled for a shape, from the latest ones or newly compiled."""
        with self._lock:  # held during compilation, so that no two threads compile the same shape
            compiled = self._compiled.pop(shape, None)
            if compiled is None:
                graph = self._graph.clone()
                graph.reshape(list(shape))
                compiled = _CompiledGraph(self._core.compile_model(graph, "CPU", self._options))
                # OpenVINO's Python bindings set themselves up for NumPy in the first inference; two threads that do
                # so at the same time deadlock (2026.4). So the first inference runs alone.
                compiled(torch.zeros(shape, dtype=torch.uint8))
                while len(self._compiled) >= _MAX_COMPILED_SHAPES:
                    del self._compiled[next(iter(self._compiled))]
            self._compiled[shape] = compiled
            return compiled


class _CompiledGraph:
    """A graph compiled for one shape, and its idle inference requests."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._idle: list[Any] = []

    def __call__(self, images: torch.Tensor) -> list[torch.Tensor]:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        # Copy the outputs (share_outputs=False), because the next batch overwrites the request's own.
        outputs = request.infer([images.contiguous().numpy()], share_inputs=True, share_outputs=False)
        tensors = [torch.from_numpy(outputs[number]) for number in range(len(outputs))]
        self._idle.append(request)
        return tensors


def has_bf16_units() -> bool:
    """Return whether this CPU multiplies bf16 in hardware (AVX512-BF16 or AMX). Elsewhere, bf16 is slower than fp32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def resolve_device(device: str) -> torch.device:
    """Return the device of this name; auto is CUDA, else MPS, else the CPU.

    Raises:
        SettingsError: The device is not available.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.zeros(1, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SettingsError(f"device is {device!r}, which cannot be used: {first_line(error)}") from None
    return resolved


def _resolve_precision(precision: str, device: torch.device) -> str:
    if precision == "auto":
        if device.type == "cuda":
            return "fp16"
        return "bf16" if device.type == "cpu" and has_bf16_units() else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise SettingsError("precision is 'fp16', which the CPU does not support", "use fp32, bf16 or auto")
    return precision


def _suits_openvino(device: torch.device) -> bool:
    """Return whether OpenVINO is installed, and faster than PyTorch on this device (measured on x86 CPUs only)."""
    return (
        device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64") and find_spec("openvino") is not None
    )
