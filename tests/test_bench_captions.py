"""Baselines and figures of `scripts/bench_captions.py`, on made-up sentences."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.model.networks import make_model
from tests.sequences import make_sequence
from vidgru.datasets.dataset import Dataset, DescribedSegment
from vidgru.datasets.rows import AnnotationRow
from vidgru.demo.dataset import write_dataset
from vidgru.demo.sentences import SceneDescription
from vidgru.model.captioner import caption_features
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import compute_features
from vidgru.model.scoring import EncodedRecording, encode_features
from vidgru.training.data import LoadedFeatures
from vidgru.training.metrics.captions import ObjectWords
from vidgru.types import DESCRIBED, Annotation, Event

SCRIPTS = Path(__file__).parents[1] / "scripts"
with pytest.MonkeyPatch.context() as patch:
    for name in ("YOLO_OFFLINE", "YOLO_AUTOINSTALL", "YOLO_VERBOSE"):
        patch.setenv(name, "false")  # restored at the end, whatever the script sets
    patch.syspath_prepend(SCRIPTS)
    bench: Any = importlib.import_module("bench_captions")
    korean_sentences: Any = importlib.import_module("korean_sentences")

TRUTH = SceneDescription(kind="leaves_bag", attributes={"coat": "red", "bag": "black", "direction": "left"})
OTHER = SceneDescription(kind="car_stops", attributes={"car": "blue", "direction": "right"})


def segment(
    *sentences: str, label: int | None = 0, video: str = "a.mp4", at: tuple[float, float] | None = None
) -> DescribedSegment:
    start_s, end_s = at or (None, None)
    return DescribedSegment(video=video, start_s=start_s, end_s=end_s, label=label, sentences=sentences, split="train")


# --- baselines --------------------------------------------------------------------------------------------------------


def test_nearest_compares_angles_of_standardised_columns() -> None:
    train = np.array([[0.0, 1000.0, 7.0], [1.0, 1010.0, 7.0], [0.5, 990.0, 7.0], [0.5, 1000.0, 7.0]])
    # The large second column counts no more than the first, and the constant third not at all.
    test = np.array([[1.0, 1000.1, 7.0], [-3.0, 1001.0, 7.0], [0.5, 900.0, 7.0]])
    assert bench.nearest(train, test).tolist() == [1, 0, 2]
    assert bench.nearest(train, train[[2, 0]]).tolist() == [2, 0]


def test_frequent_sentences_per_label() -> None:
    train = [
        segment("a"),
        segment("b", "c"),
        segment("c"),
        segment("d", label=1),
        segment("e", label=1),
        segment("b", label=None),
    ]
    assert bench.frequent_sentences(train, ("runs", "meet")) == {None: "b", "runs": "c", "meet": "d"}


def test_match_segments_ignores_labels() -> None:
    truth = [segment("a", at=(0, 4)), segment("b", at=(4, 8)), segment("c", at=(0, 4), video="b.mp4")]
    spans = {"a.mp4": [(0.5, 4), (0, 3.9), (7, 8)]}
    predicted = [
        Event(video=video, start_s=a, end_s=b, label="meet", score=0.5)
        for video, intervals in spans.items()
        for a, b in intervals
    ]
    assert bench.match_segments(predicted, truth) == [(predicted[1], truth[0])]
    assert bench.match_segments(predicted, truth, min_iou=0.2) == [(predicted[1], truth[0]), (predicted[2], truth[1])]


def test_mean_features_of_a_segment() -> None:
    sequence = make_sequence(20, 3)
    features, feature_spec = compute_features(sequence), FeatureSpec.from_sequence(sequence)
    mean = bench.mean_features(features, slice(5, 15), feature_spec)
    column = feature_spec.object_groups()["class"].start
    rows = features.objects[features.offsets[5] : features.offsets[15]]
    classes = [(rows[:, column] == index).sum() / 10 for index in range(feature_spec.classes)]
    width = feature_spec.object_width - 1
    np.testing.assert_allclose(mean[:width], np.delete(rows, column, axis=1).mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(mean[width : width + feature_spec.classes], classes)
    np.testing.assert_allclose(mean[width + feature_spec.classes :], features.frame[5:15].mean(axis=0), atol=1e-5)
    empty = compute_features(make_sequence(4, 0))
    assert np.isfinite(bench.mean_features(empty, slice(0, 4), feature_spec)).all()


def test_mean_state_starts_at_the_segment() -> None:
    model = make_model()
    vectors = encode_features(model, [compute_features(make_sequence(50))]).vectors
    with torch.inference_mode():
        hidden, _ = model.network.run_rnn(vectors[None, None, 10:20, 0], torch.ones(1, 10, dtype=torch.bool))
    np.testing.assert_allclose(bench.mean_state(model, vectors[10:20]), hidden[0, 0].mean(dim=0).numpy(), atol=1e-6)


@pytest.mark.parametrize(("clips", "timed", "expected"), [
    (True, True, ["walk", "fall"]), (True, False, ["walk", "walk"]), (False, True, ["fall", "fall"]),
])  # fmt: skip
def test_predict_labels_uses_the_clip_head_for_clips(
    clips: bool, timed: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clip head predicts walk, the frame head fall; the last column, the background, never counts."""
    model = make_model(clips=clips, timed=timed)
    frame_scores = np.full((50, 3), (0.3, 0.1, 0.6), np.float32)
    frame_scores[:30] = (0.1, 0.3, 0.6)
    monkeypatch.setattr(bench, "score_clips", lambda _, vectors: np.tile([[0.1, 0.2, 0.7]], (len(vectors), 1)))
    monkeypatch.setattr(bench, "score_frames", lambda _, vectors: [frame_scores for _ in vectors])
    encoded = {
        "a.mp4": EncodedRecording(
            vectors=torch.zeros(50, 64), attention=np.zeros(0, np.float32), time_s=np.arange(50) / 8
        )
    }
    segments = [segment("a"), segment("a", at=(4.5, 6))]
    if not clips:
        frame_scores[:] = frame_scores[-1]
    assert bench.predict_labels(model, encoded, segments) == expected


def test_predict_labels_without_heads() -> None:
    sequence = make_sequence(50)
    model = make_model(sequence, clips=False, sentences=("A man falls.",))
    encoded = {"a.mp4": encode_features(model, [compute_features(sequence)])}
    segments = [segment("a"), segment("a", at=(4.5, 6))]
    assert bench.predict_labels(model, encoded, segments) == [DESCRIBED, DESCRIBED]


def test_model_inputs_read_the_frames_of_training() -> None:
    sequence = make_sequence(1100, 1)
    features, feature_spec = compute_features(sequence), FeatureSpec.from_sequence(sequence)
    loaded = LoadedFeatures(
        features={"a.mp4": features}, feature_spec=feature_spec, names=sequence.names, keys={"a.mp4": "key"}
    )
    model = make_model(sequence, sentences=("A man falls.",))
    dataset = Dataset(root=Path(), source=Path(), rows=(), recordings={}, labels=model.labels)
    inputs = bench.ModelInputs(model=model, dataset=dataset, loaded=loaded, encoded={})
    for at, first, stop in ((None, 76, 1100), ((100.0, 110.0), 796, 880), ((0.0, 137.5), 76, 1100)):
        read = inputs.features(segment("a", at=at))
        np.testing.assert_array_equal(read.time_s, sequence.time_s[first:stop])
        (expected,) = caption_features([sequence], feature_spec, [at or (0.0, np.inf)])
        np.testing.assert_array_equal(expected.time_s, read.time_s)
        np.testing.assert_allclose(expected.objects, read.objects, atol=1e-5)
        assert bench.segment_frames(segment("a", at=at), sequence.time_s) == slice(first, stop)
    assert inputs.detected_classes(segment("a")) == {"person", "car", "bag"}
    near = {sequence.names[kind] for kind in sequence.classes[792:816].tolist()}
    assert inputs.detected_classes(segment("a", at=(100.0, 101.0))) == near


def test_labelled_segments_take_the_longest_event() -> None:
    annotations = [
        Annotation(video="a.mp4", description="She falls.", split="train"),
        Annotation(video="a.mp4", start_s=0, end_s=2, label="walk", split="train"),
        Annotation(video="a.mp4", start_s=2, end_s=5, label="fall", split="train"),
        Annotation(video="a.mp4", start_s=1, end_s=2.5, description="She walks on.", split="train"),
        Annotation(video="b.mp4", description="Nobody is there.", split="train"),
        Annotation(video="b.mp4", label="walk", description="He walks.", split="test"),
    ]
    rows = tuple(AnnotationRow(annotation=annotation, where="") for annotation in annotations)
    dataset = Dataset(root=Path(), source=Path(), rows=rows, recordings={}, labels=("fall", "walk"))
    segments = bench.labelled_segments(dataset, "train")
    assert [(s.sentences, s.label) for s in segments] == [
        (("She falls.",), 0),
        (("She walks on.",), 1),
        (("Nobody is there.",), None),
    ]


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", bench.LANGUAGES)
def test_compute_figures_of_right_and_wrong_captions(name: str) -> None:
    language = bench.LANGUAGES[name]
    names = ("person", "car", "bag")
    objects = ObjectWords(names, {word: name for word, name in bench.OBJECT_WORDS.items() if name in names})
    references = [(language.format(TRUTH, 0),), (language.format(OTHER, 0),)]
    detected = [{"person", "bag"}, {"car"}]
    captions = [language.format(TRUTH, 3), language.format(OTHER, 2)]  # not the wordings of the references
    right = bench.compute_figures(captions, references, detected, objects, language)
    assert [right[name] for name in ("all", "objects", "event", "directions", "chair_i")] == [1, 1, 1, 1, 0]
    wrong = bench.compute_figures([captions[1]] * 2, references, detected, objects, language)
    assert [wrong[name] for name in ("all", "objects", "event", "directions", "chair_i")] == [0.5, 0.5, 0.5, 0.5, 0.5]
    assert wrong["cider_d"] < right["cider_d"]
    assert wrong["values"] == {"bag": (0, 1), "car": (1, 1), "coat": (0, 1), "direction": (0.5, 2)}
    assert bench.compute_figures([], [], [], objects, language) == {}


def test_compute_figures_of_other_datasets() -> None:
    objects = ObjectWords(("person", "couch"), {"man": "person"})
    figures = bench.compute_figures(["A man falls."], [("The man falls.", "A fall.")], [{"couch"}], objects, None)
    assert not {"all", "objects", "event", "directions"} & set(figures)
    assert figures["chair_i"] == 1
    with pytest.raises(ValueError, match=r"'The man falls\.' is not a sentence of a rendered dataset"):
        bench.compute_figures(["A man falls."], [("The man falls.",)], [set()], objects, bench.LANGUAGES["en"])


def test_merge_seeds_averages_figures() -> None:
    runs = [
        [
            {
                "group": f"matched events ({n} of 9)",
                "method": "model",
                "n": n,
                "all": value,
                "cider_d": None,
                "values": {"bag": (value, n)},
            }
        ]
        for n, value in ((4, 0.5), (6, 0.7))
    ]
    (merged,) = bench.merge_seeds(runs)
    assert (merged["group"], merged["method"], merged["n"]) == ("matched events", "model", 5)
    assert (merged["all"], merged["all +-"]) == pytest.approx((0.6, 0.1))
    assert "cider_d" not in merged
    assert [line.split() for line in bench.table([merged])] == [
        ["matched", "events", "n", "all"],
        ["model", "5", "0.600", "+-0.100"],
        ["bag", "0.600"],
    ]
    assert [line.split() for line in bench.table(bench.merge_seeds(runs[:1]))] == [
        ["matched", "events", "(4", "of", "9)", "n", "all"],
        ["model", "4", "0.500"],
        ["bag", "0.500"],
    ]


def test_merge_seeds_skips_seeds_without_captions() -> None:
    empty, first = (
        [{"group": "clips", "method": "model, confident", "n": n, **figures}]
        for n, figures in ((0, {}), (4, {"all": 0.5, "values": {"bag": (0.25, 4)}}))
    )
    second = [
        {
            "group": "clips",
            "method": "model, confident",
            "n": 2,
            "all": 0.7,
            "values": {"bag": (0.75, 1), "coat": (1.0, 1)},
        }
    ]
    for runs in ([empty, first, second], [first, empty, second]):
        (merged,) = bench.merge_seeds(runs)
        assert (merged["n"], merged["all"], merged["values"]) == (2, pytest.approx(0.6), {"bag": 0.5, "coat": 1.0})
        assert len(bench.table([merged])) == 2
    (merged,) = bench.merge_seeds([empty, empty])
    assert "values" not in merged
    assert [line.split() for line in bench.table([merged])] == [["clips", "n"], ["model,", "confident", "0"]]


def test_parse_settings_reads_yaml() -> None:
    assert bench.parse_settings(["hidden=64", "drop_features=[scene, motion]", "cell=lstm"]) == {
        "hidden": 64, "drop_features": ["scene", "motion"], "cell": "lstm",
    }  # fmt: skip


@pytest.mark.slow
def test_bench_captions_prints_a_table_per_language(tmp_path: Path) -> None:
    write_dataset(tmp_path, clips_per_kind=3, eventless_clips=3, recordings=3)
    korean_sentences.write_korean_annotations(tmp_path / "dataset")
    command = [sys.executable, str(SCRIPTS / "bench_captions.py"), "--rendered", str(tmp_path), "--epochs", "1"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False)
    assert ran.returncode == 0, ran.stderr
    report = json.loads((tmp_path / "bench/bench_captions.json").read_text())
    for language in bench.LANGUAGES:
        assert f"\n{language}, 1 model, split test\n" in ran.stdout
        rows = report[language]["table"]
        assert [row["method"] for row in rows if row["group"] == "clips"] == [
            "model", "model, confident", "nearest by features", "nearest by state", "most frequent of label",
        ]  # fmt: skip
        assert {row["group"].partition(" (")[0] for row in rows} >= {"clips", "true events"}
    # The nearest segment by features depends neither on the language nor on the model.
    tables = [report[language]["table"] for language in bench.LANGUAGES]
    nearest = [[row for row in rows if row["method"] == "nearest by features"] for rows in tables]
    english, korean = (
        [(row["all"], row["objects"], row["directions"]) for row in rows if "matched" not in row["group"]]
        for rows in nearest
    )
    assert english == korean
