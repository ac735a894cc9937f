"""Data-parallel training."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.synthetic import FakeDataset, both_data
from vidgru.config import CompareConfig, TrainConfig
from vidgru.errors import SettingsError
from vidgru.flags import from_settings
from vidgru.model.checkpoint import load_model
from vidgru.training import batches
from vidgru.training.compare import compare
from vidgru.training.run import train

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"
SMALL = {"dropout": 0.0, "group_dropout": 0.0, "hidden": 16, "width": 16, "batch": 5, "patience": 0, "members": 1}


def rows(run: Path) -> list[dict[str, float]]:
    reader = csv.DictReader((run / "results.csv").read_text().splitlines())
    return [{name: float(value) for name, value in row.items() if name != "seconds"} for row in reader]


def train_distributed(
    data: FakeDataset, out: Path, processes: int, **changes: object
) -> subprocess.CompletedProcess[str]:
    settings = data.settings(**{"out": str(out), **SMALL, **changes})
    names = {f"--{name.replace('_', '-')}": value for name, value in settings.items()}
    flags = [name if value is True else f"{name}={value}" for name, value in names.items()]
    return launch(processes, SCRIPT, str(data.root), *flags)


def launch(processes: int, *command: str | Path) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launch, *map(str, command)], capture_output=True, text=True, timeout=300, check=False, env=environment
    )


@pytest.mark.slow
def test_two_processes_train_same_model_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen clips in batches of five: in the last one the second process has no share. Every head has its batches."""
    monkeypatch.setattr(batches, "_MIN_CLIP_BATCHES", 16)  # as in other processes
    data = both_data(tmp_path / "data", train=8, val=2, captions=True)
    alone = train(
        data.root, from_settings(TrainConfig, **data.settings(**{"out": str(tmp_path / "alone"), **SMALL, "epochs": 3}))
    )
    process = train_distributed(data, tmp_path / "run", 2, epochs=2)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("validation, epoch ") == 1
    assert process.stdout.count("recordings (") == 1
    assert process.stdout.count("model: ") == 1
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {path.name for path in alone.iterdir()}

    for one, two in zip(rows(alone), rows(tmp_path / "run"), strict=False):
        assert one == pytest.approx(two, rel=1e-3, abs=1e-4)
    assert len(rows(tmp_path / "run")) == 2

    # one process goes on where two stopped
    settings = data.settings(**{"out": str(tmp_path / "run"), **SMALL, "epochs": 3})
    resumed = train(data.root, from_settings(TrainConfig, **settings, resume=True))
    ours, theirs = (load_model(run / "last.safetensors").network.state_dict() for run in (alone, resumed))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=2e-3, msg=name)
    assert load_model(alone).decode == load_model(resumed).decode
    assert "caption_head.bias" in ours


def test_single_process_commands_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    data = both_data(tmp_path / "data", train=2, val=2)
    settings = data.train_settings(out=str(tmp_path / "run"))
    message = "{} runs in a single process\n  start it without torchrun"
    with pytest.raises(SettingsError, match=message.format("cross-validation")):
        train(data.root, from_settings(TrainConfig, **settings, folds=2))
    with pytest.raises(SettingsError, match=message.format("compare")):
        compare(data.root, from_settings(CompareConfig, **settings))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_error_ends_all_processes(tmp_path: Path) -> None:
    data = both_data(tmp_path / "data", train=2, val=2)
    process = train_distributed(data, tmp_path / "run", 2, epochs=1, resume=True)
    assert process.returncode != 0
    assert "there is no run to resume in" in process.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_is_equal_compares_processes(tmp_path: Path) -> None:
    script = tmp_path / "ask.py"
    script.write_text(
        "import os, sys\n"
        "from vidgru.training.distributed import process_group\n"
        "with process_group() as processes:\n"
        "    equal = [processes.is_equal(value) for value in ('a', os.environ['RANK'], 'b')]\n"
        "sys.exit(0 if equal == [True, False, True] else 3)\n"
    )
    process = launch(2, script)
    assert process.returncode == 0, process.stderr
