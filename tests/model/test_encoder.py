from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.model.networks import make_network, random_batch
from tests.sequences import make_sequence
from vidgru.model.encoder import Encoder
from vidgru.model.event_gru import Architecture, EventGRU
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import compute_features

RICH = replace(make_sequence(60, 3, keypoints=17), angle=np.linspace(0, 3, 180).astype(np.float16))
RICH_SPEC = FeatureSpec.from_sequence(RICH)
GROUPS = (*RICH_SPEC.object_groups(), *RICH_SPEC.frame_groups())
BATCH = random_batch(RICH_SPEC)[:3]


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
        vectors, attention, _ = encoder(*BATCH, masked_group=group)
        plain, _, _ = encoder(*BATCH)
    with torch.no_grad():
        for weight in (zeroed.classes if group == "class" else zeroed.project[group]).parameters():
            weight.zero_()
        expected, expected_attention, _ = zeroed(*BATCH)
    assert torch.equal(vectors, expected)
    assert torch.equal(attention, expected_attention)
    assert not torch.equal(vectors, plain)


@pytest.mark.parametrize("group", GROUPS)
def test_masked_group_equals_group_dropout(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make_encoder(dropout=0.0, group_dropout=0.5)
    masked, _, _ = encoder(*BATCH, masked_group=group)

    def lose_group(name: str, clips: int, like: torch.Tensor, dropout_scale: float) -> torch.Tensor:
        return torch.full((clips, 1), 0.0 if name == group else 1.0)

    monkeypatch.setattr(encoder, "_group_mask", lose_group)
    dropped, _, _ = encoder.train()(*BATCH)
    torch.testing.assert_close(masked, dropped)


def test_masked_group_must_exist() -> None:
    with pytest.raises(ValueError, match="there is no group 'sound' to mask; groups are geometry, angle, score"):
        make_encoder()(*BATCH, masked_group="sound")
    with pytest.raises(ValueError, match="there is no group 'motion'"):
        make_encoder(drop_features=("motion",))(*BATCH, masked_group="motion")


# --- attention and normalization --------------------------------------------------------------------------------------

POSES = make_sequence(50, keypoints=17)
SPEC = FeatureSpec.from_sequence(POSES)


def test_attention_sums_to_one_per_frame() -> None:
    network = make_network(POSES)
    objects, counts, frame, _ = random_batch(SPEC)
    _, attention, _ = network.encoder(objects, counts, frame)
    assert attention.shape == (len(objects),)
    sums = torch.stack([part.sum() for part in attention.split(counts.flatten().tolist())])
    torch.testing.assert_close(sums, (counts.flatten() > 0).float())


def test_attention_is_softmax_for_large_logits() -> None:
    encoder = make_network(POSES).encoder
    with torch.no_grad():
        encoder.query.weight.mul_(1e4)
    logits = []
    hook = encoder.query.register_forward_hook(lambda module, inputs, query_output: logits.append(query_output))
    objects, counts, frame, _ = random_batch(SPEC)
    _, attention, _ = encoder(objects, counts, frame)
    hook.remove()
    score = objects[:, SPEC.object_groups()["score"].start, None].clamp(min=1e-2).log()
    groups = (logits[0] + score).split(counts.flatten().tolist())
    expected = torch.cat([group.softmax(dim=0) for group in groups if len(group)]).mean(dim=1)
    torch.testing.assert_close(attention, expected, rtol=1e-4, atol=1e-5)


def test_fit_normalization_uses_all_recordings() -> None:
    encoder = Encoder(SPEC)
    parts = [compute_features(make_sequence(n, keypoints=17, seed=n)) for n in (30, 50)]
    encoder.fit_normalization(parts)
    rows = np.concatenate([part.objects for part in parts])
    np.testing.assert_allclose(encoder.object_mean.numpy(), rows.mean(axis=0), rtol=1e-3, atol=1e-5)
    geometry = SPEC.object_groups()["geometry"]
    np.testing.assert_allclose(encoder.object_std.numpy()[geometry], rows.std(axis=0)[geometry], rtol=1e-3)
    assert "encoder.object_mean" in EventGRU(SPEC, 2, 0, Architecture()).state_dict()


def test_fit_normalization_of_constant_column() -> None:
    sequence = make_sequence(30, 2)
    network = make_network(sequence)
    features = compute_features(sequence)
    features.objects[:] = features.objects[0]
    network.encoder.fit_normalization([features])
    assert (network.encoder.object_std > 1e-7).all()
