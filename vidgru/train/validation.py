"""Clips held back from training, scored again after every epoch."""

from __future__ import annotations

from collections.abc import Sequence as Many

import numpy as np

from vidgru.model.checkpoint import EventModel
from vidgru.model.stream import encode, score_clips
from vidgru.train.data import LabelledClip, Loaded
from vidgru.types import Array, Features


class Validation:
    """Clips with their features put one behind the other, so that all are encoded in few passes.

    That is sound because frames are encoded independently of each other.

    Args:
        loaded: features of their recordings.
        clips: n, at least one.

    Attributes:
        clips: as given.
        labels: float32 [n, C].
    """

    def __init__(self, loaded: Loaded, clips: Many[LabelledClip]) -> None:
        self.clips = clips
        self.labels: Array = np.stack([clip.labels for clip in clips])
        objects, frames, counts = [], [], []
        for clip in clips:
            features = loaded.features[clip.video]
            objects.append(features.objects[features.offsets[clip.first] : features.offsets[clip.stop]])
            frames.append(features.frame[clip.first : clip.stop])
            counts.append(np.diff(features.offsets[clip.first : clip.stop + 1]))
        self._edges = np.cumsum([len(clip) for clip in clips])[:-1].tolist()
        self._features = Features(
            objects=np.concatenate(objects),
            offsets=np.concatenate([[0], np.cumsum(np.concatenate(counts))]),
            frame=np.concatenate(frames),
            time_s=np.arange(sum(map(len, clips)), dtype=np.float64),
        )

    def scores(self, model: EventModel) -> Array:
        """Scores of the clips, float32 [n, C]."""
        return score_clips(model, encode(model, [self._features]).vectors.tensor_split(self._edges))


def log_loss(scores: Array, labels: Array, multi_label: bool) -> float:
    """Negative log likelihood of labels, mean over clips, without the smoothing that training uses.

    Args:
        scores: float32 [n, C], 0 to 1.
        labels: float32 [n, C], 0 or 1.
        multi_label: labels are independent of each other.
    """
    scores = scores.clip(1e-7, 1 - 1e-7)
    each = labels * np.log(scores)
    if multi_label:
        each += (1 - labels) * np.log(1 - scores)
    return float(-each.sum(axis=1).mean())
