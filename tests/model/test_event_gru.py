import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.model.networks import make_network, random_batch
from tests.sequences import make_sequence
from vidgru.model.encoder import Encoder
from vidgru.model.event_gru import Architecture, EventGRU
from vidgru.model.features import compute_features
from vidgru.model.layout import FeatureLayout

SEQUENCE = make_sequence(50, keypoints=17)
LAYOUT = FeatureLayout.of(SEQUENCE)
SHAPES = [{}, {"cell": "lstm", "layers": 2}, {"cell": "rnn"}, {"cell": "none"}, {"bidirectional": True}]


def test_the_default_is_the_gru_that_was_asked_for() -> None:
    gru = EventGRU(LAYOUT, 3, Architecture()).gru
    assert isinstance(gru, torch.nn.GRU)
    assert (gru.input_size, gru.hidden_size, gru.num_layers) == (64, 128, 1)
    assert gru.batch_first
    assert not gru.bidirectional
    output, hidden = gru(torch.randn(1, 5, 64))
    assert output.shape == (1, 5, 128)
    assert hidden.shape == (1, 1, 128)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: dict[str, object]) -> None:
    network = make_network(SEQUENCE, 5, **shape)
    objects, object_mask, frame, mask = random_batch(LAYOUT)
    assert network.encoder(objects, object_mask, frame).shape == (4, 9, 64)
    scores = network(objects, object_mask, frame, mask)
    assert scores.frames.shape == (4, 9, 5)
    assert scores.clips.shape == (4, 5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("steps", "slots"), [(7, 0), (0, 5), (3, 2)])
def test_padding_changes_nothing(shape: dict[str, object], steps: int, slots: int) -> None:
    network = make_network(SEQUENCE, **shape)
    objects, object_mask, frame, mask = random_batch(LAYOUT)
    plain = network(objects, object_mask, frame, mask)
    garbage = torch.nn.functional.pad(objects, (0, 0, 0, slots, 0, steps), value=1e6)
    padded = network(
        garbage,
        F.pad(object_mask, (0, slots, 0, steps)),
        F.pad(frame, (0, 0, 0, steps), value=1e6),
        F.pad(mask, (0, steps)),
    )
    torch.testing.assert_close(padded.clips, plain.clips, rtol=0, atol=1e-6)
    torch.testing.assert_close(padded.frames[:, :9][mask], plain.frames[mask], rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_clip_is_scored_alike_alone_and_among_others(shape: dict[str, object]) -> None:
    network = make_network(SEQUENCE, **shape)
    batch = random_batch(LAYOUT)
    together = network(*batch).clips
    for row in range(len(together)):
        length = int(batch[3][row].sum())
        alone = network(*(tensor[row : row + 1, :length] for tensor in batch)).clips
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("shape", "ordered"), [({}, True), ({"cell": "none"}, False)])
def test_order_matters_to_what_remembers(shape: dict[str, object], ordered: bool) -> None:
    network = make_network(SEQUENCE, **shape)
    objects, object_mask, frame, mask = random_batch(LAYOUT, clips=1)
    forwards = network(objects, object_mask, frame, mask).clips
    backwards = network(objects.flip(1), object_mask.flip(1), frame.flip(1), mask).clips
    assert bool((forwards - backwards).abs().max() > 1e-4) == ordered


def test_steps_do_not_see_the_future() -> None:
    network = make_network(SEQUENCE)
    objects, object_mask, frame, mask = random_batch(LAYOUT, clips=1)
    part = network(objects[:, :4], object_mask[:, :4], frame[:, :4], mask[:, :4]).frames
    torch.testing.assert_close(network(objects, object_mask, frame, mask).frames[:, :4], part, rtol=0, atol=1e-6)


def test_the_order_of_objects_in_a_frame_does_not_matter() -> None:
    network = make_network(SEQUENCE)
    objects, object_mask, frame, mask = random_batch(LAYOUT)
    turned = network(objects.flip(2), object_mask.flip(2), frame, mask).clips
    torch.testing.assert_close(turned, network(objects, object_mask, frame, mask).clips, rtol=0, atol=1e-6)


def test_attention_sums_to_one_in_a_frame_with_objects() -> None:
    network = make_network(SEQUENCE)
    objects, object_mask, frame, _ = random_batch(LAYOUT)
    vectors, attention = network.encoder.attend(objects[object_mask], object_mask, frame)
    assert attention.shape == (int(object_mask.sum()),)
    padded = torch.zeros(object_mask.shape)
    padded[object_mask] = attention
    sums, there = padded.sum(2), object_mask.any(2).float()
    torch.testing.assert_close(sums, there)
    torch.testing.assert_close(vectors, network.encoder(objects, object_mask, frame))


def test_a_recording_without_an_object_can_be_scored() -> None:
    network = make_network(SEQUENCE)
    empty = torch.zeros(1, 6, 1, LAYOUT.object_width), torch.zeros(1, 6, 1, dtype=torch.bool)
    scores = network(*empty, torch.zeros(1, 6, LAYOUT.frame_width), torch.ones(1, 6, dtype=torch.bool))
    assert torch.isfinite(scores.clips).all()


def test_normalisation_is_fitted_on_rows_of_all_recordings() -> None:
    encoder = Encoder(LAYOUT)
    parts = [compute_features(make_sequence(n, keypoints=17, seed=n)) for n in (30, 50)]
    encoder.fit(parts)
    rows = np.concatenate([part.objects for part in parts])
    np.testing.assert_allclose(encoder.object_mean.numpy(), rows.mean(axis=0), rtol=1e-3, atol=1e-5)
    geometry = LAYOUT.object_groups()["geometry"]
    np.testing.assert_allclose(encoder.object_std.numpy()[geometry], rows.std(axis=0)[geometry], rtol=1e-3)
    assert "encoder.object_mean" in EventGRU(LAYOUT, 2, Architecture()).state_dict()


def test_a_constant_column_does_not_blow_up() -> None:
    sequence = make_sequence(30, 2)
    network = make_network(sequence)
    features = compute_features(sequence)
    features.objects[:] = features.objects[0]
    network.encoder.fit([features])
    assert (network.encoder.object_std > 1e-7).all()


def test_groups_are_dropped_in_training_only() -> None:
    network = make_network(SEQUENCE, dropout=0.0, group_dropout=0.5)
    batch = random_batch(LAYOUT)
    assert torch.equal(network(*batch).clips, network(*batch).clips)
    network.train()
    assert not torch.equal(network(*batch).clips, network(*batch).clips)
    quiet = make_network(SEQUENCE, dropout=0.0, group_dropout=0.0).train()
    assert torch.equal(quiet(*batch).clips, quiet(*batch).clips)
