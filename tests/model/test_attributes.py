"""Attributes of events."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.sequences import make_sequence
from vidgru.model.attributes import count_attributes
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import compute_features

FRAMES = 8


def test_counts_tell_moving_objects_from_still_ones() -> None:
    sequence = make_sequence(FRAMES, 4)
    moving = np.zeros((FRAMES, 4, 6), np.float16)
    moving[:, :2, 0] = 2.0  # flow to the right: two people; the third stands still, the fourth goes to the left
    moving[:, 3, 0] = -1.5
    sequence = replace(
        sequence,
        classes=np.zeros(4 * FRAMES, np.int16),
        scores=np.tile([0.5, 1.0, 1.0, 0.25], FRAMES).astype(np.float16),
        motion=moving.reshape(-1, 6),
    )
    spec = FeatureSpec.from_sequence(sequence)
    counts = count_attributes(compute_features(sequence), spec).reshape(2, 4, 3)  # chosen, figure, class
    assert np.allclose(counts[0, :, 0], 2.75, atol=1e-3), "all objects count, by their scores"
    assert np.allclose(counts[1, :, 0], 1.5, atol=1e-3), "those that go where most go"
    assert not counts[:, :, 1:].any(), "no other class was detected"
