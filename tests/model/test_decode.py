from itertools import pairwise

import numpy as np
import pytest

from vidgru.model.decode import DecodeSettings, candidates, decode, smooth, spread
from vidgru.types import Event

LABELS = ("fall", "walk")


def settings(**changes: object) -> DecodeSettings:
    values = {"high": (0.6, 0.6), "low": (0.4, 0.4), "min_s": 0.0, "merge_s": 0.0, "exclusive": False}
    return DecodeSettings(**{**values, **changes})


def events_of(scores: list[float] | np.ndarray, *, end_s: float | None = None, times=None, **changes) -> list[Event]:
    """Events of label fall at 1 frame a second (or all labels, where scores has columns)."""
    values = np.array(scores, np.float32)
    if values.ndim == 1:
        values = np.column_stack([values, np.zeros_like(values)])
    time_s = np.arange(len(values), dtype=float) if times is None else np.array(times, float)
    end_s = float(time_s[-1] + 1) if end_s is None else end_s
    return decode(time_s, values, LABELS, settings(**changes), video="a.mp4", step_s=1.0, end_s=end_s)


def spans(events: list[Event]) -> list[tuple[float, float]]:
    return [(event.start_s, event.end_s) for event in events]


def test_an_event_lasts_while_its_score_keeps_the_lower_threshold() -> None:
    (event,) = events_of([0, 0.5, 0.9, 0.5, 0.1])
    assert event == Event(video="a.mp4", start_s=1, end_s=4, label="fall", score=event.score)
    assert event.score == pytest.approx(1.9 / 3, rel=1e-6)


def test_what_never_reaches_the_upper_threshold_is_no_event() -> None:
    assert events_of([0.5, 0.5, 0.55]) == []
    assert events_of([0.0]) == []


def test_an_event_at_the_ends_is_clipped_to_the_recording() -> None:
    assert spans(events_of([0.9, 0.9, 0.9], end_s=2.4)) == [(0, 2.4)]
    assert spans(events_of([0.9, 0.9, 0.9], end_s=9)) == [(0, 3)]


def test_near_events_are_one() -> None:
    scores = [0.9, 0, 0.9, 0, 0, 0.9]
    assert spans(events_of(scores)) == [(0, 1), (2, 3), (5, 6)]
    assert spans(events_of(scores, merge_s=1.0)) == [(0, 3), (5, 6)]
    assert spans(events_of(scores, merge_s=2.0)) == [(0, 6)]


def test_short_events_are_left_out_after_merging() -> None:
    assert spans(events_of([0.9, 0, 0.9, 0, 0, 0.9], merge_s=1.0, min_s=2.0)) == [(0, 3)]


def test_a_recording_shorter_than_the_shortest_event_can_hold_one() -> None:
    assert spans(events_of([0.9, 0.9], min_s=10.0)) == [(0, 2)]


def test_a_gap_in_the_recording_is_no_part_of_an_event() -> None:
    assert spans(events_of([0.9, 0.9, 0.9], times=[0, 1, 10])) == [(0, 11)]
    assert spans(events_of([0.9, 0.9, 0.1], times=[0, 1, 10])) == [(0, 2)]


def test_independent_labels_overlap() -> None:
    both = np.array([[0.9, 0.0], [0.9, 0.9], [0.0, 0.9]])
    assert [(e.label, e.start_s, e.end_s) for e in events_of(both)] == [("fall", 0, 2), ("walk", 1, 3)]


def test_of_exclusive_labels_the_best_counts() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.45, 0.55, 0.0], [0.1, 0.7, 0.2], [0.3, 0.0, 0.7]])
    found = events_of(scores, exclusive=True)
    assert [(e.label, e.start_s, e.end_s) for e in found] == [("fall", 0, 1), ("walk", 1, 3)]


def test_exclusive_labels_do_not_merge_across_another() -> None:
    scores = np.array([[0.9, 0.0], [0.1, 0.9], [0.9, 0.0]])
    assert len(events_of(scores, exclusive=True, merge_s=5.0)) == 3


def test_no_frames_no_events() -> None:
    assert decode(np.zeros(0), np.zeros((0, 2)), LABELS, settings(), video="a", step_s=1.0, end_s=0.0) == []


def test_scores_are_spread_over_the_frames_of_their_windows() -> None:
    scores = np.array([[1.0], [0.0]], np.float32)
    spread_out = spread(6, np.array([[0, 4], [2, 6]]), scores)[:, 0]
    assert spread_out.tolist() == pytest.approx([1, 1, 2 / 3, 1 / 3, 0, 0])
    assert spread(3, np.array([[0, 2]]), scores[:1])[2, 0] == 0


def test_equal_windows_give_their_score_to_every_frame() -> None:
    windows = np.array([[0, 8], [2, 10], [4, 12]])
    np.testing.assert_allclose(spread(12, windows, np.full((3, 2), 0.7, np.float32)), 0.7, rtol=1e-6)


# --- smoothing ------------------------------------------------------------------------------------------------------


def test_smoothing_is_a_mean_around_each_frame() -> None:
    time_s = np.arange(6) / 8
    scores = np.array([0, 0, 1, 0, 0, 0.5], np.float32)[:, None]
    assert smooth(time_s, scores, 0.25)[:, 0].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 1 / 6, 1 / 4])
    assert smooth(time_s, scores, 0.2)[:, 0].tolist() == scores[:, 0].tolist()  # no other frame is so near
    assert smooth(time_s, scores, 0.0) is scores
    assert smooth(time_s[:0], scores[:0], 1.0).shape == (0, 1)


def test_smoothing_does_not_reach_across_a_gap() -> None:
    time_s = np.array([0.0, 0.5, 9.0, 9.5])
    scores = np.array([0, 0, 1, 1], np.float32)[:, None]
    assert smooth(time_s, scores, 2.0)[:, 0].tolist() == [0, 0, 1, 1]


def test_smoothing_does_not_depend_on_where_a_stream_began() -> None:
    rng = np.random.default_rng(0)
    time_s, scores = np.arange(400) / 8, rng.random((400, 2)).astype(np.float32)
    late = smooth(time_s[100:], scores[100:], 1.0)
    assert np.array_equal(late[8:], smooth(time_s, scores, 1.0)[108:])


def test_flicker_is_one_event_when_smoothed() -> None:
    flicker = [0.9, 0.1] * 5
    assert len(events_of(flicker)) == 5
    assert len(events_of(flicker, smooth_s=2.0, high=(0.5, 0.5), low=(0.3, 0.3))) == 1


# --- candidates -----------------------------------------------------------------------------------------------------


def ranked(scores: np.ndarray, **changes: object) -> tuple[list[Event], list[Event]]:
    """Events, and candidates, at 1 frame a second."""
    values = np.asarray(scores, np.float32)
    time_s = np.arange(len(values), dtype=float)
    where = {"video": "a.mp4", "step_s": 1.0, "end_s": float(len(values))}
    chosen = settings(**changes)
    return decode(time_s, values, LABELS, chosen, **where), candidates(time_s, values, LABELS, chosen, **where)


def test_candidates_are_the_events_and_weaker_ones_clear_of_them() -> None:
    fall = [0.9, 0.9, 0.5, 0.1, 0.3, 0.3, 0.0, 0.15, 0.0, 0.01]
    found, all_ = ranked(np.column_stack([fall, np.zeros(10)]))
    assert spans(found) == [(0, 3)]
    assert all_[0] == found[0]
    assert spans(all_) == [(0, 3), (4, 6), (7, 8)]


@pytest.mark.parametrize("exclusive", [True, False])
def test_candidates_of_a_label_do_not_touch(exclusive: bool) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        scores = rng.random((40, 2)) ** 3
        found, all_ = ranked(scores, exclusive=exclusive, high=(0.5, 0.0), low=(0.3, 0.0))
        assert all_[: len(found)] == found
        for label in LABELS:
            own = sorted(spans([event for event in all_ if event.label == label]))
            assert all(one[1] <= two[0] for one, two in pairwise(own))


def test_candidates_look_behind_the_best_label() -> None:
    scores = np.array([[0.9, 0.5], [0.9, 0.5], [0.0, 0.0]])
    found, all_ = ranked(scores, exclusive=True)
    assert [event.label for event in found] == ["fall"]
    assert sorted(event.label for event in all_) == ["fall", "walk"]


def test_no_candidates_without_frames() -> None:
    assert candidates(np.zeros(0), np.zeros((0, 2)), LABELS, settings(), video="a", step_s=1.0, end_s=0.0) == []
