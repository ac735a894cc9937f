"""Offline, and without a screen: set before anything heavy is imported."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ["YOLO_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["OMP_NUM_THREADS"] = "1"  # threads of several workers that wait for one another cost many times the work


@pytest.fixture(scope="session", autouse=True)
def _graphs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What vidgru keeps for the user is kept among the tests' own files, one folder for all workers."""
    base = tmp_path_factory.getbasetemp()
    os.environ["VIDGRU_CACHE"] = str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "kept")


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Path of a tiny detector with random weights, of the kind named; each is made once, for all workers."""
    from tests.detectors import make_weights

    own, base = tmp_path_factory.mktemp("weights"), tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny"
    shared.mkdir(exist_ok=True)

    def made(kind: str = "yolo26n") -> Path:
        path = shared / f"{kind}.pt"
        if not path.exists():
            with suppress(FileExistsError):  # another worker was faster: one file, never exchanged
                os.link(make_weights(own / path.name, kind), path)
        return path

    return made


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoder processes in which faults are planted, see `planted.py`, and little patience with those that hang."""
    monkeypatch.setattr("vidgru.extraction.decode_process.COMMAND", [sys.executable, "-m", "tests.fault_injection"])
    monkeypatch.setattr("vidgru.extraction.decode_process.HANG_S", 1.0)
    monkeypatch.setattr("vidgru.extraction.decode_process.WATCH_S", 0.1)
