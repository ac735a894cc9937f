"""The demo on a smaller scale: what it says comes from the pipeline, from pixels to scores."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from vidgru.config import DemoConfig, EvalConfig, TrainConfig
from vidgru.demo.run import run
from vidgru.demo.scene import KINDS as EVENTS
from vidgru.demo.scene import plan_clip, write_video
from vidgru.flags import from_flags
from vidgru.storage import bundled_file
from vidgru.training.evaluate import evaluate
from vidgru.training.run import train

KINDS = ("runs", "group_passes", "car_stops", "leaves_bag")
CLIPS = 12
SPLITS = ("train",) * 7 + ("val",) * 2 + ("test",) * 3


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "videos").mkdir()
    for kind in KINDS:
        for number in range(CLIPS):
            write_video(plan_clip(kind, 7000 + number), folder / "videos" / f"{kind}_{number:02d}.mp4")
    return folder


def accuracy(scenes: Path, *, shuffled: bool) -> float:
    """Held-out accuracy of a model trained on the true labels, or on shuffled ones; the test labels stay true."""
    rows = [(f"{kind}_{n:02d}.mp4", kind, SPLITS[n]) for kind in KINDS for n in range(CLIPS)]
    if shuffled:
        seen = [i for i, (_, _, split) in enumerate(rows) if split != "test"]
        labels = np.random.default_rng(1).permutation([rows[i][1] for i in seen])
        for i, label in zip(seen, labels, strict=True):
            rows[i] = (rows[i][0], str(label), rows[i][2])
    name = "shuffled" if shuffled else "true"
    with (scenes / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(("video", "label", "split", "start", "end", "description"))
        csv.writer(file).writerows((f"videos/{video}", label, split, "", "", "") for video, label, split in rows)
    features, weights = str(scenes / "features"), str(bundled_file("demo.pt"))
    out = str(scenes / name)
    settings = from_flags(TrainConfig, features=features, weights=weights, imgsz=320, fps=5, out=out, epochs=40)
    train(scenes / f"{name}.csv", settings)
    config = EvalConfig(features=features, weights=weights, out=str(scenes / f"{name}_eval"))
    return float(evaluate(out, scenes / f"{name}.csv", config)["accuracy"])


def test_learns_from_labels_and_not_from_shuffled_ones(scenes: Path) -> None:
    assert accuracy(scenes, shuffled=False) >= 0.75
    assert accuracy(scenes, shuffled=True) <= 0.5


@pytest.mark.slow
def test_the_demo_as_it_ships(tmp_path: Path) -> None:
    text = run(DemoConfig(out=str(tmp_path / "demo")))
    clips, events, *described = text.splitlines()[:4]
    assert clips.startswith("Accuracy on ")
    assert float(clips.rpartition(" ")[2]) >= 0.85
    assert re.match(r"Events of \d+ held-out recordings, at tIoU 0\.5: F1 ", events)
    assert float(events.partition("F1 ")[2].partition(",")[0]) >= 0.8
    assert all(f"\n{kind} " in text for kind in EVENTS)
    assert "true events found" in text
    assert all(
        re.match(r"Descriptions of \d+ (held-out clips|events found in held-out recordings): right", line)
        for line in described
    )
    assert text.count("\n      true:  ") == len(EVENTS)
    assert "\n      found: " in text
