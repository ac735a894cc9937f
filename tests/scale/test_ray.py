"""Runs on a real Ray cluster of two machines, which are processes of this one; workers and machines are killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.prediction.fake_project import make_model
from tests.videos import write_video
from vidgru.cache import SequenceCache
from vidgru.config import ExtractConfig, PredictConfig
from vidgru.errors import MissingDependencyError, SettingsError, WeightsError
from vidgru.extraction.pipeline import ExtractionResult, extract_recordings, feature_settings_for
from vidgru.flags import from_settings
from vidgru.prediction import batch
from vidgru.scale.ray import extract_with_ray, predict_with_ray
from vidgru.sources import find_recordings

Weights = Callable[[str], Path]

HOW = {"backend": "torch", "precision": "fp32"}
RECORDINGS = 8


def test_ray_that_is_not_installed(tmp_path: Path, tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    write_video(tmp_path / "v" / "a.mp4", 5)
    with pytest.raises(MissingDependencyError, match="Ray is not installed") as error:
        extract(tmp_path, config(tmp_path, tiny_weights, ray="auto"))
    assert error.value.remedy == "pip install 'vidgru[ray]'"
    assert not (tmp_path / "ray").exists(), "nothing is left"


@pytest.mark.parametrize(
    ("address", "reason"), [("127.0.0.1:1", "Connection refused"), ("somewhere", "it is not HOST:PORT")]
)
def test_an_address_where_no_cluster_is(tmp_path: Path, tiny_weights: Weights, address: str, reason: str) -> None:
    pytest.importorskip("ray")
    write_video(tmp_path / "v" / "a.mp4", 5)
    with pytest.raises(SettingsError, match=f"ray is '{address}', where no cluster can be joined: .*{reason}"):
        extract(tmp_path, config(tmp_path, tiny_weights, ray=address))


def test_weights_that_are_missing_are_told_before_ray_is_asked(tmp_path: Path, tiny_weights: Weights) -> None:
    with pytest.raises(WeightsError, match="no such weights file"):
        extract_with_ray(
            [],
            SequenceCache(tmp_path),
            from_settings(ExtractConfig, weights=str(tmp_path / "none.pt"), ray="auto"),
            progress=False,
        )


def test_nothing_to_do_needs_no_cluster(tmp_path: Path, tiny_weights: Weights) -> None:
    settings = config(tmp_path, tiny_weights, ray="auto")
    assert extract_with_ray([], SequenceCache(settings.out), settings, progress=False) == []


# --- on a cluster -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Weights) -> Path:
    """A folder with recordings, one that is none among them, and in `local` what a run without Ray makes of them."""
    folder = tmp_path_factory.mktemp("made")
    for number in range(RECORDINGS):
        write_video(folder / "v" / f"{number}.mp4", 150 + number, options={"crf": str(20 + number)})
    (folder / "v" / "text.mp4").write_text("hello\n" * 200)
    extract(folder, config(folder, tiny_weights, out=str(folder / "local"), threads=1))
    return folder


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster of two machines of one core each; the first is ours."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # or whatever else the machine does is done first
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    both = Cluster(initialize_head=True, head_node_args=node)
    both.other = both.add_node(**node)
    both.wait_for_nodes()
    yield both
    both.shutdown()


def config(folder: Path, tiny_weights: Weights, **settings: Any) -> ExtractConfig:
    weights = str(tiny_weights("yolo26n"))
    shared = {"weights": weights, "imgsz": 64, "fps": 10, "conf": 0.2, "max_objects": 6}
    return from_settings(ExtractConfig, **{"out": str(folder / "ray"), **shared, **HOW, **settings})


def extract(folder: Path, settings: ExtractConfig, **options: Any) -> list[ExtractionResult]:
    recordings = find_recordings([folder / "v"])
    options = {"progress": False, **options}
    if settings.scale.ray:
        return extract_with_ray(recordings, SequenceCache(settings.out), settings, **options)
    return extract_recordings(recordings, SequenceCache(settings.out), settings.detector, settings.runtime, **options)


def entries(cache: Path) -> dict[str, bytes]:
    return {str(p.relative_to(cache)): p.read_bytes() for p in sorted(cache.rglob("*")) if p.parent.parent == cache}


def busy(cache: Path) -> list[int]:
    """The processes that work on recordings at this moment, by their leases."""
    pids = set()
    for path in SequenceCache(cache).lock_folder.glob("*.lock"):
        with suppress(OSError, ValueError):  # it is over
            pids.add(json.loads(path.read_text())["pid"])
    return sorted(pids)


@pytest.mark.slow
def test_the_same_bytes_as_on_one_machine(
    tmp_path: Path, made: Path, tiny_weights: Weights, cluster: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    ended: list[str] = []
    settings = config(tmp_path, tiny_weights, ray=cluster.address, threads_per_worker=1)
    outcomes = extract(made, settings, progress=True, on_result=lambda one: ended.append(one.recording.name))
    assert [one.status for one in outcomes] == ["done"] * RECORDINGS + ["failed"]
    assert sorted(ended) == [one.recording.name for one in outcomes]
    assert "is not a video" in outcomes[-1].reason
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == ["Ray: 2 workers of 1 core", "detector: yolo26n.pt, torch fp32 on cpu, 1 threads"]
    assert entries(tmp_path / "ray") == entries(made / "local")
    assert {p.name for p in (tmp_path / "ray").iterdir() if not p.is_dir()} == {"index.jsonl", "summary.jsonl"}
    assert len((tmp_path / "ray" / "summary.jsonl").read_text().splitlines()) == RECORDINGS + 1
    again = extract(made, settings)
    assert [one.status for one in again] == ["reused"] * RECORDINGS + ["failed"]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["a worker", "both workers", "a machine"])
def test_who_is_killed_loses_nothing(
    tmp_path: Path, made: Path, tiny_weights: Weights, cluster: Any, capfd: pytest.CaptureFixture[str], what: str
) -> None:
    raylet = psutil.Process(cluster.other.all_processes["raylet"][0].process.pid)
    killed: list[int] = []

    def kill(outcome: ExtractionResult) -> None:
        pids = busy(tmp_path / "ray")
        if len(pids) == 2 and not killed:
            machine = [raylet.pid, *(one.pid for one in raylet.children(recursive=True))]
            killed.extend({"a worker": pids[:1], "both workers": pids, "a machine": machine}[what])
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    settings = config(tmp_path, tiny_weights, ray=cluster.address, threads_per_worker=1)
    outcomes = extract(made, settings, progress=True, on_result=kill)
    assert [one.status for one in outcomes] == ["done"] * RECORDINGS + ["failed"]
    shown = capfd.readouterr()
    assert killed
    assert shown.err.count("a Ray worker on") == (2 if what == "both workers" else 1), shown.err
    assert "under way, which go to others" in shown.err
    assert entries(tmp_path / "ray") == entries(made / "local")
    cache = SequenceCache(tmp_path / "ray")
    assert not cache.incomplete_entries()
    assert not cache.lock_folder.exists()


@pytest.mark.slow
def test_ctrl_c_ends_the_cluster_and_keeps_what_is_finished(tmp_path: Path, made: Path, tiny_weights: Weights) -> None:
    pytest.importorskip("ray")
    settings = config(tmp_path, tiny_weights)
    flags = [
        "--weights",
        settings.detector.weights,
        "--imgsz",
        "64",
        "--conf",
        "0.2",
        "--max-objects",
        "6",
        "--fps",
        "10",
    ]
    flags += ["--backend", "torch", "--precision", "fp32", "--out", settings.out, "--verbose"]
    command = [sys.executable, "-m", "vidgru", "extract", str(made / "v"), *flags]
    command += ["--ray=local", "--threads-per-worker", "1"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    said = ""
    while "done " not in said:
        said += run.stderr.readline()
    started = psutil.Process(run.pid).children(recursive=True)
    assert any("raylet" in one.name() for one in started)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=120)
    assert (run.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "vidgru: interrupted; finished work is kept"
    assert not psutil.wait_procs(started, timeout=30)[1]
    cache = SequenceCache(settings.out)
    assert not cache.lock_folder.exists(), "no other machine has to wait for them to expire"
    assert list(cache.entries())
    extract(made, config(tmp_path, tiny_weights, threads=1))
    assert entries(tmp_path / "ray") == entries(made / "local")


@pytest.mark.slow
def test_prediction_gives_the_same_files_whoever_is_killed(
    tmp_path: Path, made: Path, tiny_weights: Weights, cluster: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    detect = config(tmp_path, tiny_weights)
    cache = SequenceCache(made / "local")
    sequence = cache.read(next(cache.entries()).key)
    model = tmp_path / "model.safetensors"
    make_model(
        model, feature_settings_for(detect.detector), weights=detect.detector.weights, sequence=sequence, fall=0.9
    )

    def settings(out: str, features: Path, **values: Any) -> PredictConfig:
        return from_settings(PredictConfig, out=str(tmp_path / out), features=str(features), **HOW, **values)

    def kill() -> None:
        pids: list[int] = []
        while len(pids) < 2 or not list((tmp_path / "ray").glob("*/events.jsonl")):
            time.sleep(0.01)
            pids = busy(tmp_path / "f")
        os.kill(pids[0], signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    with_ray = settings("ray", tmp_path / "f", ray=cluster.address, threads_per_worker=1)
    found = predict_with_ray(model, [made / "v"], with_ray)
    assert "a Ray worker on" in capfd.readouterr().err
    assert [one.status for one in found] == ["done"] * RECORDINGS + ["failed"]
    assert all(one.events for one in found[:-1])
    batch.predict(model, [made / "v"], settings("local", made / "local", threads=1), progress=False)
    assert files(tmp_path / "ray") == files(tmp_path / "local")
    assert entries(tmp_path / "f") == entries(made / "local")
    again = predict_with_ray(model, [made / "v"], with_ray, progress=False)
    assert [one.status for one in again] == ["reused"] * RECORDINGS + ["failed"]


def files(folder: Path) -> dict[str, bytes]:
    """All but the summary, which tells how long each recording took."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    del found["summary.jsonl"]
    return found
