"""How a cluster is shared out."""

import socket
from pathlib import Path
from typing import Any

import pytest

from vidgru.config import ScaleSettings
from vidgru.errors import SettingsError
from vidgru.scale import cluster
from vidgru.scale.cluster import size_crew

SMALL, BIG = {"CPU": 4.0, "memory": 1e9}, {"CPU": 16.0}
HEAD = {"CPU": 0.0, "memory": 1e9}  # as `ray start --head --num-cpus 0` makes one that only leads
GPUS = {"CPU": 16.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("given", "machines", "crew"),
    [
        ({}, [SMALL], (1, 4, 0)),
        ({}, [SMALL] * 3, (3, 4, 0)),
        ({}, [HEAD, SMALL, BIG], (2, 8, 0)),
        ({"workers": 2}, [SMALL], (2, 2, 0)),
        ({"workers": 3}, [SMALL], (3, 1, 0)),
        ({"workers": 9}, [SMALL], (9, 1, 0)),
        ({"workers": 2}, [SMALL, SMALL], (2, 4, 0)),
        ({"workers": 3}, [SMALL, BIG], (3, 5, 0)),
        ({"threads_per_worker": 4}, [SMALL, BIG], (5, 4, 0)),
        ({"threads_per_worker": 5}, [SMALL, BIG], (3, 5, 0)),
        ({"workers": 1, "threads_per_worker": 2}, [SMALL, BIG], (1, 2, 0)),
        ({"gpus_per_worker": 1}, [GPUS, BIG], (4, 4, 1)),
        ({"gpus_per_worker": 0.5}, [GPUS], (8, 2, 0.5)),
        ({"gpus_per_worker": 1, "threads_per_worker": 8}, [GPUS], (2, 8, 1)),
        ({"gpus_per_worker": 1, "workers": 2}, [GPUS], (2, 8, 1)),
    ],
)
def test_the_crew_follows_from_what_is_given(
    given: dict[str, Any], machines: list[dict[str, float]], crew: tuple[int, int, float]
) -> None:
    found = size_crew(ScaleSettings(ray="auto", **given), machines)
    assert (found.workers, found.threads, found.gpus) == crew


@pytest.mark.parametrize(
    ("given", "machines", "message"),
    [
        ({"threads_per_worker": 5}, [SMALL, HEAD], "a worker of 5 cores; their cores and GPUs: 4 and 0, 0 and 0"),
        ({"gpus_per_worker": 1}, [SMALL], "a worker of 1 core and 1 GPU; their cores and GPUs: 4 and 0"),
        ({"gpus_per_worker": 1, "threads_per_worker": 8}, [BIG, {"CPU": 2.0, "GPU": 1.0}], "8 cores and 1 GPU"),
        ({}, [], "their cores and GPUs: none"),
    ],
)
def test_a_worker_that_fits_nowhere(given: dict[str, Any], machines: list[dict[str, float]], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as error:
        size_crew(ScaleSettings(ray="auto", **given), machines)
    assert "--threads-per-worker" in error.value.remedy


def test_words() -> None:
    assert str(size_crew(ScaleSettings(ray="auto"), [SMALL])) == "1 worker of 4 cores"
    assert (
        str(size_crew(ScaleSettings(ray="auto", gpus_per_worker=0.25), [GPUS])) == "16 workers of 1 core and 0.25 GPU"
    )


def test_auto_finds_the_cluster_that_was_started_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert cluster._running() == "local"
    noted = tmp_path / "ray" / "ray_current_cluster"
    noted.parent.mkdir()
    noted.write_text("127.0.0.1:1\n")
    assert cluster._running() == "local", "it has ended"
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"127.0.0.1:{server.getsockname()[1]}"
        noted.write_text(here)
        assert cluster._running() == here
        monkeypatch.setenv("RAY_ADDRESS", "auto")
        assert cluster._running() == here
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert cluster._running() == "10.0.0.1:6379"


def test_a_cluster_that_wants_a_token_is_refused_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")

    def init(**_: object) -> None:
        raise ray.exceptions.AuthenticationError("Invalid or missing token")

    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(SettingsError, match="ray is 'local', where no cluster can be joined: Invalid or missing token"),
        cluster.joined("local"),
    ):
        pass


def test_a_token_is_looked_for_where_ray_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert not cluster._has_token()
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("token")
    assert cluster._has_token()
    (tmp_path / ".ray" / "auth_token").unlink()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "token")
    assert cluster._has_token()
