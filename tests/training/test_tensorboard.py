"""Curves in TensorBoard where it is installed, and nothing where it is not."""

import sys
from pathlib import Path

import pytest

from vidgru.errors import OutputError
from vidgru.training.tensorboard import board

ROW = {"epoch": 2, "lr": 0.1, "train_loss": 0.5, "val_macro_f1": 0.25}


def test_figures_are_written_by_epoch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with board(tmp_path, 1) as draw:
        draw({**ROW, "epoch": 1})
        draw(ROW)
    assert [path.name[:19] for path in (tmp_path / "tensorboard").iterdir()] == ["events.out.tfevents"]
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert set(read.Tags()["scalars"]) == {"lr", "train/loss", "val/macro_f1"}
    assert [(event.step, event.value) for event in read.Scalars("val/macro_f1")] == [(1, 0.25), (2, 0.25)]


def test_a_run_begun_anew_ends_the_curves_of_the_one_before(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, last in ((1, 4), (3, 5), (1, 2)):
        with board(tmp_path, first) as draw:
            for epoch in range(first, last + 1):
                draw({**ROW, "epoch": epoch, "train_loss": last})
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("train/loss")] == [(1, 2), (2, 2)]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "run").write_text("")
    with (
        pytest.raises(OutputError, match=r"cannot write .*run/tensorboard: Not a directory\n  free disk space"),
        board(tmp_path / "run", 1),
    ):
        pass


@pytest.mark.parametrize("missing", ["tensorboard", "torch.utils.tensorboard"])
def test_without_it_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in [name for name in sys.modules if name.startswith(("tensorboard", "torch.utils.tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with board(tmp_path, 1) as draw:
        draw(ROW)
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_happens() -> None:
    with board(None, 1) as draw:
        draw(ROW)
