"""Every sentence of the demo can be read back to what it says, in each language, and in one way only."""

from collections.abc import Iterator
from itertools import product
from string import Formatter
from typing import get_args
from unicodedata import normalize

import pytest

from vidgru.demo import sentences
from vidgru.demo.scene import COLOURS, KINDS
from vidgru.demo.sentences import LANGUAGES, WORDINGS, Language, Told, options, parse, tell

BOTH = pytest.mark.parametrize("language", LANGUAGES)


def everything() -> Iterator[Told]:
    """All that sentences can say."""
    for kind in KINDS:
        names = options(kind)
        for values in product(*names.values()):
            yield Told(kind=kind, attributes=dict(zip(names, values, strict=True)))


@BOTH
def test_every_sentence_says_one_thing(language: Language) -> None:
    said: dict[str, Told] = {}
    for told in everything():
        for wording in range(WORDINGS):
            sentence = tell(told, wording, language)
            assert parse(sentence, language) == told, sentence
            assert said.setdefault(sentence, told) == told
    assert len(said) == WORDINGS * len(list(everything()))


@BOTH
def test_all_wordings_tell_all_attributes_of_their_kind(language: Language) -> None:
    assert set(sentences._TEMPLATES[language]) == set(KINDS)
    for kind, templates in sentences._TEMPLATES[language].items():
        assert len(set(templates)) == len(templates) == WORDINGS
        for template in templates:
            assert {name for _, name, _, _ in Formatter().parse(template) if name} == set(options(kind)), template


def test_values_are_those_of_the_scenes() -> None:
    assert set(options("runs")["coat"]) == set(COLOURS)
    for values in sentences._VALUES.values():
        assert set(values) == set(LANGUAGES) == set(get_args(Language))
        assert len({tuple(words) for words in values.values()}) == 1  # the same keys, in the same order


def test_korean_particles_fit_the_words_before_them() -> None:
    """After a final consonant 을, 이, 은, 과, 으로; after a vowel 를, 가, 는, 와, 로."""
    pairs = {"을": True, "를": False, "이": True, "가": False, "은": True, "는": False, "과": True, "와": False}
    particles = {**pairs, "으로": True, "로": False}
    nouns = {"사람", "가방", "자동차", "누군가", "옷", "코트", "왼쪽", "오른쪽", "무리", "명", "왼쪽에서", "오른쪽에서"}
    checked = 0
    for told in everything():
        for wording in range(WORDINGS):
            for word in tell(told, wording, "ko").rstrip(".").replace(",", "").split():
                noun = next((noun for noun in sorted(nouns, key=len, reverse=True) if word.startswith(noun)), None)
                if noun and (particle := word.removeprefix(noun)) in particles:
                    ends_in_consonant = (ord(noun[-1]) - ord("가")) % 28 != 0
                    assert particles[particle] == ends_in_consonant, word
                    checked += 1
    assert checked > 1000


@BOTH
def test_a_sentence_may_be_spelt_a_little_otherwise(language: Language) -> None:
    told = Told(kind="meet", attributes={"coat": "red", "coat2": "blue"})
    sentence = tell(told, 1, language)
    for other in (
        sentence.upper(),
        sentence.rstrip("."),
        f" {sentence.replace(' ', '  ')} ",
        normalize("NFD", sentence),
    ):
        assert parse(other, language) == told


@BOTH
def test_what_is_none_of_the_sentences_says_nothing(language: Language) -> None:
    sentence = tell(Told(kind="runs", attributes={"coat": "red", "way": "left"}), 0, language)
    for other in ("", "person: runs, 00:12-00:15", f"{sentence} {sentence}", sentence.replace(" ", "", 1)):
        assert parse(other, language) is None
    wrong: Language = "ko" if language == "en" else "en"
    assert parse(sentence, wrong) is None


def test_sentences_of_one_number_are_translations() -> None:
    told = Told(kind="leaves_bag", attributes={"coat": "white", "bag": "black", "way": "right"})
    assert tell(told, 0, "en") == "A person in a white coat leaves a black bag and walks off to the right."
    assert tell(told, 0, "ko") == "흰색 코트를 입은 사람이 검은색 가방을 두고 오른쪽으로 걸어간다."
    assert tell(Told(kind="group_passes", attributes={"count": "four", "way": "left"}), 2, "en").startswith("Four ")


def test_who_and_which_way() -> None:
    both = Told(kind="car_then_person", attributes={"coat": "red", "car": "blue", "way": "left", "car_way": "right"})
    assert both.who == (("car", "blue"), ("person", "red"))
    assert both.ways == (("car", "right"), ("person", "left"))
    assert Told(kind="car_stops", attributes={"car": "blue", "way": "left"}).ways == (("car", "left"),)
    assert Told(kind="group_passes", attributes={"count": "five", "way": "left"}).who == (("person", "five"),)
    one, other = (Told(kind="meet", attributes={"coat": a, "coat2": b}) for a, b in (("red", "blue"), ("blue", "red")))
    assert one.who == other.who
    assert one.ways != other.ways
