"""The demo's report, its two acts, and a smaller dataset whose accuracy can only come from the frames."""

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from vidgru import cli
from vidgru.config import DemoConfig, EvalConfig, TrainConfig
from vidgru.demo import dataset
from vidgru.demo import run as demo
from vidgru.demo.run import (
    DETECTOR,
    MODEL,
    TrainingSize,
    caption_line,
    demo_detector,
    label_table,
    match_events,
    match_table,
    metric_lines,
    predict_recording,
    run,
)
from vidgru.demo.scenes import EVENT_KINDS, plan_clip, write_video
from vidgru.demo.sentences import ENGLISH, WORDINGS, SceneDescription, attribute_options
from vidgru.errors import ModelError, OutputError, WeightsError
from vidgru.extraction.pipeline import feature_settings_for
from vidgru.flags import from_settings
from vidgru.model.checkpoint import load_model
from vidgru.storage import bundled_file
from vidgru.training.evaluate import evaluate
from vidgru.training.run import train
from vidgru.types import Annotation, Event

KINDS = ("runs", "group_passes", "car_stops", "leaves_bag")
CLIPS = 12
SPLITS = ("train",) * 7 + ("val",) * 2 + ("test",) * 3
RED = "Someone in red runs past to the left."


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "videos").mkdir()
    for kind in KINDS:
        for number in range(CLIPS):
            write_video(plan_clip(kind, 7000 + number), folder / "videos" / f"{kind}_{number:02d}.mp4")
    return folder


def accuracy(scenes: Path, *, shuffled: bool) -> float:
    """Return the held-out accuracy of a model trained on true or on shuffled labels; test labels are always true."""
    rows = [(f"{kind}_{n:02d}.mp4", kind, SPLITS[n]) for kind in KINDS for n in range(CLIPS)]
    if shuffled:
        trained = [i for i, (_, _, split) in enumerate(rows) if split != "test"]
        labels = np.random.default_rng(1).permutation([rows[i][1] for i in trained])
        for i, label in zip(trained, labels, strict=True):
            rows[i] = (rows[i][0], str(label), rows[i][2])
    name = "shuffled" if shuffled else "true"
    with (scenes / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(("video", "label", "split", "start", "end", "description"))
        csv.writer(file).writerows((f"videos/{video}", label, split, "", "", "") for video, label, split in rows)
    features, weights = str(scenes / "features"), str(bundled_file("demo.pt"))
    out = str(scenes / name)
    flags = {"features": features, "weights": weights, "imgsz": 320, "fps": 5, "out": out, "epochs": 5, "members": 1}
    train(scenes / f"{name}.csv", from_settings(TrainConfig, **flags))
    config = EvalConfig(features=features, weights=weights, out=str(scenes / f"{name}_eval"))
    return float(evaluate(out, scenes / f"{name}.csv", config)["accuracy"])


@pytest.mark.slow
def test_training_learns_from_true_labels(scenes: Path) -> None:
    assert accuracy(scenes, shuffled=False) >= 0.75


@pytest.mark.slow
def test_training_learns_nothing_from_shuffled_labels(scenes: Path) -> None:
    assert accuracy(scenes, shuffled=True) <= 0.5


def test_bundled_model_reads_the_demo_detector() -> None:
    paths = [bundled_file(name) for name in (DETECTOR, MODEL)]
    assert all(paths)
    assert sum(path.stat().st_size for path in paths if path) <= 3_000_000
    model = load_model(str(paths[1]))
    assert model.feature_settings == feature_settings_for(demo_detector(str(paths[0])))
    assert set(model.labels) == set(EVENT_KINDS)
    assert model.caption is not None


def test_predict_recording_with_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "EVENT_KINDS", ("runs",))  # a shorter recording
    pairs = predict_recording(tmp_path, str(bundled_file(MODEL)), str(bundled_file(DETECTOR)), seed=0)
    ((true, predicted),) = pairs
    assert true
    assert true.label == "runs"
    assert predicted
    assert predicted.description
    assert (tmp_path / "events" / "index.html").is_file()


def test_demo_runs_two_acts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {"clips": 2, "accuracy": 0.5, "event_f1": 0.5, "map_50": 0.5, "per_class": CLIPS_PER_CLASS}
    metrics["events"] = EVENTS
    sizes: list[TrainingSize] = []

    def train_and_evaluate(out: Path, weights: str, size: TrainingSize, seed: int) -> dict[str, Any]:
        sizes.append(size)
        return metrics

    pair = (annotation(0, 4), event(1, 5))
    monkeypatch.setattr(demo, "predict_recording", lambda *arguments: [pair])
    monkeypatch.setattr(demo, "_evaluate_captions", lambda *arguments: ["Captions of 0 clips: none"])
    monkeypatch.setattr(demo, "train_and_evaluate", train_and_evaluate)
    for flags in ([], ["--full"]):
        assert cli.run(["demo", "--out", str(tmp_path / "demo"), *flags]) == 0
    text = capsys.readouterr().out
    assert sizes == [demo.SMALL, demo.FULL]
    acts = text.split("Act ")
    assert len(acts) == 3
    assert "1 of 1 true events found" in acts[1]
    assert f"Report: open {tmp_path / 'demo' / 'events' / 'index.html'} in a browser." in acts[1]
    assert "clips  right  events" in acts[2]
    assert "Captions of 0 clips: none" in acts[2]


def test_demo_without_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "bundled_file", {DETECTOR: Path("x")}.get)
    with pytest.raises(ModelError, match=r"demo\.safetensors, the demo's model, is missing from this installation"):
        run(DemoConfig(out=str(tmp_path)))
    monkeypatch.setattr(demo, "bundled_file", {}.get)
    with pytest.raises(WeightsError, match=r"demo\.pt, the demo's detector, is missing from this installation"):
        run(DemoConfig(out=str(tmp_path)))


def test_demo_into_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError, match=r"cannot write .*taken: File exists"):
        run(DemoConfig(out=str(tmp_path / "taken")))


@pytest.mark.slow
def test_demo_reaches_its_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(DemoConfig(out=str(tmp_path / "demo")))
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 50
    assert max(map(len, text.replace(str(tmp_path), "").splitlines())) <= 120
    found = re.search(r"(\d) of 8 true events found; (\d) of \d+ predictions are false; (\d) of \d captions", text)
    assert found
    assert int(found[1]) >= 7
    assert int(found[2]) <= 1
    assert text.count("\n      true:      ") == text.count("\n      predicted: ") == len(EVENT_KINDS)
    act_two = text.partition("Act two")[2]
    assert all(f"\n{kind} " in act_two for kind in (*EVENT_KINDS, "all"))
    accuracy = re.search(r"Accuracy on \d+ held-out clips: (\S+)", act_two)
    assert accuracy
    assert float(accuracy[1]) >= 0.5


# --- report ---------------------------------------------------------------------------------------------------------


def annotation(start_s: float, end_s: float, label: str = "runs", video: str = "a.mp4") -> Annotation:
    return Annotation(video=video, start_s=start_s, end_s=end_s, label=label)


def event(start_s: float, end_s: float, label: str = "runs", video: str = "a.mp4") -> Event:
    return Event(video=video, start_s=start_s, end_s=end_s, label=label, score=0.5)


def test_match_events_pairs_by_label_and_overlap() -> None:
    truth = [annotation(0, 4), annotation(10, 14), annotation(20, 24, "meet")]
    predicted = [event(1, 5), event(2, 4), event(20, 24), event(11, 12, video="b.mp4")]
    assert match_events(truth, predicted) == [
        (truth[0], predicted[0]),
        (None, predicted[1]),
        (truth[1], None),
        (truth[2], None),
        (None, predicted[2]),
        (None, predicted[3]),
    ]


def test_match_events_pairs_each_event_once() -> None:
    truth = [annotation(0, 4), annotation(4, 8)]
    assert match_events(truth, [event(1, 8)]) == [(truth[0], None), (truth[1], event(1, 8))]


def test_event_table_counts_pairs() -> None:
    true = Annotation(video="a.mp4", start_s=1, end_s=3, label="runs", description="Someone runs.")
    lines = match_table([(true, event(1, 2.5)), (annotation(5, 6, "meet"), None), (None, event(8, 9))])
    assert [" ".join(line.split()) for line in lines[1:5]] == [
        "1.0- 3.0 s runs 1.0- 2.5 s runs 0.50",
        "true: Someone runs.",
        "5.0- 6.0 s meet missed",
        "no event 8.0- 9.0 s runs 0.50",
    ]
    assert lines[-1] == "1 of 2 true events found; 1 of 2 predictions are false."


def captioned_event(text: str, source: Literal["model", "template"] = "model") -> Event:
    return Event(
        video="a.mp4", start_s=1, end_s=3, label="runs", score=0.5,
        description=text, description_score=0.25, description_source=source,
    )  # fmt: skip


def test_event_table_checks_captions() -> None:
    true = Annotation(video="a.mp4", start_s=1, end_s=3, label="runs", description=RED)
    wrong = "Someone in blue runs past to the right."
    predicted = [
        captioned_event(RED),
        captioned_event(wrong),
        captioned_event("person: runs", "template"),
        captioned_event("A dog runs."),
    ]
    lines = match_table([*((true, event) for event in predicted), (None, captioned_event(RED)), (true, None)])
    heads = [line.split("0.50", 1)[1].split() for line in lines if " 0.50" in line]
    assert heads == [
        ["0.25", "correct"],
        ["0.25", "wrong:", "objects,", "directions"],
        ["0.25", "template"],
        ["0.25", "wrong:", "objects,", "event,", "directions"],
        ["0.25"],
    ]
    assert lines[2:4] == [f"      true:      {RED}", f"      predicted: {RED}"]
    assert lines[-3:-1] == ["   1.0-  3.0 s runs                missed", f"      true:      {RED}"]
    assert lines[-1] == "4 of 5 true events found; 1 of 5 predictions are false; 1 of 4 captions correct."


def test_event_table_fits_120_columns() -> None:
    for kind in EVENT_KINDS:
        longest = {name: max(values, key=len) for name, values in attribute_options(kind).items()}
        description = SceneDescription(kind=kind, attributes=longest)
        for wording in range(WORDINGS):
            sentence = ENGLISH.format(description, wording)
            true = Annotation(video="a.mp4", start_s=100, end_s=103, label=kind, description=sentence)
            wrong = replace(captioned_event("?"), label=kind, start_s=100, end_s=103)
            for event in (replace(wrong, description=sentence), wrong):
                assert max(map(len, match_table([(true, event)]))) <= 120


def test_caption_line_counts_correct_captions() -> None:
    line = caption_line("clips", [RED, "Someone in red runs past to the right.", None, RED], [RED] * 4)
    assert line == "Captions of 4 clips: 0.500 correct (objects 0.750, event 0.750, directions 0.500), 1 by template"
    assert caption_line("clips", [], []) == "Captions of clips: none"


CLIPS_PER_CLASS: dict[str, dict[str, Any]] = {
    "runs": {"recall": 0.5, "support": 4},
    "leaves_bag": {"recall": None, "support": 0},
    "(no event)": {"recall": 1.0, "support": 1},
}
EVENTS: dict[str, Any] = {
    "videos": 2,
    "event_recall": 0.6,
    "event_precision": 0.6,
    "per_class": {
        "runs": {"precision": 0.75, "recall": 0.6, "support": 5, "ap_50": 0.5},
        "leaves_bag": {"precision": 0.0, "recall": None, "support": 0, "ap_50": None},
    },
}


def test_label_table_has_a_line_per_label() -> None:
    metrics = {"clips": 5, "accuracy": 0.6, "map_50": 0.5, "per_class": CLIPS_PER_CLASS, "events": EVENTS}
    lines = label_table(metrics)
    assert [line.split() for line in lines] == [
        ["clips", "right", "events", "found", "precision", "AP"],
        ["runs", "4", "2", "5", "3", "0.75", "0.50"],
        ["leaves_bag", "0", "0", "0", "0", "0.00", "-"],
        ["(no", "event)", "1", "1"],
        ["all", "5", "3", "5", "3", "0.60", "0.50"],
    ]
    assert len({len(line) for line in lines if "no event" not in line}) == 1


def test_metric_lines() -> None:
    metrics = {"clips": 60, "accuracy": 0.95, "event_f1": 0.8125, "map_50": 0.75, "events": {"videos": 4}}
    assert metric_lines(metrics) == [
        "Accuracy on 60 held-out clips: 0.950",
        "Events of 4 held-out recordings, at tIoU 0.5: F1 0.812, mAP 0.750",
    ]
