import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vidgru.datasets.windows import Batch
from vidgru.model.event_gru import Scores
from vidgru.train.data import Task
from vidgru.train.losses import event_loss
from vidgru.train.thresholds import fit_decoding
from vidgru.train.validation import log_loss


def batch(labels: list[list[float]], lengths: list[int], steps: int = 4) -> Batch:
    mask = torch.arange(steps) < torch.tensor(lengths)[:, None]
    size = len(labels)
    return Batch(
        objects=torch.zeros(size, steps, 1, 1),
        object_mask=torch.zeros(size, steps, 1, dtype=torch.bool),
        frame=torch.zeros(size, steps, 1),
        mask=mask,
        labels=torch.tensor(labels, dtype=torch.float32),
    )


def test_cross_entropy_of_clips() -> None:
    scores = Scores(torch.randn(2, 4, 3), torch.randn(2, 3))
    loss = event_loss(scores, batch([[1, 0, 0], [0, 0, 1]], [4, 2]), multi_label=False, smoothing=0.1)
    torch.testing.assert_close(loss, F.cross_entropy(scores.clips, torch.tensor([0, 2]), label_smoothing=0.1))


def test_labels_of_their_own_have_binary_losses() -> None:
    scores = Scores(torch.zeros(1, 4, 2), torch.tensor([[30.0, -30.0]]))
    right = event_loss(scores, batch([[1, 0]], [4]), multi_label=True, smoothing=0.0)
    assert float(right) == pytest.approx(0, abs=1e-6)
    soft = event_loss(scores, batch([[1, 0]], [4]), multi_label=True, smoothing=0.2)
    assert float(soft) == pytest.approx(2 * 0.1 * 30, rel=1e-5)


def test_a_batch_without_labels() -> None:
    plain = batch([[1, 0]], [2])
    unlabelled = Batch(objects=plain.objects, object_mask=plain.object_mask, frame=plain.frame, mask=plain.mask)
    with pytest.raises(ValueError, match="the batch has no labels"):
        event_loss(Scores(torch.zeros(1, 4, 2), torch.zeros(1, 2)), unlabelled, multi_label=False, smoothing=0.0)


def test_log_loss() -> None:
    scores, labels = np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([[1, 0], [0, 1]])
    assert log_loss(scores, labels, False) == pytest.approx(-(np.log(0.5) + np.log(0.75)) / 2)
    assert log_loss(scores, labels, True) == pytest.approx(-(2 * np.log(0.5) + 2 * np.log(0.75)) / 2)
    assert np.isfinite(log_loss(1 - labels.astype(float), labels, False))


MULTI = Task(labels=("a", "b"), background=False, multi_label=True)


def test_thresholds_are_where_f1_is_best() -> None:
    true = np.repeat([1, 0], 10)
    scores = np.column_stack([np.where(true, 0.35, 0.25), np.where(true, 0.9, 0.1)])
    decode = fit_decoding(scores, np.column_stack([true, true]), MULTI, 4.0)
    assert 0.25 < decode.high[0] <= 0.35
    assert decode.high[1] == 0.5
    assert all(low < high for low, high in zip(decode.low, decode.high, strict=True))
    assert (decode.min_s, decode.merge_s, decode.exclusive) == (1.0, 1.0, False)


def test_thresholds_of_few_clips_are_the_usual_ones() -> None:
    scores, labels = np.full((6, 2), 0.3), np.eye(2)[[0, 0, 1, 1, 1, 1]]
    assert fit_decoding(scores, labels, MULTI, 4.0).high == (0.5, 0.5)


def test_where_something_always_happens_the_best_label_is_taken() -> None:
    task = Task(labels=("a", "b"), background=False, multi_label=False)
    decode = fit_decoding(np.full((20, 2), 0.5), np.eye(2)[[0, 1] * 10], task, 4.0)
    assert decode.high == decode.low == (0.0, 0.0)
    assert decode.exclusive
