"""What is kept of the objects, and how exactly."""

import numpy as np
import pytest

from tests.prediction.report.pages import event, sequence
from tests.sequences import make_sequence
from vidgru.prediction.report.packing import FEW_FRAMES, QuantisedObjects, frame_ranks, kept_shares, select_objects

MUCH = 10**9
MANY = FEW_FRAMES + 1  # frames of a recording of which only those around events are kept


def test_frames_around_events_are_kept_and_no_others() -> None:
    whole = sequence(MANY)
    ranks = frame_ranks(whole.time_s, [event(5.0, 7.0), event(15.05, 15.15)])
    kept = select_objects([whole.frames(0, 77), whole.frames(77, MANY)], np.zeros(2 * MANY, np.float32), ranks, MUCH)
    frames = [*range(40, 80), *range(141, 162)]
    assert kept.time_ms.tolist() == [100 * frame for frame in frames]
    assert kept.counts.tolist() == [2] * len(frames)
    assert np.flatnonzero(kept.joined == 0).tolist() == [0, 40]
    assert np.abs(kept.boxes / 65535 - whole.boxes.reshape(MANY, 8)[frames].reshape(-1, 4)).max() < 1e-5
    assert kept.tracks.tolist() == [7, -1] * len(frames)
    assert kept.classes.tolist() == [0, 1] * len(frames)


def test_all_of_a_short_recording_is_kept_what_is_around_events_first() -> None:
    whole = sequence(FEW_FRAMES)
    attention = np.zeros(2 * FEW_FRAMES, np.float32)
    for events in ([], [event(100.0, 150.0), event(390.0, 395.0)]):
        kept = select_objects([whole], attention, frame_ranks(whole.time_s, events), MUCH)
        assert np.array_equal(kept.time_ms, np.round(whole.time_s * 1000))
        assert np.flatnonzero(kept.joined == 0).tolist() == [0]
    one = 7 + 2 * 16  # bytes of a frame with two objects
    kept = select_objects([whole], attention, frame_ranks(whole.time_s, events), (520 + 70 + 30) * one)
    assert kept_shares(events, kept, whole.time_s).tolist() == [1, 1]
    around = [*range(990, 1510), *range(3890, 3960)]
    assert kept.time_ms.tolist() == [100 * frame for frame in [*range(30), *around]]


def test_values_are_quantised_and_rows_stay_together() -> None:
    whole = make_sequence(60, seed=3)
    attention = np.random.default_rng(0).random(len(whole.boxes)).astype(np.float32)
    ranks = np.where((np.arange(60) >= 16) & (np.arange(60) < 40), 0, -1)
    kept = select_objects([whole.frames(0, 25), whole.frames(25, 60)], attention, ranks, MUCH)
    rows = slice(whole.offsets[16], whole.offsets[40])
    assert np.abs(kept.attention / 255 - attention[rows]).max() <= 0.5 / 255 + 1e-6
    assert np.abs(kept.scores / 255 - whole.scores[rows]).max() <= 0.5 / 255 + 1e-3
    assert np.array_equal(kept.tracks, whole.tracks[rows])
    assert np.array_equal(kept.counts, np.diff(whole.offsets)[16:40])


def test_the_best_scored_events_come_first() -> None:
    whole = sequence(MANY)
    events = [event(2.0, 4.0, score=0.5), event(12.0, 14.0, score=0.9), event(30.0, 32.0, score=0.7)]
    ranks = frame_ranks(whole.time_s, events)
    one = 40 * (7 + 2 * 16)  # bytes of four seconds, two objects a frame
    attention = np.zeros(2 * MANY, np.float32)
    kept = [select_objects([whole], attention, ranks, budget) for budget in (0, one, int(2.5 * one), MUCH)]
    assert [kept_shares(events, k, whole.time_s).tolist() for k in kept] == [
        [0, 0, 0],
        [0, 1, 0],
        [pytest.approx(0.5), 1, 1],
        [1, 1, 1],
    ]
    assert [len(k.time_ms) for k in kept] == [0, 40, 100, 120]


def test_a_long_event_does_not_use_up_the_budget() -> None:
    whole = sequence(MANY)
    events = [event(0.0, 390.0, score=0.9), event(395.0, 396.0, score=0.2)]
    ranks = frame_ranks(whole.time_s, events)
    kept = select_objects([whole], np.zeros(2 * MANY, np.float32), ranks, 400 * (7 + 2 * 16))
    assert kept.time_ms.max() >= 396_000
    share = kept_shares(events, kept, whole.time_s)
    assert 0.08 < share[0] < 0.1
    assert share[1] == 1


def test_nothing_around_events_nothing_at_all() -> None:
    whole = sequence(20)
    for parts in ([], [whole]):
        frames = 20 * len(parts)
        kept = select_objects(parts, np.zeros(40, np.float32), np.full(frames, -1), MUCH)
        assert [len(getattr(kept, name)) for name in QuantisedObjects.__dataclass_fields__] == [0] * 8
    assert frame_ranks(np.zeros(0), [event(0.0, 1.0)]).tolist() == []
