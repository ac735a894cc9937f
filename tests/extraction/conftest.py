import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest


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
    monkeypatch.setattr("vidgru.extraction.decoder.COMMAND", [sys.executable, "-m", "tests.extraction.planted"])
    monkeypatch.setattr("vidgru.extraction.decoder.HANG_S", 1.0)
    monkeypatch.setattr("vidgru.extraction.decoder.WATCH_S", 0.1)
