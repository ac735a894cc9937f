import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidgru.training.metrics.captions import TOKENIZER, rouge_l_each, words
from vidgru.training.metrics.dense_captions import dense_metrics
from vidgru.training.metrics.matching import overlap
from vidgru.types import Annotation, Event

PUBLISHED: Any = json.loads((Path(__file__).parent / "published" / "dense_captions.json").read_text())
NAMES = {
    "Bleu_1": "bleu_1",
    "Bleu_2": "bleu_2",
    "Bleu_3": "bleu_3",
    "Bleu_4": "bleu_4",
    "ROUGE_L": "rouge_l",
    "CIDEr": "cider_d",
    "Precision": "precision",
    "Recall": "recall",
}


def true(start_s: float, end_s: float, description: str | None, video: str = "a.mp4") -> Annotation:
    return Annotation(video=video, start_s=start_s, end_s=end_s, label="event", description=description)


def predicted(start_s: float, end_s: float, description: str | None, video: str = "a.mp4") -> Event:
    return Event(video=video, start_s=start_s, end_s=end_s, label="event", score=0.5, description=description)


def published(side: str) -> list[tuple[float, float, str, str]]:
    return [(start, end, sentence, video) for video, start, end, sentence in PUBLISHED[side]]


def test_protocol_matches_activitynet_captions() -> None:
    got = dense_metrics([true(*row) for row in published("truth")], [predicted(*row) for row in published("found")])
    for theirs, ours in NAMES.items():
        values = PUBLISHED["numbers"][theirs]
        assert [got["per_tiou"][f"{t:g}"][ours] for t in PUBLISHED["tiou"]] == pytest.approx(values, abs=1e-9), theirs
        assert got[ours] == pytest.approx(np.mean(values), abs=1e-9)
    assert got["videos"] == 8
    assert got["tokenizer"] == TOKENIZER
    assert json.loads(json.dumps(got)) == got


def test_soda_matches_published() -> None:
    events = published("found")
    rows: dict[tuple[str, float, float], str] = {}
    for start, end, sentence, video in sorted(published("truth"), key=lambda row: (row[3], *row[:3])):
        if any(video == other for *_, other in events):
            rows.setdefault((video, start, end), sentence)
    truth = [true(start, end, sentence, video) for (video, start, end), sentence in rows.items()]
    got = dense_metrics(truth, [predicted(*row) for row in events])
    soda = PUBLISHED["soda_c"]
    assert got["soda_precision"] == pytest.approx(soda["per_found"], abs=1e-7)
    assert got["soda_recall"] == pytest.approx(soda["per_true"], abs=1e-7)
    assert got["soda_f1"] == pytest.approx(soda["f1"], abs=1e-7)
    assert got["soda_sentence_score"] == "rouge_l"


def test_soda_finds_best_alignment() -> None:
    """Against every possible way to pair events in the order of time."""
    chance = np.random.default_rng(5)
    say = ["a man falls", "a man sits down", "two people meet", "a bag is left at the door"]
    for _ in range(20):
        sides = []
        for make in (true, predicted):
            starts = np.sort(chance.uniform(0, 10, chance.integers(1, 5)))
            sides.append([make(s, s + chance.uniform(1, 8), str(chance.choice(say))) for s in starts])
        truth, events = sides
        spans = [np.array([(e.start_s, e.end_s) for e in side]) for side in sides]
        scores = [
            rouge_l_each([words(f.description)] * len(truth), [[words(t.description)] for t in truth]) for f in events
        ]
        worth = overlap(*spans) * np.array(scores).T
        best = max(
            sum(worth[i, j] for i, j in zip(rows, columns, strict=True))
            for n in range(min(worth.shape) + 1)
            for rows in combinations(range(len(truth)), n)
            for columns in combinations(range(len(events)), n)
        )
        got = dense_metrics(truth, events)
        assert got["soda_precision"] == pytest.approx(best / len(events))
        assert got["soda_recall"] == pytest.approx(best / len(truth))


def test_perfect_captions_score_1() -> None:
    truth = [true(0, 4, "A man falls from a chair."), true(6, 9, "Two people meet at the door.")]
    got = dense_metrics(
        truth, [predicted(6, 9, "two people meet at the door"), predicted(0, 4, "a man falls from a chair")]
    )
    for name in ("bleu_4", "rouge_l", "precision", "recall", "soda_precision", "soda_recall", "soda_f1"):
        assert got[name] == pytest.approx(1, abs=1e-6), name
    assert got["cider_d"] == pytest.approx(10)
    assert (got["videos"], got["events"], got["found"]) == (1, 2, 2)


def test_tiou_threshold_is_inclusive() -> None:
    got = dense_metrics([true(100.1, 104.1, "a man falls")], [predicted(100.1, 102.1, "a man falls")])
    assert [got["per_tiou"][tiou]["recall"] for tiou in ("0.3", "0.5", "0.7", "0.9")] == [1, 1, 0, 0]
    assert [got["per_tiou"][tiou]["rouge_l"] for tiou in ("0.3", "0.5", "0.7", "0.9")] == pytest.approx([1, 1, 0, 0])
    assert got["soda_f1"] == pytest.approx(0.5)


def test_equal_intervals_are_references_of_same_event() -> None:
    truth = [true(0, 4, "a man falls"), true(0, 4, "somebody tumbles over")]
    got = dense_metrics(truth, [predicted(0, 4, "somebody tumbles over")])
    assert got["events"] == 1
    assert got["soda_f1"] == pytest.approx(1)
    assert got["rouge_l"] == pytest.approx(1 / 2)  # the protocol scores each pair


def test_true_event_is_matched_once() -> None:
    got = dense_metrics([true(0, 4, "a man falls")], [predicted(0, 4, "a man falls")] * 4)
    assert got["soda_recall"] == pytest.approx(1)
    assert got["soda_precision"] == pytest.approx(1 / 4)


def test_soda_does_not_align_wrong_order() -> None:
    truth = [true(0, 6, "a man falls"), true(1, 7, "two dogs bark loudly")]
    events = [predicted(0, 6, "two dogs bark loudly"), predicted(1, 7, "a man falls")]
    assert dense_metrics(truth, events)["soda_f1"] == pytest.approx(5 / 7 / 2)


def test_empty_truth_or_predictions() -> None:
    truth = [true(0, 4, "a man falls"), true(0, 4, "a man falls", "b.mp4")]
    nothing = dense_metrics(truth, [])
    assert nothing["bleu_4"] == nothing["cider_d"] == nothing["precision"] == nothing["recall"] == 0
    assert nothing["soda_precision"] == nothing["soda_recall"] == nothing["soda_f1"] == 0
    half = dense_metrics(truth, [predicted(0, 4, "a man falls")])
    assert half["rouge_l"] == half["soda_recall"] == pytest.approx(0.5)
    assert half["soda_precision"] == pytest.approx(1)
    neither = dense_metrics([], [predicted(0, 4, "a man falls")])
    assert (neither["videos"], neither["events"], neither["found"]) == (0, 0, 0)
    for name in (*NAMES.values(), "soda_precision", "soda_recall", "soda_f1"):
        assert neither[name] is None
        assert name.startswith("soda") or neither["per_tiou"]["0.5"][name] is None


def test_events_without_description_are_left_out() -> None:
    truth = [true(0, 4, "a man falls"), true(5, 6, None), true(0, 4, None, "b.mp4"), true(7, 8, "")]
    truth.append(Annotation(video="c.mp4", description="a clip as a whole"))
    events = [
        predicted(0, 4, "a man falls"),
        predicted(5, 6, None),
        predicted(0, 4, "left out", "b.mp4"),
        predicted(0, 4, "?", "c.mp4"),
    ]
    assert dense_metrics(truth, events) == dense_metrics(truth[:1], events[:1])


def test_templates_count_as_captions() -> None:
    event = predicted(0, 4, "a man falls")
    template = Event(**{**vars(event), "description_source": "template", "description_score": 0.1})
    truth = [true(0, 4, "a man falls")]
    assert dense_metrics(truth, [template]) == dense_metrics(truth, [event])
