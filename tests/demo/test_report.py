"""The demo's tables tell of each event once, and of every label."""

from dataclasses import replace
from typing import Any, Literal

from vidgru.demo.report import by_label, descriptions_line, headlines, line_up, side_by_side
from vidgru.demo.scene import KINDS
from vidgru.demo.sentences import WORDINGS, Told, options, tell
from vidgru.types import Annotation, Event

RED = "Someone in red runs past to the left."


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
    assert [" ".join(line.split()) for line in lines[1:5]] == [
        "1.0- 3.0 s runs 1.0- 2.5 s runs 0.50",
        "true: Someone runs.",
        "5.0- 6.0 s meet missed",
        "nothing 8.0- 9.0 s runs 0.50",
    ]
    assert lines[-1] == "1 of 2 true events found; 1 of 2 findings are false."


def described(text: str, source: Literal["model", "template"] = "model") -> Event:
    return Event(
        video="a.mp4", start_s=1, end_s=3, label="runs", score=0.5,
        description=text, description_score=0.25, description_source=source,
    )  # fmt: skip


def test_descriptions_stand_below_each_other_and_are_judged() -> None:
    true = Annotation(video="a.mp4", start_s=1, end_s=3, label="runs", description=RED)
    other = "Someone in blue runs past to the right."
    found = [described(RED), described(other), described("person: runs", "template"), described("A dog runs.")]
    lines = side_by_side([*((true, event) for event in found), (None, described(RED)), (true, None)])
    heads = [line.split("0.50", 1)[1].split() for line in lines if " 0.50" in line]
    assert heads == [
        ["0.25", "right"],
        ["0.25", "wrong:", "who,", "which", "way"],
        ["0.25", "template"],
        ["0.25", "wrong:", "who,", "what,", "which", "way"],
        ["0.25"],
    ]
    assert lines[2:4] == [f"      true:  {RED}", f"      found: {RED}"]
    assert lines[-4:-2] == ["   1.0-  3.0 s runs                missed", f"      true:  {RED}"]


def test_tables_with_the_longest_sentences_fit_a_window() -> None:
    for kind in KINDS:
        told = Told(kind=kind, attributes={name: max(values, key=len) for name, values in options(kind).items()})
        for wording in range(WORDINGS):
            sentence = tell(told, wording, "en")
            true = Annotation(video="a.mp4", start_s=100, end_s=103, label=kind, description=sentence)
            wrong = replace(described("?"), label=kind, start_s=100, end_s=103)
            for event in (replace(wrong, description=sentence), wrong):
                assert max(map(len, side_by_side([(true, event)]))) <= 120


def test_descriptions_are_counted_right_or_wrong() -> None:
    line = descriptions_line("clips", [RED, "Someone in red runs past to the right.", None, RED], [RED] * 4)
    assert line == "Descriptions of 4 clips: right 0.500 (who 0.750, what 0.750, which way 0.500), 1 by template"
    assert descriptions_line("clips", [], []) == "Descriptions of clips: none"


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
