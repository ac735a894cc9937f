"""Words of captions that are chosen by measurement: which colour, which way, how many.

Training sentences of one label often differ in a few words only: "a person in red runs to the left", "a person in blue
runs to the right". Where such a word can be told from one group of an event's measured attributes, it becomes a slot:
the caption head learns and writes sentences with slots, and each slot is filled with the most probable word. The words
come from the user's sentences, in any language; nothing is known about them in advance.

A slot's word is about one of the event's objects, or about their number. Which object, is told by the words around the
slot: each object is weighed by attention, and the probability of a word is its mean over objects (a mixture, as in IBM
Model 1, Brown et al. 1993, "The Mathematics of Statistical Machine Translation").
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidgru.model.attributes import attribute_groups, count_attributes, object_attributes
from vidgru.model.event_decoder import platt
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.tokenizer import UNSPACED
from vidgru.types import Array, Features

COUNTS = "counts"  # the attribute group of an event as a whole
_FIRST_MARK = 0xE000  # private use area: slot n is written as this character + n
MAX_SLOTS = 64
_MARK = re.compile(rf"[{chr(_FIRST_MARK)}-{chr(_FIRST_MARK + MAX_SLOTS - 1)}]")
_WORD = re.compile(rf"{_MARK.pattern}|[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]")
_AFTER, _BEFORE = 4, 3  # words around a slot that tell which object it is about
_SENTENCE_EDGES = ".,;:!?\u3001\u3002\uff0c"
_TENSORS = ("query", "key", "weight", "bias")
_NUMBERS = ("folds", "scale", "bias", "threshold", "capitals")
_LIMIT = 5.0  # standard deviations; rarer values are clipped


def split_words(text: str) -> list[re.Match[str]]:
    """Return the words, punctuation marks and slots of a text."""
    return list(_WORD.finditer(text))


def mark(number: int) -> str:
    """Return the character that stands for a slot."""
    return chr(_FIRST_MARK + number)


def has_slots(text: str) -> bool:
    """Whether a sentence has slots to fill."""
    return bool(_MARK.search(text))


def contexts(words: Sequence[str], position: int, label: int | None) -> list[str]:
    """Return what is known about a slot from its sentence: its rank among equal slots, and the words around it.

    Args:
        words: Casefolded words of the sentence, with slots.
        position: Index of the slot.
        label: Label of the event; None if unknown.
    """
    slot = words[position]
    rank, total = words[:position].count(slot), words.count(slot)
    before = words[position - 1] if position else "^"
    after = words[position + 1] if position + 1 < len(words) else "$"
    names = [f"label {label}", f"rank {label} {rank}/{total}", f"between {before} {after}"]
    for side, step, most in (("after", 1, _AFTER), ("before", -1, _BEFORE)):
        for distance in range(1, most + 1):
            index = position + step * distance
            word = words[index] if 0 <= index < len(words) else ""
            if not word or (distance > 1 and (word in _SENTENCE_EDGES or _MARK.match(word))):
                break
            names += [f"{side} {word}", f"{side} {label} {word}"]
    return names


@dataclass(frozen=True, kw_only=True, eq=False)
class WordChoice:
    """The words of one kind of slot, and how attributes choose among them.

    The tensors of K models, the same number of them fitted without each fold of the training recordings, are stacked;
    their probabilities are averaged.

    Attributes:
        words: Words to choose from, casefolded.
        group: Attribute group that tells the word, or `COUNTS`.
        contexts: Known contexts of slots; row n + 1 of `query` belongs to context n, row 0 to unknown ones.
        query: float32 [K,contexts + 1,D].
        key: float32 [K,A,D], of all attributes of an object; zero where an attribute does not select objects.
        weight: float32 [K,columns of the group,words].
        bias: float32 [K,words].
    """

    words: tuple[str, ...]
    group: str
    contexts: tuple[str, ...]
    query: Tensor
    key: Tensor
    weight: Tensor
    bias: Tensor

    def log_probabilities(self, query: Tensor, objects: Tensor, mask: Tensor, values: Tensor) -> Tensor:
        """Return log probabilities of the words in slots, [K,S,words].

        Args:
            query: float32 [K,S,D], sum of the queries of each slot's contexts.
            objects: float32 [S,N,A], standardised attributes of each slot's event.
            mask: bool [S,N], True for objects.
            values: float32 [S,N,columns of the group], or [S,columns] for `COUNTS`.
        """
        if self.group == COUNTS:
            return (values @ self.weight + self.bias[:, None]).log_softmax(dim=2)
        keys = torch.einsum("sna,kad->ksnd", objects, self.key)
        scores = torch.einsum("ksd,ksnd->ksn", query, keys)
        attention = scores.masked_fill(~mask, -torch.inf).log_softmax(dim=2)
        words = torch.einsum("snc,kcw->ksnw", values, self.weight) + self.bias[:, None, None]
        return (attention[..., None] + words.log_softmax(dim=3)).logsumexp(dim=2)


@dataclass(frozen=True, kw_only=True)
class FilledSentence:
    """A sentence whose slots are filled.

    Attributes:
        text: The sentence.
        probability: Calibrated probability that all slots are right; 0 if there is a slot that no choice fills.
        words: The words in the slots, casefolded.
    """

    text: str
    probability: float
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Grounding:
    """The slots of a model's sentences.

    Attributes:
        choices: The choice behind each kind of slot.
        mean, std: float32 [A + 8 C], by which attributes of objects and counts are standardised.
        folds: Number of folds of the training recordings.
        scale, bias: Calibration of a caption's probability, as by `platt`.
        threshold: Least calibrated probability of a caption that is shown.
        capitals: Whether sentences begin with a capital letter.
    """

    choices: tuple[WordChoice, ...]
    mean: Tensor
    std: Tensor
    folds: int
    scale: float = 1.0
    bias: float = 0.0
    threshold: float = 0.0
    capitals: bool = True

    def fill(self, sentence: str, label: int | None, features: Features, spec: FeatureSpec) -> FilledSentence:
        """Fill the slots of a sentence.

        Args:
            sentence: Sentence with slots.
            label: Label of the event; None if unknown.
            features: Features of the event's frames.
            spec: Their columns.
        """
        matches = split_words(sentence)
        words = [match.group().casefold() for match in matches]
        log_probability, pieces, chosen, end = 0.0, list[str](), list[str](), 0
        attributes = self._attributes(features, spec)
        for position, match in enumerate(matches):
            if _MARK.match(words[position]):
                number = ord(words[position]) - _FIRST_MARK
                if number >= len(self.choices):  # written byte by byte, by a decoder that is not sure at all
                    return FilledSentence(text=sentence, probability=0.0, words=())
                choice = self.choices[number]
                log_probabilities = self._slot(choice, contexts(words, position, label), attributes, spec)
                best = int(log_probabilities.argmax())
                log_probability += float(log_probabilities[best])
                word = choice.words[best]
                chosen.append(word)
                if match.start() == 0 and self.capitals:
                    word = word[:1].upper() + word[1:]
                pieces += [sentence[end : match.start()], word]
                end = match.end()
        text, probability = "".join([*pieces, sentence[end:]]), platt(math.exp(log_probability), self.scale, self.bias)
        return FilledSentence(text=text, probability=probability, words=tuple(chosen))

    def _attributes(self, features: Features, spec: FeatureSpec) -> tuple[Tensor, Tensor]:
        """Return the standardised attributes of an event: its objects [N,A], at least one row, and its counts [8 C]."""
        objects, counts = object_attributes(features, spec), count_attributes(features, spec)
        width = objects.shape[1]
        rows = torch.from_numpy(objects) if len(objects) else torch.zeros(1, width)
        return (
            standardize(rows, self.mean[:width], self.std[:width]),
            standardize(torch.from_numpy(counts), self.mean[width:], self.std[width:]),
        )

    def without_fold(self, fold: int) -> Grounding:
        """Return the grounding by the models that were fitted without a fold."""
        choices = []
        for choice in self.choices:
            each = len(choice.bias) // self.folds
            rows = slice(fold * each, (fold + 1) * each)
            choices.append(replace(choice, **{name: getattr(choice, name)[rows] for name in _TENSORS}))
        return replace(self, choices=tuple(choices), folds=1)

    def _slot(
        self, choice: WordChoice, names: Iterable[str], attributes: tuple[Tensor, Tensor], spec: FeatureSpec
    ) -> Tensor:
        index = {name: row + 1 for row, name in enumerate(choice.contexts)}
        rows = torch.tensor([index.get(name, 0) for name in names])
        objects, counts = attributes
        values = counts[None] if choice.group == COUNTS else objects[None][..., attribute_groups(spec)[choice.group]]
        query = choice.query[:, rows].sum(dim=1)[:, None]
        mask = torch.ones(1, len(objects), dtype=torch.bool)
        log_probabilities = choice.log_probabilities(query, objects[None], mask, values)[:, 0]
        mean: Tensor = log_probabilities.logsumexp(dim=0) - math.log(len(log_probabilities))
        return mean

    def metadata(self) -> dict[str, Any]:
        """Return everything but the tensors, for the model file."""
        return {
            "choices": [{"words": c.words, "group": c.group, "contexts": c.contexts} for c in self.choices],
            **{name: getattr(self, name) for name in _NUMBERS},
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, for the model file."""
        tensors = {"mean": self.mean, "std": self.std}
        for number, choice in enumerate(self.choices):
            tensors |= {f"{number}.{name}": getattr(choice, name) for name in _TENSORS}
        return tensors

    @staticmethod
    def load(metadata: dict[str, Any], tensors: dict[str, Tensor]) -> Grounding:
        """Assemble what `metadata` and `tensors` returned.

        Raises:
            KeyError, TypeError: Something is missing.
        """
        choices = tuple(
            WordChoice(
                words=tuple(choice["words"]),
                group=choice["group"],
                contexts=tuple(choice["contexts"]),
                **{name: tensors[f"{number}.{name}"].clone() for name in _TENSORS},
            )
            for number, choice in enumerate(metadata["choices"])
        )
        numbers = {name: metadata[name] for name in _NUMBERS}
        return Grounding(choices=choices, mean=tensors["mean"].clone(), std=tensors["std"].clone(), **numbers)


def standardize(values: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return attributes in standard deviations from the mean, rare values clipped."""
    return ((values - mean) / std).clamp(-_LIMIT, _LIMIT)


def selecting_columns(spec: FeatureSpec) -> Array:
    """Return the columns of an object's attributes by which slots select objects, int64 [n].

    How an object looks is left out: a slot for a colour is to find the object first, and then to read its colour.
    """
    groups = attribute_groups(spec)
    return np.concatenate([np.arange(groups[name].start, groups[name].stop) for name in ("class", "movement")])
