"""Captions of a model compared with annotated descriptions."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.datasets.annotation_files import csv_set
from tests.model.networks import make_model
from tests.sequences import NAMES, make_sequence
from vidgru.datasets.dataset import Dataset
from vidgru.model.captioner import Caption, CaptionSegment, caption_events_from_features, caption_segments
from vidgru.model.checkpoint import EventModel
from vidgru.model.features import compute_features
from vidgru.model.scoring import encode_features
from vidgru.training import evaluate_captions as module
from vidgru.training.evaluate import evaluate_model
from vidgru.training.evaluate_captions import captions_table, evaluate_captions
from vidgru.training.metrics.captions import cider_d_each
from vidgru.training.metrics.dense_captions import dense_metrics
from vidgru.types import Annotation, Event, Features

SEQUENCE = make_sequence(200, seed=3)
FEATURES = {"a.mp4": compute_features(SEQUENCE), "b.mp4": compute_features(make_sequence(80, seed=4))}
SENTENCES = ("A man falls.", "He walks left.", "남 왼", "A man walks.")
MODEL = make_model(SEQUENCE, timed=True, sentences=SENTENCES)
ROWS = (
    "a.mp4,2,4,fall,A man falls.,test",
    "a.mp4,2,4,fall,그가 넘어진다.,test",
    "a.mp4,10,14,walk,He walks left.,test",
    "b.mp4,,,walk,A man walks.,test",
    "b.mp4,1,2,fall,She falls.,val",
)
CAPTIONS = {(2.0, 4.0): "A man falls.", (10.0, 14.0): "a car next to a bag", (None, None): "He walks past a person."}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return csv_set(tmp_path, *ROWS)


def evaluate(dataset: Dataset, model: EventModel = MODEL, predicted: tuple[Event, ...] = (), beam: int = 4) -> dict:
    return evaluate_captions(model, dataset, "test", FEATURES.__getitem__, predicted, tuple(FEATURES), beam=beam)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that writes the captions above, chosen by the length of the segment."""
    said = {
        20: Caption(text=CAPTIONS[2.0, 4.0], score=0.9, threshold=0.5, label="fall", measured=("falls",)),
        36: Caption(text=CAPTIONS[10.0, 14.0], score=0.4, threshold=0.5, label="fall"),
        80: Caption(text=CAPTIONS[None, None], score=0.7, threshold=0.5, label="walk", measured=("walks", "past")),
    }

    def scripted_segments(model: EventModel, segments: list[CaptionSegment], *, beam: int) -> list[Caption]:
        lengths = [len(segment.features) for segment in segments]
        assert all(segment.label is None for segment in segments), "only the place is given"
        return [said[length] for length in lengths]

    monkeypatch.setattr(module, "caption_segments", scripted_segments)


@pytest.mark.usefixtures("scripted")
def test_captions_with_references_worst_first(dataset: Dataset) -> None:
    assert MODEL.caption is not None
    metrics = evaluate(dataset, replace(MODEL, caption=replace(MODEL.caption, threshold=0.5)))
    assert metrics["segments"] == 3
    assert metrics["templates"] == pytest.approx(1 / 3)
    coverage = metrics["coverage"]
    assert coverage["shown"] == pytest.approx([1 / 3, 2 / 3, 1], abs=1e-6)
    assert coverage["wrong"] == pytest.approx([0, 1 / 2, 2 / 3], abs=1e-6), "another measured word, another event"
    assert coverage["cider_d"][-1] == pytest.approx(metrics["cider_d"], abs=1e-6)
    assert coverage["chosen"] == {name: coverage[name][1] for name in ("shown", "cider_d", "wrong")}
    assert {"bleu_1", "bleu_4", "rouge_l", "cider", "cider_d", "chrf", "tokenizer"} <= metrics.keys()
    wanted = [("A man falls.", "그가 넘어진다."), ("He walks left.",), ("A man walks.",)]
    each = cider_d_each(list(CAPTIONS.values()), wanted)
    assert metrics["cider_d"] == pytest.approx(each.mean())
    sentences = metrics["sentences"]
    assert [row["cider_d"] for row in sentences] == [round(value, 6) for value in sorted(each)]
    assert sentences[-1] == {
        "video": "a.mp4",
        "start": 2.0,
        "end": 4.0,
        "description": "A man falls.",
        "score": 0.9,
        "cider_d": round(each[0], 6),
        "references": ["A man falls.", "그가 넘어진다."],
    }
    assert sentences[0]["description"] == "a car next to a bag"
    assert {(row["video"], row["start"], row["end"]) for row in sentences} == {
        ("a.mp4", 2.0, 4.0), ("a.mp4", 10.0, 14.0), ("b.mp4", None, None),
    }  # fmt: skip
    json.dumps(metrics)


def replace_class(features: Features, kind: str, start_s: float, end_s: float) -> Features:
    """The features with a class replaced by person in an interval."""
    objects = features.objects.copy()
    column = MODEL.feature_spec.object_groups()["class"].start
    first, stop = (features.offsets[n] for n in features.time_s.searchsorted((start_s, end_s)))
    classes = objects[first:stop, column]
    classes[classes == NAMES.index(kind)] = NAMES.index("person")
    return replace(features, objects=objects)


@pytest.mark.usefixtures("scripted")
def test_undetected_objects_are_counted(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate(dataset)["hallucination"] == {
        "sentences": 3, "object_words": 3, "unseen_words": 0, "chair_s": 0.0, "chair_i": 0.0,
    }  # fmt: skip
    # detected before and after the event, but not within a second of it
    monkeypatch.setitem(FEATURES, "a.mp4", replace_class(FEATURES["a.mp4"], "bag", 9.0, 15.0))
    assert evaluate(dataset)["hallucination"] == {
        "sentences": 3, "object_words": 3, "unseen_words": 1, "chair_s": 1 / 3, "chair_i": 1 / 3,
    }  # fmt: skip
    monkeypatch.setitem(FEATURES, "a.mp4", replace_class(compute_features(SEQUENCE), "bag", 9.5, 14.5))
    assert evaluate(dataset)["hallucination"]["unseen_words"] == 0


def test_segments_are_captioned_like_caption_segments(dataset: Dataset) -> None:
    segments = [
        CaptionSegment(features=FEATURES["a.mp4"].frames(12, 32)),
        CaptionSegment(features=FEATURES["a.mp4"].frames(76, 112)),
        CaptionSegment(features=FEATURES["b.mp4"]),
    ]
    for beam in (1, 4):
        captions = caption_segments(MODEL, segments, beam=beam)
        predicted = {row["start"]: row for row in evaluate(dataset, beam=beam)["sentences"]}
        for start_s, row in zip((2.0, 10.0, None), captions, strict=True):
            assert predicted[start_s]["description"] == row.text
            assert predicted[start_s]["score"] == pytest.approx(row.score, abs=1e-5)
    assert evaluate(dataset, beam=1)["sentences"] != evaluate(dataset, beam=4)["sentences"]


def event(start_s: float, end_s: float, label: str = "fall", video: str = "a.mp4") -> Event:
    return Event(video=video, start_s=start_s, end_s=end_s, label=label, score=0.5)


def test_predicted_events_are_captioned_like_prediction(dataset: Dataset) -> None:
    predicted = (event(2.1, 4.2), event(11.0, 13.5, "walk"), event(0.0, 5.0, video="b.mp4"))
    dense = evaluate(dataset, predicted=predicted)["dense"]
    captions = caption_events_from_features(MODEL, FEATURES["a.mp4"], predicted[:2]) + caption_events_from_features(
        MODEL, FEATURES["b.mp4"], predicted[2:]
    )
    truth = [
        Annotation(video="a.mp4", start_s=2.0, end_s=4.0, description="A man falls."),
        Annotation(video="a.mp4", start_s=2.0, end_s=4.0, description="그가 넘어진다."),
        Annotation(video="a.mp4", start_s=10.0, end_s=14.0, description="He walks left."),
    ]
    assert dense == dense_metrics(truth, captions)
    assert dense["found"] == 2, "recordings without timed descriptions are left out"
    assert dense != evaluate(dataset, predicted=predicted[:1])["dense"]


def test_dense_captions_need_times_on_both_sides(dataset: Dataset, tmp_path: Path) -> None:
    whole = csv_set(tmp_path / "whole", "a.mp4,,,fall,A man falls.,test", "b.mp4,,,walk,He walks.,test")
    assert evaluate(whole)["dense"] is None
    assert evaluate(dataset, make_model(SEQUENCE, sentences=SENTENCES))["dense"] is None
    assert evaluate(dataset)["dense"] is not None


def test_members_caption_only_their_fold(dataset: Dataset) -> None:
    """Captions are written by the first member, and measured on recordings it has not learnt from."""
    model = make_model(SEQUENCE, timed=True, sentences=SENTENCES, members=2)
    members = model.member(0), model.member(1)
    for folds, captioned in (((0, 1), {"a.mp4"}), ((1, 0), {"b.mp4"}), ((1, 1), set())):
        models = {video: members[fold] for video, fold in zip(FEATURES, folds, strict=True)}
        encoded = {video: encode_features(models[video], [features]) for video, features in FEATURES.items()}
        metrics = evaluate_model(
            model, dataset, "test", encoded, FEATURES.__getitem__, models, intervals=False, beam=1
        )  # fmt: skip
        rows = metrics["descriptions"]["sentences"] if captioned else []
        assert {row["video"] for row in rows} == captioned
        assert captioned or "descriptions" not in metrics


def test_split_without_descriptions(dataset: Dataset, tmp_path: Path) -> None:
    assert evaluate_captions(MODEL, dataset, "train", FEATURES.__getitem__, [], (), beam=1) == {}
    bare = csv_set(tmp_path / "bare", "a.mp4,2,4,fall,,test")
    assert evaluate(bare) == {}


def test_undecoded_segments_are_skipped(tmp_path: Path) -> None:
    cut = csv_set(tmp_path, "b.mp4,2,4,fall,A man falls.,test", "b.mp4,60,64,walk,He walks.,test")
    assert [row["start"] for row in evaluate(cut)["sentences"]] == [2.0]
    nothing = csv_set(tmp_path / "nothing", "b.mp4,60,64,walk,He walks.,test")
    assert evaluate(nothing) == {}


@pytest.mark.usefixtures("scripted")
def test_captions_table_shows_worst(dataset: Dataset) -> None:
    metrics = evaluate(dataset, predicted=(event(2.1, 4.2),))
    lines = captions_table(metrics)
    assert lines[0] == "3 captions, 33% of them below the confidence threshold"
    assert f"cider_d {metrics['cider_d']:.3f}" in lines
    assert "50% of the shown ones name another event or another measured word" in lines
    assert f"chrf {metrics['chrf']:.3f}" in lines
    assert "chair_s 0.000  (0 of 3 object words name an undetected class)" in lines
    assert "1 predicted events with captions, 2 true ones" in lines
    assert f"dense soda_f1 {metrics['dense']['soda_f1']:.3f}" in lines
    worst = lines[lines.index("worst captions:") + 1 :]
    assert worst[:2] == ["  a.mp4, 10.0-14.0 s: a car next to a bag  (0.40)", "    is He walks left."]
    assert worst[-3:] == ["  a.mp4, 2.0-4.0 s: A man falls.  (0.90)", "    is A man falls.", "    or 그가 넘어진다."]
    assert "  b.mp4: He walks past a person.  (0.70)" in worst
    many = {**metrics, "sentences": metrics["sentences"] * 4, "dense": None}
    many["hallucination"] = {**metrics["hallucination"], "chair_s": None}
    shorter = captions_table(many)
    assert sum("(0." in line for line in shorter) == 5
    assert not any("dense" in line for line in shorter)
    assert "chair_s -  (no caption names a class of the detector)" in shorter
