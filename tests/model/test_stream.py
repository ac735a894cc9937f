import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vidgru.model.fast_gru
from tests.model.networks import make_model
from tests.sequences import make_sequence, with_still_frames
from vidgru.errors import SettingsMismatchError
from vidgru.model.checkpoint import EventModel
from vidgru.model.encoder import EncodedFrames
from vidgru.model.event_gru import EventGRU
from vidgru.model.features import compute_features, stream_features
from vidgru.model.scoring import encode_features, encode_recording, score_clips, score_frames
from vidgru.model.stream import EventStream, rank_events, score_encoded, score_recording

SEQUENCE = make_sequence(300, seed=2)
MODEL = make_model(SEQUENCE)


def test_score_recording_is_independent_of_parts() -> None:
    edges = [0, 1, 57, 57, 200, 300]
    parts = [SEQUENCE.frames(a, b) for a, b in itertools.pairwise(edges)]
    whole = score_recording(MODEL, [SEQUENCE], video="a.mp4", duration_s=37.5)
    cut = score_recording(MODEL, parts, video="a.mp4", duration_s=37.5)
    np.testing.assert_allclose(cut.scores, whole.scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(cut.attention, whole.attention, rtol=0, atol=1e-5)
    assert np.array_equal(cut.time_s, whole.time_s)
    assert len(cut.events) == len(whole.events)


def test_score_recording_attention_per_object() -> None:
    timeline = score_recording(MODEL, [SEQUENCE], video="a.mp4", duration_s=37.5)
    assert timeline.attention.shape == (len(SEQUENCE.boxes),)
    sums = np.add.reduceat(timeline.attention, SEQUENCE.offsets[:-1][np.diff(SEQUENCE.offsets) > 0])
    np.testing.assert_allclose(sums, 1, rtol=1e-5)
    assert timeline.scores.shape == (300, 2)


def test_score_recording_short_recording_is_one_clip() -> None:
    sequence = SEQUENCE.frames(0, 20)
    encoded = encode_features(MODEL, stream_features([sequence], MODEL.feature_spec))
    (clip,) = score_clips(MODEL, [encoded])
    timeline = score_recording(MODEL, [sequence], video="a.mp4", duration_s=2.5)
    np.testing.assert_allclose(timeline.scores, np.tile(clip[:2], (20, 1)), atol=1e-6)


def test_score_recording_without_frames() -> None:
    timeline = score_recording(MODEL, [], video="a.mp4", duration_s=0.0)
    assert timeline.scores.shape == (0, 2)
    assert timeline.events == []


def test_score_recording_without_objects() -> None:
    empty = make_sequence(40, 0)
    timeline = score_recording(MODEL, [empty], video="a.mp4", duration_s=5.0)
    assert timeline.scores.shape == (40, 2)
    assert np.isfinite(timeline.scores).all()


def test_score_recording_multi_label_scores() -> None:
    model = make_model(SEQUENCE, background=False, multi_label=True)
    timeline = score_recording(model, [SEQUENCE], video="a.mp4", duration_s=37.5)
    assert not np.allclose(timeline.scores.sum(axis=1), 1)
    assert timeline.scores.min() >= 0
    assert timeline.scores.max() <= 1


def test_score_recording_events_have_name_and_end() -> None:
    eager = replace(MODEL, decode=replace(MODEL.decode, high=(0.0, 0.0), low=(0.0, 0.0), exclusive=False))
    events = score_recording(eager, [SEQUENCE], video="b/a.mp4", duration_s=37.4).events
    assert {event.video for event in events} == {"b/a.mp4"}
    assert max(event.end_s for event in events) == 37.4


def test_score_recording_refuses_other_features() -> None:
    with pytest.raises(SettingsMismatchError, match="the features differ from the model's"):
        score_recording(MODEL, [make_sequence(5, optional=False)], video="a.mp4", duration_s=1.0)


def test_score_recording_prefers_frame_head() -> None:
    model = make_model(SEQUENCE, timed=True, lookahead=3)
    edges = [0, 1, 57, 57, 200, 300]
    parts = [SEQUENCE.frames(a, b) for a, b in itertools.pairwise(edges)]
    timeline = score_recording(model, parts, video="a.mp4", duration_s=37.5)
    (whole,) = score_frames(model, [encode_features(model, [compute_features(SEQUENCE)])])
    np.testing.assert_allclose(timeline.scores, whole[:, :2], rtol=0, atol=1e-5)
    one_piece = score_recording(model, [SEQUENCE], video="a.mp4", duration_s=37.5)
    assert [(e.start_s, e.end_s, e.label) for e in timeline.events] == [
        (e.start_s, e.end_s, e.label) for e in one_piece.events
    ]
    empty = score_recording(model, [], video="a.mp4", duration_s=0.0)
    assert empty.scores.shape == (0, 2)
    assert empty.events == []
    assert rank_events(model, empty, video="a.mp4", duration_s=0.0) == []


def test_rank_events_adds_weaker_candidates() -> None:
    model = make_model(SEQUENCE, timed=True, lookahead=3)
    with torch.no_grad():
        model.network.frame_head[-1].weight.mul_(30)
    scores = score_recording(model, [SEQUENCE], video="a.mp4", duration_s=37.5).scores
    high = tuple(float(value) for value in scores.max(axis=0))
    model = replace(model, decode=replace(model.decode, high=high, low=high, min_s=0.0, exclusive=False))
    timeline = score_recording(model, [SEQUENCE], video="a.mp4", duration_s=37.5)
    assert timeline.events
    weaker = rank_events(model, timeline, video="a.mp4", duration_s=37.5)
    assert weaker[: len(timeline.events)] == timeline.events
    assert len(weaker) > len(timeline.events)


# --- frames as they come ----------------------------------------------------------------------------------------------


def eager(**shape: object) -> EventModel:
    """A model that finds many events, its thresholds amid its scores."""
    model = make_model(SEQUENCE, **{"seed": 7, **shape})
    head = model.network.frame_head or model.network.clip_head
    with torch.no_grad():
        head[-1].weight.mul_(40)
    scores = score_recording(model, [SEQUENCE], video="a.mp4", duration_s=37.5).scores
    high, low = (tuple(map(float, np.quantile(scores, q, axis=0))) for q in (0.8, 0.6))
    return replace(model, decode=replace(model.decode, high=high, low=low, min_s=0.2, merge_s=0.3, smooth_s=0.5))


KINDS = {
    "timed": eager(timed=True, lookahead=3),
    "at once": eager(timed=True, lookahead=0, clips=False),
    "clips": eager(),
    "lstm": eager(timed=True, lookahead=8, cell="lstm", layers=2),
    "labels that overlap": eager(timed=True, lookahead=2, background=False, multi_label=True),
    "whole": eager(timed=True, bidirectional=True),
    "linear timed": eager(timed=True, lookahead=3, clips=False, members=2, linear=True),
    "linear clips": eager(members=2, linear=True, background=False, multi_label=True, masked_groups=("scene",)),
    "linear whole": eager(timed=True, clips=False, bidirectional=True, linear=True, background=False, multi_label=True),
}


@pytest.mark.parametrize(
    ("kind", "seed"), [(kind, seed) for kind in KINDS for seed in range(2 if "linear" in kind else 6)]
)
def test_event_stream_is_independent_of_chunks(kind: str, seed: int) -> None:
    model, rng = KINDS[kind], np.random.default_rng(seed)
    frames = int(rng.choice([1, 17, 200, 300]))
    sequence = SEQUENCE.frames(0, frames)
    duration_s = frames / 8
    whole = score_recording(model, [sequence], video="a.mp4", duration_s=duration_s, gates=True)
    assert len(whole.events) > 3 or frames < 200, "a test of events needs some"
    stream = EventStream(model, video="a.mp4", gates=True)
    edges = range(frames + 1) if seed == 0 else [0, *sorted(rng.integers(0, frames + 1, rng.integers(1, 40))), frames]
    steps = [stream.push(sequence.frames(a, b)) for a, b in itertools.pairwise(edges)] + [stream.finish(duration_s)]
    np.testing.assert_allclose(np.concatenate([step.scores for step in steps]), whole.scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([step.attention for step in steps]), whole.attention, rtol=0, atol=1e-5)
    assert np.array_equal(np.concatenate([step.time_s for step in steps]), sequence.time_s)
    if whole.gates is not None:
        update = np.concatenate([step.gates.update for step in steps])
        np.testing.assert_allclose(update, whole.gates.update, rtol=0, atol=1e-5)
        assert len(update) == frames
    assert (whole.gates is None) == (kind in ("lstm", "whole", "linear whole"))
    closed = [event for step in steps for event in step.closed]
    assert sorted((e.start_s, e.end_s, e.label) for e in closed) == [
        (e.start_s, e.end_s, e.label) for e in sorted(whole.events, key=lambda e: (e.start_s, e.end_s, e.label))
    ]
    shorter = SEQUENCE.frames(0, 23)
    encoded = [encode_features(model, stream_features([part], model.feature_spec)) for part in (shorter, sequence)]
    recordings = [(encoded[0], "b.mp4", 23 / 8), (encoded[1], "a.mp4", duration_s)]
    other, rescored = score_encoded(model, recordings, gates=True)
    assert [(e.start_s, e.end_s, e.label) for e in rescored.events] == [
        (e.start_s, e.end_s, e.label) for e in whole.events
    ]
    np.testing.assert_allclose(rescored.scores, whole.scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(rescored.attention, whole.attention, rtol=0, atol=1e-5)
    assert other.scores.shape == (23, 2)
    assert all(event.video == "b.mp4" for event in other.events)
    if whole.gates is not None:
        np.testing.assert_allclose(rescored.gates.reset, whole.gates.reset, rtol=0, atol=1e-5)
        assert len(other.gates) == 23


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("whole", "linear whole", "linear clips")])
def test_event_stream_lookahead_s(kind: str) -> None:
    model = KINDS[kind]
    stream = EventStream(model, video="a.mp4")
    known = 0
    for t in range(300):
        step = stream.push(SEQUENCE.frames(t, t + 1))
        known += len(step.time_s)
        late = [event for event in step.opened if SEQUENCE.time_s[t] - event.end_s > stream.lookahead_s + 0.25]
        assert not late, "an event was opened later than its scores were known"
        assert known >= t - round(stream.lookahead_s * 8)
        assert len(stream._time_s) <= stream.lookahead_s * 8 + 1
    assert known < 300 or kind == "at once"


# --- still stretches --------------------------------------------------------------------------------------------------

STILL = with_still_frames(SEQUENCE.frames(0, 200), [*range(1, 3), *range(20, 170), *range(171, 175)])


def slow() -> EventModel:
    """A model whose scores change in all of a still stretch: it keeps up to 99 % of its state per step."""
    model = eager(timed=True, lookahead=3)
    assert model.network.gru is not None
    with torch.no_grad():
        for gru in model.network.gru:
            gru.bias_hh_l0[gru.hidden_size : 2 * gru.hidden_size] += 5
    return model


@pytest.mark.parametrize("kind", [*KINDS, "slow"])
def test_still_stretches_are_scored_as_computed_frames(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vidgru.model.fast_gru, "_SINGLE_STEPS", 16)  # exercises many lengths of steps in 150 frames
    model = slow() if kind == "slow" else KINDS[kind]
    (whole,) = score_encoded(model, [(encode_recording(model, [STILL]), "a.mp4", 25.0)], gates=True)
    rng = np.random.default_rng(0)
    for edges in ([0, 200], [0, *sorted(rng.integers(0, 201, 12)), 200]):
        parts = [STILL.frames(a, b) for a, b in itertools.pairwise(edges)]
        scored = score_recording(model, parts, video="a.mp4", duration_s=25.0, gates=True)
        bound = 1e-5
        if kind == "slow":
            assert np.ptp(whole.scores[80:170], axis=0).min() > 0.15
            assert np.abs(scored.scores - whole.scores).max() > bound, "a test of longer steps needs some"
            bound = 0.002
        np.testing.assert_allclose(scored.scores, whole.scores, rtol=0, atol=bound)
        np.testing.assert_allclose(scored.scores[:50], whole.scores[:50], rtol=0, atol=1e-5)
        np.testing.assert_allclose(scored.attention, whole.attention, rtol=0, atol=1e-5)
        assert np.array_equal(scored.time_s, STILL.time_s)
        if whole.gates is not None and scored.gates is not None:
            np.testing.assert_allclose(scored.gates.update, whole.gates.update, rtol=0, atol=bound)


def test_settled_still_frames_are_not_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    model, encoded = KINDS["linear timed"], []
    encode = type(model.network).encode

    def count(network: EventGRU, objects: Tensor, counts: Tensor, *others: Any) -> EncodedFrames:
        encoded.append(counts.numel())
        return encode(network, objects, counts, *others)

    monkeypatch.setattr(type(model.network), "encode", count)
    score_recording(model, [STILL.frames(0, 100), STILL.frames(100, 200)], video="a.mp4", duration_s=25.0)
    settled = 6 * 8 + 3 + 1  # 6 s of summaries, the lookahead, and the frame that is repeated
    assert sum(encoded) == 200 - (150 - settled)


def test_still_frames_have_equal_features() -> None:
    jitter = np.random.default_rng(0).uniform(0, 0.05, 200)
    features = compute_features(replace(STILL, time_s=STILL.time_s + jitter))
    for stretch in (range(21, 170), range(172, 175)):
        first = features.frames(stretch[0], stretch[0] + 1)
        for t in stretch:
            frame = features.frames(t, t + 1)
            assert np.array_equal(frame.frame, first.frame)
            assert np.array_equal(frame.objects, first.objects)
