"""What a description has to beat: the sentence of the nearest training stretch, and the usual one of a label.

A stretch is what a person described: a clip as a whole, or an event in a recording.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vidgru.datasets.dataset import Dataset, DescribedSegment, described_segments
from vidgru.model.captioner import caption_frames
from vidgru.model.checkpoint import EventModel
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.scoring import EncodedRecording, score_clips, score_frames
from vidgru.types import Annotation, Array, Event, Features


def described(dataset: Dataset, split: str) -> list[DescribedSegment]:
    """The described stretches of a split, in the order of the file.

    A stretch whose rows give no label has that of the timed event which takes most of it, if there is one.
    """
    found = []
    for stretch in described_segments(dataset, split):
        if stretch.label is None:
            rows = (note for note in dataset.annotations if note.video == stretch.video and note.start_s is not None)
            others = [note for note in rows if note.label in dataset.labels and _common_s(note, stretch) > 0]
            if others:
                longest = max(others, key=lambda note: _common_s(note, stretch))
                stretch = replace(stretch, label=dataset.labels.index(str(longest.label)))
        found.append(stretch)
    return found


def _common_s(note: Annotation, stretch: DescribedSegment) -> float:
    assert note.start_s is not None
    assert note.end_s is not None
    if stretch.start_s is None or stretch.end_s is None:
        return note.end_s - note.start_s
    return min(note.end_s, stretch.end_s) - max(note.start_s, stretch.start_s)


def frames_of(stretch: DescribedSegment, time_s: Array) -> slice:
    """The frames of a stretch that the model reads, of a recording with frames at these times."""
    start_s, end_s = span_of(stretch)
    return slice(*caption_frames(time_s, start_s, end_s))


def span_of(stretch: DescribedSegment) -> tuple[float, float]:
    """Its start and end in seconds; those of a recording as a whole are 0 and infinity."""
    if stretch.start_s is None or stretch.end_s is None:
        return 0.0, np.inf
    return stretch.start_s, stretch.end_s


def match(
    found: Sequence[Event], truth: Sequence[DescribedSegment], least: float = 0.5
) -> list[tuple[Event, DescribedSegment]]:
    """Pairs of found and true events of one recording, whatever their labels: the largest overlap first, each once.

    Args:
        found: events.
        truth: stretches with times.
        least: intersection over union of the intervals.
    """
    options = sorted(
        (-overlap, i, j)
        for i, event in enumerate(found)
        for j, true in enumerate(truth)
        if event.video == true.video and (overlap := _overlap(event, true)) >= least
    )
    pairs: dict[int, int] = {}
    for _, i, j in options:
        if i not in pairs and j not in pairs.values():
            pairs[i] = j
    return [(found[i], truth[j]) for i, j in sorted(pairs.items())]


def _overlap(event: Event, true: DescribedSegment) -> float:
    assert true.start_s is not None
    assert true.end_s is not None
    common = min(event.end_s, true.end_s) - max(event.start_s, true.start_s)
    return max(common, 0.0) / (max(event.end_s, true.end_s) - min(event.start_s, true.start_s))


# --- the nearest training stretch -------------------------------------------------------------------------------------


def mean_features(features: Features, frames: slice, feature_spec: FeatureSpec) -> Array:
    """Mean of what the model is given of a stretch: of all its objects, and of its frames; float64 [D].

    The class of an object counts as one column a class.
    """
    rows = features.objects[features.offsets[frames.start] : features.offsets[frames.stop]].astype(np.float64)
    of_class = feature_spec.object_groups()["class"].start
    classes = np.bincount(rows[:, of_class].astype(np.int64), minlength=feature_spec.classes) / (
        frames.stop - frames.start
    )
    objects = np.delete(rows, of_class, axis=1)
    objects = objects.mean(axis=0) if len(rows) else np.zeros(objects.shape[1])
    return np.concatenate([objects, classes, features.frame[frames].astype(np.float64).mean(axis=0)])


@torch.inference_mode()
def mean_state(model: EventModel, vectors: Tensor) -> Array:
    """Mean state of the recurrent layer over a stretch, read from an empty state; float64 [hidden].

    Args:
        model: in eval mode.
        vectors: float32 [L, width], the stretch of `Encoded.vectors`, L at least 1.
    """
    hidden, _ = model.network.run_rnn(vectors[None], vectors.new_ones(1, len(vectors), dtype=torch.bool))
    mean: Array = hidden[0].double().mean(dim=0).cpu().numpy()
    return mean


def nearest(train: Array, test: Array) -> Array:
    """Index of the nearest training vector of each test vector, by cosine; int64 [n].

    Args:
        train: float64 [N, D]; its means and deviations standardise both.
        test: float64 [n, D].
    """
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    known, new = ((some - mean) / np.where(deviation > 0, deviation, 1.0) for some in (train, test))
    lengths = np.maximum(np.linalg.norm(known, axis=1), 1e-12)  # that of the test vectors orders nothing
    found: Array = (new @ known.T / lengths).argmax(axis=1)
    return found


# --- the usual sentence of a label ------------------------------------------------------------------------------------


def usual(train: Sequence[DescribedSegment], labels: Sequence[str]) -> dict[str | None, str]:
    """The most frequent training sentence of each label, and under None that of all; of equals the first.

    Args:
        train: stretches; a label is an index into `labels`.
        labels: names.
    """
    found = {}
    for label in (None, *dict.fromkeys(stretch.label for stretch in train if stretch.label is not None)):
        some = (stretch.sentences for stretch in train if label in (None, stretch.label))
        usual_one = Counter(sentence for sentences in some for sentence in sentences).most_common(1)[0][0]
        found[None if label is None else labels[label]] = usual_one
    return found


def predicted_labels(
    model: EventModel, encoded: Mapping[str, EncodedRecording], given: Sequence[DescribedSegment]
) -> list[str]:
    """The label that the model gives each stretch.

    By the head for clips where it is a whole recording, or where the model has no other; by the mean of its frames'
    scores else. That nothing happens is no answer: these stretches were described. A model without these heads has one
    label for all.
    """
    if not (model.task.clip_head or model.task.frame_head):
        return [model.labels[0]] * len(given)
    names = len(model.labels)
    spans = [frames_of(some, encoded[some.video].time_s) for some in given]
    by_clip = None
    if model.task.clip_head:
        by_clip = score_clips(model, [encoded[s.video].vectors[span] for s, span in zip(given, spans, strict=True)])
    by_frame: dict[str, Array] = {}
    if model.task.frame_head:
        videos = list(dict.fromkeys(some.video for some in given))
        by_frame = dict(zip(videos, score_frames(model, [encoded[video].vectors for video in videos]), strict=True))
    best = [
        by_clip[number]
        if by_clip is not None and (some.start_s is None or not by_frame)
        else by_frame[some.video][span].mean(axis=0)
        for number, (some, span) in enumerate(zip(given, spans, strict=True))
    ]
    return [model.labels[int(scores[:names].argmax())] for scores in best]
