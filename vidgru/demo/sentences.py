"""What the demo's sentences say, in English and in Korean, and the way back from a sentence to what it says.

A sentence tells the kind of an event and its attributes: colours, counts, directions. All wordings of a kind tell the
same ones, and no sentence can be read in two ways: so each is right or wrong by the scene, whoever wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal
from unicodedata import normalize

Language = Literal["en", "ko"]
LANGUAGES: tuple[Language, ...] = ("en", "ko")

# Values of attributes as each language puts them. Directions in Korean end alike, so that one particle fits both.
_COLOURS: dict[Language, dict[str, str]] = {
    "en": {colour: colour for colour in ("red", "blue", "green", "yellow", "white", "black")},
    "ko": {
        "red": "빨간색", "blue": "파란색", "green": "초록색", "yellow": "노란색", "white": "흰색", "black": "검은색",
    },
}  # fmt: skip
_COUNTS: dict[Language, dict[str, str]] = {
    "en": {count: count for count in ("three", "four", "five")},
    "ko": {"three": "세", "four": "네", "five": "다섯"},
}
_WAYS: dict[Language, dict[str, str]] = {
    "en": {way: way for way in ("left", "right")},
    "ko": {"left": "왼쪽", "right": "오른쪽"},
}
_VALUES = {
    "coat": _COLOURS, "coat2": _COLOURS, "bag": _COLOURS, "car": _COLOURS, "count": _COUNTS, "way": _WAYS,
    "car_way": _WAYS,
}  # fmt: skip

# Wording n of one language says what wording n of the other says.
WORDINGS = 5
_TEMPLATES: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "leaves_bag": (
            "A person in a {coat} coat leaves a {bag} bag and walks off to the {way}.",
            "Someone in a {coat} coat puts down a {bag} bag and goes away to the {way}.",
            "A {bag} bag is left behind by a person in {coat}, who walks off to the {way}.",
            "Someone in {coat} sets a {bag} bag on the ground and heads {way} without it.",
            "After putting a {bag} bag down, a person dressed in {coat} goes off to the {way}.",
        ),
        "picks_up_bag": (
            "A person in a {coat} coat picks up a {bag} bag and walks off to the {way}.",
            "Someone in a {coat} coat takes a {bag} bag away to the {way}.",
            "A {bag} bag is picked up by a person in {coat}, who walks off to the {way}.",
            "Someone in {coat} lifts a {bag} bag off the ground and heads {way} with it.",
            "After picking a {bag} bag up, a person dressed in {coat} goes off to the {way}.",
        ),
        "person_then_car": (
            "A person in a {coat} coat walks past to the {way}, then a {car} car drives by to the {car_way}.",
            "First someone in {coat} passes to the {way}, and after that a {car} car to the {car_way}.",
            "Someone in a {coat} coat walks {way}, and a {car} car follows, driving {car_way}.",
            "Before a {car} car drives {car_way}, a person in {coat} walks {way}.",
            "A {car} car heading {car_way} comes after a person dressed in {coat} who walks to the {way}.",
        ),
        "car_then_person": (
            "A {car} car drives by to the {car_way}, then a person in a {coat} coat walks past to the {way}.",
            "First a {car} car passes to the {car_way}, and after that someone in {coat} to the {way}.",
            "A {car} car drives {car_way}, and someone in a {coat} coat follows, walking {way}.",
            "Before a person in {coat} walks {way}, a {car} car drives {car_way}.",
            "A person dressed in {coat} who walks to the {way} comes after a {car} car heading {car_way}.",
        ),
        "runs": (
            "A person in a {coat} coat runs across to the {way}.",
            "Someone in {coat} runs past to the {way}.",
            "A runner in a {coat} coat crosses to the {way}.",
            "Someone dressed in {coat} hurries {way} at a run.",
            "A person in {coat} is running to the {way}.",
        ),
        "meet": (
            "Two people meet and stop: one in {coat} from the left, one in {coat2} from the right.",
            "A person in {coat} from the left meets a person in {coat2} from the right, and they stop.",
            "Someone in {coat} coming from the left stops to meet someone in {coat2} from the right.",
            "A person in a {coat2} coat from the right and one in a {coat} coat from the left meet and stand still.",
            "Someone in {coat2} comes from the right, someone in {coat} from the left, and they stop where they meet.",
        ),
        "group_passes": (
            "A group of {count} people walks by to the {way}.",
            "There are {count} people passing together to the {way}.",
            "{count} people walk {way} as a group.",
            "A group walks past to the {way}: {count} people in all.",
            "Going {way}, {count} people walk by together.",
        ),
        "car_stops": (
            "A {car} car on its way to the {way} stops for a moment and drives on.",
            "On its way to the {way}, a {car} car stops and then drives on.",
            "A {car} car heading {way} halts briefly before it goes on.",
            "A {car} car driving to the {way} makes a short stop and drives on.",
            "After a short stop, a {car} car drives on to the {way}.",
        ),
    },
    "ko": {
        "leaves_bag": (
            "{coat} 코트를 입은 사람이 {bag} 가방을 두고 {way}으로 걸어간다.",
            "{coat} 코트를 입은 누군가가 {bag} 가방을 내려놓고 {way}으로 떠난다.",
            "{bag} 가방을 남겨 둔 채 {coat} 옷을 입은 사람이 {way}으로 걸어간다.",
            "{coat} 옷차림의 누군가가 {bag} 가방을 바닥에 놓고 빈손으로 {way}을 향해 간다.",
            "{bag} 가방을 내려놓은 뒤 {coat} 옷을 입은 사람이 {way}으로 자리를 뜬다.",
        ),
        "picks_up_bag": (
            "{coat} 코트를 입은 사람이 {bag} 가방을 집어 들고 {way}으로 걸어간다.",
            "{coat} 코트를 입은 누군가가 놓여 있던 {bag} 가방을 가지고 {way}으로 떠난다.",
            "놓여 있던 {bag} 가방을 {coat} 옷을 입은 사람이 주워서 {way}으로 걸어간다.",
            "{coat} 옷차림의 누군가가 바닥에서 {bag} 가방을 들어 올려 {way}을 향해 간다.",
            "{bag} 가방을 집어 든 뒤 {coat} 옷을 입은 사람이 {way}으로 자리를 뜬다.",
        ),
        "person_then_car": (
            "{coat} 코트를 입은 사람이 {way}으로 걸어서 지나간 다음, {car} 자동차가 {car_way}으로 지나간다.",
            "먼저 {coat} 옷을 입은 누군가가 {way}으로 지나가고, 그 뒤에 {car} 자동차가 {car_way}으로 지나간다.",
            "{coat} 코트를 입은 누군가가 {way}으로 걸어가고, 이어서 {car} 자동차가 {car_way}으로 달려간다.",
            "{car} 자동차가 {car_way}으로 달려가기 전에 {coat} 옷을 입은 사람이 {way}으로 걸어간다.",
            "{coat} 옷차림의 사람이 {way}으로 걸어간 뒤에 {car} 자동차가 {car_way}으로 달려간다.",
        ),
        "car_then_person": (
            "{car} 자동차가 {car_way}으로 지나간 다음, {coat} 코트를 입은 사람이 {way}으로 걸어서 지나간다.",
            "먼저 {car} 자동차가 {car_way}으로 지나가고, 그 뒤에 {coat} 옷을 입은 누군가가 {way}으로 지나간다.",
            "{car} 자동차가 {car_way}으로 달려가고, 이어서 {coat} 코트를 입은 누군가가 {way}으로 걸어간다.",
            "{coat} 옷을 입은 사람이 {way}으로 걸어가기 전에 {car} 자동차가 {car_way}으로 달려간다.",
            "{car} 자동차가 {car_way}으로 달려간 뒤에 {coat} 옷차림의 사람이 {way}으로 걸어간다.",
        ),
        "runs": (
            "{coat} 코트를 입은 사람이 {way}으로 뛰어서 가로질러 간다.",
            "{coat} 옷을 입은 누군가가 {way}으로 뛰어서 지나간다.",
            "{coat} 코트를 입고 뛰는 사람이 {way}으로 가로질러 간다.",
            "{coat} 옷차림의 누군가가 {way}으로 급히 뛰어간다.",
            "{coat} 옷을 입은 사람이 {way}으로 뛰어가고 있다.",
        ),
        "meet": (
            "두 사람이 만나 멈춰 서는데, 왼쪽에서 온 사람은 {coat} 옷을, 오른쪽에서 온 사람은 {coat2} 옷을 입었다.",
            "왼쪽에서 온 {coat} 옷을 입은 사람이 오른쪽에서 온 {coat2} 옷을 입은 사람을 만나 멈춰 선다.",
            "왼쪽에서 오던 {coat} 옷차림의 사람이 멈춰 서서 오른쪽에서 온 {coat2} 옷차림의 사람을 만난다.",
            "오른쪽에서 온 {coat2} 코트를 입은 사람과 왼쪽에서 온 {coat} 코트를 입은 사람이 만나 가만히 서 있다.",
            "오른쪽에서는 {coat2} 옷을 입은 사람이, 왼쪽에서는 {coat} 옷을 입은 사람이 와서 서로 만나 멈춰 선다.",
        ),
        "group_passes": (
            "{count} 명으로 이루어진 무리가 {way}으로 걸어간다.",
            "{count} 명의 사람이 함께 {way}으로 지나가고 있다.",
            "사람 {count} 명이 무리를 지어 {way}으로 걸어간다.",
            "한 무리가 {way}으로 지나가는데, 모두 {count} 명이다.",
            "{way}을 향해 {count} 사람이 함께 걸어간다.",
        ),
        "car_stops": (
            "{way}으로 가던 {car} 자동차가 잠시 멈췄다가 다시 출발한다.",
            "{way}으로 가는 길에 {car} 자동차가 멈춰 섰다가 다시 달린다.",
            "{way}을 향하던 {car} 자동차가 잠깐 멈춘 뒤 계속 간다.",
            "{way}으로 달리던 {car} 자동차가 잠깐 섰다가 다시 달린다.",
            "잠시 멈춘 뒤 {car} 자동차가 {way}으로 다시 출발한다.",
        ),
    },
}


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a sentence says, whichever its language and wording.

    Attributes:
        kind: of event.
        attributes: in English: colours of `coat`, `coat2` (of who comes from the right), `bag` and `car`; `count` of
            people; where people (`way`) and cars (`car_way`) go to. Of a kind about a car alone, `way` is the car's.
    """

    kind: str
    attributes: Mapping[str, str]

    @property
    def who(self) -> tuple[tuple[str, str], ...]:
        """The objects, each with its colour, or with how many they are; sorted."""
        of = {"coat": "person", "coat2": "person", "count": "person", "car": "car", "bag": "bag"}
        return tuple(sorted((of[name], value) for name, value in self.attributes.items() if name in of))

    @property
    def ways(self) -> tuple[tuple[str, str], ...]:
        """Where each goes to; of two people who meet, where each comes from."""
        if self.kind == "meet":
            return (("from left", self.attributes["coat"]), ("from right", self.attributes["coat2"]))
        mover = "car" if self.kind == "car_stops" else "person"
        of = {"way": mover, "car_way": "car"}
        return tuple(sorted((of[name], value) for name, value in self.attributes.items() if name in of))


def options(kind: str) -> dict[str, tuple[str, ...]]:
    """The attributes that sentences of a kind tell, each with the values it can have, in English."""
    return {name: tuple(_VALUES[name]["en"]) for name in sorted(_names(_TEMPLATES["en"][kind][0]))}


def tell(told: Told, wording: int, language: Language) -> str:
    """The sentence that says so, in one of the `WORDINGS` wordings."""
    words = {name: _VALUES[name][language][value] for name, value in told.attributes.items()}
    sentence = _TEMPLATES[language][told.kind][wording].format(**words)
    return sentence[0].upper() + sentence[1:]


def parse(sentence: str, language: Language) -> Told | None:
    """What a sentence says; None if it is none of the sentences that `tell` gives.

    Case, repeated spaces, and the point at the end do not matter.
    """
    plain = _plain(sentence)
    for kind, pattern, values in _patterns(language):
        if found := pattern.fullmatch(plain):
            return Told(kind=kind, attributes={name: values[name][word] for name, word in found.groupdict().items()})
    return None


def _names(template: str) -> list[str]:
    return re.findall(r"{(\w+)}", template)


def _plain(sentence: str) -> str:
    return re.sub(r"\s+", " ", normalize("NFC", sentence)).strip().rstrip(".!。 ").casefold()


@cache
def _patterns(language: Language) -> list[tuple[str, re.Pattern[str], dict[str, dict[str, str]]]]:
    """Of each template: its kind, what its sentences look like, and by attribute the values that its words mean."""
    patterns = []
    for kind, templates in _TEMPLATES[language].items():
        for template in templates:
            words = {
                name: {word: value for value, word in _VALUES[name][language].items()} for name in _names(template)
            }
            pattern = re.escape(_plain(template))
            for name, meanings in words.items():
                pattern = pattern.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>{'|'.join(map(re.escape, meanings))})")
            patterns.append((kind, re.compile(pattern), words))
    return patterns
