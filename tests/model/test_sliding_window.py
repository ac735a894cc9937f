import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.model.networks import make_model
from tests.sequences import make_sequence
from vidgru.model.checkpoint import EventModel
from vidgru.model.features import compute_features
from vidgru.model.gru_gates import mean_gates
from vidgru.model.scoring import EncodedRecording, SlidingWindowScorer, encode_features, score_clips

SEQUENCE = make_sequence(130, seed=2)


def encode(model: EventModel, frames: int) -> EncodedRecording:
    return encode_features(model, [compute_features(SEQUENCE.frames(0, frames))])


def model_of(window: int, **shape: object) -> EventModel:
    return replace(make_model(SEQUENCE, **shape), window_s=window / 8)


def windows_of(frames: int, length: int) -> list[tuple[int, int]]:
    """What is to cover a recording: every quarter of a length, and flush with its end."""
    if frames < 1.5 * length:
        return [(0, frames)] if frames else []
    stride = max(1, length // 4)
    return [(first, first + length) for first in [*range(0, frames - length, stride), frames - length]]


def by_definition(model: EventModel, frames: int, length: int) -> np.ndarray:
    encoded, total, weight = encode(model, frames), np.zeros((frames, 3)), np.zeros(frames)
    for first, stop in windows_of(frames, length):
        middle = (first + stop - 1) / 2
        score = score_clips(model, [encoded.frames(first, stop)])[0]
        for t in range(first, stop):
            weight_at = 1 - abs(t - middle) / ((stop - first + 1) / 2)
            total[t] += weight_at * score
            weight[t] += weight_at
    return total / weight[:, None]


@pytest.mark.parametrize("length", [1, 2, 7, 16])
@pytest.mark.parametrize("frames", [0, 1, 11, 23, 24, 25, 130])
def test_sliding_window_scores_are_weighted_means(frames: int, length: int) -> None:
    model = model_of(length)
    encoded = encode(model, frames)
    expected = by_definition(model, frames, length)
    rng = np.random.default_rng(frames)
    for edges in ([0, frames], range(frames + 1), [0, *sorted(rng.integers(0, frames + 1, 5)), frames]):
        scorer, pieces = SlidingWindowScorer(model), []
        for first, stop in itertools.pairwise(edges):
            pieces.append(scorer.push(encoded.frames(first, stop))[0])
            settled = sum(map(len, pieces))
            assert settled == max(stop - length, 0) if stop >= 1.5 * length else settled == 0
            assert len(scorer._recent) == stop - settled <= scorer.max_lookahead + len(encoded)
        pieces.append(scorer.finish()[0])
        np.testing.assert_allclose(np.concatenate(pieces), expected, rtol=0, atol=1e-6)
        assert np.concatenate(pieces).dtype == np.float32


def test_sliding_window_gates() -> None:
    model = model_of(16)
    encoded = encode(model, 20)
    scorer = SlidingWindowScorer(model, gates=True)
    (scores, early_gates), (_, gates) = scorer.push(encoded), scorer.finish()
    assert len(scores) == len(early_gates) == 0
    batch = encoded.vectors.movedim(1, 0)[:, None]
    hidden, _ = model.network.run_rnn(batch, torch.ones(1, 20, dtype=torch.bool))
    expected = mean_gates(model.network, batch, hidden)[0]
    np.testing.assert_allclose(gates.update, expected[:, 0], atol=1e-6)
    np.testing.assert_allclose(gates.reset, expected[:, 1], atol=1e-6)
    lstm = model_of(16, cell="lstm")
    assert SlidingWindowScorer(lstm, gates=True).push(encode(lstm, 40))[1] is None


def test_sliding_window_requires_clip_head() -> None:
    with pytest.raises(ValueError, match="the model has no clip head"):
        SlidingWindowScorer(make_model(SEQUENCE, clips=False, timed=True))
