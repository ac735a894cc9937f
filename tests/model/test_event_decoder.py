from itertools import pairwise

import numpy as np
import pytest

from vidgru.model.event_decoder import (
    DecodeSettings,
    EventDecoder,
    decode_candidates,
    decode_events,
    platt,
    smooth_scores,
)
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
    return decode_events(time_s, values, LABELS, settings(**changes), video="a.mp4", step_s=1.0, end_s=end_s)


def spans(events: list[Event]) -> list[tuple[float, float]]:
    return [(event.start_s, event.end_s) for event in events]


def test_decode_events_hysteresis() -> None:
    (event,) = events_of([0, 0.5, 0.9, 0.5, 0.1])
    assert event == Event(video="a.mp4", start_s=1, end_s=4, label="fall", score=event.score)
    assert event.score == pytest.approx(1.9 / 3, rel=1e-6)


def test_event_scores_are_calibrated_by_settings() -> None:
    (event,) = events_of([0, 0.5, 0.9, 0.5, 0.1], event_scale=2.0, event_bias=-1.0)
    odds = (1.9 / 1.1) ** 2 * np.exp(-1)
    assert event.score == pytest.approx(odds / (1 + odds), rel=1e-6)
    assert spans([event]) == [(1, 4)]
    for mean in (0.0, 1.0):  # have no logits
        assert events_of([1 - mean, mean, 1 - mean], event_scale=2.0)[0].score == pytest.approx(1)
    assert [platt(score, 1e300, 0.0) for score in (0.1, 0.9)] == [0, 1]  # no overflow, if a file says so


def test_decode_events_trim_both_ends() -> None:
    scores = [0, 0.9, 0.9, 0.9, 0.9, 0.9, 0]
    assert spans(events_of(scores, min_s=3.0, start_trim_s=(1.0, 0.0), end_trim_s=(2.0, 0.0))) == [(2, 4)]
    assert spans(events_of(scores, start_trim_s=(1.0, 0.0), end_trim_s=(9.0, 0.0))) == [(1, 2)], "a step stays"
    with pytest.raises(ValueError, match="a trim per label or none"):
        settings(start_trim_s=(1.0,), end_trim_s=(1.0,))


def test_decode_events_require_upper_threshold() -> None:
    assert events_of([0.5, 0.5, 0.55]) == []
    assert events_of([0.0]) == []


def test_decode_events_clip_to_recording() -> None:
    assert spans(events_of([0.9, 0.9, 0.9], end_s=2.4)) == [(0, 2.4)]
    assert spans(events_of([0.9, 0.9, 0.9], end_s=9)) == [(0, 3)]


def test_decode_events_merge_close_events() -> None:
    scores = [0.9, 0, 0.9, 0, 0, 0.9]
    assert spans(events_of(scores)) == [(0, 1), (2, 3), (5, 6)]
    assert spans(events_of(scores, merge_s=1.0)) == [(0, 3), (5, 6)]
    assert spans(events_of(scores, merge_s=2.0)) == [(0, 6)]


def test_decode_events_drop_short_events_after_merging() -> None:
    assert spans(events_of([0.9, 0, 0.9, 0, 0, 0.9], merge_s=1.0, min_s=2.0)) == [(0, 3)]


def test_decode_events_keep_event_of_whole_recording() -> None:
    assert spans(events_of([0.9, 0.9], min_s=10.0)) == [(0, 2)]


def test_decode_events_exclude_gaps() -> None:
    assert spans(events_of([0.9, 0.9, 0.9], times=[0, 1, 10])) == [(0, 11)]
    assert spans(events_of([0.9, 0.9, 0.1], times=[0, 1, 10])) == [(0, 2)]


def test_decode_events_independent_labels_overlap() -> None:
    both = np.array([[0.9, 0.0], [0.9, 0.9], [0.0, 0.9]])
    assert [(e.label, e.start_s, e.end_s) for e in events_of(both)] == [("fall", 0, 2), ("walk", 1, 3)]


def test_decode_events_exclusive_labels() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.45, 0.55, 0.0], [0.1, 0.7, 0.2], [0.3, 0.0, 0.7]])
    events_found = events_of(scores, exclusive=True)
    assert [(e.label, e.start_s, e.end_s) for e in events_found] == [("fall", 0, 1), ("walk", 1, 3)]


def test_decode_events_exclusive_labels_separate_events() -> None:
    scores = np.array([[0.9, 0.0], [0.1, 0.9], [0.9, 0.0]])
    assert len(events_of(scores, exclusive=True, merge_s=5.0)) == 3


def test_lower_thresholds_follow_in_proportion() -> None:
    fitted = settings(high=(0.6, 0.5, 0.0), low=(0.4, 0.4, 0.0))
    changed = fitted.with_high((0.3, 0.5, 0.5))
    assert (changed.high, changed.low) == ((0.3, 0.5, 0.5), (0.2, 0.4, 0.4))
    assert fitted.with_high(fitted.high) == fitted


def test_decode_events_without_frames() -> None:
    assert decode_events(np.zeros(0), np.zeros((0, 2)), LABELS, settings(), video="a", step_s=1.0, end_s=0.0) == []


# --- frames as they come ----------------------------------------------------------------------------------------------


def by_definition(time_s: np.ndarray, scores: np.ndarray, config: DecodeSettings, step_s: float, end_s: float):
    """Events of a whole recording, in the plainest way there is: label, first frame, frame after the last, mean."""
    scores = smooth_scores(time_s, scores, config.smooth_s)
    frames, number = scores.shape
    stops = [min(time_s[t + 1], time_s[t] + step_s) if time_s[t + 1] - time_s[t] > 2 * step_s else time_s[t + 1]
             for t in range(frames - 1)]  # fmt: skip
    stops.append(min(time_s[-1] + step_s, max(end_s, time_s[-1] + 1e-3)))
    active = np.zeros((frames, number), bool)
    for label in range(number):
        allowed = scores.argmax(axis=1) == label if config.exclusive else np.ones(frames, bool)
        keeps = [*(allowed & (scores[:, label] >= np.float32(config.low[label]))), False]
        first = None
        for t, is_kept in enumerate(keeps):
            if is_kept and first is None:
                first = t
            if not is_kept and first is not None:
                active[first:t, label] = (scores[first:t, label] >= np.float32(config.high[label])).any()
                first = None
    least_s = min(config.min_s, 0.99 * (stops[-1] - time_s[0]))
    events = []
    for label in range(number):
        spans: list[list[int]] = []
        for t in np.flatnonzero(active[:, label]):
            if spans:
                gap = range(spans[-1][1], t)
                alone = not (config.exclusive and any(active[g].any() for g in gap))
                if not gap or (time_s[t] - stops[gap[0] - 1] <= config.merge_s and alone):
                    spans[-1][1] = t + 1
                    continue
            spans.append([t, t + 1])
        for first, stop in spans:
            if stops[stop - 1] - time_s[first] >= least_s:
                mean = scores[first:stop, label].mean(dtype=np.float64)
                start_s, end_s = time_s[first], stops[stop - 1]
                if config.start_trim_s:
                    most_s = min(config.min_s, end_s - start_s) - step_s  # later, the event would have opened already
                    start_s += max(min(config.start_trim_s[label], most_s), 0)
                    end_s = max(end_s - config.end_trim_s[label], min(start_s + step_s, end_s))
                events.append((start_s, end_s, LABELS[label], mean))
    return sorted(events)


def random_recording(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, DecodeSettings, float]:
    """A recording that rises and falls, with gaps and uneven steps, settings, and an end."""
    frames = int(rng.integers(1, 60))
    steps = np.where(rng.random(frames) < 0.1, rng.choice([0.3, 0.9, 4.0], frames), 0.125)
    time_s = np.cumsum(steps) - steps[0]
    scores = np.clip(np.cumsum(rng.normal(0, 0.25, (frames, 2)), axis=0) % 1.6 - 0.3, 0, 1).astype(np.float32)
    high = tuple(rng.choice([0.0, 0.3, 0.6, 0.8], 2))
    trims = [tuple(rng.choice([0.0, 0.1, 0.7, 9.0], 2)) for _ in range(2)] if rng.random() < 0.5 else [(), ()]
    config = DecodeSettings(
        high=high,
        low=tuple(value * rng.choice([0.5, 1.0]) for value in high),
        min_s=float(rng.choice([0.0, 0.3, 1.0, 20.0])),
        merge_s=float(rng.choice([0.0, 0.2, 1.0])),
        exclusive=bool(rng.integers(2)),
        smooth_s=float(rng.choice([0.0, 0.25, 0.5, 1.0])),
        start_trim_s=trims[0],
        end_trim_s=trims[1],
    )
    return time_s, scores, config, float(time_s[-1] + rng.choice([0.01, 0.125, 3.0]))


@pytest.mark.parametrize("seed", range(60))
def test_event_decoder_equals_reference_for_any_chunks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(5):
        time_s, scores, config, end_s = random_recording(rng)
        expected = by_definition(time_s, scores, config, 0.125, end_s)
        whole = decode_events(time_s, scores, LABELS, config, video="a", step_s=0.125, end_s=end_s)
        events_found = sorted((event.start_s, event.end_s, event.label, event.score) for event in whole)
        assert [event[:3] for event in events_found] == [event[:3] for event in expected]
        np.testing.assert_allclose([e[3] for e in events_found], [e[3] for e in expected], rtol=0, atol=1e-6)
        edges = [0, *sorted(rng.integers(0, len(time_s) + 1, rng.integers(0, 12))), len(time_s)]
        for known in (False, True):  # whether the time of the next frame is told
            decoder = EventDecoder(LABELS, config, video="a", step_s=0.125)
            opened: list[Event] = []
            closed: list[Event] = []
            for first, stop in pairwise(edges):
                next_s = float(time_s[stop]) if known and stop < len(time_s) else None
                newly_opened, newly_closed = decoder.push(time_s[first:stop], scores[first:stop], next_s)
                opened += newly_opened
                closed += newly_closed
                assert {(e.label, e.start_s) for e in closed} <= {(e.label, e.start_s) for e in opened}
            newly_opened, newly_closed = decoder.finish(end_s)
            assert sorted(closed + newly_closed, key=lambda e: (e.start_s, e.label)) == sorted(
                whole, key=lambda e: (e.start_s, e.label)
            )
            assert sorted((e.label, e.start_s) for e in opened + newly_opened) == sorted(
                (e.label, e.start_s) for e in whole
            )


def outputs_by_frame(scores: list[float], **changes: object) -> list[tuple[int, list[tuple[float, float]], list]]:
    """Frame by frame at 1 a second, the next one known: what is opened and closed, where anything is."""
    decoder = EventDecoder(LABELS, settings(**changes), video="a.mp4", step_s=1.0)
    outputs = []
    for t, score in enumerate(scores):
        opened, closed = decoder.push(np.array([float(t)]), np.array([[score, 0]], np.float32), t + 1.0)
        if opened or closed:
            outputs.append((t, spans(opened), spans(closed)))
    return outputs


def test_event_decoder_opens_and_closes_early() -> None:
    assert outputs_by_frame([0, 0.5, 0.9, 0.9, 0, 0, 0]) == [(2, [(1, 3)], []), (4, [], [(1, 4)])]
    assert outputs_by_frame([0, 0.9, 0.9, 0.9, 0, 0, 0], min_s=3.0) == [(3, [(1, 4)], []), (4, [], [(1, 4)])]
    assert outputs_by_frame([0, 0.9, 0, 0, 0, 0], merge_s=2.0) == [(1, [(1, 2)], []), (4, [], [(1, 2)])]
    assert outputs_by_frame([0, 0.9, 0, 0, 0.5, 0.5, 0, 0], merge_s=2.0)[1] == (6, [], [(1, 2)]), (
        "what might join is waited for"
    )
    assert outputs_by_frame([0, 0.9, 0, 0, 0], smooth_s=2.0, high=(0.3, 1), low=(0.2, 1)) == [
        (1, [(0, 1)], []),
        (4, [], [(0, 3)]),
    ]


def test_event_decoder_memory_is_bounded() -> None:
    rng = np.random.default_rng(0)
    decoder = EventDecoder(LABELS, settings(smooth_s=4.0, merge_s=1.0), video="a.mp4", step_s=1.0)
    for t in range(500):
        decoder.push(np.array([float(t)]), rng.random((1, 2)).astype(np.float32))
        assert len(decoder._time_s) == len(decoder._scores) <= 6
        assert len(decoder._short) == 0


# --- smoothing ------------------------------------------------------------------------------------------------------


def test_smooth_scores_is_centred_mean() -> None:
    time_s = np.arange(6) / 8
    scores = np.array([0, 0, 1, 0, 0, 0.5], np.float32)[:, None]
    assert smooth_scores(time_s, scores, 0.25)[:, 0].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 1 / 6, 1 / 4])
    assert smooth_scores(time_s, scores, 0.2)[:, 0].tolist() == scores[:, 0].tolist()  # no other frame is so near
    assert smooth_scores(time_s, scores, 0.0) is scores
    assert smooth_scores(time_s[:0], scores[:0], 1.0).shape == (0, 1)


def test_smooth_scores_stops_at_gaps() -> None:
    time_s = np.array([0.0, 0.5, 9.0, 9.5])
    scores = np.array([0, 0, 1, 1], np.float32)[:, None]
    assert smooth_scores(time_s, scores, 2.0)[:, 0].tolist() == [0, 0, 1, 1]


def test_smooth_scores_is_independent_of_stream_start() -> None:
    rng = np.random.default_rng(0)
    time_s, scores = np.arange(400) / 8, rng.random((400, 2)).astype(np.float32)
    late = smooth_scores(time_s[100:], scores[100:], 1.0)
    assert np.array_equal(late[8:], smooth_scores(time_s, scores, 1.0)[108:])


def test_smooth_scores_joins_flicker() -> None:
    flicker = [0.9, 0.1] * 5
    assert len(events_of(flicker)) == 5
    assert len(events_of(flicker, smooth_s=2.0, high=(0.5, 0.5), low=(0.3, 0.3))) == 1


# --- candidates -----------------------------------------------------------------------------------------------------


def ranked(scores: np.ndarray, **changes: object) -> tuple[list[Event], list[Event]]:
    """Events, and candidates, at 1 frame a second."""
    values = np.asarray(scores, np.float32)
    time_s = np.arange(len(values), dtype=float)
    where = {"video": "a.mp4", "step_s": 1.0, "end_s": float(len(values))}
    config = settings(**changes)
    return decode_events(time_s, values, LABELS, config, **where), decode_candidates(
        time_s, values, LABELS, config, **where
    )


def test_decode_candidates() -> None:
    fall = [0.9, 0.9, 0.5, 0.1, 0.3, 0.3, 0.0, 0.15, 0.0, 0.01]
    events_found, ranked_events = ranked(np.column_stack([fall, np.zeros(10)]))
    assert spans(events_found) == [(0, 3)]
    assert ranked_events[0] == events_found[0]
    assert spans(ranked_events) == [(0, 3), (4, 6), (7, 8)]


@pytest.mark.parametrize("exclusive", [True, False])
def test_decode_candidates_of_label_do_not_overlap(exclusive: bool) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        scores = rng.random((40, 2)) ** 3
        events_found, ranked_events = ranked(scores, exclusive=exclusive, high=(0.5, 0.0), low=(0.3, 0.0))
        assert ranked_events[: len(events_found)] == events_found
        for label in LABELS:
            intervals = sorted(spans([event for event in ranked_events if event.label == label]))
            assert all(first_span[1] <= second_span[0] for first_span, second_span in pairwise(intervals))


def test_decode_candidates_ignore_exclusivity() -> None:
    scores = np.array([[0.9, 0.5], [0.9, 0.5], [0.0, 0.0]])
    events_found, ranked_events = ranked(scores, exclusive=True)
    assert [event.label for event in events_found] == ["fall"]
    assert sorted(event.label for event in ranked_events) == ["fall", "walk"]


def test_decode_candidates_without_frames() -> None:
    assert decode_candidates(np.zeros(0), np.zeros((0, 2)), LABELS, settings(), video="a", step_s=1.0, end_s=0.0) == []
