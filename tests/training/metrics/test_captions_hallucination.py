import numpy as np
import pytest

from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import compute_features
from vidgru.training.metrics.captions import ObjectWords, detected_near, hallucination_metrics
from vidgru.types import FrameSequence

COCO = ["person", "bicycle", "car", "bus", "bench", "dog", "hot dog", "handbag", "backpack", "traffic light", "knife"]


def words_of(objects: ObjectWords, sentence: str) -> list[str]:
    return [word for word, _ in objects.mentioned(sentence)]


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        ("A PERSON on a Bicycle.", ["person", "bicycle"]),
        ("Two people and three persons", ["people", "persons"]),
        (
            "Cars, buses, benches, knives, dogs' bowls and a car's door",
            ["cars", "buses", "benches", "knives", "dogs", "car"],
        ),
        ("A scar, a cartoon, personal things, busy", []),
        (
            "A hot dog at the traffic lights, a dog under a traffic-light",
            ["hot dog", "traffic lights", "dog", "traffic light"],
        ),
        ("a hot\n dog", ["hot dog"]),
        ("a light for the traffic", []),
        ("", []),
    ],
)
def test_object_words_match_english_class_names(sentence: str, found: list[str]) -> None:
    assert words_of(ObjectWords(COCO), sentence) == found


def test_object_words_accept_detector_spelling() -> None:
    objects = ObjectWords(["Traffic_Light", "baby", "police-man"])
    assert objects.mentioned("traffic lights, babies, policemen, police men") == [
        ("traffic lights", frozenset({"Traffic_Light"})),
        ("babies", frozenset({"baby"})),
        ("police men", frozenset({"police-man"})),
    ]


def test_object_words_synonyms() -> None:
    objects = ObjectWords(COCO, {"man": "person", "bag": ("handbag", "backpack"), "mala": "handbag", "ônibus": "bus"})
    assert objects.mentioned("Men with bags") == [
        ("men", frozenset({"person"})),
        ("bags", frozenset({"handbag", "backpack"})),
    ]
    assert objects.hallucinated("A man with a bag", {"backpack"}) == ["man"]
    assert objects.hallucinated("A man with a bag", {"person", "handbag"}) == []
    assert words_of(objects, "Duas malas no Ônibus") == ["malas", "ônibus"]


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        ("사람이 가방을 두고 떠난다", ["사람", "가방"]),
        ("사람들이 손가방에서 무엇을 꺼낸다", ["사람", "손가방"]),
        ("기차가 온다", []),  # "차" is the end of another word
        ("차가 bag을 지나간다", ["차", "bag"]),
        ("一个人把手提包留在门口", ["人", "手提包"]),
        ("Человека видно рядом, сумка", ["человек", "сумк"]),
        ("رجل مع الحقيبة", ["حقيبة"]),
        ("ผู้ชายถือกระเป๋าสีแดง", ["กระเป๋า"]),
    ],
)
def test_object_words_in_inflected_scripts(sentence: str, found: list[str]) -> None:
    further = {
        **{"사람": "person", "가방": "backpack", "손가방": "handbag", "차": "car", "bag": "handbag"},
        **{"人": "person", "手提包": "handbag", "包": "backpack", "Человек": "person", "сумк": "handbag"},
        **{"حقيبة": "handbag", "กระเป๋า": "handbag"},
    }
    assert words_of(ObjectWords(COCO, further), sentence) == found


def test_invalid_synonyms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'sac' stands for \['bag'\], not all of which the detector knows"):
        ObjectWords(COCO, {"sac": "bag"})
    with pytest.raises(ValueError, match="' - ' is not a word"):
        ObjectWords(COCO, {" - ": "car"})


def test_hallucination_rates_match_chair() -> None:
    sentences = ["A man with a dog and a car", "A dog chases a dog", "Somebody falls", "People on benches"]
    detected = [{"person", "car"}, {"person"}, {"dog"}, {"person", "bench"}]
    got = hallucination_metrics(sentences, detected, ObjectWords(COCO))
    assert got == {
        "sentences": 4,
        "object_words": 6,
        "unseen_words": 3,
        "chair_s": 2 / 4,
        "chair_i": 3 / 6,
    }


def test_no_rates_without_object_words() -> None:
    for sentences in ([], ["Somebody falls", ""]):
        got = hallucination_metrics(sentences, [set()] * len(sentences), ObjectWords(COCO))
        assert got["object_words"] == 0
        assert got["chair_s"] is got["chair_i"] is None
    assert ObjectWords([]).mentioned("a person") == []


def test_mismatched_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="got 2 captions, but 1 sets of detected classes"):
        hallucination_metrics(["a", "b"], [set()], ObjectWords(COCO))


def test_detected_near_event() -> None:
    """A frame every half second; frame t shows an object of class t, but for every third, which is empty."""
    time_s = np.arange(20) / 2
    shown = [t for t in range(20) if t % 3]
    sequence = FrameSequence(
        time_s=time_s,
        frame_index=np.arange(20),
        offsets=np.searchsorted(shown, np.arange(21)),
        boxes=np.zeros((len(shown), 4), np.float32),
        scores=np.ones(len(shown), np.float16),
        classes=np.array(shown, np.int16),
        tracks=np.full(len(shown), -1, np.int32),
        fps=2.0,
        size_px=(64, 64),
        names=tuple(f"class {t}" for t in range(20)),
    )
    features, feature_spec = compute_features(sequence), FeatureSpec.from_sequence(sequence)

    def near(start_s: float, end_s: float) -> set[str]:
        return detected_near(features, feature_spec, sequence.names, start_s, end_s)

    # From 2 s before 5 s: frames 4 (2.0 s) to 9 (4.5 s).
    assert near(3.0, 4.0) == {f"class {t}" for t in (4, 5, 7, 8)}
    assert near(0.0, 0.4) == {"class 1", "class 2"}
    assert near(9.0, 60.0) == near(9.0, np.inf) == {f"class {t}" for t in (16, 17, 19)}
    assert near(0.0, np.inf) == {f"class {t}" for t in shown}
    assert near(50.0, 60.0) == set()
