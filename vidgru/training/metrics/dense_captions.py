"""How well the events of recordings were found and described at once.

Sources: Krishna et al. 2017, "Dense-Captioning Events in Videos" (arXiv 1705.00754), as ranjaykrishna/densevid_eval
computes it; Fujita et al. 2020, "SODA: Story Oriented Dense Video Captioning Evaluation Framework" (ECCV), as
fujiso/SODA, with ROUGE-L as the score of a sentence in place of METEOR, which needs Java.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from vidgru.training.metrics.caption_scores import TOKENIZER, Words, bleu, cider_each, rouge_l_each, words
from vidgru.training.metrics.matching import overlap
from vidgru.types import Annotation, Array, Event

_TIOU = (0.3, 0.5, 0.7, 0.9)
_NOTHING = words("abc123!@#")  # densevid_eval's reference for what overlaps no true event
_SENTENCE = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d")
_PLACE = ("precision", "recall")


def dense_metrics(truth: Sequence[Annotation], found: Sequence[Event]) -> dict[str, Any]:
    """How well events were found and described, over recordings that have described events.

    Args:
        truth: rows with times and a description; others are left out. Several rows of one interval are several
            references of one event.
        found: events with a description, the model's or a template; others are left out, as are recordings without
            described truth.

    Returns:
        videos, events (true ones), found: how many were judged.
        bleu_1 .. bleu_4, rouge_l, cider_d, precision, recall: the ActivityNet captions protocol, mean over tIoU 0.3,
        0.5, 0.7 and 0.9. Every found event is scored against each row that it overlaps by that much, or against a
        meaningless word where there is none; the pairs of a recording are a corpus (CIDEr-D takes its document
        frequencies from them, so that one pair alone gives 0); recordings are averaged, one without found events
        is 0. precision and recall are the shares of found events and of rows that have a partner. `cider_d` is what
        the published evaluator calls CIDEr.
        per_tiou {"0.3": {the same}, ...}.
        soda_precision, soda_recall, soda_f1: SODA_c. True and found events are paired one to one in the order of
        time, so that the sum of overlap times `soda_sentence_score` is greatest; the sum over all recordings is
        divided by the number of found and of true events. A recording without found events counts for recall, which
        the published evaluator leaves out.
        tokenizer: the name of the rule that splits words.
        Numbers from 0 to 1, CIDEr-D to 10; None where no recording has described truth.
    """
    rows = _by_video((t.video, t.start_s, t.end_s, t.description) for t in truth)
    events = _by_video((e.video, e.start_s, e.end_s, e.description) for e in found)
    recordings = [_Recording.of(rows[video], events.get(video, [])) for video in sorted(rows)]
    per_tiou = {f"{tiou:g}": _mean([_at(recording, tiou) for recording in recordings]) for tiou in _TIOU}
    return {
        "videos": len(recordings),
        "events": sum(len(recording.references) for recording in recordings),
        "found": sum(len(recording.told) for recording in recordings),
        **_mean(list(per_tiou.values()) if recordings else []),
        "per_tiou": per_tiou,
        **_soda(recordings),
        "soda_sentence_score": "rouge_l",
        "tokenizer": TOKENIZER,
    }


_Row = tuple[float, float, Words]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Recording:
    """What was to be told of a recording and what was, both in the order of time.

    Attributes:
        wanted: words of each true row.
        told: words of each found event.
        alike: float64 [rows, found], temporal overlap.
        references: rows of each true event, a range of `wanted`.
    """

    wanted: list[Words]
    told: list[Words]
    alike: Array
    references: list[range]

    @staticmethod
    def of(rows: list[_Row], found: list[_Row]) -> _Recording:
        spans = [np.array([row[:2] for row in side], dtype=np.float64).reshape(-1, 2) for side in (rows, found)]
        several = [list(group) for _, group in groupby(range(len(rows)), key=lambda i: rows[i][:2])]
        return _Recording(
            wanted=[row[2] for row in rows],
            told=[row[2] for row in found],
            alike=overlap(*spans),
            references=[range(group[0], group[-1] + 1) for group in several],
        )


def _by_video(events: Iterable[tuple[str, float | None, float | None, str | None]]) -> dict[str, list[_Row]]:
    """Events that have times and a description, by recording, in the order of time."""
    found: defaultdict[str, list[_Row]] = defaultdict(list)
    for video, start_s, end_s, description in events:
        if start_s is not None and end_s is not None and description:
            found[video].append((start_s, end_s, words(description)))
    return {video: sorted(rows) for video, rows in found.items()}


def _at(recording: _Recording, tiou: float) -> dict[str, float | None]:
    """The protocol's numbers of one recording at one threshold."""
    if not recording.told:
        return dict.fromkeys((*_SENTENCE, *_PLACE), 0.0)
    near = recording.alike >= tiou
    pairs = [
        (said, recording.wanted[row] if row >= 0 else _NOTHING)
        for column, said in enumerate(recording.told)
        for row in (np.flatnonzero(near[:, column]) if near[:, column].any() else (-1,))
    ]
    told, wanted = [said for said, _ in pairs], [[reference] for _, reference in pairs]
    scores = [
        *bleu(told, wanted),
        float(rouge_l_each(told, wanted).mean()),
        float(cider_each(told, wanted, clipped=True).mean()),
        float(near.any(axis=0).mean()),
        float(near.any(axis=1).mean()),
    ]
    return dict(zip((*_SENTENCE, *_PLACE), scores, strict=True))


def _mean(several: list[dict[str, float | None]]) -> dict[str, float | None]:
    names = (*_SENTENCE, *_PLACE)
    if not several:
        return dict.fromkeys(names)
    return {name: float(np.mean([scores[name] for scores in several])) for name in names}


def _soda(recordings: list[_Recording]) -> dict[str, float | None]:
    names = ("soda_precision", "soda_recall", "soda_f1")
    if not recordings:
        return dict.fromkeys(names)
    total = sum(_best_story(_worth(recording)) for recording in recordings)
    told = sum(len(recording.told) for recording in recordings)
    wanted = sum(len(recording.references) for recording in recordings)
    return dict(zip(names, (total / max(told, 1), total / wanted, 2 * total / (told + wanted)), strict=True))


def _worth(recording: _Recording) -> Array:
    """Overlap times ROUGE-L of each true and found event, float64 [true, found]."""
    worth = np.zeros((len(recording.references), len(recording.told)))
    for i, rows in enumerate(recording.references):
        near = np.flatnonzero(recording.alike[rows.start])
        references = [[recording.wanted[row] for row in rows]] * len(near)
        scores = rouge_l_each([recording.told[column] for column in near], references)
        worth[i, near] = recording.alike[rows.start, near] * scores
    return worth


def _best_story(worth: Array) -> float:
    """The greatest sum over pairs that go forward on both sides, none taken twice (dynamic programming)."""
    best = np.zeros(worth.shape[1] + 1)
    for row in worth:
        best[1:] = np.maximum.accumulate(np.maximum(best[1:], best[:-1] + row))
    return float(best[-1])
