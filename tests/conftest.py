"""Offline, and without a screen: set before anything heavy is imported."""

import os

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
