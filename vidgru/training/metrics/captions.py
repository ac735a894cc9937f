"""Metrics of captions: BLEU, ROUGE-L, CIDEr, CIDEr-D, chrF and CHAIR. Plain Python, any language.

Sources: Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation"; Lin 2004, "ROUGE: A
Package for Automatic Evaluation of Summaries"; Vedantam et al. 2015, "CIDEr: Consensus-based Image Description
Evaluation" (arXiv 1411.5726); Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation"; Rohrbach et
al. 2018, "Object Hallucination in Image Captioning" (CHAIR, arXiv 1809.02156). Each is computed as by its published
evaluator: coco-caption, vrama91/cider, sacrebleu. METEOR is left out: its reference needs Java, and no maintained
package without it gives the same numbers.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.tokenizer import UNSPACED
from vidgru.types import Array, Features

TOKENIZER = "vidgru-words-1"  # the rule of `words`; metrics computed with another rule are not comparable

Words = tuple[str, ...]

_ORDERS = 4  # BLEU and CIDEr: word n-grams of 1 to 4
_CHARACTERS = 6  # chrF: character n-grams of 1 to 6
_ROUGE_BETA = 1.2
_CHRF_BETA = 2.0
_CIDER_SIGMA = 6.0  # words, of the length penalty of CIDEr-D
_ALONE = re.compile(f"[{UNSPACED}]")
_INSIDE = re.compile(r"(?<=\w)-(?=\w)|(?<=\d)[.,:](?=\d)")
_NEAR_S = 1.0  # CHAIR: seconds around an event within which a detected object may be named
_LATIN = "0-9a-z\u00aa\u00ba\u00df-\u024f\u1e00-\u1eff"
_IRREGULAR = {"person": "people", "child": "children", "mouse": "mice", "goose": "geese", "foot": "feet", "ox": "oxen"}


def caption_metrics(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Compare captions with reference sentences.

    Args:
        candidates: n captions.
        references: One or more correct sentences for each of them.

    Returns:
        bleu_1 .. bleu_4 (of the corpus, brevity by the closest reference), rouge_l (mean over candidates, beta 1.2),
        cider and cider_d (means; 0 to 10; document frequencies from these references, so a single candidate gives
        0), chrf (of the corpus: character n-grams of 1 to 6, beta 2, case-sensitive, white space left out), tokenizer
        (the name of the rule of `words`). `cider_d` is what coco-caption, and with it most papers, call CIDEr; `cider`
        has neither clipping nor a length penalty. All but CIDEr are from 0 to 1. All are None without candidates.

    Raises:
        ValueError: The number of reference lists differs from the number of candidates, or a list is empty.
    """
    _check(candidates, references)
    names = [f"bleu_{order + 1}" for order in range(_ORDERS)]
    if not candidates:
        return {**dict.fromkeys([*names, "rouge_l", "cider", "cider_d", "chrf"]), "tokenizer": TOKENIZER}
    candidate_words, reference_words = _split(candidates, references)
    return {
        **dict(zip(names, bleu(candidate_words, reference_words), strict=True)),
        "rouge_l": float(rouge_l_each(candidate_words, reference_words).mean()),
        "cider": float(cider_each(candidate_words, reference_words).mean()),
        "cider_d": float(cider_each(candidate_words, reference_words, clipped=True).mean()),
        "chrf": chrf(candidates, references),
        "tokenizer": TOKENIZER,
    }


def cider_d_each(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
    """CIDEr-D of each caption, float64 [n], 0 to 10, with the document frequencies of all `references`.

    Raises:
        ValueError: The number of reference lists differs from the number of candidates, or a list is empty.
    """
    _check(candidates, references)
    return cider_each(*_split(candidates, references), clipped=True)


def words(sentence: str) -> Words:
    """Split a sentence into words by the rule that `TOKENIZER` names.

    The text is normalised (NFC) and lower-cased. A word is a run of letters, digits and their marks; in Chinese,
    Japanese, Thai and other scripts without spaces each character is a word, Korean is split at spaces. Symbols that
    are no punctuation (emoji, +, €) are words of their own. Punctuation and spaces separate words and are dropped,
    except a hyphen between letters (t-shirt) and points, commas and colons between digits (3.5, 00:12). Formatting
    characters (joiners, direction marks) are dropped without separating.
    """
    text = unicodedata.normalize("NFC", sentence).lower()
    inside = {match.start() for match in _INSIDE.finditer(text)}
    pieces: list[str] = []
    ended = False  # the next character starts a word, unless it is a mark
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
    """The role of a character: "letter" of a word, a "word" by itself, "mark" of the previous one, "gap", "nothing"."""
    category = unicodedata.category(character)
    if category[0] == "M":
        return "mark"
    if category[0] == "S" or (category[0] in "LN" and _ALONE.match(character)):
        return "word"
    if category[0] in "LN":
        return "letter"
    return "nothing" if category == "Cf" else "gap"


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """BLEU-1 to BLEU-4 of a corpus, with the length of the closest reference, the shorter of two equally close."""
    hits, totals = np.zeros(_ORDERS), np.zeros(_ORDERS)
    length, reference_length = 0, 0
    for candidate, sentences in zip(candidates, references, strict=True):
        reference_ngrams = [_ngrams(sentence, _ORDERS) for sentence in sentences]
        for order, ngrams in enumerate(_ngrams(candidate, _ORDERS)):
            hits[order] += sum(min(n, max(of[order][gram] for of in reference_ngrams)) for gram, n in ngrams.items())
            totals[order] += ngrams.total()
        length += len(candidate)
        reference_length += min((abs(len(sentence) - len(candidate)), len(sentence)) for sentence in sentences)[1]
    # coco-caption's epsilons: they replace a division by zero
    precision = (hits + 1e-15) / (totals + 1e-9)
    ratio = (length + 1e-15) / (reference_length + 1e-9)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    scores = np.cumprod(precision) ** (1 / np.arange(1, _ORDERS + 1)) * brevity
    return [float(score) for score in scores]


def rouge_l_each(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> Array:
    """ROUGE-L of each candidate, float64 [n]: best precision and best recall over the references, beta 1.2."""
    scores = np.zeros(len(candidates))
    for i, (candidate, sentences) in enumerate(zip(candidates, references, strict=True)):
        common = [_common_length(candidate, sentence) for sentence in sentences]
        precision = max(common) / max(len(candidate), 1)
        recall = max(n / max(len(sentence), 1) for n, sentence in zip(common, sentences, strict=True))
        scores[i] = _f_score(precision, recall, _ROUGE_BETA)
    return scores


def cider_each(candidates: Sequence[Words], references: Sequence[Sequence[Words]], *, clipped: bool = False) -> Array:
    """CIDEr of each candidate, or CIDEr-D (`clipped`), float64 [n], 0 to 10.

    Document frequencies count the candidates whose references contain an n-gram.
    """
    reference_ngrams = [[_ngrams(sentence, _ORDERS) for sentence in sentences] for sentences in references]
    frequency: Counter[Words] = Counter()
    for documents in reference_ngrams:
        frequency.update({gram for reference in documents for grams in reference for gram in grams})
    largest = math.log(max(len(reference_ngrams), 1))

    def weights(grams: Counter[Words]) -> tuple[dict[Words, float], float]:
        vector = {gram: n * (largest - math.log(max(frequency[gram], 1))) for gram, n in grams.items()}
        return vector, math.sqrt(sum(weight**2 for weight in vector.values()))

    scores = np.zeros(len(candidates))
    for i, (candidate, documents) in enumerate(zip(candidates, reference_ngrams, strict=True)):
        ngrams = _ngrams(candidate, _ORDERS)
        vectors = [weights(grams) for grams in ngrams]
        total = 0.0
        for reference in documents:
            similarity = 0.0
            for (vector, norm), grams in zip(vectors, reference, strict=True):
                other, other_norm = weights(grams)
                if norm and other_norm:
                    shared = ((weight, other[gram]) for gram, weight in vector.items() if gram in other)
                    dot = sum((min(mine, theirs) if clipped else mine) * theirs for mine, theirs in shared)
                    similarity += dot / (norm * other_norm)
            # the published evaluator takes the number of bigrams as the length
            apart = ngrams[1].total() - reference[1].total()
            total += similarity * math.exp(-(apart**2) / (2 * _CIDER_SIGMA**2)) if clipped else similarity
        scores[i] = 10 * total / _ORDERS / len(documents)
    return scores


def chrf(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """chrF of a corpus, 0 to 1: counts summed over captions, each with the first of its best references."""
    sums = np.zeros((3, _CHARACTERS))
    for candidate, sentences in zip(candidates, references, strict=True):
        ngrams = _ngrams(_characters(candidate), _CHARACTERS)
        best, best_score = sums, -1.0
        for sentence in sentences:
            pairs = list(zip(ngrams, _ngrams(_characters(sentence), _CHARACTERS), strict=True))
            counts = np.array(
                [
                    [mine.total() if theirs else 0 for mine, theirs in pairs],
                    [theirs.total() for _, theirs in pairs],
                    [(mine & theirs).total() for mine, theirs in pairs],
                ]
            )
            if (score := _chrf_of(counts)) > best_score:
                best, best_score = counts, score
        sums = sums + best
    return _chrf_of(sums)


def _chrf_of(counts: Array) -> float:
    """chrF of counts [3, orders]: of captions, of references, of both. Orders that one lacks are left out of means."""
    counts = counts[:, (counts[0] > 0) & (counts[1] > 0)]
    if not counts.size:
        return 0.0
    of_captions, of_references, both = counts
    return _f_score(float((both / of_captions).mean()), float((both / of_references).mean()), _CHRF_BETA)


def _f_score(precision: float, recall: float, beta: float) -> float:
    weighted = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / weighted if weighted else 0.0


def _ngrams(items: Any, longest: int) -> list[Counter[Any]]:
    """N-gram counts of 1 to `longest` items: words of a tuple, characters of a string."""
    return [Counter(items[i : i + n] for i in range(len(items) - n + 1)) for n in range(1, longest + 1)]


def _common_length(first: Words, second: Words) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        corner = 0
        for i, other in enumerate(second, 1):
            above = row[i]
            row[i] = corner + 1 if word == other else max(above, row[i - 1])
            corner = above
    return row[-1]


def _characters(sentence: str) -> str:
    return "".join(unicodedata.normalize("NFC", sentence).split())


def _split(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[list[Words], list[list[Words]]]:
    return [words(sentence) for sentence in candidates], [
        [words(sentence) for sentence in sentences] for sentences in references
    ]


def _check(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(candidates) != len(references):
        raise ValueError(f"got {len(candidates)} candidates, but {len(references)} lists of references")
    if not all(references):
        raise ValueError("every candidate needs a reference")


# --- objects that were not detected (CHAIR) --------------------------------------------------------------------------


class ObjectWords:
    """Words that name a detector's classes in captions.

    A class is named by its name and its English plural, in any case. Of overlapping names the longest counts: a "hot
    dog" is no dog. Latin words match as a whole. Words of other scripts, which only `synonyms` can add, take endings
    and match where a word of the caption begins with them, so the Korean for bag is found with any particle; those of
    scripts without spaces, or written from right to left, where articles are prefixed, match anywhere.

    Args:
        names: The detector's class names.
        synonyms: Words, in any language, and the class or classes that each may stand for: {"man": "person",
            "bag": ("handbag", "backpack")}. A word counts as detected if one of its classes was.

    Raises:
        ValueError: A word stands for an unknown class, or has no letters.
    """

    def __init__(self, names: Sequence[str], synonyms: Mapping[str, str | Collection[str]] | None = None) -> None:
        self._classes: dict[str, set[str]] = {}
        for name in names:
            for form in _forms(name):
                self._classes.setdefault(form, set()).add(name)
        for word, stands_for in (synonyms or {}).items():
            classes = {stands_for} if isinstance(stands_for, str) else set(stands_for)
            if not (classes and classes <= set(names)):
                raise ValueError(f"{word!r} stands for {sorted(classes)}, not all of which the detector knows")
            if not _plain(word):
                raise ValueError(f"{word!r} is not a word")
            for form in _forms(word):
                self._classes.setdefault(form, set()).update(classes)
        longest_first = sorted(filter(None, self._classes), key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(map(_whole, longest_first)) or "(?!)")

    def mentioned(self, sentence: str) -> list[tuple[str, frozenset[str]]]:
        """Every occurrence of an object word in a caption, with the classes that it may stand for."""
        words = self._pattern.findall(_plain(sentence))
        return [(word, frozenset(self._classes[word])) for word in words]

    def hallucinated(self, sentence: str, detected: Collection[str]) -> list[str]:
        """The object words of a caption none of whose classes was detected."""
        return [word for word, classes in self.mentioned(sentence) if classes.isdisjoint(detected)]


def hallucination_metrics(
    sentences: Sequence[str], detected: Sequence[Collection[str]], objects: ObjectWords
) -> dict[str, Any]:
    """Count objects that captions name and the detector did not see (CHAIR).

    Args:
        sentences: n captions.
        detected: n sets of class names, those detected near each event (`detected_near`).
        objects: What counts as an object word.

    Returns:
        sentences, object_words, unseen_words: counts; chair_s, the share of captions that name an undetected object;
        chair_i, the share of such words among all object words. Both shares are None if no object word occurs at all:
        nothing could be wrong.

    Raises:
        ValueError: The number of sets differs from the number of captions.
    """
    if len(sentences) != len(detected):
        raise ValueError(f"got {len(sentences)} captions, but {len(detected)} sets of detected classes")
    mentioned = sum(len(objects.mentioned(sentence)) for sentence in sentences)
    wrong = [len(objects.hallucinated(*pair)) for pair in zip(sentences, detected, strict=True)]
    return {
        "sentences": len(sentences),
        "object_words": mentioned,
        "unseen_words": sum(wrong),
        "chair_s": sum(n > 0 for n in wrong) / len(sentences) if mentioned else None,
        "chair_i": sum(wrong) / mentioned if mentioned else None,
    }


def detected_near(
    features: Features, feature_spec: FeatureSpec, names: Sequence[str], start_s: float, end_s: float
) -> set[str]:
    """Names of the classes detected from a second before an event to a second after it.

    Args:
        features: Features of the recording, or of a part that contains the event and these seconds.
        feature_spec: Spec of the features.
        names: The detector's class names.
        start_s, end_s: Start and end of the event; an infinite end is the recording's.
    """
    first, stop = features.time_s.searchsorted((start_s - _NEAR_S, end_s + _NEAR_S))
    column = feature_spec.object_groups()["class"].start
    rows = slice(int(features.offsets[first]), int(features.offsets[stop]))
    return {names[int(kind)] for kind in np.unique(features.objects[rows, column])}


def _forms(name: str) -> set[str]:
    """A name as captions may write it: as it is, and in the English plural, regular or not."""
    plain = _plain(name)
    if not re.search("[a-z]$", plain):
        return {plain}
    *before, last = plain.split(" ")
    forms = {last, last + "s", _IRREGULAR.get(last, last)}
    if re.search("([sxzo]|[cs]h)$", last):
        forms.add(last + "es")
    if re.search("[^aeiou]y$", last):
        forms.add(last[:-1] + "ies")
    if re.search("[^f]fe?$", last):
        forms.add(re.sub("fe?$", "ves", last))
    if last.endswith("man"):
        forms.add(last[:-2] + "en")
    return {" ".join([*before, form]) for form in forms}


def _whole(form: str) -> str:
    """The pattern that matches a form in plain text."""
    first, pattern = form[0], re.escape(form)
    if re.match(f"[{_LATIN}]", first):
        return f"(?<![{_LATIN}]){pattern}(?![{_LATIN}])"
    anywhere = re.match(f"[{UNSPACED}]", first) or unicodedata.bidirectional(first) in ("R", "AL")
    return pattern if anywhere else rf"(?<!\w){pattern}"


def _plain(text: str) -> str:
    """Lower case, with runs of spaces, hyphens and underscores as one space."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", text).lower()).strip()
