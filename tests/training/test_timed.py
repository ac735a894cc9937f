"""Timed events from annotations to a model, its metrics and predictions; alone and with clips."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.synthetic import CLASSES, FakeDataset, both_data, timed_data
from tests.training.test_tune import tuned
from vidgru import cli
from vidgru.cache import SequenceCache
from vidgru.config import EvalConfig, PredictConfig, TrainConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.errors import AnnotationError, SettingsError
from vidgru.flags import from_settings
from vidgru.model.checkpoint import HeadSpec, load_model
from vidgru.model.stream import score_recording
from vidgru.prediction.batch import predict
from vidgru.training import evaluate as evaluation
from vidgru.training.evaluate import evaluate
from vidgru.training.run import train

SOME = HeadSpec(background=True, multi_label=False)
LABELS = tuple(sorted(CLASSES))


def config(data: FakeDataset, out: Path, **changes: object) -> TrainConfig:
    return from_settings(
        TrainConfig, **data.train_settings(**{"out": str(out), "epochs": 6, "hidden": 32, "lookahead": 0.25, **changes})
    )


def evaluate_on(data: FakeDataset, model: Path, out: Path, **changes: object) -> dict[str, object]:
    return evaluate(model, data.root, from_settings(EvalConfig, **data.settings(out=str(out), **changes)))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FakeDataset:
    return both_data(tmp_path_factory.mktemp("both"))


@pytest.fixture(scope="module")
def run(data: FakeDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(data.root, config(data, tmp_path_factory.mktemp("run"), epochs=10))


def test_evaluate_leaves_out_unwatched_time(data: FakeDataset, run: Path, tmp_path: Path) -> None:
    rows = [row.split(",") for row in data.rows if row.startswith("t") and row.endswith("test")]
    video, start, end, label, *_ = rows[0]
    other = next(row for row in rows[1:] if row[0] == video)
    first, second = sorted([(float(start), float(end), label), (float(other[1]), float(other[2]), other[3])])
    header = f"video,start,end,label,split\n{video},{first[0]},{first[1]},{first[2]},test\n"
    partly = f"{header}{video},{first[1]},{second[0]},background,test\n"
    watched_s = second[0] - first[0]
    figures = {}
    for name, text in (("whole", header), ("partly", partly)):
        (tmp_path / f"{name}.csv").write_text(text)
        settings = data.settings(out=str(tmp_path / name), videos=str(data.root / "videos"))
        figures[name] = evaluate(run, tmp_path / f"{name}.csv", from_settings(EvalConfig, **settings))["events"]
    assert figures["whole"]["found"] == 2, "the second event is a false alarm"
    assert figures["partly"]["found"] == 1
    assert figures["partly"]["event_precision"] == 1
    assert figures["whole"]["hours"] == pytest.approx(10 / 3600)
    assert figures["partly"]["hours"] == pytest.approx(watched_s / 3600)
    frames = round(watched_s * 8)
    assert figures["partly"]["frame_accuracy"] * frames == pytest.approx(
        round(figures["partly"]["frame_accuracy"] * frames)
    )


def test_model_with_both_heads(data: FakeDataset, run: Path) -> None:
    model = load_model(run)
    assert model.labels == LABELS
    assert model.task.frame_head == SOME
    assert model.task.clip_head == SOME  # the eventless recordings are clips in which nothing happens
    assert model.lookahead == 2
    assert {"accuracy", "frame_map"} <= model.metrics.keys()
    header = (run / "results.csv").read_text().splitlines()[0]
    assert {"train_loss", "val_accuracy", "val_frame_map", "val_loss"} <= set(header.split(","))
    assert model.decode.exclusive


@pytest.mark.usefixtures("drawn_plots")
def test_evaluate_both_heads(data: FakeDataset, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = evaluate_on(data, run, tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert metrics["clips"] == 9  # four of each label, one in which nothing happens
    assert metrics["accuracy"] >= 0.8
    events = metrics["events"]
    assert (events["videos"], events["events"]) == (4, 6)
    assert events["event_f1"] == metrics["event_f1"] >= 0.8
    assert metrics["frame_map"] > 0.8
    assert {path.name for path in tmp_path.iterdir()} >= {"confusion.png", "event_curves.png", "timelines.png"}
    shown = capsys.readouterr().out
    assert f"event_f1 {metrics['event_f1']:.3f}" in shown
    assert f"accuracy {metrics['accuracy']:.3f}" in shown
    assert "6 events in 4 recordings" in shown


@pytest.mark.usefixtures("drawn_plots")
def test_evaluate_at_other_thresholds(
    data: FakeDataset, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = evaluate_on(data, run, tmp_path / "none", threshold=1.0)["events"]
    assert (none["event_recall"], none["false_alarms_per_hour"]) == (0, 0)
    first = none["missed"][0]
    assert len(none["missed"]) == none["events"] == 6
    assert f"\nmissed: {first['label']} at {first['start']:.1f} s of {first['video']}, " in capsys.readouterr().out
    with pytest.raises(SettingsError, match="threshold holds 'jump', which the model does not have"):
        evaluate_on(data, run, tmp_path / "other", threshold={"jump": 0.5})


def test_evaluate_scores_like_predict(
    data: FakeDataset, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: dict[str, list[tuple[float | None, float | None, str | None, float | None]]] = {}
    plain = evaluation.event_metrics

    def spy(truth: object, predicted: list, candidates: object, frames: dict, *rest: object, **named: object) -> object:
        for video in frames:
            evaluated[video] = [(e.start_s, e.end_s, e.label, e.score) for e in predicted if e.video == video]
        return plain(truth, predicted, candidates, frames, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluation, "event_metrics", spy)
    evaluate_on(data, run, tmp_path / "eval")
    assert len(evaluated) == 4
    assert sum(map(len, evaluated.values())) >= 4
    model, cache = load_model(run), SequenceCache(data.features)
    for video, events in evaluated.items():
        entry = cache.lookup(data.root / "videos" / video, data.feature_settings())
        assert entry is not None
        timeline = score_recording(model, cache.parts(entry.key), video=video, duration_s=entry.duration_s)
        assert [(e.start_s, e.end_s, e.label) for e in timeline.events] == [event[:3] for event in events]
        assert [e.score for e in timeline.events] == pytest.approx([event[3] for event in events], abs=1e-6)

    sources = [data.root / "videos" / video for video in evaluated]
    settings = data.settings(out=str(tmp_path / "events"))
    predictions = predict(run, sources, from_settings(PredictConfig, **settings))
    for prediction in predictions:
        events = evaluated[prediction.recording.name]
        assert [(e.start_s, e.end_s, e.label) for e in prediction.events] == [
            (round(start, 3), round(end, 3), label) for start, end, label, _ in events
        ]


def test_overlapping_events(tmp_path: Path) -> None:
    data = timed_data(tmp_path / "data", overlap=True)
    out = train(data.root, config(data, tmp_path / "run", epochs=8))
    model = load_model(out)
    assert model.task.clip_head is None
    assert model.task.frame_head == HeadSpec(background=False, multi_label=True)
    assert not model.decode.exclusive
    metrics = evaluate_on(data, out, tmp_path / "eval")
    assert "accuracy" not in metrics
    assert metrics["frame_map"] > 0.9
    assert metrics["event_f1"] >= 0.7


@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    {"bidirectional": True}, {"cell": "lstm", "layers": 2}, {"cell": "none"}, {"lookahead": 0.0}, {"balance": False},
    {"window": 2.0},
])  # fmt: skip
def test_setting_changes_timed_model(data: FakeDataset, run: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    short, other = {"epochs": 1}, tmp_path / "other"
    model = load_model(train(data.root, config(data, other, **short, **changes)))
    late = not ({"bidirectional", "lookahead"} & changes.keys()) and changes.get("cell") != "none"
    assert model.lookahead == (2 if late else 0)
    assert model.to_bytes() != load_model(run).to_bytes()
    assert evaluate_on(data, other, tmp_path / "eval")["events"]


def test_evaluate_ignores_events_of_other_splits(run: Path, tmp_path: Path) -> None:
    data = timed_data(tmp_path / "data", train=4, val=4)
    name, times = next(row.split(",")[0] for row in data.rows if row.endswith("test")), "0,9"
    others = [row for row in data.rows if not (row.startswith(name) and row.endswith("test"))]
    kept = [row for row in data.rows if row.startswith(name) and row.endswith("test")]
    model = tmp_path / "model.safetensors"
    load_model(run).save(model)
    data.rows = others + kept
    data.write()
    before = evaluate_on(data, model, tmp_path / "one")["events"]
    data.rows = [*others, f"{name},9.5,9.9,{LABELS[0]},,test", f"{name},{times},{LABELS[0]},,val"]
    data.write()
    after = evaluate_on(data, model, tmp_path / "two")["events"]
    assert before["found"] > after["found"]  # predictions within 0 to 9 s are neither right nor wrong
    assert after["events"] == before["events"] - len(kept) + 1


@pytest.mark.parametrize(("keep", "message"), [
    ("t", "there are clips labelled as a whole, but none in split 'train': nothing to learn them from\n  move rows"),
    ("c", "there are timed events, but none in split 'train': nothing to learn them from"),
])  # fmt: skip
def test_head_without_training_examples_is_refused(data: FakeDataset, tmp_path: Path, keep: str, message: str) -> None:
    rows = [row for row in data.rows if row.startswith(keep) or not row.endswith("train")]
    rows = [row for row in rows if row.split(",")[3] or not row.endswith("train")]  # not the eventless ones
    (data.root / f"{keep}.csv").write_text("video,start,end,label,description,split\n" + "\n".join(rows) + "\n")
    (data.root / f"{keep}.yaml").write_text(f"annotations: {keep}.csv\nvideos: videos\n")
    with pytest.raises(AnnotationError, match=message):
        train(data.root / f"{keep}.yaml", config(data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("keep", "message"), [
    ("t", "warning: no clips labelled as a whole in split 'val': epochs and thresholds are chosen without them"),
    ("c", "warning: no timed events in split 'val'"),
])  # fmt: skip
def test_incomplete_validation_warns(
    data: FakeDataset, tmp_path: Path, keep: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row for row in data.rows if row.startswith(keep) or not row.endswith("val")]
    (data.root / f"val{keep}.csv").write_text("video,start,end,label,description,split\n" + "\n".join(rows) + "\n")
    (data.root / f"val{keep}.yaml").write_text(f"annotations: val{keep}.csv\nvideos: videos\n")
    model = load_model(train(data.root / f"val{keep}.yaml", config(data, tmp_path / "run", epochs=1)))
    assert capsys.readouterr().err.count(message) == 1
    assert model.task.clip_head
    assert model.task.frame_head


def test_event_free_recordings_are_no_events(data: FakeDataset, tmp_path: Path) -> None:
    rows = [row for row in data.rows if not (row.startswith("t") and row.endswith("train") and row.split(",")[3])]
    (data.root / "none.csv").write_text("video,start,end,label,description,split\n" + "\n".join(rows) + "\n")
    (data.root / "none.yaml").write_text("annotations: none.csv\nvideos: videos\n")
    with pytest.raises(AnnotationError, match="there are timed events, but none in split 'train'"):
        train(data.root / "none.yaml", config(data, tmp_path / "run"))


def test_test_split_does_not_decide_heads(tmp_path: Path) -> None:
    data = timed_data(tmp_path / "data")
    number = next(index for index, row in enumerate(data.rows) if row.endswith("test") and row.split(",")[3])
    video, start = data.rows[number].split(",")[:2]
    other = next(label for label in LABELS if label != data.rows[number].split(",")[3])
    data.rows.append(f"{video},{start},{float(start) + 2},{other},,test")
    data.write()
    assert load_model(train(data.root, config(data, tmp_path / "run", epochs=1))).task.frame_head == SOME


@pytest.mark.slow
def test_lookahead_longer_than_recordings(tmp_path: Path) -> None:
    data = timed_data(tmp_path / "data", train=4)
    run = train(data.root, config(data, tmp_path / "run", epochs=1, lookahead=60.0, window=1.0))
    assert evaluate_on(data, run, tmp_path / "eval")["events"]


def test_event_free_training_split_is_refused(data: FakeDataset, tmp_path: Path) -> None:
    rows = [row for row in data.rows if row.startswith("t") and not (row.endswith("train") and row.split(",")[3])]
    (data.root / "quiet.csv").write_text("video,start,end,label,description,split\n" + "\n".join(rows) + "\n")
    (data.root / "quiet.yaml").write_text("annotations: quiet.csv\nvideos: videos\n")
    assert load_dataset(data.root / "quiet.yaml").labels == LABELS
    with pytest.raises(AnnotationError, match="no events in split 'train': nothing to learn"):
        train(data.root / "quiet.yaml", config(data, tmp_path / "run"))


# --- thresholds fitted again ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict(run: Path) -> Path:
    """The same model with thresholds that are too high for any event."""
    load_model(run).with_thresholds(1.0).save(run / "strict.safetensors")
    return run / "strict.safetensors"


def test_tune_prints_what_evaluation_finds(
    data: FakeDataset, strict: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tuned(data, strict, tmp_path / "tuned.safetensors", split="test")
    printed = capsys.readouterr()
    assert "4 recordings, 0.01 hours, 6 events; aim: best F1" in printed.out
    before, after = load_model(strict), load_model(path)
    assert max(after.decode.high) < 1.0 == min(before.decode.high)
    assert replace(after, decode=before.decode).to_bytes() == before.to_bytes()
    settings = data.settings(out=str(tmp_path / "eval"))
    events = evaluate(path, data.root, from_settings(EvalConfig, **settings))["events"]
    names = ("event_precision", "event_recall", "event_f1", "false_alarms_per_hour")
    expected = [f"0.00 -> {events[name]:.2f}" for name in names]
    (line,) = re.findall(r"^all labels +6 +(.*)$", printed.out, re.MULTILINE)
    assert re.findall(r"\S+ -> \S+", line) == expected
    assert events["event_recall"] > 0


def test_tune_replaces_the_model_and_leaves_out_its_training_data(
    data: FakeDataset, strict: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(strict.read_bytes())
    flags = [word for name, value in data.settings().items() for word in (f"--{name}", str(value))]
    assert cli.run(["tune", str(model), str(data.root), *flags, "--min-recall", "0.5"]) == 0
    printed = capsys.readouterr()
    assert "left out 12 of 16 recordings: the model was trained on them" in printed.err
    assert "6 events; aim: recall of at least 0.5" in printed.out
    assert max(load_model(model).decode.high) < 1.0
    with pytest.raises(AnnotationError, match=r"the model was trained on all of these 8 recordings\n  annotate others"):
        tuned(data, strict, tmp_path / "no.safetensors", split="train")
    with pytest.raises(AnnotationError, match=r"no events in split 'night'; it has train, val, test\n  annotate"):
        tuned(data, strict, tmp_path / "no.safetensors", split="night")
