"""Worker plans, and how clusters are found."""

import socket
from pathlib import Path
from typing import Any

import pytest

from vidgru.config import ScaleSettings
from vidgru.errors import SettingsError
from vidgru.scale import cluster
from vidgru.scale.cluster import plan_workers

SMALL, BIG = {"CPU": 4.0, "memory": 1e9}, {"CPU": 16.0}
HEAD = {"CPU": 0.0, "memory": 1e9}  # a head node that runs no workers: `ray start --head --num-cpus 0`
GPUS = {"CPU": 16.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("settings", "nodes", "expected"),
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
def test_plan_workers_completes_the_settings(
    settings: dict[str, Any], nodes: list[dict[str, float]], expected: tuple[int, int, float]
) -> None:
    plan = plan_workers(ScaleSettings(ray="auto", **settings), nodes)
    assert (plan.workers, plan.threads, plan.gpus) == expected


@pytest.mark.parametrize(
    ("settings", "nodes", "message"),
    [
        (
            {"threads_per_worker": 5},
            [SMALL, HEAD],
            "a worker with 5 cores; cores and GPUs of the nodes: 4 and 0, 0 and 0",
        ),
        ({"gpus_per_worker": 1}, [SMALL], "a worker with 1 core and 1 GPU; cores and GPUs of the nodes: 4 and 0"),
        ({"gpus_per_worker": 1, "threads_per_worker": 8}, [BIG, {"CPU": 2.0, "GPU": 1.0}], "8 cores and 1 GPU"),
        ({}, [], "cores and GPUs of the nodes: none"),
    ],
)
def test_plan_workers_rejects_too_large_workers(
    settings: dict[str, Any], nodes: list[dict[str, float]], message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as error:
        plan_workers(ScaleSettings(ray="auto", **settings), nodes)
    assert "--threads-per-worker" in error.value.remedy


def test_worker_plan_as_text() -> None:
    assert str(plan_workers(ScaleSettings(ray="auto"), [SMALL])) == "1 worker with 4 cores"
    assert (
        str(plan_workers(ScaleSettings(ray="auto", gpus_per_worker=0.25), [GPUS]))
        == "16 workers with 1 core and 0.25 GPU each"
    )


def test_find_cluster_started_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert cluster._find_cluster() == "local"
    address_file = tmp_path / "ray" / "ray_current_cluster"
    address_file.parent.mkdir()
    address_file.write_text("127.0.0.1:1\n")
    assert cluster._find_cluster() == "local", "it has been stopped"
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        address_file.write_text(address)
        assert cluster._find_cluster() == address
        monkeypatch.setenv("RAY_ADDRESS", "auto")
        assert cluster._find_cluster() == address
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert cluster._find_cluster() == "10.0.0.1:6379"


def test_connect_reports_a_missing_token(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")

    def init(**_: object) -> None:
        raise ray.exceptions.AuthenticationError("Invalid or missing token")

    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(SettingsError, match="ray is 'local', but no cluster can be reached there: Invalid or missing"),
        cluster.connect("local"),
    ):
        pass


def test_has_token_looks_where_ray_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
