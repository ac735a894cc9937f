"""Every sentence of the demo parses to one description, and captions are right or wrong by the scene."""

from string import Formatter
from unicodedata import normalize

import pytest

from tests.demo.synthetic import all_descriptions
from vidgru.demo.renderer import COLOURS
from vidgru.demo.scenes import EVENT_KINDS
from vidgru.demo.sentences import (
    ATTRIBUTE_VALUES,
    ENGLISH,
    WORDINGS,
    SceneDescription,
    attribute_accuracy,
    attribute_options,
    check_caption,
    value_accuracy,
)

TRUTH = SceneDescription(kind="leaves_bag", attributes={"coat": "red", "bag": "black", "direction": "left"})


def describe(kind: str = "leaves_bag", **attributes: str) -> SceneDescription:
    """Return `TRUTH` with another kind or other attributes."""
    return SceneDescription(kind=kind, attributes={**TRUTH.attributes, **attributes})


def test_sentences_have_one_reading() -> None:
    readings: dict[str, SceneDescription] = {}
    for description in all_descriptions():
        for wording in range(WORDINGS):
            sentence = ENGLISH.format(description, wording)
            assert ENGLISH.parse(sentence) == description, sentence
            assert readings.setdefault(sentence, description) == description
    assert len(readings) == WORDINGS * len(list(all_descriptions()))


def test_templates_state_the_same_attributes_per_kind() -> None:
    assert set(ENGLISH.templates) == set(EVENT_KINDS)
    for kind, templates in ENGLISH.templates.items():
        assert len(set(templates)) == len(templates) == WORDINGS
        for template in templates:
            assert {name for _, name, _, _ in Formatter().parse(template) if name} == set(attribute_options(kind))


def test_attribute_values_match_the_scenes() -> None:
    assert set(ATTRIBUTE_VALUES["coat"]) == set(COLOURS)
    assert attribute_options("runs") == {"coat": tuple(COLOURS), "direction": ("left", "right")}


def test_parse_ignores_case_spaces_and_final_period() -> None:
    description = SceneDescription(kind="meet", attributes={"coat": "red", "coat2": "blue"})
    sentence = ENGLISH.format(description, 1)
    spaced = f" {sentence.replace(' ', '  ')} "
    for variant in (sentence.upper(), sentence.rstrip("."), spaced, normalize("NFD", sentence)):
        assert ENGLISH.parse(variant) == description


def test_parse_returns_none_for_other_sentences() -> None:
    sentence = ENGLISH.format(SceneDescription(kind="runs", attributes={"coat": "red", "direction": "left"}), 0)
    for other in ("", "person: runs, 00:12-00:15", f"{sentence} {sentence}", sentence.replace(" ", "", 1)):
        assert ENGLISH.parse(other) is None


def test_format_capitalizes_sentences() -> None:
    attributes = {"coat": "white", "bag": "black", "direction": "right"}
    description = SceneDescription(kind="leaves_bag", attributes=attributes)
    assert ENGLISH.format(description, 0) == "A person in a white coat leaves a black bag and walks off to the right."
    group = SceneDescription(kind="group_passes", attributes={"count": "four", "direction": "left"})
    assert ENGLISH.format(group, 2) == "Four people walk left as a group."


def test_scene_description_objects_and_directions() -> None:
    attributes = {"coat": "red", "car": "blue", "direction": "left", "car_direction": "right"}
    person_and_car = SceneDescription(kind="car_then_person", attributes=attributes)
    assert person_and_car.objects == (("car", "blue"), ("person", "red"))
    assert person_and_car.directions == (("car", "right"), ("person", "left"))
    car = SceneDescription(kind="car_stops", attributes={"car": "blue", "direction": "left"})
    assert car.directions == (("car", "left"),)
    group = SceneDescription(kind="group_passes", attributes={"count": "five", "direction": "left"})
    assert group.objects == (("person", "five"),)


# --- accuracy of captions ---------------------------------------------------------------------------------------------


def test_check_caption_tells_attributes_apart() -> None:
    all_right = dict.fromkeys(("all", "objects", "event", "directions"), True)
    for wording in range(WORDINGS):
        assert check_caption(ENGLISH.format(TRUTH, wording), TRUTH) == all_right
        for description, wrong in (
            (describe(coat="blue"), "objects"),
            (describe(bag="red"), "objects"),
            (describe("picks_up_bag"), "event"),
            (describe(direction="right"), "directions"),
        ):
            is_right = check_caption(ENGLISH.format(description, wording), TRUTH)
            assert is_right == {**all_right, "all": False, wrong: False}


def test_check_caption_of_meeting_from_wrong_sides() -> None:
    truth, swapped = (
        SceneDescription(kind="meet", attributes={"coat": left, "coat2": right})
        for left, right in (("red", "blue"), ("blue", "red"))
    )
    is_right = check_caption(ENGLISH.format(swapped, 0), truth)
    assert is_right == {"all": False, "objects": True, "event": True, "directions": False}


def test_check_caption_rejects_other_sentences() -> None:
    for text in (None, "", "person, bag: leaves_bag, 00:01-00:05", "A person in a red coat leaves a black dog."):
        assert not any(check_caption(text, TRUTH).values())


def test_attribute_accuracy_is_a_share_of_captions() -> None:
    descriptions = (TRUTH, describe(direction="right"), describe("picks_up_bag"))
    texts = [*(ENGLISH.format(description, n) for n, description in enumerate(descriptions)), None]
    assert attribute_accuracy(texts, [TRUTH] * 4) == {"all": 0.25, "objects": 0.75, "event": 0.5, "directions": 0.5}
    with pytest.raises(ValueError, match="at least one caption"):
        attribute_accuracy([], [])
    with pytest.raises(ValueError, match="zip"):
        attribute_accuracy(texts, [TRUTH])


def test_value_accuracy_counts_each_attribute() -> None:
    runs = SceneDescription(kind="runs", attributes={"coat": "red", "direction": "left"})
    other = describe("picks_up_bag", bag="red")
    texts = [ENGLISH.format(describe(direction="right"), 1), ENGLISH.format(other, 2), None]
    accuracy = value_accuracy(texts, [TRUTH, TRUTH, runs])
    assert accuracy == {"bag": (0.5, 2), "coat": (2 / 3, 3), "direction": (1 / 3, 3)}
