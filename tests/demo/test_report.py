"""The demo's tables tell of each event once, and of every label."""

from typing import Any

from vidgru.demo.report import by_label, headlines, line_up, side_by_side
from vidgru.types import Annotation, Event


def annotation(start_s: float, end_s: float, label: str = "runs", video: str = "a.mp4") -> Annotation:
    return Annotation(video=video, start_s=start_s, end_s=end_s, label=label)


def event(start_s: float, end_s: float, label: str = "runs", video: str = "a.mp4") -> Event:
    return Event(video=video, start_s=start_s, end_s=end_s, label=label, score=0.5)


def test_true_and_found_events_are_lined_up() -> None:
    truth = [annotation(0, 4), annotation(10, 14), annotation(20, 24, "meet")]
    found = [event(1, 5), event(2, 4), event(20, 24), event(11, 12, video="b.mp4")]
    assert line_up(truth, found) == [
        (truth[0], found[0]),
        (None, found[1]),
        (truth[1], None),
        (truth[2], None),
        (None, found[2]),
        (None, found[3]),
    ]


def test_an_event_is_found_once() -> None:
    truth = [annotation(0, 4), annotation(4, 8)]
    assert line_up(truth, [event(1, 8)]) == [(truth[0], None), (truth[1], event(1, 8))]


def test_pairs_stand_side_by_side_and_are_counted() -> None:
    true = Annotation(video="a.mp4", start_s=1, end_s=3, label="runs", description="Someone runs.")
    lines = side_by_side([(true, event(1, 2.5)), (annotation(5, 6, "meet"), None), (None, event(8, 9))])
    assert [" ".join(line.split()) for line in lines[1:4]] == [
        "1.0- 3.0 s runs 1.0- 2.5 s runs 0.50 Someone runs.",
        "5.0- 6.0 s meet missed",
        "nothing 8.0- 9.0 s runs 0.50",
    ]
    assert lines[-1] == "1 of 2 true events found; 1 of 2 findings are false."


def test_every_label_has_its_line() -> None:
    per_class: dict[str, dict[str, Any]] = {
        "runs": {"precision": 0.75, "recall": 0.6, "f1": 2 / 3, "support": 5, "ap_50": 0.5},
        "leaves_bag": {"precision": 0.0, "recall": None, "f1": 0.0, "support": 0, "ap_50": None},
    }
    assert [line.split() for line in by_label(per_class)] == [
        ["true", "found", "precision", "recall", "AP"],
        ["runs", "5", "3", "0.750", "0.600", "0.500"],
        ["leaves_bag", "0", "0", "0.000", "-", "-"],
    ]
    assert len({len(line) for line in by_label(per_class)}) == 1


def test_headlines() -> None:
    metrics = {"clips": 60, "accuracy": 0.95, "event_f1": 0.8125, "map_50": 0.75, "events": {"videos": 4}}
    assert headlines(metrics) == [
        "Accuracy on 60 held-out clips: 0.950",
        "Events of 4 held-out recordings, at tIoU 0.5: F1 0.812, mAP 0.750",
    ]
