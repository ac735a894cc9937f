"""The baselines that descriptions are held against, and the figures of the table, on made-up sentences."""

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
from vidgru.demo.sentences import LANGUAGES, Language, Told, tell
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
        patch.setenv(name, "false")  # what the script sets is undone with this
    patch.syspath_prepend(SCRIPTS)
    baselines: Any = importlib.import_module("describe_baselines")
    bench: Any = importlib.import_module("bench_describe")

TRUTH = Told(kind="leaves_bag", attributes={"coat": "red", "bag": "black", "way": "left"})
OTHER = Told(kind="car_stops", attributes={"car": "blue", "way": "right"})


def stretch(
    *sentences: str, label: int | None = 0, video: str = "a.mp4", at: tuple[float, float] | None = None
) -> DescribedSegment:
    start_s, end_s = at or (None, None)
    return DescribedSegment(video=video, start_s=start_s, end_s=end_s, label=label, sentences=sentences, split="train")


# --- baselines --------------------------------------------------------------------------------------------------------


def test_nearest_is_by_angle_of_standardised_columns() -> None:
    train = np.array([[0.0, 1000.0, 7.0], [1.0, 1010.0, 7.0], [0.5, 990.0, 7.0], [0.5, 1000.0, 7.0]])
    # the second column, large as it is, counts no more than the first; the third tells nothing, and is no error
    test = np.array([[1.0, 1000.1, 7.0], [-3.0, 1001.0, 7.0], [0.5, 900.0, 7.0]])
    assert baselines.nearest(train, test).tolist() == [1, 0, 2]
    assert baselines.nearest(train, train[[2, 0]]).tolist() == [2, 0]


def test_the_usual_sentence_of_each_label() -> None:
    train = [
        stretch("a"),
        stretch("b", "c"),
        stretch("c"),
        stretch("d", label=1),
        stretch("e", label=1),
        stretch("b", label=None),
    ]
    assert baselines.usual(train, ("runs", "meet")) == {None: "b", "runs": "c", "meet": "d"}


def test_found_events_are_matched_whatever_their_labels() -> None:
    truth = [stretch("a", at=(0, 4)), stretch("b", at=(4, 8)), stretch("c", at=(0, 4), video="b.mp4")]
    spans = {"a.mp4": [(0.5, 4), (0, 3.9), (7, 8)]}
    found = [
        Event(video=video, start_s=a, end_s=b, label="meet", score=0.5)
        for video, some in spans.items()
        for a, b in some
    ]
    assert baselines.match(found, truth) == [(found[1], truth[0])]
    assert baselines.match(found, truth, least=0.2) == [(found[1], truth[0]), (found[2], truth[1])]


def test_means_of_what_the_model_is_given() -> None:
    sequence = make_sequence(20, 3)
    features, feature_spec = compute_features(sequence), FeatureSpec.from_sequence(sequence)
    found = baselines.mean_features(features, slice(5, 15), feature_spec)
    column = feature_spec.object_groups()["class"].start
    rows = features.objects[features.offsets[5] : features.offsets[15]]
    classes = [(rows[:, column] == index).sum() / 10 for index in range(feature_spec.classes)]
    wide = feature_spec.object_width - 1
    np.testing.assert_allclose(found[:wide], np.delete(rows, column, axis=1).mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found[wide : wide + feature_spec.classes], classes)
    np.testing.assert_allclose(found[wide + feature_spec.classes :], features.frame[5:15].mean(axis=0), atol=1e-5)
    nobody = compute_features(make_sequence(4, 0))
    assert np.isfinite(baselines.mean_features(nobody, slice(0, 4), feature_spec)).all()


def test_the_mean_state_is_that_of_the_stretch_alone() -> None:
    model = make_model()
    vectors = encode_features(model, [compute_features(make_sequence(50))]).vectors
    with torch.inference_mode():
        hidden, _ = model.network.run_rnn(vectors[None, 10:20], torch.ones(1, 10, dtype=torch.bool))
    np.testing.assert_allclose(baselines.mean_state(model, vectors[10:20]), hidden[0].mean(dim=0).numpy(), atol=1e-6)


@pytest.mark.parametrize(("clips", "timed", "want"), [
    (True, True, ["walk", "fall"]), (True, False, ["walk", "walk"]), (False, True, ["fall", "fall"]),
])  # fmt: skip
def test_clips_have_the_label_of_the_head_for_clips(
    clips: bool, timed: bool, want: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head for clips says walk here, that for frames fall; the last column, nothing, is no answer."""
    model = make_model(clips=clips, timed=timed)
    by_frame = np.full((50, 3), (0.3, 0.1, 0.6), np.float32)
    by_frame[:30] = (0.1, 0.3, 0.6)
    monkeypatch.setattr(baselines, "score_clips", lambda _, some: np.tile([[0.1, 0.2, 0.7]], (len(some), 1)))
    monkeypatch.setattr(baselines, "score_frames", lambda _, some: [by_frame for _ in some])
    encoded = {
        "a.mp4": EncodedRecording(
            vectors=torch.zeros(50, 64), attention=np.zeros(0, np.float32), time_s=np.arange(50) / 8
        )
    }
    given = [stretch("a"), stretch("a", at=(4.5, 6))]
    if not clips:
        by_frame[:] = by_frame[-1]
    assert baselines.predicted_labels(model, encoded, given) == want


def test_a_model_without_heads_has_one_label_for_all() -> None:
    sequence = make_sequence(50)
    model = make_model(sequence, clips=False, sentences=("A man falls.",))
    encoded = {"a.mp4": encode_features(model, [compute_features(sequence)])}
    given = [stretch("a"), stretch("a", at=(4.5, 6))]
    assert baselines.predicted_labels(model, encoded, given) == [DESCRIBED, DESCRIBED]


def test_what_is_read_of_a_long_clip_is_what_training_reads() -> None:
    sequence = make_sequence(1100, 1)
    features, feature_spec = compute_features(sequence), FeatureSpec.from_sequence(sequence)
    loaded = LoadedFeatures(
        features={"a.mp4": features}, feature_spec=feature_spec, names=sequence.names, keys={"a.mp4": "key"}
    )
    model = make_model(sequence, sentences=("A man falls.",))
    dataset = Dataset(root=Path(), source=Path(), rows=(), recordings={}, labels=model.labels)
    scene = bench.Scene(model=model, dataset=dataset, loaded=loaded, encoded={})
    for at, first, stop in ((None, 76, 1100), ((100.0, 110.0), 796, 880), ((0.0, 137.5), 76, 1100)):
        read = scene.features(stretch("a", at=at))
        np.testing.assert_array_equal(read.time_s, sequence.time_s[first:stop])
        (other,) = caption_features([sequence], feature_spec, [at or (0.0, np.inf)])
        np.testing.assert_array_equal(other.time_s, read.time_s)
        np.testing.assert_allclose(other.objects, read.objects, atol=1e-5)
        assert baselines.frames_of(stretch("a", at=at), sequence.time_s) == slice(first, stop)
    assert scene.seen(stretch("a")) == {"person", "car", "bag"}
    near = {sequence.names[kind] for kind in sequence.classes[792:816].tolist()}
    assert scene.seen(stretch("a", at=(100.0, 101.0))) == near


def test_a_clip_has_the_label_of_the_event_that_takes_most_of_it() -> None:
    notes = [
        Annotation(video="a.mp4", description="She falls.", split="train"),
        Annotation(video="a.mp4", start_s=0, end_s=2, label="walk", split="train"),
        Annotation(video="a.mp4", start_s=2, end_s=5, label="fall", split="train"),
        Annotation(video="a.mp4", start_s=1, end_s=2.5, description="She walks on.", split="train"),
        Annotation(video="b.mp4", description="Nobody is there.", split="train"),
        Annotation(video="b.mp4", label="walk", description="He walks.", split="test"),
    ]
    rows = tuple(AnnotationRow(annotation=note, where="") for note in notes)
    dataset = Dataset(root=Path(), source=Path(), rows=rows, recordings={}, labels=("fall", "walk"))
    found = baselines.described(dataset, "train")
    assert [(one.sentences, one.label) for one in found] == [
        (("She falls.",), 0),
        (("She walks on.",), 1),
        (("Nobody is there.",), None),
    ]


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_figures_of_right_and_wrong_sentences(language: Language) -> None:
    names = ("person", "car", "bag")
    objects = ObjectWords(names, {word: name for word, name in bench.OBJECT_WORDS.items() if name in names})
    references = [(tell(TRUTH, 0, language),), (tell(OTHER, 0, language),)]
    seen = [{"person", "bag"}, {"car"}]
    # another wording than the reference's is as right
    right = bench.figures_of([tell(TRUTH, 3, language), tell(OTHER, 2, language)], references, seen, objects, language)
    assert [right[name] for name in ("all", "who", "what", "ways", "unseen")] == [1, 1, 1, 1, 0]
    wrong = bench.figures_of([tell(OTHER, 2, language), tell(OTHER, 2, language)], references, seen, objects, language)
    assert [wrong[name] for name in ("all", "who", "what", "ways", "unseen")] == [0.5, 0.5, 0.5, 0.5, 0.5]
    assert wrong["cider_d"] < right["cider_d"]
    assert wrong["values"] == {"bag": (0, 1), "car": (1, 1), "coat": (0, 1), "way": (0.5, 2)}
    assert bench.figures_of([], [], [], objects, language) == {}


def test_other_data_sets_have_no_attributes() -> None:
    objects = ObjectWords(("person", "couch"), {"man": "person"})
    found = bench.figures_of(["A man falls."], [("The man falls.", "A fall.")], [{"couch"}], objects, None)
    assert not {"all", "who", "what", "ways"} & set(found)
    assert found["unseen"] == 1
    with pytest.raises(ValueError, match=r"'The man falls\.' is no sentence of a drawn set"):
        bench.figures_of(["A man falls."], [("The man falls.",)], [set()], objects, "en")


def test_seeds_are_put_together() -> None:
    runs = [
        [
            {
                "of": f"found events ({n} of 9)",
                "way": "model",
                "n": n,
                "all": value,
                "cider_d": None,
                "values": {"bag": (value, n)},
            }
        ]
        for n, value in ((4, 0.5), (6, 0.7))
    ]
    (merged,) = bench.over_seeds(runs)
    assert (merged["of"], merged["way"], merged["n"]) == ("found events", "model", 5)
    assert (merged["all"], merged["all +-"]) == pytest.approx((0.6, 0.1))
    assert "cider_d" not in merged
    assert [line.split() for line in bench.table([merged])] == [
        ["found", "events", "n", "all"],
        ["model", "5", "0.600", "+-0.100"],
        ["bag", "0.600"],
    ]
    assert [line.split() for line in bench.table(bench.over_seeds(runs[:1]))] == [
        ["found", "events", "(4", "of", "9)", "n", "all"],
        ["model", "4", "0.500"],
        ["bag", "0.500"],
    ]


def test_a_seed_without_a_sure_sentence_adds_no_figures() -> None:
    none, some = (
        [{"of": "clips", "way": "model, sure", "n": n, **figures}]
        for n, figures in ((0, {}), (4, {"all": 0.5, "values": {"bag": (0.25, 4)}}))
    )
    other = [{"of": "clips", "way": "model, sure", "n": 2, "all": 0.7, "values": {"bag": (0.75, 1), "coat": (1.0, 1)}}]
    for runs in ([none, some, other], [some, none, other]):
        (merged,) = bench.over_seeds(runs)
        assert (merged["n"], merged["all"], merged["values"]) == (2, pytest.approx(0.6), {"bag": 0.5, "coat": 1.0})
        assert len(bench.table([merged])) == 2
    (merged,) = bench.over_seeds([none, none])
    assert "values" not in merged
    assert [line.split() for line in bench.table([merged])] == [["clips", "n"], ["model,", "sure", "0"]]


def test_settings_are_read_as_yaml() -> None:
    assert bench._settings(["hidden=64", "drop_features=[scene, motion]", "cell=lstm"]) == {
        "hidden": 64, "drop_features": ["scene", "motion"], "cell": "lstm",
    }  # fmt: skip


@pytest.mark.slow
def test_a_table_for_each_language(tmp_path: Path) -> None:
    write_dataset(tmp_path, clips_per_kind=3, eventless=3, recordings=3)
    command = [sys.executable, str(SCRIPTS / "bench_describe.py"), "--drawn", str(tmp_path), "--epochs", "1"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False)
    assert ran.returncode == 0, ran.stderr
    report = json.loads((tmp_path / "bench/bench_describe.json").read_text())
    for language in LANGUAGES:
        assert f"\n{language}, 1 model, split test\n" in ran.stdout
        rows = report[language]["table"]
        assert [row["way"] for row in rows if row["of"] == "clips"] == [
            "model", "model, sure", "nearest by features", "nearest by state", "usual of label",
        ]  # fmt: skip
        assert {row["of"].partition(" (")[0] for row in rows} >= {"clips", "true events"}
    # what is nearest by features does not depend on the language, nor on the model
    alike = [
        [row for row in report[language]["table"] if row["way"] == "nearest by features"] for language in LANGUAGES
    ]
    known = [[(row["all"], row["who"], row["ways"]) for row in rows if "found" not in row["of"]] for rows in alike]
    assert known[0] == known[1]
