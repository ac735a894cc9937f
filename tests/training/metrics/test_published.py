"""Metrics of timed events against stored results of published evaluators: see published/README.md."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidgru.training.metrics.events import FrameScores, event_metrics
from vidgru.types import Annotation, Event

FPS = 8


def published(name: str) -> Any:
    return json.loads((Path(__file__).parent / "published" / f"{name}.json").read_text())


def frames_of(videos: list[str], labels: list[str], count: int = 0) -> dict[str, FrameScores]:
    return {
        video: FrameScores(
            time_s=np.arange(count) / FPS, scores=np.zeros((count, len(labels)), np.float32), duration_s=60.0
        )
        for video in videos
    }


def metrics_of(
    truth: list[Annotation], predicted: list[Event], frames: dict[str, FrameScores], labels: list[str], **how: Any
):
    return event_metrics(truth, predicted, predicted, frames, labels, **{"exclusive": False, "intervals": False, **how})


def activitynet(digits: int) -> dict[str, Any]:
    data = published("activitynet")
    truth = [Annotation(video=v, start_s=s, end_s=e, label=label) for v, s, e, label in data["truth"]]
    predicted = [
        Event(video=v, start_s=s, end_s=e, label=label, score=round(score, digits))
        for v, s, e, label, score in data["found"]
    ]
    labels = [*data["labels"], "never"]  # a label of the model that is not among the true ones
    return metrics_of(truth, predicted, frames_of(data["videos"], labels), labels)


def test_temporal_map_matches_activitynet() -> None:
    data, got = published("activitynet"), activitynet(9)
    assert [got[f"map_{round(100 * tiou)}"] for tiou in data["tiou"]] == pytest.approx(data["map"], abs=1e-12)
    assert got["map"] == pytest.approx(np.mean(data["map"][2:]), abs=1e-12)
    assert got["map_thumos"] == pytest.approx(np.mean([data["map"][i] for i in (0, 1, 2, 4, 6)]), abs=1e-12)
    for label, ap in data["ap"].items():
        assert got["per_class"][label]["ap_50"] == pytest.approx(ap[2], abs=1e-12)
        assert got["per_class"][label]["ap"] == pytest.approx(np.mean(ap[2:]), abs=1e-12)
    assert got["per_class"]["run"]["ap"] == 0  # true and never predicted
    assert got["absent"] == ["never"]


def test_equal_scores_share_threshold_unlike_activitynet() -> None:
    """ActivityNet keeps equal scores in the order its sort leaves them, so results depend on the order of the file.
    Here no threshold separates them, which never gives more than any of those orders."""
    data, got = published("activitynet"), activitynet(1)
    for tiou, low, high in zip(data["tiou"], data["map_tied_lowest"], data["map_tied_highest"], strict=True):
        value = got[f"map_{round(100 * tiou)}"]
        assert value <= low + 1e-9
        assert value > low - 1.5 * (high - low)


def test_segmentation_matches_ms_tcn() -> None:
    data = published("ms_tcn")
    truth, predicted, frames = [], [], {}
    for number, (true_runs, predicted_runs) in enumerate(zip(data["truth"], data["found"], strict=True)):
        video = f"{number}.mp4"
        for runs, kind in ((true_runs, "truth"), (predicted_runs, "found")):
            edges = np.cumsum([0, *(length for _, length in runs)]) / FPS
            for (label, _), (start, end) in zip(runs, pairwise(edges.tolist()), strict=True):
                if label == "background":
                    continue
                if kind == "truth":
                    truth.append(Annotation(video=video, start_s=start, end_s=end, label=label))
                else:
                    predicted.append(Event(video=video, start_s=start, end_s=end, label=label, score=0.5))
        frames |= frames_of([video], data["labels"], sum(length for _, length in true_runs))
    got, want = metrics_of(truth, predicted, frames, data["labels"], exclusive=True), data["numbers"]
    for name, theirs in (
        ("frame_accuracy", "Acc"),
        ("edit", "Edit"),
        *((f"segment_f1_{n}", f"F1@0.{n}") for n in (10, 25, 50)),
    ):
        assert 100 * got[name] == pytest.approx(want[theirs], abs=1e-9), name
    # on labels that exclude one another, what overlaps by more than half is the same one to one or not
    assert got["event_f1"] == pytest.approx(got["segment_f1_50"])


def spots(half_width_s: float, second: int) -> dict[str, Any]:
    """The events of e2e_spot.json, `second` frames to a second, as intervals around each point."""
    data = published("e2e_spot")

    def span(frame: int) -> dict[str, float]:
        return {"start_s": 10 + frame / second - 1, "end_s": 10 + frame / second + 1}

    truth = [
        Annotation(video=v["video"], label=e["label"], **span(e["frame"])) for v in data["truth"] for e in v["events"]
    ]
    predicted = [
        Event(video=v["video"], label=e["label"], score=e["score"], **span(e["frame"]))
        for v in data["found"]
        for e in v["events"]
    ]
    frames = frames_of([v["video"] for v in data["truth"]], data["labels"])
    return metrics_of(truth, predicted, frames, data["labels"], half_width_s=half_width_s)


def test_spotting_matches_e2e_spot() -> None:
    data = published("e2e_spot")
    for tolerance, want, ap in zip(data["tolerances"], data["map"], data["ap"], strict=True):
        got = spots(tolerance / 25, 25)
        assert got["spotting_map"] == pytest.approx(want, abs=1e-12)
        for label, value in ap.items():
            assert got["per_class"][label]["spotting_ap"] == pytest.approx(value, abs=1e-12)


def test_spotting_is_close_to_soccernet() -> None:
    """SoccerNet samples precision at 11 recalls and 200 thresholds, lets true events choose in order of time, and drops
    one of two events in a frame: results differ a little. Its tolerance is a window's width, so half to each side."""
    data = published("soccernet")
    for delta, want in zip(data["deltas_s"], data["map"], strict=True):
        assert spots(delta / 2, data["framerate"])["spotting_map"] == pytest.approx(want, abs=0.03)
    got = spots(1.0, data["framerate"])
    assert got["spotting_map_tight"] == pytest.approx(np.mean(data["map"][:5]), abs=0.02)
    assert got["spotting_map_loose"] == pytest.approx(np.mean(data["map"][5:]), abs=0.02)


def test_frame_map_matches_scikit_learn() -> None:
    data = published("scikit_learn")
    labels, truth, frames = ["a", "b", "never"], [], {}
    for number, recording in enumerate(data["recordings"]):
        video, scores = f"{number}.mp4", np.array(recording["scores"], dtype=np.float32).T / 100
        frames[video] = FrameScores(time_s=np.arange(len(scores)) / FPS, scores=scores, duration_s=len(scores) / FPS)
        for first, stop, label in recording["spans"]:
            truth.append(Annotation(video=video, start_s=first / FPS, end_s=stop / FPS, label=labels[label]))
    got = metrics_of(truth, [], frames, labels)
    assert [got["per_class"][label]["frame_ap"] for label in labels[:2]] == pytest.approx(data["ap"], abs=1e-12)
    assert got["per_class"]["never"]["frame_ap"] is None
    assert got["frame_map"] == pytest.approx(np.mean(data["ap"]), abs=1e-12)
