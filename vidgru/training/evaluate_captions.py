"""Judging the sentences of a model: of described stretches as they are, and of the events that it finds itself."""

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
    is_confident,
)
from vidgru.model.checkpoint import EventModel
from vidgru.training.metrics.captions import (
    ObjectWords,
    caption_metrics,
    cider_d_each,
    detected_near,
    hallucination_metrics,
)
from vidgru.training.metrics.dense_captions import dense_metrics
from vidgru.types import Annotation, Event, Features

_SHOWN = 5  # worst sentences in the table
_HEADLINES = ("cider_d", "cider", "bleu_4", "rouge_l", "chrf")


def evaluate_captions(
    model: EventModel,
    dataset: Dataset,
    split: str,
    read: Callable[[str], Features],
    found: Sequence[Event],
    searched: Collection[str],
    *,
    beam: int,
) -> dict[str, Any]:
    """Metrics of the sentences that a model writes.

    Every stretch that is described in the annotations is described by the model, which is told where it is and nothing
    else; all its sentences are judged, also those that prediction would not tell. Where events have times, those that
    the model finds are described as prediction does it, and judged as dense descriptions.

    Args:
        model: that writes descriptions.
        dataset: annotations.
        split: its name.
        read: gives the features of a recording, whole.
        found: events that the model found in the recordings with timed events.
        searched: those recordings; the sentences of others are not judged as dense descriptions.
        beam: sentences that are followed at once.

    Returns:
        stretches (described ones), templates (share of sentences below the model's threshold), the metrics of
        `caption_metrics`, `hallucination` as of `hallucination_metrics`, `dense` as of `dense_metrics` (None without
        timed descriptions), and `sentences`: of each stretch video, start, end, description, score, cider_d and
        references, the worst first. Empty where the split has no descriptions.
    """
    assert model.caption is not None
    stretches = described_segments(dataset, split)
    told: list[Caption] = []
    seen: list[set[str]] = []
    dense: list[Event] = []
    placed: list[DescribedSegment] = []
    for video in dict.fromkeys(one.video for one in stretches):
        features = read(video)
        own = [one for one in stretches if one.video == video and _is_there(one, features)]
        placed += own
        told += caption_segments(model, [_stretch(features, one) for one in own], beam=beam)
        seen += [detected_near(features, model.feature_spec, model.names, *_span(one)) for one in own]
        dense += caption_events_from_features(
            model, features, [event for event in found if event.video == video], beam=beam
        )
    if not placed:
        return {}
    references = [one.sentences for one in placed]
    texts = [one.text for one in told]
    each = cider_d_each(texts, references)
    timed = [one for one in placed if one.start_s is not None and one.video in searched]
    return {
        "stretches": len(placed),
        "templates": float(np.mean([not is_confident(model, one) for one in told])),
        **caption_metrics(texts, references),
        "hallucination": hallucination_metrics(texts, seen, ObjectWords(model.names)),
        "dense": dense_metrics(_truth(timed), dense) if timed and model.task.frame_head else None,
        "sentences": [_sentence(placed[i], told[i], float(each[i])) for i in np.argsort(each, kind="stable")],
    }


def description_table(metrics: Mapping[str, Any]) -> list[str]:
    """What `evaluate_captions` gives, as lines of text: the headlines, then the worst sentences."""
    lines = [f"{metrics['stretches']} descriptions, {metrics['templates']:.0%} of them too unsure to be told"]
    lines += [f"{name} {metrics[name]:.3f}" for name in _HEADLINES]
    made_up = metrics["hallucination"]
    if made_up["chair_s"] is not None:
        lines.append(
            f"chair_s {made_up['chair_s']:.3f}  "
            f"({made_up['unseen_words']} of {made_up['object_words']} object words name what the detector did not see)"
        )
    else:
        lines.append("no object words: the sentences use none of the detector's names of classes")
    if dense := metrics["dense"]:
        lines.append(f"{dense['found']} events found and described, of {dense['events']}")
        lines += [f"dense {name} {dense[name]:.3f}" for name in ("cider_d", "bleu_4", "rouge_l", "soda_f1")]
    lines.append("the worst:")
    for one in metrics["sentences"][:_SHOWN]:
        where = one["video"] if one["start"] is None else f"{one['video']}, {one['start']:.1f}-{one['end']:.1f} s"
        lines += [f"  {where}: {one['description']}  ({one['score']:.2f})"]
        lines += [f"    {'or' if number else 'is'} {text}" for number, text in enumerate(one["references"])]
    return lines


def _is_there(one: DescribedSegment, features: Features) -> bool:
    """Whether it could be decoded: of a file cut short the tail is missing."""
    return bool(len(features)) and (one.start_s is None or one.start_s <= features.time_s[-1])


def _span(one: DescribedSegment) -> tuple[float, float]:
    if one.start_s is None or one.end_s is None:
        return 0.0, np.inf
    return one.start_s, one.end_s


def _stretch(features: Features, one: DescribedSegment) -> CaptionSegment:
    """What the model is given: that something has a label, but not which."""
    cut = features.frames(*caption_frames(features.time_s, *_span(one)))
    return CaptionSegment(features=cut, label="" if one.label is None else None)


def _truth(timed: Sequence[DescribedSegment]) -> list[Annotation]:
    return [
        Annotation(video=one.video, start_s=one.start_s, end_s=one.end_s, description=sentence)
        for one in timed
        for sentence in one.sentences
    ]


def _sentence(one: DescribedSegment, told: Caption, cider_d: float) -> dict[str, Any]:
    return {
        "video": one.video,
        "start": one.start_s,
        "end": one.end_s,
        "description": told.text,
        "score": round(told.score, 6),
        "cider_d": round(cider_d, 6),
        "references": list(one.sentences),
    }
