import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.model.networks import make_model
from tests.sequences import make_sequence
from vidgru.errors import SettingsMismatch
from vidgru.model.features import compute_features, stream_features
from vidgru.model.stream import encode, score_clips, score_recording, windows_of

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
            direct = MODEL.probabilities(MODEL.network.score(encoded.vectors[None, a:b], mask).clips)[0]
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
