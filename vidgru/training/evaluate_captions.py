"""Evaluate captions: of the annotated segments, and of the events that the model predicts itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from vidgru.datasets.dataset import Dataset, DescribedSegment, described_segments
from vidgru.model.captioner import (
    Caption,
    CaptionSegment,
    caption_events_from_features,
    caption_frames,
    caption_segments,
)
from vidgru.model.checkpoint import EventModel
from vidgru.model.grounding import split_words
from vidgru.training.metrics.captions import (
    ObjectWords,
    caption_metrics,
    cider_d_each,
    detected_near,
    hallucination_metrics,
)
from vidgru.training.metrics.dense_captions import dense_metrics
from vidgru.types import Annotation, Array, Event, Features

_MAX_EXAMPLES = 5  # worst captions in the table
_HEADLINES = ("cider_d", "cider", "bleu_4", "rouge_l", "chrf")


def evaluate_captions(
    model: EventModel,
    dataset: Dataset,
    split: str,
    read: Callable[[str], Features],
    predicted: Sequence[Event],
    searched: Collection[str],
    *,
    beam: int,
) -> dict[str, Any]:
    """Compute the metrics of a model's captions.

    The model captions every annotated segment with a description, knowing only where it is; all captions count, even
    those that prediction would replace by a template. If events have times, the events that the model predicts are
    captioned as in prediction and evaluated as dense captions.

    Args:
        model: Model that writes captions.
        dataset: Annotations.
        split: Name of the split.
        read: Returns the features of a whole recording.
        predicted: Events that the model predicted in recordings with timed events.
        searched: Those recordings; dense captions are evaluated on no others.
        beam: Beam width for writing captions.

    Returns:
        segments (number of segments with a description), templates (share of captions below the model's threshold),
        `coverage` as returned by `_coverage`, the metrics of `caption_metrics`, `hallucination` as returned by
        `hallucination_metrics`, `dense` as returned by `dense_metrics` (None without timed descriptions), and
        `sentences`: video, start, end, description, score, cider_d and references of each segment, the worst first.
        Empty if the split has no descriptions.
    """
    annotated = described_segments(dataset, split)
    segments: list[DescribedSegment] = []
    captions: list[Caption] = []
    detected: list[set[str]] = []
    dense: list[Event] = []
    for video in dict.fromkeys(segment.video for segment in annotated):
        features = read(video)
        here = [segment for segment in annotated if segment.video == video and _is_decoded(segment, features)]
        segments += here
        # the model may know that a segment has a label, but not which
        inputs = [
            CaptionSegment(
                features=features.frames(*caption_frames(features.time_s, *_span_s(segment))),
                label="" if segment.label is None else None,
            )
            for segment in here
        ]
        captions += caption_segments(model, inputs, beam=beam)
        detected += [detected_near(features, model.feature_spec, model.names, *_span_s(segment)) for segment in here]
        events = [event for event in predicted if event.video == video]
        dense += caption_events_from_features(model, features, events, beam=beam)
    if not segments:
        return {}
    references = [segment.sentences for segment in segments]
    texts = [caption.text for caption in captions]
    each = cider_d_each(texts, references)
    wrong = [_is_wrong(caption, segment, dataset) for caption, segment in zip(captions, segments, strict=True)]
    truth = [
        Annotation(video=segment.video, start_s=segment.start_s, end_s=segment.end_s, description=sentence)
        for segment in segments
        if segment.start_s is not None and segment.video in searched
        for sentence in segment.sentences
    ]
    return {
        "segments": len(segments),
        "templates": float(np.mean([not caption.is_confident for caption in captions])),
        "coverage": _coverage(captions, each, wrong),
        **caption_metrics(texts, references),
        "hallucination": hallucination_metrics(texts, detected, ObjectWords(model.names)),
        "dense": dense_metrics(truth, dense) if truth and model.task.frame_head else None,
        "sentences": [
            {
                "video": segments[i].video,
                "start": segments[i].start_s,
                "end": segments[i].end_s,
                "description": captions[i].text,
                "score": round(captions[i].score, 6),
                "cider_d": round(float(each[i]), 6),
                "references": list(segments[i].sentences),
            }
            for i in np.argsort(each, kind="stable")
        ],
    }


def _is_wrong(caption: Caption, segment: DescribedSegment, dataset: Dataset) -> bool:
    """Whether a caption was written for another label, or if no reference has all its measured words."""
    if segment.label is not None and caption.label not in (None, dataset.labels[segment.label]):
        return True
    spoken = [{match.group().casefold() for match in split_words(sentence)} for sentence in segment.sentences]
    return not any(words.issuperset(caption.measured or ()) for words in spoken)


def _coverage(captions: Sequence[Caption], cider_d: Array, wrong: Sequence[bool]) -> dict[str, Any]:
    """Return what is shown from each threshold on: captions in the order of score above their own threshold.

    Returns:
        shown (share of captions), cider_d (mean of those shown), wrong (share of those shown), one value for each of at
        most 100 shares; `chosen`, the same at the model's threshold.
    """
    # Equal scores are shown together, and rounding keeps the order of machines equal.
    margin = np.array([round(caption.score, 6) - caption.threshold for caption in captions])
    order = np.argsort(-margin, kind="stable")
    counts = np.flatnonzero(np.diff(margin[order], append=-np.inf)) + 1
    counts = counts[np.unique(np.linspace(0, len(counts) - 1, 100).round().astype(np.int64))]
    total = np.arange(1, len(captions) + 1)
    mean_cider_d = np.cumsum(cider_d[order]) / total
    mean_wrong = np.cumsum(np.array(wrong)[order]) / total
    shown = int(sum(caption.is_confident for caption in captions))

    def point(number: int) -> list[float]:
        return [round(float(v), 6) for v in (number / len(captions), mean_cider_d[number - 1], mean_wrong[number - 1])]

    columns = zip(*map(point, counts.tolist()), strict=True)
    names = ("shown", "cider_d", "wrong")
    return {
        **{name: list(column) for name, column in zip(names, columns, strict=True)},
        "chosen": dict(zip(names, point(shown), strict=True)) if shown else None,
    }


def captions_table(metrics: Mapping[str, Any]) -> list[str]:
    """Metrics from `evaluate_captions` as lines of text: the headlines, then the worst captions."""
    lines = [f"{metrics['segments']} captions, {metrics['templates']:.0%} of them below the confidence threshold"]
    lines += [f"{name} {metrics[name]:.3f}" for name in _HEADLINES]
    if chosen := metrics["coverage"]["chosen"]:
        lines.append(f"{chosen['wrong']:.0%} of the shown ones name another event or another measured word")
    chair = metrics["hallucination"]
    if chair["chair_s"] is not None:
        lines.append(
            f"chair_s {chair['chair_s']:.3f}  "
            f"({chair['unseen_words']} of {chair['object_words']} object words name an undetected class)"
        )
    else:
        lines.append("chair_s -  (no caption names a class of the detector)")
    if dense := metrics["dense"]:
        lines.append(f"{dense['found']} predicted events with captions, {dense['events']} true ones")
        lines += [f"dense {name} {dense[name]:.3f}" for name in ("cider_d", "bleu_4", "rouge_l", "soda_f1")]
    lines.append("worst captions:")
    for row in metrics["sentences"][:_MAX_EXAMPLES]:
        place = row["video"] if row["start"] is None else f"{row['video']}, {row['start']:.1f}-{row['end']:.1f} s"
        lines.append(f"  {place}: {row['description']}  ({row['score']:.2f})")
        lines += [f"    {'or' if number else 'is'} {text}" for number, text in enumerate(row["references"])]
    return lines


def _is_decoded(segment: DescribedSegment, features: Features) -> bool:
    """Whether a segment could be decoded: the end of a truncated file is missing."""
    return bool(len(features)) and (segment.start_s is None or segment.start_s <= features.time_s[-1])


def _span_s(segment: DescribedSegment) -> tuple[float, float]:
    if segment.start_s is None or segment.end_s is None:
        return 0.0, np.inf
    return segment.start_s, segment.end_s
