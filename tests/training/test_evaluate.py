import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.model.networks import make_model
from tests.training.synthetic import FakeDataset, order_data
from vidgru.cache import SequenceCache
from vidgru.config import EvalConfig
from vidgru.errors import AnnotationError, ModelError
from vidgru.flags import from_settings
from vidgru.model.checkpoint import EventModel, entry_digest, load_model
from vidgru.model.event_decoder import DecodeSettings
from vidgru.model.features import compute_features
from vidgru.model.scoring import encode_features, score_clips, score_frames
from vidgru.model.stream import score_recording
from vidgru.training.data import load_features
from vidgru.training.evaluate import (
    _confused_events,
    _inexact_events,
    _missed_events,
    evaluate,
    metrics_summary,
    metrics_table,
)
from vidgru.training.examples import Examples, LabelledClip, TimedRecording
from vidgru.training.validation import Validation
from vidgru.types import Annotation, Event

LABELS = ("car_then_person", "person_then_car")


def make_untrained(data: FakeDataset, *, background: bool = False, multi_label: bool = False) -> EventModel:
    """A model nobody trained, for these features."""
    cache = SequenceCache(data.features)
    sequence = cache.read(next(cache.entries()).key)
    model = make_model(sequence, background=background, multi_label=multi_label)
    decode = DecodeSettings(high=(0.5, 0.5), low=(0.3, 0.3), min_s=0.5, merge_s=0.5, exclusive=not multi_label)
    task = replace(model.task, labels=LABELS)
    return replace(
        model,
        task=task,
        feature_settings=data.feature_settings(),
        weights=str(data.weights),
        names=sequence.names,
        decode=decode,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FakeDataset:
    data = order_data(tmp_path_factory.mktemp("orders"), train=3, val=5)
    make_untrained(data).save(data.root / "model.safetensors")
    return data


def config(data: FakeDataset, out: Path, **changes: object) -> EvalConfig:
    return from_settings(EvalConfig, **data.settings(out=str(out), **changes))


def annotated(data: FakeDataset, name: str, *rows: str) -> Path:
    (data.root / f"{name}.csv").write_text("\n".join(["video,start,end,label,split", *rows]) + "\n")
    (data.root / f"{name}.yaml").write_text(f"annotations: {name}.csv\nvideos: videos\n")
    return data.root / f"{name}.yaml"


@pytest.mark.usefixtures("drawn_plots")
def test_evaluate_writes_prints_and_returns_metrics(
    data: FakeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = evaluate(data.root / "model.safetensors", data.root, config(data, tmp_path / "eval"))
    assert json.loads((tmp_path / "eval" / "metrics.json").read_text()) == metrics
    assert (tmp_path / "eval" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert metrics["clips"] == 10
    assert metrics["split"] == "test"
    assert np.sum(metrics["confusion"]) == 10
    low, high = metrics["intervals"]["accuracy"]
    assert low <= metrics["accuracy"] <= high
    shown = capsys.readouterr().out
    assert f"accuracy {metrics['accuracy']:.3f} (95 %: {low:.3f} to {high:.3f})" in shown
    assert all(label in shown for label in LABELS)


def test_evaluate_on_another_split(data: FakeDataset, tmp_path: Path) -> None:
    metrics = evaluate(data.root / "model.safetensors", data.root, config(data, tmp_path, split="train"))
    assert metrics["clips"] == 6


def test_evaluate_warns_of_training_recordings(
    data: FakeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = evaluate(data.root / "model.safetensors", data.root, config(data, tmp_path))
    assert fresh["seen_in_training"] == 0
    assert "too good" not in capsys.readouterr().err
    digests = tuple(entry_digest(entry.key) for entry in SequenceCache(data.features).entries())
    replace(make_untrained(data), trained_on=digests).save(tmp_path / "knows.safetensors")
    metrics = evaluate(tmp_path / "knows.safetensors", data.root, config(data, tmp_path))
    assert metrics["seen_in_training"] == metrics["clips"] == 10
    warning = "warning: the model was trained on 10 of these 10 recordings; metrics are too good"
    assert warning in capsys.readouterr().err


def test_evaluate_scores_like_stream(data: FakeDataset, tmp_path: Path) -> None:
    model = load_model(data.root / "model.safetensors")
    cache = SequenceCache(data.features)
    right = 0
    for row in data.rows:
        name, _, _, label, _, split = row.split(",")
        if split == "test":
            entry = cache.lookup(data.root / "videos" / name, data.feature_settings())
            assert entry is not None
            timeline = score_recording(model, cache.parts(entry.key), video=name, duration_s=2.0)
            right += LABELS[int(timeline.scores[0].argmax())] == label
    assert evaluate(data.root / "model.safetensors", data.root, config(data, tmp_path))["accuracy"] == right / 10


def test_evaluate_ignores_row_order(data: FakeDataset, tmp_path: Path) -> None:
    rows = [",".join((name, start, end, label, split)) for name, start, end, label, _, split in map(_cells, data.rows)]
    one, two = annotated(data, "one", *rows), annotated(data, "two", *reversed(rows))
    results = [evaluate(data.root / "model.safetensors", path, config(data, tmp_path)) for path in (one, two)]
    for metrics in results:
        del metrics["dataset"], metrics["intervals"]  # the bootstrap draws by position
    assert results[0] == results[1]


def _cells(row: str) -> list[str]:
    return row.split(",")


def test_evaluate_multi_label(data: FakeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_untrained(data, multi_label=True).save(tmp_path / "multi.safetensors")
    metrics = evaluate(tmp_path / "multi.safetensors", data.root, config(data, tmp_path / "eval"))
    assert 0 <= metrics["map"] <= 1
    assert not (tmp_path / "eval" / "confusion.png").exists()
    assert f"map {metrics['map']:.3f}" in capsys.readouterr().out


def test_evaluate_empty_split_is_refused(data: FakeDataset, tmp_path: Path) -> None:
    with pytest.raises(
        AnnotationError, match=r"no clips in split 'holdout'\n  it has train, val, test; choose .* --folds 5"
    ):
        evaluate(data.root / "model.safetensors", data.root, config(data, tmp_path, split="holdout"))


@pytest.mark.parametrize(("rows", "message"), [
    (["001.mp4,,,fall,test"], r"001\.mp4 has the label 'fall', which the model does not know; it knows car_then"),
    (["001.mp4,,,,test"], r"001\.mp4 has no event, but the model was trained without event-free clips"),
    ([f"001.mp4,,,{label},test" for label in LABELS], r"001\.mp4 has several labels \(.*\), the model predicts one"),
])  # fmt: skip
def test_evaluate_on_other_task_is_refused(data: FakeDataset, tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        evaluate(data.root / "model.safetensors", annotated(data, "other", *rows), config(data, tmp_path))


def test_evaluate_without_model_is_refused(data: FakeDataset, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model"):
        evaluate(tmp_path / "no.safetensors", data.root, config(data, tmp_path))


def test_validation_scores_each_fold_with_its_member(data: FakeDataset) -> None:
    cache = SequenceCache(data.features)
    loaded = load_features(cache, {f"{n}.mp4": entry.key for n, entry in enumerate(cache.entries())})
    labels = np.eye(2, dtype=np.float32)
    folds = [0, 1, 2, -1, 0, 2, 0, -1, 0, 2]  # none are of the last member
    clips = [LabelledClip(video=f"{n}.mp4", frames=16, labels=labels[n % 2], fold=folds[n]) for n in range(8)]
    recordings = [
        TimedRecording(
            video=f"{n}.mp4",
            targets=labels[np.arange(16) % 2],
            weights=np.ones(16, np.float32),
            events=np.zeros((0, 3)),
            spans_s=np.zeros((0, 2)),
            fold=folds[n],
        )
        for n in (3, 9, 5, 1)
    ]
    plain = make_untrained(data)
    both = make_model(cache.read(loaded.keys["0.mp4"]), timed=True, lookahead=3, members=4)
    model = replace(plain, network=both.network, task=both.task, lookahead=3)
    validation = Validation(Examples(clips=clips, recordings=recordings, captions=[]), 4, loaded)
    outputs, examples = validation.predict(model), validation.examples
    members = [model.member(member) for member in range(4)]
    assert outputs.clips is not None
    assert [clip.video for clip in examples.clips] == [f"{n}.mp4" for n in (0, 4, 6, 1, 2, 5)]
    for clip, row in zip(examples.clips, outputs.clips, strict=True):
        encoded = encode_features(members[clip.fold], [loaded.features[clip.video]])
        np.testing.assert_allclose(score_clips(members[clip.fold], [encoded])[0], row, atol=1e-6)
    assert [recording.video for recording in examples.recordings] == ["1.mp4", "9.mp4", "5.mp4"]
    for recording, scores in zip(examples.recordings, outputs.frames, strict=True):
        encoded = encode_features(members[recording.fold], [loaded.features[recording.video]])
        np.testing.assert_allclose(score_frames(members[recording.fold], [encoded])[0], scores, atol=1e-6)
    assert compute_features(cache.read(next(cache.entries()).key)).objects.shape[1] == loaded.feature_spec.object_width


def test_table_of_class_without_clips() -> None:
    values = {"precision": 0.0, "recall": None, "f1": 0.0, "support": 0}
    text = metrics_table({"per_class": {"a": values}, "clips": 0, "accuracy": None, "failed": {"x.mp4": "damaged"}})
    assert "-" in text.splitlines()[1]
    assert text.splitlines()[-1] == "skipped, cannot be read: x.mp4"


def test_table_is_cut_to_most_frequent_classes() -> None:
    def row(support: int) -> dict[str, float]:
        return {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": support}

    per_class = {f"label {n}": row(n) for n in range(400)}
    lines = metrics_table(
        {"per_class": per_class, "clips": 9, "failed": {f"{n}.mp4": "" for n in range(50)}}
    ).splitlines()
    assert [line.split()[1] for line in lines[1:21]] == [str(n) for n in range(399, 379, -1)]
    assert lines[21] == "... and 380 more labels in metrics.json"
    assert lines[-1].endswith("19.mp4 and 30 more")
    events = {"per_class": per_class, "events": 9, "videos": 9, "found": 9}
    assert len(metrics_table({"per_class": per_class, "clips": 9, "events": events}).splitlines()) < 30


def test_summary_has_a_line_per_head() -> None:
    row = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 3}
    per_class = {f"label {n}": row for n in range(400)}
    events = {"per_class": per_class, "events": 9, "videos": 4, "event_f1": 0.7, "map_50": 0.5, "edit": 0.9}
    lines = metrics_summary(
        {
            "per_class": per_class, "clips": 8, "accuracy": 0.75, "macro_f1": 0.6,
            "intervals": {"accuracy": [0.5, 1.0]},
            "events": {**events, "intervals": {"event_f1": [0.6, 0.8]}},
            "descriptions": {"segments": 7, "templates": 0.25, "cider_d": 1.5},
            "failed": {"x.mp4": "damaged"},
        }
    ).splitlines()  # fmt: skip
    assert len(lines) == 2 * (1 + 5 + 1) + 4
    assert lines[-4:] == [
        "8 clips: accuracy 0.750 (95 %: 0.500 to 1.000), macro_f1 0.600",
        "9 events in 4 recordings: event_f1 0.700 (95 %: 0.600 to 0.800), map_50 0.500",
        "7 captions: cider_d 1.500, 25% below the confidence threshold",
        "skipped, cannot be read: x.mp4",
    ]


@pytest.mark.parametrize("text_of", [metrics_table, metrics_summary])
def test_missed_events_are_named(text_of: Callable[[Mapping[str, Any]], str]) -> None:
    """`eval` prints the table, training and cross-validation the summary."""
    missed = [{"video": f"{n}.mp4", "start": 3.04, "end": 6.0, "label": "fall"} for n in range(7)]
    row = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 9}
    events = {"per_class": {"fall": row}, "events": 9, "videos": 9, "found": 2}
    named = ", ".join(f"fall at 3.0 s of {n}.mp4" for n in range(5))
    assert f"\nmissed: {named}, and 2 more" in text_of({"events": {**events, "missed": missed}})
    assert text_of({"events": {**events, "missed": missed[:1]}}).endswith("\nmissed: fall at 3.0 s of 0.mp4")
    assert "missed" not in text_of({"events": {**events, "missed": []}})


def test_inexact_events_overlap_predictions() -> None:
    truth = [
        Annotation(video="a.mp4", start_s=start_s, end_s=start_s + 4.0, label="fall") for start_s in (10, 20, 30, 40)
    ]
    exact = Event(video="a.mp4", start_s=10.0, end_s=13.0, label="fall", score=0.9)
    early, late = (replace(exact, start_s=start_s, end_s=start_s + 4.0) for start_s in (17.0, 32.5))
    far = [replace(exact, start_s=41.0, end_s=42.0, label="sit"), replace(exact, start_s=60.0, end_s=64.0)]
    assert _inexact_events(_missed_events(truth, [exact, early, late, *far])) == {
        "events": 2, "missed": 3, "start_later_s": -0.25, "end_later_s": -0.25,
    }  # fmt: skip
    assert _inexact_events(_missed_events(truth, [exact, early, *far])) is None, "a single event"
    assert _missed_events([], far) == []


def test_confused_events_name_the_commonest_pair() -> None:
    truth = [Annotation(video="a.mp4", start_s=t, end_s=t + 2.0, label="sit") for t in (0.0, 10.0, 20.0, 30.0)]
    spans = [("fall", 0.0), ("fall", 10.5), ("sit", 20.0), ("fall", 20.0), ("fall", 31.9)]
    predicted = [Event(video="a.mp4", start_s=t, end_s=t + 2.0, label=label, score=0.9) for label, t in spans]
    assert _confused_events(truth, predicted) == {"true": "sit", "predicted": "fall", "events": 2, "of": 4}
    assert _confused_events(truth, predicted[1:]) is None, "a single event"
    assert _confused_events(truth, [replace(event, video="b.mp4") for event in predicted]) is None
