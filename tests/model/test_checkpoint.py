import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save, save_file

from tests.model.networks import FEATURE_SETTINGS, make_model, random_batch
from tests.sequences import make_sequence
from vidgru.config import NetworkSettings
from vidgru.errors import ModelError, SettingsError, SettingsMismatchError
from vidgru.model.captioner import CaptionSegment, caption_segments
from vidgru.model.checkpoint import (
    BEST,
    FORMAT,
    METADATA,
    check_feature_settings,
    detector_settings,
    load_model,
    model_file,
)
from vidgru.model.event_gru import EventGRU, count_parameters
from vidgru.model.features import compute_features
from vidgru.model.tokenizer import Tokenizer

SENTENCES = ("A man falls.", "사람이 넘어진다. 🧎", "Um homem cai: não levanta.", "有人摔倒了。")
SHAPES = [
    {},
    {"cell": "lstm", "hidden": 20, "layers": 2, "timed": True, "lookahead": 3},
    {"cell": "none", "multi_label": True, "background": False},
    {"bidirectional": True, "width": 32, "clips": False, "timed": True},
    {"drop_features": ("appearance", "time")},
    {"timed": True, "sentences": SENTENCES, "members": 3},
    {"clips": False, "sentences": SENTENCES, "drop_features": ("geometry", "scene")},
    {"timed": True, "lookahead": 2, "members": 2, "linear": True, "masked_groups": ("scene", "colour")},
    {"linear": True, "multi_label": True, "background": False},
]


@pytest.mark.parametrize("shape", SHAPES)
def test_load_model_inverts_save(shape: dict[str, object], tmp_path: Path) -> None:
    model = make_model(**shape)
    model.save(tmp_path / "a.safetensors")
    loaded = load_model(tmp_path / "a.safetensors")
    assert loaded.to_bytes() == model.to_bytes()
    for name in (
        "task",
        "labels",
        "feature_settings",
        "weights",
        "names",
        "decode",
        "window_s",
        "lookahead",
        "masked_groups",
        "metrics",
        "versions",
    ):
        assert getattr(loaded, name) == getattr(model, name)
    assert loaded.feature_spec == model.feature_spec
    assert loaded.network.architecture == model.network.architecture
    assert not loaded.network.training
    batch = random_batch(model.feature_spec)
    for ours, theirs in zip(loaded.network(*batch), model.network(*batch), strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)
    assert count_parameters(loaded.network) == count_parameters(model.network)
    assert (loaded.linear is None) == (model.linear is None)
    if loaded.linear and model.linear:
        assert loaded.linear.metadata() == {**model.linear.metadata(), "drop_groups": ("appearance",)}
        ours, theirs = loaded.linear.tensors(), model.linear.tensors()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("heads", [{}, {"timed": True, "clips": False}, {"clips": False}])
def test_load_model_inverts_save_with_captions(heads: dict[str, bool], tmp_path: Path) -> None:
    sequence = make_sequence(60, seed=1)
    model = make_model(sequence, sentences=SENTENCES, seed=2, **heads)
    assert model.caption is not None
    model = replace(model, caption=replace(model.caption, threshold=0.125, longest=9))
    model.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert loaded.to_bytes() == model.to_bytes()
    assert loaded.caption is not None
    assert (loaded.caption.longest, loaded.caption.threshold) == (9, 0.125)
    assert loaded.caption.labels == model.caption.labels
    assert len(loaded.caption.tokenizer) == len(model.caption.tokenizer)
    for sentence in SENTENCES:
        assert loaded.caption.tokenizer.encode(sentence) == model.caption.tokenizer.encode(sentence)
    features = compute_features(sequence)
    segments = [CaptionSegment(features=features.frames(a, a + 10), label=model.labels[0]) for a in range(0, 50, 9)]
    captions = caption_segments(model, segments)
    assert caption_segments(loaded, segments) == captions
    assert len({written.text for written in captions}) > 2


def test_load_model_draws_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device that would import PyTorch's compiler."""
    make_model(make_sequence(2), sentences=SENTENCES).save(tmp_path / "m")
    monkeypatch.setattr(torch.Tensor, "normal_", lambda *args, **kwargs: pytest.fail("initial weights are drawn"))
    assert load_model(tmp_path / "m").caption is not None


def test_to_bytes_includes_caption_settings() -> None:
    model = make_model(sentences=SENTENCES)
    assert model.caption is not None
    for changes in ({"threshold": 0.5}, {"longest": 3}, {"labels": ("walk",)}):
        assert replace(model, caption=replace(model.caption, **changes)).to_bytes() != model.to_bytes()


def test_to_bytes_of_equal_models() -> None:
    assert make_model().to_bytes() == make_model().to_bytes()
    assert make_model().to_bytes() != make_model(seed=1).to_bytes()


def test_to_bytes_includes_linear_paths() -> None:
    model = make_model(linear=True)
    assert model.linear is not None
    assert model.linear.clips is not None
    changes = [
        {"linear": None},
        {"masked_groups": ("scene",)},
        {"linear": replace(model.linear, drop_groups=())},
        {"linear": replace(model.linear, clip_mix=replace(model.linear.clip_mix, linear=0.25))},
    ]
    assert make_model(linear=True).to_bytes() == model.to_bytes()
    assert all(replace(model, **change).to_bytes() != model.to_bytes() for change in changes)
    before = model.to_bytes()
    model.linear.clips.bias += 1
    assert model.to_bytes() != before


def test_load_model_of_run_folder(tmp_path: Path) -> None:
    make_model().save(tmp_path / BEST)
    assert load_model(tmp_path).to_bytes() == load_model(str(tmp_path / BEST)).to_bytes()


def test_model_file_of_a_loaded_model_is_refused() -> None:
    with pytest.raises(ModelError, match=r"a path is needed here, not a loaded model\n  write it .* model\.save"):
        model_file(make_model())  # type: ignore[arg-type]


def test_load_model_refuses_missing_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no model .*gone\n  give a model file, or the folder that vidgru"):
        load_model(tmp_path / "gone")
    with pytest.raises(ModelError, match=r"contains no best\.safetensors"):
        load_model(tmp_path)


def test_load_model_refuses_exported_model(tmp_path: Path) -> None:
    (tmp_path / "best.onnx").write_bytes(b"")
    message = r"best\.onnx is an exported model \(ONNX\), which vidgru does not run\n  use the .*onnx_events\.py"
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "best.onnx")


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x10\0\0\0\0\0\0\0{}"])
def test_load_model_refuses_other_file(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(data)
    with pytest.raises(ModelError, match=r"x\.pt is not a vidgru model: "):
        load_model(tmp_path / "x.pt")


def test_load_model_refuses_other_safetensors(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=r"x\.safetensors is not a vidgru model: its metadata has no key vidgru"):
        load_model(tmp_path / "x.safetensors")


def save_with_metadata(path: Path, **model_metadata: object) -> None:
    model = make_model()
    data = model.to_bytes()
    length = int(np.frombuffer(data[:8], "<u8")[0])
    header = json.loads(data[8 : 8 + length])
    values = json.loads(header["__metadata__"]["vidgru"])
    header["__metadata__"]["vidgru"] = json.dumps({**values, **model_metadata})
    text = json.dumps(header).encode()
    path.write_bytes(np.array([len(text)], "<u8").tobytes() + text + data[8 + length :])


def test_load_model_refuses_newer_format(tmp_path: Path) -> None:
    save_with_metadata(tmp_path / "m", format=FORMAT + 1)
    with pytest.raises(ModelError, match=rf"m has model format {FORMAT + 1}, this vidgru reads {FORMAT}\n  train"):
        load_model(tmp_path / "m")


def test_load_model_refuses_older_format(tmp_path: Path) -> None:
    save_with_metadata(tmp_path / "m", format=2)
    message = rf"m has model format 2, this vidgru reads {FORMAT}\n  train it again, or use the vidgru version that"
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "m")


@pytest.mark.parametrize(
    "model_metadata",
    [
        {"task": {"labels": ["a"], "clip_head": {"background": True, "multi_label": False}, "frame_head": None}},
        {"task": {"labels": ["fall", "walk"], "clip_head": None, "frame_head": None}},
        {"task": ["fall"]},
        {"feature_spec": {}},
        {"decode": None},
        {"architecture": {"cell": 3}},
        {"caption": {"tokenizer": "{}", "longest": 3, "labels": [], "threshold": 0.0}},
        {"caption": {"tokenizer": Tokenizer.train(SENTENCES).to_json(), "longest": 3, "labels": []}},
        {"caption": {"longest": 3}},
        {"linear": {"shapes": {"clips": [3, 4]}}},
        {"linear": {"shapes": {"clips": [3, 4]}, "drop_groups": [], "clip_mix": {}, "frame_mix": {}}},
        {"architecture": {**asdict(NetworkSettings()), "layers": 10**9}},
        {"members": 10**9},
        {"members": 2},
        {"feature_spec": {"classes": 10**12}},
        {"decode": {"high": [math.nan] * 2, "low": [0.1] * 2, "min_s": 0, "merge_s": 0, "exclusive": True}},
        {"decode": {"high": [0.5], "low": [0.1], "min_s": 0, "merge_s": 0, "exclusive": True}},
        {"window_s": math.inf},
        {"lookahead": -1},
        {"feature_settings": {"fps": 0.0}},
        {"feature_settings": {**FEATURE_SETTINGS, "mask": "/dev/tty"}},
        {"feature_settings": {**FEATURE_SETTINGS, "imgsz": "640"}},
        {"masked_groups": ["nothing"]},
        {"metrics": [1, 2]},
        {"weights": None},
    ],
)
def test_load_model_refuses_inconsistent_metadata(model_metadata: dict[str, object], tmp_path: Path) -> None:
    save_with_metadata(tmp_path / "m", **model_metadata)
    with pytest.raises(ModelError, match=r"m is not a valid vidgru model: .+\n  train it again"):
        load_model(tmp_path / "m")


def test_load_model_refuses_tensors_that_do_not_fit(tmp_path: Path) -> None:
    data = make_model().to_bytes()
    tensors = load(data)
    metadata = {METADATA: json.dumps(make_model().metadata())}
    name = next(iter(tensors))
    for changed, message in (
        (torch.full_like(tensors[name], math.nan), f"{name} holds numbers that are not finite"),
        (tensors[name][None], rf"{name} is \[1, .*\], its architecture has \["),
    ):
        (tmp_path / "m").write_bytes(save({**tensors, name: changed.contiguous()}, metadata))
        with pytest.raises(ModelError, match=f"m is not a valid vidgru model: {message}"):
            load_model(tmp_path / "m")
    del tensors[name]
    (tmp_path / "m").write_bytes(save(tensors, metadata))
    with pytest.raises(ModelError, match=f"{name} is missing"):
        load_model(tmp_path / "m")


def test_with_thresholds_of_all_or_some_labels() -> None:
    model = make_model(timed=True)
    first, *others = model.labels
    assert model.with_thresholds(None) is model
    assert set(model.with_thresholds(0.25).decode.high) == {0.25}
    assert model.with_thresholds({first: 0.25}).decode.high == (0.25, *model.decode.high[1:])
    assert others
    with pytest.raises(SettingsError, match=rf"threshold holds 'x', .*\n  its labels are {first}, "):
        model.with_thresholds({"x": 0.5})
    with pytest.raises(SettingsError, match="threshold is given, but this model only writes captions"):
        make_model(clips=False, sentences=SENTENCES).with_thresholds(0.5)


def test_check_feature_settings() -> None:
    model = make_model()
    check_feature_settings(model, dict(FEATURE_SETTINGS), "features of a.mp4")
    message = (
        r"features of a\.mp4 .*: fps is 5\.0, the model's is 8\.0; imgsz is 320, the model's is 640\n  pass --weights"
    )
    with pytest.raises(SettingsMismatchError, match=message):
        check_feature_settings(model, {**FEATURE_SETTINGS, "fps": 5.0, "imgsz": 320}, "features of a.mp4")
    with pytest.raises(SettingsMismatchError, match="schema is None, the model's is 2"):
        check_feature_settings(
            model, {name: value for name, value in FEATURE_SETTINGS.items() if name != "schema"}, "a.mp4"
        )


def test_features_of_a_part_of_a_recording_are_refused() -> None:
    message = r"features of a\.mp4 cover only 0:05:00-the end of the recording\n  give the recording itself"
    with pytest.raises(SettingsMismatchError, match=message):
        check_feature_settings(make_model(), {**FEATURE_SETTINGS, "span": [300, None]}, "features of a.mp4")


def test_model_reads_adaptive_and_full_features() -> None:
    model, adaptive = make_model(), {**FEATURE_SETTINGS, "adaptive": True}
    check_feature_settings(model, adaptive, "features of a.mp4")
    trained_on_adaptive = model.with_adaptive(True)
    assert trained_on_adaptive.feature_settings == adaptive
    assert detector_settings(trained_on_adaptive).adaptive
    check_feature_settings(trained_on_adaptive, dict(FEATURE_SETTINGS), "features of a.mp4")
    assert trained_on_adaptive.with_adaptive(None) is trained_on_adaptive
    assert trained_on_adaptive.with_adaptive(False).feature_settings == FEATURE_SETTINGS


def test_detector_settings() -> None:
    model = make_model()
    assert detector_settings(model).feature_settings("0" * 64) == FEATURE_SETTINGS
    assert detector_settings(model).weights == "detector.pt"
    assert detector_settings(model, "elsewhere.pt").weights == "elsewhere.pt"


def test_save_writes_tensors_only(tmp_path: Path) -> None:
    make_model().save(tmp_path / "m")
    assert b"pickle" not in (tmp_path / "m").read_bytes()
    network = EventGRU(make_model(make_sequence(5)).feature_spec, 2, 2, NetworkSettings())
    parts = ("encoder.", "gru.", "clip_head.", "frame_head.")
    assert all(name.startswith(parts) for name in network.state_dict())
