"""What is kept of the objects, and how exactly."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.prediction.fake_project import make_model
from tests.prediction.report.pages import event, scored, sequence
from tests.sequences import make_sequence
from vidgru.prediction.report.packing import (
    FEW_FRAMES,
    MAX_POINTS,
    QuantisedObjects,
    bucket_starts,
    choose_moments,
    frame_ranks,
    kept_shares,
    select_objects,
    still_spans,
    thin,
)

UNLIMITED = 10**9
MANY = FEW_FRAMES + 1  # frames of a recording of which only those around events are kept


def test_select_objects_around_events() -> None:
    whole = sequence(MANY)
    ranks = frame_ranks(whole.time_s, [event(5.0, 7.0), event(15.05, 15.15)])
    kept = select_objects(
        [whole.frames(0, 77), whole.frames(77, MANY)], np.zeros(2 * MANY, np.float32), ranks, UNLIMITED
    )
    frames = [*range(40, 80), *range(141, 162)]
    assert kept.time_ms.tolist() == [100 * frame for frame in frames]
    assert kept.counts.tolist() == [2] * len(frames)
    assert np.flatnonzero(kept.joined == 0).tolist() == [0, 40]
    assert np.abs(kept.boxes / 65535 - whole.boxes.reshape(MANY, 8)[frames].reshape(-1, 4)).max() < 1e-5
    assert kept.tracks.tolist() == [7, -1] * len(frames)
    assert kept.classes.tolist() == [0, 1] * len(frames)


def test_select_objects_of_short_recording() -> None:
    whole = sequence(FEW_FRAMES)
    attention = np.zeros(2 * FEW_FRAMES, np.float32)
    for events in ([], [event(100.0, 150.0), event(390.0, 395.0)]):
        kept = select_objects([whole], attention, frame_ranks(whole.time_s, events), UNLIMITED)
        assert np.array_equal(kept.time_ms, np.round(whole.time_s * 1000))
        assert np.flatnonzero(kept.joined == 0).tolist() == [0]
    frame_bytes = 7 + 2 * 16  # with two objects
    kept = select_objects([whole], attention, frame_ranks(whole.time_s, events), (520 + 70 + 30) * frame_bytes)
    assert kept_shares(events, kept, whole.time_s).tolist() == [1, 1]
    around = [*range(990, 1510), *range(3890, 3960)]
    assert kept.time_ms.tolist() == [100 * frame for frame in [*range(30), *around]]


def test_select_objects_quantises_values() -> None:
    whole = make_sequence(60, seed=3)
    attention = np.random.default_rng(0).random(len(whole.boxes)).astype(np.float32)
    ranks = np.where((np.arange(60) >= 16) & (np.arange(60) < 40), 0, -1)
    kept = select_objects([whole.frames(0, 25), whole.frames(25, 60)], attention, ranks, UNLIMITED)
    rows = slice(whole.offsets[16], whole.offsets[40])
    assert np.abs(kept.attention / 255 - attention[rows]).max() <= 0.5 / 255 + 1e-6
    assert np.abs(kept.scores / 255 - whole.scores[rows]).max() <= 0.5 / 255 + 1e-3
    assert np.array_equal(kept.tracks, whole.tracks[rows])
    assert np.array_equal(kept.counts, np.diff(whole.offsets)[16:40])


def test_select_objects_prefers_best_events() -> None:
    whole = sequence(MANY)
    events = [event(2.0, 4.0, score=0.5), event(12.0, 14.0, score=0.9), event(30.0, 32.0, score=0.7)]
    ranks = frame_ranks(whole.time_s, events)
    event_bytes = 40 * (7 + 2 * 16)  # four seconds with two objects per frame
    attention = np.zeros(2 * MANY, np.float32)
    kept = [
        select_objects([whole], attention, ranks, budget)
        for budget in (0, event_bytes, int(2.5 * event_bytes), UNLIMITED)
    ]
    assert [kept_shares(events, k, whole.time_s).tolist() for k in kept] == [
        [0, 0, 0],
        [0, 1, 0],
        [pytest.approx(0.5), 1, 1],
        [1, 1, 1],
    ]
    assert [len(k.time_ms) for k in kept] == [0, 40, 100, 120]


def test_select_objects_limits_long_events() -> None:
    whole = sequence(MANY)
    events = [event(0.0, 390.0, score=0.9), event(395.0, 396.0, score=0.2)]
    ranks = frame_ranks(whole.time_s, events)
    kept = select_objects([whole], np.zeros(2 * MANY, np.float32), ranks, 400 * (7 + 2 * 16))
    assert kept.time_ms.max() >= 396_000
    share = kept_shares(events, kept, whole.time_s)
    assert 0.08 < share[0] < 0.1
    assert share[1] == 1


def test_select_objects_of_nothing() -> None:
    whole = sequence(20)
    for parts in ([], [whole]):
        frames = 20 * len(parts)
        kept = select_objects(parts, np.zeros(40, np.float32), np.full(frames, -1), UNLIMITED)
        assert [len(getattr(kept, name)) for name in QuantisedObjects.__dataclass_fields__] == [0] * 8
    assert frame_ranks(np.zeros(0), [event(0.0, 1.0)]).tolist() == []


# --- curves thinned -------------------------------------------------------------------------------------------------


def test_thin_keeps_short_recordings() -> None:
    starts = bucket_starts(MAX_POINTS, np.zeros(MAX_POINTS, bool))
    assert starts.tolist() == list(range(MAX_POINTS))
    values = np.linspace(0, 1, MAX_POINTS, dtype=np.float32)[:, None]
    curves = thin(np.arange(MAX_POINTS) / 8, values, starts)
    assert not curves.is_thinned
    assert np.abs(curves.high[0] / 255 - values[:, 0]).max() <= 0.5 / 255 + 1e-6
    assert curves.time_ms.tolist() == [125 * i for i in range(MAX_POINTS)]


@pytest.mark.parametrize("frames", [MAX_POINTS + 1, 10_007, 230_400])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 1.0])
def test_bucket_starts_limit_points(frames: int, share: float) -> None:
    near = np.zeros(frames, bool)
    near[: round(frames * share)] = True
    starts = bucket_starts(frames, near)
    assert starts[0] == 0
    assert (np.diff(starts) > 0).all()
    assert MAX_POINTS // 4 <= 2 * len(starts) <= MAX_POINTS


def test_thin_keeps_peaks_and_dips() -> None:
    rng = np.random.default_rng(0)
    frames = 230_400
    values = np.full((frames, 3), 0.5, np.float32)
    peaks, dips = rng.choice(frames, (2, 40), replace=False)
    values[peaks, 1], values[dips, 1] = 1.0, 0.0
    curves = thin(np.arange(frames) / 8, values, bucket_starts(frames, np.zeros(frames, bool)))
    assert curves.is_thinned
    for frame, extreme, values in [(f, 255, curves.high) for f in peaks] + [(f, 0, curves.low) for f in dips]:
        place = np.abs(curves.time_ms / 1000 - frame / 8).argmin()
        assert (values[1, max(place - 1, 0) : place + 2] == extreme).any()
    assert (curves.low[[0, 2]] == 128).all()
    assert (curves.high[[0, 2]] == 128).all()


def test_buckets_are_short_near_events() -> None:
    frames, near = 230_400, np.zeros(230_400, bool)
    near[100_000:100_500] = True
    starts = bucket_starts(frames, near)
    inside = starts[(starts >= 100_000) & (starts < 100_500)]
    assert len(inside) >= 499
    assert np.diff(starts[starts < 100_000]).max() < 200


def test_thin_of_nothing() -> None:
    curves = thin(np.zeros(0), np.zeros((0, 2), np.float32), bucket_starts(0, np.zeros(0, bool)))
    assert curves.high.shape == (2, 0)


def test_still_spans() -> None:
    time_s = np.arange(20) / 10
    still = np.isin(np.arange(20), [0, 1, 5, 8, 9, 10, 18, 19])
    assert still_spans(time_s, still, 2.05).tolist() == [[0, 200], [500, 600], [800, 1100], [1800, 2050]]
    assert still_spans(time_s, still, 2.05, max_spans=2).tolist() == [[0, 1100], [1800, 2050]]
    assert still_spans(time_s, still, 2.05, max_spans=1).tolist() == [[0, 2050]]
    assert still_spans(time_s, ~still, 2.0).tolist() == [[200, 500], [600, 800], [1100, 1800]]
    assert still_spans(time_s, np.zeros(20, bool), 2.0).tolist() == []
    assert still_spans(time_s[:0], still[:0], 0.0).tolist() == []


def test_choose_moments_takes_peaks_outside_events(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", {"fps": 8}, timed=True, fall=0.5, walk=0.5)
    facts = scored(np.arange(2400) / 8, 0, 2, [event(100.0, 110.0)])
    facts.scores[:] = 0.05
    facts.scores[800:880, 0] = 0.9  # the event
    facts.scores[816:824, 1] = 0.4  # another label during it
    facts.scores[1230:1240, 0] = 0.3
    facts.scores[1235, 0] = 0.45  # 154.375 s
    facts.scores[1245, 0] = 0.44  # too near to it
    facts.scores[2000, 0] = 0.09  # too low
    times = choose_moments(model, replace(facts, events=[event(100.0, 110.0)]))
    step_s = facts.time_s[-1] / 24
    evenly = {math.floor((number + 0.5) * step_s * 10) / 10 for number in range(24)}
    assert set(times) - evenly == {102.0, 154.3}
    assert evenly < set(times)
    assert times == sorted(times)
    assert times == [round(at_s, 1) for at_s in times]


@pytest.mark.parametrize(("frames", "expected"), [(0, []), (1, []), (12, [0.5]), (72, [n + 0.5 for n in range(9)])])
def test_choose_moments_of_short_recordings(tmp_path: Path, frames: int, expected: list[float]) -> None:
    model = make_model(tmp_path / "m", {"fps": 8}, timed=True, fall=0.5)
    facts = scored(np.arange(frames) / 8, 0, 1, [])
    facts.scores[:] = 0.0
    assert choose_moments(model, facts) == expected


def test_choose_moments_are_few(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", {"fps": 8}, timed=True, fall=0.5)
    facts = scored(np.arange(230_400) / 8, 0, 1, [])
    facts.scores[:, 0] = np.random.default_rng(0).random(230_400)
    times = choose_moments(model, facts)
    assert 36 <= len(times) <= 40
