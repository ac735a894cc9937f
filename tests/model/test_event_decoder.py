from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.model.networks import make_model
from tests.sequences import make_sequence
from vidgru.model.captioner import caption_events
from vidgru.model.event_decoder import (
    DecodeSettings,
    EventDecoder,
    FixedWindowDecoder,
    decode_candidates,
    decode_events,
    smooth_scores,
)
from vidgru.model.features import stream_features
from vidgru.model.scoring import encode_features
from vidgru.model.stream import EventStream, score_encoded, score_recording
from vidgru.types import DESCRIBED, Event

LABELS = ("fall", "walk")


def settings(**changes: object) -> DecodeSettings:
    values = {"high": (0.6, 0.6), "low": (0.4, 0.4), "min_s": 0.0, "merge_s": 0.0, "exclusive": False}
    return DecodeSettings(**{**values, **changes})


def events_of(scores: list[float] | np.ndarray, *, end_s: float | None = None, times=None, **changes) -> list[Event]:
    """Decode scores at 1 frame per second, of the label fall or with one column per label."""
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


def test_decode_events_without_frames() -> None:
    assert decode_events(np.zeros(0), np.zeros((0, 2)), LABELS, settings(), video="a", step_s=1.0, end_s=0.0) == []


# --- chunks -----------------------------------------------------------------------------------------------------------


def by_definition(time_s: np.ndarray, scores: np.ndarray, config: DecodeSettings, step_s: float, end_s: float):
    """Reference implementation for whole recordings: (start, end, label, mean score) of each event."""
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
                events.append((time_s[first], stops[stop - 1], LABELS[label], mean))
    return sorted(events)


def random_recording(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, DecodeSettings, float]:
    """Make random scores with gaps and uneven steps: times, scores, settings, end."""
    frames = int(rng.integers(1, 60))
    steps = np.where(rng.random(frames) < 0.1, rng.choice([0.3, 0.9, 4.0], frames), 0.125)
    time_s = np.cumsum(steps) - steps[0]
    scores = np.clip(np.cumsum(rng.normal(0, 0.25, (frames, 2)), axis=0) % 1.6 - 0.3, 0, 1).astype(np.float32)
    high = tuple(rng.choice([0.0, 0.3, 0.6, 0.8], 2))
    config = DecodeSettings(
        high=high,
        low=tuple(value * rng.choice([0.5, 1.0]) for value in high),
        min_s=float(rng.choice([0.0, 0.3, 1.0, 20.0])),
        merge_s=float(rng.choice([0.0, 0.2, 1.0])),
        exclusive=bool(rng.integers(2)),
        smooth_s=float(rng.choice([0.0, 0.25, 0.5, 1.0])),
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
        for known in (False, True):  # whether the time of the next frame is known
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
    """Push single frames at 1 per second; return (frame, opened, closed) where an event opens or closes."""
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
        "a run that may join is awaited"
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
    assert smooth_scores(time_s, scores, 0.2)[:, 0].tolist() == scores[:, 0].tolist()  # no other frame is that close
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
    """Return the events and the candidates at 1 frame per second."""
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


# --- fixed windows --------------------------------------------------------------------------------------------------

SEQUENCE = make_sequence(300, seed=2)
MODEL = make_model(SEQUENCE, clips=False, sentences=("A man falls.", "He walks."))  # trained on clips of two seconds


def windows_of_recording(duration_s: float, edges: list[int] | None = None) -> list[Event]:
    """Return the windows of a recording of 8 frames per second, pushed in chunks."""
    number = round(duration_s * 8)
    sequence = SEQUENCE.frames(0, number)
    stream = EventStream(MODEL, video="a.mp4")
    steps = [stream.push(sequence.frames(a, b)) for a, b in pairwise(edges or [0, number])]
    steps.append(stream.finish(duration_s))
    assert [event for step in steps for event in step.opened] == [event for step in steps for event in step.closed]
    return [event for step in steps for event in step.closed]


@pytest.mark.parametrize(("duration_s", "expected"), [
    (0.125, [(0, 0.125)]),
    (1.0, [(0, 1)]),
    (2.0, [(0, 2)]),
    (3.0, [(0, 3)]),
    (3.125, [(0, 2), (2, 3.125)]),
    (4.0, [(0, 2), (2, 4)]),
    (5.0, [(0, 2), (2, 5)]),
    (37.5, [*((a, a + 2) for a in range(0, 36, 2)), (36, 37.5)]),
])  # fmt: skip
def test_fixed_windows(duration_s: float, expected: list[tuple[float, float]]) -> None:
    events = windows_of_recording(duration_s)
    assert spans(events) == expected
    assert {(event.video, event.label, event.score) for event in events} == {("a.mp4", DESCRIBED, 1.0)}


@pytest.mark.parametrize("seed", range(5))
def test_fixed_windows_are_independent_of_chunks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    number = int(rng.integers(1, 301))
    edges = list(range(number + 1)) if seed == 0 else [0, *sorted(rng.integers(0, number + 1, 9)), number]
    events = windows_of_recording(number / 8, edges)
    assert events == windows_of_recording(number / 8)
    lengths = np.array([end_s - start_s for start_s, end_s in spans(events)])
    assert (lengths[:-1] == 2).all()
    assert lengths[-1] <= 3.125
    assert lengths[-1] >= min(1.0, number / 8)


@pytest.mark.parametrize("duration_s", [0.0, 4.0])
def test_fixed_windows_without_frames(duration_s: float) -> None:
    scored = score_recording(MODEL, [], video="a.mp4", duration_s=duration_s)
    assert scored.events == []
    assert scored.scores.shape == (0, 1)


def test_fixed_windows_close_half_a_window_late() -> None:
    decoder = FixedWindowDecoder("x", video="a.mp4", length_s=2.0, step_s=0.125)
    for frame in range(25):
        opened, closed = decoder.push(np.array([frame / 8]), np.ones((1, 1)))
        assert opened == closed
        assert spans(closed) == ([(0.0, 2.0)] if frame == 24 else [])


def test_fixed_windows_end_with_recording() -> None:
    decoder = FixedWindowDecoder("x", video="a.mp4", length_s=2.0, step_s=0.125)
    decoder.push(np.arange(8) / 8, np.ones((8, 1)))
    assert spans(decoder.finish(30.0)[1]) == [(0.0, 30.0)]


def windows_of_frames(time_s: list[float], edges: Iterable[int] = ()) -> list[tuple[float, float]]:
    """Return the windows of frames at 8 per second, pushed in chunks; the recording ends with the last frame."""
    decoder = FixedWindowDecoder("x", video="a.mp4", length_s=2.0, step_s=0.125)
    parts = np.split(np.array(time_s), list(edges))
    events = [event for part in parts for event in decoder.push(part, np.ones((len(part), 1)))[1]]
    return spans([*events, *decoder.finish(time_s[-1] + 0.125)[1]])


def frames(*intervals: tuple[float, float]) -> list[float]:
    return [float(at_s) for start_s, end_s in intervals for at_s in np.arange(start_s, end_s, 0.125)]


@pytest.mark.parametrize(("intervals", "expected"), [
    ([(0.1, 3.5)], [(0, 2), (2, 3.6)]),  # less than a step after 0
    ([(0.125, 3.125)], [(0.125, 3.125)]),
    ([(3600, 3601)], [(3600, 3601)]),
    ([(3600, 3603.5)], [(3600, 3602), (3602, 3603.5)]),
    ([(0, 1), (3600, 3601)], [(0, 2), (3600, 3601)]),
    ([(0, 2.5), (3600, 3603.5)], [(0, 2), (2, 4), (3600, 3602), (3602, 3603.5)]),
    ([(0, 1), (3.875, 5)], [(0, 2), (2, 5)]),  # each contains frames
    ([(0, 1), (4, 5), (9, 9.125)], [(0, 2), (4, 6), (9, 9.125)]),
])  # fmt: skip
def test_fixed_windows_contain_frames(
    intervals: list[tuple[float, float]], expected: list[tuple[float, float]]
) -> None:
    assert np.array(windows_of_frames(frames(*intervals))) == pytest.approx(np.array(expected))


@pytest.mark.parametrize("seed", range(20))
def test_fixed_windows_with_gaps_are_independent_of_chunks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    time_s = [float(at_s) for at_s in np.cumsum(rng.choice([0.125, 0.125, 0.125, 1.0, 2.5, 7.0, 500.0], 80))]
    whole = windows_of_frames(time_s)
    assert windows_of_frames(time_s, sorted(rng.integers(0, 81, 9))) == whole
    assert windows_of_frames(time_s, range(1, 80)) == whole
    assert all(before[1] <= after[0] for before, after in pairwise(whole))
    frame_counts = [sum(start_s <= at_s < end_s for at_s in time_s) for start_s, end_s in whole]
    assert min(frame_counts) > 0
    assert sum(frame_counts) == len(time_s)


def test_fixed_windows_start_with_late_first_frame() -> None:
    late = replace(SEQUENCE, time_s=SEQUENCE.time_s + 3600).frames(0, 28)
    stream = EventStream(MODEL, video="a.mp4", beam=1)
    closed = [*stream.push(late).closed, *stream.finish(3603.5).closed]
    assert spans(closed) == [(3600, 3602), (3602, 3603.5)]
    assert all(event.description for event in closed)


def test_fixed_windows_of_whole_recording() -> None:
    scored = score_recording(MODEL, [SEQUENCE], video="a.mp4", duration_s=37.5)
    assert scored.scores.shape == (300, 1)
    assert (scored.scores == 1).all()
    assert len(scored.attention) == len(SEQUENCE.boxes)
    encoded = encode_features(MODEL, stream_features([SEQUENCE], MODEL.feature_spec))
    (rescored,) = score_encoded(MODEL, [(encoded, "a.mp4", 37.5)])
    assert rescored.events == scored.events
    captioned = caption_events(MODEL, [SEQUENCE], scored.events)
    assert len({event.description for event in captioned}) > 3
    assert spans(captioned) == spans(scored.events)
