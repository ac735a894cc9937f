"""Weights files: finding and loading them, and the properties of networks."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.detectors import KINDS, NAMES, Weights
from vidgru.detector.openvino_export import _export as export_graph
from vidgru.detector.weights import find_weights
from vidgru.detector.yolo_head import load_network
from vidgru.errors import WeightsError


@pytest.mark.parametrize("kind", KINDS)
def test_load_network_reads_properties(tiny_weights: Weights, kind: str) -> None:
    module, network = load_network(tiny_weights(kind))
    is_yolo26 = kind.startswith("yolo26")
    assert (network.names, network.task, network.strides) == (NAMES, KINDS[kind], (8, 16, 32))
    assert (network.reg_max, network.needs_nms) == (1 if is_yolo26 else 16, not is_yolo26)
    assert KINDS[kind] not in ("pose", "obb") or network.has_legacy_coding == (not is_yolo26)
    assert network.keypoints == ((17, 3) if KINDS[kind] == "pose" else None)
    assert network.flip_idx == ()  # these weights do not name their keypoints
    with torch.inference_mode():
        raw = module(torch.zeros(2, 3, 64, 96))
    assert raw.distances.shape == (2, 126, 4 * network.reg_max)
    assert raw.logits.shape == (2, 126, 3)
    assert [tuple(level.shape[1:]) for level in raw.pyramid] == [
        (channels, 64 // stride, 96 // stride)
        for channels, stride in zip(network.channels, network.strides, strict=True)
    ]
    widths = {"pose": 17 * 3, "obb": 1}
    if KINDS[kind] in widths:
        assert raw.extra.shape == (2, 126, widths[KINDS[kind]])
    else:
        assert raw.extra is None, "mask coefficients are not computed"


def test_load_network_reads_sides_of_keypoints(tiny_weights: Weights, tmp_path: Path) -> None:
    checkpoint = torch.load(tiny_weights("yolov8n-pose"), weights_only=False)
    pairs = [f"{side} {number}" for number in range(8) for side in ("left", "right")]
    checkpoint["model"].kpt_names = {index: [*pairs, "nose"] for index in range(3)}
    torch.save(checkpoint, tmp_path / "named.pt")
    _, network = load_network(tmp_path / "named.pt")
    assert network.flip_idx == (1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14, 16)


def test_find_weights_of_missing_file_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"no such weights file: .*none\.pt"):
        find_weights(str(tmp_path / "none.pt"))
    monkeypatch.chdir(tmp_path)

    def offline(*args: object, **kwargs: object) -> str:
        raise ConnectionError("Download failure: no route to host")

    monkeypatch.setattr("ultralytics.utils.downloads.attempt_download_asset", offline)
    with pytest.raises(WeightsError, match=r"yolo26n\.pt cannot be downloaded: .*no route") as caught:
        find_weights("yolo26n.pt")
    assert "--weights" in caught.value.remedy


def test_load_network_of_other_files_raises(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("not weights")
    with pytest.raises(WeightsError, match=r"text\.pt cannot be loaded"):
        load_network(tmp_path / "text.pt")
    (tmp_path / "a.onnx").write_bytes(b"onnx")
    with pytest.raises(WeightsError, match=r"is not an Ultralytics weights file \(\.pt\)"):
        load_network(tmp_path / "a.onnx")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"other\.pt cannot be loaded"):
        load_network(tmp_path / "other.pt")


class Payload:
    """Makes a folder when it is unpickled by a loader that runs code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_load_network_runs_no_code_of_the_file(tiny_weights: Weights, tmp_path: Path) -> None:
    checkpoint = torch.load(tiny_weights("yolo26n"), weights_only=False)
    torch.save({**checkpoint, "note": Payload(tmp_path / "ran")}, tmp_path / "crafted.pt")
    with pytest.raises(WeightsError, match=r"crafted\.pt would run code .* it imports \w+\.mkdir\n.*--trust-weights"):
        load_network(tmp_path / "crafted.pt")
    with pytest.raises(WeightsError, match="would run code"):
        export_graph(tmp_path / "crafted.pt", trusted=False)
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with pytest.raises(WeightsError, match=r"raw\.pt cannot be loaded"):
        load_network(tmp_path / "raw.pt")
    torch.save({**checkpoint, "modelopt": {"modelopt": {}}}, tmp_path / "quantized.pt")
    with pytest.raises(WeightsError, match="it imports modelopt"):
        load_network(tmp_path / "quantized.pt")
    assert not (tmp_path / "ran").exists()
    _, network = load_network(tmp_path / "crafted.pt", trusted=True)
    assert (tmp_path / "ran").exists()
    assert network.names == NAMES


def test_load_network_of_classifier_raises(tmp_path: Path) -> None:
    from ultralytics.nn.tasks import ClassificationModel

    model = ClassificationModel("yolov8n-cls.yaml", nc=3, verbose=False)
    torch.save({"model": model, "train_args": {}}, tmp_path / "cls.pt")
    with pytest.raises(WeightsError, match="not a supported detector: its head is Classify"):
        load_network(tmp_path / "cls.pt")
