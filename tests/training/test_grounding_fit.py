"""Slots of captions: found in sentences, fitted to attributes, and filled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import compute_features
from vidgru.model.grounding import Grounding, contexts, has_slots, mark
from vidgru.training import grounding_fit
from vidgru.training.data import LoadedFeatures
from vidgru.training.examples import CaptionedClip
from vidgru.training.grounding_fit import counted_class, find_slots, ground_captions, insert_slots
from vidgru.types import FrameSequence

FPS, FRAMES = 8.0, 16
RED, BLUE = [0.4, 0.6, 0.5] * 3, [0.3, 0.2, -0.8] * 3
# In the last wording, left is the same for all.
ENGLISH = (
    "A {who} person goes to the {way}.",
    "Someone in {who} walks {way}.",
    "Someone in {who} keeps to the left lane.",
)
KOREAN = (
    "{who} 옷을 입은 사람이 {way}으로 간다.",
    "{way}으로 {who} 옷차림의 누군가가 걷는다.",
    "{who} 옷차림의 누군가가 왼쪽 길로 간다.",
)
WORDS = {"en": ("red", "blue", "left", "right"), "ko": ("빨간색", "파란색", "왼쪽", "오른쪽")}


def scene(colour: list[float], direction: int, seed: int) -> FrameSequence:
    """A person of one colour who walks, and a car of the other colour that stands still."""
    rng = np.random.default_rng(seed)
    x = 0.5 + direction * np.linspace(-0.35, 0.35, FRAMES) + rng.normal(0, 0.005, FRAMES)
    boxes = np.zeros((FRAMES, 2, 4), np.float32)
    boxes[:, 0] = np.stack([x - 0.03, np.full(FRAMES, 0.4), x + 0.03, np.full(FRAMES, 0.6)], axis=1)
    boxes[:, 1] = np.array([0.7, 0.5, 0.9, 0.6]) + rng.normal(0, 0.002, 4)
    other = BLUE if colour is RED else RED
    colours = np.stack([colour, other])[None].repeat(FRAMES, axis=0) + rng.normal(0, 0.05, (FRAMES, 2, len(RED)))
    return FrameSequence(
        time_s=np.arange(FRAMES) / FPS,
        frame_index=np.arange(FRAMES),
        offsets=np.arange(FRAMES + 1) * 2,
        boxes=boxes.reshape(-1, 4),
        scores=np.full(2 * FRAMES, 0.9, np.float16),
        classes=np.tile([0, 2], FRAMES).astype(np.int16),
        tracks=np.tile([4, 9], FRAMES).astype(np.int32),
        colour=colours.reshape(-1, len(RED)).astype(np.float16),
        fps=FPS,
        size_px=(320, 180),
        names=("person", "bicycle", "car"),
    )


def dataset(templates: tuple[str, ...], words: tuple[str, ...], number: int, seed: int) -> tuple[list, LoadedFeatures]:
    rng = np.random.default_rng(seed)
    clips, features = [], {}
    for index in range(number):
        colour, way = rng.integers(2, size=2)
        video = f"{seed}-{index}.mp4"
        sequence = scene((RED, BLUE)[colour], (-1, 1)[way], seed * 1000 + index)
        features[video] = compute_features(sequence)
        text = templates[index % len(templates)].format(who=words[colour], way=words[2 + way])
        clips.append(
            CaptionedClip(
                video=video, first=0, stop=FRAMES, timed=False, label=0, sentences=(text[:1].upper() + text[1:],)
            )
        )
    spec = FeatureSpec.from_sequence(sequence)
    return clips, LoadedFeatures(features=features, feature_spec=spec, names=sequence.names, keys={})


Grounded = tuple[Grounding, list[CaptionedClip], LoadedFeatures]


def ground(language: str) -> Grounded:
    clips, loaded = dataset(ENGLISH if language == "en" else KOREAN, WORDS[language], 36, 1)
    grounding, with_slots = ground_captions(clips, loaded, seed=0)
    assert grounding is not None
    return grounding, with_slots, loaded


@pytest.fixture(scope="module")
def grounded() -> Grounded:
    return ground("en")


def test_slots_are_words_in_which_wordings_differ() -> None:
    texts = ["a man in red runs left .", "a man in blue runs left .", "a man in green runs right .", "it rains ."]
    sentences = [tuple(text.split()) for text in texts]
    slots = find_slots(sentences, [0, 0, 0, 0])
    assert {slot.words for slot in slots} == {("blue", "green", "red"), ("left", "right")}
    assert find_slots(sentences, [0, 1, 2, 0]) == [], "sentences of other labels are not compared"
    # a word is a slot only where it stood in one
    assert (
        insert_slots("A man in Red runs to the left of red.", slots) == f"A man in {mark(0)} runs to the left of red."
    )


def test_contexts_name_rank_and_neighbours() -> None:
    words = ["one", "in", mark(0), ",", "one", "in", mark(0)]
    names = contexts(words, 6, 3)
    assert "rank 3 1/2" in names
    assert "before 3 in" in names
    assert "between in $" in names
    assert not any("," in name for name in names), "a comma ends what is near"


@pytest.mark.parametrize("language", ["en", pytest.param("ko", marks=pytest.mark.slow)])
def test_measured_words_are_filled_in_any_language(language: str, grounded: Grounded) -> None:
    grounding, with_slots, _ = grounded if language == "en" else ground(language)
    assert {choice.group for choice in grounding.choices} == {"colour", "movement"}
    wordings = sorted({clip.sentences for clip in with_slots}, key=lambda texts: texts[0].count(WORDS[language][2]))
    assert len(wordings) == 3, "the three wordings remain"
    assert WORDS[language][2] in wordings[-1][0], "a word that is the same in all of a wording is no slot"
    unseen, loaded = dataset(ENGLISH if language == "en" else KOREAN, WORDS[language], 12, 2)
    for clip, learnt in zip(unseen, with_slots, strict=False):
        sentence = learnt.sentences[0]
        filled = grounding.fill(sentence, 0, loaded.features[clip.video], loaded.feature_spec)
        assert filled.text == clip.sentences[0]
        assert filled.words
        assert all(word in filled.text.casefold() for word in filled.words)
        assert 0.5 < filled.probability <= 1


def test_probability_falls_with_unsure_colours(grounded: Grounded) -> None:
    grounding, with_slots, loaded = grounded
    sentence = with_slots[0].sentences[0]
    between = [(a + b) / 2 for a, b in zip(RED, BLUE, strict=True)]
    sure, unsure = (compute_features(scene(colour, 1, 5)) for colour in (RED, between))
    spec = loaded.feature_spec
    sure_score, unsure_score = (grounding.fill(sentence, 0, f, spec).probability for f in (sure, unsure))
    assert sure_score > unsure_score + 0.1


@pytest.mark.slow
def test_words_that_nothing_tells_stay() -> None:
    clips, loaded = dataset(ENGLISH, WORDS["en"], 20, 3)
    rng = np.random.default_rng(0)
    texts = [f"A {rng.choice(['tall', 'short'])} person waits." for _ in clips]
    clips = [replace(clip, sentences=(text,)) for clip, text in zip(clips, texts, strict=True)]
    grounding, with_slots = ground_captions(clips, loaded, seed=0)
    assert grounding is None
    assert with_slots == clips


def test_words_that_are_a_part_of_every_wording_are_no_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody always drops, someone always lays: without a choice left, there is nothing to fit."""
    clips, loaded = dataset(("Someone lays it there now.", "Somebody drops it there now."), WORDS["en"], 40, seed=1)

    def tells(slots: object, words: tuple[str, ...], *args: object) -> str | None:
        return "movement" if words == ("drops", "lays") else None

    monkeypatch.setattr(grounding_fit, "_telling_group", tells)
    assert find_slots([grounding_fit._words(clip.sentences[0]) for clip in clips], [0] * 40)
    grounding, same = ground_captions(clips, loaded, seed=0)
    assert (grounding, same) == (None, clips)


def test_group_that_is_too_sure_of_few_errors_tells_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Movement is right nine times in ten and always sure, class three times in four and as sure as it may be."""
    clips, loaded = dataset(ENGLISH, WORDS["en"], 40, seed=1)
    events = grounding_fit._measure(clips, loaded, 0)
    number = np.arange(40)
    slots = grounding_fit._Slots(
        sentence=number,
        clip=number,
        target=number % 2,
        contexts=[["a", "b", "c"]] * 40,
        place=[(0, ("goes",), 0)] * 40,
    )
    log_true = {
        "movement": np.where(number % 10 == 0, -9.0, -1e-4),
        "class": np.where(number % 4 == 0, np.log(0.25), np.log(0.75)),
    }

    def fit(slots: object, words: object, group: str, *args: object, screening: bool) -> tuple[None, np.ndarray]:
        true = log_true.get(group, np.full(40, np.log(0.5)))
        log_probabilities = np.log1p(-np.exp(true))[:, None].repeat(2, axis=1)
        log_probabilities[number, number % 2] = true
        return None, log_probabilities

    monkeypatch.setattr(grounding_fit, "_fit", fit)
    assert grounding_fit._telling_group(slots, ("left", "right"), events, loaded.feature_spec) == "movement"
    del log_true["movement"], log_true["class"]
    assert grounding_fit._telling_group(slots, ("left", "right"), events, loaded.feature_spec) is None


def test_unknown_slots_make_no_caption(grounded: Grounded) -> None:
    grounding, with_slots, loaded = grounded
    sentence = with_slots[0].sentences[0].replace(mark(0), mark(9))
    features = loaded.features[with_slots[0].video]
    filled = grounding.fill(sentence, 0, features, loaded.feature_spec)
    assert (filled.text, filled.probability) == (sentence, 0.0)


def test_words_of_a_number_look_at_a_single_class() -> None:
    # 24 columns: 8 figures of each of 3 classes; the second class tells the word
    rng = np.random.default_rng(0)
    counts = torch.from_numpy(rng.normal(0, 1, (20, 24))).float()
    target = torch.arange(20) % 2
    counts[:, 1::3] += 2.0 * target[:, None]
    used = counted_class(counts, target, torch.ones(2, 20, dtype=torch.bool), classes=3)
    assert used.tolist() == [[0.0, 1.0, 0.0] * 8] * 2


def test_sentences_with_characters_of_slots_stay() -> None:
    clips, loaded = dataset(ENGLISH, WORDS["en"], 4, 1)
    clips[3] = replace(clips[3], sentences=(f"A person {mark(2)} walks.",))
    assert ground_captions(clips, loaded, seed=0) == (None, clips)


def test_events_without_objects_are_filled(grounded: Grounded) -> None:
    grounding, with_slots, loaded = grounded
    empty = replace(
        scene(RED, 1, 0),
        offsets=np.zeros(FRAMES + 1, np.int64),
        **{name: getattr(scene(RED, 1, 0), name)[:0] for name in ("boxes", "scores", "classes", "tracks", "colour")},
    )
    filled = grounding.fill(with_slots[0].sentences[0], 0, compute_features(empty), loaded.feature_spec)
    assert not has_slots(filled.text)
    assert 0 <= filled.probability <= 1


def test_grounding_survives_its_file(grounded: Grounded) -> None:
    grounding, with_slots, loaded = grounded
    copy = Grounding.load(grounding.metadata(), grounding.tensors())
    clip = with_slots[0]
    features = loaded.features[clip.video]
    assert copy.fill(clip.sentences[0], 0, features, loaded.feature_spec) == grounding.fill(
        clip.sentences[0], 0, features, loaded.feature_spec
    )
    fewer = grounding.without_fold(0)
    assert len(fewer.choices[0].bias) * grounding.folds == len(grounding.choices[0].bias)
