import numpy as np
import pytest
import torch

from vidgru.datasets.windows import Batch
from vidgru.model.event_gru import Architecture
from vidgru.training import probe as probing
from vidgru.training.probe import CHANCE, probe

SMALL = {"width": 16, "hidden": 16}


@pytest.fixture(autouse=True)
def one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_NETWORKS", 1)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_cells_with_gates_remember(cell: str) -> None:
    shares = probe(Architecture(cell=cell, **SMALL), (2, 6), lr=1e-2, seed=0, steps=120)
    assert all(np.mean(share) > 0.95 for share in shares.values())


def test_nothing_is_told_without_memory() -> None:
    """Were what decides still in view at the event, this would tell it too."""
    shares = probe(Architecture(cell="none", **SMALL), (2, 6), lr=1e-2, seed=0, steps=60)
    assert all(abs(np.mean(share) - CHANCE) < 0.12 for share in shares.values())


def test_same_seed_same_shares() -> None:
    one, again, other = (
        probe(Architecture(**SMALL, dropout=dropout), (4,), lr=3e-3, seed=seed, steps=12)
        for seed, dropout in ((0, 0.2), (0, 0.5), (1, 0.2))
    )
    assert one == again  # whatever the dropout, which is not used
    assert one != other


def classes_of(batch: Batch) -> torch.Tensor:
    """[B, T] class of the one object in each frame, -1 where there is none."""
    assert batch.counts.max() == 1
    classes = torch.full(batch.counts.shape, -1)
    classes[batch.counts > 0] = batch.objects[:, 10].long()
    return classes


@pytest.mark.parametrize("distance", [1, 5])
def test_sequences_are_as_they_are_said_to_be(distance: int) -> None:
    batch = probing._batch(np.random.default_rng(0), distance)
    steps = 3 + distance + 3
    assert batch.mask.shape == (16, steps)
    assert batch.mask.all()
    assert batch.targets is not None
    assert batch.weights is not None
    assert batch.weights.sum(dim=0).tolist() == [0] * (3 + distance) + [16] * 3
    label = batch.targets.argmax(dim=2)
    assert (label == label[:, :1]).all()
    assert label[:, 0].sum() == 8  # as many of one kind as of the other
    classes = classes_of(batch)
    assert (classes[:, :3] == label[:, :3]).all()  # a person or a car, as the label says
    assert (classes[:, -3:] == 3).all()  # the gate, whatever the label


def test_others_of_the_same_kinds_pass_by() -> None:
    batch = probing._batch(np.random.default_rng(0), 200)
    between = classes_of(batch)[:, 3:-3]
    assert set(between.flatten().tolist()) == {-1, 0, 1, 2}
    assert 0.4 < float((between >= 0).float().mean()) < 0.6
