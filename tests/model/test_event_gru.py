from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.model.networks import frames_of, make_network, random_batch, segment
from tests.sequences import make_sequence
from vidgru.config import FeatureGroup, NetworkSettings
from vidgru.datasets.windows import collate, slice_window
from vidgru.errors import SettingsError
from vidgru.model.encoder import Encoder
from vidgru.model.event_gru import EventGRU
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import compute_features
from vidgru.types import Features

SEQUENCE = make_sequence(50, keypoints=17)
LAYOUT = FeatureSpec.from_sequence(SEQUENCE)
SHAPES = [
    {}, {"layers": 2}, {"cell": "lstm"}, {"cell": "rnn"}, {"cell": "none"}, {"bidirectional": True},
]  # fmt: skip


def test_event_gru_default_cell() -> None:
    (gru,) = EventGRU(LAYOUT, 3, 0, NetworkSettings()).gru
    assert isinstance(gru, torch.nn.GRU)
    assert (gru.input_size, gru.hidden_size, gru.num_layers) == (64, 128, 1)
    assert gru.batch_first
    assert not gru.bidirectional
    output, hidden = gru(torch.randn(1, 5, 64))
    assert output.shape == (1, 5, 128)
    assert hidden.shape == (1, 1, 128)


@pytest.mark.parametrize("shape", SHAPES)
def test_event_gru_output_shapes(shape: dict[str, object]) -> None:
    network = make_network(SEQUENCE, 5, frame_outputs=2, **shape)
    objects, counts, frame, mask = random_batch(LAYOUT)
    assert network.encoder(objects, counts, frame)[0].shape == (1, 4, 9, 64)
    scores = network(objects, counts, frame, mask)
    assert scores.frames.shape == (1, 4, 9, 2)
    assert scores.clips.shape == (1, 4, 5)


def test_event_gru_without_head_returns_none() -> None:
    batch = random_batch(LAYOUT)
    clips, frames = make_network(SEQUENCE, 5)(*batch), make_network(SEQUENCE, 0, frame_outputs=2)(*batch)
    assert clips.frames is None
    assert clips.clips.shape == (1, 4, 5)
    assert frames.clips is None
    assert frames.frames.shape == (1, 4, 9, 2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 7])
def test_event_gru_ignores_padding(shape: dict[str, object], steps: int) -> None:
    network = make_network(SEQUENCE, frame_outputs=2, **shape)
    objects, counts, frame, mask = random_batch(LAYOUT)
    plain = network(objects, counts, frame, mask)
    padded = network(
        objects,
        F.pad(counts, (0, steps)),
        F.pad(frame, (0, 0, 0, steps), value=1e6),
        F.pad(mask, (0, steps)),
    )
    torch.testing.assert_close(padded.clips, plain.clips, rtol=0, atol=1e-6)
    torch.testing.assert_close(padded.frames[0, :, :9][mask], plain.frames[0, mask], rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_event_gru_is_independent_of_batch(shape: dict[str, object]) -> None:
    network = make_network(SEQUENCE, frame_outputs=2, **shape)
    batch = random_batch(LAYOUT)
    together = network(*batch)
    for row in range(len(batch[3])):
        length = int(batch[3][row].sum())
        alone = network(*segment(batch, row, length))
        torch.testing.assert_close(alone.clips[:, 0], together.clips[:, row], rtol=0, atol=1e-6)
        torch.testing.assert_close(alone.frames[:, 0], together.frames[:, row, :length], rtol=0, atol=1e-6)


def test_clip_logits_are_log_mean_exp() -> None:
    network = make_network(SEQUENCE)
    objects, counts, frame, mask = random_batch(LAYOUT)
    vectors, _, _ = network.encoder(objects, counts, frame)
    (steps,) = network.clip_head(network.run_rnn(vectors, mask)[0])
    for row, scores in enumerate(network(objects, counts, frame, mask).clips[0]):
        values = steps[row, : int(mask[row].sum())]
        torch.testing.assert_close(scores, values.exp().mean(dim=0).log(), rtol=0, atol=1e-5)


def test_padding_is_read_as_zeros() -> None:
    network = make_network(SEQUENCE, frame_outputs=2)
    objects, counts, frame, mask = random_batch(LAYOUT, clips=1, steps=6)
    mask[:, 4:] = False
    vectors, _, _ = network.encoder(objects, counts, frame)
    hidden, _ = network.gru[0](torch.cat([vectors[0, :, :4], torch.zeros(1, 2, 64)], dim=1))
    torch.testing.assert_close(network.event_logits(vectors, mask).frames, network.frame_head(hidden[None]))


@pytest.mark.parametrize(("shape", "ordered"), [({}, True), ({"cell": "none"}, False)])
def test_recurrent_cells_depend_on_frame_order(shape: dict[str, object], ordered: bool) -> None:
    network = make_network(SEQUENCE, **shape)
    batch = random_batch(LAYOUT, clips=1)
    _, counts, frame, mask = batch
    forwards = network(*batch).clips
    backwards = network(torch.cat(frames_of(batch)[0][::-1]), counts.flip(1), frame.flip(1), mask).clips
    assert bool((forwards - backwards).abs().max() > 1e-4) == ordered


@pytest.mark.parametrize(("shape", "sees_future"), [*((shape, "bidirectional" in shape) for shape in SHAPES)])
def test_only_bidirectional_sees_the_future(shape: dict[str, object], sees_future: bool) -> None:
    network = make_network(SEQUENCE, 0, frame_outputs=3, **shape)
    batch = random_batch(LAYOUT, clips=1)
    part = network(*segment(batch, 0, 4)).frames
    whole = network(*batch).frames[:, :, :4]
    assert bool((whole - part).abs().max() > 1e-5) == sees_future


def test_object_order_does_not_matter() -> None:
    network = make_network(SEQUENCE)
    batch = random_batch(LAYOUT)
    reordered = torch.cat([frame.flip(0) for clip in frames_of(batch) for frame in clip])
    assert not torch.equal(reordered, batch[0])
    torch.testing.assert_close(network(reordered, *batch[1:]).clips, network(*batch).clips, rtol=0, atol=1e-6)


def test_attention_sums_to_one_per_frame() -> None:
    network = make_network(SEQUENCE)
    objects, counts, frame, _ = random_batch(LAYOUT)
    _, attention, _ = network.encoder(objects, counts, frame)
    assert attention.shape == (len(objects),)
    sums = torch.stack([part.sum() for part in attention.split(counts.flatten().tolist())])
    torch.testing.assert_close(sums, (counts.flatten() > 0).float())


def test_attention_is_softmax_for_large_logits() -> None:
    encoder = make_network(SEQUENCE).encoder
    with torch.no_grad():
        encoder.query.weight.mul_(1e4)
    logits = []
    hook = encoder.query.register_forward_hook(lambda module, inputs, query_output: logits.append(query_output))
    objects, counts, frame, _ = random_batch(LAYOUT)
    _, attention, _ = encoder(objects, counts, frame)
    hook.remove()
    score = objects[:, LAYOUT.object_groups()["score"].start, None].clamp(min=1e-2).log()
    groups = (logits[0][0] + score).split(counts.flatten().tolist())
    expected = torch.cat([group.softmax(dim=0) for group in groups if len(group)]).mean(dim=1)
    torch.testing.assert_close(attention, expected, rtol=1e-4, atol=1e-5)


def test_event_gru_without_objects() -> None:
    network = make_network(SEQUENCE)
    empty = torch.zeros(0, LAYOUT.object_width), torch.zeros(1, 6, dtype=torch.int64)
    scores = network(*empty, torch.zeros(1, 6, LAYOUT.frame_width), torch.ones(1, 6, dtype=torch.bool))
    assert torch.isfinite(scores.clips).all()


def test_fit_normalization_uses_all_recordings() -> None:
    encoder = Encoder(LAYOUT)
    parts = [compute_features(make_sequence(n, keypoints=17, seed=n)) for n in (30, 50)]
    encoder.fit_normalization(parts)
    rows = np.concatenate([part.objects for part in parts])
    np.testing.assert_allclose(encoder.object_mean.numpy(), rows.mean(axis=0), rtol=1e-3, atol=1e-5)
    geometry = LAYOUT.object_groups()["geometry"]
    np.testing.assert_allclose(encoder.object_std.numpy()[geometry], rows.std(axis=0)[geometry], rtol=1e-3)
    assert "encoder.object_mean" in EventGRU(LAYOUT, 2, 0, NetworkSettings()).state_dict()


def test_fit_normalization_of_constant_column() -> None:
    sequence = make_sequence(30, 2)
    network = make_network(sequence)
    features = compute_features(sequence)
    features.objects[:] = features.objects[0]
    network.encoder.fit_normalization([features])
    assert (network.encoder.object_std > 1e-7).all()


def test_group_dropout_in_training_only() -> None:
    network = make_network(SEQUENCE, dropout=0.0, group_dropout=0.5)
    batch = random_batch(LAYOUT)
    assert torch.equal(network(*batch).clips, network(*batch).clips)
    network.train()
    assert not torch.equal(network(*batch).clips, network(*batch).clips)
    without_dropout = make_network(SEQUENCE, dropout=0.0, group_dropout=0.0).train()
    assert torch.equal(without_dropout(*batch).clips, without_dropout(*batch).clips)


# --- groups of features ---------------------------------------------------------------------------------------------

RICH = replace(make_sequence(60, 3, keypoints=17), angle=np.linspace(0, 3, 180).astype(np.float16))
RICH_LAYOUT = FeatureSpec.from_sequence(RICH)
GROUPS = get_args(FeatureGroup)


def scores_of(network: EventGRU, features: Features) -> torch.Tensor:
    """Scores of a recording's frames and of it as a clip, in a row."""
    batch = collate([slice_window(features, 0, len(features))])
    scores = network(batch.objects, batch.counts, batch.frame, batch.mask)
    return torch.cat([scores.clips.flatten(), scores.frames.flatten()])


def perturbed(group: str) -> Features:
    """The recording with other values in the columns of a group."""
    features = compute_features(RICH)
    if group in RICH_LAYOUT.object_groups():
        values = features.objects[:, RICH_LAYOUT.object_groups()[group]]
        values[:] = (values + 1) % 3 if group == "class" else values * 0.5 + 0.3
    else:
        values = features.frame[:, RICH_LAYOUT.frame_groups()[group]]
        values[:] = values * 0.5 + 0.3
    return features


def test_feature_groups_match_config() -> None:
    assert set(GROUPS) == {*RICH_LAYOUT.object_groups(), *RICH_LAYOUT.frame_groups()}
    assert len(GROUPS) == len(set(GROUPS))


@pytest.mark.parametrize("group", GROUPS)
def test_drop_features_ignores_group(group: str) -> None:
    plain = compute_features(RICH)
    on, off = (make_network(RICH, frame_outputs=2, drop_features=drop_features) for drop_features in ((), (group,)))
    assert (scores_of(on, perturbed(group)) - scores_of(on, plain)).abs().max() > 1e-5
    assert torch.equal(scores_of(off, perturbed(group)), scores_of(off, plain))
    for other in set(GROUPS) - {group}:
        assert not torch.equal(scores_of(off, perturbed(other)), scores_of(off, plain)), other


@pytest.mark.parametrize("kept", [("scene",), ("time", "scene_motion"), ("class",), ("keypoints", "geometry")])
def test_drop_features_keeps_few_groups(kept: tuple[str, ...]) -> None:
    network = make_network(RICH, frame_outputs=2, drop_features=tuple(set(GROUPS) - set(kept)))
    features = compute_features(RICH)
    for group in GROUPS:
        same = torch.equal(scores_of(network, perturbed(group)), scores_of(network, features))
        assert same == (group not in kept), group
    network.train()
    scores_of(network, features).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    batch = collate([slice_window(features, 0, 60)])
    _, attention, _ = network.encoder(batch.objects, batch.counts, batch.frame)
    np.testing.assert_allclose(attention.detach().numpy().reshape(60, 3).sum(axis=1), 1, rtol=1e-5)


def test_drop_features_must_leave_a_group() -> None:
    with pytest.raises(
        SettingsError, match=r"drop_features is geometry,.*scene_motion: no feature is left\n  drop fewer"
    ):
        make_network(RICH, drop_features=GROUPS)


def test_drop_features_allows_absent_groups() -> None:
    bare = make_sequence(20, 2, optional=False)
    network = make_network(bare, drop_features=("appearance", "scene", "keypoints"))
    plain = make_network(bare)
    assert network.state_dict().keys() == plain.state_dict().keys()
