"""How the detector's network runs: in PyTorch (fp32, bf16, fp16) or in OpenVINO (fp32, bf16; CPUs only).

A backend turns a batch of images into the network's raw output. Every backend is told its precision by name, never
chooses it, and runs one batch on one core: cores are used by calling it from several threads at once.
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
_HINTS = {"fp32": "f32", "bf16": "bf16"}
_SHAPES_KEPT = 8  # compiled graphs, one for each shape of a batch


class Backend(Protocol):
    """What runs a network. It may be called by several threads at once.

    Attributes:
        name: torch or openvino.
        network: what is needed to decode the output.
        device: where images may be and the output is.
        precision: of the convolutions: fp32, bf16 or fp16.
    """

    name: str
    network: NetworkSpec
    device: torch.device
    precision: str

    def __call__(self, images: torch.Tensor) -> RawOutput:
        """Run the network on uint8 images [B, H, W, 3], RGB. The output is the caller's to keep."""


def open_backend(weights: Path, weights_sha256: str, run: RuntimeSettings, streams: int) -> Backend:
    """The backend that the settings ask for, with its network loaded.

    With `backend: auto` that is OpenVINO where it is faster and installed, on x86 CPUs; and PyTorch where it is not, or
    where OpenVINO turns out to be broken or cannot run this network.

    Args:
        weights: an Ultralytics detector.
        weights_sha256: of the file, in hex.
        run: how to run it.
        streams: threads that will call it at the same time.

    Raises:
        WeightsError: it is not an Ultralytics detector, or cannot run in the backend asked for.
        SettingsError: the device is not there, or the backend or the device cannot do the precision.
        MissingDependencyError: the backend asked for is not installed.
    """
    if run.backend == "openvino":
        return OpenVinoBackend(weights, weights_sha256, run.device, run.precision, streams)
    if run.backend == "auto" and run.precision != "fp16" and _suits_openvino(resolve_device(run.device)):
        try:
            return OpenVinoBackend(weights, weights_sha256, "cpu", run.precision, streams)
        except (MissingDependencyError, SettingsError, WeightsError):
            pass  # what is wrong with settings or weights themselves, PyTorch will say
    return TorchBackend(*load_network(weights), run.device, run.precision)


class TorchBackend:
    """Runs a network with PyTorch.

    Args:
        module: what to run; the backend takes it over and converts it in place.
        network: what it is.
        device: auto, cpu, cuda, cuda:1, mps.
        precision: of the convolutions. auto is bf16 on CPUs with units for it, fp16 on CUDA, else fp32.

    Attributes:
        name, network, device, precision: see `Backend`.

    Raises:
        SettingsError: the device is not there, or cannot do the precision.
    """

    name = "torch"

    def __init__(
        self, module: torch.nn.Module, network: NetworkSpec, device: str = "auto", precision: str = "auto"
    ) -> None:
        self.network = network
        self.device = resolve_device(device)
        self.precision = _resolve_precision(precision, self.device)
        self._dtype = _DTYPES[self.precision]
        self._module: Any = module.to(self.device, self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for last in self._module.model[-1].forward.last_layers():
            last.float()

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> RawOutput:
        """Run the network on uint8 images [B, H, W, 3], RGB, on any device; the output is on the backend's."""
        pixels = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)  # NHWC in memory is channels_last
        output: RawOutput = self._module(pixels.to(self._dtype))
        return output


class OpenVinoBackend:
    """Runs a network with OpenVINO, on the CPU.

    Args:
        weights: an Ultralytics detector.
        weights_sha256: of the file, in hex.
        device: auto or cpu.
        precision: of the convolutions. auto is bf16 on CPUs with units for it, else fp32.
        streams: batches that may run at the same time, each on one core.

    Attributes:
        name, network, device, precision: see `Backend`.

    Raises:
        MissingDependencyError: OpenVINO is not installed, or broken.
        SettingsError: the device is another, or cannot do the precision.
        WeightsError: it is not an Ultralytics detector, or has parts that OpenVINO cannot run.
    """

    name = "openvino"

    def __init__(
        self, weights: Path, weights_sha256: str, device: str = "auto", precision: str = "auto", streams: int = 1
    ) -> None:
        if device not in ("auto", "cpu"):
            raise SettingsError(f"device is {device!r}, which the backend 'openvino' cannot use", "use cpu or auto")
        if precision == "fp16":
            raise SettingsError("precision is 'fp16', which the backend 'openvino' cannot do", "use fp32, bf16 or auto")
        self.device = torch.device("cpu")
        self.precision = _resolve_precision(precision, self.device)
        self._core = open_core()
        if self.precision == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise SettingsError("precision is 'bf16', which this cpu cannot do in OpenVINO", "use fp32 or auto")
        self._graph, self.network = open_graph(weights, weights_sha256, self._core)
        self._options = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            "ENABLE_HYPER_THREADING": True,  # streams count logical cores
            "ENABLE_CPU_PINNING": False,  # decoders share the cores
        }
        self._lock = threading.Lock()
        self._compiled: dict[tuple[int, ...], _Compiled] = {}  # the latest used last

    def __call__(self, images: torch.Tensor) -> RawOutput:
        """Run the network on uint8 images [B, H, W, 3], RGB, in the host's memory. The first of a shape compiles."""
        distances, logits, *others = self._ready(tuple(images.shape))(images)
        levels = len(self.network.strides)
        return RawOutput(
            distances=distances,
            logits=logits,
            extra=others[0] if len(others) > levels else None,
            pyramid=tuple(level.permute(0, 3, 1, 2) for level in others[-levels:]),
        )

    def _ready(self, shape: tuple[int, ...]) -> _Compiled:
        with self._lock:  # also while it compiles: nobody compiles the same twice
            compiled = self._compiled.pop(shape, None)
            if compiled is None:
                graph = self._graph.clone()
                graph.reshape(list(shape))
                compiled = _Compiled(self._core.compile_model(graph, "CPU", self._options))
                # OpenVINO's Python side sets itself up for NumPy in the first inference; two threads that do so at
                # the same time wait for one another for ever (2026.4). So the first one runs alone.
                compiled(torch.zeros(shape, dtype=torch.uint8))
                while len(self._compiled) >= _SHAPES_KEPT:
                    del self._compiled[next(iter(self._compiled))]
            self._compiled[shape] = compiled
            return compiled


class _Compiled:
    """A graph compiled for one shape, and its requests that are not in use."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._idle: list[Any] = []

    def __call__(self, images: torch.Tensor) -> list[torch.Tensor]:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        # Outputs are copied: the request's own are overwritten by the next batch.
        outputs = request.infer([images.contiguous().numpy()], share_inputs=True, share_outputs=False)
        tensors = [torch.from_numpy(outputs[number]) for number in range(len(outputs))]
        self._idle.append(request)
        return tensors


def has_bf16_units() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AVX512-BF16 or AMX); elsewhere bf16 is slower than fp32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def resolve_device(device: str) -> torch.device:
    """The device of this name; auto is CUDA, else MPS, else the CPU.

    Raises:
        SettingsError: it is not there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SettingsError(f"device is {device!r}, which cannot be used: {first_line(error)}") from None
    return found


def _resolve_precision(precision: str, device: torch.device) -> str:
    if precision == "auto":
        if device.type == "cuda":
            return "fp16"
        return "bf16" if device.type == "cpu" and has_bf16_units() else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise SettingsError("precision is 'fp16', which the cpu cannot do", "use fp32, bf16 or auto")
    return precision


def _suits_openvino(device: torch.device) -> bool:
    """Whether OpenVINO is installed, and faster than PyTorch on this device: measured on x86 CPUs only."""
    return (
        device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64") and find_spec("openvino") is not None
    )
