"""Sentences of the demo: from scene descriptions to English sentences, and back to check captions.

All wordings of an event kind state the same attributes, and no sentence has two readings. So a caption that is one of
these sentences is right or wrong, attribute by attribute.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from unicodedata import normalize

WORDINGS = 5  # sentences per event kind
CAPTION_ATTRIBUTES = ("objects", "event", "directions")

_COLOURS = ("red", "blue", "green", "yellow", "white", "black")
_DIRECTIONS = ("left", "right")
ATTRIBUTE_VALUES: dict[str, tuple[str, ...]] = {
    "coat": _COLOURS,
    "coat2": _COLOURS,
    "bag": _COLOURS,
    "car": _COLOURS,
    "count": ("three", "four", "five"),
    "direction": _DIRECTIONS,
    "car_direction": _DIRECTIONS,
}


@dataclass(frozen=True, kw_only=True)
class SceneDescription:
    """Content of a sentence, independent of language and wording.

    Attributes:
        kind: Event kind.
        attributes: Values by name of `ATTRIBUTE_VALUES`: colours of `coat`, `coat2` (of the person coming from the
            right), `bag` and `car`; `count` of people; where people (`direction`) and cars (`car_direction`) go. For an
            event of a car alone, `direction` is the car's.
    """

    kind: str
    attributes: Mapping[str, str]

    @property
    def objects(self) -> tuple[tuple[str, str], ...]:
        """Each object with its colour, or with the number of people; sorted."""
        classes = {"coat": "person", "coat2": "person", "count": "person", "car": "car", "bag": "bag"}
        return tuple(sorted((classes[name], value) for name, value in self.attributes.items() if name in classes))

    @property
    def directions(self) -> tuple[tuple[str, str], ...]:
        """Where each moving object goes; for two people who meet, where each comes from."""
        if self.kind == "meet":
            return (("from left", self.attributes["coat"]), ("from right", self.attributes["coat2"]))
        movers = {"direction": "car" if self.kind == "car_stops" else "person", "car_direction": "car"}
        return tuple(sorted((movers[name], value) for name, value in self.attributes.items() if name in movers))


def _field_names(template: str) -> list[str]:
    return re.findall(r"{(\w+)}", template)


def _normalize(sentence: str) -> str:
    return re.sub(r"\s+", " ", normalize("NFC", sentence)).strip().rstrip(".!。 ").casefold()


class SentenceTemplates:
    """Sentences of one language.

    Args:
        templates: `WORDINGS` format strings per event kind, with attribute names as fields. Wording n has the same
            meaning in every language.
        words: How this language writes attribute values, for those that differ from `ATTRIBUTE_VALUES`.
    """

    def __init__(self, templates: Mapping[str, tuple[str, ...]], words: Mapping[str, str] | None = None) -> None:
        self.templates = templates
        self._words = words or {}
        self._patterns = [
            (kind, self._pattern(template)) for kind, wordings in templates.items() for template in wordings
        ]

    def format(self, description: SceneDescription, wording: int) -> str:
        """Return the sentence for a description in one of the `WORDINGS` wordings."""
        words = {name: self._words.get(value, value) for name, value in description.attributes.items()}
        sentence = self.templates[description.kind][wording].format(**words)
        return sentence[0].upper() + sentence[1:]

    def parse(self, sentence: str) -> SceneDescription | None:
        """Return the description that a sentence states; None if `format` does not produce this sentence.

        Case, repeated spaces and the final period are ignored.
        """
        normalized = _normalize(sentence)
        for kind, pattern in self._patterns:
            if match := pattern.fullmatch(normalized):
                attributes = {
                    name: next(value for value in ATTRIBUTE_VALUES[name] if self._words.get(value, value) == word)
                    for name, word in match.groupdict().items()
                }
                return SceneDescription(kind=kind, attributes=attributes)
        return None

    def _pattern(self, template: str) -> re.Pattern[str]:
        pattern = re.escape(_normalize(template))
        for name in _field_names(template):
            words = (re.escape(self._words.get(value, value)) for value in ATTRIBUTE_VALUES[name])
            pattern = pattern.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>{'|'.join(words)})")
        return re.compile(pattern)


_TEMPLATES = {
    "leaves_bag": (
        "A person in a {coat} coat leaves a {bag} bag and walks off to the {direction}.",
        "Someone in a {coat} coat puts down a {bag} bag and goes away to the {direction}.",
        "A {bag} bag is left behind by a person in {coat}, who walks off to the {direction}.",
        "Someone in {coat} sets a {bag} bag on the ground and heads {direction} without it.",
        "After putting a {bag} bag down, a person dressed in {coat} goes off to the {direction}.",
    ),
    "picks_up_bag": (
        "A person in a {coat} coat picks up a {bag} bag and walks off to the {direction}.",
        "Someone in a {coat} coat takes a {bag} bag away to the {direction}.",
        "A {bag} bag is picked up by a person in {coat}, who walks off to the {direction}.",
        "Someone in {coat} lifts a {bag} bag off the ground and heads {direction} with it.",
        "After picking a {bag} bag up, a person dressed in {coat} goes off to the {direction}.",
    ),
    "person_then_car": (
        "A person in a {coat} coat walks past to the {direction}, then a {car} car drives by to the {car_direction}.",
        "First someone in {coat} passes to the {direction}, and after that a {car} car to the {car_direction}.",
        "Someone in a {coat} coat walks {direction}, and a {car} car follows, driving {car_direction}.",
        "Before a {car} car drives {car_direction}, a person in {coat} walks {direction}.",
        "A {car} car heading {car_direction} comes after a person dressed in {coat} who walks to the {direction}.",
    ),
    "car_then_person": (
        "A {car} car drives by to the {car_direction}, then a person in a {coat} coat walks past to the {direction}.",
        "First a {car} car passes to the {car_direction}, and after that someone in {coat} to the {direction}.",
        "A {car} car drives {car_direction}, and someone in a {coat} coat follows, walking {direction}.",
        "Before a person in {coat} walks {direction}, a {car} car drives {car_direction}.",
        "A person dressed in {coat} who walks to the {direction} comes after a {car} car heading {car_direction}.",
    ),
    "runs": (
        "A person in a {coat} coat runs across to the {direction}.",
        "Someone in {coat} runs past to the {direction}.",
        "A runner in a {coat} coat crosses to the {direction}.",
        "Someone dressed in {coat} hurries {direction} at a run.",
        "A person in {coat} is running to the {direction}.",
    ),
    "meet": (
        "Two people meet and stop: one in {coat} from the left, one in {coat2} from the right.",
        "A person in {coat} from the left meets a person in {coat2} from the right, and they stop.",
        "Someone in {coat} coming from the left stops to meet someone in {coat2} from the right.",
        "A person in a {coat2} coat from the right and one in a {coat} coat from the left meet and stand still.",
        "Someone in {coat2} comes from the right, someone in {coat} from the left, and they stop where they meet.",
    ),
    "group_passes": (
        "A group of {count} people walks by to the {direction}.",
        "There are {count} people passing together to the {direction}.",
        "{count} people walk {direction} as a group.",
        "A group walks past to the {direction}: {count} people in all.",
        "Going {direction}, {count} people walk by together.",
    ),
    "car_stops": (
        "A {car} car on its way to the {direction} stops for a moment and drives on.",
        "On its way to the {direction}, a {car} car stops and then drives on.",
        "A {car} car heading {direction} halts briefly before it goes on.",
        "A {car} car driving to the {direction} makes a short stop and drives on.",
        "After a short stop, a {car} car drives on to the {direction}.",
    ),
}
ENGLISH = SentenceTemplates(_TEMPLATES)


def attribute_options(kind: str) -> dict[str, tuple[str, ...]]:
    """Return the attributes that sentences of an event kind state, each with its possible values."""
    return {name: ATTRIBUTE_VALUES[name] for name in sorted(_field_names(ENGLISH.templates[kind][0]))}


# --- accuracy of captions -------------------------------------------------------------------------------------------


def check_caption(
    caption: str | None, truth: SceneDescription, language: SentenceTemplates = ENGLISH
) -> dict[str, bool]:
    """Return whether each of `CAPTION_ATTRIBUTES` is right, and under "all" whether every one is.

    A caption that is None, or not a sentence of the language, has nothing right.
    """
    description = language.parse(caption or "")
    if description is None:
        return dict.fromkeys(("all", *CAPTION_ATTRIBUTES), False)
    is_right = {
        "objects": description.objects == truth.objects,
        "event": description.kind == truth.kind,
        "directions": description.directions == truth.directions,
    }
    return {"all": all(is_right.values()), **is_right}


def attribute_accuracy(
    captions: Sequence[str | None], truths: Sequence[SceneDescription], language: SentenceTemplates = ENGLISH
) -> dict[str, float]:
    """Return the share of captions with each of `CAPTION_ATTRIBUTES` right, and with every one right ("all"); 0 to 1.

    Raises:
        ValueError: No captions, or not as many as truths.
    """
    if not truths:
        raise ValueError("attribute_accuracy needs at least one caption")
    checks = [check_caption(caption, truth, language) for caption, truth in zip(captions, truths, strict=True)]
    return {name: sum(check[name] for check in checks) / len(checks) for name in checks[0]}


def value_accuracy(
    captions: Sequence[str | None], truths: Sequence[SceneDescription], language: SentenceTemplates = ENGLISH
) -> dict[str, tuple[float, int]]:
    """Return, per attribute of `SceneDescription`, the share of captions with the right value, and how many count.

    Raises:
        ValueError: Not as many captions as truths.
    """
    is_right: dict[str, list[bool]] = {}
    for caption, truth in zip(captions, truths, strict=True):
        description = language.parse(caption or "")
        for name, value in truth.attributes.items():
            is_right.setdefault(name, []).append(description is not None and description.attributes.get(name) == value)
    return {name: (sum(checks) / len(checks), len(checks)) for name, checks in sorted(is_right.items())}
