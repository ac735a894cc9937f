"""Find the words of captions that measured attributes decide, and learn to choose them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vidgru.model.attributes import attribute_groups, count_attributes, object_attributes
from vidgru.model.event_decoder import platt
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.grounding import (
    COUNTS,
    MAX_SLOTS,
    Grounding,
    WordChoice,
    contexts,
    has_slots,
    mark,
    selecting_columns,
    split_words,
    standardize,
)
from vidgru.training.data import LoadedFeatures
from vidgru.training.examples import CaptionedClip
from vidgru.training.thresholds import fit_platt
from vidgru.types import Array

_MAX_DIFFERENT = 0.4  # share of words in which sentences of one wording may differ
_FEW_SLOTS = 150  # so few are screened in all folds: half of them would teach too little
_MIN_SLOTS = 12  # fewer examples of a slot teach nothing
_MAX_SENTENCES = 1500  # that slots are found in and fitted on, spread over all; more teach little
_FOLDS = 5
_VARIANTS, _SHIFT = 4, 0.15  # attributes are measured with edges moved by up to this share, as predicted edges are
_STEPS, _LR = 120, 0.08
_STARTS = 3  # random ones, of the models of each fold: their mean is surer than each
_WIDTH = 8  # of queries and keys
_MIXED = 0.1  # share of the frequencies in what an attribute group is measured by
_LEAST_UNIT = 0.1  # in which counts are measured; smaller differences are noise
_PENALTY = 0.5  # of squared weights, against the sum of log likelihoods
_MIN_CONSTANT = 3  # sentences of one wording, for a word that is the same in all of them to be part of the wording
_CHANCE = 0.02  # that it is so without being a part of it
_RISK = 0.08  # share of all captions that may be shown and wrong

Words = tuple[str, ...]
_WordingPlace = tuple[int | None, Words, int]


@dataclass(frozen=True, kw_only=True)
class SlotWords:
    """Words that stand in the same places of otherwise equal sentences.

    Attributes:
        words: The words, casefolded and sorted.
        places: Words before and after such places; "^" and "$" at the edges of a sentence.
    """

    words: Words
    places: frozenset[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Slots:
    """All places of one kind of slot in the training sentences.

    Attributes:
        sentence: int64 [S], sentence of each.
        clip: int64 [S], event that the sentence describes.
        target: int64 [S], index of the true word.
        contexts: What surrounds each.
        place: Label, words with slots, and position of each; equal in sentences of one wording.
    """

    sentence: Array
    clip: Array
    target: Array
    contexts: list[list[str]]
    place: list[_WordingPlace]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Events:
    """Standardised attributes of all training events, `_VARIANTS` times with other edges.

    Attributes:
        objects: float32 [V,n,N,A].
        mask: bool [V,n,N].
        counts: float32 [V,n,8 C].
        mean, std: float32 [A + 8 C].
        folds: int64 [n], fold of each event; recordings are not divided.
    """

    objects: Tensor
    mask: Tensor
    counts: Tensor
    mean: Tensor
    std: Tensor
    folds: Tensor


def ground_captions(
    clips: list[CaptionedClip], loaded: LoadedFeatures, *, seed: int
) -> tuple[Grounding | None, list[CaptionedClip]]:
    """Find slots in training sentences and learn to fill them.

    Args:
        clips: Clips to learn from.
        loaded: Features of their recordings.
        seed: Random seed.

    Returns:
        The grounding, None if attributes tell no word, or if sentences use the characters that stand for slots; and
        the clips, their sentences with slots.
    """
    if any(has_slots(text) for clip in clips for text in clip.sentences):
        return None, clips
    count = sum(len(clip.sentences) for clip in clips)
    sample = clips[:: math.ceil(count / _MAX_SENTENCES) or 1]
    sentences = [(number, text) for number, clip in enumerate(sample) for text in clip.sentences]
    labels = [sample[number].label for number, _ in sentences]
    candidates = find_slots([_words(text) for _, text in sentences], labels)
    if not candidates:
        return None, clips
    spec = loaded.feature_spec
    events = _measure(sample, loaded, seed)
    located = _locate(candidates, sentences, labels)
    groups = [_telling_group(slots, kind.words, events, spec) for slots, kind in zip(located, candidates, strict=True)]
    kinds = [(candidate, group) for candidate, group in zip(candidates, groups, strict=True) if group]
    while True:
        slot_words = [kind for kind, _ in kinds]
        located = _locate(slot_words, sentences, labels)
        fixed = frozenset[_WordingPlace]().union(
            *(
                _fixed_places(slots, kind.words, group, events, spec)
                for slots, (kind, group) in zip(located, kinds, strict=True)
            )
        )
        located = _locate(slot_words, sentences, labels, fixed)
        varied = [kind for kind, slots in zip(kinds, located, strict=True) if len(slots.target)]
        if len(varied) == len(kinds):
            break
        kinds = varied  # the words of the others are a part of every wording; without them, wordings differ
    if not kinds:
        return None, clips
    choices, certain, right = [], np.zeros(len(sentences)), np.ones(len(sentences), np.bool_)
    for slots, (kind, group) in zip(located, kinds, strict=True):
        choice, held_out = _fit(slots, kind.words, group, events, spec)
        choices.append(choice)
        np.add.at(certain, slots.sentence, held_out.max(axis=1))
        np.logical_and.at(right, slots.sentence, held_out.argmax(axis=1) == slots.target)
    grounding = Grounding(
        choices=tuple(choices),
        mean=events.mean,
        std=events.std,
        folds=int(events.folds.max()) + 1,
        capitals=all(text[:1] == text[:1].upper() for _, text in sentences),
    )
    has_slot = certain < 0
    grounding = _with_calibration(grounding, np.exp(certain[has_slot]), right[has_slot])
    return grounding, _with_slots(clips, slot_words, fixed)


# --- slots ------------------------------------------------------------------------------------------------------------


def find_slots(sentences: Sequence[Words], labels: Sequence[int | None]) -> list[SlotWords]:
    """Find the words in which sentences of the same label, length and wording differ.

    Sets of words that share words are one kind of slot, so that colours of coats and of cars are learnt together.

    Args:
        sentences: Casefolded words of each sentence.
        labels: Label of each.

    Returns:
        At most `MAX_SLOTS` kinds, the most frequent first.
    """
    alike: dict[tuple[int | None, int], list[list[Words]]] = defaultdict(list)  # groups of sentences of one wording
    for words, label in zip(sentences, labels, strict=True):
        groups = alike[label, len(words)]
        for group in groups:
            if sum(a != b for a, b in zip(words, group[0], strict=True)) <= _MAX_DIFFERENT * len(words):
                group.append(words)
                break
        else:
            groups.append([words])
    found: list[tuple[set[str], set[tuple[str, str]], int]] = []
    for group in (group for groups in alike.values() for group in groups):
        for position, column in enumerate(zip(*group, strict=True)):
            if len(set(column)) > 1:
                found = _merge(found, set(column), {_place(words, position) for words in group}, len(group))
    found = sorted(found, key=lambda kind: (-kind[2], sorted(kind[0])))[:MAX_SLOTS]
    # A word may be the same in a whole wording by chance, or be a part of it: `_fixed_places` tells.
    for group in (group for groups in alike.values() for group in groups if len(group) >= _MIN_CONSTANT):
        for kind_words, places, _ in found:
            places |= {
                _place(words, position) for words in group for position, word in enumerate(words) if word in kind_words
            }
    return [SlotWords(words=tuple(sorted(words)), places=frozenset(places)) for words, places, _ in found]


def _merge(
    found: list[tuple[set[str], set[tuple[str, str]], int]], words: set[str], places: set[tuple[str, str]], count: int
) -> list[tuple[set[str], set[tuple[str, str]], int]]:
    others = []
    for kind in found:
        shared = words & kind[0]
        if len(shared) >= 2 or (shared and (words <= kind[0] or kind[0] <= words)):
            words, places, count = words | kind[0], places | kind[1], count + kind[2]
        else:
            others.append(kind)
    return [*others, (words, places, count)]


def _place(words: Sequence[str], position: int) -> tuple[str, str]:
    before = words[position - 1] if position else "^"
    return before, words[position + 1] if position + 1 < len(words) else "$"


def _words(text: str) -> Words:
    return tuple(match.group().casefold() for match in split_words(text))


def insert_slots(
    text: str,
    slot_words: Sequence[SlotWords],
    label: int | None = None,
    fixed: frozenset[_WordingPlace] = frozenset(),
) -> str:
    """Return a sentence with slots for the words that stand where such words may.

    Args:
        text: The sentence.
        slot_words: Kinds of slots.
        label: Label of the event; None if unknown.
        fixed: Places of wordings, in sentences with all slots, whose words stay.
    """
    number_of = {word: number for number, kind in enumerate(slot_words) for word in kind.words}
    matches = split_words(text)
    words = _words(text)
    slots = [number_of.get(word) for word in words]
    for position, number in enumerate(slots):
        if number is not None and _place(words, position) not in slot_words[number].places:
            slots[position] = None
    wording = tuple(word if number is None else mark(number) for word, number in zip(words, slots, strict=True))
    pieces, end = [], 0
    for position, (match, number) in enumerate(zip(matches, slots, strict=True)):
        if number is not None and (label, wording, position) not in fixed:
            pieces += [text[end : match.start()], mark(number)]
            end = match.end()
    return "".join([*pieces, text[end:]])


def _with_slots(
    clips: list[CaptionedClip], slot_words: Sequence[SlotWords], fixed: frozenset[_WordingPlace]
) -> list[CaptionedClip]:
    changed = []
    for clip in clips:
        texts = dict.fromkeys(insert_slots(text, slot_words, clip.label, fixed) for text in clip.sentences)
        changed.append(replace(clip, sentences=tuple(texts)))
    return changed


def _locate(
    slot_words: Sequence[SlotWords],
    sentences: Sequence[tuple[int, str]],
    labels: Sequence[int | None],
    fixed: frozenset[_WordingPlace] = frozenset(),
) -> list[_Slots]:
    """Return where each kind of slot stands in the sentences."""
    rows: list[list[tuple[int, int, int, list[str], _WordingPlace]]] = [[] for _ in slot_words]
    for number, (clip, text) in enumerate(sentences):
        label = labels[number]
        true, words = _words(text), _words(insert_slots(text, slot_words, label, fixed))
        for position, word in enumerate(words):
            if word != true[position]:
                kind = ord(word) - ord(mark(0))
                target = slot_words[kind].words.index(true[position])
                place = (label, words, position)
                rows[kind].append((number, clip, target, contexts(words, position, label), place))
    return [
        _Slots(
            sentence=np.array([row[0] for row in of_kind], np.int64),
            clip=np.array([row[1] for row in of_kind], np.int64),
            target=np.array([row[2] for row in of_kind], np.int64),
            contexts=[row[3] for row in of_kind],
            place=[row[4] for row in of_kind],
        )
        for of_kind in rows
    ]


def _fixed_places(
    slots: _Slots, words: Words, group: str, events: _Events, spec: FeatureSpec
) -> frozenset[_WordingPlace]:
    """Return places where a word is a part of the wording, as it never changes there.

    "One from the left, one from the right": such words stay, and tell which object the slots around them are about.
    In a few sentences a word may be the same by chance. Then it stays if attributes tell it worse.
    """
    rows_of = defaultdict(list)
    for row, place in enumerate(slots.place):
        rows_of[place].append(row)
    share = np.bincount(slots.target, minlength=len(words)) / max(len(slots.target), 1)
    fixed, doubtful = set(), []
    for place, rows in rows_of.items():
        if len(rows) >= _MIN_CONSTANT and len(set(slots.target[rows])) == 1:
            if share[slots.target[rows[0]]] ** (len(rows) - 1) < _CHANCE:
                fixed.add(place)
            else:
                doubtful.append((place, rows))
    if doubtful:
        _, held_out = _fit(slots, words, group, events, spec)
        for place, rows in doubtful:
            constant = np.log(len(rows) / (len(rows) + len(words) - 1))  # add-one estimate of each from the others
            if held_out[rows, slots.target[rows]].mean() < constant:
                fixed.add(place)
    return frozenset(fixed)


# --- attributes -------------------------------------------------------------------------------------------------------


def _measure(clips: list[CaptionedClip], loaded: LoadedFeatures, seed: int) -> _Events:
    """Measure the attributes of events, first with their own edges, then with moved ones."""
    rng = np.random.default_rng((seed, 4))  # the last number keeps streams of random numbers apart
    spec = loaded.feature_spec
    objects, counts = [], []
    for variant in range(_VARIANTS):
        for clip in clips:
            features = loaded.features[clip.video]
            first, stop = clip.first, clip.stop
            if variant:
                low, high = (int(n) for n in np.rint((2 * rng.random(2) - 1) * _SHIFT * len(clip)))
                first = min(max(first + low, 0), len(features) - 1)
                stop = min(max(stop + high, first + 1), len(features))
            part = features.frames(first, stop)
            objects.append(torch.from_numpy(object_attributes(part, spec)))
            counts.append(torch.from_numpy(count_attributes(part, spec)))
    sizes = torch.tensor([max(len(rows), 1) for rows in objects])
    padded = torch.nn.utils.rnn.pad_sequence(objects, batch_first=True)
    mask = torch.arange(padded.shape[1]) < sizes[:, None]
    counted = torch.stack(counts)
    mean = torch.cat([padded[mask].mean(dim=0), counted.mean(dim=0)])
    std = torch.cat([padded[mask].std(dim=0, correction=0), counted.std(dim=0, correction=0)])
    std = torch.where(std > 1e-4, std, 1.0)
    width = padded.shape[2]
    padded = standardize(padded, mean[:width], std[:width])
    counted = standardize(counted, mean[width:], std[width:])
    videos = {video: index for index, video in enumerate(sorted({clip.video for clip in clips}))}
    shuffled = np.random.default_rng((seed, 5)).permutation(len(videos)) % _FOLDS
    has_folds = all(clip.fold >= 0 for clip in clips)
    own = [clip.fold if has_folds else int(shuffled[videos[clip.video]]) for clip in clips]
    return _Events(
        objects=padded.view(_VARIANTS, len(clips), *padded.shape[1:]),
        mask=mask.view(_VARIANTS, len(clips), -1),
        counts=counted.view(_VARIANTS, len(clips), -1),
        mean=mean,
        std=std,
        folds=torch.tensor(own),
    )


# --- fitting ----------------------------------------------------------------------------------------------------------


def _telling_group(slots: _Slots, words: Words, events: _Events, spec: FeatureSpec) -> str | None:
    """Return the attribute group that tells the words of a slot best in held-out recordings, None if none does.

    A group counts by how much likelier the words are to its model, mixed with a tenth of their frequencies, than to the
    frequencies alone. Without these, a model that is right nine times in ten but too sure of the tenth would seem to
    tell less than one that is right three times in four.
    """
    if len(slots.target) < _MIN_SLOTS:
        return None
    rows = np.arange(len(slots.target))
    baseline = _frequencies(slots, len(words), events.folds.numpy())[rows, slots.target]
    best, best_gain = None, 0.0
    for group in (*attribute_groups(spec), COUNTS):
        _, held_out = _fit(slots, words, group, events, spec, screening=True)
        gain = np.logaddexp(held_out[rows, slots.target] - baseline + math.log(1 - _MIXED), math.log(_MIXED))
        error = gain.std() / np.sqrt(len(gain))
        if gain.mean() > max(2 * error, best_gain):
            best, best_gain = group, float(gain.mean())
    return best


def _frequencies(slots: _Slots, words: int, folds: Array) -> Array:
    """Return the held-out log frequency of each word in slots with the same neighbours: float64 [S,words]."""
    places = [" ".join(names[:3]) for names in slots.contexts]
    place = np.unique(places, return_inverse=True)[1]
    fold = folds[slots.clip]
    result = np.zeros((len(place), words))
    for row in range(len(place)):
        same = (place == place[row]) & (fold != fold[row])
        counts = np.bincount(slots.target[same], minlength=words) + 1.0
        result[row] = np.log(counts / counts.sum())
    return result


def _fit(
    slots: _Slots, words: Words, group: str, events: _Events, spec: FeatureSpec, *, screening: bool = False
) -> tuple[WordChoice, Array]:
    """Fit a model per fold of recordings, each to the slots of the other folds, all at once.

    Returns:
        The models, and the log probabilities of the words in each slot by the model that has not learnt from it,
        float64 [S,words].
    """
    known = sorted({name for names in slots.contexts for name in names})
    index = {name: row + 1 for row, name in enumerate(known)}
    has_context = torch.zeros(len(slots.contexts), len(known) + 1)
    for row, names in enumerate(slots.contexts):
        has_context[row, [index[name] for name in names]] = 1.0
    clip, target = torch.from_numpy(slots.clip), torch.from_numpy(slots.target)
    fold = events.folds % 2 if screening and len(slots.target) > _FEW_SLOTS else events.folds
    starts = 1 if screening else _STARTS
    folds = starts * (int(fold.max()) + 1)
    learns = fold[clip] != torch.arange(folds)[:, None] // starts  # [K,S]
    selecting = torch.from_numpy(selecting_columns(spec))
    columns = None if group == COUNTS else attribute_groups(spec)[group]
    keys = [events.objects[v][clip][..., selecting] for v in range(_VARIANTS)]
    masks = [events.mask[v][clip] for v in range(_VARIANTS)]
    values = [
        events.counts[v][clip] if columns is None else events.objects[v][clip][..., columns] for v in range(_VARIANTS)
    ]

    width = values[0].shape[-1]
    offset, unit, used = torch.zeros(width), torch.ones(width), torch.ones(folds, width)
    if columns is None:  # these events may count far more objects than others do
        offset, unit = values[0].mean(dim=0), values[0].std(dim=0, correction=0).clamp(min=_LEAST_UNIT)
        values = [(counted - offset) / unit for counted in values]
        used = counted_class(values[0], target, learns, spec.classes)

    generator = torch.Generator().manual_seed(0)
    query = (0.1 * torch.randn(folds, len(known) + 1, _WIDTH, generator=generator)).requires_grad_()
    key = (torch.randn(folds, len(selecting), _WIDTH, generator=generator) * len(selecting) ** -0.5).requires_grad_()
    weight = torch.zeros(folds, width, len(words), requires_grad=True)
    bias = torch.zeros(folds, len(words), requires_grad=True)
    optimizer = torch.optim.Adam([query, key, weight, bias], lr=_LR)
    choice = WordChoice(words=words, group=group, contexts=tuple(known), query=query, key=key, weight=weight, bias=bias)
    for step in range(_STEPS):
        optimizer.param_groups[0]["lr"] = _LR * 0.5 * (1 + np.cos(np.pi * step / _STEPS))
        v = step % _VARIANTS
        queries = has_context @ query
        choice = replace(choice, weight=weight * used[..., None])
        log_probabilities = choice.log_probabilities(queries, keys[v], masks[v], values[v])
        losses = -log_probabilities.gather(2, target.expand(folds, -1)[..., None])[..., 0]
        penalty = weight.square().sum() + 0.3 * (key.square().sum() + query.square().sum())
        loss = ((losses * learns).sum() + _PENALTY * penalty) / len(target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        queries = has_context @ query
        log_probabilities = choice.log_probabilities(queries, keys[0], masks[0], values[0])
    own = starts * fold[clip][:, None] + torch.arange(starts)  # the models that have not learnt from each slot
    held_out = log_probabilities[own.T, torch.arange(len(clip))].double().logsumexp(dim=0).numpy() - np.log(starts)
    full = torch.zeros(folds, events.objects.shape[3], _WIDTH)
    full[:, selecting] = key.detach()
    weight = choice.weight.detach() / unit[..., None]
    bias = bias.detach() - (offset[..., None] * weight).sum(dim=1)
    choice = replace(choice, query=query.detach(), key=full, weight=weight, bias=bias)
    return choice, held_out


def counted_class(counts: Tensor, target: Tensor, learns: Tensor, classes: int) -> Tensor:
    """Return the columns of the class whose number tells the words best, for each model: float32 [K,columns].

    Args:
        counts: float32 [S,columns].
        target: int64 [S], index of the true word.
        learns: bool [K,S], slots that each model learns from.
        classes: C, number of classes; the last dimension of the columns.
    """
    used = torch.zeros(len(learns), counts.shape[1])
    for model, rows in enumerate(learns):
        own = counts[rows] - counts[rows].mean(dim=0)
        words = torch.nn.functional.one_hot(target[rows]).float()
        between = ((words.T @ own).square() / words.sum(dim=0).clamp(min=1.0)[:, None]).sum(dim=0)
        explained = between / own.square().sum(dim=0).clamp(min=1e-6)
        used[model].view(-1, classes)[:, explained.view(-1, classes).amax(dim=0).argmax()] = 1.0
    return used


def _with_calibration(grounding: Grounding, certain: Array, right: Array) -> Grounding:
    """Fit the calibration and the threshold of captions.

    Args:
        grounding: The grounding.
        certain: float64 [n], probability of the most probable words of a held-out sentence.
        right: bool [n], whether they are the true ones.
    """
    scale, bias = (round(value, 6) for value in fit_platt(certain, right))
    # The most certain captions are shown, as many as keep the expected number of wrong ones within the risk.
    probability = np.sort([platt(float(p), scale, bias) for p in certain])[::-1]
    shown = int((np.cumsum(1 - probability) <= _RISK * len(probability)).sum())
    threshold = 0.0 if shown == len(probability) else float(probability[max(shown - 1, 0) : shown + 1].mean())
    return replace(grounding, scale=scale, bias=bias, threshold=round(threshold, 6))
