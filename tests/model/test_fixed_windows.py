"""A model that only describes cuts recordings into segments as long as the clips that it learnt from."""

import itertools
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from tests.model.networks import make_model
from tests.sequences import make_sequence
from vidgru.model.captioner import caption_events
from vidgru.model.event_decoder import FixedWindowDecoder
from vidgru.model.features import stream_features
from vidgru.model.scoring import encode_features
from vidgru.model.stream import EventStream, score_encoded, score_recording
from vidgru.types import DESCRIBED, Event

SEQUENCE = make_sequence(300, seed=2)
MODEL = make_model(SEQUENCE, clips=False, sentences=("A man falls.", "He walks."))  # of clips of two seconds


def spans(events: list[Event]) -> list[tuple[float, float]]:
    return [(event.start_s, event.end_s) for event in events]


def windows_of_recording(duration_s: float, edges: list[int] | None = None) -> list[Event]:
    """Of a recording with eight frames a second, cut up in pushes."""
    number = round(duration_s * 8)
    sequence = SEQUENCE.frames(0, number)
    stream = EventStream(MODEL, video="a.mp4", beam=0)
    steps = [stream.push(sequence.frames(a, b)) for a, b in itertools.pairwise(edges or [0, number])]
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


def cut(time_s: list[float], edges: Iterable[int] = ()) -> list[tuple[float, float]]:
    """The segments of a decoder that takes these frames, eight a second, cut up in pushes; they end with the last."""
    decoder = FixedWindowDecoder("x", video="a.mp4", length_s=2.0, step_s=0.125)
    parts = np.split(np.array(time_s), list(edges))
    events = [event for part in parts for event in decoder.push(part, np.ones((len(part), 1)))[1]]
    return spans([*events, *decoder.finish(time_s[-1] + 0.125)[1]])


def frames(*segments: tuple[float, float]) -> list[float]:
    return [float(at_s) for start_s, end_s in segments for at_s in np.arange(start_s, end_s, 0.125)]


@pytest.mark.parametrize(("segments", "expected"), [
    ([(0.1, 3.5)], [(0, 2), (2, 3.6)]),  # sooner than a step from 0
    ([(0.125, 3.125)], [(0.125, 3.125)]),
    ([(3600, 3601)], [(3600, 3601)]),
    ([(3600, 3603.5)], [(3600, 3602), (3602, 3603.5)]),
    ([(0, 1), (3600, 3601)], [(0, 2), (3600, 3601)]),
    ([(0, 2.5), (3600, 3603.5)], [(0, 2), (2, 4), (3600, 3602), (3602, 3603.5)]),
    ([(0, 1), (3.875, 5)], [(0, 2), (2, 5)]),  # each of them holds frames
    ([(0, 1), (4, 5), (9, 9.125)], [(0, 2), (4, 6), (9, 9.125)]),
])  # fmt: skip
def test_fixed_windows_contain_frames(segments: list[tuple[float, float]], expected: list[tuple[float, float]]) -> None:
    assert np.array(cut(frames(*segments))) == pytest.approx(np.array(expected))


@pytest.mark.parametrize("seed", range(20))
def test_fixed_windows_with_gaps_are_independent_of_chunks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    time_s = [float(at_s) for at_s in np.cumsum(rng.choice([0.125, 0.125, 0.125, 1.0, 2.5, 7.0, 500.0], 80))]
    whole = cut(time_s)
    assert cut(time_s, sorted(rng.integers(0, 81, 9))) == cut(time_s, range(1, 80)) == whole
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(whole))
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
    (again,) = score_encoded(MODEL, [(encoded, "a.mp4", 37.5)])
    assert again.events == scored.events
    told = caption_events(MODEL, [SEQUENCE], scored.events)
    assert len({event.description for event in told}) > 3
    assert spans(told) == spans(scored.events)
