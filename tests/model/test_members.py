"""A network of several members, compared with networks of one member and the same weights."""

import numpy as np
import pytest
import torch

from tests.model.networks import make_model, random_batch, single_member
from tests.sequences import make_sequence
from vidgru.model.captioner import caption_events
from vidgru.model.checkpoint import EventModel
from vidgru.model.stream import score_recording
from vidgru.types import Event

SEQUENCE = make_sequence(120, seed=2)
MEMBERS = 3
SENTENCES = ("A person falls.", "Two people walk.")
OBJECTS = ("geometry", "score", "class", "speed", "motion", "relations", "appearance", "colour")
MODELS = {
    "gru": make_model(SEQUENCE, timed=True, lookahead=3, members=MEMBERS, sentences=SENTENCES),
    "layers": make_model(SEQUENCE, timed=True, members=MEMBERS, layers=2, dropout=0.0),
    "clips": make_model(SEQUENCE, members=MEMBERS, background=False, multi_label=True),
    "lstm": make_model(SEQUENCE, timed=True, members=MEMBERS, cell="lstm"),
    "no memory": make_model(SEQUENCE, timed=True, members=MEMBERS, cell="none"),
    "both ways": make_model(SEQUENCE, timed=True, members=MEMBERS, bidirectional=True),
    "no objects": make_model(SEQUENCE, timed=True, members=MEMBERS, drop_features=OBJECTS),
    "linear": make_model(SEQUENCE, timed=True, lookahead=3, members=MEMBERS, linear=True, masked_groups=("scene",)),
}


def singles_of(model: EventModel) -> list[EventModel]:
    return [single_member(model, member) for member in range(MEMBERS)]


def test_members_start_with_different_weights() -> None:
    model = MODELS["gru"]
    for parameter in model.network.stacked_parameters():
        assert len(parameter) == MEMBERS
        if parameter.std() > 0 and parameter.numel() > MEMBERS:  # not the scales
            assert not any(torch.equal(parameter[0], other) for other in parameter[1:])
    pairs = zip(*(model.network.member_parameters(member)[:4] for member in (0, 1)), strict=True)
    assert not any(torch.equal(first, second) for first, second in pairs)


@pytest.mark.parametrize("kind", MODELS)
def test_logits_equal_single_members(kind: str) -> None:
    model = MODELS[kind]
    inputs = random_batch(model.feature_spec, clips=4, steps=9)
    with torch.inference_mode():
        together = model.network(*inputs)
        attention = model.network.encode(*inputs[:3]).attention
        singles = [single.network(*inputs) for single in singles_of(model)]
        attentions = [single.network.encode(*inputs[:3]).attention for single in singles_of(model)]
    for logits, *of_members in zip(together, *singles, strict=True):
        if logits is not None:
            torch.testing.assert_close(logits, torch.cat(of_members), rtol=0, atol=1e-5)
            assert logits.std(dim=0).max() > 1e-3
    torch.testing.assert_close(attention, torch.stack(attentions).mean(dim=0))


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "linear"])
def test_gradients_equal_single_members(kind: str) -> None:
    model = MODELS[kind]
    inputs = random_batch(model.feature_spec, clips=4, steps=9)

    def backward(single: EventModel, member: int | None) -> None:
        single.network.zero_grad()
        logits = [part for part in single.network(*inputs) if part is not None]
        loss = sum(part.square().sum() for part in logits)
        if single.caption and not member:
            words = torch.tensor([[0, 3, 4, 5]] * 4)
            loss = loss + single.network.caption_logits(*inputs, words).square().mean()
        loss.backward()

    backward(model, None)
    for member, single in enumerate(singles_of(model)):
        backward(single, member)
        own = [p.grad[member] for p in model.network.stacked_parameters()]
        own += [p.grad for p in model.network.member_parameters(member)]
        alone = [p.grad[0] for p in single.network.stacked_parameters()]
        alone += [p.grad for p in single.network.member_parameters(0)]
        for actual, expected in zip(own, alone, strict=True):
            scale = float(expected.abs().max().clamp(min=1))
            torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "no objects"])
def test_scores_are_means_of_single_members(kind: str) -> None:
    model = MODELS[kind]
    together = score_recording(model, [SEQUENCE], video="a.mp4", duration_s=15.0, gates=True)
    singles = [score_recording(m, [SEQUENCE], video="a.mp4", duration_s=15.0, gates=True) for m in singles_of(model)]
    np.testing.assert_allclose(together.scores, np.mean([s.scores for s in singles], axis=0), rtol=0, atol=1e-5)
    np.testing.assert_allclose(together.attention, np.mean([s.attention for s in singles], axis=0), rtol=0, atol=1e-5)
    if together.gates is not None:
        updates = [single.gates.update for single in singles]
        np.testing.assert_allclose(together.gates.update, np.mean(updates, axis=0), rtol=0, atol=1e-5)
        assert np.ptp(updates, axis=0).max() > 1e-3
    assert (together.gates is None) == (kind in ("lstm", "no memory", "both ways"))


@pytest.mark.parametrize("kind", ["gru", "layers", "lstm", "no memory", "linear"])
def test_member_is_single_member(kind: str) -> None:
    model = MODELS[kind]
    for member, single in enumerate(singles_of(model)):
        assert model.member(member).to_bytes() == single.to_bytes()


def test_captions_are_those_of_the_first_member() -> None:
    model = MODELS["gru"]
    starts = (1.0, 4.0, 8.5, 11.0)
    events = [Event(video="a.mp4", start_s=at, end_s=at + 2, label="fall", score=0.9) for at in starts]
    ours, alone = caption_events(model, [SEQUENCE], events), caption_events(single_member(model, 0), [SEQUENCE], events)
    assert [event.description for event in ours] == [event.description for event in alone]
    for event, expected in zip(ours, alone, strict=True):
        assert event.description_score == pytest.approx(expected.description_score, abs=1e-5)
