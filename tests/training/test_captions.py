"""Models that learn to write captions, from annotations to captions of unseen recordings."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.training.synthetic import EVENT_SENTENCES, SENTENCES, FakeDataset, captioned_data, timed_data
from vidgru import cli
from vidgru.config import EvalConfig, PredictConfig, TrainConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.errors import AnnotationError
from vidgru.flags import from_settings
from vidgru.model.checkpoint import EventModel, EventTask, HeadSpec, build_network, load_model
from vidgru.prediction.batch import predict
from vidgru.training.evaluate import evaluate
from vidgru.training.initial_model import copy_weights
from vidgru.training.run import train
from vidgru.types import DESCRIBED

SMALL = {"hidden": 16, "width": 16, "batch": 8, "patience": 0, "members": 1}
ORDER_OF = dict.fromkeys(SENTENCES["person_then_car"], "person_then_car")
ORDER_OF |= dict.fromkeys(SENTENCES["car_then_person"], "car_then_person")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FakeDataset:
    return captioned_data(tmp_path_factory.mktemp("captioned"), train=10)


@pytest.fixture(scope="module")
def trained(data: FakeDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = data.root / "captioned.yaml"
    path.write_text('annotations: annotations.csv\ntemplates: {person_then_car: "A person, then a car"}\n')
    return train(path, config(data, tmp_path_factory.mktemp("run"), epochs=8, hidden=32, width=32))


def config(data: FakeDataset, out: Path, **changes: object) -> TrainConfig:
    return from_settings(TrainConfig, **data.settings(**{"out": str(out), "epochs": 3, **SMALL, **changes}))


def scored(data: FakeDataset, run: Path, out: Path, **changes: object) -> dict[str, object]:
    return evaluate(run, data.root, from_settings(EvalConfig, **data.settings(out=str(out), **changes)))


def results(run: Path) -> list[dict[str, str]]:
    rows = csv.DictReader((run / "results.csv").read_text().splitlines())
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


# --- training and evaluation ------------------------------------------------------------------------------------------


def test_model_writes_correct_sentence(
    data: FakeDataset, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = scored(data, trained, tmp_path)
    captions = metrics["descriptions"]
    truth = {row.split(",")[0]: row.split(",")[3] for row in data.rows}
    assert len(captions["sentences"]) == captions["segments"] == 8
    for row in captions["sentences"]:
        assert ORDER_OF[row["description"]] == truth[row["video"]]
        assert row["references"] == list(SENTENCES[truth[row["video"]]])
    assert captions["templates"] == 0
    assert metrics["cider_d"] == captions["cider_d"] > 1
    assert metrics["accuracy"] == 1.0
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["descriptions"] == captions
    shown = capsys.readouterr().out
    assert "8 captions, 0% of them below the confidence threshold" in shown
    assert f"    is {SENTENCES['car_then_person'][0]}\n    or {SENTENCES['car_then_person'][1]}" in shown


def relabelled(data: FakeDataset, name: str, splits: tuple[str, ...]) -> Path:
    """The annotations without the labels of these splits, in another file."""
    with (data.root / "annotations.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    path = data.root / name
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "label": "" if row["split"] in splits else row["label"]} for row in rows)
    return path


def test_evaluate_on_descriptions_alone(data: FakeDataset, trained: Path, tmp_path: Path) -> None:
    path = relabelled(data, "sentences.csv", ("train", "val", "test"))
    metrics = evaluate(trained, path, from_settings(EvalConfig, **data.settings(out=str(tmp_path))))
    assert "accuracy" not in metrics
    assert metrics["descriptions"]["segments"] == 8


def test_validation_by_descriptions_alone_is_refused(data: FakeDataset, tmp_path: Path) -> None:
    path = relabelled(data, "val.csv", ("val",))
    message = "no clip of split 'val' has a label: nothing to choose epochs and thresholds by\n  give labelled rows"
    with pytest.raises(AnnotationError, match=message):
        train(path, config(data, tmp_path, epochs=1))


def test_training_tracks_next_word(trained: Path) -> None:
    rows = results(trained)
    assert float(rows[-1]["val_next_word"]) > 0.7 > float(rows[0]["val_next_word"])
    model, metrics = load_model(trained), json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    assert model.metrics["next_word"] == pytest.approx(max(float(row["val_next_word"]) for row in rows), abs=0.05)
    assert metrics["descriptions"]["segments"] == 8
    assert model.caption is not None
    assert set(model.caption.labels) == set(SENTENCES)
    assert model.caption.threshold == 0.0, "all validation captions are correct"
    assert model.caption.templates == {"person_then_car": "A person, then a car"}


def test_predict_writes_captions(data: FakeDataset, trained: Path, tmp_path: Path) -> None:
    settings = PredictConfig(out=str(tmp_path), features=str(data.features), report=False)
    truth = {row.split(",")[0]: row.split(",")[3] for row in data.rows}
    predictions = predict(trained, [data.root / "videos"], settings, progress=False)
    events = [event for row in predictions for event in row.events]
    assert len(events) > 30
    for event in events:
        assert event.description_source == "model"
        assert ORDER_OF[event.description] == event.label == truth[event.video]


# --- resuming and starting from a model -------------------------------------------------------------------------------


@pytest.mark.slow
def test_resumed_run_equals_uninterrupted(data: FakeDataset, tmp_path: Path) -> None:
    straight = train(data.root, config(data, tmp_path / "straight", epochs=3))
    train(data.root, config(data, tmp_path / "run", epochs=1))
    run = train(data.root, config(data, tmp_path / "run", epochs=3, resume=True))
    assert results(run) == results(straight)
    for name in ("best.safetensors", "last.safetensors"):
        assert (run / name).read_bytes() == (straight / name).read_bytes()


def test_resume_with_other_sentences_is_refused(data: FakeDataset, tmp_path: Path) -> None:
    run = train(data.root, config(data, tmp_path / "run", epochs=1))
    copy = tmp_path / "other"
    shutil.copytree(data.root, copy)
    text = (copy / "annotations.csv").read_text(encoding="utf-8")
    (copy / "annotations.csv").write_text(text.replace("지나간다.", "간다.", 1), encoding="utf-8")
    with pytest.raises(Exception, match="cannot be resumed: its annotations or features have changed"):
        train(copy, config(data, run, epochs=2, resume=True))


def copy_to_new(model: EventModel, task: EventTask) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    assert model.caption is not None
    network = build_network(model.feature_spec, task, model.network.architecture, words=len(model.caption.tokenizer))
    copy_weights(network, model, task, model.feature_settings)
    return network.state_dict()


def test_copy_weights_copies_caption_head(trained: Path) -> None:
    model = load_model(trained)
    assert model.caption is not None
    words, theirs = len(model.caption.tokenizer), model.network.state_dict()
    head = HeadSpec(background=False, multi_label=False)
    own = copy_to_new(model, EventTask(labels=("person_then_car", "something_else", "car_then_person"), clip_head=head))
    names = [name for name in theirs if name.startswith("caption_head.")]
    assert len(names) > 10
    for name in names:
        if name != "caption_head.embed.weight":
            assert torch.equal(own[name], theirs[name]), name
    mine, taken = own["caption_head.embed.weight"], theirs["caption_head.embed.weight"]
    assert mine.shape == (words + 3, taken.shape[1])
    assert torch.equal(mine[:words], taken[:words])
    assert torch.equal(mine[words], taken[words + 1])
    assert torch.equal(mine[words + 2], taken[words])
    assert not any(torch.equal(mine[words + 1], row) for row in taken)


def test_copy_weights_without_caption_head(trained: Path) -> None:
    model = load_model(trained)
    network = build_network(model.feature_spec, model.task, model.network.architecture)
    copy_weights(network, model, model.task, model.feature_settings)
    theirs = model.network.state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(value, theirs[name]), name


def test_init_with_reordered_labels(data: FakeDataset, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(data.root, tmp_path / "data")
    (tmp_path / "data" / "set.yaml").write_text("names: [person_then_car, car_then_person]\n")
    shape = {"hidden": 32, "width": 32, "epochs": 1, "lr": 1e-6}
    path = tmp_path / "data" / "set.yaml"
    assert load_dataset(path).labels == ("person_then_car", "car_then_person") == load_model(trained).labels[::-1]
    again = train(path, config(data, tmp_path / "again", init=str(trained), **shape))
    fresh = train(path, config(data, tmp_path / "fresh", **shape))
    known = results(trained)[-1]["val_next_word"]
    assert float(results(again)[0]["val_next_word"]) == pytest.approx(float(known), abs=0.05)
    assert float(results(fresh)[0]["val_next_word"]) < 0.3
    assert load_model(again).labels == ("person_then_car", "car_then_person")
    caption, before = load_model(again).caption, load_model(trained).caption
    assert caption is not None
    assert before is not None
    assert caption.tokenizer.to_json() == before.tokenizer.to_json()


def test_init_keeps_tokenizer(data: FakeDataset, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(data.root, tmp_path / "data")
    path = tmp_path / "data" / "annotations.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("follows", "é a próxima 🧭"), encoding="utf-8")
    run = train(tmp_path / "data", config(data, tmp_path / "run", init=str(trained), hidden=32, width=32, epochs=1))
    caption, before = load_model(run).caption, load_model(trained).caption
    assert caption is not None
    assert before is not None
    assert caption.tokenizer.to_json() == before.tokenizer.to_json()
    assert caption.longest > before.longest, "unknown words are split into more pieces"


# --- without descriptions, and with nothing else ----------------------------------------------------------------------


@pytest.mark.slow
def test_no_captions_equals_data_without_descriptions(data: FakeDataset, tmp_path: Path) -> None:
    plain = captioned_data(tmp_path / "plain", train=10, captions=False)
    expected = train(plain.root, config(plain, tmp_path / "expected", weights=str(data.weights)))
    run = train(data.root, config(data, tmp_path / "run", captions=False))
    for name in ("best.safetensors", "last.safetensors"):
        assert (run / name).read_bytes() == (expected / name).read_bytes()
    assert load_model(run).caption is None
    assert "descriptions" not in scored(data, run, tmp_path / "eval")
    assert "val_next_word" not in results(run)[0]
    described = load_model(train(data.root, config(data, tmp_path / "described")))
    assert described.caption is not None


def test_cli_no_captions(data: FakeDataset, tmp_path: Path) -> None:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in {**data.settings(), **SMALL, "epochs": 1}.items()]
    assert cli.run(["train", str(data.root), f"--out={tmp_path / 'run'}", "--no-captions", *flags]) == 0
    assert load_model(tmp_path / "run").caption is None


@pytest.mark.slow
def test_train_on_descriptions_alone(data: FakeDataset, tmp_path: Path) -> None:
    """Train, evaluate and predict without any label."""
    bare = captioned_data(tmp_path / "bare", train=10, labels=False)
    run = train(bare.root, config(bare, tmp_path / "run", epochs=8, hidden=32, width=32))
    model = load_model(run)
    assert model.task == EventTask(labels=(DESCRIBED,))
    metrics = scored(bare, run, tmp_path / "eval")
    assert "accuracy" not in metrics
    truth = {row.split(",")[0]: row.split(",")[3] for row in data.rows}  # the same clips
    captions = metrics["descriptions"]
    assert [ORDER_OF[row["description"]] == truth[row["video"]] for row in captions["sentences"]] == [True] * 8
    assert captions["dense"] is None
    settings = PredictConfig(out=str(tmp_path / "events"), features=str(bare.features), report=True)
    unseen = sorted(truth)[-5:-3]
    predictions = predict(run, [bare.root / "videos" / name for name in unseen], settings, progress=False)
    assert len({truth[event.video] for row in predictions for event in row.events}) == 2
    for row in predictions:
        (event,) = row.events
        assert (event.start_s, event.end_s, event.label, event.score) == (0.0, 2.0, DESCRIBED, 1.0)
        assert event.description_source == "model"
        assert ORDER_OF[event.description] == truth[event.video]
        folder = tmp_path / "events" / event.video
        assert event.description in (folder / "events.vtt").read_text(encoding="utf-8")
        assert (folder / "report.html").is_file()
    with pytest.raises(AnnotationError, match="no row has a label\n  fill in the column label"):
        train(bare.root, config(bare, tmp_path / "none", captions=False))


@pytest.mark.slow
def test_timed_events_are_captioned(tmp_path: Path) -> None:
    data = timed_data(tmp_path / "data", train=16, val=6, captions=True)
    run = train(data.root, config(data, tmp_path / "run", epochs=30, hidden=32, width=32))
    metrics = scored(data, run, tmp_path / "eval")
    captions = metrics["descriptions"]
    assert captions["segments"] == metrics["events"]["events"]
    assert metrics["event_f1"] > 0.7
    assert captions["dense"]["events"] == captions["segments"]
    assert captions["dense"]["soda_f1"] > 0.5
    settings = PredictConfig(out=str(tmp_path / "events"), features=str(data.features), report=False)
    for row in predict(run, [data.root / "videos"], settings, progress=False):
        assert all(event.description == EVENT_SENTENCES[event.label] for event in row.events)
