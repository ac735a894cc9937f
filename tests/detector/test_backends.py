"""Backends: which one runs, that they agree, and that bytes depend on the frame alone."""

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
from tests.detector.test_yolo import DEMO, Weights
from tests.detectors import KINDS
from tests.videos import draw_counter
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.demo.scene import KINDS as EVENTS
from vidgru.demo.scene import SIZE_PX, plan_clip
from vidgru.detector import backends
from vidgru.detector import openvino_export as graphs
from vidgru.detector.backends import Backend, OpenVinoBackend, TorchBackend, has_bf16_units, open_backend
from vidgru.detector.preprocess import Letterbox
from vidgru.detector.yolo import Detections, Detector
from vidgru.detector.yolo_head import RawOutput, load_network
from vidgru.errors import MissingDependencyError, SettingsError, WeightsError
from vidgru.extraction.detector_pool import count_cores
from vidgru.storage import sha256_file

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
needs_bf16 = pytest.mark.skipif(not has_bf16_units(), reason="this cpu has no units for bf16")
PRECISIONS = ["fp32", pytest.param("bf16", marks=needs_bf16)]


def opened(weights: Path, streams: int = 1, **run: Any) -> Backend:
    return open_backend(weights, sha256_file(weights), RuntimeSettings(**run), streams)


def openvino(weights: Path, precision: str = "fp32", streams: int = 1) -> OpenVinoBackend:
    return OpenVinoBackend(weights, sha256_file(weights), "cpu", precision, streams)


def batch(*numbers: int, height: int = 96, width: int = 128) -> torch.Tensor:
    return torch.from_numpy(np.stack([draw_counter(number, width, height) for number in numbers]))


def tensors(raw: RawOutput) -> list[torch.Tensor]:
    return [raw.distances, raw.logits, *([] if raw.extra is None else [raw.extra]), *raw.pyramid]


def images(raw: RawOutput) -> list[bytes]:
    """What was put out for each image of a batch."""
    parts = [tensor.contiguous().numpy() for tensor in tensors(raw)]
    return [b"".join(part[number].tobytes() for part in parts) for number in range(len(parts[0]))]


# --- which one runs ---------------------------------------------------------------------------------------------------


@needs_openvino
def test_auto_is_openvino_on_x86_only(tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tiny_weights("yolo26n")
    for machine, name in (("x86_64", "openvino"), ("AMD64", "openvino"), ("arm64", "torch")):
        monkeypatch.setattr(backends.platform, "machine", lambda machine=machine: machine)
        assert opened(weights, device="cpu").name == name
        assert opened(weights, device="cpu", backend="torch").name == "torch"
        assert opened(weights, device="cpu", backend="openvino").name == "openvino"


def test_auto_without_openvino_is_torch(tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    weights = tiny_weights("yolo26n")
    assert opened(weights, device="cpu").name == "torch"
    with pytest.raises(MissingDependencyError, match="the backend 'openvino' is not installed") as caught:
        opened(weights, backend="openvino")
    assert caught.value.remedy == 'pip install "vidgru[openvino]"'
    assert caught.value.exit_code == 2


@needs_openvino
def test_auto_with_a_broken_openvino_is_torch(tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs.open_core()
    monkeypatch.setattr("openvino.Core", fails("cannot open shared object file"))
    monkeypatch.setattr(backends.platform, "machine", lambda: "x86_64")
    weights = tiny_weights("yolo26n")
    assert opened(weights, device="cpu").name == "torch"
    with pytest.raises(
        MissingDependencyError, match="openvino is installed but cannot be used: cannot open shared object file"
    ):
        opened(weights, backend="openvino")


@needs_openvino
def test_auto_is_torch_for_what_openvino_cannot_run(
    tiny_weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs.open_core()
    monkeypatch.setenv("VIDGRU_CACHE", str(tmp_path))
    monkeypatch.setattr("openvino.convert_model", fails("No conversion rule for aten::new"))
    monkeypatch.setattr(backends.platform, "machine", lambda: "x86_64")
    weights = tiny_weights("yolo26n")
    assert opened(weights, device="cpu").name == "torch"
    with pytest.raises(WeightsError, match=r"\.pt cannot run in OpenVINO: No conversion rule for aten::new") as caught:
        opened(weights, backend="openvino")
    assert caught.value.remedy == "pass --backend torch"


def fails(message: str) -> Callable[..., None]:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError(message)

    return fail


def test_what_openvino_cannot_do(tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tiny_weights("yolo26n")
    with pytest.raises(SettingsError, match="device is 'cuda:0', which the backend 'openvino' cannot use"):
        opened(weights, backend="openvino", device="cuda:0")
    with pytest.raises(SettingsError, match="precision is 'fp16', which the backend 'openvino' does not support"):
        opened(weights, backend="openvino", precision="fp16")

    class Core:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32"]

    monkeypatch.setattr(backends, "open_core", Core)
    with pytest.raises(SettingsError, match="precision is 'bf16', which OpenVINO does not support on this CPU"):
        opened(weights, backend="openvino", precision="bf16")
    assert opened(weights, device="cpu", precision="bf16").name == "torch"


def test_devices_and_precisions(tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_network(tiny_weights("yolo26n"))
    with pytest.raises(SettingsError, match="device is 'nonsense', which cannot be used"):
        TorchBackend(*loaded, "nonsense")
    with pytest.raises(SettingsError, match="device is 'nonsense', which cannot be used"):
        opened(tiny_weights("yolo26n"), device="nonsense")
    with pytest.raises(SettingsError, match="precision is 'fp16', which the CPU does not support"):
        opened(tiny_weights("yolo26n"), device="cpu", precision="fp16")
    monkeypatch.setattr(backends, "has_bf16_units", lambda: True)
    assert TorchBackend(*loaded, "cpu", "auto").precision == "bf16"
    monkeypatch.setattr(backends, "has_bf16_units", lambda: False)
    assert TorchBackend(*loaded, "cpu", "auto").precision == "fp32"
    if find_spec("openvino"):
        assert opened(tiny_weights("yolo26n"), backend="openvino").precision == "fp32", "never what OpenVINO chooses"


def test_a_cuda_device_that_is_not_there(tiny_weights: Weights) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SettingsError, match="device is 'cuda:0', which cannot be used"):
        TorchBackend(*load_network(tiny_weights("yolo26n")), "cuda:0")


# --- agreement --------------------------------------------------------------------------------------------------------


@needs_openvino
@pytest.mark.parametrize("kind", KINDS)
def test_openvino_puts_out_what_torch_does(tiny_weights: Weights, kind: str) -> None:
    """One graph for every kind and shape, those it was not traced with too."""
    ours, theirs = openvino(tiny_weights(kind)), TorchBackend(*load_network(tiny_weights(kind)), "cpu", "fp32")
    assert ours.spec == theirs.spec
    for shown in (batch(1, 2, 3), batch(4, height=160, width=64)):
        pairs = list(zip(tensors(ours(shown)), tensors(theirs(shown)), strict=True))
        for mine, other in pairs:
            assert (mine.shape, mine.dtype) == (other.shape, torch.float32)
            torch.testing.assert_close(mine, other, atol=2e-3, rtol=1e-3)


@cache
def detections(backend: str, precision: str) -> list[Detections]:
    """What the demo detector sees in drawn scenes, four frames of each kind of event."""
    detector = Detector(opened(DEMO, backend=backend, device="cpu", precision=precision), DetectorSettings(imgsz=320))
    box = Letterbox.fit(SIZE_PX, 320, detector.stride)
    canvas = np.empty((4, *box.input_hw, 3), np.uint8)
    found = []
    for images in scenes():
        for image, place in zip(images, canvas, strict=True):
            box.place(image, place)
        found += detector.detect(canvas, [box] * 4)
    return found


@cache
def scenes() -> list[list[np.ndarray]]:
    clips = [plan_clip(kind, 70 + number).frames() for number, kind in enumerate(EVENTS)]
    return [[image for image, _, _ in islice(frames, 8, 36, 8)] for frames in clips]


@pytest.mark.skipif(not DEMO.exists(), reason="the demo detector is not there")
@pytest.mark.parametrize(
    ("backend", "precision"),
    [
        pytest.param("torch", "bf16", marks=needs_bf16),
        pytest.param("openvino", "fp32", marks=needs_openvino),
        pytest.param("openvino", "bf16", marks=[needs_openvino, needs_bf16]),
    ],
)
def test_backends_and_precisions_agree_with_torch_fp32(backend: str, precision: str) -> None:
    measured = agreement(detections("torch", "fp32"), detections(backend, precision))
    assert min(measured.boxes) > 40
    assert measured.holds(), measured


def test_the_measure_of_agreement() -> None:
    def seen(boxes: list[list[float]], scores: list[float], classes: list[int]) -> Detections:
        many = np.eye(len(boxes), 64, dtype=np.float16)
        return Detections(
            boxes=np.array(boxes, np.float32),
            scores=np.array(scores, np.float16),
            classes=np.array(classes, np.int16),
            appearance=many,
            colour=np.zeros((len(boxes), 9), np.float16),
            scene=np.ones(64, np.float16),
            angle=None,
            keypoints=None,
        )

    here, near, there = [0.0, 0.0, 0.2, 0.5], [0.0, 0.0, 0.2, 0.4], [0.6, 0.6, 0.8, 0.8]
    first = seen([here, here, there], [0.9, 0.3, 0.2], [0, 1, 0])
    assert agreement([first], [first]) == Agreement(
        boxes=(2, 2), matched=(1.0, 1.0), iou=1.0, classes=1.0, appearance=1.0, colour=0.0, scene=1.0
    )
    second = seen([near, there], [0.2, 0.5], [1, 2])
    measured = agreement([first], [second])  # `here` of class 1 goes with `near`, the weak `there` with the strong one
    assert (measured.boxes, measured.matched) == ((2, 1), (0.5, 1.0))
    assert (measured.iou, measured.classes) == (pytest.approx(0.9), 0.5)
    assert not measured.holds()


# --- the same bytes ---------------------------------------------------------------------------------------------------


@needs_openvino
@pytest.mark.parametrize("precision", PRECISIONS)
def test_openvino_sees_an_image_alike_whatever_runs_beside_it(tiny_weights: Weights, precision: str) -> None:
    """In whatever batch and place, with any number of streams, and from threads that call at the same time."""
    weights = tiny_weights("yolo26n")
    truth = dict(enumerate(images(openvino(weights, precision)(batch(*range(4))))))
    assert len(set(truth.values())) == 4
    for streams in (1, 2, 3):
        backend = openvino(weights, precision, streams)
        wrong: list[tuple[int, ...]] = []

        def look(turn: int, backend: OpenVinoBackend = backend, wrong: list[tuple[int, ...]] = wrong) -> None:
            for step in range(4):
                numbers = tuple((turn + step * (place + 1)) % 4 for place in range(4))
                if images(backend(batch(*numbers))) != [truth[number] for number in numbers]:
                    wrong.append(numbers)

        threads = [threading.Thread(target=look, args=(turn,)) for turn in range(streams + 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


@needs_openvino
def test_openvino_output_is_the_callers_to_keep(tiny_weights: Weights) -> None:
    backend = openvino(tiny_weights("yolo26n"))
    shown = batch(5, 6)
    first = backend(shown)
    before = images(first)
    backend(batch(7, 8))
    assert images(first) == before
    assert torch.equal(shown, batch(5, 6)), "the input is only read"
    assert images(backend(shown[:, :, :64]))[0] == images(backend(shown[:, :, :64].contiguous()))[0]


# --- how OpenVINO runs ------------------------------------------------------------------------------------------------


@needs_openvino
@pytest.mark.parametrize("precision", PRECISIONS)
def test_openvino_runs_as_it_is_told(tiny_weights: Weights, precision: str) -> None:
    backend = openvino(tiny_weights("yolo26n"), precision, streams=2)
    model = backend._compile((2, 64, 64, 3))._model
    assert model.get_property("INFERENCE_PRECISION_HINT").get_type_name() == {"fp32": "f32"}.get(precision, precision)
    assert model.get_property("NUM_STREAMS") == model.get_property("INFERENCE_NUM_THREADS") == min(2, count_cores())
    assert model.get_property("ENABLE_CPU_PINNING") is False


@needs_openvino
def test_a_shape_is_compiled_once_and_a_few_are_kept(tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
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
    for shown in (batch(1, 2), batch(3), batch(4, 5, 6), batch(7)):  # the single ones are never the longest unused
        backend(shown)
    assert [shape[0] for shape in compiled] == [1, 2, 3]
    backend(batch(1, 2))
    assert [shape[0] for shape in compiled] == [1, 2, 3, 2]
    assert len(backend._compiled) == 2
