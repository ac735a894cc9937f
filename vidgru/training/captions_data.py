"""Described stretches of recordings: by their frames, as training batches, and as sentences that validation judges."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vidgru.datasets.dataset import Dataset, described_segments
from vidgru.datasets.windows import Batch, Window, collate, epoch_batches, slice_window
from vidgru.model.captioner import CaptionSegment, caption_frames, caption_log_likelihoods, caption_segments
from vidgru.model.checkpoint import CaptionSettings, EventModel, EventTask
from vidgru.model.tokenizer import Tokenizer
from vidgru.training.augment import Augmenter
from vidgru.training.data import Loaded
from vidgru.types import Array

_VALIDATED = 32  # sentences of a batch
_MOST_STEPS = 20_000  # of a batch, padding included
_FEWEST, _PASSES = 48, 4  # batches an epoch at least: a small set is passed over several times, up to so many
_SHIFT = 0.15  # of an event's length: most that its edges are moved in training, for those that are found are not exact
_UNKNOWN = 0.1  # of the sentences are learnt without their label
_JUDGED = 100  # stretches at most that the threshold is fitted on: each is held against the references of all
_WORTH = 0.9  # of the others have to be told apart: who knows directions and guesses colours comes to three quarters
_ROOM = 1.5  # longer than the longest sentence of training by so much a sentence may get


@dataclass(frozen=True, kw_only=True, eq=False)
class DescribedClip:
    """A described stretch by its frames.

    Attributes:
        video: key into `Dataset.recordings`.
        first, stop: its frames, half-open, as they are read: from a little before it.
        timed: whether it has times, or is the whole recording.
        label: index into `Task.labels`; None where the annotations give none.
        sentences: ways to say what happens, at least one.
    """

    video: str
    first: int
    stop: int
    timed: bool
    label: int | None
    sentences: tuple[str, ...]

    def __len__(self) -> int:
        """Number of frames."""
        return self.stop - self.first


def place_described(dataset: Dataset, split: str, times: Mapping[str, Array], task: EventTask) -> list[DescribedClip]:
    """The described stretches of a split, by their frames.

    A stretch that could not be decoded (the tail of a file cut short) is left out, and named on stderr.

    Args:
        dataset: annotations.
        split: its name.
        times: float64 [T] of each recording.
        task: its labels.
    """
    placed = []
    for one in described_segments(dataset, split):
        time_s = times[one.video]
        if not len(time_s):
            continue
        timed = one.start_s is not None and one.end_s is not None
        start_s, end_s = (one.start_s, one.end_s) if timed else (0.0, np.inf)
        assert start_s is not None
        assert end_s is not None
        if start_s > time_s[-1] + np.diff(time_s).max(initial=1.0):
            print(f"left out: {one.video} has no frames from {start_s:g} s on", file=sys.stderr)
            continue
        first, stop = caption_frames(time_s, start_s, end_s)
        label = None if one.label is None else task.labels.index(dataset.labels[one.label])
        placed.append(
            DescribedClip(video=one.video, first=first, stop=stop, timed=timed, label=label, sentences=one.sentences)
        )
    return placed


def caption_of(clips: Sequence[DescribedClip], task: EventTask, tokenizer: Tokenizer | None = None) -> CaptionSettings:
    """How sentences like those of training clips are written.

    Args:
        clips: at least one.
        task: its labels.
        tokenizer: one that is used already; None learns one from the sentences.
    """
    sentences = [sentence for clip in clips for sentence in clip.sentences]
    tokenizer = tokenizer or Tokenizer.train(sentences)
    longest = max(len(tokenizer.encode(sentence)) for sentence in sentences)
    used = {clip.label for clip in clips}
    labels = tuple(label for index, label in enumerate(task.labels) if index in used)
    return CaptionSettings(tokenizer=tokenizer, longest=round(_ROOM * longest) + 1, labels=labels)


def sentence_words(tokenizer: Tokenizer, sentence: str, label: int | None) -> Array:
    """A sentence as the decoder reads and writes it: its label or START, its words, END: int64 [W]."""
    first = Tokenizer.START if label is None else len(tokenizer) + label
    return np.array([first, *tokenizer.encode(sentence), Tokenizer.END], np.int64)


class DescribedBatches:
    """Described stretches of training in batches, each with one of its sentences.

    Args:
        clips: at least one.
        loaded: their features.
        tokenizer: of the sentences.
        size: stretches a batch.
        seed: of the order and of the changes.
        augment: changes stretches; None leaves them.
    """

    def __init__(
        self,
        clips: Sequence[DescribedClip],
        loaded: Loaded,
        tokenizer: Tokenizer,
        *,
        size: int,
        seed: int,
        augment: Augmenter | None,
    ) -> None:
        self._clips, self._loaded, self._tokenizer = clips, loaded, tokenizer
        self._size, self._seed, self._augment = size, seed, augment

    def plan(self, epoch: int) -> list[Array]:
        """Which stretches make up each batch: indices."""
        lengths = [len(clip) for clip in self._clips]
        passes = min(max(round(_FEWEST * self._size / len(lengths)), 1), _PASSES)
        planned: list[Array] = []
        for number in range(passes):
            once = passes * epoch + number
            planned += epoch_batches(lengths, self._size, seed=self._seed, epoch=once, most_steps=_MOST_STEPS)
        return planned

    def window(self, index: int, rng: np.random.Generator) -> Window:
        """What is shown of a stretch, and said of it."""
        clip = self._clips[index]
        features = self._loaded.features[clip.video]
        first, stop = clip.first, clip.stop
        if clip.timed and self._augment:
            low, high = (int(n) for n in np.rint((2 * rng.random(2) - 1) * _SHIFT * len(clip)))
            first = min(max(first + low, 0), len(features) - 1)
            stop = min(max(stop + high, first + 1), len(features))
        sentence = clip.sentences[int(rng.integers(len(clip.sentences)))]
        label = None if rng.random() < _UNKNOWN else clip.label
        window = slice_window(
            features,
            first,
            stop - first,
            words=sentence_words(self._tokenizer, sentence, label),
            source=f"{clip.video}, samples {first} to {stop}",
        )
        return self._augment(window, rng) if self._augment else window


class DescribedValidation:
    """Described stretches held back from training.

    Args:
        clips: at least one.
        loaded: their features.
        tokenizer: of the sentences.
    """

    def __init__(self, clips: Sequence[DescribedClip], loaded: Loaded, tokenizer: Tokenizer) -> None:
        self._clips, self._loaded = clips, loaded
        self._told = [(c, sentence_words(tokenizer, text, c.label)) for c in clips for text in c.sentences]
        lengths = [len(clip) for clip, _ in self._told]
        self._batches = epoch_batches(lengths, _VALIDATED, seed=0, epoch=0, most_steps=_MOST_STEPS)

    @property
    def videos(self) -> list[str]:
        """Recordings, each once."""
        return list(dict.fromkeys(clip.video for clip in self._clips))

    @torch.inference_mode()
    def figures(self, model: EventModel) -> tuple[float, float]:
        """Share of the words that are guessed right behind the true ones before them; and their mean loss."""
        right = words = 0
        loss = 0.0
        for some in self._batches:
            batch = self._batch(some).to(model.network.device)
            assert batch.words is not None
            logits = model.network.caption_logits(batch.objects, batch.counts, batch.frame, batch.mask, batch.words)
            targets = batch.words[:, 1:]
            known = targets >= 0
            right += int((logits.argmax(dim=2) == targets)[known].sum())
            words += int(known.sum())
            loss += float(torch.nn.functional.cross_entropy(logits[known], targets[known], reduction="sum"))
        return right / words, loss / words

    def _batch(self, some: Array) -> Batch:
        told = [self._told[int(index)] for index in some]
        features = self._loaded.features
        return collate([slice_window(features[c.video], c.first, len(c), words=words) for c, words in told])

    def threshold(self, model: EventModel) -> float:
        """The score from which on the model's sentences are told; see `fit_threshold`."""
        number = min(len(self._clips), _JUDGED)
        some = [self._clips[int(index)] for index in np.linspace(0, len(self._clips) - 1, number)]
        stretches = [
            CaptionSegment(
                features=self._loaded.features[one.video].frames(one.first, one.stop),
                label="" if one.label is None else None,  # it is not to know what happens
            )
            for one in some
        ]
        scores = [one.score for one in caption_segments(model, stretches)]
        texts = [one.sentences[0] for one in some]
        likely = caption_log_likelihoods(model, stretches, texts)
        return fit_threshold(scores, understood(likely, texts, [one.label for one in some]))


def understood(likely: Array, texts: Sequence[str], labels: Sequence[int | None]) -> Array:
    """How well what happens in each stretch is told apart from what happens in others of its label.

    A reference counts by how much likelier it is in a stretch than in stretches on the whole, so that neither its
    length nor its wording matters. A model that knows the label and guesses the rest comes to a half.

    Args:
        likely: float64 [n, n], log probability of reference j in stretch i.
        texts: n references; those that read alike are not held against each other.
        labels: of the stretches. One that has its label or its words alone is held against those of other labels.

    Returns:
        float64 [n], the share of the others' references that fit a stretch less than its own does; 1 where there are no
        others.
    """
    fits = likely - likely.mean(axis=0)
    found = np.ones(len(texts))
    for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
        other = np.array([other != text for other in texts])
        alike = other & np.array([other == label for other in labels])
        against = alike if alike.any() else other
        if against.any():
            found[i] = (fits[i, i] > fits[i, against]).mean()
    return found


def fit_threshold(scores: Sequence[float], understanding: Array) -> float:
    """The score from which on sentences are worth telling.

    Each stretch speaks for it, or against it, by how much better or worse it is understood than is asked of a sentence.

    Args:
        scores: of n sentences.
        understanding: float64 [n], as of `understood`.

    Returns:
        0 where all sentences are worth it; halfway between two scores otherwise, or 1 where none is.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    gain = np.concatenate([[0.0], np.cumsum(understanding[order] - _WORTH)])
    number = len(gain) - 1 - int(gain[::-1].argmax())  # of equally good thresholds the lowest
    if number == len(order):
        return 0.0
    if number == 0:
        return 1.0
    return round(float(scores[order[number - 1]] + scores[order[number]]) / 2, 6)
