"""Metrics of dense captions: events predicted and captioned together.

Sources: Krishna et al. 2017, "Dense-Captioning Events in Videos" (arXiv 1705.00754), as ranjaykrishna/densevid_eval
computes it; Fujita et al. 2020, "SODA: Story Oriented Dense Video Captioning Evaluation Framework" (ECCV), as
fujiso/SODA computes it, with ROUGE-L as the sentence score in place of METEOR, which needs Java.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from vidgru.training.metrics.captions import TOKENIZER, Words, bleu, cider_each, rouge_l_each, words
from vidgru.training.metrics.matching import overlap
from vidgru.types import Annotation, Array, Event

_TIOU = (0.3, 0.5, 0.7, 0.9)
_NO_REFERENCE = words("abc123!@#")  # densevid_eval's reference for events that overlap no true one
_SENTENCE = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d")
_PLACE = ("precision", "recall")


def dense_metrics(truth: Sequence[Annotation], predicted: Sequence[Event]) -> dict[str, Any]:
    """Compute metrics of predicted, captioned events over recordings that have true events with descriptions.

    Args:
        truth: Rows with times and a description; others are left out. Several rows with the same interval are several
            references of one event.
        predicted: Events with a description, a caption or a template; others are left out, as are recordings without
            true descriptions.

    Returns:
        videos, events (true), found (predicted): counts of what was evaluated.
        bleu_1 .. bleu_4, rouge_l, cider_d, precision, recall: the ActivityNet captions protocol, mean over tIoU 0.3,
        0.5, 0.7 and 0.9. Every predicted event is scored against each row that it overlaps by that much, or against a
        meaningless word if there is none; the pairs of a recording are a corpus (CIDEr-D takes its document
        frequencies from them, so a single pair gives 0); recordings are averaged, one without predicted events
        is 0. precision and recall are the shares of predicted events and of rows that have a partner. `cider_d` is
        what the published evaluator calls CIDEr.
        per_tiou {"0.3": {the same}, ...}.
        soda_precision, soda_recall, soda_f1: SODA_c. True and predicted events are paired one to one in the order of
        time, maximising the sum of overlap times `soda_sentence_score`; the sum over all recordings is divided by the
        number of predicted and of true events. A recording without predicted events counts for recall, unlike in the
        published evaluator.
        tokenizer: the name of the rule that splits words.
        Values are from 0 to 1, of CIDEr-D to 10; None if no recording has true descriptions.
    """
    rows = _by_video((t.video, t.start_s, t.end_s, t.description) for t in truth)
    events = _by_video((e.video, e.start_s, e.end_s, e.description) for e in predicted)
    recordings = [_CaptionedRecording.of(rows[video], events.get(video, [])) for video in sorted(rows)]
    per_tiou = {f"{tiou:g}": _mean([_at(recording, tiou) for recording in recordings]) for tiou in _TIOU}
    return {
        "videos": len(recordings),
        "events": sum(len(recording.references) for recording in recordings),
        "found": sum(len(recording.captions) for recording in recordings),
        **_mean(list(per_tiou.values()) if recordings else []),
        "per_tiou": per_tiou,
        **_soda(recordings),
        "soda_sentence_score": "rouge_l",
        "tokenizer": TOKENIZER,
    }


_Row = tuple[float, float, Words]  # start, end, description


@dataclass(frozen=True, kw_only=True, eq=False)
class _CaptionedRecording:
    """True descriptions and predicted captions of a recording, both in the order of time.

    Attributes:
        truth: Words of each true row.
        captions: Words of each predicted event.
        tiou: float64 [rows, predicted], temporal overlap.
        references: Rows of each true event, a range of `truth`.
    """

    truth: list[Words]
    captions: list[Words]
    tiou: Array
    references: list[range]

    @staticmethod
    def of(rows: list[_Row], predicted: list[_Row]) -> _CaptionedRecording:
        spans = [np.array([row[:2] for row in side], dtype=np.float64).reshape(-1, 2) for side in (rows, predicted)]
        groups = [list(group) for _, group in groupby(range(len(rows)), key=lambda i: rows[i][:2])]
        return _CaptionedRecording(
            truth=[row[2] for row in rows],
            captions=[row[2] for row in predicted],
            tiou=overlap(*spans),
            references=[range(group[0], group[-1] + 1) for group in groups],
        )


def _by_video(events: Iterable[tuple[str, float | None, float | None, str | None]]) -> dict[str, list[_Row]]:
    """Events that have times and a description, by recording, in the order of time."""
    by_video: defaultdict[str, list[_Row]] = defaultdict(list)
    for video, start_s, end_s, description in events:
        if start_s is not None and end_s is not None and description:
            by_video[video].append((start_s, end_s, words(description)))
    return {video: sorted(rows) for video, rows in by_video.items()}


def _at(recording: _CaptionedRecording, tiou: float) -> dict[str, float | None]:
    """The protocol's metrics of one recording at one threshold."""
    if not recording.captions:
        return dict.fromkeys((*_SENTENCE, *_PLACE), 0.0)
    matches = recording.tiou >= tiou
    captions: list[Words] = []
    references: list[list[Words]] = []
    for column, caption in enumerate(recording.captions):
        matched = [recording.truth[row] for row in np.flatnonzero(matches[:, column])]
        for reference in matched or [_NO_REFERENCE]:
            captions.append(caption)
            references.append([reference])
    scores = [
        *bleu(captions, references),
        float(rouge_l_each(captions, references).mean()),
        float(cider_each(captions, references, clipped=True).mean()),
        float(matches.any(axis=0).mean()),
        float(matches.any(axis=1).mean()),
    ]
    return dict(zip((*_SENTENCE, *_PLACE), scores, strict=True))


def _mean(rows: list[dict[str, float | None]]) -> dict[str, float | None]:
    names = (*_SENTENCE, *_PLACE)
    if not rows:
        return dict.fromkeys(names)
    return {name: float(np.mean([scores[name] for scores in rows])) for name in names}


def _soda(recordings: list[_CaptionedRecording]) -> dict[str, float | None]:
    names = ("soda_precision", "soda_recall", "soda_f1")
    if not recordings:
        return dict.fromkeys(names)
    total = sum(_best_alignment(_similarity(recording)) for recording in recordings)
    predicted = sum(len(recording.captions) for recording in recordings)
    true = sum(len(recording.references) for recording in recordings)
    return dict(zip(names, (total / max(predicted, 1), total / true, 2 * total / (predicted + true)), strict=True))


def _similarity(recording: _CaptionedRecording) -> Array:
    """Overlap times ROUGE-L of each true and predicted event, float64 [true, predicted]."""
    similarity = np.zeros((len(recording.references), len(recording.captions)))
    for i, rows in enumerate(recording.references):
        overlapping = np.flatnonzero(recording.tiou[rows.start])
        references = [[recording.truth[row] for row in rows]] * len(overlapping)
        scores = rouge_l_each([recording.captions[column] for column in overlapping], references)
        similarity[i, overlapping] = recording.tiou[rows.start, overlapping] * scores
    return similarity


def _best_alignment(similarity: Array) -> float:
    """The largest sum over pairs that advance on both sides, none used twice (dynamic programming)."""
    best = np.zeros(similarity.shape[1] + 1)
    for row in similarity:
        best[1:] = np.maximum.accumulate(np.maximum(best[1:], best[:-1] + row))
    return float(best[-1])
