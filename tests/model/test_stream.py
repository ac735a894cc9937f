import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.model.networks import make_model
from tests.sequences import make_sequence
from vidgru.errors import SettingsMismatch
from vidgru.model import stream
from vidgru.model.checkpoint import EventModel
from vidgru.model.features import compute_features, stream_features
from vidgru.model.stream import encode, score_clips, score_frames, score_recording, windows_of
from vidgru.types import Sequence

SEQUENCE = make_sequence(300, seed=2)
MODEL = make_model(SEQUENCE)


def test_a_recording_in_stretches_is_scored_as_in_one_piece() -> None:
    edges = [0, 1, 57, 57, 200, 300]
    parts = [SEQUENCE.frames(a, b) for a, b in itertools.pairwise(edges)]
    whole = score_recording(MODEL, [SEQUENCE], video="a.mp4", duration_s=37.5)
    cut = score_recording(MODEL, parts, video="a.mp4", duration_s=37.5)
    np.testing.assert_allclose(cut.scores, whole.scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(cut.attention, whole.attention, rtol=0, atol=1e-5)
    assert np.array_equal(cut.time_s, whole.time_s)
    assert len(cut.events) == len(whole.events)


def test_attention_has_a_value_an_object() -> None:
    timeline = score_recording(MODEL, [SEQUENCE], video="a.mp4", duration_s=37.5)
    assert timeline.attention.shape == (len(SEQUENCE.boxes),)
    sums = np.add.reduceat(timeline.attention, SEQUENCE.offsets[:-1][np.diff(SEQUENCE.offsets) > 0])
    np.testing.assert_allclose(sums, 1, rtol=1e-5)
    assert timeline.scores.shape == (300, 2)


def test_a_clip_is_scored_as_the_network_scores_it() -> None:
    features = compute_features(SEQUENCE)
    encoded = encode(MODEL, [features])
    some = [(0, 16), (3, 4), (10, 90), (5, 21)]
    scores = score_clips(MODEL, [encoded.vectors[a:b] for a, b in some])
    assert scores.shape == (4, 3)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    for row, (a, b) in enumerate(some):
        mask = torch.ones(1, b - a, dtype=torch.bool)
        with torch.inference_mode():
            direct = MODEL.task.clips.probabilities(MODEL.network.score(encoded.vectors[None, a:b], mask).clips)[0]
        np.testing.assert_allclose(scores[row], direct.numpy(), atol=1e-6)


def test_a_short_recording_is_one_clip() -> None:
    sequence = SEQUENCE.frames(0, 20)
    encoded = encode(MODEL, stream_features([sequence], MODEL.layout))
    (clip,) = score_clips(MODEL, [encoded.vectors])
    timeline = score_recording(MODEL, [sequence], video="a.mp4", duration_s=2.5)
    np.testing.assert_allclose(timeline.scores, np.tile(clip[:2], (20, 1)), atol=1e-6)


@pytest.mark.parametrize(("frames", "length"), [(0, 8), (1, 8), (11, 8), (12, 8), (100, 8), (101, 8), (50, 1), (3, 2)])
def test_windows_cover_every_frame(frames: int, length: int) -> None:
    windows = windows_of(frames, length)
    covered = np.zeros(frames, bool)
    for first, stop in windows:
        assert 0 <= first < stop <= frames
        covered[first:stop] = True
    assert covered.all()
    if frames >= 1.5 * length:
        assert (np.diff(windows, axis=1) == length).all()
        assert len(np.unique(windows, axis=0)) == len(windows)
    else:
        assert len(windows) == min(frames, 1)


def test_no_frames_give_no_scores_and_no_events() -> None:
    timeline = score_recording(MODEL, [], video="a.mp4", duration_s=0.0)
    assert timeline.scores.shape == (0, 2)
    assert timeline.events == []


def test_a_recording_without_objects() -> None:
    empty = make_sequence(40, 0)
    timeline = score_recording(MODEL, [empty], video="a.mp4", duration_s=5.0)
    assert timeline.scores.shape == (40, 2)
    assert np.isfinite(timeline.scores).all()


def test_independent_labels_need_not_sum_to_one() -> None:
    model = make_model(SEQUENCE, background=False, multi_label=True)
    timeline = score_recording(model, [SEQUENCE], video="a.mp4", duration_s=37.5)
    assert not np.allclose(timeline.scores.sum(axis=1), 1)
    assert timeline.scores.min() >= 0
    assert timeline.scores.max() <= 1


def test_events_carry_the_name_and_end_with_the_recording() -> None:
    eager = replace(MODEL, decode=replace(MODEL.decode, high=(0.0, 0.0), low=(0.0, 0.0), exclusive=False))
    events = score_recording(eager, [SEQUENCE], video="b/a.mp4", duration_s=37.4).events
    assert {event.video for event in events} == {"b/a.mp4"}
    assert max(event.end_s for event in events) == 37.4


def test_other_features_are_refused() -> None:
    with pytest.raises(SettingsMismatch, match="laid out otherwise"):
        score_recording(MODEL, [make_sequence(5, optional=False)], video="a.mp4", duration_s=1.0)


# --- every frame of whole recordings --------------------------------------------------------------------------------

SHAPES = [{}, {"layers": 2}, {"cell": "lstm"}, {"cell": "rnn", "lag": 0}, {"cell": "none", "lag": 0}]


def timed(sequence: Sequence = SEQUENCE, **shape: object) -> EventModel:
    """A model with both heads, whose scores of frames lag three steps behind."""
    return make_model(sequence, **{"timed": True, "lag": 3, **shape})


def vectors_of(model: EventModel, frames: int = 300) -> torch.Tensor:
    return encode(model, [compute_features(SEQUENCE)]).vectors[:frames]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 300])
def test_chunks_give_what_a_whole_recording_gives(
    shape: dict[str, object], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = timed(**shape)
    vectors = [vectors_of(model), vectors_of(model, 11)]
    whole = score_frames(model, vectors)
    monkeypatch.setattr(stream, "_CHUNK", chunk)
    for cut, one in zip(score_frames(model, vectors), whole, strict=True):
        np.testing.assert_allclose(cut, one, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [*SHAPES, {"bidirectional": True, "lag": 0}])
def test_recordings_together_score_as_each_alone(shape: dict[str, object]) -> None:
    model = timed(**shape)
    vectors = [vectors_of(model, frames) for frames in (5, 0, 300, 1, 6, 299)]
    together = score_frames(model, vectors)
    for one, scores in zip(vectors, together, strict=True):
        assert scores.shape == (len(one), 3)
        np.testing.assert_allclose(scores, score_frames(model, [one])[0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("lag", [0, 1, 4])
def test_a_frames_score_knows_as_much_of_the_future_as_the_lag(lag: int) -> None:
    model = timed(lag=lag)
    vectors = vectors_of(model, 30)
    changed = vectors.clone()
    changed[20] = -changed[20]
    differ = np.abs(score_frames(model, [changed])[0] - score_frames(model, [vectors])[0]).max(axis=1)
    assert np.flatnonzero(differ > 1e-7)[0] == 20 - lag
    assert (differ[20 - lag :][:4] > 1e-7).all()


@pytest.mark.parametrize("frames", [0, 1, 2, 3, 4, 20])
def test_the_end_is_scored_though_nothing_follows(frames: int) -> None:
    model = timed(lag=3)
    vectors = vectors_of(model, frames)
    (scores,) = score_frames(model, [vectors])
    assert scores.shape == (frames, 3)
    assert scores.dtype == np.float32
    with torch.inference_mode():
        read = torch.cat([vectors, torch.zeros(3, 64)])[None]
        late = model.task.timed.probabilities(model.network.frame_head(model.network.gru(read)[0]))[0, 3:]
    np.testing.assert_allclose(scores, late.numpy(), rtol=0, atol=1e-6)


def test_a_bidirectional_model_reads_a_recording_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = timed(bidirectional=True, lag=0)
    vectors = vectors_of(model, 40)
    whole = score_frames(model, [vectors])[0]
    monkeypatch.setattr(stream, "_CHUNK", 8)
    assert np.array_equal(score_frames(model, [vectors])[0], whole)
    changed = vectors.clone()
    changed[39] = -changed[39]
    assert (np.abs(score_frames(model, [changed])[0] - whole).max(axis=1) > 1e-9)[25:].all()


def test_a_model_without_the_head_that_is_asked_for() -> None:
    clips, frames = make_model(SEQUENCE), make_model(SEQUENCE, clips=False, timed=True)
    with pytest.raises(ValueError, match="the model has no head for frames"):
        score_frames(clips, [vectors_of(clips)])
    with pytest.raises(ValueError, match="the model has no head for clips"):
        score_clips(frames, [vectors_of(frames)])


def test_recordings_are_scored_by_the_head_for_frames_where_there_is_one() -> None:
    model = timed()
    edges = [0, 1, 57, 57, 200, 300]
    parts = [SEQUENCE.frames(a, b) for a, b in itertools.pairwise(edges)]
    timeline = score_recording(model, parts, video="a.mp4", duration_s=37.5)
    whole = score_frames(model, [vectors_of(model)])[0]
    np.testing.assert_allclose(timeline.scores, whole[:, :2], rtol=0, atol=1e-5)
    one_piece = score_recording(model, [SEQUENCE], video="a.mp4", duration_s=37.5)
    assert [(e.start_s, e.end_s, e.label) for e in timeline.events] == [
        (e.start_s, e.end_s, e.label) for e in one_piece.events
    ]
    empty = score_recording(model, [], video="a.mp4", duration_s=0.0)
    assert empty.scores.shape == (0, 2)
    assert empty.events == empty.candidates == []


def test_candidates_hold_the_events_and_weaker_ones() -> None:
    model = timed()
    with torch.no_grad():
        model.network.frame_head[-1].weight.mul_(30)
    scores = score_recording(model, [SEQUENCE], video="a.mp4", duration_s=37.5).scores
    high = tuple(float(value) for value in scores.max(axis=0))
    model = replace(model, decode=replace(model.decode, high=high, low=high, min_s=0.0, exclusive=False))
    timeline = score_recording(model, [SEQUENCE], video="a.mp4", duration_s=37.5)
    assert timeline.events
    assert timeline.candidates[: len(timeline.events)] == timeline.events
    assert len(timeline.candidates) > len(timeline.events)
