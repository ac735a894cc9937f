import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vidgru.datasets.windows import Batch
from vidgru.model.checkpoint import EventTask, HeadSpec
from vidgru.model.event_gru import EventLogits
from vidgru.training.losses import caption_losses, window_losses
from vidgru.training.validation import log_loss

SOFTMAX, SIGMOID = HeadSpec(background=True, multi_label=False), HeadSpec(background=False, multi_label=True)
LABELS = ("fall", "walk")


def batch(*, labels: object = None, targets: object = None, weights: object = None, steps: int = 4) -> Batch:
    size = len(labels if labels is not None else targets)
    return Batch(
        objects=torch.zeros(0, 1),
        counts=torch.zeros(size, steps, dtype=torch.int64),
        frame=torch.zeros(size, steps, 1),
        mask=torch.ones(size, steps, dtype=torch.bool),
        labels=None if labels is None else torch.tensor(labels, dtype=torch.float32),
        targets=None if targets is None else torch.as_tensor(targets, dtype=torch.float32),
        weights=None if weights is None else torch.as_tensor(weights, dtype=torch.float32),
    )


def losses(
    scores: EventLogits,
    given: Batch,
    head: HeadSpec,
    *,
    lookahead: int = 0,
    classes: object = None,
    smoothing: float = 0.0,
):
    """Losses of a network of one member, from its logits."""
    task = EventTask(labels=LABELS, clip_head=head, frame_head=head)
    classes = torch.ones(task.num_outputs(head)) if classes is None else torch.tensor(classes)
    stacked = EventLogits(*(None if logits is None else logits[None] for logits in scores))
    return window_losses(stacked, given, task, lookahead=lookahead, class_weights=classes, smoothing=smoothing)[0]


@pytest.mark.parametrize("head", [SOFTMAX, SIGMOID])
def test_window_losses_per_member(head: HeadSpec) -> None:
    outputs = 3 if head.background else 2
    labels = F.one_hot(torch.arange(4) % outputs, outputs).tolist()
    clips, frames = torch.randn(3, 4, outputs), torch.randn(3, 1, 4, outputs)
    task = EventTask(labels=LABELS, clip_head=head, frame_head=head)
    options = {"lookahead": 1, "class_weights": torch.rand(outputs), "smoothing": 0.1}
    for given in (batch(labels=labels), batch(targets=[labels], weights=torch.rand(1, 4))):
        together = window_losses(EventLogits(clips, frames), given, task, **options)
        assert together.shape == (3, len(given))
        for member, row in enumerate(together):
            single = slice(member, member + 1)
            alone = window_losses(EventLogits(clips[single], frames[single]), given, task, **options)
            torch.testing.assert_close(row, alone[0])


# --- clips ----------------------------------------------------------------------------------------------------------


def test_clip_loss_is_cross_entropy() -> None:
    scores = EventLogits(torch.randn(2, 3), None)
    each = losses(scores, batch(labels=[[1, 0, 0], [0, 0, 1]]), SOFTMAX, smoothing=0.1)
    truth = torch.tensor([0, 2])
    torch.testing.assert_close(each, F.cross_entropy(scores.clips, truth, label_smoothing=0.1, reduction="none"))


def test_clip_loss_multi_label() -> None:
    scores = EventLogits(torch.tensor([[30.0, -30.0]]), None)
    assert float(losses(scores, batch(labels=[[1, 0]]), SIGMOID)) == pytest.approx(0, abs=1e-6)
    soft = losses(scores, batch(labels=[[1, 0]]), SIGMOID, smoothing=0.2)
    assert float(soft) == pytest.approx(2 * 0.1 * 30, rel=1e-5)


# --- frames ---------------------------------------------------------------------------------------------------------


def test_frame_loss_by_hand() -> None:
    logits = torch.tensor([[[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]]])
    given = batch(targets=[[[1, 0, 0], [0, 0, 1]]], weights=[[0.5, 2.0]], steps=2)
    p = torch.softmax(logits, dim=2)[0]
    plain = -0.5 * p[0, 0].log() - 2 * p[1, 2].log()
    assert float(losses(EventLogits(None, logits), given, SOFTMAX)) == pytest.approx(float(plain), rel=1e-5)
    heavy = -0.5 * 3 * p[0, 0].log() - 2 * 0.25 * p[1, 2].log()
    weighted = losses(EventLogits(None, logits), given, SOFTMAX, classes=[3.0, 1.0, 0.25])
    assert float(weighted) == pytest.approx(float(heavy), rel=1e-5)
    spread = 0.9 + 0.1 / 3, 0.1 / 3
    first = -(spread[0] * p[0, 0].log() + spread[1] * (p[0, 1].log() + p[0, 2].log()))
    second = -(spread[0] * p[1, 2].log() + spread[1] * (p[1, 0].log() + p[1, 1].log()))
    soft = losses(EventLogits(None, logits), given, SOFTMAX, smoothing=0.1)
    assert float(soft) == pytest.approx(float(0.5 * first + 2 * second), rel=1e-5)


def test_frame_loss_multi_label_by_hand() -> None:
    logits = torch.tensor([[[2.0, -1.0]]])
    given = batch(targets=[[[1, 0]]], weights=[[0.5]], steps=1)
    on, off = -torch.sigmoid(torch.tensor(2.0)).log(), -torch.sigmoid(torch.tensor(1.0)).log()
    assert float(losses(EventLogits(None, logits), given, SIGMOID)) == pytest.approx(float(0.5 * (on + off)), rel=1e-5)
    # a label's weight is of where it holds, not of where it does not
    weighted = losses(EventLogits(None, logits), given, SIGMOID, classes=[3.0, 7.0])
    assert float(weighted) == pytest.approx(float(0.5 * (3 * on + off)), rel=1e-5)


@pytest.mark.parametrize("head", [SOFTMAX, SIGMOID])
@pytest.mark.parametrize("lookahead", [0, 1, 2])
def test_frames_without_weight_have_no_gradient(head: HeadSpec, lookahead: int) -> None:
    outputs = 3 if head.background else 2
    targets = F.one_hot(torch.arange(6) % outputs, outputs)[None].repeat(2, 1, 1)
    weights = torch.tensor([[0, 0, 1, 1, 0, 1], [1, 1, 1, 1, 0, 0]], dtype=torch.float32)
    logits = torch.randn(2, 6, outputs, requires_grad=True)
    losses(
        EventLogits(None, logits), batch(targets=targets, weights=weights, steps=6), head, lookahead=lookahead
    ).sum().backward()
    # step t is asked for frame t - lag; of the last frames of the batch nothing is asked
    asked = torch.cat([torch.zeros(2, lookahead), weights[:, : 6 - lookahead]], dim=1)
    assert torch.equal(logits.grad.abs().sum(dim=2) > 0, asked > 0)


@pytest.mark.parametrize("lookahead", [0, 1, 3])
def test_frame_loss_with_lookahead(lookahead: int) -> None:
    truth = F.one_hot(torch.randint(0, 3, (1, 12), generator=torch.Generator().manual_seed(0)), 3).float()
    late = torch.cat([torch.zeros(1, lookahead, 3), truth[:, : 12 - lookahead]], dim=1) * 60
    given = batch(targets=truth, weights=torch.ones(1, 12), steps=12)
    assert float(losses(EventLogits(None, late), given, SOFTMAX, lookahead=lookahead)) == pytest.approx(0, abs=1e-6)
    assert float(losses(EventLogits(None, late), given, SOFTMAX, lookahead=lookahead + 1)) > 1


def test_frame_loss_ignores_padding() -> None:
    targets, weights = torch.zeros(1, 5, 2), torch.tensor([[0.2, 0.2, 0.2, 0, 0]])  # as of a lag of two
    logits = torch.randn(1, 5, 2)
    alone = losses(EventLogits(None, logits), batch(targets=targets, weights=weights, steps=5), SIGMOID, lookahead=2)
    wide = batch(targets=F.pad(targets, (0, 0, 0, 9)), weights=F.pad(weights, (0, 9)), steps=14)
    padded = losses(EventLogits(None, F.pad(logits, (0, 0, 0, 9), value=5.0)), wide, SIGMOID, lookahead=2)
    torch.testing.assert_close(alone, padded)


def test_batch_without_targets_is_refused() -> None:
    scores = EventLogits(torch.zeros(1, 3), torch.zeros(1, 4, 3))
    with pytest.raises(ValueError, match="the batch has no labels or targets for the heads of the network"):
        losses(scores, batch(targets=[[[0, 0, 0]] * 4]), SOFTMAX)
    with pytest.raises(ValueError, match="the batch has no labels or targets for the heads of the network"):
        losses(EventLogits(None, scores.frames), batch(labels=[[1, 0, 0]]), SOFTMAX)


def test_log_loss() -> None:
    scores, labels = np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([[1, 0], [0, 1]])
    assert log_loss(scores, labels, False) == pytest.approx(-(np.log(0.5) + np.log(0.75)) / 2)
    assert log_loss(scores, labels, True) == pytest.approx(-(2 * np.log(0.5) + 2 * np.log(0.75)) / 2)
    assert np.isfinite(log_loss(1 - labels.astype(float), labels, False))


# --- sentences ------------------------------------------------------------------------------------------------------


def test_caption_loss_by_hand() -> None:
    logits = torch.tensor([[[2.0, 0.0, -1.0], [0.0, 1.0, 0.0], [9.0, -9.0, 5.0]], [[0.0, 0.0, 3.0]] * 3])
    words = torch.tensor([[4, 0, 1, -1], [5, 2, 2, 1]])  # what comes in first is not asked for, nor what is padded
    p = logits.log_softmax(dim=2)
    expected = [-(p[0, 0, 0] + p[0, 1, 1]) / 2, -(p[1, 0, 2] + p[1, 1, 2] + p[1, 2, 1]) / 3]
    torch.testing.assert_close(caption_losses(logits, words, 0.0), torch.stack(expected))
    soft = [
        0.7 * expected[0] - 0.3 * p[0, :2].mean(dim=1).mean(),
        0.7 * expected[1] - 0.3 * p[1].mean(dim=1).mean(),
    ]
    torch.testing.assert_close(caption_losses(logits, words, 0.3), torch.stack(soft))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_caption_loss_ignores_padding(smoothing: float) -> None:
    logits = torch.randn(2, 5, 7, requires_grad=True)
    words = torch.tensor([[0, 3, 4, 1, -1, -1], [0, 3, 4, 5, 6, 1]])
    together = caption_losses(logits, words, smoothing)
    alone = caption_losses(logits[:1, :3], words[:1, :4], smoothing)
    torch.testing.assert_close(together[0], alone[0])
    together.sum().backward()
    assert logits.grad is not None
    assert (logits.grad[0, 3:] == 0).all()
    assert (logits.grad[0, :3] != 0).all()
