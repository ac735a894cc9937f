import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.model.networks import make_model, single_member
from tests.sequences import make_sequence
from vidgru.config import TrainConfig
from vidgru.datasets.windows import Batch, Window, collate, slice_window
from vidgru.errors import OutputError, VidgruError
from vidgru.flags import from_settings
from vidgru.model.checkpoint import EventModel, EventTask, HeadSpec
from vidgru.model.features import compute_features
from vidgru.training.distributed import ProcessGroup
from vidgru.training.run_state import RunProgress
from vidgru.training.trainer import Learner, epochs_without_gain, lr_scale, tensorboard_writer

SEQUENCE = make_sequence(12, 2)
TASK = EventTask(labels=("fall", "walk"), clip_head=HeadSpec(background=False, multi_label=False))


def make_learner(model: EventModel | None = None, **changes: object) -> Learner:
    return Learner(
        model or plain_model(),
        from_settings(TrainConfig, **changes),
        torch.device("cpu"),
        class_weights=torch.ones(0),
        process_group=ProcessGroup(),
    )


def test_members_stop_when_their_loss_no_longer_falls() -> None:
    losses = [0.9, 0.5, 0.4, 0.396, 0.45, 0.393]  # falls of less than 2 % do not count
    progress = RunProgress(epochs=[{"val_loss": loss} for loss in losses], best_epoch=5)
    assert epochs_without_gain(plain_model(members=3), progress) == 3
    assert epochs_without_gain(plain_model(), progress) == 1
    assert epochs_without_gain(plain_model(members=3), RunProgress()) == 0


def plain_model(members: int = 1) -> EventModel:
    """A model without dropout, which trains without random numbers."""
    model = make_model(SEQUENCE, background=False, members=members, dropout=0.0, group_dropout=0.0)
    return replace(model, task=TASK)


def batch() -> Batch:
    labels = TASK.target_vector(TASK.clip_head, ["fall"])
    return collate([slice_window(compute_features(SEQUENCE), 0, 12, labels=labels)])


def gradient_norm(learner: Learner) -> float:
    return float(torch.cat([p.grad.flatten() for p in learner.network.parameters() if p.grad is not None]).norm())


def test_learning_rate_schedule() -> None:
    assert [lr_scale(step) for step in (1, 5, 10)] == [0.05, 0.25, 0.5]
    assert max(range(1, 500), key=lr_scale) <= 20
    assert lr_scale(20) == pytest.approx(math.sqrt(200 / 220))
    assert lr_scale(200) == pytest.approx(math.sqrt(0.5))
    assert lr_scale(1800) == pytest.approx(math.sqrt(0.1))
    trained = make_learner(lr=0.01)
    trained.step(batch(), 1, 5)
    assert {group["lr"] for group in trained.optimizer.param_groups} == {0.01 * 0.25}


def test_step_clips_large_gradients() -> None:
    trained = make_learner()
    with torch.no_grad():
        trained.network.clip_head[-1].weight.mul_(1000)
    trained.step(batch(), 1, 1)
    assert gradient_norm(trained) == pytest.approx(1, rel=1e-4)
    small = make_learner()
    small.step(batch(), 1000, 1)  # one of a thousand windows
    assert 0 < gradient_norm(small) < 0.1


def test_members_train_as_they_would_alone() -> None:
    """On windows of no fold, which all learn from."""
    shared = replace(batch(), folds=None)
    model = plain_model(3)
    with torch.no_grad():  # so that the gradients of one are clipped, and of the others not
        model.network.clip_head[-1].weight[1] *= 1000
    together, losses = make_learner(model), []
    singles = [make_learner(single_member(model, member)) for member in range(3)]
    for step in (1, 2, 3):
        total = float(together.step(shared, 4, step))
        losses = [float(single.step(shared, 4, step)) for single in singles]
        assert total == pytest.approx(sum(losses) / 3, rel=1e-4)
    check_members(together, singles)


def check_members(together: Learner, singles: list[Learner]) -> None:
    """The members have the weights of learners of a single network each."""
    trained = together.snapshot()
    for member, single in enumerate(singles):
        weights, expected = single_member(trained, member).network, single.snapshot().network
        for (name, ours), theirs in zip(weights.named_parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5, msg=name)


def windows_of_folds(*folds: int) -> list[Window]:
    labels = [TASK.target_vector(TASK.clip_head, [label]) for label in TASK.labels]
    features = compute_features(SEQUENCE)
    return [
        slice_window(features, number, 5 + number, labels=labels[number % 2], fold=fold)
        for number, fold in enumerate(folds)
    ]


def test_members_train_on_other_folds_as_they_would_alone() -> None:
    windows = windows_of_folds(0, 1, 2)
    model = plain_model(3)
    together, singles = make_learner(model), [make_learner(single_member(model, member)) for member in range(3)]
    for step in (1, 2, 3):
        together.step(collate(windows), 3, step)
        for member, single in enumerate(singles):
            others = [window for window in windows if window.fold != member]
            single.step(collate(others), 2, step)
    check_members(together, singles)


def test_member_does_not_learn_from_its_fold() -> None:
    learner = make_learner(plain_model(3), weight_decay=0.0)
    before = [single_member(learner.snapshot(), member).network.state_dict() for member in range(3)]
    for step in (1, 2):
        learner.step(collate(windows_of_folds(1, 1)), 2, step)
        of_stacked = [p.grad for p in learner.network.stacked_parameters()]
        assert all(torch.count_nonzero(gradient[1]) == 0 for gradient in of_stacked)
        assert all(torch.count_nonzero(p.grad) == 0 for p in learner.network.member_parameters(1))
        for member in (0, 2):
            assert any(torch.count_nonzero(gradient[member]) for gradient in of_stacked)
            assert all(torch.count_nonzero(p.grad) for p in learner.network.member_parameters(member)[:2])
    after = [single_member(learner.snapshot(), member).network.state_dict() for member in range(3)]
    changed = [any(not torch.equal(after[m][name], before[m][name]) for name in before[m]) for m in range(3)]
    assert changed == [True, False, True]


def test_weight_decay_applies_to_matrices_only() -> None:
    trained = make_learner(weight_decay=0.05)
    decays = {id(p): group["weight_decay"] for group in trained.optimizer.param_groups for p in group["params"]}
    assert len(decays) == len(list(trained.network.parameters()))
    for name, parameter in trained.network.named_parameters():
        dimensions = parameter.ndim - (not name.startswith("gru."))  # without that of the members
        assert decays[id(parameter)] == (0.05 if dimensions > 1 else 0.0), name


def test_averaged_weights() -> None:
    trained = make_learner(lr=0.1)
    bias = trained.network.clip_head[-1].bias
    biases = []
    for step in range(1, 4):
        trained.step(batch(), 1, step)
        biases.append(bias.detach().clone())
    expected = biases[0]  # the first step replaces the average
    expected = expected + (biases[1] - expected) * 9 / 10
    expected = expected + (biases[2] - expected) * 9 / 11
    torch.testing.assert_close(trained.averaged.clip_head[-1].bias.detach(), expected)
    assert not trained.averaged.training


def test_step_returns_loss_and_reduces_it() -> None:
    trained = make_learner()
    first = float(trained.step(batch(), 1, 20))
    for step in range(21, 30):
        last = float(trained.step(batch(), 1, step))
    assert last < first


def test_step_without_share_of_batch() -> None:
    trained = make_learner()
    before = trained.network.clip_head[-1].bias.detach().clone()
    assert float(trained.step(None, 1, 1)) == 0.0
    assert torch.equal(trained.network.clip_head[-1].bias, before)


def test_step_names_window_of_non_finite_loss() -> None:
    trained = make_learner()
    valid, corrupt = compute_features(SEQUENCE), compute_features(SEQUENCE)
    corrupt.frame[3] = float("nan")
    labels = TASK.target_vector(TASK.clip_head, ["fall"])
    windows = [
        slice_window(features, 0, 12, labels=labels, source=f"{name}.mp4, samples 0 to 12")
        for name, features in (("a", valid), ("b", corrupt))
    ]
    before = trained.network.state_dict()["clip_head.1.bias"].clone()
    with pytest.raises(VidgruError, match=r"the loss of b\.mp4, samples 0 to 12 is nan.*\n  vidgru info --verify"):
        trained.step(collate(windows), 2, 1)
    assert torch.equal(trained.network.state_dict()["clip_head.1.bias"], before)


# --- TensorBoard ------------------------------------------------------------------------------------------------------


def test_tensorboard_curves_end_where_new_run_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    now = time.time
    for run, (first, last) in enumerate(((1, 4), (3, 5), (1, 2))):
        # Files are read in the order of their names. Within one second a counter orders them, where 10 comes before 9.
        monkeypatch.setattr(time, "time", lambda run=run: now() + 10 * run)
        writer = tensorboard_writer(tmp_path, first)
        for epoch in range(first, last + 1):
            writer.add_scalar("train/loss", last, epoch)
        writer.close()
    assert {path.name[:19] for path in (tmp_path / "tensorboard").iterdir()} == {"events.out.tfevents"}
    curves = EventAccumulator(str(tmp_path / "tensorboard"))
    curves.Reload()
    assert [(event.step, event.value) for event in curves.Scalars("train/loss")] == [(1, 2), (2, 2)]


def test_tensorboard_refuses_unwritable_folder(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "run").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*run/tensorboard: Not a directory\n  free disk space"):
        tensorboard_writer(tmp_path / "run", 1)


@pytest.mark.parametrize("missing", ["tensorboard", "torch.utils.tensorboard"])
def test_tensorboard_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in [name for name in sys.modules if name.startswith(("tensorboard", "torch.utils.tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert tensorboard_writer(tmp_path, 1) is None
    assert list(tmp_path.iterdir()) == []
