"""Descriptions are right or wrong by the scene."""

import pytest

from vidgru.demo.attributes import attribute_accuracy, right, value_accuracy
from vidgru.demo.sentences import LANGUAGES, WORDINGS, Language, Told, tell

TRUTH = Told(kind="leaves_bag", attributes={"coat": "red", "bag": "black", "way": "left"})


def changed(kind: str = "leaves_bag", **attributes: str) -> Told:
    return Told(kind=kind, attributes={**TRUTH.attributes, **attributes})


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_attribute_is_told_apart(language: Language) -> None:
    everything = dict.fromkeys(("all", "who", "what", "ways"), True)
    for wording in range(WORDINGS):
        assert right(tell(TRUTH, wording, language), TRUTH, language) == everything
        for told, wrong in (
            (changed(coat="blue"), "who"),
            (changed(bag="red"), "who"),
            (changed("picks_up_bag"), "what"),
            (changed(way="right"), "ways"),
        ):
            found = right(tell(told, wording, language), TRUTH, language)
            assert found == {**everything, "all": False, wrong: False}


def test_people_who_meet_from_the_wrong_sides_are_the_right_ones() -> None:
    meet, swapped = (
        Told(kind="meet", attributes={"coat": a, "coat2": b}) for a, b in (("red", "blue"), ("blue", "red"))
    )
    found = right(tell(swapped, 0, "en"), meet, "en")
    assert found == {"all": False, "who": True, "what": True, "ways": False}


def test_what_cannot_be_held_against_the_scene_is_wrong() -> None:
    for text in (None, "", "person, bag: leaves_bag, 00:01-00:05", "A person in a red coat leaves a black dog."):
        assert not any(right(text, TRUTH, "en").values())


def test_accuracy_is_the_share_of_descriptions() -> None:
    texts = [tell(TRUTH, 0, "ko"), tell(changed(way="right"), 1, "ko"), tell(changed("picks_up_bag"), 2, "ko"), None]
    found = attribute_accuracy(texts, [TRUTH] * 4, "ko")
    assert found == {"all": 0.25, "who": 0.75, "what": 0.5, "ways": 0.5}
    with pytest.raises(ValueError, match="at least one description"):
        attribute_accuracy([], [], "ko")
    with pytest.raises(ValueError, match="zip"):
        attribute_accuracy(texts, [TRUTH], "ko")


def test_each_attribute_for_itself() -> None:
    runs = Told(kind="runs", attributes={"coat": "red", "way": "left"})
    texts = [tell(changed(way="right"), 1, "en"), tell(changed("picks_up_bag", bag="red"), 2, "en"), None]
    found = value_accuracy(texts, [TRUTH, TRUTH, runs], "en")
    assert found == {"bag": (0.5, 2), "coat": (2 / 3, 3), "way": (1 / 3, 3)}
