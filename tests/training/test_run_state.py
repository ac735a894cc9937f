"""A run that is stopped, killed or interrupted resumes exactly, or says why it cannot."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.synthetic import FakeDataset, order_data
from vidgru import cli
from vidgru.config import TrainConfig
from vidgru.errors import ModelError, OutputError, SettingsError
from vidgru.flags import from_settings
from vidgru.training import batches, run_state, trainer
from vidgru.training.run import train
from vidgru.training.state_file import STATE, finished_epochs

SMALL = {"hidden": 16, "width": 16, "batch": 4, "patience": 0, "members": 1}
MODELS = ("best.safetensors", "last.safetensors")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FakeDataset:
    return order_data(tmp_path_factory.mktemp("orders"), train=4, val=3)


@pytest.fixture(scope="module")
def six(data: FakeDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six epochs without a stop."""
    return train(data.root, config(data, tmp_path_factory.mktemp("six") / "run"))


@pytest.fixture(scope="module")
def three(data: FakeDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(data.root, config(data, tmp_path_factory.mktemp("three") / "run", epochs=3))


def config(data: FakeDataset, out: Path, **changes: object) -> TrainConfig:
    return from_settings(TrainConfig, **data.settings(**{"out": str(out), "epochs": 6, **SMALL, **changes}))


def copied(run: Path, to: Path) -> Path:
    shutil.copytree(run, to / "run")
    return to / "run"


def losses(run: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader((run / "results.csv").read_text().splitlines()))
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


def same(one: Path, two: Path) -> None:
    assert losses(one) == losses(two)
    for name in MODELS:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def stopping(epoch: int, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in an epoch, after so many batches."""
    plain = batches.EpochBatches.__call__

    def interrupted(self: batches.EpochBatches, number: int) -> Iterator[object]:
        for count, batch in enumerate(plain(self, number)):
            if number == epoch and count == after:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(batches.EpochBatches, "__call__", interrupted)


def test_resume_with_more_epochs(data: FakeDataset, six: Path, three: Path, tmp_path: Path) -> None:
    run = copied(three, tmp_path)
    assert len(losses(run)) == 3
    train(data.root, config(data, run, resume=True))
    assert len(losses(run)) == 6
    same(run, six)


def test_finished_epochs_are_read_from_the_state(three: Path, tmp_path: Path) -> None:
    state = three / STATE
    assert finished_epochs(state) == 3
    assert finished_epochs(tmp_path / "missing") == 0
    (tmp_path / "cut").write_bytes(state.read_bytes()[:100])
    assert finished_epochs(tmp_path / "cut") == 0


def test_resume_after_interrupt(
    data: FakeDataset, six: Path, three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stopping(4, 1, patch)
        with pytest.raises(KeyboardInterrupt):
            train(data.root, config(data, run))
    assert losses(run) == losses(three)  # the fourth was not finished
    assert (run / "best.safetensors").read_bytes() == (three / "best.safetensors").read_bytes()
    assert {"last.safetensors", "metrics.json", "config.yaml"} <= files(run).keys()
    train(data.root, config(data, run, resume=True))
    same(run, six)


def test_interrupt_while_writing_state_keeps_epoch(
    data: FakeDataset, three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path, *rest: object) -> None:
        if len(rest[3].epochs) == 3:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "write_state", interrupt)
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(data.root, config(data, run))
    same(run, three)


def test_resume_after_kill_between_epochs(
    data: FakeDataset, six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    plain = run_state.write_state

    def die(path: Path, *rest: object) -> None:
        plain(path, *rest)  # type: ignore[arg-type]
        if len(rest[3].epochs) == 2:  # type: ignore[attr-defined]
            raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "write_state", die)
        with pytest.raises(SystemExit):
            train(data.root, config(data, run))
    assert files(run).keys() == {"state.safetensors"}
    train(data.root, config(data, run, resume=True))
    same(run, six)


def test_interrupt_keeps_finished_epochs_and_exits_130(
    data: FakeDataset,
    three: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stopping(4, 0, monkeypatch)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in {**data.settings(), **SMALL, "epochs": 6}.items()]
    assert cli.run(["train", str(data.root), f"--out={tmp_path / 'run'}", *flags]) == 130
    assert "vidgru: interrupted; finished work is kept" in capsys.readouterr().err
    same(tmp_path / "run", three)


def test_immediate_interrupt_keeps_earlier_run(
    data: FakeDataset, three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(three, tmp_path)
    before = files(run)
    stopping(1, 1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(data.root, config(data, run, lr=1e-4, exist_ok=True))
    assert files(run) == before


@pytest.mark.parametrize(("changes", "message"), [
    ({"lr": 1e-4}, r"the run in .*run cannot be resumed with other settings: lr is 0\.0001, was 0\.003\n  leave out"),
    ({"hidden": 17, "seed": 4}, "hidden is 17, was 16; seed is 4, was 0"),
    ({"drop_features": ("scene",)}, r"drop_features is \['scene'\], was \[\]"),
])  # fmt: skip
def test_resume_with_other_settings_is_refused(
    data: FakeDataset, three: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    run = copied(three, tmp_path)
    before = files(run)
    with pytest.raises(SettingsError, match=message):
        train(data.root, config(data, run, resume=True, **changes))
    assert files(run) == before


def test_resume_with_other_annotations_is_refused(data: FakeDataset, three: Path, tmp_path: Path) -> None:
    rows = [row.replace("car_then_person", "person_then_car") if row.startswith("001") else row for row in data.rows]
    (data.root / "other.csv").write_text("video,start,end,label,description,split\n" + "\n".join(rows) + "\n")
    (data.root / "other.yaml").write_text("annotations: other.csv\nvideos: videos\n")
    if rows == data.rows:
        rows[0] = rows[0].replace("person_then_car", "car_then_person")
    (data.root / "other.csv").write_text("video,start,end,label,description,split\n" + "\n".join(rows) + "\n")
    with pytest.raises(SettingsError, match=r"cannot be resumed: its annotations or features have changed\n  leave"):
        train(data.root / "other.yaml", config(data, copied(three, tmp_path), resume=True))


def test_resume_without_run_is_refused(data: FakeDataset, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no run to resume in .*gone\n  leave out --resume to start anew"):
        train(data.root, config(data, tmp_path / "gone", resume=True))
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("left", [b"", b"not tensors", b"\x02\0\0\0\0\0\0\0{}"])
def test_corrupt_state_is_refused(data: FakeDataset, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "state.safetensors").write_bytes(left)
    with pytest.raises(ModelError, match=r"state\.safetensors cannot be resumed from: "):
        train(data.root, config(data, tmp_path, resume=True))


def test_resume_of_finished_run_changes_nothing(data: FakeDataset, three: Path, tmp_path: Path) -> None:
    run = copied(three, tmp_path)
    before = files(run)
    train(data.root, config(data, run, epochs=3, resume=True))
    after = files(run)
    for name in (*MODELS, "results.csv", "state.safetensors", "metrics.json"):
        assert after[name] == before[name], name


def test_resume_with_other_runtime_settings(data: FakeDataset, six: Path, three: Path, tmp_path: Path) -> None:
    run = copied(three, tmp_path)
    moved = tmp_path / "moved.pt"
    shutil.copy(data.weights, moved)
    settings = data.settings(**{**SMALL, "out": str(run), "epochs": 6, "resume": True, "detector_batch": 2})
    train(data.root, from_settings(TrainConfig, **{**settings, "patience": 30, "weights": str(moved)}))
    assert losses(run) == losses(six)


def test_resume_of_run_with_init(data: FakeDataset, three: Path, tmp_path: Path) -> None:
    model, default = str(three / "best.safetensors"), TrainConfig().network.hidden  # the model's own takes its place
    straight = train(data.root, config(data, tmp_path / "straight", init=model, epochs=2, hidden=default))
    train(data.root, config(data, tmp_path / "run", init=model, epochs=1, hidden=default))
    run = train(data.root, config(data, tmp_path / "run", init=model, resume=True, epochs=2, hidden=default))
    same(run, straight)


def test_settings_that_exclude_resume() -> None:
    with pytest.raises(SettingsError, match="folds is 3; it must be left out with --resume"):
        TrainConfig(resume=True, folds=3)


def test_unwritable_folder_is_refused(data: FakeDataset, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        train(data.root, config(data, tmp_path / "run"))
