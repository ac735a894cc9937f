"""Models of several members, from annotations to a run's folder: each is measured on what it has not learnt."""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.training.synthetic import FakeDataset, both_data, crossing
from vidgru.cache import SequenceCache
from vidgru.config import EvalConfig, TrainConfig
from vidgru.flags import from_settings
from vidgru.model.checkpoint import load_model
from vidgru.model.stream import score_recording
from vidgru.training import batches
from vidgru.training.evaluate import evaluate
from vidgru.training.run import train


@pytest.fixture(scope="module", autouse=True)
def _short_epochs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "_MIN_CLIP_BATCHES", 4)
        patch.setattr(batches, "_MIN_WINDOW_BATCHES", 4)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FakeDataset:
    """Six timed recordings, of which one is event-free, and twelve clips; others for testing."""
    return both_data(tmp_path_factory.mktemp("both"), train=4, val=2)


def config(data: FakeDataset, out: Path, **changes: object) -> TrainConfig:
    small = {"epochs": 2, "hidden": 16, "width": 16, "batch": 8, "lookahead": 0.25, "patience": 1}
    return from_settings(TrainConfig, **data.settings(**{"out": str(out), **small, **changes}))


@pytest.fixture(scope="module")
def run(data: FakeDataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run with default settings, and what it printed."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr("matplotlib.figure.Figure.savefig", lambda figure, out, **options: None)
        return train(data.root, config(data, tmp_path_factory.mktemp("run"))), printed.getvalue()


def test_run_measures_members_out_of_fold(data: FakeDataset, run: tuple[Path, str]) -> None:
    out, printed = run
    model, metrics = load_model(out), json.loads((out / "metrics.json").read_text())
    assert model.network.members == 5
    assert model.linear is not None
    assert model.linear.clips is not None
    assert model.linear.frames is not None
    assert metrics["split"] == "out of fold"
    whole = {row.split(",")[0] for row in data.rows if row.startswith("c") and not row.endswith("test")}
    timed = {row.split(",")[0] for row in data.rows if row.startswith("t") and not row.endswith("test")}
    assert len(timed) == 6
    assert metrics["events"]["videos"] == 5  # all members learn from the only event-free recording
    assert metrics["clips"] == len(whole) == 12
    for name in ("accuracy", "frame_map"):
        assert model.metrics[name] == pytest.approx(metrics[name], abs=1e-6)
    assert "validation, 5 members, out of fold\n" in printed
    assert len((out / "results.csv").read_text().splitlines()) == 3  # no epoch is chosen, and none left out


@pytest.mark.slow
def test_resumed_ensemble_equals_uninterrupted(data: FakeDataset, run: tuple[Path, str], tmp_path: Path) -> None:
    train(data.root, config(data, tmp_path, epochs=1))
    train(data.root, config(data, tmp_path, resume=True))
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / name).read_bytes() == (run[0] / name).read_bytes()


def test_ensemble_scores_test_split_like_stream(data: FakeDataset, run: tuple[Path, str], tmp_path: Path) -> None:
    model, cache = load_model(run[0]), SequenceCache(data.features)
    metrics = evaluate(run[0], data.root, from_settings(EvalConfig, **data.settings(out=str(tmp_path))))
    assert metrics["seen_in_training"] == 0
    entries = [cache.lookup(path, data.feature_settings()) for path in sorted((data.root / "videos").glob("t*"))]
    for entry in entries[:2]:
        whole = score_recording(model, cache.parts(entry.key), video="a.mp4", duration_s=10.0)
        sequence = cache.read(entry.key)
        frames = [sequence.frames(t, t + 1) for t in range(len(sequence))]
        live = score_recording(model, frames, video="a.mp4", duration_s=10.0)
        np.testing.assert_allclose(live.scores, whole.scores, rtol=0, atol=1e-5)
        assert [(e.start_s, e.end_s, e.label) for e in live.events] == [
            (e.start_s, e.end_s, e.label) for e in whole.events
        ]


@pytest.mark.parametrize(("clips", "linear"), [(1, True), pytest.param(2, False, marks=pytest.mark.slow)])
def test_few_clips_per_class(tmp_path: Path, clips: int, linear: bool, capsys: pytest.CaptureFixture[str]) -> None:
    data = FakeDataset(tmp_path / "data")
    for number in range(3 * clips):
        kind = ("person", "car", "")[number % 3]
        data.add(f"{number}.mp4", crossing(kind, kind, number), kind or "nobody", "")
    model = load_model(train(data.root, config(data, tmp_path / "run", epochs=12, linear=linear)))
    assert model.labels == ("car", "nobody", "person")
    assert model.network.members == 5
    assert (model.linear is not None) == linear
    warning = "too few groups to hold any out: nothing to measure the model on"
    printed = capsys.readouterr()
    assert (warning in printed.err) == (clips == 1) == ("validation, " not in printed.out)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["split"] == ("none" if clips == 1 else "out of fold")
    epochs = len((tmp_path / "run" / "results.csv").read_text().splitlines()) - 1
    assert epochs == 12 or clips > 1  # nothing held out can end training
    for kind, label in (("person", "person"), ("car", "car"), ("", "nobody")):
        scores = score_recording(model, [crossing(kind, kind, 50)], video="a.mp4", duration_s=2.0).scores[0]
        assert model.labels[int(scores.argmax())] == label
