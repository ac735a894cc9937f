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


def test_encoder_groups() -> None:
    assert make_encoder().groups == GROUPS
    assert make_encoder(drop_features=("motion", "scene")).groups == tuple(
        g for g in GROUPS if g not in ("motion", "scene")
    )


@pytest.mark.parametrize("group", GROUPS)
def test_masked_group_equals_zero_projection(group: str) -> None:
    encoder, zeroed = make_encoder(), make_encoder()
    with torch.inference_mode():
        vectors, attention, _ = encoder(*BATCH, masked_groups=(group,))
        plain, _, _ = encoder(*BATCH)
    with torch.no_grad():
        for weight in [zeroed.classes] if group == "class" else zeroed.project[group].parameters():
            weight.zero_()
        expected, expected_attention, _ = zeroed(*BATCH)
    assert torch.equal(vectors, expected)
    assert torch.equal(attention, expected_attention)
    assert not torch.equal(vectors, plain)


def test_masked_groups_are_all_masked() -> None:
    encoder, zeroed = make_encoder(), make_encoder()
    with torch.no_grad():
        vectors, _, objects = encoder(*BATCH, masked_groups=("class", "motion", "scene"))
        zeroed.classes.zero_()
        for name in ("motion", "scene"):
            for weight in zeroed.project[name].parameters():
                weight.zero_()
        expected, _, expected_objects = zeroed(*BATCH)
    assert torch.equal(vectors, expected)
    assert torch.equal(objects, expected_objects)


@pytest.mark.parametrize("group", GROUPS)
def test_masked_group_equals_group_dropout(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make_encoder(dropout=0.0, group_dropout=0.5)
    masked, _, _ = encoder(*BATCH, masked_groups=(group,))

    def lose_group(name: str, clips: int, like: torch.Tensor, dropout_scale: float) -> torch.Tensor:
        return torch.full((1, clips, 1), 0.0 if name == group else 1.0)

    monkeypatch.setattr(encoder, "_group_mask", lose_group)
    dropped, _, _ = encoder.train()(*BATCH)
    torch.testing.assert_close(masked, dropped)


def test_masked_group_must_exist() -> None:
    with pytest.raises(ValueError, match="there is no group 'sound' to mask; groups are geometry, angle, score"):
        make_encoder()(*BATCH, masked_groups=("motion", "sound"))
    with pytest.raises(ValueError, match="there is no group 'motion'"):
        make_encoder(drop_features=("motion",))(*BATCH, masked_groups=("motion",))
