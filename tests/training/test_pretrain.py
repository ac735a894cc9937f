"""Starts that are learnt from recordings without annotations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.sequences import make_sequence
from tests.training.synthetic import FakeDataset, crossing, order_data
from vidgru.api import pretrain
from vidgru.cache import SequenceCache
from vidgru.cache.entry import span_settings
from vidgru.config import NetworkSettings, PretrainConfig, TrainConfig
from vidgru.datasets.windows import slice_window
from vidgru.errors import ModelError, SettingsMismatchError, SourceError
from vidgru.flags import from_settings
from vidgru.model.checkpoint import load_model
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import compute_features
from vidgru.training.pretrain import PastAndFuture, UnlabelledFeatures, load_unlabelled
from vidgru.training.run import train

NETWORK = NetworkSettings(hidden=16, width=16)


def config(out: Path, **changes: object) -> PretrainConfig:
    return PretrainConfig(**{"out": str(out), "network": NETWORK, "epochs": 1, "batch": 4, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FakeDataset:
    return order_data(tmp_path_factory.mktemp("orders"), train=12, val=4)


@pytest.fixture(scope="module")
def start(data: FakeDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(data.features, config(tmp_path_factory.mktemp("start") / "start.safetensors"))


def test_start_is_reproducible(data: FakeDataset, start: Path, tmp_path: Path) -> None:
    again = pretrain([data.features], config(tmp_path / "again.safetensors"))
    assert again.read_bytes() == start.read_bytes()
    other = pretrain(data.features, config(tmp_path / "other.safetensors", seed=1))
    assert other.read_bytes() != start.read_bytes()


def test_training_begins_with_start(data: FakeDataset, start: Path, tmp_path: Path) -> None:
    settings = {"hidden": 16, "width": 16, "epochs": 1, "lr": 1e-9, "members": 2, "init": str(start)}
    run = train(data.root, from_settings(TrainConfig, **data.settings(out=str(tmp_path), **settings)))
    trained, learnt = load_model(run).network.state_dict(), load_model(start, start=True).network.state_dict()
    for name in ("encoder.join.2.weight", "encoder.object.0.weight"):
        torch.testing.assert_close(trained[name], learnt[name].expand_as(trained[name]), atol=1e-5, rtol=0)
    for member in range(2):
        name = f"gru.{member}.weight_hh_l0"
        torch.testing.assert_close(trained[name], learnt["gru.0.weight_hh_l0"], atol=1e-5, rtol=0)


def test_start_cannot_predict(start: Path) -> None:
    with pytest.raises(ModelError, match=r"is a start that vidgru pretrain wrote: it predicts nothing\n.*--init"):
        load_model(start)
    assert load_model(start, start=True).is_start


def test_pretraining_needs_recordings(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no recordings to learn from\n  vidgru extract"):
        pretrain(tmp_path, config(tmp_path / "start.safetensors"))


def test_pretraining_leaves_out_parts_of_recordings(data: FakeDataset) -> None:
    cache = SequenceCache(data.features)
    entry = next(cache.entries())
    settings = span_settings(entry.feature_settings, (60, 120))
    before = load_unlabelled([data.features]).keys
    with cache.writer("0" * 64, {}) as writer:
        for part in cache.parts(entry.key):
            writer.append(part)
        writer.finish(
            status="done",
            duration_s=entry.duration_s,
            fps=entry.fps,
            size_px=entry.size_px,
            names=entry.names,
            feature_settings=settings,
        )
    assert load_unlabelled([data.features]).keys == before
    cache.remove(cache.root / ("0" * 64))


def test_pretraining_refuses_mixed_settings(data: FakeDataset, tmp_path: Path) -> None:
    other = FakeDataset(tmp_path / "other")
    other.weights.write_bytes(b"another detector")
    other.add("a.mp4", crossing("person", "car", 100), "", "train")
    with pytest.raises(SettingsMismatchError, match=r"recordings of different settings \(weights_sha256\)"):
        pretrain([data.features, other.features], config(tmp_path / "start.safetensors"))


def test_targets_are_past_and_future() -> None:
    sequence = make_sequence(40, 2)
    features, spec = compute_features(sequence), FeatureSpec.from_sequence(sequence)
    unlabelled = UnlabelledFeatures(
        features=[features], keys=["a"], feature_spec=spec, feature_settings={"fps": 8.0}, names=sequence.names
    )
    targets = PastAndFuture(unlabelled, 8.0)
    past, future = targets([slice_window(features, 0, 40)])
    assert past.shape == (40, 2 * targets.width)
    assert future.shape == (40, 2, len(targets.moving), targets.bins)
    assert torch.isnan(future[-1]).all()
    torch.testing.assert_close(future[:-1].sum(dim=-1), torch.ones(39, 2, len(targets.moving)))
    changed = replace(features, frame=np.where(np.arange(40)[:, None] < 20, features.frame, 9).astype(np.float32))
    of_changed = targets([slice_window(changed, 0, 40)])
    assert torch.equal(of_changed[0][:20], past[:20])
    assert not torch.equal(of_changed[0][20], past[20])
    assert torch.equal(of_changed[1][:4, 1], future[:4, 1])  # the longer horizon ends with frame 19
