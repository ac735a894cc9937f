"""Assignment of recordings, and deaths of workers, with a fake Ray whose workers are scripted."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.errors import OutputError, SettingsError
from vidgru.scale.cluster import WorkerPlan
from vidgru.scale.worker import RecordingProgress, WorkerProgress, WorkerTask
from vidgru.scale.worker_pool import MAX_DEATHS, LostRecording, WorkerPool
from vidgru.types import Recording

TASK = WorkerTask(cache=Path("/features"), detect=DetectorSettings(), run=RuntimeSettings())


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class FakeActor:
    """A worker that answers at once; `process` decides how a recording ends."""

    def __init__(self, ray: "FakeRay", number: int) -> None:
        self.ray, self.number, self.dead = ray, number, False
        self.recordings: list[int] = []  # in progress
        names = ("start", "process", "take_progress", "close")
        self.start, self.process, self.take_progress, self.close = (FakeMethod(self, name) for name in names)


class FakeMethod:
    def __init__(self, actor: FakeActor, name: str) -> None:
        self.actor, self.name = actor, name

    def options(self, **options: str) -> "FakeMethod":
        assert options == {"concurrency_group": "control"}
        return self

    def remote(self, *arguments: Any) -> "FakeRef":
        if self.name == "process":
            self.actor.recordings.append(arguments[0])
        self.actor.ray.calls.append((self.actor.number, self.name, *arguments[:1]))
        return FakeRef(self.actor, self.name, arguments)


class FakeRef:
    def __init__(self, actor: FakeActor, name: str, arguments: tuple[Any, ...]) -> None:
        self.actor, self.name, self.arguments = actor, name, arguments


class FakeRay:
    """The part of Ray that is used. Calls return one at a time, `process` last, so that workers have several."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(
        self, process: Callable[[FakeActor, int], str], start: Callable[[FakeActor], None] = lambda actor: None
    ) -> None:
        self._process, self._start = process, start
        self.actors: list[FakeActor] = []
        self.killed: list[int] = []
        self.calls: list[tuple[Any, ...]] = []
        self.options: dict[str, Any] = {}

    def remote(self, **options: Any) -> Callable[[type], Any]:
        self.options = options

        def make_actor(task: WorkerTask) -> FakeActor:
            assert task is TASK
            self.actors.append(FakeActor(self, len(self.actors)))
            return self.actors[-1]

        return lambda worker: SimpleNamespace(remote=make_actor)

    def wait(self, refs: list[FakeRef], *, num_returns: int = 1, timeout: float) -> tuple[list[FakeRef], list[FakeRef]]:
        first = sorted(refs, key=lambda ref: (ref.name == "process", -ref.actor.number))[:1]
        return first, [ref for ref in refs if ref not in first]

    def get(self, ref: FakeRef) -> Any:
        if ref.actor.dead:
            raise RayError("it is dead")
        if ref.name == "start":
            self._start(ref.actor)
            return f"node{ref.actor.number}"
        if ref.name == "take_progress":
            recordings = {number: RecordingProgress(samples=2) for number in (*ref.actor.recordings, 99)}
            return WorkerProgress(recordings=recordings, messages=["the detector"])
        try:
            return self._process(ref.actor, ref.arguments[0])
        finally:
            ref.actor.recordings.remove(ref.arguments[0])

    def kill(self, actor: FakeActor) -> None:
        actor.dead = True
        self.killed.append(actor.number)


class FakeBar:
    """Records what a progress bar would show."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.advanced: list[int] = []

    def advance(self, number: int, seconds: float, share: float, samples: int) -> None:
        self.advanced.append(number)

    def log(self, line: str) -> None:
        self.messages.append(line)


def run_pool(ray: FakeRay, folder: Path, sizes: list[int], *, workers: int = 2) -> tuple[dict[int, Any], FakeBar]:
    """Process recordings of these sizes; return the results by number, and the bar."""
    recordings = {}
    for number, size in enumerate(sizes):
        path = folder / f"{number}.mp4"
        path.write_bytes(bytes(size))
        recordings[number] = Recording(path=path, name=path.name)
    plan, bar = WorkerPlan(workers=workers, threads=1, gpus=0.5), FakeBar()
    return dict(WorkerPool(ray, plan, TASK, bar).process(recordings)), bar


def assigned(ray: FakeRay) -> dict[int, list[int]]:
    """Return the recordings of each worker, in order."""
    return {actor.number: [c[2] for c in ray.calls if c[:2] == (actor.number, "process")] for actor in ray.actors}


def test_pool_assigns_the_largest_recordings_first(tmp_path: Path) -> None:
    ray = FakeRay(lambda actor, number: f"{number} by {actor.number}")
    results, bar = run_pool(ray, tmp_path, [50, 10, 90, 40, 20])
    # Worker 1 starts first, and leaves recordings for the other.
    assert assigned(ray) == {1: [2, 0, 3], 0: [4, 1]}
    assert results == {2: "2 by 1", 0: "0 by 1", 3: "3 by 1", 4: "4 by 0", 1: "1 by 0"}
    assert sorted(ray.killed) == [0, 1], "workers are killed"
    assert [call for call in ray.calls if call[1] == "close"] == [(0, "close"), (1, "close")], "but closed before"
    assert bar.messages == ["the detector"], "equal messages are shown once"
    assert bar.advanced
    assert 99 not in bar.advanced, "no progress of recordings that are not in progress"
    assert ray.options["num_cpus"] == 1
    assert ray.options["num_gpus"] == 0.5
    assert ray.options["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "1"


def test_pool_starts_no_more_workers_than_recordings(tmp_path: Path) -> None:
    ray = FakeRay(lambda actor, number: "")
    run_pool(ray, tmp_path, [1, 2], workers=9)
    assert len(ray.actors) == 2


def test_pool_replaces_a_dead_worker(tmp_path: Path) -> None:
    def process(actor: FakeActor, number: int) -> str:
        if actor.number == 1:
            actor.dead = True
            raise RayError("killed")
        return f"{number}"

    ray = FakeRay(process)
    results, bar = run_pool(ray, tmp_path, [5, 4, 3, 2, 1])
    assert results == {number: str(number) for number in range(5)}
    assert bar.messages.count("a Ray worker on node1 died while processing 3 recordings; others will resume") == 1
    assert len(ray.actors) == 3


def test_pool_fails_only_the_recording_that_kills(tmp_path: Path) -> None:
    def process(actor: FakeActor, number: int) -> str:
        if 2 in actor.recordings:  # kills the process, whichever call is answered
            alone.append(len(actor.recordings) == 1)
            actor.dead = True
            raise RayError("killed")
        return "done"

    alone: list[bool] = []
    ray = FakeRay(process)
    results, _ = run_pool(ray, tmp_path, [9, 8, 7, 6, 5, 4])
    assert [number for number, result in results.items() if result == "done"] != []
    assert {number for number, result in results.items() if isinstance(result, LostRecording)} == {2}
    assert results[2].reason.startswith("3 Ray workers died while processing it, the last on node")
    assert alone[-1], "the last attempt ran alone"
    assert len(alone) == MAX_DEATHS


def test_pool_raises_errors_of_the_run(tmp_path: Path) -> None:
    def process(actor: FakeActor, number: int) -> str:
        raise RayTaskError(OutputError("the disk is full", "free it"))

    ray = FakeRay(process)
    with pytest.raises(OutputError, match="the disk is full"):
        run_pool(ray, tmp_path, [1, 2, 3])
    assert sorted(ray.killed) == [0, 1]


def test_pool_stops_if_workers_cannot_start(tmp_path: Path) -> None:
    def fail(actor: FakeActor) -> None:
        raise RayError("No module named\n 'vidgru'")

    ray = FakeRay(lambda actor, number: "", fail)
    with pytest.raises(SettingsError, match="die before they have started: No module named 'vidgru'") as error:
        run_pool(ray, tmp_path, [1, 2, 3])
    assert "same versions" in error.value.remedy
    assert len(ray.actors) == 4, "three tries, two at a time"


def test_pool_raises_bugs_of_workers(tmp_path: Path) -> None:
    def process(actor: FakeActor, number: int) -> str:
        raise RayTaskError(KeyError("a bug"))

    with pytest.raises(RayTaskError, match="a bug"):
        run_pool(FakeRay(process), tmp_path, [1])
