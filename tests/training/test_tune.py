"""`vidgru tune`: thresholds of a trained model, fitted again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.model.networks import make_model
from tests.training.synthetic import FakeDataset, order_data
from vidgru.cache import SequenceCache
from vidgru.config import TuneConfig
from vidgru.errors import ModelError, SettingsError
from vidgru.flags import from_settings
from vidgru.training.tune import _missed_aims, tune


def tuned(data: FakeDataset, model: Path, out: Path, **changes: object) -> Path:
    return tune(model, data.root, from_settings(TuneConfig, **data.settings(out=str(out), **changes)))


def test_tune_model_of_clips_on_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = order_data(tmp_path / "data", train=1, val=3)
    sequence = SequenceCache(data.features).read(next(SequenceCache(data.features).entries()).key)
    model = make_model(sequence)
    labels = ("car_then_person", "person_then_car")
    replace(
        model, task=replace(model.task, labels=labels), feature_settings=data.feature_settings(), names=sequence.names
    ).save(tmp_path / "model.safetensors")
    tuned(data, tmp_path / "model.safetensors", tmp_path / "out.safetensors", max_false_alarms=0.5)
    assert "14 recordings, 0.01 hours, 14 events; aim: at most 0.5 false alarms per hour and label" in (
        capsys.readouterr().out
    )


def test_tune_warns_of_aims_out_of_reach() -> None:
    counts, support = np.array([[9, 3, 6], [4, 4, 0], [5, 0, 5]]), np.array([4, 4, 0])
    labels, recall, alarms = ("fall", "walk", "sit"), TuneConfig(min_recall=0.9), TuneConfig(max_false_alarms=2)
    assert _missed_aims(recall, labels, counts, support, 0.5) == [
        "fall: no threshold reaches this recall, 3 of 4 events are found"
    ]
    assert _missed_aims(alarms, labels, counts, support, 0.5) == [
        "fall: no threshold has so few false alarms, there are 12.0 per hour"
    ]
    assert _missed_aims(TuneConfig(), labels, counts, support, 0.5) == []


def test_tune_refuses_model_of_captions(tmp_path: Path) -> None:
    data = FakeDataset(tmp_path / "data")
    make_model(clips=False, sentences=("A man falls.",)).save(tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="only writes captions and has no thresholds"):
        tuned(data, tmp_path / "model.safetensors", tmp_path / "out.safetensors")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_recall": 0.0}, "min_recall is 0.0; it must be above 0 and at most 1"),
        ({"max_false_alarms": -1.0}, "max_false_alarms is -1.0; it must be 0 or more"),
        ({"min_recall": 0.5, "max_false_alarms": 1.0}, "min_recall is 0.5; it must be left out with max_false_alarms"),
    ],
)
def test_tune_config_rejects_bad_values(settings: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        from_settings(TuneConfig, **settings)
