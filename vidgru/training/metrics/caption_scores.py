"""How well sentences say what people said: BLEU, ROUGE-L, CIDEr, CIDEr-D, chrF. Plain Python, any language.

Sources: Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation"; Lin 2004, "ROUGE: A
Package for Automatic Evaluation of Summaries"; Vedantam et al. 2015, "CIDEr: Consensus-based Image Description
Evaluation" (arXiv 1411.5726); Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation". Each is as
its published evaluator computes it: coco-caption, vrama91/cider, sacrebleu. METEOR is not here: its reference needs
Java, and no maintained package without it gives the same numbers.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from vidgru.model.tokenizer import UNSPACED
from vidgru.types import Array

TOKENIZER = "vidgru-words-1"  # the rule of `words`; numbers found with another rule are not comparable

Words = tuple[str, ...]

_ORDERS = 4  # BLEU and CIDEr: words in a row, 1 to 4
_CHARACTERS = 6  # chrF: characters in a row, 1 to 6
_ROUGE_BETA = 1.2
_CHRF_BETA = 2.0
_CIDER_SIGMA = 6.0  # words: how far lengths may differ in CIDEr-D
_ALONE = re.compile(f"[{UNSPACED}]")
_INSIDE = re.compile(r"(?<=\w)-(?=\w)|(?<=\d)[.,:](?=\d)")


def caption_metrics(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """How near sentences come to those of people.

    Args:
        candidates: n sentences.
        references: for each of them one or more sentences that would be right.

    Returns:
        bleu_1 .. bleu_4 (of the corpus, brevity by the closest reference), rouge_l (mean over candidates, beta 1.2),
        cider and cider_d (means; 0 to 10; document frequencies from these references, so one candidate alone gives
        0), chrf (of the corpus: characters 1 to 6, beta 2, cases kept, white space left out), tokenizer (the name of
        the rule of `words`). `cider_d` is what coco-caption, and with it most papers, call CIDEr; `cider` has neither
        clipping nor a penalty for length. All but CIDEr are from 0 to 1. None for all without candidates.

    Raises:
        ValueError: not as many lists of references as candidates, or an empty one.
    """
    _check(candidates, references)
    names = [f"bleu_{order + 1}" for order in range(_ORDERS)]
    if not candidates:
        return {**dict.fromkeys([*names, "rouge_l", "cider", "cider_d", "chrf"]), "tokenizer": TOKENIZER}
    said, wanted = _split(candidates, references)
    return {
        **dict(zip(names, bleu(said, wanted), strict=True)),
        "rouge_l": float(rouge_l_each(said, wanted).mean()),
        "cider": float(cider_each(said, wanted).mean()),
        "cider_d": float(cider_each(said, wanted, clipped=True).mean()),
        "chrf": chrf(candidates, references),
        "tokenizer": TOKENIZER,
    }


def cider_d_each(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
    """CIDEr-D of each sentence, float64 [n], 0 to 10, with the document frequencies of all `references`.

    Raises:
        ValueError: not as many lists of references as candidates, or an empty one.
    """
    _check(candidates, references)
    return cider_each(*_split(candidates, references), clipped=True)


def words(sentence: str) -> Words:
    """The words of a sentence, by the rule that `TOKENIZER` names.

    The text is normalised (NFC) and lower case. A word is a run of letters, digits and their marks; Chinese, Japanese,
    Thai and other scripts without spaces give each character as a word, Korean is split at spaces. Signs that are no
    punctuation (emoji, +, €) are words of their own. Punctuation and spaces separate words and are dropped, but for a
    hyphen between letters (t-shirt) and points, commas and colons between digits (3.5, 00:12). Characters that only
    format (joiners, marks of direction) are dropped without separating.
    """
    text = unicodedata.normalize("NFC", sentence).lower()
    inside = {match.start() for match in _INSIDE.finditer(text)}
    pieces: list[str] = []
    ended = False  # the next character starts a word, if it is no mark
    for place, character in enumerate(text):
        role = "letter" if place in inside else _role(character)
        if role == "word" or (role == "letter" and ended):
            pieces.append(" ")
        if role in ("word", "letter"):
            ended = role == "word"
        pieces.append({"gap": " ", "nothing": ""}.get(role, character))
    return tuple("".join(pieces).split())


@lru_cache(maxsize=4096)
def _role(character: str) -> str:
    """What a character does: "letter" of a word, a "word" by itself, "mark" of the one before, "gap" or "nothing"."""
    category = unicodedata.category(character)
    if category[0] == "M":
        return "mark"
    if category[0] == "S" or (category[0] in "LN" and _ALONE.match(character)):
        return "word"
    if category[0] in "LN":
        return "letter"
    return "nothing" if category == "Cf" else "gap"


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """BLEU-1 to BLEU-4 of a corpus, against the closest reference's length, the shorter of two that are as close."""
    right, told = np.zeros(_ORDERS), np.zeros(_ORDERS)
    length, wanted = 0, 0
    for candidate, several in zip(candidates, references, strict=True):
        counted = [_ngrams(reference, _ORDERS) for reference in several]
        for order, found in enumerate(_ngrams(candidate, _ORDERS)):
            right[order] += sum(min(n, max(of[order][gram] for of in counted)) for gram, n in found.items())
            told[order] += found.total()
        length += len(candidate)
        wanted += min((abs(len(reference) - len(candidate)), len(reference)) for reference in several)[1]
    # coco-caption's small numbers stand for nothing found and nothing told.
    precision = (right + 1e-15) / (told + 1e-9)
    ratio = (length + 1e-15) / (wanted + 1e-9)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    scores = np.cumprod(precision) ** (1 / np.arange(1, _ORDERS + 1)) * brevity
    return [float(score) for score in scores]


def rouge_l_each(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> Array:
    """ROUGE-L of each candidate, float64 [n]: its best precision and best recall over the references, beta 1.2."""
    scores = np.zeros(len(candidates))
    for i, (candidate, several) in enumerate(zip(candidates, references, strict=True)):
        common = [_common(candidate, reference) for reference in several]
        precision = max(common) / max(len(candidate), 1)
        recall = max(n / max(len(reference), 1) for n, reference in zip(common, several, strict=True))
        scores[i] = _f_score(precision, recall, _ROUGE_BETA)
    return scores


def cider_each(candidates: Sequence[Words], references: Sequence[Sequence[Words]], *, clipped: bool = False) -> Array:
    """CIDEr of each candidate, or CIDEr-D (`clipped`), float64 [n], 0 to 10.

    Document frequencies count the candidates whose references hold an n-gram.
    """
    counted = [[_ngrams(reference, _ORDERS) for reference in several] for several in references]
    frequency: Counter[Words] = Counter()
    for documents in counted:
        frequency.update({gram for reference in documents for grams in reference for gram in grams})
    largest = math.log(max(len(counted), 1))

    def weights(grams: Counter[Words]) -> tuple[dict[Words, float], float]:
        vector = {gram: n * (largest - math.log(max(frequency[gram], 1))) for gram, n in grams.items()}
        return vector, math.sqrt(sum(weight**2 for weight in vector.values()))

    scores = np.zeros(len(candidates))
    for i, (candidate, documents) in enumerate(zip(candidates, counted, strict=True)):
        told = _ngrams(candidate, _ORDERS)
        vectors = [weights(grams) for grams in told]
        total = 0.0
        for reference in documents:
            alike = 0.0
            for (vector, norm), grams in zip(vectors, reference, strict=True):
                other, other_norm = weights(grams)
                if norm and other_norm:
                    shared = ((weight, other[gram]) for gram, weight in vector.items() if gram in other)
                    dot = sum((min(own, its) if clipped else own) * its for own, its in shared)
                    alike += dot / (norm * other_norm)
            # The evaluator counts pairs of words as the length.
            apart = told[1].total() - reference[1].total()
            total += alike * math.exp(-(apart**2) / (2 * _CIDER_SIGMA**2)) if clipped else alike
        scores[i] = 10 * total / _ORDERS / len(documents)
    return scores


def chrf(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """chrF of a corpus, 0 to 1: counts summed over sentences, each against the first reference that suits it best."""
    sums = np.zeros((3, _CHARACTERS))
    for candidate, several in zip(candidates, references, strict=True):
        found = _ngrams(_letters(candidate), _CHARACTERS)
        best, best_score = sums, -1.0
        for reference in several:
            wanted = _ngrams(_letters(reference), _CHARACTERS)
            counts = np.array(
                [
                    [own.total() if its else 0 for own, its in zip(found, wanted, strict=True)],
                    [its.total() for its in wanted],
                    [(own & its).total() for own, its in zip(found, wanted, strict=True)],
                ]
            )
            if (score := _chrf_of(counts)) > best_score:
                best, best_score = counts, score
        sums = sums + best
    return _chrf_of(sums)


def _chrf_of(counts: Array) -> float:
    """chrF of counts [3, orders]: told, wanted, both. Orders longer than the sentences are left out of the means."""
    counts = counts[:, (counts[0] > 0) & (counts[1] > 0)]
    if not counts.size:
        return 0.0
    told, wanted, both = counts
    return _f_score(float((both / told).mean()), float((both / wanted).mean()), _CHRF_BETA)


def _f_score(precision: float, recall: float, beta: float) -> float:
    whole = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / whole if whole else 0.0


def _ngrams(items: Any, longest: int) -> list[Counter[Any]]:
    """How often each run of 1 to `longest` items (words of a tuple, characters of a string) occurs, by length."""
    return [Counter(items[i : i + n] for i in range(len(items) - n + 1)) for n in range(1, longest + 1)]


def _common(first: Words, second: Words) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        corner = 0
        for i, other in enumerate(second, 1):
            above = row[i]
            row[i] = corner + 1 if word == other else max(above, row[i - 1])
            corner = above
    return row[-1]


def _letters(sentence: str) -> str:
    return "".join(unicodedata.normalize("NFC", sentence).split())


def _split(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[list[Words], list[list[Words]]]:
    return [words(one) for one in candidates], [[words(one) for one in several] for several in references]


def _check(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} candidates, but {len(references)} lists of references")
    if not all(references):
        raise ValueError("every candidate needs a reference")
