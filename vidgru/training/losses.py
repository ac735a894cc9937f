"""Training losses of the clip, frame and caption heads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vidgru.datasets.windows import Batch
from vidgru.model.checkpoint import EventTask
from vidgru.model.event_gru import EventLogits


def window_losses(
    scores: EventLogits, batch: Batch, task: EventTask, *, lookahead: int, class_weights: Tensor, smoothing: float
) -> Tensor:
    """Loss of each window of a batch for each member: of clips if it has labels, of frames if it has targets.

    Args:
        scores: Logits.
        batch: Batch with labels, or with targets and weights.
        task: Heads and labels.
        lookahead: Steps by which the scores of frames lag behind.
        class_weights: float32 [K], weight of each class of frames.
        smoothing: Share of each target that is spread over all labels (Szegedy et al. 2016).

    Returns:
        [members,B], finite where the scores are.

    Raises:
        ValueError: The batch has neither labels nor targets, or the network has no head for them.
    """
    if batch.labels is not None and scores.clips is not None and task.clip_head:
        return _clip_losses(scores.clips, batch.labels, task.clip_head.multi_label, smoothing)
    if batch.targets is not None and batch.weights is not None and scores.frames is not None and task.frame_head:
        # the step that reads frame t + lookahead scores frame t
        steps = max(batch.targets.shape[1] - lookahead, 0)
        return _frame_losses(
            scores.frames[:, :, lookahead:],
            batch.targets[:, :steps],
            batch.weights[:, :steps],
            class_weights,
            task.frame_head.multi_label,
            smoothing,
        )
    raise ValueError("the batch has no labels or targets for the heads of the network")


def _clip_losses(logits: Tensor, labels: Tensor, multi_label: bool, smoothing: float) -> Tensor:
    """Cross-entropy, or binary cross-entropy summed over labels, of logits [members,B,C]: [members,B].

    There is no loss per frame: a frame before the event could only predict the clip's label by recognising the
    recording (measured: it costs accuracy where order matters).
    """
    if multi_label:
        soft = labels * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, soft.expand_as(logits), reduction="none").sum(dim=2)
    spread = labels * (1 - smoothing) + smoothing / labels.shape[1]
    return -(logits.log_softmax(dim=2) * spread).sum(dim=2)


def _frame_losses(
    logits: Tensor, targets: Tensor, weights: Tensor, class_weights: Tensor, multi_label: bool, smoothing: float
) -> Tensor:
    """The same per frame, weighted by class and summed over the steps of a window: [members,B].

    Args:
        logits: [members,B,T,K].
        targets: [B,T,K].
        weights: [B,T], 0 where a frame does not count.
        class_weights: [K].
        multi_label: Whether labels are independent of each other.
        smoothing: As for `window_losses`.
    """
    if multi_label:
        soft = targets * (1 - smoothing) + smoothing / 2
        loss = F.binary_cross_entropy_with_logits(logits, soft.expand_as(logits), reduction="none")
        loss = (loss * torch.where(targets > 0, class_weights, 1.0)).sum(dim=3)
    else:
        spread = targets * (1 - smoothing) + smoothing / targets.shape[2]
        loss = -(logits.log_softmax(dim=3) * spread).sum(dim=3) * (targets * class_weights).sum(dim=2)
    return (loss * weights).sum(dim=2)


def caption_losses(logits: Tensor, words: Tensor, smoothing: float) -> Tensor:
    """Mean cross-entropy of the words of a sentence and of its end: [B].

    Args:
        logits: [B,W-1,vocabulary], of the word after each word but the last.
        words: int64 [B,W], -1 after the end of a sentence.
        smoothing: Share of each target that is spread over all words.
    """
    targets = words[:, 1:]
    loss = F.cross_entropy(
        logits.transpose(1, 2), targets, ignore_index=-1, label_smoothing=smoothing, reduction="none"
    )
    return loss.sum(dim=1) / (targets >= 0).sum(dim=1)
