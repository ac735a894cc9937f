"""Korean sentences of the demo parse like the English ones, and translate them wording by wording."""

import importlib
from pathlib import Path
from string import Formatter
from typing import Any
from unicodedata import normalize

import pytest

from tests.demo.synthetic import all_descriptions, read_rows, skip_rendering
from vidgru.datasets.annotations import load_dataset
from vidgru.demo.dataset import write_dataset
from vidgru.demo.scenes import EVENT_KINDS
from vidgru.demo.sentences import ENGLISH, WORDINGS, SceneDescription, attribute_options

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[1] / "scripts")
    korean: Any = importlib.import_module("korean_sentences")


def test_korean_sentences_have_one_reading() -> None:
    readings: dict[str, SceneDescription] = {}
    for description in all_descriptions():
        for wording in range(WORDINGS):
            sentence = korean.KOREAN.format(description, wording)
            assert korean.KOREAN.parse(sentence) == description, sentence
            assert readings.setdefault(sentence, description) == description
            assert korean.translate(ENGLISH.format(description, wording)) == sentence
    assert len(readings) == WORDINGS * len(list(all_descriptions()))


def test_korean_templates_mirror_the_english_ones() -> None:
    assert set(korean.KOREAN.templates) == set(EVENT_KINDS)
    for kind, templates in korean.KOREAN.templates.items():
        assert len(set(templates)) == len(templates) == WORDINGS
        for template in templates:
            assert {name for _, name, _, _ in Formatter().parse(template) if name} == set(attribute_options(kind))
    attributes = {"coat": "white", "bag": "black", "direction": "right"}
    description = SceneDescription(kind="leaves_bag", attributes=attributes)
    assert korean.KOREAN.format(description, 0) == "흰색 코트를 입은 사람이 검은색 가방을 두고 오른쪽으로 걸어간다."


def test_korean_particles_agree_with_their_nouns() -> None:
    """After a final consonant 을, 이, 은, 과, 으로; after a vowel 를, 가, 는, 와, 로."""
    pairs = {"을": True, "를": False, "이": True, "가": False, "은": True, "는": False, "과": True, "와": False}
    particles = {**pairs, "으로": True, "로": False}
    nouns = {"사람", "가방", "자동차", "누군가", "옷", "코트", "왼쪽", "오른쪽", "무리", "명", "왼쪽에서", "오른쪽에서"}
    longest_first = sorted(nouns, key=len, reverse=True)
    checked = 0
    for description in all_descriptions():
        for wording in range(WORDINGS):
            for word in korean.KOREAN.format(description, wording).rstrip(".").replace(",", "").split():
                noun = next((noun for noun in longest_first if word.startswith(noun)), None)
                if noun and (particle := word.removeprefix(noun)) in particles:
                    ends_in_consonant = (ord(noun[-1]) - ord("가")) % 28 != 0
                    assert particles[particle] == ends_in_consonant, word
                    checked += 1
    assert checked > 1000


def test_korean_parse_ignores_spaces_and_normalization() -> None:
    description = SceneDescription(kind="meet", attributes={"coat": "red", "coat2": "blue"})
    sentence = korean.KOREAN.format(description, 1)
    for variant in (sentence.rstrip("."), f" {sentence.replace(' ', '  ')} ", normalize("NFD", sentence)):
        assert korean.KOREAN.parse(variant) == description
    for other in ("", f"{sentence} {sentence}", sentence.replace(" ", "", 1), ENGLISH.format(description, 1)):
        assert korean.KOREAN.parse(other) is None
    assert ENGLISH.parse(sentence) is None


def test_translate_rejects_other_sentences() -> None:
    assert korean.translate("") == ""
    with pytest.raises(ValueError, match=r"'A dog runs\.' is not a sentence of the demo"):
        korean.translate("A dog runs.")


def test_korean_annotations_match_the_english_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_rendering(monkeypatch)
    write_dataset(tmp_path, clips_per_kind=3, eventless_clips=3, recordings=3, workers=1)
    for name in ("dataset", "recordings"):
        korean.write_korean_annotations(tmp_path / name)
        rows, translated = read_rows(tmp_path / name), read_rows(tmp_path / name, "annotations.ko.csv")
        descriptions = [ENGLISH.parse(row["description"]) for row in rows]
        assert [korean.KOREAN.parse(row["description"]) for row in translated] == descriptions
        for row, description in zip(rows, descriptions, strict=True):
            assert (description is None) == (row["label"] == "")
        for row in (*rows, *translated):
            del row["description"]
        assert rows == translated
        # A folder is read by its annotations.csv; the other file is a dataset of its own, of the same videos.
        dataset = load_dataset(tmp_path / name)
        assert dataset.source == tmp_path / name / "annotations.csv"
        korean_dataset = load_dataset(tmp_path / name / "annotations.ko.csv")
        assert korean_dataset.recordings == dataset.recordings
        assert [row.label for row in korean_dataset.annotations] == [row.label for row in dataset.annotations]
