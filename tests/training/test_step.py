import math

import pytest
import torch

from tests.model.networks import make_network
from tests.sequences import make_sequence
from vidgru.config import TrainConfig
from vidgru.datasets.windows import Batch, collate, slice_window
from vidgru.errors import VidgruError
from vidgru.flags import from_flags
from vidgru.model.checkpoint import EventTask, HeadSpec
from vidgru.model.features import compute_features
from vidgru.training.distributed import ProcessGroup
from vidgru.training.step import Stepper, learning_rate

SEQUENCE = make_sequence(12, 2)
TASK = EventTask(labels=("fall", "walk"), clip_head=HeadSpec(background=False, multi_label=False))


def stepper(**changes: object) -> Stepper:
    network = make_network(SEQUENCE, 2, dropout=0.0, group_dropout=0.0).train()
    return Stepper(
        network,
        TASK,
        from_flags(TrainConfig, **changes),
        lookahead=0,
        class_weights=torch.ones(0),
        process_group=ProcessGroup(),
    )


def batch() -> Batch:
    labels = TASK.target_vector(TASK.clip_head, ["fall"])
    return collate([slice_window(compute_features(SEQUENCE), 0, 12, labels=labels)])


def gradient(made: Stepper) -> float:
    return float(torch.cat([p.grad.flatten() for p in made.network.parameters() if p.grad is not None]).norm())


def test_the_rate_rises_and_falls() -> None:
    assert [learning_rate(step) for step in (1, 5, 10)] == [0.05, 0.25, 0.5]
    assert max(range(1, 500), key=learning_rate) <= 20
    assert learning_rate(20) == pytest.approx(math.sqrt(200 / 220))
    assert learning_rate(200) == pytest.approx(math.sqrt(0.5))
    assert learning_rate(1800) == pytest.approx(math.sqrt(0.1))
    made = stepper(lr=0.01)
    made.take(batch(), 1, 5)
    assert {group["lr"] for group in made.optimizer.param_groups} == {0.01 * 0.25}


def test_large_gradients_are_clipped_and_small_ones_left() -> None:
    made = stepper()
    with torch.no_grad():
        made.network.clip_head[-1].weight.mul_(1000)
    made.take(batch(), 1, 1)
    assert gradient(made) == pytest.approx(1, rel=1e-4)
    small = stepper()
    small.take(batch(), 1000, 1)  # one of a thousand windows
    assert 0 < gradient(small) < 0.1


def test_matrices_decay_and_biases_do_not() -> None:
    made = stepper(weight_decay=0.05)
    decays = {id(p): group["weight_decay"] for group in made.optimizer.param_groups for p in group["params"]}
    assert len(decays) == len(list(made.network.parameters()))
    assert all(decays[id(p)] == (0.05 if p.ndim > 1 else 0.0) for p in made.network.parameters())


def test_what_is_kept_is_a_mean_of_the_weights() -> None:
    made = stepper(lr=0.1)
    bias = made.network.clip_head[-1].bias
    seen = []
    for step in range(1, 4):
        made.take(batch(), 1, step)
        seen.append(bias.detach().clone())
    kept = seen[0]  # the first step takes all of it
    kept = kept + (seen[1] - kept) * 9 / 10
    kept = kept + (seen[2] - kept) * 9 / 11
    torch.testing.assert_close(made.kept.clip_head[-1].bias.detach(), kept)
    assert not made.kept.training


def test_a_step_returns_the_loss_and_makes_it_smaller() -> None:
    made = stepper()
    first = float(made.take(batch(), 1, 20))
    for step in range(21, 30):
        last = float(made.take(batch(), 1, step))
    assert last < first


def test_a_process_without_a_share_takes_the_step_too() -> None:
    made = stepper()
    before = made.network.clip_head[-1].bias.detach().clone()
    assert float(made.take(None, 1, 1)) == 0.0
    assert torch.equal(made.network.clip_head[-1].bias, before)


def test_a_loss_that_is_not_a_number_names_its_window() -> None:
    made = stepper()
    sound, spoilt = compute_features(SEQUENCE), compute_features(SEQUENCE)
    spoilt.frame[3] = float("nan")
    labels = TASK.target_vector(TASK.clip_head, ["fall"])
    windows = [
        slice_window(features, 0, 12, labels=labels, source=f"{name}.mp4, samples 0 to 12")
        for name, features in (("a", sound), ("b", spoilt))
    ]
    before = made.network.state_dict()["clip_head.1.bias"].clone()
    with pytest.raises(VidgruError, match=r"the loss of b\.mp4, samples 0 to 12 is nan.*\n  vidgru info --verify"):
        made.take(collate(windows), 2, 1)
    assert torch.equal(made.network.state_dict()["clip_head.1.bias"], before)
