"""Examples that were held out from training, scored after every epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from vidgru.datasets.windows import Batch, collate, epoch_batches, slice_window
from vidgru.errors import VidgruError
from vidgru.model.captioner import CaptionSegment, caption_log_likelihoods, caption_segments
from vidgru.model.checkpoint import EventModel
from vidgru.model.grounding import has_slots
from vidgru.model.scoring import FRAMES_PER_PASS, EncodedRecording, encode_features, score_clips, score_frames
from vidgru.model.tokenizer import Tokenizer
from vidgru.training.batches import sentence_words
from vidgru.training.data import LoadedFeatures
from vidgru.training.examples import CaptionedClip, Examples, LabelledClip
from vidgru.training.metrics.clips import classification_metrics, multilabel_metrics
from vidgru.training.metrics.ranking import RankedClips, calibration
from vidgru.training.thresholds import caption_understanding, fit_caption_threshold
from vidgru.types import Array, Features

_CAPTION_BATCH = 32  # sentences
_CAPTION_STEPS = 20_000  # per batch, padding included
_MAX_SEGMENTS = 100  # that the caption threshold is fitted on: every reference is scored in every segment


@dataclass(frozen=True, kw_only=True, eq=False)
class ValidationOutputs:
    """Scores of a model on the validation split.

    Attributes:
        clips: float32 [n, C], scores of the clips; None without a clip head or clips.
        frames: float32 [T, K] of each recording; empty without a frame head or recordings.
    """

    clips: Array | None
    frames: list[Array]


class Validation:
    """Examples that members of a model do not learn from, each scored by the member that does not.

    Short recordings are concatenated, so that few passes encode all of them. That is exact because frames are encoded
    independently of each other.

    Args:
        examples: Examples with a fold; others are left out.
        members: Number of members.
        loaded: Features of their recordings.
        tokenizer: Tokenizer of the descriptions; None leaves them out.

    Raises:
        VidgruError: The features of a recording are not finite.

    Attributes:
        examples: The examples, fold by fold.
    """

    def __init__(
        self, examples: Examples, members: int, loaded: LoadedFeatures, tokenizer: Tokenizer | None = None
    ) -> None:
        folds = [examples.of_fold(fold) for fold in range(members)]
        self.examples = Examples.joined(folds)
        captions = folds[0].captions if tokenizer else []  # the first member writes captions
        for video in dict.fromkeys(
            example.video for kind in (self.examples.clips, self.examples.recordings, captions) for example in kind
        ):
            features = loaded.features[video]
            if not (np.isfinite(features.objects).all() and np.isfinite(features.frame).all()):
                raise VidgruError(
                    f"the features of {video} have values that are not finite",
                    "vidgru info --verify FEATURES says whether the cache is corrupt",
                )
        self._labels: Array = np.array([clip.labels for clip in self.examples.clips])
        self._folds = [_FoldFeatures(fold, loaded) for fold in folds]
        self._captions = _CaptionValidation(captions, loaded, tokenizer) if captions and tokenizer else None

    def predict(self, model: EventModel) -> ValidationOutputs:
        """Score all clips and recordings with the network, without its linear path."""
        model = replace(model, linear=None)
        outputs = [fold.predict(model.member(member)) for member, fold in enumerate(self._folds) if fold]
        clips = [output.clips for output in outputs if output.clips is not None]
        return ValidationOutputs(
            clips=np.concatenate(clips) if clips else None,
            frames=[rows for output in outputs for rows in output.frames],
        )

    def metrics(self, model: EventModel, outputs: ValidationOutputs) -> dict[str, float]:
        """Compute the metrics that are followed from epoch to epoch.

        Returns:
            Of clips accuracy, map and macro_f1, as defined by `clip_metrics`; `frame_map`; of captions `next_word`,
            the share of words predicted correctly after the true ones before them; and `loss`, a mean over heads of
            the negative log likelihood, without the smoothing and weights of training.
        """
        metrics: dict[str, float] = {}
        losses = []
        if outputs.clips is not None and model.task.clip_head:
            of_clips = clip_metrics(model, outputs.clips, self.examples.clips)
            names = ("accuracy", "map", "macro_f1")
            metrics |= {name: of_clips[name] for name in names if of_clips.get(name) is not None}
            losses.append(log_loss(outputs.clips, self._labels, model.task.clip_head.multi_label))
        if outputs.frames and model.task.frame_head:
            scores = np.concatenate(outputs.frames)
            truth = np.concatenate([recording.targets for recording in self.examples.recordings])
            known = np.concatenate([recording.weights for recording in self.examples.recordings]) > 0
            scores, truth = scores[known], truth[known]
            ap = RankedClips(scores, truth > 0).average_precision(np.ones(len(scores)))[: len(model.labels)]
            present: Array = np.any(truth > 0, axis=0)[: len(model.labels)]
            if present.any():
                metrics["frame_map"] = float(ap[present].mean())
            losses.append(log_loss(scores, truth, model.task.frame_head.multi_label))
        if self._captions is not None:
            metrics["next_word"], loss = self._captions.metrics(model)
            losses.append(loss)
        return {**metrics, "loss": float(np.mean(losses)) if losses else 0.0}

    def caption_threshold(self, model: EventModel) -> float | None:
        """Fit the score from which on the model's captions are trusted; None without descriptions."""
        return None if self._captions is None else self._captions.threshold(model)


class _FoldFeatures:
    """Clips and recordings of a fold, and their features."""

    def __init__(self, examples: Examples, loaded: LoadedFeatures) -> None:
        self._examples = examples
        videos = dict.fromkeys(example.video for kind in (examples.clips, examples.recordings) for example in kind)
        parts = [loaded.features[video] for video in videos]
        self._edges = np.cumsum([len(part) for part in parts])[:-1].tolist()
        self._index = {video: index for index, video in enumerate(videos)}
        self._features = list(_concatenate_short(parts))

    def __bool__(self) -> bool:
        return bool(self._features)

    def predict(self, model: EventModel) -> ValidationOutputs:
        parts = encode_features(model, self._features).vectors.tensor_split(self._edges)
        no_time = np.zeros(0)
        encoded = [EncodedRecording(vectors=part, attention=no_time, time_s=no_time) for part in parts]
        clips = [encoded[self._index[clip.video]] for clip in self._examples.clips]
        recordings = [encoded[self._index[recording.video]] for recording in self._examples.recordings]
        return ValidationOutputs(
            clips=score_clips(model, clips) if clips else None,
            frames=score_frames(model, recordings) if recordings else [],
        )


class _CaptionValidation:
    """Clips and events of the validation split with descriptions."""

    def __init__(self, clips: Sequence[CaptionedClip], loaded: LoadedFeatures, tokenizer: Tokenizer) -> None:
        self._clips, self._loaded = clips, loaded
        self._sentences = [(c, sentence_words(tokenizer, text, c.label)) for c in clips for text in c.sentences]
        lengths = [len(clip) for clip, _ in self._sentences]
        self._batches = epoch_batches(lengths, _CAPTION_BATCH, seed=0, epoch=0, most_steps=_CAPTION_STEPS)

    @torch.inference_mode()
    def metrics(self, model: EventModel) -> tuple[float, float]:
        """Share of words predicted correctly after the true ones before them, and their mean loss."""
        correct = words = 0
        loss = 0.0
        for indices in self._batches:
            batch = self._batch(indices).to(model.network.device)
            assert batch.words is not None
            logits = model.network.caption_logits(batch.objects, batch.counts, batch.frame, batch.mask, batch.words)
            targets = batch.words[:, 1:]
            known = targets >= 0
            correct += int((logits.argmax(dim=2) == targets)[known].sum())
            words += int(known.sum())
            loss += float(F.cross_entropy(logits[known], targets[known], reduction="sum"))
        return correct / words, loss / words

    def _batch(self, indices: Array) -> Batch:
        windows = []
        for clip, words in (self._sentences[int(index)] for index in indices):
            windows.append(slice_window(self._loaded.features[clip.video], clip.first, len(clip), words=words))
        return collate(windows)

    def threshold(self, model: EventModel) -> float:
        """Fit the score from which on the model's captions are trusted."""
        number = min(len(self._clips), _MAX_SEGMENTS)
        clips = [self._clips[int(index)] for index in np.linspace(0, len(self._clips) - 1, number)]
        segments = [
            CaptionSegment(
                features=self._loaded.features[clip.video].frames(clip.first, clip.stop),
                label="" if clip.label is None else None,  # the true label is not given away
            )
            for clip in clips
        ]
        texts = [clip.sentences[0] for clip in clips]
        if all(has_slots(text) for text in texts):
            return 0.0  # their scores are probabilities
        scores = [caption.score for caption in caption_segments(model, segments)]
        understood = caption_understanding(
            caption_log_likelihoods(model, segments, texts), texts, [clip.label for clip in clips]
        )
        plain = [index for index, text in enumerate(texts) if not has_slots(text)]
        return fit_caption_threshold([scores[index] for index in plain], understood[plain])


def selection_metric(metrics: dict[str, float]) -> float:
    """The metric by which the best epoch is chosen: the mean over heads of the main metric of each, 0 without any."""
    names = ("map" if "map" in metrics else "accuracy", "frame_map", "next_word")
    values = [metrics[name] for name in names if name in metrics]
    return float(np.mean(values)) if values else 0.0


def clip_metrics(
    model: EventModel, scores: Array, clips: Sequence[LabelledClip], *, intervals: bool = False
) -> dict[str, Any]:
    """Compute metrics of clips labelled as a whole: `classification_metrics`, or `multilabel_metrics`.

    Args:
        model: The model. Multi-label clips are thresholded at its thresholds if those are of clips, else at 0.5.
        scores: float32 [n, C].
        clips: n clips.
        intervals: Whether to compute bootstrap intervals, over recordings.
    """
    head = model.task.clip_head
    assert head is not None
    truth = np.stack([clip.labels for clip in clips])
    videos = [clip.video for clip in clips] if intervals else None
    if head.multi_label:
        thresholds = np.array(model.decode.high) if model.task.frame_head is None else 0.5
        return multilabel_metrics(scores, truth, model.task.output_names(head), thresholds=thresholds, videos=videos)
    return classification_metrics(scores, truth.argmax(axis=1), model.task.output_names(head), videos=videos)


def clip_calibration(model: EventModel, scores: Array, clips: Sequence[LabelledClip]) -> dict[str, Any]:
    """Compare the scores of clips with how often they are right, as `calibration`: of predicted labels, or of all.

    Args:
        model: The model. Of a multi-label clip, the score of every label counts.
        scores: float32 [n, C].
        clips: n clips.
    """
    assert model.task.clip_head is not None
    truth = np.stack([clip.labels for clip in clips]) > 0
    if model.task.clip_head.multi_label:
        return calibration(scores.ravel(), truth.ravel())
    best = scores.argmax(axis=1)
    rows = np.arange(len(scores))
    return calibration(scores[rows, best], truth[rows, best])


def log_loss(scores: Array, labels: Array, multi_label: bool) -> float:
    """Negative log likelihood of labels, mean over rows.

    Args:
        scores: float32 [n, C], 0 to 1.
        labels: float32 [n, C], 0 or 1.
        multi_label: Whether labels are independent of each other.
    """
    scores = scores.clip(1e-7, 1 - 1e-7)
    terms = labels * np.log(scores)
    if multi_label:
        terms += (1 - labels) * np.log(1 - scores)
    return float(-terms.sum(axis=1).mean())


def _concatenate_short(parts: Sequence[Features]) -> Iterator[Features]:
    """The same frames in fewer parts: short ones are concatenated, long ones left as they are."""
    pending: list[Features] = []
    for part in parts:
        pending.append(part)
        if sum(map(len, pending)) >= FRAMES_PER_PASS:
            yield _concatenate(pending)
            pending = []
    if pending:
        yield _concatenate(pending)


def _concatenate(parts: Sequence[Features]) -> Features:
    if len(parts) == 1:
        return parts[0]
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    return Features(
        objects=np.concatenate([part.objects for part in parts]),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        frame=np.concatenate([part.frame for part in parts]),
        time_s=np.arange(len(counts), dtype=np.float64),
    )
