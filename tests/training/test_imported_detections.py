"""Training, evaluation and prediction on imported detections: no video, no weights."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.prediction.fake_project import make_model
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, EvalConfig, ImportedDetectionSettings, PredictConfig, TrainConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.errors import AnnotationError, SettingsError, SettingsMismatchError
from vidgru.extraction.import_detections import add_sequence, extract_detections, open_detections
from vidgru.flags import from_settings
from vidgru.info import inspect_path
from vidgru.model.checkpoint import check_feature_settings, load_model
from vidgru.prediction.batch import predict
from vidgru.prediction.inputs import model_detector
from vidgru.training.evaluate import evaluate
from vidgru.training.run import train
from vidgru.types import FrameSequence

SPEEDS = {"walk": 20.0, "run": 90.0}  # pixels a second


def write_set(root: Path) -> Path:
    """MOT files of persons that walk or run, no videos, and annotations that name these."""
    rng = np.random.default_rng(0)
    rows = ["video,label,split"]
    (root / "mot").mkdir(parents=True)
    for number in range(24):
        label = list(SPEEDS)[number % 2]
        left = rng.uniform(0, 50) + SPEEDS[label] * np.arange(20) / 10
        lines = [f"{frame},1,{x:.1f},{rng.uniform(40, 44):.1f},30,80,0.9,1,1\n" for frame, x in enumerate(left, 1)]
        (root / "mot" / f"{number:02d}.txt").write_text("".join(lines))
        rows.append(f"clips/{number:02d}.mp4,{label},{'train' if number < 16 else 'val' if number < 20 else 'test'}")
    (root / "set.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_set(tmp_path_factory.mktemp("set"))
    train(root / "set.csv", config(root))
    return root


def config(root: Path, **changes: object) -> TrainConfig:
    values = {
        "detections": str(root / "mot"), "source_fps": 10.0, "source_size": "320x240", "epochs": 8, "batch": 8,
        "features": str(root / "features"), "out": str(root / "run"), "lr": 0.01, "members": 1,
    }  # fmt: skip
    return from_settings(TrainConfig, **{**values, **changes})


def eval_config(root: Path, **changes: object) -> EvalConfig:
    values = {"detections": str(root / "mot"), "source_fps": 10.0, "source_size": "320x240"}
    return from_settings(
        EvalConfig, **{**values, "features": str(root / "features"), "out": str(root / "eval"), **changes}
    )


def test_train_evaluate_and_predict(trained: Path) -> None:
    model = load_model(trained / "run")
    assert (model.weights, model.feature_settings["detections"], len(model.names)) == ("", 1, 100)
    metrics = evaluate(trained / "run", trained / "set.csv", eval_config(trained))
    assert metrics["accuracy"] == 1.0
    found = predict(
        trained / "run",
        [trained / "features"],
        PredictConfig(out=str(trained / "events"), report=False),
        progress=False,
    )
    assert [prediction.status for prediction in found] == ["done"] * 24
    assert [prediction.recording.name for prediction in found][:2] == ["00", "01"]
    again = predict(
        trained / "run",
        [trained / "features"],
        PredictConfig(out=str(trained / "events"), report=False),
        progress=False,
    )
    assert {prediction.status for prediction in again} == {"reused"}


def test_train_on_cache_of_detections(trained: Path, tmp_path: Path) -> None:
    train(trained / "set.csv", config(trained, detections=str(trained / "features"), source_fps=0.0, source_size="",
                                      out=str(tmp_path / "run"), epochs=1))  # fmt: skip
    one, two = (load_model(path / "run") for path in (trained, tmp_path))
    assert one.feature_settings == two.feature_settings
    assert one.trained_on == two.trained_on


def test_videos_without_detections_are_refused(tmp_path: Path) -> None:
    root = write_set(tmp_path)
    (root / "mot" / "03.txt").unlink()
    with pytest.raises(AnnotationError, match=r"1 video missing: clips/03.mp4 .* and the imported detections"):
        train(root / "set.csv", config(root))
    seen: Callable[[str], str | None] = {"clips/00.mp4": "00"}.get
    dataset = load_dataset(root / "set.csv", allow_missing=True, find_imported=seen)
    assert list(dataset.recordings) == ["00"]


def test_model_refuses_other_features(trained: Path, tmp_path: Path) -> None:
    model = load_model(trained / "run")
    with pytest.raises(SettingsMismatchError, match=r"vidgru cannot run its detector\n.*extract --detections"):
        model_detector(model, SequenceCache(tmp_path))
    changed = {"detections": "", "source_fps": 0.0, "source_size": ""}
    with pytest.raises(
        SettingsMismatchError, match="the model expects imported detections\n  pass them with --detections"
    ):
        evaluate(trained / "run", trained / "set.csv", eval_config(trained, **changed))
    theirs = DetectorSettings().feature_settings("ab" * 32)
    with pytest.raises(
        SettingsMismatchError, match="features of a come from vidgru's own detector, the model expects imported"
    ):
        check_feature_settings(model, theirs, "features of a")
    other = make_model(tmp_path / "m.safetensors", theirs)
    with pytest.raises(SettingsMismatchError, match=r"come from imported detections, .* features of detector.pt"):
        check_feature_settings(other, model.feature_settings, "features of a")
    with pytest.raises(SettingsMismatchError, match=r"the sequences of .*mot come from imported detections"):
        evaluate(tmp_path / "m.safetensors", trained / "set.csv", eval_config(trained))
    names = {**model.feature_settings, "names": ["cat"]}
    with pytest.raises(
        SettingsMismatchError, match=r"names is 1 \(cat, ...\), the model's is 100 \(class 1, class 2, class 3"
    ):
        check_feature_settings(model, names, "features of a")
    coco = tmp_path / "pose.json"
    kinds = [{"id": 1, "name": "class 1", "keypoints": ["nose"]}]
    coco.write_text(json.dumps({"videos": [], "annotations": [], "categories": kinds}))
    with pytest.raises(SettingsMismatchError, match="have 1 keypoints, but the model was trained on 0"):
        evaluate(trained / "run", trained / "set.csv", eval_config(trained, detections=str(coco)))


def write_poses(root: Path, flip_idx: tuple[int, ...] = ()) -> TrainConfig:
    """Four sequences with three keypoints in a cache, and annotations."""
    for number in range(4):
        sequence = FrameSequence.from_detections(
            frame=range(8), boxes=[[10, 10, 30, 60]] * 8, keypoints=np.full((8, 3, 3), 0.5 + number), flip_idx=flip_idx,
            size_px=(100, 80), names=["person"], source_fps=8, fps=8,
        )  # fmt: skip
        add_sequence(SequenceCache(root / "features"), f"{number}.mp4", sequence)
    rows = "".join(f"{n}.mp4,{'ab'[n % 2]},{'train' if n < 2 else 'val'}\n" for n in range(4))
    (root / "poses.csv").write_text("video,label,split\n" + rows)
    changes = {"detections": str(root / "features"), "source_fps": 0.0, "source_size": "", "epochs": 1}
    return config(root, **changes)


def test_flip_idx_reaches_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = write_poses(tmp_path, (0, 2, 1))
    model = load_model(train(tmp_path / "poses.csv", settings))
    assert (model.feature_spec.flip_idx, model.feature_settings["flip_idx"]) == ((0, 2, 1), [0, 2, 1])
    assert "without mirroring" not in capsys.readouterr().out
    train(tmp_path / "poses.csv", replace(settings, mirror=False))
    assert "training without mirroring: --no-mirror" in capsys.readouterr().out


def test_unknown_sides_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = write_poses(tmp_path)
    assert load_model(train(tmp_path / "poses.csv", settings)).feature_spec.flip_idx == ()
    assert "training without mirroring: left and right of the 3 keypoints are unknown; " in capsys.readouterr().out
    with pytest.raises(SettingsError, match="mirror is True, but left and right of the 3 keypoints are unknown"):
        train(tmp_path / "poses.csv", replace(settings, mirror=True))
    with pytest.raises(SettingsError, match=r"flip_idx is \[0, 1\]; it must pair the 3 keypoints.*\n.*data\.yaml"):
        train(tmp_path / "poses.csv", replace(settings, flip_idx=(0, 1)))
    capsys.readouterr()
    model = load_model(train(tmp_path / "poses.csv", replace(settings, flip_idx=(0, 2, 1))))
    assert model.feature_spec.flip_idx == (0, 2, 1)
    assert "without mirroring" not in capsys.readouterr().out


def test_info_tells_and_prunes(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    settings = ImportedDetectionSettings(detections=str(root / "mot"), source_fps=10.0, source_size="320x240")
    cache = SequenceCache(tmp_path / "features")
    detection_source = open_detections(settings, DetectorSettings())
    first = extract_detections(detection_source, None, cache, progress=False)
    told = str(inspect_path(cache.root))
    assert "24 entries" in told
    assert "names class 1, class 2, class 3 and 97 more" in told
    assert "24 entries kept" in str(inspect_path(cache.root, prune=True))
    changed = root / "mot" / "00.txt"
    changed.write_text(changed.read_text() + "21,1,0,0,30,80,0.9,1,1\n")
    extract_detections(open_detections(settings, DetectorSettings()), None, SequenceCache(cache.root), progress=False)
    told = str(inspect_path(cache.root, prune=True))
    assert f"removed {first[0].key}" in told
    assert "24 entries kept" in told
    changed.parent.rename(root / "elsewhere")
    assert "0 entries kept" in str(inspect_path(cache.root, prune=True))
