"""Korean sentences of the demo's scenes, for `make_demo_data.py` and `bench_captions.py`."""

from __future__ import annotations

import csv
from pathlib import Path

from vidgru.demo.sentences import ENGLISH, WORDINGS, SentenceTemplates

# The words for directions both end in a consonant, so that one particle fits both.
_WORDS = {
    "red": "빨간색",
    "blue": "파란색",
    "green": "초록색",
    "yellow": "노란색",
    "white": "흰색",
    "black": "검은색",
    "three": "세",
    "four": "네",
    "five": "다섯",
    "left": "왼쪽",
    "right": "오른쪽",
}

_TEMPLATES = {
    "leaves_bag": (
        "{coat} 코트를 입은 사람이 {bag} 가방을 두고 {direction}으로 걸어간다.",
        "{coat} 코트를 입은 누군가가 {bag} 가방을 내려놓고 {direction}으로 떠난다.",
        "{bag} 가방을 남겨 둔 채 {coat} 옷을 입은 사람이 {direction}으로 걸어간다.",
        "{coat} 옷차림의 누군가가 {bag} 가방을 바닥에 놓고 빈손으로 {direction}을 향해 간다.",
        "{bag} 가방을 내려놓은 뒤 {coat} 옷을 입은 사람이 {direction}으로 자리를 뜬다.",
    ),
    "picks_up_bag": (
        "{coat} 코트를 입은 사람이 {bag} 가방을 집어 들고 {direction}으로 걸어간다.",
        "{coat} 코트를 입은 누군가가 놓여 있던 {bag} 가방을 가지고 {direction}으로 떠난다.",
        "놓여 있던 {bag} 가방을 {coat} 옷을 입은 사람이 주워서 {direction}으로 걸어간다.",
        "{coat} 옷차림의 누군가가 바닥에서 {bag} 가방을 들어 올려 {direction}을 향해 간다.",
        "{bag} 가방을 집어 든 뒤 {coat} 옷을 입은 사람이 {direction}으로 자리를 뜬다.",
    ),
    "person_then_car": (
        "{coat} 코트를 입은 사람이 {direction}으로 걸어서 지나간 다음, {car} 자동차가 {car_direction}으로 지나간다.",
        "먼저 {coat} 옷을 입은 누군가가 {direction}으로 지나가고, 그 뒤에 {car} 자동차가 {car_direction}으로 지나간다.",
        "{coat} 코트를 입은 누군가가 {direction}으로 걸어가고, 이어서 {car} 자동차가 {car_direction}으로 달려간다.",
        "{car} 자동차가 {car_direction}으로 달려가기 전에 {coat} 옷을 입은 사람이 {direction}으로 걸어간다.",
        "{coat} 옷차림의 사람이 {direction}으로 걸어간 뒤에 {car} 자동차가 {car_direction}으로 달려간다.",
    ),
    "car_then_person": (
        "{car} 자동차가 {car_direction}으로 지나간 다음, {coat} 코트를 입은 사람이 {direction}으로 걸어서 지나간다.",
        "먼저 {car} 자동차가 {car_direction}으로 지나가고, 그 뒤에 {coat} 옷을 입은 누군가가 {direction}으로 지나간다.",
        "{car} 자동차가 {car_direction}으로 달려가고, 이어서 {coat} 코트를 입은 누군가가 {direction}으로 걸어간다.",
        "{coat} 옷을 입은 사람이 {direction}으로 걸어가기 전에 {car} 자동차가 {car_direction}으로 달려간다.",
        "{car} 자동차가 {car_direction}으로 달려간 뒤에 {coat} 옷차림의 사람이 {direction}으로 걸어간다.",
    ),
    "runs": (
        "{coat} 코트를 입은 사람이 {direction}으로 뛰어서 가로질러 간다.",
        "{coat} 옷을 입은 누군가가 {direction}으로 뛰어서 지나간다.",
        "{coat} 코트를 입고 뛰는 사람이 {direction}으로 가로질러 간다.",
        "{coat} 옷차림의 누군가가 {direction}으로 급히 뛰어간다.",
        "{coat} 옷을 입은 사람이 {direction}으로 뛰어가고 있다.",
    ),
    "meet": (
        "두 사람이 만나 멈춰 서는데, 왼쪽에서 온 사람은 {coat} 옷을, 오른쪽에서 온 사람은 {coat2} 옷을 입었다.",
        "왼쪽에서 온 {coat} 옷을 입은 사람이 오른쪽에서 온 {coat2} 옷을 입은 사람을 만나 멈춰 선다.",
        "왼쪽에서 오던 {coat} 옷차림의 사람이 멈춰 서서 오른쪽에서 온 {coat2} 옷차림의 사람을 만난다.",
        "오른쪽에서 온 {coat2} 코트를 입은 사람과 왼쪽에서 온 {coat} 코트를 입은 사람이 만나 가만히 서 있다.",
        "오른쪽에서는 {coat2} 옷을 입은 사람이, 왼쪽에서는 {coat} 옷을 입은 사람이 와서 서로 만나 멈춰 선다.",
    ),
    "group_passes": (
        "{count} 명으로 이루어진 무리가 {direction}으로 걸어간다.",
        "{count} 명의 사람이 함께 {direction}으로 지나가고 있다.",
        "사람 {count} 명이 무리를 지어 {direction}으로 걸어간다.",
        "한 무리가 {direction}으로 지나가는데, 모두 {count} 명이다.",
        "{direction}을 향해 {count} 사람이 함께 걸어간다.",
    ),
    "car_stops": (
        "{direction}으로 가던 {car} 자동차가 잠시 멈췄다가 다시 출발한다.",
        "{direction}으로 가는 길에 {car} 자동차가 멈춰 섰다가 다시 달린다.",
        "{direction}을 향하던 {car} 자동차가 잠깐 멈춘 뒤 계속 간다.",
        "{direction}으로 달리던 {car} 자동차가 잠깐 섰다가 다시 달린다.",
        "잠시 멈춘 뒤 {car} 자동차가 {direction}으로 다시 출발한다.",
    ),
}
KOREAN = SentenceTemplates(_TEMPLATES, _WORDS)

LANGUAGES = {"en": ENGLISH, "ko": KOREAN}


def translate(sentence: str) -> str:
    """Return an English sentence of the demo in Korean, in the same wording; empty for an empty one.

    Raises:
        ValueError: It is not a sentence of the demo.
    """
    if not sentence:
        return ""
    description = ENGLISH.parse(sentence)
    if description is None:
        raise ValueError(f"{sentence!r} is not a sentence of the demo")
    wording = next(n for n in range(WORDINGS) if ENGLISH.format(description, n) == sentence)
    return KOREAN.format(description, wording)


def write_korean_annotations(folder: Path) -> Path:
    """Write `annotations.ko.csv` beside `annotations.csv` of a rendered dataset: the same rows, described in Korean."""
    path = folder / "annotations.ko.csv"
    with (
        (folder / "annotations.csv").open(newline="", encoding="utf-8") as source,
        path.open("w", newline="", encoding="utf-8") as target,
    ):
        rows = csv.DictReader(source)
        writer = csv.DictWriter(target, rows.fieldnames or (), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "description": translate(row["description"])})
    return path
