"""Backends: choice, agreement between them, and bytes that depend on the frame alone."""

import threading
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.compare_runs import Agreement, agreement
from tests.detectors import DEMO, KINDS, Weights
from tests.videos import draw_counter
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.demo.renderer import SIZE_PX
from vidgru.demo.scenes import EVENT_KINDS, plan_clip
from vidgru.detector import backends, openvino_export
from vidgru.detector.backends import Backend, OpenVinoBackend, TorchBackend, has_bf16_units, open_backend
from vidgru.detector.preprocess import Letterbox
from vidgru.detector.yolo import Detections, Detector
from vidgru.detector.yolo_head import RawOutput, load_network
from vidgru.errors import MissingDependencyError, SettingsError, WeightsError
from vidgru.extraction.detector_pool import count_cores
from vidgru.storage import sha256_file

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
needs_bf16 = pytest.mark.skipif(not has_bf16_units(), reason="this CPU has no bf16 units")
EXPORTED_KINDS = [kind for kind in KINDS if kind not in ("yolo26n", "yolov8n-pose")]  # each takes seconds to export
PRECISIONS = ["fp32", pytest.param("bf16", marks=needs_bf16)]


def open_with(weights: Path, streams: int = 1, **run: Any) -> Backend:
    return open_backend(weights, sha256_file(weights), RuntimeSettings(**run), streams)


def openvino(weights: Path, precision: str = "fp32", streams: int = 1) -> OpenVinoBackend:
    return OpenVinoBackend(weights, sha256_file(weights), "cpu", precision, streams)


def batch(*numbers: int, height: int = 96, width: int = 128) -> torch.Tensor:
    return torch.from_numpy(np.stack([draw_counter(number, width, height) for number in numbers]))


def tensors(raw: RawOutput) -> list[torch.Tensor]:
    return [raw.distances, raw.logits, *([] if raw.extra is None else [raw.extra]), *raw.pyramid]


def bytes_per_image(raw: RawOutput) -> list[bytes]:
    """Return the output for each image of a batch as bytes."""
    parts = [tensor.contiguous().numpy() for tensor in tensors(raw)]
    return [b"".join(part[number].tobytes() for part in parts) for number in range(len(parts[0]))]


# --- choice of the backend --------------------------------------------------------------------------------------------


@needs_openvino
def test_auto_backend_is_openvino_on_x86_only(tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tiny_weights("yolo26n")
    for machine, name in (("x86_64", "openvino"), ("AMD64", "openvino"), ("arm64", "torch")):
        monkeypatch.setattr(backends.platform, "machine", lambda machine=machine: machine)
        assert open_with(weights, device="cpu").name == name
    for name in ("torch", "openvino"):
        assert open_with(weights, device="cpu", backend=name).name == name


def test_auto_backend_is_torch_without_openvino(tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    weights = tiny_weights("yolo26n")
    assert open_with(weights, device="cpu").name == "torch"
    with pytest.raises(MissingDependencyError, match="the backend 'openvino' is not installed") as caught:
        open_with(weights, backend="openvino")
    assert caught.value.remedy == 'pip install "vidgru[openvino]"'
    assert caught.value.exit_code == 2


@needs_openvino
def test_auto_backend_is_torch_if_openvino_is_broken(tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino_export.open_core()
    monkeypatch.setattr("openvino.Core", fails("cannot open shared object file"))
    monkeypatch.setattr(backends.platform, "machine", lambda: "x86_64")
    weights = tiny_weights("yolo26n")
    assert open_with(weights, device="cpu").name == "torch"
    with pytest.raises(
        MissingDependencyError, match="openvino is installed but cannot be used: cannot open shared object file"
    ):
        open_with(weights, backend="openvino")


@needs_openvino
def test_auto_backend_is_torch_for_unsupported_network(
    tiny_weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino_export.open_core()
    monkeypatch.setenv("VIDGRU_CACHE", str(tmp_path))
    monkeypatch.setattr("openvino.convert_model", fails("No conversion rule for aten::new"))
    monkeypatch.setattr(backends.platform, "machine", lambda: "x86_64")
    weights = tiny_weights("yolo26n")
    assert open_with(weights, device="cpu").name == "torch"
    with pytest.raises(WeightsError, match=r"\.pt cannot run in OpenVINO: No conversion rule for aten::new") as caught:
        open_with(weights, backend="openvino")
    assert caught.value.remedy == "pass --backend torch"


def fails(message: str) -> Callable[..., None]:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError(message)

    return fail


def test_openvino_rejects_unsupported_settings(tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tiny_weights("yolo26n")
    with pytest.raises(SettingsError, match="device is 'cuda:0', which the backend 'openvino' cannot use"):
        open_with(weights, backend="openvino", device="cuda:0")
    with pytest.raises(SettingsError, match="precision is 'fp16', which the backend 'openvino' does not support"):
        open_with(weights, backend="openvino", precision="fp16")

    class Core:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32"]

    monkeypatch.setattr(backends, "open_core", Core)
    with pytest.raises(SettingsError, match="precision is 'bf16', which OpenVINO does not support on this CPU"):
        open_with(weights, backend="openvino", precision="bf16")
    assert open_with(weights, device="cpu", precision="bf16").name == "torch"


def test_torch_backend_resolves_device_and_precision(tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_network(tiny_weights("yolo26n"))
    with pytest.raises(SettingsError, match="device is 'nonsense', which cannot be used"):
        TorchBackend(*loaded, "nonsense")
    with pytest.raises(SettingsError, match="device is 'nonsense', which cannot be used"):
        open_with(tiny_weights("yolo26n"), device="nonsense")
    with pytest.raises(SettingsError, match="precision is 'fp16', which the CPU does not support"):
        open_with(tiny_weights("yolo26n"), device="cpu", precision="fp16")
    monkeypatch.setattr(backends, "has_bf16_units", lambda: True)
    assert TorchBackend(*loaded, "cpu", "auto").precision == "bf16"
    monkeypatch.setattr(backends, "has_bf16_units", lambda: False)
    assert TorchBackend(*loaded, "cpu", "auto").precision == "fp32"
    if find_spec("openvino"):
        assert open_with(tiny_weights("yolo26n"), backend="openvino").precision == "fp32", (
            "the precision is never left to OpenVINO"
        )


def test_missing_cuda_device_raises(tiny_weights: Weights) -> None:
    if torch.cuda.is_available():
        pytest.skip("CUDA is available")
    with pytest.raises(SettingsError, match="device is 'cuda:0', which cannot be used"):
        TorchBackend(*load_network(tiny_weights("yolo26n")), "cuda:0")


# --- agreement --------------------------------------------------------------------------------------------------------


@needs_openvino
@pytest.mark.parametrize("kind", [
    "yolo26n", "yolov8n-pose", *(pytest.param(name, marks=pytest.mark.slow) for name in EXPORTED_KINDS),
])  # fmt: skip
def test_openvino_output_equals_torch(tiny_weights: Weights, kind: str) -> None:
    """One graph serves all shapes, also those it was not traced with."""
    openvino_backend, torch_backend = (
        openvino(tiny_weights(kind)),
        TorchBackend(*load_network(tiny_weights(kind)), "cpu", "fp32"),
    )
    assert openvino_backend.spec == torch_backend.spec
    for images in (batch(1, 2, 3), batch(4, height=160, width=64)):
        pairs = list(zip(tensors(openvino_backend(images)), tensors(torch_backend(images)), strict=True))
        for actual, torch_tensor in pairs:
            assert (actual.shape, actual.dtype) == (torch_tensor.shape, torch.float32)
            torch.testing.assert_close(actual, torch_tensor, atol=2e-3, rtol=1e-3)


@cache
def detections(backend: str, precision: str) -> list[Detections]:
    """Detect with the demo detector in synthetic scenes, four frames per kind of event."""
    detector = Detector(
        open_with(DEMO, backend=backend, device="cpu", precision=precision), DetectorSettings(imgsz=320)
    )
    box = Letterbox.fit(SIZE_PX, 320, detector.stride)
    canvas = np.empty((4, *box.input_hw, 3), np.uint8)
    result = []
    for images in scenes():
        for image, place in zip(images, canvas, strict=True):
            box.place(image, place)
        result += detector.detect(canvas, [box] * 4)
    return result


@cache
def scenes() -> list[list[np.ndarray]]:
    clips = [plan_clip(kind, 70 + number).frames() for number, kind in enumerate(EVENT_KINDS)]
    return [[image for image, _, _ in islice(frames, 8, 36, 8)] for frames in clips]


@pytest.mark.skipif(not DEMO.exists(), reason="the demo detector is missing")
@pytest.mark.parametrize(
    ("backend", "precision"),
    [
        pytest.param("torch", "bf16", marks=needs_bf16),
        pytest.param("openvino", "fp32", marks=needs_openvino),
        pytest.param("openvino", "bf16", marks=[needs_openvino, needs_bf16]),
    ],
)
def test_backends_agree_with_torch_fp32(backend: str, precision: str) -> None:
    measured = agreement(detections("torch", "fp32"), detections(backend, precision))
    assert min(measured.boxes) > 40
    assert measured.holds(), measured


def test_agreement_measures_matches() -> None:
    def make_detections(boxes: list[list[float]], scores: list[float], classes: list[int]) -> Detections:
        one_hot = np.eye(len(boxes), 64, dtype=np.float16)
        return Detections(
            boxes=np.array(boxes, np.float32),
            scores=np.array(scores, np.float16),
            classes=np.array(classes, np.int16),
            appearance=one_hot,
            colour=np.zeros((len(boxes), 9), np.float16),
            scene=np.ones(64, np.float16),
            angle=None,
            keypoints=None,
        )

    here, near, there = [0.0, 0.0, 0.2, 0.5], [0.0, 0.0, 0.2, 0.4], [0.6, 0.6, 0.8, 0.8]
    first = make_detections([here, here, there], [0.9, 0.3, 0.2], [0, 1, 0])
    assert agreement([first], [first]) == Agreement(
        boxes=(2, 2), matched=(1.0, 1.0), iou=1.0, classes=1.0, appearance=1.0, colour=0.0, scene=1.0
    )
    second = make_detections([near, there], [0.2, 0.5], [1, 2])
    measured = agreement([first], [second])  # `here` of class 1 matches `near`, the weak `there` the strong one
    assert (measured.boxes, measured.matched) == ((2, 1), (0.5, 1.0))
    assert (measured.iou, measured.classes) == (pytest.approx(0.9), 0.5)
    assert not measured.holds()


# --- reproducible bytes -----------------------------------------------------------------------------------------------


@needs_openvino
@pytest.mark.parametrize("precision", PRECISIONS)
def test_openvino_output_is_independent_of_batch_and_threads(tiny_weights: Weights, precision: str) -> None:
    """Check any position in the batch, any number of streams, and concurrent calls."""
    weights = tiny_weights("yolo26n")
    expected = dict(enumerate(bytes_per_image(openvino(weights, precision)(batch(*range(4))))))
    assert len(set(expected.values())) == 4
    for streams in (1, 2, 3):
        backend = openvino(weights, precision, streams)
        wrong: list[tuple[int, ...]] = []

        def run_batches(turn: int, backend: OpenVinoBackend = backend, wrong: list[tuple[int, ...]] = wrong) -> None:
            for step in range(4):
                numbers = tuple((turn + step * (position + 1)) % 4 for position in range(4))
                if bytes_per_image(backend(batch(*numbers))) != [expected[number] for number in numbers]:
                    wrong.append(numbers)

        threads = [threading.Thread(target=run_batches, args=(turn,)) for turn in range(streams + 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


@needs_openvino
def test_openvino_output_is_not_overwritten(tiny_weights: Weights) -> None:
    backend = openvino(tiny_weights("yolo26n"))
    images = batch(5, 6)
    first = backend(images)
    before = bytes_per_image(first)
    backend(batch(7, 8))
    assert bytes_per_image(first) == before
    assert torch.equal(images, batch(5, 6)), "the input is not modified"
    assert bytes_per_image(backend(images[:, :, :64]))[0] == bytes_per_image(backend(images[:, :, :64].contiguous()))[0]


# --- compilation ------------------------------------------------------------------------------------------------------


@needs_openvino
@pytest.mark.parametrize("precision", PRECISIONS)
def test_openvino_compiles_with_requested_settings(tiny_weights: Weights, precision: str) -> None:
    backend = openvino(tiny_weights("yolo26n"), precision, streams=2)
    model = backend._compile((2, 64, 64, 3))._model
    assert model.get_property("INFERENCE_PRECISION_HINT").get_type_name() == {"fp32": "f32"}.get(precision, precision)
    assert model.get_property("NUM_STREAMS") == model.get_property("INFERENCE_NUM_THREADS") == min(2, count_cores())
    assert model.get_property("ENABLE_CPU_PINNING") is False


@needs_openvino
def test_openvino_compiles_each_shape_once(tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = openvino(tiny_weights("yolo26n"), streams=2)
    compiled: list[list[int]] = []
    core = backend._core

    class Core:
        def compile_model(self, graph: Any, *arguments: Any) -> Any:
            compiled.append(list(graph.input(0).shape))
            return core.compile_model(graph, *arguments)

    backend._core = Core()
    threads = [threading.Thread(target=backend, args=(batch(number),)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compiled == [[1, 96, 128, 3]]
    monkeypatch.setattr(backends, "_MAX_COMPILED_SHAPES", 2)
    for images in (batch(1, 2), batch(3), batch(4, 5, 6), batch(7)):  # batches of one are never the least recently used
        backend(images)
    assert [shape[0] for shape in compiled] == [1, 2, 3]
    backend(batch(1, 2))
    assert [shape[0] for shape in compiled] == [1, 2, 3, 2]
    assert len(backend._compiled) == 2
