"""Clips and recordings held back from training, scored again after every epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidgru.errors import VidgruError
from vidgru.model.checkpoint import EventModel
from vidgru.model.scoring import FRAMES_PER_PASS, encode_features, score_clips, score_frames
from vidgru.training.captions_data import DescribedValidation
from vidgru.training.data import LabelledClip, Loaded, TimedRecording
from vidgru.training.metrics.clips import classification_metrics, multilabel_metrics
from vidgru.training.metrics.ranking import RankedClips
from vidgru.types import Array, Features


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """What a model said of the validation split.

    Attributes:
        clips: float32 [n, C], scores of the clips; None without a head for clips.
        frames: float32 [T, K] of each recording; empty without a head for frames.
    """

    clips: Array | None
    frames: list[Array]


class Validation:
    """Clips and recordings; short ones are put one behind the other, so that all are encoded in few passes.

    That is sound because frames are encoded independently of each other.

    Args:
        loaded: features of their recordings.
        clips: clips labelled as a whole.
        recordings: recordings with timed events.
        described: described stretches; None where there are none. One of the three at least.

    Raises:
        VidgruError: features are not finite; names the recording.

    Attributes:
        clips, recordings: as given.
        labels: float32 [n, C], of the clips.
        times: float64 [T] of each recording.
    """

    def __init__(
        self,
        loaded: Loaded,
        clips: Sequence[LabelledClip],
        recordings: Sequence[TimedRecording],
        described: DescribedValidation | None = None,
    ) -> None:
        self.clips, self.recordings, self.described = clips, recordings, described
        self.labels: Array = np.array([clip.labels for clip in clips])
        self.times = [loaded.features[recording.video].time_s for recording in recordings]
        videos = dict.fromkeys([*(clip.video for clip in clips), *(recording.video for recording in recordings)])
        parts = [loaded.features[video] for video in videos]
        self._edges = np.cumsum([len(part) for part in parts])[:-1].tolist()
        self._place = {video: index for index, video in enumerate(videos)}
        for video in dict.fromkeys([*videos, *(described.videos if described else ())]):
            part = loaded.features[video]
            if not (np.isfinite(part.objects).all() and np.isfinite(part.frame).all()):
                raise VidgruError(
                    f"the features of {video} hold values that are not finite",
                    "vidgru info --verify on the features tells whether they are sound",
                )
        self._features = list(_joined(parts))

    def look(self, model: EventModel) -> Look:
        """Scores of everything."""
        vectors = encode_features(model, self._features).vectors.tensor_split(self._edges)
        clips = [vectors[self._place[clip.video]] for clip in self.clips]
        recordings = [vectors[self._place[recording.video]] for recording in self.recordings]
        return Look(
            clips=score_clips(model, clips) if clips else None,
            frames=score_frames(model, recordings) if recordings else [],
        )

    def figures(self, model: EventModel, look: Look) -> dict[str, float]:
        """What is followed from epoch to epoch: of clips as in `evaluate_clips`, `frame_map`, `next_word` (share of the
        words of sentences that are guessed right behind the true ones before them), and `loss`, a mean over heads.

        The loss is the negative log likelihood, without the smoothing and the weights that training uses.
        """
        figures: dict[str, float] = {}
        losses = []
        if look.clips is not None and model.task.clip_head:
            judged = evaluate_clips(model, look.clips, self.clips)
            figures |= {name: judged[name] for name in ("accuracy", "map", "macro_f1") if judged.get(name) is not None}
            losses.append(log_loss(look.clips, self.labels, model.task.clip_head.multi_label))
        if look.frames and model.task.frame_head:
            scores = np.concatenate(look.frames)
            truth = np.concatenate([recording.targets for recording in self.recordings])
            known = np.concatenate([recording.weights for recording in self.recordings]) > 0
            some = scores[known]
            own: Array = truth[known] > 0
            ap = RankedClips(some, own).average_precision(np.ones(len(some)))[: len(model.labels)]
            there: Array = np.any(own, axis=0)[: len(model.labels)]
            if there.any():
                figures["frame_map"] = float(ap[there].mean())
            losses.append(log_loss(some, truth[known], model.task.frame_head.multi_label))
        if self.described is not None:
            figures["next_word"], loss = self.described.figures(model)
            losses.append(loss)
        return {**figures, "loss": float(np.mean(losses))}


def _joined(parts: Sequence[Features]) -> Iterator[Features]:
    """The same frames in fewer stretches: short ones are put together, long ones left where they are."""
    waiting: list[Features] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= FRAMES_PER_PASS:
            yield _concatenated(waiting)
            waiting = []
    if waiting:
        yield _concatenated(waiting)


def _concatenated(parts: Sequence[Features]) -> Features:
    if len(parts) == 1:
        return parts[0]
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    return Features(
        objects=np.concatenate([part.objects for part in parts]),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        frame=np.concatenate([part.frame for part in parts]),
        time_s=np.arange(len(counts), dtype=np.float64),
    )


def selection_metric(figures: dict[str, float]) -> float:
    """What epochs are chosen by: the mean of the heads' chief figures, 0 where nothing happens in validation."""
    names = ("map" if "map" in figures else "accuracy", "frame_map", "next_word")
    chief = [figures[name] for name in names if name in figures]
    return float(np.mean(chief)) if chief else 0.0


def evaluate_clips(
    model: EventModel, scores: Array, placed: Sequence[LabelledClip], *, intervals: bool = False
) -> dict[str, Any]:
    """Metrics of clips labelled as a whole.

    Args:
        model: its task; labels of multi-label clips are called at its thresholds where these are of clips, else at 0.5.
        scores: float32 [n, C].
        placed: n clips.
        intervals: whether to compute bootstrap intervals, over recordings.
    """
    head = model.task.clip_head
    assert head is not None
    truth = np.stack([clip.labels for clip in placed])
    videos = [clip.video for clip in placed] if intervals else None
    if head.multi_label:
        thresholds = np.array(model.decode.high) if model.task.frame_head is None else 0.5
        return multilabel_metrics(scores, truth, model.task.output_names(head), thresholds=thresholds, videos=videos)
    return classification_metrics(scores, truth.argmax(axis=1), model.task.output_names(head), videos=videos)


def log_loss(scores: Array, labels: Array, multi_label: bool) -> float:
    """Negative log likelihood of labels, mean over rows.

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
