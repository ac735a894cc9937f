from pathlib import Path

import numpy as np
import pytest

from tests.datasets.annotation_files import csv_set
from vidgru.model.feature_spec import FeatureSpec
from vidgru.training.advice import dataset_advice, format_advice, inexact_events, lost_objects, metrics_advice
from vidgru.types import Features

SPEC = FeatureSpec(classes=2)
NAMES = ("person", "chair")


def test_advice_has_at_most_five_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert format_advice([]) == []
    assert format_advice("abcdefg") == ["what to do next:", *(f"  - {letter}" for letter in "abcde")]


def test_advice_on_a_small_dataset(tmp_path: Path) -> None:
    rows = ["a.mp4,1,1.4,slip,,train", "a.mp4,4,4.5,slip,,train", "b.mp4,1,9,sit,,train"]
    assert dataset_advice(csv_set(tmp_path / "small", *rows), 8.0) == [
        "2 of 2 events of slip have fewer than 5 samples at --fps 8: raise --fps to 12",
        "no recording is free of events, so false alarms are hardly measured: add recordings in which nothing happens "
        "(rows with only `video`)",
        "few events to learn from: annotate more of sit (1), slip (2)",
        "no test split: vidgru train DATASET --folds 5 measures on all recordings",
    ]
    many = [f"a.mp4,{2 * number},{2 * number + 1},sit,,train" for number in range(10)]
    assert dataset_advice(csv_set(tmp_path / "large", *many, "c.mp4,,,,,test"), 8.0) == []


def test_advice_names_first_labels(tmp_path: Path) -> None:
    rows = [f"a.mp4,{number},{number + 1},e{number:03},,train" for number in range(300)]
    (line,) = [line for line in dataset_advice(csv_set(tmp_path, *rows), 8.0) if line.startswith("few")]
    assert line.endswith("e008 (1), e009 (1) and 290 more")
    events = {"per_class": {f"e{number:03}": {"support": 1} for number in range(12)}, "intervals": {}}
    assert metrics_advice({"events": events})[-1].endswith("e009 (1) and 2 more")


def test_advice_on_metrics() -> None:
    events = {
        "per_class": {"fall": {"support": 2}, "sit": {"support": 30}, "wave": {"support": 0}},
        "intervals": {"event_f1": [0.4, 1.0]},
        "confused": {"true": "sit", "predicted": "fall", "events": 3, "of": 30},
    }
    clips = {"names": ["walk", "run"], "confusion": [[6, 4], [1, 9]], "intervals": {"accuracy": [0.6, 0.8]}}
    assert metrics_advice({**clips, "events": events}) == [
        "walk is taken for run in 4 of 10 clips: compare their annotations, add clips of both, or merge them with "
        "`labels` in a dataset YAML",
        "sit is taken for fall in 3 of 30 events: compare their annotations, or merge them with `labels` in a dataset "
        "YAML",
        "event_f1 may be anything from 0.40 to 1.00: do not compare settings by it before there are more recordings "
        "with events to measure on",
        "few events to measure on, so thresholds and figures are a guess: fall (2)",
    ]
    assert metrics_advice({**clips, "confusion": [[9, 1], [1, 9]]}) == []


def test_advice_on_inexact_events() -> None:
    inexact = {"events": 7, "missed": 8, "start_later_s": -0.82, "end_later_s": 1.2}
    assert inexact_events({"events": {"inexact": inexact}}) == [
        "7 of 8 missed events overlap a prediction, but at a tIoU below 0.5: these predictions start 0.8 s early and "
        "end 1.2 s late (medians). Correct a few recordings and train with --init, or run vidgru tune"
    ]
    (line,) = inexact_events({"events": {"inexact": {**inexact, "start_later_s": -0.04}}})
    assert "start on time and end 1.2 s late" in line
    few = {"events": {"inexact": {**inexact, "events": 3}}}
    assert inexact_events(few) == inexact_events({"events": {"inexact": None}}) == inexact_events({}) == []


def features(classes_per_frame: list[list[int]], score: float = 0.9) -> Features:
    """Features at one frame per second, with objects of these classes in each frame."""
    classes = [index for frame in classes_per_frame for index in frame]
    objects = np.zeros((len(classes), SPEC.object_width), np.float32)
    groups = SPEC.object_groups()
    objects[:, groups["class"].start], objects[:, groups["score"].start] = classes, score
    offsets = np.cumsum([0, *map(len, classes_per_frame)])
    frames = np.zeros((len(classes_per_frame), SPEC.frame_width), np.float32)
    return Features(objects=objects, offsets=offsets, frame=frames, time_s=np.arange(len(frames), dtype=float))


@pytest.mark.parametrize(("during", "score", "advice"), [
    ([[0, 1]] * 4, 0.9, None),
    ([[0, 1]] * 2 + [[1]] * 2, 0.9, "person is detected in 50% of the frames of fall, but in 100% of the 2 s before"),
    ([[0]] * 3 + [[]], 0.9, "nothing is detected in 25% of the frames of fall: try larger weights"),
    ([[0]] * 4, 0.1, "nothing is detected in 100% of the frames of fall"),
])  # fmt: skip
def test_advice_on_lost_objects(tmp_path: Path, during: list[list[int]], score: float, advice: str | None) -> None:
    dataset = csv_set(tmp_path / "set", "a.mp4,3,7,fall,,train", "b.mp4,,,,,train", "c.mp4,1,2,fall,,test")
    loaded = {"a.mp4": features([[0, 1]] * 3 + during + [[0]], score)}
    lines = lost_objects(dataset, loaded.get, SPEC, NAMES)
    assert [line.startswith(advice or "") for line in lines] == [True] * (advice is not None)
