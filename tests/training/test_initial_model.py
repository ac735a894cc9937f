"""Training that starts from the weights of another model."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from tests.model.networks import make_model
from tests.training.synthetic import FakeDataset, order_data
from vidgru.config import TrainConfig
from vidgru.errors import ModelError, SettingsError, SettingsMismatchError
from vidgru.flags import from_settings
from vidgru.model.checkpoint import EventModel, EventTask, HeadSpec, build_network, load_model
from vidgru.training import run
from vidgru.training.initial_model import copy_weights, with_settings_of
from vidgru.training.run import train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FakeDataset:
    return order_data(tmp_path_factory.mktemp("orders"), train=12, val=4)


@pytest.fixture(scope="module")
def trained(data: FakeDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(data.root, config(data, tmp_path_factory.mktemp("run"), epochs=15))


def config(data: FakeDataset, out: Path, **changes: object) -> TrainConfig:
    return from_settings(TrainConfig, **data.train_settings(**{"out": str(out), "epochs": 1, "patience": 0, **changes}))


def first_loss(run: Path) -> float:
    header, row = (run / "results.csv").read_text().splitlines()[:2]
    return float(row.split(",")[header.split(",").index("train_loss")])


def test_init_lowers_first_loss(data: FakeDataset, trained: Path, tmp_path: Path) -> None:
    fresh = train(data.root, config(data, tmp_path / "fresh"))
    again = train(data.root, config(data, tmp_path / "again", init=str(trained)))
    assert first_loss(again) < 0.8 * first_loss(fresh)
    assert (again / "best.safetensors").read_bytes() != (fresh / "best.safetensors").read_bytes()


def copy_to_new(model: EventModel, task: EventTask, members: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    network = build_network(model.feature_spec, task, model.network.architecture, members=members)
    copy_weights(network, model, task, model.feature_settings)
    return network.state_dict()


def test_copy_weights_of_shared_labels(trained: Path) -> None:
    model = load_model(trained)
    head = HeadSpec(background=True, multi_label=False)
    task = EventTask(labels=("person_then_car", "something_else", "car_then_person"), clip_head=head, frame_head=head)
    weights, theirs = copy_to_new(model, task), model.network.state_dict()
    for name in ("clip_head.1.weight", "clip_head.1.bias"):
        assert torch.equal(weights[name][:, 0], theirs[name][:, 1])
        assert torch.equal(weights[name][:, 2], theirs[name][:, 0])
        assert not any(torch.equal(weights[name][:, row], theirs[name][:, 0]) for row in (1, 3))
    for name in theirs:
        if not name.startswith("clip_head"):
            assert torch.equal(weights[name], theirs[name]), name
    assert weights["frame_head.1.weight"].shape == (1, 4, 128)


def test_copy_weights_skips_other_kind_of_head(trained: Path) -> None:
    model = load_model(trained)
    weights = copy_to_new(model, EventTask(labels=model.labels, clip_head=HeadSpec(background=False, multi_label=True)))
    assert not torch.equal(weights["clip_head.1.weight"], model.network.state_dict()["clip_head.1.weight"])
    assert torch.equal(weights["gru.0.weight_hh_l0"], model.network.state_dict()["gru.0.weight_hh_l0"])


@pytest.mark.parametrize(("changes", "message"), [
    ({"hidden": 64}, "init has another architecture: hidden is 64, the model's is 128\n  choose the model's own"),
    ({"cell": "lstm", "layers": 2}, "cell is 'lstm', the model's is 'gru'; layers is 2, the model's is 1"),
    ({"drop_features": ("scene",)}, r"drop_features is \('scene',\), the model's is \(\)"),
])  # fmt: skip
def test_init_with_other_architecture_is_refused(
    data: FakeDataset, trained: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        train(data.root, config(data, tmp_path, init=str(trained), **changes))


def test_init_with_other_dropout(data: FakeDataset, trained: Path, tmp_path: Path) -> None:
    train(data.root, config(data, tmp_path, init=str(trained), dropout=0.4, group_dropout=0.1))


def test_init_with_other_detector_is_refused(
    data: FakeDataset, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "extract_missing", Mock(side_effect=AssertionError("may take hours")))
    model = load_model(trained)
    replace(model, feature_settings={**model.feature_settings, "weights_sha256": "0" * 64}).save(
        tmp_path / "other.safetensors"
    )
    message = "the features of this dataset differ from the model's: weights_sha256 is"
    with pytest.raises(SettingsMismatchError, match=message):
        train(data.root, config(data, tmp_path / "run", init=str(tmp_path / "other.safetensors")))


def test_init_without_model_is_refused(data: FakeDataset, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model"):
        train(data.root, config(data, tmp_path, init=str(tmp_path / "no.safetensors")))


def test_copy_weights_copies_normalisation(trained: Path) -> None:
    model = load_model(trained)
    weights = copy_to_new(model, model.task)
    np.testing.assert_array_equal(weights["encoder.object_mean"], model.network.encoder.object_mean)


def test_copy_weights_member_by_member() -> None:
    model = make_model(timed=True, members=3)
    weights = copy_to_new(model, model.task, members=3)
    for name, value in model.network.state_dict().items():
        assert torch.equal(weights[name], value), name


def test_copy_weights_of_members_in_turn() -> None:
    model = make_model(timed=True, members=2)
    weights, theirs = copy_to_new(model, model.task, members=3), model.network.state_dict()
    for name in ("frame_head.1.weight", "frame_head.1.bias"):
        assert torch.equal(weights[name], theirs[name][[0, 1, 0]])
    for member, source in enumerate((0, 1, 0)):
        name = "weight_hh_l0"
        assert torch.equal(weights[f"gru.{member}.{name}"], theirs[f"gru.{source}.{name}"])


def test_settings_of_init_replace_defaults(trained: Path) -> None:
    model = load_model(trained)
    architecture = replace(model.network.architecture, hidden=32, dropout=0.4)
    network = build_network(model.feature_spec, model.task, architecture)
    model = replace(model, network=network, weights="own.pt", feature_settings={**model.feature_settings, "fps": 5.0})
    completed = with_settings_of(model, from_settings(TrainConfig, imgsz=320, width=48))
    assert (completed.detector.weights, completed.detector.fps) == ("own.pt", 5.0)
    assert (completed.network.hidden, completed.network.dropout) == (32, TrainConfig().network.dropout)
    assert (completed.detector.imgsz, completed.network.width) == (320, 48), "not left at their defaults"
    start = with_settings_of(replace(model, weights=""), TrainConfig())
    assert start.detector.weights == TrainConfig().detector.weights


def test_init_keeps_its_labels(data: FakeDataset, trained: Path, tmp_path: Path) -> None:
    rows = [row.replace("car_then_person", "a_new_label") for row in data.rows]
    header = "video,start,end,label,description,split\n"
    (data.root / "relabelled.csv").write_text(header + "\n".join(rows) + "\n")
    again = train(data.root / "relabelled.csv", config(data, tmp_path / "again", init=str(trained)))
    assert load_model(again).labels == ("car_then_person", "person_then_car", "a_new_label")


def test_init_is_not_overwritten(data: FakeDataset, trained: Path) -> None:
    before = (trained / "best.safetensors").read_bytes()
    message = "must be another folder than that of the model to start from"
    with pytest.raises(SettingsError, match=message):
        train(data.root, config(data, trained, init=str(trained), exist_ok=True))
    assert (trained / "best.safetensors").read_bytes() == before


def test_copy_weights_of_single_member_to_all() -> None:
    model = make_model(timed=True, members=1)
    weights = copy_to_new(model, model.task, members=2)
    for name, value in model.network.state_dict().items():
        if name.startswith("gru.0."):
            assert torch.equal(weights[name.replace("gru.0.", "gru.1.")], value), name
        else:
            assert all(torch.equal(weights[name][row], value[0]) for row in range(2)) or torch.equal(
                weights[name], value
            ), name
