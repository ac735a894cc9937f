"""A custom detector, trained by Ultralytics' command on annotated frames, works in the whole pipeline."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.compare_runs import box_iou
from vidgru import cli
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings
from vidgru.datasets.annotations import load_dataset
from vidgru.demo.dataset import write_frames
from vidgru.demo.run import match_events
from vidgru.demo.scenes import CLASSES, Scene, plan_clip, plan_recording, write_video
from vidgru.extraction.pipeline import feature_settings_for
from vidgru.model.checkpoint import load_model
from vidgru.prediction.event_files import read_jsonl
from vidgru.storage import bundled_file, sha256_file
from vidgru.types import FrameSequence

pytestmark = pytest.mark.slow

ANNOTATED = ("bag", "person")  # not cars, so these must not be detected
NAMES = ("luggage", "passer-by")  # the user's names, which no other detector has
KINDS = ("leaves_bag", "meet", "runs")
SPLITS = ("train",) * 6 + ("val",) * 2
MIN_SCORE = 0.25  # as in Ultralytics' predict


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`best.pt` of `yolo detect train`, with other classes than the detector it starts from."""
    folder = tmp_path_factory.mktemp("detector")
    first = 3_000_000_000
    data = write_frames(
        folder / "frames", {"train": range(first, first + 27), "val": range(first + 500, first + 509)}, ANNOTATED
    )
    data.write_text(yaml.safe_dump({**yaml.safe_load(data.read_text()), "names": dict(enumerate(NAMES))}))
    # Few images and epochs: no warm-up, an update per batch, and no mosaics.
    settings: dict[str, object] = {"imgsz": 320, "epochs": 10, "batch": 8, "nbs": 8, "warmup_epochs": 0, "rect": True}
    settings |= {"workers": 0, "device": "cpu", "plots": False, "project": folder / "runs/detect"}
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("yolo")), "detect", "train"),
            *(f"model={bundled_file('demo.pt')}", f"data={data}"),
            *(f"{name}={value}" for name, value in settings.items()),
        ],
        cwd=folder,
        env={**os.environ, "YOLO_CONFIG_DIR": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "runs/detect/train/weights/best.pt"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`known/` has recordings with annotated events, `new/` one to predict on."""
    folder = tmp_path_factory.mktemp("recordings")
    for part, splits in (("known", SPLITS), ("new", ("test",))):
        (folder / part / "videos").mkdir(parents=True)
        with (folder / part / "annotations.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("video", "start", "end", "label", "split"))
            for number, split in enumerate(splits):
                seed = 5000 + 100 * len(splits) + number
                scene = plan_recording(np.random.default_rng(seed).permutation(KINDS * 2).tolist(), seed)
                write_video(scene, folder / part / "videos" / f"{number}.mp4")
                rows.writerows((f"{number}.mp4", e.start_s, e.end_s, e.label, split) for e in scene.events)
    return folder


def run_cli(*words: object) -> None:
    assert cli.run([str(word) for word in words]) == 0


def read_features(features: Path, video: Path, weights: Path) -> FrameSequence:
    cache = SequenceCache(features)
    entry = cache.lookup(video, feature_settings_for(DetectorSettings(weights=str(weights), imgsz=320)))
    assert entry is not None
    return cache.read(entry.key)


def count_matches(sequence: FrameSequence, scene: Scene) -> tuple[int, int, int, int]:
    """Count true objects, those detected (same class, IoU 0.5), detections, and correct detections over all frames."""
    num_true = num_detected = num_boxes = num_correct = 0
    for step, frame in enumerate(sequence.frame_index):
        boxes, kinds = scene.truth(int(frame))
        rows = slice(sequence.offsets[step], sequence.offsets[step + 1])
        confident = sequence.scores[rows] >= MIN_SCORE
        detected, labels = sequence.boxes[rows][confident], sequence.classes[rows][confident]
        known = [k for k, kind in enumerate(kinds) if CLASSES[kind] in ANNOTATED]
        classes = np.array([ANNOTATED.index(CLASSES[kinds[k]]) for k in known], int)
        matches = (box_iou(boxes[known], detected) >= 0.5) & (classes[:, None] == labels[None])
        num_true, num_detected = num_true + len(known), num_detected + int(matches.any(axis=1).sum())
        num_boxes, num_correct = num_boxes + len(detected), num_correct + int(matches.any(axis=0).sum())
    return num_true, num_detected, num_boxes, num_correct


def test_custom_detector_finds_annotated_classes_only(detector: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    scenes = {kind: plan_clip(kind, 6000) for kind in ("leaves_bag", "meet", "group_passes", "person_then_car")}
    for name, scene in scenes.items():
        write_video(scene, tmp_path / "videos" / f"{name}.mp4")
    features = tmp_path / "features"
    run_cli("extract", tmp_path / "videos", "--weights", detector, "--imgsz", 320, "--out", features)
    total = np.zeros(4, int)
    for name, scene in scenes.items():
        sequence = read_features(features, tmp_path / "videos" / f"{name}.mp4", detector)
        assert sequence.names == NAMES
        total += count_matches(sequence, scene)
    num_true, num_detected, num_boxes, num_correct = total.tolist()
    assert num_true > 200
    assert num_detected / num_true > 0.8
    assert num_correct / num_boxes > 0.9


def test_each_detector_has_its_cache_entry(detector: Path, tmp_path: Path) -> None:
    video, other, features = tmp_path / "a.mp4", bundled_file("demo.pt"), tmp_path / "features"
    assert other is not None
    write_video(plan_clip("leaves_bag", 6001), video)
    for weights in (detector, other, detector):
        run_cli("extract", video, "--weights", weights, "--imgsz", 320, "--out", features)
    cache = SequenceCache(features)
    assert len(list(cache.entries())) == 2
    assert read_features(features, video, detector).names == NAMES
    assert read_features(features, video, other).names == CLASSES


def test_model_requires_its_detector(
    detector: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features, model, events = tmp_path / "features", tmp_path / "model", tmp_path / "events"
    run_cli(
        "train", recordings / "known", "--weights", detector, "--imgsz", 320, "--features", features, "--out", model
    )
    trained = load_model(model)
    assert trained.weights == str(detector)
    assert trained.feature_settings["weights_sha256"] == sha256_file(detector)
    assert trained.names == NAMES
    capsys.readouterr()
    run_cli("info", model)
    printed = capsys.readouterr().out
    assert f"detector: {detector}, 2 classes" in printed
    assert sha256_file(detector)[:12] in printed

    new = recordings / "new" / "videos"
    run_cli("predict", model, new, "--features", features, "--out", events)
    truth = load_dataset(str(recordings / "new")).annotations
    pairs = match_events(truth, read_jsonl(events / "events.jsonl"))
    assert sum(true is not None and event is not None for true, event in pairs) >= len(truth) // 2, pairs

    other = bundled_file("demo.pt")
    capsys.readouterr()
    assert cli.run(["predict", str(model), str(new), "--weights", str(other), "--out", str(tmp_path / "other")]) == 2
    message = capsys.readouterr().err
    assert f"{other} is not the detector that the model was trained on" in message
    remedy = "pass --weights with the detector that the model was trained on"
    assert f"{remedy} (SHA-256 {sha256_file(detector)})" in message
