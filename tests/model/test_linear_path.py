import json

import pytest
import torch
from msgspec import convert

from tests.model.networks import make_model
from tests.sequences import make_sequence
from vidgru.model.checkpoint import EventModel
from vidgru.model.features import compute_features
from vidgru.model.linear_path import LinearMetadata, LinearModel, LinearPath, LogitMix
from vidgru.model.scoring import encode_features
from vidgru.model.summaries import FrameSummaries

SEQUENCE = make_sequence(60, seed=2)
MODEL = make_model(SEQUENCE, timed=True, linear=True, lookahead=3)


def test_linear_path_clips_outliers() -> None:
    path = LinearPath(2, 1)
    path.mean.copy_(torch.tensor([1.0, 0.0]))
    path.std.copy_(torch.tensor([2.0, 1.0]))
    path.weight.copy_(torch.tensor([[1.0, 10.0]]))
    path.bias.fill_(0.5)
    rows = torch.tensor([[1.0, 0.0], [3.0, 0.5], [99.0, -99.0]])
    torch.testing.assert_close(path(rows)[:, 0], torch.tensor([0.5, 0.5 + 1 + 5, 0.5 + 3 - 30]))


def test_logit_mix_adds_weighted_logits() -> None:
    network, linear = torch.tensor([[[2.0, 4.0]], [[6.0, 8.0]]]), torch.tensor([[10.0, 20.0]])
    mixed = LogitMix(network=0.5, linear=0.25, bias=(1.0, -1.0))(network, linear)
    torch.testing.assert_close(mixed, torch.tensor([[[4.5, 6.0]], [[6.5, 8.0]]]))
    torch.testing.assert_close(LogitMix()(network, linear), 0.5 * network + 0.5 * linear)


def test_linear_model_load_inverts_metadata() -> None:
    linear = MODEL.linear
    assert linear is not None
    loaded = LinearModel.load(convert(json.loads(json.dumps(linear.metadata())), LinearMetadata), linear.tensors())
    assert loaded.metadata() == linear.metadata()
    assert loaded.tensors().keys() == linear.tensors().keys()
    assert all(torch.equal(tensor, linear.tensors()[name]) for name, tensor in loaded.tensors().items())
    clips_only = make_model(SEQUENCE, linear=True).linear
    assert clips_only is not None
    assert clips_only.frames is None
    assert {name.split(".")[0] for name in clips_only.tensors()} == {"clips"}


def test_linear_model_load_refuses_missing_tensors() -> None:
    assert MODEL.linear is not None
    tensors = {name: tensor for name, tensor in MODEL.linear.tensors().items() if name != "clips.std"}
    with pytest.raises(RuntimeError, match="std"):
        LinearModel.load(convert(MODEL.linear.metadata(), LinearMetadata), tensors)


@pytest.mark.parametrize("group", ["motion", "scene", "time", "class", "appearance"])
def test_linear_model_without_group(group: str) -> None:
    """Its logits do not depend on the group, and equal those of a recording with average features of it."""
    linear, columns = MODEL.linear, FrameSummaries(MODEL.feature_spec, ("appearance",)).group_columns(group)
    assert linear is not None
    masked = linear.without(MODEL.feature_spec, group)
    frames = FrameSummaries(MODEL.feature_spec, ("appearance",))
    for name, used in (("clips", frames.clip_columns), ("frames", frames.window_columns)):
        before, after = getattr(linear, name), getattr(masked, name)
        of_group = torch.tensor([int(column) in set(columns.tolist()) for column in used])
        of_group = of_group.repeat(before.weight.shape[1] // len(used))
        rows = before.mean + before.std * torch.randn(4, len(of_group))
        average = torch.where(of_group, before.mean, rows)
        torch.testing.assert_close(after(rows), before(average), rtol=0, atol=1e-4)
        assert bool(of_group.any()) == (group not in ("class", "appearance"))
        assert not torch.equal(before.weight[:, of_group], torch.zeros(3, int(of_group.sum()))) or not of_group.any()


def linear_logits(model: EventModel) -> torch.Tensor:
    encoded = encode_features(model, [compute_features(SEQUENCE)])
    assert encoded.linear is not None
    return encoded.linear


def test_encoded_recording_has_logits_of_every_frame() -> None:
    logits = linear_logits(MODEL)
    assert logits.shape == (60, 3)
    assert float(logits.std(dim=0).min()) > 0.1
    for frames in (0, 1, 2, 3, 4):
        encoded = encode_features(MODEL, [compute_features(SEQUENCE.frames(0, frames))])
        assert encoded.linear is not None
        assert encoded.linear.shape == (frames, 3)
        assert encoded.summaries is not None
        assert len(encoded.summaries) == frames
