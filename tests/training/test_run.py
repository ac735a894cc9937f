import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.training.synthetic import FPS, FakeDataset, crossing, order_data
from vidgru.cache import SequenceCache
from vidgru.config import EvalConfig, TrainConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import clips
from vidgru.errors import AnnotationError, SettingsError, SettingsMismatchError, VidgruError, WeightsError
from vidgru.flags import from_settings
from vidgru.model.checkpoint import EventTask, HeadSpec, entry_digest, load_model
from vidgru.training import run as run_module
from vidgru.training.evaluate import evaluate
from vidgru.training.run import complete_settings, train
from vidgru.types import FrameSequence


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FakeDataset:
    return order_data(tmp_path_factory.mktemp("orders"))


@pytest.fixture(scope="module")
def plain(data: FakeDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with default settings, of three epochs."""
    return train(data.root, config(data, tmp_path_factory.mktemp("plain")))


def config(data: FakeDataset, out: Path, **changes: object) -> TrainConfig:
    return from_settings(TrainConfig, **data.train_settings(out=str(out), epochs=3, **changes))


def scored(data: FakeDataset, run: Path, **changes: object) -> dict[str, object]:
    return evaluate(run, data.root, from_settings(EvalConfig, **data.settings(out=str(run / "eval"), **changes)))


def test_gru_learns_order_and_mean_pooling_does_not(data: FakeDataset, tmp_path: Path) -> None:
    runs = {
        cell: train(
            data.root, from_settings(TrainConfig, **data.train_settings(out=str(tmp_path / cell), cell=cell, epochs=30))
        )
        for cell in ("gru", "none")
    }
    assert scored(data, runs["gru"])["accuracy"] == 1.0
    assert scored(data, runs["none"])["accuracy"] < 0.9


def test_run_folder_contents(data: FakeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = train(data.root, config(data, tmp_path / "a" / "run"))
    names = {"best.safetensors", "last.safetensors", "results.csv", "config.yaml", "metrics.json"}
    names |= {"state.safetensors", "curves.png", "confusion.png", "clip_calibration.png"}
    assert {path.name for path in out.iterdir()} - {"tensorboard"} == names
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {"train_loss", "val_loss", "val_accuracy", "val_macro_f1", "seconds"} <= rows[0].keys()
    settings = yaml.safe_load((out / "config.yaml").read_text())
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    assert from_settings(TrainConfig, **settings) == config(data, tmp_path / "a" / "run")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["split"] == "val"
    assert metrics["clips"] == 12
    low, high = metrics["intervals"]["accuracy"]
    assert low <= metrics["accuracy"] <= high
    model = load_model(out)
    assert model.labels == ("car_then_person", "person_then_car")
    assert model.task == EventTask(labels=model.labels, clip_head=HeadSpec(background=False, multi_label=False))
    assert model.feature_settings == data.feature_settings()
    assert model.window_s == 16 / FPS
    assert model.metrics["accuracy"] == metrics["accuracy"]
    output = capsys.readouterr().out
    assert "32" in output
    assert f"accuracy {metrics['accuracy']:.3f} (95 %: {low:.3f} to {high:.3f})" in output
    assert f"metrics: {out / 'metrics.json'}\nmodel: {out / 'best.safetensors'}\n" in output


def test_tensorboard_curves_by_epoch(plain: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = EventAccumulator(str(plain / "tensorboard"))
    curves.Reload()
    rows = list(csv.DictReader((plain / "results.csv").read_text().splitlines()))
    assert {"lr", "train/loss", "val/macro_f1"} <= set(curves.Tags()["scalars"])
    values = [(event.step, event.value) for event in curves.Scalars("val/macro_f1")]
    assert values == [(int(row["epoch"]), pytest.approx(float(row["val_macro_f1"]), abs=1e-5)) for row in rows]


def test_same_seed_gives_same_bytes(data: FakeDataset, plain: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    again = train(data.root, config(data, tmp_path / "again"))
    for name in ("best.safetensors", "last.safetensors"):
        assert (plain / name).read_bytes() == (again / name).read_bytes()


@pytest.mark.parametrize("changes", [
    {"lr": 1e-4}, {"weight_decay": 0.0}, {"label_smoothing": 0.0}, {"augment": False}, {"dropout": 0.0}, {"batch": 7},
    {"group_dropout": 0.0}, {"seed": 1}, {"hidden": 32}, {"width": 32}, {"layers": 2}, {"bidirectional": True},
    {"cell": "rnn"}, {"drop_features": ("scene",)}, {"mirror": False},
])  # fmt: skip
def test_setting_changes_model(data: FakeDataset, plain: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    other = train(data.root, config(data, tmp_path, **changes))
    assert (plain / "last.safetensors").read_bytes() != (other / "last.safetensors").read_bytes()


def test_training_restores_torch_state(data: FakeDataset, tmp_path: Path) -> None:
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(2)
    train(data.root, config(data, tmp_path / "run"))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)


def test_model_records_training_recordings(data: FakeDataset, plain: Path) -> None:
    cache, dataset = SequenceCache(data.features), load_dataset(data.root)
    used = {clip.video for clip in clips(dataset) if clip.split != "test"}
    keys = (cache.key(cache.sha256(dataset.recordings[video].path), data.feature_settings()) for video in used)
    assert load_model(plain).trained_on == tuple(sorted(entry_digest(key) for key in keys))


def test_training_ignores_test_split(data: FakeDataset, plain: Path, tmp_path: Path) -> None:
    rows = [row for row in data.rows if not row.endswith("test")]
    (data.root / "without_test.csv").write_text("video,start,end,label,description,split\n" + "\n".join(rows) + "\n")
    (data.root / "set.yaml").write_text("annotations: without_test.csv\nvideos: videos\n")
    without = train(data.root / "set.yaml", config(data, tmp_path))
    assert (plain / "best.safetensors").read_bytes() == (without / "best.safetensors").read_bytes()


def test_early_stopping(data: FakeDataset, tmp_path: Path) -> None:
    changes = {"lr": 1e-9, "epochs": 40, "patience": 2}
    out = train(data.root, from_settings(TrainConfig, **data.train_settings(out=str(tmp_path), **changes)))
    assert len((out / "results.csv").read_text().splitlines()) < 40


def test_cross_validation(data: FakeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = train(data.root, config(data, tmp_path, folds=3))
    assert {path.name for path in out.iterdir()} == {"config.yaml", "folds.json"}
    metrics = json.loads((out / "folds.json").read_text())
    assert sum(fold["clips"] for fold in metrics["folds"]) == 56
    assert 0 <= metrics["mean"]["accuracy"] <= 1
    assert metrics["spread"]["accuracy"] >= 0
    shown = capsys.readouterr().out
    first = metrics["folds"][0]
    assert (first["by"], len(first["left_out"])) == ("video", first["clips"])
    listed = f"{', '.join(first['left_out'][:4])} and {first['clips'] - 4} more"
    assert f"fold 1 of 3, without video {listed}: accuracy {first['accuracy']:.3f}" in shown
    pooled = metrics["pooled"]
    hits = sum(fold["accuracy"] * fold["clips"] for fold in metrics["folds"])
    assert (pooled["clips"], pooled["accuracy"]) == (56, pytest.approx(hits / 56))
    low, high = pooled["intervals"]["accuracy"]
    assert "all 3 folds together, each recording by the model that has not seen it" in shown
    assert f"56 clips: accuracy {pooled['accuracy']:.3f} (95 %: {low:.3f} to {high:.3f})" in shown
    assert "held out as val" not in shown, "a note on splits, which folds do not use"


def test_runs_are_not_overwritten(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, second = str(plain), Path(f"{plain}2")
    assert complete_settings(TrainConfig(out=out, folds=3)).out == str(second)
    assert f"{plain} holds a run, so this one goes to {second} (--exist-ok overwrites, " in capsys.readouterr().out
    second.mkdir()
    assert complete_settings(TrainConfig(out=out)).out == str(second), "an empty folder holds no run"
    (second / "folds.json").touch()
    assert complete_settings(TrainConfig(out=out)).out == f"{plain}3"
    assert complete_settings(TrainConfig(out=out, exist_ok=True)).out == out
    assert complete_settings(TrainConfig(out=out, resume=True)).out == out


@pytest.mark.slow
def test_event_free_clips_are_a_class(tmp_path: Path) -> None:
    data = order_data(tmp_path / "data", eventless=True)
    out = train(data.root, from_settings(TrainConfig, **data.train_settings(out=str(tmp_path / "run"), epochs=30)))
    model = load_model(out)
    assert model.task.clip_head == HeadSpec(background=True, multi_label=False)
    assert model.labels == ("car_then_person", "person_then_car")
    metrics = scored(data, out)
    assert metrics["names"] == ["car_then_person", "person_then_car", "(no event)"]
    assert metrics["accuracy"] >= 0.9


@pytest.mark.slow
def test_multi_label_clips(tmp_path: Path) -> None:
    data = FakeDataset(tmp_path / "data")
    seed = 0
    for split, count in (("train", 14), ("val", 6), ("test", 6)):
        for objects in (("person", ""), ("", "car"), ("person", "car"), ("", "")):
            for _ in range(count):
                seed += 1
                sequence = crossing(*objects, seed)
                for label in [kind for kind in objects if kind] or [""]:
                    data.add(f"{seed:03d}.mp4", sequence, label, split)
    out = train(data.root, from_settings(TrainConfig, **data.train_settings(out=str(tmp_path / "run"), epochs=25)))
    model = load_model(out)
    assert model.task.clip_head == HeadSpec(background=False, multi_label=True)
    assert not model.decode.exclusive
    metrics = scored(data, out)
    assert metrics["map"] > 0.95
    assert {path.name for path in out.iterdir()} >= {"best.safetensors", "curves.png"}


@pytest.mark.slow
def test_no_plots_imports_neither_matplotlib_nor_compiler(data: FakeDataset, tmp_path: Path) -> None:
    """They take a fifth of the CPU time of a short run; the network, its linear path and validation need neither."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in data.settings().items()]
    command = ["train", str(data.root), f"--out={tmp_path / 'run'}", "--epochs=1", "--members=2", "--no-plots", *flags]
    code = (
        "import sys\nfrom vidgru import cli\n"
        f"assert cli.run({command}) == 0\n"
        "assert not {'matplotlib', 'torch._dynamo'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "run").glob("*.png"))


def test_unreadable_recordings_are_skipped_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = order_data(tmp_path / "data", train=6, val=3)
    (data.root / "videos" / "broken.mp4").write_bytes(b"no video")
    data.rows += ["broken.mp4,,,car_then_person,,train", "broken.mp4,,,car_then_person,,test"]
    data.write()
    out = train(data.root, config(data, tmp_path / "run"))
    assert "broken.mp4" in capsys.readouterr().err
    assert "broken.mp4" in json.loads((out / "metrics.json").read_text())["failed"]
    assert "broken.mp4" in scored(data, out)["failed"]
    assert "skipped, cannot be read: broken.mp4" in capsys.readouterr().out


def test_only_unreadable_recordings_are_refused(tmp_path: Path) -> None:
    data = FakeDataset(tmp_path)
    for name, split in (("a", "train"), ("b", "train"), ("c", "val")):
        (data.root / "videos" / f"{name}.mp4").write_bytes(name.encode())
        data.rows.append(f"{name}.mp4,,,{name},,{split}")
    data.write()
    with pytest.raises(AnnotationError, match="none of its 3 recordings can be read\n  vidgru info VIDEO says"):
        train(data.root, config(data, tmp_path / "run"))


@pytest.mark.parametrize(("split", "message"), [
    ("train", r"the loss of nan\.mp4, samples 0 to 16 is nan.*\n  vidgru info --verify"),
    ("val", r"the features of nan\.mp4 have values that are not finite\n  vidgru info --verify"),
])  # fmt: skip
def test_non_finite_features_stop_training(
    tmp_path: Path, split: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FrameSequence, "find_fault", lambda sequence: None)  # as if they overflowed after reading
    data = order_data(tmp_path / "data", train=4, val=2)
    sequence = crossing("person", "car", 99)
    assert sequence.scene is not None
    sequence.scene[3] = float("nan")
    data.add("nan.mp4", sequence, "car_then_person", split)
    with pytest.raises(VidgruError, match=message):
        train(data.root, config(data, tmp_path / "run"))


@pytest.mark.parametrize(("rows", "message"), [
    (["001.mp4,,,fall,,train", "002.mp4,,,fall,,val"], "every clip has the label 'fall': nothing to distinguish\n"),
    (["001.mp4,,,,,train", "002.mp4,,,,,val"], "no row has a label\n  fill in the column label"),
    (["001.mp4,,,fall,,train", "002.mp4,,,walk,He walks,val"], "all 1 clips of split 'train' have the same labels"),
    (["001.mp4,,,a,,train", "002.mp4,,,b,,val"], "all 1 clips of split 'train' have the same labels: nothing"),
    (["001.mp4,,,fall,,val", "002.mp4,,,walk,,test"], "split 'train' has nothing to train or evaluate on\n  add rows"),
])  # fmt: skip
def test_unlearnable_annotations_are_refused(data: FakeDataset, tmp_path: Path, rows: list[str], message: str) -> None:
    path = data.root / "bad.csv"
    path.write_text("video,start,end,label,description,split\n" + "\n".join(rows) + "\n")
    (data.root / "bad.yaml").write_text("annotations: bad.csv\nvideos: videos\n")
    with pytest.raises(AnnotationError, match=message):
        train(data.root / "bad.yaml", config(data, tmp_path))


def test_missing_device_is_refused(data: FakeDataset, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="device is 'cuda:99', which cannot be used: "):
        train(data.root, from_settings(TrainConfig, **{**data.train_settings(out=str(tmp_path)), "device": "cuda:99"}))


def test_missing_weights_are_refused(data: FakeDataset, tmp_path: Path) -> None:
    settings = {**data.train_settings(out=str(tmp_path)), "weights": str(tmp_path / "no.pt")}
    with pytest.raises(WeightsError, match=r"no\.pt"):
        train(data.root, from_settings(TrainConfig, **settings))


def test_evaluate_cached_features_without_detector(data: FakeDataset, tmp_path: Path) -> None:
    out = train(data.root, config(data, tmp_path))
    settings = {**data.settings(out=str(tmp_path / "eval")), "weights": str(tmp_path / "gone.pt")}
    assert evaluate(out, data.root, from_settings(EvalConfig, **settings))["clips"] == 12
    (data.root / "videos" / "new.mp4").write_bytes(b"new")
    (data.root / "new.csv").write_text("video,label,split\nnew.mp4,car_then_person,test\n")
    (data.root / "new.yaml").write_text("annotations: new.csv\nvideos: videos\n")
    other = tmp_path / "other.pt"
    other.write_bytes(b"another detector")
    with pytest.raises(SettingsMismatchError, match=r"weights_sha256 is .*, the model's is "):
        evaluate(out, data.root / "new.yaml", from_settings(EvalConfig, **{**settings, "weights": str(other)}))


def test_train_warns_of_single_place(data: FakeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{row},yard" for row in data.rows]
    (data.root / "yard.csv").write_text("video,start,end,label,description,split,group\n" + "\n".join(rows) + "\n")
    (data.root / "yard.yaml").write_text("annotations: yard.csv\nvideos: videos\n")
    train(data.root / "yard.yaml", config(data, tmp_path))
    assert "warning: all recordings are of group 'yard': metrics do not tell" in capsys.readouterr().err


def test_results_csv_holds_no_formulas() -> None:
    rows = [{"epoch": 1, "val_loss": -0.5, "lr": -1e-05, "=1+1": None}, {"epoch": 2, "val_loss": 1 / 3, "lr": 0.001}]
    assert run_module._csv(rows).decode() == "epoch,val_loss,lr,'=1+1\n1,-0.5,-1e-05,\n2,0.333333,0.001,\n"
