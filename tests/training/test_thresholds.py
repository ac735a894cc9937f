"""Thresholds fitted on validation examples, and defaults where there are too few."""

from dataclasses import replace

import numpy as np
import pytest

from vidgru.model.checkpoint import HeadSpec
from vidgru.model.event_decoder import DecodeSettings, decode_events
from vidgru.training.thresholds import (
    count_events,
    fit_clips,
    fit_event_scores,
    fit_frames,
    fit_platt,
    refit_thresholds,
)

ONE, SOME, SEVERAL = (
    HeadSpec(background=False, multi_label=False),
    HeadSpec(background=True, multi_label=False),
    HeadSpec(background=False, multi_label=True),
)


def test_clip_thresholds_maximise_f1() -> None:
    true = np.repeat([1, 0], 10)
    scores = np.column_stack([np.where(true, 0.35, 0.25), np.where(true, 0.9, 0.1)])
    fitted = fit_clips(scores, np.column_stack([true, true]), SEVERAL, 2, 4.0)
    assert 0.25 < fitted.high[0] <= 0.35
    assert fitted.high[1] == 0.5
    assert all(low < high for low, high in zip(fitted.low, fitted.high, strict=True))
    assert (fitted.min_s, fitted.merge_s, fitted.exclusive) == (1.0, 1.0, False)


def test_clip_thresholds_of_few_clips_are_default() -> None:
    scores, labels = np.full((6, 2), 0.3), np.eye(2)[[0, 0, 1, 1, 1, 1]]
    assert fit_clips(scores, labels, SEVERAL, 2, 4.0).high == (0.5, 0.5)


def test_clip_thresholds_of_exclusive_labels_are_zero() -> None:
    fitted = fit_clips(np.full((20, 2), 0.5), np.eye(2)[[0, 1] * 10], ONE, 2, 4.0)
    assert fitted.high == fitted.low == (0.0, 0.0)
    assert fitted.exclusive


# --- frames ---------------------------------------------------------------------------------------------------------

TIMES = [np.arange(120) / 8] * 6
HOURS = 6 * 15 / 3600
EVENTS = [np.array([[16, 40, 0], [64, 88, 0]])] * 6  # twelve events
TRUTH = [rows / [8, 8, 1] for rows in EVENTS]  # in seconds


def fitted(scores: list[np.ndarray], events: list[np.ndarray] = EVENTS, head: HeadSpec = SEVERAL) -> DecodeSettings:
    labels = ("fall", "walk")[: scores[0].shape[1] - head.background]
    return fit_frames(TIMES, scores, events, labels, head, 1 / 8, 3.0)


def scored(inside: float, outside: float) -> np.ndarray:
    scores = np.full((120, 1), outside, np.float32)
    for first, stop, _ in EVENTS[0]:
        scores[first:stop] = inside
    return scores


@pytest.mark.parametrize(("inside", "outside"), [(0.9, 0.05), (0.3, 0.2), (0.95, 0.6), (0.45, 0.1)])
def test_frame_thresholds_separate_events(inside: float, outside: float) -> None:
    settings = fitted([scored(inside, outside)] * 6)
    assert outside < settings.high[0] <= inside
    assert settings.low[0] <= settings.high[0]
    events = decode_events(TIMES[0], scored(inside, outside), ("fall",), settings, video="a", step_s=1 / 8, end_s=15.0)
    assert [(event.start_s, event.end_s) for event in events] == [(2.0, 5.0), (8.0, 11.0)]


def test_flickering_scores_are_smoothed() -> None:
    assert fitted([scored(0.9, 0.05)] * 6).smooth_s == 0.0
    flicker = []
    for seed in range(6):
        scores = scored(0.8, 0.1)
        off = np.random.default_rng(seed).random((120, 1)) < 0.4
        flicker.append(np.where(off, 0.9 - scores, scores).astype(np.float32))
    assert fitted(flicker).smooth_s > 0


def test_frame_thresholds_without_events_are_default() -> None:
    settings = fitted([np.random.default_rng(0).random((120, 1))] * 6, [np.zeros((0, 3), np.int64)] * 6)
    assert settings.high == (0.5,)
    assert settings.low == (0.4,)
    assert settings.smooth_s == 0.0
    assert (settings.min_s, settings.merge_s) == (1.5, 1.5)
    assert fit_frames([], [], [], ("fall",), SEVERAL, 1 / 8, 0.0).high == (0.5,)


def test_rare_labels_share_a_threshold() -> None:
    fall, walk = scored(0.3, 0.2), np.full((120, 1), 0.01, np.float32)
    scores = [np.concatenate([fall, walk], axis=1)] * 6
    events = [np.array([[16, 40, 0], [64, 88, 0]])] * 2 + [np.zeros((0, 3), np.int64)] * 4
    few = fitted(scores, events)
    assert few.high[0] == few.high[1]
    many = fitted(scores)
    assert many.high[0] == pytest.approx(0.3, abs=0.1)


def test_exclusive_labels_stay_exclusive() -> None:
    nothing = 1 - scored(0.9, 0.05)
    settings = fitted([np.concatenate([scored(0.9, 0.05), nothing], axis=1)] * 6, head=SOME)
    assert settings.exclusive
    assert 0.05 < settings.high[0] <= 0.9


# --- scores of events -----------------------------------------------------------------------------------------------


def test_platt_recovers_scale_and_bias() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 20_000)
    correct = rng.random(20_000) < 1 / (1 + np.exp(1 - 0.5 * logits))
    assert fit_platt(1 / (1 + np.exp(-logits)), correct) == pytest.approx((0.5, -1.0), abs=0.05)


def test_platt_of_few_events_changes_little() -> None:
    scale, bias = fit_platt(np.array([0.0, 0.6, 1.0]), np.array([False, True, True]))
    assert scale == pytest.approx(1, abs=0.1)
    assert abs(bias) < 0.3
    assert fit_platt(np.zeros(0), np.zeros(0, bool)) == (1.0, 0.0)


def test_platt_never_reverses_scores() -> None:
    scores = np.linspace(0.05, 0.95, 200)
    assert fit_platt(scores, scores < 0.5)[0] > 0


def test_event_scores_are_fitted_to_share_of_matches() -> None:
    """Of as many recordings without events as with them, half of the predicted events are correct."""
    scores = [scored(0.8, 0.05)] * 12
    settings = fitted(scores[:6])
    assert (settings.event_scale, settings.event_bias) == (1.0, 0.0)
    events = EVENTS + [np.zeros((0, 3), np.int64)] * 6
    calibrated = fit_event_scores(settings, TIMES * 2, scores, events, ("fall",), 1 / 8)
    assert calibrated.event_score(0.8) == pytest.approx(0.5, abs=0.1)
    assert calibrated.event_score(0.05) < 0.2
    assert (calibrated.high, calibrated.low) == (settings.high, settings.low)


def test_event_scores_without_events_are_not_fitted() -> None:
    nothing = [np.zeros((0, 3), np.int64)] * 6
    settings = fitted([scored(0.8, 0.05)] * 6)
    assert fit_event_scores(settings, TIMES, [scored(0.8, 0.05)] * 6, nothing, ("fall",), 1 / 8) == settings


# --- fitted again -----------------------------------------------------------------------------------------------------


def noisy(inside: tuple[float, ...], alarm: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Six recordings with two events each, whose scores are those given in turn, and one false alarm each."""
    scores = []
    for number in range(6):
        rows = np.full((120, 1), 0.01, np.float32)
        rows[16:40] = inside[2 * number % len(inside)]
        rows[64:88] = inside[(2 * number + 1) % len(inside)]
        rows[96:112] = alarm
        scores.append(rows)
    return scores, TRUTH


@pytest.mark.parametrize(
    ("aim", "threshold", "counts"),
    [
        ({}, (0.55, 0.8), (12, 12, 0)),  # all events, no alarm
        ({"min_recall": 0.5}, (0.8, 0.9), (6, 6, 0)),
        ({"min_recall": 0.6}, (0.55, 0.8), (12, 12, 0)),
        ({"max_false_alarms": 0.0}, (0.55, 0.8), (12, 12, 0)),
        ({"max_false_alarms": 1000.0}, (0.55, 0.8), (12, 12, 0)),
    ],
)
def test_refit_reaches_its_aim(aim: dict[str, float], threshold: tuple[float, float], counts: tuple[int, ...]) -> None:
    scores, truth = noisy((0.8, 0.9), alarm=0.55)
    old = DecodeSettings(high=(0.3,), low=(0.15,), min_s=0.5, merge_s=0.5, exclusive=False, smooth_s=0.25)
    new = refit_thresholds(old, TIMES, scores, truth, ("fall",), 1 / 8, hours=HOURS, **aim)
    assert threshold[0] < new.high[0] <= threshold[1]
    assert new.low[0] == pytest.approx(new.high[0] / 2, abs=1e-3)
    assert replace(new, high=old.high, low=old.low) == old
    assert tuple(count_events(new, TIMES, scores, truth, ("fall",), 1 / 8)[0]) == counts
    assert tuple(count_events(old, TIMES, scores, truth, ("fall",), 1 / 8)[0]) == (18, 12, 6)


def test_refit_trims_events_to_annotations() -> None:
    """Scores begin a quarter of a second before the annotated events, and end half a second after them."""
    scores, _ = noisy((0.8, 0.9), alarm=0.01)
    shorter = [np.array([(2.25, 4.5, 0), (8.25, 10.5, 0)])] * 6
    old = DecodeSettings(high=(0.3, 0.4), low=(0.15, 0.2), min_s=0.5, merge_s=0.5, exclusive=False)
    both = [np.concatenate([rows, np.zeros_like(rows)], axis=1) for rows in scores]
    new = refit_thresholds(old, TIMES, both, shorter, ("fall", "walk"), 1 / 8, hours=HOURS)
    assert (new.start_trim_s, new.end_trim_s) == ((0.25, 0.0), (0.5, 0.0))
    (event, _) = decode_events(TIMES[0], both[0], ("fall", "walk"), new, video="", step_s=1 / 8, end_s=15.0)
    assert (event.start_s, event.end_s) == (2.25, 4.5)
    again = refit_thresholds(new, TIMES, both, TRUTH, ("fall", "walk"), 1 / 8, hours=HOURS)
    assert (again.start_trim_s, again.end_trim_s) == ((), ()), "annotated as long as they are scored"
    one = refit_thresholds(new, TIMES[:1], both[:1], [shorter[0][:1]], ("fall", "walk"), 1 / 8, hours=HOURS)
    assert (one.start_trim_s, one.end_trim_s) == (new.start_trim_s, new.end_trim_s), "one event tells nothing"


def test_refit_trims_no_more_than_starts_may_be_late() -> None:
    """Events open once they have lasted `min_s`, so that their start is known by then."""
    scores, _ = noisy((0.8, 0.9), alarm=0.01)
    shorter = [np.array([(3.0, 5.0, 0), (9.0, 11.0, 0)])] * 6
    old = DecodeSettings(high=(0.3,), low=(0.15,), min_s=0.5, merge_s=0.5, exclusive=False)
    new = refit_thresholds(old, TIMES, scores, shorter, ("fall",), 1 / 8, hours=HOURS)
    assert new.start_trim_s == (0.375,)
    assert decode_events(TIMES[0], scores[0], ("fall",), new, video="", step_s=1 / 8, end_s=15.0)[0].start_s == 2.375


def test_refit_trims_cost_no_event_that_was_found() -> None:
    """Most events are annotated to end early; some to start late, and would be lost if their end were cut off."""
    scores, _ = noisy((0.8,), alarm=0.01)
    truth = [np.array([(2.0, 3.6, 0), (8.0, 9.6, 0)])] * 4 + [np.array([(3.5, 5.0, 0), (9.5, 11.0, 0)])] * 2
    old = DecodeSettings(high=(0.3,), low=(0.15,), min_s=0.5, merge_s=0.5, exclusive=False)
    labels = ("fall",)
    new = refit_thresholds(old, TIMES, scores, truth, labels, 1 / 8, hours=HOURS)
    found = [count_events(of, TIMES, scores, truth, labels, 1 / 8)[0, 1] for of in (new.untrimmed(), new)]
    assert found == [12, 12]
    assert new.end_trim_s == ()


def test_refit_takes_what_is_nearest_to_its_aim() -> None:
    scores, truth = noisy((0.4,), alarm=0.99)
    old = DecodeSettings(high=(0.5, 0.7), low=(0.4, 0.5), min_s=0.5, merge_s=0.5, exclusive=False)
    both = [np.concatenate([rows, rows], axis=1) for rows in scores]
    labels = ("fall", "walk")  # no event is a walk
    fewest = refit_thresholds(old, TIMES, both, truth, labels, 1 / 8, hours=HOURS, max_false_alarms=0.0)
    assert fewest.high == (0.98, 0.7)
    most = refit_thresholds(old, TIMES, both, truth, labels, 1 / 8, hours=HOURS, min_recall=1.0)
    assert 0.3 < most.high[0] <= 0.4
