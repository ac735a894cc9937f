"""Shared fixtures. The environment is set before heavy imports: offline, without a display, one thread."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ["YOLO_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["OMP_NUM_THREADS"] = "1"  # threads of several test workers would wait for one another
os.fsync = lambda descriptor: None  # no test cuts the power, and waiting for the disk takes a tenth of all time


@pytest.fixture(scope="session", autouse=True)
def _cache_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Use one cache folder for all test workers instead of the user's."""
    base = tmp_path_factory.getbasetemp()
    os.environ["VIDGRU_CACHE"] = str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "user_cache")


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the path of a tiny detector of a kind; each is made once for all workers."""
    from tests.detectors import make_weights

    folder, base = tmp_path_factory.mktemp("weights"), tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny"
    shared.mkdir(exist_ok=True)

    def get_path(kind: str = "yolo26n") -> Path:
        path = shared / f"{kind}.pt"
        if not path.exists():
            with suppress(FileExistsError):  # another worker was faster; its file stays
                os.link(make_weights(folder / path.name, kind), path)
        return path

    return get_path


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoder processes in which faults are planted, see `planted.py`, and little patience with those that hang."""
    monkeypatch.setattr("vidgru.extraction.decode_process.COMMAND", [sys.executable, "-m", "tests.fault_injection"])
    monkeypatch.setattr("vidgru.extraction.decode_process.HANG_S", 1.0)
    monkeypatch.setattr("vidgru.extraction.decode_process.WATCH_S", 0.1)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A real browser; one per process, because Playwright runs one event loop."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install vidgru[dev]")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()
