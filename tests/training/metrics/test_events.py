import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vidgru.training.metrics.events import FrameScores, event_curves, event_metrics, worst_first
from vidgru.training.metrics.matching import BACKGROUND, frame_labels
from vidgru.training.metrics.ranking import RankedEvents, RankedFrames, draw_recordings
from vidgru.types import Annotation, Event

LABELS = ["fall", "sit", "walk"]
FPS = 8


class RandomRecordings:
    """Recordings with events and predictions: some missed, some predicted twice, some false."""

    def __init__(self, seed: int, videos: int = 8) -> None:
        rng = np.random.default_rng(seed)
        self.truth: list[Annotation] = []
        self.predicted: list[Event] = []
        self.frames: dict[str, FrameScores] = {}
        for number in range(videos):
            video, time_s = f"{number}.mp4", np.arange(40 * FPS) / FPS
            scores = rng.random((len(time_s), len(LABELS))).round(2).astype(np.float32)
            self.frames[video] = FrameScores(time_s=time_s, scores=scores, duration_s=40.0)
            self.truth.append(Annotation(video=video))  # a row without a label
            cuts = np.sort(rng.choice(np.arange(1, 320), 2 * (0 if number % 4 == 3 else 4), replace=False)) / FPS
            for start, end in cuts.reshape(-1, 2).tolist():
                label = LABELS[rng.integers(len(LABELS))]
                self.truth.append(Annotation(video=video, start_s=start, end_s=end, label=label))
                for _ in range(rng.integers(0, 3)):
                    self.predict(video, start + rng.integers(0, 3) / FPS, end + rng.integers(0, 9) / FPS, label, rng)
            for _ in range(rng.integers(0, 3)):
                start = rng.integers(300) / FPS
                self.predict(video, start, start + 1, LABELS[rng.integers(len(LABELS))], rng)

    def predict(self, video: str, start: float, end: float, label: str, rng: np.random.Generator) -> None:
        end = max(end, start + 0.1)
        score = float(rng.random().__round__(1))  # ties
        self.predicted.append(Event(video=video, start_s=float(start), end_s=float(end), label=label, score=score))

    def metrics(self, **change: Any) -> dict[str, Any]:
        how = {"exclusive": True, "half_width_s": 0.5, "intervals": False}
        predicted = change.pop("predicted", self.predicted)
        parts = {"truth": self.truth, "predicted": predicted, "candidates": predicted}
        parts |= {"frames": self.frames, "labels": LABELS}
        return event_metrics(**{**parts, **how, **change})


def values_of(metrics: dict[str, Any]) -> dict[str, float]:
    counts = ("videos", "hours", "events", "found")
    return {name: value for name, value in metrics.items() if isinstance(value, float) and name not in counts}


@pytest.mark.parametrize("seed", range(4))
def test_event_order_does_not_matter(seed: int) -> None:
    data, rng = RandomRecordings(seed), np.random.default_rng(seed)
    again = data.metrics(
        truth=[data.truth[i] for i in rng.permutation(len(data.truth))],
        predicted=[data.predicted[i] for i in rng.permutation(len(data.predicted))],
        frames=dict(reversed(data.frames.items())),
    )
    assert again == data.metrics()


@pytest.mark.parametrize("shift", [1.0, 0.1, 1234.567])
def test_time_shift_does_not_matter(shift: float) -> None:
    data = RandomRecordings(1)
    moved = RandomRecordings(1)
    moved.truth = [
        t if t.start_s is None else replace(t, start_s=t.start_s + shift, end_s=t.end_s + shift) for t in data.truth
    ]
    moved.predicted = [replace(f, start_s=f.start_s + shift, end_s=f.end_s + shift) for f in data.predicted]
    moved.frames = {v: replace(f, time_s=f.time_s + shift) for v, f in data.frames.items()}
    assert values_of(moved.metrics()) == pytest.approx(values_of(data.metrics()))


def test_only_order_of_scores_matters() -> None:
    data = RandomRecordings(2)
    bent = [replace(event, score=event.score**3 / 2) for event in data.predicted]
    frames = {video: replace(f, scores=np.exp(f.scores)) for video, f in data.frames.items()}
    assert data.metrics(predicted=bent, frames=frames) == data.metrics()


@pytest.mark.parametrize("seed", range(4))
def test_perfect_predictions_score_1(seed: int) -> None:
    data = RandomRecordings(seed)
    right = [
        Event(video=t.video, start_s=t.start_s or 0.0, end_s=t.end_s or 0.0, label=t.label, score=0.7)
        for t in data.truth
        if t.label is not None
    ]
    frames = {}
    for video, given in data.frames.items():
        scores = np.zeros_like(given.scores)
        for event in right:
            if event.video == video:
                inside = (given.time_s >= event.start_s) & (given.time_s < event.end_s)
                scores[inside, LABELS.index(event.label)] = 1
        frames[video] = replace(given, scores=scores)
    got = values_of(data.metrics(predicted=right, frames=frames))
    assert got.pop("false_alarms_per_hour") == 0
    assert set(got.values()) == {1.0}
    assert len(got) == 29


def test_metrics_without_predictions() -> None:
    got = RandomRecordings(0).metrics(predicted=[])
    assert got["found"] == 0
    for name in ("map", "map_50", "event_f1", "event_recall", "event_macro_f1", "segment_f1_10", "spotting_map"):
        assert got[name] == 0, name
    assert got["event_precision"] is None
    assert got["false_alarms_per_hour"] == 0
    assert got["edit"] == 0.25  # two of eight recordings hold nothing, and nothing was said of them


def test_metrics_without_true_events() -> None:
    got = RandomRecordings(0).metrics(truth=[])
    assert got["absent"] == LABELS
    assert got["event_precision"] == 0
    assert got["false_alarms_per_hour"] == pytest.approx(got["found"] / (8 * 40 / 3600))
    for name in ("map", "frame_map", "event_recall", "event_macro_f1", "spotting_map"):
        assert got[name] is None, name
    quiet = RandomRecordings(0).metrics(truth=[], predicted=[])
    assert quiet["event_f1"] is None
    assert quiet["edit"] == quiet["frame_accuracy"] == 1


def test_metrics_without_recordings() -> None:
    got = RandomRecordings(0).metrics(truth=[], predicted=[], frames={}, intervals=True)
    assert (got["videos"], got["events"], got["map"], got["false_alarms_per_hour"]) == (0, 0, None, None)
    assert got["intervals"]["map"] is None


def event(start: float, end: float, *, score: float = 0.5, label: str = "fall", video: str = "0.mp4") -> Event:
    return Event(video=video, start_s=start, end_s=end, label=label, score=score)


def metrics_of(predicted: list[Event], truth: list[Event]) -> dict[str, Any]:
    frames = {
        video: FrameScores(time_s=np.arange(80) / FPS, scores=np.zeros((80, 3), np.float32), duration_s=1800.0)
        for video in ("0.mp4", "1.mp4")
    }
    true = [Annotation(video=t.video, start_s=t.start_s, end_s=t.end_s, label=t.label) for t in truth]
    return event_metrics(true, predicted, predicted, frames, LABELS, exclusive=False, intervals=False)


def test_duplicates_are_false_positives() -> None:
    got = metrics_of([event(1, 3), event(1, 3), event(1.1, 3)], [event(1, 3)])
    assert got["event_precision"] == pytest.approx(1 / 3)
    assert got["event_recall"] == 1
    assert got["event_f1"] == 0.5
    assert got["false_alarms_per_hour"] == 0  # it did happen
    after = metrics_of(
        [event(1, 3, score=0.9), event(1, 3, score=0.1), event(5, 6, score=0.05)], [event(1, 3), event(5, 6)]
    )
    assert after["map_50"] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_wrong_label_or_recording_is_false_positive() -> None:
    truth = [event(1, 3)]
    for predicted in (event(1, 3, label="sit"), event(1, 3, video="1.mp4"), event(3, 5)):
        got = metrics_of([predicted], truth)
        assert got["event_f1"] == got["map_30"] == 0
        assert got["false_alarms_per_hour"] == 1
    assert metrics_of([event(2.9, 5)], truth)["false_alarms_per_hour"] == 0  # poorly placed, but not out of nothing


def test_overlap_threshold_is_inclusive() -> None:
    for start in (0.0, 0.1, 0.3, 17.7):
        got = metrics_of([event(start, start + 0.3)], [event(start, start + 0.5)])  # tIoU 0.6
        assert got["map_60"] == 1
        assert got["map_65"] == 0
        assert got["event_f1"] == 1
        assert got["event_f1_70"] == 0
        wider = metrics_of([event(start, start + 0.35)], [event(start, start + 0.5)])  # 0.7
        assert wider["map_70"] == wider["event_f1_70"] == 1
        assert wider["map_75"] == 0


def test_pairing_is_by_overlap_not_score() -> None:
    truth, predicted = [event(0, 4), event(4, 8)], [event(3, 8, score=0.9), event(0.5, 4.5, score=0.1)]
    assert metrics_of(predicted, truth)["event_f1_70"] == 1
    # a true event that is taken is not asked again; the next best is
    crowd = metrics_of([event(0, 4, score=0.9), event(0, 4, score=0.8)], [event(0, 4), event(0, 2)])
    assert crowd["map_50"] == 1
    assert crowd["map_55"] == 0.5


@pytest.mark.parametrize("seed", range(6))
def test_false_alarm_never_improves_metrics(seed: int) -> None:
    data, rng = RandomRecordings(seed), np.random.default_rng(seed)
    before = values_of(data.metrics())
    for score in (0.0, 0.3, float(rng.random()), 1.0):
        extra = event(5.0, 6.0, score=score, video="3.mp4", label=LABELS[rng.integers(3)])  # nothing happens in 3.mp4
        after = values_of(data.metrics(predicted=[*data.predicted, extra]))
        for name, value in after.items():
            if name == "false_alarms_per_hour":
                assert value > before[name]
            else:
                assert value <= before[name] + 1e-12, name


@pytest.mark.parametrize("seed", range(5))
def test_event_f1_matches_definition(seed: int) -> None:
    """A second implementation, without arrays: the best pair that is left, until none is good enough."""
    data = RandomRecordings(seed)
    got = data.metrics()
    true = [t for t in data.truth if t.label is not None]

    def tiou(t: Annotation, f: Event) -> float:
        assert t.start_s is not None
        assert t.end_s is not None
        both = min(t.end_s, f.end_s) - max(t.start_s, f.start_s)
        same = (t.video, t.label) == (f.video, f.label)
        return max(0.0, both) / (max(t.end_s, f.end_s) - min(t.start_s, f.start_s)) if same else 0.0

    for name, least in (("event_f1_30", 0.3), ("event_f1", 0.5), ("event_f1_70", 0.7)):
        pairs = {(i, j): tiou(t, f) for i, t in enumerate(true) for j, f in enumerate(data.predicted)}
        hits = 0
        while pairs and max(pairs.values()) >= least:
            i, j = max(pairs, key=lambda pair: pairs[pair])
            hits += 1
            pairs = {pair: value for pair, value in pairs.items() if pair[0] != i and pair[1] != j}
        assert got[name] == pytest.approx(2 * hits / (len(true) + len(data.predicted))), name
    support = [got["per_class"][label]["support"] for label in LABELS]
    recall = [got["per_class"][label]["recall"] for label in LABELS]
    assert sum(support) == len(true) == got["events"]
    assert np.dot(support, recall) / len(true) == pytest.approx(got["event_recall"])
    assert np.mean([got["per_class"][label]["f1"] for label in LABELS]) == pytest.approx(got["event_macro_f1"])


def test_average_precision_uses_weaker_candidates() -> None:
    data = RandomRecordings(0)
    strong = [event for event in data.predicted if event.score > 0.5]
    both = data.metrics(predicted=strong, candidates=data.predicted)
    assert both["map"] == data.metrics()["map"] > data.metrics(predicted=strong)["map"]
    assert both["event_f1"] == data.metrics(predicted=strong)["event_f1"]


def test_resample_equals_copied_recordings() -> None:
    """Each resample gives what a dataset with those recordings copied would give."""
    data, resamples = RandomRecordings(3), 12
    values: dict[str, list[float]] = {}
    for drawn in draw_recordings(len(data.frames), resamples=resamples, seed=5).astype(int):
        copied = RandomRecordings(3, videos=0)
        for video, times in zip(sorted(data.frames), drawn, strict=True):
            for copy in range(times):
                name = f"{copy}/{video}"
                copied.frames[name] = data.frames[video]
                copied.truth += [replace(t, video=name) for t in data.truth if t.video == video]
                copied.predicted += [replace(f, video=name) for f in data.predicted if f.video == video]
        for name, value in values_of(copied.metrics()).items():
            values.setdefault(name, []).append(value)
    got = data.metrics(intervals=True, resamples=resamples, seed=5)["intervals"]
    assert set(got) == set(values)
    for name, these in values.items():
        near = 2e-3 if name == "frame_map" else 1e-9  # frames are taken in steps of recall
        assert got[name] == pytest.approx(np.quantile(these, (0.025, 0.975)).tolist(), abs=near), name


def test_intervals_repeat_and_contain_value() -> None:
    data = RandomRecordings(0, videos=60)
    got = data.metrics(intervals=True, resamples=300)
    assert got == data.metrics(intervals=True, resamples=300)
    for name, value in values_of(got).items():
        low, high = got["intervals"][name]
        assert low <= value <= high, name
    alone = RandomRecordings(0, videos=1).metrics(intervals=True)
    assert set(alone["intervals"].values()) == {None}


def test_results_are_json_serialisable() -> None:
    got = RandomRecordings(0).metrics(intervals=True, resamples=20)
    assert json.loads(json.dumps(got, allow_nan=False)) == got


def test_optional_metrics_only_on_request() -> None:
    plain = RandomRecordings(0).metrics(exclusive=False, half_width_s=None)
    assert not [name for name in plain if name.startswith(("segment", "edit", "spotting", "frame_acc", "intervals"))]
    assert "spotting_ap" not in plain["per_class"]["fall"]
    assert RandomRecordings(0).metrics()["per_class"]["fall"]["spotting_ap"] is not None


def test_background_column_is_not_evaluated() -> None:
    data = RandomRecordings(0)
    wider = {
        video: replace(f, scores=np.hstack((f.scores, np.ones((len(f.scores), 1), np.float32))))
        for video, f in data.frames.items()
    }
    assert data.metrics(frames=wider) == data.metrics()


def test_frame_ap_in_recall_steps_near_exact() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(40_000) < 0.3
    scores = rng.normal(truth * 0.8)
    ranked = RankedFrames(scores, truth, rng.integers(5, size=len(truth)), 5)
    assert ranked.average_precision(np.ones((1, 5)))[0] == pytest.approx(ranked.exact, abs=2e-3)
    for digits in (1, 9):  # with equal scores and without
        few = RankedFrames(scores[:600].round(digits), truth[:600], rng.integers(5, size=600), 5)
        assert few.average_precision(np.ones((1, 5)))[0] == pytest.approx(few.exact, abs=1e-12)


def test_frame_labels_take_latest_start() -> None:
    spans, time_s = np.array([[1.0, 2.0], [0.0, 4.0], [5.0, 5.1]]), np.arange(6.0)
    assert frame_labels(spans, np.array([0, 1, 2]), time_s).tolist() == [1, 0, 1, 1, BACKGROUND, 2]
    assert frame_labels(spans[::-1], np.array([2, 1, 0]), time_s).tolist() == [1, 0, 1, 1, BACKGROUND, 2]


def test_area_under_curve_is_average_precision() -> None:
    data = RandomRecordings(0)
    truth = [t for t in data.truth if t.label != "walk"]
    curves = event_curves(truth, data.predicted, sorted(data.frames), LABELS)
    assert list(curves) == ["fall", "sit"]
    per_class = data.metrics()["per_class"]
    for label, (recall, precision) in curves.items():
        assert recall[0] == 0
        assert (np.diff(recall) > 0).all()
        assert (np.diff(precision) <= 0).all()
        assert np.dot(np.diff(recall), precision[1:]) == pytest.approx(per_class[label]["ap_50"])
    nothing = RankedEvents(np.zeros(0), np.zeros(0, np.int64), np.zeros((1, 0), bool), np.ones(3))
    assert [part.tolist() for part in nothing.curve(0)] == [[0.0], [0.0]]


def test_worst_first() -> None:
    truth = [
        Annotation(video=video, start_s=1, end_s=3, label="fall") for video in ("good", "missed", "a", "b", "twice")
    ]
    predicted = [event(1, 3, video="good"), event(1, 3, video="twice"), event(1, 3, video="twice")]
    predicted += [event(8, 9, video="b"), event(8, 9, video="eventless"), event(5, 6, video="eventless")]
    videos = ["a", "b", "missed", "good", "quiet", "twice", "eventless"]
    assert worst_first(truth, predicted, videos, LABELS) == [
        ("eventless", 0.0, 2), ("b", 0.0, 1), ("a", 0.0, 0), ("missed", 0.0, 0), ("twice", pytest.approx(2 / 3), 0),
        ("good", 1.0, 0), ("quiet", None, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {"labels": ["fall", "sit", "fall"]}, "labels must be at least one, and differ"),
        (lambda w: {"labels": []}, "labels must be at least one"),
        (lambda w: {"truth": [Annotation(video="0.mp4", label="fall")]}, "0.mp4: 'fall' has no times; whole clips"),
        (
            lambda w: {"predicted": [event(1, 2, video="x.mp4")]},
            "an event belongs to 'x.mp4', which is not one of the 8 recordings",
        ),
        (lambda w: {"predicted": [event(1, 2, label="fly")]}, "0.mp4: label 'fly' is not one of"),
        (
            lambda w: corrupted(w, scores=np.zeros((3, 3))),
            r"0.mp4: scores must be \[320, 3 or one more\], got \[3, 3\]",
        ),
        (lambda w: corrupted(w, scores=np.full((320, 3), np.nan)), "0.mp4: scores must be finite"),
        (lambda w: corrupted(w, duration_s=-1.0), "0.mp4: duration_s must be 0 or more, got -1.0"),
        (lambda w: {"intervals": True, "resamples": 0}, "resamples must be at least 1, got 0"),
    ],
)
def test_invalid_arguments_are_refused(change: Callable[[RandomRecordings], dict[str, Any]], message: str) -> None:
    data = RandomRecordings(0)
    with pytest.raises(ValueError, match=message):
        data.metrics(**change(data))


def corrupted(data: RandomRecordings, **change: Any) -> dict[str, Any]:
    return {"frames": data.frames | {"0.mp4": replace(data.frames["0.mp4"], **change)}}
