"""What training makes small."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from vidgru.datasets.windows import Batch
from vidgru.model.event_gru import Scores


def event_loss(scores: Scores, batch: Batch, *, multi_label: bool, smoothing: float) -> Tensor:
    """Loss of clips whose labels speak of the clip as a whole.

    Cross-entropy, or binary cross-entropy of each label. Frames have no loss of their own: asking each of them for the
    clip's label teaches those before the event to recognise the recording (measured: it costs accuracy where order
    matters).

    Args:
        scores: logits; `clips` is [B,C].
        batch: with labels, 0 or 1; rows sum to 1 unless `multi_label`.
        multi_label: labels are independent of each other.
        smoothing: share of each target that is spread over all labels (Szegedy et al. 2016).

    Returns:
        A scalar, mean over clips.

    Raises:
        ValueError: the batch has no labels.
    """
    if batch.labels is None:
        raise ValueError("the batch has no labels")
    if multi_label:
        soft = batch.labels * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(scores.clips, soft, reduction="none").sum(dim=1).mean()
    return F.cross_entropy(scores.clips, batch.labels, label_smoothing=smoothing)
