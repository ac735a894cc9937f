import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Path of a tiny detector with random weights, of the kind named; each is made once."""
    from tests.detectors import make_weights

    folder = tmp_path_factory.mktemp("weights")

    def made(kind: str = "yolo26n") -> Path:
        path = folder / f"{kind}.pt"
        return path if path.exists() else make_weights(path, kind)

    return made


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoder processes in which faults are planted, see `planted.py`, and little patience with those that hang."""
    monkeypatch.setattr("vidgru.extract.decoder.COMMAND", [sys.executable, "-m", "tests.extract.planted"])
    monkeypatch.setattr("vidgru.extract.decoder.HANG_S", 1.0)
    monkeypatch.setattr("vidgru.extract.decoder.WATCH_S", 0.1)
