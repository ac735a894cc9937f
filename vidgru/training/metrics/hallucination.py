"""Objects that sentences name and the detector never saw.

Source: CHAIR, of Rohrbach et al. 2018, "Object Hallucination in Image Captioning" (arXiv 1809.02156), with what the
detector saw in place of what people annotated.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.tokenizer import UNSPACED
from vidgru.types import Features

_NEAR_S = 1.0
_LATIN = "0-9a-z\u00aa\u00ba\u00df-\u024f\u1e00-\u1eff"
_IRREGULAR = {"person": "people", "child": "children", "mouse": "mice", "goose": "geese", "foot": "feet", "ox": "oxen"}


class ObjectWords:
    """The words by which sentences name a detector's classes.

    A class is named by its name and its English plural, in any case. At one place the longest name counts: a "hot dog"
    is no dog. Latin words count whole. Words of other scripts, which only `further` can bring in, take endings and
    count where a word of the sentence begins with them, so the Korean for bag is found with any particle; those of
    scripts without spaces, or written from right to left, where articles are prefixed, count anywhere.

    Args:
        names: the detector's classes.
        further: words to the class or classes that they may stand for, in any language: {"man": "person",
            "bag": ("handbag", "backpack")}. A word counts as seen if one of its classes was.

    Raises:
        ValueError: a word for a class that is not among the names, or one without a letter.
    """

    def __init__(self, names: Sequence[str], further: Mapping[str, str | Collection[str]] | None = None) -> None:
        self._classes: dict[str, set[str]] = {}
        for name in names:
            for form in _forms(name):
                self._classes.setdefault(form, set()).add(name)
        for word, told in (further or {}).items():
            classes = {told} if isinstance(told, str) else set(told)
            if not (classes and classes <= set(names)):
                raise ValueError(f"{word!r} stands for {sorted(classes)}, not all of them classes of the detector")
            if not _plain(word):
                raise ValueError(f"{word!r} is no word")
            for form in _forms(word):
                self._classes.setdefault(form, set()).update(classes)
        longest_first = sorted(filter(None, self._classes), key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(map(_whole, longest_first)) or "(?!)")

    def mentioned(self, sentence: str) -> list[tuple[str, frozenset[str]]]:
        """Every object word of a sentence, as often as it occurs, with the classes that it may stand for."""
        found = self._pattern.findall(_plain(sentence))
        return [(word, frozenset(self._classes[word])) for word in found]

    def unseen(self, sentence: str, seen: Collection[str]) -> list[str]:
        """The object words of a sentence none of whose classes is among those seen."""
        return [word for word, classes in self.mentioned(sentence) if classes.isdisjoint(seen)]


def hallucination_metrics(
    sentences: Sequence[str], seen: Sequence[Collection[str]], objects: ObjectWords
) -> dict[str, Any]:
    """How often sentences name objects that were not there.

    Args:
        sentences: n descriptions.
        seen: n sets of class names, what the detector saw near each event (`seen_near`).
        objects: what counts as an object word.

    Returns:
        sentences, object_words, unseen_words: how many; chair_s, the share of all sentences that name an object which
        was not seen; chair_i, the share of such words in all object words. Both shares are None where no object word
        occurs at all: nothing was said that could be wrong.

    Raises:
        ValueError: not as many sets as sentences.
    """
    if len(sentences) != len(seen):
        raise ValueError(f"{len(sentences)} sentences, but {len(seen)} sets of classes that were seen")
    named = sum(len(objects.mentioned(sentence)) for sentence in sentences)
    unseen = [len(objects.unseen(sentence, there)) for sentence, there in zip(sentences, seen, strict=True)]
    return {
        "sentences": len(sentences),
        "object_words": named,
        "unseen_words": sum(unseen),
        "chair_s": sum(n > 0 for n in unseen) / len(sentences) if named else None,
        "chair_i": sum(unseen) / named if named else None,
    }


def seen_near(
    features: Features, feature_spec: FeatureSpec, names: Sequence[str], start_s: float, end_s: float
) -> set[str]:
    """Names of the classes that the detector saw from a second before an event to a second after it.

    Args:
        features: of the recording, or of what of it holds the event and these seconds.
        feature_spec: theirs.
        names: of the detector's classes.
        start_s, end_s: the event's; an infinite end is the recording's.
    """
    first, stop = features.time_s.searchsorted((start_s - _NEAR_S, end_s + _NEAR_S))
    column = feature_spec.object_groups()["class"].start
    rows = slice(int(features.offsets[first]), int(features.offsets[stop]))
    return {names[int(kind)] for kind in np.unique(features.objects[rows, column])}


def _forms(name: str) -> set[str]:
    """A name as it may stand in a sentence: as it is, and in the plural of English, regular or not."""
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
    """The pattern that finds a form in plain text."""
    first, pattern = form[0], re.escape(form)
    if re.match(f"[{_LATIN}]", first):
        return f"(?<![{_LATIN}]){pattern}(?![{_LATIN}])"
    anywhere = re.match(f"[{UNSPACED}]", first) or unicodedata.bidirectional(first) in ("R", "AL")
    return pattern if anywhere else rf"(?<!\w){pattern}"


def _plain(text: str) -> str:
    """Lower case, with one space where there are spaces, hyphens or underscores."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", text).lower()).strip()
