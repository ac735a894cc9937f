"""Runs on a real Ray cluster of two nodes on this machine; workers and nodes are killed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.extraction.extraction_runs import entry_files
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

RUNTIME = {"backend": "torch", "precision": "fp32"}
RECORDINGS = 8


def test_extract_with_ray_needs_ray(tmp_path: Path, tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    write_video(tmp_path / "v" / "a.mp4", 5)
    with pytest.raises(MissingDependencyError, match="--ray needs Ray, which is not installed") as error:
        extract(tmp_path, config(tmp_path, tiny_weights, ray="auto"))
    assert error.value.remedy == "pip install 'vidgru[ray]'"
    assert not (tmp_path / "ray").exists(), "nothing is left"


@pytest.mark.parametrize(
    ("address", "reason"), [("127.0.0.1:1", "Connection refused"), ("somewhere", "it is not HOST:PORT")]
)
def test_extract_with_ray_rejects_an_unreachable_address(
    tmp_path: Path, tiny_weights: Weights, address: str, reason: str
) -> None:
    pytest.importorskip("ray")
    write_video(tmp_path / "v" / "a.mp4", 5)
    with pytest.raises(SettingsError, match=f"ray is '{address}', but no cluster can be reached there: .*{reason}"):
        extract(tmp_path, config(tmp_path, tiny_weights, ray=address))


def test_extract_with_ray_checks_weights_first(tmp_path: Path, tiny_weights: Weights) -> None:
    with pytest.raises(WeightsError, match="no such weights file"):
        extract_with_ray(
            [],
            SequenceCache(tmp_path),
            from_settings(ExtractConfig, weights=str(tmp_path / "none.pt"), ray="auto"),
            progress=False,
        )


def test_extract_with_ray_without_recordings(tmp_path: Path, tiny_weights: Weights) -> None:
    settings = config(tmp_path, tiny_weights, ray="auto")
    assert extract_with_ray([], SequenceCache(settings.out), settings, progress=False) == []


# --- on a cluster -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Weights) -> Path:
    """A folder with recordings and a text file, and in `local` the cache of a run without Ray."""
    folder = tmp_path_factory.mktemp("recordings")
    for number in range(RECORDINGS):
        write_video(folder / "v" / f"{number}.mp4", 150 + number, options={"crf": str(20 + number)})
    (folder / "v" / "text.mp4").write_text("hello\n" * 200)
    extract(folder, config(folder, tiny_weights, out=str(folder / "local"), threads=1))
    return folder


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster of two nodes with one core each; the driver is on the first."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else every other process of the machine goes first
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.second_node = cluster.add_node(**node)
    cluster.wait_for_nodes(timeout=120)
    yield cluster
    cluster.shutdown()


def config(folder: Path, tiny_weights: Weights, **settings: Any) -> ExtractConfig:
    weights = str(tiny_weights("yolo26n"))
    shared = {"weights": weights, "imgsz": 64, "fps": 10, "conf": 0.2, "max_objects": 6}
    return from_settings(ExtractConfig, **{"out": str(folder / "ray"), **shared, **RUNTIME, **settings})


def extract(folder: Path, settings: ExtractConfig, **options: Any) -> list[ExtractionResult]:
    recordings = find_recordings([folder / "v"])
    options = {"progress": False, **options}
    if settings.scale.ray:
        return extract_with_ray(recordings, SequenceCache(settings.out), settings, **options)
    return extract_recordings(recordings, SequenceCache(settings.out), settings.detector, settings.runtime, **options)


def locking_processes(cache: Path) -> list[int]:
    """Return the processes that hold locks at this moment."""
    pids = set()
    for path in SequenceCache(cache).lock_folder.glob("*.lock"):
        with suppress(OSError, ValueError):  # released meanwhile
            pids.add(json.loads(path.read_text())["pid"])
    return sorted(pids)


@contextmanager
def interrupting_workers(cache: Path, kill: Callable[[list[int]], list[int]]) -> Iterator[list[int]]:
    """While both workers work, suspend them, kill, and let the others continue. Yields the list of those killed.

    A worker that works is suspended until the other one works too: on a busy machine it could finish everything alone.
    """
    killed: list[int] = []
    has_ended = threading.Event()

    def watch() -> None:
        suspended: set[int] = set()
        while not has_ended.wait(0.005):
            for pid in locking_processes(cache):
                if pid not in suspended:
                    os.kill(pid, signal.SIGSTOP)
                    suspended.add(pid)
            working = suspended & set(locking_processes(cache))  # now that they are suspended
            if len(working) == 2:
                killed.extend(kill(sorted(working)))
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
            if len(working) == 2 or working != suspended:
                for pid in suspended.difference(killed):
                    os.kill(pid, signal.SIGCONT)
                suspended.clear()
            if killed:
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        has_ended.set()
        thread.join()


@pytest.mark.slow
def test_extract_with_ray_equals_a_local_run(
    tmp_path: Path, recordings: Path, tiny_weights: Weights, cluster: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    ended: list[str] = []
    settings = config(tmp_path, tiny_weights, ray=cluster.address, threads_per_worker=1)
    results = extract(recordings, settings, progress=True, on_result=lambda result: ended.append(result.recording.name))
    assert [result.status for result in results] == ["done"] * RECORDINGS + ["failed"]
    assert sorted(ended) == [result.recording.name for result in results]
    assert "is not a readable video" in results[-1].reason
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "Ray: 2 workers with 1 core each",
        "detector: yolo26n.pt, torch fp32 on cpu, 1 threads",
    ]
    assert entry_files(tmp_path / "ray") == entry_files(recordings / "local")
    assert {p.name for p in (tmp_path / "ray").iterdir() if not p.is_dir()} == {"index.jsonl", "summary.jsonl"}
    assert len((tmp_path / "ray" / "summary.jsonl").read_text().splitlines()) == RECORDINGS + 1
    again = extract(recordings, settings)
    assert [result.status for result in again] == ["reused"] * RECORDINGS + ["failed"]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["a worker", "both workers", "a node"])
def test_extract_with_ray_survives_kills(
    tmp_path: Path,
    recordings: Path,
    tiny_weights: Weights,
    cluster: Any,
    capfd: pytest.CaptureFixture[str],
    victim: str,
) -> None:
    raylet = psutil.Process(cluster.second_node.all_processes["raylet"][0].process.pid)
    cache = SequenceCache(tmp_path / "ray")
    finished: set[str] = set()  # before the kill

    def victims(workers: list[int]) -> list[int]:
        finished.update(entry.key for entry in cache.entries())
        node = [raylet.pid, *(process.pid for process in raylet.children(recursive=True))]
        return {"a worker": workers[:1], "both workers": workers, "a node": node}[victim]

    settings = config(tmp_path, tiny_weights, ray=cluster.address, threads_per_worker=1)
    with interrupting_workers(tmp_path / "ray", victims) as killed:
        results = extract(recordings, settings, progress=True)
    assert killed
    shown = capfd.readouterr()
    statuses = [result.status for result in results]
    assert (len(statuses), statuses.pop()) == (RECORDINGS + 1, "failed")
    # A worker may die between finishing an entry and returning its result; the entry is then reused.
    taken_over = re.findall(r"died while processing (a|\d+) recordings?; others will resume", shown.err)
    assert set(statuses) <= {"done", "reused"}
    assert {result.key for result in results if result.status == "reused"} <= finished
    assert statuses.count("reused") <= sum(1 if count == "a" else int(count) for count in taken_over)
    assert shown.err.count("a Ray worker on") == (2 if victim == "both workers" else 1), shown.err
    assert entry_files(tmp_path / "ray") == entry_files(recordings / "local")
    assert not cache.incomplete_entries()
    assert not cache.lock_folder.exists()


@pytest.mark.slow
def test_ctrl_c_stops_the_cluster_and_keeps_results(tmp_path: Path, recordings: Path, tiny_weights: Weights) -> None:
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
    # The long recording keeps the run from ending before the signal arrives.
    shutil.copytree(recordings / "v", tmp_path / "v")
    write_video(tmp_path / "v" / "long.mp4", 6000)
    command = [sys.executable, "-m", "vidgru", "extract", str(tmp_path / "v"), *flags]
    command += ["--ray=local", "--threads-per-worker", "1"]
    # Where tests run in the background of a shell, SIGINT is ignored, which processes inherit.
    ctrl_c = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=ctrl_c)
    assert run.stderr is not None
    printed = ""
    while "done " not in printed:
        printed += run.stderr.readline()
    started = psutil.Process(run.pid).children(recursive=True)
    assert any("raylet" in process.name() for process in started)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=120)
    assert (run.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "vidgru: interrupted; finished work is kept"
    assert not psutil.wait_procs(started, timeout=30)[1]
    cache = SequenceCache(settings.out)
    assert not cache.lock_folder.exists(), "locks are released, and need not expire"
    assert list(cache.entries())
    extract(recordings, config(tmp_path, tiny_weights, threads=1))
    assert entry_files(tmp_path / "ray") == entry_files(recordings / "local")


@pytest.mark.slow
def test_predict_with_ray_equals_a_local_run_after_a_kill(
    tmp_path: Path, recordings: Path, tiny_weights: Weights, cluster: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    detect = config(tmp_path, tiny_weights)
    cache = SequenceCache(recordings / "local")
    sequence = cache.read(next(cache.entries()).key)
    model = tmp_path / "model.safetensors"
    make_model(
        model, feature_settings_for(detect.detector), weights=detect.detector.weights, sequence=sequence, fall=0.9
    )

    def settings(out: str, features: Path, **values: Any) -> PredictConfig:
        values |= {"weights": detect.detector.weights, "features": str(features)}
        return from_settings(PredictConfig, out=str(tmp_path / out), **RUNTIME, **values)

    with_ray = settings("ray", tmp_path / "f", ray=cluster.address, threads_per_worker=1)
    with interrupting_workers(tmp_path / "f", lambda workers: workers[:1]):
        results = predict_with_ray(model, [recordings / "v"], with_ray)
    assert "a Ray worker on" in capfd.readouterr().err
    assert [result.status for result in results] == ["done"] * RECORDINGS + ["failed"]
    assert all(result.events for result in results[:-1])
    batch.predict(model, [recordings / "v"], settings("local", recordings / "local", threads=1), progress=False)
    assert files(tmp_path / "ray") == files(tmp_path / "local")
    assert entry_files(tmp_path / "f") == entry_files(recordings / "local")
    again = predict_with_ray(model, [recordings / "v"], with_ray, progress=False)
    assert [result.status for result in again] == ["reused"] * RECORDINGS + ["failed"]


def files(folder: Path) -> dict[str, bytes]:
    """Return all files but the summary, which has the time that each recording took."""
    contents = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    del contents["summary.jsonl"]
    return contents
