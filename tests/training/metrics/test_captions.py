import json
import math
import random
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidgru.training.metrics.captions import TOKENIZER, caption_metrics, cider_d_each, rouge_l_each, words

PUBLISHED: Any = json.loads((Path(__file__).parent / "published" / "captions.json").read_text())
LANGUAGES = ["english", "korean", "portuguese", "chinese"]


def rows_of(language: str) -> tuple[list[str], list[list[str]]]:
    rows = PUBLISHED["sets"][language]["rows"]
    return [candidate for candidate, _ in rows], [references for _, references in rows]


@pytest.mark.parametrize("language", LANGUAGES)
def test_metrics_match_published_evaluators(language: str) -> None:
    numbers = PUBLISHED["sets"][language]["numbers"]
    got = caption_metrics(*rows_of(language))
    assert [got[f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx(numbers["bleu"], abs=1e-9)
    for name in ("rouge_l", "cider", "cider_d", "chrf"):
        assert got[name] == pytest.approx(numbers[name], abs=1e-9), name
    assert got["tokenizer"] == TOKENIZER == "vidgru-words-1"
    assert json.loads(json.dumps(got)) == got


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentence_scores_match_published(language: str) -> None:
    candidates, references = rows_of(language)
    published = PUBLISHED["sets"][language]
    np.testing.assert_allclose(cider_d_each(candidates, references), published["cider_d_each"], atol=1e-9)
    candidate_words = [words(sentence) for sentence in candidates]
    reference_words = [[words(sentence) for sentence in sentences] for sentences in references]
    np.testing.assert_allclose(rouge_l_each(candidate_words, reference_words), published["rouge_l_each"], atol=1e-9)


@pytest.mark.parametrize(("sentence", "split"), PUBLISHED["ptb"])
def test_words_splits_english_like_ptb(sentence: str, split: str) -> None:
    assert " ".join(words(sentence)) == split


@pytest.mark.parametrize(
    ("sentence", "split"),
    [
        ("", []),
        (" .,!?… ", []),
        ("A man's bag — left (there)!", ["a", "man", "s", "bag", "left", "there"]),
        ("T-shirt -- 3.5 m, 00:12; end.", ["t-shirt", "3.5", "m", "00:12", "end"]),
        ("사람이 가방을, 두고 떠난다.", ["사람이", "가방을", "두고", "떠난다"]),
        ("一个人走过街道。OK吗?", ["一", "个", "人", "走", "过", "街", "道", "ok", "吗"]),
        ("男が歩くスーパー", ["男", "が", "歩", "く", "ス", "ー", "パ", "ー"]),
        ("ที่นี่ 2 คน", ["ที่", "นี่", "2", "ค", "น"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("Às vezes, não há ninguém.", ["às", "vezes", "não", "há", "ninguém"]),
        ("A man 🚶‍♂️ walks 👩‍👧!", ["a", "man", "🚶", "♂\ufe0f", "walks", "👩", "👧"]),
        ("می‌روم", ["میروم"]),
        ("one\0two\nthree\u200bfour", ["one", "two", "threefour"]),
    ],
)
def test_words_splits_many_languages(sentence: str, split: list[str]) -> None:
    assert list(words(sentence)) == split
    assert words(unicodedata.normalize("NFD", sentence)) == words(sentence)


def test_reference_as_candidate_is_perfect() -> None:
    sentences = ["A man leaves a bag", "Two people meet at the door", "사람이 의자에서 빨리 넘어진다"]
    got = caption_metrics(sentences, [["Somebody falls down", sentence.upper() + "."] for sentence in sentences])
    assert [got[f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx([1, 1, 1, 1], abs=1e-6)
    assert got["rouge_l"] == pytest.approx(1)
    alone = caption_metrics(sentences, [[sentence] for sentence in sentences])
    assert alone["cider"] == pytest.approx(10)
    assert alone["cider_d"] == pytest.approx(10)
    assert alone["chrf"] == 1
    assert got["chrf"] < 1  # case and punctuation count as characters


def test_metrics_by_hand() -> None:
    got = caption_metrics(["the cat the cat"], [["the cat sat down", "a cat"]])
    # "the" and "cat" once each of two; "the cat" once of three pairs; both references are as long or 2 shorter.
    assert got["bleu_1"] == pytest.approx(2 / 4, abs=1e-6)
    assert got["bleu_2"] == pytest.approx(math.sqrt(2 / 4 * 1 / 3), abs=1e-6)
    assert got["bleu_3"] == pytest.approx(0, abs=1e-4)
    # Two words in common with the first; precision 2/4, recall 2/4 of the first and 1/2 of the second.
    assert got["rouge_l"] == pytest.approx(0.5)
    assert got["cider"] == got["cider_d"] == 0  # one document: every word is in all of them


def test_bleu_brevity_penalty() -> None:
    got = caption_metrics(["a man"], [["a man falls down", "a man walks along the whole street"]])
    assert got["bleu_1"] == pytest.approx(math.exp(1 - 4 / 2), abs=1e-6)


def test_cider_d_penalises_length_and_repetition() -> None:
    references = [["a man falls"], ["two dogs run"]]
    once, twice = (
        caption_metrics(["a man falls", "x"], references),
        caption_metrics(["a man falls " * 3, "x"], references),
    )
    assert twice["cider_d"] < once["cider_d"] / 2
    assert twice["cider"] > once["cider"] / 2


def test_chrf_by_hand() -> None:
    # Character n-grams (candidate, reference, common): 3/4/3, 2/3/2, 1/2/1; orders that one side lacks are left out.
    precision, recall = 1.0, (3 / 4 + 2 / 3 + 1 / 2) / 3
    assert caption_metrics(["가 방을"], [["가방을!"]])["chrf"] == pytest.approx(
        5 * precision * recall / (4 * precision + recall)
    )


def test_unicode_form_does_not_matter() -> None:
    sentence, references = "사람이 가방을 두고 떠난다", [["사람이 가방을 들고 떠난다"], ["문이 열린다"]]
    plain = caption_metrics([sentence, "문이 닫힌다"], references)
    assert caption_metrics([unicodedata.normalize("NFD", sentence), "문이 닫힌다"], references) == plain


def test_caption_order_does_not_matter() -> None:
    candidates, references = rows_of("english")
    order = list(range(len(candidates)))
    random.Random(3).shuffle(order)
    plain = caption_metrics(candidates, references)
    del plain["tokenizer"]
    shuffled = caption_metrics([candidates[i] for i in order], [references[i] for i in order])
    assert {name: shuffled[name] for name in plain} == pytest.approx(plain)
    turned = caption_metrics(candidates, [sentences[::-1] for sentences in references])
    del plain["chrf"]  # sacrebleu takes the first of equally good references
    assert {name: turned[name] for name in plain} == pytest.approx(plain)


def test_metrics_of_captions_without_words() -> None:
    got = caption_metrics(["", "..."], [["a bag"], ["!"]])
    assert all(got[name] == pytest.approx(0, abs=1e-6) for name in got if name != "tokenizer")


def test_metrics_without_captions() -> None:
    got = caption_metrics([], [])
    assert got.pop("tokenizer") == TOKENIZER
    assert set(got.values()) == {None}
    assert cider_d_each([], []).shape == (0,)


def test_mismatched_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="got 2 candidates, but 1 lists of references"):
        caption_metrics(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="every candidate needs a reference"):
        cider_d_each(["a", "b"], [["a"], []])
