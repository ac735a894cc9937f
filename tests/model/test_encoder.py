"""Groups of features that are removed when a trained encoder is asked what it owes to them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.model.networks import make_network, random_batch
from tests.sequences import make_sequence
from vidgru.model.encoder import Encoder
from vidgru.model.feature_spec import FeatureSpec

RICH = replace(make_sequence(60, 3, keypoints=17), angle=np.linspace(0, 3, 180).astype(np.float16))
LAYOUT = FeatureSpec.from_sequence(RICH)
GROUPS = (*LAYOUT.object_groups(), *LAYOUT.frame_groups())
BATCH = random_batch(LAYOUT)[:3]


def make_encoder(**shape: object) -> Encoder:
    return make_network(RICH, **shape).encoder


def test_the_groups_are_those_that_are_looked_at() -> None:
    assert make_encoder().groups == GROUPS
    assert make_encoder(drop_features=("motion", "scene")).groups == tuple(
        g for g in GROUPS if g not in ("motion", "scene")
    )


@pytest.mark.parametrize("group", GROUPS)
def test_a_removed_group_is_one_whose_projection_is_zero(group: str) -> None:
    encoder, silenced = make_encoder(), make_encoder()
    with torch.inference_mode():
        found, attention, _ = encoder(*BATCH, masked_group=group)
        plain, _, _ = encoder(*BATCH)
    with torch.no_grad():
        for weight in (silenced.classes if group == "class" else silenced.project[group]).parameters():
            weight.zero_()
        expected, expected_attention, _ = silenced(*BATCH)
    assert torch.equal(found, expected)
    assert torch.equal(attention, expected_attention)
    assert not torch.equal(found, plain)


@pytest.mark.parametrize("group", GROUPS)
def test_a_removed_group_is_one_that_a_clip_has_lost_in_training(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make_encoder(dropout=0.0, group_dropout=0.5)
    removed, _, _ = encoder(*BATCH, masked_group=group)

    def lose_group(name: str, clips: int, like: torch.Tensor, dropout_scale: float) -> torch.Tensor:
        return torch.full((clips, 1), 0.0 if name == group else 1.0)

    monkeypatch.setattr(encoder, "_group_mask", lose_group)
    lost, _, _ = encoder.train()(*BATCH)
    torch.testing.assert_close(removed, lost)


def test_a_group_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="there is no group 'sound' to mask; groups are geometry, angle, score"):
        make_encoder()(*BATCH, masked_group="sound")
    with pytest.raises(ValueError, match="there is no group 'motion'"):
        make_encoder(drop_features=("motion",))(*BATCH, masked_group="motion")
