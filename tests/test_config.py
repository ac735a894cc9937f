from dataclasses import FrozenInstanceError

import pytest

from vidgru.config import (
    CompareConfig,
    ConvertConfig,
    DemoConfig,
    DetectorSettings,
    EvalConfig,
    ExplainConfig,
    ExportConfig,
    ExtractConfig,
    ImportedDetectionSettings,
    NetworkSettings,
    PredictConfig,
    PretrainConfig,
    RuntimeSettings,
    TrainConfig,
)
from vidgru.errors import SettingsError
from vidgru.flags import from_settings, list_flags, parse_duration, to_settings, with_settings

CONFIGS = [
    CompareConfig, ConvertConfig, DemoConfig, EvalConfig, ExplainConfig, ExportConfig, ExtractConfig, PredictConfig,
    TrainConfig,
]  # fmt: skip
MASK = "[[[0, 0], [1, 0], [1, 1]]]"


# --- checks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "flags", "message"), [
    (ExtractConfig, {"fps": 0.0}, "fps is 0.0; it must be above 0 and at most 240"),
    (ExtractConfig, {"imgsz": 100}, "imgsz is 100; it must be a multiple of 32"),
    (ExtractConfig, {"conf": 1.0}, "conf is 1.0; it must be between 0 and 1"),
    (ExtractConfig, {"iou": 0.0}, "iou is 0.0; it must be above 0 and at most 1"),
    (ExtractConfig, {"max_objects": 0}, "max_objects is 0; it must be at least 1"),
    (ExtractConfig, {"tracker": "sort"}, "tracker is 'sort'; it must be one of bytetrack, ocsort, none"),
    (ExtractConfig, {"shard": "3/2"}, "shard is '3/2'; it must be a number and how many there are"),
    (ExtractConfig, {"shard": "1/2", "ray": "auto"}, "shard is '1/2'; it must be left out with ray"),
    (ExtractConfig, {"workers": 2}, "workers is 2; it must be left out without ray"),
    (ExtractConfig, {"ray": "auto", "gpus_per_worker": 1.5}, "1.5; it must be a whole number, or less than 1"),
    (EvalConfig, {"threads": -1}, "threads is -1; it must be 0 or more"),
    (EvalConfig, {"beam": 0}, "beam is 0; it must be from 1 to 64"),
    (PredictConfig, {"precision": "fp8"}, "precision is 'fp8'; it must be one of auto, fp32, bf16, fp16"),
    (PredictConfig, {"labels": "run"}, "labels is 'run'; it must be a tuple"),
    (PredictConfig, {"since": "noon"}, "since is 'noon'; it must be an ISO 8601 time\n  such as 2024"),
    (PredictConfig, {"since": "2024-05-02", "until": "2024-05-01"}, "until is '2024-05-01'; it must be after since"),
    (PredictConfig, {"merge_only": True, "shard": "1/2"}, "shard is '1/2'; it must be left out with merge_only"),
    (PredictConfig, {"threshold": 1.5}, "threshold is 1.5; it must be from 0 to 1, for all labels or by label: fall"),
    (PredictConfig, {"threshold": {"a": "x"}}, "threshold is {'a': 'x'}; it must be from 0 to 1"),
    (ExplainConfig, {"threshold": {"a": -0.1}}, "threshold is {'a': -0.1}; it must be from 0 to 1"),
    (TrainConfig, {"folds": 1}, "folds is 1; it must be 0, or at least 2"),
    (TrainConfig, {"group_by": "video"}, "group_by is 'video'; it must be left out without --folds"),
    (TrainConfig, {"members": 33}, "members is 33; it must be from 0 to 32"),
    (TrainConfig, {"members": -1}, "members is -1; it must be from 0 to 32"),
    (TrainConfig, {"epochs": 0}, "epochs is 0; it must be at least 1"),
    (TrainConfig, {"batch": 0}, "batch is 0; it must be at least 1"),
    (TrainConfig, {"patience": -1}, "patience is -1; it must be 0 or more"),
    (TrainConfig, {"seed": -1}, "seed is -1; it must be 0 or more"),
    (TrainConfig, {"lr": 0.0}, "lr is 0.0; it must be above 0 and at most 1"),
    (TrainConfig, {"weight_decay": -0.1}, "weight_decay is -0.1; it must be 0 or more"),
    (TrainConfig, {"window": 0.5}, "window is 0.5; it must be 0, or from 1 to 3600 seconds"),
    (TrainConfig, {"dropout": 1.0}, "dropout is 1.0; it must be at least 0 and below 1"),
    (TrainConfig, {"group_dropout": -0.1}, "group_dropout is -0.1; it must be at least 0 and below 1"),
    (TrainConfig, {"hidden": 0}, "hidden is 0; it must be from 1 to 8192"),
    (TrainConfig, {"cell": "qrnn"}, "cell is 'qrnn'; it must be one of gru, lstm, rnn, none"),
    (TrainConfig, {"drop_features": ("looks",)}, "drop_features is 'looks'; it must be one of geometry"),
    (PretrainConfig, {"cell": "none"}, "cell is 'none'; it must be one that remembers: gru, lstm or rnn"),
    (PretrainConfig, {"bidirectional": True}, "bidirectional is True; it must be left out: a start is causal"),
    (PretrainConfig, {"window": 0.5}, "window is 0.5; it must be from 1 to 3600 seconds"),
    (CompareConfig, {"resume": True}, "resume is True; it must be left out: a comparison always trains from scratch"),
    (ExplainConfig, {"at": -1.0}, "at is -1.0; it must be a second of the recording"),
    (ConvertConfig, {"format": "xml"}, "format is 'xml'; it must be one of native"),
    (ExportConfig, {"format": "coreml"}, "format is 'coreml'; it must be one of onnx"),
    (DemoConfig, {"seed": -1}, "seed is -1; it must be 0 or more"),
])  # fmt: skip
def test_config_rejects_bad_values(kind: type, flags: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_settings(kind, **flags)
    assert message in str(caught.value)


@pytest.mark.parametrize(("flags", "message"), [
    ({"source_fps": 25.0}, "source_fps is 25.0; it must be left out without detections"),
    ({"source_size": "9x9"}, "source_size is '9x9'; it must be left out without detections"),
    ({"classes": "data.yaml"}, "classes is 'data.yaml'; it must be left out without detections"),
    ({"detections": "labels", "source_fps": -1.0}, "source_fps is -1.0; it must be from 0 to 1000"),
    ({"detections": "labels", "source_size": "big"}, "source_size is 'big'; it must be width and height in pixels"),
    ({"detections": "labels", "mask": MASK}, "mask is .* it must be left out with detections"),
])  # fmt: skip
@pytest.mark.parametrize("kind", [ExtractConfig, TrainConfig])
def test_imported_detections_reject_bad_values(kind: type, flags: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        from_settings(kind, **flags)


@pytest.mark.parametrize("flags", [{"shard": "1/2"}, {"ray": "auto"}, {"dry_run": True}])
def test_imported_detections_exclude_scaling(flags: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="it must be left out with detections"):
        from_settings(ExtractConfig, detections="labels", **flags)


def test_source_size_is_parsed() -> None:
    assert ImportedDetectionSettings(detections="labels", source_size="1920x1080").size_px == (1920, 1080)
    assert ImportedDetectionSettings(detections="labels").size_px is None


# --- flat flags -----------------------------------------------------------------------------------------------------


def test_from_flags_reaches_every_group() -> None:
    config = from_settings(TrainConfig, fps=5, device="cpu", hidden=32, epochs=2)
    assert config == TrainConfig(
        detector=DetectorSettings(fps=5),
        runtime=RuntimeSettings(device="cpu"),
        network=NetworkSettings(hidden=32),
        epochs=2,
    )
    with pytest.raises(FrozenInstanceError):
        config.epochs = 3  # type: ignore[misc]


def test_with_flags_keeps_defaults_of_nested_configs() -> None:
    config = with_settings(CompareConfig(), fps=5, epochs=2)
    assert (config.train.out, config.train.captions) == ("runs/compare", False)
    assert (config.train.detector.fps, config.train.epochs) == (5.0, 2)


def test_with_flags_rejects_unknown_settings() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting 'epoch'\n  did you mean epochs\?"):
        from_settings(TrainConfig, epoch=3)


@pytest.mark.parametrize("kind", CONFIGS)
def test_flags_round_trip(kind: type) -> None:
    flags = to_settings(kind())
    assert flags.keys() == list_flags(kind()).keys()
    assert from_settings(kind, **flags) == kind()


@pytest.mark.parametrize(("kind", "name", "text", "value"), [
    (ExtractConfig, "fps", "5", 5.0), (ExtractConfig, "imgsz", "64", 64), (ExtractConfig, "weights", "5", "5"),
    (ExplainConfig, "at", "5", 5.0), (ExplainConfig, "at", "null", None), (ExplainConfig, "at", "0:08", 8.0),
    (ExplainConfig, "at", "75:30.5", 4530.5), (ExplainConfig, "at", "1:02:03", 3723.0),
    (ExtractConfig, "verbose", "true", True), (ExtractConfig, "verbose", "Off", False),
    (PredictConfig, "labels", "a, b", ("a", "b")),
    (PredictConfig, "threshold", "0.5", 0.5), (PredictConfig, "threshold", "a=0.4, b=1", {"a": 0.4, "b": 1.0}),
    (PredictConfig, "threshold", "slips, and falls=0.4,a=b=0.2", {"slips, and falls": 0.4, "a=b": 0.2}),
    (PredictConfig, "threshold", {"a": "0.4"}, {"a": 0.4}), (PredictConfig, "threshold", "", None),
    (PredictConfig, "labels", "", ()), (CompareConfig, "cells", "[gru,none]", ("gru", "none")),
    (PredictConfig, "labels", ["a", "b,c"], ("a", "b,c")), (ExtractConfig, "mask", [[["0", "0"]]], '[[["0", "0"]]]'),
])  # fmt: skip
def test_flags_parse_text(kind: type, name: str, text: object, value: object) -> None:
    assert list_flags(kind())[name].parse(text) == value


@pytest.mark.parametrize(("kind", "name", "text", "message"), [
    (ExtractConfig, "fps", "x", "fps is 'x'; it must be a number"),
    (ExtractConfig, "imgsz", "1.5", "imgsz is '1.5'; it must be a whole number"),
    (ExtractConfig, "verbose", "1", "verbose is '1'; it must be one of true, false"),
    (ExtractConfig, "tracker", "sort", "tracker is 'sort'; it must be one of bytetrack, ocsort, none"),
    (CompareConfig, "cells", "gru,x", "cells is 'x'; it must be one of gru, lstm, rnn, none"),
    (PredictConfig, "threshold", "a=0.4,0.5", "threshold is 'a=0.4,0.5'; it must be a number, or numbers by name"),
    (PredictConfig, "threshold", "a=b", "threshold is 'b'; it must be a number"),
    (ExplainConfig, "at", "0:99", r"at is '0:99'; it must be seconds \(83\.5\) or a clock time \(1:23\.5\)"),
    (ExplainConfig, "at", "noon", "at is 'noon'; it must be seconds"),
    (ExtractConfig, "imgsz", ["1", "2"], r"imgsz is \['1', '2'\]; it must be a single value"),
])  # fmt: skip
def test_flags_reject_other_types(kind: type, name: str, text: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        list_flags(kind())[name].parse(text)


def test_adaptive_is_part_of_feature_settings() -> None:
    assert "adaptive" not in DetectorSettings().feature_settings("0"), "keys of earlier caches remain"
    assert DetectorSettings(adaptive=True).feature_settings("0")["adaptive"] is True
    with pytest.raises(SettingsError, match="adaptive is True; it must be left out with detections"):
        from_settings(ExtractConfig, adaptive=True, detections="boxes")


def test_only_is_part_of_feature_settings() -> None:
    assert "only" not in DetectorSettings().feature_settings("0"), "keys of earlier caches remain"
    both = [DetectorSettings(only=only).feature_settings("0") for only in (("person", "car"), ("car", "person", "car"))]
    assert both[0] == both[1]
    assert both[0]["only"] == ["car", "person"]
    with pytest.raises(SettingsError, match="it must be left out with detections"):
        from_settings(TrainConfig, only=("person",), detections="boxes")


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400)])
def test_parse_duration(text: str, seconds: float) -> None:
    assert parse_duration("for_", text) == seconds


@pytest.mark.parametrize("text", ["0", "2 hours", "-1s", "h"])
def test_bad_duration_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=f"for is '{text}'; it must be a duration such as 90s, 30m or 2h"):
        PredictConfig(for_=text)
