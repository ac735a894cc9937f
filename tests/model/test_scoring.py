from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.model.networks import make_model
from tests.sequences import make_sequence
from vidgru.model import scoring
from vidgru.model.checkpoint import EventModel
from vidgru.model.features import compute_features
from vidgru.model.scoring import EncodedRecording, encode_features, score_clips, score_frames
from vidgru.types import FrameSequence

SEQUENCE = make_sequence(300, seed=2)
MODEL = make_model(SEQUENCE)


def test_score_clips_equals_network() -> None:
    features = compute_features(SEQUENCE)
    encoded = encode_features(MODEL, [features])
    bounds = [(0, 16), (3, 4), (10, 90), (5, 21)]
    scores = score_clips(MODEL, [encoded.frames(a, b) for a, b in bounds])
    assert scores.shape == (4, 3)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    for row, (a, b) in enumerate(bounds):
        mask = torch.ones(1, b - a, dtype=torch.bool)
        with torch.inference_mode():
            direct = MODEL.task.clip_head.probabilities(
                MODEL.network.event_logits(encoded.vectors[a:b].movedim(1, 0)[:, None], mask).clips
            )[0, 0]
        np.testing.assert_allclose(scores[row], direct.numpy(), atol=1e-6)


# --- every frame of whole recordings --------------------------------------------------------------------------------

SHAPES = [{}, {"layers": 2}, {"cell": "lstm"}, {"cell": "rnn", "lookahead": 0}, {"cell": "none", "lookahead": 0}]


def timed(sequence: FrameSequence = SEQUENCE, **shape: object) -> EventModel:
    """A model with both heads, whose scores of frames lag three steps behind."""
    return make_model(sequence, **{"timed": True, "lookahead": 3, **shape})


def encode(model: EventModel, frames: int = 300) -> EncodedRecording:
    return encode_features(model, [compute_features(SEQUENCE.frames(0, frames))])


def with_opposite(recording: EncodedRecording, frame: int) -> EncodedRecording:
    """The recording with another vector for one frame."""
    vectors = recording.vectors.clone()
    vectors[frame] = -vectors[frame]
    return replace(recording, vectors=vectors)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 300])
def test_score_frames_is_independent_of_chunks(
    shape: dict[str, object], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = timed(**shape)
    recordings = [encode(model), encode(model, 11)]
    whole = score_frames(model, recordings)
    monkeypatch.setattr(scoring, "_CHUNK_STEPS", chunk)
    for cut, recording in zip(score_frames(model, recordings), whole, strict=True):
        np.testing.assert_allclose(cut, recording, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [*SHAPES, {"bidirectional": True, "lookahead": 0}])
def test_score_frames_is_independent_of_batch(shape: dict[str, object]) -> None:
    model = timed(**shape)
    recordings = [encode(model, frames) for frames in (5, 0, 300, 1, 6, 299)]
    together = score_frames(model, recordings)
    for recording, scores in zip(recordings, together, strict=True):
        assert scores.shape == (len(recording), 3)
        np.testing.assert_allclose(scores, score_frames(model, [recording])[0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("lookahead", [0, 1, 4])
def test_score_frames_sees_lookahead_frames_ahead(lookahead: int) -> None:
    model = timed(lookahead=lookahead)
    encoded = encode(model, 30)
    changed = with_opposite(encoded, 20)
    differ = np.abs(score_frames(model, [changed])[0] - score_frames(model, [encoded])[0]).max(axis=1)
    assert np.flatnonzero(differ > 1e-7)[0] == 20 - lookahead
    assert (differ[20 - lookahead :][:4] > 1e-7).all()


@pytest.mark.parametrize("frames", [0, 1, 2, 3, 4, 20])
def test_score_frames_scores_the_last_frames(frames: int) -> None:
    model = timed(lookahead=3)
    encoded = encode(model, frames)
    (scores,) = score_frames(model, [encoded])
    assert scores.shape == (frames, 3)
    assert scores.dtype == np.float32
    with torch.inference_mode():
        hidden, _ = model.network.gru[0](torch.cat([encoded.vectors[:, 0], torch.zeros(3, 64)])[None])
        late = model.task.frame_head.probabilities(model.network.frame_head(hidden[None]))[0, 0, 3:]
    np.testing.assert_allclose(scores, late.numpy(), rtol=0, atol=1e-6)


def test_score_frames_bidirectional_reads_whole_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    model = timed(bidirectional=True, lookahead=0)
    encoded = encode(model, 40)
    whole = score_frames(model, [encoded])[0]
    monkeypatch.setattr(scoring, "_CHUNK_STEPS", 8)
    assert np.array_equal(score_frames(model, [encoded])[0], whole)
    changed = with_opposite(encoded, 39)
    assert (np.abs(score_frames(model, [changed])[0] - whole).max(axis=1) > 1e-9)[25:].all()


def test_scores_require_their_head() -> None:
    clips, frames = make_model(SEQUENCE), make_model(SEQUENCE, clips=False, timed=True)
    with pytest.raises(ValueError, match="the model has no frame head"):
        score_frames(clips, [encode(clips)])
    with pytest.raises(ValueError, match="the model has no clip head"):
        score_clips(frames, [encode(frames)])
