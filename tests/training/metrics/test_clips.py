import json
from typing import Any

import numpy as np
import pytest

from vidgru.training.metrics.clips import classification_metrics, multilabel_metrics
from vidgru.training.metrics.ranking import RankedClips, bootstrap

# Expected values marked (sklearn) were computed by scikit-learn 1.9.1 from the same arrays: accuracy_score,
# balanced_accuracy_score, f1_score, precision_recall_fscore_support, confusion_matrix, average_precision_score,
# top_k_accuracy_score.
NAMES = ["sit", "walk", "fall", "jump"]
TRUTH = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 0, 1])
SCORES = np.array(
    [
        [5, 1, 2, 0], [1, 5, 2, 0], [5, 1, 0, 0], [1, 5, 0, 0], [3, 2, 1, 0], [0, 0, 5, 1], [0, 1, 5, 2], [0, 1, 2, 5],
        [2, 1, 5, 0], [5, 2, 1, 0], [1, 0, 0, 5], [0, 5, 1, 1],
    ]
) / 10  # fmt: skip

MULTI_TRUTH = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]])
MULTI_SCORES = np.array(
    [
        [0.9, 0.2, 0.4], [0.6, 0.7, 0.1], [0.8, 0.3, 0.2], [0.6, 0.3, 0.2], [0.6, 0.1, 0.6], [0.2, 0.9, 0.2],
        [0.3, 0.3, 0.4], [0.1, 0.6, 0.0],
    ]
)  # fmt: skip


def test_classification_matches_scikit_learn() -> None:
    got = classification_metrics(SCORES, TRUTH, NAMES)
    assert got["clips"] == 12
    assert got["accuracy"] == pytest.approx(0.5833333333333334)  # (sklearn)
    assert got["balanced_accuracy"] == pytest.approx(0.5888888888888889)  # (sklearn)
    assert got["macro_f1"] == pytest.approx(0.6388888888888888)  # (sklearn, labels=[0, 1, 2])
    assert got["confusion"] == [[2, 1, 0, 1], [1, 2, 0, 0], [1, 0, 3, 1], [0, 0, 0, 0]]  # (sklearn)
    rows = [[got["per_class"][name][key] for name in NAMES] for key in ("precision", "recall", "f1", "support")]
    assert rows[0] == pytest.approx([0.5, 2 / 3, 1.0, 0.0])  # (sklearn)
    assert rows[1][:3] == pytest.approx([0.5, 2 / 3, 0.6])  # (sklearn)
    assert rows[2] == pytest.approx([0.5, 2 / 3, 0.75, 0.0])  # (sklearn)
    assert rows[3] == [4, 3, 5, 0]


def test_classification_leaves_out_absent_classes() -> None:
    got = classification_metrics(SCORES, TRUTH, NAMES)
    assert got["absent"] == ["jump"]
    assert got["per_class"]["jump"]["recall"] is None
    without = classification_metrics(np.where(SCORES.argmax(1, keepdims=True) == 3, 0, SCORES)[:, :3], TRUTH, NAMES[:3])
    assert without["absent"] == []


@pytest.mark.parametrize("seed", range(5))
def test_classification_matches_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, truth = rng.random((60, 5)), rng.integers(5, size=60)
    called = scores.argmax(axis=1)
    f1, recall = [], []
    for label in sorted(set(truth.tolist())):
        hits = sum(1 for t, p in zip(truth, called, strict=True) if t == p == label)
        f1.append(2 * hits / (np.sum(truth == label) + np.sum(called == label)))
        recall.append(hits / np.sum(truth == label))
    got = classification_metrics(scores, truth, list("abcde"))
    assert got["macro_f1"] == pytest.approx(np.mean(f1))
    assert got["balanced_accuracy"] == pytest.approx(np.mean(recall))
    assert got["accuracy"] == pytest.approx(np.mean(called == truth))
    assert got["confusion"][int(truth[0])][int(called[0])] > 0
    assert "top5_accuracy" not in got  # with five classes all are in the top five


def test_top5_accuracy() -> None:
    scores = np.random.default_rng(0).random((9, 7)).round(2)
    got = classification_metrics(scores, np.array([0, 1, 2, 3, 4, 5, 6, 0, 1]), list("abcdefg"))
    assert got["top5_accuracy"] == pytest.approx(0.7777777777777778)  # (sklearn)
    # constant scores are not correct: of equals the first count
    none = classification_metrics(np.zeros((7, 7)), np.arange(7), list("abcdefg"))
    assert none["top5_accuracy"] == pytest.approx(5 / 7)
    assert none["accuracy"] == pytest.approx(1 / 7)


def test_multilabel_matches_scikit_learn() -> None:
    names = NAMES[:3]
    got = multilabel_metrics(MULTI_SCORES, MULTI_TRUTH, names)
    assert [got["per_class"][name]["ap"] for name in names] == pytest.approx(
        [0.8166666666666667, 5 / 6, 1 / 3]
    )  # (sklearn)
    assert got["map"] == pytest.approx(0.6611111111111111)  # (sklearn)
    assert got["accuracy"] == pytest.approx(0.125)  # (sklearn)
    assert got["macro_f1"] == pytest.approx(0.4444444444444444)  # (sklearn)
    assert got["micro_f1"] == pytest.approx(0.5882352941176471)  # (sklearn)
    assert [got["per_class"][name]["precision"] for name in names] == pytest.approx([0.6, 2 / 3, 0.0])  # (sklearn)
    assert [got["per_class"][name]["recall"] for name in names] == pytest.approx([0.75, 2 / 3, 0.0])  # (sklearn)


def test_multilabel_thresholds_inclusive_per_class() -> None:
    scores = np.array([[0.3, 0.3], [0.29, 0.8]])
    got = multilabel_metrics(scores, np.array([[1, 0], [0, 1]]), ["a", "b"], thresholds=np.array([0.3, 0.31]))
    assert got["accuracy"] == 1.0
    assert multilabel_metrics(scores, np.array([[1, 1], [0, 1]]), ["a", "b"], thresholds=0.3)["accuracy"] == 1.0


def test_multilabel_leaves_out_absent_classes() -> None:
    truth = MULTI_TRUTH.copy()
    truth[:, 2] = 0
    got = multilabel_metrics(MULTI_SCORES, truth, NAMES[:3])
    assert got["absent"] == ["fall"]
    assert got["per_class"]["fall"]["ap"] is None
    assert got["map"] == pytest.approx((0.8166666666666667 + 5 / 6) / 2)


@pytest.mark.parametrize("digits", [1, 6])
def test_average_precision_matches_definition(digits: int) -> None:
    rng = np.random.default_rng(digits)
    for _ in range(20):
        scores, truth = rng.random(30).round(digits), rng.random(30) < 0.3
        truth[0] = True
        steps, before = 0.0, 0.0
        for threshold in np.unique(scores)[::-1]:
            called = scores >= threshold
            recall = (called & truth).sum() / truth.sum()
            steps += (recall - before) * (called & truth).sum() / called.sum()
            before = recall
        assert multilabel_metrics(scores[:, None], truth[:, None], ["x"])["map"] == pytest.approx(steps)


def test_clip_order_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(len(TRUTH))
    assert classification_metrics(SCORES[order], TRUTH[order], NAMES) == classification_metrics(SCORES, TRUTH, NAMES)


@pytest.mark.parametrize("metrics", [classification_metrics, multilabel_metrics])
def test_metrics_without_clips_are_none(metrics: Any) -> None:
    shape = (0,) if metrics is classification_metrics else (0, 2)
    got = metrics(np.zeros((0, 2)), np.zeros(shape), ["a", "b"], videos=[])
    assert got["accuracy"] is None
    assert got["macro_f1"] is None
    assert got["absent"] == ["a", "b"]
    assert got["intervals"]["accuracy"] is None


def test_results_are_json_serialisable() -> None:
    videos = [f"{i // 2}.mp4" for i in range(12)]
    one = classification_metrics(SCORES.astype(np.float32), TRUTH, NAMES, videos=videos, resamples=20)
    two = multilabel_metrics(MULTI_SCORES, MULTI_TRUTH, NAMES[:3], videos=videos[:8], resamples=20)
    for result in (one, two):
        assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_intervals_contain_value_and_repeat() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(4, size=400)
    scores = np.eye(4)[np.where(rng.random(400) < 0.8, truth, rng.integers(4, size=400))]
    videos = [str(i) for i in range(400)]
    got = classification_metrics(scores, truth, NAMES, videos=videos)
    assert got == classification_metrics(scores, truth, NAMES, videos=videos)
    assert got["intervals"] != classification_metrics(scores, truth, NAMES, videos=videos, seed=1)["intervals"]
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        low, high = got["intervals"][name]
        assert low < got[name] < high
    # the normal approximation, which holds for 400 independent clips
    low, high = got["intervals"]["accuracy"]
    wide = 2 * 1.96 * np.sqrt(got["accuracy"] * (1 - got["accuracy"]) / 400)
    assert high - low == pytest.approx(wide, rel=0.15)


def test_bootstrap_draws_whole_recordings() -> None:
    truth = np.repeat([0, 1], 200)
    right = np.repeat(np.arange(40) % 4 > 0, 10)  # a recording is right or wrong as a whole
    scores = np.eye(2)[np.where(right, truth, 1 - truth)]
    alone = classification_metrics(scores, truth, ["a", "b"], videos=[str(i) for i in range(400)])
    grouped = classification_metrics(scores, truth, ["a", "b"], videos=[str(i // 10) for i in range(400)])
    widths = [np.diff(result["intervals"]["accuracy"])[0] for result in (alone, grouped)]
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(10), rel=0.2)


def test_multilabel_intervals() -> None:
    videos = [f"{i}.mp4" for i in range(8)]
    got = multilabel_metrics(MULTI_SCORES, MULTI_TRUTH, NAMES[:3], videos=videos, resamples=200)
    low, high = got["intervals"]["map"]
    assert 0 <= low < got["map"] < high <= 1


def test_weights_stand_for_repeated_clips() -> None:
    """A clip of weight 2 counts as two clips: what the bootstrap rests on."""
    weights_seen: list[tuple[np.ndarray, float | None]] = []
    twice = np.array([0, 0, 3, 4, 4, 4, 6, 7])
    weights = np.bincount(twice, minlength=8).astype(float)

    def record(value: np.ndarray) -> dict[str, float | None]:
        weights_seen.append((value, None))
        return {"sum": float(value.sum())}

    assert bootstrap(record, list("abcdefgh"), resamples=50)["sum"] == [8.0, 8.0]
    assert all((value == value.round()).all() and value.sum() == 8 for value, _ in weights_seen)

    ranked = RankedClips(MULTI_SCORES, MULTI_TRUTH.astype(bool)).average_precision(weights)
    again = RankedClips(MULTI_SCORES[twice], MULTI_TRUTH[twice].astype(bool)).average_precision(np.ones(8))
    assert ranked == pytest.approx(again)


def test_single_recording_has_no_interval() -> None:
    got = classification_metrics(SCORES, TRUTH, NAMES, videos=["a.mp4"] * 12)
    assert got["intervals"] == {"accuracy": None, "balanced_accuracy": None, "macro_f1": None}


def test_invalid_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scores must be \[clips, 2 classes\] and match the truth, got \[12, 4\]"):
        classification_metrics(SCORES, TRUTH, ["a", "b"])
    with pytest.raises(ValueError, match="match the truth"):
        multilabel_metrics(MULTI_SCORES, MULTI_TRUTH[:3], NAMES[:3])
    with pytest.raises(ValueError, match="truth must be within 0 and 3, got 0 to 4"):
        classification_metrics(SCORES, TRUTH * 2, NAMES)
    with pytest.raises(ValueError, match="scores must be finite"):
        classification_metrics(SCORES * np.nan, TRUTH, NAMES)
    with pytest.raises(ValueError, match="class names must differ"):
        classification_metrics(SCORES, TRUTH, ["a", "a", "b", "c"])
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        bootstrap(lambda weights: {}, ["a", "b"], resamples=0)
